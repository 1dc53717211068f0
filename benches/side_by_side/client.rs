//! A client over h2 for latency: a few connections, some streams on each.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::google::protobuf::Timestamp;
use h2::client::SendRequest;
use passage_authz::testing::SigningKey;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Cookies as a shop and its analytics scripts set them.
const COOKIE: &str = "theme=dark; session_hint=3f9d0c6a; consent=all; locale=en-GB; currency=EUR; _ga=GA1.2.1876501299.1795001122; \
                      _gid=GA1.2.1202871645.1795613301; _fbp=fb.1.1795001122345.1098115397; cart=8c1f6a3e-7d0b-4a55-9c2e-5b1f0e7a9d34; \
                      experiment=checkout-v2:b; last_seen=1795613299; recently_viewed=44121.90817.1123.70021; tz=Europe/Berlin; ab=17.22.31; last=order";

/// The target of a check.
const TARGET: &str = "/api/v1/orders?page=2&size=50";

/// A check as Envoy 1.40 sends it for a browser's request: 15 headers, peers, a time; 1,771 bytes with a token of 675.
pub(crate) fn check(token: &str) -> Bytes {
    check_of(token, TARGET)
}

/// The same for another target.
pub(crate) fn check_of(token: &str, target: &str) -> Bytes {
    let peer = |address: &str, port| {
        use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
        use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address::Address as Kind};
        let socket = SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        };
        Peer { address: Some(Address { address: Some(Kind::SocketAddress(socket)) }), ..Peer::default() }
    };
    let bearer = format!("Bearer {token}");
    let headers = [
        (":authority", "shop.example.com"),
        (":method", "GET"),
        (":path", target),
        (":scheme", "https"),
        ("accept", "application/json, text/plain, */*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-US,en;q=0.9,de;q=0.8"),
        ("authorization", &bearer),
        ("cookie", COOKIE),
        ("referer", "https://shop.example.com/orders?page=1&size=50"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36",
        ),
        ("x-envoy-internal", "true"),
        ("x-forwarded-for", "10.11.12.13"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "4e0bba31-5c2d-4f0e-9a57-0d4b6f6f8a01"),
    ];
    let time = Timestamp { seconds: 1_795_616_027, nanos: 318_837_000 };
    let http = HttpRequest {
        id: "1234567890123456789".to_owned(),
        method: "GET".to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        path: target.to_owned(),
        host: "shop.example.com".to_owned(),
        scheme: "https".to_owned(),
        protocol: "HTTP/2".to_owned(),
        ..HttpRequest::default()
    };
    let request = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer("10.11.12.13", 54321)),
            destination: Some(peer("10.11.12.14", 8443)),
            request: Some(Request { http: Some(http), time: Some(time) }),
            ..AttributeContext::default()
        }),
    };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

/// The token of one user's session, of the 675 bytes that a Passage token has.
pub(crate) fn session(key: &SigningKey, user: usize) -> String {
    key.mint("app1", |_, claims| {
        claims["sub"] = json!(format!("user-{user:08}"));
        claims["aud"] = json!(["https://shop.example.com"]);
        claims["iat"] = json!(1_790_000_000);
        claims["nbf"] = json!(1_790_000_000);
        claims["jti"] = json!("0f8f0a6e-6a1c-4c3f-9d58-1f3a5c7e9b0d".repeat(3)[..79]);
    })
}

/// The head of a call, the same for all calls.
fn head(address: SocketAddr) -> http::Request<()> {
    http::Request::post(format!("http://{address}/envoy.service.auth.v3.Authorization/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a legal request")
}

/// One call, and its answer as received.
async fn call(send: &SendRequest<Bytes>, head: &http::Request<()>, body: Bytes) -> Bytes {
    let request = head.clone();
    let mut send = send.clone().ready().await.expect("the server is there");
    let (response, mut stream) = send.send_request(request, false).expect("a stream is free");
    stream.send_data(body, true).expect("the message fits");
    let mut body = response.await.expect("an answer").into_body();
    let mut message = Bytes::new();
    while let Some(data) = body.data().await {
        let data = data.expect("a whole answer");
        let _ = body.flow_control().release_capacity(data.len());
        message = if message.is_empty() { data } else { [message, data].concat().into() };
    }
    body.trailers().await.expect("trailers");
    message
}

/// The HTTP status that Envoy would answer with, 200 for an allow.
fn status(message: &[u8]) -> i32 {
    use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
    let answer = CheckResponse::decode(message.get(5..).unwrap_or_default()).expect("a CheckResponse");
    match answer.http_response {
        Some(HttpResponse::OkResponse(_)) => 200,
        Some(HttpResponse::DeniedResponse(denied)) => denied.status.map_or(0, |status| status.code),
        _ => 0,
    }
}

pub(crate) struct Client {
    connections: Vec<SendRequest<Bytes>>,
    head: http::Request<()>,
    _tasks: JoinSet<()>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, connections: usize) -> Self {
        let (mut made, mut tasks) = (Vec::new(), JoinSet::new());
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await.expect("the server listens");
            stream.set_nodelay(true).expect("a TCP socket");
            let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            tasks.spawn(async move { drop(connection.await) });
            made.push(send);
        }
        Self { connections: made, head: head(address), _tasks: tasks }
    }

    /// This number of checks, one after the other, on one stream at a time.
    pub(crate) async fn count(&self, count: usize, checks: &[Bytes], status: i32) {
        let send = self.connections.first().expect("a connection");
        for check in checks.iter().cycle().take(count) {
            let got = call(send, &self.head, check.clone()).await;
            assert_eq!(self::status(&got), status, "an answer that was not expected");
        }
    }

    /// Open loop at this rate per second: a slow server does not slow it down. The latencies, sorted, each from the
    /// time at which the check was due.
    pub(crate) async fn open(&self, rate: u32, time: Duration, check: &Bytes) -> Vec<Duration> {
        let (mut due, pause) = (Instant::now(), Duration::from_secs(1) / rate);
        let (mut tasks, end) = (JoinSet::new(), due + time);
        for at in 0.. {
            due += pause;
            if due > end {
                break;
            }
            // tokio's timers have a resolution of a millisecond.
            while Instant::now() < due {
                tokio::task::yield_now().await;
            }
            let send = self.connections[at % self.connections.len()].clone();
            let (head, check) = (self.head.clone(), check.clone());
            tasks.spawn(async move {
                call(&send, &head, check).await;
                due.elapsed()
            });
        }
        let mut took = tasks.join_all().await;
        took.sort();
        took
    }
}
