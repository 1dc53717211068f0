//! The time, as a value. The core takes "now" as an argument; this is the only file that asks the system.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The end of the year 9999, the last that RFC 3339 can write.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// A moment, as the time since 1970-01-01T00:00:00Z without leap seconds (the `NumericDate` of RFC 7519
/// section 2, with fractions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(Duration);

impl UnixTime {
    /// The moment this many whole seconds after the epoch.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Seconds since the epoch, with fractions.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// As RFC 3339 writes it, in UTC to the second; for people.
    #[must_use]
    pub fn rfc3339(self) -> String {
        humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + self.0.min(LATEST)).to_string()
    }

    /// The moment this much later.
    #[must_use]
    pub fn after(self, pause: Duration) -> Self {
        Self(self.0.saturating_add(pause))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where "now" comes from: the system, or a test's own hand.
#[derive(Debug, Clone, Default)]
pub struct Clock(Source);

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    System,
    Stepped(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that stands at `start` until [`Clock::advance`] moves it. For tests.
    #[must_use]
    pub fn stepped(start: UnixTime) -> Self {
        Self(Source::Stepped(Arc::new(AtomicU64::new(millis(start.0)))))
    }

    /// Moves a stepped clock, and all its clones, forward. Does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Stepped(now) = &self.0 {
            now.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// The time now. A system clock set before 1970 reads as the end of time, so that every token is
    /// expired and every key set stale: a broken clock must not revive old tokens.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system for the time")]
    pub fn now(&self) -> UnixTime {
        match &self.0 {
            Source::System => {
                UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::MAX))
            }
            Source::Stepped(now) => UnixTime(Duration::from_millis(now.load(Ordering::SeqCst))),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
