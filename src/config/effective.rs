//! The configuration in effect, written back as a configuration that can be read again.
//!
//! Every struct is destructured whole, so that a new key does not compile until it is written back.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use serde_saphyr::Tagged;

use super::duration::format_duration;
use super::size::format_size;
use super::{
    Certificates, CheckFlags, ClientCertificate, ClientIdentity, Config, DecisionLogSettings, EventSettings,
    Http, IssuerConfig, KeySource, KeyStore, RedisSettings, Refresh, RevocationSettings, Server, Style,
    TlsFiles, TokenSettings, WebAccess, WhenStale, discovery_url,
};
use crate::domain::claim::Claim;
use crate::domain::denial::Wording;
use crate::domain::identity::{Identity, JsonForm, MappedClaim, PayloadPart, TextClaim};
use crate::domain::issuer::{Audience, Audiences, BoundTokens, Issuer, IssuerName, Tenants};
use crate::domain::json::{Json, MAX_DEPTH};
use crate::domain::number::Number;
use crate::domain::policy::{Access, ClaimDemand, Ignored, Requirement, Rule, Wanted};
use crate::domain::revoked::SubjectClaims;
use crate::domain::token::{TokenPlace, TokenSource};

impl Config {
    /// As YAML, defaults and profiles written out. Reading it gives this configuration again.
    ///
    /// # Errors
    /// When the YAML library cannot write a value.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(&Yaml(&self.to_json()))
    }

    fn to_json(&self) -> Json {
        let Self {
            server,
            http,
            admin_listen,
            tokens,
            issuers,
            key_store,
            revocation,
            identity,
            paths: Ignored { case, trailing_slash },
            rules,
            check_flags: CheckFlags { shadow, allow_preflight },
            wording: Wording { realm, reasons },
            decision_log,
            warnings: _,
            sha256: _,
            files: _,
        } = self;
        let document = json!({
            "mode": if *shadow { "shadow" } else { "enforce" },
            "server": server_value(server),
            "http": http.as_ref().map(http_value),
            "admin": {"listen": admin_listen},
            "tokens": tokens_value(tokens),
            "issuers": null,
            "key_store": key_store.as_ref().map(key_store_value),
            "revocation": revocation.as_ref().map(revocation_value),
            "identity": identity_value(identity),
            "paths": {"ignore_case": case, "ignore_trailing_slash": trailing_slash},
            "rules": null,
            "deny": {"realm": realm, "reasons": reasons},
            "cors_preflight": if *allow_preflight { "allow" } else { "deny" },
            "decision_log": decision_log_value(decision_log),
        });
        // These two may hold any number, and those of serde_json are doubles.
        let document = with(
            document.into(),
            "issuers",
            Json::Array(issuers.iter().map(|issuer| issuer_json(issuer, identity)).collect()),
        );
        with(document, "rules", Json::Array(rules.iter().map(rule_json).collect()))
    }
}

/// The object, its member of this name replaced.
fn with(mut object: Json, name: &str, value: Json) -> Json {
    if let Json::Object(members) = &mut object
        && let Some((_, member)) = members.iter_mut().find(|(found, _)| found == name)
    {
        *member = value;
    }
    object
}

/// JSON as YAML that has the same values, each number among them.
struct Yaml<'a>(&'a Json);

impl Serialize for Yaml<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(number) => serialize_number(number, serializer),
            Json::String(text) => serializer.serialize_str(text),
            Json::Array(items) => serializer.collect_seq(items.iter().map(Yaml)),
            Json::Object(members) => {
                serializer.collect_map(members.iter().map(|(name, value)| (name, Yaml(value))))
            }
        }
    }
}

/// serde-saphyr writes no number by its digits: one that is neither an integer of 128 bits nor the shortest form of a
/// double is written as a text with the tag of a number.
fn serialize_number<S: Serializer>(number: &Number, serializer: S) -> Result<S::Ok, S::Error> {
    let written = number.as_str();
    if let Ok(integer) = written.parse::<i128>() {
        return serializer.serialize_i128(integer);
    }
    match written.parse::<f64>() {
        Ok(double) if double.is_finite() && number.is_value_of(&format!("{double:e}")) => {
            serializer.serialize_f64(double)
        }
        _ => Tagged(written, Some("!!float".to_owned())).serialize(serializer),
    }
}

fn key_store_value(KeyStore { path, read_only }: &KeyStore) -> Value {
    if *read_only { json!({"path": path, "read_only": true}) } else { json!(path) }
}

fn revocation_value(settings: &RevocationSettings) -> Value {
    let RevocationSettings { file, events, max_token_lifetime, max_entries, stale_after, when_stale } =
        settings;
    let then = match when_stale {
        WhenStale::Serve => "serve",
        WhenStale::Deny => "deny",
    };
    let mut value = Map::new();
    value.extend(file.iter().map(|file| ("file".to_owned(), json!(file))));
    if let Some(EventSettings { listen, audiences, subject_claims, peers, redis }) = events {
        let SubjectClaims { email, account } = subject_claims;
        let claims = [("email", email), ("account", account)];
        let claims = claims
            .iter()
            .filter_map(|(key, claim)| Some(((*key).to_owned(), claim.as_ref()?.as_str().into())));
        let audiences = audiences.iter().map(|audiences| {
            let texts: Vec<_> = audiences.iter().map(|Audience(audience)| audience).collect();
            ("audiences".to_owned(), json!(texts))
        });
        value.extend(listen.iter().map(|listen| ("listen".to_owned(), json!(listen))));
        value.extend(audiences);
        value.insert("subject_claims".to_owned(), Value::Object(claims.collect()));
        // Without `listen` a list, even an empty one, is a fault.
        value.extend(listen.iter().map(|_| ("peers".to_owned(), json!(peers))));
        value.extend(redis.iter().map(|RedisSettings { url, password_file }| {
            let value = match password_file {
                Some(file) => json!({"url": url, "password_file": file}),
                None => json!(url),
            };
            ("redis".to_owned(), value)
        }));
    }
    value.insert("max_token_lifetime".to_owned(), duration_value(*max_token_lifetime));
    value.insert("max_entries".to_owned(), json!(max_entries));
    value.insert("when_stale".to_owned(), json!({"after": duration_value(*stale_after), "then": then}));
    value.into()
}

fn server_value(server: &Server) -> Value {
    let Server { listen, unix_mode, tls, max_connection_age, max_connections, max_message, drain_timeout } =
        server;
    json!({
        "listen": listen.to_string(),
        "unix_mode": format!("{unix_mode:04o}"),
        "tls": tls.as_ref().map(tls_value),
        "max_connection_age": duration_value(max_connection_age.unwrap_or_default()),
        "max_connections": max_connections,
        "max_message": format_size(*max_message),
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
    let TokenSource { place, skips_opaque } = source;
    let mut members = Map::new();
    let mut add = |name: &str, value: &str| members.insert(name.to_owned(), value.into());
    match place {
        TokenPlace::Credentials { header, scheme } => {
            add("header", header);
            if header != "authorization" || scheme != "Bearer" {
                add("scheme", scheme);
            }
        }
        TokenPlace::Header(name) => {
            add("header", name);
            if name == "authorization" {
                add("scheme", "none");
            }
        }
        TokenPlace::Cookie(name) | TokenPlace::Chunks(name) => drop(add("cookie", name)),
        TokenPlace::Query(name) => drop(add("query", name)),
    }
    if matches!(place, TokenPlace::Chunks(_)) {
        members.insert("chunked".to_owned(), true.into());
    }
    if *skips_opaque {
        members.insert("opaque".to_owned(), "skip".into());
    }
    members.into()
}

fn identity_value(identity: &Identity) -> Value {
    json!({
        "headers": headers_value(identity.headers()),
        "issuer_header": identity.issuer_header(),
        "shared_subjects": identity.subjects_are_shared,
        "metadata": metadata_value(identity.metadata()),
    })
}

/// What an issuer has of its own.
fn own_identity_value(identity: &Identity, issuer: &IssuerName) -> Value {
    let mut own = Map::new();
    if identity.headers_of_issuer(issuer).next().is_some() {
        own.insert("headers".to_owned(), headers_value(identity.headers_of_issuer(issuer)));
    }
    if identity.metadata_of_issuer(issuer).next().is_some() {
        own.insert("metadata".to_owned(), metadata_value(identity.metadata_of_issuer(issuer)));
    }
    own.into()
}

/// A list where each claim is as it is in the token, under its own name.
fn metadata_value<'i>(metadata: impl Iterator<Item = (&'i str, &'i MappedClaim)>) -> Value {
    let as_it_is = |mapped: &'i MappedClaim| match mapped {
        MappedClaim::Json(PayloadPart::Claim(claim), JsonForm::Plain) => Some(claim.as_str()),
        MappedClaim::Json(..) | MappedClaim::Text { .. } => None,
    };
    let metadata: Vec<_> = metadata.collect();
    if metadata.iter().all(|(key, mapped)| as_it_is(mapped) == Some(key)) {
        return metadata.into_iter().map(|(key, _)| key).collect();
    }
    let value = |mapped| match (as_it_is(mapped), mapped_claim_value(mapped)) {
        (Some(claim), _) => claim.into(),
        // In a header a bare name is the claim's text.
        (None, Value::String(claim)) => json!({"claim": claim, "as": "text"}),
        (None, value) => value,
    };
    metadata.into_iter().map(|(key, mapped)| (key.to_owned(), value(mapped))).collect::<Map<_, _>>().into()
}

fn headers_value<'i>(headers: impl Iterator<Item = (&'i str, &'i MappedClaim)>) -> Value {
    headers.map(|(name, mapped)| (name.to_owned(), mapped_claim_value(mapped))).collect::<Map<_, _>>().into()
}

fn mapped_claim_value(mapped: &MappedClaim) -> Value {
    let (part, form) = match mapped {
        MappedClaim::Text { from: TextClaim::One(claim), cut_prefix: None, map: None } => {
            return claim.as_str().into();
        }
        MappedClaim::Text { from, cut_prefix, map } => {
            let mut members = Map::new();
            match from {
                TextClaim::One(claim) => members.insert("claim".to_owned(), claim.as_str().into()),
                TextClaim::FirstOf(claims) => {
                    let names: Vec<_> = claims.iter().map(Claim::as_str).collect();
                    members.insert("first".to_owned(), names.into())
                }
            };
            if let Some(prefix) = cut_prefix {
                members.insert("cut_prefix".to_owned(), prefix.as_str().into());
            }
            if let Some(map) = map {
                members.insert("map".to_owned(), json!(map.file()));
            }
            return members.into();
        }
        MappedClaim::Json(part, form) => (part, form),
    };
    let claim = match part {
        PayloadPart::Claim(claim) => claim.as_str(),
        PayloadPart::Whole => "",
    };
    let form = match form {
        JsonForm::Plain => "json",
        JsonForm::Base64 => "base64",
    };
    json!({"claim": claim, "as": form})
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

fn issuer_json(config: &IssuerConfig, identity: &Identity) -> Json {
    let IssuerConfig { issuer, keys, refresh } = config;
    let Issuer {
        name,
        ids,
        tenants,
        audiences,
        audience_claims,
        subject,
        algorithms,
        require_kid,
        types,
        leeway,
        bound_tokens,
        max_lifetime,
    } = issuer;
    let names = |claims: &[Claim]| claims.iter().map(|claim| claim.as_str().to_owned()).collect::<Vec<_>>();
    let (keys, access) = keys_json(keys);
    let own_identity = own_identity_value(identity, name);
    let (allow_http, ca) = access.map_or((false, None), |access| (access.allow_http, access.ca.as_ref()));
    let written = json!({
        "name": name.as_str(),
        "issuer": ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>(),
        "tenants": tenants.as_ref().map(|tenants| match tenants {
            Tenants::Any => Value::from("any"),
            Tenants::OneOf(listed) => listed.as_slice().into(),
        }),
        "audiences": audience_texts(audiences),
        "audience_claims": names(audience_claims),
        "subject": names(subject),
        "keys": null,
        "algorithms": algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>(),
        "require_kid": require_kid,
        "types": types,
        "leeway": duration_value(*leeway),
        "bound_tokens": match bound_tokens {
            BoundTokens::Verify => "verify",
            BoundTokens::Ignore => "ignore",
        },
        "identity": own_identity,
        "max_lifetime": max_lifetime.map(duration_value),
        "allow_http": allow_http,
        "ca": ca.map(|Certificates { file, pem: _ }| file),
        "refresh": refresh_value(refresh),
    });
    let has_own_identity = written.get("identity").is_some_and(|own| *own != json!({}));
    let mut written = with(written.into(), "keys", keys);
    if let Json::Object(members) = &mut written {
        // Beside an empty list of audiences the claims are a fault, and so are tenants of an issuer without any.
        members.retain(|(member, _)| match member.as_str() {
            "audience_claims" => *audiences != Audiences::NotChecked,
            "tenants" => tenants.is_some(),
            "identity" => has_own_identity,
            _ => true,
        });
    }
    written
}

fn audience_texts(audiences: &Audiences) -> Vec<&str> {
    match audiences {
        Audiences::NotChecked => Vec::new(),
        Audiences::OneOf(list) => list.iter().map(|audience| audience.0.as_str()).collect(),
    }
}

/// The source, with the credentials of its fetches, and what else the fetches may do.
fn keys_json(keys: &KeySource) -> (Json, Option<&WebAccess>) {
    let fetched = |key: &str, address: Value, access: &WebAccess| {
        let WebAccess { allow_http: _, ca: _, bearer_file, client_cert } = access;
        let mut written = Map::from_iter([(key.to_owned(), address)]);
        if let Some(file) = bearer_file {
            written.insert("bearer_file".to_owned(), json!(file));
        }
        if let Some(ClientCertificate { cert, key, pem: _ }) = client_cert {
            written.insert("client_cert".to_owned(), json!({"cert": cert, "key": key}));
        }
        Value::Object(written).into()
    };
    match keys {
        KeySource::Url { url, access } => (fetched("url", url.as_str().into(), access), Some(access)),
        KeySource::Discovery { issuers, document, access } => {
            let is_usual =
                matches!(&issuers[..], [issuer] if discovery_url(issuer).as_ref() == Some(document));
            let address = if is_usual { Value::Bool(true) } else { document.as_str().into() };
            (fetched("discovery", address, access), Some(access))
        }
        KeySource::File(path) => (json!({"file": path}).into(), None),
        KeySource::Inline(text) => {
            let set = Json::parse(text.as_bytes(), MAX_DEPTH).unwrap_or(Json::Null);
            (Json::Object(vec![("inline".to_owned(), set)]), None)
        }
    }
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

fn rule_json(rule: &Rule) -> Json {
    let Rule { name, hosts, paths, methods, access, audiences, require, shadow } = rule;
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
        Access::Lenient => "lenient",
        Access::Optional => "optional",
        Access::Required => "required",
        Access::Deny => "deny",
    };
    let mut rule = Map::new();
    rule.insert("name".to_owned(), name.as_str().into());
    rule.insert("match".to_owned(), condition.into());
    rule.insert("access".to_owned(), access.into());
    // An empty list of audiences is a fault, and an empty `require` reads like a demand: reading one is a warning.
    if let Some(audiences) = audiences {
        rule.insert("audiences".to_owned(), audience_texts(audiences).into());
    }
    if !require.is_empty() {
        rule.insert("require".to_owned(), Value::Null);
    }
    rule.insert("shadow".to_owned(), (*shadow).into());
    with(Value::from(rule).into(), "require", requirement_json(require))
}

/// A list, which means any of it, or a map that says what is wanted.
fn demand_json(demand: &ClaimDemand) -> Json {
    let ClaimDemand { claim, wanted, split } = demand;
    let is_usual = *split == ClaimDemand::is_split_by_name(claim);
    let (key, value) = match wanted {
        Wanted::Any(values) if is_usual => return Json::Array(values.clone()),
        Wanted::Any(values) => ("any", Json::Array(values.clone())),
        Wanted::All(values) => ("all", Json::Array(values.clone())),
        Wanted::Prefix(prefix) => ("prefix", prefix.as_str().into()),
        Wanted::Present => ("present", Json::Bool(true)),
    };
    let split = (!is_usual).then(|| ("split".to_owned(), Json::Bool(*split)));
    Json::Object([(key.to_owned(), value)].into_iter().chain(split).collect())
}

fn requirement_json(requirement: &Requirement) -> Json {
    let Requirement { issuers, claims } = requirement;
    let mut written = Vec::new();
    if let Some(issuers) = issuers {
        let names = issuers.iter().map(|name| name.as_str().into());
        written.push(("issuers".to_owned(), Json::Array(names.collect())));
    }
    if !claims.is_empty() {
        let claims = claims.iter().map(|demand| (demand.claim.as_str().to_owned(), demand_json(demand)));
        written.push(("claims".to_owned(), Json::Object(claims.collect())));
    }
    Json::Object(written)
}
