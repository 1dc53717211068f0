//! The identity as it goes to the upstream with one request.

use std::sync::Arc;

use crate::domain::identity::Identity;
use crate::domain::identity::packed::{Packed, unpack};
use crate::domain::json::{Json, MAX_DEPTH};

/// What the headers and the metadata carry of one verified token, in the order of the configuration's fields. It depends on
/// the token and the configuration alone, so the token cache keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityValues(
    /// The headers, `None` for one that is removed, and the metadata; then, if a header's value is not the plain claim, the plain
    /// claim of each: see [`Identity::compares_with_plain`].
    pub(super) Arc<[u8]>,
);

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MetadataValue<'a> {
    Text(&'a str),
    Json(Json),
}

/// One changed header, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChangedHeader<'a> {
    pub name: &'a str,
    pub plain: Option<&'a str>,
    pub mapped: Option<HeaderValue<'a>>,
}

/// A value of a header, and whether the configuration asks for a text or for JSON, in which any claim may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderValue<'a> {
    Text(&'a str),
    Json(&'a str),
}

impl<'a> HeaderValue<'a> {
    const fn as_str(self) -> &'a str {
        match self {
            Self::Text(text) | Self::Json(text) => text,
        }
    }
}

impl IdentityValues {
    /// How many bytes the values take.
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }
}

/// Which identity headers are set and which removed, and the claims for the proxy's metadata. No name is both set and removed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForwardedIdentity<'c> {
    identity: &'c Identity,
    /// `None`: the request is anonymous.
    values: Option<IdentityValues>,
    /// Spellings of identity headers with other marks than `-` and `_` that the request has.
    seen: Vec<String>,
}

impl<'c> ForwardedIdentity<'c> {
    /// Sets nothing and removes every identity header.
    pub(crate) const fn anonymous(identity: &'c Identity) -> Self {
        Self { identity, values: None, seen: Vec::new() }
    }

    pub(crate) const fn of_token(identity: &'c Identity, values: IdentityValues) -> Self {
        Self { identity, values: Some(values), seen: Vec::new() }
    }

    pub(crate) fn removing(self, seen: Vec<String>) -> Self {
        Self { seen, ..self }
    }

    /// The headers to set; each overwrites what the client sent.
    pub(crate) fn set(&self) -> impl Iterator<Item = (&'c str, &str)> {
        self.headers().filter_map(|(name, value)| Some((name, value?.as_str())))
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
    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&'c str, MetadataValue<'_>)> {
        let values = self.values().skip(self.identity.header_names().count());
        self.identity.metadata_names().zip(values).filter_map(|(key, value)| {
            let value = match value {
                Packed::Text(text) => MetadataValue::Text(text),
                Packed::Json(text) => MetadataValue::Json(Json::parse(text.as_bytes(), MAX_DEPTH)?),
                Packed::None | Packed::Same => return None,
            };
            Some((key, value))
        })
    }

    /// The headers whose value is not the plain claim.
    pub(crate) fn changed(&self) -> impl Iterator<Item = ChangedHeader<'_>> {
        let before = self.identity.header_names().count() + self.identity.metadata_names().count();
        self.headers().zip(self.values().skip(before)).filter_map(|((name, mapped), plain)| {
            let plain = match plain {
                Packed::Same => return None,
                Packed::Text(text) | Packed::Json(text) => Some(text),
                Packed::None => None,
            };
            Some(ChangedHeader { name, plain, mapped })
        })
    }

    /// Every identity header, with its value.
    fn headers(&self) -> impl Iterator<Item = (&'c str, Option<HeaderValue<'_>>)> {
        let values = self.values().map(|value| match value {
            Packed::Text(text) => Some(HeaderValue::Text(text)),
            Packed::Json(text) => Some(HeaderValue::Json(text)),
            Packed::None | Packed::Same => None,
        });
        self.identity.header_names().zip(values.chain(std::iter::repeat(None)))
    }

    fn values(&self) -> impl Iterator<Item = Packed<'_>> {
        unpack(self.values.as_ref().map_or(&[], |values| &values.0))
    }
}
