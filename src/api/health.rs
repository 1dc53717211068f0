//! The status over `grpc.health.v1`: kept in step with the usable keys and the drain.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_server::Health as _;
use tonic_health::server::{HealthReporter, HealthService};

use crate::keys::clock_skew::ClockSkewLog;
use crate::keys::outage::Outages;
use crate::live::Live;
use crate::wire::{self, envoy};

/// The services that are reported: the server as a whole, and the one that Envoy calls.
const SERVICES: [&str; 2] = ["", envoy::SERVICE];

/// The name that liveness probes ask for. It says SERVING for as long as the process can answer: a restart does not
/// bring keys that cannot be fetched.
const LIVENESS: &str = "liveness";

/// Keys expire without an event, so their age is also checked at this interval.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// SERVING as long as one issuer has keys and nothing drains; `stop` turns it NOT_SERVING for good.
pub(crate) async fn report(reporter: HealthReporter, live: Arc<Live>, stop: CancellationToken) {
    let mut look = interval(POLL_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reported, mut outages, mut clocks) = (None, Outages::default(), ClockSkewLog::default());
    while !stop.is_cancelled() {
        // Subscribed before the look, so that no change in between is missed; anew each time, for a reload.
        let current = live.current();
        let keys = Arc::clone(&current.authorizer.keys);
        let mut changes = keys.changes();
        let ready = current.authorizer.is_ready();
        outages.look(&keys);
        clocks.look(&keys, current.authorizer.issuers.all());
        drop(current);
        if reported != Some(ready) {
            set_status(&reporter, ready).await;
            tracing::info!(ready, "readiness changed");
            reported = Some(ready);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = changes.changed() => {}
            _ = look.tick() => {}
        }
    }
    set_status(&reporter, false).await;
}

/// NOT_SERVING, but alive. tonic-health begins with SERVING: call this before the first connection.
pub(crate) async fn begin(reporter: &HealthReporter) {
    set_status(reporter, false).await;
    reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
}

/// The answer to the call `List`: what `Check` answers for each service.
pub(crate) async fn list(service: &HealthService) -> Result<Bytes, Status> {
    let mut statuses = Vec::new();
    for name in SERVICES.into_iter().chain([LIVENESS]) {
        let request = tonic::Request::new(HealthCheckRequest { service: name.to_owned() });
        statuses.push((name, service.check(request).await?.into_inner().status));
    }
    Ok(wire::health::list(statuses.into_iter()))
}

/// Sets the services that need keys.
async fn set_status(reporter: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
