//! A flood of tokens with random `kid`s: what it may cost in fetches and in memory.

use std::fs;

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{FakeIssuer, SigningKey};
use serde_json::json;
use tokio::time::Instant;

use crate::MEASURING;
use crate::support::{Service, base64url, join_all};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_random_kids_cost_neither_fetches_nor_memory() {
    let _measuring = MEASURING.lock().await;
    let key = SigningKey::shared("old", Algorithm::Es256);
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let service = Service::ready(&format!(
        "issuers: [{{name: issuer, issuer: i, audiences: [], algorithms: [ES256], keys: {{url: '{}/keys'}}, \
         refresh: {{interval: 1h, unknown_kid_cooldown: 1s, wait: 20ms}}}}]\n",
        issuer.url()
    ))
    .await;
    let before = issuer.fetches();
    let began = Instant::now();
    let resident = || {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let good = key.mint("i", |_, _| {});
    let (message, signature) = good.rsplit_once('.').unwrap();
    let claims = message.split_once('.').unwrap().1.to_owned();
    let flood = |from: usize, to: usize| {
        let (service, claims) = (&service, &claims);
        join_all((0..50).map(move |lane| async move {
            for at in (from + lane..to).step_by(50) {
                let header = base64url(&json!({"alg": "ES256", "kid": format!("random-{at}")}).to_string());
                let code = service.bearer(&format!("{header}.{claims}.{signature}")).await;
                assert!(["key_unknown", "keys_unavailable"].contains(&code.code()), "{code:?}");
            }
        }))
    };
    flood(0, 50_000).await;
    let half = resident();
    flood(50_000, 100_000).await;
    let grown = resident().saturating_sub(half);
    let allowed = 1.0 + began.elapsed().as_secs_f64();
    let made = issuer.fetches() - before;
    assert!(f64::from(u32::try_from(made).unwrap()) <= allowed, "{made} fetches, {allowed:.1} allowed");
    assert!(grown < 8 << 20, "the second half of the flood added {grown} bytes");
    assert_eq!(service.bearer(&good).await.code(), "allowed");
}
