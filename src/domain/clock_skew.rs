//! How far an issuer's clock is from ours, by the `Date` of its answers (RFC 9110 section 6.6.1).

use std::fmt;
use std::time::Duration;

use crate::domain::clock::UnixTime;

/// By how many seconds the issuer's clock is ahead of ours; negative if it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockSkew(i64);

impl ClockSkew {
    /// The least difference that an answer allows: its `Date` is cut to seconds, and was written at some time between the request and
    /// the arrival of the answer. So a slow answer is never taken for a wrong clock.
    #[must_use]
    pub(crate) fn of(date: UnixTime, asked: UnixTime, answered: UnixTime) -> Self {
        let ahead = date.since(answered).as_secs();
        let behind = asked.since(date.after(Duration::from_secs(1))).as_secs();
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        Self(seconds(ahead) - seconds(behind))
    }

    #[must_use]
    pub(crate) const fn seconds(self) -> i64 {
        self.0
    }

    /// Whether tokens are judged wrongly for it.
    #[must_use]
    pub(crate) const fn exceeds(self, leeway: Duration) -> bool {
        self.0.unsigned_abs() > leeway.as_secs()
    }
}

impl fmt::Display for ClockSkew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("the issuer's clock and this one agree"),
            1.. => write!(f, "the issuer's clock is {} s ahead of this one", self.0),
            _ => write!(f, "the issuer's clock is {} s behind this one", self.0.unsigned_abs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_difference_that_an_answer_allows() {
        let at = |millis: u64| UnixTime::from_secs(1_000_000).after(Duration::from_millis(millis));
        for (date, asked, answered, want) in [
            (at(0), at(0), at(0), 0),
            // The answer was written in the second of its date, and our clock shows its end.
            (at(0), at(999), at(1100), 0),
            (at(0), at(1999), at(2100), 0),
            (at(0), at(2000), at(2100), -1),
            (at(0), at(601_000), at(601_500), -600),
            // An answer that took ten seconds.
            (at(3000), at(0), at(10_000), 0),
            (at(11_500), at(0), at(10_000), 1),
            (at(610_000), at(9_000), at(10_000), 600),
        ] {
            assert_eq!(
                ClockSkew::of(date, asked, answered).seconds(),
                want,
                "{date:?} {asked:?} {answered:?}"
            );
        }
        assert!(!ClockSkew(30).exceeds(Duration::from_secs(30)));
        assert!(ClockSkew(-31).exceeds(Duration::from_secs(30)));
        let far = UnixTime::from_secs(u64::MAX);
        assert_eq!(ClockSkew::of(far, at(0), at(0)).seconds(), i64::MAX);
    }
}
