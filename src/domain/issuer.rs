//! The issuers whose tokens are accepted, and the rules that each issuer's tokens must meet.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use url::{Host, Url};

use crate::domain::algorithm::Algorithm;
use crate::domain::claim::Claim;

/// The name of an issuer in the configuration, which logs and metrics use. Not its `iss`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssuerName(Arc<str>);

impl IssuerName {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One exact `iss` value (RFC 7519 section 4.1.1): compared byte by byte, never as a URL. Of an issuer with tenants it is a
/// template, in which [`TENANT`] stands for the tenant's ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IssuerId(pub String);

/// One accepted `aud` value (RFC 7519 section 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience(pub String);

/// Which `aud` is accepted. Not to check it is a choice in the configuration, never the absence of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audiences {
    /// `audiences: []`: `aud` is not read.
    NotChecked,
    /// At least one of these must be in `aud`. Never empty.
    OneOf(Vec<Audience>),
}

/// Stands for the ID of a tenant in the `iss` of an issuer with tenants.
pub(crate) const TENANT: &str = "{tid}";

/// The tenants of one issuer whose tokens are accepted. A token's `tid` must name the tenant that its `iss` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    Any,
    /// Never empty.
    OneOf(Vec<String>),
}

impl Tenants {
    fn accepts(&self, tenant: &str) -> bool {
        match self {
            Self::Any => {
                let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
                !tenant.is_empty() && tenant.bytes().all(legal)
            }
            Self::OneOf(listed) => listed.iter().any(|listed| listed == tenant),
        }
    }
}

/// What holds for a token with `cnf` (RFC 7800), which its issuer bound to a key of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundTokens {
    /// The token needs a proof of that key.
    Verify,
    /// The token is a bearer token all the same.
    Ignore,
}

/// One issuer's rules for its tokens.
#[derive(Debug, Clone)]
pub struct Issuer {
    pub name: IssuerName,
    /// The `iss` values that are this issuer.
    pub ids: Vec<IssuerId>,
    /// If the `ids` are templates.
    pub tenants: Option<Tenants>,
    pub audiences: Audiences,
    /// The claims in which the audiences are looked for: one match in any of them is enough. Never empty.
    pub audience_claims: Vec<Claim>,
    /// The claims that may be the subject: the first that is a string with content is. Never empty.
    pub subject: Vec<Claim>,
    pub algorithms: Vec<Algorithm>,
    /// Whether a token must have a `kid`.
    pub require_kid: bool,
    /// Accepted `typ` values, lower-cased, without `application/`.
    pub types: Vec<String>,
    /// Tolerance for `exp` and `nbf`.
    pub leeway: Duration,
    pub bound_tokens: BoundTokens,
    /// The longest time from `iat` to `exp`; with it `iat` is required.
    pub max_lifetime: Option<Duration>,
}

impl Issuer {
    /// The claims of RFC 7519 section 4.1.3 and 4.1.2 alone: `aud` for the audience, `sub` for the subject.
    #[must_use]
    pub fn registered_claims() -> [Vec<Claim>; 2] {
        ["aud", "sub"].map(|name| Claim::new(name).into_iter().collect())
    }

    /// The tenant that an `iss` names, if one of the templates fits and the tenant is accepted.
    fn tenant_of<'t>(&self, iss: &'t str) -> Option<&'t str> {
        let tenants = self.tenants.as_ref()?;
        let between = |id: &IssuerId| {
            let (before, after) = id.0.split_once(TENANT)?;
            iss.strip_prefix(before)?.strip_suffix(after)
        };
        self.ids.iter().filter_map(between).find(|tenant| tenants.accepts(tenant))
    }

    /// Whether `typ` is accepted: any case, `application/` dropped (RFC 7515 section 4.1.9).
    #[must_use]
    pub fn accepts_type(&self, typ: &str) -> bool {
        let lower_case = typ.to_ascii_lowercase();
        let short_form = lower_case.strip_prefix("application/").unwrap_or(&lower_case);
        self.types.iter().any(|accepted| accepted == short_form)
    }
}

/// All issuers, found by `iss`. No `iss` belongs to two of them: the configuration refuses that.
#[derive(Debug)]
pub(crate) struct Issuers {
    all: Vec<Issuer>,
    by_id: HashMap<IssuerId, usize>,
}

impl Issuers {
    #[must_use]
    pub(crate) fn new(all: Vec<Issuer>) -> Self {
        let ids = all.iter().enumerate().flat_map(|(at, issuer)| issuer.ids.iter().map(move |id| (id, at)));
        let by_id = ids.map(|(id, at)| (id.clone(), at)).collect();
        Self { all, by_id }
    }

    /// The issuer of this exact `iss`, or one with tenants and the tenant that the `iss` names.
    #[must_use]
    pub(crate) fn get<'t>(&self, iss: &'t str) -> Option<(&Issuer, Option<&'t str>)> {
        match self.by_id.get(iss).and_then(|at| self.all.get(*at)) {
            Some(Issuer { tenants: Some(_), .. }) => None,
            Some(issuer) => Some((issuer, None)),
            None => self.all.iter().find_map(|issuer| Some((issuer, Some(issuer.tenant_of(iss)?)))),
        }
    }

    /// In the configuration's order.
    pub(crate) fn names(&self) -> Vec<IssuerName> {
        self.all.iter().map(|issuer| issuer.name.clone()).collect()
    }

    pub(crate) fn all(&self) -> &[Issuer] {
        &self.all
    }

    /// The place of an issuer in the configuration's order.
    pub(crate) fn position(&self, issuer: &Issuer) -> Option<u32> {
        let at = self.by_id.get(issuer.ids.first()?)?;
        u32::try_from(*at).ok()
    }

    pub(crate) fn at_position(&self, position: u32) -> Option<&Issuer> {
        self.all.get(usize::try_from(position).ok()?)
    }
}

impl std::borrow::Borrow<str> for IssuerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// An app of Passage as an issuer: all that follows from its ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PassageApp {
    /// Both forms of `iss`: the bare app ID, which Passage documents, and the app's URL, which its tokens have.
    pub ids: [IssuerId; 2],
    pub keys_url: String,
}

impl PassageApp {
    /// Passage's own host.
    pub(crate) const BASE_URL: &str = "https://auth.passage.id";
    /// The cookie in which Passage's front end keeps the token.
    pub(crate) const COOKIE: &str = "psg_auth_token";

    /// The app at this host; a trailing slash of `base_url` is ignored.
    #[must_use]
    pub(crate) fn new(app_id: &str, base_url: &str) -> Self {
        let app = format!("{}/v1/apps/{app_id}", base_url.trim_end_matches('/'));
        Self {
            keys_url: format!("{app}/.well-known/jwks.json"),
            ids: [IssuerId(app_id.to_owned()), IssuerId(app)],
        }
    }
}

/// Whether a URL's host is this machine: `localhost` (RFC 6761 section 6.3) or a loopback address.
#[must_use]
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passage_app_is_known_by_both_forms() {
        let app = PassageApp::new("dk8fn", "https://auth.passage.id/");
        assert_eq!(app.ids[0].0, "dk8fn");
        assert_eq!(app.ids[1].0, "https://auth.passage.id/v1/apps/dk8fn");
        assert_eq!(app.keys_url, "https://auth.passage.id/v1/apps/dk8fn/.well-known/jwks.json");
    }
}
