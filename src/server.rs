//! Accepting connections and letting them go: each connection and each request in a task that is counted,
//! limits for peers that mean harm, and a drain that ends.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::in_flight::{Counting, RequestsInFlight};
use crate::server::listen::{Idle, Listener, Peer, Stream};
use crate::server::overload::Admission;
use crate::server::tls::Tls;
use crate::server::wide_reads::WideReads;
use crate::server::workers::Workers;

mod in_flight;
pub mod listen;
pub(crate) mod overload;
pub(crate) mod tls;
mod wide_reads;
pub(crate) mod workers;

/// After a failed accept (too many open files, as a rule) the listener rests this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A TLS handshake, and the head of an HTTP/1.1 request, must be there after this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which no request has come after this time is closed: half-open ones, and those that send
/// the preface byte by byte.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection without a request for this long is asked to go away.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// A connection that was asked to go away and stays is cut after this time: long enough for any check, and the longest
/// waits 10 s for a key.
const GOAWAY_GRACE: Duration = Duration::from_secs(15);

/// A peer that says nothing for this long is sent a PING, and cut if it does not answer in the time after it.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams one connection may have open. Envoy opens one per check under way, and a second connection when it
/// needs more.
const MAX_STREAMS: u32 = 256;

/// The most that a request's header list may hold (RFC 9113 section 6.5.2) on the gRPC port, where the
/// interesting headers are in the message; and over HTTP, where they are the message.
const MAX_GRPC_HEADER_LIST_BYTES: u32 = 16 * 1024;
const MAX_HTTP_HEADER_LIST_BYTES: u32 = 64 * 1024;

/// What a peer may send ahead of being read: a whole message per stream, and not many of them at once.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// Streams that were opened and reset before they were looked at (CVE-2023-44487), and resets that a peer's own
/// faults made us send: past these the connection is closed.
const MAX_PENDING_RESETS: usize = 32;
const MAX_LOCAL_ERROR_RESETS: usize = 256;

/// How long connections without a request may linger once the last check of a drain is answered: enough
/// for a GOAWAY to be read and answered, so that no request that crosses it is lost.
const IDLE_LINGER: Duration = Duration::from_millis(500);

/// A drain that sees no check for this long closes the port: whoever looks at our health, once a second in
/// deploy/, has seen it by then.
const LAME_DUCK_QUIET: Duration = Duration::from_millis(1500);

/// How long a connection may last that comes in during a drain.
const DRAIN_CONNECTION_AGE: Duration = Duration::from_millis(250);

/// Which protocol a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 with prior knowledge only, as gRPC speaks it.
    Http2,
    /// Either.
    Http,
}

/// How a port treats its connections.
#[derive(Clone)]
pub struct Options {
    /// What it speaks.
    pub protocol: Protocol,
    /// With which certificates, if any.
    pub tls: Option<Arc<Tls>>,
    /// Past this many connections, further ones are closed at once.
    pub max_connections: usize,
    /// Connections are asked to go away at this age, a tenth more or less.
    pub max_age: Option<Duration>,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Where connections are served.
    pub workers: Workers,
    /// If set, a drain goes on accepting connections while checks arrive here.
    pub lame_duck: Option<Arc<Admission>>,
}

impl Options {
    /// A port in plaintext, whose connections are served on `runtime` and last as long as they are used.
    #[must_use]
    pub fn plain(
        protocol: Protocol,
        runtime: Handle,
        max_connections: usize,
        drain_timeout: Duration,
    ) -> Self {
        let workers = Workers::on(runtime);
        Self { protocol, tls: None, max_connections, max_age: None, drain_timeout, workers, lame_duck: None }
    }
}

/// What a port has seen.
#[derive(Debug, Default)]
pub struct PortCounters {
    connections: TaskTracker,
    refused: AtomicU64,
}

impl PortCounters {
    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.connections.len()
    }

    /// Connections that were refused because there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request under way was answered.
    Clean,
    /// This many were cut off when the time was up.
    Cut(usize),
}

/// Serves connections until `stop`, then drains: GOAWAY on all connections, requests under way are finished.
/// New connections are served while checks keep coming, up to half of `drain_timeout`: they come from whoever has
/// not heard yet. After `drain_timeout` whatever is left is cut off.
pub async fn serve<S, F, B>(
    listener: Listener,
    options: Options,
    seen: Arc<PortCounters>,
    service: S,
    stop: CancellationToken,
) -> Drained
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let drain_timeout = options.drain_timeout;
    let (requests, cut) = (RequestsInFlight::on(options.workers.count()), CancellationToken::new());
    let port = Port { options, seen, service, requests, stop, cut };
    port.accept(&listener, port.stop.cancelled()).await;
    let deadline = Instant::now() + drain_timeout;
    if let Some(admission) = &port.options.lame_duck {
        // Half the time at most: the other half is for finishing.
        let quiet = async { timeout(drain_timeout / 2, until_quiet(admission)).await.unwrap_or_default() };
        port.accept(&listener, quiet).await;
    }
    // Whoever has connected by now is served.
    port.accept(&listener, std::future::ready(())).await;
    drop(listener);
    let Port { seen, requests, cut, .. } = port;
    let connections = &seen.connections;
    connections.close();
    let quiet = async {
        loop {
            requests.wait().await;
            sleep(IDLE_LINGER).await;
            if requests.len() == 0 {
                return;
            }
        }
    };
    let drained = timeout_at(deadline, async {
        tokio::select! {
            () = connections.wait() => requests.wait().await,
            () = quiet => {}
        }
    });
    let outcome = match (drained.await, requests.len()) {
        (Ok(()), _) | (Err(_), 0) => Drained::Clean,
        (Err(_), left) => Drained::Cut(left),
    };
    cut.cancel();
    connections.wait().await;
    outcome
}

/// A listener's own things.
struct Port<S> {
    options: Options,
    seen: Arc<PortCounters>,
    service: S,
    requests: RequestsInFlight,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl<S, F, B> Port<S>
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Takes in connections until `end`, and those that wait already in any case.
    async fn accept(&self, listener: &Listener, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = &mut end => return,
            };
            match accepted {
                Ok((stream, peer)) => self.take_in(stream, peer),
                Err(error) => tokio::select! {
                    () = rest_after(&error) => {}
                    () = &mut end => return,
                },
            }
        }
    }

    fn take_in(&self, stream: Stream, peer: Peer) {
        if self.seen.open() >= self.options.max_connections {
            let refused = self.seen.refused.fetch_add(1, Ordering::Relaxed);
            // One line for the first, and for every doubling.
            if (refused + 1).is_power_of_two() {
                let most = self.options.max_connections;
                tracing::warn!(%peer, most, refused = refused + 1, "too many connections: refused");
            }
            return;
        }
        let (age, goodbye) = if self.stop.is_cancelled() {
            (Some(DRAIN_CONNECTION_AGE), CancellationToken::new())
        } else {
            (self.options.max_age.map(jittered), self.stop.clone())
        };
        let (tls, cut, assignment) =
            (self.options.tls.clone(), self.cut.clone(), self.options.workers.assign());
        let connection = Connection {
            peer,
            protocol: self.options.protocol,
            service: self.service.clone(),
            requests: self.requests.of(assignment.core()),
            age,
            goodbye,
        };
        let (runtime, stream) = (assignment.runtime(), stream.idle());
        let served = async move {
            let _assignment = assignment;
            let stream = match stream.and_then(Idle::here) {
                Ok(stream) => stream,
                Err(error) => return tracing::warn!(%peer, %error, "a connection cannot be served"),
            };
            tokio::select! {
                () = cut.cancelled() => {}
                () = connection.secured(stream, tls) => {}
            }
        };
        self.seen.connections.spawn_on(served, &runtime);
    }
}

/// One connection's life.
struct Connection<S> {
    peer: Peer,
    protocol: Protocol,
    service: S,
    requests: Counting,
    age: Option<Duration>,
    goodbye: CancellationToken,
}

impl<S, F, B> Connection<S>
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    async fn secured(self, stream: Stream, tls: Option<Arc<Tls>>) {
        let Some(tls) = tls else { return self.serve(stream).await };
        let peer = self.peer;
        match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }

    /// Serves until the peer ends it; when it is told to, or has been idle or there for too long, says goodbye.
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { peer, protocol, service, requests, age, goodbye } = self;
        let builder = builder(protocol, requests.clone());
        let served = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&served);
        let service = service_fn(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            // Over HTTP/2 a request is a task, and counted already.
            let is_task = Request::version(&request) >= http::Version::HTTP_2;
            let response = service(request);
            if is_task { Either::Left(response) } else { Either::Right(requests.count(response)) }
        });
        let mut serving = pin!(builder.serve_connection(TokioIo::new(WideReads::new(stream)), service));
        let aged = async {
            match age {
                Some(age) => sleep(age).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = serving.as_mut() => Some(ended),
            () = goodbye.cancelled() => None,
            () = aged => None,
            () = idle(&served) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                serving.as_mut().graceful_shutdown();
                match timeout(GOAWAY_GRACE, serving).await {
                    Ok(ended) => ended,
                    Err(_) => return tracing::debug!(%peer, "a connection stayed after its goodbye: cut"),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended badly");
        }
    }
}

/// Ends when no check has arrived for a while.
async fn until_quiet(admission: &Admission) {
    let mut before = admission.arrived();
    loop {
        sleep(LAME_DUCK_QUIET).await;
        let now = admission.arrived();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Ends when no request has come for too long.
async fn idle(served: &AtomicU64) {
    sleep(FIRST_REQUEST_TIMEOUT).await;
    let mut before = 0;
    loop {
        let now = served.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
        sleep(IDLE_TIMEOUT).await;
    }
}

fn builder(protocol: Protocol, executor: Counting) -> auto::Builder<Counting> {
    let mut builder = auto::Builder::new(executor);
    let most =
        if protocol == Protocol::Http2 { MAX_GRPC_HEADER_LIST_BYTES } else { MAX_HTTP_HEADER_LIST_BYTES };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT)
        .max_buf_size(MAX_HTTP_HEADER_LIST_BYTES as usize + 8 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(most)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_ERROR_RESETS);
    match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
        Protocol::Http => builder,
    }
}

/// A tenth more or less, so that connections that came together do not leave together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(fastrand::f64().mul_add(0.2, 0.9))
}

async fn rest_after(error: &io::Error) {
    match error.kind() {
        // The peer's own affair: it went away before it was accepted.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        _ => {
            tracing::warn!(%error, "a connection cannot be accepted");
            sleep(ACCEPT_PAUSE).await;
        }
    }
}
