//! What the tests share: the service on port 0, asked through the full Envoy API.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod attacks;
pub(crate) mod envoy;
pub(crate) mod events;
pub(crate) mod fixtures;
pub(crate) mod helm;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod promtool;
pub(crate) mod pypi;
pub(crate) mod redis;
pub(crate) mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use passage_authz::app::{Bound, RunError, Setup};
use passage_authz::config::Config;
use passage_authz::domain::clock::Clock;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// How long a test waits for what must come. A busy machine needs some of it; only a failure takes it all.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Waits until this is so; a test that waits in vain fails by the name of what it waited for.
pub(crate) async fn wait_until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT_LIMIT, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// The service, running in this process.
pub(crate) struct Service {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    /// The port of `revocation.listen`.
    pub(crate) events: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) client: AuthorizationClient<Channel>,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), RunError>>,
}

impl Service {
    /// Starts with this configuration below ports of its own.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_at(config, Clock::default()).await
    }

    pub(crate) async fn start_at(config: &str, clock: Clock) -> Self {
        let ports = "server: {listen: '127.0.0.1:0', drain_timeout: 30s}\nadmin: {listen: '127.0.0.1:0'}\n";
        let config = Config::parse(&format!("{ports}{}", uncached(config)), "test.yaml").unwrap();
        let setup = Setup { config, clock, source: None, exporter: None };
        let bound = Bound::bind(setup).await.unwrap();
        let (grpc, admin) = (bound.grpc_address().tcp().unwrap(), bound.admin_address().tcp().unwrap());
        let http = bound.http_address().and_then(|address| address.tcp());
        let events = bound.events_address().and_then(|address| address.tcp());
        let stop = CancellationToken::new();
        let running = tokio::spawn(bound.run(stop.clone()));
        let channel = Channel::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
        Self { grpc, http, events, admin, client: AuthorizationClient::new(channel), stop, running }
    }

    /// Starts and waits until the keys are there.
    pub(crate) async fn ready(config: &str) -> Self {
        let service = Self::start(config).await;
        service.until_ready().await;
        service
    }

    pub(crate) async fn until_ready(&self) {
        wait_until("ready", || async { get(self.admin, "/readyz").await.0 == 200 }).await;
    }

    /// One check with these headers.
    pub(crate) async fn check(&self, headers: &[(&str, &str)]) -> Answer {
        self.send(check_request(headers)).await
    }

    /// One check with a bearer token.
    pub(crate) async fn bearer(&self, token: &str) -> Answer {
        self.check(&[("authorization", &fixtures::bearer(token))]).await
    }

    pub(crate) async fn send(&self, request: CheckRequest) -> Answer {
        let response = self.client.clone().check(request).await.expect("grpc-status 0 on every verdict");
        Answer::from(response.into_inner())
    }

    pub(crate) async fn end(self) -> Result<(), RunError> {
        self.stop.cancel();
        self.running.await.unwrap()
    }
}

/// The configuration without the token cache, if `UNCACHED` is set: the whole contract holds either way.
fn uncached(config: &str) -> String {
    const OFF: &str = "cache: {max_entries: 0}";
    if std::env::var_os("UNCACHED").is_none() || config.contains("max_entries") {
        config.to_owned()
    } else if config.contains("tokens: {") {
        config.replace("tokens: {", &format!("tokens: {{{OFF}, "))
    } else if config.contains("tokens:\n") {
        config.replace("tokens:\n", &format!("tokens:\n  {OFF}\n"))
    } else {
        format!("{config}\ntokens: {{{OFF}}}\n")
    }
}

/// A GET of a plain HTTP port: status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// The value of each series of a metric, by its labels as they stand.
pub(crate) fn series(metrics: &str, name: &str) -> HashMap<String, f64> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let lines = lines.filter(|line| line.starts_with('{') || line.starts_with(' '));
    let series = lines.map(|line| line.rsplit_once(' ').unwrap());
    series.map(|(labels, value)| (labels.to_owned(), value.parse().unwrap())).collect()
}

/// One check with this bearer token.
pub(crate) async fn check_token(
    client: &AuthorizationClient<Channel>,
    token: &str,
) -> Result<Answer, tonic::Status> {
    let request = check_request(&[("authorization", &fixtures::bearer(token))]);
    client.clone().check(request).await.map(|response| Answer::from(response.into_inner()))
}

fn around(http: HttpRequest) -> CheckRequest {
    let request = Request { http: Some(http), ..Request::default() };
    let attributes = AttributeContext { request: Some(request), ..AttributeContext::default() };
    CheckRequest { attributes: Some(attributes) }
}

/// A check as Envoy sends it by default: headers in a map.
pub(crate) fn check_request(headers: &[(&str, &str)]) -> CheckRequest {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    around(HttpRequest {
        id: "1".to_owned(),
        method: "GET".to_owned(),
        path: "/orders?page=2".to_owned(),
        host: "shop.example".to_owned(),
        headers,
        ..HttpRequest::default()
    })
}

/// A check as Envoy sends it with `encode_raw_headers`: a list with the values' bytes.
pub(crate) fn raw_check_request(headers: &[(&str, &[u8])]) -> CheckRequest {
    let header = |(name, value): &(&str, &[u8])| HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.to_vec(),
        ..HeaderValue::default()
    };
    let header_map = Some(HeaderMap { headers: headers.iter().map(header).collect() });
    around(HttpRequest {
        method: "GET".to_owned(),
        path: "/".to_owned(),
        header_map,
        ..HttpRequest::default()
    })
}

/// The same request as [`check_request`] would make, with its headers as a list of bytes.
pub(crate) fn header_map_request(
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> CheckRequest {
    let bytes: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let mut request = raw_check_request(&bytes);
    let http = request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    (http.method, http.host, http.path) = (method.to_owned(), host.to_owned(), path.to_owned());
    request
}

/// The parts of a check's answer that Envoy acts on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) grpc_code: i32,
    pub(crate) http: u16,
    /// Set (overwriting) on the upstream request, or on the denial.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) remove: Vec<String>,
    pub(crate) remove_query: Vec<String>,
    pub(crate) body: Value,
    pub(crate) metadata: Vec<(String, String)>,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        if self.http == 200 { "allowed" } else { self.body["code"].as_str().unwrap_or("?") }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl From<CheckResponse> for Answer {
    fn from(response: CheckResponse) -> Self {
        use envoy_types::pb::google::protobuf::value::Kind;
        let is_string = |value: &envoy_types::pb::google::protobuf::Value| {
            matches!(value.kind, Some(Kind::StringValue(_)))
        };
        let metadata = response.dynamic_metadata.unwrap_or_default().fields;
        let mut metadata: Vec<_> = metadata
            .into_iter()
            .map(|(claim, value)| match value.kind {
                Some(Kind::StringValue(text)) => (claim, text),
                Some(Kind::ListValue(list)) if list.values.iter().all(is_string) => {
                    let texts = list.values.into_iter().map(|value| match value.kind {
                        Some(Kind::StringValue(text)) => Value::from(text),
                        _ => Value::Null,
                    });
                    (claim, Value::from_iter(texts).to_string())
                }
                other => (claim, format!("{other:?}")),
            })
            .collect();
        metadata.sort();
        let grpc_code = response.status.unwrap().code;
        match response.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => Self {
                grpc_code,
                http: 200,
                headers: overwriting(ok.headers),
                remove: ok.headers_to_remove,
                remove_query: ok.query_parameters_to_remove,
                body: Value::Null,
                metadata,
            },
            HttpResponse::DeniedResponse(denied) => Self {
                grpc_code,
                http: u16::try_from(denied.status.unwrap().code).unwrap(),
                headers: overwriting(denied.headers),
                remove: Vec::new(),
                remove_query: Vec::new(),
                body: serde_json::from_str(&denied.body).unwrap(),
                metadata,
            },
            HttpResponse::ErrorResponse(_) => panic!("with failure_mode_allow, Envoy would let this through"),
        }
    }
}

fn overwriting(headers: Vec<HeaderValueOption>) -> Vec<(String, String)> {
    let plain = |option: HeaderValueOption| {
        assert_eq!(option.append_action(), HeaderAppendAction::OverwriteIfExistsOrAdd);
        let header = option.header.unwrap();
        (header.key, header.value)
    };
    headers.into_iter().map(plain).collect()
}

/// A request that is bad in some way.
pub(crate) enum Provocation {
    None,
    Token(String),
    Rule(&'static str, String),
    Empty,
    Large,
}

impl Provocation {
    pub(crate) fn request(&self) -> CheckRequest {
        match self {
            Self::None => check_request(&[("accept", "*/*")]),
            Self::Token(token) => check_request(&[("authorization", &format!("Bearer {token}"))]),
            Self::Rule(rule, token) => {
                let mut request = check_request(&[("authorization", &format!("Bearer {token}"))]);
                let attributes = request.attributes.as_mut().unwrap();
                attributes.context_extensions.insert("rule".to_owned(), (*rule).to_owned());
                request
            }
            Self::Empty => CheckRequest::default(),
            Self::Large => check_request(&[("x-large", &"a".repeat(2 << 20))]),
        }
    }
}

/// Runs all of them at once.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    futures_util::future::join_all(futures).await
}

/// Base64url without padding, as tokens are written.
pub(crate) fn base64url(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
