//! Signed events at the port of `revocation.listen`: which are accepted and what they revoke, which are refused and how.

use std::time::Duration;

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::domain::clock::{Clock, UnixTime};
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, tampered};
use serde_json::{Value, json};

use crate::support::events::{
    CLIENT, LOGOUT, Sent, log_out, logout_token, logout_token_by, now, post, push, security_event,
};
use crate::support::fixtures::{APP, inline, key, passage_with};
use crate::support::{Service, get, series, wait_until};

const LISTEN: &str = "listen: '127.0.0.1:0', audiences: [shop]";

fn config(more: &str) -> String {
    inline(&format!("revocation: {{{LISTEN}{more}}}"))
}

/// A token of this user, issued a minute ago.
fn token(sub: &str, edit: impl FnOnce(&mut Value)) -> String {
    key().mint(APP, |_, claims| {
        (claims["sub"], claims["iat"]) = (json!(sub), json!(now() - 60));
        edit(claims);
    })
}

async fn counted(service: &Service, result: &str) -> f64 {
    let (_, metrics) = get(service.admin, "/metrics").await;
    let name = "passage_authz_revocation_events_total";
    series(&metrics, name)[&format!("{{source=\"listen\",result=\"{result}\"}}")]
}

#[tokio::test]
async fn what_each_event_revokes() {
    let service = Service::ready(&config(", subject_claims: {email: email, account: acct}")).await;
    let to = service.events.unwrap();
    type Row = (&'static str, fn(&str) -> String, fn(&str, &mut Value), &'static str);
    fn set(sub_id: Value, sub: &str) -> String {
        security_event(sub, |_, claims| claims["sub_id"] = sub_id)
    }
    let rows: &[Row] = &[
        ("logout of a user", |u| logout_token(u, |_, _| {}), |_, _| {}, "token_revoked"),
        ("a later login", |u| logout_token(u, |_, _| {}), |_, c| c["iat"] = json!(now() + 2), "allowed"),
        (
            "without iat",
            |u| logout_token(u, |_, _| {}),
            |_, c| drop(c.as_object_mut().unwrap().remove("iat")),
            "token_revoked",
        ),
        ("another user", |u| logout_token(u, |_, _| {}), |_, c| c["sub"] = json!("somebody"), "allowed"),
        (
            "logout of a session",
            |u| logout_token(u, |_, c| c["sid"] = json!(format!("s {u}"))),
            |u, c| c["sid"] = json!(format!("s {u}")),
            "token_revoked",
        ),
        (
            "another session",
            |u| logout_token(u, |_, c| c["sid"] = json!(format!("s {u}"))),
            |_, c| c["sid"] = json!("other"),
            "allowed",
        ),
        (
            "the other iss of the app",
            |u| logout_token(u, |_, _| {}),
            |_, c| c["iss"] = json!("https://auth.passage.id/v1/apps/app1"),
            "token_revoked",
        ),
        ("a security event", |u| security_event(u, |_, _| {}), |_, _| {}, "token_revoked"),
        ("opaque", |u| set(json!({"format": "opaque", "id": u}), u), |_, _| {}, "token_revoked"),
        (
            "e-mail",
            |u| set(json!({"format": "email", "email": format!("{u}@X.example")}), u),
            |u, c| c["email"] = json!(format!("{u}@x.EXAMPLE")),
            "token_revoked",
        ),
        (
            "another e-mail",
            |u| set(json!({"format": "email", "email": format!("{u}@x.example")}), u),
            |u, c| c["email"] = json!(format!("{u}@y.example")),
            "allowed",
        ),
        (
            "account",
            |u| set(json!({"format": "account", "uri": format!("acct:{u}@x.example")}), u),
            |u, c| c["acct"] = json!(format!("acct:{u}@x.example")),
            "token_revoked",
        ),
        (
            "a session by Shared Signals",
            |u| set(json!({"format": "complex", "session": {"format": "opaque", "id": format!("s {u}")}}), u),
            |u, c| c["sid"] = json!(format!("s {u}")),
            "token_revoked",
        ),
    ];
    for (at, (name, event, edit, want)) in rows.iter().enumerate() {
        let sub = format!("user-{at}");
        let mine = token(&sub, |claims| edit(&sub, claims));
        // Cached before.
        assert_eq!(service.bearer(&mine).await.code(), "allowed", "{name}");
        let event = event(&sub);
        let sent = if event_is_logout(&event) { log_out(to, &event).await } else { push(to, &event).await };
        assert_eq!(
            (sent.status, &sent.body),
            (if event_is_logout(&event) { 200 } else { 202 }, &json!("")),
            "{name}"
        );
        for _ in 0..2 {
            assert_eq!(service.bearer(&mine).await.code(), *want, "{name}");
        }
    }
}

fn event_is_logout(event: &str) -> bool {
    use base64::Engine as _;
    let claims = event.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["events"].get(LOGOUT).is_some()
}

#[tokio::test]
async fn an_event_without_an_effect_is_answered() {
    let service = Service::ready(&config("")).await;
    let to = service.events.unwrap();
    for event in ["verification", "stream-updated", "another"] {
        let uri = format!("https://schemas.openid.net/secevent/ssf/event-type/{event}");
        let event = security_event("user-1", |_, claims| {
            claims["events"] = json!({uri: {"state": "x"}});
        });
        assert_eq!(push(to, &event).await.status, 202);
    }
    assert_eq!(service.bearer(&token("user-1", |_| {})).await.code(), "allowed");
}

#[tokio::test]
async fn what_is_no_good_event_is_refused_and_has_no_effect() {
    let service = Service::ready(&config("")).await;
    let to = service.events.unwrap();
    let mine = token("user-1", |_| {});
    let stranger = SigningKey::generate("k1", Algorithm::Rs256);
    let refused = |sent: &Sent| (sent.status, sent.body["error"].as_str().unwrap_or("?").to_owned());
    for (name, text) in [
        ("empty", String::new()),
        ("forged", logout_token_by(&stranger, "user-1", |_, _| {})),
        ("tampered", tampered(&logout_token("user-1", |_, _| {}))),
        ("another issuer", logout_token("user-1", |_, c| c["iss"] = json!("app2"))),
        ("another client", logout_token("user-1", |_, c| c["aud"] = json!("other"))),
        ("no audience", logout_token("user-1", |_, c| drop(c.as_object_mut().unwrap().remove("aud")))),
        ("old", logout_token("user-1", |_, c| c["iat"] = json!(now() - 25 * 3600))),
        ("of tomorrow", logout_token("user-1", |_, c| c["iat"] = json!(now() + 3600))),
        ("expired", logout_token("user-1", |_, c| c["exp"] = json!(now() - 3600))),
        ("without jti", logout_token("user-1", |_, c| drop(c.as_object_mut().unwrap().remove("jti")))),
        ("with nonce", logout_token("user-1", |_, c| c["nonce"] = json!("n"))),
        ("alg none", unsigned(&logout_token("user-1", |_, _| {}))),
        ("a security event", security_event("user-1", |_, _| {})),
        (
            "an ID token",
            key()
                .mint(APP, |_, c| (c["aud"], c["iat"], c["jti"]) = (json!(CLIENT), json!(now()), json!("j"))),
        ),
        (
            "an access token",
            key().mint(APP, |h, c| {
                h["typ"] = json!("at+jwt");
                (c["aud"], c["iat"], c["jti"]) = (json!(CLIENT), json!(now()), json!("j"));
            }),
        ),
        (
            "an unknown key",
            logout_token_by(&SigningKey::generate("k9", Algorithm::Rs256), "user-1", |_, _| {}),
        ),
        ("17 KiB", logout_token("user-1", |_, c| c["x"] = json!("x".repeat(13_000)))),
    ] {
        let sent = log_out(to, &text).await;
        assert_eq!(refused(&sent), (400, "invalid_request".to_owned()), "{name}: {sent:?}");
        assert!(sent.body["error_description"].is_string(), "{name}");
        assert_eq!(sent.headers["cache-control"], "no-store", "{name}");
        assert_eq!(service.bearer(&mine).await.code(), "allowed", "{name}");
    }
    for (name, text, err) in [
        ("empty", String::new(), "invalid_request"),
        ("forged", tampered(&security_event("user-1", |_, _| {})), "authentication_failed"),
        ("another issuer", security_event("user-1", |_, c| c["iss"] = json!("app2")), "invalid_issuer"),
        ("another stream", security_event("user-1", |_, c| c["aud"] = json!("other")), "invalid_audience"),
        ("an unknown key", security_event("user-1", |h, _| h["kid"] = json!("k9")), "invalid_key"),
        ("alg none", unsigned(&security_event("user-1", |_, _| {})), "invalid_key"),
        (
            "without typ",
            security_event("user-1", |h, _| drop(h.as_object_mut().unwrap().remove("typ"))),
            "invalid_request",
        ),
        ("a logout token", logout_token("user-1", |_, _| {}), "invalid_request"),
        (
            "e-mail without its claim",
            security_event("user-1", |_, c| c["sub_id"] = json!({"format": "email", "email": "a@b.example"})),
            "invalid_request",
        ),
        (
            "another issuer's user",
            security_event("user-1", |_, c| c["sub_id"]["iss"] = json!("app2")),
            "invalid_request",
        ),
    ] {
        let sent = push(to, &text).await;
        assert_eq!((sent.status, &sent.body["err"]), (400, &json!(err)), "{name}: {sent:?}");
        assert!(sent.body["description"].is_string(), "{name}");
        assert_eq!(
            (&sent.headers["content-type"], &sent.headers["content-language"]),
            (&"application/json".parse().unwrap(), &"en".parse().unwrap()),
            "{name}"
        );
        assert_eq!(service.bearer(&mine).await.code(), "allowed", "{name}");
    }
    assert_eq!((counted(&service, "accepted").await, counted(&service, "refused").await), (0.0, 27.0));
    assert_eq!(log_out(to, &logout_token("user-1", |_, _| {})).await.status, 200);
    assert_eq!(
        service.bearer(&mine).await.code(),
        "token_revoked",
        "all of them were refused for what they are"
    );
}

fn unsigned(event: &str) -> String {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let (message, _) = event.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let mut header: Value = serde_json::from_slice(&engine.decode(header).unwrap()).unwrap();
    header["alg"] = json!("none");
    format!("{}.{claims}.", engine.encode(header.to_string()))
}

#[tokio::test]
async fn the_forms_of_requests() {
    let service = Service::ready(&config("")).await;
    let to = service.events.unwrap();
    let (form, set) = ("application/x-www-form-urlencoded", "application/secevent+jwt");
    let (logout, event) = (logout_token("user-1", |_, _| {}), security_event("user-2", |_, _| {}));
    for (path, content_type, body, status) in [
        ("/backchannel-logout", "text/plain", format!("logout_token={logout}"), 400),
        ("/backchannel-logout", form, logout.clone(), 400),
        ("/backchannel-logout", form, format!("logout_token={logout}&logout_token={logout}"), 400),
        ("/backchannel-logout", form, "x".repeat(1 << 20), 413),
        ("/events", form, event.clone(), 400),
        ("/events", "application/jwt", event.clone(), 400),
        ("/events", set, "x".repeat(1 << 20), 413),
        ("/backchannel-logout/", form, format!("logout_token={logout}"), 404),
        ("/", form, String::new(), 404),
        // Without `peers` there are no other replicas.
        ("/replica/events", "text/plain", format!("logout_token {logout}\n"), 404),
        ("/replica/missing", "text/plain", "00\n".to_owned(), 404),
    ] {
        assert_eq!(post(to, path, content_type, body).await.status, status, "{path} {content_type}");
    }
    for path in ["/backchannel-logout", "/events"] {
        let answer = reqwest::get(format!("http://{to}{path}")).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["allow"]), (405, &"POST".parse().unwrap()));
    }
    assert_eq!(service.bearer(&token("user-1", |_| {})).await.code(), "allowed");
    let params = post(
        to,
        "/backchannel-logout",
        &format!("{form}; charset=UTF-8"),
        format!("x=1&logout_token={logout}"),
    )
    .await;
    assert_eq!(params.status, 200);
    assert_eq!(post(to, "/events", "Application/SecEvent+JWT", format!("{event}\n")).await.status, 202);
    for user in ["user-1", "user-2"] {
        assert_eq!(service.bearer(&token(user, |_| {})).await.code(), "token_revoked");
    }
}

#[tokio::test]
async fn a_replay_has_no_effect() {
    let service = Service::ready(&config("")).await;
    let to = service.events.unwrap();
    let (logout, event) = (logout_token("user-1", |_, _| {}), security_event("user-1", |_, _| {}));
    assert_eq!((log_out(to, &logout).await.status, push(to, &event).await.status), (200, 202));
    let again = log_out(to, &logout).await;
    assert_eq!(
        (again.status, &again.body["error_description"]),
        (400, &json!("the logout token was received before"))
    );
    // A transmitter that has lost the answer sends the event again (RFC 8935).
    assert_eq!(push(to, &event).await.status, 202);
    assert_eq!(counted(&service, "accepted").await, 2.0);
}

#[tokio::test]
async fn what_may_be_accepted_later_is_answered_503() {
    let service = Service::ready(&config(", max_entries: 4")).await;
    let to = service.events.unwrap();
    // The app has two `iss`, each of which takes an entry.
    for user in ["user-1", "user-2"] {
        assert_eq!(log_out(to, &logout_token(user, |_, _| {})).await.status, 200);
    }
    let full = log_out(to, &logout_token("user-3", |_, _| {})).await;
    assert_eq!((full.status, &full.headers["retry-after"]), (503, &"5".parse().unwrap()));
    let full = push(to, &security_event("user-3", |_, _| {})).await;
    assert_eq!((full.status, &full.headers["retry-after"]), (503, &"5".parse().unwrap()));
    assert_eq!(service.bearer(&token("user-3", |_| {})).await.code(), "allowed");
    assert_eq!(counted(&service, "full").await, 2.0);
    // Many events of one user are one entry, and take their room all the same.
    let service = Service::ready(&config(", max_entries: 10")).await;
    let to = service.events.unwrap();
    let mut statuses = Vec::new();
    for at in 0..12 {
        let event = logout_token("user-1", |_, claims| claims["jti"] = json!(at.to_string()));
        statuses.push(log_out(to, &event).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");

    let issuer = FakeIssuer::start(Behavior::Answer(500, Vec::new(), Vec::new())).await;
    let refresh = ", refresh: {timeout: 1s, wait: 100ms}";
    let config = format!("{}revocation: {{{LISTEN}}}\n", passage_with(&issuer, refresh));
    let service = Service::start(&config).await;
    let to = service.events.unwrap();
    let unavailable = log_out(to, &logout_token("user-1", |_, _| {})).await;
    assert_eq!((unavailable.status, &unavailable.headers["retry-after"]), (503, &"5".parse().unwrap()));
}

#[tokio::test]
async fn without_audiences_of_their_own_events_need_those_of_the_issuer() {
    let keys = passage_authz::testing::jwks(&[&key()]);
    let issuer = |audiences: &str| {
        format!(
            "issuers: [{{name: i, issuer: {APP}, audiences: {audiences}, keys: {{inline: {keys}}}}}]\nrevocation: {{listen: '127.0.0.1:0'}}\n"
        )
    };
    for (audiences, status) in [("[shop]", 200), ("[api]", 400), ("[]", 400)] {
        let service = Service::ready(&issuer(audiences)).await;
        let sent = log_out(service.events.unwrap(), &logout_token("user-1", |_, _| {})).await;
        assert_eq!(sent.status, status, "{audiences}: {sent:?}");
    }
}

#[tokio::test]
async fn a_logout_token_is_no_token_for_requests() {
    let service = Service::ready(&config("")).await;
    for typ in [None, Some("JWT"), Some("logout+jwt")] {
        let token = logout_token("user-1", |header, claims| {
            claims["exp"] = json!(now() + 60);
            match typ {
                Some(typ) => header["typ"] = json!(typ),
                None => drop(header.as_object_mut().unwrap().remove("typ")),
            }
        });
        assert_eq!(service.bearer(&token).await.code(), "type_not_allowed", "{typ:?}");
    }
}

#[tokio::test]
async fn entries_of_events_are_gone_when_the_last_token_has_expired() {
    let clock = Clock::stepped(UnixTime::from_secs(now()));
    let service = Service::start_at(&config(", max_token_lifetime: 1h"), clock.clone()).await;
    service.until_ready().await;
    assert_eq!(log_out(service.events.unwrap(), &logout_token("user-1", |_, _| {})).await.status, 200);
    let mine = token("user-1", |claims| claims["exp"] = json!(now() + 86_400));
    // With the longest leeway that an issuer may have.
    clock.advance(Duration::from_secs(3600 + 299));
    assert_eq!(service.bearer(&mine).await.code(), "token_revoked");
    clock.advance(Duration::from_secs(2));
    wait_until("the entry is gone", || async {
        let (_, metrics) = get(service.admin, "/metrics").await;
        series(&metrics, "passage_authz_revocations")["{kind=\"sub\"}"] == 0.0
    })
    .await;
    assert_eq!(service.bearer(&mine).await.code(), "allowed");
}
