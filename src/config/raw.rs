//! The configuration as written: which keys there are, what each accepts, what it is when left out.
//!
//! The whole schema is read from the start, so that a typo is found wherever it stands. A key whose
//! feature is not built yet is refused as such: nothing is silently accepted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::node::{Node, Place, Report, Table};
use super::{Config, ConfigError, Environment, Server, Tokens};
use crate::denial::Wording;
use crate::identity::Identity;
use crate::issuer::PassageApp;
use crate::token::Source;

mod issuers;
mod rules;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Reads a YAML file's text.
pub(super) fn from_yaml(text: &str, name: &str) -> Result<Config, ConfigError> {
    let report = Report { file: Some(name.to_owned()), ..Report::default() };
    match Node::parse(text) {
        Ok(root) => read(&root, report),
        Err((line, message)) => {
            report.add(line, "", message, "one YAML document with a map at its top");
            Err(ConfigError(report.faults.into_inner()))
        }
    }
}

/// Builds the tree that the variables stand for, and reads it like a file.
pub(super) fn from_environment(environment: &Environment) -> Result<Config, ConfigError> {
    let Environment { app_id, base_url, issuer, audience } = environment.clone();
    let report = Report::default();
    let mut entries = Vec::new();
    if app_id.is_none() && issuer.is_none() {
        let accepted = "--config FILE, PASSAGE_APP_ID, or PASSAGE_AUTHZ_ISSUER with PASSAGE_AUTHZ_AUDIENCE";
        report.add(None, "", "there is no configuration".to_owned(), accepted);
    }
    match (app_id, base_url) {
        (Some(app_id), base_url) => {
            let mut app = vec![("app_id", Node::variable("PASSAGE_APP_ID", app_id))];
            app.extend(base_url.map(|url| ("base_url", Node::variable("PASSAGE_BASE_URL", url))));
            let name = Node::variable("PASSAGE_APP_ID", "passage".to_owned());
            entries.push(Node::map(vec![("name", name), ("passage", Node::map(app))]));
        }
        (None, Some(_)) => {
            report.add(
                None,
                "PASSAGE_BASE_URL",
                "is set without an app".to_owned(),
                "PASSAGE_APP_ID beside it",
            );
        }
        (None, None) => {}
    }
    match (issuer, audience) {
        (Some(issuer), Some(audience)) => {
            const VARIABLE: &str = "PASSAGE_AUTHZ_ISSUER";
            entries.push(Node::map(vec![
                ("name", Node::variable(VARIABLE, "oidc".to_owned())),
                ("issuer", Node::variable(VARIABLE, issuer)),
                ("audiences", Node::list(vec![Node::variable("PASSAGE_AUTHZ_AUDIENCE", audience)])),
                ("keys", Node::map(vec![("discovery", Node::switch(VARIABLE))])),
            ]));
        }
        (Some(_), None) => {
            let accepted = "PASSAGE_AUTHZ_AUDIENCE beside it";
            report.add(None, "PASSAGE_AUTHZ_ISSUER", "is set without an audience".to_owned(), accepted);
        }
        (None, Some(_)) => {
            let accepted = "PASSAGE_AUTHZ_ISSUER beside it";
            report.add(None, "PASSAGE_AUTHZ_AUDIENCE", "is set without an issuer".to_owned(), accepted);
        }
        (None, None) => {}
    }
    if !report.faults.borrow().is_empty() {
        return Err(ConfigError(report.faults.into_inner()));
    }
    read(&Node::map(vec![("issuers", Node::list(entries))]), report)
}

fn read(root: &Node, report: Report) -> Result<Config, ConfigError> {
    let config = Place::root(&report, root).table(|root| {
        let mode = root.at("mode");
        mode.not_available_yet_if(choice(&mode, &["enforce", "shadow"]) == Some("shadow"), "enforce");
        let preflight = root.at("cors_preflight");
        preflight.not_available_yet_if(choice(&preflight, &["deny", "allow"]) == Some("allow"), "deny");
        http(&root.at("http"));
        rules::read(&root.at("rules"));
        Config {
            server: root.at("server").table(server),
            admin_listen: root.at("admin").table(|admin| address(&admin.at("listen"), "0.0.0.0:9090")),
            tokens: root.at("tokens").table(tokens),
            issuers: issuers::read(&root.at("issuers")),
            key_store: key_store(&root.at("key_store")),
            identity: root.at("identity").table(identity),
            wording: root.at("deny").table(wording),
        }
    });
    let faults = report.faults.into_inner();
    if faults.is_empty() { Ok(config) } else { Err(ConfigError(faults)) }
}

fn key_store(place: &Place<'_>) -> Option<PathBuf> {
    if !place.is_set() {
        return None;
    }
    let accepted = "a folder that exists";
    place.parsed(accepted, |text| Path::new(text).is_dir().then(|| text.into()))
}

fn server(server: &mut Table<'_>) -> Server {
    let listen = server.at("listen");
    if listen.parsed_quietly(|text| text.starts_with("unix:")) {
        listen.fault("a Unix socket is not available yet in this version", "host:port");
    }
    let mode = server.at("unix_mode");
    mode.parsed("an octal file mode in quotes, such as \"0660\"", octal);
    mode.not_available_yet();
    let tls = server.at("tls");
    if tls.is_set() {
        tls.table(|tls| {
            for key in ["cert", "key"] {
                let file = tls.at(key);
                file.required("a PEM file");
                file.text("a PEM file");
            }
            tls.at("client_ca").text("a PEM file");
        });
    }
    tls.not_available_yet();
    let age = server.at("max_connection_age");
    let lasts = age.duration(Duration::ZERO..=HOUR * 24, Duration::ZERO);
    age.not_available_yet_if(!lasts.is_zero(), "0s");
    let most = server.at("max_connections");
    most.integer(1..=1_000_000, " connections", 20_000);
    most.not_available_yet();
    Server {
        listen: address(&listen, "0.0.0.0:50051"),
        drain_timeout: server.at("drain_timeout").duration(Duration::ZERO..=HOUR, SECOND * 20),
    }
}

fn http(http: &Place<'_>) {
    if !http.is_set() {
        return;
    }
    http.table(|http| {
        let listen = http.at("listen");
        listen.required("host:port");
        address(&listen, "");
        let style = http.at("style");
        style.required("envoy or forward_auth");
        choice(&style, &["envoy", "forward_auth"]);
        http.at("path_prefix").parsed("a path that begins with /", |path| path.strip_prefix('/').map(drop));
    });
    http.not_available_yet();
}

fn tokens(tokens: &mut Table<'_>) -> Tokens {
    let accepted = "a list of sources, each one of header: NAME, cookie: NAME, query: NAME";
    let from = tokens.at("from");
    let sources = match from.list(accepted) {
        None => vec![Source::Bearer, Source::Cookie(PassageApp::COOKIE.to_owned())],
        Some(items) => {
            if items.is_empty() {
                from.fault("is empty, so no request could carry a token", accepted);
            }
            items.iter().filter_map(source).collect()
        }
    };
    let forward = tokens.at("forward");
    forward.not_available_yet_if(!forward.bool(true), "true");
    tokens.at("cache").table(|cache| {
        let most = cache.at("max_entries");
        most.not_available_yet_if(most.integer(0..=10_000_000, " tokens", 0) != 0, "0");
    });
    let max_length = tokens.at("max_length").integer(64..=65_536, " bytes", 8192);
    Tokens { from: sources, max_length: usize::try_from(max_length).unwrap_or_default() }
}

fn source(item: &Place<'_>) -> Option<Source> {
    item.table(|table| {
        let (header, cookie, query) = (table.at("header"), table.at("cookie"), table.at("query"));
        if [&header, &cookie, &query].iter().filter(|place| place.is_written()).count() != 1 {
            item.fault("does not name one source", "exactly one of header: NAME, cookie: NAME, query: NAME");
        }
        let name = "a name of letters, digits and the marks of RFC 9110 section 5.6.2";
        let header_name = header.parsed(name, token);
        if header_name.as_ref().is_some_and(|name| !name.eq_ignore_ascii_case("authorization")) {
            header.fault("another header is not available yet in this version", "header: authorization");
        }
        query.parsed(name, token);
        query.not_available_yet();
        let cookie = cookie.parsed(name, token).map(Source::Cookie);
        header_name.map(|_| Source::Bearer).or(cookie)
    })
}

fn identity(identity: &mut Table<'_>) -> Identity {
    let headers = identity.at("headers");
    let entries: Vec<_> =
        headers.entries().iter().map(|(name, claim)| (*name, claim.text("the name of a claim"))).collect();
    let other = entries != [(Identity::DEFAULT_HEADER, Some("sub"))];
    headers.not_available_yet_if(other, "{x-passage-user-id: sub}");
    let metadata = identity.at("metadata");
    let claims: Vec<_> = metadata.list("a list of claims").unwrap_or_default();
    let claims: Vec<_> = claims.iter().map(|claim| claim.text("the name of a claim")).collect();
    metadata.not_available_yet_if(claims != [Some("iss"), Some("sub")], "[iss, sub]");
    Identity::new(Identity::DEFAULT_HEADER)
}

fn wording(deny: &mut Table<'_>) -> Wording {
    // The realm stands in a quoted-string of the challenge (RFC 9110 section 5.6.4).
    let quotable = |text: &str| {
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
        text.bytes().all(plain).then(|| text.to_owned())
    };
    let realm = deny.at("realm").parsed("printable ASCII without quotes and backslashes", quotable);
    Wording {
        realm: realm.unwrap_or_else(|| "passage-authz".to_owned()),
        reasons: deny.at("reasons").bool(true),
    }
}

/// One of a few words; the first is the default.
fn choice(place: &Place<'_>, words: &'static [&'static str]) -> Option<&'static str> {
    place.parsed(&words.join(" or "), |text| words.iter().copied().find(|word| *word == text))
}

fn address(place: &Place<'_>, default: &str) -> String {
    let accepted = "host:port, such as 0.0.0.0:50051 or [::1]:50051";
    let read = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        (bare && !host.is_empty() && port.parse::<u16>().is_ok()).then(|| text.to_owned())
    };
    if place.parsed_quietly(|text| text.starts_with("unix:")) {
        return default.to_owned();
    }
    place.parsed(accepted, read).unwrap_or_else(|| default.to_owned())
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
}

/// A `token` of RFC 9110 section 5.6.2, which header and cookie names are.
fn token(text: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    text.bytes().all(legal).then(|| text.to_owned())
}
