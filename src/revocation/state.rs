//! The revocations in force, as checks ask for them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use tokio::time::Instant;

use super::list::List;
use crate::config::{RevocationSettings, WhenStale};
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::denial::Denial;
use crate::domain::issuer::IssuerName;
use crate::domain::revoked::{Kind, NameHashing, TokenNames, WatchedToken};
use crate::domain::verify::Verified;

/// Shared by the checks, which only read, and by the sources of revocations.
#[derive(Debug)]
pub(crate) struct Revocations {
    pub(super) settings: RevocationSettings,
    pub(super) hashing: NameHashing,
    clock: Clock,
    listed: ArcSwap<List>,
    /// Why the file is not what is in force.
    trouble: Mutex<Option<String>>,
    /// Another number after each change of what is in force; from 1.
    epoch: AtomicU64,
    /// Whether the state was too old when it was last looked at.
    is_stale: AtomicBool,
    age: Age,
    reads: Reads,
}

/// When the file was last seen to be what is in force: since `start`, in milliseconds.
#[derive(Debug)]
struct Age {
    start: Instant,
    confirmed: AtomicU64,
}

/// How often the file was read again.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(crate) struct NoRandomness;

impl Revocations {
    /// Without entries.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub(crate) fn new(settings: RevocationSettings, clock: Clock) -> Result<Self, NoRandomness> {
        let mut key = [0; 16];
        rand::fill(&mut key).map_err(|_| NoRandomness)?;
        Ok(Self {
            settings,
            hashing: NameHashing::with_key(&key),
            clock,
            listed: ArcSwap::default(),
            trouble: Mutex::default(),
            epoch: AtomicU64::new(1),
            is_stale: AtomicBool::new(false),
            age: Age { start: Instant::now(), confirmed: AtomicU64::new(0) },
            reads: Reads::default(),
        })
    }

    /// What is looked up of a token.
    pub(crate) fn watch(&self, token: &Verified<'_, '_>) -> WatchedToken {
        let (subject, issuer) = (token.subject().as_str(), &token.issuer().name);
        WatchedToken::new(TokenNames::of(token.claims(), subject, issuer, &self.hashing))
    }

    /// Judges a token. In the epoch in which it was found good that is one comparison.
    ///
    /// # Errors
    /// [`Denial::TokenRevoked`], or [`Denial::RevocationUnavailable`].
    pub(crate) fn judge(&self, token: &WatchedToken) -> Result<(), Denial> {
        // Before the look-ups: a change during them begins an epoch in which the token is judged again.
        let epoch = self.epoch.load(Ordering::Acquire);
        if token.is_good_in(epoch) { Ok(()) } else { self.judge_anew(token, epoch) }
    }

    #[cold]
    fn judge_anew(&self, token: &WatchedToken, epoch: u64) -> Result<(), Denial> {
        if self.listed.load().revoked.is_revoked(token.names(), self.clock.now()) {
            return Err(Denial::TokenRevoked);
        }
        if self.denies() {
            return Err(Denial::RevocationUnavailable);
        }
        token.found_good_in(epoch);
        Ok(())
    }

    /// Puts the entries of the file in force.
    pub(super) fn replace_listed(&self, list: List) {
        self.listed.store(Arc::new(list));
        self.begin_epoch();
    }

    /// Whether an entry is in force that is not of the past.
    pub(super) fn holds_any(&self) -> bool {
        self.listed.load().revoked.holds_any(self.clock.now())
    }

    /// The first issuer that an entry names and for which this does not hold.
    pub(crate) fn named_without(&self, holds: impl Fn(&IssuerName) -> bool) -> Option<IssuerName> {
        self.listed.load().issuers.iter().find(|named| !holds(named)).cloned()
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why the file is not what is in force.
    pub(crate) fn trouble(&self) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.unwrap_or_else(|| "the file cannot be found, or never rests".to_owned())
    }

    /// After a change. A check that sees the new epoch sees the change, too.
    fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// The file is what is in force.
    pub(super) fn confirm(&self) {
        let since_start = u64::try_from(self.age.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.age.confirmed.store(since_start, Ordering::Relaxed);
    }

    /// The time since the file was last seen to be what is in force.
    pub(crate) fn age(&self) -> Duration {
        let confirmed = Duration::from_millis(self.age.confirmed.load(Ordering::Relaxed));
        self.age.start.elapsed().saturating_sub(confirmed)
    }

    /// Whether the state is older than `when_stale.after`.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Acquire)
    }

    /// Whether tokens are denied because the state is too old.
    pub(crate) fn denies(&self) -> bool {
        self.settings.when_stale == WhenStale::Deny && self.is_stale()
    }

    /// Looks at the age, by which tokens may have to be denied.
    pub(super) fn look_at_age(&self) {
        let is_stale = self.age() > self.settings.stale_after;
        if self.is_stale.swap(is_stale, Ordering::AcqRel) != is_stale {
            // Tokens that were found good are judged again.
            self.begin_epoch();
        }
    }

    pub(super) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// How many entries there are of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.listed.load().revoked.count(kind)
    }

    /// All entries.
    pub(crate) fn len(&self) -> usize {
        self.listed.load().revoked.len()
    }

    pub(crate) const fn reads(&self) -> &Reads {
        &self.reads
    }
}
