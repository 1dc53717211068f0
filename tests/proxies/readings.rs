//! A public rule and rules that restrict, through the real Envoy to upstreams that read the raw path in their own way. Envoy runs
//! with its default path handling and routes by the path as it is sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use passage_authz::config::Listen;
use passage_authz::server::listen::Listener;
use passage_authz::server::{self, Options, Protocol};
use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::raw::{raw, raw_to};
use crate::support::Service;
use crate::support::envoy::{Envoy, default_paths};
use crate::support::fixtures::{good, inline};

/// Which handler an upstream runs for a path.
type Router = fn(&str) -> &'static str;

/// Express 5: routes by the path as sent, in any case and with or without one slash at its end; `use('/admin', …)` stands for
/// `/admin` and all below it. Its static files are found by the decoded path, dot segments resolved.
fn express(path: &str) -> &'static str {
    let path = path.to_ascii_lowercase();
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(&path);
    route(path)
}

/// Flask: routes by WSGI's `PATH_INFO`, every escape decoded once, repeated slashes merged.
fn flask(path: &str) -> &'static str {
    let mut path = decode(path);
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    route(&path)
}

/// Tomcat: cuts path parameters, decodes, then resolves dot segments and repeated slashes.
fn tomcat(path: &str) -> &'static str {
    let cut: Vec<_> = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    let decoded = decode(&cut.join("/"));
    let mut kept = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    route(&format!("/{}", kept.join("/")))
}

fn route(path: &str) -> &'static str {
    let is =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match path {
        _ if is("/admin") || is("/internal") || path == "/v1/things:delete" || path == "/odata/$batch" => {
            "admin"
        }
        "/healthz" => "public",
        _ if is("/assets") => "public",
        _ => "other",
    }
}

fn decode(path: &str) -> String {
    let (mut decoded, bytes) = (Vec::new(), path.as_bytes());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

struct Upstream {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Upstream {
    async fn start(router: Router) -> Self {
        let listen = Listen::Tcp("127.0.0.1:0".to_owned());
        let listener = Listener::bind("upstream", &listen, 0).await.unwrap();
        let (address, stop) = (listener.address().tcp().unwrap(), CancellationToken::new());
        let options = Options::plain(Protocol::Http1, Handle::current(), 100, Duration::from_millis(100));
        let answer = move |request: Request<Incoming>| {
            let ran = router(request.uri().path());
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(
                json!({"ran": ran}).to_string(),
            ))))
        };
        tokio::spawn(server::serve(listener, options, Arc::default(), answer, stop.clone()));
        Self { address, _stop: stop.drop_guard() }
    }
}

const RULES: &str = "
rules:
- {name: health, match: {paths: [/healthz, '/assets/*']}, access: public}
- {name: admin, match: {paths: ['/admin/*']}, require: {claims: {role: admin}}}
- {name: internal, match: {paths: ['/internal/*', '/v1/things:delete', '/odata/$batch']}, access: deny}
";

#[tokio::test]
async fn no_upstream_runs_a_handler_under_another_rule_than_its_own() {
    let service = Service::ready(&inline(RULES)).await;
    let bearer = format!("authorization: Bearer {}\r\n", good());
    for (server, router) in [("Express", express as Router), ("Flask", flask), ("Tomcat", tomcat)] {
        let upstream = Upstream::start(router).await;
        let envoy = Envoy::with_default_paths(service.grpc, upstream.address).await;
        for (path, anonymous, with_token) in [
            ("/healthz", 200, 200),
            ("/assets/a", 200, 200),
            ("/orders", 401, 200),
            ("/api/v4/projects/group%2Fproject", 401, 200),
            ("/app/./x;v=1", 401, 200),
            ("/admin/users", 401, 403),
            ("/internal/x", 403, 403),
            // Without a token.
            ("/admin/../healthz", 401, 403),
            ("/admin/x/../../assets/y", 401, 403),
            ("//assets/a", 401, 200),
            ("/./assets/a", 401, 200),
            ("/x/../assets/a", 401, 200),
            ("/%61ssets/a", 401, 200),
            ("/assets/..%2fadmin/x", 401, 403),
            ("/assets/..;/admin/x", 401, 403),
            ("/assets/%2e%2e/admin/x", 401, 403),
            // With any valid token.
            ("/admin;x=1/users", 401, 403),
            ("/admin;/users", 401, 403),
            ("/ADMIN/x", 401, 403),
            ("/admin/..//x", 401, 403),
            ("/internal;/x", 403, 403),
            ("/internal", 403, 403),
            ("/v1/things%3Adelete", 403, 403),
            ("/v1/things:delete/", 403, 403),
            ("/odata/%24batch", 403, 403),
        ] {
            for (headers, want) in [("", anonymous), (&bearer, with_token)] {
                let (status, body) = raw(&envoy, path, headers).await;
                assert_eq!(status, want, "{server} {path} {headers:?}: {body}");
                let ran = body["ran"].as_str();
                assert_ne!(ran, Some("admin"), "{server} ran the admin handler for {path}");
            }
        }
    }
}

/// Rows of the same kind on Envoy's own routes: the rule opens what the upstream's prefix says, and Envoy routes by the raw path to
/// another cluster.
#[tokio::test]
async fn envoys_own_routes_are_not_passed_by_another_spelling() {
    let service = Service::ready(&inline(RULES)).await;
    let upstream = Upstream::start(|_| "protected").await;
    let assets = Upstream::start(|_| "assets").await;
    let envoy = Envoy::edited(service.grpc, upstream.address, |config| {
        let config = default_paths(config);
        let route = "              - match: {prefix: /}\n";
        assert!(config.contains(route));
        let prefix = format!("              - match: {{prefix: /assets/}}\n                route: {{cluster: assets}}\n{route}");
        let cluster = format!(
            "  clusters:\n  - name: assets\n    load_assignment:\n      cluster_name: assets\n      endpoints:\n      - lb_endpoints:\n        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}\n",
            assets.address.port()
        );
        config.replacen(route, &prefix, 1).replacen("  clusters:\n", &cluster, 1)
    })
    .await;
    let (status, body) = raw(&envoy, "/assets/a", "").await;
    assert_eq!((status, body["ran"].as_str()), (200, Some("assets")));
    for path in ["//assets/a", "/./assets/a", "/x/../assets/a", "/%61ssets/a", "/ASSETS/a"] {
        assert_eq!(raw(&envoy, path, "").await.0, 401, "{path}");
    }
}

/// A public host, and Envoy's virtual hosts, which do not match another port, a trailing dot or an empty port.
#[tokio::test]
async fn envoys_virtual_hosts_are_not_passed_by_another_spelling() {
    let rules = "rules:\n- {name: www, match: {hosts: [www.example.com]}, access: public}\n\
                 - {name: admin, match: {hosts: [admin.example.com]}, access: deny}\n";
    let service = Service::ready(&inline(rules)).await;
    let upstream = Upstream::start(|_| "fallback").await;
    let envoy = Envoy::with_default_paths(service.grpc, upstream.address).await;
    for (host, status) in [
        ("www.example.com", 200),
        ("www.example.com:80", 200),
        ("WWW.example.com", 200),
        ("www.example.com:99", 401),
        ("www.example.com.", 401),
        ("www.example.com:", 400),
        ("admin.example.com", 403),
        ("admin.example.com.", 403),
        ("admin.example.com:8443", 403),
        ("admin.example.com:80x", 400),
        ("admin.example.com:80:80", 400),
        ("admin.example.com:+80", 400),
        ("admin.example.com:-1", 400),
    ] {
        assert_eq!(raw_to(&envoy, host, "/x", "").await.0, status, "{host}");
    }
}
