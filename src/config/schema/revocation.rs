//! `revocation` as written.

use std::path::PathBuf;

use url::Url;

use super::super::place::{Place, Table};
use super::super::warnings;
use super::super::{EventSettings, KeyStore, RedisSettings, RevocationSettings, WhenStale};
use super::ports::address;
use super::shapes::{CLAIM, HOUR, SECOND, choice};
use crate::domain::claim::Claim;
use crate::domain::issuer::Audience;
use crate::domain::revoked::SubjectClaims;

/// `None` without the section.
pub(super) fn read(place: &Place<'_>, key_store: Option<&KeyStore>) -> Option<RevocationSettings> {
    if !place.is_set() {
        return None;
    }
    place.table(|table| {
        let (file_place, listen, redis) = (table.at("file"), table.at("listen"), table.at("redis"));
        let has_events = listen.is_set() || redis.is_set();
        if !has_events {
            file_place.required("a file of entries, or revocation.listen: HOST:PORT for signed events");
        }
        let file = if file_place.is_set() || !has_events { file(&file_place) } else { None };
        let events = events(table, &listen, &redis);
        let is_written = key_store.is_some_and(|store| !store.read_only);
        if events.as_ref().is_some_and(|events| !events.has_others()) && !is_written {
            warnings::events_in_memory(&listen);
        }
        let max_entries = table.at("max_entries").integer(1..=100_000_000, " entries", 1_000_000);
        let max_token_lifetime = table.at("max_token_lifetime").duration(SECOND..=HOUR * 24 * 365, HOUR * 24);
        let (stale_after, when_stale) = table.at("when_stale").table(|stale| {
            let after = stale.at("after").duration(SECOND * 2..=HOUR * 24, SECOND * 30);
            let denies = choice(&stale.at("then"), &["serve", "deny"]) == Some("deny");
            (after, if denies { WhenStale::Deny } else { WhenStale::Serve })
        });
        Some(RevocationSettings {
            file,
            events,
            max_token_lifetime,
            max_entries: usize::try_from(max_entries).unwrap_or_default(),
            stale_after,
            when_stale,
        })
    })
}

fn file(place: &Place<'_>) -> Option<PathBuf> {
    let accepted = "a file of entries, one JSON object a line; an empty one has none";
    place.parsed(accepted, |text| (!text.is_empty()).then(|| text.into()))
}

/// Signed events; without `listen` and `redis` none come, and what belongs to them is a fault.
fn events(table: &mut Table<'_>, listen: &Place<'_>, redis: &Place<'_>) -> Option<EventSettings> {
    let (audiences, subject_claims, peers) =
        (table.at("audiences"), table.at("subject_claims"), table.at("peers"));
    if !listen.is_set() && peers.is_set() {
        peers.fault("is of no use without revocation.listen", "it beside listen: HOST:PORT");
    }
    if !listen.is_set() && !redis.is_set() {
        for place in [audiences, subject_claims].iter().filter(|place| place.is_set()) {
            place.fault("is of no use without revocation.listen", "it beside listen: HOST:PORT");
        }
        return None;
    }
    let audiences = audiences.is_set().then(|| {
        let accepted = "a list of the aud of events: client IDs, and the audiences of streams";
        if audiences.is_empty_list() {
            audiences.fault("an empty list accepts no event", accepted);
        }
        let items = audiences.list_or_one(accepted).unwrap_or_default();
        let audience = |text: &str| Some(Audience(text.to_owned()));
        items.iter().filter_map(|item| item.parsed(accepted, audience)).collect()
    });
    let subject_claims = subject_claims.table(|claims| SubjectClaims {
        email: claims.at("email").parsed(CLAIM, Claim::new),
        account: claims.at("account").parsed(CLAIM, Claim::new),
    });
    let peers = if peers.is_set() {
        let accepted = "HOST:PORT at which the other replicas listen, or a list of them";
        let peer = |text: &str| {
            let (host, port) = text.rsplit_once(':')?;
            let is_port = port.parse().is_ok_and(|port: u16| port > 0);
            (!host.is_empty() && is_port && !text.contains(['/', '@'])).then(|| text.to_owned())
        };
        let items = peers.list_or_one(accepted).unwrap_or_default();
        items.iter().filter_map(|item| item.parsed(accepted, peer)).collect()
    } else {
        Vec::new()
    };
    let listen = listen.is_set().then(|| address(listen, "", ""));
    Some(EventSettings { listen, audiences, subject_claims, peers, redis: stream(redis) })
}

/// A URL, or `{url: URL, password_file: FILE}`.
fn stream(place: &Place<'_>) -> Option<RedisSettings> {
    if !place.is_set() {
        return None;
    }
    if !place.is_map() {
        return Some(RedisSettings { url: redis_url(place)?, password_file: None });
    }
    place.table(|table| {
        let (url, file) = (table.at("url"), table.at("password_file"));
        let accepted = "a file with the password of Redis";
        let password_file =
            if file.is_set() { file.parsed(accepted, |text| Some(text.into())) } else { None };
        url.required(REDIS_URL);
        Some(RedisSettings { url: redis_url(&url)?, password_file })
    })
}

const REDIS_URL: &str =
    "redis://HOST:PORT, or rediss:// over TLS, without a password, which belongs into password_file";

fn redis_url(place: &Place<'_>) -> Option<String> {
    let text = place.text(REDIS_URL)?;
    let url = Url::parse(text).ok();
    if url.as_ref().is_some_and(|url| url.password().is_some()) {
        // Which is not repeated.
        place.fault("has a password", REDIS_URL);
        return None;
    }
    let is_redis = |url: Url| {
        let database = url.path().trim_start_matches('/');
        ["redis", "rediss"].contains(&url.scheme())
            && url.has_host()
            && database.bytes().all(|byte| byte.is_ascii_digit())
            && url.query().is_none()
            && url.fragment().is_none()
    };
    if url.is_some_and(is_redis) {
        return Some(text.to_owned());
    }
    // It is not repeated: one that cannot be read may have a password, too.
    place.fault("is no such URL", REDIS_URL);
    None
}
