//! Every reason to deny a request, with its label, its HTTP status and its text.

use strum::VariantArray;

/// A reason to deny a request. Its label is API: it is the `code` of the answer's body and a label of the metrics, so
/// it changes only together with the documentation.
///
/// Two families: the fault is the client's (the token, the request) or the server's (keys that are not available).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, VariantArray)]
pub enum Denial {
    /// No configured source of the request has a token.
    TokenMissing,
    /// The token is longer than `tokens.max_length`.
    TokenTooLong,
    /// The token is not a JWS in compact serialization (RFC 7515 section 7.1) of two JSON objects.
    TokenMalformed,
    /// The header has `crit`; no extension is understood here (RFC 7515 section 4.1.11).
    CriticalHeader,
    /// `iss` is missing, not a string, or not one of the configured issuers.
    IssuerUnknown,
    /// `alg` is not on the issuer's list (RFC 8725 section 3.1).
    AlgorithmNotAllowed,
    /// `typ` is present and not on the issuer's list (RFC 8725 section 3.11).
    TypeNotAllowed,
    /// The issuer requires a `kid` and the token has none.
    KeyIdMissing,
    /// No key of the issuer has this `kid` and fits this `alg`.
    KeyUnknown,
    /// The signature does not verify.
    SignatureInvalid,
    /// `exp` lies in the past (RFC 7519 section 4.1.4).
    TokenExpired,
    /// `nbf` lies in the future (RFC 7519 section 4.1.5).
    TokenNotYetValid,
    /// None of the issuer's audiences is in `aud` (RFC 7519 section 4.1.3).
    AudienceMismatch,
    /// A required claim is missing or null.
    ClaimMissing,
    /// A claim has the wrong type or a value that cannot be used.
    ClaimInvalid,
    /// The token is bound to a key (`cnf`, RFC 7800) and there is no proof of that key.
    ProofMissing,
    /// An entry of the revocations names the token.
    TokenRevoked,
    /// A verified token lacks a claim that the rule asks for.
    ClaimsInsufficient,
    /// A verified token's issuer is not one that the rule accepts.
    IssuerNotAccepted,
    /// The rule denies every request.
    RuleDenies,
    /// The issuer's keys were not fetched in time, or are older than `max_stale`.
    KeysUnavailable,
    /// The revocations are older than `revocation.when_stale` allows.
    RevocationUnavailable,
    /// The check request is not well formed, or rules look at its host or its path and it has none.
    RequestMalformed,
    /// The check request, with the body that the proxy put into it, is longer than `server.max_message`.
    RequestTooLarge,
    /// The route names a rule that does not exist.
    RuleUnknown,
}

/// Which kind of answer a [`Denial`] gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// 401 and a bare `Bearer` challenge: no credentials were sent (RFC 6750 section 3.1).
    Credentials,
    /// 401 with `error="invalid_token"` (RFC 6750 section 3.1).
    InvalidToken,
    /// 403 with `error="insufficient_scope"` (RFC 6750 section 3.1).
    Scope,
    /// 403, no challenge: more scope would not help.
    Forbidden,
    /// 503 with `retry-after`: not the client's fault.
    RetryLater,
    /// 400: the request is at fault, not its token.
    Malformed,
    /// 413: the request is at fault for its size.
    TooLarge,
    /// 500: the proxy's configuration does not agree with the server's.
    Misconfigured,
}

impl Denial {
    /// Every denial: a new variant is in it.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The number of denials.
    pub const COUNT: usize = Self::ALL.len();

    /// Its position among all variants, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The stable name: `code` in the answer's body, label in metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenTooLong => "token_too_long",
            Self::TokenMalformed => "token_malformed",
            Self::CriticalHeader => "critical_header",
            Self::IssuerUnknown => "issuer_unknown",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::TypeNotAllowed => "type_not_allowed",
            Self::KeyIdMissing => "key_id_missing",
            Self::KeyUnknown => "key_unknown",
            Self::SignatureInvalid => "signature_invalid",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::AudienceMismatch => "audience_mismatch",
            Self::ClaimMissing => "claim_missing",
            Self::ClaimInvalid => "claim_invalid",
            Self::ProofMissing => "proof_missing",
            Self::TokenRevoked => "token_revoked",
            Self::ClaimsInsufficient => "claims_insufficient",
            Self::IssuerNotAccepted => "issuer_not_accepted",
            Self::RuleDenies => "rule_denies",
            Self::KeysUnavailable => "keys_unavailable",
            Self::RevocationUnavailable => "revocation_unavailable",
            Self::RequestMalformed => "request_malformed",
            Self::RequestTooLarge => "request_too_large",
            Self::RuleUnknown => "rule_unknown",
        }
    }

    /// One sentence for the client. Fixed text: nothing of the request is ever echoed. Without quotes
    /// or backslashes, so that it is also a legal `error_description` (RFC 6750 section 3).
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::TokenMissing => "The request carries no access token.",
            Self::TokenTooLong => "The token is longer than this service accepts.",
            Self::TokenMalformed => "The token is not a well-formed JSON Web Token.",
            Self::CriticalHeader => "The token's header demands an extension that is not supported.",
            Self::IssuerUnknown => "The token's issuer is not accepted here.",
            Self::AlgorithmNotAllowed => "The token's signature algorithm is not accepted here.",
            Self::TypeNotAllowed => "The token's type is not accepted here.",
            Self::KeyIdMissing => "The token does not name the key that signed it.",
            Self::KeyUnknown => "The token names a key that its issuer does not publish.",
            Self::SignatureInvalid => "The token's signature does not verify.",
            Self::TokenExpired => "The token has expired.",
            Self::TokenNotYetValid => "The token is not valid yet.",
            Self::AudienceMismatch => "The token is meant for another audience.",
            Self::ClaimMissing => "The token lacks a required claim.",
            Self::ClaimInvalid => "A claim of the token cannot be used.",
            Self::ProofMissing => {
                "The token is bound to a key, and the request does not prove that it holds that key."
            }
            Self::TokenRevoked => "The token has been revoked.",
            Self::ClaimsInsufficient => "The token does not grant what this request needs.",
            Self::IssuerNotAccepted => "The token's issuer is not accepted for this request.",
            Self::RuleDenies => "This request is not allowed.",
            Self::KeysUnavailable => "The token cannot be verified at the moment. Try again shortly.",
            Self::RevocationUnavailable => {
                "Whether the token was revoked cannot be told at the moment. Try again shortly."
            }
            Self::RequestMalformed => "The request cannot be authorized in this form.",
            Self::RequestTooLarge => "The request is larger than can be authorized.",
            Self::RuleUnknown => {
                "The request cannot be authorized: its route names a rule that does not exist."
            }
        }
    }

    /// The kind of its answer.
    #[must_use]
    pub const fn challenge(self) -> Challenge {
        match self {
            Self::TokenMissing => Challenge::Credentials,
            Self::TokenTooLong
            | Self::TokenMalformed
            | Self::CriticalHeader
            | Self::IssuerUnknown
            | Self::AlgorithmNotAllowed
            | Self::TypeNotAllowed
            | Self::KeyIdMissing
            | Self::KeyUnknown
            | Self::SignatureInvalid
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::AudienceMismatch
            | Self::ClaimMissing
            | Self::ClaimInvalid
            | Self::ProofMissing
            | Self::TokenRevoked => Challenge::InvalidToken,
            Self::ClaimsInsufficient => Challenge::Scope,
            Self::IssuerNotAccepted | Self::RuleDenies => Challenge::Forbidden,
            Self::KeysUnavailable | Self::RevocationUnavailable => Challenge::RetryLater,
            Self::RequestMalformed => Challenge::Malformed,
            Self::RequestTooLarge => Challenge::TooLarge,
            Self::RuleUnknown => Challenge::Misconfigured,
        }
    }

    /// The HTTP status of the answer (RFC 9110 section 15.5 and 15.6).
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self.challenge() {
            Challenge::Credentials | Challenge::InvalidToken => 401,
            Challenge::Scope | Challenge::Forbidden => 403,
            Challenge::RetryLater => 503,
            Challenge::Malformed => 400,
            Challenge::TooLarge => 413,
            Challenge::Misconfigured => 500,
        }
    }

    /// Whether a shadow rollout allows the request in spite of it. A request that is malformed or misrouted is denied
    /// even then: there is no decision to compare.
    #[must_use]
    pub const fn passes_in_shadow(self) -> bool {
        match self.challenge() {
            Challenge::Credentials
            | Challenge::InvalidToken
            | Challenge::Scope
            | Challenge::Forbidden
            | Challenge::RetryLater => true,
            Challenge::Malformed | Challenge::TooLarge | Challenge::Misconfigured => false,
        }
    }
}

/// How the answer to a denied request is worded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wording {
    /// The protection space of the challenge (RFC 9110 section 11.5).
    pub realm: String,
    /// Whether the client learns why its token is not accepted. If not, every such code is `invalid_token`.
    pub reasons: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_decisions_about_a_token_pass_in_shadow() {
        for &denial in Denial::ALL {
            let decided = [401, 403, 503].contains(&denial.http_status());
            assert_eq!(denial.passes_in_shadow(), decided, "{denial:?}");
        }
    }

    #[test]
    fn labels_are_unique_snake_case_and_texts_are_legal_in_a_challenge() {
        let mut codes: Vec<_> = Denial::ALL.iter().map(|denial| denial.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Denial::COUNT);
        for &denial in Denial::ALL {
            assert!(denial.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            let legal = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
            assert!(denial.detail().bytes().all(legal), "{denial:?}");
        }
    }
}
