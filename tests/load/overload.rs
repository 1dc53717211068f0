//! More checks under way than a core takes.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::testing::{Behavior, FakeIssuer, jwks};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::MEASURING;
use crate::support::fixtures::{APP, good, key};
use crate::support::process::Running;
use crate::support::{check_request, check_token, get, series, wait_until};

#[tokio::test]
async fn too_many_checks_under_way_are_refused_at_once_and_health_is_not() {
    let _measuring = MEASURING.lock().await;
    let slow = FakeIssuer::start(Behavior::Hang).await;
    let config = format!(
        "issuers:\n\
         - {{name: passage, passage: {{app_id: {APP}}}, keys: {{inline: {}}}}}\n\
         - {{name: slow, issuer: slow, audiences: [], keys: {{url: '{}/keys'}}, refresh: {{timeout: 60s, wait: 10s}}}}\n",
        jwks(&[&key()]),
        slow.url()
    );
    let running = Running::start(&config, "info").await;
    running.until_ready().await;
    let client = AuthorizationClient::new(channel(running.grpc));
    assert_eq!(check_token(&client, &good()).await.unwrap().code(), "allowed");
    // Checks that wait for keys, as many as two cores may not have under way. Each is asked again when it ends,
    // refused or not, so that a slow machine reaches that number, too.
    let token = key().mint("slow", |_, _| {});
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..34 {
        let client = AuthorizationClient::new(channel(running.grpc));
        for _ in 0..256 {
            let (client, token) = (client.clone(), token.clone());
            waiting.spawn(async move {
                loop {
                    if check_token(&client, &token).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            });
        }
    }
    let refused = async || client.clone().check(check_request(&[])).await.err().map(|status| status.code());
    // Often enough that it is for good.
    for _ in 0..5 {
        wait_until("refused", || async { refused().await == Some(tonic::Code::Unavailable) }).await;
    }
    // At once: the best of a few, for the client may have to wait for its own turn on a busy machine.
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let begun = tokio::time::Instant::now();
        assert_eq!(refused().await, Some(tonic::Code::Unavailable));
        quickest = quickest.min(begun.elapsed());
    }
    assert!(quickest < Duration::from_secs(2), "{quickest:?}");
    let health = HealthClient::new(channel(running.grpc)).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status, 1, "too much to do is no reason to be restarted");
    let (_, metrics) = get(running.admin, "/metrics").await;
    assert!(series(&metrics, "passage_authz_overloaded_total").values().all(|count| *count >= 2.0));
    waiting.shutdown().await;
    wait_until("served again", || async { refused().await.is_none() }).await;
}

fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}
