//! The configuration in effect, written back as a configuration that can be read again.
//!
//! Every struct is destructured whole, so that a new key does not compile until it is written back.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::duration::format_duration;
use super::{
    Certificates, CheckFlags, ClientIdentity, Config, DecisionLogSettings, Http, IssuerConfig, KeySource,
    Refresh, Server, Style, TlsFiles, TokenSettings, WebAccess,
};
use crate::domain::denial::Wording;
use crate::domain::identity::Identity;
use crate::domain::issuer::{Audiences, Issuer, IssuerName};
use crate::domain::policy::{Access, Ignored, Requirement, Rule};
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
        let Self {
            server,
            http,
            admin_listen,
            tokens,
            issuers,
            key_store,
            identity,
            paths: Ignored { case, trailing_slash },
            rules,
            check_flags: CheckFlags { shadow, allow_preflight },
            wording: Wording { realm, reasons },
            decision_log,
        } = self;
        json!({
            "mode": if *shadow { "shadow" } else { "enforce" },
            "server": server_value(server),
            "http": http.as_ref().map(http_value),
            "admin": {"listen": admin_listen},
            "tokens": tokens_value(tokens),
            "issuers": issuers.iter().map(issuer_value).collect::<Vec<_>>(),
            "key_store": key_store,
            "identity": identity_value(identity),
            "paths": {"ignore_case": case, "ignore_trailing_slash": trailing_slash},
            "rules": rules.iter().map(rule_value).collect::<Vec<_>>(),
            "deny": {"realm": realm, "reasons": reasons},
            "cors_preflight": if *allow_preflight { "allow" } else { "deny" },
            "decision_log": decision_log_value(decision_log),
        })
    }
}

fn server_value(server: &Server) -> Value {
    let Server { listen, unix_mode, tls, max_connection_age, max_connections, drain_timeout } = server;
    json!({
        "listen": listen.to_string(),
        "unix_mode": format!("{unix_mode:04o}"),
        "tls": tls.as_ref().map(tls_value),
        "max_connection_age": duration_value(max_connection_age.unwrap_or_default()),
        "max_connections": max_connections,
        "drain_timeout": duration_value(*drain_timeout),
    })
}

fn tls_value(TlsFiles { cert, key, client_ca }: &TlsFiles) -> Value {
    let mut files = json!({"cert": cert, "key": key});
    if let (Some(client_ca), Some(files)) = (client_ca, files.as_object_mut()) {
        files.insert("client_ca".to_owned(), json!(client_ca));
    }
    files
}

fn http_value(http: &Http) -> Value {
    let Http { listen, style, path_prefix, client_identity, proxy_secret_file } = http;
    let client_identity = match client_identity {
        ClientIdentity::Refuse => "refuse",
        ClientIdentity::Overwritten => "overwritten",
    };
    let mut port = match style {
        Style::Envoy => json!({"listen": listen, "style": "envoy"}),
        Style::ForwardAuth => {
            json!({"listen": listen, "style": "forward_auth", "client_identity": client_identity})
        }
    };
    if let Some(port) = port.as_object_mut() {
        if !path_prefix.is_empty() {
            port.insert("path_prefix".to_owned(), json!(path_prefix));
        }
        if let Some(file) = proxy_secret_file {
            port.insert("proxy_secret_file".to_owned(), json!(file));
        }
    }
    port
}

fn duration_value(duration: Duration) -> Value {
    format_duration(duration).into()
}

fn tokens_value(tokens: &TokenSettings) -> Value {
    let TokenSettings { from, max_length, forward, max_cached } = tokens;
    json!({
        "from": from.iter().map(token_source_value).collect::<Vec<_>>(),
        "max_length": max_length,
        "forward": forward,
        "cache": {"max_entries": max_cached},
    })
}

fn token_source_value(source: &TokenSource) -> Value {
    match source {
        TokenSource::Bearer => json!({"header": "authorization"}),
        TokenSource::Header(name) => json!({"header": name}),
        TokenSource::Cookie(name) => json!({"cookie": name}),
        TokenSource::Query(name) => json!({"query": name}),
    }
}

fn identity_value(identity: &Identity) -> Value {
    let headers: Map<_, _> =
        identity.headers().iter().map(|(name, claim)| (name.clone(), claim.as_str().into())).collect();
    let metadata: Vec<_> = identity.metadata().iter().map(|claim| claim.as_str()).collect();
    json!({"headers": headers, "metadata": metadata})
}

fn decision_log_value(log: &DecisionLogSettings) -> Value {
    let DecisionLogSettings { denied, allowed, max_per_second, subject_in_clear } = log;
    json!({
        "denied": denied,
        "allowed": allowed,
        "max_per_second": max_per_second,
        "subject": if *subject_in_clear { "clear" } else { "hashed" },
    })
}

fn issuer_value(config: &IssuerConfig) -> Value {
    let IssuerConfig { issuer, keys, refresh } = config;
    let Issuer { name, ids, audiences, algorithms, require_kid, types, leeway } = issuer;
    let audiences: Vec<_> = match audiences {
        Audiences::NotChecked => Vec::new(),
        Audiences::OneOf(list) => list.iter().map(|audience| audience.0.as_str()).collect(),
    };
    let (keys, access) = match keys {
        KeySource::Url { url, access } => (json!({"url": url.as_str()}), Some(access)),
        // Both follow from the issuer's one `iss`.
        KeySource::Discovery { issuer: _, document: _, access } => (json!({"discovery": true}), Some(access)),
        KeySource::File(path) => (json!({"file": path}), None),
        KeySource::Inline(text) => {
            (json!({"inline": serde_json::from_str::<Value>(text).unwrap_or_default()}), None)
        }
    };
    let (allow_http, ca) =
        access.map_or((false, None), |WebAccess { allow_http, ca }| (*allow_http, ca.as_ref()));
    json!({
        "name": name.as_str(),
        "issuer": ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>(),
        "audiences": audiences,
        "keys": keys,
        "algorithms": algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>(),
        "require_kid": require_kid,
        "types": types,
        "leeway": duration_value(*leeway),
        "allow_http": allow_http,
        "ca": ca.map(|Certificates { file, pem: _ }| file),
        "refresh": refresh_value(refresh),
    })
}

fn refresh_value(refresh: &Refresh) -> Value {
    let Refresh { interval, timeout, max_stale, unknown_kid_cooldown, wait } = refresh;
    json!({
        "interval": duration_value(*interval),
        "timeout": duration_value(*timeout),
        "max_stale": duration_value(*max_stale),
        "unknown_kid_cooldown": duration_value(*unknown_kid_cooldown),
        "wait": duration_value(*wait),
    })
}

fn rule_value(rule: &Rule) -> Value {
    let Rule { name, hosts, paths, methods, access, require, shadow } = rule;
    let mut condition = Map::new();
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
    let access = match access {
        Access::Public => "public",
        Access::Optional => "optional",
        Access::Required => "required",
        Access::Deny => "deny",
    };
    let require = requirement_value(require);
    json!({"name": name, "match": condition, "access": access, "require": require, "shadow": shadow})
}

fn requirement_value(requirement: &Requirement) -> Value {
    let Requirement { issuers, claims } = requirement;
    let mut written = Map::new();
    if let Some(issuers) = issuers {
        let names: Vec<_> = issuers.iter().map(IssuerName::as_str).collect();
        written.insert("issuers".to_owned(), names.into());
    }
    if !claims.is_empty() {
        let claims = claims.iter().map(|(claim, values)| (claim.as_str().to_owned(), values.clone().into()));
        written.insert("claims".to_owned(), Value::Object(claims.collect()));
    }
    Value::Object(written)
}
