//! The composition root: builds the service from its configuration, binds every port before a task runs, and owns the
//! tasks and the worker threads until the service ends.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tonic_health::server::{HealthReporter, HealthService};

use crate::api::admin::Admin;
use crate::api::grpc;
use crate::api::health;
use crate::api::http::HttpChecks;
use crate::api::metrics::Ports;
use crate::api::proxy_secret::{UnusableSecret, WatchedSecret};
use crate::app::engine::{BuildError, Carried, Engine, Fixed};
use crate::app::reload::Reloader;
use crate::app::tasks::{TaskError, Tasks};
use crate::check::spans::{Exporter, Spans};
use crate::config::{Config, Listen};
use crate::domain::clock::{Clock, UnixTime};
use crate::revocation::inbox::Restored;
use crate::revocation::journal::JournalError;
use crate::revocation::staleness;
use crate::server::listen::{Address, BindError, Listener};
use crate::server::overload::Admission;
use crate::server::tls::{Tls, TlsError};
use crate::server::workers::{Threads, Workers};
use crate::server::{self, Drained, Options, PortCounters, Protocol, WhenFull};

mod clock_watch;
pub(crate) mod engine;
mod events;
mod overload_watch;
pub(crate) mod reload;
mod tasks;

pub use crate::app::reload::ConfigSource;
pub(crate) use crate::app::reload::log_warnings;

/// Connections the admin port takes: a few probes and scrapers. Past it idle ones are closed, for a failed liveness probe
/// restarts the process.
const MAX_ADMIN_CONNECTIONS: usize = 256;

/// Everything that a service is made of.
pub struct Setup {
    /// The configuration to start with.
    pub config: Config,
    /// The time that tokens and keys are judged by.
    pub clock: Clock,
    /// Where the configuration is read again on SIGHUP or a change of the file; without it there is no reload.
    pub source: Option<ConfigSource>,
    /// Exports a span for each check; without it no span is recorded.
    pub exporter: Option<Exporter>,
}

/// A service that is ready to run: its ports are bound, its worker threads wait for connections. Dropping it closes
/// the ports and ends the threads.
pub struct Bound {
    engine: Engine,
    clock: Clock,
    source: Option<ConfigSource>,
    exporter: Option<Exporter>,
    tls: Option<Arc<Tls>>,
    proxy_secret: Option<Arc<WatchedSecret>>,
    grpc: Listener,
    http: Option<Listener>,
    admin: Listener,
    events: Option<events::Port>,
    restored: Option<Restored>,
    workers: Workers,
    threads: Threads,
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
    /// The proxy's secret cannot be used; nothing was bound.
    #[error(transparent)]
    Secret(#[from] UnusableSecret),
    /// The events in `key_store` cannot be used; nothing was bound.
    #[error("key_store: {0}")]
    Events(#[from] JournalError),
    /// A port could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A worker thread, or its runtime, could not be made.
    #[error(transparent)]
    Threads(#[from] io::Error),
}

/// Why the service ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A task ended too early, or panicked.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Reflection has nothing to show.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The drain's time was up.
    #[error("{0} checks were cut off by drain_timeout")]
    Cut(usize),
}

/// Builds what a configuration describes and drops it: finds the faults that only building finds, such as a
/// certificate file without a certificate. Returns when the certificate expires, if there is one.
pub(crate) fn dry_run(config: Config) -> Result<Option<UnixTime>, StartError> {
    let built = build(config, Clock::default(), Spans::default())?;
    Ok(built.tls.and_then(|tls| tls.expires_at()))
}

/// Everything that can fail without a port.
fn build(config: Config, clock: Clock, spans: Spans) -> Result<Built, StartError> {
    let engine = Engine::build(config, clock, Carried { spans, predecessor: None })?;
    let tls = engine.fixed.server.tls.clone().map(Tls::load).transpose()?;
    let secret_file = engine.fixed.http.as_ref().and_then(|http| http.proxy_secret_file.clone());
    let proxy_secret = secret_file.map(WatchedSecret::load).transpose()?;
    Ok(Built { engine, tls: tls.map(Arc::new), proxy_secret: proxy_secret.map(Arc::new) })
}

struct Built {
    engine: Engine,
    tls: Option<Arc<Tls>>,
    proxy_secret: Option<Arc<WatchedSecret>>,
}

impl Bound {
    /// Builds everything, binds the ports, then starts the worker threads. No task runs yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn bind(setup: Setup) -> Result<Self, StartError> {
        let Setup { config, clock, source, exporter } = setup;
        let spans = exporter.as_ref().map(Exporter::spans).unwrap_or_default();
        let Built { engine, tls, proxy_secret } = build(config, clock.clone(), spans)?;
        let store = engine.event_store().filter(|store| !store.read_only);
        let restored = match (store, &engine.current.authorizer.revocations) {
            (Some(store), Some(revocations)) => Some(Restored::read(&store.path, revocations)?),
            _ => None,
        };
        let Fixed { server, http, admin_listen, revocation } = &engine.fixed;
        let tcp = |address: &String| Listen::Tcp(address.clone());
        let grpc_listener = Listener::bind("server.listen", &server.listen, server.unix_mode).await?;
        let http_listener = match http {
            Some(http) => Some(Listener::bind("http.listen", &tcp(&http.listen), 0).await?),
            None => None,
        };
        let admin_listener = Listener::bind("admin.listen", &tcp(admin_listen), 0).await?;
        let (workers, mut threads) = Workers::start().await?;
        let received = revocation.as_ref().and_then(|revocation| revocation.events.as_ref());
        let events = match received.and_then(|settings| settings.listen.as_ref()) {
            Some(listen) => {
                let listener = Listener::bind("revocation.listen", &tcp(listen), 0).await?;
                // On a thread of its own: a flood of events must leave checks and keys their time.
                let runtime = threads.start_one("events").await?;
                let most = events::MAX_CONNECTIONS;
                let options = Options::plain(Protocol::Http1, runtime.clone(), most, server.drain_timeout);
                let options = Options { tls: tls.clone(), when_full: WhenFull::CloseIdle, ..options };
                Some(events::Port { listener, options, runtime })
            }
            None => None,
        };
        Ok(Self {
            engine,
            clock,
            source,
            exporter,
            tls,
            proxy_secret,
            grpc: grpc_listener,
            http: http_listener,
            admin: admin_listener,
            events,
            restored,
            workers,
            threads,
        })
    }

    /// The gRPC port's address, with the port number that the system chose for port 0.
    #[must_use]
    pub const fn grpc_address(&self) -> &Address {
        self.grpc.address()
    }

    /// The HTTP port's address, if there is one.
    #[must_use]
    pub fn http_address(&self) -> Option<&Address> {
        self.http.as_ref().map(Listener::address)
    }

    /// The admin port's address.
    #[must_use]
    pub const fn admin_address(&self) -> &Address {
        self.admin.address()
    }

    /// The address of the port of `revocation.listen`, if there is one.
    #[must_use]
    pub fn events_address(&self) -> Option<&Address> {
        self.events.as_ref().map(|port| port.listener.address())
    }

    /// Runs until `stop`, then drains, ends the worker threads and sends the last spans.
    ///
    /// # Errors
    /// [`RunError`] if a task ends that should not, or checks were cut off.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self {
            engine,
            clock,
            source,
            exporter,
            tls,
            proxy_secret,
            grpc,
            http,
            admin,
            events,
            restored,
            workers,
            threads,
        } = self;
        let Fixed { server, http: http_settings, admin_listen: _, revocation } = engine.fixed.clone();
        let mut engine = engine;
        let revocation_file = engine.revocation_file.take();
        let (live, reloader) = Reloader::start(engine, clock.clone(), source);
        let reporter = HealthReporter::new();
        health::begin(&reporter).await;
        let health = HealthService::from_health_reporter(reporter.clone());
        let admission = Arc::new(Admission::default());
        let reported_last = CancellationToken::new();
        let end_streams = reported_last.clone();
        let services = grpc::services(
            Arc::clone(&live),
            Arc::clone(&admission),
            health,
            server.max_message,
            end_streams,
        )?;
        let ports = Ports {
            admission: Arc::clone(&admission),
            grpc: Arc::default(),
            http: Arc::default(),
            tls: tls.clone(),
        };
        let mut tasks = Tasks::new(stop.clone());

        tasks.spawn("a key refresher", reloader.run(tasks.drained()));
        let reporting = health::report(reporter, Arc::clone(&live), stop.clone());
        tasks.spawn("the health reporter", async move {
            reporting.await;
            reported_last.cancel();
        });
        tasks.spawn("the watch over the clock", clock_watch::watch(clock.clone(), tasks.drained()));
        let revocations = live.current().authorizer.revocations.clone();
        if let (Some(file), Some(revocations)) = (revocation_file, revocations.clone()) {
            let current = Arc::clone(&live);
            let issuers = move || current.current().authorizer.issuers.names();
            tasks.spawn("the watch over revocation.file", file.follow(revocations, issuers, tasks.drained()));
        }
        if let Some(revocations) = revocations.clone() {
            tasks.spawn("the watch over revocations", staleness::watch(revocations, tasks.drained()));
        }
        let settings = revocation.and_then(|revocation| revocation.events);
        if let (Some(settings), Some(revocations)) = (settings, revocations) {
            let (live, received, port) =
                (Arc::clone(&live), (settings, restored), (events, server.tls.clone()));
            events::spawn(&mut tasks, live, revocations, received, port, stop.clone());
        }
        let overload = overload_watch::watch(Arc::clone(&admission), tasks.drained());
        tasks.spawn("the watch over refused checks", overload);
        if let Some(tls) = tls.clone() {
            tasks.spawn("the watch over the certificates", tls.follow(clock.clone(), tasks.drained()));
        }
        if let Some(secret) = proxy_secret.clone() {
            tasks.spawn("the watch over the proxy secret", secret.follow(tasks.drained()));
        }
        let shown = Admin::new(Arc::clone(&live), ports.clone());
        let admin_port = serve_admin(admin, shown, server.drain_timeout, stop.clone(), tasks.drained());
        tasks.spawn("the admin port", async move {
            admin_port.await;
        });

        let options = Options {
            protocol: Protocol::Http2,
            tls,
            max_connections: server.max_connections,
            when_full: WhenFull::RefuseNew,
            max_age: server.max_connection_age,
            drain_timeout: server.drain_timeout,
            workers,
            lame_duck: Some(Arc::clone(&admission)),
        };
        if let (Some(listener), Some(settings)) = (http, http_settings) {
            let options = Options { protocol: Protocol::Http, tls: None, ..options.clone() };
            let checks = HttpChecks::new(live, admission, &settings, proxy_secret);
            tasks
                .spawn_port("the HTTP port", serve_http(listener, options, ports.http, checks, stop.clone()));
        }
        let call = move |request| services.call(request);
        tasks.spawn_port("the gRPC port", server::serve(grpc, options, ports.grpc, call, stop));

        let ended = tasks.join().await;
        // Joining a thread blocks. What its end says changes nothing any more.
        let _ = spawn_blocking(|| threads.end()).await;
        let cut = ended?;
        if let Some(exporter) = exporter {
            spawn_blocking(|| exporter.end()).await.map_err(TaskError::from)?;
        }
        if cut == 0 { Ok(()) } else { Err(RunError::Cut(cut)) }
    }
}

/// Answers checks over HTTP until `stop`, then drains.
fn serve_http(
    listener: Listener,
    options: Options,
    counters: Arc<PortCounters>,
    checks: HttpChecks,
    stop: CancellationToken,
) -> impl Future<Output = Drained> {
    let respond = move |request: Request<Incoming>| {
        let response = checks.clone().respond(request.into_parts().0);
        async move { Ok::<_, Infallible>(response.await) }
    };
    server::serve(listener, options, counters, respond, stop)
}

/// Answers probes and scrapers until the other ports have `drained`; from `stop` on it shows that the service drains.
/// On the runtime that calls it, so that worker threads at their limit do not fail a liveness probe.
fn serve_admin(
    listener: Listener,
    admin: Admin,
    drain_timeout: Duration,
    stop: CancellationToken,
    drained: CancellationToken,
) -> impl Future<Output = Drained> {
    let admin = Arc::new(admin);
    let respond = move |request: Request<Incoming>| {
        let response = admin.respond(&request, stop.is_cancelled());
        std::future::ready(Ok::<_, Infallible>(response))
    };
    let options = Options::plain(Protocol::Http1, Handle::current(), MAX_ADMIN_CONNECTIONS, drain_timeout);
    let options = Options { when_full: WhenFull::CloseIdle, ..options };
    server::serve(listener, options, Arc::default(), respond, drained)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_that_never_runs_ends_its_threads() {
        let text = "server: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}\n\
                    issuers: [{name: passage, passage: {app_id: app1}}]";
        let config = Config::parse(text, "test.yaml").unwrap();
        let setup = Setup { config, clock: Clock::default(), source: None, exporter: None };
        let bound = Bound::bind(setup).await.unwrap();
        let places: Vec<_> = (0..bound.workers.count()).map(|_| bound.workers.assign()).collect();
        let tasks = places.iter().map(|place| place.runtime().spawn(std::future::pending::<()>()));
        let tasks: Vec<_> = tasks.collect();
        drop(bound);
        for task in tasks {
            assert!(task.await.unwrap_err().is_cancelled(), "its thread dropped its runtime");
        }
    }
}
