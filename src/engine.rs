//! From a configuration to what works by it: an authorizer, and a refresher for each issuer's keys.

use std::sync::Arc;

use crate::authz::Authorizer;
use crate::clock::Clock;
use crate::config::{Config, IssuerConfig, Server};
use crate::counts::Counts;
use crate::issuer::Issuers;
use crate::keys::fetch::{ClientError, fetcher};
use crate::keys::kept::Kept;
use crate::keys::refresh::Refresher;
use crate::keys::store::{Entry, KeyStore};
use crate::policy::Policy;

/// Everything that a reload replaces, and the settings that it cannot.
pub struct Engine {
    /// Decides checks.
    pub authorizer: Authorizer,
    /// Keep its keys; not running yet.
    pub refreshers: Vec<Refresher>,
    /// What stays for the life of the process.
    pub fixed: Fixed,
    issuers: Vec<IssuerConfig>,
}

/// Settings that only a restart changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The gRPC port.
    pub server: Server,
    /// The admin port's address.
    pub admin_listen: String,
}

impl Fixed {
    /// The keys in which another differs.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        [
            ("server.listen", self.server.listen != other.server.listen),
            ("server.drain_timeout", self.server.drain_timeout != other.server.drain_timeout),
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

impl Engine {
    /// Builds everything; runs and binds nothing.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(config: Config, clock: Clock) -> Result<Self, BuildError> {
        let Config { server, admin_listen, tokens, issuers, key_store, identity, rules, checking, wording } =
            config;
        let entries = issuers.iter().map(|config| Entry {
            issuer: config.issuer.name.clone(),
            source: config.keys.to_string(),
            refresh: config.refresh.clone(),
        });
        let keys = Arc::new(KeyStore::new(entries, clock.clone()));
        let mut refreshers = Vec::new();
        for config in &issuers {
            let name = &config.issuer.name;
            let named = |error| BuildError { issuer: name.as_str().to_owned(), error };
            let source = fetcher(&config.keys, config.refresh.timeout).map_err(named)?;
            let publisher = keys.publisher(name).expect("the store was made for these issuers");
            let kept = key_store.as_deref().map(|folder| Kept::new(folder, name, config.keys.binding()));
            let kept = kept.filter(|_| source.can_change());
            let algorithms = config.issuer.algorithms.clone();
            refreshers.push(Refresher::new(publisher, source, kept, algorithms, config.refresh.clone()));
        }
        let known = Issuers::new(issuers.iter().map(|config| config.issuer.clone()).collect());
        let policy = Policy::new(rules);
        let authorizer = Authorizer {
            tokens,
            issuers: known,
            identity,
            policy,
            checking,
            wording,
            counts: Counts::default(),
            keys,
            clock,
        };
        Ok(Self { authorizer, refreshers, fixed: Fixed { server, admin_listen }, issuers })
    }

    /// The issuers it was built for.
    #[must_use]
    pub fn issuers(&self) -> &[IssuerConfig] {
        &self.issuers
    }

    /// Takes over the keys of issuers that get them from the same place in the same way, so that a reload
    /// leaves no moment without keys.
    pub fn take_over(&self, before: &[IssuerConfig], keys: &KeyStore) {
        for config in &self.issuers {
            let same = |old: &&IssuerConfig| {
                old.issuer.name == config.issuer.name
                    && old.keys == config.keys
                    && old.issuer.algorithms == config.issuer.algorithms
            };
            if before.iter().any(|old| same(&old)) {
                self.authorizer.keys.take_over(&config.issuer.name, keys);
            }
        }
    }
}
