//! The binary: the command line, the runtime, the exit code.

use std::process::ExitCode;

use clap::Parser as _;
use passage_authz::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
