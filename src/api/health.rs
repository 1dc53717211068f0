//! What the service says of itself over `grpc.health.v1`, kept in step with the keys at hand.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::live::Live;
use crate::wire::envoy;

/// The services that are reported: the server as a whole, and the one that Envoy asks.
const SERVICES: [&str; 2] = ["", envoy::SERVICE];

/// The name that liveness probes ask for. It says SERVING for as long as the process can answer: keys that cannot be had
/// are no reason to restart anything.
const LIVENESS: &str = "liveness";

/// Keys can grow too old without anything happening, so their age is looked at this often as well.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// SERVING as long as one issuer has keys and nothing drains; `stop` turns it NOT_SERVING for good.
pub(crate) async fn report(reporter: HealthReporter, live: Arc<Live>, stop: CancellationToken) {
    let mut look = interval(POLL_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = None;
    while !stop.is_cancelled() {
        // Subscribed first, so that no change is missed in between; anew each time, for a reload.
        let keys = Arc::clone(&live.current().authorizer.keys);
        let mut changes = keys.changes();
        let ready = keys.is_ready();
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

/// The body of a health answer. A Watch has no end of its own, and an answer without end would hold up every
/// drain: it ends once the last status has been reported_last.
pub(crate) struct EndsWithReporter {
    body: tonic::body::Body,
    reported_last: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl EndsWithReporter {
    pub(crate) fn new(body: tonic::body::Body, reported_last: CancellationToken) -> Self {
        Self { body, reported_last: Box::pin(reported_last.cancelled_owned()), ended: false }
    }
}

impl Body for EndsWithReporter {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // What there is to say comes first.
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending if self.reported_last.as_mut().poll(context).is_ready() => {
                self.ended = true;
                let status = Status::unavailable("the server is going away").into_http::<()>();
                Poll::Ready(Some(Ok(Frame::trailers(status.into_parts().0.headers))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Nothing is ready yet, but alive. tonic-health begins with SERVING: call this before the first connection.
pub(crate) async fn begin(reporter: &HealthReporter) {
    set_status(&reporter, false).await;
    reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
}

/// Sets every service that needs keys.
async fn set_status(reporter: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
