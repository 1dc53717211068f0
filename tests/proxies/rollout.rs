//! A rolling restart behind the real Envoy, under a load that never pauses: no request may fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::envoy::{BOOTSTRAP, Envoy, Upstream, find};
use crate::support::process::{Running, file, wait_until};
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{SigningKey, jwks};
use serde_json::Value;

/// A port that is free now, so that a replica can come back to it.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// How many of the replicas Envoy holds for healthy.
async fn healthy(envoy: &Envoy) -> usize {
    let clusters = reqwest::get(format!("http://{}/clusters?format=json", envoy.admin)).await.unwrap();
    let clusters: Value = serde_json::from_slice(&clusters.bytes().await.unwrap()).unwrap();
    let all = clusters["cluster_statuses"].as_array().unwrap();
    let ours = all.iter().find(|cluster| cluster["name"] == "passage-authz").unwrap();
    let hosts = ours["host_statuses"].as_array().unwrap();
    hosts.iter().filter(|host| host["health_status"].get("failed_active_health_check").is_none()).count()
}

#[tokio::test]
async fn two_replicas_are_restarted_and_no_request_fails() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let keys = jwks(&[&key]);
    let start = async |port: SocketAddr| {
        let text = format!(
            "server: {{listen: '{port}', drain_timeout: 20s}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
             issuers: [{{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}]\n"
        );
        Running::serve(file(&text).path(), "info").await
    };
    let ports = [free(), free()];
    let mut replicas = [start(ports[0]).await, start(ports[1]).await];
    let upstream = Upstream::start().await.unwrap();
    let endpoint =
        "        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 50051}}}\n";
    assert!(BOOTSTRAP.contains(endpoint));
    let both = ports.map(|port| endpoint.replace("50051", &port.port().to_string())).concat();
    let config = BOOTSTRAP
        .replace(endpoint, &both)
        .replace("port_value: 8080", &format!("port_value: {}", upstream.address.port()));
    let binary = tokio::task::spawn_blocking(|| find(true)).await.unwrap().unwrap();
    let envoy = Envoy::run(&binary, config).await.unwrap();
    wait_until("both replicas healthy", || async { healthy(&envoy).await == 2 }).await;

    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let answered = Arc::new(AtomicUsize::new(0));
    let client = reqwest::Client::new();
    let (url, token) = (format!("http://{}/", envoy.address), key.mint("app1", |_, _| {}));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (stop, failed, answered) = (Arc::clone(&stop), Arc::clone(&failed), Arc::clone(&answered));
            let (client, url, token) = (client.clone(), url.clone(), token.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get(&url).bearer_auth(&token).send().await.unwrap();
                    if answer.status() != 200 {
                        let what = (answer.status(), answer.text().await.unwrap());
                        failed.lock().unwrap().push(what);
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for (at, port) in ports.into_iter().enumerate() {
        let before = answered.load(Ordering::Relaxed);
        replicas[at].signal("-TERM").await;
        wait_until("drained", || async { tokio::net::TcpStream::connect(port).await.is_err() }).await;
        let old = std::mem::replace(&mut replicas[at], start(port).await);
        let (code, log) = old.end().await;
        assert_eq!(code, Some(0), "{log}");
        wait_until("both replicas healthy again", || async { healthy(&envoy).await == 2 }).await;
        wait_until("the load goes on", || async { answered.load(Ordering::Relaxed) > before + 100 }).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let failed = failed.lock().unwrap();
    assert!(failed.is_empty(), "{} of {answered:?}: {:?}", failed.len(), failed.first());
}
