//! The issuers as written, with the profile of a Passage app.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::super::document::{Place, Table};
use super::super::{Certificates, IssuerConfig, KeySource, Refresh, WebAccess};
use super::{HOUR, SECOND};
use crate::domain::algorithm::Algorithm;
use crate::domain::clock::UnixTime;
use crate::domain::issuer::{Audience, Audiences, Issuer, IssuerId, IssuerName, PassageApp};
use crate::domain::key_set::KeySet;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Reads `issuers`; two of them may share neither name nor `iss`.
pub(super) fn read(place: &Place<'_>) -> Vec<IssuerConfig> {
    let accepted = "a list of at least one issuer";
    place.required(accepted);
    let Some(items) = place.list(accepted) else { return Vec::new() };
    if items.is_empty() {
        place.fault("is empty, so no token could be accepted", accepted);
    }
    let mut issuers: Vec<IssuerConfig> = Vec::new();
    for item in &items {
        let Some(next) = item.table(issuer) else { continue };
        for earlier in &issuers {
            if earlier.issuer.name == next.issuer.name {
                item.fault(
                    format!("the name {} is taken", next.issuer.name),
                    "a name of its own for each issuer",
                );
            }
            if let Some(id) = next.issuer.ids.iter().find(|id| earlier.issuer.ids.contains(id)) {
                let problem = format!("iss {:?} belongs to issuer {} already", id.0, earlier.issuer.name);
                item.fault(problem, "each iss at one issuer");
            }
        }
        issuers.push(next);
    }
    issuers
}

fn issuer(table: &mut Table<'_>) -> Option<IssuerConfig> {
    let accepted = "1 to 63 letters, digits, dots, dashes and underscores";
    let name = table.at("name");
    name.required(accepted);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let name = name.parsed(accepted, |text| {
        ((1..=63).contains(&text.len()) && text.bytes().all(legal)).then(|| IssuerName::new(text))
    });
    let access =
        WebAccess { allow_http: table.at("allow_http").bool(false), ca: certificates(&table.at("ca")) };
    let profile = table.at("passage");
    let app = if profile.is_set() { profile.table(|app| passage(app, &access)) } else { None };
    let is_app = profile.is_written();
    if is_app && !profile.is_set() {
        profile.fault("has no value", "{app_id: ID}");
    }

    let ids = ids(&table.at("issuer"), is_app, app.as_ref());
    let audiences = audiences(&table.at("audiences"), is_app);
    let algorithms = algorithms(&table.at("algorithms"));
    let types = types(&table.at("types"));
    let keys_place = table.at("keys");
    let keys = if is_app && !keys_place.is_written() {
        let url = app.as_ref().and_then(|app| Url::parse(&app.keys_url).ok());
        url.map(|url| KeySource::Url { url, access })
    } else {
        keys(&keys_place, ids.as_deref(), &algorithms, access)
    };
    let require_kid = table.at("require_kid").bool(is_app);
    let leeway = table.at("leeway").duration(Duration::ZERO..=SECOND * 300, SECOND * 30);
    let refresh = table.at("refresh").table(refresh);
    let issuer = Issuer { name: name?, ids: ids?, audiences, algorithms, require_kid, types, leeway };
    Some(IssuerConfig { issuer, keys: keys?, refresh })
}

/// The profile's own keys.
fn passage(table: &mut Table<'_>, access: &WebAccess) -> Option<PassageApp> {
    // The ID stands in the path of the key URL, so it may hold nothing that a URL reads as structure.
    let accepted = "the app's ID: letters, digits, dashes and underscores";
    let app_id = table.at("app_id");
    app_id.required(accepted);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let id = app_id.parsed(accepted, |text| text.bytes().all(legal).then(|| text.to_owned()));
    let base_url = table.at("base_url");
    let base = if base_url.is_written() {
        let text = base_url.text("the URL of Passage's host");
        text.filter(|text| fetchable(&base_url, text, access).is_some())
    } else {
        Some(PassageApp::BASE_URL)
    };
    Some(PassageApp::new(&id?, base?))
}

fn ids(place: &Place<'_>, is_app: bool, app: Option<&PassageApp>) -> Option<Vec<IssuerId>> {
    let accepted = "the exact iss value, or a list of them";
    if !place.is_written() {
        if !is_app {
            place.required(accepted);
        }
        return app.map(|app| app.ids.to_vec());
    }
    let items = place.list_or_one(accepted)?;
    if items.is_empty() {
        place.fault("is empty", accepted);
    }
    items.iter().map(|item| item.text(accepted).map(|text| IssuerId(text.to_owned()))).collect()
}

fn audiences(place: &Place<'_>, is_app: bool) -> Audiences {
    let accepted = "a list of audiences; [] says on purpose that aud is not checked";
    if !is_app {
        place.required(accepted);
    }
    let items = place.list(accepted).unwrap_or_default();
    let list: Vec<_> = items.iter().filter_map(|item| item.text(accepted)).collect();
    if list.is_empty() {
        return Audiences::NotChecked;
    }
    Audiences::OneOf(list.into_iter().map(|aud| Audience(aud.to_owned())).collect())
}

fn algorithms(place: &Place<'_>) -> Vec<Algorithm> {
    let names: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    let accepted = format!("a list out of {}", names.join(", "));
    let Some(items) = place.list(&accepted) else { return vec![Algorithm::Rs256] };
    if items.is_empty() {
        place.fault("is empty, so no token could be accepted", &accepted);
    }
    items.iter().filter_map(|item| item.parsed(&accepted, Algorithm::from_name)).collect()
}

fn types(place: &Place<'_>) -> Vec<String> {
    let accepted = "a list of typ values, such as [JWT, at+jwt]";
    let Some(items) = place.list(accepted) else { return vec!["jwt".to_owned(), "at+jwt".to_owned()] };
    let types = items.iter().filter_map(|item| item.text(accepted)).map(|text| {
        let typ = text.to_ascii_lowercase();
        typ.strip_prefix("application/").map_or_else(|| typ.clone(), str::to_owned)
    });
    types.collect()
}

fn certificates(place: &Place<'_>) -> Option<Certificates> {
    if !place.is_set() {
        return None;
    }
    let accepted = "a readable PEM file of root certificates";
    let file = place.text(accepted)?;
    let read = std::fs::read(file);
    let pem = read.map_err(|error| place.fault(format!("{file} cannot be read: {error}"), accepted)).ok()?;
    Some(Certificates { file: file.into(), pem })
}

fn keys(
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
            discovered(&discovery, ids?, access)
        } else if url.is_written() {
            let url = fetchable(&url, url.text("a URL")?, &access)?;
            Some(KeySource::Url { url, access })
        } else if file.is_written() {
            let path = file.text("a file")?;
            let readable = std::fs::File::open(path);
            readable
                .map_err(|error| file.fault(format!("{path} cannot be read: {error}"), "a readable JWK Set"))
                .ok()?;
            Some(KeySource::File(path.into()))
        } else {
            written_inline(&inline, algorithms)
        }
    })
}

/// OpenID Connect Discovery 1.0 section 4.1: the issuer, a slash at its end dropped, and a fixed path.
fn discovered(place: &Place<'_>, ids: &[IssuerId], access: WebAccess) -> Option<KeySource> {
    if !place.bool(true) {
        place.fault("is off, and there is no other source", "true");
    }
    let [IssuerId(issuer)] = ids else {
        place.fault(format!("there are {} iss values to discover by", ids.len()), "one issuer");
        return None;
    };
    let document = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    // A question mark would swallow the path: the section allows neither query nor fragment.
    let plain = !issuer.contains(['?', '#']);
    let document = Url::parse(&document).ok().filter(|url| plain && access.allows(url));
    if document.is_none() {
        place.fault(
            "the issuer is no URL that may be fetched",
            "an https issuer without query and fragment; http only for loopback hosts or with allow_http: true",
        );
    }
    Some(KeySource::Discovery { issuer: issuer.clone(), document: document?, access })
}

fn written_inline(place: &Place<'_>, algorithms: &[Algorithm]) -> Option<KeySource> {
    let text = place.json()?;
    if holds_private_key(&text) {
        // Before anything else is said of it: what is read here is printed by check-config.
        place.fault("holds a private key", "the public half alone: no d, p, q, dp, dq, qi, oth");
        return None;
    }
    let (set, skipped) = KeySet::parse(text.as_bytes(), algorithms, UnixTime::from_secs(0));
    for key in &skipped {
        place.fault(format!("key {} cannot be used: {}", key.index, key.reason), "usable keys only");
    }
    if let (Err(error), true) = (set, skipped.is_empty()) {
        place.fault(error.to_string(), "a JWK Set: {keys: [...]}");
    }
    Some(KeySource::Inline(text))
}

/// Whether a JWK Set has members that only private keys have (RFC 7518 sections 6.2.2 and 6.3.2).
fn holds_private_key(text: &str) -> bool {
    let set: Value = serde_json::from_str(text).unwrap_or_default();
    let keys = set.get("keys").and_then(Value::as_array).into_iter().flatten();
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth"];
    keys.into_iter().any(|key| private.iter().any(|member| key.get(member).is_some()))
}

fn fetchable(place: &Place<'_>, text: &str, access: &WebAccess) -> Option<Url> {
    let accepted = "an https URL without user, password and fragment; http only for loopback hosts or with allow_http: true";
    let url = Url::parse(text).ok().filter(|url| access.allows(url) && url.fragment().is_none());
    if url.is_none() {
        // Not echoed: a URL with a password in it is one of the ways to get here.
        place.fault("is not a URL that may be fetched", accepted);
    }
    url
}

fn refresh(table: &mut Table<'_>) -> Refresh {
    Refresh {
        interval: table.at("interval").duration(MILLISECOND * 100..=HOUR * 24 * 7, SECOND * 300),
        timeout: table.at("timeout").duration(MILLISECOND * 10..=SECOND * 60, SECOND * 3),
        max_stale: table.at("max_stale").duration(SECOND..=HOUR * 24 * 365, HOUR * 24),
        unknown_kid_cooldown: table
            .at("unknown_kid_cooldown")
            .duration(MILLISECOND * 100..=HOUR, SECOND * 10),
        wait: table.at("wait").duration(Duration::ZERO..=SECOND * 10, MILLISECOND * 150),
    }
}
