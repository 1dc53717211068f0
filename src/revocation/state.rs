//! The revocations in force, as checks ask for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::rand;

use super::events::EventEntries;
use super::line::lasting_from_now;
use super::list::List;
use super::source::{Source, SourceState};
use crate::config::{RevocationSettings, WhenStale};
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::denial::Denial;
use crate::domain::issuer::IssuerName;
use crate::domain::revoked::{EventSubject, Kind, NameHashing, Times, TokenNames, WatchedToken};
use crate::domain::verify::Verified;

/// Shared by the checks, which only read, and by the sources of revocations.
#[derive(Debug)]
pub(crate) struct Revocations {
    pub(crate) settings: RevocationSettings,
    pub(super) hashing: NameHashing,
    clock: Clock,
    listed: ArcSwap<List>,
    events: EventEntries,
    /// Another number after each change of what is in force; from 1.
    epoch: AtomicU64,
    /// Whether a source was too old when it was last looked at.
    is_stale: AtomicBool,
    /// Which of [`AWAITED`] have not said yet what the other replicas know, a bit for each.
    awaited: AtomicU8,
    sources: [SourceState; Source::ALL.len()],
}

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(crate) struct NoRandomness;

/// What a signed event revokes: the tokens of these users and sessions with one of these `iss`, issued up to a time.
pub(crate) struct EventNames<'e> {
    pub isses: &'e [String],
    pub names: &'e [(EventSubject, String)],
    pub issued_before: UnixTime,
    pub until: UnixTime,
}

impl EventNames<'_> {
    /// How many entries that makes.
    pub(crate) const fn len(&self) -> usize {
        self.isses.len() * self.names.len()
    }
}

/// A start waits for what these have. Other sources have no bit.
const AWAITED: [Source; 2] = [Source::Peers, Source::Redis];

fn bit(source: Source) -> u8 {
    AWAITED.iter().position(|awaited| *awaited == source).map_or(0, |at| 1 << at)
}

impl Revocations {
    /// Without entries.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub(crate) fn new(settings: RevocationSettings, clock: Clock) -> Result<Self, NoRandomness> {
        let mut key = [0; 16];
        rand::fill(&mut key).map_err(|_| NoRandomness)?;
        let events = settings.events.as_ref();
        let has_peers = events.is_some_and(|events| !events.peers.is_empty());
        let has_redis = events.is_some_and(|events| events.redis.is_some());
        let awaited = u8::from(has_peers) * bit(Source::Peers) + u8::from(has_redis) * bit(Source::Redis);
        Ok(Self {
            settings,
            hashing: NameHashing::with_key(&key),
            clock,
            listed: ArcSwap::default(),
            events: EventEntries::default(),
            epoch: AtomicU64::new(1),
            is_stale: AtomicBool::new(false),
            awaited: AtomicU8::new(awaited),
            sources: std::array::from_fn(|_| SourceState::new()),
        })
    }

    /// What is looked up of a token.
    pub(crate) fn watch(&self, token: &Verified<'_, '_>) -> WatchedToken {
        let (subject, issuer) = (token.subject().as_str(), &token.issuer().name);
        let events = self.settings.events.as_ref().map(|events| &events.subject_claims);
        WatchedToken::new(TokenNames::of(token.claims(), subject, issuer, &self.hashing, events))
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
        let now = self.clock.now();
        if self.listed.load().revoked.is_revoked(token.names(), now)
            || self.events.is_revoked(token.names(), now)
        {
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

    /// Puts in force what an event revokes.
    pub(crate) fn add(&self, event: &EventNames<'_>) {
        let times = Times::new(event.issued_before, event.until);
        for iss in event.isses {
            for (subject, value) in event.names {
                self.events.add(self.hashing.of_event(iss, *subject, value), subject.kind(), times);
            }
        }
        self.begin_epoch();
    }

    /// Whether so many entries more are within `max_entries`.
    pub(crate) fn has_room_for(&self, entries: usize) -> bool {
        self.len() + entries <= self.settings.max_entries
    }

    /// Takes out the entries of events that are of the past.
    pub(crate) fn sweep(&self) {
        self.events.sweep(self.clock.now());
    }

    /// Whether an entry of the file is in force that is not of the past.
    pub(super) fn holds_any(&self) -> bool {
        self.listed.load().revoked.holds_any(self.clock.now())
    }

    /// The first issuer that an entry of the file names and for which this does not hold.
    pub(crate) fn named_without(&self, holds: impl Fn(&IssuerName) -> bool) -> Option<IssuerName> {
        self.listed.load().issuers.iter().find(|named| !holds(named)).cloned()
    }

    /// After a change. A check that sees the new epoch sees the change, too.
    fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    pub(crate) const fn source(&self, source: Source) -> &SourceState {
        let [file, listen, peers, redis] = &self.sources;
        match source {
            Source::File => file,
            Source::Listen => listen,
            Source::Peers => peers,
            Source::Redis => redis,
        }
    }

    /// The sources that are configured.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (Source, &SourceState)> {
        let events = self.settings.events.as_ref();
        Source::ALL.into_iter().zip(&self.sources).filter(move |(source, _)| match source {
            Source::File => self.settings.file.is_some(),
            Source::Listen => events.is_some_and(|events| events.listen.is_some()),
            Source::Peers => events.is_some_and(|events| !events.peers.is_empty()),
            Source::Redis => events.is_some_and(|events| events.redis.is_some()),
        })
    }

    /// The configured sources of which it is known how old what they brought is.
    pub(crate) fn aged_sources(&self) -> impl Iterator<Item = (Source, &SourceState)> {
        // Whether a transmitter has sent all that it has is not known.
        self.sources().filter(|(source, _)| *source != Source::Listen)
    }

    /// Whether a source is older than `when_stale.after`.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Acquire)
    }

    /// Whether the other replicas have not been asked yet what they know.
    pub(crate) fn is_starting(&self) -> bool {
        self.awaited.load(Ordering::Acquire) != 0
    }

    /// What this source has is in force.
    pub(crate) fn has_asked(&self, source: Source) {
        self.await_no_longer(bit(source));
    }

    /// What the other replicas know is not waited for any longer.
    pub(crate) fn has_started(&self) {
        self.await_no_longer(u8::MAX);
    }

    fn await_no_longer(&self, bits: u8) {
        let before = self.awaited.fetch_and(!bits, Ordering::AcqRel);
        if before & bits != 0 {
            self.begin_epoch();
        }
    }

    /// Whether tokens are denied because it is not known well enough which are revoked.
    pub(crate) fn denies(&self) -> bool {
        self.is_starting() || (self.settings.when_stale == WhenStale::Deny && self.is_stale())
    }

    /// Looks at the age of each source, by which tokens may have to be denied.
    pub(super) fn look_at_age(&self) {
        let is_stale = self.aged_sources().any(|(_, source)| source.age() > self.settings.stale_after);
        if self.is_stale.swap(is_stale, Ordering::AcqRel) != is_stale {
            // Tokens that were found good are judged again.
            self.begin_epoch();
        }
    }

    /// An event whose `iat` is before it names no token that can still be good.
    pub(crate) fn oldest_event(&self) -> UnixTime {
        self.clock.now().before(lasting_from_now(self.settings.max_token_lifetime))
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// How many entries there are of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.listed.load().revoked.count(kind) + self.events.count(kind)
    }

    /// All entries.
    pub(crate) fn len(&self) -> usize {
        self.listed.load().revoked.len() + self.events.len()
    }
}
