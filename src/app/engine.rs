//! From a configuration to what works by it: an authorizer, and a refresher for each issuer's keys.

use std::path::PathBuf;
use std::sync::Arc;

use crate::check::authorizer::Authorizer;
use crate::check::counts::CheckCounts;
use crate::check::decision_log::DecisionLog;
use crate::check::observers::Observers;
use crate::check::spans::Spans;
use crate::check::token_cache::TokenCache;
use crate::config::{Config, Http, IssuerConfig, KeySource, KeyStore, RevocationSettings, Server};
use crate::domain::clock::Clock;
use crate::domain::issuer::{IssuerName, Issuers};
use crate::domain::policy::Policy;
use crate::domain::verify::ClaimsNeeded;
use crate::keys::fetch::{ClientError, fetcher};
use crate::keys::last_good::LastGood;
use crate::keys::refresh::Refresher;
use crate::keys::sets::{KeySets, SlotSettings};
use crate::live::Current;
use crate::revocation::file::RevocationFile;
use crate::revocation::list::FileError;
use crate::revocation::state::{NoRandomness, Revocations};
use crate::watched_file::FileRead;
use crate::wire::envoy::Answers;

/// Everything that a reload replaces, and the settings that it cannot.
pub(crate) struct Engine {
    pub current: Current,
    /// Not running yet. Without those of issuers whose refresher goes on from the configuration before.
    pub refreshers: Vec<(IssuerName, Refresher)>,
    pub fixed: Fixed,
    /// Not running yet; `None` without one, and at a reload.
    pub revocation_file: Option<RevocationFile>,
    pub issuers: IssuerConfigs,
    pub files: Vec<FileRead>,
}

/// What an engine takes over from outside its configuration. The default is nothing.
#[derive(Default)]
pub(crate) struct Carried<'a> {
    /// Recorded by the process's one exporter, if there is one.
    pub spans: Spans,
    /// At a reload: the configuration before.
    pub predecessor: Option<Predecessor<'a>>,
}

/// The configuration that a reload replaces: its issuers, with their keys and counters.
#[derive(Clone, Copy)]
pub(crate) struct Predecessor<'a> {
    pub issuers: &'a IssuerConfigs,
    pub keys: &'a KeySets,
    pub counts: &'a CheckCounts,
    pub revocations: Option<&'a Arc<Revocations>>,
}

/// Settings that only a restart changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub server: Server,
    pub http: Option<Http>,
    pub admin_listen: String,
    pub revocation: Option<RevocationSettings>,
}

impl Fixed {
    /// The configuration keys in which `other` differs.
    #[must_use]
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self { server, http, admin_listen, revocation } = self;
        let Server {
            listen,
            unix_mode,
            tls,
            max_connection_age,
            max_connections,
            max_message,
            drain_timeout,
        } = server;
        [
            ("server.listen", *listen != other.server.listen),
            ("server.unix_mode", *unix_mode != other.server.unix_mode),
            ("server.tls", *tls != other.server.tls),
            ("server.max_connection_age", *max_connection_age != other.server.max_connection_age),
            ("server.max_connections", *max_connections != other.server.max_connections),
            ("server.max_message", *max_message != other.server.max_message),
            ("server.drain_timeout", *drain_timeout != other.server.drain_timeout),
            ("http", *http != other.http),
            ("admin.listen", *admin_listen != other.admin_listen),
            ("revocation", *revocation != other.revocation),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// What a configuration names and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BuildError(#[from] Unusable);

#[derive(Debug, thiserror::Error)]
enum Unusable {
    /// An issuer's client cannot be built.
    #[error("issuer {issuer}: {error}")]
    Issuer { issuer: String, error: ClientError },
    #[error("revocation.file: {}: {error}", file.display())]
    Revocations { file: PathBuf, error: FileError },
    #[error(
        "issuers: {0} is named by revocation.file, and is missing or has lost an iss or another subject; accepted: to take its entries out of the file first"
    )]
    RevokedIssuer(IssuerName),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// One configuration's issuers and their sources of keys. A reload compares two of them: refreshers of issuers that
/// did not change go on.
#[derive(Debug, Clone)]
pub(crate) struct IssuerConfigs {
    configs: Vec<IssuerConfig>,
    key_store: Option<KeyStore>,
}

impl IssuerConfigs {
    fn get(&self, issuer: &IssuerName) -> Option<&IssuerConfig> {
        self.configs.iter().find(|config| config.issuer.name == *issuer)
    }

    /// Whether an issuer's refresher would do the same in both.
    fn refreshes_alike(&self, issuer: &IssuerName, other: &Self) -> bool {
        self.key_store == other.key_store
            && self.get(issuer).zip(other.get(issuer)).is_some_and(|(one, other)| {
                let IssuerConfig { issuer, keys, refresh } = one;
                *keys == other.keys
                    && *refresh == other.refresh
                    && issuer.algorithms == other.issuer.algorithms
            })
    }

    /// Whether an issuer's source has the same address in both and keys are read in the same way: keys that one has
    /// fetched may be used by the other, even if they are fetched at other intervals.
    #[must_use]
    pub(crate) fn same_keys(&self, issuer: &IssuerName, other: &Self) -> bool {
        self.get(issuer).zip(other.get(issuer)).is_some_and(|(one, other)| {
            let IssuerConfig { issuer, keys, refresh: _ } = one;
            keys.binding() == other.keys.binding() && issuer.algorithms == other.issuer.algorithms
        })
    }

    /// Whether an entry of revocations that names this issuer names the same tokens as in `before`: it has each `iss` that it had, and the same
    /// claims are its subject.
    fn names_the_same(&self, name: &IssuerName, before: &Self) -> bool {
        self.get(name).zip(before.get(name)).is_some_and(|(now, before)| {
            let (now, before) = (&now.issuer, &before.issuer);
            before.ids.iter().all(|id| now.ids.contains(id)) && now.subject == before.subject
        })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &IssuerName> {
        self.configs.iter().map(|config| &config.issuer.name)
    }
}

impl Engine {
    /// Builds everything; runs and binds nothing. Issuers whose keys are fetched as in the predecessor keep its
    /// refresher, which runs already, and get none here.
    ///
    /// # Errors
    /// [`BuildError`].
    pub(crate) fn build(config: Config, clock: Clock, carried: Carried<'_>) -> Result<Self, BuildError> {
        let Config {
            server,
            http,
            admin_listen,
            tokens,
            issuers: configs,
            key_store,
            revocation,
            identity,
            paths,
            rules,
            check_flags,
            wording,
            decision_log,
            warnings: _,
            sha256: _,
            files,
        } = config;
        let Carried { spans, predecessor } = carried;
        let accepted_issuers = Issuers::new(configs.iter().map(|config| config.issuer.clone()).collect());
        let issuers = IssuerConfigs { configs, key_store };
        let keeps_refresher = |issuer: &IssuerName| {
            predecessor.is_some_and(|before| issuers.refreshes_alike(issuer, before.issuers))
        };
        let slots: Vec<_> = issuers.configs.iter().map(slot_settings).collect();
        let (keys, counts) = match predecessor {
            Some(Predecessor { issuers: _, keys, counts, revocations: _ }) => {
                (keys.followed_by(slots, keeps_refresher), counts.followed_by(issuers.names()))
            }
            None => (KeySets::new(slots, clock.clone()), CheckCounts::new(issuers.names())),
        };
        let mut refreshers = Vec::new();
        for config in issuers.configs.iter().filter(|config| !keeps_refresher(&config.issuer.name)) {
            let refresher = refresher(config, issuers.key_store.as_ref(), &keys)?;
            refreshers.push((config.issuer.name.clone(), refresher));
        }
        let (revocations, revocation_file) = match (&revocation, predecessor) {
            (None, _) => (None, None),
            // A change of these settings needs a restart, so they are those of the predecessor, whose task goes on.
            (Some(_), Some(Predecessor { revocations, issuers: before, .. })) => {
                let stays = |name: &IssuerName| issuers.names_the_same(name, before);
                if let Some(issuer) = revocations.and_then(|revocations| revocations.named_without(stays)) {
                    return Err(Unusable::RevokedIssuer(issuer).into());
                }
                (revocations.cloned(), None)
            }
            (Some(settings), None) => {
                let revocations =
                    Revocations::new(settings.clone(), clock.clone()).map_err(Unusable::from)?;
                let names: Vec<_> = issuers.names().cloned().collect();
                let file = settings.file.as_ref().map(|file| {
                    let named = |error| Unusable::Revocations { file: file.clone(), error };
                    RevocationFile::start(file, &revocations, &names).map_err(named)
                });
                (Some(Arc::new(revocations)), file.transpose()?)
            }
        };
        let policy = Policy::new(rules, paths);
        let answers = Answers::new(&wording, &identity);
        let authorizer = Authorizer {
            cache: TokenCache::new(tokens.max_cached),
            claims_needed: ClaimsNeeded::of(&accepted_issuers, policy.claims(), policy.has_audiences()),
            tokens,
            issuers: accepted_issuers,
            identity,
            policy,
            check_flags,
            observers: Observers { counts, decisions: DecisionLog::new(decision_log), spans },
            keys: Arc::new(keys),
            revocations,
            clock,
        };
        Ok(Self {
            current: Current { authorizer, wording, answers },
            refreshers,
            fixed: Fixed { server, http, admin_listen, revocation },
            revocation_file,
            issuers,
            files,
        })
    }
}

impl Engine {
    /// Where events that took effect are kept, if that is configured.
    pub(crate) fn event_store(&self) -> Option<&KeyStore> {
        let has_events = self.fixed.revocation.as_ref().is_some_and(|revocation| revocation.events.is_some());
        self.issuers.key_store.as_ref().filter(|_| has_events)
    }
}

fn slot_settings(config: &IssuerConfig) -> SlotSettings {
    let IssuerConfig { issuer, keys, refresh } = config;
    SlotSettings {
        issuer: issuer.name.clone(),
        source: keys.to_string(),
        refresh: refresh.clone(),
        inline: matches!(keys, KeySource::Inline(_)),
    }
}

fn refresher(
    config: &IssuerConfig,
    key_store: Option<&KeyStore>,
    sets: &KeySets,
) -> Result<Refresher, BuildError> {
    let IssuerConfig { issuer, keys, refresh } = config;
    let name = &issuer.name;
    let source = fetcher(keys, refresh.timeout)
        .map_err(|error| Unusable::Issuer { issuer: name.as_str().to_owned(), error })?;
    let publisher = sets.publisher(name).expect("the key sets were made for these issuers");
    let store = key_store.filter(|_| source.can_change());
    let last_good = store.map(|store| LastGood::new(&store.path, name, keys.binding()));
    let mut refresher =
        Refresher::new(publisher, source, last_good, issuer.algorithms.clone(), refresh.clone());
    if store.is_some_and(|store| store.read_only) {
        refresher.only_read();
    }
    Ok(refresher)
}
