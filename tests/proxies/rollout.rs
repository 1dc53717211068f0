//! A rolling restart behind the real Envoy, under a load that never pauses: no request may fail.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::envoy::{BOOTSTRAP, Envoy, Upstream, binary};
use crate::support::fixtures::serving;
use crate::support::load::Load;
use crate::support::process::{Running, file, free_port};
use crate::support::wait_until;

#[tokio::test]
async fn two_replicas_are_restarted_and_no_request_fails() {
    let start = async |port: SocketAddr| {
        let text =
            serving(&format!("listen: '{port}'"), "").replace("drain_timeout: 30s", "drain_timeout: 60s");
        Running::serve(file(&text).path(), "info").await
    };
    let ports = [free_port(), free_port()];
    let mut replicas = [start(ports[0]).await, start(ports[1]).await];
    let upstream = Upstream::start().await.unwrap();
    let endpoint =
        "        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 50051}}}\n";
    assert!(BOOTSTRAP.contains(endpoint));
    let both = ports.map(|port| endpoint.replace("50051", &port.port().to_string())).concat();
    let config = BOOTSTRAP
        .replace(endpoint, &both)
        .replace("port_value: 8080", &format!("port_value: {}", upstream.address.port()));
    let envoy = Envoy::run(&binary().await, config).await.unwrap();
    wait_until("both replicas healthy", || async { envoy.healthy().await == 2 }).await;

    let load = Load::through(&envoy);
    for (at, port) in ports.into_iter().enumerate() {
        replicas[at].signal("-TERM").await;
        wait_until("drained", || async { tokio::net::TcpStream::connect(port).await.is_err() }).await;
        let old = std::mem::replace(&mut replicas[at], start(port).await);
        let (code, log) = old.end().await;
        assert_eq!(code, Some(0), "{log}");
        wait_until("both replicas healthy again", || async { envoy.healthy().await == 2 }).await;
        load.goes_on(100).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    load.end().await;
}
