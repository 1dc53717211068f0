//! A real Redis server, as Debian packages it.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::wait_until;

const NOT_RUN: &str = "NOT RUN: redis-server is missing (Debian: redis-server)";

/// A server on loopback that keeps nothing on the disk; it ends when dropped.
pub(crate) struct Redis(Child);

impl Redis {
    /// `None` without the program. Fails without it where `REQUIRE_REDIS` is set.
    #[expect(clippy::print_stderr, reason = "says that the test did not run")]
    pub(crate) async fn start(at: SocketAddr) -> Option<Self> {
        let port = at.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--requirepass", "secret"]);
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = match command.spawn() {
            Ok(server) => server,
            Err(error) => {
                assert!(std::env::var_os("REQUIRE_REDIS").is_none(), "{NOT_RUN}: {error}");
                eprintln!("{NOT_RUN}");
                return None;
            }
        };
        wait_until("redis listens", || async { TcpStream::connect(at).await.is_ok() }).await;
        Some(Self(server))
    }

    /// As if the machine had gone: nothing is kept.
    pub(crate) async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }
}
