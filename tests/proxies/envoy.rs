//! The whole way: a client, the real Envoy with the shipped bootstrap, the service, an upstream.

use crate::support::Service;
use crate::support::envoy::{Envoy, Upstream, seen};
use crate::support::fixtures::{APP, USER, key, passage, passage_with};
use passage_authz::testing::{Behavior, FakeIssuer, tampered};
use serde_json::{Value, json};

struct Seen {
    status: u16,
    challenge: Option<String>,
    content_type: Option<String>,
    body: Value,
}

async fn ask(envoy: &Envoy, headers: &[(&str, String)]) -> Seen {
    let mut request = reqwest::Client::new().get(format!("http://{}/orders", envoy.address));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = request.send().await.unwrap();
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (challenge, content_type) = (text("www-authenticate"), text("content-type"));
    let status = response.status().as_u16();
    let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
    Seen { status, challenge, content_type, body }
}

#[tokio::test]
async fn the_upstream_sees_the_true_user_or_nothing_at_all() {
    let key = key();
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let service = Service::ready(&passage(&issuer)).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    let good = key.mint(&issuer.passage_iss(APP), |_, _| {});
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));

    for headers in [
        vec![bearer(&good)],
        vec![("cookie", format!("a=b; psg_auth_token={good}"))],
        vec![bearer(&good), (USER, "admin".to_owned())],
        vec![bearer(&good), (USER, "admin".to_owned()), (USER, "root".to_owned())],
        vec![bearer(&good), ("x_passage_user_id", "admin".to_owned())],
        vec![
            bearer(&good),
            ("x-passage-user_id", "admin".to_owned()),
            ("X_Passage-User-Id", "admin".to_owned()),
        ],
    ] {
        let answer = ask(&envoy, &headers).await;
        assert_eq!(answer.status, 200, "{headers:?}");
        assert_eq!(seen(&answer.body, USER), ["user-1"], "{headers:?}");
    }

    let other_app = key.mint(&issuer.passage_iss("app2"), |_, _| {});
    let expired = key.mint(APP, |_, claims| claims["exp"] = json!(1_000_000_000));
    let forged = key.mint(APP, |_, claims| claims["sub"] = json!("a\r\nx-admin: 1"));
    for (code, headers) in [
        ("token_missing", vec![(USER, "admin".to_owned())]),
        ("token_expired", vec![bearer(&expired)]),
        ("signature_invalid", vec![bearer(&tampered(&good))]),
        ("issuer_unknown", vec![bearer(&other_app)]),
        ("claim_invalid", vec![bearer(&forged)]),
        ("token_malformed", vec![bearer(&good), bearer(&tampered(&good))]),
    ] {
        let answer = ask(&envoy, &headers).await;
        assert_eq!((answer.status, &answer.body["code"]), (401, &json!(code)));
        assert!(answer.challenge.unwrap().starts_with("Bearer realm=\"passage-authz\""));
        assert_eq!(answer.content_type.as_deref(), Some("application/problem+json"));
    }
}

#[tokio::test]
async fn raw_headers_are_read_alike() {
    let key = key();
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let service = Service::ready(&passage(&issuer)).await;
    let upstream = Upstream::start().await.unwrap();
    let raw = |config: String| {
        let marked = "transport_api_version: V3";
        assert!(config.contains(marked));
        config.replace(marked, "transport_api_version: V3\n              encode_raw_headers: true")
    };
    let envoy = Envoy::edited(service.grpc, upstream.address, raw).await;
    let bearer = |token: String| ("authorization", format!("Bearer {token}"));
    let good = key.mint(APP, |_, _| {});
    let answer = ask(&envoy, &[bearer(good.clone()), (USER, "admin".to_owned())]).await;
    assert_eq!((answer.status, seen(&answer.body, USER)), (200, vec!["user-1".to_owned()]));
    let twice = ask(&envoy, &[bearer(good.clone()), bearer(good.clone())]).await;
    assert_eq!((twice.status, seen(&twice.body, USER)), (200, vec!["user-1".to_owned()]));
    let two = ask(&envoy, &[bearer(good.clone()), bearer(tampered(&good))]).await;
    assert_eq!((two.status, &two.body["code"]), (401, &json!("token_malformed")));
}

#[tokio::test]
async fn without_keys_or_without_the_service_no_request_gets_through() {
    let key = key();
    let issuer = FakeIssuer::start(Behavior::Reset).await;
    let service = Service::start(&passage_with(&issuer, "")).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    let bearer = [("authorization", format!("Bearer {}", key.mint(APP, |_, _| {})))];
    let answer = ask(&envoy, &bearer).await;
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("keys_unavailable")));
    service.end().await.unwrap();
    assert_eq!(ask(&envoy, &bearer).await.status, 503);
}
