//! The process metrics, under the names of Prometheus' own client libraries.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads procfs at each scrape.
#[derive(Debug)]
pub(crate) struct Process;

struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_fds: u64,
    max_fds: u64,
    /// Since 1970.
    start_seconds: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Without procfs there are no process metrics.
        let Some(usage) = Usage::read() else { return Ok(()) };
        let help = "CPU time the process has used, user and system";
        let cpu =
            encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        ConstCounter::new(usage.cpu_seconds).encode(cpu)?;
        for (name, help, unit, value) in [
            ("process_resident_memory", "Resident memory", Some(&Unit::Bytes), usage.resident_bytes),
            ("process_virtual_memory", "Virtual memory", Some(&Unit::Bytes), usage.virtual_bytes),
            ("process_open_fds", "Open file descriptors", None, usage.open_fds),
            ("process_max_fds", "The limit of open file descriptors", None, usage.max_fds),
        ] {
            let gauge = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        let help = "When the process started, since 1970-01-01T00:00:00Z";
        let start =
            encoder.encode_descriptor("process_start_time", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(usage.start_seconds).encode(start)
    }
}

impl Usage {
    #[cfg(target_os = "linux")]
    #[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
    fn read() -> Option<Self> {
        use procfs::{CurrentSI as _, WithCurrentSystemInfo as _};
        let process = procfs::process::Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let ticks = procfs::ticks_per_second() as f64;
        let limit = process.limits().ok()?.max_open_files.soft_limit;
        let boot = procfs::KernelStats::current().ok()?.btime;
        Some(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            open_fds: process.fd_count().ok()? as u64,
            max_fds: match limit {
                procfs::process::LimitValue::Unlimited => u64::MAX,
                procfs::process::LimitValue::Value(limit) => limit,
            },
            start_seconds: boot as f64 + stat.starttime as f64 / ticks,
        })
    }

    #[cfg(not(target_os = "linux"))]
    const fn read() -> Option<Self> {
        None
    }
}
