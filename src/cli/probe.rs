//! `health`: asks a running server whether it serves, for probes in an image without a shell.

use std::error::Error;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// The endpoint to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// grpc.health on the gRPC port, in plaintext: `host:port` or `unix:/path`.
    Health { address: String, service: String },
    /// `/readyz` on the admin port: for a gRPC port with TLS.
    Admin { address: String },
}

#[derive(Debug, Error)]
pub(crate) enum NotServing {
    #[error(
        "{address} cannot be asked: {cause}; if its gRPC port has TLS, ask the admin port: --admin HOST:PORT"
    )]
    Grpc { address: String, cause: String },
    #[error("{address} cannot be asked: {cause}")]
    Http { address: String, cause: String },
    #[error("{address} did not answer within {limit:?}")]
    TimedOut { address: String, limit: Duration },
    #[error("{address} says {status}: no issuer has usable keys, or the server drains")]
    Status { address: String, status: String },
    #[error(
        "{address} knows no service {service:?}; it knows \"\", \"liveness\" and \"envoy.service.auth.v3.Authorization\""
    )]
    Unknown { address: String, service: String },
}

/// Asks once.
///
/// # Errors
/// [`NotServing`] unless the server answers within the limit that it serves.
pub(crate) async fn ask(target: &Target, limit: Duration) -> Result<(), NotServing> {
    let (Target::Health { address, .. } | Target::Admin { address }) = target;
    let late = || NotServing::TimedOut { address: address.clone(), limit };
    let asked = async {
        match target {
            Target::Health { address, service } => health(address, service).await,
            Target::Admin { address } => readyz(address).await,
        }
    };
    timeout(limit, asked).await.unwrap_or_else(|_| Err(late()))
}

/// From the start of one try to the start of the next, at least.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A proxy that is not ready yet may accept a connection and never answer: after this time it is asked anew.
const MAX_TIME_PER_TRY: Duration = Duration::from_secs(2);

/// Asks until the server says that it serves, or the time is up.
///
/// # Errors
/// The last [`NotServing`] when it is.
pub(crate) async fn wait(target: &Target, limit: Duration) -> Result<(), NotServing> {
    let end = Instant::now() + limit;
    loop {
        let next = Instant::now() + RETRY_INTERVAL;
        let left = end.saturating_duration_since(Instant::now());
        let asked = ask(target, left.min(MAX_TIME_PER_TRY)).await;
        if asked.is_ok() || next >= end {
            return asked;
        }
        sleep_until(next).await;
    }
}

async fn health(address: &str, service: &str) -> Result<(), NotServing> {
    let fault = |error: &dyn Error| NotServing::Grpc { address: address.to_owned(), cause: innermost(error) };
    let url = address
        .strip_prefix("unix:")
        .map_or_else(|| format!("http://{address}"), |path| format!("unix://{path}"));
    let endpoint = Endpoint::from_shared(url).map_err(|error| fault(&error))?;
    let channel = endpoint.connect().await.map_err(|error| fault(&error))?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(request).await;
    let status = match answer {
        Ok(answer) => answer.into_inner().status,
        Err(status) if status.code() == Code::NotFound => {
            return Err(NotServing::Unknown { address: address.to_owned(), service: service.to_owned() });
        }
        Err(status) => return Err(fault(&status)),
    };
    if status == ServingStatus::Serving as i32 {
        return Ok(());
    }
    let status = if status == ServingStatus::NotServing as i32 { "NOT_SERVING" } else { "UNKNOWN" };
    Err(NotServing::Status { address: address.to_owned(), status: status.to_owned() })
}

async fn readyz(address: &str) -> Result<(), NotServing> {
    let fault = |error: &dyn Error| NotServing::Http { address: address.to_owned(), cause: innermost(error) };
    // The server is in the same pod or on the same host: HTTP_PROXY or a redirect must not lead the probe elsewhere.
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let client = client.build().map_err(|error| fault(&error))?;
    let answer = client.get(format!("http://{address}/readyz")).send().await;
    let status = answer.map_err(|error| fault(&error))?.status();
    if status == reqwest::StatusCode::OK {
        return Ok(());
    }
    Err(NotServing::Status { address: address.to_owned(), status: status.as_u16().to_string() })
}

/// The last error of the chain names the cause, such as "connection refused"; those around it only say that a call
/// failed.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
