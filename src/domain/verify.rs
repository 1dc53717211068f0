//! From an untrusted token to a [`Verified`] one: one signature operation as a rule, the checks in the order of
//! [`TokenStep`].

use std::borrow::Cow;
use std::sync::Arc;

use crate::domain::algorithm::Algorithm;
use crate::domain::claim::Claim;
use crate::domain::claims::{self, Subject};
use crate::domain::clock::UnixTime;
use crate::domain::denial::Denial;
use crate::domain::identity::{Identity, IdentityValues};
use crate::domain::issuer::{Audiences, Issuer, Issuers};
use crate::domain::json::{Member, Object};
use crate::domain::key_set::{Generation, KeySet, VerifyingKey};
use crate::domain::revoked::WatchedToken;
use crate::domain::token::Segments;
use crate::domain::token_fault::{TokenFault, TokenStep};

/// A token that is well formed and nothing more: it may choose an issuer and a key, nothing else.
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
    /// [`Denial::TokenMalformed`] if one of them is not an object, or `kid` is present and not a string with content.
    pub(crate) fn peek(segments: &'a Segments<'a>) -> Result<Self, TokenFault> {
        let read = |bytes| Object::parse(bytes).map_err(|_| TokenStep::Form.fault(Denial::TokenMalformed));
        let (header, claims) = (read(&segments.header)?, read(&segments.payload)?);
        let kid = key_id(&header)?;
        Ok(Self { segments, header, claims, kid })
    }

    /// Whom the token claims to be from, if it says so.
    #[must_use]
    pub(crate) fn iss(&self) -> Option<Cow<'a, str>> {
        match self.claims.member("iss") {
            Member::String(iss) => Some(iss),
            _ => None,
        }
    }

    /// Finds the issuer by `iss` alone and checks the header by the issuer's rules: `crit`, `iss`, `alg`,
    /// `typ`, `kid`, in this order. What carries an event is of another type, whatever its `typ` says: a logout token may have none.
    ///
    /// # Errors
    /// The first fault.
    pub(crate) fn address<'i>(self, issuers: &'i Issuers) -> Result<Addressed<'a, 'i>, TokenFault> {
        let carries_event = carries_event(&self.claims);
        let accepts_type = |issuer: &Issuer, typ: Member<'_>| match typ {
            _ if carries_event => false,
            Member::Absent => true,
            Member::String(typ) => issuer.accepts_type(&typ),
            _ => false,
        };
        self.address_as(issuers, |_| true, accepts_type)
    }

    /// The same for what is no token for requests: from the issuers that are accepted for it, and with its own `typ`.
    pub(super) fn address_as<'i>(
        self,
        issuers: &'i Issuers,
        accepts: impl FnOnce(&Issuer) -> bool,
        accepts_type: impl FnOnce(&Issuer, Member<'_>) -> bool,
    ) -> Result<Addressed<'a, 'i>, TokenFault> {
        if self.header.has("crit") {
            return Err(TokenStep::Crit.fault(Denial::CriticalHeader));
        }
        const UNKNOWN: TokenFault = TokenStep::Iss.fault(Denial::IssuerUnknown);
        let iss = self.iss().ok_or(UNKNOWN)?;
        let (issuer, tenant) = issuers.get(&iss).ok_or(UNKNOWN)?;
        if let Some(tenant) = tenant
            && !matches!(self.claims.member("tid"), Member::String(tid) if tid == tenant)
        {
            return Err(UNKNOWN);
        }
        if !accepts(issuer) {
            return Err(UNKNOWN);
        }
        let tenant = tenant.map(Into::into);
        let algorithm = algorithm(&self.header, issuer)?;
        if !accepts_type(issuer, self.header.member("typ")) {
            return Err(TokenStep::Typ.fault(Denial::TypeNotAllowed));
        }
        if issuer.require_kid && self.kid.is_none() {
            return Err(TokenStep::Kid.fault(Denial::KeyIdMissing));
        }
        Ok(Addressed { token: self, issuer, tenant, algorithm })
    }
}

/// An unverified token, the issuer that its `iss` names, and its `alg`, which that issuer allows.
pub(crate) struct Addressed<'a, 'i> {
    token: Unverified<'a>,
    issuer: &'i Issuer,
    /// The tenant that signed the token, for an issuer with tenants.
    tenant: Option<Box<str>>,
    algorithm: Algorithm,
}

impl<'a, 'i> Addressed<'a, 'i> {
    #[must_use]
    pub(crate) const fn issuer(&self) -> &'i Issuer {
        self.issuer
    }

    #[must_use]
    pub(crate) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[must_use]
    pub(crate) fn kid(&self) -> Option<&str> {
        self.token.kid.as_deref()
    }

    /// Whether the set has a key of this token's `kid` and `alg`.
    #[must_use]
    pub(crate) fn has_candidate(&self, keys: &KeySet) -> bool {
        self.candidates(keys).next().is_some()
    }

    fn candidates<'k>(&'k self, keys: &'k KeySet) -> impl Iterator<Item = &'k VerifyingKey> {
        let tenant = self.tenant.as_deref();
        keys.candidates(self.kid(), self.algorithm).filter(move |key| key.is_of(tenant))
    }

    /// Verifies the signature, then judges the claims.
    ///
    /// # Errors
    /// The first fault: key, signature, `exp` and `nbf`, the audience, which must be among each of these, the subject.
    pub(crate) fn verify<'x>(
        self,
        keys: &KeySet,
        audiences: impl Iterator<Item = &'x Audiences>,
        now: UnixTime,
    ) -> Result<Verified<'a, 'i>, TokenFault> {
        let Signed { issuer, mut claims } = self.signed(keys)?;
        let subject = claims::judge(&mut claims, issuer, audiences, now)?;
        Ok(Verified { issuer, subject, claims })
    }

    /// Verifies the signature alone.
    ///
    /// # Errors
    /// The first fault: key, signature.
    pub(super) fn signed(self, keys: &KeySet) -> Result<Signed<'a, 'i>, TokenFault> {
        signature(self.token.segments, self.candidates(keys))?;
        Ok(Signed { issuer: self.issuer, claims: self.token.claims })
    }
}

/// A payload that its issuer signed, and of which no claim was judged: not even what it is for.
pub(super) struct Signed<'a, 'i> {
    pub(super) issuer: &'i Issuer,
    pub(super) claims: Object<'a>,
}

/// A token whose signature and claims are good. Made only by [`Addressed::verify`], and by
/// [`CachedToken::judge_again`] for a token that was verified before.
pub(crate) struct Verified<'a, 'i> {
    issuer: &'i Issuer,
    subject: Subject,
    claims: Object<'a>,
}

impl<'a, 'i> Verified<'a, 'i> {
    #[must_use]
    pub(crate) const fn issuer(&self) -> &'i Issuer {
        self.issuer
    }

    #[must_use]
    pub(crate) const fn subject(&self) -> &Subject {
        &self.subject
    }

    #[must_use]
    pub(crate) const fn claims(&self) -> &Object<'a> {
        &self.claims
    }
}

/// The claims that are read of a cached token: for the time and the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimsNeeded(Vec<String>);

impl ClaimsNeeded {
    /// Those of the rules, and those that [`claims::judge_again`] reads; of the audience only if rules ask for it.
    #[must_use]
    pub(crate) fn of<'c>(
        issuers: &'c Issuers,
        rules: impl Iterator<Item = &'c Claim>,
        audiences: bool,
    ) -> Self {
        let always = claims::JUDGED_AGAIN.into_iter();
        let of_issuers = issuers.all().iter().flat_map(|issuer| {
            let audience_claims = issuer.audience_claims.iter().filter(|_| audiences);
            issuer.subject.iter().chain(audience_claims)
        });
        let claims = rules.chain(of_issuers).map(Claim::member);
        let mut names: Vec<_> = always.chain(claims).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What the token cache keeps of a verified token: its identity, and enough to judge its claims again, but neither the token
/// nor its signature. Made only by [`Verified::to_cached`].
#[derive(Clone)]
pub(crate) struct CachedToken {
    verified_by: Generation,
    issuer_position: u32,
    claims: Box<str>,
    identity: TokenIdentity,
    /// See [`CachedToken::watched`].
    watched: Option<Arc<WatchedToken>>,
    /// See [`CachedToken::has_logged_change`].
    has_logged_change: bool,
}

/// What the configuration's headers and metadata carry of a verified token, or why they can carry nothing.
pub(crate) type TokenIdentity = Result<IdentityValues, Denial>;

/// A token of which more would have to be kept is not: memory per cached token is bounded.
const MAX_CACHED_BYTES: usize = 1280;

impl Verified<'_, '_> {
    /// What the headers and the metadata carry of the token.
    pub(crate) fn identity(&self, identity: &Identity) -> TokenIdentity {
        identity.values_of(&self.claims, &self.issuer.name)
    }

    /// The entry for the token cache; `None` if claims and identity take more than [`MAX_CACHED_BYTES`].
    #[must_use]
    pub(crate) fn to_cached(
        &self,
        keys: &KeySet,
        issuers: &Issuers,
        claims_needed: &ClaimsNeeded,
        identity: TokenIdentity,
        watched: Option<Arc<WatchedToken>>,
    ) -> Option<CachedToken> {
        let claims = self.claims.subset_as_json(claims_needed.names());
        let size = claims.len() + identity.as_ref().map_or(0, IdentityValues::size);
        let issuer_position = issuers.position(self.issuer)?;
        (size <= MAX_CACHED_BYTES).then(|| CachedToken {
            verified_by: keys.generation(),
            issuer_position,
            claims: claims.into(),
            identity,
            watched,
            has_logged_change: false,
        })
    }
}

impl CachedToken {
    /// What [`Verified::identity`] gave.
    pub(crate) fn identity(&self) -> TokenIdentity {
        self.identity.clone()
    }

    /// What revocations are held against; `None` where none are configured.
    pub(crate) const fn watched(&self) -> Option<&Arc<WatchedToken>> {
        self.watched.as_ref()
    }

    /// Whether a shadow rollout has logged that the identity is not the plain claim.
    pub(crate) const fn has_logged_change(&self) -> bool {
        self.has_logged_change
    }

    #[must_use]
    pub(crate) fn with_logged_change(self, has_logged_change: bool) -> Self {
        Self { has_logged_change, ..self }
    }

    /// The issuer whose key verified the token.
    #[must_use]
    pub(crate) fn issuer<'i>(&self, issuers: &'i Issuers) -> Option<&'i Issuer> {
        issuers.at_position(self.issuer_position)
    }

    /// The claims that are kept of the token.
    pub(crate) fn claims(&self) -> Option<Object<'_>> {
        Object::parse(self.claims.as_bytes()).ok()
    }

    /// Judges the claims again that time or the rule can change. `None` if the key set that verified the token is no longer the
    /// issuer's current one: a key may have been withdrawn, so the whole token must be verified again.
    pub(crate) fn judge_again<'a, 'i, 'x>(
        &'a self,
        issuer: &'i Issuer,
        current: Generation,
        audiences: impl Iterator<Item = &'x Audiences>,
        now: UnixTime,
    ) -> Option<Result<Verified<'a, 'i>, TokenFault>> {
        if current != self.verified_by {
            return None;
        }
        let mut claims = self.claims()?;
        let subject = claims::judge_again(&mut claims, issuer, audiences, now);
        Some(subject.map(|subject| Verified { issuer, subject, claims }))
    }
}

/// Whether `events` (RFC 8417 section 2.2) has one of OpenID Connect's or of Shared Signals.
fn carries_event(claims: &Object<'_>) -> bool {
    const EVENTS: [&str; 2] = ["http://schemas.openid.net/event/", "https://schemas.openid.net/secevent/"];
    let events = claims.own("events").and_then(|events| Object::parse_shallow(events.get().as_bytes()).ok());
    events.is_some_and(|events| events.names().any(|uri| EVENTS.iter().any(|prefix| uri.starts_with(prefix))))
}

fn key_id<'a>(header: &Object<'a>) -> Result<Option<Cow<'a, str>>, TokenFault> {
    match header.member("kid") {
        Member::Absent => Ok(None),
        Member::String(kid) if !kid.is_empty() => Ok(Some(kid)),
        _ => Err(TokenStep::Form.fault(Denial::TokenMalformed)),
    }
}

fn algorithm(header: &Object<'_>, issuer: &Issuer) -> Result<Algorithm, TokenFault> {
    let Member::String(name) = header.member("alg") else {
        return Err(TokenStep::Alg.fault(Denial::TokenMalformed));
    };
    Algorithm::from_name(&name)
        .filter(|algorithm| issuer.algorithms.contains(algorithm))
        .ok_or(TokenStep::Alg.fault(Denial::AlgorithmNotAllowed))
}

/// Verifies the signature with each candidate key, until one fits. Looks at no claim.
fn signature<'k>(
    segments: &Segments<'_>,
    candidates: impl Iterator<Item = &'k VerifyingKey>,
) -> Result<(), TokenFault> {
    let mut candidates = candidates.peekable();
    if candidates.peek().is_none() {
        return Err(TokenStep::Key.fault(Denial::KeyUnknown));
    }
    let verified = candidates.any(|key| key.verifies(segments.signing_input, &segments.signature));
    if verified { Ok(()) } else { Err(TokenStep::Signature.fault(Denial::SignatureInvalid)) }
}

#[cfg(test)]
#[path = "verify/tests.rs"]
mod tests;
