//! What a rule asks of a token, how a rule is chosen by name, shadow mode and CORS preflights.

use passage_authz::testing::{jwks, tampered};
use serde_json::{Value, json};

use crate::support::attacks::{RULES, ask};
use crate::support::fixtures::{USER, good, inline, key};
use crate::support::http::said;
use crate::support::{Service, check_request, get, header_map_request};

#[tokio::test]
async fn a_route_may_pick_a_rule_by_name() {
    let service = Service::ready(&inline(RULES)).await;
    for (rule, path, want) in [
        (&["public"][..], "/secret", "allowed"),
        (&["public"], "/%2f..;/\\", "allowed"),
        (&["internal"], "/public/a", "rule_denies"),
        (&["staff"], "/public/a", "token_missing"),
        (&["Public"], "/public/a", "rule_unknown"),
        (&[""], "/public/a", "rule_unknown"),
        (&["public "], "/public/a", "rule_unknown"),
        (&["no such rule"], "/public/a", "rule_unknown"),
    ] {
        let mut request = check_request(&[]);
        let attributes = request.attributes.as_mut().unwrap();
        for rule in rule {
            attributes.context_extensions.insert("rule".to_owned(), (*rule).to_owned());
        }
        path.clone_into(&mut attributes.request.as_mut().unwrap().http.as_mut().unwrap().path);
        assert_eq!(service.send(request).await.code(), want, "{rule:?} {path}");
    }
    // A misspelt key is no silent "no rule"; other keys are not ours, and pick nothing.
    for (keys, want) in [
        (&["Rule"][..], "rule_unknown"),
        (&["RULE"], "rule_unknown"),
        (&["rUlE"], "rule_unknown"),
        (&["rules"], "rule_unknown"),
        (&["Rules"], "rule_unknown"),
        (&["rule", "Rule"], "rule_unknown"),
        (&["rule", "rules"], "rule_unknown"),
        (&["rule", "ruleset", "virtual_host"], "allowed"),
        (&["ruleset"], "token_missing"),
        (&["rule "], "token_missing"),
        (&["x-rule"], "token_missing"),
        (&["tenant"], "token_missing"),
    ] {
        let mut request = check_request(&[]);
        let extensions = &mut request.attributes.as_mut().unwrap().context_extensions;
        extensions.extend(keys.iter().map(|key| ((*key).to_owned(), "public".to_owned())));
        assert_eq!(service.send(request).await.code(), want, "{keys:?}");
    }
}

/// A bad token is as none under `lenient`, and is not forwarded as if it were good.
#[tokio::test]
async fn under_lenient_a_bad_token_is_anonymous() {
    let gone = "{name: gone, issuer: gone, audiences: [], keys: {url: 'http://127.0.0.1:9/'}, refresh: {wait: 10ms}}";
    let rules = "rules: [{name: shop, match: {paths: ['/shop/*']}, access: lenient}, \
                 {name: staff, match: {paths: ['/staff/*']}, access: lenient, require: {claims: {role: admin}}}, \
                 {name: shut, match: {paths: ['/shop/../shut', /shut]}, access: deny}]\n\
                 tokens: {from: [{header: authorization}, {cookie: session}, {query: access_token}]}\n";
    let rules = rules.replace("'/shop/../shut', ", "");
    let config = format!(
        "http: {{listen: '127.0.0.1:0', style: envoy}}\n\
         issuers:\n- {{name: passage, passage: {{app_id: app1}}, keys: {{inline: {}}}}}\n- {gone}\n{rules}",
        jwks(&[&key()])
    );
    let service = Service::ready(&config).await;
    let http = service.http.unwrap();
    let expired = key().mint("app1", |_, claims| claims["exp"] = json!(1));
    let of_gone = key().mint("gone", |_, _| {});
    let bound = key().mint("app1", |_, claims| claims["cnf"] = json!({"jkt": "x"}));
    let admin = key().mint("app1", |_, claims| claims["role"] = json!("admin"));
    // What is decided, and whether the token's own source is then removed.
    for (path, token, want, removed) in [
        ("/shop/a", None, "anonymous", false),
        ("/shop/a", Some(good()), "user-1", false),
        ("/shop/a", Some(expired.clone()), "anonymous", true),
        ("/shop/a", Some(tampered(&good())), "anonymous", true),
        ("/shop/a", Some("x".to_owned()), "anonymous", true),
        ("/shop/a", Some("x".repeat(9000)), "anonymous", true),
        ("/shop/a", Some(bound), "anonymous", true),
        ("/shop/a", Some(of_gone), "keys_unavailable", false),
        ("/shop/..%2fshut", Some(expired.clone()), "rule_denies", false),
        ("/other", Some(expired.clone()), "token_expired", false),
        ("/staff/a", Some(admin), "user-1", false),
        ("/staff/a", Some(good()), "claims_insufficient", false),
        ("/staff/a", None, "token_missing", false),
        ("/staff/a", Some(expired), "token_expired", false),
    ] {
        let bearer = token.as_ref().map(|token| ("authorization", format!("Bearer {token}")));
        let cookie = token.as_ref().map(|token| ("cookie", format!("a=b; session={token}")));
        let query = token
            .as_ref()
            .map_or_else(|| path.to_owned(), |token| format!("{path}?access_token={token}&c=d"));
        for (path, header) in [(path, bearer), (path, cookie), (query.as_str(), None)] {
            let headers: Vec<_> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let request = header_map_request("GET", "shop.example", path, &headers);
            let answer = service.send(request).await;
            let case = format!("{path:.20} {want} {:.20}", format!("{header:?}"));
            let decided = match answer.http {
                200 => answer.header(USER).unwrap_or("anonymous"),
                _ => answer.code(),
            };
            assert_eq!(decided, want, "{case}");
            assert_eq!(
                answer.remove.contains(&"authorization".to_owned()),
                removed && headers.first().is_some_and(|(name, _)| *name == "authorization"),
                "{case}"
            );
            assert_eq!(
                answer.header("cookie"),
                (removed && headers.first().is_some_and(|(name, _)| *name == "cookie")).then_some("a=b"),
                "{case}"
            );
            assert_eq!(
                answer.remove_query.contains(&"access_token".to_owned()),
                removed && path.contains('?'),
                "{case}"
            );

            // No answer over HTTP can remove a token in a query.
            let mut request = reqwest::Client::new().get(format!("http://{http}{path}"));
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let status = said(request).await.status;
            let wanted = if removed && path.contains('?') { 401 } else { answer.http };
            assert_eq!(status, wanted, "{case}");
        }
    }
}

#[tokio::test]
async fn claims_and_issuers_that_a_rule_asks_for() {
    let keys = jwks(&[&key()]);
    let text = format!(
        "issuers:\n- {{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}\n\
         - {{name: other, issuer: other, audiences: [], keys: {{inline: {keys}}}}}\n\
         rules:\n\
         - {{name: role, match: {{paths: [/role]}}, require: {{claims: {{role: admin, scope: [read, write]}}}}}}\n\
         - {{name: deep, match: {{paths: [/deep]}}, require: {{claims: {{/org/id: 7}}}}}}\n\
         - {{name: by, match: {{paths: [/by]}}, require: {{issuers: [other]}}}}\n\
         - {{name: maybe, match: {{paths: [/maybe]}}, access: optional, require: {{claims: {{role: admin}}}}}}\n\
         - {{name: all, match: {{paths: [/all]}}, require: {{claims: {{role: {{all: [a, b]}}, dept: {{any: x, split: true}}}}}}}}\n\
         - {{name: prefix, match: {{paths: [/prefix]}}, require: {{claims: {{sub: {{prefix: 'auth0|'}}, /roles/admin: {{present: true}}}}}}}}\n"
    );
    let service = Service::ready(&text).await;
    type Edit = fn(&mut Value);
    let rows: &[(&str, &str, Edit, &str)] = &[
        ("/role", "app1", |c| (c["role"], c["scope"]) = (json!("admin"), json!("read x")), "allowed"),
        ("/role", "app1", |c| (c["role"], c["scope"]) = (json!(["x", "admin"]), json!(["write"])), "allowed"),
        ("/role", "app1", |c| c["role"] = json!("admin"), "claims_insufficient"),
        (
            "/role",
            "app1",
            |c| (c["role"], c["scope"]) = (json!("admins"), json!("read")),
            "claims_insufficient",
        ),
        (
            "/role",
            "app1",
            |c| (c["role"], c["scope"]) = (json!({"admin": true}), json!("read")),
            "claims_insufficient",
        ),
        (
            "/role",
            "app1",
            |c| (c["role"], c["scope"]) = (json!("admin"), json!("readwrite")),
            "claims_insufficient",
        ),
        ("/deep", "app1", |c| c["org"] = json!({"id": 7}), "allowed"),
        ("/deep", "app1", |c| c["org"] = json!({"id": "7"}), "claims_insufficient"),
        ("/deep", "app1", |c| c["/org/id"] = json!(7), "claims_insufficient"),
        ("/by", "other", |_| {}, "allowed"),
        ("/by", "app1", |_| {}, "issuer_not_accepted"),
        ("/maybe", "app1", |c| c["role"] = json!("admin"), "allowed"),
        ("/maybe", "app1", |_| {}, "claims_insufficient"),
        ("/all", "app1", |c| (c["role"], c["dept"]) = (json!(["b", "a"]), json!("y x")), "allowed"),
        ("/all", "app1", |c| (c["role"], c["dept"]) = (json!(["a"]), json!("x")), "claims_insufficient"),
        ("/all", "app1", |c| (c["role"], c["dept"]) = (json!("a b"), json!("x")), "claims_insufficient"),
        (
            "/all",
            "app1",
            |c| (c["role"], c["dept"]) = (json!(["a", "b"]), json!("xy")),
            "claims_insufficient",
        ),
        (
            "/prefix",
            "app1",
            |c| (c["sub"], c["roles"]) = (json!("auth0|7"), json!({"admin": {"1": "org"}})),
            "allowed",
        ),
        (
            "/prefix",
            "app1",
            |c| (c["sub"], c["roles"]) = (json!("auth0|7"), json!(["admin"])),
            "claims_insufficient",
        ),
        ("/prefix", "app1", |c| c["sub"] = json!("auth0|7"), "claims_insufficient"),
        (
            "/prefix",
            "app1",
            |c| (c["sub"], c["roles"]) = (json!("xauth0|7"), json!({"admin": 1})),
            "claims_insufficient",
        ),
    ];
    for (path, iss, edit, want) in rows {
        let token = format!("Bearer {}", key().mint(iss, |_, claims| edit(claims)));
        assert_eq!(
            ask(&service, "GET", "h", path, &[("authorization", &token)]).await.code(),
            *want,
            "{path}"
        );
    }
    assert_eq!(ask(&service, "GET", "h", "/maybe", &[]).await.code(), "token_missing");
    let forged = format!("Bearer {}", tampered(&key().mint("other", |_, _| {})));
    let answer = ask(&service, "GET", "h", "/by", &[("authorization", &forged)]).await;
    assert_eq!(answer.code(), "signature_invalid", "what an unverified token says meets nothing");
}

#[tokio::test]
async fn shadow_lets_through_counts_and_trusts_no_refused_token() {
    let service = Service::ready(&inline(&format!("mode: shadow\n{RULES}"))).await;
    let expired = format!("Bearer {}", key().mint("app1", |_, claims| claims["exp"] = json!(1)));
    let bearer = format!("Bearer {}", good());
    for (path, token, shadow) in [
        ("/", None, Some("token_missing")),
        ("/", Some(&expired), Some("token_expired")),
        ("/internal/x", Some(&bearer), Some("rule_denies")),
        ("/staff/x", Some(&bearer), Some("claims_insufficient")),
        ("/", Some(&bearer), None),
        ("/public/a", None, None),
    ] {
        let headers: Vec<_> = token.iter().map(|token| ("authorization", token.as_str())).collect();
        let answer = ask(&service, "GET", "h", path, &headers).await;
        assert_eq!(answer.code(), "allowed", "{path}");
        let shown = answer.metadata.iter().find(|(name, _)| name == "shadow").map(|(_, code)| code.as_str());
        assert_eq!(shown, shadow, "{path}");
        let identified = shadow.is_none() && token.is_some();
        assert_eq!(answer.header(USER), identified.then_some("user-1"), "{path}");
        assert_eq!(answer.remove.contains(&USER.to_owned()), !identified, "{path}");
    }
    let (_, metrics) = get(service.admin, "/metrics").await;
    for (issuer, outcome, code, count) in [
        ("", "shadow_denied", "token_missing", 1),
        ("passage", "shadow_denied", "token_expired", 1),
        ("", "shadow_denied", "rule_denies", 1),
        ("passage", "shadow_denied", "claims_insufficient", 1),
        ("passage", "allowed", "", 1),
        ("", "allowed", "", 1),
    ] {
        let line = format!(
            "passage_authz_checks_total{{issuer=\"{issuer}\",outcome=\"{outcome}\",code=\"{code}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    assert_eq!(ask(&service, "GET", "h", "/%00", &[]).await.http, 400);
    let mut unknown = check_request(&[]);
    unknown.attributes.as_mut().unwrap().context_extensions.insert("rule".to_owned(), "x".to_owned());
    assert_eq!(service.send(unknown).await.http, 500);

    // One rule alone in shadow: the others go on as they were.
    let service = Service::ready(&inline(RULES)).await;
    assert_eq!(ask(&service, "GET", "h", "/tried/a", &[]).await.code(), "allowed");
    assert_eq!(
        ask(&service, "GET", "h", "/staff-tried/a", &[("authorization", &bearer)]).await.header(USER),
        None
    );
    assert_eq!(ask(&service, "GET", "h", "/other", &[]).await.code(), "token_missing");
}

#[tokio::test]
async fn preflights_pass_only_if_they_are_and_may() {
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    for (allowed, method, path, headers, want) in [
        (true, "OPTIONS", "/orders", &preflight[..], "allowed"),
        (true, "OPTIONS", "/internal/x", &preflight, "rule_denies"),
        (true, "OPTIONS", "/%00", &preflight, "request_malformed"),
        (true, "OPTIONS", "/orders", &preflight[..1], "token_missing"),
        (true, "OPTIONS", "/orders", &preflight[1..], "token_missing"),
        (true, "OPTIONS", "/orders", &[("origin", " "), preflight[1]], "token_missing"),
        (true, "OPTIONS", "/orders", &[preflight[0], ("access-control-request-method", "")], "token_missing"),
        (true, "GET", "/orders", &preflight, "token_missing"),
        (true, "options", "/orders", &preflight, "token_missing"),
        (false, "OPTIONS", "/orders", &preflight, "token_missing"),
    ] {
        let setting = if allowed { "cors_preflight: allow" } else { "cors_preflight: deny" };
        let service = Service::ready(&inline(&format!("{setting}\n{RULES}"))).await;
        let answer = ask(&service, method, "h", path, headers).await;
        assert_eq!(answer.code(), want, "{method} {path} {headers:?}");
        if want == "allowed" {
            assert!(answer.headers.is_empty() && answer.remove.contains(&USER.to_owned()));
        }
    }
}
