//! The real binary as a child process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

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

pub(crate) struct Running {
    pub(crate) process: Child,
    pub(crate) log: Lines<BufReader<ChildStderr>>,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Running {
    pub(crate) async fn start(config: &str, level: &str) -> Self {
        Self::start_with(config, level, "5s").await
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
                let (grpc, http, admin) = (address("grpc"), address("http"), address("admin"));
                return Self { process, log, grpc, http, admin };
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
        wait_until("ready", || async { super::get(self.admin, "/readyz").await.0 == 200 }).await;
    }

    /// What it uses, in KiB: resident memory.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The exit code and everything logged until the end.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        while let Some(line) = self.log.next_line().await.unwrap() {
            log.push_str(&line);
            log.push('\n');
        }
        (self.process.wait().await.unwrap().code(), log)
    }
}

/// Waits until this is so; a test that waits in vain fails by its name.
pub(crate) async fn wait_until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"));
}
