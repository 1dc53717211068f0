//! The gRPC services on the one port: checks, health and reflection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower_service::Service as _;

use crate::api::health;
use crate::api::unary::{self, ReadError, ResponseBody};
use crate::domain::request::TraceHeaders;
use crate::live::Live;
use crate::server::overload::{Admission, ConnectionShare, Deadline};
use crate::wire::health::LIST;
use crate::wire::{self, envoy};

/// A health or reflection request is one name. tonic reserves memory for the length that a message announces.
const MAX_QUERY_BYTES: usize = 4 * 1024;

/// The most calls of health and reflection that one connection may have open: they may stay open for long, and each holds its
/// headers and the beginning of a message.
const MAX_QUERIES: usize = 8;

/// A health or reflection request that has not arrived after this time is refused.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// What a check may have beside `server.max_message`, so that a request body of that size is let in with its headers: Envoy's own
/// limit for headers is 60 KiB.
const HEADERS_BYTES: usize = 64 * 1024;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The services and what they need.
struct Routes<R> {
    live: Arc<Live>,
    admission: Arc<Admission>,
    health: Arc<HealthService>,
    reflection: ServerReflectionServer<R>,
    end_streams: CancellationToken,
    /// The longest check that is read.
    max_check_bytes: usize,
}

/// The services. Each clone has a reference count of its own: with a clone for each connection, cores that serve
/// different connections do not write to one cache line.
pub(crate) struct Services<R>(Arc<PerConnection<R>>);

struct PerConnection<R> {
    routes: Arc<Routes<R>>,
    share: ConnectionShare,
    /// Places for calls of the services beside `Check`.
    queries: Arc<Semaphore>,
}

impl<R> PerConnection<R> {
    fn new(routes: Arc<Routes<R>>) -> Self {
        Self { routes, share: ConnectionShare::default(), queries: Arc::new(Semaphore::new(MAX_QUERIES)) }
    }
}

impl<R> Clone for Services<R> {
    fn clone(&self) -> Self {
        Self(Arc::new(PerConnection::new(Arc::clone(&self.0.routes))))
    }
}

type CallResult = Result<Response<ResponseBody>, Infallible>;

/// All services. Streams that have no end of their own end when `end_streams` is cancelled.
pub(crate) fn services(
    live: Arc<Live>,
    admission: Arc<Admission>,
    health: HealthService,
    max_message: usize,
    end_streams: CancellationToken,
) -> Result<Services<impl ServerReflection>, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .build_v1()?;
    let health = Arc::new(health);
    let reflection = reflection.max_decoding_message_size(MAX_QUERY_BYTES);
    Ok(Services(Arc::new(PerConnection::new(Arc::new(Routes {
        live,
        admission,
        health,
        reflection,
        end_streams,
        max_check_bytes: max_message + HEADERS_BYTES,
    })))))
}

impl<R: ServerReflection> Services<R> {
    /// Answers one call that has arrived now.
    pub(crate) fn call(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = CallResult> + Send + use<R> {
        let connection = Arc::clone(&self.0);
        if request.uri().path() != envoy::CHECK {
            return Either::Right(boxed(async move { connection.query(request).await }));
        }
        match unary::refuse_by_headers(request.headers()) {
            None => Either::Left(answer_check(connection, request)),
            Some(response) => Either::Right(boxed(async move { Ok(response) })),
        }
    }
}

impl<R: ServerReflection> PerConnection<R> {
    /// Answers a call to one of the other services, if the connection has a place for it.
    async fn query(&self, request: Request<Incoming>) -> CallResult {
        let Ok(place) = Arc::clone(&self.queries).try_acquire_owned() else {
            return Ok(unary::failure(&Status::resource_exhausted(
                "too many calls of this connection are open",
            )));
        };
        self.routes.query(request, place).await
    }
}

/// A future is as large as its largest branch: in a box, a rare call does not enlarge every check's task.
fn boxed(
    call: impl Future<Output = CallResult> + Send + 'static,
) -> Pin<Box<dyn Future<Output = CallResult> + Send>> {
    Box::pin(call)
}

/// Not an `async fn`: its future would hold the request twice, and its deadline would be counted from the first poll.
fn answer_check<R: ServerReflection>(
    connection: Arc<PerConnection<R>>,
    request: Request<Incoming>,
) -> impl Future<Output = CallResult> + Send {
    let deadline = Deadline::of_call(unary::call_timeout(request.headers()));
    let (mut parts, body) = request.into_parts();
    let mut trace = CallTrace::take(&mut parts.headers);
    async move {
        let PerConnection { routes, share, queries: _ } = &*connection;
        let Routes { live, admission, max_check_bytes, .. } = &**routes;
        let detach = || trace.as_mut().map_or(0, CallTrace::detach);
        let answer =
            match unary::read_message(body, *max_check_bytes, deadline, admission.unfinished(share), detach)
                .await
            {
                Ok(message) => {
                    // Only a whole message takes a place among the checks under way: HEADERS alone cost a client nothing.
                    let ticket = admission.begin();
                    if let Err(refused) = ticket.in_time(deadline) {
                        return Ok(unary::failure(&Status::unavailable(refused.to_string())));
                    }
                    decide(live, trace.as_ref(), &message).await
                }
                Err(ReadError::TooLarge(bytes)) => deny_too_large(live, bytes),
                Err(ReadError::Failed(status)) => return Ok(unary::failure(&status)),
            };
        Ok(unary::success(answer))
    }
}

impl<R: ServerReflection> Routes<R> {
    /// Answers a call to one of the other services.
    async fn query(&self, request: Request<Incoming>, place: OwnedSemaphorePermit) -> CallResult {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let responding = match service.map(|(service, _)| service) {
            Some(_) if request.uri().path() == LIST => return Ok(self.list(request).await),
            Some(name) if name == <HealthServer<HealthService> as NamedService>::NAME => {
                let health = HealthServer::from_arc(Arc::clone(&self.health));
                Either::Left(health.max_decoding_message_size(MAX_QUERY_BYTES).call(request))
            }
            Some(name) if name == <ServerReflectionServer<R> as NamedService>::NAME => {
                Either::Right(self.reflection.clone().call(request))
            }
            _ => return Ok(unary::failure(&Status::unimplemented("no such call"))),
        };
        let Ok(response) = timeout(QUERY_TIMEOUT, responding).await else {
            return Ok(unary::failure(&Status::deadline_exceeded("the request did not arrive in time")));
        };
        Ok(response?.map(|body| ResponseBody::stream(body, self.end_streams.clone(), place)))
    }
}

impl<R: ServerReflection> Routes<R> {
    /// Answers the health service's call `List`.
    async fn list(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        if let Some(refused) = unary::refuse_by_headers(request.headers()) {
            return refused;
        }
        let reading = timeout(QUERY_TIMEOUT, unary::read_small(request.into_body(), MAX_QUERY_BYTES));
        let message = match reading.await {
            Ok(Ok(message)) => message,
            Ok(Err(status)) => return unary::failure(&status),
            Err(_) => {
                return unary::failure(&Status::deadline_exceeded("the request did not arrive in time"));
            }
        };
        if !wire::health::is_list_request(&message) {
            return unary::failure(&Status::internal("the message is no HealthListRequest"));
        }
        match health::list(&self.health).await {
            Ok(answer) => unary::success(answer),
            Err(status) => unary::failure(&status),
        }
    }
}

/// The trace headers of Envoy's own call, out of a map that need not be kept.
struct CallTrace {
    traceparent: HeaderValue,
    tracestate: Option<HeaderValue>,
}

impl CallTrace {
    fn take(headers: &mut HeaderMap) -> Option<Self> {
        let traceparent = headers.remove(TRACEPARENT)?;
        Some(Self { traceparent, tracestate: headers.remove(TRACESTATE) })
    }

    /// Copies the values, which are slices of the connection's read buffer and keep all of it in memory. The bytes of
    /// the copies.
    fn detach(&mut self) -> usize {
        let Self { traceparent, tracestate } = self;
        let values = std::iter::once(traceparent).chain(tracestate);
        values.fold(0, |bytes, value| {
            if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
                *value = copy;
            }
            bytes + value.len()
        })
    }

    fn headers(&self) -> TraceHeaders<'_> {
        let Self { traceparent, tracestate } = self;
        let tracestate = tracestate.as_ref().map(HeaderValue::as_bytes);
        TraceHeaders { traceparent: traceparent.as_bytes(), tracestate }
    }
}

/// Reads, decides, renders. The call succeeds with either verdict.
async fn decide(live: &Live, trace: Option<&CallTrace>, message: &[u8]) -> Bytes {
    // One configuration for the whole check.
    let current = live.current();
    let verdict = match envoy::view(message) {
        Ok(mut request) => {
            request.trace = trace.map(CallTrace::headers);
            current.authorizer.decide(&request).await
        }
        Err(denial) => current.authorizer.deny_unreadable(denial),
    };
    current.answers.of(&verdict)
}

/// The answer to a check of so many bytes, which is over the limit and is not read.
fn deny_too_large(live: &Live, bytes: usize) -> Bytes {
    let current = live.current();
    current.answers.of(&current.authorizer.deny_too_large(bytes))
}
