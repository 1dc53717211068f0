//! Accepting connections and draining them: each connection is a tracked task on one core's runtime, each request is
//! counted, and a drain ends at its deadline.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::server::connection::Protocol;

use crate::server::connection::{Connection, Handler};
use crate::server::idle::{Activity, IdleQueue};
use crate::server::in_flight::RequestsInFlight;
use crate::server::limits::{ACCEPT_PAUSE, DRAIN_CONNECTION_AGE, IDLE_LINGER, LAME_DUCK_QUIET};
use crate::server::listen::{DetachedStream, Listener, Peer, Stream};
use crate::server::overload::Admission;
use crate::server::tls::Tls;
use crate::server::workers::Workers;
use crate::server::wrong_protocol::WrongProtocol;

mod connection;
pub(crate) mod fragments;
mod idle;
mod in_flight;
mod limits;
pub mod listen;
pub(crate) mod overload;
pub(crate) mod tls;
mod wide_reads;
pub(crate) mod workers;
mod wrong_protocol;

/// How a port treats its connections.
#[derive(Clone)]
pub struct Options {
    /// The HTTP versions.
    pub protocol: Protocol,
    /// The certificates; without them the port is in plaintext.
    pub tls: Option<Arc<Tls>>,
    /// Connections at the same time.
    pub max_connections: usize,
    /// What makes way when a connection comes past `max_connections`.
    pub when_full: WhenFull,
    /// The age at which a connection gets GOAWAY, a tenth more or less.
    pub max_age: Option<Duration>,
    /// The longest a drain may take.
    pub drain_timeout: Duration,
    /// The runtimes that serve the connections.
    pub workers: Workers,
    /// If set, a drain goes on accepting connections while checks arrive here.
    pub lame_duck: Option<Arc<Admission>>,
}

/// What a port does with a connection past its `max_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The new connection is closed at once.
    RefuseNew,
    /// The new connection is served, and one that has been idle for long is closed: idle connections starve no client.
    /// For a port of short requests; a request under way may be cut.
    CloseIdle,
}

impl Options {
    /// Plaintext, no age limit, served on `runtime`.
    #[must_use]
    pub fn plain(
        protocol: Protocol,
        runtime: Handle,
        max_connections: usize,
        drain_timeout: Duration,
    ) -> Self {
        let workers = Workers::on(runtime);
        Self {
            protocol,
            tls: None,
            max_connections,
            when_full: WhenFull::RefuseNew,
            max_age: None,
            drain_timeout,
            workers,
            lame_duck: None,
        }
    }
}

/// The connections of a port, for the metrics.
#[derive(Debug, Default)]
pub struct PortCounters {
    connections: TaskTracker,
    refused: AtomicU64,
    pub(crate) wrong_protocol: Arc<WrongProtocol>,
}

impl PortCounters {
    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.connections.len()
    }

    /// Connections closed because of `max_connections`.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request under way was answered.
    Clean,
    /// This many requests were cut off at the deadline.
    Cut(usize),
}

/// Serves connections until `stop`, then drains: all connections get GOAWAY, and the requests under way are finished.
/// With [`Options::lame_duck`] new connections are accepted while checks arrive, up to half of `drain_timeout`: they come
/// from proxies that have not seen the drain in our health yet. What is under way after `drain_timeout` is cut off.
pub async fn serve<S: Handler>(
    listener: Listener,
    options: Options,
    counters: Arc<PortCounters>,
    handler: S,
    stop: CancellationToken,
) -> Drained {
    let drain_timeout = options.drain_timeout;
    let (requests, cut) = (RequestsInFlight::for_cores(options.workers.count()), CancellationToken::new());
    let lame_duck = options.lame_duck.clone();
    let (stop_port, idle) = (stop.clone(), IdleQueue::default());
    let mut port = Port { options, counters, handler, requests, stop: stop_port, cut, idle };
    port.accept_until(&listener, stop.cancelled()).await;
    let deadline = Instant::now() + drain_timeout;
    if let Some(admission) = lame_duck {
        // Half the time at most: the other half is for the requests under way.
        let quiet = async { timeout(drain_timeout / 2, until_quiet(&admission)).await.unwrap_or_default() };
        port.accept_until(&listener, quiet).await;
    }
    // Connections that wait in the listener's backlog are served; after the listener is dropped they would be reset.
    port.accept_until(&listener, std::future::ready(())).await;
    drop(listener);
    port.finish(deadline).await
}

struct Port<S> {
    options: Options,
    counters: Arc<PortCounters>,
    handler: S,
    requests: RequestsInFlight,
    /// The drain begins.
    stop: CancellationToken,
    /// The drain is over: connections that are left are dropped.
    cut: CancellationToken,
    /// Empty unless idle connections are closed when the port is full.
    idle: IdleQueue,
}

impl<S: Handler> Port<S> {
    /// Accepts connections until `end`, and in any case those in the backlog.
    async fn accept_until(&mut self, listener: &Listener, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = &mut end => return,
            };
            match accepted {
                Ok((stream, peer)) => self.spawn(stream, peer),
                Err(error) => tokio::select! {
                    () = pause_after(&error) => {}
                    () = &mut end => return,
                },
            }
        }
    }

    /// Serves an accepted connection in a task, unless there are too many.
    fn spawn(&mut self, stream: Stream, peer: Peer) {
        let most = self.options.max_connections;
        let activity = Arc::new(Activity::default());
        let (full, warning) = match self.options.when_full {
            WhenFull::RefuseNew => (self.counters.open() >= most, "too many connections: refused"),
            WhenFull::CloseIdle => {
                (self.idle.add(&activity, most), "too many connections: one that was idle is closed")
            }
        };
        if full {
            let refused = self.counters.refused.fetch_add(1, Ordering::Relaxed) + 1;
            // One line for the first and for every doubling: a flood of connections must not flood the log.
            if refused.is_power_of_two() {
                tracing::warn!(%peer, most, refused, "{warning}");
            }
            if self.options.when_full == WhenFull::RefuseNew {
                return;
            }
        }
        let (max_age, drain) = if self.stop.is_cancelled() {
            // GOAWAY at once would come before the client's first request.
            (Some(DRAIN_CONNECTION_AGE), CancellationToken::new())
        } else {
            (self.options.max_age.map(jittered), self.stop.clone())
        };
        let (tls, cut, assignment) =
            (self.options.tls.clone(), self.cut.clone(), self.options.workers.assign());
        let connection = Connection {
            peer,
            protocol: self.options.protocol,
            handler: self.handler.clone(),
            requests: self.requests.on_core(assignment.core()),
            activity: Arc::clone(&activity),
            max_age,
            drain,
            wrong_protocol: Arc::clone(&self.counters.wrong_protocol),
        };
        let (runtime, stream) = (assignment.runtime(), stream.detach());
        let served = async move {
            let _assignment = assignment;
            let stream = match stream.and_then(DetachedStream::attach) {
                Ok(stream) => stream,
                Err(error) => return tracing::warn!(%peer, %error, "a connection cannot be served"),
            };
            tokio::select! {
                () = cut.cancelled() => {}
                () = activity.closed_for_another() => {}
                () = connection.serve(stream, tls) => {}
            }
        };
        self.counters.connections.spawn_on(served, &runtime);
    }

    /// Waits until every connection is closed, or no request was under way for [`IDLE_LINGER`], or the deadline; cuts off
    /// the connections that are left.
    async fn finish(self, deadline: Instant) -> Drained {
        let Self { counters, requests, cut, .. } = self;
        let connections = &counters.connections;
        connections.close();
        let quiet = async {
            loop {
                requests.wait().await;
                sleep(IDLE_LINGER).await;
                if requests.len() == 0 {
                    return;
                }
            }
        };
        let drained = timeout_at(deadline, async {
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
}

/// Resolves when no check has arrived for [`LAME_DUCK_QUIET`].
async fn until_quiet(admission: &Admission) {
    let mut before = admission.arrived();
    loop {
        sleep(LAME_DUCK_QUIET).await;
        let now = admission.arrived();
        if now == before {
            return;
        }
        before = now;
    }
}

/// A tenth more or less, so that connections that opened together do not close together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(fastrand::f64().mul_add(0.2, 0.9))
}

async fn pause_after(error: &io::Error) {
    match error.kind() {
        // The client closed the connection before it was accepted; the next accept can succeed.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        _ => {
            tracing::warn!(%error, "a connection cannot be accepted");
            sleep(ACCEPT_PAUSE).await;
        }
    }
}
