//! Messages that are too large, and messages of which the rest never comes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::fixtures::inline;
use crate::support::{Service, WAIT_LIMIT, get, raw_check_request, series};

/// The messages of one call as they go over the wire; the call stays open. Its grpc-status, whenever it comes.
async fn status_of(address: SocketAddr, path: &str, data: &[u8]) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let serving = tokio::spawn(connection);
    let request = http::Request::post(format!("http://a{path}")).header("content-type", "application/grpc");
    let request = request.body(()).unwrap();
    let (response, mut open) = send.ready().await.unwrap().send_request(request, false).unwrap();
    if !data.is_empty() {
        open.send_data(data.to_vec().into(), false).unwrap();
    }
    let response = response.await.unwrap();
    let status = response.headers().get("grpc-status").cloned();
    let status = match status {
        Some(status) => status,
        None => {
            let mut body = response.into_body();
            while body.data().await.is_some() {}
            body.trailers().await.unwrap().unwrap().get("grpc-status").cloned().unwrap()
        }
    };
    serving.abort();
    status.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn messages_that_never_come_are_not_waited_for_and_none_is_larger_than_it_may_be() {
    const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
    const HEALTH: &str = "/grpc.health.v1.Health/Check";
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let (unavailable, late, out_of_range) = ("14", "4", "11");
    let service = Service::ready(&inline("")).await;
    let announcing = |length: u32| [&[0][..], &length.to_be_bytes()].concat();
    let begun = tokio::time::Instant::now();
    let asked = [
        (CHECK, Vec::new(), unavailable),
        (CHECK, announcing(1000), unavailable),
        (CHECK, [announcing(1000), vec![0; 500]].concat(), unavailable),
        (HEALTH, Vec::new(), late),
        (HEALTH, announcing(1000), late),
        // What is announced is made room for, so it is the announcement that is refused.
        (HEALTH, announcing(4 * 1024 * 1024 - 1), out_of_range),
        (HEALTH, announcing(5000), out_of_range),
        // It ends without a word.
        (REFLECTION, announcing(4 * 1024 * 1024 - 1), "0"),
    ];
    for (path, data, want) in &asked {
        assert_eq!(status_of(service.grpc, path, data).await, *want, "{path} {data:?}");
    }
    assert!(begun.elapsed() < WAIT_LIMIT, "{:?}", begun.elapsed());
    // Too large for a check is a verdict, so that it is counted, logged, and never for the proxy to decide.
    let large = announcing(64 * 1024 + 1);
    assert_eq!(status_of(service.grpc, CHECK, &large).await, "0");
    let open = tokio::spawn(async move { status_of(service.grpc, HEALTH, &[]).await });
    let begun = tokio::time::Instant::now();
    assert!(service.end().await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(25), "an open question holds up no drain of 30 s");
    open.abort();
}

#[tokio::test]
async fn a_check_that_is_too_large_is_answered_400_and_the_connection_lives() {
    let service = Service::ready(&inline("")).await;
    let large = raw_check_request(&[("x-large", &[b'a'; 64 * 1024])]);
    let answer = service.send(large).await;
    assert_eq!((answer.http, answer.code()), (400, "request_malformed"));
    let fits = raw_check_request(&[("x-large", &[b'a'; 60 * 1024])]);
    assert_eq!(service.send(fits).await.code(), "token_missing");
    let (_, metrics) = get(service.admin, "/metrics").await;
    let counted = series(&metrics, "passage_authz_checks_total");
    let malformed = counted.iter().find(|(labels, _)| labels.contains("request_malformed")).unwrap();
    assert_eq!(*malformed.1, 1.0);
}
