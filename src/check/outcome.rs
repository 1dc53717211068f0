//! The outcome of a check, as it is counted, logged and traced.

use crate::domain::denial::Denial;
use crate::domain::evidence::Evidence;
use crate::domain::issuer::IssuerName;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Allowed,
    Denied(Denial),
    /// Allowed by a shadow rollout; without it, denied.
    ShadowDenied(Denial),
}

impl Outcome {
    pub(crate) const COUNT: usize = 1 + 2 * Denial::COUNT;

    /// Every outcome, in the order of [`Outcome::index`].
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let denied = Denial::ALL.iter().copied().map(Self::Denied);
        let shadow = Denial::ALL.iter().copied().map(Self::ShadowDenied);
        std::iter::once(Self::Allowed).chain(denied).chain(shadow)
    }

    /// A number of its own below [`Outcome::COUNT`].
    #[must_use]
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Allowed => 0,
            Self::Denied(denial) => 1 + denial.index(),
            Self::ShadowDenied(denial) => 1 + Denial::COUNT + denial.index(),
        }
    }

    /// The metric label: `denied` for the client's fault, `error` for the server's or the proxy's.
    #[must_use]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied(denial) if matches!(denial.http_status(), 401 | 403) => "denied",
            Self::Denied(_) => "error",
            Self::ShadowDenied(_) => "shadow_denied",
        }
    }

    /// The denial's code; empty if there is none.
    #[must_use]
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Allowed => "",
            Self::Denied(denial) | Self::ShadowDenied(denial) => denial.code(),
        }
    }
}

/// A decision as it is recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decision<'a> {
    pub outcome: Outcome,
    /// The issuer that the token names, if it is configured.
    pub issuer: Option<&'a IssuerName>,
    /// What the denied token holds where something else is accepted.
    pub evidence: Option<&'a Evidence>,
    /// The verified subject.
    pub subject: Option<&'a str>,
    /// The rule's name; empty if no rule was selected.
    pub rule: &'a str,
    /// The size of a check that was too large to be read.
    pub message_bytes: Option<usize>,
}

impl Decision<'_> {
    /// A decision on a request of which nothing was judged.
    pub(crate) const fn unjudged(outcome: Outcome) -> Self {
        Self { outcome, issuer: None, evidence: None, subject: None, rule: "", message_bytes: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_an_index_of_its_own() {
        let indices: Vec<_> = Outcome::all().map(Outcome::index).collect();
        assert_eq!(indices, (0..Outcome::COUNT).collect::<Vec<_>>());
    }
}
