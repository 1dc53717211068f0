//! Warnings: values that are accepted, and let more through than their reader may think, or can never match anything. Each
//! function here looks at one value that was read, beside the place where it was written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::place::Place;
use crate::domain::identity::claim_map::ClaimMap;
use crate::domain::issuer::IssuerName;
use crate::domain::json::Json;
use crate::domain::policy::{Access, CoveredBy, Ignored, Requirement, Rule, covered};

/// Claims that a user can change, or that an issuer may give to another user later.
const REASSIGNABLE: [&str; 8] =
    ["email", "preferred_username", "upn", "unique_name", "username", "name", "nickname", "phone_number"];

/// The bits of a file mode that let the group or others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Keys last for so many fetches at least.
const FETCHES_KEPT: u32 = 3;

/// Claims that are lists of names as most issuers write them.
const LISTS: [&str; 6] = ["groups", "roles", "permissions", "entitlements", "memberOf", "cognito:groups"];

/// Claims that hold scopes.
const SCOPES: [&str; 2] = ["scope", "scp"];

/// Claims by which issuers identify users, clients and tenants.
const CLAIMS: [&str; 34] = [
    "sub",
    "oid",
    "uid",
    "cid",
    "azp",
    "client_id",
    "clientId",
    "tid",
    "tenant",
    "tenant_id",
    "org",
    "org_id",
    "organization",
    "organization_id",
    "user_id",
    "userId",
    "username",
    "user_name",
    "preferred_username",
    "email",
    "upn",
    "sid",
    "hd",
    "role",
    "repository",
    "repository_owner",
    "project_id",
    "namespace",
    "account",
    "account_id",
    "customer_id",
    "group_id",
    "team",
    "workspace_id",
];

/// Claims that are non-empty texts in each token that is accepted.
const TEXTS: [&str; 2] = ["iss", "sub"];

/// Keys that are too old after a few failed fetches.
pub(super) fn max_stale(place: &Place<'_>, max_stale: Duration, interval: Duration) {
    if place.is_set() && max_stale < interval * FETCHES_KEPT {
        place.warn(
            "is less than three intervals: after one or two failed fetches every token of the issuer is answered 503",
            "24h, the default, unless keys that the issuer withdraws while it cannot be reached must end sooner",
        );
    }
}

/// Events that neither a disk nor another process has.
pub(super) fn events_in_memory(listen: &Place<'_>) {
    listen.warn(
        "what events revoke is kept in memory alone: after a restart the tokens are good again",
        "set key_store, revocation.peers or revocation.redis, too",
    );
}

/// `mode: shadow`.
pub(super) fn shadow(mode: &Place<'_>) {
    mode.warn(
        "in shadow mode a request that would be denied with 401, 403 or 503 is let through",
        "write enforce once the log denies only what it should",
    );
}

/// Keys at the host of hosted Passage.
pub(super) fn hosted_passage(profile: &Place<'_>) {
    profile.warn(
        "the keys are fetched from auth.passage.id, which was switched off on 2026-01-16, so no token will be accepted",
        "write base_url (PASSAGE_BASE_URL without a file): the host that runs Passage-compatible sign-in now; or keys",
    );
}

/// `shadow: true` of a rule that can deny.
pub(super) fn rule_in_shadow(place: &Place<'_>, name: &str, access: Access) {
    let problem = match access {
        Access::Public => return,
        Access::Deny => format!("rule {name:?} denies nothing while it is in shadow"),
        Access::Lenient | Access::Optional | Access::Required => {
            format!("rule {name:?} is in shadow, so a request that it denies is let through")
        }
    };
    place.warn(problem, "write false once the log denies only what it should");
}

/// A folder where others can write is a place where they can put keys, which a start without the issuer accepts.
pub(super) fn key_store(place: &Place<'_>, folder: &Path) {
    let Ok(metadata) = fs::metadata(folder) else { return };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        place.warn(
            format!("the folder's mode {mode:04o} lets its group or others write, and keys put there are trusted at a start"),
            "chmod go-w; a volume that is mounted into this one container may stay as it is",
        );
    }
}

/// A header that carries the subjects of several issuers' tokens.
pub(super) fn shared_subjects(place: &Place<'_>, header: &str, issuers: &[&IssuerName]) {
    let names: Vec<_> = issuers.iter().map(|name| name.as_str()).collect();
    place.warn(
        format!(
            "{header} carries sub of the tokens of {}: a user of one of them is the user of the same sub at another to every upstream",
            names.join(", ")
        ),
        "write another claim or cut_prefix under issuers[].identity.headers, or shared_subjects: true if they name the same people",
    );
}

/// A claim that is a subject (OpenID Connect Core 1.0 section 5.7: of all claims only `iss` and `sub` together identify a user
/// for good).
pub(super) fn subject(place: &Place<'_>, claim: &str) {
    if REASSIGNABLE.contains(&claim) {
        place.warn(
            format!("{claim} may change hands: at many issuers users can change it, and it can be given to another user later"),
            "write a claim that the issuer never gives to another user, such as sub or oid",
        );
    }
}

/// What a rule asks of a token, with the configured issuers.
pub(super) fn requirement(place: &Place<'_>, require: &Requirement, issuers: &[IssuerName]) {
    if place.is_set() && require.is_empty() {
        place.warn("asks nothing of a token", "name claims or issuers, or leave the key out");
    }
    if require.issuers.is_none() && !require.claims.is_empty() && issuers.len() > 1 {
        let names: Vec<_> = issuers.iter().map(IssuerName::as_str).collect();
        place.warn(
            format!(
                "is met by these claims in a token of any of the {} issuers, whatever each means by them",
                names.len()
            ),
            format!("write issuers beside claims: a list out of {}", names.join(", ")),
        );
    }
}

/// `claims` beside `issuers`, without a claim.
pub(super) fn no_claims(claims: &Place<'_>) {
    if claims.is_set() {
        claims.warn("asks for no claim", "name a claim, or leave the key out");
    }
}

/// A claim's name, whether its text is split at spaces, and one value that is wanted of it.
pub(super) fn wanted_value(place: &Place<'_>, claim: &str, split: bool, value: &Json) {
    let is_scope = SCOPES.contains(&claim);
    match value {
        Json::String(text) if text.is_empty() && split => place.warn(
            format!(
                "an empty {} is met by a claim with two spaces in a row, or with one at an end",
                item_of(claim)
            ),
            format!("write the name of a {}", item_of(claim)),
        ),
        Json::String(text) if text.contains(' ') && split => place.warn(
            format!(
                "{text:?} matches no {0}: {0}s are separated by spaces and compared one by one",
                item_of(claim)
            ),
            format!("write a list of {}s", item_of(claim)),
        ),
        Json::String(text) if text.is_empty() && TEXTS.contains(&claim) => {
            place.warn(format!("matches no token: {claim} is never empty"), "write the text");
        }
        Json::String(text) => match text.strip_suffix('*').filter(|prefix| mark(prefix).is_none()) {
            Some(prefix) if !prefix.is_empty() => {
                place.warn(
                    format!("{text:?} is compared as it is written: * stands for nothing else here"),
                    format!("write the exact value, or {{prefix: {prefix:?}}}"),
                );
            }
            _ => exact(place, text),
        },
        _ if is_scope || TEXTS.contains(&claim) => {
            place.warn(
                format!("{value} is no text and matches no token: {claim} holds texts"),
                "put it in quotes",
            );
        }
        _ => {}
    }
}

/// What an item of a claim that is split is called.
fn item_of(claim: &str) -> &'static str {
    if SCOPES.contains(&claim) { "scope" } else { "word" }
}

/// A claim that is forwarded as a text and is likely to be a list.
pub(super) fn text_of_list(place: &Place<'_>, claim: &str) {
    let name = claim.rsplit('/').next().unwrap_or(claim);
    if LISTS.contains(&name) {
        place.warn(
            format!(
                "the items of {claim} are joined by commas: a token with a comma in an item, as LDAP's names have, is denied (claim_invalid)"
            ),
            format!("write {{claim: {claim:?}, as: json}}, and read JSON in the upstream"),
        );
    }
}

/// A table whose last line may lack a part.
pub(super) fn last_line(place: &Place<'_>, map: &ClaimMap) {
    if !map.ends_with_line_break() {
        let file = map.file().display();
        place.warn(
            format!("{file} has no line break at its end, so it may be cut off in its last line"),
            "end the last line like all others: a reload then refuses a file that is cut off in a line",
        );
    }
}

/// A text that values begin with, where a pattern may have been meant.
pub(super) fn prefix(place: &Place<'_>, text: &str) {
    if let Some(mark) = text.ends_with('*').then_some("*").or_else(|| mark(text)) {
        warn_of_mark(place, text, mark);
    }
}

/// A text that is compared as it is, where a pattern or a template may have been meant.
pub(super) fn exact(place: &Place<'_>, text: &str) {
    if text.trim() != text {
        place.warn(format!("{text:?} begins or ends with a space, and is compared with it"), "leave it out");
    }
    if let Some(mark) = mark(text) {
        warn_of_mark(place, text, mark);
    }
}

/// A path, in which a `/*` at the end, and `*` and `{claim}` for whole segments, stand for something else.
pub(super) fn path(place: &Place<'_>, text: &str) {
    let path = text.strip_suffix("/*").unwrap_or(text);
    if path == "*" {
        return;
    }
    let claim =
        |segment: &str| is_enclosed(segment, '{', '}') && segment.starts_with('{') && segment.ends_with('}');
    for segment in path.split('/') {
        if claim(segment) {
            let name = segment.trim_matches(['{', '}']);
            if !CLAIMS.contains(&name) {
                place.warn(
                    format!("{segment} is met by a token with the claim {name:?} of this value, and few issuers have such a claim"),
                    "write * for any segment, or the name of a claim that your tokens have",
                );
            }
        } else if let Some(mark) = mark(segment).filter(|_| segment != "*") {
            warn_of_mark(place, text, mark);
        } else if segment.starts_with(':') && segment.len() > 1 {
            warn_of_mark(place, text, ":");
        } else if is_enclosed(segment, '[', ']') {
            warn_of_mark(place, text, "[]");
        } else {
            continue;
        }
        return;
    }
}

fn warn_of_mark(place: &Place<'_>, text: &str, mark: &str) {
    place.warn(
        format!("{text:?} is compared as it is written: {mark} stands for nothing else here"),
        "write the exact value",
    );
}

/// What other programs read as a pattern or as a template.
fn mark(text: &str) -> Option<&'static str> {
    if text.contains('*') {
        Some("*")
    } else if is_enclosed(text, '{', '}') {
        Some("{}")
    } else if is_enclosed(text, '<', '>') {
        Some("<>")
    } else if text.len() > 1 && text.starts_with('^') {
        Some("^")
    } else if text.len() > 1 && text.ends_with('$') {
        Some("$")
    } else {
        None
    }
}

/// Whether something stands between two marks.
fn is_enclosed(text: &str, open: char, close: char) -> bool {
    text.split_once(open).is_some_and(|(_, rest)| rest.find(close).is_some_and(|end| end > 0))
}

/// What the rules do together: one that is never taken, and one that takes everything without a token.
pub(super) fn rules(items: &[Place<'_>], rules: &[Rule], ignored: Ignored) {
    for ((place, rule), covered) in items.iter().zip(rules).zip(covered(rules, ignored)) {
        let name = &rule.name;
        if let Some(CoveredBy { earlier, but_for_odd_ports }) = covered {
            let earlier = rules.get(earlier).map_or("", |rule| &rule.name);
            let reached = if but_for_odd_ports {
                "is reached only with a port other than 80 and 443"
            } else {
                "is never reached"
            };
            place.warn(
                format!("rule {name:?} {reached}, unless a route picks it by name: rule {earlier:?} before it matches all that it matches"),
                format!("put it before rule {earlier:?}, or leave it out"),
            );
        } else if rule.access <= Access::Optional && rule.require.is_empty() && rule.matches_everything() {
            place.warn(
                format!("rule {name:?} matches everything, so a request that no earlier rule matches needs no token"),
                "narrow its match, or write access: required",
            );
        }
    }
}
