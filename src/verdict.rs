//! What a check ends in: a [`Grant`] or a [`Denial`], as values. Protocols render them, nothing else does.

use crate::denial::Denial;
use crate::identity::Identity;
use crate::issuer::IssuerName;
use crate::verify::Verified;

/// The outcome of one check.
#[derive(Debug)]
pub enum Verdict {
    /// The request may go on, with the grant's headers set and removed.
    Allow(Grant),
    /// The request is turned away.
    Deny(Denial),
}

/// Leave to go on, and all that the answer needs. It can only be made from a [`Verified`] token, so an
/// unchecked request has no type to travel in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    issuer: IssuerName,
    set: Vec<(String, String)>,
    remove: Vec<String>,
    metadata: Vec<(String, String)>,
}

impl Grant {
    /// Lets the bearer of a verified token through under its subject.
    #[must_use]
    pub fn to(verified: &Verified<'_, '_>, identity: &Identity) -> Self {
        let subject = verified.subject().as_str().to_owned();
        Self {
            issuer: verified.issuer().name.clone(),
            set: vec![(identity.header().to_owned(), subject.clone())],
            remove: identity.disguises().to_vec(),
            metadata: vec![("iss".to_owned(), verified.iss().to_owned()), ("sub".to_owned(), subject)],
        }
    }

    /// The issuer that vouched for the bearer.
    #[must_use]
    pub const fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    /// Headers to set, overwriting.
    #[must_use]
    pub fn set(&self) -> &[(String, String)] {
        &self.set
    }

    /// Headers to remove. None of them is in [`Grant::set`].
    #[must_use]
    pub fn remove(&self) -> &[String] {
        &self.remove
    }

    /// Claims for the proxy's dynamic metadata.
    #[must_use]
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }
}
