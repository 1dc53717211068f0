//! `/metrics`. At each scrape collectors read the counters where they are counted: no number is kept twice.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use strum::VariantArray as _;

use crate::api::metrics_format::Format;
use crate::api::process::Process;
use crate::domain::issuer::IssuerName;
use crate::domain::revoked::Kind;
use crate::keys::sets::LastWrite;
use crate::live::Live;
use crate::revocation::source::Outcome;
use crate::revocation::state::Revocations;
use crate::server::PortCounters;
use crate::server::overload::Admission;
use crate::server::tls::Tls;

#[derive(Debug, Clone)]
pub(crate) struct Ports {
    pub(crate) admission: Arc<Admission>,
    pub(crate) grpc: Arc<PortCounters>,
    pub(crate) http: Arc<PortCounters>,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// All metrics, under their documented names.
pub(crate) fn registry(live: Arc<Live>, ports: Ports) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    let ours = registry.sub_registry_with_prefix("passage_authz");
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    ours.register("build", "The version that runs", version);
    ours.register_collector(Box::new(LiveCollector(live)));
    ours.register_collector(Box::new(ports));
    registry
}

/// The metrics in the format that the request asks for, and its content type.
pub(crate) fn render(registry: &Registry, request: &HeaderMap) -> Result<(&'static str, String), fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    let format = Format::asked_for(request);
    Ok((format.content_type(), format.of_open_metrics(text)))
}

/// The checks, the key sets and their fetches, by issuer: a configured name, never a client's bytes.
#[derive(Debug)]
struct LiveCollector(Arc<Live>);

impl Collector for LiveCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let current = self.0.current();
        let authorizer = &current.authorizer;
        authorizer.observers.counts.encode(&mut encoder)?;
        let key_sets = Arc::clone(&authorizer.keys);
        let issuers: Vec<_> = key_sets.sources().iter().map(|(issuer, _)| issuer).collect();
        let help = "Fetches of key sets by what they brought";
        let mut fetches = encoder.encode_descriptor("key_fetches", help, None, MetricType::Counter)?;
        for issuer in &issuers {
            let (_, status) = key_sets.inspect(issuer);
            let counts = status.fetches;
            for (result, count) in
                [("changed", counts.changed), ("unchanged", counts.unchanged), ("failed", counts.failed)]
            {
                let labels = [("issuer", issuer.as_str()), ("result", result)];
                ConstCounter::new(count).encode(fetches.encode_family(&labels)?)?;
            }
        }
        let (reloaded, refused) = self.0.reloads();
        let help = "Reloads of the configuration by how they ended";
        let mut reloads = encoder.encode_descriptor("config_reloads", help, None, MetricType::Counter)?;
        for (result, count) in [("ok", reloaded), ("failed", refused)] {
            ConstCounter::new(count).encode(reloads.encode_family(&[("result", result)])?)?;
        }
        let help = "Whether the last configuration that was read is in force: 1 or 0";
        let last =
            encoder.encode_descriptor("config_last_reload_successful", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::from(self.0.is_last())).encode(last)?;
        if let Some(revocations) = &authorizer.revocations {
            encode_revocations(revocations, &mut encoder)?;
        }
        let help = "Whether some issuer's tokens can be verified: 1 or 0";
        let ready = encoder.encode_descriptor("ready", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::from(authorizer.is_ready())).encode(ready)?;
        let help = "Whether the issuer's tokens can be verified: 1 or 0";
        let mut usable = encoder.encode_descriptor("issuer_usable", help, None, MetricType::Gauge)?;
        let now = key_sets.now();
        for issuer in &issuers {
            gauge(i64::from(key_sets.is_usable(issuer, now)), &mut usable, issuer)?;
        }
        let help = "The mode of the configuration in force: 1 for one of the two, 0 for the other";
        let mut modes = encoder.encode_descriptor("mode", help, None, MetricType::Gauge)?;
        let in_shadow = authorizer.check_flags.shadow;
        for (mode, is_it) in [("enforce", !in_shadow), ("shadow", in_shadow)] {
            ConstGauge::new(i64::from(is_it)).encode(modes.encode_family(&[("mode", mode)])?)?;
        }
        let help = "Keys at hand";
        let mut count = encoder.encode_descriptor("keys", help, None, MetricType::Gauge)?;
        for issuer in &issuers {
            let (set, _) = key_sets.inspect(issuer);
            let keys = set.map_or(0, |set| i64::try_from(set.jwk_count()).unwrap_or(i64::MAX));
            gauge(keys, &mut count, issuer)?;
        }
        let help = "Time since the issuer last confirmed its key set";
        let mut age =
            encoder.encode_descriptor("key_set_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for issuer in &issuers {
            if let Some(since) = key_sets.age(issuer) {
                gauge(since.as_secs_f64(), &mut age, issuer)?;
            }
        }
        let help = "Whether the last write of the issuer's keys to the disk succeeded: 1 or 0";
        let mut stores = encoder.encode_descriptor("key_store_ok", help, None, MetricType::Gauge)?;
        for issuer in &issuers {
            match key_sets.inspect(issuer).1.last_write {
                LastWrite::None => {}
                write => gauge(i64::from(write == LastWrite::Succeeded), &mut stores, issuer)?,
            }
        }
        let help = "How far the issuer's clock is ahead of this one, by the last fetch of keys; negative if it is behind";
        let mut skews =
            encoder.encode_descriptor("clock_skew", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for issuer in &issuers {
            if let Some(skew) = key_sets.inspect(issuer).1.clock_skew {
                gauge(skew.seconds(), &mut skews, issuer)?;
            }
        }
        Ok(())
    }
}

impl Collector for Ports {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self { admission, grpc, http, tls } = self;
        let help = "Checks that were refused unseen because too many were under way";
        let overloaded = encoder.encode_descriptor("overloaded", help, None, MetricType::Counter)?;
        ConstCounter::new(admission.refused()).encode(overloaded)?;
        let help = "Connections that were refused because there were too many";
        let mut refused =
            encoder.encode_descriptor("connections_refused", help, None, MetricType::Counter)?;
        for (port, seen) in [("grpc", grpc), ("http", http)] {
            ConstCounter::new(seen.refused()).encode(refused.encode_family(&[("port", port)])?)?;
        }
        let help = "Connections whose first bytes were of another protocol than the port's";
        let mut wrong = encoder.encode_descriptor("wrong_protocol", help, None, MetricType::Counter)?;
        for (port, seen) in [("grpc", grpc), ("http", http)] {
            ConstCounter::new(seen.wrong_protocol.count()).encode(wrong.encode_family(&[("port", port)])?)?;
        }
        if let Some(expires_at) = tls.as_ref().and_then(|tls| tls.expires_at()) {
            let (name, help) =
                ("certificate_expiration_timestamp", "When the certificate expires, in Unix time");
            let mut expiry =
                encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            let labels = [("certificate", "server.tls")];
            ConstGauge::new(i64::try_from(expires_at.as_secs()).unwrap_or(i64::MAX))
                .encode(expiry.encode_family(&labels)?)?;
        }
        let help = "Connections that are open";
        let mut open = encoder.encode_descriptor("connections", help, None, MetricType::Gauge)?;
        for (port, seen) in [("grpc", grpc), ("http", http)] {
            let connections = i64::try_from(seen.open()).unwrap_or(i64::MAX);
            ConstGauge::new(connections).encode(open.encode_family(&[("port", port)])?)?;
        }
        Ok(())
    }
}

fn encode_revocations(
    revocations: &Revocations,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let help = "Entries in force by what they name";
    let mut entries = encoder.encode_descriptor("revocations", help, None, MetricType::Gauge)?;
    for kind in Kind::VARIANTS {
        let count = i64::try_from(revocations.count(*kind)).unwrap_or(i64::MAX);
        ConstGauge::new(count).encode(entries.encode_family(&[("kind", kind.name())])?)?;
    }
    let help = "Changes of revocations that sources brought, by source and by what became of them";
    let mut events = encoder.encode_descriptor("revocation_events", help, None, MetricType::Counter)?;
    for (source, state) in revocations.sources() {
        for outcome in Outcome::VARIANTS {
            let labels = [("source", source.name()), ("result", outcome.name())];
            ConstCounter::new(state.counted(*outcome)).encode(events.encode_family(&labels)?)?;
        }
    }
    let help = "Time since the source was last known to be what is in force";
    let unit = Some(&Unit::Seconds);
    let mut ages = encoder.encode_descriptor("revocation_age", help, unit, MetricType::Gauge)?;
    for (source, state) in revocations.aged_sources() {
        ConstGauge::new(state.age().as_secs_f64())
            .encode(ages.encode_family(&[("source", source.name())])?)?;
    }
    Ok(())
}

fn gauge<N>(value: N, encoder: &mut MetricEncoder<'_>, issuer: &IssuerName) -> Result<(), fmt::Error>
where
    ConstGauge<N>: EncodeMetric,
{
    ConstGauge::new(value).encode(encoder.encode_family(&[("issuer", issuer.as_str())])?)
}
