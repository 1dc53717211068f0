//! One rule: what it matches, what it lets through, and what it asks of a verified token.

use crate::domain::claim::Claim;
use crate::domain::denial::Denial;
use crate::domain::issuer::{Audiences, IssuerName};
use crate::domain::policy::demand::ClaimDemand;
use crate::domain::policy::path_demand::PathDemand;
use crate::domain::policy::pattern::{HostPattern, Ignored, PathPattern};
use crate::domain::verify::Verified;

/// What a rule lets through, the strictest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Access {
    /// Everything; the token is not looked at.
    Public,
    /// Everything; a good token says who it is, and any other is as none.
    Lenient,
    /// No token at all, or a good one.
    Optional,
    /// A good token.
    #[default]
    Required,
    /// Nothing.
    Deny,
}

impl Access {
    /// As the configuration writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Lenient => "lenient",
            Self::Optional => "optional",
            Self::Required => "required",
            Self::Deny => "deny",
        }
    }
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
    /// Of a token; `None`: those of its issuer.
    pub(crate) audiences: Option<Audiences>,
    pub(crate) require: Requirement,
    /// Whether its denials are counted and logged, but let through.
    pub(crate) shadow: bool,
}

/// What a rule asks of a verified token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requirement {
    /// Issuers it accepts; `None` accepts any configured one. Never empty.
    pub(crate) issuers: Option<Vec<IssuerName>>,
    /// All of them must be met.
    pub(crate) claims: Vec<ClaimDemand>,
}

impl Rule {
    /// Whether it turns requests away that a token alone would let through.
    pub(crate) fn restricts(&self) -> bool {
        self.access == Access::Deny || self.asks_of_a_token()
    }

    /// Whether a good token is not enough.
    pub(crate) fn asks_of_a_token(&self) -> bool {
        !self.require.is_empty() || self.audiences.is_some() || self.path_claims().next().is_some()
    }

    /// Whether a request must not escape it by another spelling of its path.
    pub(crate) fn closes(&self) -> bool {
        self.restricts() || self.access == Access::Required
    }

    /// The claims that segments of its paths are compared with.
    pub(crate) fn path_claims(&self) -> impl Iterator<Item = &Claim> {
        self.paths.iter().flatten().flat_map(PathPattern::claims)
    }

    /// What a path that the rule matches asks of the token's claims; `None` if nothing.
    pub(super) fn path_demand(
        &self,
        path: &[u8],
        level: usize,
        ignored: Ignored,
        restricts: bool,
    ) -> Option<PathDemand<'_>> {
        self.path_claims().next()?;
        let patterns = self.paths.iter().flatten();
        let captures = patterns.flat_map(|pattern| pattern.captures(path, level, ignored, restricts));
        PathDemand::of(captures, level, ignored)
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
        let met = |demand: &ClaimDemand| demand.is_met_by(token.claims());
        if self.claims.iter().all(met) { Ok(()) } else { Err(Denial::ClaimsInsufficient) }
    }
}
