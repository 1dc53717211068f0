//! The owned task that keeps the keys of the configuration at work, and replaces both when the file changes
//! or SIGHUP comes: all or nothing, connections kept.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::engine::{Engine, Fixed, IssuerConfigs};
use crate::config::{Config, ConfigError, Environment};
use crate::domain::clock::Clock;
use crate::domain::issuer::IssuerName;
use crate::keys::refresh::Refresher;
use crate::live::Live;
use crate::watched_file::{FileIo, FileVersion, POLL_INTERVAL};

/// New issuers get this long to answer before the new configuration is put to work without their keys.
const NEW_ISSUERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the configuration is read again.
#[derive(Debug, Clone)]
pub struct ConfigSource {
    /// The file; without it the environment alone.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
    /// The file's version before it was read.
    read: Option<FileVersion>,
}

impl ConfigSource {
    /// Make it before the first reading, so that no change in between is missed.
    #[must_use]
    pub fn new(file: Option<PathBuf>, environment: Environment) -> Self {
        let read = file.as_deref().and_then(FileVersion::of);
        Self { file, environment, read }
    }
}

/// Runs the refreshers, and replaces them with the configuration.
pub(crate) struct Reloader {
    live: Arc<Live>,
    clock: Clock,
    fixed: Fixed,
    issuers: IssuerConfigs,
    source: Option<ConfigSource>,
    running: Running,
    disk: FileIo,
}

/// The refreshers at work. Each says at its end whether it was told to end.
struct Running {
    tasks: JoinSet<bool>,
    stops: HashMap<IssuerName, CancellationToken>,
    stop: CancellationToken,
}

impl Running {
    /// Starts these; returns how to end those whose place they take.
    fn start(&mut self, refreshers: Vec<(IssuerName, Refresher)>) -> Vec<CancellationToken> {
        let mut replaced = Vec::new();
        for (issuer, refresher) in refreshers {
            let stop = self.stop.child_token();
            replaced.extend(self.stops.insert(issuer, stop.clone()));
            self.tasks.spawn(async move {
                refresher.run(stop.clone()).await;
                stop.is_cancelled()
            });
        }
        replaced
    }

    /// Takes out those that are not among these; returns how to end them.
    fn without(&mut self, issuers: &IssuerConfigs) -> Vec<CancellationToken> {
        let gone = self.stops.extract_if(|issuer, _| !issuers.names().any(|name| name == issuer));
        gone.map(|(_, stop)| stop).collect()
    }

    /// Ends these after a while, when nobody waits for them any more.
    fn retire(&mut self, stops: Vec<CancellationToken>, after: Duration) {
        self.tasks.spawn(async move {
            sleep(after).await;
            stops.iter().for_each(CancellationToken::cancel);
            true
        });
    }

    async fn end(mut self) {
        self.stop.cancel();
        // Those that only wait to end others have nothing left to do.
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Reloader {
    /// Starts the refreshers of this engine; `source` is where to read another configuration, if anywhere.
    /// Returns the authorizer to work with as well.
    #[must_use]
    pub(crate) fn start(engine: Engine, clock: Clock, source: Option<ConfigSource>) -> (Arc<Live>, Self) {
        let Engine { current, refreshers, fixed, issuers } = engine;
        let live = Arc::new(Live::new(current));
        let (tasks, stops, stop) = (JoinSet::new(), HashMap::new(), CancellationToken::new());
        let mut running = Running { tasks, stops, stop };
        running.start(refreshers);
        (Arc::clone(&live), Self { live, clock, fixed, issuers, source, running, disk: FileIo::new() })
    }

    /// Runs until `stop`, or until a refresher ends that should not.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // Without a handler SIGHUP would end the process; that it cannot be installed is no reason to.
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be listened to"))
            .ok();
        let file = self.source.as_ref().and_then(|source| source.file.clone());
        let mut seen = self.source.as_ref().and_then(|source| source.read);
        let mut changed = None;
        loop {
            let why = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.running.tasks.join_next() => match ended {
                    Ok(true) => continue,
                    Ok(false) | Err(_) => break,
                },
                () = hung_up(&mut hangup) => "SIGHUP",
                mark = look(&self.disk, file.clone()) => {
                    // Two looks must agree: half a file may read well, and say less than the whole.
                    let settled = mark == changed;
                    changed = mark.filter(|_| mark != seen);
                    if changed.is_none() || !settled {
                        continue;
                    }
                    "the file changed"
                }
            };
            seen = mark(&self.disk, file.clone()).await;
            changed = None;
            // A new issuer that takes its time must not hold up the end.
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.reload(why) => {}
            }
        }
        self.running.end().await;
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
    async fn read(&self, source: ConfigSource) -> Result<Engine, Vec<String>> {
        let ConfigSource { file, environment, .. } = source;
        let read = self.disk.run(move || Config::load(file.as_deref(), &environment)).await;
        let config = read
            .map_err(|error| vec![error.to_string()])?
            .map_err(|ConfigError(faults)| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let before = self.live.current();
        let engine =
            Engine::build(config, self.clock.clone(), Some((&self.issuers, &before.authorizer.keys)))
                .map_err(|error| vec![error.to_string()])?;
        match engine.fixed.differences(&self.fixed).as_slice() {
            [] => Ok(engine),
            keys => Err(vec![format!("a change of {} needs a restart", keys.join(", "))]),
        }
    }

    async fn put_to_work(&mut self, engine: Engine) {
        let Engine { mut current, refreshers, issuers, .. } = engine;
        let before = self.live.current();
        current.authorizer.observers.counts = before.authorizer.observers.counts.followed_by(issuers.names());
        current.authorizer.observers.spans = before.authorizer.observers.spans.clone();
        let keys = Arc::clone(&current.authorizer.keys);
        let mut retired = self.running.start(refreshers);
        let _ = timeout(NEW_ISSUERS_TIMEOUT, keys.first_answers()).await;
        // Last of all, so that nothing older than what is live comes with it.
        for issuer in issuers.names().filter(|issuer| issuers.same_keys(issuer, &self.issuers)) {
            keys.take_over(issuer, &before.authorizer.keys);
        }
        self.live.swap(current);
        retired.extend(self.running.without(&issuers));
        self.issuers = issuers;
        // Checks that began before the swap may still wait for a key of the old refreshers.
        self.running.retire(retired, before.authorizer.keys.longest_wait());
    }
}

/// The file's version, after a while.
async fn look(disk: &FileIo, file: Option<PathBuf>) -> Option<FileVersion> {
    sleep(POLL_INTERVAL).await;
    mark(disk, file).await
}

async fn mark(disk: &FileIo, file: Option<PathBuf>) -> Option<FileVersion> {
    let file = file?;
    disk.run(move || FileVersion::of(&file)).await.ok().flatten()
}

async fn hung_up(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
