//! Value shapes that several sections share.

use std::time::Duration;

use super::super::place::Place;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// One of a few words. `None` is not written, or a fault.
pub(super) fn choice(place: &Place<'_>, words: &'static [&'static str]) -> Option<&'static str> {
    place.parsed(&words.join(" or "), |text| words.iter().copied().find(|word| *word == text))
}

/// A `token` of RFC 9110 section 5.6.2: header names, cookie names and methods are tokens.
pub(super) fn http_token(text: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!text.is_empty() && text.bytes().all(legal)).then(|| text.to_owned())
}

/// What the place of a claim accepts.
pub(super) const CLAIM: &str = "a claim's top-level name, or a JSON Pointer (RFC 6901)";
