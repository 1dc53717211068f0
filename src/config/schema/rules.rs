//! `rules` as written.

use super::super::place::{Place, Table};
use super::super::warnings;
use super::demands;
use super::shapes::{choice, http_token};
use crate::domain::issuer::{Audience, Audiences, IssuerName};
use crate::domain::policy::{Access, HostPattern, Ignored, PathPattern, Requirement, Rule};

/// Each name once, since a proxy may choose a rule by name; each required issuer among the configured ones.
pub(super) fn read(place: &Place<'_>, issuers: &[IssuerName], ignored: Ignored) -> Vec<Rule> {
    let items = place.list("a list of rules").unwrap_or_default();
    let mut rules: Vec<Rule> = Vec::new();
    for item in &items {
        let rule = item.table(|table| rule(item, table, issuers));
        if !rule.name.is_empty() && rules.iter().any(|earlier| earlier.name == rule.name) {
            item.fault(format!("the name {:?} is taken", rule.name), "a name of its own for each rule");
        }
        rules.push(rule);
    }
    warnings::rules(&items, &rules, ignored);
    rules
}

fn rule(item: &Place<'_>, table: &mut Table<'_>, issuers: &[IssuerName]) -> Rule {
    let name_place = table.at("name");
    name_place.required("a name");
    let name = name_place.text("a name").unwrap_or_default().to_owned();
    let (hosts, paths, methods) = table.at("match").table(|condition| {
        let hosts = "a list of hosts, such as api.example.com, *.example.org, api.example.com:8443 or api.example.com:*";
        let paths = "a list of normal paths, exact or ending in /*, such as /healthz or /assets/*; in between, * is a segment and {sub} one that is the claim";
        let methods = "a list of methods in capitals, such as GET";
        (
            narrowing_list(&condition.at("hosts"), hosts, |_, text| HostPattern::new(text)),
            narrowing_list(&condition.at("paths"), paths, |item, text| {
                PathPattern::new(text).inspect(|_| warnings::path(item, text))
            }),
            narrowing_list(&condition.at("methods"), methods, |item, text| {
                method(text).inspect(|_| warnings::exact(item, text))
            }),
        )
    });
    let access = match choice(&table.at("access"), &["required", "optional", "lenient", "public", "deny"]) {
        Some("optional") => Access::Optional,
        Some("lenient") => Access::Lenient,
        Some("public") => Access::Public,
        Some("deny") => Access::Deny,
        _ => Access::Required,
    };
    let audiences_place = table.at("audiences");
    let accepted = "a list of audiences, such as [https://api.example.com]";
    let audiences = narrowing_list(&audiences_place, accepted, |item, text| {
        warnings::exact(item, text);
        Some(Audience(text.to_owned()))
    });
    let audiences = audiences.map(Audiences::OneOf);
    let require_place = table.at("require");
    let require = require_place.table(|require| requirement(require, issuers));
    warnings::requirement(&require_place, &require, issuers);
    let shadow_place = table.at("shadow");
    let shadow = shadow_place.bool(false);
    if shadow {
        warnings::rule_in_shadow(&shadow_place, &name, access);
    }
    let rule = Rule { name, hosts, paths, methods, access, audiences, require, shadow };
    if matches!(access, Access::Public | Access::Deny) && rule.asks_of_a_token() {
        item.fault(
            "asks something of a token that it never looks at",
            "require, audiences and claims in paths with access required, optional or lenient",
        );
    }
    rule
}

fn requirement(require: &mut Table<'_>, configured: &[IssuerName]) -> Requirement {
    let names: Vec<_> = configured.iter().map(IssuerName::as_str).collect();
    let accepted = format!("a list out of {}", names.join(", "));
    let known = |_: &Place<'_>, text: &str| configured.iter().find(|name| name.as_str() == text).cloned();
    let issuers = narrowing_list(&require.at("issuers"), &accepted, known);
    let claims_place = require.at("claims");
    let entries = claims_place.entries();
    if entries.is_empty() && issuers.is_some() {
        warnings::no_claims(&claims_place);
    }
    let claims = entries.iter().filter_map(|(name, place)| demands::read(name, place));
    Requirement { issuers, claims: claims.collect() }
}

/// A list that narrows what a rule matches. Absent is any; empty is a fault, because it could be read as none
/// or as any.
fn narrowing_list<T>(
    place: &Place<'_>,
    accepted: &str,
    read: impl Fn(&Place<'_>, &str) -> Option<T>,
) -> Option<Vec<T>> {
    let items = place.list(accepted)?;
    if items.is_empty() {
        place.fault("is empty", &format!("{accepted}, or leaving the key out for any"));
    }
    Some(items.iter().filter_map(|item| item.parsed(accepted, |text| read(item, text))).collect())
}

/// Methods are compared as they are written, and all that are in use are in capitals: another one could not be meant.
fn method(text: &str) -> Option<String> {
    http_token(text).filter(|method| !method.bytes().any(|byte| byte.is_ascii_lowercase()))
}
