//! What the operator decided, as domain values: every fault found at once, nothing left to check later.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::domain::denial;
use crate::domain::identity::Identity;
use crate::domain::issuer::{Issuer, is_loopback};
use crate::domain::policy::{Ignored, Rule};
use crate::domain::token::TokenSource;

mod document;
mod effective;
mod environment;
mod fault;
mod load;
mod schema;

pub(crate) use document::duration;
pub use environment::Environment;
pub use fault::{ConfigError, Fault};

/// The whole configuration.
#[derive(Debug)]
pub struct Config {
    /// The gRPC port.
    pub server: Server,
    /// The port that answers over plain HTTP, if there is one.
    pub http: Option<Http>,
    /// Where `/livez`, `/readyz`, `/metrics` and `/keys` are served, as `host:port`.
    pub admin_listen: String,
    /// Where tokens are looked for.
    pub tokens: TokenSettings,
    /// Who may issue them. At least one.
    pub issuers: Vec<IssuerConfig>,
    /// Where the last good key sets are kept.
    pub key_store: Option<PathBuf>,
    /// What the service behind is told.
    pub identity: Identity,
    /// What upstreams may ignore in a path.
    pub paths: Ignored,
    /// Which rule a request falls under, in this order.
    pub rules: Vec<Rule>,
    /// What goes for all rules.
    pub checking: Checking,
    /// How a denial is worded.
    pub wording: denial::Wording,
    /// Which decisions are written to the log.
    pub decision_log: DecisionLogSettings,
}

/// The gRPC port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub listen: Listen,
    /// The file mode of a Unix socket.
    pub unix_mode: u32,
    /// Its certificates; without them it speaks plaintext.
    pub tls: Option<TlsFiles>,
    /// After about this time a connection is asked to go away; `None` is never.
    pub max_connection_age: Option<Duration>,
    /// How many connections may be open; further ones are refused.
    pub max_connections: usize,
    /// How long a drain may take.
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

/// Where the certificates are; read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The roots of client certificates, PEM; if set, a client without a certificate is turned away.
    pub client_ca: Option<PathBuf>,
}

/// The port that answers over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// `host:port`.
    pub listen: String,
    /// How a request says what it asks for.
    pub style: Style,
    /// What stands before each path and is cut off; begins with a slash or is empty.
    pub path_prefix: String,
}

/// How an HTTP request says what it asks for.
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
    /// The share of requests let through, 0 to 1.
    pub allowed: f64,
    /// At most this many lines a second.
    pub max_per_second: u32,
    /// Whether a subject is written as it is; if not, its SHA-256 is.
    pub subject_in_clear: bool,
}

/// Where tokens are looked for.
#[derive(Debug)]
pub struct TokenSettings {
    /// Tried in this order; never empty.
    pub from: Vec<TokenSource>,
    /// Longest token in bytes.
    pub max_length: usize,
    /// Whether the service behind sees the token.
    pub forward: bool,
    /// How many verified tokens are remembered; 0 is none.
    pub cached: u64,
}

/// What goes for all rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checking {
    /// `mode: shadow`: denials are counted and logged, but let through.
    pub shadow: bool,
    /// `cors_preflight: allow`: a CORS preflight passes without a token, but for a rule that denies.
    pub preflight: bool,
}

/// One issuer and where its keys come from.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// The rules for its tokens.
    pub issuer: Issuer,
    /// Where its keys are.
    pub keys: KeySource,
    /// When they are fetched.
    pub refresh: Refresh,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Fetched over HTTP.
    Url {
        /// The JWK Set's address.
        url: Url,
        /// The rules for its fetches.
        access: WebAccess,
    },
    /// Fetched from where the issuer's OpenID Connect discovery document says.
    Discovery {
        /// The issuer the document must name.
        issuer: String,
        /// The document's address.
        document: Url,
        /// The rules for its fetches.
        access: WebAccess,
    },
    /// Read from a file.
    File(PathBuf),
    /// Written in the configuration, as JSON.
    Inline(String),
}

impl KeySource {
    /// What keys kept on disk are bound to: the whole address.
    #[must_use]
    pub fn binding(&self) -> String {
        match self {
            Self::Url { url: address, .. } | Self::Discovery { document: address, .. } => address.to_string(),
            Self::File(_) | Self::Inline(_) => self.to_string(),
        }
    }
}

impl fmt::Display for KeySource {
    /// For operators: no query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |url: &Url| {
            let mut url = url.clone();
            url.set_query(None);
            url
        };
        match self {
            Self::Url { url, .. } => write!(f, "{}", bare(url)),
            Self::Discovery { document, .. } => write!(f, "{}", bare(document)),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Inline(_) => f.write_str("inline"),
        }
    }
}

/// What an issuer's fetches may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebAccess {
    /// Whether plain http is fine for any host. Loopback hosts are always fine.
    pub allow_http: bool,
    /// Extra root certificates.
    pub ca: Option<Certificates>,
}

/// A file of root certificates, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// Where it was read.
    pub file: PathBuf,
    /// What it held.
    pub pem: Vec<u8>,
}

impl WebAccess {
    /// Whether a URL may be fetched: https, or http where that cannot be tampered with or somebody said so.
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
    /// How long a request waits for such a fetch.
    pub wait: Duration,
}

#[cfg(test)]
mod tests;
