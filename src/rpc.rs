//! The gRPC services on the one port: checks, health and reflection.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower_service::Service as _;

use crate::authz::Service;
use crate::health::Ending;
use crate::live::Live;
use crate::load::{Load, Turn};
use crate::wire::{self, AuthorizationServer};

/// The largest check request that is read: Envoy's own header limit is 60 KiB.
const MAX_MESSAGE: usize = 64 * 1024;

/// Who answers which call.
pub(crate) struct Routes<H, R> {
    authorization: AuthorizationServer<Service>,
    load: Arc<Load>,
    health: HealthServer<H>,
    reflection: ServerReflectionServer<R>,
    told: CancellationToken,
}

/// All services; streams that have no end of their own end when `told` is cancelled.
pub(crate) fn routes<H: Health>(
    live: Arc<Live>,
    load: Arc<Load>,
    health: HealthServer<H>,
    told: CancellationToken,
) -> Result<Routes<H, impl ServerReflection>, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let authorization = AuthorizationServer::new(Service(live)).max_decoding_message_size(MAX_MESSAGE);
    Ok(Routes { authorization, load, health, reflection, told })
}

impl<H: Health, R: ServerReflection> Routes<H, R> {
    /// Answers one call that has arrived now.
    pub(crate) fn call(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<H, R> {
        let Self { authorization, load, health, reflection, told } = self;
        let (mut authorization, mut health, mut reflection) =
            (authorization.clone(), health.clone(), reflection.clone());
        let told = told.clone();
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let to = match service.map(|(service, _)| service) {
            Some(<AuthorizationServer<Service> as NamedService>::NAME) => {
                // From here on it waits for its turn.
                To::Authorization(load.begin())
            }
            Some(name) if name == <HealthServer<H> as NamedService>::NAME => To::Health,
            Some(name) if name == <ServerReflectionServer<R> as NamedService>::NAME => To::Reflection,
            _ => To::Nobody,
        };
        async move {
            let without_end = match to {
                To::Nobody => return Ok(Status::unimplemented("no such service").into_http()),
                To::Authorization(turn) => {
                    let answer = turn.run(|| authorization.call(request)).await;
                    return match answer {
                        Ok(answer) => answer.map(of_its_size),
                        Err(refused) => Ok(Status::unavailable(refused.to_string()).into_http()),
                    };
                }
                To::Health => health.call(request).await?,
                To::Reflection => reflection.call(request).await?,
            };
            Ok(without_end.map(|body| Body::new(Ending::new(body, told))))
        }
    }
}

/// tonic calls a message that is too large out of range; gRPC's own word for it is exhausted (its guide to
/// status codes: "a message was larger than configured").
fn of_its_size(mut answer: Response<Body>) -> Response<Body> {
    const STATUS: &str = "grpc-status";
    if answer.headers().get(STATUS).is_some_and(|code| *code == "11") {
        answer.headers_mut().insert(STATUS, HeaderValue::from_static("8"));
    }
    answer
}

enum To {
    Authorization(Turn),
    Health,
    Reflection,
    Nobody,
}
