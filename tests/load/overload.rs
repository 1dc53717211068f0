//! More checks under way than a core takes, calls without a message, and pauses of the process.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::testing::{Behavior, FakeIssuer, jwks};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::MEASURING;
use crate::support::fixtures::{APP, bearer, good, inline, key};
use crate::support::load::Load;
use crate::support::process::Running;
use crate::support::{Answer, check_request, check_token, get, series, wait_until};

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

const CHECK: &str = "http://a/envoy.service.auth.v3.Authorization/Check";

/// A connection that sends up to 256 calls a second, of each of them this much: HEADERS with a `traceparent` of this
/// length, and the beginning of a message that never ends.
async fn holds_calls(address: SocketAddr, traceparent: usize, data: &'static [u8]) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (send, connection) =
        h2::client::Builder::new().initial_max_send_streams(256).handshake(stream).await.unwrap();
    let calls = async {
        let mut under_way = tokio::task::JoinSet::new();
        loop {
            while under_way.len() < 256 {
                let request = http::Request::post(CHECK).header("content-type", "application/grpc");
                let request = request.header("traceparent", "0".repeat(traceparent)).body(()).unwrap();
                let Ok(mut ready) = send.clone().ready().await else { return };
                let Ok((response, mut body)) = ready.send_request(request, false) else { return };
                if !data.is_empty() {
                    body.send_data(hyper::body::Bytes::from_static(data), false).unwrap();
                }
                under_way.spawn(async move {
                    let _ = response.await;
                    drop(body);
                    // At a pace that takes hardly any of the processor.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                });
            }
            under_way.join_next().await;
        }
    };
    tokio::select! {
        _ = connection => {}
        () = calls => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_whose_message_never_comes_refuse_no_check_of_another_connection() {
    let _measuring = MEASURING.lock().await;
    // HEADERS alone; large HEADERS; the prefix alone; most of a message.
    let part: &'static [u8] = vec![0, 0, 0, 255, 255].leak();
    let most: &'static [u8] = [part, &[0; 60_000]].concat().leak();
    for (what, connections, traceparent, data) in [
        ("HEADERS", 40, 55, &[][..]),
        ("a prefix", 40, 55, part),
        // Fewer: decoding these takes the processor's time in a debug build.
        ("large HEADERS", 4, 15_000, &[]),
        ("parts", 4, 55, most),
    ] {
        let running = Running::start(&inline(""), "info").await;
        running.until_ready().await;
        let client = AuthorizationClient::new(channel(running.grpc));
        assert_eq!(check_token(&client, &good()).await.unwrap().code(), "allowed");
        let before = running.resident();
        let mut hostile = tokio::task::JoinSet::new();
        for _ in 0..connections {
            hostile.spawn(holds_calls(running.grpc, traceparent, data));
        }
        wait_until("all are there", || async {
            let (_, metrics) = get(running.admin, "/metrics").await;
            series(&metrics, "passage_authz_connections")["{port=\"grpc\"}"] > f64::from(connections)
        })
        .await;
        // Over a few seconds, for calls that do not get their message are refused after one.
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        for at in 0..300 {
            pace.tick().await;
            let answer = check_token(&client, &good()).await;
            assert_eq!(answer.expect(what).code(), "allowed", "{what}: {at}");
        }
        // A burst of large checks: HTTP/2 flow control lets their HEADERS through before their messages.
        let mut burst = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (mut client, large) = (client.clone(), "a".repeat(4000));
            let request = check_request(&[("authorization", &bearer(&good())), ("x-large", &large)]);
            burst.spawn(async move {
                client.check(request).await.map(|answer| Answer::from(answer.into_inner()))
            });
        }
        while let Some(answer) = burst.join_next().await {
            assert_eq!(answer.unwrap().expect(what).code(), "allowed", "{what}: in a burst");
        }
        let grown = running.resident().saturating_sub(before);
        assert!(grown < 128 * 1024, "{what}: {grown} KiB more");
        hostile.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pause_of_the_process_refuses_no_check() {
    let _measuring = MEASURING.lock().await;
    let running = Running::start(&inline(""), "info").await;
    running.until_ready().await;
    let client = AuthorizationClient::new(channel(running.grpc));
    let token = good();
    assert_eq!(check_token(&client, &token).await.unwrap().code(), "allowed");
    let load = Load::start(256, move || {
        let (client, token) = (client.clone(), token.clone());
        async move { check_token(&client, &token).await.map(drop).map_err(|status| status.to_string()) }
    });
    for _ in 0..10 {
        load.goes_on(1000).await;
        running.signal("-STOP").await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        running.signal("-CONT").await;
    }
    load.end().await;
    let (_, metrics) = get(running.admin, "/metrics").await;
    assert_eq!(series(&metrics, "passage_authz_overloaded_total").into_values().sum::<f64>(), 0.0);
}

fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}
