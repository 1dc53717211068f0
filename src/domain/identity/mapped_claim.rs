//! What an identity header or a key of the metadata carries: a claim or the whole payload, in one of three forms.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::claim::{Claim, legal_header_value};
use crate::domain::denial::Denial;
use crate::domain::identity::claim_map::ClaimMap;
use crate::domain::json::{Json, MAX_DEPTH, Member, Object};

/// How many arrays and objects a value in the metadata may nest. Each level is two messages to protobuf, whose C++
/// parser stops at a depth of 100.
const MAX_METADATA_DEPTH: usize = 16;

/// A part of a verified token, and how a header writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MappedClaim {
    /// A text, without this prefix if it begins with it, and then what the map has for it.
    Text { from: TextClaim, cut_prefix: Option<String>, map: Option<Arc<ClaimMap>> },
    /// Any JSON value.
    Json(PayloadPart, JsonForm),
}

/// Where a text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TextClaim {
    /// The claim as a text: see [`Claim::header_value`].
    One(Claim),
    /// The first of these that is a string with content. Never empty.
    FirstOf(Vec<Claim>),
}

impl TextClaim {
    fn value(&self, claims: &Object<'_>) -> Result<Option<String>, Denial> {
        match self {
            Self::One(claim) => claim.header_value(claims),
            Self::FirstOf(all) => {
                let has_text = |claim: &&Claim| matches!(Member::of(claim.of(claims)), Member::String(text) if !text.is_empty());
                all.iter().find(has_text).map_or(Ok(None), |claim| claim.header_value(claims))
            }
        }
    }
}

/// A part of a token's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PayloadPart {
    Claim(Claim),
    /// All claims, as one object.
    Whole,
}

/// How JSON is written into a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonForm {
    /// JSON without spaces, with escapes for all that is not ASCII: proxies and frameworks differ in how they read other bytes.
    Plain,
    /// The same text in base64url without padding (RFC 4648 section 5).
    Base64,
}

impl From<Claim> for MappedClaim {
    fn from(claim: Claim) -> Self {
        Self::Text { from: TextClaim::One(claim), cut_prefix: None, map: None }
    }
}

impl MappedClaim {
    /// The claim as a JSON value.
    pub(crate) const fn json_of(claim: Claim) -> Self {
        Self::Json(PayloadPart::Claim(claim), JsonForm::Plain)
    }

    /// The claim that a header would carry if nothing were cut, mapped or chosen: of several, the last one, which is read where
    /// the others are missing. `None` for JSON.
    pub(super) fn plain_claim(&self) -> Option<&Claim> {
        match self {
            Self::Text { from: TextClaim::One(claim), .. } => Some(claim),
            Self::Text { from: TextClaim::FirstOf(claims), .. } => claims.last(),
            Self::Json(..) => None,
        }
    }

    /// What it is made of, for operators.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Text { from: TextClaim::One(claim), .. } | Self::Json(PayloadPart::Claim(claim), _) => {
                claim.as_str().to_owned()
            }
            Self::Text { from: TextClaim::FirstOf(claims), .. } => {
                let names: Vec<_> = claims.iter().map(Claim::as_str).collect();
                names.join(" or ")
            }
            Self::Json(PayloadPart::Whole, _) => "the payload".to_owned(),
        }
    }

    /// The value for the metadata; `None` leaves the key out: the claim is missing or null, or a text that a header would leave
    /// out.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a text that has no single form in a header, and for JSON that is deeper than
    /// [`MAX_METADATA_DEPTH`]: the proxy could not parse the answer.
    pub(super) fn json(&self, claims: &Object<'_>) -> Result<Option<Json>, Denial> {
        match self {
            Self::Json(PayloadPart::Claim(claim), JsonForm::Plain) => claim.value(claims, MAX_METADATA_DEPTH),
            Self::Json(PayloadPart::Whole, JsonForm::Plain) => {
                claims.to_json(MAX_METADATA_DEPTH - 1).map(Some).ok_or(Denial::ClaimInvalid)
            }
            Self::Json(_, JsonForm::Base64) | Self::Text { .. } => Ok(self.text(claims)?.map(Json::String)),
        }
    }

    /// The header's value; `None` leaves the header out: the claim is missing, null or an empty text.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a text that has no single form in a header.
    pub(super) fn text(&self, claims: &Object<'_>) -> Result<Option<String>, Denial> {
        let (value, form) = match self {
            Self::Text { from, cut_prefix, map } => {
                let Some(text) = from.value(claims)? else { return Ok(None) };
                let text = match cut_prefix.as_ref().and_then(|prefix| text.strip_prefix(prefix.as_str())) {
                    Some("") => return Ok(None),
                    // What was inside of the text is at its start now.
                    Some(rest) if !legal_header_value(rest) => return Err(Denial::ClaimInvalid),
                    Some(rest) => rest.to_owned(),
                    None => text,
                };
                return Ok(match map {
                    Some(map) => map.get(&text),
                    None => Some(text),
                });
            }
            Self::Json(PayloadPart::Claim(claim), form) => (claim.value(claims, MAX_DEPTH)?, form),
            Self::Json(PayloadPart::Whole, form) => {
                (Some(claims.to_json(MAX_DEPTH).ok_or(Denial::ClaimInvalid)?), form)
            }
        };
        let is_empty = |value: &Json| matches!(value, Json::String(text) if text.is_empty());
        Ok(value.filter(|value| !is_empty(value)).map(|value| match form {
            JsonForm::Plain => value.to_ascii(),
            JsonForm::Base64 => URL_SAFE_NO_PAD.encode(value.to_ascii()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let claim = |name: &str| PayloadPart::Claim(Claim::new(name).unwrap());
        let payload = "{\"sub\":\"u\",\"groups\":[\"CN=a,OU=b\", \"\u{e9}\u{1f600}\u{7f}\u{85}\"], \"id\":18446744073709551617,\"empty\":\"\",\"none\":null,\"o\":{\"a\":[1.50]},\"list\":[]}";
        let claims = Object::parse(payload.as_bytes()).unwrap();
        for (part, want) in [
            (claim("sub"), Some("\"u\"")),
            (claim("groups"), Some(r#"["CN=a,OU=b","\u00e9\ud83d\ude00\u007f\u0085"]"#)),
            (claim("id"), Some("18446744073709551617")),
            (claim("/o/a"), Some("[1.50]")),
            (claim("o"), Some(r#"{"a":[1.50]}"#)),
            (claim("list"), Some("[]")),
            (claim("empty"), None),
            (claim("none"), None),
            (claim("absent"), None),
            (
                PayloadPart::Whole,
                Some(
                    r#"{"empty":"","groups":["CN=a,OU=b","\u00e9\ud83d\ude00\u007f\u0085"],"id":18446744073709551617,"list":[],"none":null,"o":{"a":[1.50]},"sub":"u"}"#,
                ),
            ),
        ] {
            let plain = MappedClaim::Json(part.clone(), JsonForm::Plain).text(&claims).unwrap();
            assert_eq!(plain.as_deref(), want, "{part:?}");
            let encoded = MappedClaim::Json(part.clone(), JsonForm::Base64).text(&claims).unwrap();
            let decoded =
                encoded.map(|text| String::from_utf8(URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap());
            assert_eq!(decoded.as_deref(), want, "{part:?}");
        }
        let text = |name: &str| MappedClaim::from(Claim::new(name).unwrap()).text(&claims);
        assert_eq!(text("sub"), Ok(Some("u".to_owned())));
        assert_eq!(text("groups"), Err(Denial::ClaimInvalid));
    }
    #[test]
    fn metadata_is_no_deeper_than_a_proxy_reads() {
        let claim = MappedClaim::json_of(Claim::new("d").unwrap());
        let whole = MappedClaim::Json(PayloadPart::Whole, JsonForm::Plain);
        for (depth, of_claim, of_whole) in [
            (0, true, true),
            (MAX_METADATA_DEPTH - 1, true, true),
            (MAX_METADATA_DEPTH, true, false),
            (MAX_METADATA_DEPTH + 1, false, false),
            (120, false, false),
        ] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = format!("{{\"d\":{}1{}}}", open.repeat(depth), close.repeat(depth));
                let claims = Object::parse(text.as_bytes()).unwrap();
                for (mapped, fits) in [(&claim, of_claim), (&whole, of_whole)] {
                    let value = mapped.json(&claims).map(|value| value.is_some());
                    let want = if fits { Ok(true) } else { Err(Denial::ClaimInvalid) };
                    assert_eq!(value, want, "{depth} {open} {mapped:?}");
                }
            }
        }
    }
}
