//! Messages that are too large or never whole, the deadlines of calls, and idle connections on the admin port.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::fixtures::inline;
use crate::support::{Service, WAIT_LIMIT, get, raw_check_request, series};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The messages of one call as they go over the wire; the call stays open. Its grpc-status, whenever it comes.
async fn status_of(address: SocketAddr, path: &str, data: &[u8]) -> String {
    call(address, path, None, Duration::ZERO, data, false).await
}

/// The grpc-status of a call with this `grpc-timeout`, whose data follow its headers after a while.
async fn call(
    address: SocketAddr,
    path: &str,
    grpc_timeout: Option<&str>,
    pause: Duration,
    data: &[u8],
    ends: bool,
) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let serving = tokio::spawn(connection);
    let request = http::Request::post(format!("http://a{path}")).header("content-type", "application/grpc");
    let request =
        grpc_timeout.into_iter().fold(request, |request, value| request.header("grpc-timeout", value));
    let request = request.body(()).unwrap();
    let (response, mut open) = send.ready().await.unwrap().send_request(request, false).unwrap();
    if !pause.is_zero() {
        sleep(pause).await;
    }
    if !data.is_empty() {
        // An error is a call that was refused before its message came.
        let _ = open.send_data(data.to_vec().into(), ends);
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
    let large = announcing((1 << 20) + 64 * 1024 + 1);
    assert_eq!(status_of(service.grpc, CHECK, &large).await, "0");
    let open = tokio::spawn(async move { status_of(service.grpc, HEALTH, &[]).await });
    let begun = tokio::time::Instant::now();
    assert!(service.end().await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(25), "an open question holds up no drain of 30 s");
    open.abort();
}

#[tokio::test]
async fn a_check_that_is_too_large_is_answered_413_and_the_connection_lives() {
    let service = Service::ready(&inline("")).await;
    let headers = |bytes: usize| raw_check_request(&[("x-large", &vec![b'a'; bytes])]);
    let answer = service.send(headers((1 << 20) + 64 * 1024)).await;
    assert_eq!((answer.http, answer.code()), (413, "request_too_large"));
    // The size of a body, and 64 KiB for all else.
    assert_eq!(service.send(headers((1 << 20) + 63 * 1024)).await.code(), "token_missing");
    let (_, metrics) = get(service.admin, "/metrics").await;
    let counted = series(&metrics, "passage_authz_checks_total");
    let large = counted.iter().find(|(labels, _)| labels.contains("request_too_large")).unwrap();
    assert!(large.0.contains("outcome=\"error\"") && *large.1 == 1.0, "{large:?}");
}

#[tokio::test]
async fn a_check_is_refused_only_past_the_deadline_of_its_own_call() {
    let service = Service::ready(&inline("")).await;
    // An empty message: 400, which is a verdict.
    let empty = [0; 5];
    let (at_once, late) = (Duration::ZERO, Duration::from_millis(150));
    let (refused, answered) = ("14", "0");
    let cases = [
        (Some("1n"), at_once, refused),
        (Some("99999n"), late, refused),
        (Some("20m"), late, refused),
        // From the arrival of the call, not of its message; and 100 ms are nothing special.
        (Some("30S"), late, answered),
        (Some("1H"), late, answered),
        (None, late, answered),
        (Some("0m"), late, answered),
        (Some("1"), late, answered),
        (Some("n"), late, answered),
        (Some("1ms"), late, answered),
        (Some("000000001n"), late, answered),
        (Some("-1n"), late, answered),
    ];
    for (grpc_timeout, pause, want) in &cases {
        let status = call(service.grpc, CHECK, *grpc_timeout, *pause, &empty, true).await;
        assert_eq!(status, *want, "{grpc_timeout:?} after {pause:?}");
    }
}

/// Connections the admin port takes, and some.
const MANY_CONNECTIONS: usize = 300;

#[tokio::test]
async fn idle_connections_of_no_kind_keep_a_probe_from_the_admin_port() {
    let _ = passage_authz::cli::limits::raise_file_limit();
    let service = Service::ready(&inline("")).await;
    let whole = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n";
    let half = "GET /livez HTTP/1.1\r\nhost: a\r\nx: ";
    for (what, sent, reads, more) in [
        ("silent", "", false, ""),
        ("half a request", half, false, ""),
        ("a request that goes on and on", half, false, "y"),
        ("a request, then nothing", whole, true, ""),
        ("a request, then half a one", whole, true, half),
        ("a response that is not read", whole, false, ""),
    ] {
        let mut held = Vec::new();
        for _ in 0..MANY_CONNECTIONS {
            let mut stream = TcpStream::connect(service.admin).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            if reads {
                stream.read_u8().await.expect("a response");
            }
            held.push(stream);
        }
        for stream in &mut held {
            // Those that made way fail.
            let _ = stream.write_all(more.as_bytes()).await;
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            let (status, _) = timeout(WAIT_LIMIT, get(service.admin, path)).await.expect(what);
            assert_eq!(status, 200, "{what}: {path}");
        }
        // A scraper that asks keeps its connection, whatever comes.
        let mut scraper = TcpStream::connect(service.admin).await.unwrap();
        for _ in 0..MANY_CONNECTIONS {
            scraper.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert_eq!(scraper.read(&mut [0; 4096]).await.unwrap().min(1), 1, "{what}");
            held.push(TcpStream::connect(service.admin).await.unwrap());
        }
    }
}
