//! `tokens` as written.

use super::super::TokenSettings;
use super::super::place::{Place, Table};
use super::super::warnings;
use super::shapes::{choice, http_token};
use crate::domain::issuer::PassageApp;
use crate::domain::token::{TokenPlace, TokenSource};

pub(super) fn read(tokens: &mut Table<'_>) -> TokenSettings {
    let accepted = "a list of sources, each one of header: NAME, cookie: NAME, query: NAME";
    let from = tokens.at("from");
    let sources = match from.list(accepted) {
        None => vec![TokenSource::bearer(), TokenPlace::Cookie(PassageApp::COOKIE.to_owned()).into()],
        Some(items) => {
            if items.is_empty() {
                from.fault("is empty, so no request could carry a token", accepted);
            }
            let sources: Vec<_> = items.iter().map(source).collect();
            report_overlaps(&items, &sources);
            sources.into_iter().flatten().collect()
        }
    };
    let forward = tokens.at("forward").bool(true);
    let max_cached =
        tokens.at("cache").table(|cache| cache.at("max_entries").integer(0..=10_000_000, " tokens", 100_000));
    let max_length = tokens.at("max_length").integer(64..=65_536, " bytes", 8192);
    TokenSettings {
        from: sources,
        max_length: usize::try_from(max_length).unwrap_or_default(),
        forward,
        max_cached: u64::try_from(max_cached).unwrap_or_default(),
    }
}

fn source(item: &Place<'_>) -> Option<TokenSource> {
    item.table(|table| {
        let (header, cookie, query) = (table.at("header"), table.at("cookie"), table.at("query"));
        let (scheme, chunked, opaque) = (table.at("scheme"), table.at("chunked"), table.at("opaque"));
        if [&header, &cookie, &query].iter().filter(|place| place.is_written()).count() != 1 {
            item.fault("does not name one source", "exactly one of header: NAME, cookie: NAME, query: NAME");
        }
        for (place, of, name) in [(&scheme, &header, "header"), (&chunked, &cookie, "cookie")] {
            if place.is_written() && !of.is_written() {
                place.fault(format!("has no meaning without {name}"), "leaving the key out");
            }
        }
        let accepted = "a name of letters, digits and the marks of RFC 9110 section 5.6.2";
        let name = |place: &Place<'_>| {
            place.parsed(accepted, http_token).inspect(|name| warnings::exact(place, name))
        };
        let scheme = scheme.parsed("a scheme such as Bearer or JWT, or none for the whole value", http_token);
        let from_header = name(&header).map(|name| in_header(name.to_ascii_lowercase(), scheme));
        let is_chunked = chunked.bool(false);
        let of_cookie = |name| if is_chunked { TokenPlace::Chunks(name) } else { TokenPlace::Cookie(name) };
        let from_cookie = name(&cookie).map(of_cookie);
        let from_query = name(&query).map(TokenPlace::Query);
        let skips_opaque = choice(&opaque, &["malformed", "skip"]) == Some("skip");
        let place = from_header.or(from_cookie).or(from_query)?;
        Some(TokenSource { place, skips_opaque })
    })
}

/// `Authorization` has the scheme `Bearer` unless another one is written, any other header none.
fn in_header(header: String, scheme: Option<String>) -> TokenPlace {
    let usual = || if header == AUTHORIZATION { BEARER.to_owned() } else { NO_SCHEME.to_owned() };
    let scheme = scheme.unwrap_or_else(usual);
    if scheme.eq_ignore_ascii_case(NO_SCHEME) {
        TokenPlace::Header(header)
    } else {
        TokenPlace::Credentials { header, scheme }
    }
}

/// Two sources of one place, or a header that is read with and without a scheme: what one of them finds, the other would find too,
/// as something else.
fn report_overlaps(items: &[Place<'_>], sources: &[Option<TokenSource>]) {
    for (at, (item, source)) in items.iter().zip(sources).enumerate() {
        let Some(source) = source else { continue };
        let mut earlier = sources.iter().take(at).flatten();
        if earlier.any(|earlier| overlap(&earlier.place, &source.place)) {
            item.fault(
                "reads what an earlier source reads",
                "each cookie, query parameter and header once; a header again with another scheme",
            );
        }
    }
}

fn overlap(one: &TokenPlace, other: &TokenPlace) -> bool {
    use TokenPlace::{Chunks, Cookie, Credentials, Header, Query};
    match (one, other) {
        (Credentials { header, scheme }, Credentials { header: other, scheme: other_scheme }) => {
            header == other && scheme.eq_ignore_ascii_case(other_scheme)
        }
        (Header(one), Header(other) | Credentials { header: other, .. })
        | (Credentials { header: one, .. }, Header(other))
        | (Cookie(one) | Chunks(one), Cookie(other) | Chunks(other))
        | (Query(one), Query(other)) => one == other,
        _ => false,
    }
}

const AUTHORIZATION: &str = "authorization";
const BEARER: &str = "Bearer";

/// Stands for no scheme in the configuration.
const NO_SCHEME: &str = "none";
