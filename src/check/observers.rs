//! What is recorded of each decision: one count, one duration, at most one log line, at most one span.

use tokio::time::Instant;

use crate::check::counts::CheckCounts;
use crate::check::decision_log::DecisionLog;
use crate::check::outcome::Decision;
use crate::check::spans::Spans;
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::request::Request;

#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckStart {
    instant: Instant,
    /// Read only if spans are exported.
    time: Option<UnixTime>,
}

#[derive(Debug, Clone)]
pub(crate) struct Observers {
    pub counts: CheckCounts,
    pub decisions: DecisionLog,
    pub spans: Spans,
}

impl Observers {
    #[must_use]
    pub(crate) fn start(&self, clock: &Clock) -> CheckStart {
        CheckStart { instant: Instant::now(), time: self.spans.are_on().then(|| clock.wall()) }
    }

    /// Records a decision; `request` is `None` if the request could not be read.
    pub(crate) fn finish(&self, start: CheckStart, decision: &Decision<'_>, request: Option<&Request<'_>>) {
        let CheckStart { instant, time } = start;
        let took = instant.elapsed();
        self.counts.count(decision.issuer, decision.outcome, took);
        self.decisions.log(decision, request);
        if let Some(time) = time {
            self.spans.record(decision, request, time, took);
        }
    }
}
