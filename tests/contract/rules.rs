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

/// `/users/{sub}/*` is the user's own, in every way in which an upstream may read the path.
#[tokio::test]
async fn segments_that_are_claims_of_the_token() {
    let rules = "rules:\n\
        - {name: avatar, match: {paths: ['/users/*/avatar']}, access: public}\n\
        - {name: own, match: {paths: ['/users/{sub}/*']}}\n\
        - {name: org, match: {paths: ['/orgs/{org}/*/issues', '/orgs/{org}/{team}']}}\n\
        - {name: mixed, match: {paths: ['/mixed/{sub}', '/mixed/all']}}\n\
        - {name: maybe, match: {paths: ['/maybe/{sub}']}, access: optional}\n\
        - {name: kept, match: {paths: ['/*/*/secret/*']}, access: deny}\n";
    let service = Service::ready(&inline(rules)).await;
    let insufficient = "claims_insufficient";
    let ann = json!({"sub": "ann", "org": 7, "team": "Core"});
    let ann = &ann;
    let odd = &json!({"sub": "auth0|a b@x.example", "org": ["acme"], "team": true});
    let percent = &json!({"sub": "50%25"});
    let french = &json!({"sub": "\u{e9}mile"});
    for (path, claims, want) in [
        ("/users/ann", ann, "allowed"),
        ("/users/ann/", ann, "allowed"),
        ("/users/ann/files/7?x=/users/bob", ann, "allowed"),
        ("/users/%61nn/files", ann, "allowed"),
        ("/users/bob", ann, insufficient),
        ("/users/bob/files", ann, insufficient),
        ("/users/an/files", ann, insufficient),
        ("/users/annn/files", ann, insufficient),
        ("/users//files", ann, insufficient),
        ("/users/", ann, insufficient),
        // Servers that compare without case find Bob's files under either name; only one of them is Ann's.
        ("/users/ANN/files", ann, insufficient),
        ("/USERS/ann/files", ann, "allowed"),
        ("/USERS/bob/files", ann, insufficient),
        // What some server resolves to another user's path.
        ("/users/ann/../bob/files", ann, insufficient),
        ("/users/ann%2f..%2fbob/files", ann, insufficient),
        ("/users/ann/..%2fbob/files", ann, insufficient),
        ("/users/bob/..;/ann/files", ann, insufficient),
        ("/users/ann%2fbob/files", ann, insufficient),
        ("/users/ann;bob/files", ann, insufficient),
        ("/users/ann/%2e%2e/bob", ann, insufficient),
        ("/users/ann%252f..%252fbob", ann, insufficient),
        ("/users/ann\\..\\bob", ann, insufficient),
        ("//users/ann/files", ann, "allowed"),
        ("//users/bob/files", ann, insufficient),
        ("/users/ann%00/files", ann, "request_malformed"),
        // Escapes are decoded before the comparison, once.
        ("/users/auth0%7Ca%20b%40x.example/f", odd, "allowed"),
        ("/users/auth0|a%20b@x.example/f", odd, "allowed"),
        ("/users/auth0%257Ca%20b%40x.example/f", odd, insufficient),
        ("/users/50%2525/f", percent, insufficient),
        ("/users/%C3%A9mile/f", french, "allowed"),
        ("/users/%c3%a9mile/f", french, "allowed"),
        ("/users/\u{e9}mile/f", french, "allowed"),
        ("/users/e%CC%81mile/f", french, insufficient),
        // Numbers by their digits; arrays never.
        ("/orgs/7/shop/issues", ann, "allowed"),
        ("/orgs/7.0/shop/issues", ann, insufficient),
        ("/orgs/07/shop/issues", ann, insufficient),
        ("/orgs/8/shop/issues", ann, insufficient),
        ("/orgs/7/Core", ann, "allowed"),
        ("/orgs/7/core", ann, insufficient),
        ("/orgs/acme/true", odd, insufficient),
        ("/orgs/acme/shop/issues", odd, insufficient),
        // One pattern of the rule is enough.
        ("/mixed/all", ann, "allowed"),
        ("/mixed/ann", ann, "allowed"),
        ("/mixed/bob", ann, insufficient),
        ("/maybe/ann", ann, "allowed"),
        ("/maybe/bob", ann, insufficient),
        ("/a/b/secret", ann, "rule_denies"),
        ("/a/b/secret/c", ann, "rule_denies"),
        ("/a//secret", ann, "rule_denies"),
        ("/a/secret", ann, "allowed"),
        ("/a/b/c/secret", ann, "allowed"),
        ("/users/bob/avatar", ann, "allowed"),
        ("/users/bob/x/../avatar", ann, insufficient),
    ] {
        let token = key().mint("app1", |_, all| {
            all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        });
        let bearer = format!("Bearer {token}");
        // Verified, and remembered.
        for _ in 0..2 {
            let request = header_map_request("GET", "a.example", path, &[("authorization", &bearer)]);
            assert_eq!(service.send(request).await.code(), want, "{path} {claims}");
        }
    }
    for (path, want) in [
        ("/users/bob/avatar", "allowed"),
        ("/users/bob/avatar/x", "token_missing"),
        ("/users/ann", "token_missing"),
        ("/maybe/ann", "token_missing"),
    ] {
        assert_eq!(
            service.send(header_map_request("GET", "a.example", path, &[])).await.code(),
            want,
            "{path}"
        );
    }
    // A route that picks the rule by name says nothing of the path.
    let mut request = check_request(&[("authorization", &format!("Bearer {}", good()))]);
    request.attributes.as_mut().unwrap().context_extensions.insert("rule".to_owned(), "own".to_owned());
    assert_eq!(service.send(request).await.code(), insufficient);
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
