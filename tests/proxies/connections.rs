//! Envoy's own connections to the service: over a Unix socket, past `max_connection_age`, with a check that is too large.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::envoy::{Envoy, Upstream, seen};
use crate::support::fixtures::{USER, good, inline, serving};
use crate::support::load::Load;
use crate::support::process::{Running, file};
use crate::support::{Service, get};

#[tokio::test]
async fn envoy_asks_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authz.sock");
    let config = serving(&format!("listen: 'unix:{}', unix_mode: '0600'", path.display()), "");
    let running = Running::serve(file(&config).path(), "info").await;
    let upstream = Upstream::start().await.unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let pipe = |config: String| {
        let socket = "socket_address: {address: 127.0.0.1, port_value: 1}";
        assert!(config.contains(socket));
        config.replace(socket, &format!("pipe: {{path: {}}}", path.display()))
    };
    let envoy = Envoy::edited(nowhere, upstream.address, pipe).await;
    let client = reqwest::Client::new();
    let ask = || client.get(format!("http://{}/", envoy.address));
    assert_eq!(ask().send().await.unwrap().status(), 401);
    let answer = ask().bearer_auth(good()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let echo: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(seen(&echo, USER), ["user-1"]);
    running.signal("-TERM").await;
    assert_eq!(running.end().await.0, Some(0));
    assert!(!path.exists(), "the socket goes with its server");
}

#[tokio::test]
async fn a_connection_that_is_old_goes_away_without_losing_a_check() {
    let config = serving("listen: '127.0.0.1:0', max_connection_age: 1s", "");
    let running = Running::serve(file(&config).path(), "debug").await;
    let address = running.grpc;
    // What a client sees of it: GOAWAY at an age of 0.9 to 1.1 s, on an idle connection too.
    let begun = tokio::time::Instant::now();
    let stream = TcpStream::connect(address).await.unwrap();
    let (_send, connection) = h2::client::handshake(stream).await.unwrap();
    let idle = tokio::spawn(async move {
        let ended = connection.await;
        (begun.elapsed(), ended.map_err(|error| error.to_string()))
    });
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(address, &upstream).await;
    let load = Load::through(&envoy);
    let (age, ended) = idle.await.unwrap();
    assert_eq!(ended, Ok(()), "GOAWAY, not a cut");
    // An idle connection is let go after 20 s in any case.
    assert!((Duration::from_millis(900)..Duration::from_secs(15)).contains(&age), "{age:?}");
    // Long enough for Envoy's own connection to be replaced more than once.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    load.goes_on(100).await;
    load.end().await;
    let (_, metrics) = get(running.admin, "/metrics").await;
    assert!(metrics.contains("passage_authz_connections{port=\"grpc\"} "), "{metrics}");
}

/// Envoy forwards 60 KiB of headers, and sends the path twice, in `path` and in the header `:path`.
#[tokio::test]
async fn the_longest_paths_are_judged() {
    let service =
        Service::ready(&inline("rules: [{name: kept, match: {paths: ['/b/*']}, access: deny}]")).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    for (path, length, status) in
        [("/a/", 20_000, 200), ("/a/", 55_000, 200), ("/b/", 55_000, 403), ("/a/../b/", 55_000, 403)]
    {
        let url = format!("http://{}{path}{}", envoy.address, "a".repeat(length));
        let answer = reqwest::Client::new().get(url).bearer_auth(good()).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path} {length}");
    }
}
