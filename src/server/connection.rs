//! One connection from its TLS handshake to its end: the HTTP version, the limits, and GOAWAY when the connection is idle,
//! old or drained.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::fragments::{FragmentSeen, MayBeCut, watch};
use super::idle::Activity;
use super::in_flight::RequestTracker;
use super::limits::{
    CONNECTION_WINDOW_BYTES, FIRST_REQUEST_TIMEOUT, GOAWAY_GRACE, HTTP1_HEAD_TIMEOUT, IDLE_TIMEOUT,
    MAX_GRPC_HEADER_LIST_BYTES, MAX_HTTP_HEADER_LIST_BYTES, MAX_HTTP1_HEAD_BYTES, MAX_LOCAL_ERROR_RESETS,
    MAX_PENDING_RESETS, MAX_STREAMS, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW_BYTES, TLS_HANDSHAKE_TIMEOUT,
};
use super::listen::{Peer, Stream};
use super::tls::{Clients, Tls};
use super::wide_reads::WideReads;
use super::wrong_protocol::{FirstBytes, Spoken, WrongProtocol};

/// The HTTP versions of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, as gRPC uses it.
    Http2,
    /// HTTP/1.1, or HTTP/2 with prior knowledge.
    Http,
}

/// A function from a request to its response, cloned for each connection.
pub trait Handler: Fn(Request<Incoming>) -> <Self as Handler>::Answer + Clone + Send + 'static {
    /// The future of the response.
    type Answer: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static;
    /// The body of the response.
    type Body: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;
}

impl<S, F, B> Handler for S
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Answer = F;
    type Body = B;
}

pub(super) struct Connection<S> {
    pub(super) peer: Peer,
    pub(super) protocol: Protocol,
    pub(super) handler: S,
    pub(super) requests: RequestTracker,
    pub(super) activity: Arc<Activity>,
    /// The age at which the connection gets GOAWAY.
    pub(super) max_age: Option<Duration>,
    /// Cancelled when the port drains: the connection gets GOAWAY.
    pub(super) drain: CancellationToken,
    pub(super) wrong_protocol: Arc<WrongProtocol>,
}

impl<S: Handler> Connection<S> {
    /// Serves the stream until it ends, after the TLS handshake if the port has certificates.
    pub(super) async fn serve(self, stream: Stream, tls: Option<Arc<Tls>>) {
        let Some(tls) = tls else { return self.serve_http(stream).await };
        let (peer, wrong_protocol) = (self.peer, Arc::clone(&self.wrong_protocol));
        let clients = if self.protocol == Protocol::Http2 { Clients::Proxies } else { Clients::Issuers };
        match timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(stream, clients)).await {
            Ok(Ok(stream)) => self.serve_http(stream).await,
            Ok(Err(error)) => {
                if is_no_tls(&error) {
                    wrong_protocol.warn(peer, Spoken::Plaintext);
                }
                tracing::debug!(%peer, %error, "a TLS handshake failed");
            }
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }

    /// Serves until the client closes the connection. GOAWAY goes out at a drain, at the age limit, for idleness, and after a
    /// request with a fragment; a connection that stays after it is cut.
    async fn serve_http(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { peer, protocol, handler, requests, activity, max_age, drain, wrong_protocol } = self;
        let builder = builder(protocol, requests.clone());
        let counted = Arc::clone(&activity);
        // Targets matter where checks are read from requests as they are.
        let fragments = (protocol == Protocol::Http).then(FragmentSeen::default);
        let first_bytes = (protocol == Protocol::Http2).then(FirstBytes::default);
        let stream = watch(stream, fragments.clone(), first_bytes.clone());
        let fragment_answered = CancellationToken::new();
        let answering_fragment = fragment_answered.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            counted.requests.fetch_add(1, Ordering::Relaxed);
            if protocol == Protocol::Http1 {
                // Ports of few requests, some of which ask from whom.
                request.extensions_mut().insert(peer);
            }
            // hyper spawns a task for each HTTP/2 request, and `RequestTracker` tracks that task already.
            let is_task = Request::version(&request) >= Version::HTTP_2;
            if let Some(seen) = &fragments
                && (is_task || seen.get())
            {
                request.extensions_mut().insert(MayBeCut);
                if !is_task {
                    // Which of a connection's requests had the fragment is not known: this one is its last.
                    answering_fragment.cancel();
                }
            }
            // hyper and tokio move the future some ten times on its way into its task: a pointer is moved faster than a kilobyte.
            let response = Box::pin(handler(request));
            if is_task { Either::Left(response) } else { Either::Right(requests.track(response)) }
        });
        let mut serving = pin!(builder.serve_connection(TokioIo::new(WideReads::new(stream)), service));
        let aged = async {
            match max_age {
                Some(age) => sleep(age).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = serving.as_mut() => Some(ended),
            () = drain.cancelled() => None,
            () = aged => None,
            () = until_idle(&activity.requests) => None,
            () = fragment_answered.cancelled() => None,
        };
        let result = match ended {
            Some(result) => result,
            None => {
                serving.as_mut().graceful_shutdown();
                match timeout(GOAWAY_GRACE, serving).await {
                    Ok(result) => result,
                    Err(_) => return tracing::debug!(%peer, "a connection stayed after its goodbye: cut"),
                }
            }
        };
        if let Err(error) = result {
            if let Some(spoken) = first_bytes.as_ref().and_then(FirstBytes::spoken) {
                wrong_protocol.warn(peer, spoken);
            }
            tracing::debug!(%peer, %error, "a connection ended badly");
        }
    }
}

/// Whether what came is no TLS at all.
fn is_no_tls(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

/// Resolves when no request has arrived for too long. The count of requests is read now and then, instead of a timer that
/// each request restarts, so an idle connection ends after one to two times [`IDLE_TIMEOUT`].
async fn until_idle(served: &AtomicU64) {
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

fn builder(protocol: Protocol, executor: RequestTracker) -> auto::Builder<RequestTracker> {
    let mut builder = auto::Builder::new(executor);
    let max_header_list_bytes =
        if protocol == Protocol::Http2 { MAX_GRPC_HEADER_LIST_BYTES } else { MAX_HTTP_HEADER_LIST_BYTES };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP1_HEAD_TIMEOUT)
        .max_buf_size(MAX_HTTP1_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(max_header_list_bytes)
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
