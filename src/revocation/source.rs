//! Where revocations come from, and how well each source is known.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Where revocations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `revocation.file`.
    File,
    /// Events that their issuers send to `revocation.listen`.
    Listen,
    /// Events that other replicas hand on.
    Peers,
    /// Events in a stream of Redis or Valkey.
    Redis,
}

impl Source {
    pub(crate) const ALL: [Self; 4] = [Self::File, Self::Listen, Self::Peers, Self::Redis];

    /// Its name in metrics and messages: that of its key in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Listen => "listen",
            Self::Peers => "peers",
            Self::Redis => "redis",
        }
    }
}

/// The state of a source, whether it is configured or not.
#[derive(Debug)]
pub(crate) struct SourceState {
    start: Instant,
    /// When all that the source has was last seen to be in force: since `start`, in milliseconds.
    confirmed: AtomicU64,
    /// Why it is not.
    trouble: Mutex<Option<String>>,
    /// Changes that took effect.
    pub(crate) accepted: AtomicU64,
    /// Changes that were refused.
    pub(crate) refused: AtomicU64,
}

impl SourceState {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            confirmed: AtomicU64::new(0),
            trouble: Mutex::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// All that the source has is in force.
    pub(crate) fn confirm(&self) {
        let since_start = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.confirmed.store(since_start, Ordering::Relaxed);
        self.set_trouble(None);
    }

    /// The time since all that the source has was last seen to be in force.
    pub(crate) fn age(&self) -> Duration {
        let confirmed = Duration::from_millis(self.confirmed.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(confirmed)
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why what the source has may not be in force; empty if nothing is known.
    pub(crate) fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    pub(crate) fn count(&self, is_accepted: bool) {
        let counter = if is_accepted { &self.accepted } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
