//! Three replicas behind the real Envoy, under load: a logout that one is told is denied by all, and nothing else is.

use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::replicas::bootstrap;
use crate::support::envoy::{Envoy, Upstream, binary};
use crate::support::events::{log_out, logout_token, old_token, replica, replica_by_redis};
use crate::support::load::Load;
use crate::support::process::{Running, file, free_port};
use crate::support::redis::Redis;
use crate::support::{check_token, join_all, wait_until};

/// The figures are printed, not asserted: they are the machine's.
#[expect(clippy::print_stdout, reason = "it measures")]
async fn log_out_under_load(configs: [String; 3], by: &str) {
    let mut replicas = Vec::new();
    for config in configs {
        replicas.push(Running::start(&config, "info").await);
    }
    for replica in &replicas {
        replica.until_ready().await;
    }
    let upstream = Upstream::start().await.unwrap();
    let endpoints: Vec<_> = replicas.iter().map(|replica| replica.grpc).collect();
    let envoy = Envoy::run(&binary().await, bootstrap(&endpoints, upstream.address)).await.unwrap();
    wait_until("each replica is known", || async { envoy.healthy().await == 3 }).await;
    let client = |replica: &Running| {
        let channel = Channel::from_shared(format!("http://{}", replica.grpc)).unwrap().connect_lazy();
        AuthorizationClient::new(channel)
    };
    let clients: Vec<_> = replicas.iter().map(client).collect();
    // As one caller sees it, whichever replica is asked.
    let load = Load::through(&envoy);
    load.goes_on(100).await;
    let logouts = std::env::var("LOGOUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(200);
    let mut waits = Vec::new();
    for at in 0..logouts {
        let sub = format!("leaves-{at}");
        let token = old_token(&sub);
        for client in &clients {
            assert_eq!(check_token(client, &token).await.unwrap().code(), "allowed");
        }
        let sent = log_out(replicas[at % 3].events, &logout_token(&sub, |_, _| {})).await;
        assert_eq!(sent.status, 200, "{sent:?}");
        let begun = Instant::now();
        join_all(clients.iter().map(|client| {
            let token = token.clone();
            async move {
                wait_until(&format!("logout {at} is known"), || async {
                    check_token(client, &token).await.unwrap().code() == "token_revoked"
                })
                .await;
            }
        }))
        .await;
        waits.push(begun.elapsed());
    }
    load.end().await;
    waits.sort();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100];
    let millis = |wait: Duration| wait.as_secs_f64() * 1000.0;
    println!(
        "{by}: {logouts} logouts, from the answer to the last replica's denial: p50 {:.1} ms, p99 {:.1} ms, p100 {:.1} ms",
        millis(at(50)),
        millis(at(99)),
        millis(at(100))
    );
}

#[tokio::test]
async fn what_one_replica_is_told_all_deny_and_no_other_request_fails() {
    let ports = [free_port(), free_port(), free_port()];
    log_out_under_load(ports.map(|port| replica(port, &ports, "")), "peers").await;
    let at = free_port();
    let Some(_redis) = Redis::start(at).await else { return };
    let password = file("secret");
    let config = replica_by_redis(at, password.path());
    log_out_under_load([config.clone(), config.clone(), config], "redis").await;
}
