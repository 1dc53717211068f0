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
use crate::authz::{Authorizer, Service};
use crate::clock::Clock;
use crate::config::{Config, Server};
use crate::health;
use crate::issuer::{IssuerName, Issuers};
use crate::keys::fetch::{ClientError, fetcher};
use crate::keys::kept::Kept;
use crate::keys::refresh::Refresher;
use crate::keys::store::KeyStore;
use crate::policy::Policy;
use crate::server::{self, BindError, Drained, Protocol};
use crate::wire::AuthorizationServer;

/// The largest check request that is read: Envoy's own header limit is 60 KiB.
const MAX_MESSAGE: usize = 64 * 1024;

/// A service that is ready to run, its ports bound.
pub struct Bound {
    server: Server,
    grpc: (TcpListener, SocketAddr),
    admin: (TcpListener, SocketAddr),
    authorizer: Arc<Authorizer>,
    refreshers: Vec<Refresher>,
    sources: Vec<(IssuerName, String)>,
}

/// Why the service could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration names something that cannot be used; nothing was bound.
    #[error("issuer {issuer}: {error}")]
    Issuer {
        /// The issuer's name.
        issuer: String,
        /// What is wrong with its client.
        error: ClientError,
    },
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
        let Config { server, admin_listen, tokens, issuers, key_store, identity, rules, checking, wording } =
            config;
        let names = issuers.iter().map(|config| (&config.issuer.name, &config.refresh));
        let keys = Arc::new(KeyStore::new(names, clock.clone()));
        let mut refreshers = Vec::new();
        for config in &issuers {
            let named = |error| StartError::Issuer { issuer: config.issuer.name.as_str().to_owned(), error };
            let source = fetcher(&config.keys, config.refresh.timeout).map_err(named)?;
            let publisher =
                keys.publisher(&config.issuer.name).expect("the store was made for these issuers");
            let algorithms = config.issuer.algorithms.clone();
            let kept = key_store
                .as_deref()
                .map(|folder| Kept::new(folder, &config.issuer.name, config.keys.binding()));
            let kept = kept.filter(|_| source.can_change());
            refreshers.push(Refresher::new(publisher, source, kept, algorithms, config.refresh.clone()));
        }
        let sources =
            issuers.iter().map(|config| (config.issuer.name.clone(), config.keys.to_string())).collect();
        let issuers = Issuers::new(issuers.into_iter().map(|config| config.issuer).collect());
        let authorizer = Arc::new(Authorizer {
            tokens,
            issuers,
            identity,
            policy: Policy::new(rules),
            checking,
            wording,
            keys,
            clock,
        });
        let grpc = server::bind(&server.listen).await?;
        let admin = server::bind(&admin_listen).await?;
        Ok(Self { server, grpc, admin, authorizer, refreshers, sources })
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
        let Self { server, grpc, admin, authorizer, refreshers, sources } = self;
        let keys = Arc::clone(&authorizer.keys);
        let (reporter, health) = tonic_health::server::health_reporter();
        health::tell(&reporter, false).await;
        let mut tasks = JoinSet::new();
        // What serves the drain itself ends after it.
        let drained = CancellationToken::new();

        for refresher in refreshers {
            let done = drained.clone();
            tasks.spawn(async move {
                refresher.run(done).await;
                Ended::Quietly("a key refresher")
            });
        }
        let reporting = health::report(reporter, Arc::clone(&keys), stop.clone());
        tasks.spawn(async move {
            reporting.await;
            Ended::Quietly("the health reporter")
        });
        let respond = {
            let (stop, shown) = (stop.clone(), Arc::new(Admin::new(keys, sources)));
            move |request: Request<Incoming>| {
                let response = shown.respond(&request, stop.is_cancelled());
                std::future::ready(Ok::<_, Infallible>(response))
            }
        };
        let timeout = server.drain_timeout;
        let admin = server::serve(admin.0, Protocol::Http1, respond, drained.clone(), timeout);
        tasks.spawn(async move {
            admin.await;
            Ended::Quietly("the admin port")
        });
        let routes = Routes {
            authorization: AuthorizationServer::new(Service(authorizer))
                .max_decoding_message_size(MAX_MESSAGE),
            health,
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
            Some(name) if name == <HealthServer<H> as NamedService>::NAME => self.health.call(request).await,
            _ => Ok(tonic::Status::unimplemented("no such service").into_http()),
        }
    }
}
