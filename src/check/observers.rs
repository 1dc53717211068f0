//! What is made of a decision once it stands: one count, one time, at most one log line, at most one span.

use tokio::time::Instant;

use crate::check::counts::Counts;
use crate::check::decision_log::Decisions;
use crate::check::spans::Spans;
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::denial::Denial;
use crate::domain::issuer::IssuerName;
use crate::domain::request::Request;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Let through.
    Allowed,
    /// Turned away.
    Denied(Denial),
    /// Let through by a shadow rollout.
    ShadowDenied(Denial),
}

impl Outcome {
    /// How many outcomes there are.
    pub const COUNT: usize = 1 + 2 * Denial::ALL.len();

    /// Every outcome.
    pub fn all() -> impl Iterator<Item = Self> {
        let denied = Denial::ALL.into_iter().map(Self::Denied);
        let shadow = Denial::ALL.into_iter().map(Self::ShadowDenied);
        std::iter::once(Self::Allowed).chain(denied).chain(shadow)
    }

    /// Its place among them.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Allowed => 0,
            Self::Denied(denial) => 1 + denial.index(),
            Self::ShadowDenied(denial) => 1 + Denial::ALL.len() + denial.index(),
        }
    }

    /// Its label: the caller's fault is `denied`, ours or the proxy's is `error`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied(denial) if matches!(denial.http_status(), 401 | 403) => "denied",
            Self::Denied(_) => "error",
            Self::ShadowDenied(_) => "shadow_denied",
        }
    }

    /// The denial's code; empty if there is none.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Allowed => "",
            Self::Denied(denial) | Self::ShadowDenied(denial) => denial.code(),
        }
    }
}

/// A decision, with what is known of whose it is.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    /// What it came to.
    pub outcome: Outcome,
    /// The issuer that the token named, if it is one of ours.
    pub issuer: Option<&'a IssuerName>,
    /// The verified subject.
    pub subject: Option<&'a str>,
    /// The rule; empty if none was found.
    pub rule: &'a str,
}

/// When a check began.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    instant: Instant,
    /// Asked only if somebody wants to know.
    time: Option<UnixTime>,
}

/// Everything that wants to hear of decisions.
#[derive(Debug, Clone)]
pub struct Observers {
    /// The counters.
    pub counts: Counts,
    /// The log.
    pub decisions: Decisions,
    /// The traces.
    pub spans: Spans,
}

impl Observers {
    /// A check begins.
    #[must_use]
    pub fn begin(&self, clock: &Clock) -> Begun {
        Begun { instant: Instant::now(), time: self.spans.are_on().then(|| clock.now()) }
    }

    /// A check has ended; `request` is none if it could not be read.
    pub fn end(&self, begun: Begun, decision: &Decision<'_>, request: Option<&Request<'_>>) {
        let took = begun.instant.elapsed();
        self.counts.count(decision.issuer, decision.outcome, took);
        self.decisions.log(decision, request);
        if let Some(time) = begun.time {
            self.spans.record(decision, request, time, took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_a_place_of_its_own() {
        let places: Vec<_> = Outcome::all().map(Outcome::index).collect();
        assert_eq!(places, (0..Outcome::COUNT).collect::<Vec<_>>());
    }
}
