//! `serve`: starts the service, runs it until a signal, and reports to systemd and the log.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::{self, Bound, ConfigSource, RunError, Setup, StartError};
use crate::check::spans::Exporter;
use crate::cli::limits;
use crate::cli::logging;
use crate::cli::output::Failure;
use crate::cli::signals::Signals;
use crate::config::summary::Summary;
use crate::config::{Config, Environment};
use crate::domain::clock::Clock;

pub(super) async fn serve(file: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen().map_err(Failure::other)?;
    let source = ConfigSource::new(file, Environment::read());
    let config = Config::load(source.file.as_deref(), &source.environment).map_err(Failure::configuration)?;
    let _flush = logging::init();
    app::log_warnings(&config.warnings);
    warn_of_ignored_variables(&source);
    warn_of_few_files(config.server.max_connections);
    let exporter = exporter(&source.environment).await.map_err(Failure::configuration)?;
    let Summary { mode, issuers, rules, sha256 } = config.summary();
    let file = source.file.as_ref().map(|file| tracing::field::display(file.display().to_string()));
    let setup = Setup { config, clock: Clock::default(), source: Some(source), exporter };
    let bound = Bound::bind(setup).await.map_err(|error| match error {
        StartError::Build(_) | StartError::Tls(_) | StartError::Secret(_) | StartError::Events(_) => {
            Failure::configuration(error)
        }
        StartError::Bind(_) | StartError::Threads(_) => Failure::other(error),
    })?;
    let (grpc, admin) = (bound.grpc_address(), bound.admin_address());
    let http = bound.http_address().map(tracing::field::display);
    let events = bound.events_address().map(tracing::field::display);
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(%grpc, http, events, %admin, version, mode, issuers, rules, file, sha256, "listening");
    notify_systemd(NotifyState::Ready);
    Ok(match run_until_signal(bound, &mut signals).await {
        Some(Ok(())) => {
            tracing::info!("drained");
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            tracing::error!(%error, "the service ends");
            ExitCode::FAILURE
        }
        None => ExitCode::FAILURE,
    })
}

/// Supervisors signal the process and its group: what comes within this time of the first signal is the same one.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// The first signal starts the drain. `None` after a second one.
async fn run_until_signal(bound: Bound, signals: &mut Signals) -> Option<Result<(), RunError>> {
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(bound.run(stop.clone()));
    tokio::select! {
        outcome = running.as_mut() => return Some(outcome),
        signal = signals.next() => {
            tracing::info!(signal, "draining; a second signal ends at once");
        }
    }
    notify_systemd(NotifyState::Stopping);
    stop.cancel();
    let begun = Instant::now();
    loop {
        tokio::select! {
            outcome = running.as_mut() => return Some(outcome),
            signal = signals.next() => {
                if begun.elapsed() < SAME_SIGNAL {
                    continue;
                }
                tracing::error!(signal, "a second signal: the service ends without draining");
                return None;
            }
        }
    }
}

/// Variables that configure the service without a file do not apply beside one.
fn warn_of_ignored_variables(source: &ConfigSource) {
    if source.file.is_some() {
        for name in source.environment.set_variables() {
            tracing::warn!(name, "ignored: a configuration file is used");
        }
    }
}

fn warn_of_few_files(max_connections: usize) {
    if let Some(limit) = limits::raise_file_limit()
        && limit < max_connections as u64
    {
        tracing::warn!(limit, "fewer open files are allowed than server.max_connections");
    }
}

/// Exports spans if the environment names an endpoint.
async fn exporter(environment: &Environment) -> Result<Option<Exporter>, Box<dyn Error>> {
    if !environment.exports_spans {
        return Ok(None);
    }
    let has_service_name = environment.has_service_name;
    Ok(Some(spawn_blocking(move || Exporter::start(has_service_name)).await??))
}

/// Under `Type=notify` systemd waits for these messages; without `NOTIFY_SOCKET` in the environment none is sent.
fn notify_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
