//! What checks came to, counted once per check. Labels are configured names and our own words, never anything
//! a client sent, so their number is bounded.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::denial::Denial;
use crate::issuer::IssuerName;

/// The checks so far; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counts(Family<Labels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    issuer: Issuer,
    outcome: &'static str,
    code: &'static str,
}

/// The issuer that a token named, if it named one of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Issuer(Option<IssuerName>);

impl EncodeLabelValue for Issuer {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_ref().map_or("", IssuerName::as_str).encode(encoder)
    }
}

impl Counts {
    /// Counts a request that was let through.
    pub fn allowed(&self, issuer: Option<&IssuerName>) {
        self.count(issuer, "allowed", "");
    }

    /// Counts a denial: the caller's fault, or ours.
    pub fn denied(&self, issuer: Option<&IssuerName>, denial: Denial) {
        let outcome = if matches!(denial.http_status(), 401 | 403) { "denied" } else { "error" };
        self.count(issuer, outcome, denial.code());
    }

    /// Counts a denial that a shadow rollout let through.
    pub fn shadowed(&self, issuer: Option<&IssuerName>, denial: Denial) {
        self.count(issuer, "shadow_denied", denial.code());
    }

    fn count(&self, issuer: Option<&IssuerName>, outcome: &'static str, code: &'static str) {
        self.0.get_or_create(&Labels { issuer: Issuer(issuer.cloned()), outcome, code }).inc();
    }

    /// Shows them to whoever scrapes this registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("checks", "Checks by what they came to", self.0.clone());
    }
}
