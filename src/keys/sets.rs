//! The key sets of all issuers, as checks read them. A check reads a snapshot and never fetches; for a key id that the
//! snapshot lacks it requests a fetch from the issuer's refresher and waits a bounded time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::publisher::Publisher;
pub(crate) use super::slot::LastWrite;
use super::slot::{KeySetCache, LastFetch, Slot, Status};
use crate::config::Refresh;
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::issuer::IssuerName;
use crate::domain::key_set::{Generation, KeySet};

/// Why there is no key for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The issuer has answered, and its set does not hold the key.
    Unknown,
    /// The issuer cannot be reached, has not answered yet, or its last answer is too old.
    Unavailable,
}

#[derive(Debug)]
pub(crate) struct KeySets {
    // No capacity is set: the entries are the configured issuers, and an eviction would be an outage.
    sets: KeySetCache,
    slots: HashMap<IssuerName, Arc<Slot>>,
    /// In the configuration's order, each issuer with its source of keys as operators see it.
    sources: Vec<(IssuerName, String)>,
    changed: watch::Sender<()>,
    clock: Clock,
}

/// What [`KeySets`] has to know of one issuer.
#[derive(Debug, Clone)]
pub(crate) struct SlotSettings {
    pub issuer: IssuerName,
    /// Where the keys come from, as operators see it.
    pub source: String,
    pub refresh: Refresh,
    /// The keys stand in the configuration itself. They have no age: they are as good as the configuration in force.
    pub inline: bool,
}

impl KeySets {
    /// No issuer has keys yet.
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

    /// The key sets of the next configuration. An issuer that `stays` shares its slot with this one: its keys, its
    /// refresher, and the checks that wait for a fetch. Any other issuer gets an empty slot, also if its name is in use
    /// here.
    #[must_use]
    pub(crate) fn followed_by(
        &self,
        issuers: impl IntoIterator<Item = SlotSettings>,
        stays: impl Fn(&IssuerName) -> bool,
    ) -> Self {
        let Self { sets, slots: old_slots, sources: _, changed, clock } = self;
        let (mut slots, mut sources) = (HashMap::new(), Vec::new());
        for SlotSettings { issuer, source, refresh, inline } in issuers {
            let shared = old_slots.get(&issuer).filter(|_| stays(&issuer)).cloned();
            let slot = shared.unwrap_or_else(|| Arc::new(Slot::new(sets.clone(), &refresh, inline)));
            slots.insert(issuer.clone(), slot);
            sources.push((issuer, source));
        }
        Self { sets: sets.clone(), slots, sources, changed: changed.clone(), clock: clock.clone() }
    }

    /// The issuer's keys, unless they are too old. None of them if the issuer has withdrawn all.
    ///
    /// # Errors
    /// [`Missing::Unavailable`] without keys or past `max_stale`.
    pub(crate) fn snapshot(&self, issuer: &IssuerName, now: UnixTime) -> Result<Arc<KeySet>, Missing> {
        let slot = self.slots.get(issuer).ok_or(Missing::Unavailable)?;
        let set = slot.set().ok_or(Missing::Unavailable)?;
        if slot.is_fresh(set.fetched_at(), now) { Ok(set) } else { Err(Missing::Unavailable) }
    }

    /// The generation of the issuer's set, unless the set is too old. Enough for a token in the cache, and it avoids a
    /// read of moka.
    #[must_use]
    pub(crate) fn in_force(&self, issuer: &IssuerName, now: UnixTime) -> Option<Generation> {
        self.slots.get(issuer)?.fresh_generation(now)
    }

    /// The time since the issuer last confirmed its set; zero for keys in the configuration. `None` without a set.
    #[must_use]
    pub(crate) fn age(&self, issuer: &IssuerName) -> Option<Duration> {
        let slot = self.slots.get(issuer)?;
        let set = slot.set()?;
        Some(slot.max_stale.map_or(Duration::ZERO, |_| self.now().since(set.fetched_at())))
    }

    /// When the keys at hand are older than `max_stale`, unless the issuer confirms them before; `None` without keys, and for keys that do not
    /// age.
    pub(crate) fn usable_until(&self, issuer: &IssuerName) -> Option<UnixTime> {
        let slot = self.slots.get(issuer)?;
        Some(slot.set()?.fetched_at().after(slot.max_stale?))
    }

    /// Waits up to `refresh.wait` for a set that `has` what a token needs, and requests a fetch for it. The refresher
    /// fetches: a check that is cancelled cancels no fetch, and all waiting checks share one.
    ///
    /// # Errors
    /// [`Missing`], by the issuer's last answer.
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
                slot.request_fetch(progress);
                if progress.cooldown_until > deadline {
                    return Err(Missing::after(progress.last_fetch));
                }
            }
            match timeout_at(deadline, watching.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Missing::Unavailable),
            }
        }
    }

    /// Requests a fetch without waiting for it: the issuer has no usable keys at all.
    pub(crate) fn nudge(&self, issuer: &IssuerName) {
        if let Some(slot) = self.slots.get(issuer) {
            let progress = *slot.progress.borrow();
            if !progress.in_flight {
                slot.request_fetch(progress);
            }
        }
    }

    /// Whether the issuer's first fetch has not ended yet.
    #[must_use]
    pub(crate) fn is_starting(&self, issuer: &IssuerName) -> bool {
        self.slots.get(issuer).is_some_and(|slot| slot.progress.borrow().last_fetch == LastFetch::Pending)
    }

    /// Whether the tokens of at least one issuer can be verified now.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        let now = self.clock.now();
        self.slots.keys().any(|issuer| self.is_usable(issuer, now))
    }

    /// Whether the issuer has keys, and they are not too old.
    #[must_use]
    pub(crate) fn is_usable(&self, issuer: &IssuerName, now: UnixTime) -> bool {
        self.snapshot(issuer, now).is_ok_and(|set| !set.is_empty())
    }

    /// For operators: the issuer's set, however old, and the status of its fetches.
    #[must_use]
    pub(crate) fn inspect(&self, issuer: &IssuerName) -> (Option<Arc<KeySet>>, Status) {
        match self.slots.get(issuer) {
            Some(slot) => (slot.set(), slot.status().clone()),
            None => (None, Status::default()),
        }
    }

    /// The issuers in the configuration's order, each with its source of keys as operators see it.
    #[must_use]
    pub(crate) fn sources(&self) -> &[(IssuerName, String)] {
        &self.sources
    }

    /// Copies the issuer's set from `other`, unless the refresher of this slot has brought one already.
    pub(crate) fn take_over(&self, issuer: &IssuerName, other: &Self) {
        let Some(slot) = self.slots.get(issuer) else { return };
        let (set, status) = other.inspect(issuer);
        if let (Some(set), None) = (set, slot.set()) {
            slot.status().last_success = status.last_success;
            slot.put(set);
        }
    }

    /// The longest time that any check waits here for a key.
    #[must_use]
    pub(crate) fn longest_wait(&self) -> Duration {
        self.slots.values().map(|slot| slot.wait).max().unwrap_or_default()
    }

    /// Waits until each issuer has keys or its first fetch has ended.
    pub(crate) async fn first_answers(&self) {
        for slot in self.slots.values() {
            let mut progress = slot.progress.subscribe();
            while slot.set().is_none() && progress.borrow_and_update().last_fetch == LastFetch::Pending {
                if progress.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// The time by the clock that judges the keys' age.
    #[must_use]
    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Notified after each swap of a key set.
    #[must_use]
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The writer for one issuer's slot; `None` for an issuer without one.
    #[must_use]
    pub(crate) fn publisher(&self, issuer: &IssuerName) -> Option<Publisher> {
        let slot = Arc::clone(self.slots.get(issuer)?);
        let (_, source) = self.sources.iter().find(|(configured, _)| configured == issuer)?;
        let (issuer, source) = (issuer.clone(), source.clone());
        Some(Publisher::new(issuer, source, slot, self.changed.clone(), self.clock.clone()))
    }
}

impl Missing {
    const fn after(last_fetch: LastFetch) -> Self {
        match last_fetch {
            LastFetch::Succeeded => Self::Unknown,
            LastFetch::Pending | LastFetch::Failed => Self::Unavailable,
        }
    }
}
