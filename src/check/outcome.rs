//! What a check came to, as it is counted, logged and traced.

use crate::domain::denial::Denial;
use crate::domain::issuer::IssuerName;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Let through.
    Allowed,
    /// Turned away.
    Denied(Denial),
    /// Let through by a shadow rollout.
    ShadowDenied(Denial),
}

impl Outcome {
    /// How many outcomes there are.
    pub(crate) const COUNT: usize = 1 + 2 * Denial::COUNT;

    /// Every outcome.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let denied = Denial::ALL.iter().copied().map(Self::Denied);
        let shadow = Denial::ALL.iter().copied().map(Self::ShadowDenied);
        std::iter::once(Self::Allowed).chain(denied).chain(shadow)
    }

    /// Its place among them.
    #[must_use]
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Allowed => 0,
            Self::Denied(denial) => 1 + denial.index(),
            Self::ShadowDenied(denial) => 1 + Denial::COUNT + denial.index(),
        }
    }

    /// Its label: the caller's fault is `denied`, ours or the proxy's is `error`.
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

/// A decision, with what is known of whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decision<'a> {
    /// What it came to.
    pub outcome: Outcome,
    /// The issuer that the token named, if it is one of ours.
    pub issuer: Option<&'a IssuerName>,
    /// The verified subject.
    pub subject: Option<&'a str>,
    /// The rule; empty if none was found.
    pub rule: &'a str,
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
