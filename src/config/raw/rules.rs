//! The rules as written. They are read whole so that a typo is found, then refused: not built yet.

use super::super::node::{Place, Table};
use super::{choice, token};

/// Reads `rules`; only an empty list is accepted yet.
pub(super) fn read(place: &Place<'_>) {
    let items = place.list("a list of rules").unwrap_or_default();
    for item in &items {
        item.table(rule);
    }
    place.not_available_yet_if(!items.is_empty(), "[]");
}

fn rule(rule: &mut Table<'_>) {
    let name = rule.at("name");
    name.required("a name");
    name.text("a name");
    rule.at("match").table(|condition| {
        texts(&condition.at("hosts"), "a list of host names", |_| true);
        texts(&condition.at("paths"), "a list of paths that begin with /", |path| path.starts_with('/'));
        texts(&condition.at("methods"), "a list of methods", |method| token(method).is_some());
    });
    choice(&rule.at("access"), &["required", "optional", "public", "deny"]);
    rule.at("require").table(|require| {
        texts(&require.at("issuers"), "a list of issuers' names", |_| true);
        require.at("claims").entries();
    });
    rule.at("shadow").bool(false);
}

fn texts(place: &Place<'_>, accepted: &str, legal: impl Fn(&str) -> bool) {
    for item in place.list(accepted).unwrap_or_default() {
        item.parsed(accepted, |text| legal(text).then_some(()));
    }
}
