//! The verbs and what they print.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::app::{Bound, StartError};
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::reload::Source;
use crate::shutdown::Signals;
use crate::telemetry;

/// A bad configuration; clap uses the same code for a bad command line.
const BAD_CONFIGURATION: u8 = 2;

/// External authorization for Envoy: every request carries a valid JSON Web Token or is turned away.
#[derive(Debug, Parser)]
#[command(name = "passage-authz", version, about, after_help = ENVIRONMENT)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve until SIGTERM or SIGINT, then drain
    ///
    /// Exits with 0 after a drain, 2 for a bad configuration, 1 for anything else.
    #[command(after_help = ENVIRONMENT)]
    Serve {
        /// The configuration, YAML; without it the environment alone configures
        #[arg(long, value_name = "FILE", env = "PASSAGE_AUTHZ_CONFIG")]
        config: Option<PathBuf>,
    },
}

const ENVIRONMENT: &str = "\
Environment:
  PASSAGE_AUTHZ_CONFIG     the configuration file, as --config
  PASSAGE_APP_ID           without a file: accept the tokens of this Passage app
  PASSAGE_BASE_URL         without a file: Passage's host [default: https://auth.passage.id]
  PASSAGE_AUTHZ_ISSUER     without a file: accept the tokens of this OpenID Connect issuer
  PASSAGE_AUTHZ_AUDIENCE   without a file: the audience they must be meant for
  RUST_LOG                 which logs to write [default: info]";

/// Runs the verb.
pub async fn run(cli: Cli) -> ExitCode {
    match cli.verb {
        Verb::Serve { config } => serve(config).await,
    }
}

async fn serve(file: Option<PathBuf>) -> ExitCode {
    let environment = Environment::read();
    let config = match Config::load(file.as_deref(), &environment) {
        Ok(config) => config,
        Err(error) => return fail(BAD_CONFIGURATION, &error),
    };
    telemetry::init();
    if file.is_some() {
        for name in environment.set() {
            tracing::warn!(name, "ignored: a configuration file is used");
        }
    }
    let source = Source { file, environment };
    let bound = match Bound::bind(config, Clock::default()).await {
        Ok(bound) => bound.reloading(source),
        Err(error @ StartError::Build(_)) => return fail(BAD_CONFIGURATION, &error),
        Err(error @ StartError::Bind(_)) => return fail(1, &error),
    };
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(1, &error),
    };
    let (grpc, admin) = (bound.grpc_address(), bound.admin_address());
    tracing::info!(%grpc, %admin, version = env!("CARGO_PKG_VERSION"), "listening");
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(bound.run(stop.clone()));
    let outcome = tokio::select! {
        outcome = running.as_mut() => outcome,
        signal = signals.next() => {
            tracing::info!(signal, "draining");
            stop.cancel();
            running.await
        }
    };
    match outcome {
        Ok(()) => {
            tracing::info!("drained");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "the service ends");
            ExitCode::FAILURE
        }
    }
}

/// Says why on stderr, one line for each reason.
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for line in error.to_string().lines() {
        // Nobody reads a closed stderr, and there is no other place to say it.
        let _ = writeln!(stderr, "passage-authz: {line}");
    }
    ExitCode::from(code)
}
