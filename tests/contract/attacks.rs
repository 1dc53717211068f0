//! An authorization service is judged by what slips past it: hostile requests with the verdict each must get,
//! asked over gRPC, and some of them once more through the real Envoy.

use std::sync::Arc;

use crate::support::envoy::{Envoy, Upstream, seen};
use crate::support::{Answer, Service, check_request, header_map_request, raw_check_request};
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{FakeIssuer, SigningKey, jwks, tampered};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const USER: &str = "x-passage-user-id";

const RULES: &str = "
rules:
- {name: admin, match: {hosts: [admin.example, '*.admin.example']}, access: deny}
- {name: internal, match: {paths: [/internal/*, /internal]}, access: deny}
- {name: health, match: {paths: [/healthz], methods: [GET]}, access: public}
- {name: public, match: {paths: [/public/*]}, access: public}
- {name: optional, match: {paths: [/optional/*]}, access: optional}
- {name: tried, match: {paths: [/tried/*]}, shadow: true}
- {name: staff, match: {paths: [/staff/*]}, require: {claims: {role: staff}}}
- {name: staff-tried, match: {paths: [/staff-tried/*]}, require: {claims: {role: staff}}, shadow: true}
";

fn key() -> Arc<SigningKey> {
    SigningKey::shared("k1", Algorithm::Rs256)
}

fn good() -> String {
    key().mint("app1", |_, _| {})
}

fn config(more: &str) -> String {
    let keys = jwks(&[&key()]);
    format!("issuers: [{{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}]\n{more}\n")
}

/// A check of this method, host and path.
async fn ask(service: &Service, method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = check_request(headers);
    let http = request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    (http.method, http.host, http.path) = (method.to_owned(), host.to_owned(), path.to_owned());
    service.send(request).await
}

/// Paths that try to pass for public ones, without a token.
const NOT_PUBLIC: &[(&str, &[&str])] = &[
    (
        "token_missing",
        &[
            "/",
            "/public",
            "/publicx/a",
            "/Public/a",
            "/PUBLIC/a",
            "/public.a",
            "/public%20/a",
            "/public;/a",
            "/public;x=y/a",
            "/public/../secret",
            "/public/./../secret",
            "/public/a/../../secret",
            "/public/%2e%2e/secret",
            "/public/%2E%2e/secret",
            "/public/.%2e/secret",
            "/public/%2e./secret",
            "/public/..",
            "/public/../",
            "/secret?/public/a",
            "/secret?x=/public/",
            "/healthz/",
            "/healthz/x",
            "/healthzx",
            "/Healthz",
            "/healthz;x",
            "/healthz%20",
            "/healthz.json",
            "/x/healthz",
            "/healthz/../x",
            "/healthz/%2e%2e/x",
            "/%70ublicx/",
            "/secret/public/a",
            "/./secret",
            "//secret",
            "///secret//",
            "/secret/.",
            "/pub%6cic",
            "/optionalx/a",
            "*",
            "/public/..?x",
            "/public/%2e%2e?/public/",
            "/%C2%A0public/a",
            "/public%C2%A0/a",
            "/public%3F/../secret",
            "/public%23/../secret",
        ],
    ),
    (
        "request_malformed",
        &[
            "",
            "public/a",
            "http://shop.example/public/a",
            "https://admin.example/public/a",
            "?/public/a",
            "**",
            "\\public\\a",
            "/public/..%2fsecret",
            "/public/..%2Fsecret",
            "/public/%2e%2e%2fsecret",
            "/public/..%5csecret",
            "/public/..%5Csecret",
            "/public/..\\secret",
            "/public\\..\\secret",
            "/public/%252e%252e/secret",
            "/public/%252e./secret",
            "/public/%25%32%65%25/%252f",
            "/public/%25%32%65%25%32%65/secret",
            "/public/%25%32e/secret",
            "/public/..%252fsecret",
            "/public/%255c../secret",
            "/public/..;/secret",
            "/public/..;x=y/secret",
            "/public/.;/../secret",
            "/public/;/../secret",
            "/public/a;/../../secret",
            "/public/%2e%2e;/secret",
            "/public/..%3b/secret",
            "/public/..%3B/secret",
            "/public/a%3b/../../secret",
            "/public//../secret",
            "/public/x/..//../secret",
            "/public//%2e%2e/secret",
            "/public/a//../../secret",
            "//..",
            "/..",
            "/../",
            "/../public/a",
            "/public/../../secret",
            "/public/../../public/a",
            "/%2e%2e/public/a",
            "/public/%00",
            "/public/a%00/../../secret",
            "/public/%0d%0aX-Admin:%201",
            "/public/%0a",
            "/public/%09",
            "/public/%7f",
            "/public/%1f",
            "/public/a#/../../secret",
            "/public/#",
            "/secret#/public/",
            "/public/%",
            "/public/%2",
            "/public/%zz",
            "/public/%2g",
            "/public/%%32%65",
            "/public/%u002e%u002e/secret",
            "/public/%c0%ae%c0%ae/secret",
            "/public/%C0%AF",
            "/public/%c1%9c..",
            "/public/%e0%80%ae/secret",
            "/public/%f0%80%80%ae/secret",
            "/public/é",
            "/public/\u{ff0e}\u{ff0e}/secret",
            "/public/\u{2215}..",
            "/public/a\tb",
            "/public/a\nb",
            "/public/a\rb",
            "/public/a\u{0}b",
            "/public/a\u{7f}b",
            "/healthz%2f",
            "/healthz\\",
            "/healthz#",
            "/optional/..%2f..%2fsecret",
            "/healthz/..;/secret",
            "/internal/..%2fpublic/a",
            "/public%2fa",
            "/public%5ca",
        ],
    ),
    // What looks hostile, and is read in one way only.
    (
        "allowed",
        &[
            "/public/",
            "/public/a",
            "/public//a",
            "//public/a",
            "/public/./a",
            "/./public/a",
            "/x/../public/a",
            "/%70ublic/a",
            "/public/%2e/a",
            "/public/...",
            "/public/.../secret",
            "/public/a;b=c",
            "/public/%25",
            "/public/a%20b",
            "/public/%C3%A9",
            "/public/a b",
            "/public/?x=../../secret",
            "/public/a?x=%2f%00#y",
            "/public/x/../a",
            "/healthz",
            "/healthz?",
            "/healthz?x=/../y",
            "/./healthz",
            "/public/*",
            "/public/~a",
            "/public/%7Ea",
            "/public/@:$&'()+,=",
            "/public/a|b",
        ],
    ),
];

#[tokio::test]
async fn paths_that_pass_for_public_ones_do_not_pass() {
    let service = Service::ready(&config(RULES)).await;
    let mut count = 0;
    for (want, paths) in NOT_PUBLIC {
        for path in *paths {
            let answer = ask(&service, "GET", "shop.example", path, &[]).await;
            assert_eq!(answer.code(), *want, "{path:?}");
            count += 1;
        }
    }
    assert!(count >= 140, "{count}");
    // The whole target is looked at as bytes, too.
    let mut bytes = raw_check_request(&[]);
    let http = bytes.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    "/public/\u{fffd}".clone_into(&mut http.path);
    assert_eq!(service.send(bytes).await.code(), "request_malformed");
}

#[tokio::test]
async fn what_is_denied_stays_denied_however_it_is_spelled() {
    let service = Service::ready(&config(RULES)).await;
    let bearer = format!("Bearer {}", good());
    let headers = [("authorization", bearer.as_str())];
    for path in [
        "/internal",
        "/internal/",
        "/internal/x",
        "//internal/x",
        "/./internal/x",
        "/x/../internal/x",
        "/%69nternal/x",
        "/internal?x",
        "/internal//x",
        "/public/../internal/x",
        "/internal/%2e/x",
        "/internal/./",
        "/internal/..?",
        "/internal/x/..",
        "/%69%6E%74%65%72%6e%61%6c",
        "/public/%2e%2e/internal",
    ] {
        let want = if path == "/internal/..?" { "allowed" } else { "rule_denies" };
        assert_eq!(ask(&service, "GET", "shop.example", path, &headers).await.code(), want, "{path}");
    }
    for host in [
        "admin.example",
        "ADMIN.EXAMPLE",
        "Admin.Example",
        "admin.example:443",
        "admin.example.",
        "admin.example.:8443",
        "admin.example:",
        "x.admin.example",
        "a.b.admin.example:80",
        "X.ADMIN.EXAMPLE.",
    ] {
        assert_eq!(ask(&service, "GET", host, "/orders", &headers).await.code(), "rule_denies", "{host}");
        assert_eq!(ask(&service, "GET", host, "/public/a", &headers).await.code(), "rule_denies", "{host}");
    }
    for host in [
        "admin.example.evil.example",
        "adminxexample",
        "xadmin.example",
        "",
        "[::1]:80",
        "evil.example:admin.example",
    ] {
        assert_eq!(ask(&service, "GET", host, "/orders", &headers).await.code(), "allowed", "{host}");
        assert_eq!(ask(&service, "GET", host, "/orders", &[]).await.code(), "token_missing", "{host}");
    }
    for method in ["POST", "HEAD", "get", "", "GET ", "OPTIONS", "TRACE"] {
        assert_eq!(
            ask(&service, method, "shop.example", "/healthz", &[]).await.code(),
            "token_missing",
            "{method}"
        );
    }
}

#[tokio::test]
async fn tokens_in_odd_places_and_odd_forms() {
    let sources = "tokens: {from: [{header: authorization}, {header: x-api-token}, {cookie: psg_auth_token}, {query: access_token}]}";
    let service = Service::ready(&config(sources)).await;
    let good = good();
    let bad = tampered(&good);
    let bearer = |token: &str| format!("Bearer {token}");
    let cookie = |token: &str| format!("psg_auth_token={token}");
    type Row<'a> = (&'a str, Vec<(&'a str, String)>, &'a str);
    let rows: Vec<Row<'_>> = vec![
        ("allowed", vec![("authorization", bearer(&good))], "/"),
        ("allowed", vec![("authorization", format!("bEaReR {good}"))], "/"),
        ("allowed", vec![("x-api-token", good.clone())], "/"),
        ("allowed", vec![("cookie", cookie(&good))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good}, Bearer {good}"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good},{good}"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good}\0"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good}="))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good}."))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer .{good}"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer \"{good}\""))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer Bearer {good}"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {}", good.replacen('.', ".\n", 1)))], "/"),
        ("token_too_long", vec![("authorization", bearer(&"a".repeat(9000)))], "/"),
        // The first source that is present decides, and is not rescued.
        ("signature_invalid", vec![("authorization", bearer(&bad)), ("x-api-token", good.clone())], "/"),
        ("signature_invalid", vec![("authorization", bearer(&bad)), ("cookie", cookie(&good))], "/"),
        ("token_malformed", vec![("x-api-token", "x".to_owned()), ("cookie", cookie(&good))], "/"),
        ("signature_invalid", vec![("cookie", cookie(&bad))], "/?access_token=GOOD"),
        ("signature_invalid", vec![("cookie", format!("{}; {}", cookie(&bad), cookie(&good)))], "/"),
        ("allowed", vec![("cookie", format!("{}; {}", cookie(&good), cookie(&bad)))], "/"),
        ("allowed", vec![("authorization", "Basic eDp5".to_owned()), ("cookie", cookie(&good))], "/"),
        ("allowed", vec![("authorization", "Bearer".to_owned()), ("cookie", cookie(&good))], "/"),
        ("allowed", vec![("authorization", "Bearer ".to_owned()), ("cookie", cookie(&good))], "/"),
        ("token_missing", vec![("authorization", good.clone())], "/"),
        ("token_missing", vec![("authorization", format!("Bearer{good}"))], "/"),
        ("token_missing", vec![("authorization", format!("Token {good}"))], "/"),
        ("token_missing", vec![("proxy-authorization", bearer(&good))], "/"),
        ("token_missing", vec![("cookie", format!("x=1,{}", cookie(&good)))], "/"),
        ("token_missing", vec![("cookie", format!("x{}", cookie(&good)))], "/"),
        ("token_missing", vec![("cookie2", cookie(&good))], "/"),
        ("token_malformed", vec![("cookie", format!("psg_auth_token=\"{good}\""))], "/"),
        ("token_missing", vec![("set-cookie", cookie(&good))], "/"),
        ("allowed", vec![], "/?access_token=GOOD"),
        ("allowed", vec![], "/a?b&access_token=GOOD&c=d"),
        ("token_malformed", vec![], "/?access_token=GOOD&access_token=GOOD"),
        ("token_malformed", vec![], "/?access_token=GOOD#x"),
        ("token_missing", vec![], "/access_token=GOOD"),
        ("token_missing", vec![], "/?ACCESS_TOKEN=GOOD"),
        ("token_missing", vec![], "/?x=?access_token=GOOD"),
        ("token_missing", vec![], "/?%61ccess_token=GOOD"),
        ("token_missing", vec![], "/;access_token=GOOD"),
    ];
    assert!(rows.len() >= 40);
    for (want, headers, path) in rows {
        let path = path.replace("GOOD", &good);
        let borrowed: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let listed = ask(&service, "GET", "h", &path, &borrowed).await;
        assert_eq!(listed.code(), want, "{headers:?} {path}");
        // The same through header_map, as Envoy sends it with encode_raw_headers.
        let raw = service.send(header_map_request("GET", "h", &path, &borrowed)).await;
        assert_eq!(raw, listed, "{headers:?} {path}");
    }
    let optional = Service::ready(&config(RULES)).await;
    let bearers = [bearer(&good), bearer(&good)];
    let doubled = bearers.each_ref().map(|value| ("authorization", value.as_str()));
    let twice = header_map_request("GET", "h", "/optional/a", &doubled);
    assert_eq!(optional.send(twice).await.code(), "token_malformed", "optional is no excuse for a bad token");
    for (name, values) in
        [("authorization", [bearer(&good), bearer(&good)]), ("x-api-token", [good.clone(), good.clone()])]
    {
        let doubled = values.each_ref().map(|value| (name, value.as_str()));
        assert_eq!(
            service.send(header_map_request("GET", "h", "/", &doubled)).await.code(),
            "token_malformed"
        );
    }
}

#[tokio::test]
async fn a_route_may_pick_a_rule_by_name() {
    let service = Service::ready(&config(RULES)).await;
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
    let mut other = check_request(&[]);
    other.attributes.as_mut().unwrap().context_extensions.insert("Rule".to_owned(), "public".to_owned());
    assert_eq!(service.send(other).await.code(), "token_missing", "another key picks nothing");
}

#[tokio::test]
async fn envoys_routes_pick_rules_by_name() {
    let service = Service::ready(&config(RULES)).await;
    let upstream = Upstream::start().await.unwrap();
    let binary = tokio::task::spawn_blocking(|| crate::support::envoy::find(true)).await.unwrap().unwrap();
    let picked = |config: String| {
        let marked = "              - match: {prefix: /}\n";
        assert!(config.contains(marked));
        let route = |prefix: &str, rule: &str| {
            format!(
                "              - match: {{prefix: {prefix}}}
                route: {{cluster: protected}}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    check_settings: {{context_extensions: {{rule: {rule}}}}}\n"
            )
        };
        let routes = [route("/open", "public"), route("/shut", "internal"), route("/odd", "no-such-rule")];
        config.replace(marked, &format!("{}{marked}", routes.concat()))
    };
    let envoy = Envoy::start(&binary, service.grpc, upstream.address, picked).await.unwrap();
    for (target, status, code) in [
        ("/open/x", 200, ""),
        ("/open/%2f", 200, ""),
        ("/shut/x", 403, "rule_denies"),
        ("/odd/x", 500, "rule_unknown"),
        ("/other", 401, "token_missing"),
    ] {
        let (got, body) = raw(&envoy, target, &format!("{USER}: admin\r\n")).await;
        assert_eq!((got, body["code"].as_str().unwrap_or_default()), (status, code), "{target}");
        assert!(seen(&body, USER).is_empty(), "{target}");
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
         - {{name: maybe, match: {{paths: [/maybe]}}, access: optional, require: {{claims: {{role: admin}}}}}}\n"
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
async fn shadow_lets_through_counts_and_believes_nobody() {
    let service = Service::ready(&config(&format!("mode: shadow\n{RULES}"))).await;
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
        let told = answer.metadata.iter().find(|(name, _)| name == "shadow").map(|(_, code)| code.as_str());
        assert_eq!(told, shadow, "{path}");
        let identified = shadow.is_none() && token.is_some();
        assert_eq!(answer.header(USER), identified.then_some("user-1"), "{path}");
        assert_eq!(answer.remove.contains(&USER.to_owned()), !identified, "{path}");
    }
    let (_, metrics) = crate::support::get(service.admin, "/metrics").await;
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
    assert_eq!(ask(&service, "GET", "h", "/%2f", &[]).await.http, 400);
    let mut unknown = check_request(&[]);
    unknown.attributes.as_mut().unwrap().context_extensions.insert("rule".to_owned(), "x".to_owned());
    assert_eq!(service.send(unknown).await.http, 500);

    // One rule alone in shadow: the others go on as they were.
    let service = Service::ready(&config(RULES)).await;
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
        (true, "OPTIONS", "/%2f", &preflight, "request_malformed"),
        (true, "OPTIONS", "/orders", &preflight[..1], "token_missing"),
        (true, "OPTIONS", "/orders", &preflight[1..], "token_missing"),
        (true, "OPTIONS", "/orders", &[("origin", " "), preflight[1]], "token_missing"),
        (true, "OPTIONS", "/orders", &[preflight[0], ("access-control-request-method", "")], "token_missing"),
        (true, "GET", "/orders", &preflight, "token_missing"),
        (true, "options", "/orders", &preflight, "token_missing"),
        (false, "OPTIONS", "/orders", &preflight, "token_missing"),
    ] {
        let setting = if allowed { "cors_preflight: allow" } else { "cors_preflight: deny" };
        let service = Service::ready(&config(&format!("{setting}\n{RULES}"))).await;
        let answer = ask(&service, method, "h", path, headers).await;
        assert_eq!(answer.code(), want, "{method} {path} {headers:?}");
        if want == "allowed" {
            assert!(answer.headers.is_empty() && answer.remove.contains(&USER.to_owned()));
        }
    }
}

/// A request written byte by byte, since clients tidy up: status and body.
async fn raw(envoy: &Envoy, target: &str, headers: impl AsRef<[u8]>) -> (u16, Value) {
    let mut stream = TcpStream::connect(envoy.address).await.unwrap();
    let text = format!("GET {target} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n");
    stream.write_all(&[text.as_bytes(), headers.as_ref(), b"\r\n"].concat()).await.unwrap();
    let mut answer = Vec::new();
    // Envoy may reset the connection of a request it refuses.
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = text.split_once('{').and_then(|(_, rest)| {
        let end = rest.rfind('}')?;
        serde_json::from_str(&format!("{{{}", &rest[..=end])).ok()
    });
    (status, body.unwrap_or_default())
}

#[tokio::test]
async fn the_same_through_envoy_with_its_default_path_handling() {
    let service = Service::ready(&config(RULES)).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    let forged = format!("{USER}: admin\r\n");
    let mut count = 0;
    for (want, paths) in NOT_PUBLIC {
        let sendable = |path: &&&str| path.is_ascii() && !path.contains(|c: char| c.is_control() || c == ' ');
        // At once: Envoy lingers for a second on each request that it refuses itself.
        let asked = paths.iter().filter(sendable).map(|path| {
            let (envoy, forged) = (&envoy, &forged);
            async move { (path, raw(envoy, path, forged).await) }
        });
        for (path, (status, body)) in crate::support::join_all(asked).await {
            let code = body["code"].as_str().unwrap_or_default();
            match *want {
                "allowed" if path.contains('#') => {
                    assert_eq!((status, code), (400, ""), "{path}: Envoy's own")
                }
                "allowed" => {
                    assert_eq!(status, 200, "{path}");
                    assert!(seen(&body, USER).is_empty(), "{path}: {body}");
                    // What the upstream saw is what was judged: the target as it came, or tidied.
                    let saw = body["path"].as_str().unwrap();
                    assert!(!saw.contains("secret") || path.contains("secret"), "{path} became {saw}");
                }
                // Absolute form and the empty path are Envoy's to read: it takes the host and path from them.
                _ if path.starts_with("http") => {
                    let public = path.starts_with("http://shop.example");
                    assert_eq!(
                        (status, code),
                        if public { (200, "") } else { (403, "rule_denies") },
                        "{path}"
                    );
                }
                // Envoy refuses some itself, before it asks: those never reach anybody.
                _ if status == 400 && code.is_empty() => {}
                _ if path.contains('#') && status != 200 => {}
                want => assert_eq!(code, want, "{path}: {status}"),
            }
            count += 1;
        }
    }
    assert!(count >= 100, "{count}");
}

#[tokio::test]
async fn whatever_is_forged_the_upstream_sees_the_true_user_or_nothing() {
    let service = Service::ready(&config(RULES)).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    let good = good();
    let expired = key().mint("app1", |_, claims| claims["exp"] = json!(1));
    let states = [
        ("none", String::new()),
        ("valid", format!("authorization: Bearer {good}\r\n")),
        ("expired", format!("authorization: Bearer {expired}\r\n")),
        ("tampered", format!("authorization: Bearer {}\r\n", tampered(&good))),
        ("malformed", "authorization: Bearer x\r\n".to_owned()),
    ];
    let spellings = ["x-passage-user-id", "x_passage_user_id", "X-Passage_User-ID"];
    let mut count = 0;
    for (access, path) in [
        ("public", "/public/a"),
        ("optional", "/optional/a"),
        ("required", "/orders"),
        ("deny", "/internal/a"),
        ("shadow", "/tried/a"),
        ("claims", "/staff/a"),
        ("claims in shadow", "/staff-tried/a"),
    ] {
        for (state, token) in &states {
            for spelling in spellings {
                let headers = format!("{token}{spelling}: admin\r\n{}: root\r\n", spelling.to_uppercase());
                let (status, body) = raw(&envoy, path, &headers).await;
                let through = match access {
                    "public" | "shadow" | "claims in shadow" => true,
                    "optional" => ["none", "valid"].contains(state),
                    "required" => *state == "valid",
                    _ => false,
                };
                let known = *state == "valid" && ["optional", "required", "shadow"].contains(&access);
                assert_eq!(status == 200, through, "{access}, {state}: {status} {body}");
                if through {
                    let want: &[&str] = if known { &["user-1"] } else { &[] };
                    assert_eq!(seen(&body, USER), want, "{access}, {state}, {spelling}");
                }
                count += 1;
            }
        }
    }
    assert_eq!(count, 7 * 5 * 3);
}

#[tokio::test]
async fn tokens_that_are_not_forwarded_reach_nobody_on_any_route() {
    let more = format!(
        "tokens: {{forward: false, from: [{{header: authorization}}, {{header: x-api-token}}, {{cookie: psg_auth_token}}, {{query: access_token}}]}}\n{RULES}"
    );
    let service = Service::ready(&config(&more)).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    let good = good();
    let cookies = format!("a=1; psg_auth_token={good}; b=\"2\"; psg_auth_token=x");
    for (path, headers, status, cookie, authorization) in [
        ("/orders?x=1&access_token=GOOD&y=2", String::new(), 200, None, None),
        (
            "/orders",
            format!("authorization: Bearer {good}\r\ncookie: {cookies}\r\n"),
            200,
            Some("a=1; b=\"2\""),
            None,
        ),
        ("/orders", format!("cookie: psg_auth_token={good}\r\n"), 200, None, None),
        ("/orders", format!("x-api-token: {good}\r\ncookie: c=3\r\n"), 200, Some("c=3"), None),
        (
            "/orders",
            format!("authorization: Basic eDp5\r\ncookie: {cookies}\r\n"),
            200,
            Some("a=1; b=\"2\""),
            Some("Basic eDp5"),
        ),
        (
            "/public/a?access_token=GOOD",
            format!("authorization: Bearer {good}\r\nx-api-token: x\r\ncookie: {cookies}\r\n"),
            200,
            Some("a=1; b=\"2\""),
            None,
        ),
        (
            "/tried/a?access_token=BAD",
            format!("authorization: Bearer x{good}\r\ncookie: {cookies}\r\n"),
            200,
            Some("a=1; b=\"2\""),
            None,
        ),
    ] {
        let target = path.replace("GOOD", &good).replace("BAD", &tampered(&good));
        let (got, body) = raw(&envoy, &target, &headers).await;
        assert_eq!(got, status, "{path}: {body}");
        let one = |name: &str| seen(&body, name).first().cloned();
        assert_eq!(
            (one("cookie").as_deref(), one("authorization").as_deref()),
            (cookie, authorization),
            "{path}"
        );
        assert_eq!(one("x-api-token"), None);
        let text = body.to_string();
        assert!(!text.contains(good.rsplit('.').next().unwrap()), "{path}: {text}");
        assert!(!text.contains("access_token"), "{path}: {text}");
        if path.contains("x=1") {
            assert!(body["path"].as_str().unwrap().contains("x=1") && text.contains("y=2"), "{text}");
        }
    }
}

/// Envoy takes only UTF-8 from an answer: a cookie that is none cannot be handed on, and takes no other with it.
#[tokio::test]
async fn withheld_cookies_leave_the_others_whatever_bytes_they_are() {
    let service = Service::ready(&config("tokens: {forward: false}\n")).await;
    let upstream = Upstream::start().await.unwrap();
    let binary = tokio::task::spawn_blocking(|| crate::support::envoy::find(true)).await.unwrap().unwrap();
    let raw_headers = |config: String| {
        config.replace(
            "transport_api_version: V3",
            "transport_api_version: V3\n              encode_raw_headers: true",
        )
    };
    let envoy = Envoy::start(&binary, service.grpc, upstream.address, raw_headers).await.unwrap();
    let good = good();
    for (before, after, want) in [
        (&b"a=1; "[..], &b"; b=2"[..], Some("a=1; b=2")),
        (b"a=1; l=\xe9; ", b"; b=\xc3\xa9", Some("a=1; b=\u{e9}")),
        (b"l=\xe9; ", b"", None),
    ] {
        let cookies = [b"cookie: ", before, b"psg_auth_token=", good.as_bytes(), after, b"\r\n"].concat();
        let (status, body) = raw(&envoy, "/", cookies).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(seen(&body, "cookie").first().map(String::as_str), want);
    }
}

#[tokio::test]
async fn several_identity_headers_and_claims_that_envoy_can_use() {
    let more = "identity: {headers: {x-user: sub, x-mail: email, x-roles: roles, x-org: /org/id}, metadata: [sub, email, /org/id, org]}";
    let service = Service::ready(&config(more)).await;
    let upstream = Upstream::start().await.unwrap();
    let binary = tokio::task::spawn_blocking(|| crate::support::envoy::find(true)).await.unwrap().unwrap();
    // The claims of the dynamic metadata, shown in a response header by the route.
    let shown = |config: String| {
        let marked = "domains: [\"*\"]";
        assert!(config.contains(marked));
        let value = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:email)% %DYNAMIC_METADATA(envoy.filters.http.ext_authz:/org/id)%";
        config.replace(marked, &format!("domains: [\"*\"]\n              request_headers_to_add: [{{header: {{key: x-shown, value: '{value}'}}}}]"))
    };
    let envoy = Envoy::start(&binary, service.grpc, upstream.address, shown).await.unwrap();
    let full = key().mint("app1", |_, claims| {
        claims["email"] = json!("a@b.example");
        claims["roles"] = json!(["x", "y"]);
        claims["org"] = json!({"id": 7});
    });
    let forged = "x-user: admin\r\nx_mail: admin\r\nX-Roles: admin\r\nx-org: 1\r\n";
    let (status, body) = raw(&envoy, "/", &format!("authorization: Bearer {full}\r\n{forged}")).await;
    assert_eq!(status, 200);
    for (name, want) in [("x-user", "user-1"), ("x-mail", "a@b.example"), ("x-roles", "x,y"), ("x-org", "7")]
    {
        assert_eq!(seen(&body, name), [want], "{name}");
    }
    assert_eq!(seen(&body, "x-shown"), ["a@b.example 7"]);
    let (status, body) = raw(&envoy, "/", &format!("authorization: Bearer {}\r\n{forged}", good())).await;
    assert_eq!(status, 200);
    assert_eq!(seen(&body, "x-user"), ["user-1"]);
    for name in ["x-mail", "x-roles", "x-org"] {
        assert_eq!(seen(&body, name), [] as [&str; 0], "a missing claim leaves nothing of the forged {name}");
    }
    let comma = key().mint("app1", |_, claims| claims["roles"] = json!(["a,admin"]));
    let (status, body) = raw(&envoy, "/", &format!("authorization: Bearer {comma}\r\n")).await;
    assert_eq!((status, &body["code"]), (401, &json!("claim_invalid")));
}

#[tokio::test]
async fn nobody_else_counts_as_the_issuer() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let service = Service::ready(&format!(
        "issuers: [{{name: p, passage: {{app_id: app1, base_url: '{}'}}}}]",
        issuer.url()
    ))
    .await;
    let evil = SigningKey::shared("k1", Algorithm::Es256);
    for token in [
        // Another key under our kid, its algorithm said outright or hidden.
        evil.mint("app1", |_, _| {}),
        evil.mint("app1", |header, _| header["alg"] = json!("RS256")),
        evil.mint("app1", |header, _| (header["jwk"], header["alg"]) = (evil.jwk(), json!("RS256"))),
        key().mint("app1", |header, _| header["jku"] = json!("http://evil.example")).replace('.', ".."),
    ] {
        let answer = service.bearer(&token).await;
        assert!(
            ["algorithm_not_allowed", "signature_invalid", "token_malformed"].contains(&answer.code()),
            "{answer:?}"
        );
    }
    assert_eq!(issuer.fetches(), 1);
}
