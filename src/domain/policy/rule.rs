//! One rule: what it matches, what it lets through, and what it asks of a verified token.

use crate::domain::claims::Claim;
use crate::domain::denial::Denial;
use crate::domain::issuer::IssuerName;
use crate::domain::json::{Json, Shallow};
use crate::domain::policy::pattern::{HostPattern, Ignored, PathPattern};
use crate::domain::verify::Verified;

/// What a rule lets through, the strictest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Access {
    /// Everything; the token is not looked at.
    Public,
    /// No token at all, or a good one.
    Optional,
    /// A good token.
    #[default]
    Required,
    /// Nothing.
    Deny,
}

/// One rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rule {
    /// Unique; empty for the rule that applies when none matches.
    pub(crate) name: String,
    /// `None` matches any host. Never empty.
    pub(crate) hosts: Option<Vec<HostPattern>>,
    /// `None` matches any path. Never empty.
    pub(crate) paths: Option<Vec<PathPattern>>,
    /// In capitals; `None` matches any method. Never empty.
    pub(crate) methods: Option<Vec<String>>,
    pub(crate) access: Access,
    pub(crate) require: Requirement,
    /// Whether its denials are counted and logged, but let through.
    pub(crate) shadow: bool,
}

/// What a rule asks of a verified token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requirement {
    /// Issuers it accepts; `None` accepts any configured one. Never empty.
    pub(crate) issuers: Option<Vec<IssuerName>>,
    /// Claims that must be met, all of them; of each claim's values any is enough. No list is empty. The values are
    /// texts, numbers, `true` and `false`.
    pub(crate) claims: Vec<(Claim, Vec<Json>)>,
}

impl Rule {
    /// Whether it turns requests away that a token alone would let through.
    pub(crate) fn restricts(&self) -> bool {
        self.access == Access::Deny || !self.require.is_empty()
    }

    /// Whether one of its hosts is written with a port.
    pub(crate) fn names_a_port(&self) -> bool {
        self.hosts.iter().flatten().any(HostPattern::names_a_port)
    }

    pub(super) fn matches_host(&self, host: &str, port: Option<&str>, restricts: bool) -> bool {
        self.hosts.as_ref().is_none_or(|all| all.iter().any(|pattern| pattern.matches(host, port, restricts)))
    }

    pub(super) fn matches_path(&self, path: &[u8], level: usize, ignored: Ignored, restricts: bool) -> bool {
        let meets = |pattern: &PathPattern| pattern.matches(path, level, ignored, restricts);
        self.paths.as_ref().is_none_or(|all| all.iter().any(meets))
    }

    pub(crate) fn matches_method(&self, method: &[u8]) -> bool {
        // RFC 9110 section 9.3.2: HEAD is GET without the content.
        let is = |named: &String| named.as_bytes() == method || (named == "GET" && method == b"HEAD");
        self.methods.as_ref().is_none_or(|named| named.iter().any(is))
    }
}

impl Requirement {
    /// Whether nothing is asked.
    pub(crate) const fn is_empty(&self) -> bool {
        self.issuers.is_none() && self.claims.is_empty()
    }

    /// Holds a verified token against what is asked.
    ///
    /// # Errors
    /// [`Denial::IssuerNotAccepted`] or [`Denial::ClaimsInsufficient`].
    pub(crate) fn judge(&self, token: &Verified<'_, '_>) -> Result<(), Denial> {
        let name = &token.issuer().name;
        if self.issuers.as_ref().is_some_and(|accepted| !accepted.contains(name)) {
            return Err(Denial::IssuerNotAccepted);
        }
        let met = |(claim, values): &(Claim, Vec<Json>)| {
            let found = claim.of(token.claims()).and_then(Shallow::of);
            found.is_some_and(|found| values.iter().any(|want| holds(claim, &found, want)))
        };
        if self.claims.iter().all(met) { Ok(()) } else { Err(Denial::ClaimsInsufficient) }
    }
}

/// Strict in type: equal, or contained in an array. `scope` and `scp` given as one string are lists
/// separated by spaces (RFC 8693 section 4.2).
fn holds(claim: &Claim, found: &Shallow<'_>, want: &Json) -> bool {
    match found {
        Shallow::Array(items) => {
            items.iter().any(|item| Shallow::of(item).is_some_and(|item| same(&item, want)))
        }
        Shallow::String(text) if ["scope", "scp"].contains(&claim.as_str()) => {
            matches!(want, Json::String(want) if text.split(' ').any(|one| one == want))
        }
        other => same(other, want),
    }
}

/// Numbers by value, texts as written, nothing else but `true` and `false`.
fn same(found: &Shallow<'_>, want: &Json) -> bool {
    match (found, want) {
        (Shallow::String(found), Json::String(want)) => found == want,
        (Shallow::Number(found), Json::Number(want)) => want.is_value_of(found),
        (Shallow::Bool(found), Json::Bool(want)) => found == want,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn values_are_compared_strictly() {
        let claim = |name: &str| Claim::new(name).unwrap();
        let raw = |text| serde_json::from_str::<&RawValue>(text).unwrap();
        let json = |text: &str| Json::parse(text.as_bytes(), 0).unwrap();
        for (name, found, want, held) in [
            ("role", "\"admin\"", "\"admin\"", true),
            ("role", "\"Admin\"", "\"admin\"", false),
            ("role", "[\"a\",\"admin\"]", "\"admin\"", true),
            ("role", "\"admin user\"", "\"admin\"", false),
            ("role", "1", "\"1\"", false),
            ("role", "\"1\"", "1", false),
            ("role", "1", "1.0", true),
            ("role", "true", "\"true\"", false),
            ("role", "true", "true", true),
            ("role", "null", "\"null\"", false),
            ("role", "{\"admin\":true}", "\"admin\"", false),
            ("role", "[[\"admin\"]]", "\"admin\"", false),
            ("scope", "\"read write\"", "\"write\"", true),
            ("scp", "\"read write\"", "\"read\"", true),
            ("scope", "\"rewrite\"", "\"write\"", false),
            ("scope", "\"read  write\"", "\"\"", true),
            ("scope", "[\"read write\"]", "\"read\"", false),
            ("id", "9007199254740993", "9007199254740992", false),
            ("id", "9007199254740993.0", "9007199254740993", true),
            ("id", "9223372036854775807", "9223372036854775809", false),
            ("id", "9223372036854775809", "9223372036854775809", true),
            ("id", "18446744073709551617", "18446744073709551616", false),
            ("id", "18446744073709551617", "1.8446744073709551617e19", true),
            ("id", "1e999", "1e999", true),
            ("id", "1e999", "1e998", false),
            ("id", "[1, 18446744073709551617]", "18446744073709551617", true),
            ("id", "[1, 18446744073709551617]", "18446744073709551616", false),
            ("id", "[[7]]", "7", false),
            ("id", "0", "false", false),
            ("id", "false", "0", false),
            ("scope", "7", "7", true),
        ] {
            let shallow = Shallow::of(raw(found)).unwrap();
            assert_eq!(holds(&claim(name), &shallow, &json(want)), held, "{name}: {found} {want}");
        }
    }
}
