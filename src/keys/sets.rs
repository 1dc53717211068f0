//! The key sets at hand, one per issuer. A check reads a snapshot and never fetches; it may ask for a key
//! that is not there, which wakes the issuer's refresher and waits a bounded time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use moka::sync::Cache;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::config::Refresh;
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::issuer::IssuerName;
use crate::domain::key_set::{Generation, KeySet};

/// Why a key could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The issuer has answered, and its set does not hold the key.
    Unknown,
    /// The issuer could not be asked, has not answered yet, or its last answer is too old.
    Unavailable,
}

/// All issuers' key sets.
#[derive(Debug)]
pub(crate) struct KeySets {
    // No capacity is set: the entries are the configured issuers, and an eviction would be an outage.
    // By slot and not by name: two configurations may mean different keys by one name for a while.
    sets: Cache<SlotId, Arc<KeySet>>,
    slots: HashMap<IssuerName, Arc<Slot>>,
    /// The issuers in the configuration's order, each with its source of keys for people to read.
    sources: Vec<(IssuerName, String)>,
    changed: watch::Sender<()>,
    clock: Clock,
}

/// One issuer that a store is made for.
#[derive(Debug, Clone)]
pub(crate) struct SlotSettings {
    /// Its name.
    pub issuer: IssuerName,
    /// Where its keys come from, for people to read.
    pub source: String,
    /// When they are fetched.
    pub refresh: Refresh,
    /// Whether they stand in the configuration itself, which vouches for them for as long as it is in force.
    pub inline: bool,
}

/// Which slot a key set belongs to; never used twice.
type SlotId = u64;

/// What checks and the refresher of one issuer share.
#[derive(Debug)]
struct Slot {
    id: SlotId,
    /// Of the set at hand; read by every check, so it is where no check writes.
    stamp: ArcSwapOption<Stamp>,
    progress: watch::Sender<Progress>,
    status: Mutex<Status>,
    /// The number of fetches that somebody wants to have been started.
    wanted: AtomicU64,
    wake: Notify,
    /// The age at which keys are too old; `None` for keys that have none.
    max_stale: Option<Duration>,
    wait: Duration,
}

/// What tells one set from another, and how old it is.
#[derive(Debug)]
struct Stamp {
    generation: Generation,
    fetched_at: UnixTime,
}

/// What an operator may want to know of an issuer's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// When a fetch last succeeded.
    pub last_success: Option<UnixTime>,
    /// When a fetch last failed, and why.
    pub last_error: Option<(UnixTime, String)>,
    /// When the next one is planned; `None` while one is under way, or when there will be none.
    pub next_refresh: Option<UnixTime>,
    /// How many fetches brought a set unlike the one at hand, the same set, or nothing.
    pub fetches: Fetches,
}

/// Fetches by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fetches {
    /// Brought a set unlike the one at hand.
    pub changed: u64,
    /// Confirmed the set at hand.
    pub unchanged: u64,
    /// Brought no usable set.
    pub failed: u64,
}

/// How far an issuer's refresher has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    started: u64,
    in_flight: bool,
    last: Last,
    /// Before this, no fetch is made for an unknown key.
    asking_again: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Never,
    Good,
    Failed,
}

impl KeySets {
    /// A store for these issuers, all of them without keys yet.
    #[must_use]
    pub(crate) fn new(issuers: impl IntoIterator<Item = SlotSettings>, clock: Clock) -> Self {
        let empty = Self {
            sets: Cache::builder().build(),
            slots: HashMap::new(),
            sources: Vec::new(),
            changed: watch::Sender::new(()),
            clock,
        };
        empty.followed_by(issuers, |_| false)
    }

    /// The store of a configuration that follows. Issuers that `stay` keep their keys, their refresher, and
    /// whoever waits for it; the others begin anew, apart from those of the same name here.
    #[must_use]
    pub(crate) fn followed_by(
        &self,
        issuers: impl IntoIterator<Item = SlotSettings>,
        stay: impl Fn(&IssuerName) -> bool,
    ) -> Self {
        let (mut slots, mut sources) = (HashMap::new(), Vec::new());
        for SlotSettings { issuer, source, refresh, inline } in issuers {
            let staying = self.slots.get(&issuer).filter(|_| stay(&issuer)).cloned();
            slots.insert(issuer.clone(), staying.unwrap_or_else(|| Arc::new(Slot::new(&refresh, inline))));
            sources.push((issuer, source));
        }
        let (sets, changed, clock) = (self.sets.clone(), self.changed.clone(), self.clock.clone());
        Self { sets, slots, sources, changed, clock }
    }

    /// The issuer's keys, if they are young enough.
    ///
    /// # Errors
    /// [`Missing::Unavailable`] without keys or past `max_stale`.
    pub(crate) fn snapshot(&self, issuer: &IssuerName, now: UnixTime) -> Result<Arc<KeySet>, Missing> {
        let slot = self.slots.get(issuer).ok_or(Missing::Unavailable)?;
        let set = self.sets.get(&slot.id).ok_or(Missing::Unavailable)?;
        if slot.is_young(set.fetched_at(), now) { Ok(set) } else { Err(Missing::Unavailable) }
    }

    /// Which of the issuer's sets is in force, if it is young enough: all that a token needs that one of them has verified
    /// before.
    #[must_use]
    pub(crate) fn in_force(&self, issuer: &IssuerName, now: UnixTime) -> Option<Generation> {
        let slot = self.slots.get(issuer)?;
        let stamp = slot.stamp.load();
        stamp.as_ref().filter(|stamp| slot.is_young(stamp.fetched_at, now)).map(|stamp| stamp.generation)
    }

    /// How long ago the issuer confirmed the set at hand: not at all for keys in the configuration. `None` without a set.
    #[must_use]
    pub(crate) fn age(&self, issuer: &IssuerName) -> Option<Duration> {
        let slot = self.slots.get(issuer)?;
        let set = self.sets.get(&slot.id)?;
        Some(slot.max_stale.map_or(Duration::ZERO, |_| self.now().since(set.fetched_at())))
    }

    /// Asks for a set that `has` what a token needs: wakes the refresher and waits up to `refresh.wait`.
    /// The fetch is the refresher's; it goes on if the request is given up, and all who wait share it.
    ///
    /// # Errors
    /// [`Missing`] with what the issuer has said so far.
    pub(crate) async fn ask(
        &self,
        issuer: &IssuerName,
        has: impl Fn(&KeySet) -> bool,
    ) -> Result<Arc<KeySet>, Missing> {
        let slot = self.slots.get(issuer).ok_or(Missing::Unavailable)?;
        let deadline = Instant::now() + slot.wait;
        let mut watching = slot.progress.subscribe();
        loop {
            let progress = *watching.borrow_and_update();
            if let Some(set) = self.snapshot(issuer, self.clock.now()).ok().filter(|set| has(set)) {
                return Ok(set);
            }
            if !progress.in_flight {
                slot.want(progress.started + 1);
                if progress.asking_again > deadline {
                    return Err(progress.missing());
                }
            }
            match timeout_at(deadline, watching.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Missing::Unavailable),
            }
        }
    }

    /// Wants a fetch without waiting for it: keys are missing altogether.
    pub(crate) fn nudge(&self, issuer: &IssuerName) {
        if let Some(slot) = self.slots.get(issuer) {
            let progress = *slot.progress.borrow();
            if !progress.in_flight {
                slot.want(progress.started + 1);
            }
        }
    }

    /// Whether the first fetch of this issuer has not been answered yet.
    #[must_use]
    pub(crate) fn is_starting(&self, issuer: &IssuerName) -> bool {
        self.slots.get(issuer).is_some_and(|slot| slot.progress.borrow().last == Last::Never)
    }

    /// Whether at least one issuer's tokens can be verified now.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        let now = self.clock.now();
        self.slots.keys().any(|issuer| self.snapshot(issuer, now).is_ok())
    }

    /// The issuer's set at hand, however old, and what became of its fetches.
    #[must_use]
    pub(crate) fn inspect(&self, issuer: &IssuerName) -> (Option<Arc<KeySet>>, Status) {
        match self.slots.get(issuer) {
            Some(slot) => (self.sets.get(&slot.id), slot.status().clone()),
            None => (None, Status::default()),
        }
    }

    /// The issuers in the configuration's order, each with its source of keys for people to read.
    #[must_use]
    pub(crate) fn sources(&self) -> &[(IssuerName, String)] {
        &self.sources
    }

    /// Takes over the keys that another store has of an issuer, unless its own refresher has brought some.
    pub(crate) fn take_over(&self, issuer: &IssuerName, other: &Self) {
        let Some(slot) = self.slots.get(issuer) else { return };
        let (set, status) = other.inspect(issuer);
        if let (Some(set), None) = (set, self.sets.get(&slot.id)) {
            slot.status().last_success = status.last_success;
            slot.put(&self.sets, set);
        }
    }

    /// The longest that a check waits here for a key.
    #[must_use]
    pub(crate) fn longest_wait(&self) -> Duration {
        self.slots.values().map(|slot| slot.wait).max().unwrap_or_default()
    }

    /// Waits until every issuer has keys, or its first fetch has been answered.
    pub(crate) async fn first_answers(&self) {
        for slot in self.slots.values() {
            let mut progress = slot.progress.subscribe();
            while self.sets.get(&slot.id).is_none() && progress.borrow_and_update().last == Last::Never {
                if progress.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// The time now, by the store's clock.
    #[must_use]
    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Tells of every swap of a key set.
    #[must_use]
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The refresher's side of one issuer; `None` for an issuer the store was not made for.
    #[must_use]
    pub(crate) fn publisher(&self, issuer: &IssuerName) -> Option<Publisher> {
        let slot = Arc::clone(self.slots.get(issuer)?);
        Some(Publisher {
            issuer: issuer.clone(),
            slot,
            sets: self.sets.clone(),
            changed: self.changed.clone(),
            clock: self.clock.clone(),
        })
    }
}

impl Slot {
    fn new(refresh: &Refresh, inline: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let start =
            Progress { started: 0, in_flight: false, last: Last::Never, asking_again: Instant::now() };
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            stamp: ArcSwapOption::empty(),
            progress: watch::Sender::new(start),
            status: Mutex::default(),
            wanted: AtomicU64::new(0),
            wake: Notify::new(),
            max_stale: (!inline).then_some(refresh.max_stale),
            wait: refresh.wait,
        }
    }

    /// Puts a set in force.
    fn put(&self, sets: &Cache<SlotId, Arc<KeySet>>, set: Arc<KeySet>) {
        let stamp = Stamp { generation: set.generation(), fetched_at: set.fetched_at() };
        sets.insert(self.id, set);
        self.stamp.store(Some(Arc::new(stamp)));
    }

    /// Leaves no set in force.
    fn clear(&self, sets: &Cache<SlotId, Arc<KeySet>>) {
        self.stamp.store(None);
        sets.invalidate(&self.id);
    }

    fn is_young(&self, fetched_at: UnixTime, now: UnixTime) -> bool {
        self.max_stale.is_none_or(|most| now.since(fetched_at) <= most)
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, started: u64) {
        // Only the first to want it has to say so.
        if self.wanted.fetch_max(started, Ordering::SeqCst) < started {
            self.wake.notify_one();
        }
    }
}

impl Progress {
    const fn missing(self) -> Missing {
        match self.last {
            Last::Good => Missing::Unknown,
            Last::Never | Last::Failed => Missing::Unavailable,
        }
    }
}

/// The one writer of one issuer's keys.
#[derive(Debug)]
pub(crate) struct Publisher {
    issuer: IssuerName,
    slot: Arc<Slot>,
    sets: Cache<SlotId, Arc<KeySet>>,
    changed: watch::Sender<()>,
    clock: Clock,
}

impl Drop for Publisher {
    /// Keys that nobody refreshes any more are nobody's.
    fn drop(&mut self) {
        self.slot.clear(&self.sets);
    }
}

impl Publisher {
    /// Whose keys these are.
    #[must_use]
    pub(crate) const fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    /// The time now, by the store's clock.
    #[must_use]
    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// The set at hand, however old.
    #[must_use]
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        self.sets.get(&self.slot.id)
    }

    /// A fetch begins; until `asking_again` no other is made for an unknown key.
    pub(crate) fn begin(&self, asking_again: Instant) {
        self.slot.status().next_refresh = None;
        self.slot.progress.send_modify(|progress| {
            progress.started += 1;
            progress.in_flight = true;
            progress.asking_again = asking_again;
        });
    }

    /// The fetch has succeeded: the set is swapped whole, then those who wait are told.
    pub(crate) fn succeed(&self, set: KeySet, changed: bool) {
        {
            let mut status = self.slot.status();
            status.last_success = Some(set.fetched_at());
            let fetches = &mut status.fetches;
            *(if changed { &mut fetches.changed } else { &mut fetches.unchanged }) += 1;
        }
        self.slot.put(&self.sets, Arc::new(set));
        self.end(Last::Good);
        self.changed.send_replace(());
    }

    /// The fetch has failed: the set at hand stays.
    pub(crate) fn fail(&self, why: String) {
        {
            let mut status = self.slot.status();
            status.last_error = Some((self.clock.now(), why));
            status.fetches.failed += 1;
        }
        self.end(Last::Failed);
    }

    /// Puts an older set in place, from before this start. It counts as no fetch.
    pub(crate) fn restore(&self, set: KeySet) {
        self.slot.status().last_success = Some(set.fetched_at());
        self.slot.put(&self.sets, Arc::new(set));
        self.slot.progress.send_modify(|_| {});
        self.changed.send_replace(());
    }

    /// The next fetch is planned after this pause; `None`: never.
    pub(crate) fn plan(&self, pause: Option<Duration>) {
        self.slot.status().next_refresh = pause.map(|pause| self.clock.now().after(pause));
    }

    fn end(&self, last: Last) {
        self.slot.progress.send_modify(|progress| {
            progress.in_flight = false;
            progress.last = last;
        });
    }

    /// Whether somebody wants a fetch that has not been started.
    #[must_use]
    pub(crate) fn is_wanted(&self) -> bool {
        self.slot.wanted.load(Ordering::SeqCst) > self.slot.progress.borrow().started
    }

    /// Waits until somebody may want a fetch.
    pub(crate) async fn woken(&self) {
        self.slot.wake.notified().await;
    }
}
