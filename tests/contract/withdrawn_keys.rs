//! An issuer that answers with an empty set has withdrawn its keys. That is an answer, not an outage: the last good keys must
//! not outlive it, in memory, in the token cache, or on disk.

use std::fs;
use std::sync::Arc;

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, jwks};
use serde_json::{Value, json};

use crate::support::fixtures::PATIENT;
use crate::support::{Service, get, series, wait_until};

fn key(kid: &str) -> Arc<SigningKey> {
    SigningKey::shared(kid, Algorithm::Es256)
}

fn no_keys() -> Behavior {
    Behavior::json(&json!({"keys": []}))
}

/// One issuer, with these sources and settings, and the token cache on.
fn config(keys: &str, refresh: &str) -> String {
    format!(
        "issuers: [{{name: issuer, issuer: i, audiences: [], algorithms: [ES256], keys: {keys}, \
         refresh: {{{refresh}}}}}]\ntokens: {{cache: {{max_entries: 1000}}}}\n"
    )
}

fn mint(kid: &str) -> String {
    key(kid).mint("i", |_, _| {})
}

async fn count(service: &Service, name: &str, labels: &str) -> f64 {
    series(&get(service.admin, "/metrics").await.1, name)[labels]
}

async fn changes(service: &Service) -> f64 {
    count(service, "passage_authz_key_fetches_total", "{issuer=\"issuer\",result=\"changed\"}").await
}

async fn status(service: &Service) -> Value {
    serde_json::from_str::<Value>(&get(service.admin, "/keys").await.1).unwrap()["issuers"][0].clone()
}

/// What the service shows while its only issuer has no keys.
async fn shows_no_keys(service: &Service) {
    let (ready, said) = get(service.admin, "/readyz").await;
    assert_eq!(ready, 503);
    assert!(said.contains("issuer (") && said.contains("): the issuer has withdrawn all keys"), "{said}");
    assert_eq!(get(service.admin, "/livez").await.0, 200);
    let status = status(service).await;
    assert_eq!((&status["usable"], &status["keys"]), (&json!(false), &json!([])), "{status}");
    assert!(count(service, "passage_authz_keys", "{issuer=\"issuer\"}").await < 0.5);
}

#[tokio::test]
async fn an_empty_set_ends_all_tokens_and_new_keys_bring_them_back() {
    for discovery in [false, true] {
        let issuer = FakeIssuer::with_keys(&[&key("a")]).await;
        let login = FakeIssuer::start(Behavior::Hang).await;
        let uri = format!("{}/keys", issuer.url());
        login.behave(Behavior::json(&json!({"issuer": login.url(), "jwks_uri": uri})));
        let refresh = format!("interval: 100ms, {PATIENT}");
        let (iss, text) = if discovery {
            let text = config("{discovery: true}", &refresh);
            (login.url(), text.replace("issuer: i,", &format!("issuer: '{}',", login.url())))
        } else {
            ("i".to_owned(), config(&format!("{{url: '{uri}'}}"), &refresh))
        };
        let service = Service::ready(&text).await;
        let token = key("a").mint(&iss, |_, _| {});
        assert_eq!(service.bearer(&token).await.code(), "allowed");
        assert_eq!(service.bearer(&token).await.code(), "allowed", "out of the cache");
        issuer.behave(no_keys());
        wait_until("the answer is counted as a change", || async { changes(&service).await > 1.5 }).await;
        let denied = service.bearer(&token).await;
        assert_eq!((denied.code(), denied.http), ("key_unknown", 401), "cached or not");
        assert_eq!(
            service
                .bearer(&key("a").mint(&iss, |header, _| _ = header.as_object_mut().unwrap().remove("kid")))
                .await
                .code(),
            "key_unknown"
        );
        shows_no_keys(&service).await;
        let failed = "{issuer=\"issuer\",result=\"failed\"}";
        assert!(count(&service, "passage_authz_key_fetches_total", failed).await < 0.5);
        // An outage after it revives nothing.
        issuer.behave(Behavior::Reset);
        wait_until("the outage is seen", || async { !status(&service).await["last_error"].is_null() }).await;
        assert_ne!(service.bearer(&token).await.code(), "allowed");
        shows_no_keys(&service).await;
        issuer.behave(Behavior::keys(&[&key("a")]));
        service.until_ready().await;
        assert_eq!(service.bearer(&token).await.code(), "allowed");
    }
}

#[tokio::test]
async fn an_empty_set_is_an_answer_from_the_first_fetch_on() {
    let issuer = FakeIssuer::start(no_keys()).await;
    let refresh = format!("interval: 1h, {PATIENT}");
    let service = Service::start(&config(&format!("{{url: '{}'}}", issuer.url()), &refresh)).await;
    assert_eq!(service.bearer(&mint("a")).await.code(), "key_unknown");
    shows_no_keys(&service).await;
    // Keys that are all unusable are no answer: nothing is withdrawn, and nothing is confirmed.
    let unusable = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]});
    issuer.behave(Behavior::json(&unusable));
    let service = Service::start(&config(&format!("{{url: '{}'}}", issuer.url()), PATIENT)).await;
    assert_eq!(service.bearer(&mint("a")).await.code(), "keys_unavailable");
}

#[tokio::test]
async fn a_restart_during_an_outage_does_not_revive_withdrawn_keys() {
    let issuer = FakeIssuer::with_keys(&[&key("a")]).await;
    let folder = tempfile::tempdir().unwrap();
    let entry = folder.path().join("issuer.jwks.json");
    let kept = |what: &str| fs::read_to_string(&entry).is_ok_and(|text| text.contains(what));
    let text = |refresh: &str| {
        let keys = format!("{{url: '{}'}}", issuer.url());
        format!("key_store: '{}'\n{}", folder.path().display(), config(&keys, refresh))
    };
    let service = Service::ready(&text(&format!("interval: 100ms, {PATIENT}"))).await;
    wait_until("the keys are kept", || async { kept("\\\"kid\\\":\\\"a\\\"") }).await;
    issuer.behave(no_keys());
    wait_until("the empty set is kept", || async { kept("{\\\"keys\\\":[]}") }).await;
    assert_eq!(service.bearer(&mint("a")).await.code(), "key_unknown");
    service.end().await.unwrap();

    issuer.behave(Behavior::Reset);
    let service = Service::start(&text("wait: 10ms")).await;
    wait_until("the outage is seen", || async { !status(&service).await["last_error"].is_null() }).await;
    let denied = service.bearer(&mint("a")).await;
    assert_eq!((denied.code(), denied.http), ("keys_unavailable", 503), "the last fetch has failed");
    shows_no_keys(&service).await;
}

#[tokio::test]
async fn a_key_file_may_be_emptied() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), jwks(&[&key("a")]).to_string()).unwrap();
    let keys = format!("{{file: '{}'}}", file.path().display());
    let service = Service::ready(&config(&keys, &format!("interval: 1h, {PATIENT}"))).await;
    assert_eq!(service.bearer(&mint("a")).await.code(), "allowed");
    fs::write(file.path(), "{\"keys\": []}").unwrap();
    wait_until("the file is read again", || async { changes(&service).await > 1.5 }).await;
    assert_eq!(service.bearer(&mint("a")).await.code(), "key_unknown");
    shows_no_keys(&service).await;
    fs::write(file.path(), jwks(&[&key("a")]).to_string()).unwrap();
    service.until_ready().await;
    assert_eq!(service.bearer(&mint("a")).await.code(), "allowed");
}

#[tokio::test]
async fn one_issuer_without_keys_leaves_the_others_ready() {
    let (empty, other) = (FakeIssuer::start(no_keys()).await, FakeIssuer::with_keys(&[&key("a")]).await);
    let issuer = |name: &str, url: String| {
        format!(
            "- {{name: {name}, issuer: {name}, audiences: [], algorithms: [ES256], keys: {{url: '{url}'}}, \
             refresh: {{{PATIENT}}}}}\n"
        )
    };
    let text = format!("issuers:\n{}{}", issuer("empty", empty.url()), issuer("other", other.url()));
    let service = Service::ready(&text).await;
    assert_eq!(service.bearer(&key("a").mint("other", |_, _| {})).await.code(), "allowed");
    assert_eq!(service.bearer(&key("a").mint("empty", |_, _| {})).await.code(), "key_unknown");
}
