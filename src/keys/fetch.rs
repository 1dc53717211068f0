//! One fetch of one issuer's key set: bounded in time, in size and in where it may be led.

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use reqwest::redirect;

use crate::config::KeySource;

/// The most a key set may weigh, unpacked. Real ones weigh a few KiB.
const MAX_BYTES: usize = 1 << 20;

/// The most redirects one fetch follows.
const MAX_REDIRECTS: usize = 3;

/// What a fetch calls itself.
const USER_AGENT: &str = concat!("passage-authz/", env!("CARGO_PKG_VERSION"));

/// A future that can stand behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that can be asked for a key set.
pub trait Fetch: Send + Sync {
    /// Asks once. `etag` is what came with the set that is at hand, if any.
    fn fetch<'a>(&'a self, etag: Option<&'a str>) -> BoxFuture<'a, Result<Fetched, FetchError>>;
}

/// What a fetch brought.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The document; `None` if the one at hand is still the issuer's (304).
    pub body: Option<Bytes>,
    /// The validator to send along next time.
    pub etag: Option<String>,
    /// `max-age` of `cache-control`, if it says so.
    pub max_age: Option<Duration>,
}

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
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
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    File(#[from] std::io::Error),
}

/// A client that cannot be built: unusable extra roots, as a rule.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
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
pub fn fetcher(source: &KeySource, timeout: Duration) -> Result<Box<dyn Fetch>, ClientError> {
    Ok(match source {
        KeySource::Url { url, allow_http, ca } => {
            let client = client(*allow_http, ca.as_deref())?;
            Box::new(Web { client, url: url.clone(), timeout })
        }
        KeySource::File(path) => Box::new(File { path: path.clone() }),
        KeySource::Inline(text) => Box::new(Inline { text: Bytes::from(text.clone()) }),
    })
}

fn client(allow_http: bool, ca: Option<&[u8]>) -> Result<reqwest::Client, ClientError> {
    let roots = ca.map(reqwest::Certificate::from_pem_bundle).transpose()?;
    if roots.as_ref().is_some_and(Vec::is_empty) {
        return Err(ClientError::NoCertificate);
    }
    let client = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::custom(move |attempt| follow(attempt, allow_http)))
        .tls_certs_merge(roots.unwrap_or_default())
        .build()?;
    Ok(client)
}

/// Never from https down to http: whoever can tamper with the plain exchange could hand out keys.
fn follow(attempt: redirect::Attempt<'_>, allow_http: bool) -> redirect::Action {
    let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("more than 3 redirects")
    } else if attempt.url().scheme() == "https" {
        attempt.follow()
    } else if from_https {
        attempt.error("a redirect from https to http")
    } else if allow_http || crate::issuer::is_loopback(attempt.url()) {
        attempt.follow()
    } else {
        attempt.error("a redirect to plain http on another host")
    }
}

struct Web {
    client: reqwest::Client,
    url: url::Url,
    timeout: Duration,
}

impl Web {
    async fn exchange(&self, etag: Option<&str>) -> Result<Fetched, FetchError> {
        let mut request = self.client.get(self.url.clone());
        request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let failed = |error: reqwest::Error| FetchError::Http(reasons(&error.without_url()));
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let fetched = Fetched {
            body: None,
            etag: text(response.headers(), header::ETAG),
            max_age: text(response.headers(), header::CACHE_CONTROL).and_then(|text| max_age(&text)),
        };
        match status {
            StatusCode::NOT_MODIFIED if etag.is_some() => return Ok(fetched),
            StatusCode::NOT_MODIFIED => return Err(FetchError::Unchanged),
            StatusCode::OK => {}
            other => return Err(FetchError::Status(other)),
        }
        let content_type = text(response.headers(), header::CONTENT_TYPE);
        if !content_type.is_none_or(|text| is_json(&text)) {
            return Err(FetchError::ContentType);
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Fetched { body: Some(body.freeze()), ..fetched })
    }
}

impl Fetch for Web {
    fn fetch<'a>(&'a self, etag: Option<&'a str>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            let exchange = tokio::time::timeout(self.timeout, self.exchange(etag));
            exchange.await.unwrap_or(Err(FetchError::Timeout(self.timeout)))
        })
    }
}

struct File {
    path: PathBuf,
}

impl Fetch for File {
    fn fetch<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || read_bounded(&path));
            let body = read.await.map_err(std::io::Error::other)??;
            Ok(Fetched { body: Some(body), etag: None, max_age: None })
        })
    }
}

fn read_bounded(path: &std::path::Path) -> Result<Bytes, FetchError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES { Err(FetchError::TooLarge) } else { Ok(bytes.into()) }
}

struct Inline {
    text: Bytes,
}

impl Fetch for Inline {
    fn fetch<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        let fetched = Fetched { body: Some(self.text.clone()), etag: None, max_age: None };
        Box::pin(std::future::ready(Ok(fetched)))
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// `application/json`, `application/jwk-set+json` (RFC 7517 section 8.5.2) and their like.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
        || essence == "text/json"
}

/// `max-age` in seconds (RFC 9111 section 5.2.2.1); `no-cache` and `no-store` are not its business.
fn max_age(cache_control: &str) -> Option<Duration> {
    cache_control.split(',').find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| Duration::from_secs(seconds))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_max_age_and_content_types() {
        for (text, want) in [
            ("max-age=60", Some(60)),
            ("public, Max-Age=\"7\", must-revalidate", Some(7)),
            ("s-maxage=9", None),
            ("no-store", None),
            ("max-age=-1", None),
            ("max-age=x", None),
            ("", None),
        ] {
            assert_eq!(max_age(text), want.map(Duration::from_secs), "{text}");
        }
        for (text, want) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/jwk-set+json", true),
            ("text/html", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            assert_eq!(is_json(text), want, "{text}");
        }
    }
}
