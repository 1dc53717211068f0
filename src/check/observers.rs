//! What is made of a decision once it stands: one count, one time, at most one log line, at most one span.

use tokio::time::Instant;

use crate::check::counts::CheckCounts;
use crate::check::decision_log::DecisionLog;
use crate::check::outcome::Decision;
use crate::check::spans::Spans;
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::request::Request;

/// When a check began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    instant: Instant,
    /// Asked only if somebody wants to know.
    time: Option<UnixTime>,
}

/// Everything that wants to hear of decisions.
#[derive(Debug, Clone)]
pub(crate) struct Observers {
    /// The counters.
    pub counts: CheckCounts,
    /// The log.
    pub decisions: DecisionLog,
    /// The traces.
    pub spans: Spans,
}

impl Observers {
    /// A check begins.
    #[must_use]
    pub(crate) fn begin(&self, clock: &Clock) -> Begun {
        Begun { instant: Instant::now(), time: self.spans.are_on().then(|| clock.now()) }
    }

    /// A check has ended; `request` is none if it could not be read.
    pub(crate) fn end(&self, begun: Begun, decision: &Decision<'_>, request: Option<&Request<'_>>) {
        let took = begun.instant.elapsed();
        self.counts.count(decision.issuer, decision.outcome, took);
        self.decisions.log(decision, request);
        if let Some(time) = begun.time {
            self.spans.record(decision, request, time, took);
        }
    }
}
