//! Where revocations come from, and how well each source is known.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use strum::VariantArray;
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

/// What became of a change that a source brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub(crate) enum Outcome {
    Accepted,
    /// It is at fault, or cannot be judged yet.
    Refused,
    /// There is no room for it.
    Full,
}

impl Outcome {
    /// Its name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Full => "full",
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
    /// Changes that the source brought.
    counts: [AtomicU64; Outcome::VARIANTS.len()],
}

impl SourceState {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            confirmed: AtomicU64::new(0),
            trouble: Mutex::default(),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
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

    pub(crate) fn count(&self, outcome: Outcome) {
        if let Some(count) = self.counts.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn counted(&self, outcome: Outcome) -> u64 {
        self.counts.get(outcome as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}
