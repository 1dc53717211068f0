//! The configuration as written: which keys there are, what each accepts, what it is when left out.
//!
//! The whole schema is read from the start, so that a typo is found wherever it stands. A key whose
//! feature is not built yet is refused as such: nothing is silently accepted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{Node, Place, Report, Table};
use super::{
    Checking, Config, ConfigError, DecisionLogSettings, Environment, Http, Listen, Server, Style, TlsFiles,
    TokenSettings,
};
use crate::domain::claims::Claim;
use crate::domain::denial::Wording;
use crate::domain::identity::{Identity, folded};
use crate::domain::issuer::PassageApp;
use crate::domain::policy::Ignored;
use crate::domain::token::TokenSource;

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
    let Environment { app_id, base_url, issuer, audience, .. } = environment.clone();
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
        let checking = Checking {
            shadow: choice(&root.at("mode"), &["enforce", "shadow"]) == Some("shadow"),
            preflight: choice(&root.at("cors_preflight"), &["deny", "allow"]) == Some("allow"),
        };
        let tokens = root.at("tokens").table(tokens);
        let http = http(&root.at("http"), &tokens);
        let issuers = issuers::read(&root.at("issuers"));
        let names: Vec<_> = issuers.iter().map(|config| config.issuer.name.clone()).collect();
        Config {
            server: root.at("server").table(server),
            http,
            admin_listen: root.at("admin").table(|admin| address(&admin.at("listen"), "0.0.0.0:9090", "")),
            key_store: key_store(&root.at("key_store")),
            identity: root.at("identity").table(|identity_table| identity(identity_table, &tokens.from)),
            paths: root.at("paths").table(|paths| Ignored {
                case: paths.at("ignore_case").bool(true),
                trailing_slash: paths.at("ignore_trailing_slash").bool(true),
            }),
            rules: rules::read(&root.at("rules"), &names),
            checking,
            tokens,
            issuers,
            wording: root.at("deny").table(wording),
            decision_log: root.at("decision_log").table(decision_log),
        }
    });
    let mut faults = report.faults.into_inner();
    // As they stand in the file, not as they were found.
    faults.sort_by_key(|fault| fault.line);
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
    let mode = server.at("unix_mode").parsed("an octal file mode in quotes, such as \"0660\"", octal);
    let age = server.at("max_connection_age").duration(Duration::ZERO..=HOUR * 24, SECOND * 600);
    let most = server.at("max_connections").integer(1..=1_000_000, " connections", 20_000);
    Server {
        listen: listen(&server.at("listen")),
        unix_mode: mode.unwrap_or(0o660),
        tls: tls(&server.at("tls")),
        max_connection_age: (!age.is_zero()).then_some(age),
        max_connections: usize::try_from(most).unwrap_or_default(),
        drain_timeout: server.at("drain_timeout").duration(Duration::ZERO..=HOUR, SECOND * 20),
    }
}

fn listen(place: &Place<'_>) -> Listen {
    if !place.parsed_quietly(|text| text.starts_with("unix:")) {
        return Listen::Tcp(address(place, "0.0.0.0:50051", ", or unix:/path/to.sock"));
    }
    let path = place.parsed("host:port, or unix:/path/to.sock", |text| {
        let path = text.strip_prefix("unix:")?;
        (path.starts_with('/') && !path.ends_with('/') && !path.contains('\0')).then(|| path.into())
    });
    Listen::Unix(path.unwrap_or_default())
}

fn tls(place: &Place<'_>) -> Option<TlsFiles> {
    if !place.is_set() {
        return None;
    }
    place.table(|tls| {
        let (cert, key, client_ca) = (tls.at("cert"), tls.at("key"), tls.at("client_ca"));
        cert.required("a PEM file with the certificate chain");
        key.required("a PEM file with the private key");
        let cert = readable(&cert, "a readable PEM file with the certificate chain");
        let key = readable(&key, "a readable PEM file with the private key");
        // Left out is no demand for client certificates; null or empty would read like one, and be none.
        let client_ca = readable(&client_ca, "a readable PEM file with the roots of client certificates");
        Some(TlsFiles { cert: cert?, key: key?, client_ca })
    })
}

fn readable(place: &Place<'_>, accepted: &str) -> Option<PathBuf> {
    let file = place.text(accepted)?;
    if let Err(error) = std::fs::File::open(file) {
        place.fault(format!("{file} cannot be read: {error}"), accepted);
    }
    Some(file.into())
}

fn http(place: &Place<'_>, tokens: &TokenSettings) -> Option<Http> {
    if !place.is_set() {
        return None;
    }
    if !tokens.forward && tokens.from.iter().any(|source| matches!(source, TokenSource::Query(_))) {
        let accepted = "tokens.forward: true, or no query among tokens.from";
        place.fault("cannot remove a query parameter: no HTTP answer can", accepted);
    }
    place.table(|http| {
        let (listen, style) = (http.at("listen"), http.at("style"));
        listen.required("host:port");
        style.required("envoy or forward_auth");
        let forward_auth = choice(&style, &["envoy", "forward_auth"]) == Some("forward_auth");
        let prefix = http.at("path_prefix");
        if forward_auth && prefix.is_written() {
            prefix.fault("has no meaning in the style forward_auth", "leaving it out");
        }
        let accepted = "a path that begins with / and does not end with one";
        let path_prefix = prefix.parsed(accepted, |path| {
            let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte));
            (plain && path.starts_with('/') && !path.ends_with('/')).then(|| path.to_owned())
        });
        Some(Http {
            listen: address(&listen, "", ""),
            style: if forward_auth { Style::ForwardAuth } else { Style::Envoy },
            path_prefix: path_prefix.unwrap_or_default(),
        })
    })
}

fn decision_log(log: &mut Table<'_>) -> DecisionLogSettings {
    let most = log.at("max_per_second").integer(1..=1_000_000, " lines", 100);
    DecisionLogSettings {
        denied: log.at("denied").share(1.0),
        allowed: log.at("allowed").share(0.0),
        max_per_second: u32::try_from(most).unwrap_or_default(),
        subject_in_clear: choice(&log.at("subject"), &["hashed", "clear"]) == Some("clear"),
    }
}

fn tokens(tokens: &mut Table<'_>) -> TokenSettings {
    let accepted = "a list of sources, each one of header: NAME, cookie: NAME, query: NAME";
    let from = tokens.at("from");
    let sources = match from.list(accepted) {
        None => vec![TokenSource::Bearer, TokenSource::Cookie(PassageApp::COOKIE.to_owned())],
        Some(items) => {
            if items.is_empty() {
                from.fault("is empty, so no request could carry a token", accepted);
            }
            items.iter().filter_map(source).collect()
        }
    };
    let forward = tokens.at("forward").bool(true);
    let cached =
        tokens.at("cache").table(|cache| cache.at("max_entries").integer(0..=10_000_000, " tokens", 100_000));
    let cached = u64::try_from(cached).unwrap_or_default();
    let max_length = tokens.at("max_length").integer(64..=65_536, " bytes", 8192);
    TokenSettings {
        from: sources,
        max_length: usize::try_from(max_length).unwrap_or_default(),
        forward,
        cached,
    }
}

fn source(item: &Place<'_>) -> Option<TokenSource> {
    item.table(|table| {
        let (header, cookie, query) = (table.at("header"), table.at("cookie"), table.at("query"));
        if [&header, &cookie, &query].iter().filter(|place| place.is_written()).count() != 1 {
            item.fault("does not name one source", "exactly one of header: NAME, cookie: NAME, query: NAME");
        }
        let name = "a name of letters, digits and the marks of RFC 9110 section 5.6.2";
        let header = header.parsed(name, token).map(|name| match name.to_ascii_lowercase() {
            name if name == "authorization" => TokenSource::Bearer,
            name => TokenSource::Header(name),
        });
        let cookie = cookie.parsed(name, token).map(TokenSource::Cookie);
        header.or(cookie).or(query.parsed(name, token).map(TokenSource::Query))
    })
}

fn identity(identity: &mut Table<'_>, sources: &[TokenSource]) -> Identity {
    let place = identity.at("headers");
    let mut headers: Vec<(String, Claim)> = Vec::new();
    for (name, claim) in place.entries() {
        let name = identity_header(&claim, name, sources);
        if let Some(name) = &name
            && let Some((other, _)) = headers.iter().find(|(other, _)| folded(other) == folded(name))
        {
            claim.fault(
                format!("folds into one spelling with {other}"),
                "names that differ in more than case, - and _",
            );
        }
        headers.extend(name.zip(claim.parsed(CLAIM, Claim::new)));
    }
    if !place.is_written() {
        headers.extend(Claim::new("sub").map(|sub| (Identity::DEFAULT_HEADER.to_owned(), sub)));
    }
    let metadata = match identity.at("metadata").list("a list of claims") {
        Some(items) => items.iter().filter_map(|item| item.parsed(CLAIM, Claim::new)).collect(),
        None => ["iss", "sub"].into_iter().filter_map(Claim::new).collect(),
    };
    Identity::new(headers, metadata)
}

const CLAIM: &str = "a claim's top-level name, or a JSON Pointer (RFC 6901)";

/// Headers that frame a message or belong to somebody else, so that no identity may stand in them.
const NOT_OURS: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn identity_header(place: &Place<'_>, name: &str, sources: &[TokenSource]) -> Option<String> {
    let accepted = "a header name with at most 5 dashes or underscores that has no other use";
    let is_name = !name.is_empty() && token(name).is_some();
    let lower = name.to_ascii_lowercase();
    let dashes = lower.matches(['-', '_']).count();
    let is_source = sources
        .iter()
        .any(|source| matches!(source, TokenSource::Header(header) if folded(header) == folded(&lower)));
    if !is_name || dashes > Identity::MAX_DASHES || is_source || NOT_OURS.contains(&folded(&lower).as_str()) {
        place.fault("cannot be an identity header", accepted);
        return None;
    }
    Some(lower)
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

fn address(place: &Place<'_>, default: &str, or: &str) -> String {
    let accepted = format!("host:port, such as 0.0.0.0:50051 or [::1]:50051{or}");
    let read = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        (bare && !host.is_empty() && port.parse::<u16>().is_ok()).then(|| text.to_owned())
    };
    place.parsed(&accepted, read).unwrap_or_else(|| default.to_owned())
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
}

/// A `token` of RFC 9110 section 5.6.2, which header and cookie names are.
fn token(text: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    text.bytes().all(legal).then(|| text.to_owned())
}
