//! The other replicas: what this one is the first to get is handed on to each, and each is asked twice a second whether it knows more.
//! What they say is verified like what issuers send, so a replica need not be trusted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use reqwest::{Client, StatusCode, redirect};
use tokio::net::lookup_host;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::inbox::{Inbox, Taken};
use super::kept::PARTS;
use super::signed::{EventId, SignedEvent};
use super::source::Source;

/// Where a replica listens for the others, on the port of `revocation.listen`.
pub(crate) const EVENTS_PATH: &str = "/replica/events";
pub(crate) const DIGESTS_PATH: &str = "/replica/digests";
pub(crate) const MISSING_PATH: &str = "/replica/missing";

/// Is in the answers of a replica that starts, and so may know less than the others.
pub(crate) const STARTING: &str = "x-passage-authz-starting";

/// How often the addresses are looked up.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a replica is asked whether it knows more.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// After an answer that brought nothing that took effect.
const IN_VAIN_PAUSE: Duration = Duration::from_secs(2);

/// What this replica cannot verify it is not offered again at once.
const REFUSED_FOR: Duration = Duration::from_secs(10);
const MAX_REFUSED: usize = 10_000;

/// One request, its answer included.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The most of a request or an answer, in bytes.
pub(crate) const MAX_BYTES: usize = 512 * 1024;

/// The most that is asked of a replica before it is looked at again.
const MAX_BYTES_AT_ONCE: usize = 16 << 20;

/// While all that answer start as well, one that does not answer is waited for so long, even if tokens are denied meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The most replicas.
const MAX_PEERS: usize = 256;

/// The addresses of the replicas, which alone may ask what events there are: an event names a user.
#[derive(Debug, Default)]
pub(crate) struct PeerAddresses {
    known: ArcSwap<BTreeSet<IpAddr>>,
    unknown_asked: Notify,
}

impl PeerAddresses {
    /// Whether a replica has this address. If not, the addresses are looked up anew: it may have just started.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let is_known = self.known.load().contains(&address.to_canonical());
        if !is_known {
            self.unknown_asked.notify_one();
        }
        is_known
    }
}

/// One value for all parts: whether two replicas know the same events.
pub(crate) fn overall(digests: &[u128; PARTS]) -> EventId {
    let mut context = digest::Context::new(&digest::SHA256);
    digests.iter().for_each(|part| context.update(&part.to_be_bytes()));
    EventId(u128::from_be_bytes(context.finish().as_ref().first_chunk().copied().unwrap_or_default()))
}

/// Why another replica did not answer.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is too long, or not understood")]
    Answer,
}

/// Follows the other replicas.
pub(crate) struct Peers {
    /// `HOST:PORT`.
    names: Vec<String>,
    inbox: Arc<Inbox>,
    addresses: Arc<PeerAddresses>,
    clients: PeerClients,
    scheme: &'static str,
}

/// How replicas are reached: in plaintext, or over TLS where their port has it.
pub(crate) type PeerClients = Arc<dyn Fn(&str, SocketAddr) -> Result<Client, reqwest::Error> + Send + Sync>;

/// Of plaintext: one connection to one address, and no proxy or redirect between.
pub(crate) fn client_builder(host: &str, address: SocketAddr) -> reqwest::ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .resolve(host, address)
}

/// One address of one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    name: String,
    address: SocketAddr,
}

/// What a look-up found.
#[derive(Debug, Default)]
struct Found {
    peers: BTreeSet<Peer>,
    /// The names that could not be looked up, which may pass: their replicas are followed on.
    lost: Vec<String>,
}

/// What is known of a replica: nothing, since it does not answer, or not in full yet; that it is this one; that it starts, and so may know less than the others;
/// or that it knows what it can.
const UNKNOWN: u8 = 0;
const ITSELF: u8 = 1;
const STARTS: u8 = 2;
const KNOWS: u8 = 3;

impl Peers {
    pub(crate) fn new(
        names: Vec<String>,
        inbox: Arc<Inbox>,
        addresses: Arc<PeerAddresses>,
        clients: PeerClients,
        scheme: &'static str,
    ) -> Self {
        Self { names, inbox, addresses, clients, scheme }
    }

    /// Until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let (mut tasks, mut running) =
            (JoinSet::new(), BTreeMap::<Peer, (CancellationToken, Arc<AtomicU8>)>::new());
        let mut look = interval(LOOKUP_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (begun, mut was_alone) = (Instant::now(), false);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => {}
                // At most once in the interval's tenth: who asks may be no replica.
                () = this.addresses.unknown_asked.notified() => sleep(LOOKUP_INTERVAL / 10).await,
                Some(ended) = tasks.join_next() => match ended {
                    Ok(()) => continue,
                    // A panic: the task of the service ends, which names it.
                    Err(_) => return,
                },
            }
            let found = tokio::select! {
                () = stop.cancelled() => break,
                found = this.look_up() => found,
            };
            let Found { peers, lost } = found;
            running.retain(|peer, (stop, _)| {
                let stays = peers.contains(peer) || lost.contains(&peer.name);
                if !stays {
                    stop.cancel();
                }
                stays
            });
            for peer in peers {
                running.entry(peer).or_insert_with_key(|peer| {
                    let (stop, kind) = (stop.child_token(), Arc::new(AtomicU8::new(UNKNOWN)));
                    tasks.spawn(Arc::clone(&this).follow(peer.clone(), Arc::clone(&kind), stop.clone()));
                    (stop, kind)
                });
            }
            let kinds: Vec<_> = running.values().map(|(_, kind)| kind.load(Ordering::Relaxed)).collect();
            let all_asked = lost.is_empty() && !kinds.is_empty() && !kinds.contains(&UNKNOWN);
            let gives_up = begun.elapsed() > LONGEST_WAIT && kinds.contains(&STARTS);
            if all_asked && !kinds.contains(&KNOWS) {
                // It is alone, or all start together.
                this.confirm();
                let is_alone = kinds.iter().all(|kind| *kind == ITSELF);
                if is_alone && !was_alone {
                    tracing::info!(
                        "the names of revocation.peers lead to this replica alone: no event goes to another one"
                    );
                }
                was_alone = is_alone;
            } else if gives_up && this.inbox.revocations.is_starting() {
                tracing::warn!(
                    "a replica that does not answer is not waited for any longer: revocations that only it took are not known here"
                );
                this.confirm();
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// All addresses.
    async fn look_up(&self) -> Found {
        let mut found = Found::default();
        for name in &self.names {
            let trouble = match timeout(LOOKUP_TIMEOUT, lookup_host(name)).await {
                Ok(Ok(addresses)) => {
                    let peer = |address| Peer { name: name.clone(), address };
                    found.peers.extend(addresses.map(peer).take(MAX_PEERS));
                    continue;
                }
                Ok(Err(error)) => format!("{name} cannot be looked up: {error}"),
                Err(_) => format!("{name} cannot be looked up in time"),
            };
            self.trouble(trouble);
            found.lost.push(name.clone());
        }
        let known = found.peers.iter().map(|peer| peer.address.ip().to_canonical()).collect();
        self.addresses.known.store(Arc::new(known));
        found
    }

    fn confirm(&self) {
        self.inbox.confirm(Source::Peers);
    }

    fn trouble(&self, trouble: String) {
        self.inbox.revocations.source(Source::Peers).set_trouble(Some(trouble));
    }

    /// Hands on to one replica and asks it, until `stop`. Tells what kind it is.
    async fn follow(self: Arc<Self>, peer: Peer, kind: Arc<AtomicU8>, stop: CancellationToken) {
        let (mut refused, mut was_down) = (HashMap::new(), false);
        let following = async {
            let mut link = None;
            loop {
                let made = link.take().map_or_else(|| Link::new(&self, &peer), Ok);
                let error = match made {
                    Ok(made) => {
                        let error = made.follow(&kind, &mut refused, &mut was_down).await;
                        // With certificates it is made anew: they may be others by now.
                        link = Some(made).filter(|_| self.scheme == "http");
                        error
                    }
                    Err(error) => error.into(),
                };
                kind.store(UNKNOWN, Ordering::Relaxed);
                let error = with_causes(&error);
                self.trouble(format!("{}: {error}", peer.address));
                if !std::mem::replace(&mut was_down, true) {
                    tracing::warn!(peer = %peer.address, error, "a replica does not answer");
                }
                sleep(ASK_INTERVAL).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = following => {}
        }
    }
}

fn with_causes(error: &PeerError) -> String {
    let (mut text, mut cause) = (error.to_string(), std::error::Error::source(error));
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// What an exchange came to.
enum Asked {
    /// It knows nothing more than this replica does, or what it knows more was taken.
    Answered,
    /// The same, and it has not asked the others itself.
    Starting,
    /// It says that it knows more, and brought nothing that took effect: it has other keys, or means harm.
    InVain,
    /// There is more than was asked for at once.
    InPart,
    /// The address is this replica's own.
    Itself,
}

/// What an answer brought.
struct Taking {
    /// In bytes.
    length: usize,
    /// Whether anything took effect.
    is_new: bool,
    may_have_more: bool,
}

/// The requests to one replica.
struct Link<'p> {
    peers: &'p Peers,
    client: Client,
    base: String,
}

impl<'p> Link<'p> {
    fn new(peers: &'p Peers, peer: &Peer) -> Result<Self, reqwest::Error> {
        let (host, port) = peer.name.rsplit_once(':').unwrap_or((&peer.name, ""));
        let client = (peers.clients)(host, peer.address)?;
        Ok(Self { peers, client, base: format!("{}://{host}:{port}", peers.scheme) })
    }

    /// Hands on and asks, until the replica does not answer.
    async fn follow(
        &self,
        kind: &AtomicU8,
        refused: &mut HashMap<EventId, Instant>,
        was_down: &mut bool,
    ) -> PeerError {
        let handing_on = async {
            let mut events = self.peers.inbox.handed_on();
            loop {
                self.hand_on(&mut events).await;
            }
        };
        let asking = async {
            let mut look = interval(ASK_INTERVAL);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                look.tick().await;
                refused.retain(|_, at: &mut Instant| at.elapsed() < REFUSED_FOR);
                let asked = match self.ask(refused).await {
                    Ok(asked) => asked,
                    Err(error) => return error,
                };
                let is = match asked {
                    Asked::Itself => ITSELF,
                    Asked::Starting => STARTS,
                    Asked::InPart => UNKNOWN,
                    Asked::Answered | Asked::InVain => KNOWS,
                };
                kind.store(is, Ordering::Relaxed);
                if is == KNOWS {
                    self.peers.confirm();
                }
                if std::mem::take(was_down) {
                    tracing::info!(peer = self.base, "a replica answers again");
                }
                match asked {
                    Asked::InVain => sleep(IN_VAIN_PAUSE).await,
                    Asked::InPart => look.reset_immediately(),
                    Asked::Answered | Asked::Starting | Asked::Itself => {}
                }
            }
        };
        tokio::select! {
            error = asking => error,
            () = handing_on => PeerError::Answer,
        }
    }

    /// Waits for events, and sends those that are there.
    async fn hand_on(&self, events: &mut broadcast::Receiver<SignedEvent>) {
        // What was missed is asked for by the other replica.
        let Ok(first) = events.recv().await else { return };
        let mut lines = first.line();
        while lines.len() < MAX_BYTES / 2
            && let Ok(event) = events.try_recv()
        {
            lines.push_str(&event.line());
        }
        let sent = self.client.post(format!("{}{EVENTS_PATH}", self.base)).body(lines).send().await;
        if let Err(error) = sent {
            tracing::debug!(%error, "events cannot be handed on");
        }
    }

    /// Takes what the other replica knows more.
    async fn ask(&self, refused: &mut HashMap<EventId, Instant>) -> Result<Asked, PeerError> {
        let (mine, number) = (self.peers.inbox.digests(), self.peers.inbox.new_number());
        let url = format!("{}{DIGESTS_PATH}?same={}&number={number}", self.base, overall(&mine));
        let answer = self.client.get(url).send().await?;
        if self.peers.inbox.has_met(number) {
            return Ok(Asked::Itself);
        }
        let asked = if answer.headers().contains_key(STARTING) { Asked::Starting } else { Asked::Answered };
        match answer.status() {
            StatusCode::NO_CONTENT => return Ok(asked),
            StatusCode::OK => {}
            other => return Err(PeerError::Status(other)),
        }
        let theirs = body(answer).await?;
        let theirs: Option<Vec<_>> = theirs.lines().map(|line| u128::from_str_radix(line, 16).ok()).collect();
        let theirs = theirs.filter(|theirs| theirs.len() == PARTS).ok_or(PeerError::Answer)?;
        let different =
            (0..=u8::MAX).zip(mine.iter().zip(&theirs)).filter(|(_, (mine, theirs))| mine != theirs);
        let (mut bytes, mut has_new, mut has_asked) = (0, false, false);
        for (part, _) in different {
            // As long as there is more.
            loop {
                has_asked = true;
                let Taking { length, is_new, may_have_more } = self.ask_for(part, refused).await?;
                (bytes, has_new) = (bytes + length, has_new || is_new);
                if bytes > MAX_BYTES_AT_ONCE {
                    return Ok(Asked::InPart);
                }
                if !may_have_more {
                    break;
                }
            }
        }
        Ok(if has_asked && !has_new && matches!(asked, Asked::Answered) { Asked::InVain } else { asked })
    }

    /// Takes what the other replica knows more of one part.
    async fn ask_for(&self, part: u8, refused: &mut HashMap<EventId, Instant>) -> Result<Taking, PeerError> {
        let known: HashSet<_> =
            self.peers.inbox.ids(part).into_iter().chain(refused.keys().copied()).collect();
        let mut asked = format!("{part:02x}\n");
        for id in &known {
            // Writing to a String cannot fail.
            let _ = writeln!(asked, "{id}");
        }
        let answer = self.client.post(format!("{}{MISSING_PATH}", self.base)).body(asked).send().await?;
        if answer.status() != StatusCode::OK {
            return Err(PeerError::Status(answer.status()));
        }
        let (lines, mut is_new, mut may_have_more) = (body(answer).await?, false, false);
        for event in lines.lines().map(SignedEvent::of_line) {
            let event = event.ok_or(PeerError::Answer)?;
            if known.contains(&event.id()) {
                continue;
            }
            match self.peers.inbox.offer(&event, Source::Peers).await {
                Ok(Taken::New) => (is_new, may_have_more) = (true, true),
                // It is not kept, so it would be offered again and again.
                Ok(Taken::Known | Taken::Again | Taken::Nothing) | Err(_) if refused.len() < MAX_REFUSED => {
                    may_have_more |= refused.insert(event.id(), Instant::now()).is_none();
                }
                Ok(Taken::Known | Taken::Again | Taken::Nothing) | Err(_) => {}
            }
        }
        Ok(Taking { length: lines.len(), is_new, may_have_more })
    }
}

/// An answer's body, bounded.
async fn body(mut answer: reqwest::Response) -> Result<String, PeerError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > 2 * MAX_BYTES {
            return Err(PeerError::Answer);
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| PeerError::Answer)
}
