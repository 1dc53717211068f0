//! `tokens` as written.

use super::super::TokenSettings;
use super::super::place::{Place, Table};
use super::super::warnings;
use super::shapes::http_token;
use crate::domain::issuer::PassageApp;
use crate::domain::token::TokenSource;

pub(super) fn read(tokens: &mut Table<'_>) -> TokenSettings {
    let accepted = "a list of sources, each one of header: NAME, cookie: NAME, query: NAME";
    let from = tokens.at("from");
    let sources = match from.list(accepted) {
        None => vec![TokenSource::Bearer, TokenSource::Cookie(PassageApp::COOKIE.to_owned())],
        Some(items) => {
            if items.is_empty() {
                from.fault("is empty, so no request could carry a token", accepted);
            }
            items.iter().filter_map(source).collect()
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
        if [&header, &cookie, &query].iter().filter(|place| place.is_written()).count() != 1 {
            item.fault("does not name one source", "exactly one of header: NAME, cookie: NAME, query: NAME");
        }
        let accepted = "a name of letters, digits and the marks of RFC 9110 section 5.6.2";
        let name = |place: &Place<'_>| {
            place.parsed(accepted, http_token).inspect(|name| warnings::exact(place, name))
        };
        let from_header = name(&header).map(|name| match name.to_ascii_lowercase().as_str() {
            "authorization" => TokenSource::Bearer,
            lower => TokenSource::Header(lower.to_owned()),
        });
        let from_cookie = name(&cookie).map(TokenSource::Cookie);
        let from_query = name(&query).map(TokenSource::Query);
        from_header.or(from_cookie).or(from_query)
    })
}
