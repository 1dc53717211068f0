//! The result of a check as a value: a [`Grant`] or a [`Denial`]. Only the protocols render it.

use crate::domain::claims::{self, Subject};
use crate::domain::denial::Denial;
use crate::domain::identity::{ForwardedIdentity, Identity};
use crate::domain::issuer::IssuerName;
use crate::domain::token::Withheld;
use crate::domain::token_fault::{TokenFault, TokenStep};
use crate::domain::verify::{TokenIdentity, Verified};

#[derive(Debug)]
pub(crate) enum Verdict<'c> {
    /// The request goes to the upstream, with the grant's headers set and removed.
    Allow(Grant<'c>),
    Deny(Denial),
}

/// An allowed request, with all that the answer needs. Only a [`Verified`] token brings an identity in: an unchecked
/// identity has no type to travel in. Names are borrowed from the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grant<'c> {
    issuer: Option<&'c IssuerName>,
    subject: Option<Subject>,
    identity: ForwardedIdentity<'c>,
    withheld: Withheld,
    shadow: Option<Denial>,
}

impl<'c> Grant<'c> {
    /// Allows a request with a verified token, under the identity that [`Verified::identity`] or the token cache has of it.
    ///
    /// # Errors
    /// That of the identity; then [`Denial::ProofMissing`].
    pub(crate) fn to(
        verified: &Verified<'_, 'c>,
        identity: &'c Identity,
        of_token: TokenIdentity,
    ) -> Result<Self, TokenFault> {
        let values = of_token.map_err(|denial| TokenStep::Claims.fault(denial))?;
        claims::binding(verified.claims(), verified.issuer())?;
        Ok(Self {
            issuer: Some(&verified.issuer().name),
            subject: Some(verified.subject().clone()),
            identity: ForwardedIdentity::of_token(identity, values),
            ..Self::anonymous(identity)
        })
    }

    /// Allows a request without a token: every identity header is removed.
    #[must_use]
    pub(crate) fn anonymous(identity: &'c Identity) -> Self {
        Self {
            issuer: None,
            subject: None,
            identity: ForwardedIdentity::anonymous(identity),
            withheld: Withheld::default(),
            shadow: None,
        }
    }

    /// Allows what would be denied, for a shadow rollout, without an identity. Issuer and subject go to the log only.
    #[must_use]
    pub(crate) fn in_shadow_of(
        denial: Denial,
        issuer: Option<&'c IssuerName>,
        subject: Option<Subject>,
        identity: &'c Identity,
    ) -> Self {
        Self { shadow: Some(denial), issuer, subject, ..Self::anonymous(identity) }
    }

    /// The same, with further spellings of identity headers removed that the request has.
    #[must_use]
    pub(crate) fn removing(self, seen: Vec<String>) -> Self {
        Self { identity: self.identity.removing(seen), ..self }
    }

    /// The same, with these parts of the request withheld from the upstream.
    #[must_use]
    pub(crate) fn withholding(self, withheld: Withheld) -> Self {
        Self { withheld, ..self }
    }

    /// The issuer of the token, if the request has one.
    #[must_use]
    pub(crate) const fn issuer(&self) -> Option<&'c IssuerName> {
        self.issuer
    }

    /// The subject of the token, for the log: the upstream gets it in a header.
    #[must_use]
    pub(crate) const fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// The identity headers to set and to remove, and the claims for the proxy's metadata.
    #[must_use]
    pub(crate) const fn identity(&self) -> &ForwardedIdentity<'c> {
        &self.identity
    }

    #[must_use]
    pub(crate) const fn withheld(&self) -> &Withheld {
        &self.withheld
    }

    /// The denial that a shadow rollout did not enforce.
    #[must_use]
    pub(crate) const fn shadow(&self) -> Option<Denial> {
        self.shadow
    }
}
