//! `issuers[].keys` as written, and what its fetches may do.

use url::Url;

use super::super::place::Place;
use super::super::{Certificates, KeySource, WebAccess};
use crate::domain::algorithm::Algorithm;
use crate::domain::clock::UnixTime;
use crate::domain::issuer::IssuerId;
use crate::domain::json::{Json, MAX_DEPTH};
use crate::domain::key_set::{KeySet, KeySetError};

pub(super) fn read(
    place: &Place<'_>,
    ids: Option<&[IssuerId]>,
    algorithms: &[Algorithm],
    access: WebAccess,
) -> Option<KeySource> {
    let accepted = "exactly one of discovery: true, url, file, inline";
    place.required(accepted);
    place.table(|table| {
        let (discovery, url) = (table.at("discovery"), table.at("url"));
        let (file, inline) = (table.at("file"), table.at("inline"));
        let written = [&discovery, &url, &file, &inline].iter().filter(|place| place.is_written()).count();
        if place.is_written() && written != 1 {
            place.fault(format!("names {written} sources"), accepted);
        }
        if discovery.is_written() {
            discovery_source(&discovery, ids?, access)
        } else if url.is_written() {
            let url = fetchable(&url, url.text("a URL")?, &access)?;
            Some(KeySource::Url { url, access })
        } else if file.is_written() {
            let path = file.text("a file")?;
            if let Err(error) = std::fs::File::open(path) {
                file.fault(format!("{path} cannot be read: {error}"), "a readable JWK Set");
                return None;
            }
            Some(KeySource::File(path.into()))
        } else {
            inline_source(&inline, algorithms)
        }
    })
}

/// OpenID Connect Discovery 1.0 section 4.1: the issuer, a slash at its end dropped, and a fixed path.
fn discovery_source(place: &Place<'_>, ids: &[IssuerId], access: WebAccess) -> Option<KeySource> {
    if !place.bool(true) {
        place.fault("is off, and there is no other source", "true");
    }
    let [IssuerId(issuer)] = ids else {
        place.fault(format!("there are {} iss values to discover by", ids.len()), "one issuer");
        return None;
    };
    let address = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    // The path would become part of a query or fragment: the section allows neither in an issuer.
    let plain = !issuer.contains(['?', '#']);
    let document = Url::parse(&address).ok().filter(|url| plain && access.allows(url));
    if document.is_none() {
        place.fault(
            "the issuer is no URL that may be fetched",
            "an https issuer without query and fragment; http only for loopback hosts or with allow_http: true",
        );
    }
    Some(KeySource::Discovery { issuer: issuer.clone(), document: document?, access })
}

fn inline_source(place: &Place<'_>, algorithms: &[Algorithm]) -> Option<KeySource> {
    let text = place.json("a JWK Set: {keys: [...]}")?;
    if holds_private_key(&text) {
        // Refused before any other fault is worded, and never kept: check-config prints inline keys.
        place.fault("holds a private key", "the public half alone: no d, p, q, dp, dq, qi, oth");
        return None;
    }
    let (set, skipped) = KeySet::parse(text.as_bytes(), algorithms, UnixTime::from_secs(0));
    for key in &skipped {
        place.fault(format!("key {} cannot be used: {}", key.index, key.reason), "usable keys only");
    }
    let fault = match set {
        // An issuer may withdraw its keys; a configuration without a key can only be a mistake.
        Ok(set) if set.is_empty() => Some(KeySetError::NoneUsable),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    if let (Some(error), true) = (fault, skipped.is_empty()) {
        place.fault(error.to_string(), "a JWK Set: {keys: [...]}");
    }
    Some(KeySource::Inline(text))
}

/// Whether a JWK Set has members that only private keys have (RFC 7518 sections 6.2.2 and 6.3.2).
fn holds_private_key(text: &str) -> bool {
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth"];
    let Some(Json::Object(set)) = Json::parse(text.as_bytes(), MAX_DEPTH) else { return false };
    set.iter().filter(|(name, _)| name == "keys").any(|(_, keys)| match keys {
        Json::Array(keys) => keys.iter().any(|key| match key {
            Json::Object(members) => members.iter().any(|(name, _)| private.contains(&name.as_str())),
            _ => false,
        }),
        _ => false,
    })
}

pub(super) fn certificates(place: &Place<'_>) -> Option<Certificates> {
    if !place.is_set() {
        return None;
    }
    let accepted = "a readable PEM file of root certificates";
    let file = place.text(accepted)?;
    match std::fs::read(file) {
        Ok(pem) => Some(Certificates { file: file.into(), pem }),
        Err(error) => {
            place.fault(format!("{file} cannot be read: {error}"), accepted);
            None
        }
    }
}

/// A URL that `access` allows.
pub(super) fn fetchable(place: &Place<'_>, text: &str, access: &WebAccess) -> Option<Url> {
    let accepted = "an https URL without user, password and fragment; http only for loopback hosts or with allow_http: true";
    let url = Url::parse(text).ok().filter(|url| access.allows(url) && url.fragment().is_none());
    if url.is_none() {
        // The fault does not quote the URL: it may hold a password.
        place.fault("is not a URL that may be fetched", accepted);
    }
    url
}
