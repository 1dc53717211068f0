//! The configuration as validated values. Parsing reports every fault at once, and code that uses a [`Config`]
//! checks nothing again.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::domain::denial;
use crate::domain::identity::Identity;
use crate::domain::issuer::{Audience, Issuer, PassageApp, is_loopback};
use crate::domain::policy::{Ignored, Rule};
use crate::domain::revoked::SubjectClaims;
use crate::domain::token::TokenSource;
use crate::watched_file::FileRead;

mod document;
mod duration;
mod effective;
mod environment;
mod fault;
mod load;
mod place;
mod proxy_secret;
mod schema;
mod size;
pub(crate) mod summary;
mod syntax;
mod warnings;

pub(crate) use duration::parse_duration;
pub use environment::Environment;
pub(crate) use fault::Warning;
pub use fault::{ConfigError, Fault};
pub(crate) use proxy_secret::ProxySecret;
pub use proxy_secret::ProxySecretError;

/// One field per top-level key, or per key that is a section.
#[derive(Debug)]
pub struct Config {
    /// The gRPC port.
    pub server: Server,
    /// The port that answers over plain HTTP, if there is one.
    pub http: Option<Http>,
    /// `host:port` of the port that serves `/livez`, `/readyz`, `/metrics` and `/keys`.
    pub admin_listen: String,
    /// Where a request's token is looked for, and how tokens are handled.
    pub tokens: TokenSettings,
    /// Never empty; no two share a name or an `iss`.
    pub issuers: Vec<IssuerConfig>,
    /// The folder that keeps the last good key sets across restarts.
    pub key_store: Option<KeyStore>,
    /// Where revocations come from; `None`: no token is revoked.
    pub(crate) revocation: Option<RevocationSettings>,
    /// Which claims the upstream and the proxy's metadata receive.
    pub identity: Identity,
    /// What an upstream may ignore in a path.
    pub(crate) paths: Ignored,
    /// For each reading of a request, the first rule that matches it holds.
    pub(crate) rules: Vec<Rule>,
    /// `mode` and `cors_preflight`.
    pub check_flags: CheckFlags,
    /// How a denial is worded.
    pub wording: denial::Wording,
    /// Which decisions are written to the log.
    pub decision_log: DecisionLogSettings,
    /// What is accepted and deserves a look, in the order of the file's lines.
    pub(crate) warnings: Vec<Warning>,
    /// Of the configuration file, in hex; `None` without one.
    pub(crate) sha256: Option<String>,
    /// The files that were read for values in it, beside its own: a change of one is a change of the configuration.
    pub(crate) files: Vec<FileRead>,
}

/// Where the last good key sets are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStore {
    /// The folder.
    pub path: PathBuf,
    /// Whether sets are read from there and never written.
    pub read_only: bool,
}

/// `revocation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevocationSettings {
    /// Entries, one a line. `None` only beside [`Self::events`].
    pub file: Option<PathBuf>,
    pub events: Option<EventSettings>,
    /// No token is good for longer: how long an entry lasts that does not say so itself.
    pub max_token_lifetime: Duration,
    pub max_entries: usize,
    /// The age at which the state is stale.
    pub stale_after: Duration,
    pub when_stale: WhenStale,
}

/// Signed events that are received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventSettings {
    /// A TCP address. `None` only beside [`Self::redis`].
    pub listen: Option<String>,
    /// The `aud` of events; `None`: the audiences of the issuer.
    pub audiences: Option<Vec<Audience>>,
    pub subject_claims: SubjectClaims,
    /// Where the other replicas listen: `HOST:PORT`, of which each address is one replica.
    pub peers: Vec<String>,
    pub redis: Option<RedisSettings>,
}

impl EventSettings {
    /// Whether other replicas get events, too.
    pub(crate) const fn has_others(&self) -> bool {
        !self.peers.is_empty() || self.redis.is_some()
    }
}

/// A stream of signed events in Redis or Valkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RedisSettings {
    /// Without a password.
    pub url: String,
    pub password_file: Option<PathBuf>,
}

impl RedisSettings {
    /// Host and port, for the log. Not the user: what stands in its place may be a password by mistake.
    pub(crate) fn server(&self) -> String {
        let url = Url::parse(&self.url).ok();
        let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
        format!("{host}:{}", url.as_ref().and_then(Url::port).unwrap_or(6379))
    }
}

/// What is done with tokens while it is not known which are revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenStale {
    /// They are judged by what was known last.
    Serve,
    /// They are denied.
    Deny,
}

/// The gRPC port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// A TCP address or a Unix socket.
    pub listen: Listen,
    /// The file mode of a Unix socket.
    pub unix_mode: u32,
    /// Without certificates the port speaks plaintext.
    pub tls: Option<TlsFiles>,
    /// The age at which a connection gets GOAWAY, a tenth more or less; `None` is never.
    pub max_connection_age: Option<Duration>,
    /// How many connections may be open; further ones are refused.
    pub max_connections: usize,
    /// The most bytes of a check, its headers not counted.
    pub max_message: usize,
    /// A drain that takes longer is cut short.
    pub drain_timeout: Duration,
}

/// Where a port listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`.
    Tcp(String),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Paths of PEM files. The files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The roots of client certificates; if set, a client without a certificate is refused.
    pub client_ca: Option<PathBuf>,
}

/// The port that answers over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// `host:port`.
    pub listen: String,
    /// Where the request to authorize is described.
    pub style: Style,
    /// Cut off from the front of each path; begins with a slash or is empty.
    pub path_prefix: String,
    /// What a client's own identity headers mean in the style `forward_auth`.
    pub client_identity: ClientIdentity,
    /// Holds the secret that the proxy sends; read again when it changes.
    pub proxy_secret_file: Option<PathBuf>,
}

/// What becomes of a request that carries an identity header, where the answer cannot remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIdentity {
    /// The request is malformed: the proxy may forward the header.
    Refuse,
    /// The request is decided as if it had none: the proxy is known to remove the header.
    Overwritten,
}

/// Where an HTTP request describes the request to authorize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// The request itself is the one to authorize (Envoy's `http_service`).
    Envoy,
    /// Headers describe it (nginx, Traefik, Caddy).
    ForwardAuth,
}

/// Which decisions are written to the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecisionLogSettings {
    /// The share of denials, 0 to 1.
    pub denied: f64,
    /// The share of allowed requests, 0 to 1.
    pub allowed: f64,
    /// At most this many lines a second.
    pub max_per_second: u32,
    /// Whether the log holds the subject itself; if not, it holds the subject's SHA-256.
    pub subject_in_clear: bool,
}

/// Where tokens are looked for, and how they are handled.
#[derive(Debug)]
pub struct TokenSettings {
    /// Tried in this order; never empty.
    pub from: Vec<TokenSource>,
    /// Longest token in bytes.
    pub max_length: usize,
    /// Whether the upstream receives the token.
    pub forward: bool,
    /// How many verified tokens the cache holds; 0 turns it off.
    pub max_cached: u64,
}

/// Top-level switches that hold for the checks of every rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckFlags {
    /// `mode: shadow`: denials are counted and logged, but the requests are allowed.
    pub shadow: bool,
    /// `cors_preflight: allow`: a CORS preflight is allowed without a token, unless its rule's access is `deny`.
    pub allow_preflight: bool,
}

/// One issuer and where its keys come from.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// What a token of this issuer must fulfil.
    pub issuer: Issuer,
    /// Where the issuer's keys come from.
    pub keys: KeySource,
    /// When keys are fetched and how long they are good.
    pub refresh: Refresh,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Fetched over HTTP.
    Url {
        /// The JWK Set's address.
        url: Url,
        /// What the fetches may do.
        access: WebAccess,
    },
    /// Fetched from the `jwks_uri` of the issuer's OpenID Connect discovery document.
    Discovery {
        /// The issuers of which the document must name one.
        issuers: Vec<String>,
        /// The document's address.
        document: Url,
        /// What the fetches of the document and of the key set may do.
        access: WebAccess,
    },
    /// Read from a file.
    File(PathBuf),
    /// Written in the configuration, as JSON.
    Inline(String),
}

/// Where an issuer's discovery document is (OpenID Connect Discovery 1.0 section 4.1): at the issuer, a slash at its end dropped, and
/// a fixed path. `None` for what is no URL, or has a query or a fragment, which the section allows in no issuer: the path would
/// become a part of it.
fn discovery_url(issuer: &str) -> Option<Url> {
    let address = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    Url::parse(&address).ok().filter(|_| !issuer.contains(['?', '#']))
}

impl KeySource {
    /// Whether keys are fetched from hosted Passage, which is switched off.
    fn is_at_hosted_passage(&self) -> bool {
        match self {
            Self::Url { url, .. } | Self::Discovery { document: url, .. } => {
                Url::parse(PassageApp::BASE_URL).is_ok_and(|hosted| hosted.host() == url.host())
            }
            Self::File(_) | Self::Inline(_) => false,
        }
    }

    /// The source's identity that a key set on disk is stored under: for a URL the whole of it, query included.
    #[must_use]
    pub fn binding(&self) -> String {
        match self {
            Self::Url { url: address, access: _ }
            | Self::Discovery { document: address, issuers: _, access: _ } => address.to_string(),
            Self::File(_) | Self::Inline(_) => self.to_string(),
        }
    }
}

impl fmt::Display for KeySource {
    /// For logs and the admin port: without the URL's query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let without_query = |url: &Url| {
            let mut url = url.clone();
            url.set_query(None);
            url
        };
        match self {
            Self::Url { url, .. } => write!(f, "{}", without_query(url)),
            Self::Discovery { document, .. } => write!(f, "{}", without_query(document)),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Inline(_) => f.write_str("inline"),
        }
    }
}

/// What an issuer's fetches may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebAccess {
    /// Whether plain http is allowed for any host; for loopback hosts it always is.
    pub allow_http: bool,
    /// Root certificates besides the built-in ones.
    pub ca: Option<Certificates>,
    /// A file with a bearer token for the configured URL's own server.
    pub bearer_file: Option<PathBuf>,
    /// The certificate that the fetches show.
    pub client_cert: Option<ClientCertificate>,
}

/// A file of root certificates and its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The path, for writing the configuration back.
    pub file: PathBuf,
    /// The content, as read when the configuration was parsed.
    pub pem: Vec<u8>,
}

/// The files of a client certificate and of its private key, and their content.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The path of the certificate and those that lead to its root.
    pub cert: PathBuf,
    /// The path of the private key.
    pub key: PathBuf,
    /// The content of both, as read when the configuration was parsed.
    pub pem: Vec<u8>,
}

/// Without the content: it holds a private key.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cert, key, pem: _ } = self;
        f.debug_struct("ClientCertificate").field("cert", cert).field("key", key).finish_non_exhaustive()
    }
}

impl ClientCertificate {
    /// Reads both files. Blocks.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn read(cert: PathBuf, key: PathBuf) -> std::io::Result<Self> {
        let pem = [std::fs::read(&cert)?, b"\n".to_vec(), std::fs::read(&key)?].concat();
        Ok(Self { cert, key, pem })
    }
}

impl WebAccess {
    /// The same, with the files as they are now. Blocks.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn read_again(&self) -> std::io::Result<Self> {
        let ca = |ca: &Certificates| {
            Ok::<_, std::io::Error>(Certificates { file: ca.file.clone(), pem: std::fs::read(&ca.file)? })
        };
        let own = |own: &ClientCertificate| ClientCertificate::read(own.cert.clone(), own.key.clone());
        Ok(Self {
            ca: self.ca.as_ref().map(ca).transpose()?,
            client_cert: self.client_cert.as_ref().map(own).transpose()?,
            ..self.clone()
        })
    }

    /// Whether a URL may be fetched: https, or http to a loopback host or with `allow_http`. A URL with user or
    /// password is refused: both would be written to logs.
    #[must_use]
    pub fn allows(&self, url: &Url) -> bool {
        let secure = match url.scheme() {
            "https" => true,
            "http" => self.allow_http || is_loopback(url),
            _ => false,
        };
        secure && url.username().is_empty() && url.password().is_none()
    }
}

/// When keys are fetched and how long they are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// Time between fetches.
    pub interval: Duration,
    /// Limit for one whole exchange.
    pub timeout: Duration,
    /// How long keys stay good after the last fetch that succeeded.
    pub max_stale: Duration,
    /// Least time between two fetches for unknown key IDs.
    pub unknown_kid_cooldown: Duration,
    /// How long a check waits for such a fetch.
    pub wait: Duration,
}

#[cfg(test)]
mod tests;
