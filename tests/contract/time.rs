//! A system's clock that is set back: what had expired stays expired, and what was too old stays too old.

use std::fs;
use std::time::Duration;

use passage_authz::domain::clock::{Clock, UnixTime};
use passage_authz::testing::{Behavior, FakeIssuer};
use serde_json::json;

use crate::support::fixtures::{self, APP, key, passage_with};
use crate::support::{Service, get, series, wait_until};

const NOW: u64 = 1_800_000_000;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn expired_tokens_stay_expired_and_time_goes_on() {
    for cache in [0, 1000] {
        let clock = Clock::stepped(UnixTime::from_secs(NOW));
        let more = format!("tokens: {{cache: {{max_entries: {cache}}}}}\n");
        let service = Service::start_at(&fixtures::inline(&more), clock.clone()).await;
        service.until_ready().await;
        let expires = |after: u64| key().mint(APP, |_, claims| claims["exp"] = json!(NOW + after));
        let (first, second, third) = (expires(60), expires(600), expires(7200));
        for token in [&first, &second, &third] {
            assert_eq!(service.bearer(token).await.code(), "allowed");
        }
        clock.advance(SECOND * 90);
        assert_eq!(service.bearer(&first).await.code(), "token_expired");
        clock.set_back(HOUR);
        assert_eq!(service.bearer(&first).await.code(), "token_expired", "it had expired");
        assert_eq!(service.bearer(&second).await.code(), "allowed");
        // Eight and a half minutes later, and the system's clock has not even caught up.
        clock.advance(SECOND * 540);
        assert_eq!(service.bearer(&second).await.code(), "token_expired", "no hour is given to it");
        assert_eq!(service.bearer(&third).await.code(), "allowed");
        // A token of before the step that is valid from now on is not held up by it.
        let fresh = key().mint(APP, |_, claims| {
            claims["nbf"] = json!(NOW + 630);
            claims["exp"] = json!(NOW + 700);
        });
        assert_eq!(service.bearer(&fresh).await.code(), "allowed");
    }
}

#[tokio::test]
async fn keys_past_max_stale_do_not_come_back_to_life() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let folder = tempfile::tempdir().unwrap();
    let entry = folder.path().join("passage.jwks.json");
    let refresh = ", refresh: {interval: 24h, max_stale: 48h, timeout: 30s, wait: 10ms}";
    let text = format!("key_store: '{}'\n{}", folder.path().display(), passage_with(&issuer, refresh));
    let clock = Clock::stepped(UnixTime::from_secs(NOW));
    let service = Service::start_at(&text, clock.clone()).await;
    service.until_ready().await;
    let iss = issuer.passage_iss(APP);
    let token = key().mint(&iss, |_, claims| claims["exp"] = json!(NOW + 1_000_000));
    assert_eq!(service.bearer(&token).await.code(), "allowed");
    wait_until("the keys are kept", || async { entry.is_file() }).await;
    issuer.behave(Behavior::Reset);

    // The clock is set back while the keys are good: they go on ageing.
    clock.advance(HOUR * 24);
    clock.set_back(HOUR * 20);
    let age = "{issuer=\"passage\"}";
    let metrics = get(service.admin, "/metrics").await.1;
    let shown = series(&metrics, "passage_authz_key_set_age_seconds")[age];
    assert!((shown - 86_400.0).abs() < 1.0, "{shown}");
    clock.advance(HOUR * 24);
    assert_eq!(service.bearer(&token).await.code(), "allowed", "the last moment");
    clock.advance(SECOND);
    assert_eq!(service.bearer(&token).await.code(), "keys_unavailable");
    // And set back once they are too old.
    clock.set_back(HOUR * 24);
    assert_eq!(service.bearer(&token).await.code(), "keys_unavailable", "cached or not");
    let (status, said) = get(service.admin, "/readyz").await;
    assert_eq!(status, 503);
    assert!(
        said.contains("passage (http") && said.contains("): the keys are older than max_stale"),
        "{said}"
    );
    service.end().await.unwrap();

    // Kept keys are as old as their fetch: by the clock as it is set at the start, by the passing time from then on.
    assert!(fs::read_to_string(&entry).unwrap().contains(&NOW.to_string()));
    let clock = Clock::stepped(UnixTime::from_secs(NOW + 47 * 3600));
    let service = Service::start_at(&text, clock.clone()).await;
    service.until_ready().await;
    assert_eq!(service.bearer(&token).await.code(), "allowed");
    clock.set_back(HOUR * 40);
    clock.advance(HOUR);
    assert_eq!(service.bearer(&token).await.code(), "allowed", "the last moment");
    clock.advance(SECOND);
    assert_eq!(service.bearer(&token).await.code(), "keys_unavailable");
    service.end().await.unwrap();
}
