//! What the upstream sees of tokens: no other than the judged one, and under `tokens.forward: false` none.

use std::net::SocketAddr;

use passage_authz::testing::tampered;

use crate::http::{envoy_over_http, nginx_in_front_of};
use crate::raw::{raw, raw_at};
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
    let cookies = format!("a=1; psg_auth_token={good}; b=\"2\"; psg_auth_token={good}");
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

const HTTP_RULES: &str = "rules:\n\
    - {name: public, match: {paths: ['/public/*']}, access: public}\n\
    - {name: optional, match: {paths: ['/optional/*']}, access: optional}\n";

/// A path with the lines of headers; the status, and what the upstream sees of cookies and of `authorization`.
type Row<'a> = (&'a str, &'a str, u16, Option<&'a str>, Option<&'a str>);

/// What a proxy lets through. `T` stands for a good token, `F` for a forged one.
async fn through(proxy: SocketAddr, rows: &[Row<'_>]) {
    let good = good();
    let fill =
        |text: &str| text.replace("=T", &format!("={good}")).replace("=F", &format!("={}", tampered(&good)));
    for (path, headers, status, cookie, authorization) in rows {
        let bearer = |text: &str| fill(text).replace("Bearer T", &format!("Bearer {good}"));
        let (got, body) = raw_at(proxy, "shop.example", &fill(path), bearer(headers)).await;
        let case = format!("{path} {headers:?}: {body}");
        assert_eq!(got, *status, "{case}");
        // Lines of their own are the same as joined ones.
        let seen = |name| {
            let values = seen(&body, name).into_iter().filter(|value| !value.is_empty());
            Some(values.collect::<Vec<_>>().join("; ")).filter(|joined| !joined.is_empty())
        };
        assert_eq!(seen("cookie"), cookie.map(fill), "{case}");
        assert_eq!(seen("authorization"), authorization.map(bearer), "{case}");
        if path.contains('?') && *status == 200 {
            assert_eq!(
                body["path"],
                path.replace("access_token=F&", "").replace("access%5Ftoken=F&", ""),
                "{case}"
            );
        }
    }
}

/// Where a token besides the judged one stands in a header.
const ELSEWHERE: &[Row<'static>] = &[
    (
        "/a",
        "authorization: Bearer T\r\ncookie: a=b; psg_auth_token=T\r\n",
        200,
        Some("a=b; psg_auth_token=T"),
        Some("Bearer T"),
    ),
    (
        "/a",
        "authorization: Bearer T\r\ncookie: a=b; psg_auth_token=F\r\n",
        200,
        Some("a=b"),
        Some("Bearer T"),
    ),
    ("/a", "authorization: Bearer T\r\ncookie: psg_auth_token=F\r\n", 200, None, Some("Bearer T")),
    (
        "/a",
        "authorization: Bearer T\r\ncookie: a=b\r\ncookie: psg_auth_token=F\r\n",
        200,
        Some("a=b"),
        Some("Bearer T"),
    ),
    ("/a", "cookie: psg_auth_token=T\r\ncookie: psg_auth_token=F\r\n", 401, None, None),
    ("/optional/a", "cookie: a=b\r\ncookie: psg_auth_token=F\r\n", 401, None, None),
    ("/optional/a", "cookie: a=b\r\ncookie: c=d\r\n", 200, Some("a=b; c=d"), None),
    ("/optional/a", "cookie: a=b; PSG_AUTH_TOKEN=F\r\n", 200, Some("a=b"), None),
    ("/optional/a", "authorization: Basic a Bearer b\r\n", 200, None, None),
    ("/optional/a", "authorization: Basic eDp5\r\n", 200, None, Some("Basic eDp5")),
    (
        "/public/a",
        "authorization: Bearer T\r\ncookie: psg_auth_token=F\r\n",
        200,
        Some("psg_auth_token=F"),
        Some("Bearer T"),
    ),
];

/// Under `tokens.forward: false`.
const NONE: &[Row<'static>] = &[
    ("/a", "authorization: Bearer T\r\ncookie: a=b; psg_auth_token=T; c=d\r\n", 200, Some("a=b; c=d"), None),
    ("/a", "cookie: psg_auth_token=T\r\n", 200, None, None),
    (
        "/a",
        "authorization: Basic eDp5\r\ncookie: c=d; psg_auth_token=T\r\n",
        200,
        Some("c=d"),
        Some("Basic eDp5"),
    ),
    ("/public/a", "cookie: a=b\r\ncookie: psg_auth_token=F\r\n", 200, Some("a=b"), None),
    ("/public/a", "cookie: a=b,psg_auth_token=F,c=d\r\n", 200, Some("a=b; c=d"), None),
    ("/public/a", "authorization: Basic eDp5, Bearer x\r\n", 200, None, None),
    ("/optional/a", "cookie: a=b\r\n", 200, Some("a=b"), None),
];

/// Envoy shows a check lines of one name joined with a comma.
#[tokio::test]
async fn no_other_token_than_the_judged_one_passes_envoy() {
    let tokens = "tokens: {from: [{header: authorization}, {cookie: psg_auth_token}, {query: access_token}]}";
    let service = Service::ready(&inline(&format!("{tokens}\n{HTTP_RULES}"))).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    through(envoy.address, ELSEWHERE).await;
    let bearer = "authorization: Bearer T\r\n";
    through(
        envoy.address,
        &[
            ("/a?access_token=F&b=c", bearer, 200, None, Some("Bearer T")),
            ("/a?access%5Ftoken=F&b=c", bearer, 200, None, Some("Bearer T")),
            ("/a", "authorization: Basic x\r\nauthorization: Bearer T\r\n", 401, None, None),
            ("/optional/a", "authorization: Basic x\r\nauthorization: Bearer T\r\n", 401, None, None),
        ],
    )
    .await;
}

#[tokio::test]
async fn tokens_over_http_through_envoy() {
    let upstream = Upstream::start().await.unwrap();
    for (forward, rows) in [(true, ELSEWHERE), (false, NONE)] {
        let http = "http: {listen: '127.0.0.1:0', style: envoy, path_prefix: /check}";
        let config = inline(&format!("{http}\ntokens: {{forward: {forward}}}\n{HTTP_RULES}"));
        let service = Service::ready(&config).await;
        let envoy = envoy_over_http(&service, &upstream).await;
        through(envoy.address, rows).await;
    }
}

#[tokio::test]
async fn tokens_through_nginx() {
    let upstream = Upstream::start().await.unwrap();
    for (forward, rows) in [(true, ELSEWHERE), (false, NONE)] {
        let http = "http: {listen: '127.0.0.1:0', style: forward_auth}";
        let config = inline(&format!("{http}\ntokens: {{forward: {forward}}}\n{HTTP_RULES}"));
        let service = Service::ready(&config).await;
        let Some(nginx) = nginx_in_front_of(&service, &upstream).await else { return };
        through(nginx.address, rows).await;
    }
}
