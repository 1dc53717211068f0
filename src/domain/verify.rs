//! From a token nobody trusts to a [`Verified`] one: synchronous, one signature operation as a rule, the
//! faults in the contract's order.

use std::borrow::Cow;

use crate::domain::algorithm::Algorithm;
use crate::domain::claims::{self, Claim, Subject};
use crate::domain::clock::UnixTime;
use crate::domain::denial::Denial;
use crate::domain::issuer::{Issuer, Issuers};
use crate::domain::json::{Member, Object};
use crate::domain::key_set::{Generation, KeySet};
use crate::domain::token::Segments;

/// A token that is well formed and nothing more. It may choose an issuer and a key, nothing else.
pub(crate) struct Unverified<'a> {
    segments: &'a Segments<'a>,
    header: Object<'a>,
    claims: Object<'a>,
    kid: Option<Cow<'a, str>>,
}

impl<'a> Unverified<'a> {
    /// Reads header and payload as JSON objects.
    ///
    /// # Errors
    /// [`Denial::TokenMalformed`] if one is none, or `kid` is present and not a string with content.
    pub(crate) fn peek(segments: &'a Segments<'a>) -> Result<Self, Denial> {
        let read = |bytes| Object::parse(bytes).map_err(|_| Denial::TokenMalformed);
        let (header, claims) = (read(&segments.header)?, read(&segments.payload)?);
        let kid = key_id(&header)?;
        Ok(Self { segments, header, claims, kid })
    }

    /// Finds the issuer by `iss` alone and holds the header against its rules: `crit`, `iss`, `alg`,
    /// `typ`, `kid`, in this order.
    ///
    /// # Errors
    /// The first fault.
    pub(crate) fn address<'i>(self, issuers: &'i Issuers) -> Result<Addressed<'a, 'i>, Denial> {
        if self.header.has("crit") {
            return Err(Denial::CriticalHeader);
        }
        let Member::String(iss) = self.claims.member("iss") else { return Err(Denial::IssuerUnknown) };
        let issuer = issuers.get(&iss).ok_or(Denial::IssuerUnknown)?;
        let algorithm = algorithm(&self.header, issuer)?;
        match self.header.member("typ") {
            Member::Absent => {}
            Member::String(typ) if issuer.accepts_type(&typ) => {}
            _ => return Err(Denial::TypeNotAllowed),
        }
        if issuer.require_kid && self.kid.is_none() {
            return Err(Denial::KeyIdMissing);
        }
        Ok(Addressed { token: self, issuer, algorithm })
    }
}

/// An unverified token with the issuer it claims and an algorithm that issuer allows.
pub(crate) struct Addressed<'a, 'i> {
    token: Unverified<'a>,
    issuer: &'i Issuer,
    algorithm: Algorithm,
}

impl<'a, 'i> Addressed<'a, 'i> {
    /// The issuer the token claims to come from.
    #[must_use]
    pub(crate) const fn issuer(&self) -> &'i Issuer {
        self.issuer
    }

    /// The algorithm the token says it was signed with: one the issuer allows.
    #[must_use]
    pub(crate) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key the token says it was signed with.
    #[must_use]
    pub(crate) fn kid(&self) -> Option<&str> {
        self.token.kid.as_deref()
    }

    /// Whether the set holds a key that may have signed this token.
    #[must_use]
    pub(crate) fn has_candidate(&self, keys: &KeySet) -> bool {
        keys.candidates(self.kid(), self.algorithm).next().is_some()
    }

    /// Verifies the signature, then judges the claims.
    ///
    /// # Errors
    /// The first fault: key, signature, `exp` and `nbf`, `aud`, other claims.
    pub(crate) fn verify(self, keys: &KeySet, now: UnixTime) -> Result<Verified<'a, 'i>, Denial> {
        signature(self.token.segments, self.kid(), self.algorithm, keys)?;
        let subject = claims::judge(&self.token.claims, self.issuer, now)?;
        Ok(Verified { issuer: self.issuer, subject, claims: self.token.claims })
    }
}

/// A token whose signature and claims hold. Its only maker is [`Addressed::verify`].
pub struct Verified<'a, 'i> {
    issuer: &'i Issuer,
    subject: Subject,
    claims: Object<'a>,
}

impl<'a, 'i> Verified<'a, 'i> {
    /// Who issued it.
    #[must_use]
    pub const fn issuer(&self) -> &'i Issuer {
        self.issuer
    }

    /// Who it is about.
    #[must_use]
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &Object<'a> {
        &self.claims
    }
}

/// The claims that anybody reads once a token is verified: for the time, the identity and the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimsNeeded(Vec<String>);

impl ClaimsNeeded {
    /// Those that are always read, and these.
    #[must_use]
    pub fn with<'c>(claims: impl Iterator<Item = &'c Claim>) -> Self {
        let always = ["exp", "nbf", "sub"].into_iter();
        let mut names: Vec<_> = always.chain(claims.map(Claim::member)).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }
}

/// What is kept of a token that was verified: enough to judge it again, and not the token. Its only maker is
/// [`Verified::remember`].
#[derive(Clone)]
pub struct Remembered {
    keys: Generation,
    issuer: u32,
    claims: Box<str>,
}

/// Longer claims are not kept: memory per token is bounded.
const MAX_CACHED_CLAIMS_BYTES: usize = 1024;

impl Verified<'_, '_> {
    /// What to keep of it; `None` if that would be too much.
    #[must_use]
    pub fn remember(
        &self,
        keys: &KeySet,
        issuers: &Issuers,
        claims_needed: &ClaimsNeeded,
    ) -> Option<Remembered> {
        let claims = self.claims.only(claims_needed.0.iter().map(String::as_str));
        let issuer = issuers.position(self.issuer)?;
        let fits = claims.len() <= MAX_CACHED_CLAIMS_BYTES;
        fits.then(|| Remembered { keys: keys.generation(), issuer, claims: claims.into() })
    }
}

impl Remembered {
    /// The issuer that vouched for the token.
    #[must_use]
    pub fn issuer<'i>(&self, issuers: &'i Issuers) -> Option<&'i Issuer> {
        issuers.at_position(self.issuer)
    }

    /// The token once more: the set that verified it is still in force, and its time is judged again. `None` if the keys
    /// have changed since, so that everything must be verified anew.
    pub fn recall<'a, 'i>(
        &'a self,
        issuer: &'i Issuer,
        in_force: Generation,
        now: UnixTime,
    ) -> Option<Result<Verified<'a, 'i>, Denial>> {
        if in_force != self.keys {
            return None;
        }
        let claims = Object::parse(self.claims.as_bytes()).ok()?;
        let subject = claims::judge_time_again(&claims, issuer, now);
        Some(subject.map(|subject| Verified { issuer, subject, claims }))
    }
}

fn key_id<'a>(header: &Object<'a>) -> Result<Option<Cow<'a, str>>, Denial> {
    match header.member("kid") {
        Member::Absent => Ok(None),
        Member::String(kid) if !kid.is_empty() => Ok(Some(kid)),
        _ => Err(Denial::TokenMalformed),
    }
}

fn algorithm(header: &Object<'_>, issuer: &Issuer) -> Result<Algorithm, Denial> {
    let Member::String(name) = header.member("alg") else { return Err(Denial::TokenMalformed) };
    Algorithm::from_name(&name)
        .filter(|algorithm| issuer.algorithms.contains(algorithm))
        .ok_or(Denial::AlgorithmNotAllowed)
}

/// The step that checks header, key and signature, whatever the payload is.
fn signature(
    segments: &Segments<'_>,
    kid: Option<&str>,
    algorithm: Algorithm,
    keys: &KeySet,
) -> Result<(), Denial> {
    let mut candidates = keys.candidates(kid, algorithm).peekable();
    if candidates.peek().is_none() {
        return Err(Denial::KeyUnknown);
    }
    let verified = candidates.any(|key| key.verifies(segments.signing_input, &segments.signature));
    if verified { Ok(()) } else { Err(Denial::SignatureInvalid) }
}

#[cfg(test)]
#[path = "verify/tests.rs"]
mod tests;
