//! What checks came to, counted once per check. Labels are configured names and our own words, never anything
//! a client sent, so their number is bounded.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::issuer::IssuerName;
use crate::observe::Outcome;

/// Seconds: a cached check is in the first ones, a cold one in the next, a wait for a key in the last.
const BUCKETS: [f64; 12] =
    [0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.25, 1.0];

/// The checks so far; clones count together.
#[derive(Debug, Clone)]
pub struct Counts {
    checks: Family<Labels, Counter>,
    durations: Histogram,
    hits: Counter,
    misses: Counter,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            checks: Family::default(),
            durations: Histogram::new(BUCKETS),
            hits: Counter::default(),
            misses: Counter::default(),
        }
    }
}

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
    /// Counts one check.
    pub fn count(&self, issuer: Option<&IssuerName>, outcome: Outcome, took: Duration) {
        let (code, outcome) = (outcome.code(), outcome.label());
        self.checks.get_or_create(&Labels { issuer: Issuer(issuer.cloned()), outcome, code }).inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// Counts a token that was verified before.
    pub fn hit(&self) {
        self.hits.inc();
    }

    /// Counts a token that was not.
    pub fn missed(&self) {
        self.misses.inc();
    }

    /// Hits and misses of the token cache.
    pub(crate) fn cached(&self) -> [(&'static str, u64); 2] {
        [("hit", self.hits.get()), ("miss", self.misses.get())]
    }

    /// Shows them to whoever scrapes this registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("checks", "Checks by what they came to", self.checks.clone());
        let help = "Time from the request's view to the verdict, waits for keys included";
        registry.register_with_unit("check_duration", help, Unit::Seconds, self.durations.clone());
    }
}
