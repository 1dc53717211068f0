//! What a path asks of a token: that segments of it are claims of the token, as in `/users/{sub}/*`.

use std::borrow::Cow;

use super::pattern::Ignored;
use crate::domain::claim::Claim;
use crate::domain::json::{Object, Shallow};
use crate::domain::readings::decoded_once;

/// The ways in which a path meets the patterns of one rule. One of them must agree with the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathDemand<'p> {
    ways: Vec<Vec<Segment<'p>>>,
}

/// A segment of a path, and the claim that it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment<'p> {
    claim: &'p Claim,
    /// Decoded.
    text: Vec<u8>,
    /// What is ignored in the reading that the segment is of.
    ignored: Ignored,
}

impl<'p> PathDemand<'p> {
    /// A demand that no token meets: for a rule whose path is not known.
    pub(super) const fn unmet() -> Self {
        Self { ways: Vec::new() }
    }

    /// The segments of a path, once for each way in which it meets a pattern; `None` if one of the ways asks for nothing.
    pub(super) fn of<'r>(
        captures: impl Iterator<Item = Vec<(&'p Claim, &'r [u8])>>,
        level: usize,
        ignored: Ignored,
    ) -> Option<Self> {
        let ignored = Ignored { trailing_slash: false, ..ignored };
        let segment = |(claim, text): (&'p Claim, &[u8])| {
            // A server that has decoded the path compares the segment as it is; others decode it after they split the path.
            let decoded = if level == 0 { decoded_once(text) } else { None };
            Segment { claim, text: decoded.unwrap_or_else(|| text.to_vec()), ignored }
        };
        let way = |captured: Vec<(&'p Claim, &'r [u8])>| {
            (!captured.is_empty()).then(|| captured.into_iter().map(segment).collect())
        };
        captures.map(way).collect::<Option<_>>().map(|ways| Self { ways })
    }

    /// Whether the token's claims are the segments of one of the ways.
    pub(super) fn is_met_by(&self, claims: &Object<'_>) -> bool {
        self.ways.iter().any(|way| way.iter().all(|segment| segment.is_met_by(claims)))
    }
}

impl Segment<'_> {
    fn is_met_by(&self, claims: &Object<'_>) -> bool {
        let text = match self.claim.of(claims).and_then(Shallow::of) {
            Some(Shallow::String(text)) => text,
            // The digits of the token.
            Some(Shallow::Number(text)) => Cow::Borrowed(text),
            Some(Shallow::Bool(value)) => Cow::Owned(value.to_string()),
            Some(Shallow::Null | Shallow::Array(_) | Shallow::Object(_)) | None => return false,
        };
        !text.is_empty() && self.ignored.fold(text.as_bytes()) == self.ignored.fold(&self.text)
    }
}
