//! The owned task that runs the refreshers, and reloads the configuration when its file changes or SIGHUP comes: all of
//! it or nothing, connections kept.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::engine::{Carried, Engine, Fixed, IssuerConfigs, Predecessor};
use crate::config::{Config, ConfigError, Environment, FileRead, Warning};
use crate::domain::clock::Clock;
use crate::domain::issuer::IssuerName;
use crate::keys::refresh::Refresher;
use crate::live::Live;
use crate::watched_file::{FileIo, FileVersion, WatchedFiles};

/// How long a reload waits for the keys of new issuers before it swaps the configuration without them.
const NEW_ISSUERS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the configuration and the files that it names may take to be read: a table of a million users takes a second or two,
/// and more where checks use all cores.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

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

/// One line for each warning of a configuration that is in force.
pub(crate) fn log_warnings(warnings: &[Warning]) {
    for Warning { file, line, key, problem, advice } in warnings {
        tracing::warn!(file, line, key, warning = problem, advice, "a warning of the configuration");
    }
}

/// Runs the refreshers, and replaces them together with the configuration.
pub(crate) struct Reloader {
    live: Arc<Live>,
    clock: Clock,
    fixed: Fixed,
    issuers: IssuerConfigs,
    source: Option<ConfigSource>,
    /// The files that were read for the configuration, beside its own.
    files: Vec<FileRead>,
    running: Running,
    disk: FileIo,
}

/// The refreshers' tasks. Each returns whether its token was cancelled: one that ends by itself is a fault.
struct Running {
    tasks: JoinSet<bool>,
    stops: HashMap<IssuerName, CancellationToken>,
    stop: CancellationToken,
}

impl Running {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), stops: HashMap::new(), stop: CancellationToken::new() }
    }

    /// Starts these refreshers; returns the tokens that end those whose place they take.
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

    /// Takes out the refreshers of all other issuers; returns the tokens that end them.
    fn retain(&mut self, issuers: &IssuerConfigs) -> Vec<CancellationToken> {
        let gone = self.stops.extract_if(|issuer, _| !issuers.names().any(|name| name == issuer));
        gone.map(|(_, stop)| stop).collect()
    }

    /// Cancels these tokens after a while.
    fn cancel_later(&mut self, stops: Vec<CancellationToken>, after: Duration) {
        self.tasks.spawn(async move {
            sleep(after).await;
            stops.iter().for_each(CancellationToken::cancel);
            true
        });
    }

    async fn end(mut self) {
        self.stop.cancel();
        // `cancel_later` would sleep on; the refreshers' tokens are cancelled already.
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Reloader {
    /// Starts the engine's refreshers and puts its configuration in force. Without a `source` nothing is reloaded.
    #[must_use]
    pub(crate) fn start(engine: Engine, clock: Clock, source: Option<ConfigSource>) -> (Arc<Live>, Self) {
        let Engine { current, refreshers, fixed, issuers, files } = engine;
        let live = Arc::new(Live::new(current));
        let mut running = Running::new();
        running.start(refreshers);
        (Arc::clone(&live), Self { live, clock, fixed, issuers, source, files, running, disk: FileIo::new() })
    }

    /// Runs until `stop`, or until a refresher ends that should not.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // SIGHUP's default action ends the process. A handler that cannot be installed is no reason to end it, too.
        let mut hangups = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be listened to"))
            .ok();
        let own_path = self.source.as_ref().and_then(|source| source.file.clone());
        let mut watched = self.watched(self.source.as_ref().and_then(|source| source.read));
        loop {
            let why = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.running.tasks.join_next() => match ended {
                    Ok(true) => continue,
                    Ok(false) | Err(_) => break,
                },
                () = next_hangup(&mut hangups) => {
                    watched.use_present().await;
                    "SIGHUP"
                }
                () = watched.settled_change() => {
                    // A configuration that is gone is no new one.
                    if own_path.as_ref().is_some_and(|own| watched.in_use(own).is_none()) {
                        continue;
                    }
                    "the file changed"
                }
            };
            // A new issuer that is slow to answer must not hold up the end.
            tokio::select! {
                () = stop.cancelled() => break,
                reloaded = self.reload(why) => if reloaded {
                    watched = self.watched(own_path.as_ref().and_then(|own| watched.in_use(own)));
                },
            }
        }
        self.running.end().await;
    }

    /// The configuration's own file, which had this version when it was read, and the files that were read with it.
    fn watched(&self, own_version: Option<FileVersion>) -> WatchedFiles {
        let own = self.source.as_ref().and_then(|source| source.file.clone());
        let read = self.files.iter().map(|file| (file.path.clone(), file.version));
        let files = own.map(|path| (path, own_version)).into_iter().chain(read);
        WatchedFiles::read_before(files.collect(), self.disk.clone())
    }

    /// Whether the new configuration is in force.
    async fn reload(&mut self, why: &'static str) -> bool {
        let Some(source) = self.source.clone() else { return false };
        match self.read(source).await {
            Ok((engine, warnings)) => {
                self.swap(engine).await;
                log_warnings(&warnings);
                tracing::info!(why, "configuration reloaded");
                true
            }
            Err(reasons) => {
                self.live.refuse();
                for error in reasons {
                    tracing::error!(why, error, "the new configuration is refused, the old one goes on");
                }
                false
            }
        }
    }

    /// Reads and builds everything before anything is replaced.
    async fn read(&self, source: ConfigSource) -> Result<(Engine, Vec<Warning>), Vec<String>> {
        let ConfigSource { file, environment, read: _ } = source;
        let load = move || Config::load(file.as_deref(), &environment);
        let loaded = self.disk.run_within(READ_TIMEOUT, load).await;
        let mut config = loaded
            .map_err(|error| vec![error.to_string()])?
            .map_err(|ConfigError(faults)| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let warnings = std::mem::take(&mut config.warnings);
        let before = self.live.current();
        let observers = &before.authorizer.observers;
        let predecessor =
            Predecessor { issuers: &self.issuers, keys: &before.authorizer.keys, counts: &observers.counts };
        let carried = Carried { spans: observers.spans.clone(), predecessor: Some(predecessor) };
        let engine =
            Engine::build(config, self.clock.clone(), carried).map_err(|error| vec![error.to_string()])?;
        match engine.fixed.differences(&self.fixed).as_slice() {
            [] => Ok((engine, warnings)),
            keys => Err(vec![format!("a change of {} needs a restart", keys.join(", "))]),
        }
    }

    /// Puts the engine's configuration in force in place of the one before.
    async fn swap(&mut self, engine: Engine) {
        // `read` has refused an engine whose fixed settings differ.
        let Engine { current, refreshers, issuers, files, fixed: _ } = engine;
        self.files = files;
        let before = self.live.current();
        let keys = Arc::clone(&current.authorizer.keys);
        let mut retired = self.running.start(refreshers);
        let _ = timeout(NEW_ISSUERS_TIMEOUT, keys.first_answers()).await;
        // As late as possible: the old refreshers go on while the new issuers are waited for.
        for issuer in issuers.names().filter(|issuer| issuers.same_keys(issuer, &self.issuers)) {
            keys.take_over(issuer, &before.authorizer.keys);
        }
        self.live.swap(current);
        retired.extend(self.running.retain(&issuers));
        self.issuers = issuers;
        // A check that began before the swap may still wait for a key that an old refresher fetches.
        self.running.cancel_later(retired, before.authorizer.keys.longest_wait());
    }
}

async fn next_hangup(hangups: &mut Option<Signal>) {
    match hangups {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
