//! From an event that an issuer signed to revocations: a logout token (OpenID Connect Back-Channel Logout 1.0), or a Security
//! Event Token (RFC 8417) as Shared Signals, CAEP and RISC 1.0 send it.
//!
//! All that an issuer signs is signed with the same keys, so what a text is for must be told by its content (RFC 8725 section 2.8).
//! A Security Event Token has a `typ` of its own, which no other kind has. A logout token may come without one; then it is told by
//! its event in `events`, which neither ID tokens nor access tokens have, and by `nonce`, which it never has.

use std::time::Duration;

use crate::domain::clock::UnixTime;
use crate::domain::issuer::{Audience, Issuer, IssuerId, IssuerName, Issuers};
use crate::domain::json::{Member, Object};
use crate::domain::key_set::KeySet;
use crate::domain::revoked::{EventSubject, SubjectClaims};
use crate::domain::token::Segments;
use crate::domain::token_fault::{TokenFault, TokenStep};
use crate::domain::verify::{Addressed, Signed, Unverified};

mod named;

use named::Named;

/// What the sender says that it sends, by the place to which it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventForm {
    /// OpenID Connect Back-Channel Logout 1.0 section 2.4.
    LogoutToken,
    /// RFC 8417.
    SecurityEvent,
}

impl EventForm {
    /// Any case, `application/` dropped (RFC 7515 section 4.1.9).
    fn accepts_type(self, typ: &Member<'_>) -> bool {
        let typ = match typ {
            Member::String(typ) => typ.to_ascii_lowercase(),
            // Back-Channel Logout 1.0 section 2.4 only recommends `typ`.
            Member::Absent => return self == Self::LogoutToken,
            _ => return false,
        };
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        match self {
            Self::LogoutToken => ["logout+jwt", "jwt"].contains(&typ),
            // Section 2.3 of RFC 8417. The Shared Signals Framework 1.0 requires it.
            Self::SecurityEvent => typ == "secevent+jwt",
        }
    }
}

/// Why an event is refused: the first of the checks that fails, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventFault {
    #[error("it is too long")]
    TooLong,
    #[error("it is not a signed JWT whose header and claims are objects with unique members")]
    Form,
    #[error("crit is not supported")]
    Crit,
    #[error("iss is missing, or not an issuer whose events are accepted")]
    Issuer,
    #[error("alg is missing, or not an algorithm of the issuer")]
    Algorithm,
    #[error("typ is not the one of such an event")]
    Type,
    #[error("kid is missing")]
    KeyIdMissing,
    #[error("the issuer has no key of this kid and alg")]
    KeyUnknown,
    #[error("the signature is not the issuer's")]
    Signature,
    #[error("iat is missing, or not a time")]
    IssuedAt,
    #[error("iat is too long ago")]
    TooOld,
    #[error("iat is in the future")]
    InTheFuture,
    #[error("exp is past, or not a time")]
    Expired,
    #[error("aud is missing, or not an audience that is accepted here")]
    Audience,
    #[error("jti is missing, or not a text of 1 to 256 bytes")]
    Jti,
    #[error("nonce must not be in a logout token")]
    Nonce,
    #[error("events is missing, or not an object with events")]
    Events,
    #[error("events has no backchannel-logout")]
    NoLogout,
    #[error("the payload of an event is not an object")]
    Payload,
    #[error("it names neither a user nor a session")]
    NoSubject,
    #[error("the subject is not an object, or one of its members is not a text with content")]
    Subject,
    #[error(
        "the subject's format is not supported; supported: iss_sub, opaque, complex with user or session, and email and account where revocation.subject_claims has their claim"
    )]
    SubjectFormat,
    #[error("the subject is another issuer's")]
    SubjectIssuer,
}

impl EventFault {
    /// `err` of RFC 8935 section 2.4.
    pub(crate) const fn err(self) -> &'static str {
        match self {
            Self::Issuer => "invalid_issuer",
            Self::Algorithm | Self::KeyIdMissing | Self::KeyUnknown => "invalid_key",
            Self::Signature => "authentication_failed",
            Self::Audience => "invalid_audience",
            Self::TooLong
            | Self::Form
            | Self::Crit
            | Self::Type
            | Self::IssuedAt
            | Self::TooOld
            | Self::InTheFuture
            | Self::Expired
            | Self::Jti
            | Self::Nonce
            | Self::Events
            | Self::NoLogout
            | Self::Payload
            | Self::NoSubject
            | Self::Subject
            | Self::SubjectFormat
            | Self::SubjectIssuer => "invalid_request",
        }
    }
}

/// The checks that events share with tokens.
impl From<TokenFault> for EventFault {
    fn from(fault: TokenFault) -> Self {
        match fault.step {
            TokenStep::Length => Self::TooLong,
            TokenStep::Crit => Self::Crit,
            TokenStep::Iss => Self::Issuer,
            TokenStep::Alg => Self::Algorithm,
            TokenStep::Typ => Self::Type,
            TokenStep::Kid => Self::KeyIdMissing,
            TokenStep::Key => Self::KeyUnknown,
            TokenStep::Signature => Self::Signature,
            TokenStep::Form
            // Of a token alone: no event comes to these.
            | TokenStep::Time
            | TokenStep::Audience
            | TokenStep::Claims
            | TokenStep::Binding
            | TokenStep::Revocation => Self::Form,
        }
    }
}

/// An event that is well formed and nothing more: it may choose an issuer and a key, nothing else.
pub(crate) struct UnverifiedEvent<'a> {
    token: Unverified<'a>,
    form: EventForm,
}

impl<'a> UnverifiedEvent<'a> {
    /// # Errors
    /// [`EventFault::Form`].
    pub(crate) fn peek(segments: &'a Segments<'a>, form: EventForm) -> Result<Self, EventFault> {
        Ok(Self { token: Unverified::peek(segments)?, form })
    }

    /// Finds the issuer by `iss` alone, among those whose events are accepted, and checks the header.
    ///
    /// # Errors
    /// The first fault: `crit`, `iss`, `alg`, `typ`, `kid`.
    pub(crate) fn address<'i>(
        self,
        issuers: &'i Issuers,
        accepts_events: impl FnOnce(&IssuerName) -> bool,
    ) -> Result<AddressedEvent<'a, 'i>, EventFault> {
        let Self { token, form } = self;
        let accepts_type = |_: &_, typ: Member<'_>| form.accepts_type(&typ);
        let token = token.address_as(issuers, |issuer| accepts_events(&issuer.name), accepts_type)?;
        Ok(AddressedEvent { token, form })
    }
}

/// An unverified event, and the issuer that its `iss` names.
pub(crate) struct AddressedEvent<'a, 'i> {
    token: Addressed<'a, 'i>,
    form: EventForm,
}

/// How far events are believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventLimits<'c> {
    /// From `iat` to the arrival. As long as a token can live: an older event names no token that is still good.
    pub max_age: Duration,
    /// With which subjects can be held against tokens.
    pub subject_claims: &'c SubjectClaims,
}

impl<'a, 'i> AddressedEvent<'a, 'i> {
    /// What the keys are found by. It is lent, so it cannot be verified as a token.
    pub(crate) const fn addressed(&self) -> &Addressed<'a, 'i> {
        &self.token
    }

    /// Verifies the signature, then judges the claims. No audience at all accepts no event.
    ///
    /// # Errors
    /// The first fault: key, signature, `iat` and `exp`, `aud`, `jti`, `nonce`, `events`, the subject.
    pub(crate) fn verify(
        self,
        keys: &KeySet,
        accepted: &[Audience],
        limits: &EventLimits<'_>,
        now: UnixTime,
    ) -> Result<VerifiedEvent, EventFault> {
        let Signed { issuer, claims } = self.token.signed(keys)?;
        let iat = issued_at(&claims, limits.max_age, issuer.leeway, now)?;
        audience(&claims, accepted)?;
        let jti = jti(&claims)?;
        let Named { names, ignored } = match self.form {
            EventForm::LogoutToken => named::by_logout_token(&claims)?,
            EventForm::SecurityEvent => named::by_security_event(&claims, issuer, limits.subject_claims)?,
        };
        let (isses, issuer) = (isses(&claims, issuer), issuer.name.clone());
        Ok(VerifiedEvent { issuer, isses, jti, iat, names, ignored })
    }
}

/// An event that its issuer signed for this service, and lately. It may be a replay: the caller remembers each `jti`. Made only by
/// [`AddressedEvent::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedEvent {
    issuer: IssuerName,
    isses: Vec<String>,
    jti: String,
    iat: UnixTime,
    names: Vec<(EventSubject, String)>,
    ignored: Vec<String>,
}

impl VerifiedEvent {
    pub(crate) const fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    /// Each `iss` that the tokens of the event's subjects may have.
    pub(crate) fn isses(&self) -> &[String] {
        &self.isses
    }

    /// Unique among the issuer's events (RFC 8417 section 2.2); at most [`MAX_JTI_BYTES`].
    pub(crate) fn jti(&self) -> &str {
        &self.jti
    }

    /// By the issuer's clock, cut to the second: tokens that were issued up to it are revoked.
    pub(crate) const fn iat(&self) -> UnixTime {
        self.iat
    }

    /// Whose tokens the event revokes, each once: of no one, if no event of it is one that revokes.
    pub(crate) fn names(&self) -> &[(EventSubject, String)] {
        &self.names
    }

    /// The URIs of its events that mean nothing here.
    pub(crate) fn ignored(&self) -> &[String] {
        &self.ignored
    }
}

/// All that the configuration takes for the issuer; of an issuer with tenants, only the tenant that signed.
fn isses(claims: &Object<'_>, issuer: &Issuer) -> Vec<String> {
    if issuer.tenants.is_none() {
        return issuer.ids.iter().map(|IssuerId(id)| id.clone()).collect();
    }
    match claims.member("iss") {
        Member::String(iss) => vec![iss.into_owned()],
        _ => Vec::new(),
    }
}

/// RFC 7519 section 4.1.6, and section 4.1.4 for `exp`, which only the errata of Back-Channel Logout 1.0 require in a logout token, and
/// which RFC 8417 section 2.2 advises against.
fn issued_at(
    claims: &Object<'_>,
    max_age: Duration,
    leeway: Duration,
    now: UnixTime,
) -> Result<UnixTime, EventFault> {
    let (seconds, leeway) = (now.as_secs_f64(), leeway.as_secs_f64());
    let iat = match claims.member("iat") {
        Member::Number(iat) if iat >= 0.0 => iat,
        _ => return Err(EventFault::IssuedAt),
    };
    if iat < seconds - max_age.as_secs_f64() {
        return Err(EventFault::TooOld);
    }
    if iat > seconds + leeway {
        return Err(EventFault::InTheFuture);
    }
    match claims.member("exp") {
        Member::Absent => {}
        Member::Number(exp) if exp > seconds - leeway => {}
        _ => return Err(EventFault::Expired),
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and about now"
    )]
    Ok(UnixTime::from_secs(iat as u64))
}

/// RFC 7519 section 4.1.3: one string, or an array of strings of which one is enough.
fn audience(claims: &Object<'_>, accepted: &[Audience]) -> Result<(), EventFault> {
    let accepts = |aud: &str| accepted.iter().any(|Audience(audience)| audience == aud);
    let is_accepted = match claims.member("aud") {
        Member::String(aud) => accepts(&aud),
        Member::Strings(auds) => auds.iter().any(|aud| accepts(aud)),
        Member::Absent | Member::Null | Member::Number(_) | Member::Other => false,
    };
    if is_accepted { Ok(()) } else { Err(EventFault::Audience) }
}

/// In bytes: `jti`s are remembered to know a replay, so each takes bounded memory.
pub(crate) const MAX_JTI_BYTES: usize = 256;

/// RFC 7519 section 4.1.7. Both forms require it.
fn jti(claims: &Object<'_>) -> Result<String, EventFault> {
    match claims.member("jti") {
        Member::String(jti) if (1..=MAX_JTI_BYTES).contains(&jti.len()) => Ok(jti.into_owned()),
        _ => Err(EventFault::Jti),
    }
}

#[cfg(test)]
mod tests;
