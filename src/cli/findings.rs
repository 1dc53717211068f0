//! What each check of a token found and what it accepts, for the operator who runs `verify`: more than a client is told. Nothing of a
//! signature is shown.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::domain::claim::Claim;
use crate::domain::clock::UnixTime;
use crate::domain::evidence::Evidence;
use crate::domain::issuer::{Audience, Audiences, Issuer, Issuers};
use crate::domain::json::{Member, Object};
use crate::domain::key_set::{KeySet, VerifyingKey};
use crate::domain::token_fault::TokenStep;
use crate::keys::sets::KeySets;

/// The most names of a list that are printed: an issuer may publish thousands of keys.
const MAX_LISTED: usize = 20;

/// Names separated by commas; "none" for an empty list.
fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(MAX_LISTED);
    names.truncate(MAX_LISTED);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The `iss` of a token, and those that are configured.
pub(super) fn of_issuer(iss: Option<&str>, issuers: &Issuers) -> String {
    let known = issuers.all().iter().flat_map(|issuer| &issuer.ids).map(|id| format!("{:?}", id.0));
    match iss {
        Some(iss) => format!("iss is {iss:?}; configured: {}", listed(known)),
        None => format!("there is no iss that is a text; configured: {}", listed(known)),
    }
}

/// A member of the token's header that an issuer restricts; `None` for the steps that look at no such member.
pub(super) fn of_header(step: TokenStep, header: &Object<'_>, issuer: &Issuer) -> Option<String> {
    let found = |name: &str| header.raw(name).map_or("absent", RawValue::get).to_owned();
    match step {
        TokenStep::Crit => Some(format!("crit is {}; accepted: no crit at all", found("crit"))),
        TokenStep::Alg => {
            let accepted = issuer.algorithms.iter().map(|algorithm| algorithm.name().to_owned());
            Some(format!("alg is {}; accepted: {}", found("alg"), listed(accepted)))
        }
        TokenStep::Typ => {
            let accepted = issuer.types.iter().cloned();
            Some(format!("typ is {}; accepted: {}, or absent", found("typ"), listed(accepted)))
        }
        TokenStep::Kid => Some(format!("kid is {}; the issuer has require_kid: true", found("kid"))),
        _ => None,
    }
}

/// The keys at hand, or why there are none, and where they come from.
pub(super) fn of_keys(keys: &KeySets, issuer: &Issuer) -> String {
    let source = keys.sources().iter().find(|(name, _)| *name == issuer.name);
    let source = source.map_or("", |(_, source)| source.as_str());
    let (set, status) = keys.inspect(&issuer.name);
    let usable = keys.is_usable(&issuer.name, keys.now());
    let mut text = match &set {
        Some(set) => format!("keys at hand: {}; from {source}", kids(set)),
        None => format!("there are no keys; from {source}"),
    };
    if let (false, Some((_, error))) = (usable, status.last_error) {
        text.push_str(&format!(": {error}"));
    }
    text
}

fn kids(set: &KeySet) -> String {
    let named = |key: &VerifyingKey| {
        let kid = key.id().map_or_else(|| "no kid".to_owned(), |kid| format!("{:?}", kid.as_str()));
        format!("{kid} for {}", key.algorithm().name())
    };
    listed(set.keys().iter().map(named))
}

/// How far the issuer's clock is from ours, if an answer of the issuer told it and it is too far.
pub(super) fn of_clock(keys: &KeySets, issuer: &Issuer) -> Option<String> {
    let skew = keys.inspect(&issuer.name).1.clock_skew?;
    skew.exceeds(issuer.leeway).then(|| format!("{skew}, which is more than the leeway"))
}

/// `exp` and `nbf` of a token, and their distance from the time by which it is judged.
pub(super) fn of_times(claims: &Object<'_>, issuer: &Issuer, now: UnixTime) -> String {
    let mut text = format!("the time is {}", now.rfc3339());
    for name in ["exp", "nbf"] {
        let Member::Number(seconds) = claims.member(name) else { continue };
        let (from_now, at) = (seconds - now.as_secs_f64(), at(seconds));
        let distance = spoken(Duration::try_from_secs_f64(from_now.abs()).unwrap_or(Duration::MAX));
        text.push_str(&if from_now < 0.0 {
            format!(", {name} is {at}, {distance} ago")
        } else {
            format!(", {name} is {at}, in {distance}")
        });
    }
    format!("{text}; leeway {} s", issuer.leeway.as_secs())
}

/// A `NumericDate` as RFC 3339, as near as that can be.
fn at(seconds: f64) -> String {
    let since_epoch = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    UnixTime::from_secs(since_epoch.as_secs()).rfc3339()
}

/// The two largest units, such as 59m 12s.
fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400, u64::MAX), ("h", 3600, 24), ("m", 60, 60), ("s", 1, 60)];
    let parts = units.map(|(unit, size, most)| (seconds / size % most, unit));
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown = parts.iter().skip(first).take(2).filter(|(count, _)| *count > 0 || seconds == 0);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

/// The audience of a token that is accepted, and what is.
pub(super) fn of_audience(claims: &Object<'_>, issuer: &Issuer) -> String {
    let Audiences::OneOf(accepted) = &issuer.audiences else {
        return "not checked: audiences is []".to_owned();
    };
    let found = issuer.audience_claims.iter().filter_map(|claim| claim.of(claims)).map(RawValue::get);
    format!("{}; accepted: {}", listed(found.map(str::to_owned)), quoted(accepted))
}

fn quoted(audiences: &[Audience]) -> String {
    listed(audiences.iter().map(|audience| format!("{:?}", audience.0)))
}

/// What was found of claims that are denied.
pub(super) fn of_evidence(
    evidence: &Evidence,
    claims: &Object<'_>,
    issuer: &Issuer,
    now: UnixTime,
) -> String {
    match evidence {
        Evidence::ExpiredFor(_) | Evidence::ValidIn(_) => of_times(claims, issuer, now),
        Evidence::Audience { found, accepted } => format!("aud is {found}; accepted: {}", quoted(accepted)),
        Evidence::Claim(name) => {
            let limit = issuer
                .max_lifetime
                .filter(|_| name == "iat")
                .map(|most| format!("; max_lifetime asks for it, and allows {} s to exp", most.as_secs()));
            let audience = match &issuer.audiences {
                Audiences::OneOf(accepted)
                    if issuer.audience_claims.iter().any(|claim| claim.as_str() == name) =>
                {
                    Some(format!("; accepted: a text or a list of texts, with one of {}", quoted(accepted)))
                }
                _ => None,
            };
            let value = Claim::new(name).and_then(|claim| claim.of(claims)).map_or("absent", RawValue::get);
            format!("{name} is {value}{}", limit.or(audience).unwrap_or_default())
        }
        // Of these the caller knows more.
        Evidence::Iss(_) | Evidence::Kid(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spoken_in_two_units() {
        for (seconds, want) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3552, "59m 12s"),
            (3600, "1h"),
            (3601, "1h"),
            (90_000, "1d 1h"),
            (365 * 86_400 + 59, "365d"),
        ] {
            assert_eq!(spoken(Duration::from_secs(seconds)), want);
        }
        assert_eq!(at(-1e300), "1970-01-01T00:00:00Z");
        assert_eq!(at(1.8e9), "2027-01-15T08:00:00Z");
    }

    #[test]
    fn long_lists_are_cut() {
        let names = |count: usize| (0..count).map(|at| at.to_string());
        assert_eq!(listed(names(0)), "none");
        assert_eq!(listed(names(2)), "0, 1");
        assert!(listed(names(1000)).ends_with("19, and 980 more"));
    }
}
