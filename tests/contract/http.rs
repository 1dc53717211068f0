//! The decision over plain HTTP: the same as over gRPC.

use passage_authz::testing::tampered;
use serde_json::{Value, json};

use crate::support::fixtures::{APP, USER, good, http_port, inline, key};
use crate::support::http::said;
use crate::support::{Service, header_map_request};

/// A path and a host with their headers.
type Try = (&'static str, &'static str, Vec<(&'static str, String)>);

/// What clients try.
fn requests() -> Vec<Try> {
    let bearer = |token: String| ("authorization", format!("Bearer {token}"));
    let expired = key().mint(APP, |_, claims| claims["exp"] = json!(1));
    let admin = key().mint(APP, |_, claims| claims["role"] = json!("admin"));
    let forged = || (USER, "forged".to_owned());
    vec![
        ("/orders", "shop.example", vec![]),
        ("/orders?page=2", "shop.example", vec![bearer(good()), forged()]),
        ("/orders", "shop.example", vec![("cookie", format!("a=b; psg_auth_token={}", good()))]),
        ("/orders", "shop.example", vec![bearer(tampered(&good()))]),
        ("/orders", "shop.example", vec![bearer(expired)]),
        ("/orders", "shop.example", vec![("authorization", "Basic dTpw".to_owned())]),
        ("/orders", "shop.example", vec![bearer("x".repeat(9000))]),
        ("/assets/a.css", "shop.example", vec![forged()]),
        ("/shop/x", "shop.example", vec![forged()]),
        ("/shop/x", "shop.example", vec![bearer("x".to_owned())]),
        ("/", "admin.example", vec![bearer(good())]),
        ("/", "admin.example:443", vec![bearer(admin)]),
        ("/closed", "shop.example", vec![bearer(good())]),
        ("/trial", "shop.example", vec![bearer(good())]),
        ("/assets/../closed", "shop.example", vec![bearer(good())]),
        ("/assets/%2e%2e/closed", "shop.example", vec![bearer(good())]),
        ("/assets/..%2fclosed", "shop.example", vec![bearer(good())]),
        ("/assets/..;/closed", "shop.example", vec![bearer(good())]),
        ("/a\\b", "shop.example", vec![bearer(good())]),
        ("/a%zz", "shop.example", vec![bearer(good())]),
        ("no-slash", "shop.example", vec![bearer(good())]),
    ]
}

#[tokio::test]
async fn forward_auth_decides_as_grpc_does() {
    // A forged identity is refused otherwise, which gRPC, where it is removed, does not.
    let service = Service::ready(&http_port("style: forward_auth, client_identity: overwritten")).await;
    let (client, url) = (reqwest::Client::new(), format!("http://{}/auth", service.http.unwrap()));
    for (path, host, headers) in requests() {
        let plain: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let want = service.send(header_map_request("GET", host, path, &plain)).await;
        let original = format!("https://{host}{path}");
        let families = [
            vec![("X-Forwarded-Method", "GET"), ("X-Forwarded-Host", host), ("X-Forwarded-Uri", path)],
            vec![("X-Original-Method", "GET"), ("X-Original-URL", original.as_str())],
        ];
        for family in families {
            if path == "no-slash" && family.len() == 2 {
                continue;
            }
            let mut request = client.get(&url);
            for (name, value) in plain.iter().chain(&family) {
                request = request.header(*name, *value);
            }
            let got = said(request).await;
            let case = format!("{host} {path} {:?}", family[0]);
            assert_eq!(got.status, want.http, "{case}");
            assert_eq!(got.header("www-authenticate"), want.header("www-authenticate"), "{case}");
            if want.http == 200 {
                for (name, value) in &want.headers {
                    assert_eq!(got.header(name), Some(value.as_str()), "{case}");
                }
                for name in &want.remove {
                    assert_eq!(got.header(name), Some(""), "{case}");
                }
                assert_eq!((got.body.as_str(), got.header("x-passage-authz-denial")), ("", None));
            } else {
                assert_eq!(got.header("x-passage-authz-denial"), Some(got.body.as_str()), "{case}");
                assert_eq!(serde_json::from_str::<Value>(&got.body).unwrap(), want.body, "{case}");
                assert_eq!(got.header("content-type"), Some("application/problem+json"));
                assert_eq!(got.header(USER), None, "{case}");
            }
        }
    }
    let good = good();
    for family in [
        &[][..],
        &[("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/")],
        // Rules look at hosts.
        &[("X-Original-URI", "/")],
        &[("X-Original-URL", "http://a/"), ("X-Original-URI", "/")],
        &[
            ("X-Forwarded-Method", "GET"),
            ("X-Forwarded-Host", "a"),
            ("X-Forwarded-Uri", "/"),
            ("X-Original-URL", "http://a/assets/x"),
        ],
    ] {
        let mut request = client.get(&url).bearer_auth(&good);
        for (name, value) in family {
            request = request.header(*name, *value);
        }
        let got = said(request).await;
        assert_eq!(got.status, 400, "{family:?}");
        assert!(got.body.contains("request_malformed"), "{}", got.body);
    }
    assert!(service.end().await.is_ok());
}

/// A denial carries its body in a header, too, where a proxy may drop the body; whatever the client says of it.
#[tokio::test]
async fn the_body_of_a_denial_in_a_header() {
    for (style, in_header) in [("forward_auth", true), ("envoy", false)] {
        for wording in ["{realm: '$host'}", "{reasons: false}"] {
            let config = format!("{}deny: {wording}\n", http_port(&format!("style: {style}")));
            let service = Service::ready(&config).await;
            for (path, token, status) in [
                ("/orders", None, 401),
                ("/orders", Some(tampered(&good())), 401),
                ("/closed", Some(good()), 403),
                ("/a%zz", Some(good()), 400),
                ("/assets/x", None, 200),
                ("/orders", Some(good()), 200),
                ("/trial", Some(good()), 200),
            ] {
                for sent in [None, Some("{\"code\":\"of_the_client\"}")] {
                    let url = format!("http://{}{path}", service.http.unwrap());
                    let original = format!("http://shop.example{path}");
                    let mut request = reqwest::Client::new().get(url).header("x-original-url", original);
                    if let Some(token) = &token {
                        request = request.bearer_auth(token);
                    }
                    if let Some(sent) = sent {
                        request = request.header("x-passage-authz-denial", sent);
                    }
                    let got = said(request).await;
                    let case = format!("{style} {wording} {path} {sent:?}: {}", got.body);
                    assert_eq!(got.status, status, "{case}");
                    let want = (in_header && status != 200).then_some(got.body.as_str());
                    assert_eq!(got.header("x-passage-authz-denial"), want, "{case}");
                    assert_eq!(got.body.is_empty(), status == 200, "{case}");
                }
            }
            assert!(service.end().await.is_ok());
        }
    }
}

/// What proxies that say no method, or no host, are answered, with the empty headers by which they clear a client's.
#[tokio::test]
async fn forward_auth_without_a_method_or_a_host() {
    let http = "http: {listen: '127.0.0.1:0', style: forward_auth}\ncors_preflight: allow\n";
    let rules = "rules: [{name: read, match: {paths: ['/read/*'], methods: [GET]}, access: public}, \
                 {name: both, match: {paths: ['/both/*'], methods: [GET]}, access: public}, \
                 {name: rest, match: {paths: ['/both/*']}, access: public}, \
                 {name: admins, match: {paths: ['/admin/*'], methods: [POST]}, require: {claims: {role: admin}}}, \
                 {name: kept, match: {methods: [DELETE], paths: ['/kept/*']}, access: deny}]";
    let service = Service::ready(&format!("{http}{}", inline(rules))).await;
    let (client, url) = (reqwest::Client::new(), format!("http://{}/auth", service.http.unwrap()));
    let admin = key().mint(APP, |_, claims| claims["role"] = json!("admin"));
    for (method, path, token, status) in [
        ("", "/orders", Some(good()), 200),
        ("", "/orders", None, 401),
        // A rule that lets through by its method may not be meant; one that restricts by it may.
        ("", "/read/x", None, 401),
        ("", "/read/x", Some(good()), 200),
        ("GET", "/read/x", None, 200),
        ("", "/both/x", None, 200),
        ("", "/admin/x", Some(good()), 403),
        ("", "/admin/x", Some(admin.clone()), 200),
        ("GET", "/admin/x", Some(good()), 200),
        ("", "/kept/x", Some(admin), 403),
        ("PUT", "/kept/x", Some(good()), 200),
        ("", "/x#", Some(good()), 400),
    ] {
        let original = format!("https://shop.example{path}");
        let empty = [("X-Forwarded-Method", ""), ("X-Forwarded-Host", ""), ("X-Forwarded-Uri", "")];
        let families = [
            [&empty[..], &[("X-Original-Method", method), ("X-Original-URL", original.as_str())]].concat(),
            [&empty[..], &[("X-Original-Method", method), ("X-Original-URI", path)]].concat(),
            vec![
                ("X-Forwarded-Method", method),
                ("X-Forwarded-Host", "shop.example"),
                ("X-Forwarded-Uri", path),
                ("X-Original-URL", ""),
                ("X-Original-URI", ""),
            ],
        ];
        for family in families {
            for leave_out in [false, true] {
                // A preflight that nobody called one.
                let mut request = client.get(&url).header("origin", "https://a.example");
                request = request.header("access-control-request-method", "GET");
                for (name, value) in family.iter().filter(|(_, value)| !leave_out || !value.is_empty()) {
                    request = request.header(*name, *value);
                }
                if let Some(token) = &token {
                    request = request.bearer_auth(token);
                }
                assert_eq!(said(request).await.status, status, "{method} {path} {family:?}");
            }
        }
    }
    assert!(service.end().await.is_ok());
}

/// A check whose headers are too many is refused as such, and is no malformed request.
#[tokio::test]
async fn too_many_headers_are_431() {
    let service = Service::ready(&http_port("style: envoy")).await;
    let (client, url) = (reqwest::Client::new(), format!("http://{}/assets/x", service.http.unwrap()));
    for (count, status) in [(1, 200), (90, 200), (200, 431)] {
        let request = (0..count)
            .fold(client.get(&url), |request, index| request.header("cookie", format!("c{index}=x")));
        assert_eq!(said(request).await.status, status, "{count} cookies");
    }
    assert!(service.end().await.is_ok());
}

#[tokio::test]
async fn a_withheld_token_is_removed_and_other_cookies_stay() {
    let config = format!("{}tokens: {{forward: false}}\n", http_port("style: envoy"));
    let service = Service::ready(&config).await;
    let url = format!("http://{}/orders", service.http.unwrap());
    let good = good();
    let request = reqwest::Client::new().post(url).bearer_auth(&good).body("a body that is not read");
    let got = said(request.header("cookie", format!("a=b; psg_auth_token={good}; c=d"))).await;
    assert_eq!((got.status, got.header(USER)), (200, Some("user-1")));
    assert_eq!((got.header("authorization"), got.header("cookie")), (None, Some("a=b; c=d")));
    let removed = got.header("x-envoy-auth-headers-to-remove").unwrap();
    assert!(removed.split(',').any(|name| name == "authorization"), "{removed}");
}
