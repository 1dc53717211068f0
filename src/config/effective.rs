//! The configuration as it takes effect, written so that it is itself a configuration.

use std::time::Duration;

use serde_json::{Value, json};

use super::document::written;
use super::{Config, Http, IssuerConfig, KeySource, Refresh, Style, TlsFiles};
use crate::domain::issuer::{Audiences, IssuerName};
use crate::domain::policy::{Access, Rule};
use crate::domain::token::TokenSource;

impl Config {
    /// As YAML, defaults and profiles written out. Reading it gives this configuration again.
    ///
    /// # Errors
    /// When the YAML library cannot write a value.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(&self.to_value())
    }

    fn to_value(&self) -> Value {
        let Self { server, http, admin_listen, tokens, issuers, key_store, identity, .. } = self;
        let Self { paths, rules, checking, wording, decision_log, .. } = self;
        let headers: serde_json::Map<_, _> =
            identity.headers().iter().map(|(name, claim)| (name.clone(), claim.as_str().into())).collect();
        let metadata: Vec<_> = identity.metadata().iter().map(|claim| claim.as_str()).collect();
        json!({
            "mode": if checking.shadow { "shadow" } else { "enforce" },
            "server": {
                "listen": server.listen.to_string(),
                "unix_mode": format!("{:04o}", server.unix_mode),
                "tls": server.tls.as_ref().map(tls),
                "max_connection_age": time(server.max_connection_age.unwrap_or_default()),
                "max_connections": server.max_connections,
                "drain_timeout": time(server.drain_timeout),
            },
            "http": http.as_ref().map(port),
            "admin": {"listen": admin_listen},
            "tokens": {
                "from": tokens.from.iter().map(source).collect::<Vec<_>>(),
                "max_length": tokens.max_length,
                "forward": tokens.forward,
                "cache": {"max_entries": tokens.cached},
            },
            "issuers": issuers.iter().map(issuer).collect::<Vec<_>>(),
            "key_store": key_store,
            "identity": {"headers": headers, "metadata": metadata},
            "paths": {"ignore_case": paths.case, "ignore_trailing_slash": paths.trailing_slash},
            "rules": rules.iter().map(rule).collect::<Vec<_>>(),
            "deny": {"realm": wording.realm, "reasons": wording.reasons},
            "cors_preflight": if checking.preflight { "allow" } else { "deny" },
            "decision_log": {
                "denied": decision_log.denied,
                "allowed": decision_log.allowed,
                "max_per_second": decision_log.max_per_second,
                "subject": if decision_log.subject_in_clear { "clear" } else { "hashed" },
            },
        })
    }
}

fn tls(TlsFiles { cert, key, client_ca }: &TlsFiles) -> Value {
    let mut files = json!({"cert": cert, "key": key});
    if let (Some(client_ca), Some(files)) = (client_ca, files.as_object_mut()) {
        files.insert("client_ca".to_owned(), json!(client_ca));
    }
    files
}

fn port(http: &Http) -> Value {
    let Http { listen, style, path_prefix } = http;
    let style = match style {
        Style::Envoy => "envoy",
        Style::ForwardAuth => "forward_auth",
    };
    let mut port = json!({"listen": listen, "style": style});
    if let (false, Some(port)) = (path_prefix.is_empty(), port.as_object_mut()) {
        port.insert("path_prefix".to_owned(), json!(path_prefix));
    }
    port
}

fn time(duration: Duration) -> Value {
    written(duration).into()
}

fn source(source: &TokenSource) -> Value {
    match source {
        TokenSource::Bearer => json!({"header": "authorization"}),
        TokenSource::Header(name) => json!({"header": name}),
        TokenSource::Cookie(name) => json!({"cookie": name}),
        TokenSource::Query(name) => json!({"query": name}),
    }
}

fn issuer(config: &IssuerConfig) -> Value {
    let IssuerConfig { issuer, keys, refresh } = config;
    let Refresh { interval, timeout, max_stale, unknown_kid_cooldown, wait } = refresh;
    let audiences: Vec<_> = match &issuer.audiences {
        Audiences::NotChecked => Vec::new(),
        Audiences::OneOf(list) => list.iter().map(|audience| audience.0.as_str()).collect(),
    };
    let (keys, access) = match keys {
        KeySource::Url { url, access } => (json!({"url": url.as_str()}), Some(access)),
        KeySource::Discovery { access, .. } => (json!({"discovery": true}), Some(access)),
        KeySource::File(path) => (json!({"file": path}), None),
        KeySource::Inline(text) => {
            (json!({"inline": serde_json::from_str::<Value>(text).unwrap_or_default()}), None)
        }
    };
    json!({
        "name": issuer.name.as_str(),
        "issuer": issuer.ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>(),
        "audiences": audiences,
        "keys": keys,
        "algorithms": issuer.algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>(),
        "require_kid": issuer.require_kid,
        "types": issuer.types,
        "leeway": time(issuer.leeway),
        "allow_http": access.is_some_and(|access| access.allow_http),
        "ca": access.and_then(|access| access.ca.as_ref()).map(|ca| &ca.file),
        "refresh": {
            "interval": time(*interval),
            "timeout": time(*timeout),
            "max_stale": time(*max_stale),
            "unknown_kid_cooldown": time(*unknown_kid_cooldown),
            "wait": time(*wait),
        },
    })
}

fn rule(rule: &Rule) -> Value {
    let Rule { name, hosts, paths, methods, access, require, shadow } = rule;
    let mut condition = serde_json::Map::new();
    if let Some(hosts) = hosts {
        let hosts = hosts.iter().map(ToString::to_string);
        condition.insert("hosts".to_owned(), hosts.collect::<Vec<_>>().into());
    }
    if let Some(paths) = paths {
        let paths = paths.iter().map(ToString::to_string);
        condition.insert("paths".to_owned(), paths.collect::<Vec<_>>().into());
    }
    if let Some(methods) = methods {
        condition.insert("methods".to_owned(), methods.clone().into());
    }
    let mut asked = serde_json::Map::new();
    if let Some(issuers) = &require.issuers {
        let names: Vec<_> = issuers.iter().map(IssuerName::as_str).collect();
        asked.insert("issuers".to_owned(), names.into());
    }
    if !require.claims.is_empty() {
        let claims =
            require.claims.iter().map(|(claim, values)| (claim.as_str().to_owned(), values.clone().into()));
        asked.insert("claims".to_owned(), Value::Object(claims.collect()));
    }
    let access = match access {
        Access::Public => "public",
        Access::Optional => "optional",
        Access::Required => "required",
        Access::Deny => "deny",
    };
    json!({"name": name, "match": condition, "access": access, "require": asked, "shadow": shadow})
}
