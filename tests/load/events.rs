//! A flood of forged events: each gets its answer, memory stays bounded, and checks go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::testing::tampered;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::MEASURING;
use crate::support::check_token;
use crate::support::events::{log_out, logout_token};
use crate::support::fixtures::{good, serving};
use crate::support::process::{Running, file};

const SENDERS: usize = 16;
const CHECKS: usize = 2000;
const MAX_GROWTH_KIB: u64 = 32 * 1024;

/// The figures are printed, not asserted: the flood and the checks share their cores with what measures them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_events_leaves_checks_alone() {
    let _measuring = MEASURING.lock().await;
    let config = serving("listen: '127.0.0.1:0'", "revocation: {listen: '127.0.0.1:0', audiences: [shop]}");
    let running = Running::serve(file(&config).path(), "info").await;
    running.until_ready().await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let token = good();
    let measure = async || {
        let mut waits = Vec::new();
        for _ in 0..CHECKS {
            let begun = Instant::now();
            assert_eq!(check_token(&client, &token).await.unwrap().code(), "allowed");
            waits.push(begun.elapsed());
        }
        waits.sort();
        waits[CHECKS * 99 / 100]
    };
    let quiet = measure().await;
    let before = running.resident();
    // Of a known key, so that each signature is looked at.
    let forged = tampered(&logout_token("user-1", |_, _| {}));
    let (sent, stop, mut senders) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new(), JoinSet::new());
    for _ in 0..SENDERS {
        let (sent, stop, forged) = (Arc::clone(&sent), stop.clone(), forged.clone());
        let (client, url) = (reqwest::Client::new(), format!("http://{}/backchannel-logout", running.events));
        senders.spawn(async move {
            while !stop.is_cancelled() {
                let request = client.post(&url).header("content-type", "application/x-www-form-urlencoded");
                let answer = request.body(format!("logout_token={forged}")).send().await.unwrap();
                assert_eq!(answer.status(), 400);
                answer.bytes().await.unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let begun = Instant::now();
    let flooded = measure().await;
    let seconds = begun.elapsed().as_secs_f64();
    let events = sent.load(Ordering::Relaxed);
    stop.cancel();
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    let grown = running.resident().saturating_sub(before);
    assert!(grown <= MAX_GROWTH_KIB, "{grown} KiB");
    assert!(events > 0);
    let after = log_out(running.events, &logout_token("somebody", |_, _| {})).await;
    assert_eq!(after.status, 200, "an event beside them is taken");
    let micros = |wait: Duration| wait.as_micros();
    println!(
        "p99 of a check: quiet {} us, beside {:.0} forged events a second {} us; {grown} KiB more",
        micros(quiet),
        f64::from(u32::try_from(events).unwrap()) / seconds,
        micros(flooded)
    );
}
