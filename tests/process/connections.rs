//! `max_connections` on the gRPC port.

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::fixtures::{good, serving};
use crate::support::process::{Running, file};
use crate::support::{check_token, get, wait_until};

#[tokio::test]
async fn past_max_connections_new_ones_are_refused_and_old_ones_served() {
    let config = serving("listen: '127.0.0.1:0', max_connections: 3", "");
    let running = Running::serve(file(&config).path(), "info").await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    assert_eq!(check_token(&client, &good()).await.unwrap().code(), "allowed");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(running.grpc).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        stream.read_u8().await.expect("the server's own SETTINGS");
        held.push(stream);
    }
    for _ in 0..5 {
        let mut stream = TcpStream::connect(running.grpc).await.unwrap();
        let ended = stream.read(&mut [0; 16]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "closed at once: {ended:?}");
    }
    assert_eq!(check_token(&client, &good()).await.unwrap().code(), "allowed");
    let (_, metrics) = get(running.admin, "/metrics").await;
    assert!(metrics.contains("passage_authz_connections_refused_total{port=\"grpc\"} 5\n"), "{metrics}");
    held.pop();
    wait_until("room again", || async {
        let fresh = AuthorizationClient::connect(format!("http://{}", running.grpc)).await;
        match fresh {
            Ok(fresh) => check_token(&fresh, &good()).await.is_ok(),
            Err(_) => false,
        }
    })
    .await;
}
