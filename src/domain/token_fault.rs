//! The checks of a token in the order in which they are made, and the one that failed. Each check names its own step,
//! so that the server and the verb `verify` cannot disagree about the order.

use strum::VariantArray;

use crate::domain::denial::Denial;

/// The checks of one token. The order of the variants is the order of the checks: the first that fails ends the
/// verification, so all steps before it have passed and no step after it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub(crate) enum TokenStep {
    /// At most `tokens.max_length` bytes.
    Length,
    /// Three segments of base64url, two JSON objects, a `kid` that is a string.
    Form,
    /// No `crit` in the header.
    Crit,
    /// `iss` names a configured issuer.
    Iss,
    /// `alg` is on the issuer's list.
    Alg,
    /// `typ` is on the issuer's list, or absent.
    Typ,
    /// `kid` is present if the issuer requires it.
    Kid,
    /// The issuer's key set is available and has a key of this `kid` and `alg`.
    Key,
    Signature,
    /// `exp` and `nbf`.
    Time,
    Audience,
    /// `sub`, and the claims that go into identity headers or metadata.
    Claims,
    /// No `cnf`, or the issuer's `bound_tokens` is `ignore`.
    Binding,
    /// No revocation names the token.
    Revocation,
}

impl TokenStep {
    /// The name that `verify` prints.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Form => "form",
            Self::Crit => "crit",
            Self::Iss => "iss",
            Self::Alg => "alg",
            Self::Typ => "typ",
            Self::Kid => "kid",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Time => "exp, nbf",
            Self::Audience => "aud",
            Self::Claims => "claims",
            Self::Binding => "binding",
            Self::Revocation => "revoked",
        }
    }

    /// The fault of a token that fails this check.
    pub(crate) const fn fault(self, denial: Denial) -> TokenFault {
        TokenFault { step: self, denial }
    }
}

/// The check that a token failed, and the denial of the request that carries the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenFault {
    pub(crate) step: TokenStep,
    pub(crate) denial: Denial,
}

impl From<TokenFault> for Denial {
    fn from(fault: TokenFault) -> Self {
        fault.denial
    }
}
