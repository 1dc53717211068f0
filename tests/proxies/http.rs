//! The decision over plain HTTP through the proxies that ask that way: Envoy and nginx.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use passage_authz::testing::tampered;
use serde_json::Value;

use crate::support::envoy::{Envoy, Upstream, binary, seen};
use crate::support::fixtures::{USER, bearer, good, http_port, inline};
use crate::support::http::{Said, said};
use crate::support::process::free_port;
use crate::support::{Service, wait_until};

/// What a client gets through a proxy, and the users that the upstream sees, empty values too: an upstream that folds
/// names joins them to the user.
pub(crate) async fn through(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, String)],
) -> (Said, Vec<String>) {
    let mut request = reqwest::Client::new().get(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let said = said(request).await;
    let echo: Value = serde_json::from_str(&said.body).unwrap_or_default();
    let users = seen(&echo, USER);
    (said, users)
}

/// Envoy with the shipped http.yaml.
pub(crate) async fn envoy_over_http(service: &Service, upstream: &Upstream) -> Envoy {
    let bootstrap = include_str!("../../deploy/envoy/http.yaml")
        .replace("port_value: 8081", &format!("port_value: {}", service.http.unwrap().port()))
        .replace("port_value: 8080", &format!("port_value: {}", upstream.address.port()));
    Envoy::run(&binary().await, bootstrap).await.unwrap()
}

#[tokio::test]
async fn the_real_envoy_over_http() {
    let service = Service::ready(&http_port("style: envoy, path_prefix: /check")).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = envoy_over_http(&service, &upstream).await;
    proxied(envoy.address).await;
    assert!(service.end().await.is_ok());
    let (said, _) = through(envoy.address, "/", &[("authorization", bearer(&good()))]).await;
    assert_eq!(said.status, 503, "without the service, no way through");
}

/// The shipped http.yaml shows the check each header by which an upstream may take a request for one of another method.
#[tokio::test]
async fn the_real_envoy_over_http_shows_overridden_methods() {
    let rules = "rules: [{name: kept, match: {methods: [DELETE]}, access: deny}]";
    let http = "http: {listen: '127.0.0.1:0', style: envoy, path_prefix: /check}\n";
    let service = Service::ready(&format!("{http}{}", inline(rules))).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = envoy_over_http(&service, &upstream).await;
    for (name, status) in [
        ("x-http-method-override", 403),
        ("X-HTTP-Method", 403),
        ("x-method-override", 403),
        ("x_http.method~override", 403),
        ("x-method", 200),
        ("x-http-method-overrides", 200),
    ] {
        let headers = [("authorization", bearer(&good())), (name, "DELETE".to_owned())];
        let (said, _) = through(envoy.address, "/", &headers).await;
        assert_eq!(said.status, status, "{name}");
    }
}

async fn proxied(address: SocketAddr) {
    let header = |token: String| ("authorization", bearer(&token));
    let forged = [USER, "x_passage_user_id", "X-Passage_User-Id", "x.passage.user.id", "x!passage~user*id"];
    let forged = || forged.map(|name| (name, "forged".to_owned()));
    let none = Vec::<String>::new();
    for (path, headers, status, users) in [
        ("/orders?a=b", vec![header(good())], 200, vec!["user-1".to_owned()]),
        ("/orders", vec![("cookie", format!("psg_auth_token={}", good()))], 200, vec!["user-1".to_owned()]),
        ("/orders", vec![], 401, none.clone()),
        ("/orders", vec![header(tampered(&good()))], 401, none.clone()),
        ("/assets/x", vec![], 200, none.clone()),
        ("/shop/x", vec![], 200, none.clone()),
        ("/closed", vec![header(good())], 403, none.clone()),
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

/// Where a program is, if it is: in this variable, in `PATH`, or where Debian puts it.
pub(crate) fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    named.or_else(|| folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// An nginx with the shipped nginx.conf that runs until it is dropped.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    _process: tokio::process::Child,
    _folder: tempfile::TempDir,
}

/// Starts nginx, if it is here.
pub(crate) async fn nginx_in_front_of(service: &Service, upstream: &Upstream) -> Option<Nginx> {
    nginx_with(service.http.unwrap(), upstream.address, |shipped| shipped).await
}

/// The same, with its file changed, by the command that the file shows.
#[expect(clippy::print_stderr, reason = "says that the test did not run")]
pub(crate) async fn nginx_with(
    authz: SocketAddr,
    upstream: SocketAddr,
    edit: impl Fn(String) -> String,
) -> Option<Nginx> {
    let Some(binary) = program("NGINX_BIN", "nginx") else {
        let text = "nginx is not here: apt-get install nginx-light, or set NGINX_BIN";
        assert!(std::env::var_os("REQUIRE_NGINX").is_none(), "{text}");
        eprintln!("NOT RUN, {text}");
        return None;
    };
    let free = free_port();
    let folder = tempfile::tempdir().unwrap();
    let shipped = include_str!("../../deploy/nginx/nginx.conf");
    let config = edit(shipped.to_owned())
        .replace("127.0.0.1:10000", &free.to_string())
        .replace("127.0.0.1:8081", &authz.to_string())
        .replace("127.0.0.1:8080", &upstream.to_string())
        .replace("_timeout 1s;", "_timeout 30s;");
    std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
    let shown: Vec<_> = shipped.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    assert!(shown.len() == 2 && shown[1].starts_with("nginx "), "{shown:?}");
    let command = shown
        .join("\n")
        .replace("/tmp/passage-authz-nginx", folder.path().to_str().unwrap())
        .replace("\nnginx ", &format!("\nexec {} ", binary.display()))
        // Else the worker would outlive what the test ends.
        .replace("daemon off;", "daemon off; master_process off;");
    let process = tokio::process::Command::new("sh")
        .args(["-e", "-c", &command])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_until("nginx", || async { tokio::net::TcpStream::connect(free).await.is_ok() }).await;
    Some(Nginx { address: free, _process: process, _folder: folder })
}

#[tokio::test]
async fn the_real_nginx_with_auth_request() {
    let service = Service::ready(&http_port("style: forward_auth")).await;
    let upstream = Upstream::start().await.unwrap();
    let Some(nginx) = nginx_in_front_of(&service, &upstream).await else { return };
    let free = nginx.address;
    proxied(free).await;
    let good_header = || ("authorization", bearer(&good()));
    // A client that describes another request than its own.
    for header in
        ["X-Forwarded-Uri", "X-Original-URL", "X-Original-URI", "X-Forwarded-Host", "X-Original-Method"]
    {
        let headers = [(header, "http://a/assets/x".to_owned())];
        assert_eq!(through(free, "/orders", &headers).await.0.status, 401, "{header}");
        let headers = [(header, "http://a/assets/x".to_owned()), good_header()];
        assert_eq!(through(free, "/closed", &headers).await.0.status, 403, "{header}");
    }
    assert!(service.end().await.is_ok());
    assert_eq!(
        through(free, "/", &[good_header()]).await.0.status,
        503,
        "without the service, no way through"
    );
}

/// The snippets that people copy: of nginx's own page on subrequest authentication, with X-Original-URI alone, and of
/// ingress-nginx, with the client's Host and no cleared header. What a client adds to them is refused or changes nothing.
#[tokio::test]
async fn nginx_as_its_pages_show_it() {
    let http = "http: {listen: '127.0.0.1:0', style: forward_auth}\n";
    let rules = "rules: [{name: open, match: {paths: ['/assets/*']}, access: public}, {name: closed, match: {paths: [/closed]}, access: deny}]";
    let service = Service::ready(&format!("{http}{}", inline(rules))).await;
    let upstream = Upstream::start().await.unwrap();
    for (name, own) in [
        ("X-Original-URI", "proxy_set_header X-Original-URI $request_uri;"),
        (
            "X-Original-URL",
            "proxy_set_header X-Original-URL $scheme://$http_host$request_uri; \
             proxy_set_header X-Original-Method $request_method; proxy_set_header X-Auth-Request-Redirect $request_uri;",
        ),
    ] {
        let snippet = |shipped: String| {
            let described =
                |line: &&str| !["X-Original", "X-Forwarded"].iter().any(|name| line.contains(name));
            let lines: Vec<_> = shipped.lines().filter(described).collect();
            lines
                .join("\n")
                .replace("proxy_pass_request_body off;", &format!("proxy_pass_request_body off; {own}"))
        };
        let Some(nginx) = nginx_with(service.http.unwrap(), upstream.address, snippet).await else { return };
        let token = ("authorization", bearer(&good()));
        for (path, headers, status) in [
            ("/orders", vec![token.clone()], 200),
            ("/orders", vec![], 401),
            ("/assets/x", vec![], 200),
            ("/closed", vec![token.clone()], 403),
        ] {
            let (said, _) = through(nginx.address, path, &headers).await;
            assert_eq!(said.status, status, "{name} {path}");
            for (other, value) in [
                ("X-Original-URL", "http://a/assets/x"),
                ("X-Original-URI", "/assets/x"),
                ("X-Forwarded-Uri", "/assets/x"),
            ] {
                let headers = [headers.clone(), vec![(other, value.to_owned())]].concat();
                let (said, _) = through(nginx.address, path, &headers).await;
                let want = if other == name { status } else { 400 };
                assert_eq!(said.status, want, "{name} {path} {other}");
            }
        }
    }
    assert!(service.end().await.is_ok());
}
