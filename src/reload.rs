//! The owned task that keeps the keys of the configuration at work, and replaces both when the file changes
//! or SIGHUP comes: all or nothing, connections kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, ConfigError, Environment, IssuerConfig};
use crate::disk::{LOOK, Mark, on_disk};
use crate::engine::{Engine, Fixed};
use crate::keys::refresh::Refresher;
use crate::live::Live;

/// New issuers get this long to answer before the new configuration is put to work without their keys.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// Where the configuration is read again.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file; without it the environment alone.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
}

/// Runs the refreshers, and replaces them with the configuration.
pub struct Reloader {
    live: Arc<Live>,
    clock: Clock,
    fixed: Fixed,
    issuers: Vec<IssuerConfig>,
    source: Option<Source>,
    running: Running,
}

/// The refreshers of one configuration.
struct Running {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Running {
    fn start(refreshers: Vec<Refresher>) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for refresher in refreshers {
            tasks.spawn(refresher.run(stop.clone()));
        }
        Self { tasks, stop }
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Reloader {
    /// Starts the refreshers of this engine; `source` is where to read another configuration, if anywhere.
    /// Returns the authorizer to work with as well.
    #[must_use]
    pub fn start(engine: Engine, clock: Clock, source: Option<Source>) -> (Arc<Live>, Self) {
        let issuers = engine.issuers().to_vec();
        let Engine { authorizer, refreshers, fixed, .. } = engine;
        let live = Arc::new(Live::new(authorizer));
        let running = Running::start(refreshers);
        (Arc::clone(&live), Self { live, clock, fixed, issuers, source, running })
    }

    /// Runs until `stop`, or until a refresher ends that should not.
    pub async fn run(mut self, stop: CancellationToken) {
        // Without a handler SIGHUP would end the process; that it cannot be installed is no reason to.
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be listened to"))
            .ok();
        let mut seen = self.mark().await;
        loop {
            let why = tokio::select! {
                () = stop.cancelled() => break,
                _ = self.running.tasks.join_next(), if !self.running.tasks.is_empty() => break,
                () = hung_up(&mut hangup) => "SIGHUP",
                () = sleep(LOOK) => match self.mark().await {
                    mark if mark.is_some() && mark != seen => "the file changed",
                    _ => continue,
                },
            };
            seen = self.mark().await;
            // A new issuer that takes its time must not hold up the end.
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.reload(why) => {}
            }
        }
        self.running.end().await;
    }

    async fn mark(&self) -> Option<Mark> {
        let file = self.source.as_ref()?.file.clone()?;
        on_disk(move || Mark::of(&file)).await.ok().flatten()
    }

    async fn reload(&mut self, why: &'static str) {
        let Some(source) = self.source.clone() else { return };
        match self.read(source).await {
            Ok(engine) => {
                self.put_to_work(engine).await;
                tracing::info!(why, "configuration reloaded");
            }
            Err(reasons) => {
                self.live.refuse();
                for error in reasons {
                    tracing::error!(why, error, "the new configuration is refused, the old one goes on");
                }
            }
        }
    }

    /// Reads and builds everything before anything is replaced.
    async fn read(&self, source: Source) -> Result<Engine, Vec<String>> {
        let Source { file, environment } = source;
        let read = on_disk(move || Config::load(file.as_deref(), &environment)).await;
        let config = read
            .map_err(|error| vec![error.to_string()])?
            .map_err(|ConfigError(faults)| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let engine = Engine::build(config, self.clock.clone()).map_err(|error| vec![error.to_string()])?;
        match engine.fixed.differences(&self.fixed).as_slice() {
            [] => Ok(engine),
            keys => Err(vec![format!("a change of {} needs a restart", keys.join(", "))]),
        }
    }

    async fn put_to_work(&mut self, engine: Engine) {
        engine.take_over(&self.issuers, &self.live.now().keys);
        self.issuers = engine.issuers().to_vec();
        let Engine { mut authorizer, refreshers, .. } = engine;
        authorizer.counts = self.live.now().counts.clone();
        let keys = Arc::clone(&authorizer.keys);
        let before = std::mem::replace(&mut self.running, Running::start(refreshers));
        let _ = timeout(FIRST_ANSWERS, keys.first_answers()).await;
        self.live.swap(authorizer);
        before.end().await;
    }
}

async fn hung_up(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
