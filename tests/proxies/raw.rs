//! A request to Envoy written byte by byte, since HTTP clients tidy up what they send.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::envoy::Envoy;

/// Status and body of the answer; a body that is not JSON is null.
pub(crate) async fn raw(envoy: &Envoy, target: &str, headers: impl AsRef<[u8]>) -> (u16, Value) {
    raw_at(envoy.address, "shop.example", target, headers).await
}

/// The same for another host.
pub(crate) async fn raw_to(
    envoy: &Envoy,
    host: &str,
    target: &str,
    headers: impl AsRef<[u8]>,
) -> (u16, Value) {
    raw_at(envoy.address, host, target, headers).await
}

/// The same to any proxy.
pub(crate) async fn raw_at(
    proxy: SocketAddr,
    host: &str,
    target: &str,
    headers: impl AsRef<[u8]>,
) -> (u16, Value) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let text = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    stream.write_all(&[text.as_bytes(), headers.as_ref(), b"\r\n"].concat()).await.unwrap();
    let mut answer = Vec::new();
    // Envoy may reset the connection of a request it refuses.
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = text.split_once('{').and_then(|(_, rest)| {
        let end = rest.rfind('}')?;
        serde_json::from_str(&format!("{{{}", &rest[..=end])).ok()
    });
    (status, body.unwrap_or_default())
}
