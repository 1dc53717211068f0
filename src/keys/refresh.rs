//! The owned task that keeps one issuer's keys: fetches at start, at the interval, when the source shows a
//! change, and for unknown keys no more often than the cool-down allows; keeps the last good set when a
//! fetch fails.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::fetch::{Fetch, FetchError, Fetched, Validator};
use super::last_good::{LastGood, LastGoodError};
use super::sets::Publisher;
use crate::config::Refresh;
use crate::domain::algorithm::Algorithm;
use crate::domain::clock::UnixTime;
use crate::domain::key_set::{KeyId, KeySet, KeySetError};
use crate::watched_file::Disk;

/// The first pause after a failed fetch; each further one doubles it.
const MIN_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two tries of an issuer that fails.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// An issuer may ask for fetches more often than the interval, but not more often than this.
const MIN_REFETCH_PAUSE: Duration = Duration::from_secs(30);

/// Thirty years: later than any process lives, and no clock overflows.
const BEYOND_PROCESS_LIFETIME: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// How many of the keys that are not used a log names.
const MAX_LOGGED_SKIPPED_KEYS: usize = 20;

/// At start the issuer has this long to answer before the keys last_good on disk are used meanwhile.
const FIRST_FETCH_HEAD_START: Duration = Duration::from_millis(250);

/// Keeps one issuer's keys.
pub(crate) struct Refresher {
    publisher: Publisher,
    source: Box<dyn Fetch>,
    last_good: Option<LastGood>,
    disk: Disk,
    keeping: bool,
    algorithms: Vec<Algorithm>,
    refresh: Refresh,
    /// The document of the set at hand, and what makes the next request for it conditional.
    document: Option<Bytes>,
    validator: Option<Validator>,
    failures: u32,
    asking_again: Instant,
}

/// Why a fetch gave no key set.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

impl Refresher {
    /// A refresher that has not fetched yet.
    #[must_use]
    pub(crate) fn new(
        publisher: Publisher,
        source: Box<dyn Fetch>,
        last_good: Option<LastGood>,
        algorithms: Vec<Algorithm>,
        refresh: Refresh,
    ) -> Self {
        // A source that cannot change is never asked again.
        let never = if source.can_change() { Duration::ZERO } else { BEYOND_PROCESS_LIFETIME };
        let asking_again = Instant::now() + never;
        Self {
            publisher,
            source,
            last_good,
            disk: Disk::new(),
            keeping: true,
            algorithms,
            refresh,
            document: None,
            validator: None,
            failures: 0,
            asking_again,
        }
    }

    /// Keeps nothing on disk, and still reads what is last_good.
    pub(crate) fn only_read(&mut self) {
        self.keeping = false;
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let running = async {
            self.publisher.begin(self.asking_again);
            let fetched = self.first_fetch().await;
            let mut pause = self.take(fetched);
            loop {
                self.publisher.plan(pause);
                let keeping = self.keep();
                let scheduled = pause.map(|pause| Instant::now() + pause);
                tokio::select! {
                    () = self.idle(scheduled) => {}
                    // A slow disk holds up nothing: what it does not get written is written next time.
                    never = async { keeping.await; std::future::pending().await } => never,
                }
                self.publisher.begin(self.asking_again);
                let fetched = self.source.fetch(self.validator.as_ref()).await;
                pause = self.take(fetched);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = running => {}
        }
    }

    /// The fetch at start. If the issuer fails or takes its time, the set last_good on disk serves meanwhile.
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
            // The fetch goes on beside it: a slow disk must not cost a live answer.
            None => tokio::select! {
                fetched = &mut fetch => fetched,
                () = self.restore() => fetch.await,
            },
        }
    }

    async fn restore(&self) {
        // Keys taken over from before a reload are at least as good.
        if self.publisher.current().is_some() {
            return;
        }
        let Some(last_good) = self.last_good.clone() else { return };
        let (issuer, now) = (self.publisher.issuer(), self.publisher.now());
        let read = self.disk.run(move || last_good.read(now)).await.map_err(LastGoodError::from).flatten();
        let (document, fetched_at) = match read {
            Ok(Some(entry)) => entry,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%issuer, %error, "last_good keys are not used"),
        };
        if now.since(fetched_at) > self.refresh.max_stale {
            return tracing::warn!(%issuer, "last_good keys are not used: they are older than max_stale");
        }
        match self.parse(&document, fetched_at) {
            Ok(set) => {
                tracing::info!(%issuer, age = now.since(fetched_at).as_secs(), "keys last_good on disk are used until the issuer answers");
                self.publisher.restore(set);
            }
            Err(error) => tracing::warn!(%issuer, %error, "last_good keys are not used"),
        }
    }

    /// Waits for the scheduled time, a change of the source, or a wish that is allowed.
    async fn idle(&mut self, scheduled: Option<Instant>) {
        let mut changed = self.source.changed();
        loop {
            let wanted = self.publisher.is_wanted() && self.source.can_change();
            let asked = wanted.then_some(self.asking_again);
            let until = scheduled.into_iter().chain(asked).min();
            let time = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time => {
                    if asked.is_some_and(|asked| asked <= Instant::now()) {
                        self.asking_again = Instant::now() + self.refresh.unknown_kid_cooldown;
                    }
                    return;
                }
                () = &mut changed => return,
                () = self.publisher.woken() => {}
            }
        }
    }

    /// Publishes what came of a fetch; returns the pause until the next one.
    fn take(&mut self, fetched: Result<Fetched, FetchError>) -> Option<Duration> {
        let issuer = self.publisher.issuer().clone();
        match fetched.map_err(Failure::from).and_then(|fetched| self.accept(fetched)) {
            Ok(max_age) => {
                if self.failures > 0 {
                    tracing::info!(%issuer, failures = self.failures, "keys can be fetched again");
                }
                self.failures = 0;
                self.source.can_change().then(|| self.pause_after_success(max_age))
            }
            Err(error) => {
                self.publisher.fail(error.to_string());
                if self.failures == 0 {
                    let last_good = self.publisher.current().is_some();
                    tracing::warn!(%issuer, %error, last_good, "keys cannot be fetched; trying again");
                }
                self.failures = self.failures.saturating_add(1);
                Some(self.pause_after_failure())
            }
        }
    }

    fn accept(&mut self, fetched: Fetched) -> Result<Option<Duration>, Failure> {
        let now = self.publisher.now();
        let Fetched { body, validator, max_age } = fetched;
        let (set, changed) = match (body, self.publisher.current()) {
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
        self.publisher.succeed(set, changed);
        Ok(max_age)
    }

    fn parse(&self, document: &[u8], fetched_at: UnixTime) -> Result<KeySet, KeySetError> {
        let (set, skipped) = KeySet::parse(document, &self.algorithms, fetched_at);
        let issuer = self.publisher.issuer();
        if self.failures > 0 {
            // Said at the first failure already.
            return set;
        }
        if skipped.len() > MAX_LOGGED_SKIPPED_KEYS {
            tracing::warn!(%issuer, keys = skipped.len(), "many published keys are not used; the first are named");
        }
        for key in skipped.into_iter().take(MAX_LOGGED_SKIPPED_KEYS) {
            let kid = key.kid.as_ref().map(KeyId::as_str);
            tracing::warn!(%issuer, index = key.index, kid, reason = %key.reason, "a published key is not used");
        }
        set
    }

    /// Writes the set that was just confirmed to disk, if that is wanted.
    fn keep(&self) -> impl Future<Output = ()> + Send + use<> {
        let (last_good, document, disk) = (self.last_good.clone(), self.document.clone(), self.disk.clone());
        let fetched_at = self.publisher.current().map(|set| set.fetched_at());
        let confirmed = self.keeping && self.failures == 0;
        let issuer = self.publisher.issuer().clone();
        async move {
            let (Some(last_good), Some(document), Some(fetched_at)) = (last_good, document, fetched_at)
            else {
                return;
            };
            if !confirmed {
                return;
            }
            let written = disk.run(move || last_good.write(&document, fetched_at)).await;
            if let Err(error) = written.map_err(LastGoodError::from).flatten() {
                tracing::warn!(%issuer, %error, "keys cannot be last_good on disk");
            }
        }
    }

    fn pause_after_success(&self, max_age: Option<Duration>) -> Duration {
        // Half of max_stale leaves time for a second try before the keys are too old.
        let interval = self.refresh.interval.min(self.refresh.max_stale / 2);
        spread(max_age.map_or(interval, |max_age| interval.min(max_age.max(MIN_REFETCH_PAUSE))))
    }

    fn pause_after_failure(&self) -> Duration {
        let doubled = MIN_RETRY_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(8));
        spread(doubled.min(MAX_RETRY_PAUSE).min(self.refresh.interval))
    }
}

/// Up to a tenth shorter, so that replicas started together do not fetch together for ever.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(fastrand::f64().mul_add(-0.1, 1.0))
}

#[cfg(test)]
#[path = "refresh/tests.rs"]
mod tests;
