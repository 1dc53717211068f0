//! From a configuration to what works by it: an authorizer, and a refresher for each issuer's keys.

use std::path::PathBuf;
use std::sync::Arc;

use crate::check::authorizer::Authorizer;
use crate::check::counts::CheckCounts;
use crate::check::decision_log::DecisionLog;
use crate::check::observers::Observers;
use crate::check::spans::Spans;
use crate::check::token_cache::TokenCache;
use crate::config::{Config, Http, IssuerConfig, KeySource, Server};
use crate::domain::clock::Clock;
use crate::domain::issuer::{self, IssuerName};
use crate::domain::policy::Policy;
use crate::domain::verify::ClaimsNeeded;
use crate::keys::fetch::{ClientError, fetcher};
use crate::keys::last_good::LastGood;
use crate::keys::refresh::Refresher;
use crate::keys::sets::{KeySets, SlotSettings};
use crate::live::Current;
use crate::wire::envoy::Answers;

/// Everything that a reload replaces, and the settings that it cannot.
pub(crate) struct Engine {
    /// What is put to work.
    pub current: Current,
    /// Keep its keys; not running yet.
    pub refreshers: Vec<(IssuerName, Refresher)>,
    /// What stays for the life of the process.
    pub fixed: Fixed,
    /// Whose keys, and from where.
    pub issuers: IssuerConfigs,
}

/// Settings that only a restart changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fixed {
    /// The gRPC port.
    pub server: Server,
    /// The HTTP port.
    pub http: Option<Http>,
    /// The admin port's address.
    pub admin_listen: String,
}

impl Fixed {
    /// The keys in which another differs.
    #[must_use]
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        [
            ("server.listen", self.server.listen != other.server.listen),
            ("server.unix_mode", self.server.unix_mode != other.server.unix_mode),
            ("server.tls", self.server.tls != other.server.tls),
            ("server.max_connection_age", self.server.max_connection_age != other.server.max_connection_age),
            ("server.max_connections", self.server.max_connections != other.server.max_connections),
            ("server.drain_timeout", self.server.drain_timeout != other.server.drain_timeout),
            ("http", self.http != other.http),
            ("admin.listen", self.admin_listen != other.admin_listen),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// An issuer whose client cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("issuer {issuer}: {error}")]
pub struct BuildError {
    issuer: String,
    error: ClientError,
}

/// What a configuration that follows may leave running.
#[derive(Debug, Clone)]
pub(crate) struct IssuerConfigs {
    configs: Vec<IssuerConfig>,
    key_store: Option<PathBuf>,
}

impl IssuerConfigs {
    fn get(&self, issuer: &IssuerName) -> Option<&IssuerConfig> {
        self.configs.iter().find(|config| config.issuer.name == *issuer)
    }

    /// Whether an issuer gets its keys in the very same way in both.
    fn refreshes_alike(&self, issuer: &IssuerName, other: &Self) -> bool {
        self.key_store == other.key_store
            && self.get(issuer).zip(other.get(issuer)).is_some_and(|(one, other)| {
                one.keys == other.keys
                    && one.refresh == other.refresh
                    && one.issuer.algorithms == other.issuer.algorithms
            })
    }

    /// Whether an issuer's keys mean the same in both, wherever else they differ.
    #[must_use]
    pub(crate) fn same_keys(&self, issuer: &IssuerName, other: &Self) -> bool {
        self.get(issuer).zip(other.get(issuer)).is_some_and(|(one, other)| {
            one.keys.binding() == other.keys.binding() && one.issuer.algorithms == other.issuer.algorithms
        })
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &IssuerName> {
        self.configs.iter().map(|config| &config.issuer.name)
    }
}

impl Engine {
    /// Builds everything; runs and binds nothing. IssuerConfigs that get their keys as `before` stay with what
    /// `before` has running: they have no refresher here.
    ///
    /// # Errors
    /// [`BuildError`].
    pub(crate) fn build(
        config: Config,
        clock: Clock,
        before: Option<(&IssuerConfigs, &KeySets)>,
    ) -> Result<Self, BuildError> {
        let Config { server, http, admin_listen, tokens, issuers, key_store, .. } = config;
        let Config { identity, rules, checking, wording, decision_log, .. } = config;
        let entries = issuers.iter().map(|config| SlotSettings {
            issuer: config.issuer.name.clone(),
            source: config.keys.to_string(),
            refresh: config.refresh.clone(),
            inline: matches!(config.keys, KeySource::Inline(_)),
        });
        let entries: Vec<_> = entries.collect();
        let issuers = IssuerConfigs { configs: issuers, key_store };
        let stays =
            |name: &IssuerName| before.is_some_and(|(before, _)| issuers.refreshes_alike(name, before));
        let keys = Arc::new(match before {
            Some((_, keys)) => keys.followed_by(entries, stays),
            None => KeySets::new(entries, clock.clone()),
        });
        let mut refreshers = Vec::new();
        for config in issuers.configs.iter().filter(|config| !stays(&config.issuer.name)) {
            let name = &config.issuer.name;
            let named = |error| BuildError { issuer: name.as_str().to_owned(), error };
            let source = fetcher(&config.keys, config.refresh.timeout).map_err(named)?;
            let publisher = keys.publisher(name).expect("the store was made for these issuers");
            let last_good = issuers.key_store.as_deref();
            let last_good = last_good.map(|folder| LastGood::new(folder, name, config.keys.binding()));
            let last_good = last_good.filter(|_| source.can_change());
            let algorithms = config.issuer.algorithms.clone();
            let refresher = Refresher::new(publisher, source, last_good, algorithms, config.refresh.clone());
            refreshers.push((name.clone(), refresher));
        }
        let known =
            issuer::Issuers::new(issuers.configs.iter().map(|config| config.issuer.clone()).collect());
        let policy = Policy::new(rules);
        let named = identity.headers().iter().map(|(_, claim)| claim).chain(identity.metadata());
        let answers = Answers::new(&wording, &identity);
        let authorizer = Authorizer {
            cache: TokenCache::new(tokens.cached),
            claims_needed: ClaimsNeeded::with(named.chain(policy.claims())),
            tokens,
            issuers: known,
            identity,
            policy,
            checking,
            wording,
            observers: Observers {
                counts: CheckCounts::new(issuers.names()),
                decisions: DecisionLog::new(decision_log),
                spans: Spans::default(),
            },
            keys,
            clock,
        };
        Ok(Self {
            current: Current { authorizer, answers },
            refreshers,
            fixed: Fixed { server, http, admin_listen },
            issuers,
        })
    }
}
