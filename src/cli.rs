//! The command line: parses the verbs and their arguments, and runs one verb.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::cli::check_config::check_config;
use crate::cli::output::{Failure, print};
use crate::cli::probe::Target;
use crate::cli::request::OwnedRequest;
use crate::cli::request::Target as RequestTarget;
use crate::cli::revoke::{What, revoke};
use crate::cli::serve::serve;
use crate::cli::verify::{Asked, Format, verify};
use crate::config;
use crate::domain::clock::UnixTime;

mod check_config;
mod explain;
mod findings;
mod hints;
pub mod limits;
pub mod logging;
mod output;
mod probe;
mod request;
mod revoke;
mod serve;
mod signals;
mod verify;

pub use crate::cli::output::fail;

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
    /// What is printed is itself a valid configuration. Standard error has a line for each warning: a value that is
    /// accepted, and lets more through than it seems to, or can never match anything. Exits with 0, or 2 for a bad
    /// configuration.
    #[command(after_help = ENVIRONMENT)]
    CheckConfig {
        /// The configuration, YAML; without it the environment alone configures
        #[arg(long, value_name = "FILE", env = "PASSAGE_AUTHZ_CONFIG")]
        config: Option<PathBuf>,
        /// Take warnings for errors: exit with 2 and print no configuration if there are any
        #[arg(long)]
        strict: bool,
    },
    /// Verify one token as the server would, and print every step; with --request, judge a request by the rules
    ///
    /// For each step it prints what was found and what is accepted. Exits with 0 for allow, 1 for deny, 2 for a bad
    /// configuration. It fetches keys itself, and changes nothing of a running server.
    #[command(after_help = ENVIRONMENT)]
    Verify {
        /// The configuration, YAML; without it the environment alone configures
        #[arg(long, value_name = "FILE", env = "PASSAGE_AUTHZ_CONFIG")]
        config: Option<PathBuf>,
        /// Verify as of this time: RFC 3339, or Unix seconds
        #[arg(long, value_name = "TIME", value_parser = time)]
        at: Option<UnixTime>,
        /// How to print
        #[arg(long, value_enum, default_value_t = Format::Text)]
        output: Format,
        /// Judge this request: 'GET https://host/path'. Without TOKEN it carries what its headers carry
        #[arg(long, value_name = "REQUEST", value_parser = RequestTarget::parse, conflicts_with = "at")]
        request: Option<RequestTarget>,
        /// A header of the request: 'name: value'; may be repeated
        #[arg(long, value_name = "HEADER", value_parser = request::header, requires = "request")]
        header: Vec<(String, String)>,
        /// The token, with or without "Bearer "; `-` reads it from standard input, which keeps it out of the process list
        #[arg(value_name = "TOKEN", required_unless_present = "request")]
        token: Option<String>,
    },
    /// Revoke tokens: add an entry to the file of revocations, and print it
    ///
    /// A running server reads the file again within a second. Exits with 0, or 2 if nothing was written.
    #[command(after_help = ENVIRONMENT)]
    Revoke {
        /// The configuration, YAML, with revocation.file
        #[arg(long, value_name = "FILE", env = "PASSAGE_AUTHZ_CONFIG")]
        config: Option<PathBuf>,
        /// The name of the issuer; not needed if there is only one, or for a token
        #[arg(long, value_name = "NAME")]
        issuer: Option<String>,
        #[command(flatten)]
        what: What,
        /// The tokens that were issued up to this time: RFC 3339, or Unix seconds [default: now]
        #[arg(long, value_name = "TIME", value_parser = time)]
        issued_before: Option<UnixTime>,
        /// When the last of them has expired [default: revocation.max_token_lifetime later, or the token's own exp]
        #[arg(long, value_name = "TIME", value_parser = time)]
        until: Option<UnixTime>,
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

fn time(text: &str) -> Result<UnixTime, &'static str> {
    UnixTime::parse(text).ok_or("accepted: RFC 3339, such as 2026-01-16T12:00:00Z, or Unix seconds")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    config::parse_duration(text).filter(|time| !time.is_zero()).ok_or("accepted: 250ms, 10s, 5m and the like")
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
    let outcome = match cli.verb {
        Verb::Serve { config } => serve(config).await,
        Verb::CheckConfig { config, strict } => check_config(config.as_deref(), strict),
        Verb::Verify { config, at, output, request, header, token } => {
            let request = request.map(|target| OwnedRequest::new(target, header));
            verify(config.as_deref(), output, Asked { at, request, token }).await
        }
        Verb::Revoke { config, issuer, what, issued_before, until } => {
            revoke(config.as_deref(), revoke::Asked { issuer, what, issued_before, until })
        }
        Verb::Health { address, admin, service, timeout, wait } => {
            let target = match admin {
                Some(address) => Target::Admin { address },
                None => Target::Health { address, service },
            };
            health(&target, timeout, wait).await
        }
    };
    outcome.unwrap_or_else(|failure| failure.print())
}

async fn health(target: &Target, timeout: Duration, wait: bool) -> Result<ExitCode, Failure> {
    let asked = if wait { probe::wait(target, timeout).await } else { probe::ask(target, timeout).await };
    asked.map_err(Failure::other)?;
    print("serving\n")?;
    Ok(ExitCode::SUCCESS)
}
