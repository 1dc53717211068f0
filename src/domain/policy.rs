//! Which rule applies to a request, and what the rule requires of the token. A request that no rule matches needs a
//! token.

use std::collections::HashMap;

use serde_json::Value;

use crate::domain::claims::Claim;
use crate::domain::denial::Denial;
use crate::domain::issuer::IssuerName;
use crate::domain::path;
use crate::domain::request::Request;
use crate::domain::verify::Verified;

mod index;

use index::Index;

/// What a rule requires before a request is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Nothing; a token is not looked at.
    Public,
    /// No token, or a good one.
    Optional,
    /// A good token.
    #[default]
    Required,
    /// Every request is denied.
    Deny,
}

#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Its name, unique; empty for the rule that applies when none matches.
    pub name: String,
    /// `Host` patterns; `None` matches any. Never empty.
    pub hosts: Option<Vec<HostPattern>>,
    /// Path patterns; `None` matches any. Never empty.
    pub paths: Option<Vec<PathPattern>>,
    /// Methods; `None` matches any. Never empty.
    pub methods: Option<Vec<String>>,
    pub access: Access,
    pub require: Requirement,
    /// Whether its denials are counted and logged, but not enforced.
    pub shadow: bool,
}

/// What a rule requires of a verified token.
#[derive(Debug, Clone, Default)]
pub struct Requirement {
    /// Issuers it accepts; `None` accepts any configured one. Never empty.
    pub issuers: Option<Vec<IssuerName>>,
    /// Claims that must be met, all of them; of each claim's values any is enough. No list is empty.
    pub claims: Vec<(Claim, Vec<Value>)>,
}

/// A host, or all hosts below one. Lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Any depth below this host; begins with a dot.
    Below(String),
}

/// A path, or all paths below one. In normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// This path.
    Exact(String),
    /// This path, which ends in a slash, and any below.
    Below(String),
}

impl HostPattern {
    /// Reads `api.example.com` or `*.example.org`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (host, below) = text.strip_prefix("*.").map_or((text.as_str(), false), |host| (host, true));
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let legal =
            |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || (bracketed && "[]:".contains(c));
        if host.is_empty() || !host.chars().all(legal) || host.ends_with('.') || host.starts_with('.') {
            return None;
        }
        Some(if below { Self::Below(format!(".{host}")) } else { Self::Exact(host.to_owned()) })
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(own) => host == own,
            Self::Below(own) => host.len() > own.len() && host.ends_with(own.as_str()),
        }
    }
}

impl PathPattern {
    /// Reads an exact path, or a prefix that ends in `/*`. Only normal forms: another could never match.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let (path, below) =
            text.strip_suffix("/*").map_or((text.to_owned(), false), |path| (format!("{path}/"), true));
        let normal = path::normalize(path.as_bytes()).ok()?;
        let literal = normal == path && (path == "*" || !path.contains('*'));
        literal.then_some(if below { Self::Below(normal) } else { Self::Exact(normal) })
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(own) => path == own,
            Self::Below(own) => path.starts_with(own.as_str()),
        }
    }
}

/// All rules; the first that matches counts.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
    by_name: HashMap<String, usize>,
    index: Index,
    looks_at_paths: bool,
    otherwise: Rule,
}

impl Policy {
    /// A policy of these rules, in this order.
    #[must_use]
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        let by_name = rules.iter().enumerate().map(|(at, rule)| (rule.name.clone(), at)).collect();
        let looks_at_paths = rules.iter().any(|rule| rule.paths.is_some());
        let index = Index::new(&rules);
        Self { rules, by_name, index, looks_at_paths, otherwise: Rule::default() }
    }

    /// The claims that rules require.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.rules.iter().flat_map(|rule| rule.require.claims.iter().map(|(claim, _)| claim))
    }

    /// The rule of a request: the one that the route names, else the first that matches, else a rule that requires a
    /// token.
    ///
    /// # Errors
    /// [`Denial::RuleUnknown`] if the route names a rule that does not exist; [`Denial::RequestMalformed`] if rules
    /// match paths and this one can be read in more than one way.
    pub(crate) fn select(&self, request: &Request<'_>) -> Result<&Rule, Denial> {
        if let Some(name) = request.rule {
            let at = str::from_utf8(name).ok().and_then(|name| self.by_name.get(name));
            return at.and_then(|at| self.rules.get(*at)).ok_or(Denial::RuleUnknown);
        }
        if self.rules.is_empty() {
            return Ok(&self.otherwise);
        }
        let path = if self.looks_at_paths {
            path::normalize(request.path).map_err(|_| Denial::RequestMalformed)?
        } else {
            String::new()
        };
        let host = host(request.host);
        let matching = self.index.first(&path, &host, |at| {
            let Some(rule) = self.rules.get(at) else { return false };
            let any = |met: Option<bool>| met.unwrap_or(true);
            any(rule.methods.as_ref().map(|all| all.iter().any(|method| method.as_bytes() == request.method)))
                && any(rule.hosts.as_ref().map(|all| all.iter().any(|pattern| pattern.matches(&host))))
                && any(rule.paths.as_ref().map(|all| all.iter().any(|pattern| pattern.matches(&path))))
        });
        Ok(matching.and_then(|at| self.rules.get(at)).unwrap_or(&self.otherwise))
    }
}

/// The host that patterns are matched against: lower case, without port and without one trailing dot.
fn host(host: &[u8]) -> String {
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        // Not the last group of a bare IPv6 address in brackets.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => &host,
    };
    name.strip_suffix('.').unwrap_or(name).to_owned()
}

impl Requirement {
    /// Whether every verified token meets it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.issuers.is_none() && self.claims.is_empty()
    }

    /// Checks whether a verified token meets the requirement.
    ///
    /// # Errors
    /// [`Denial::IssuerNotAccepted`] or [`Denial::ClaimsInsufficient`].
    pub fn judge(&self, token: &Verified<'_, '_>) -> Result<(), Denial> {
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

/// Whether a claim has a wanted value: equal to it in type and value, or an array with such an element. A string in
/// `scope` or `scp` is a list separated by spaces (RFC 8693 section 4.2).
fn holds(claim: &Claim, found: &Value, want: &Value) -> bool {
    match found {
        Value::Array(items) => items.iter().any(|item| same(item, want)),
        Value::String(text) if ["scope", "scp"].contains(&claim.as_str()) => {
            want.as_str().is_some_and(|want| text.split(' ').any(|one| one == want))
        }
        other => same(other, want),
    }
}

/// Equality of type and value. Numbers are compared by value: 1 is equal to 1.0.
fn same(found: &Value, want: &Value) -> bool {
    match (found, want) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        _ => found == want,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, hosts: &[&str], paths: &[&str], methods: &[&str]) -> Rule {
        fn some<T>(list: &[&str], read: impl Fn(&str) -> T) -> Option<Vec<T>> {
            (!list.is_empty()).then(|| list.iter().map(|text| read(text)).collect())
        }
        Rule {
            name: name.to_owned(),
            hosts: some(hosts, |text| HostPattern::new(text).unwrap()),
            paths: some(paths, |text| PathPattern::new(text).unwrap()),
            methods: some(methods, str::to_owned),
            ..Rule::default()
        }
    }

    #[test]
    fn the_first_match_counts() {
        let policy = Policy::new(vec![
            rule("health", &[], &["/healthz"], &["GET"]),
            rule("assets", &["api.example.com", "*.example.org"], &["/assets/*"], &[]),
            rule("wild", &["*.example.org"], &[], &[]),
            rule("post", &[], &[], &["POST"]),
            rule("six", &["[::1]"], &[], &[]),
        ]);
        for (method, host, path, want) in [
            ("GET", "any", "/healthz", "health"),
            ("GET", "any", "/healthz?x", "health"),
            ("HEAD", "any", "/healthz", ""),
            ("get", "any", "/healthz", ""),
            ("GET", "any", "/healthz/", ""),
            ("GET", "any", "/x/../healthz", "health"),
            ("GET", "API.example.com:8443", "/assets/", "assets"),
            ("GET", "api.example.com.", "/assets/a/b", "assets"),
            ("GET", "api.example.com.:80", "/assets/a", "assets"),
            ("GET", "api.example.com", "/assets", ""),
            ("GET", "api.example.com..", "/assets/a", ""),
            ("GET", "a.b.example.org", "/assets/x", "assets"),
            ("GET", "a.b.example.org", "/", "wild"),
            ("GET", "example.org", "/", ""),
            ("GET", "evil-example.org", "/", ""),
            ("GET", ".example.org", "/", ""),
            ("POST", "any", "/", "post"),
            ("GET", "[::1]:8080", "/", "six"),
            ("GET", "[::1]", "/", "six"),
            ("OPTIONS", "any", "*", ""),
        ] {
            let request = Request {
                method: method.as_bytes(),
                host: host.as_bytes(),
                path: path.as_bytes(),
                ..Request::default()
            };
            assert_eq!(
                policy.select(&request).map(|rule| rule.name.as_str()),
                Ok(want),
                "{method} {host} {path}"
            );
        }
        let odd = Request { path: b"/a%2fb", ..Request::default() };
        assert_eq!(policy.select(&odd).err(), Some(Denial::RequestMalformed));
        let named = |name: &'static [u8]| Request { rule: Some(name), ..odd.clone() };
        assert_eq!(
            policy.select(&named(b"wild")).map(|rule| rule.name.as_str()),
            Ok("wild"),
            "looks at no path"
        );
        for name in [&b"Wild"[..], b"", b"\xff", b"wild "] {
            assert_eq!(policy.select(&named(name)).err(), Some(Denial::RuleUnknown));
        }
        let no_paths = Policy::new(vec![rule("post", &[], &[], &["POST"])]);
        assert_eq!(no_paths.select(&odd).map(|rule| rule.access), Ok(Access::Required));
    }

    #[test]
    fn patterns_that_could_never_match_are_none() {
        for text in ["", "/a/../b", "//a", "/a*", "/*/b", "/a%2fb", "a", "/%61", "/a/**", "/a?b"] {
            assert_eq!(PathPattern::new(text), None, "{text}");
        }
        for text in ["/", "/*", "/a", "/a/*", "*", "/a%20b/*"] {
            assert!(PathPattern::new(text).is_some(), "{text}");
        }
        for text in ["", "*", "*.", "a:80", "*.*.a", "a b", "a.", ".a", "é"] {
            assert_eq!(HostPattern::new(text), None, "{text}");
        }
    }

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
