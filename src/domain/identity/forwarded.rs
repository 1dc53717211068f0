//! The identity as it goes to the upstream with one request.

use std::sync::Arc;

use crate::domain::identity::Identity;
use crate::domain::json::Json;

/// What the headers and the metadata carry of one verified token, in the order of the configuration's fields. It depends on
/// the token and the configuration alone, so the token cache keeps it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IdentityValues {
    /// `None` removes the header.
    pub(super) headers: Box<[Option<Box<str>>]>,
    pub(super) metadata: Box<[Option<Json>]>,
    /// The headers whose value is not the plain claim: see [`Identity::compares_with_plain`].
    pub(super) changes: Box<[HeaderChange]>,
}

/// A header that a map gives another value than the plain claim would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderChange {
    pub(super) header: usize,
    pub(super) plain: Option<Box<str>>,
}

/// One changed header, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChangedHeader<'a> {
    pub name: &'a str,
    pub plain: Option<&'a str>,
    pub mapped: Option<&'a str>,
}

impl IdentityValues {
    /// About how many bytes of memory the values take.
    pub(crate) fn size(&self) -> usize {
        let headers = self.headers.iter().flatten().map(|value| value.len());
        let metadata = self.metadata.iter().flatten().map(Json::size);
        let changes = self.changes.iter().filter_map(|change| change.plain.as_deref()).map(str::len);
        headers.chain(metadata).chain(changes).sum()
    }
}

/// Which identity headers are set and which removed, and the claims for the proxy's metadata. No name is both set and removed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForwardedIdentity<'c> {
    identity: &'c Identity,
    /// `None`: the request is anonymous.
    values: Option<Arc<IdentityValues>>,
    /// Spellings of identity headers with other marks than `-` and `_` that the request has.
    seen: Vec<String>,
}

impl<'c> ForwardedIdentity<'c> {
    /// Sets nothing and removes every identity header.
    pub(crate) const fn anonymous(identity: &'c Identity) -> Self {
        Self { identity, values: None, seen: Vec::new() }
    }

    pub(crate) const fn of_token(identity: &'c Identity, values: Arc<IdentityValues>) -> Self {
        Self { identity, values: Some(values), seen: Vec::new() }
    }

    pub(crate) fn removing(self, seen: Vec<String>) -> Self {
        Self { seen, ..self }
    }

    /// The headers to set; each overwrites what the client sent.
    pub(crate) fn set(&self) -> impl Iterator<Item = (&'c str, &str)> {
        self.headers().filter_map(|(name, value)| Some((name, value?)))
    }

    /// The headers to remove beside the aliases: identity headers without a value, and other spellings that the request has.
    pub(crate) fn removed_beside_aliases(&self) -> impl Iterator<Item = &str> {
        let empty = self.headers().filter_map(|(name, value)| value.is_none().then_some(name));
        empty.chain(self.seen.iter().map(String::as_str))
    }

    /// The headers to remove.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &str> {
        self.identity.aliases().iter().map(String::as_str).chain(self.removed_beside_aliases())
    }

    /// The claims for the proxy's metadata, each under its key.
    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&'c str, &Json)> {
        let values = self.values.iter().flat_map(|values| &values.metadata);
        self.identity.metadata_names().zip(values).filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// Whether a header's value is not the plain claim.
    pub(crate) fn is_changed(&self) -> bool {
        self.values.as_ref().is_some_and(|values| !values.changes.is_empty())
    }

    /// The headers whose value is not the plain claim.
    pub(crate) fn changed(&self) -> impl Iterator<Item = ChangedHeader<'_>> {
        let changes = self.values.iter().flat_map(|values| &values.changes);
        changes.filter_map(|HeaderChange { header, plain }| {
            let (name, mapped) = self.headers().nth(*header)?;
            Some(ChangedHeader { name, plain: plain.as_deref(), mapped })
        })
    }

    /// Every identity header, with its value.
    fn headers(&self) -> impl Iterator<Item = (&'c str, Option<&str>)> {
        let values = self.values.as_ref().map(|values| &values.headers);
        let value = move |at| values.and_then(|values| values.get(at)).and_then(Option::as_deref);
        self.identity.header_names().enumerate().map(move |(at, name)| (name, value(at)))
    }
}
