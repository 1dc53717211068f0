//! The decision log: one line for a decision, of the share that the configuration asks for. Lines per second are
//! limited, so that a client with bad requests cannot fill a disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

use crate::check::outcome::{Decision, Outcome};
use crate::check::redaction::redacted;
use crate::config::DecisionLogSettings;
use crate::domain::evidence::Evidence;
use crate::domain::identity::{ChangedHeader, HeaderValue};
use crate::domain::issuer::IssuerName;
use crate::domain::request::Request;
use crate::domain::verdict::Grant;
use crate::sha256;

#[derive(Debug, Clone)]
pub(crate) struct DecisionLog {
    settings: DecisionLogSettings,
    decisions: Arc<LineLimit>,
    /// Of its own, so that the lines of a rollout in shadow leave no denial out.
    changed_identities: Arc<LineLimit>,
}

/// The lines of the current second.
#[derive(Debug)]
struct LineLimit {
    epoch: Instant,
    /// Since `epoch`.
    second: AtomicU64,
    lines: AtomicU32,
    suppressed: AtomicU64,
}

impl DecisionLog {
    #[must_use]
    pub(crate) fn new(settings: DecisionLogSettings) -> Self {
        let [decisions, changed_identities] = [(); 2].map(|()| Arc::new(LineLimit::new()));
        Self { settings, decisions, changed_identities }
    }

    /// Writes a line, if the decision is in the share to log and the second's lines are not used up.
    pub(crate) fn log(&self, decision: &Decision<'_>, request: Option<&Request<'_>>) {
        let share = match decision.outcome {
            Outcome::Allowed => self.settings.allowed,
            Outcome::Denied(_) | Outcome::ShadowDenied(_) => self.settings.denied,
        };
        // The random number is below 1: a share of 1 logs every decision, one of 0 none.
        if fastrand::f64() >= share {
            return;
        }
        let Some(suppressed) = self.decisions.admit(self.settings.max_per_second) else { return };
        let evidence = decision.evidence.map(EvidenceFields::of).unwrap_or_default();
        let request_id = request.and_then(|request| request.header("x-request-id").next());
        tracing::info!(
            outcome = decision.outcome.label(),
            code = decision.outcome.code(),
            issuer = decision.issuer.map(IssuerName::as_str),
            iss = evidence.iss,
            kid = evidence.kid,
            expired_seconds = evidence.expired_seconds,
            valid_in_seconds = evidence.valid_in_seconds,
            aud = evidence.aud,
            aud_accepted = evidence.aud_accepted,
            claim = evidence.claim,
            rule = decision.rule,
            method = request.map(|request| redacted(request.method)),
            host = request.map(|request| redacted(request.host)),
            path = request.map(|request| redacted(without_query(request.path))),
            request_id = request_id.map(redacted),
            sub = decision.subject.map(|subject| self.subject(subject)),
            message_bytes = decision.message_bytes,
            suppressed = (suppressed > 0).then_some(suppressed),
            "decision"
        );
    }

    /// Writes a line for each header of a grant that carries another value than the plain claim, if the tokens of this second are not
    /// used up. Returns whether it did.
    pub(crate) fn log_changed_identity(&self, grant: &Grant<'_>) -> bool {
        let mut changed = grant.identity().changed().peekable();
        if changed.peek().is_none() || !self.changed_identities.take(self.settings.max_per_second) {
            return false;
        }
        for ChangedHeader { name, plain, mapped } in changed {
            tracing::info!(
                issuer = grant.issuer().map(IssuerName::as_str),
                header = name,
                plain = plain.map(|plain| self.header_value(plain)),
                mapped = mapped.map(|mapped| match mapped {
                    HeaderValue::Text(text) => self.header_value(text),
                    HeaderValue::Json(text) => sha256(text),
                }),
                "identity differs from the plain claim"
            );
        }
        true
    }

    /// As a subject; what may be a token is redacted.
    fn header_value(&self, value: &str) -> String {
        if self.settings.subject_in_clear { redacted(value.as_bytes()) } else { sha256(value) }
    }

    /// The subject in clear, or its SHA-256 in hex.
    fn subject(&self, subject: &str) -> String {
        if self.settings.subject_in_clear { subject.to_owned() } else { sha256(subject) }
    }
}

/// The fields of a line that tell why a token was denied: a token's texts are the client's, and bounded like those.
#[derive(Default)]
struct EvidenceFields {
    iss: Option<String>,
    kid: Option<String>,
    expired_seconds: Option<u64>,
    valid_in_seconds: Option<u64>,
    aud: Option<String>,
    aud_accepted: Option<String>,
    claim: Option<String>,
}

impl EvidenceFields {
    fn of(evidence: &Evidence) -> Self {
        let (text, none) = (|text: &str| Some(redacted(text.as_bytes())), Self::default());
        match evidence {
            Evidence::Iss(iss) => Self { iss: text(iss), ..none },
            Evidence::Kid(kid) => Self { kid: text(kid), ..none },
            Evidence::ExpiredFor(time) => Self { expired_seconds: Some(time.as_secs()), ..none },
            Evidence::ValidIn(time) => Self { valid_in_seconds: Some(time.as_secs()), ..none },
            Evidence::Audience { found, accepted } => {
                let accepted: Vec<_> = accepted.iter().map(|audience| audience.0.as_str()).collect();
                Self { aud: text(found), aud_accepted: text(&accepted.join(" ")), ..none }
            }
            Evidence::Claim(name) => Self { claim: text(name), ..none },
        }
    }
}

/// Lines of one user can be joined without naming the user.
fn sha256(text: &str) -> String {
    sha256::hex(text.as_bytes())
}

impl LineLimit {
    fn new() -> Self {
        let (second, lines, suppressed) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0));
        Self { epoch: Instant::now(), second, lines, suppressed }
    }

    /// Takes one line of the current second; returns how many were suppressed before it. `None` if none is left.
    fn admit(&self, max_per_second: u32) -> Option<u64> {
        if self.take(max_per_second) {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The same, without a count of those that were left out.
    fn take(&self, max_per_second: u32) -> bool {
        let now = self.epoch.elapsed().as_secs();
        if self.second.load(Ordering::Relaxed) == now && self.lines.load(Ordering::Relaxed) >= max_per_second
        {
            // Nothing is written: cores that come here at the same time share the cache line.
            return false;
        }
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < max_per_second {
            return true;
        }
        // Set back, so that it cannot overflow and admit again.
        self.lines.store(max_per_second, Ordering::Relaxed);
        false
    }
}

fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_not_logged() {
        assert_eq!(without_query(b"/a?eyJ#?"), b"/a");
    }

    #[tokio::test(start_paused = true)]
    async fn lines_per_second_are_limited_and_the_suppressed_ones_counted() {
        let log =
            DecisionLogSettings { denied: 1.0, allowed: 0.0, max_per_second: 2, subject_in_clear: false };
        let limit = DecisionLog::new(log).decisions;
        assert_eq!(
            [limit.admit(2), limit.admit(2), limit.admit(2), limit.admit(2)],
            [Some(0), Some(0), None, None]
        );
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!([limit.admit(2), limit.admit(2), limit.admit(2)], [Some(2), Some(0), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn changed_identities_take_no_line_of_the_decisions() {
        let log = DecisionLog::new(DecisionLogSettings {
            denied: 1.0,
            allowed: 0.0,
            max_per_second: 1,
            subject_in_clear: false,
        });
        assert_eq!([log.changed_identities.take(1), log.changed_identities.take(1)], [true, false]);
        assert_eq!([log.decisions.admit(1), log.decisions.admit(1)], [Some(0), None]);
    }

    #[test]
    fn subjects_are_hashed_unless_allowed_in_clear() {
        let log =
            DecisionLogSettings { denied: 1.0, allowed: 0.0, max_per_second: 2, subject_in_clear: false };
        // printf '%s' user-1 | sha256sum
        let hash = "c6c289e49e9c05b2145860387b73bcb18df43fb09a1e4a4a9713c76c88bb541b";
        assert_eq!(DecisionLog::new(log).subject("user-1"), hash);
        let clear = DecisionLog::new(DecisionLogSettings { subject_in_clear: true, ..log });
        assert_eq!(clear.subject("user-1"), "user-1");
    }
}
