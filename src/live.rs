//! The configuration in force. A reload swaps it whole; a check loads one and keeps it to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use crate::check::authorizer::Authorizer;
use crate::domain::denial::Wording;
use crate::wire::envoy::Answers;

/// One configuration as an authorizer, and the gRPC messages of its verdicts.
#[derive(Debug)]
pub(crate) struct Current {
    pub authorizer: Authorizer,
    /// How a denial is worded over HTTP.
    pub wording: Wording,
    /// Encoded once, as far as they do not depend on the request.
    pub answers: Answers,
}

/// Holds the configuration in force, and counts the reloads.
#[derive(Debug)]
pub(crate) struct Live {
    current: ArcSwap<Current>,
    reloaded: AtomicU64,
    refused: AtomicU64,
    /// Whether the last configuration that was read was refused.
    is_refused: AtomicBool,
}

impl Live {
    #[must_use]
    pub(crate) fn new(current: Current) -> Self {
        Self {
            current: ArcSwap::from_pointee(current),
            reloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            is_refused: AtomicBool::new(false),
        }
    }

    /// The configuration in force. Loading the guard of `arc_swap` does not touch the reference count: cores that load
    /// it at the same time do not write to one cache line. A check holds its guard to its end, so that all of it is
    /// decided and answered by one configuration.
    #[must_use]
    pub(crate) fn current(&self) -> Guard<Arc<Current>> {
        self.current.load()
    }

    /// Every check that begins after this is decided by `current`.
    pub(crate) fn swap(&self, current: Current) {
        self.current.store(Arc::new(current));
        self.reloaded.fetch_add(1, Ordering::Relaxed);
        self.is_refused.store(false, Ordering::Relaxed);
    }

    /// Counts a reload that was refused.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.is_refused.store(true, Ordering::Relaxed);
    }

    /// Whether the configuration in force is the last one that was read.
    #[must_use]
    pub(crate) fn is_last(&self) -> bool {
        !self.is_refused.load(Ordering::Relaxed)
    }

    /// Reloads that took effect, and reloads that were refused.
    #[must_use]
    pub(crate) fn reloads(&self) -> (u64, u64) {
        (self.reloaded.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}
