//! What the checks and the refresher of one issuer share: the key set in force, the requests for a fetch, how far the
//! fetches have come, and a status for operators. A check only reads, except to request a fetch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use moka::sync::Cache;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::Refresh;
use crate::domain::clock::UnixTime;
use crate::domain::clock_skew::ClockSkew;
use crate::domain::key_set::{Generation, KeySet};

/// The key sets of all slots.
pub(super) type KeySetCache = Cache<SlotId, Arc<KeySet>>;

/// Never used twice in a process: two configurations may mean different keys by one issuer name for a while.
pub(super) type SlotId = u64;

#[derive(Debug)]
pub(super) struct Slot {
    id: SlotId,
    sets: KeySetCache,
    /// Of the set in `sets`. Every check of a cached token reads it, and reading an `ArcSwap` writes to no cache line
    /// that cores share; a moka read does (docs/decisions/0006).
    stamp: ArcSwapOption<Stamp>,
    pub(super) progress: watch::Sender<Progress>,
    status: Mutex<Status>,
    /// A check that needs another fetch raises this to `Progress::fetches_started + 1`, so any number of checks that
    /// need the same fetch request one.
    fetches_requested: AtomicU64,
    fetch_request: Notify,
    /// The age at which keys are too old; `None` for keys that have none.
    pub(super) max_stale: Option<Duration>,
    /// How long a check waits for a fetch.
    pub(super) wait: Duration,
}

/// What tells one set from another, and how old the set is.
#[derive(Debug)]
struct Stamp {
    generation: Generation,
    fetched_at: UnixTime,
}

/// For operators: the admin port and the metrics show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub last_success: Option<UnixTime>,
    /// The time and the reason of the last failed fetch.
    pub last_error: Option<(UnixTime, String)>,
    /// By the last answer that told the time.
    pub clock_skew: Option<ClockSkew>,
    pub last_write: LastWrite,
    /// `None` during a fetch, and when none will follow.
    pub next_refresh: Option<UnixTime>,
    pub fetches: Fetches,
}

/// The last write of the keys to the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum LastWrite {
    /// None so far, or nothing is written.
    #[default]
    None,
    Succeeded,
    /// Why.
    Failed(String),
}

/// Numbers of fetches by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fetches {
    /// Brought a set that differs from the one before.
    pub changed: u64,
    /// Confirmed the set in force.
    pub unchanged: u64,
    /// Brought no usable set.
    pub failed: u64,
}

/// How far an issuer's refresher has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) fetches_started: u64,
    pub(super) in_flight: bool,
    pub(super) last_fetch: LastFetch,
    /// No fetch for an unknown key id starts before this time.
    pub(super) cooldown_until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastFetch {
    /// The first fetch has not ended yet.
    Pending,
    Succeeded,
    Failed,
}

impl Slot {
    pub(super) fn new(sets: KeySetCache, refresh: &Refresh, inline: bool) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let start = Progress {
            fetches_started: 0,
            in_flight: false,
            last_fetch: LastFetch::Pending,
            cooldown_until: Instant::now(),
        };
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            sets,
            stamp: ArcSwapOption::empty(),
            progress: watch::Sender::new(start),
            status: Mutex::default(),
            fetches_requested: AtomicU64::new(0),
            fetch_request: Notify::new(),
            max_stale: (!inline).then_some(refresh.max_stale),
            wait: refresh.wait,
        }
    }

    /// The set in force, however old.
    pub(super) fn set(&self) -> Option<Arc<KeySet>> {
        self.sets.get(&self.id)
    }

    /// The generation of the set in force, unless the set is too old.
    pub(super) fn fresh_generation(&self, now: UnixTime) -> Option<Generation> {
        let stamp = self.stamp.load();
        stamp.as_ref().filter(|stamp| self.is_fresh(stamp.fetched_at, now)).map(|stamp| stamp.generation)
    }

    pub(super) fn put(&self, set: Arc<KeySet>) {
        let stamp = Stamp { generation: set.generation(), fetched_at: set.fetched_at() };
        self.sets.insert(self.id, set);
        self.stamp.store(Some(Arc::new(stamp)));
    }

    /// Leaves no set in force.
    pub(super) fn clear(&self) {
        self.stamp.store(None);
        self.sets.invalidate(&self.id);
    }

    pub(super) fn is_fresh(&self, fetched_at: UnixTime, now: UnixTime) -> bool {
        self.max_stale.is_none_or(|max_stale| now.since(fetched_at) <= max_stale)
    }

    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests the fetch that follows those started by `progress`. A caller lets a fetch in flight end first, since its
    /// answer may hold the key.
    pub(super) fn request_fetch(&self, progress: Progress) {
        let wanted = progress.fetches_started + 1;
        // Only the first request for this fetch wakes the refresher.
        if self.fetches_requested.fetch_max(wanted, Ordering::SeqCst) < wanted {
            self.fetch_request.notify_one();
        }
    }

    /// Whether a fetch was requested that has not started.
    pub(super) fn is_fetch_requested(&self) -> bool {
        self.fetches_requested.load(Ordering::SeqCst) > self.progress.borrow().fetches_started
    }

    /// Waits for the next request for a fetch.
    pub(super) async fn fetch_requested(&self) {
        self.fetch_request.notified().await;
    }
}
