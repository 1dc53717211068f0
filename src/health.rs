//! What the service says of itself over `grpc.health.v1`, kept in step with the keys at hand.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::live::Live;

/// The services that are reported: the server as a whole, and the one that Envoy asks.
const SERVICES: [&str; 2] = ["", "envoy.service.auth.v3.Authorization"];

/// Keys can grow too old without anything happening, so their age is looked at this often as well.
const LOOK: Duration = Duration::from_secs(1);

/// SERVING as long as one issuer has keys and nothing drains; `stop` turns it NOT_SERVING for good.
pub(crate) async fn report(reporter: HealthReporter, live: Arc<Live>, stop: CancellationToken) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = None;
    while !stop.is_cancelled() {
        // Subscribed first, so that no change is missed in between; anew each time, for a reload.
        let keys = Arc::clone(&live.now().keys);
        let mut changes = keys.changes();
        let ready = keys.is_ready();
        if reported != Some(ready) {
            tell(&reporter, ready).await;
            tracing::info!(ready, "readiness changed");
            reported = Some(ready);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = changes.changed() => {}
            _ = look.tick() => {}
        }
    }
    tell(&reporter, false).await;
}

/// Sets every reported service. tonic-health begins with SERVING: call this before the first connection.
pub(crate) async fn tell(reporter: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
