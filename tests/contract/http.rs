//! The decision over plain HTTP: the same as over gRPC, and through the real proxies that ask that way.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::support::envoy::{Envoy, Upstream, find, seen};
use crate::support::process::wait_until;
use crate::support::{Service, header_map_request};
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{SigningKey, jwks, tampered};
use serde_json::{Value, json};

const USER: &str = "x-passage-user-id";

fn key() -> Arc<SigningKey> {
    SigningKey::shared("k1", Algorithm::Rs256)
}

const RULES: &str = "rules:\n\
    - {name: assets, match: {paths: ['/assets/*']}, access: public}\n\
    - {name: shop, match: {paths: ['/shop/*']}, access: optional}\n\
    - {name: admin, match: {hosts: [admin.example]}, require: {claims: {role: admin}}}\n\
    - {name: closed, match: {paths: [/closed]}, access: deny}\n\
    - {name: trial, match: {paths: [/trial]}, access: deny, shadow: true}\n";

fn config(http: &str) -> String {
    let keys = jwks(&[&key()]);
    format!(
        "http: {{listen: '127.0.0.1:0', {http}}}\n\
         issuers: [{{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}]\n{RULES}"
    )
}

/// One answer of the HTTP port.
struct Said {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn said(request: reqwest::RequestBuilder) -> Said {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Said { status, headers, body: response.text().await.unwrap() }
}

/// A path and a host with their headers.
type Try = (&'static str, &'static str, Vec<(&'static str, String)>);

/// What clients try.
fn requests() -> Vec<Try> {
    let bearer = |token: String| ("authorization", format!("Bearer {token}"));
    let good = || key().mint("app1", |_, _| {});
    let expired = key().mint("app1", |_, claims| claims["exp"] = json!(1));
    let admin = key().mint("app1", |_, claims| claims["role"] = json!("admin"));
    let forged = || (USER, "forged".to_owned());
    vec![
        ("/orders", "shop.example", vec![]),
        ("/orders?page=2", "shop.example", vec![bearer(good()), forged()]),
        ("/orders", "shop.example", vec![("cookie", format!("a=b; psg_auth_token={}", good()))]),
        ("/orders", "shop.example", vec![bearer(tampered(&good()))]),
        ("/orders", "shop.example", vec![bearer(expired)]),
        ("/orders", "shop.example", vec![("authorization", "Basic dTpw".to_owned())]),
        ("/orders", "shop.example", vec![bearer("x".repeat(9000))]),
        ("/assets/a.css", "shop.example", vec![forged()]),
        ("/shop/x", "shop.example", vec![forged()]),
        ("/shop/x", "shop.example", vec![bearer("x".to_owned())]),
        ("/", "admin.example", vec![bearer(good())]),
        ("/", "admin.example:443", vec![bearer(admin)]),
        ("/closed", "shop.example", vec![bearer(good())]),
        ("/trial", "shop.example", vec![bearer(good())]),
        ("/assets/../closed", "shop.example", vec![bearer(good())]),
        ("/assets/%2e%2e/closed", "shop.example", vec![bearer(good())]),
        ("/assets/..%2fclosed", "shop.example", vec![bearer(good())]),
        ("/assets/..;/closed", "shop.example", vec![bearer(good())]),
        ("/a\\b", "shop.example", vec![bearer(good())]),
        ("/a%zz", "shop.example", vec![bearer(good())]),
        ("no-slash", "shop.example", vec![bearer(good())]),
    ]
}

#[tokio::test]
async fn forward_auth_decides_as_grpc_does() {
    let service = Service::ready(&config("style: forward_auth")).await;
    let (client, url) = (reqwest::Client::new(), format!("http://{}/auth", service.http.unwrap()));
    for (path, host, headers) in requests() {
        let plain: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let want = service.send(header_map_request("GET", host, path, &plain)).await;
        let original = format!("https://{host}{path}");
        let families = [
            vec![("X-Forwarded-Method", "GET"), ("X-Forwarded-Host", host), ("X-Forwarded-Uri", path)],
            vec![("X-Original-Method", "GET"), ("X-Original-URL", original.as_str())],
        ];
        for family in families {
            if path == "no-slash" && family.len() == 2 {
                continue;
            }
            let mut request = client.get(&url);
            for (name, value) in plain.iter().chain(&family) {
                request = request.header(*name, *value);
            }
            let got = said(request).await;
            let case = format!("{host} {path} {:?}", family[0]);
            assert_eq!(got.status, want.http, "{case}");
            assert_eq!(got.header("www-authenticate"), want.header("www-authenticate"), "{case}");
            if want.http == 200 {
                for (name, value) in &want.headers {
                    assert_eq!(got.header(name), Some(value.as_str()), "{case}");
                }
                for name in &want.remove {
                    assert_eq!(got.header(name), Some(""), "{case}");
                }
                assert_eq!(got.body, "");
            } else {
                assert_eq!(serde_json::from_str::<Value>(&got.body).unwrap(), want.body, "{case}");
                assert_eq!(got.header("content-type"), Some("application/problem+json"));
                assert_eq!(got.header(USER), None, "{case}");
            }
        }
    }
    let good = key().mint("app1", |_, _| {});
    for family in [
        &[][..],
        &[("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/")],
        &[("X-Original-URL", "http://a/")],
        &[
            ("X-Forwarded-Method", "GET"),
            ("X-Forwarded-Host", "a"),
            ("X-Forwarded-Uri", "/"),
            ("X-Original-URL", "http://a/assets/x"),
        ],
    ] {
        let mut request = client.get(&url).bearer_auth(&good);
        for (name, value) in family {
            request = request.header(*name, *value);
        }
        let got = said(request).await;
        assert_eq!(got.status, 400, "{family:?}");
        assert!(got.body.contains("request_malformed"), "{}", got.body);
    }
    assert!(service.end().await.is_ok());
}

#[tokio::test]
async fn a_withheld_token_is_sent_empty_and_other_cookies_stay() {
    let config = format!("{}tokens: {{forward: false}}\n", config("style: envoy"));
    let service = Service::ready(&config).await;
    let url = format!("http://{}/orders", service.http.unwrap());
    let good = key().mint("app1", |_, _| {});
    let request = reqwest::Client::new().post(url).bearer_auth(&good).body("a body that nobody reads");
    let got = said(request.header("cookie", format!("a=b; psg_auth_token={good}; c=d"))).await;
    assert_eq!((got.status, got.header(USER)), (200, Some("user-1")));
    assert_eq!((got.header("authorization"), got.header("cookie")), (Some(""), Some("a=b; c=d")));
}

/// What a client gets through a proxy, and what the service behind sees of it.
async fn through(address: SocketAddr, path: &str, headers: &[(&str, String)]) -> (Said, Vec<String>) {
    let mut request = reqwest::Client::new().get(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let said = said(request).await;
    let echo: Value = serde_json::from_str(&said.body).unwrap_or_default();
    // A header that is sent empty says nobody.
    let users = seen(&echo, USER).into_iter().filter(|user| !user.is_empty()).collect();
    (said, users)
}

#[tokio::test]
async fn the_real_envoy_over_http() {
    let service = Service::ready(&config("style: envoy, path_prefix: /check")).await;
    let upstream = Upstream::start().await.unwrap();
    let binary = tokio::task::spawn_blocking(|| find(true)).await.unwrap().unwrap();
    let bootstrap = include_str!("../../deploy/envoy/http.yaml")
        .replace("port_value: 8080", &format!("port_value: {}", service.http.unwrap().port()))
        .replace("port_value: 8081", &format!("port_value: {}", upstream.address.port()));
    let envoy = Envoy::run(&binary, bootstrap).await.unwrap();
    proxied(envoy.address).await;
    assert!(service.end().await.is_ok());
    let good = key().mint("app1", |_, _| {});
    let (said, _) = through(envoy.address, "/", &[("authorization", format!("Bearer {good}"))]).await;
    assert_eq!(said.status, 503, "nobody there, nobody in");
}

async fn proxied(address: SocketAddr) {
    let good = || key().mint("app1", |_, _| {});
    let bearer = |token: String| ("authorization", format!("Bearer {token}"));
    let forged = || [(USER, "forged".to_owned()), ("x_passage_user_id", "forged".to_owned())];
    let none = Vec::<String>::new();
    for (path, headers, status, users) in [
        ("/orders?a=b", vec![bearer(good())], 200, vec!["user-1".to_owned()]),
        ("/orders", vec![("cookie", format!("psg_auth_token={}", good()))], 200, vec!["user-1".to_owned()]),
        ("/orders", vec![], 401, none.clone()),
        ("/orders", vec![bearer(tampered(&good()))], 401, none.clone()),
        ("/assets/x", vec![], 200, none.clone()),
        ("/shop/x", vec![], 200, none.clone()),
        ("/closed", vec![bearer(good())], 403, none.clone()),
    ] {
        for more in [&[][..], &forged()] {
            let headers: Vec<_> = headers.iter().chain(more).cloned().collect();
            let (said, user) = through(address, path, &headers).await;
            assert_eq!((said.status, &user), (status, &users), "{path} {more:?} {}", said.body);
            let challenge = said.header("www-authenticate").is_some_and(|text| text.starts_with("Bearer "));
            assert_eq!(challenge, status == 401, "{path}");
        }
    }
}

/// Where nginx is, if it is: `NGINX_BIN`, `PATH`, or where Debian puts it.
fn nginx() -> Option<PathBuf> {
    let named = std::env::var_os("NGINX_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    named.or_else(|| folders.into_iter().map(|folder| folder.join("nginx")).find(|file| file.is_file()))
}

#[tokio::test]
async fn the_real_nginx_with_auth_request() {
    let Some(binary) = nginx() else {
        let text = "nginx is not here: apt-get install nginx-light, or set NGINX_BIN";
        assert!(std::env::var_os("REQUIRE_NGINX").is_none(), "{text}");
        return eprintln!("NOT RUN, {text}");
    };
    let service = Service::ready(&config("style: forward_auth")).await;
    let upstream = Upstream::start().await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = include_str!("../../deploy/nginx/nginx.conf")
        .replace("127.0.0.1:10000", &free.to_string())
        .replace("127.0.0.1:8080", &service.http.unwrap().to_string())
        .replace("127.0.0.1:8081", &upstream.address.to_string())
        .replace("access_log off;", "access_log off; %");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.map(|name| format!("{name}_temp_path {name};\n")).concat();
    config = config.replace('%', &temporary);
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, format!("daemon off; master_process off; pid nginx.pid;\n{config}")).unwrap();
    let mut process = tokio::process::Command::new(binary)
        .args(["-e", "stderr", "-p"])
        .arg(folder.path())
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_until("nginx", || async { tokio::net::TcpStream::connect(free).await.is_ok() }).await;
    proxied(free).await;
    let good = || ("authorization", format!("Bearer {}", key().mint("app1", |_, _| {})));
    // A client that describes another request than its own.
    for header in ["X-Forwarded-Uri", "X-Original-URL", "X-Forwarded-Host", "X-Original-Method"] {
        let headers = [(header, "http://a/assets/x".to_owned())];
        assert_eq!(through(free, "/orders", &headers).await.0.status, 401, "{header}");
        let headers = [(header, "http://a/assets/x".to_owned()), good()];
        assert_eq!(through(free, "/closed", &headers).await.0.status, 403, "{header}");
    }
    assert!(service.end().await.is_ok());
    assert_eq!(through(free, "/", &[good()]).await.0.status, 503, "nobody there, nobody in");
    process.kill().await.unwrap();
    let _ = tokio::time::timeout(Duration::from_secs(5), process.wait()).await;
}
