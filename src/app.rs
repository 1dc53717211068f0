//! The composition root: everything is bound before anything runs, and every task has an owner here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower_service::Service as _;

use crate::admin::Admin;
use crate::authz::Service;
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::{BuildError, Engine};
use crate::health::{self, Ending};
use crate::reload::{Reloader, Source};
use crate::server::{self, BindError, Drained, Protocol};
use crate::wire::AuthorizationServer;

/// The largest check request that is read: Envoy's own header limit is 60 KiB.
const MAX_MESSAGE: usize = 64 * 1024;

/// A service that is ready to run, its ports bound.
pub struct Bound {
    engine: Engine,
    clock: Clock,
    source: Option<Source>,
    grpc: (TcpListener, SocketAddr),
    admin: (TcpListener, SocketAddr),
}

/// Why the service could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration names something that cannot be used; nothing was bound.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A port could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Why the service ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A task ended that should run as long as the service.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
    /// A task panicked.
    #[error("a task failed: {0}")]
    Failed(#[from] JoinError),
    /// The drain's time was up.
    #[error("{0} checks were cut off by drain_timeout")]
    Cut(usize),
}

impl Bound {
    /// Makes everything and binds the ports; runs nothing yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn bind(config: Config, clock: Clock) -> Result<Self, StartError> {
        let engine = Engine::build(config, clock.clone(), None)?;
        let grpc = server::bind(&engine.fixed.server.listen).await?;
        let admin = server::bind(&engine.fixed.admin_listen).await?;
        Ok(Self { engine, clock, source: None, grpc, admin })
    }

    /// The same, reading its configuration again from here when that changes.
    #[must_use]
    pub fn reloading(self, source: Source) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The real address of the gRPC port.
    #[must_use]
    pub const fn grpc_address(&self) -> SocketAddr {
        self.grpc.1
    }

    /// The real address of the admin port.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin.1
    }

    /// Runs until `stop`, then drains.
    ///
    /// # Errors
    /// [`RunError`] if a task ends that should not, or checks were cut off.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self { engine, clock, source, grpc, admin } = self;
        let timeout = engine.fixed.server.drain_timeout;
        let (live, reloader) = Reloader::start(engine, clock, source);
        let (reporter, health) = tonic_health::server::health_reporter();
        health::tell(&reporter, false).await;
        let mut tasks = JoinSet::new();
        // What serves the drain itself ends after it.
        let drained = CancellationToken::new();

        let reloading = reloader.run(drained.clone());
        tasks.spawn(async move {
            reloading.await;
            Ended::Quietly("a key refresher")
        });
        let told = CancellationToken::new();
        let last_word = told.clone();
        let reporting = health::report(reporter, Arc::clone(&live), stop.clone());
        tasks.spawn(async move {
            reporting.await;
            last_word.cancel();
            Ended::Quietly("the health reporter")
        });
        let respond = {
            let (stop, shown) = (stop.clone(), Arc::new(Admin::new(Arc::clone(&live))));
            move |request: Request<Incoming>| {
                let response = shown.respond(&request, stop.is_cancelled());
                std::future::ready(Ok::<_, Infallible>(response))
            }
        };
        let admin = server::serve(admin.0, Protocol::Http1, respond, drained.clone(), timeout);
        tasks.spawn(async move {
            admin.await;
            Ended::Quietly("the admin port")
        });
        let routes = Routes {
            authorization: AuthorizationServer::new(Service(live)).max_decoding_message_size(MAX_MESSAGE),
            health,
            told,
        };
        let service = move |request| routes.clone().call(request);
        let grpc = server::serve(grpc.0, Protocol::Http2, service, stop.clone(), timeout);
        tasks.spawn(async move { Ended::Drained(grpc.await) });

        let mut outcome = Ok(());
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(Ended::Drained(drain)) if stop.is_cancelled() => {
                    if let Drained::Cut(checks) = drain {
                        outcome = Err(RunError::Cut(checks));
                    }
                    drained.cancel();
                }
                Ok(Ended::Quietly(_)) if stop.is_cancelled() => {}
                Ok(Ended::Drained(_)) => return Err(RunError::Ended("the gRPC port")),
                Ok(Ended::Quietly(task)) => return Err(RunError::Ended(task)),
                Err(error) => return Err(error.into()),
            }
        }
        outcome
    }
}

/// How a task of the service ended.
enum Ended {
    Quietly(&'static str),
    Drained(Drained),
}

/// The gRPC services on the one port.
#[derive(Clone)]
struct Routes<H> {
    authorization: AuthorizationServer<Service>,
    health: H,
    /// Cancelled when the last health status has been told.
    told: CancellationToken,
}

impl<H: Health> Routes<HealthServer<H>> {
    async fn call(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        let service =
            path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service);
        match service {
            Some(<AuthorizationServer<Service> as NamedService>::NAME) => {
                self.authorization.call(request).await
            }
            Some(name) if name == <HealthServer<H> as NamedService>::NAME => {
                let answer = self.health.call(request).await?;
                Ok(answer.map(|body| Body::new(Ending::new(body, self.told))))
            }
            _ => Ok(tonic::Status::unimplemented("no such service").into_http()),
        }
    }
}
