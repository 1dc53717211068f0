//! `identity` as written: which claims travel in which headers, and which in the proxy's metadata.

use super::super::place::{Place, Table};
use super::super::warnings;
use super::shapes::{choice, http_token};
use crate::domain::claim::Claim;
use crate::domain::identity::{Identity, JsonForm, MappedClaim, PayloadPart, folded};
use crate::domain::token::{TokenPlace, TokenSource};

const CLAIM: &str = "a claim's top-level name, or a JSON Pointer (RFC 6901)";

/// Headers that frame a message or have another owner. A claim's value in one of them could change how the
/// proxy or the upstream reads the request.
const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-passage-authz-proxy-secret",
];

pub(super) fn read(identity: &mut Table<'_>, sources: &[TokenSource]) -> Identity {
    let place = identity.at("headers");
    let mut headers: Vec<(String, MappedClaim)> = Vec::new();
    for (key, claim) in place.entries() {
        let name = header_name(&claim, key, sources);
        if let Some(name) = &name
            && let Some((other, _)) = headers.iter().find(|(other, _)| folded(other) == folded(name))
        {
            claim.fault(
                format!("folds into one spelling with {other}"),
                "names that differ in more than case and marks such as - and _",
            );
        }
        headers.extend(name.zip(mapped_claim(&claim)));
    }
    if !place.is_written() {
        headers.extend(Claim::new("sub").map(|sub| (Identity::DEFAULT_HEADER.to_owned(), sub.into())));
    }
    let metadata = match identity.at("metadata").list("a list of claims") {
        Some(items) => items.iter().filter_map(|item| item.parsed(CLAIM, Claim::new)).collect(),
        None => ["iss", "sub"].into_iter().filter_map(Claim::new).collect(),
    };
    Identity::new(headers, metadata)
}

/// A claim, which is forwarded as a text, or a map that says in which form.
fn mapped_claim(place: &Place<'_>) -> Option<MappedClaim> {
    if !place.is_map() {
        let claim = place.parsed(CLAIM, Claim::new)?;
        warnings::text_of_list(place, claim.as_str());
        return Some(claim.into());
    }
    place.table(|table| {
        let [claim_place, form] = ["claim", "as"].map(|key| table.at(key));
        claim_place.required(CLAIM);
        let form = match choice(&form, &["text", "json", "base64"]) {
            Some("json") => Some(JsonForm::Plain),
            Some("base64") => Some(JsonForm::Base64),
            _ => None,
        };
        if claim_place.is_empty_text() {
            let whole = form.map(|form| MappedClaim::Json(PayloadPart::Whole, form));
            if whole.is_none() {
                claim_place.fault(
                    "is all claims, which are no text",
                    "as: json or base64 beside it, or a claim's name",
                );
            }
            return whole;
        }
        let claim = claim_place.parsed(CLAIM, Claim::new)?;
        if form.is_none() {
            warnings::text_of_list(&claim_place, claim.as_str());
        }
        Some(match form {
            Some(form) => MappedClaim::Json(PayloadPart::Claim(claim), form),
            None => claim.into(),
        })
    })
}

/// The header's name in lower case.
fn header_name(place: &Place<'_>, name: &str, sources: &[TokenSource]) -> Option<String> {
    let accepted = "a header name with at most 5 dashes, underscores or other marks that has no other use";
    let is_name = http_token(name).is_some();
    let lower = name.to_ascii_lowercase();
    let marks = lower.matches(|c: char| !c.is_ascii_alphanumeric()).count();
    let folded_name = folded(&lower);
    let is_reserved = RESERVED_HEADERS.contains(&folded_name.as_str());
    let is_source = sources.iter().any(|source| match &source.place {
        TokenPlace::Header(header) | TokenPlace::Credentials { header, .. } => folded(header) == folded_name,
        TokenPlace::Cookie(_) | TokenPlace::Chunks(_) | TokenPlace::Query(_) => false,
    });
    if !is_name || marks > Identity::MAX_MARKS || is_source || is_reserved {
        place.fault("cannot be an identity header", accepted);
        return None;
    }
    Some(lower)
}
