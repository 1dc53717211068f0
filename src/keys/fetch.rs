//! One fetch of one issuer's key set: bounded in time, in size and in where it may be led.

use std::error::Error;
use std::future::{Future, pending, ready};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::config::KeySource;

mod file;
mod web;

/// The most a document may weigh, unpacked. Real ones weigh a few KiB.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// A future that can stand behind a trait object.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that can be asked for a key set.
pub(crate) trait Fetch: Send + Sync {
    /// Asks once. `known` is what came with the set that is at hand, if any.
    fn fetch<'a>(&'a self, known: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>>;

    /// Resolves when the source itself shows that it has changed. Most cannot.
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(pending())
    }

    /// Whether asking again can bring anything new.
    fn can_change(&self) -> bool {
        true
    }
}

/// What makes a conditional request (RFC 9110 section 13.1.2): an `ETag`, and the URL it was given for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Validator {
    url: url::Url,
    etag: String,
}

/// What a fetch brought.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// The document; `None` if the one at hand is still the issuer's (304).
    pub body: Option<Bytes>,
    /// What to send along next time.
    pub validator: Option<Validator>,
    /// `max-age` of `cache-control`, if it says so.
    pub max_age: Option<Duration>,
}

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The whole exchange took longer than `refresh.timeout`.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
    /// Neither 200 nor 304.
    #[error("the answer's status is {0}, not 200")]
    Status(StatusCode),
    /// 304 without a validator having been sent.
    #[error("the answer says unchanged, but there was nothing to compare with")]
    Unchanged,
    /// Not JSON by its own word.
    #[error("the answer's content-type is not JSON")]
    ContentType,
    /// More than 1 MiB, unpacked.
    #[error("the document is larger than 1 MiB")]
    TooLarge,
    /// The connection, TLS or HTTP failed, or a redirect was refused.
    #[error("{0}")]
    Http(String),
    /// The discovery document is not a JSON object with unique members.
    #[error("the discovery document is not a JSON object with unique members")]
    NotADocument,
    /// The discovery document speaks for another issuer.
    #[error("the discovery document's issuer is not the configured one")]
    OtherIssuer,
    /// The discovery document's `jwks_uri` is missing or may not be fetched.
    #[error("the discovery document's jwks_uri is missing, or no URL that may be fetched")]
    KeysUri,
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    File(#[from] std::io::Error),
}

/// A client that cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The file of extra roots is PEM without a certificate, or not PEM at all.
    #[error("ca: the file holds no certificate; accepted: a PEM file of root certificates")]
    NoCertificate,
    /// The HTTP library refuses the roots or cannot start.
    #[error("the HTTP client for its keys cannot be set up: {0}")]
    Http(String),
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(reasons(&error))
    }
}

/// Makes the fetcher for a source.
///
/// # Errors
/// [`ClientError`] if the extra roots are not usable certificates.
pub(crate) fn fetcher(source: &KeySource, timeout: Duration) -> Result<Box<dyn Fetch>, ClientError> {
    Ok(match source {
        KeySource::Url { url, access } => Box::new(web::KeysAt::new(url.clone(), access, timeout)?),
        KeySource::Discovery { issuer, document, access } => {
            Box::new(web::Discovered::new(issuer.clone(), document.clone(), access, timeout)?)
        }
        KeySource::File(path) => Box::new(file::KeyFile::new(path.clone())),
        KeySource::Inline(text) => Box::new(Inline(Bytes::from(text.clone()))),
    })
}

struct Inline(Bytes);

impl Fetch for Inline {
    fn fetch<'a>(&'a self, _: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(ready(Ok(Fetched { body: Some(self.0.clone()), validator: None, max_age: None })))
    }

    fn can_change(&self) -> bool {
        false
    }
}

/// An error and what caused it, in one line.
fn reasons(error: &dyn Error) -> String {
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
