//! The owned task that keeps one issuer's keys: fetches at start, at the interval, and for unknown keys no
//! more often than the cool-down allows; keeps the last good set when a fetch fails.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::fetch::{Fetch, FetchError, Fetched};
use super::store::Publisher;
use super::{KeySet, KeySetError};
use crate::algorithm::Algorithm;
use crate::config::Refresh;

/// The first pause after a failed fetch; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest pause between two tries of an issuer that fails.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Keeps one issuer's keys.
pub struct Refresher {
    publisher: Publisher,
    source: Box<dyn Fetch>,
    algorithms: Vec<Algorithm>,
    refresh: Refresh,
    etag: Option<String>,
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
    pub fn new(
        publisher: Publisher,
        source: Box<dyn Fetch>,
        algorithms: Vec<Algorithm>,
        refresh: Refresh,
    ) -> Self {
        let asking_again = Instant::now();
        Self { publisher, source, algorithms, refresh, etag: None, failures: 0, asking_again }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let running = async {
            loop {
                let pause = self.fetch().await;
                self.idle(Instant::now() + pause).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = running => {}
        }
    }

    /// Waits for the scheduled time, or until a fetch is wanted and allowed.
    async fn idle(&mut self, scheduled: Instant) {
        loop {
            let wanted = self.publisher.is_wanted();
            let until = if wanted { scheduled.min(self.asking_again) } else { scheduled };
            tokio::select! {
                () = sleep_until(until) => {
                    if wanted && until == self.asking_again {
                        self.asking_again = Instant::now() + self.refresh.unknown_kid_cooldown;
                    }
                    return;
                }
                () = self.publisher.woken() => {
                    if self.publisher.is_wanted() && Instant::now() >= self.asking_again {
                        self.asking_again = Instant::now() + self.refresh.unknown_kid_cooldown;
                        return;
                    }
                }
            }
        }
    }

    /// Fetches once and publishes what came; returns the pause until the next time.
    async fn fetch(&mut self) -> Duration {
        self.publisher.begin(self.asking_again);
        let etag = if self.publisher.current().is_some() { self.etag.as_deref() } else { None };
        let fetched = self.source.fetch(etag).await.map_err(Failure::from);
        match fetched.and_then(|fetched| self.accept(fetched)) {
            Ok(max_age) => {
                if self.failures > 0 {
                    tracing::info!(issuer = %self.publisher.issuer(), tries = self.failures, "keys can be fetched again");
                }
                self.failures = 0;
                self.pause_after_success(max_age)
            }
            Err(error) => {
                self.publisher.fail();
                if self.failures == 0 {
                    let kept = self.publisher.current().is_some();
                    tracing::warn!(issuer = %self.publisher.issuer(), %error, kept, "keys cannot be fetched; trying again");
                }
                self.failures = self.failures.saturating_add(1);
                self.pause_after_failure()
            }
        }
    }

    fn accept(&mut self, fetched: Fetched) -> Result<Option<Duration>, Failure> {
        let now = self.publisher.now();
        let Fetched { body, etag, max_age } = fetched;
        let set = match (body, self.publisher.current()) {
            (Some(body), _) => {
                let (set, skipped) = KeySet::parse(&body, &self.algorithms, now);
                for key in skipped {
                    let kid = key.kid.as_ref().map(super::KeyId::as_str);
                    tracing::warn!(issuer = %self.publisher.issuer(), index = key.index, kid, reason = %key.reason, "a published key is not used");
                }
                let set = set?;
                self.etag = etag;
                set
            }
            (None, Some(current)) => {
                self.etag = etag.or_else(|| self.etag.take());
                current.confirmed_at(now)
            }
            (None, None) => return Err(FetchError::Unchanged.into()),
        };
        tracing::debug!(issuer = %self.publisher.issuer(), keys = set.keys().len(), "keys fetched");
        self.publisher.succeed(set);
        Ok(max_age)
    }

    fn pause_after_success(&self, _max_age: Option<Duration>) -> Duration {
        // Half of max_stale leaves time for a second try before the keys are too old.
        spread(self.refresh.interval.min(self.refresh.max_stale / 2))
    }

    fn pause_after_failure(&self) -> Duration {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.saturating_sub(1).min(8));
        spread(doubled.min(LAST_RETRY).min(self.refresh.interval))
    }
}

/// Up to a tenth shorter, so that replicas started together do not fetch together for ever.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(fastrand::f64().mul_add(-0.1, 1.0))
}
