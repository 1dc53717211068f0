//! What an identity header carries: a claim or the whole payload, in one of three forms.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::claim::{Claim, legal_header_value};
use crate::domain::denial::Denial;
use crate::domain::identity::claim_map::ClaimMap;
use crate::domain::json::{Json, MAX_DEPTH, Member, Object};

/// A part of a verified token, and how a header writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappedClaim {
    /// A text, without this prefix if it begins with it, and then what the map has for it.
    Text { from: TextClaim, cut_prefix: Option<String>, map: Option<Arc<ClaimMap>> },
    /// Any JSON value.
    Json(PayloadPart, JsonForm),
}

/// Where a text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextClaim {
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
pub enum PayloadPart {
    Claim(Claim),
    /// All claims, as one object.
    Whole,
}

/// How JSON is written into a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonForm {
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
    /// The claims that are read; `None` if all are.
    pub(crate) const fn claims(&self) -> Option<&[Claim]> {
        match self {
            Self::Text { from: TextClaim::One(claim), .. } | Self::Json(PayloadPart::Claim(claim), _) => {
                Some(std::slice::from_ref(claim))
            }
            Self::Text { from: TextClaim::FirstOf(claims), .. } => Some(claims.as_slice()),
            Self::Json(PayloadPart::Whole, _) => None,
        }
    }

    /// The header's value; `None` leaves the header out: the claim is missing, null or an empty text.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a text that has no single form in a header.
    pub(super) fn value(&self, claims: &Object<'_>) -> Result<Option<String>, Denial> {
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
                (Some(claims.to_json().ok_or(Denial::ClaimInvalid)?), form)
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
            let plain = MappedClaim::Json(part.clone(), JsonForm::Plain).value(&claims).unwrap();
            assert_eq!(plain.as_deref(), want, "{part:?}");
            let encoded = MappedClaim::Json(part.clone(), JsonForm::Base64).value(&claims).unwrap();
            let decoded =
                encoded.map(|text| String::from_utf8(URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap());
            assert_eq!(decoded.as_deref(), want, "{part:?}");
        }
        let text = |name: &str| MappedClaim::from(Claim::new(name).unwrap()).value(&claims);
        assert_eq!(text("sub"), Ok(Some("u".to_owned())));
        assert_eq!(text("groups"), Err(Denial::ClaimInvalid));
    }
}
