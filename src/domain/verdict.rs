//! What a check ends in: a [`Grant`] or a [`Denial`], as values. Protocols render them, nothing else does.

use serde_json::Value;

use crate::domain::claims::Subject;
use crate::domain::denial::Denial;
use crate::domain::identity::{Headers, Identity};
use crate::domain::issuer::IssuerName;
use crate::domain::token::Withheld;
use crate::domain::verify::Verified;

/// The outcome of one check.
#[derive(Debug)]
pub(crate) enum Verdict<'c> {
    /// The request may go on, with the grant's headers set and removed.
    Allow(Grant<'c>),
    /// The request is turned away.
    Deny(Denial),
}

/// Leave to go on, and all that the answer needs. An identity comes in only by a [`Verified`] token, so an
/// unchecked one has no type to travel in. Names are borrowed from the configuration that granted it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Grant<'c> {
    issuer: Option<&'c IssuerName>,
    subject: Option<Subject>,
    headers: Headers<'c>,
    metadata: Vec<(&'c str, Value)>,
    withheld: Withheld,
    shadow: Option<Denial>,
}

impl<'c> Grant<'c> {
    /// Lets the bearer of a verified token through under its identity.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a claim that has no one form in a header, or is too deep for the metadata.
    pub(crate) fn to(verified: &Verified<'_, 'c>, identity: &'c Identity) -> Result<Self, Denial> {
        Ok(Self {
            issuer: Some(&verified.issuer().name),
            subject: Some(verified.subject().clone()),
            headers: identity.of(verified.claims())?,
            metadata: identity.metadata_of(verified.claims())?,
            ..Self::default()
        })
    }

    /// Lets somebody through of whom nothing is known: no identity header survives.
    #[must_use]
    pub(crate) fn anonymous(identity: &'c Identity) -> Self {
        Self { headers: identity.anonymous(), ..Self::default() }
    }

    /// Lets through what would be denied, for a shadow rollout; without an identity. Who it was is for the log.
    #[must_use]
    pub(crate) fn in_shadow_of(
        denial: Denial,
        issuer: Option<&'c IssuerName>,
        subject: Option<Subject>,
        identity: &'c Identity,
    ) -> Self {
        Self { shadow: Some(denial), issuer, subject, ..Self::anonymous(identity) }
    }

    /// The same, with the request's tokens withheld from the service behind.
    #[must_use]
    pub(crate) fn withholding(self, withheld: Withheld) -> Self {
        Self { withheld, ..self }
    }

    /// The issuer that vouched for the bearer, if one did.
    #[must_use]
    pub(crate) const fn issuer(&self) -> Option<&'c IssuerName> {
        self.issuer
    }

    /// The subject of the token; for the log, the service behind reads the headers.
    #[must_use]
    pub(crate) const fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// Headers to set and to remove.
    #[must_use]
    pub(crate) const fn headers(&self) -> &Headers<'c> {
        &self.headers
    }

    /// Claims for the proxy's dynamic metadata.
    #[must_use]
    pub(crate) fn metadata(&self) -> &[(&'c str, Value)] {
        &self.metadata
    }

    /// What the service behind must not see.
    #[must_use]
    pub(crate) const fn withheld(&self) -> &Withheld {
        &self.withheld
    }

    /// The denial that a shadow rollout let through.
    #[must_use]
    pub(crate) const fn shadow(&self) -> Option<Denial> {
        self.shadow
    }
}
