//! `/metrics`: what the service counts, in the OpenMetrics text format that Prometheus reads.
//!
//! Nothing is counted twice: the numbers live where they arise, and are read when somebody asks.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::issuer::IssuerName;
use crate::keys::store::KeyStore;

/// The content type of [`render`]'s text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted, under the contract's names.
pub(crate) fn registry(keys: Arc<KeyStore>, issuers: Vec<IssuerName>) -> Registry {
    let mut registry = Registry::with_prefix("passage_authz");
    registry.register_collector(Box::new(Keys { keys, issuers }));
    registry
}

/// The text of a scrape.
pub(crate) fn render(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

/// The key sets and their fetches, by issuer: a configured name, never anything a client sent.
#[derive(Debug)]
struct Keys {
    keys: Arc<KeyStore>,
    issuers: Vec<IssuerName>,
}

impl Collector for Keys {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Fetches of key sets by what they brought";
        let mut fetches = encoder.encode_descriptor("key_fetches", help, None, MetricType::Counter)?;
        for issuer in &self.issuers {
            let (_, status) = self.keys.inspect(issuer);
            let counts = status.fetches;
            for (result, count) in
                [("changed", counts.changed), ("unchanged", counts.unchanged), ("failed", counts.failed)]
            {
                let labels = [("issuer", issuer.as_str()), ("result", result)];
                ConstCounter::new(count).encode(fetches.encode_family(&labels)?)?;
            }
        }
        let help = "Keys at hand";
        let mut count = encoder.encode_descriptor("keys", help, None, MetricType::Gauge)?;
        for issuer in &self.issuers {
            let (set, _) = self.keys.inspect(issuer);
            let keys = set.map_or(0, |set| i64::try_from(set.distinct()).unwrap_or(i64::MAX));
            gauge(keys, &mut count, issuer)?;
        }
        let help = "Time since the issuer last confirmed its key set";
        let mut age =
            encoder.encode_descriptor("key_set_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        let now = self.keys.now();
        for issuer in &self.issuers {
            if let (Some(set), _) = self.keys.inspect(issuer) {
                gauge(now.since(set.fetched_at()).as_secs_f64(), &mut age, issuer)?;
            }
        }
        Ok(())
    }
}

fn gauge<N>(value: N, encoder: &mut MetricEncoder<'_>, issuer: &IssuerName) -> Result<(), fmt::Error>
where
    ConstGauge<N>: EncodeMetric,
{
    ConstGauge::new(value).encode(encoder.encode_family(&[("issuer", issuer.as_str())])?)
}
