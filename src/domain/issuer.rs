//! Who may issue tokens here, and what each of them promises about its tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use url::{Host, Url};

use crate::domain::algorithm::Algorithm;

/// The name an operator gave an issuer in the configuration: what logs and metrics call it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssuerName(Arc<str>);

impl IssuerName {
    /// A name as configured.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
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

/// One exact `iss` value (RFC 7519 section 4.1.1): compared byte by byte, never as a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IssuerId(pub String);

/// One accepted `aud` value (RFC 7519 section 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience(pub String);

/// Which `aud` is accepted. Not checking it is a choice somebody wrote down, not the absence of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audiences {
    /// `audiences: []`: `aud` is not looked at.
    NotChecked,
    /// At least one of these must be in `aud`. Never empty.
    OneOf(Vec<Audience>),
}

/// One issuer's rules for its tokens.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Its name in the configuration.
    pub name: IssuerName,
    /// The `iss` values that are this issuer.
    pub ids: Vec<IssuerId>,
    /// Which `aud` is accepted.
    pub audiences: Audiences,
    /// The allowed signature algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Whether a token must name its key.
    pub require_kid: bool,
    /// Accepted `typ` values, lower-cased, without `application/`.
    pub types: Vec<String>,
    /// Tolerance for `exp` and `nbf`.
    pub leeway: Duration,
}

impl Issuer {
    /// Whether `typ` is accepted: any case, `application/` dropped (RFC 7515 section 4.1.9).
    #[must_use]
    pub fn accepts_type(&self, typ: &str) -> bool {
        let typ = typ.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        self.types.iter().any(|accepted| accepted == typ)
    }
}

/// All issuers, found by `iss`. No `iss` belongs to two of them: the configuration refuses that.
#[derive(Debug)]
pub struct Issuers {
    all: Vec<Issuer>,
    by_id: HashMap<IssuerId, usize>,
}

impl Issuers {
    /// Indexes the issuers by their `iss` values.
    #[must_use]
    pub fn new(all: Vec<Issuer>) -> Self {
        let ids = all.iter().enumerate().flat_map(|(at, issuer)| issuer.ids.iter().map(move |id| (id, at)));
        let by_id = ids.map(|(id, at)| (id.clone(), at)).collect();
        Self { all, by_id }
    }

    /// The issuer of this exact `iss`.
    #[must_use]
    pub fn get(&self, iss: &str) -> Option<&Issuer> {
        self.by_id.get(iss).and_then(|at| self.all.get(*at))
    }

    /// Where an issuer stands in the configuration's order.
    pub(crate) fn position(&self, issuer: &Issuer) -> Option<u32> {
        let at = self.by_id.get(issuer.ids.first()?)?;
        u32::try_from(*at).ok()
    }

    /// The issuer that stands there.
    pub(crate) fn at_position(&self, position: u32) -> Option<&Issuer> {
        self.all.get(usize::try_from(position).ok()?)
    }

    /// Every issuer, in the configuration's order.
    pub fn iter(&self) -> impl Iterator<Item = &Issuer> {
        self.all.iter()
    }
}

impl std::borrow::Borrow<str> for IssuerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What one Passage app ID stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PassageApp {
    /// Both forms of `iss`: the bare app ID (as Passage documents it) and the app's URL (as its tokens
    /// carry it).
    pub ids: [IssuerId; 2],
    /// Where the app's key set is published.
    pub keys_url: String,
}

impl PassageApp {
    /// Passage's own host.
    pub(crate) const BASE_URL: &str = "https://auth.passage.id";
    /// The cookie Passage's front end keeps the token in.
    pub(crate) const COOKIE: &str = "psg_auth_token";

    /// The profile of an app at a host; a trailing slash of `base_url` does not count.
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
