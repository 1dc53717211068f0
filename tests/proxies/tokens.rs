//! `tokens.forward: false` through Envoy: the upstream sees no token, and every cookie but the token's.

use passage_authz::testing::tampered;

use crate::raw::raw;
use crate::support::Service;
use crate::support::attacks::RULES;
use crate::support::envoy::{Envoy, Upstream, seen};
use crate::support::fixtures::{good, inline};

#[tokio::test]
async fn tokens_that_are_not_forwarded_reach_no_upstream_on_any_route() {
    let more = format!(
        "tokens: {{forward: false, from: [{{header: authorization}}, {{header: x-api-token}}, {{cookie: psg_auth_token}}, {{query: access_token}}]}}\n{RULES}"
    );
    let service = Service::ready(&inline(&more)).await;
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
    let service = Service::ready(&inline("tokens: {forward: false}\n")).await;
    let upstream = Upstream::start().await.unwrap();
    let raw_headers = |config: String| {
        config.replace(
            "transport_api_version: V3",
            "transport_api_version: V3\n              encode_raw_headers: true",
        )
    };
    let envoy = Envoy::edited(service.grpc, upstream.address, raw_headers).await;
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
