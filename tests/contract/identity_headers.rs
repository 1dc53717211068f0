//! Headers that are identities: whatever a client sends under any spelling of one, an answer sets or removes it, or
//! refuses the request where an answer cannot remove it.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use passage_authz::testing::tampered;
use serde_json::{Value, json};

use crate::support::fixtures::{USER, bearer, good, http_port, inline, key};
use crate::support::http::{Said, said};
use crate::support::{Answer, Service, get, header_map_request, series, wait_until};

/// An upstream that maps every mark in a name to `_` reads these as [`USER`]; no list of spellings has them.
const MARKED: &[&str] = &[
    "x.passage.user.id",
    "x!passage~user*id",
    "X+PASSAGE+USER+ID",
    "x_passage-user.id",
    "X.Passage_User-Id",
    "x'passage`user|id",
    "x#passage$user%id",
    "x&passage^user-id",
];

/// The spellings that are listed.
const LISTED: &[&str] = &["x_passage_user_id", "X_Passage-User_Id", "x-passage-user_id"];

const RULES: &str = "rules:\n\
    - {name: assets, match: {paths: ['/assets/*']}, access: public}\n\
    - {name: shop, match: {paths: ['/shop/*']}, access: optional}\n\
    - {name: closed, match: {paths: [/closed]}, access: deny}\n\
    - {name: trial, match: {paths: [/trial]}, access: deny, shadow: true}\n";

/// An answer that lets through leaves nothing of these names, and names none of them twice.
fn leaves_nothing_of(answer: &Answer, names: &[&str], case: &str) {
    let set = answer.headers.iter().map(|(name, _)| name);
    let mut all = HashSet::new();
    for name in set.chain(&answer.remove) {
        assert!(all.insert(name.to_ascii_lowercase()), "{case}: {name} stands twice");
        assert!(!name.starts_with(':'), "{case}: {name}");
    }
    for name in names.iter().chain(&[USER]).chain(LISTED) {
        assert!(all.contains(&name.to_ascii_lowercase()), "{case}: {name} is left");
    }
}

#[tokio::test]
async fn every_spelling_that_is_seen_is_removed_over_grpc() {
    for mode in ["enforce", "shadow"] {
        let service = Service::ready(&inline(&format!("mode: {mode}\n{RULES}"))).await;
        let (good, bad) = (bearer(&good()), bearer(&tampered(&good())));
        for (path, token, passes, user) in [
            ("/assets/a", None, true, None),
            ("/assets/a", Some(&good), true, None),
            ("/shop/a", None, true, None),
            ("/shop/a", Some(&good), true, Some("user-1")),
            ("/shop/a", Some(&bad), mode == "shadow", None),
            ("/orders", Some(&good), true, Some("user-1")),
            ("/orders", None, mode == "shadow", None),
            ("/closed", Some(&good), mode == "shadow", None),
            ("/trial", Some(&good), true, None),
        ] {
            let token = token.map(|token| ("authorization", token.as_str()));
            for names in MARKED.iter().chain(LISTED).map(|name| vec![*name]).chain([MARKED.to_vec()]) {
                let forged = names.iter().map(|name| (*name, "admin"));
                let doubled = names.iter().map(|name| (*name, "root"));
                let pseudo = [(":path", path), (":authority", "shop.example"), ("accept", "*/*")];
                let headers: Vec<_> = token.into_iter().chain(forged).chain(doubled).chain(pseudo).collect();
                let answer = service.send(header_map_request("GET", "shop.example", path, &headers)).await;
                let case = format!("{mode} {path} {token:?} {names:?}");
                assert_eq!(answer.http == 200, passes, "{case}: {answer:?}");
                if passes {
                    assert_eq!(answer.header(USER), user, "{case}");
                    leaves_nothing_of(&answer, &names, &case);
                } else {
                    assert!(answer.remove.is_empty() && answer.header(USER).is_none(), "{case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_spelling_that_cannot_be_named_in_an_answer_is_refused() {
    let service =
        Service::ready(&inline(&format!("mode: shadow\nidentity: {{headers: {{x--id: sub}}}}\n{RULES}")))
            .await;
    let good = bearer(&good());
    for path in ["/assets/a", "/orders", "/trial"] {
        for name in ["x\u{a7}id", "x  id", "x,,id", "x\0\0id", "x\r\nid", "x::id"] {
            let headers = [("authorization", good.as_str()), (name, "admin")];
            let answer = service.send(header_map_request("GET", "shop.example", path, &headers)).await;
            assert_eq!(answer.code(), "request_malformed", "{path} {name:?}");
        }
        // Names of no interest may hold what they like.
        let headers = [("authorization", good.as_str()), ("x\u{a7}ie", "a"), ("x\u{a7}\u{a7}id", "a")];
        let answer = service.send(header_map_request("GET", "shop.example", path, &headers)).await;
        assert_eq!(answer.http, 200, "{path}");
    }
}

/// As many names as a check may carry: the answer names them all.
#[tokio::test]
async fn two_thousand_spellings_are_removed() {
    let service = Service::ready(&inline(RULES)).await;
    let marks = "!#$%&'*+.^`|~".chars();
    let spelled = |one: char| {
        let marks = "!#$%&'*+.^`|~".chars();
        marks.flat_map(move |two| {
            "!#$%&'*+.^`|~".chars().map(move |three| format!("x{one}passage{two}user{three}id"))
        })
    };
    let names: Vec<_> = marks.flat_map(spelled).take(2000).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let begun = tokio::time::Instant::now();
    let answer = service.send(header_map_request("GET", "shop.example", "/assets/a", &headers)).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((answer.http, answer.remove.len()), (200, 2000 + 7 + 1));
}

/// The names that the answer has Envoy remove.
fn to_remove(said: &Said) -> Vec<String> {
    let names = said.header("x-envoy-auth-headers-to-remove").unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn style_envoy_names_what_is_to_be_removed() {
    let service = Service::ready(&http_port("style: envoy")).await;
    let (client, url) = (reqwest::Client::new(), format!("http://{}", service.http.unwrap()));
    for (path, token, user) in [
        ("/orders", true, Some("user-1")),
        ("/shop/a", true, Some("user-1")),
        ("/shop/a", false, None),
        ("/assets/a", true, None),
        ("/trial", true, None),
    ] {
        let mut request = client.get(format!("{url}{path}")).header(USER, "admin");
        for name in MARKED.iter().chain(LISTED) {
            request = request.header(*name, "admin");
        }
        let said = said(if token { request.bearer_auth(good()) } else { request }).await;
        assert_eq!((said.status, said.header(USER)), (200, user), "{path} {token}");
        let removed = to_remove(&said);
        let unique: HashSet<_> = removed.iter().cloned().collect();
        assert_eq!(unique.len(), removed.len(), "{removed:?}");
        assert_eq!(unique.contains(USER), user.is_none(), "{removed:?}");
        for name in MARKED.iter().chain(LISTED) {
            assert!(unique.contains(&name.to_ascii_lowercase()), "{path} {name}: {removed:?}");
            assert_eq!(said.header(name), None, "{path} {name}");
        }
        let empty = said.headers.values().filter(|value| value.is_empty()).count();
        assert_eq!(empty, 0, "an upstream would join empty values: {:?}", said.headers);
    }
    let denied = said(client.get(format!("{url}/orders")).header("x.passage.user.id", "admin")).await;
    assert_eq!((denied.status, denied.header("x-envoy-auth-headers-to-remove")), (401, None));
}

/// A question in the style `forward_auth`.
fn asking(service: &Service, path: &str, family: usize) -> reqwest::RequestBuilder {
    let request = reqwest::Client::new().get(format!("http://{}/auth", service.http.unwrap()));
    match family {
        0 => {
            let request =
                request.header("X-Forwarded-Method", "GET").header("X-Forwarded-Host", "shop.example");
            request.header("X-Forwarded-Uri", path)
        }
        _ => {
            let request = request.header("X-Original-Method", "GET");
            request.header("X-Original-URL", format!("https://shop.example{path}"))
        }
    }
}

#[tokio::test]
async fn forward_auth_refuses_an_identity_under_any_spelling() {
    for mode in ["enforce", "shadow"] {
        let service = Service::ready(&format!("mode: {mode}\n{}", http_port("style: forward_auth"))).await;
        let mut refused = 0;
        for (path, open) in
            [("/orders", false), ("/shop/a", true), ("/assets/a", true), ("/closed", false), ("/trial", true)]
        {
            for family in 0..2 {
                for name in MARKED.iter().chain(LISTED).chain(&[USER, "X-PASSAGE-USER-ID"]) {
                    for token in [true, false] {
                        let case = format!("{mode} {path} {family} {name} {token}");
                        let request = || {
                            let asking = asking(&service, path, family);
                            if token { asking.bearer_auth(good()) } else { asking }
                        };
                        let forged = said(request().header(*name, "admin")).await;
                        assert_eq!(forged.status, 400, "{case}");
                        assert!(forged.body.contains("\"request_malformed\""), "{case}: {}", forged.body);
                        assert_eq!(forged.header(USER), None, "{case}");
                        // A proxy that blanks the header has overwritten it, one of two is not.
                        let twice = said(request().header(*name, "").header(*name, "admin")).await;
                        assert_eq!(twice.status, 400, "{case}");
                        refused += 2;
                        let blank = said(request().header(*name, " ")).await;
                        let passes = open || mode == "shadow" || (token && path == "/orders");
                        assert_eq!(blank.status == 200, passes, "{case}: {}", blank.body);
                        if passes {
                            let user =
                                if token && ["/orders", "/shop/a"].contains(&path) { "user-1" } else { "" };
                            assert_eq!(blank.header(USER), Some(user), "{case}");
                            assert!(
                                name.eq_ignore_ascii_case(USER) || blank.header(name) == Some(""),
                                "{case}"
                            );
                        }
                    }
                }
            }
        }
        let (_, metrics) = get(service.admin, "/metrics").await;
        let counted = series(&metrics, "passage_authz_checks_total").into_iter();
        let malformed: f64 =
            counted.filter(|(labels, _)| labels.contains("request_malformed")).map(|(_, n)| n).sum();
        assert_eq!(malformed, f64::from(refused));
    }
}

#[tokio::test]
async fn an_identity_that_the_proxy_overwrites_is_not_looked_at() {
    let service = Service::ready(&http_port("style: forward_auth, client_identity: overwritten")).await;
    for name in MARKED.iter().chain(LISTED).chain(&[USER]) {
        for (path, user) in [("/orders", "user-1"), ("/assets/a", "")] {
            let said = said(asking(&service, path, 0).bearer_auth(good()).header(*name, "admin")).await;
            assert_eq!((said.status, said.header(USER)), (200, Some(user)), "{path} {name}");
            assert!(*name == USER || said.header(name) == Some(""), "{path} {name}");
        }
    }
    // The headers are those of the configuration.
    let other = format!("{}identity: {{headers: {{x-login: sub}}}}\n", http_port("style: forward_auth"));
    let service = Service::ready(&other).await;
    for (name, status) in [(USER, 200), ("x.passage.user.id", 200), ("x-login", 400), ("X~Login", 400)] {
        let said = said(asking(&service, "/assets/a", 0).header(name, "admin")).await;
        assert_eq!(said.status, status, "{name}");
    }
    let none = format!("{}identity: {{headers: {{}}}}\n", http_port("style: forward_auth"));
    let service = Service::ready(&none).await;
    assert_eq!(said(asking(&service, "/assets/a", 0).header(USER, "admin")).await.status, 200);
}

const SECRET: &str = "x-passage-authz-proxy-secret";

#[tokio::test]
async fn only_a_proxy_with_the_secret_is_answered() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "  first-secret-0123456789\n").unwrap();
    for style in ["envoy", "forward_auth"] {
        std::fs::write(file.path(), "  first-secret-0123456789\n").unwrap();
        let settings = format!("style: {style}, proxy_secret_file: '{}'", file.path().display());
        let service = Service::ready(&format!("mode: shadow\n{}", http_port(&settings))).await;
        let asking = |secrets: &[&str]| {
            let request = if style == "envoy" {
                reqwest::Client::new().get(format!("http://{}/assets/a", service.http.unwrap()))
            } else {
                asking(&service, "/assets/a", 0)
            };
            secrets.iter().fold(request, |request, secret| request.header(SECRET, *secret))
        };
        let first = "first-secret-0123456789";
        for wrong in [
            &[][..],
            &[""],
            &["first-secret-012345678"],
            &["first-secret-01234567890"],
            &["First-secret-0123456789"],
            &["first-secret-0123456789,first-secret-0123456789"],
            &[first, first],
            &[first, "other"],
            &["second-secret-0123456789"],
        ] {
            let said = said(asking(wrong)).await;
            assert_eq!(said.status, 400, "{style} {wrong:?}");
            assert!(
                said.body.contains("\"request_malformed\"") && !said.body.contains("secret"),
                "{}",
                said.body
            );
        }
        let right = said(asking(&[first])).await;
        assert_eq!(right.status, 200, "{style}");
        if style == "envoy" {
            assert!(to_remove(&right).iter().any(|name| name == SECRET), "{:?}", right.headers);
        } else {
            assert_eq!(right.header(SECRET), Some(""));
        }
        let (_, metrics) = get(service.admin, "/metrics").await;
        let counted = series(&metrics, "passage_authz_checks_total").into_iter();
        let malformed: f64 =
            counted.filter(|(labels, _)| labels.contains("request_malformed")).map(|(_, n)| n).sum();
        assert_eq!(malformed, 9.0, "{style}");

        // A file that cannot be used changes nothing; one that can is in force without a restart.
        std::fs::write(file.path(), "too short\n").unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(said(asking(&[first])).await.status, 200, "{style}");
        assert_eq!(said(asking(&["too short"])).await.status, 400, "{style}");
        std::fs::write(file.path(), "second-secret-0123456789\n").unwrap();
        let second = || async { said(asking(&["second-secret-0123456789"])).await.status == 200 };
        wait_until("the new secret", second).await;
        assert_eq!(said(asking(&[first])).await.status, 400, "{style}");
        service.end().await.unwrap();
    }
}

/// A group of LDAP has a comma in its name: as JSON it reaches the upstream, as a text it cannot.
#[tokio::test]
async fn claims_as_json_and_the_whole_payload() {
    let text = "identity: {headers: {x-groups: {claim: groups, as: json}, x-deep: {claim: /org/ids, as: base64}, \
                x-payload: {claim: '', as: base64}, x-none: {claim: none, as: json}}}\n\
                tokens: {cache: {max_entries: 1000}}\n";
    let service = Service::ready(&inline(text)).await;
    let token = key().mint("app1", |_, claims| {
        claims["groups"] = json!(["CN=Admins,OU=Berlin", "Zo\u{eb}"]);
        claims["org"] = json!({"ids": [1, 2]});
    });
    // The second check is of a cached token.
    for _ in 0..2 {
        let answer = service.check(&[("authorization", &bearer(&token))]).await;
        let header = |name: &str| answer.header(name).unwrap();
        assert_eq!(header("x-groups"), r#"["CN=Admins,OU=Berlin","Zo\u00eb"]"#);
        assert_eq!(header("x-deep"), URL_SAFE_NO_PAD.encode("[1,2]"));
        let payload: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header("x-payload")).unwrap()).unwrap();
        assert_eq!((&payload["sub"], &payload["org"]["ids"]), (&json!("user-1"), &json!([1, 2])));
        assert!(payload["exp"].is_number() && payload["iss"] == "app1");
        assert!(answer.remove.contains(&"x-none".to_owned()), "{:?}", answer.remove);
    }
    let (_, metrics) = get(service.admin, "/metrics").await;
    assert_eq!(series(&metrics, "passage_authz_token_cache_total")["{result=\"hit\"}"], 1.0);
}
