//! One fetch of one issuer's key set, bounded in time, in size and in the URLs that a redirect or a discovery document
//! may lead to.

use std::error::Error;
use std::fmt;
use std::future::{Future, pending, ready};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::config::KeySource;
use crate::domain::clock::UnixTime;

mod client;
mod file;
mod web;

/// The largest document, decompressed. Real ones have a few KiB.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// [`Fetch`] is used as `dyn`, and a trait with `async fn` cannot be.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A source of key sets.
pub(crate) trait Fetch: Send + Sync {
    /// Fetches once. `validator` came with the set in force and makes the request conditional.
    fn fetch<'a>(&'a self, validator: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>>;

    /// Resolves when the source has changed; never for a source that can only be polled by [`Fetch::fetch`].
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(pending())
    }

    /// Whether a second fetch can bring another set.
    fn can_change(&self) -> bool {
        true
    }
}

/// For a conditional request (RFC 9110 section 13.1.2): an `ETag`, and the URL of the response that carried it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Validator {
    url: url::Url,
    etag: String,
}

/// The result of a fetch.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// The document; `None` if the set in force is still the issuer's (304).
    pub body: Option<Bytes>,
    /// For the next fetch.
    pub validator: Option<Validator>,
    /// `max-age` of `cache-control`.
    pub max_age: Option<Duration>,
    /// When the answer left its server by the server's clock, or a cache by the cache's: `date` and `age`
    /// (RFC 9111 section 4.2.3).
    pub sent_at: Option<UnixTime>,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The whole exchange took longer than `refresh.timeout`.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer's status is {0}, not 200")]
    Status(StatusCode),
    /// 304 to a request without a validator.
    #[error("the answer says unchanged, but there was nothing to compare with")]
    Unchanged,
    #[error("the answer is an HTML page")]
    Html,
    /// [`MAX_DOCUMENT_BYTES`], decompressed.
    #[error("the document is larger than 1 MiB")]
    TooLarge,
    /// The connection, TLS or HTTP failed, or a redirect was refused.
    #[error("{0}")]
    Http(String),
    #[error("the discovery document is not a JSON object with unique members")]
    NotADocument,
    /// OpenID Connect Discovery 1.0 section 4.3.
    #[error("the discovery document's issuer is {0}, which is not configured for this issuer")]
    OtherIssuer(OtherIssuer),
    #[error("the discovery document names no issuer")]
    NoIssuer,
    #[error("the discovery document's jwks_uri is missing, or no URL that may be fetched")]
    KeysUri,
    #[error("the file cannot be read: {0}")]
    File(#[from] std::io::Error),
    #[error("keys.bearer_file cannot be read: {0}")]
    BearerFile(std::io::Error),
    #[error("keys.bearer_file holds no token: one line of visible ASCII, at most 16 KiB, is accepted")]
    Bearer,
}

/// The `issuer` of a document that is not the configured one: short and printable, since the document's server chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtherIssuer(String);

impl OtherIssuer {
    const MAX_CHARS: usize = 200;

    fn new(issuer: &str) -> Self {
        Self(issuer.chars().take(Self::MAX_CHARS).collect())
    }
}

impl fmt::Display for OtherIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Why an HTTP client for keys cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("ca: the file holds no certificate; accepted: a PEM file of root certificates")]
    NoCertificate,
    #[error("keys.client_cert: the files hold no certificate with its private key; accepted: PEM files")]
    NoClientCertificate,
    /// Of certificates that are read again.
    #[error("a file cannot be read: {0}")]
    File(std::io::Error),
    /// reqwest refuses the roots or cannot be set up.
    #[error("the HTTP client for its keys cannot be set up: {0}")]
    Http(String),
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(with_causes(&error))
    }
}

/// The source of keys that the configuration names.
///
/// # Errors
/// [`ClientError`] if the extra roots are not usable certificates.
pub(crate) fn fetcher(source: &KeySource, timeout: Duration) -> Result<Box<dyn Fetch>, ClientError> {
    Ok(match source {
        KeySource::Url { url, access } => Box::new(web::FixedUrl::new(url.clone(), access, timeout)?),
        KeySource::Discovery { issuers, document, access } => {
            Box::new(web::Discovery::new(issuers.clone(), document.clone(), access, timeout)?)
        }
        KeySource::File(path) => Box::new(file::KeyFile::new(path.clone())),
        KeySource::Inline(text) => Box::new(Inline(Bytes::from(text.clone()))),
    })
}

struct Inline(Bytes);

impl Fetch for Inline {
    fn fetch<'a>(&'a self, _: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        let body = Some(self.0.clone());
        Box::pin(ready(Ok(Fetched { body, validator: None, max_age: None, sent_at: None })))
    }

    fn can_change(&self) -> bool {
        false
    }
}

/// An error and its chain of sources, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
