//! The owned task that runs the refreshers, and reloads the configuration when its file changes or SIGHUP comes: all of
//! it or nothing, connections kept.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::engine::{Carried, Engine, Fixed, IssuerConfigs, Predecessor};
use crate::config::summary::Summary;
use crate::config::{Config, ConfigError, Environment, Warning};
use crate::domain::clock::Clock;
use crate::domain::issuer::IssuerName;
use crate::keys::refresh::Refresher;
use crate::live::Live;
use crate::watched_file::{FileIo, FileRead, FileVersion, WatchedFiles};

/// How long a reload waits for the keys of new issuers before it swaps the configuration without them.
const NEW_ISSUERS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the configuration and the files that it names may take to be read: a table of a million users takes a second or two,
/// and more where checks use all cores.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// When a refused configuration is tried again, though no file of it has changed: what it lacks may be none of its files. Each time
/// after twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// Why it is read then.
const RETRIED: &str = "the last one was refused";

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

/// A new configuration that is not put in force.
struct Refusal {
    reasons: Vec<String>,
    /// The files that it names, as far as they were read. `None` if that is not known.
    files: Option<Vec<FileRead>>,
}

impl Refusal {
    const fn of(reasons: Vec<String>, files: Vec<FileRead>) -> Self {
        Self { reasons, files: Some(files) }
    }
}

/// The reasons of the last refusal, and when the configuration is tried again.
struct Retry {
    reasons: Vec<String>,
    delay: Duration,
    due: Instant,
}

impl Retry {
    /// After a try that was refused for the same reasons as the one before, if this is one.
    fn after(before: Option<Self>, reasons: Vec<String>) -> Self {
        let delay = before.map_or(FIRST_RETRY, |before| (before.delay * 2).min(LONGEST_RETRY));
        Self { reasons, delay, due: Instant::now() + delay }
    }

    /// In place of a try that was not made.
    fn later(self) -> Self {
        Self { due: Instant::now() + FIRST_RETRY, ..self }
    }
}

async fn due(retry: Option<&Retry>) {
    match retry {
        Some(retry) => sleep_until(retry.due).await,
        None => std::future::pending().await,
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
        let Engine { current, refreshers, fixed, revocation_file: _, issuers, files } = engine;
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
        // A configuration that is gone is no new one.
        let own_is_gone =
            |watched: &WatchedFiles| own_path.as_ref().is_some_and(|own| watched.in_use(own).is_none());
        let mut watched = self.watched(self.source.as_ref().and_then(|source| source.read));
        let mut retry: Option<Retry> = None;
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
                    if own_is_gone(&watched) {
                        continue;
                    }
                    "the file changed"
                }
                () = due(retry.as_ref()) => RETRIED,
            };
            let again = async {
                // A file that changes just now may be half written. It is read when it has settled.
                if why == RETRIED && (own_is_gone(&watched) || !watched.is_as_in_use().await) {
                    return None;
                }
                Some(self.reload(why).await)
            };
            // Neither a new issuer that is slow to answer nor a disk that hangs may hold up the end.
            let reloaded = tokio::select! {
                () = stop.cancelled() => break,
                reloaded = again => reloaded,
            };
            let Some(reloaded) = reloaded else {
                retry = retry.map(Retry::later);
                continue;
            };
            match reloaded {
                Ok(()) => {
                    watched = self.watched(own_path.as_ref().and_then(|own| watched.in_use(own)));
                    retry = None;
                }
                Err(Refusal { reasons, files }) => {
                    if let Some(files) = files {
                        watched.replace(self.files_in_use(None), files);
                    }
                    let before = retry.take().filter(|before| why == RETRIED && before.reasons == reasons);
                    if before.is_none() {
                        self.live.refuse();
                        for error in &reasons {
                            tracing::error!(
                                why,
                                error,
                                "the new configuration is refused, the old one goes on"
                            );
                        }
                    }
                    retry = Some(Retry::after(before, reasons));
                }
            }
        }
        self.running.end().await;
    }

    fn watched(&self, own_version: Option<FileVersion>) -> WatchedFiles {
        WatchedFiles::read_before(self.files_in_use(own_version), self.disk.clone())
    }

    /// The configuration's own file, which had this version when it was read, and the files that were read with it. None if nothing is
    /// reloaded.
    fn files_in_use(&self, own_version: Option<FileVersion>) -> impl Iterator<Item = FileRead> {
        let source = self.source.as_ref();
        let own = source.and_then(|source| source.file.clone());
        let own = own.map(|path| FileRead { path, version: own_version });
        let files = source.map(|_| self.files.iter().cloned()).into_iter().flatten();
        own.into_iter().chain(files)
    }

    /// Puts the new configuration in force, if there is one that can be used.
    async fn reload(&mut self, why: &'static str) -> Result<(), Refusal> {
        let Some(source) = self.source.clone() else { return Ok(()) };
        let file = source.file.as_deref().map(|file| tracing::field::display(file.display().to_string()));
        let (engine, warnings, summary) = self.read(source).await?;
        self.swap(engine).await;
        log_warnings(&warnings);
        let Summary { mode, issuers, rules, sha256 } = summary;
        tracing::info!(why, mode, issuers, rules, file, sha256, "configuration reloaded");
        Ok(())
    }

    /// Reads and builds everything before anything is replaced.
    async fn read(&self, source: ConfigSource) -> Result<(Engine, Vec<Warning>, Summary), Refusal> {
        let ConfigSource { file, environment, read: _ } = source;
        let load = move || Config::load(file.as_deref(), &environment);
        let loaded = self.disk.run_within(READ_TIMEOUT, load).await;
        let mut config = loaded
            .map_err(|error| Refusal { reasons: vec![error.to_string()], files: None })?
            .map_err(|ConfigError { faults, files }| {
            Refusal::of(faults.iter().map(ToString::to_string).collect(), files)
        })?;
        let files = config.files.clone();
        let (warnings, summary) = (std::mem::take(&mut config.warnings), config.summary());
        let before = self.live.current();
        let cut_off = config.identity.cut_off_since(&before.authorizer.identity);
        let reasons: Vec<_> = cut_off.into_iter().map(cut_off_table).collect();
        if !reasons.is_empty() {
            return Err(Refusal::of(reasons, files));
        }
        let observers = &before.authorizer.observers;
        let predecessor = Predecessor {
            issuers: &self.issuers,
            keys: &before.authorizer.keys,
            counts: &observers.counts,
            revocations: before.authorizer.revocations.as_ref(),
        };
        let carried = Carried { spans: observers.spans.clone(), predecessor: Some(predecessor) };
        let engine = Engine::build(config, self.clock.clone(), carried)
            .map_err(|error| Refusal::of(vec![error.to_string()], files.clone()))?;
        match engine.fixed.differences(&self.fixed).as_slice() {
            [] => Ok((engine, warnings, summary)),
            keys => Err(Refusal::of(vec![format!("a change of {} needs a restart", keys.join(", "))], files)),
        }
    }

    /// Puts the engine's configuration in force in place of the one before.
    async fn swap(&mut self, engine: Engine) {
        // `read` has refused an engine whose fixed settings differ.
        let Engine { current, refreshers, issuers, files, fixed: _, revocation_file: _ } = engine;
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

fn cut_off_table(file: &Path) -> String {
    let file = file.display();
    format!(
        "{file} has no line break at its end and had one before, so it may be cut off in its last line; accepted: a file that ends with one"
    )
}

async fn next_hangup(hangups: &mut Option<Signal>) {
    match hangups {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> String {
        let keys = "{keys: [{kty: EC, crv: P-256, x: f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU, y: \
                    x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0}]}";
        format!(
            "issuers: [{{name: a, issuer: a, audiences: [], algorithms: [ES256], keys: {{inline: {keys}}}}}]\n{more}\n"
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_configuration_is_tried_again_though_none_of_its_files_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (file, store) = (folder.path().join("authz.yaml"), folder.path().join("keys"));
        std::fs::write(&file, config("")).unwrap();
        let source = ConfigSource::new(Some(file.clone()), Environment::default());
        let clock = Clock::default();
        let started = Config::load(Some(&file), &Environment::default()).unwrap();
        let engine = Engine::build(started, clock.clone(), Carried::default()).unwrap();
        let (live, reloader) = Reloader::start(engine, clock, Some(source));
        let stop = CancellationToken::new();
        let running = tokio::spawn(reloader.run(stop.clone()));
        let reach = async |want: (u64, u64), within: Duration| {
            let reached = async {
                while live.reloads() != want {
                    sleep(Duration::from_millis(100)).await;
                }
            };
            timeout(within, reached)
                .await
                .unwrap_or_else(|_| panic!("{:?} are not {want:?}", live.reloads()));
        };
        std::fs::write(&file, config(&format!("key_store: '{}'", store.display()))).unwrap();
        reach((0, 1), Duration::from_secs(5)).await;
        // Tried several times by now, and neither logged nor counted again.
        sleep(FIRST_RETRY * 20).await;
        assert_eq!(live.reloads(), (0, 1));
        let text = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        sleep(LONGEST_RETRY * 2).await;
        assert_eq!(live.reloads(), (0, 1), "a configuration that is gone is no new one");
        std::fs::write(&file, text).unwrap();
        reach((0, 2), Duration::from_secs(5)).await;
        std::fs::create_dir(&store).unwrap();
        reach((1, 2), LONGEST_RETRY).await;
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_comes_later_each_time() {
        let refused = |before: Option<Retry>| Retry::after(before, vec!["why".to_owned()]);
        let mut retry = refused(None);
        let mut delays = vec![retry.delay.as_secs() / 60];
        for _ in 0..7 {
            retry = refused(Some(retry));
            delays.push(retry.delay.as_secs() / 60);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
