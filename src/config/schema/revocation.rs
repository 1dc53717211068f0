//! `revocation` as written.

use std::path::PathBuf;
use std::time::Duration;

use super::super::place::Place;
use super::super::{RevocationSettings, WhenStale};
use super::shapes::choice;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// `None` without the section.
pub(super) fn read(place: &Place<'_>) -> Option<RevocationSettings> {
    if !place.is_set() {
        return None;
    }
    place.table(|table| {
        let accepted = "a file of entries, one JSON object a line; an empty one has none";
        let file = table.at("file");
        file.required(accepted);
        let file: Option<PathBuf> = file.parsed(accepted, |text| (!text.is_empty()).then(|| text.into()));
        let max_entries = table.at("max_entries").integer(1..=100_000_000, " entries", 1_000_000);
        let max_token_lifetime = table.at("max_token_lifetime").duration(SECOND..=HOUR * 24 * 365, HOUR * 24);
        let (stale_after, when_stale) = table.at("when_stale").table(|stale| {
            let after = stale.at("after").duration(SECOND * 2..=HOUR * 24, SECOND * 30);
            let denies = choice(&stale.at("then"), &["serve", "deny"]) == Some("deny");
            (after, if denies { WhenStale::Deny } else { WhenStale::Serve })
        });
        Some(RevocationSettings {
            file: file?,
            max_token_lifetime,
            max_entries: usize::try_from(max_entries).unwrap_or_default(),
            stale_after,
            when_stale,
        })
    })
}
