//! The binary: the command line, the runtime, the exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use passage_authz::cli::{self, Cli};
use tokio::runtime::Builder;

/// How long the exit waits for the runtime's blocking threads: a read from a disk that hangs cannot be cancelled.
const BLOCKING_THREADS_GRACE: Duration = Duration::from_secs(1);

/// Fewer instructions per check and less memory per cached token than the system's, see docs/decisions/0005.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Connections are served on the worker threads of `server::workers`; this runtime has signals, key refreshes, the
    // reload and the admin port.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::fail(1, &error),
    };
    let code = runtime.block_on(cli::run(cli));
    runtime.shutdown_timeout(BLOCKING_THREADS_GRACE);
    code
}
