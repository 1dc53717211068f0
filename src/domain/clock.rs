//! Moments, and the only clock of the process that reads the system's time. The core takes "now" as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The last moment that RFC 3339, with its four digits of a year, can express in every time zone.
const LATEST_IN_RFC3339: Duration = Duration::from_secs(253_402_207_200);

/// A moment, as the time since 1970-01-01T00:00:00Z without leap seconds (the `NumericDate` of RFC 7519
/// section 2, with fractions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(Duration);

impl UnixTime {
    /// So many whole seconds after the epoch.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Seconds since the epoch, with fractions.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// Whole seconds, fractions cut.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Reads RFC 3339, or whole seconds since the epoch.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(seconds) = text.parse() {
            return Some(Self::from_secs(seconds));
        }
        let time: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(time.as_second()).ok().map(Self::from_secs)
    }

    /// In UTC, to the second.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let seconds = i64::try_from(self.0.min(LATEST_IN_RFC3339).as_secs()).unwrap_or_default();
        jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
    }

    /// The moment that is later by this much.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The source of "now": the system's time, or a time that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock(TimeSource);

#[derive(Debug, Clone, Default)]
enum TimeSource {
    #[default]
    System,
    Stepped(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that stays at `start` until [`Clock::advance`] moves it. For tests.
    #[must_use]
    pub fn stepped(start: UnixTime) -> Self {
        Self(TimeSource::Stepped(Arc::new(AtomicU64::new(millis(start.0)))))
    }

    /// Moves a stepped clock, and all its clones, forward. Does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let TimeSource::Stepped(now) = &self.0 {
            now.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// The time now. A system clock that is set before 1970 reads as the latest possible moment, so that every token
    /// is expired and every key set stale: a broken clock must not make old tokens valid again.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's time")]
    pub fn now(&self) -> UnixTime {
        match &self.0 {
            TimeSource::System => {
                UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::MAX))
            }
            TimeSource::Stepped(now) => UnixTime(Duration::from_millis(now.load(Ordering::SeqCst))),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_times() {
        for (text, want) in [
            ("0", Some("1970-01-01T00:00:00Z")),
            ("1700000000", Some("2023-11-14T22:13:20Z")),
            ("2026-11-23T22:00:00Z", Some("2026-11-23T22:00:00Z")),
            ("2026-11-23T22:00:00+02:00", Some("2026-11-23T20:00:00Z")),
            ("1969-12-31T23:59:59Z", None),
            ("yesterday", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(UnixTime::parse(text).map(UnixTime::rfc3339).as_deref(), want, "{text}");
        }
        assert_eq!(UnixTime(Duration::MAX).rfc3339(), "9999-12-30T22:00:00Z");
    }
}
