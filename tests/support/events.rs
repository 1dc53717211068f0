//! Signed events as issuers send them, and how they are sent.

use std::net::SocketAddr;
use std::path::Path;

use passage_authz::domain::clock::Clock;
use passage_authz::testing::SigningKey;
use serde_json::{Value, json};

use super::fixtures::{APP, inline, key};

pub(crate) const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
pub(crate) const SESSION_REVOKED: &str =
    "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// The `aud` of these events.
pub(crate) const CLIENT: &str = "shop";

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    Clock::default().now().as_secs()
}

/// A token of this user, issued a minute ago.
pub(crate) fn old_token(sub: &str) -> String {
    key().mint(APP, |_, claims| (claims["sub"], claims["iat"]) = (json!(sub), json!(now() - 60)))
}

/// A replica that listens here, beside those that listen there.
pub(crate) fn replica(listen: SocketAddr, peers: &[SocketAddr], more: &str) -> String {
    let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
    let peers = json!(peers);
    inline(&format!("revocation: {{listen: '{listen}', audiences: [shop], peers: {peers}{more}}}\n"))
}

/// A replica beside others that follow the same stream.
pub(crate) fn replica_by_redis(at: SocketAddr, password: &Path) -> String {
    let redis = format!("{{url: 'redis://{at}', password_file: '{}'}}", password.display());
    inline(&format!("revocation: {{listen: '127.0.0.1:0', audiences: [shop], redis: {redis}}}"))
}

/// A logout token of [`APP`] for this `sub`, edited.
pub(crate) fn logout_token(sub: &str, edit: impl FnOnce(&mut Value, &mut Value)) -> String {
    logout_token_by(&key(), sub, edit)
}

pub(crate) fn logout_token_by(
    key: &SigningKey,
    sub: &str,
    edit: impl FnOnce(&mut Value, &mut Value),
) -> String {
    key.mint(APP, |header, claims| {
        header["typ"] = json!("logout+jwt");
        *claims = json!({
            "iss": APP, "aud": CLIENT, "iat": now(), "jti": format!("logout of {sub}"), "sub": sub, "events": {LOGOUT: {}}
        });
        edit(header, claims);
    })
}

/// A Security Event Token of [`APP`] that a session of this `sub` was revoked, edited.
pub(crate) fn security_event(sub: &str, edit: impl FnOnce(&mut Value, &mut Value)) -> String {
    key().mint(APP, |header, claims| {
        header["typ"] = json!("secevent+jwt");
        *claims = json!({
            "iss": APP, "aud": CLIENT, "iat": now(), "jti": format!("event of {sub}"),
            "sub_id": {"format": "iss_sub", "iss": APP, "sub": sub}, "events": {SESSION_REVOKED: {}}
        });
        edit(header, claims);
    })
}

/// What a sender sees.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

async fn sent(request: reqwest::RequestBuilder) -> Sent {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.text().await.unwrap();
    Sent { status, headers, body: serde_json::from_str(&body).unwrap_or(Value::String(body)) }
}

pub(crate) async fn post(
    to: SocketAddr,
    path: &str,
    content_type: &str,
    body: impl Into<reqwest::Body>,
) -> Sent {
    let request = reqwest::Client::new().post(format!("http://{to}{path}"));
    sent(request.header("content-type", content_type).body(body)).await
}

pub(crate) async fn log_out(to: SocketAddr, token: &str) -> Sent {
    post(to, "/backchannel-logout", "application/x-www-form-urlencoded", format!("logout_token={token}"))
        .await
}

pub(crate) async fn push(to: SocketAddr, event: &str) -> Sent {
    post(to, "/events", "application/secevent+jwt", event.to_owned()).await
}
