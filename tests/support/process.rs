//! The real binary as a child process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{Answer, WAIT_LIMIT, check_request, get, wait_until};

pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_passage-authz"));
    command.env_clear().kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A configuration file that goes with the test.
pub(crate) fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// Writes another file under the old name, as editors and Kubernetes do: no reader sees a part of it.
pub(crate) fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

/// A port for a server that comes later or comes back. It is none that the system gives to those who ask for any port, and is given
/// once, so that another test does not take it meanwhile.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const LOWEST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    // Another process of tests begins elsewhere.
    let begin = (std::process::id() % u32::from(COUNT)).try_into().unwrap_or_default();
    let ports = || LOWEST + NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(begin) % COUNT;
    let is_free = |address: &SocketAddr| std::net::TcpListener::bind(address).is_ok();
    let mut addresses = std::iter::repeat_with(|| SocketAddr::from(([127, 0, 0, 1], ports())));
    addresses.by_ref().take(COUNT.into()).find(is_free).expect("a free port")
}

pub(crate) struct Running {
    pub(crate) process: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// The lines of the log that were read on the way.
    said: String,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    /// The port of `revocation.listen`.
    pub(crate) events: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Running {
    pub(crate) async fn start(config: &str, level: &str) -> Self {
        Self::start_with(config, level, "30s").await
    }

    pub(crate) async fn start_with(config: &str, level: &str, drain_timeout: &str) -> Self {
        let server = format!("server: {{listen: '127.0.0.1:0', drain_timeout: {drain_timeout}}}");
        let config = file(&format!("{server}\nadmin: {{listen: '127.0.0.1:0'}}\n{config}"));
        Self::serve(config.path(), level).await
    }

    pub(crate) async fn serve(config: &Path, level: &str) -> Self {
        let mut command = binary();
        command.args(["serve", "--config"]).arg(config).env("RUST_LOG", level);
        Self::spawn(&mut command).await
    }

    pub(crate) async fn spawn(command: &mut Command) -> Self {
        let mut process = command.spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        loop {
            let line = log.next_line().await.unwrap().expect("the service says where it listens");
            let event: Value = serde_json::from_str(&line).expect("logs are JSON lines");
            if event["message"] == "listening" {
                // Where nothing listens on TCP there is no port to name.
                let address = |name: &str| {
                    let text = event[name].as_str().unwrap_or_default();
                    text.parse().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
                };
                let (grpc, http, events, admin) =
                    (address("grpc"), address("http"), address("events"), address("admin"));
                return Self { process, log, said: String::new(), grpc, http, events, admin };
            }
        }
    }

    /// Sends a signal to the process, by its ID.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.process.id().unwrap().to_string();
        let status = Command::new("kill").args([name, &id]).status().await.unwrap();
        assert!(status.success());
    }

    /// Waits until it has keys.
    pub(crate) async fn until_ready(&self) {
        wait_until("ready", || async { get(self.admin, "/readyz").await.0 == 200 }).await;
    }

    /// How many reloads of the configuration have ended so: `ok` or `failed`.
    pub(crate) async fn reloads(&self, result: &str) -> u64 {
        let (_, metrics) = get(self.admin, "/metrics").await;
        let name = format!("passage_authz_config_reloads_total{{result=\"{result}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.and_then(|count| count.parse().ok()).expect("a counter of reloads")
    }

    /// What it uses, in KiB: resident memory.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it has used so far, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Reads the log until a line holds this text.
    pub(crate) async fn until_logged(&mut self, text: &str) {
        let reading = async {
            loop {
                let line = self.log.next_line().await.unwrap().expect("the log goes on");
                self.said.push_str(&line);
                self.said.push('\n');
                if line.contains(text) {
                    return;
                }
            }
        };
        timeout(WAIT_LIMIT, reading).await.unwrap_or_else(|_| panic!("not logged: {text}"));
    }

    /// The exit code and everything logged until the end.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        while let Some(line) = self.log.next_line().await.unwrap() {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        (self.process.wait().await.unwrap().code(), self.said)
    }
}

/// Checks one after the other, each of which must be allowed.
pub(crate) struct Load {
    stop: CancellationToken,
    checks: JoinHandle<u64>,
}

impl Load {
    pub(crate) fn start(mut client: AuthorizationClient<Channel>, bearer: &str) -> Self {
        let (stop, bearer) = (CancellationToken::new(), bearer.to_owned());
        let stopped = stop.clone();
        let checks = tokio::spawn(async move {
            let mut checks = 0;
            while !stopped.is_cancelled() {
                let request = check_request(&[("authorization", &bearer)]);
                let answer = client.check(request).await.expect("no check fails").into_inner();
                assert_eq!(Answer::from(answer).code(), "allowed");
                checks += 1;
            }
            checks
        });
        Self { stop, checks }
    }

    /// How many checks there were.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.cancel();
        self.checks.await.unwrap()
    }
}
