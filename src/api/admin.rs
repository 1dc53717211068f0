//! The admin port: liveness, readiness, the key sets, the metrics. Nothing secret.

use std::fmt::Write as _;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::api::metrics::{self, Ports};
use crate::check::authorizer::Authorizer;
use crate::domain::clock::UnixTime;
use crate::domain::clock_skew::ClockSkew;
use crate::domain::issuer::{Issuer, IssuerId};
use crate::keys::sets::LastWrite;
use crate::live::Live;
use crate::revocation::source::SourceState;
use crate::server::tls::Tls;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

pub(crate) struct Admin {
    live: Arc<Live>,
    tls: Option<Arc<Tls>>,
    registry: Registry,
}

impl Admin {
    pub(crate) fn new(live: Arc<Live>, ports: Ports) -> Self {
        let tls = ports.tls.clone();
        let registry = metrics::registry(Arc::clone(&live), ports);
        Self { live, tls, registry }
    }

    pub(crate) fn respond(&self, request: &Request<Incoming>, draining: bool) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = respond_with(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => respond_with(StatusCode::OK, TEXT, "alive\n"),
            "/readyz" => {
                let authorizer = &self.live.current().authorizer;
                let pending = pending(authorizer);
                match (draining, authorizer.is_ready(), authorizer.keys.is_ready()) {
                    (true, ..) => respond_with(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n"),
                    (false, true, _) => {
                        let said = format!("ready\n{pending}{}", self.notices(authorizer));
                        respond_with(StatusCode::OK, TEXT, said)
                    }
                    (false, false, true) => {
                        let said = format!("revocations are too old, and tokens are denied then\n{pending}");
                        respond_with(StatusCode::SERVICE_UNAVAILABLE, TEXT, said)
                    }
                    (false, false, false) => {
                        let said = format!("no issuer has usable keys, see /keys\n{pending}");
                        respond_with(StatusCode::SERVICE_UNAVAILABLE, TEXT, said)
                    }
                }
            }
            "/keys" => respond_with(StatusCode::OK, JSON, format!("{:#}\n", self.key_sets())),
            "/metrics" => match metrics::render(&self.registry, request.headers()) {
                Ok((content_type, text)) => respond_with(StatusCode::OK, content_type, text),
                Err(error) => {
                    tracing::error!(%error, "the metrics cannot be rendered");
                    respond_with(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be rendered\n")
                }
            },
            _ => respond_with(StatusCode::NOT_FOUND, TEXT, "/livez, /readyz, /keys or /metrics\n"),
        }
    }

    /// A line for each thing that needs a person and does not keep tokens from being judged.
    fn notices(&self, authorizer: &Authorizer) -> String {
        let mut lines = String::new();
        if authorizer.check_flags.shadow {
            lines.push_str("mode is shadow: what would be denied with 401, 403 or 503 is let through\n");
        }
        if !self.live.is_last() {
            lines.push_str(
                "the last configuration was refused, and the one before is in force: see the log\n",
            );
        }
        let now = authorizer.clock.now();
        let expires_at = self.tls.as_ref().and_then(|tls| tls.expires_at());
        if let Some(expires_at) = expires_at.filter(|expires_at| *expires_at <= now) {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "the certificate of server.tls expired at {}", expires_at.rfc3339());
        }
        let keys = &authorizer.keys;
        for (issuer, _) in keys.sources() {
            if let LastWrite::Failed(error) = keys.inspect(issuer).1.last_write {
                // As above.
                let _ = writeln!(lines, "{issuer}: its keys cannot be kept on disk: {error}");
            }
        }
        lines
    }

    /// Every issuer's keys by `kid`, type and algorithm, without the public keys, and the state of its fetches.
    fn key_sets(&self) -> Value {
        let current = self.live.current();
        let (key_sets, accepted) = (&current.authorizer.keys, current.authorizer.issuers.all());
        let now = key_sets.now();
        let issuers = key_sets.sources().iter().map(|(issuer, source)| {
            let (set, status) = key_sets.inspect(issuer);
            let keys = set.iter().flat_map(|set| set.keys());
            let keys: Vec<_> = keys
                .map(|key| {
                    let algorithm = key.algorithm();
                    json!({"kid": key.id().map(|id| id.as_str()), "kty": algorithm.key_type(), "alg": algorithm.name()})
                })
                .collect();
            json!({
                "issuer": issuer.as_str(),
                "iss": accepted.iter().find(|accepted| accepted.name == *issuer).map(|accepted| iss_of(accepted)),
                "source": source,
                "usable": key_sets.is_usable(issuer, now),
                "keys": keys,
                "age_seconds": key_sets.age(issuer).map(|age| age.as_secs()),
                "usable_until": key_sets.usable_until(issuer).map(UnixTime::rfc3339),
                "clock_skew_seconds": status.clock_skew.map(ClockSkew::seconds),
                "last_success": status.last_success.map(UnixTime::rfc3339),
                "last_error": status.last_error.map(|(at, why)| json!({"at": at.rfc3339(), "error": why})),
                "key_store_error": key_store_error(status.last_write),
                "next_refresh": status.next_refresh.map(UnixTime::rfc3339),
            })
        });
        json!({"issuers": issuers.collect::<Vec<_>>()})
    }
}

/// The `iss` that tokens may have, byte for byte.
fn iss_of(issuer: &Issuer) -> Vec<&str> {
    issuer.ids.iter().map(|IssuerId(id)| id.as_str()).collect()
}

fn key_store_error(write: LastWrite) -> Option<String> {
    match write {
        LastWrite::None | LastWrite::Succeeded => None,
        LastWrite::Failed(error) => Some(error),
    }
}

/// A line for each issuer whose tokens cannot be verified, with the cause, and one for revocations that are too old.
fn pending(authorizer: &Authorizer) -> String {
    let keys = &authorizer.keys;
    let now = keys.now();
    let mut lines = String::new();
    if let Some(revocations) = &authorizer.revocations {
        if revocations.is_starting() {
            lines.push_str("revocations: the other replicas are asked what they know\n");
        }
        let too_old = revocations.settings.stale_after;
        let is_stale = |state: &SourceState| revocations.is_stale() && state.age() > too_old;
        for (source, state) in revocations.aged_sources().filter(|(_, state)| is_stale(state)) {
            let (source, age, trouble) = (source.name(), state.age().as_secs(), state.trouble());
            // Writing to a String cannot fail.
            let _ = writeln!(
                lines,
                "revocations: what {source} has may not be in force since {age} s: {trouble}"
            );
        }
    }
    for (issuer, source) in keys.sources().iter().filter(|(issuer, _)| !keys.is_usable(issuer, now)) {
        let (set, status) = keys.inspect(issuer);
        let error = status.last_error.map(|(_, error)| format!(": {error}")).unwrap_or_default();
        let why = match set {
            None if keys.is_starting(issuer) => "the first fetch is under way".to_owned(),
            None => format!("no keys{error}"),
            Some(set) if set.is_empty() => "the issuer has withdrawn all keys".to_owned(),
            Some(_) => format!("the keys are older than max_stale{error}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{issuer} ({source}): {why}");
    }
    lines
}

fn respond_with(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
