//! What receives signed events, put together: the port, the file of events, the other replicas.

use std::convert::Infallible;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::api::events::Events;
use crate::app::tasks::Tasks;
use crate::check::event::Unverifiable;
use crate::config::{EventSettings, TlsFiles};
use crate::live::Live;
use crate::revocation::inbox::{Inbox, NotTaken, Restored, Verifier, Verifying};
use crate::revocation::line::lasting_from_now;
use crate::revocation::peers::{PeerAddresses, PeerClients, Peers, client_builder};
use crate::revocation::redis::RedisStream;
use crate::revocation::signed::{MAX_EVENT_BYTES, SignedEvent};
use crate::revocation::state::Revocations;
use crate::server::listen::Listener;
use crate::server::{self, Options};

/// Connections of the port at the same time. Past it idle ones are closed.
pub(super) const MAX_CONNECTIONS: usize = 256;

/// Verifies by the configuration in force when the event comes.
struct ByLive {
    live: Arc<Live>,
    settings: EventSettings,
    limits: (usize, std::time::Duration),
}

impl Verifier for ByLive {
    fn verify<'a>(&'a self, event: &'a SignedEvent) -> Verifying<'a> {
        Box::pin(async {
            let current = self.live.current();
            let signed = (event.form, &*event.text);
            current.authorizer.verify_event(signed, &self.settings, self.limits).await.map_err(|error| {
                match error {
                    Unverifiable::Fault(fault) => NotTaken::Fault(fault),
                    Unverifiable::KeysUnavailable => NotTaken::KeysUnavailable,
                }
            })
        })
    }
}

/// The port's listener, and how it serves.
pub(super) struct Port {
    pub(super) listener: Listener,
    pub(super) options: Options,
    /// On which it is served, and the other replicas are asked.
    pub(super) runtime: Handle,
}

/// Starts all that receives events.
pub(super) fn spawn(
    tasks: &mut Tasks,
    live: Arc<Live>,
    revocations: Arc<Revocations>,
    (settings, restored): (EventSettings, Option<Restored>),
    (port, tls): (Option<Port>, Option<TlsFiles>),
    stop: CancellationToken,
) {
    // As long as a token lives that an event can name.
    let max_age = lasting_from_now(revocations.settings.max_token_lifetime);
    let verifier = ByLive { live, settings: settings.clone(), limits: (MAX_EVENT_BYTES, max_age) };
    let (inbox, journal) = Inbox::new(revocations, verifier, restored);
    let inbox = Arc::new(inbox);
    if let Some(journal) = journal {
        let (kept, counted) = (Arc::clone(&inbox), Arc::clone(&inbox));
        let writing = journal.run(move |id| kept.knows(id), move || counted.len(), tasks.drained());
        tasks.spawn("the file of revocation events", writing);
    }
    tasks.spawn("the sweep of revocations", Arc::clone(&inbox).sweep(tasks.drained()));
    tasks.spawn("the events that are tried again", Arc::clone(&inbox).retry(tasks.drained()));
    let runtime = port.as_ref().map(|port| port.runtime.clone());
    let addresses = (!settings.peers.is_empty()).then(Arc::<PeerAddresses>::default);
    if let Some(addresses) = &addresses {
        let (scheme, clients) = clients(tls);
        let (names, addresses) = (settings.peers, Arc::clone(addresses));
        let peers = Peers::new(names, Arc::clone(&inbox), addresses, clients, scheme);
        tasks.spawn("the exchange with other replicas", on(runtime.as_ref(), peers.run(tasks.drained())));
    }
    if let Some(redis) = settings.redis {
        let stream = RedisStream::new(redis, Arc::clone(&inbox));
        tasks.spawn("the stream of revocation events", on(runtime.as_ref(), stream.run(tasks.drained())));
    }
    let Some(Port { listener, options, runtime: _ }) = port else { return };
    let events = Arc::new(Events::new(inbox, addresses));
    let respond = move |request: Request<Incoming>| {
        let response = Arc::clone(&events).respond(request);
        async move { Ok::<_, Infallible>(response.await) }
    };
    tasks.spawn_port("the port of events", server::serve(listener, options, Arc::default(), respond, stop));
}

/// The task on this runtime, which ends with it. What other replicas send must not take the time of keys and probes.
fn on(
    runtime: Option<&Handle>,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let spawned = runtime.cloned().unwrap_or_else(Handle::current).spawn(task);
    async move {
        // A panic ends this task too early, and so the service.
        let _ = spawned.await;
    }
}

/// How replicas are reached. Over TLS, their certificate is verified by the system's roots, by those of `server.tls.client_ca`, or by
/// the certificates of `server.tls.cert`, which replicas share. The files are read for each replica that is found.
fn clients(tls: Option<TlsFiles>) -> (&'static str, PeerClients) {
    let Some(TlsFiles { cert, client_ca, key: _ }) = tls else {
        return ("http", Arc::new(|host, address| client_builder(host, address).build()));
    };
    let clients = move |host: &str, address| {
        let mut builder = client_builder(host, address);
        for file in [Some(&cert), client_ca.as_ref()].into_iter().flatten() {
            if let Ok(pem) = std::fs::read(file) {
                builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&pem)?);
            }
        }
        builder.build()
    };
    ("https", Arc::new(clients))
}
