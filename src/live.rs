//! The configuration at work. A reload swaps it whole; a check takes one and keeps it to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use crate::check::authorizer::Authorizer;
use crate::wire::envoy::Answers;

/// One configuration: what decides by it, and how its verdicts read in gRPC.
#[derive(Debug)]
pub(crate) struct Current {
    /// Decides checks.
    pub authorizer: Authorizer,
    /// The verdicts, encoded once as far as they do not depend on the request.
    pub answers: Answers,
}

/// The configuration at work, and how often it was replaced.
#[derive(Debug)]
pub(crate) struct Live {
    current: ArcSwap<Current>,
    reloaded: AtomicU64,
    refused: AtomicU64,
}

impl Live {
    /// Begins with this one.
    #[must_use]
    pub(crate) fn new(current: Current) -> Self {
        Self {
            current: ArcSwap::from_pointee(current),
            reloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The configuration at work. The guard is no reference count: cores that load it at the same time do not write to
    /// one cache line. A check holds its guard to its end, so that one configuration answers it whole.
    #[must_use]
    pub(crate) fn current(&self) -> Guard<Arc<Current>> {
        self.current.load()
    }

    /// Puts another one to work, for every check from here on.
    pub(crate) fn swap(&self, current: Current) {
        self.current.store(Arc::new(current));
        self.reloaded.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a reload that was refused.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Reloads that took effect, and reloads that were refused.
    #[must_use]
    pub(crate) fn reloads(&self) -> (u64, u64) {
        (self.reloaded.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}
