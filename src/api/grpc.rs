//! The gRPC services on the one port: checks, health and reflection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::server::NamedService;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower_service::Service as _;

use crate::api::health::EndsWithReporter;
use crate::api::unary::{self, Answer, Unread};
use crate::domain::denial::Denial;
use crate::domain::request::TraceHeaders;
use crate::live::Live;
use crate::server::overload::Admission;
use crate::wire::envoy;

/// A question about health or descriptors is a name. tonic makes room for whatever length is announced.
const MAX_QUERY_BYTES: usize = 4 * 1024;

/// And it is there after this time, or nobody waits for it any more.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Who answers which call.
struct Routes<H, R> {
    live: Arc<Live>,
    admission: Arc<Admission>,
    health: HealthServer<H>,
    reflection: ServerReflectionServer<R>,
    told: CancellationToken,
}

/// The services. Each clone counts the calls that hold it by itself: clone it for each connection, and cores that serve
/// different ones do not meet at one count.
pub(crate) struct Services<H, R>(Arc<PerConnection<H, R>>);

struct PerConnection<H, R>(Arc<Routes<H, R>>);

impl<H, R> Clone for Services<H, R> {
    fn clone(&self) -> Self {
        Self(Arc::new(PerConnection(Arc::clone(&self.0.0))))
    }
}

type Called = Result<Response<Answer>, Infallible>;

/// All services; streams that have no end of their own end when `told` is cancelled.
pub(crate) fn services<H: Health>(
    live: Arc<Live>,
    admission: Arc<Admission>,
    health: HealthServer<H>,
    told: CancellationToken,
) -> Result<Services<H, impl ServerReflection>, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(envoy::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let health = health.max_decoding_message_size(MAX_QUERY_BYTES);
    let reflection = reflection.max_decoding_message_size(MAX_QUERY_BYTES);
    Ok(Services(Arc::new(PerConnection(Arc::new(Routes { live, admission, health, reflection, told })))))
}

impl<H: Health, R: ServerReflection> Services<H, R> {
    /// Answers one call that has arrived now.
    pub(crate) fn call(&self, request: Request<Incoming>) -> impl Future<Output = Called> + Send + use<H, R> {
        let connection = Arc::clone(&self.0);
        if request.uri().path() != envoy::CHECK {
            return Either::Right(rare(async move { connection.0.query(request).await }));
        }
        match unary::refusal(request.headers()) {
            None => Either::Left(answer_check(connection, request)),
            Some(refusal) => Either::Right(rare(async move { Ok(refusal) })),
        }
    }
}

/// In a box: what is rarely called must not make every check's task as large as its own.
fn rare(call: impl Future<Output = Called> + Send + 'static) -> Pin<Box<dyn Future<Output = Called> + Send>> {
    Box::pin(call)
}

/// No `async fn`, which would hold the request twice, and begin with the first poll and not now.
fn answer_check<H: Health, R: ServerReflection>(
    connection: Arc<PerConnection<H, R>>,
    request: Request<Incoming>,
) -> impl Future<Output = Called> + Send {
    // From here on it waits for its turn.
    let ticket = connection.0.admission.begin();
    let (mut parts, body) = request.into_parts();
    let trace = CallTrace::take(&mut parts.headers);
    async move {
        if let Err(refused) = ticket.in_time() {
            return Ok(unary::failure(&Status::unavailable(refused.to_string())));
        }
        let Routes { live, admission, .. } = &*connection.0;
        let answer = match unary::message(body, admission.partial_message()).await {
            Ok(message) => decide(live, trace.as_ref(), &message).await,
            Err(Unread::TooLarge) => refuse_unread(live),
            Err(Unread::Failed(status)) => return Ok(unary::failure(&status)),
        };
        Ok(unary::answer(answer))
    }
}

impl<H: Health, R: ServerReflection> Routes<H, R> {
    /// Answers a call to one of the other services.
    async fn query(&self, request: Request<Incoming>) -> Called {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let answering = match service.map(|(service, _)| service) {
            Some(name) if name == <HealthServer<H> as NamedService>::NAME => {
                Either::Left(self.health.clone().call(request))
            }
            Some(name) if name == <ServerReflectionServer<R> as NamedService>::NAME => {
                Either::Right(self.reflection.clone().call(request))
            }
            _ => return Ok(unary::failure(&Status::unimplemented("no such call"))),
        };
        let Ok(answer) = timeout(QUERY_TIMEOUT, answering).await else {
            return Ok(unary::failure(&Status::deadline_exceeded("the request did not arrive in time")));
        };
        let ending =
            |body| Answer::Stream(tonic::body::Body::new(EndsWithReporter::new(body, self.told.clone())));
        Ok(answer?.map(ending))
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

    fn headers(&self) -> TraceHeaders<'_> {
        let Self { traceparent, tracestate } = self;
        let tracestate = tracestate.as_ref().map(HeaderValue::as_bytes);
        TraceHeaders { traceparent: traceparent.as_bytes(), tracestate }
    }
}

/// Reads, decides, renders. The call itself succeeds on every verdict.
async fn decide(live: &Live, trace: Option<&CallTrace>, message: &[u8]) -> Bytes {
    // One configuration from the first look to the answer.
    let current = live.current();
    let verdict = match envoy::view(message) {
        Ok(mut request) => {
            request.trace = trace.map(CallTrace::headers);
            current.authorizer.decide(&request).await
        }
        Err(denial) => current.authorizer.deny_unread(denial),
    };
    current.answers.of(&verdict)
}

/// The answer to a check that is too large to be read.
fn refuse_unread(live: &Live) -> Bytes {
    let current = live.current();
    current.answers.of(&current.authorizer.deny_unread(Denial::RequestMalformed))
}
