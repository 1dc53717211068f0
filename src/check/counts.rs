//! The counters of checks: atomics made at the start, one set for each core, summed at a scrape. Labels are configured
//! names and fixed words, never a client's bytes, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

use crate::check::outcome::Outcome;
use crate::domain::issuer::IssuerName;
use crate::per_core::PerCore;

/// The histogram's upper bounds: a cached check falls into the first ones, a new token into the next, a wait for a key
/// into the last.
const BUCKET_NANOS: [u64; 12] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];

/// The checks so far. The counts of a [following](CheckCounts::followed_by) configuration share the counters.
#[derive(Debug, Clone)]
pub(crate) struct CheckCounts {
    all: Arc<PerCore<Totals>>,
    /// Checks without a token, or whose token names no configured issuer.
    without_issuer: Arc<PerCore<OfIssuer>>,
    by_issuer: BTreeMap<IssuerName, Arc<PerCore<OfIssuer>>>,
}

/// Counted for all issuers together.
#[derive(Debug, Default)]
struct Totals {
    hits: AtomicU64,
    misses: AtomicU64,
    nanos: AtomicU64,
    /// One for each bound; the last one is for durations above every bound.
    durations: [AtomicU64; BUCKET_NANOS.len() + 1],
}

#[derive(Debug)]
struct OfIssuer {
    /// One counter for each [`Outcome::index`].
    outcomes: [AtomicU64; Outcome::COUNT],
    changed_identities: AtomicU64,
}

impl Default for OfIssuer {
    fn default() -> Self {
        Self {
            outcomes: [const { AtomicU64::new(0) }; Outcome::COUNT],
            changed_identities: AtomicU64::new(0),
        }
    }
}

fn add_one(counter: Option<&AtomicU64>) {
    counter.expect("there is a counter for each").fetch_add(1, Ordering::Relaxed);
}

fn sum<'a>(counters: impl Iterator<Item = Option<&'a AtomicU64>>) -> u64 {
    counters.flatten().map(|counter| counter.load(Ordering::Relaxed)).sum()
}

impl CheckCounts {
    /// Starts at zero, for these issuers.
    #[must_use]
    pub(crate) fn new<'i>(issuers: impl Iterator<Item = &'i IssuerName>) -> Self {
        let zero = Self { all: Arc::default(), without_issuer: Arc::default(), by_issuer: BTreeMap::new() };
        zero.followed_by(issuers)
    }

    /// The same counters, with those of new issuers. Issuers that are gone keep theirs: a counter must not go back.
    #[must_use]
    pub(crate) fn followed_by<'i>(&self, issuers: impl Iterator<Item = &'i IssuerName>) -> Self {
        let mut following = self.clone();
        for issuer in issuers {
            following.by_issuer.entry(issuer.clone()).or_default();
        }
        following
    }

    pub(crate) fn count(&self, issuer: Option<&IssuerName>, outcome: Outcome, took: Duration) {
        let counters = issuer.and_then(|issuer| self.by_issuer.get(issuer)).unwrap_or(&self.without_issuer);
        add_one(counters.here().outcomes.get(outcome.index()));
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKET_NANOS.iter().take_while(|bound| nanos > **bound).count();
        let all = self.all.here();
        all.nanos.fetch_add(nanos, Ordering::Relaxed);
        add_one(all.durations.get(bucket));
    }

    pub(crate) fn count_changed_identity(&self, issuer: &IssuerName) {
        if let Some(counters) = self.by_issuer.get(issuer) {
            counters.here().changed_identities.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_cache_hit(&self) {
        self.all.here().hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_cache_miss(&self) {
        self.all.here().misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Checks by what they came to";
        let mut checks = encoder.encode_descriptor("checks", help, None, MetricType::Counter)?;
        let without_issuer = [("", &self.without_issuer)].into_iter();
        let issuers = self.by_issuer.iter().map(|(issuer, counters)| (issuer.as_str(), counters));
        for (issuer, counters) in without_issuer.chain(issuers) {
            for outcome in Outcome::all() {
                let count = sum(counters.iter().map(|counters| counters.outcomes.get(outcome.index())));
                if count > 0 {
                    let labels = [("issuer", issuer), ("outcome", outcome.label()), ("code", outcome.code())];
                    ConstCounter::new(count).encode(checks.encode_family(&labels)?)?;
                }
            }
        }

        let help = "Checks in shadow whose identity headers differ from the plain claims";
        let mut changed = encoder.encode_descriptor("identity_changed", help, None, MetricType::Counter)?;
        for (issuer, counters) in &self.by_issuer {
            let count = sum(counters.iter().map(|counters| Some(&counters.changed_identities)));
            if count > 0 {
                ConstCounter::new(count).encode(changed.encode_family(&[("issuer", issuer.as_str())])?)?;
            }
        }

        let help = "Time from the request's view to the verdict, waits for keys included";
        let seconds = Some(&Unit::Seconds);
        let mut durations =
            encoder.encode_descriptor("check_duration", help, seconds, MetricType::Histogram)?;
        let bounds = BUCKET_NANOS.iter().map(|nanos| Duration::from_nanos(*nanos).as_secs_f64());
        let buckets: Vec<_> = bounds
            .chain([f64::INFINITY])
            .enumerate()
            .map(|(at, bound)| (bound, sum(self.all.iter().map(|all| all.durations.get(at)))))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let nanos = Duration::from_nanos(sum(self.all.iter().map(|all| Some(&all.nanos))));
        durations.encode_histogram::<NoLabelSet>(nanos.as_secs_f64(), count, &buckets, None)?;

        let help = "Tokens by whether they had been verified before";
        let mut cached = encoder.encode_descriptor("token_cache", help, None, MetricType::Counter)?;
        let hits = sum(self.all.iter().map(|all| Some(&all.hits)));
        let misses = sum(self.all.iter().map(|all| Some(&all.misses)));
        for (result, count) in [("hit", hits), ("miss", misses)] {
            ConstCounter::new(count).encode(cached.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::domain::denial::Denial;

    #[derive(Debug)]
    struct Shown(CheckCounts);

    impl Collector for Shown {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            self.0.encode(&mut encoder)
        }
    }

    fn shown(counts: &CheckCounts) -> Vec<String> {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(Shown(counts.clone())));
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn each_check_stands_in_one_series_and_one_bucket_and_a_reload_forgets_none() {
        let [a, b] = ["a", "b"].map(IssuerName::new);
        let counts = CheckCounts::new([&a].into_iter());
        let denied = Outcome::Denied(Denial::TokenExpired);
        let keys = Outcome::Denied(Denial::KeysUnavailable);
        let shadow = Outcome::ShadowDenied(Denial::TokenExpired);
        counts.count(Some(&a), Outcome::Allowed, Duration::from_nanos(5_000));
        counts.count(Some(&a), denied, Duration::from_nanos(5_001));
        let following = counts.followed_by([&b].into_iter());
        following.count(Some(&b), shadow, Duration::from_secs(1));
        following.count(Some(&a), keys, Duration::from_secs(2));
        following.count(None, Outcome::Denied(Denial::TokenMissing), Duration::ZERO);
        following.count_cache_hit();
        following.count_cache_miss();
        // A check that took its configuration before the reload.
        counts.count(Some(&a), Outcome::Allowed, Duration::ZERO);
        let lines = shown(&following);
        let mut checks: Vec<_> = lines.iter().filter(|line| line.starts_with("checks_total")).collect();
        checks.sort();
        assert_eq!(
            checks,
            [
                r#"checks_total{issuer="",outcome="denied",code="token_missing"} 1"#,
                r#"checks_total{issuer="a",outcome="allowed",code=""} 2"#,
                r#"checks_total{issuer="a",outcome="denied",code="token_expired"} 1"#,
                r#"checks_total{issuer="a",outcome="error",code="keys_unavailable"} 1"#,
                r#"checks_total{issuer="b",outcome="shadow_denied",code="token_expired"} 1"#,
            ]
        );
        for line in [
            r#"check_duration_seconds_bucket{le="0.000005"} 3"#,
            r#"check_duration_seconds_bucket{le="0.00001"} 4"#,
            r#"check_duration_seconds_bucket{le="0.25"} 4"#,
            r#"check_duration_seconds_bucket{le="1.0"} 5"#,
            r#"check_duration_seconds_bucket{le="+Inf"} 6"#,
            "check_duration_seconds_count 6",
            "check_duration_seconds_sum 3.000010001",
            r#"token_cache_total{result="hit"} 1"#,
            r#"token_cache_total{result="miss"} 1"#,
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:#?}");
        }
    }
}
