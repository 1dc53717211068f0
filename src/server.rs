//! Accepting connections and letting them go: each connection and each request in a task that is counted,
//! and a drain that ends.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After a failed accept (too many open files, as a rule) the listener rests this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A peer that has not sent its request's head after this time is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams one connection may have open. Envoy opens one per request under way.
const MAX_STREAMS: u32 = 1024;

/// How long connections without a request may linger once the last check of a drain is answered: enough
/// for a GOAWAY to be read and answered, so that no request that crosses it is lost.
const LINGER: Duration = Duration::from_millis(500);

/// Which protocol a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 with prior knowledge only, as gRPC speaks it.
    Http2,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request under way was answered.
    Clean,
    /// This many were cut off when the time was up.
    Cut(usize),
}

/// Serves connections until `stop`, then drains: no new connections, GOAWAY on the old ones, requests
/// under way are finished, and after `drain_timeout` whatever is left is cut off.
pub async fn serve<S, F, B>(
    listener: TcpListener,
    protocol: Protocol,
    service: S,
    stop: CancellationToken,
    drain_timeout: Duration,
) -> Drained
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (connections, requests) = (TaskTracker::new(), TaskTracker::new());
    let cut = CancellationToken::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    rest_after(&error).await;
                    continue;
                }
            },
        };
        let connection = connection(stream, peer, protocol, service.clone(), requests.clone(), stop.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = connection => {}
            }
        });
    }
    drop(listener);
    connections.close();
    requests.close();
    let quiet = async {
        loop {
            requests.wait().await;
            sleep(LINGER).await;
            if requests.is_empty() {
                return;
            }
        }
    };
    let drained = timeout(drain_timeout, async {
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

/// Serves one connection until its peer ends it, or says goodbye when `stop` comes.
async fn connection<S, F, B>(
    stream: TcpStream,
    peer: SocketAddr,
    protocol: Protocol,
    service: S,
    requests: TaskTracker,
    stop: CancellationToken,
) where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Without it every answer waits for the peer's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY cannot be set");
    }
    let mut builder = auto::Builder::new(Counting(requests.clone()));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    let builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    };
    let service = service_fn(move |request| {
        // HTTP/2 requests are counted as tasks already.
        let under_way = (protocol == Protocol::Http1).then(|| requests.token());
        let response = service(request);
        async move {
            let response = response.await;
            drop(under_way);
            response
        }
    });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection ended badly");
    }
}

/// Spawns hyper's tasks, one per HTTP/2 stream, where the drain can see them.
#[derive(Clone)]
struct Counting(TaskTracker);

impl<F> Executor<F> for Counting
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
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

/// Bind failures name what could not be bound.
///
/// # Errors
/// When the address does not resolve or is taken.
pub async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), BindError> {
    let named = |error| BindError { address: address.to_owned(), error };
    let listener = TcpListener::bind(address).await.map_err(named)?;
    let bound = listener.local_addr().map_err(named)?;
    Ok((listener, bound))
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct BindError {
    address: String,
    error: io::Error,
}
