//! The configuration at work. A reload swaps it whole; a check takes one and keeps it to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use crate::check::authorizer::Authorizer;

/// The authorizer at work, and how often it was replaced.
#[derive(Debug)]
pub struct Live {
    authorizer: ArcSwap<Authorizer>,
    reloaded: AtomicU64,
    refused: AtomicU64,
}

impl Live {
    /// Begins with this one.
    #[must_use]
    pub fn new(authorizer: Authorizer) -> Self {
        Self {
            authorizer: ArcSwap::from_pointee(authorizer),
            reloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The one at work now, for a moment: not counted, so that cores that ask at the same time do not meet.
    #[must_use]
    pub fn now(&self) -> Guard<Arc<Authorizer>> {
        self.authorizer.load()
    }

    /// Puts another one to work, for every check from here on.
    pub fn swap(&self, authorizer: Authorizer) {
        self.authorizer.store(Arc::new(authorizer));
        self.reloaded.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a reload that was refused.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Reloads that took effect, and reloads that were refused.
    #[must_use]
    pub fn reloads(&self) -> (u64, u64) {
        (self.reloaded.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}
