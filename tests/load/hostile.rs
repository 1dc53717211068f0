//! Hostile peers on the gRPC port, and a well-behaved client beside them: the client keeps its pace, memory stays
//! bounded, nothing ends. The client is compared with itself, attack against quiet, in one run; the best of a few
//! rounds counts, for other work on the machine can only make things worse.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::MEASURING;
use crate::support::fixtures::{bearer, good, inline};
use crate::support::process::Running;
use crate::support::{Answer, check_request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// `:method: POST`, `:scheme: http`, `:path: /`, `:authority: a` (RFC 7541 appendix A and section 6.2.2).
const HEAD: &[u8] = &[0x83, 0x86, 0x84, 0x01, 0x01, b'a'];

/// What an attacker sends on one connection: its opening, then the next piece for as long as it is let.
type Attack = fn(round: u32) -> Vec<u8>;

fn hello(more: Vec<u8>) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &more].concat()
}

/// The attacks that send without end. Round 0 is the opening.
const FLOODS: [(&str, Attack); 9] = [
    ("garbage", |_| vec![0xa5; 4096]),
    ("HTTP/1.1", |_| b"GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n".repeat(64)),
    ("rapid reset", |round| match round {
        0 => hello(Vec::new()),
        _ => (0..64)
            .flat_map(|at| {
                let stream = (round - 1) * 128 + at * 2 + 1;
                [frame(HEADERS, END_HEADERS, stream, HEAD), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
                    .concat()
            })
            .collect(),
    }),
    ("CONTINUATION flood", |round| match round {
        0 => hello(frame(HEADERS, 0, 1, HEAD)),
        _ => frame(CONTINUATION, 0, 1, &[0x00, 0x01, b'x', 0x01, b'y']).repeat(64),
    }),
    ("empty CONTINUATION flood", |round| match round {
        0 => hello(frame(HEADERS, 0, 1, HEAD)),
        _ => frame(CONTINUATION, 0, 1, &[]).repeat(64),
    }),
    ("ping flood", |round| match round {
        0 => hello(Vec::new()),
        _ => frame(PING, 0, 0, &[7; 8]).repeat(64),
    }),
    ("SETTINGS flood", |round| match round {
        0 => hello(Vec::new()),
        _ => frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(64),
    }),
    ("empty DATA flood", |round| match round {
        0 => hello(frame(HEADERS, END_HEADERS, 1, HEAD)),
        _ => frame(DATA, 0, 1, &[]).repeat(64),
    }),
    ("WINDOW_UPDATE flood", |round| match round {
        0 => hello(Vec::new()),
        _ => frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(64),
    }),
];

/// Attacks on threads of their own until dropped; counts the bytes that went out.
struct Attackers {
    runtime: Option<tokio::runtime::Runtime>,
    sent: Arc<AtomicU64>,
}

impl Attackers {
    fn flood(address: SocketAddr, attack: Attack) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        for _ in 0..4 {
            let sent = Arc::clone(&sent);
            runtime.spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                    let (mut read, mut write) = stream.split();
                    let reading = async {
                        let mut sink = [0; 4096];
                        while matches!(read.read(&mut sink).await, Ok(1..)) {}
                    };
                    let writing = async {
                        for round in 0.. {
                            let piece = attack(round);
                            if write.write_all(&piece).await.is_err() {
                                return;
                            }
                            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                            // As fast as a peer with a core of its own and no wish to starve itself.
                            tokio::time::sleep(Duration::from_micros(200)).await;
                        }
                    };
                    tokio::select! {
                        () = reading => {}
                        () = writing => {}
                    }
                }
            });
        }
        Self { runtime: Some(runtime), sent }
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A client that asks at a steady pace.
struct WellBehaved {
    client: AuthorizationClient<Channel>,
    bearer: String,
}

impl WellBehaved {
    async fn connect(address: SocketAddr) -> Self {
        let client = AuthorizationClient::connect(format!("http://{address}")).await.unwrap();
        Self { client, bearer: bearer(&good()) }
    }

    /// The 99th percentile of some hundred checks, each timed from when it was due, so that one that is held up
    /// does not hide the later ones.
    async fn p99(&self) -> Duration {
        let mut pace = tokio::time::interval(Duration::from_millis(3));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let due = pace.tick().await;
            let (mut client, request) =
                (self.client.clone(), check_request(&[("authorization", &self.bearer)]));
            tasks.spawn(async move {
                let answer = client.check(request).await.expect("the well-behaved are served");
                assert_eq!(Answer::from(answer.into_inner()).code(), "allowed");
                due.elapsed()
            });
        }
        let mut took: Vec<_> = tasks.join_all().await;
        took.sort();
        took[took.len() * 99 / 100]
    }
}

/// The client keeps its p99 within five times its quiet value, in the best of a few rounds.
async fn keeps_pace(what: &str, client: &WellBehaved, attack: impl Fn() -> Attackers) {
    let mut seen = Vec::new();
    for _ in 0..5 {
        let quiet = client.p99().await;
        let attackers = attack();
        let attacked = client.p99().await;
        assert!(attackers.sent.load(Ordering::Relaxed) > 0, "{what}: nothing was sent");
        drop(attackers);
        seen.push((quiet, attacked));
        if attacked <= quiet * 5 {
            return;
        }
    }
    panic!("{what}: p99 quiet and attacked {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn floods_slow_no_other_client_and_fill_no_memory() {
    let measuring = MEASURING.lock().await;
    let running = Running::start(&inline(""), "info").await;
    running.until_ready().await;
    let client = WellBehaved::connect(running.grpc).await;
    client.p99().await;
    let before = running.resident();
    for (what, attack) in FLOODS {
        keeps_pace(what, &client, || Attackers::flood(running.grpc, attack)).await;
        let grown = running.resident().saturating_sub(before);
        assert!(grown < 32 * 1024, "{what}: {grown} KiB more");
    }
    drop(measuring);
    running.signal("-TERM").await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.lines().count() < 10, "floods do not fill the log: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ten_thousand_idle_connections_slow_no_other_client() {
    let _ = passage_authz::cli::limits::raise_file_limit();
    let measuring = MEASURING.lock().await;
    let running = Running::start(&inline(""), "info").await;
    running.until_ready().await;
    let client = WellBehaved::connect(running.grpc).await;
    client.p99().await;
    // The slowest of a few quiet rounds: what the rest of the machine does is in both.
    let mut quiet = client.p99().await;
    for _ in 0..2 {
        quiet = quiet.max(client.p99().await);
    }
    let before = running.resident();
    let mut idle = Vec::new();
    for at in 0..10_000 {
        let mut stream = TcpStream::connect(running.grpc).await.unwrap();
        match at % 4 {
            // Half-open; a preface that never ends; one without a request; a request that never ends.
            0 => {}
            1 => stream.write_all(&PREFACE[..20]).await.unwrap(),
            2 => stream.write_all(&hello(Vec::new())).await.unwrap(),
            _ => stream.write_all(&hello(frame(HEADERS, 0, 1, &HEAD[..3]))).await.unwrap(),
        }
        idle.push(stream);
    }
    let mut attacked = client.p99().await;
    for _ in 0..4 {
        attacked = attacked.min(client.p99().await);
    }
    assert!(attacked <= quiet * 5, "p99 {quiet:?} quiet, {attacked:?} beside them");
    let each = running.resident().saturating_sub(before) * 1024 / 10_000;
    assert!(each < 32 * 1024, "{each} bytes for each idle connection");

    drop(measuring);
    // None of them may stay: 20 s for the first request, 10 s for going.
    let gone = async {
        for stream in &mut idle {
            let mut sink = [0; 256];
            while matches!(stream.read(&mut sink).await, Ok(1..)) {}
        }
    };
    let begun = Instant::now();
    timeout(Duration::from_secs(60), gone).await.expect("idle connections are let go");
    assert!(begun.elapsed() > Duration::from_secs(1), "they were there");
    let mut after = client.p99().await;
    for _ in 0..4 {
        after = after.min(client.p99().await);
    }
    assert!(after <= quiet * 5, "p99 {quiet:?} before, {after:?} after them");
}
