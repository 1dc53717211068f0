//! The composition root: everything is bound before anything runs, and every task has an owner here.

use std::convert::Infallible;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::api::admin::Admin;
use crate::api::grpc;
use crate::api::health;
use crate::api::http::HttpChecks;
use crate::api::metrics::Ports;
use crate::app::engine::{BuildError, Engine};
use crate::app::reload::{ConfigSource, Reloader};
use crate::check::spans::Exporter;
use crate::config::{Config, Listen};
use crate::domain::clock::Clock;
use crate::server::listen::{Address, BindError, Listener};
use crate::server::overload::Admission;
use crate::server::tls::{Tls, TlsError};
use crate::server::workers::Workers;
use crate::server::{self, Drained, Options, PortCounters, Protocol};

pub(crate) mod engine;
pub(crate) mod reload;

/// Connections the admin port takes: a few probes and scrapers.
const ADMIN_CONNECTIONS: usize = 256;

/// A service that is ready to run, its ports bound.
pub struct Bound {
    engine: Engine,
    clock: Clock,
    source: Option<ConfigSource>,
    exporter: Option<Exporter>,
    tls: Option<Arc<Tls>>,
    workers: Workers,
    grpc: Listener,
    http: Option<Listener>,
    admin: Listener,
}

/// Why the service could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration names something that cannot be used; nothing was bound.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A certificate cannot be used; nothing was bound.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    /// Reflection has nothing to show.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
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
        let fixed = &engine.fixed;
        let tls = fixed.server.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        let tcp = |address: &String| Listen::Tcp(address.clone());
        let grpc = Listener::bind("server.listen", &fixed.server.listen, fixed.server.unix_mode).await?;
        let http = match &fixed.http {
            Some(http) => Some(Listener::bind("http.listen", &tcp(&http.listen), 0).await?),
            None => None,
        };
        let admin = Listener::bind("admin.listen", &tcp(&fixed.admin_listen), 0).await?;
        Ok(Self {
            engine,
            clock,
            source: None,
            exporter: None,
            tls,
            workers: Workers::here(),
            grpc,
            http,
            admin,
        })
    }

    /// The same, reading its configuration again from here when that changes.
    #[must_use]
    pub fn reloading(self, source: ConfigSource) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The same, with a span for each check.
    #[must_use]
    pub fn exporting(mut self, exporter: Exporter) -> Self {
        self.engine.current.authorizer.observers.spans = exporter.spans();
        Self { exporter: Some(exporter), ..self }
    }

    /// The same, with its connections served there.
    #[must_use]
    pub fn on(self, workers: Workers) -> Self {
        Self { workers, ..self }
    }

    /// Where the gRPC port really is.
    #[must_use]
    pub const fn grpc_address(&self) -> &Address {
        self.grpc.address()
    }

    /// Where the HTTP port really is.
    #[must_use]
    pub fn http_address(&self) -> Option<&Address> {
        self.http.as_ref().map(Listener::address)
    }

    /// Where the admin port really is.
    #[must_use]
    pub const fn admin_address(&self) -> &Address {
        self.admin.address()
    }

    /// Runs until `stop`, then drains.
    ///
    /// # Errors
    /// [`RunError`] if a task ends that should not, or checks were cut off.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self { engine, clock, source, exporter, tls, workers, grpc, http, admin } = self;
        let fixed = engine.fixed.clone();
        let (live, reloader) = Reloader::start(engine, clock, source);
        let (reporter, health) = tonic_health::server::health_reporter();
        health::begin(&reporter).await;
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
        if let Some(tls) = tls.clone() {
            let following = tls.follow(drained.clone());
            tasks.spawn(async move {
                following.await;
                Ended::Quietly("the watch over the certificates")
            });
        }

        let admission = Arc::new(Admission::default());
        let ports = Ports { admission: Arc::clone(&admission), grpc: Arc::default(), http: Arc::default() };
        let options = Options {
            protocol: Protocol::Http2,
            tls,
            max_connections: fixed.server.max_connections,
            max_age: fixed.server.max_connection_age,
            drain_timeout: fixed.server.drain_timeout,
            workers,
            lame_duck: Some(Arc::clone(&admission)),
        };
        let mut draining = 1;
        if let (Some(listener), Some(http)) = (http, &fixed.http) {
            draining += 1;
            let checks = HttpChecks::new(Arc::clone(&live), Arc::clone(&admission), http);
            let service = move |request: Request<Incoming>| {
                let answer = checks.clone().respond(request.into_parts().0);
                async move { Ok::<_, Infallible>(answer.await) }
            };
            let options = Options { protocol: Protocol::Http, tls: None, ..options.clone() };
            let http = server::serve(listener, options, Arc::clone(&ports.http), service, stop.clone());
            tasks.spawn(async move { Ended::Drained("the HTTP port", http.await) });
        }
        let admin = {
            let (stop, shown) = (stop.clone(), Arc::new(Admin::new(Arc::clone(&live), ports.clone())));
            let respond = move |request: Request<Incoming>| {
                let response = shown.respond(&request, stop.is_cancelled());
                std::future::ready(Ok::<_, Infallible>(response))
            };
            let options = Options::plain(Protocol::Http1, ADMIN_CONNECTIONS, fixed.server.drain_timeout);
            server::serve(admin, options, Arc::<PortCounters>::default(), respond, drained.clone())
        };
        tasks.spawn(async move {
            admin.await;
            Ended::Quietly("the admin port")
        });
        let services = grpc::services(live, admission, health, told)?;
        let service = move |request| services.call(request);
        let grpc = server::serve(grpc, options, ports.grpc, service, stop.clone());
        tasks.spawn(async move { Ended::Drained("the gRPC port", grpc.await) });

        let mut cut = 0;
        while let Some(ended) = tasks.join_next().await {
            match ended? {
                Ended::Drained(_, outcome) if stop.is_cancelled() => {
                    draining -= 1;
                    cut += match outcome {
                        Drained::Clean => 0,
                        Drained::Cut(checks) => checks,
                    };
                    if draining == 0 {
                        drained.cancel();
                    }
                }
                Ended::Quietly(_) if stop.is_cancelled() => {}
                Ended::Drained(task, _) | Ended::Quietly(task) => return Err(RunError::Ended(task)),
            }
        }
        if let Some(exporter) = exporter {
            spawn_blocking(|| exporter.end()).await?;
        }
        if cut == 0 { Ok(()) } else { Err(RunError::Cut(cut)) }
    }
}

/// How a task of the service ended.
enum Ended {
    Quietly(&'static str),
    Drained(&'static str, Drained),
}
