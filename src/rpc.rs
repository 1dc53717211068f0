//! The gRPC services on the one port: checks, health and reflection.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Bytes, Incoming};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::server::NamedService;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower_service::Service as _;

use crate::authz;
use crate::grpc::{self, Answer};
use crate::health::Ending;
use crate::live::Live;
use crate::load::{Load, Turn};
use crate::wire;

/// Who answers which call.
pub(crate) struct Routes<H, R> {
    live: Arc<Live>,
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
    Ok(Routes { live, load, health, reflection, told })
}

impl<H: Health, R: ServerReflection> Routes<H, R> {
    /// Answers one call that has arrived now.
    pub(crate) fn call(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Answer>, Infallible>> + Send + use<H, R> {
        let (routes, to) = (Arc::clone(self), self.to(request.uri().path()));
        async move {
            let Routes { live, health, reflection, told, .. } = &*routes;
            let stream = match to {
                To::Nobody => return Ok(grpc::failure(&Status::unimplemented("no such call"))),
                To::Check(turn) => return Ok(check(turn, live, request).await),
                To::Health => health.clone().call(request).await?,
                To::Reflection => reflection.clone().call(request).await?,
            };
            let ending = |body| Answer::Stream(tonic::body::Body::new(Ending::new(body, told.clone())));
            Ok(stream.map(ending))
        }
    }

    fn to(&self, path: &str) -> To {
        if path == wire::CHECK {
            // From here on it waits for its turn.
            return To::Check(self.load.begin());
        }
        match path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service) {
            Some(name) if name == <HealthServer<H> as NamedService>::NAME => To::Health,
            Some(name) if name == <ServerReflectionServer<R> as NamedService>::NAME => To::Reflection,
            _ => To::Nobody,
        }
    }
}

async fn check(turn: Turn, live: &Live, request: Request<Incoming>) -> Response<Answer> {
    let (parts, body) = request.into_parts();
    if let Some(refusal) = grpc::refusal(&parts.headers) {
        return refusal;
    }
    let checked = async || -> Result<Bytes, Status> {
        let message = grpc::message(&parts.headers, body).await?;
        Ok(authz::check(live, &parts.headers, &message).await)
    };
    match turn.run(checked).await {
        Ok(Ok(message)) => grpc::answer(message),
        Ok(Err(status)) => grpc::failure(&status),
        Err(refused) => grpc::failure(&Status::unavailable(refused.to_string())),
    }
}

enum To {
    Check(Turn),
    Health,
    Reflection,
    Nobody,
}
