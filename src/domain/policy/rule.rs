//! One rule: what it matches, what it lets through, and what it asks of a verified token.

use serde_json::Value;

use crate::domain::claims::Claim;
use crate::domain::denial::Denial;
use crate::domain::issuer::IssuerName;
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
    /// Claims that must be met, all of them; of each claim's values any is enough. No list is empty.
    pub(crate) claims: Vec<(Claim, Vec<Value>)>,
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
        let met = |(claim, values): &(Claim, Vec<Value>)| {
            claim.of(token.claims()).is_some_and(|found| values.iter().any(|want| holds(claim, &found, want)))
        };
        if self.claims.iter().all(met) { Ok(()) } else { Err(Denial::ClaimsInsufficient) }
    }
}

/// Strict in type: equal, or contained in an array. `scope` and `scp` given as one string are lists
/// separated by spaces (RFC 8693 section 4.2).
fn holds(claim: &Claim, found: &Value, want: &Value) -> bool {
    match found {
        Value::Array(items) => items.iter().any(|item| same(item, want)),
        Value::String(text) if ["scope", "scp"].contains(&claim.as_str()) => {
            want.as_str().is_some_and(|want| text.split(' ').any(|one| one == want))
        }
        other => same(other, want),
    }
}

/// Numbers by value, everything else as written.
fn same(found: &Value, want: &Value) -> bool {
    match (found, want) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        _ => found == want,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_strictly() {
        let claim = |name: &str| Claim::new(name).unwrap();
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
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
        ] {
            assert_eq!(holds(&claim(name), &json(found), &json(want)), held, "{name}: {found} {want}");
        }
    }
}
