//! The owned task that refreshes one issuer's keys: it fetches at start, at the interval, when the source reports a
//! change, and for unknown key ids no more often than the cool-down allows. The last good set stays in force when a
//! fetch fails.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::fetch::{Fetch, FetchError, Fetched, Validator};
use super::last_good::{LastGood, LastGoodError};
use super::publisher::Publisher;
use super::slot::LastWrite;
use crate::config::Refresh;
use crate::domain::algorithm::Algorithm;
use crate::domain::clock::UnixTime;
use crate::domain::clock_skew::ClockSkew;
use crate::domain::key_set::{KeyId, KeySet, KeySetError};
use crate::watched_file::FileIo;

/// The first pause after a failed fetch; each further one doubles it.
const MIN_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two fetches that fail.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// `max-age` may shorten the interval, but not below this.
const MIN_PAUSE_FOR_MAX_AGE: Duration = Duration::from_secs(30);

/// Thirty years: longer than any process lives, and `Instant` does not overflow.
const BEYOND_PROCESS_LIFETIME: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A fault that lasts is logged so often; another fault is logged at once, but no sooner than [`MIN_FAULT_LINES_APART`].
const SAME_FAULT_LINES_APART: Duration = Duration::from_secs(3600);
const MIN_FAULT_LINES_APART: Duration = Duration::from_secs(10);

/// A key set of 1 MiB can hold thousands of unusable keys; the log names this many of them.
const MAX_LOGGED_KEYS: usize = 20;

/// At start the issuer has this long to answer before the last good set is read from disk.
const FIRST_FETCH_HEAD_START: Duration = Duration::from_millis(250);

pub(crate) struct Refresher {
    publisher: Publisher,
    source: Box<dyn Fetch>,
    last_good: Option<LastGood>,
    file_io: FileIo,
    writes_last_good: bool,
    algorithms: Vec<Algorithm>,
    refresh: Refresh,
    /// Of the last set that a fetch brought; `None` while the set in force comes from disk or from before a reload.
    document: Option<Bytes>,
    validator: Option<Validator>,
    /// In a row.
    failures: u32,
    /// The fault that was logged last, and when. `None` once a fetch succeeds.
    logged_fault: Option<(String, Instant)>,
    /// When the last fetch began.
    asked_at: UnixTime,
    /// No fetch for an unknown key id starts before this time.
    cooldown_until: Instant,
}

/// Why a fetch brought no key set.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

impl Refresher {
    #[must_use]
    pub(crate) fn new(
        publisher: Publisher,
        source: Box<dyn Fetch>,
        last_good: Option<LastGood>,
        algorithms: Vec<Algorithm>,
        refresh: Refresh,
    ) -> Self {
        // A source that cannot change is fetched once.
        let cooldown = if source.can_change() { Duration::ZERO } else { BEYOND_PROCESS_LIFETIME };
        let cooldown_until = Instant::now() + cooldown;
        Self {
            asked_at: publisher.now(),
            publisher,
            source,
            last_good,
            file_io: FileIo::new(),
            writes_last_good: true,
            algorithms,
            refresh,
            document: None,
            validator: None,
            failures: 0,
            logged_fault: None,
            cooldown_until,
        }
    }

    /// Reads the last good set from disk and never writes it: for a store that is read-only, and for the `verify` command.
    pub(crate) fn only_read(&mut self) {
        self.writes_last_good = false;
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let refreshing = async {
            self.fetch_starts();
            let fetched = self.first_fetch().await;
            let mut pause = self.publish(fetched);
            loop {
                self.publisher.plan_next(pause);
                let write = self.write_last_good();
                let scheduled = pause.map(|pause| Instant::now() + pause);
                tokio::select! {
                    () = self.until_next_fetch(scheduled) => {}
                    // A slow disk delays no fetch: the next one drops this wait, and the set is written after it.
                    never = async { write.await; std::future::pending().await } => never,
                }
                self.fetch_starts();
                let fetched = self.source.fetch(self.validator.as_ref()).await;
                pause = self.publish(fetched);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = refreshing => {}
        }
    }

    fn fetch_starts(&mut self) {
        self.asked_at = self.publisher.now();
        self.publisher.fetch_started(self.cooldown_until);
    }

    /// The fetch at start. If it fails or takes longer than the head start, the last good set on disk is in force until
    /// the issuer answers.
    async fn first_fetch(&self) -> Result<Fetched, FetchError> {
        let mut fetch = self.source.fetch(None);
        let early = tokio::select! {
            fetched = &mut fetch => Some(fetched),
            () = sleep(FIRST_FETCH_HEAD_START) => None,
        };
        match early {
            Some(Ok(fetched)) => Ok(fetched),
            Some(Err(error)) => {
                self.restore().await;
                Err(error)
            }
            // Both at once: a slow disk must not delay the issuer's answer.
            None => tokio::select! {
                fetched = &mut fetch => fetched,
                () = self.restore() => fetch.await,
            },
        }
    }

    async fn restore(&self) {
        // Keys taken over at a reload are at least as new as those on disk.
        if self.publisher.current().is_some() {
            return;
        }
        let Some(last_good) = self.last_good.clone() else { return };
        let (issuer, now) = (self.publisher.issuer(), self.publisher.now());
        let read = self.file_io.run(move || last_good.read(now)).await.map_err(LastGoodError::from).flatten();
        let (document, fetched_at) = match read {
            Ok(Some(entry)) => entry,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%issuer, %error, "kept keys are not used"),
        };
        if now.since(fetched_at) > self.refresh.max_stale {
            return tracing::warn!(%issuer, "kept keys are not used: they are older than max_stale");
        }
        match self.parse(&document, fetched_at) {
            Ok(set) => {
                tracing::info!(%issuer, age = now.since(fetched_at).as_secs(), "keys kept on disk are used until the issuer answers");
                self.publisher.restore(set);
            }
            Err(error) => tracing::warn!(%issuer, %error, "kept keys are not used"),
        }
    }

    /// Waits for the scheduled time, a change of the source, or a requested fetch that the cool-down allows.
    async fn until_next_fetch(&mut self, scheduled: Option<Instant>) {
        let mut changed = self.source.changed();
        loop {
            let requested = self.publisher.is_fetch_requested() && self.source.can_change();
            let allowed = requested.then_some(self.cooldown_until);
            let until = scheduled.into_iter().chain(allowed).min();
            let time = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time => {
                    if allowed.is_some_and(|allowed| allowed <= Instant::now()) {
                        self.cooldown_until = Instant::now() + self.refresh.unknown_kid_cooldown;
                    }
                    return;
                }
                () = &mut changed => return,
                () = self.publisher.fetch_requested() => {}
            }
        }
    }

    /// Publishes the result of a fetch; returns the pause until the next one, or `None` if none will follow.
    fn publish(&mut self, fetched: Result<Fetched, FetchError>) -> Option<Duration> {
        let issuer = self.publisher.issuer().clone();
        match fetched.map_err(Failure::from).and_then(|fetched| self.publish_set(fetched)) {
            Ok(max_age) => {
                if self.failures > 0 {
                    tracing::info!(%issuer, failures = self.failures, "keys can be fetched again");
                }
                (self.failures, self.logged_fault) = (0, None);
                self.source.can_change().then(|| self.pause_after_success(max_age))
            }
            Err(error) => {
                self.publisher.fetch_failed(error.to_string());
                self.failures = self.failures.saturating_add(1);
                self.log_fault(&error);
                Some(self.pause_after_failure())
            }
        }
    }

    /// Logs the fault if it is another one than before, or lasts.
    fn log_fault(&mut self, error: &Failure) {
        let (error, now) = (error.to_string(), Instant::now());
        if let Some((logged, at)) = &self.logged_fault {
            let apart = if *logged == error { SAME_FAULT_LINES_APART } else { MIN_FAULT_LINES_APART };
            if now.duration_since(*at) < apart {
                return;
            }
        }
        let (issuer, source) = (self.publisher.issuer(), self.publisher.source());
        let (failures, kept) = (self.failures, self.publisher.current().is_some());
        tracing::warn!(%issuer, source, error, failures, kept, "keys cannot be fetched; trying again");
        self.logged_fault = Some((error, now));
    }

    /// Returns the answer's `max-age`.
    fn publish_set(&mut self, fetched: Fetched) -> Result<Option<Duration>, Failure> {
        let now = self.publisher.now();
        let Fetched { body, validator, max_age, sent_at } = fetched;
        if let Some(sent_at) = sent_at {
            self.publisher.compared_clocks(ClockSkew::of(sent_at, self.asked_at, now));
        }
        let before = self.publisher.current();
        let (set, changed) = match (body, before.clone()) {
            (Some(body), Some(current)) if self.document.as_ref() == Some(&body) => {
                (current.confirmed_at(now), false)
            }
            (Some(body), _) => {
                let set = self.parse(&body, now)?;
                self.document = Some(body);
                (set, true)
            }
            (None, Some(current)) => (current.confirmed_at(now), false),
            (None, None) => return Err(FetchError::Unchanged.into()),
        };
        self.validator = validator;
        if changed {
            self.log_change(before.as_deref(), &set);
        }
        self.publisher.fetch_succeeded(set, changed);
        Ok(max_age)
    }

    fn log_change(&self, before: Option<&KeySet>, set: &KeySet) {
        let (issuer, source) = (self.publisher.issuer(), self.publisher.source());
        let (mut added, mut removed) =
            (set.kids_beside(before), before.map_or_else(Vec::new, |before| before.kids_beside(Some(set))));
        added.truncate(MAX_LOGGED_KEYS);
        removed.truncate(MAX_LOGGED_KEYS);
        let keys = set.jwk_count();
        tracing::info!(%issuer, source, keys, ?added, ?removed, "keys changed");
        if set.is_empty() {
            tracing::warn!(%issuer, "the issuer withdrew all keys: none of its tokens is accepted");
        }
    }

    fn parse(&self, document: &[u8], fetched_at: UnixTime) -> Result<KeySet, KeySetError> {
        let (set, skipped) = KeySet::parse(document, &self.algorithms, fetched_at);
        let issuer = self.publisher.issuer();
        if self.failures > 0 {
            // The first failure logged the skipped keys already.
            return set;
        }
        if skipped.len() > MAX_LOGGED_KEYS {
            tracing::warn!(%issuer, keys = skipped.len(), "many published keys are not used; the first are named");
        }
        for key in skipped.into_iter().take(MAX_LOGGED_KEYS) {
            let kid = key.kid.as_ref().map(KeyId::as_str);
            tracing::warn!(%issuer, index = key.index, kid, reason = %key.reason, "a published key is not used");
        }
        set
    }

    /// Writes the set to disk if the last fetch confirmed it. The future borrows nothing of `self`.
    fn write_last_good(&self) -> impl Future<Output = ()> + Send + use<> {
        let (last_good, document, file_io) =
            (self.last_good.clone(), self.document.clone(), self.file_io.clone());
        let fetched_at = self.publisher.current().map(|set| set.fetched_at());
        let confirmed = self.failures == 0;
        let enabled = self.writes_last_good;
        let issuer = self.publisher.issuer().clone();
        let store = self.publisher.store_status();
        async move {
            let (Some(last_good), Some(document), Some(fetched_at)) = (last_good, document, fetched_at)
            else {
                return;
            };
            if !(enabled && confirmed) {
                return;
            }
            let path = last_good.path().to_owned();
            let written = file_io.run(move || last_good.write(&document, fetched_at)).await;
            let write = match written.map_err(LastGoodError::from).flatten() {
                Ok(()) => LastWrite::Succeeded,
                Err(error) => LastWrite::Failed(format!("{}: {error}", path.display())),
            };
            // Each refresh writes: a disk that stays full or read-only is said once.
            match (store.written(write.clone()), write) {
                (before, write) if before == write => {}
                (_, LastWrite::Failed(error)) => {
                    tracing::warn!(%issuer, error, "keys cannot be kept on disk");
                }
                (LastWrite::Failed(_), _) => tracing::info!(%issuer, "keys are kept on disk again"),
                _ => {}
            }
        }
    }

    fn pause_after_success(&self, max_age: Option<Duration>) -> Duration {
        // Half of max_stale leaves time for a second fetch before the keys are too old.
        let interval = self.refresh.interval.min(self.refresh.max_stale / 2);
        shortened_at_random(
            max_age.map_or(interval, |max_age| interval.min(max_age.max(MIN_PAUSE_FOR_MAX_AGE))),
        )
    }

    fn pause_after_failure(&self) -> Duration {
        let doubled = MIN_RETRY_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(8));
        shortened_at_random(doubled.min(MAX_RETRY_PAUSE).min(self.refresh.interval))
    }
}

/// Up to a tenth shorter, at random: replicas that started together would otherwise fetch together for ever.
fn shortened_at_random(pause: Duration) -> Duration {
    pause.mul_f64(fastrand::f64().mul_add(-0.1, 1.0))
}

#[cfg(test)]
#[path = "refresh/tests.rs"]
mod tests;
