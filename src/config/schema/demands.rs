//! `require.claims` as written: what a rule asks of each claim.

use super::super::place::{Place, Table};
use super::super::warnings;
use crate::domain::claim::Claim;
use crate::domain::json::Json;
use crate::domain::policy::{ClaimDemand, Wanted};

const VALUES: &str = "a text, a number, true or false, or a list of them";
const WAYS: &str = "exactly one of any, all, prefix, present";

/// A value or a list of them, which means any of them; or a map that says what is wanted.
pub(super) fn read(name: &str, place: &Place<'_>) -> Option<ClaimDemand> {
    let claim = Claim::new(name);
    if claim.is_none() {
        place.fault("is no claim", "a top-level name, or a JSON Pointer");
    }
    warnings::exact(place, name);
    let is_split_by_name = claim.as_ref().is_some_and(ClaimDemand::is_split_by_name);
    let (wanted, split) = if place.is_map() {
        place.table(|table| wanted(place, table, name, is_split_by_name))
    } else {
        (values(place, name, is_split_by_name).map(Wanted::Any), is_split_by_name)
    };
    Some(ClaimDemand { claim: claim?, wanted: wanted?, split })
}

fn wanted(
    place: &Place<'_>,
    table: &mut Table<'_>,
    name: &str,
    is_split_by_name: bool,
) -> (Option<Wanted>, bool) {
    let [any, all, prefix, present, split_place] =
        ["any", "all", "prefix", "present", "split"].map(|key| table.at(key));
    let split = split_place.bool(is_split_by_name);
    let written = [&any, &all, &prefix, &present].iter().filter(|way| way.is_written()).count();
    if written != 1 {
        place.fault(format!("names {written} ways to be met"), WAYS);
        return (None, split);
    }
    if present.is_written() && split_place.is_written() {
        split_place.fault("has no meaning beside present", "leaving the key out");
    }
    let wanted = if any.is_written() {
        values(&any, name, split).map(Wanted::Any)
    } else if all.is_written() {
        values(&all, name, split).map(Wanted::All)
    } else if prefix.is_written() {
        let text = prefix.text("the text that values begin with, not empty");
        text.inspect(|text| warnings::prefix(&prefix, text)).map(|text| Wanted::Prefix(text.to_owned()))
    } else {
        if !present.bool(true) {
            present.fault("asks for nothing", "true");
        }
        Some(Wanted::Present)
    };
    (wanted, split)
}

/// The values that are wanted, never none.
fn values(place: &Place<'_>, name: &str, split: bool) -> Option<Vec<Json>> {
    if place.is_empty_list() {
        place.fault("is empty, so nothing could meet it", VALUES);
    }
    let items = place.list_or_one(VALUES)?;
    let value = |item: &Place<'_>| {
        item.scalar(VALUES).inspect(|value| warnings::wanted_value(item, name, split, value))
    };
    Some(items.iter().filter_map(value).collect())
}
