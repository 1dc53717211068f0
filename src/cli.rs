//! The verbs and what they print.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::app::engine::Engine;
use crate::app::reload::{ConfigSource, Reloader};
use crate::app::{Bound, StartError};
use crate::check::spans::Exporter;
use crate::cli::explain::explain;
use crate::cli::probe::Target;
use crate::cli::signals::Signals;
use crate::config::{self, Config, Environment};
use crate::domain::clock::{Clock, UnixTime};
use crate::server::tls::Tls;
use crate::server::workers::Workers;

mod explain;
pub mod limits;
pub mod logging;
mod probe;
mod signals;

/// A bad configuration; clap uses the same code for a bad command line.
const BAD_CONFIGURATION: u8 = 2;

/// How long `verify` waits for the issuers' keys.
const VERIFY_KEYS_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Validate the configuration and print it as it takes effect
    ///
    /// What is printed is itself a valid configuration. Exits with 0, or 2 for a bad configuration.
    #[command(after_help = ENVIRONMENT)]
    CheckConfig {
        /// The configuration, YAML; without it the environment alone configures
        #[arg(long, value_name = "FILE", env = "PASSAGE_AUTHZ_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Verify one token as the server would, and print every step
    ///
    /// Exits with 0 if the token is good, 1 if it is not, 2 for a bad configuration.
    #[command(after_help = ENVIRONMENT)]
    Verify {
        /// The configuration, YAML; without it the environment alone configures
        #[arg(long, value_name = "FILE", env = "PASSAGE_AUTHZ_CONFIG")]
        config: Option<PathBuf>,
        /// Verify as of this time: RFC 3339, or Unix seconds
        #[arg(long, value_name = "TIME", value_parser = time)]
        at: Option<UnixTime>,
        /// How to print
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
        /// The token; `-` reads it from standard input, which keeps it out of the process list
        #[arg(value_name = "TOKEN")]
        token: String,
    },
    /// Ask a running server whether it serves, for probes in an image without a shell
    ///
    /// Exits with 0 if it does, 1 if not.
    Health {
        /// Where it serves gRPC in plaintext: HOST:PORT, or unix:/path/to.sock
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051", value_parser = grpc_address)]
        address: String,
        /// Ask /readyz there instead: HOST:PORT of the admin port, for a gRPC port with TLS
        #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, conflicts_with_all = ["address", "service"])]
        admin: Option<String>,
        /// The service to ask for: "" is ready, "liveness" is alive
        #[arg(long, value_name = "NAME", default_value = "")]
        service: String,
        /// How long to wait for the answer
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
        timeout: Duration,
        /// Ask again until it serves or the time is up, for a server or a proxy that may still be starting
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For a person, in colour on a terminal
    Text,
    /// For a program
    Json,
}

fn time(text: &str) -> Result<UnixTime, &'static str> {
    UnixTime::parse(text).ok_or("accepted: RFC 3339, such as 2026-01-16T12:00:00Z, or Unix seconds")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    config::duration(text).filter(|time| !time.is_zero()).ok_or("accepted: 250ms, 10s, 5m and the like")
}

fn grpc_address(text: &str) -> Result<String, &'static str> {
    if text.strip_prefix("unix:").is_some_and(|path| path.starts_with('/')) {
        return Ok(text.to_owned());
    }
    host_and_port(text).map_err(|_| "accepted: HOST:PORT, or unix:/path/to.sock")
}

fn host_and_port(text: &str) -> Result<String, &'static str> {
    let legal = text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_bare = !host.is_empty() && !host.contains(['/', '@', '?', '#']);
        host_is_bare && port.parse::<u16>().is_ok()
    });
    legal.then(|| text.to_owned()).ok_or("accepted: HOST:PORT, such as 127.0.0.1:9090 or [::1]:9090")
}

const ENVIRONMENT: &str = "\
Environment:
  PASSAGE_AUTHZ_CONFIG     the configuration file, as --config
  PASSAGE_APP_ID           without a file: accept the tokens of this Passage app
  PASSAGE_BASE_URL         without a file: Passage's host [default: https://auth.passage.id]
  PASSAGE_AUTHZ_ISSUER     without a file: accept the tokens of this OpenID Connect issuer
  PASSAGE_AUTHZ_AUDIENCE   without a file: the audience they must be meant for
  RUST_LOG                 which logs to write [default: info]
  OTEL_EXPORTER_OTLP_ENDPOINT
                           send a span for each check there; the other OTEL_* variables work, too";

/// Runs the verb.
pub async fn run(cli: Cli) -> ExitCode {
    match cli.verb {
        Verb::Serve { config } => serve(config).await,
        Verb::CheckConfig { config } => check_config(config.as_deref()),
        Verb::Verify { config, at, output, token } => verify(config.as_deref(), at, output, token).await,
        Verb::Health { address, admin, service, timeout, wait } => {
            let target = match admin {
                Some(address) => Target::Admin { address },
                None => Target::Health { address, service },
            };
            let asked =
                if wait { probe::wait(&target, timeout).await } else { probe::ask(&target, timeout).await };
            match asked {
                Ok(()) => print("serving\n"),
                Err(error) => fail(1, &error),
            }
        }
    }
}

async fn serve(file: Option<PathBuf>) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(1, &error),
    };
    let source = ConfigSource::new(file, Environment::read());
    let config = match Config::load(source.file.as_deref(), &source.environment) {
        Ok(config) => config,
        Err(error) => return fail(BAD_CONFIGURATION, &error),
    };
    let _flush = logging::init();
    if source.file.is_some() {
        for name in source.environment.set() {
            tracing::warn!(name, "ignored: a configuration file is used");
        }
    }
    if let Some(limit) = limits::raise_file_limit()
        && limit < config.server.max_connections as u64
    {
        tracing::warn!(limit, "fewer open files are allowed than server.max_connections");
    }
    let exporter = match exporter(&source.environment).await {
        Ok(exporter) => exporter,
        Err(error) => return fail(BAD_CONFIGURATION, &*error),
    };
    let mut bound = match Bound::bind(config, Clock::default()).await {
        Ok(bound) => bound.reloading(source),
        Err(error @ (StartError::Build(_) | StartError::Tls(_))) => return fail(BAD_CONFIGURATION, &error),
        Err(error @ StartError::Bind(_)) => return fail(1, &error),
    };
    let threads = match Workers::start().await {
        Ok((workers, threads)) => {
            bound = bound.on(workers);
            threads
        }
        Err(error) => return fail(1, &error),
    };
    if let Some(exporter) = exporter {
        bound = bound.exporting(exporter);
    }
    let (grpc, admin) = (bound.grpc_address(), bound.admin_address());
    let http = bound.http_address().map(tracing::field::display);
    tracing::info!(%grpc, http, %admin, version = env!("CARGO_PKG_VERSION"), "listening");
    tell_systemd(NotifyState::Ready);
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(bound.run(stop.clone()));
    let outcome = tokio::select! {
        outcome = running.as_mut() => outcome,
        signal = signals.next() => {
            tracing::info!(signal, "draining; a second signal ends at once");
            tell_systemd(NotifyState::Stopping);
            stop.cancel();
            tokio::select! {
                outcome = running => outcome,
                signal = signals.next() => {
                    tracing::error!(signal, "a second signal: the service ends without draining");
                    return ExitCode::FAILURE;
                }
            }
        }
    };
    // Nothing runs on them any more.
    let _ = tokio::task::spawn_blocking(|| threads.end()).await;
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

/// Where spans go, if the environment says so.
async fn exporter(environment: &Environment) -> Result<Option<Exporter>, Box<dyn std::error::Error>> {
    if !environment.exports_spans {
        return Ok(None);
    }
    let named = environment.has_service_name;
    Ok(Some(tokio::task::spawn_blocking(move || Exporter::start(named)).await??))
}

/// Under `Type=notify` systemd waits for it; elsewhere nobody does.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

fn check_config(file: Option<&Path>) -> ExitCode {
    let config = match Config::load(file, &Environment::read()) {
        Ok(config) => config,
        Err(error) => return fail(BAD_CONFIGURATION, &error),
    };
    let yaml = match config.to_yaml() {
        Ok(yaml) => yaml,
        Err(error) => return fail(1, &error),
    };
    // What would be found only when things are built, such as extra roots that are none.
    if let Some(Err(error)) = config.server.tls.clone().map(Tls::load) {
        return fail(BAD_CONFIGURATION, &error);
    }
    match Engine::build(config, Clock::default(), None) {
        Ok(_) => print(&yaml),
        Err(error) => fail(BAD_CONFIGURATION, &error),
    }
}

async fn verify(file: Option<&Path>, at: Option<UnixTime>, output: Output, token: String) -> ExitCode {
    let clock = Clock::default();
    let config = match Config::load(file, &Environment::read()) {
        Ok(config) => config,
        Err(error) => return fail(BAD_CONFIGURATION, &error),
    };
    let mut engine = match Engine::build(config, clock.clone(), None) {
        Ok(engine) => engine,
        Err(error) => return fail(BAD_CONFIGURATION, &error),
    };
    // Whoever asks is not the server: what it keeps stays its own.
    engine.refreshers.iter_mut().for_each(|(_, refresher)| refresher.only_read());
    let token = if token == "-" { read_token() } else { token };
    let (live, reloader) = Reloader::start(engine, clock.clone(), None);
    let (current, stop) = (live.current(), CancellationToken::new());
    let authorizer = &current.authorizer;
    let keys = tokio::spawn(reloader.run(stop.clone()));
    // Each fetch has its own limit; this one is for all of them together.
    let _ = tokio::time::timeout(VERIFY_KEYS_TIMEOUT, authorizer.keys.first_answers()).await;
    let at = at.unwrap_or_else(|| clock.now());
    let explanation = explain(authorizer, token.trim().as_bytes(), at).await;
    stop.cancel();
    // It was told to stop: how it ended changes nothing any more.
    let _ = keys.await;
    let printed = print(&match output {
        Output::Text => explanation.text(in_colour()),
        Output::Json => format!("{:#}\n", explanation.json()),
    });
    match explanation.denial() {
        None => printed,
        Some(_) => ExitCode::FAILURE,
    }
}

/// A little more than the longest token that can be configured, so that a longer one is seen as such.
fn read_token() -> String {
    let mut token = Vec::new();
    // What cannot be read is no token, and is denied as such.
    let _ = std::io::stdin().lock().take(128 * 1024).read_to_end(&mut token);
    String::from_utf8_lossy(&token).into_owned()
}

/// Colour for a terminal, unless its owner asks for none (no-color.org).
fn in_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes to standard output; a reader that has gone away is not our failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(1, &error),
        _ => ExitCode::SUCCESS,
    }
}

/// Says why on stderr, one line for each reason.
pub fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for line in error.to_string().lines() {
        // Nobody reads a closed stderr, and there is no other place to say it.
        let _ = writeln!(stderr, "passage-authz: {line}");
    }
    ExitCode::from(code)
}
