//! Moments, and the only clock of the process that reads the system's time. The core takes "now" as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

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

    /// Reads the date of an HTTP field (RFC 9110 section 5.6.7), in the one form that may still be written.
    #[must_use]
    pub fn parse_http_date(text: &str) -> Option<Self> {
        let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        u64::try_from(time.as_second()).ok().map(Self::from_secs)
    }

    /// The first whole second that is not before this moment.
    #[must_use]
    pub fn rounded_up(self) -> Self {
        Self::from_secs(self.0.as_secs().saturating_add(u64::from(self.0.subsec_nanos() > 0)))
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

    /// The moment that is earlier by this much; 1970 at the earliest.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The source of "now": the system's time, or a time that a test sets. Within a process its time does not go back, even if
/// the system's clock is set back: a token that had expired stays expired, and a key set past `max_stale` stays too old.
///
/// Between two settings of the system's clock its distance to the monotonic clock is constant (adjtime(3) slews both alike).
/// The greatest distance seen so far, added to the monotonic clock, is therefore the time by the latest setting so far, and the
/// clock shows the later of that and of the system's time. A system's clock that was wrong in the future and is corrected leaves
/// this clock ahead until the process restarts: tokens expire too early, none lives too long.
///
/// On Linux the monotonic clock (`CLOCK_MONOTONIC`) stands still while the machine is suspended; the system's clock goes on, so
/// the distance grows by the suspended time at the next look.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    source: TimeSource,
    latest: Latest,
}

#[derive(Debug)]
enum TimeSource {
    /// The monotonic clock is read as the time since this moment.
    System { start: Instant },
    /// Both in milliseconds.
    Stepped { wall: AtomicU64, monotonic: AtomicU64 },
}

/// What the clock has shown. All checks read it, so it is written at most once a second: a cache line that each check writes
/// would travel between the cores.
#[derive(Debug, Default)]
struct Latest {
    /// The latest second shown.
    second: AtomicU64,
    /// The greatest distance between the system's and the monotonic clock, in milliseconds.
    distance: AtomicU64,
}

impl Default for TimeSource {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the monotonic clock of the system"
    )]
    fn default() -> Self {
        Self::System { start: Instant::now() }
    }
}

impl TimeSource {
    /// The time as it is set. A system clock that is set before 1970 reads as the latest possible moment, so that every token
    /// is expired and every key set stale: a broken clock must not make old tokens valid again.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's time")]
    fn wall(&self) -> UnixTime {
        match self {
            Self::System { start: _ } => {
                UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::MAX))
            }
            Self::Stepped { wall, monotonic: _ } => {
                UnixTime(Duration::from_millis(wall.load(Ordering::SeqCst)))
            }
        }
    }

    fn monotonic(&self) -> Duration {
        match self {
            Self::System { start } => start.elapsed(),
            Self::Stepped { wall: _, monotonic } => Duration::from_millis(monotonic.load(Ordering::SeqCst)),
        }
    }
}

impl Clock {
    /// A clock that stays at `start` until a test moves it. For tests.
    #[must_use]
    pub fn stepped(start: UnixTime) -> Self {
        let source =
            TimeSource::Stepped { wall: AtomicU64::new(millis(start.0)), monotonic: AtomicU64::new(0) };
        Self(Arc::new(Shared { source, latest: Latest::default() }))
    }

    /// Lets time pass for a stepped clock and all its clones. Does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let TimeSource::Stepped { wall, monotonic } = &self.0.source {
            wall.fetch_add(millis(by), Ordering::SeqCst);
            monotonic.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// Sets a stepped clock, and all its clones, back, as an operator or NTP sets back the system's clock: no time passes.
    pub fn set_back(&self, by: Duration) {
        if let TimeSource::Stepped { wall, monotonic: _ } = &self.0.source {
            wall.fetch_sub(millis(by), Ordering::SeqCst);
        }
    }

    /// Sets a stepped clock, and all its clones, forward: no time passes.
    pub fn set_forward(&self, by: Duration) {
        if let TimeSource::Stepped { wall, monotonic: _ } = &self.0.source {
            wall.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// The time now: never a second or more before a time that it has returned.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        let wall = self.wall();
        // Within one second of the latest look nothing is compared and nothing is written. A clock that is set back to just
        // that second is seen when the second is over.
        if wall.as_secs() == self.0.latest.second.load(Ordering::Relaxed) { wall } else { self.look(wall) }
    }

    #[cold]
    fn look(&self, wall: UnixTime) -> UnixTime {
        let Latest { second, distance } = &self.0.latest;
        if wall.0 == Duration::MAX {
            // The clock is broken. Remembered, this time would outlive the repair.
            return wall;
        }
        let monotonic = self.0.source.monotonic();
        let current = millis(wall.0.saturating_sub(monotonic));
        let greatest = distance.fetch_max(current, Ordering::Relaxed).max(current);
        let now = wall.max(UnixTime(monotonic.saturating_add(Duration::from_millis(greatest))));
        second.fetch_max(now.as_secs(), Ordering::Relaxed);
        now
    }

    /// The system's time as it is set, for what other programs compare with their own: spans.
    #[must_use]
    pub(crate) fn wall(&self) -> UnixTime {
        self.0.source.wall()
    }

    /// How far the system's clock is behind [`Clock::now`]: by so much it was set back.
    #[must_use]
    pub(crate) fn behind(&self) -> Duration {
        let wall = self.wall();
        self.look(wall).since(wall)
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

    const START: u64 = 1_800_000_000;
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_time_goes_on_when_the_clock_is_set_back() {
        let clock = Clock::stepped(UnixTime::from_secs(START));
        let shown = |after: u64| assert_eq!(clock.clone().now(), UnixTime::from_secs(START + after));
        shown(0);
        clock.set_back(SECOND * 3600);
        shown(0);
        assert_eq!(clock.behind(), SECOND * 3600);
        // It does not stand still until the system's clock has caught up.
        for after in 1..=7200 {
            clock.advance(SECOND);
            shown(after);
        }
        // Set back again; forward again, but not as far; as far; further.
        clock.set_back(SECOND * 1800);
        shown(7200);
        assert_eq!(clock.behind(), SECOND * 5400);
        clock.set_forward(SECOND * 5399);
        shown(7200);
        assert_eq!(clock.behind(), SECOND);
        clock.set_forward(SECOND);
        shown(7200);
        assert_eq!(clock.behind(), Duration::ZERO);
        clock.set_forward(SECOND * 10);
        shown(7210);
        assert_eq!(clock.behind(), Duration::ZERO);
    }

    #[test]
    fn a_step_back_is_seen_that_nothing_looked_at() {
        let clock = Clock::stepped(UnixTime::from_secs(START));
        assert_eq!(clock.now(), UnixTime::from_secs(START));
        // An hour without a check, of which half is taken back.
        clock.advance(SECOND * 3600);
        clock.set_back(SECOND * 1800);
        assert_eq!(clock.now(), UnixTime::from_secs(START + 3600));
    }

    #[test]
    fn many_small_steps_do_not_add_up() {
        let clock = Clock::stepped(UnixTime::from_secs(START));
        for at in 0..1000_u64 {
            clock.advance(SECOND);
            clock.set_forward(SECOND / 2);
            assert!(clock.now() <= UnixTime::from_secs(START + at + 2));
            clock.set_back(SECOND / 2);
            assert!(clock.now() >= UnixTime::from_secs(START + at + 1));
        }
        assert!(clock.behind() <= SECOND / 2);
    }

    #[test]
    fn a_clock_before_1970_is_forgotten_once_it_is_right() {
        let clock = Clock::stepped(UnixTime::from_secs(START));
        assert_eq!(clock.look(UnixTime(Duration::MAX)), UnixTime(Duration::MAX));
        assert_eq!(clock.now(), UnixTime::from_secs(START));
    }

    #[test]
    fn the_system_s_clock_is_shown_as_it_is() {
        let clock = Clock::default();
        let [before, now, after] = [clock.wall(), clock.now(), clock.wall()];
        assert!(before <= now && now.since(after) < SECOND / 10, "{before:?} {now:?} {after:?}");
        assert!(clock.behind() < SECOND / 10);
    }
}
