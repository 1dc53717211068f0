//! `issuers[].keys` as written, and what its fetches may do.

use std::path::PathBuf;

use url::Url;

use super::super::place::Place;
use super::super::{Certificates, ClientCertificate, KeySource, WebAccess, discovery_url};
use crate::domain::algorithm::Algorithm;
use crate::domain::clock::UnixTime;
use crate::domain::issuer::{IssuerId, TENANT, is_loopback};
use crate::domain::json::{Json, MAX_DEPTH};
use crate::domain::key_set::{KeySet, KeySetError};

pub(super) fn read(
    place: &Place<'_>,
    ids: Option<&[IssuerId]>,
    algorithms: &[Algorithm],
    access: WebAccess,
) -> Option<KeySource> {
    let accepted = "exactly one of discovery, url, file, inline";
    place.required(accepted);
    place.table(|table| {
        let (discovery, url) = (table.at("discovery"), table.at("url"));
        let (file, inline) = (table.at("file"), table.at("inline"));
        let (bearer, own) = (table.at("bearer_file"), table.at("client_cert"));
        let written = [&discovery, &url, &file, &inline].iter().filter(|place| place.is_written()).count();
        if place.is_written() && written != 1 {
            place.fault(format!("names {written} sources"), accepted);
        }
        let is_fetched = discovery.is_written() || url.is_written();
        for credentials in [&bearer, &own].into_iter().filter(|place| place.is_written() && !is_fetched) {
            credentials
                .fault("has no meaning without a fetch", "leaving it out, or discovery or url beside it");
        }
        let access =
            WebAccess { bearer_file: bearer_file(&bearer), client_cert: client_cert(&own), ..access };
        let source = if discovery.is_written() {
            discovery_source(&discovery, ids?, access)
        } else if url.is_written() {
            let url = fetchable(&url, url.text("a URL")?, &access)?;
            Some(KeySource::Url { url, access })
        } else if file.is_written() {
            let path = file.text("a file")?;
            if let Err(error) = std::fs::File::open(path) {
                file.unreadable(path, &error, "a readable JWK Set");
                return None;
            }
            Some(KeySource::File(path.into()))
        } else {
            inline_source(&inline, algorithms)
        };
        if let Some(KeySource::Url { url, access } | KeySource::Discovery { document: url, access, .. }) =
            &source
            && access.bearer_file.is_some()
            && url.scheme() != "https"
            && !is_loopback(url)
        {
            bearer.fault("would be sent in clear", "an https URL beside it");
        }
        source
    })
}

fn bearer_file(place: &Place<'_>) -> Option<PathBuf> {
    let accepted = "a readable file with a token on one line";
    let path = place.text(accepted)?;
    if let Err(error) = std::fs::File::open(path) {
        place.unreadable(path, &error, accepted);
    }
    Some(path.into())
}

fn client_cert(place: &Place<'_>) -> Option<ClientCertificate> {
    if !place.is_written() {
        return None;
    }
    let accepted = "{cert: FILE, key: FILE}, both PEM";
    place.table(|table| {
        let (cert, key) = (table.at("cert"), table.at("key"));
        cert.required("a PEM file");
        key.required("a PEM file");
        let (cert, key) = (cert.text("a PEM file"), key.text("a PEM file"));
        let (cert, key): (PathBuf, PathBuf) = (cert?.into(), key?.into());
        let read = ClientCertificate::read(cert.clone(), key.clone());
        if let Err(error) = &read {
            place.reads(&cert);
            place.reads(&key);
            place.fault(format!("cannot be read: {error}"), accepted);
        }
        read.ok()
    })
}

/// The document at the issuer's own address, or at another one, for an issuer whose name is no address or is spelled in several
/// ways.
fn discovery_source(place: &Place<'_>, ids: &[IssuerId], access: WebAccess) -> Option<KeySource> {
    // A document for all tenants writes the tenant's ID so.
    let issuers = ids.iter().map(|id| id.0.replace(TENANT, "{tenantid}")).collect();
    if place.is_text() {
        let document = fetchable(place, place.text("true, or the URL of the discovery document")?, &access)?;
        return Some(KeySource::Discovery { issuers, document, access });
    }
    if !place.bool(true) {
        place.fault("is off, and there is no other source", "true, or the URL of the discovery document");
    }
    let [IssuerId(issuer)] = ids else {
        place.fault(
            format!("there are {} iss values to discover by", ids.len()),
            "one issuer, or the URL of the discovery document",
        );
        return None;
    };
    let document = discovery_url(issuer).filter(|url| access.allows(url) && !issuer.contains(TENANT));
    if document.is_none() {
        place.fault(
            "the issuer is no URL that may be fetched",
            "an https issuer without query and fragment; http only for loopback hosts or with allow_http: true; or the URL of the discovery document",
        );
    }
    Some(KeySource::Discovery { issuers, document: document?, access })
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
            place.unreadable(file, &error, accepted);
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
