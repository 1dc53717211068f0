//! The HTTP client for one issuer's keys: redirect rules, roots, credentials and limits. The files of roots and of a client
//! certificate are read again when they change; the file of a bearer token is read for each request.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::redirect;
use tokio::time::sleep;
use url::{Origin, Url};

use super::{ClientError, FetchError, Fetched, MAX_DOCUMENT_BYTES, Validator, with_causes};
use crate::config::WebAccess;
use crate::domain::clock::UnixTime;
use crate::domain::issuer::is_loopback;
use crate::watched_file::{FileIo, FileVersion, POLL_INTERVAL};

/// The most redirects one request follows.
const MAX_REDIRECTS: usize = 3;

/// The longest bearer token in a file. Those of Kubernetes have one to two KiB.
const MAX_BEARER_BYTES: usize = 16 * 1024;

const USER_AGENT: &str = concat!("passage-authz/", env!("CARGO_PKG_VERSION"));

/// HTTP requests to an issuer, with the same redirect rules, roots, credentials and limits for each.
pub(super) struct IssuerClient {
    access: WebAccess,
    /// Of the configured URL: no other server gets the bearer token.
    origin: Origin,
    in_use: Mutex<InUse>,
    file_io: FileIo,
}

struct InUse {
    clients: Arc<Clients>,
    /// Of the files that the clients were made from, or could not be made from; `None` before the first request.
    versions: Option<Vec<Option<FileVersion>>>,
}

struct Clients {
    remote: reqwest::Client,
    /// Uses no proxy: plain http to a loopback address is only safe if it does not leave the machine.
    loopback: reqwest::Client,
}

impl Clients {
    fn new(access: &WebAccess) -> Result<Self, ClientError> {
        let roots =
            access.ca.as_ref().map(|ca| reqwest::Certificate::from_pem_bundle(&ca.pem)).transpose()?;
        if roots.as_ref().is_some_and(Vec::is_empty) {
            return Err(ClientError::NoCertificate);
        }
        let roots = roots.unwrap_or_default();
        let own = access.client_cert.as_ref().map(|own| reqwest::Identity::from_pem(&own.pem));
        let own = own.transpose().map_err(|_| ClientError::NoClientCertificate)?;
        let builder = |loopback: bool| {
            let policy = access.clone();
            let builder = reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(redirect::Policy::custom(move |attempt| {
                    redirect_action(attempt, &policy, loopback)
                }))
                .tls_certs_merge(roots.clone());
            match &own {
                Some(own) => builder.identity(own.clone()),
                None => builder,
            }
        };
        Ok(Self { remote: builder(false).build()?, loopback: builder(true).no_proxy().build()? })
    }
}

impl IssuerClient {
    /// A client for what is at the configured URL and where that leads.
    pub(super) fn new(access: &WebAccess, configured: &Url) -> Result<Self, ClientError> {
        let in_use = InUse { clients: Arc::new(Clients::new(access)?), versions: None };
        Ok(Self {
            access: access.clone(),
            origin: configured.origin(),
            in_use: Mutex::new(in_use),
            file_io: FileIo::new(),
        })
    }

    /// Whether a URL may be fetched.
    pub(super) fn allows(&self, url: &Url) -> bool {
        self.access.allows(url)
    }

    pub(super) async fn get(&self, url: &Url, validator: Option<&Validator>) -> Result<Fetched, FetchError> {
        let sent = validator.filter(|validator| validator.url == *url);
        let clients = self.clients().await;
        let client = if is_loopback(url) { &clients.loopback } else { &clients.remote };
        let mut request = client.get(url.clone());
        request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        if let Some(Validator { url: _, etag }) = sent {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(credentials) = self.credentials(url).await? {
            // reqwest drops it on a redirect to another host or port.
            request = request.header(header::AUTHORIZATION, credentials);
        }
        let failed = |error: reqwest::Error| FetchError::Http(with_causes(&error.without_url()));
        let response = request.send().await.map_err(failed)?;
        let etag = header_text(response.headers(), header::ETAG);
        let mut fetched = Fetched {
            body: None,
            validator: etag.map(|etag| Validator { url: url.clone(), etag }),
            max_age: header_text(response.headers(), header::CACHE_CONTROL).and_then(|text| max_age(&text)),
            sent_at: sent_at(response.headers()),
        };
        match response.status() {
            StatusCode::OK => fetched.body = Some(read_document(response).await?),
            StatusCode::NOT_MODIFIED if sent.is_some() => {
                fetched.validator = fetched.validator.or_else(|| sent.cloned());
            }
            StatusCode::NOT_MODIFIED => return Err(FetchError::Unchanged),
            other => return Err(FetchError::Status(other)),
        }
        Ok(fetched)
    }

    /// Resolves when a file of roots or of the client certificate has changed; never without such files.
    pub(super) async fn files_changed(&self) {
        let paths = files(&self.access);
        if paths.is_empty() {
            return std::future::pending().await;
        }
        let mut before = None;
        loop {
            sleep(POLL_INTERVAL).await;
            let paths = paths.clone();
            let Ok(polled) = self.file_io.run(move || versions(&paths)).await else { continue };
            let is_settled = before.as_ref() == Some(&polled);
            if is_settled && self.in_use(|in_use| in_use.versions.as_ref() != Some(&polled)) {
                return;
            }
            before = Some(polled);
        }
    }

    fn in_use<T>(&self, use_it: impl FnOnce(&mut InUse) -> T) -> T {
        use_it(&mut self.in_use.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The clients, made anew if their files have changed. From files that cannot be used none is made, and the ones before go on.
    async fn clients(&self) -> Arc<Clients> {
        let paths = files(&self.access);
        if !paths.is_empty() {
            let made_from = self.in_use(|in_use| in_use.versions.clone());
            let access = self.access.clone();
            let read = self.file_io.run(move || {
                // The versions are taken before the read, so the next poll sees a change between the two.
                let versions = versions(&paths);
                (made_from.as_ref() != Some(&versions)).then(|| (versions, access.read_again()))
            });
            match read.await {
                Ok(None) => {}
                Ok(Some((versions, access))) => {
                    let made = access.map_err(ClientError::File).and_then(|access| Clients::new(&access));
                    let is_first = self.in_use(|in_use| in_use.versions.replace(versions).is_none());
                    match made {
                        Ok(clients) => {
                            self.in_use(|in_use| in_use.clients = Arc::new(clients));
                            if !is_first {
                                tracing::info!(origin = %self.origin.ascii_serialization(), "the certificates for fetches of keys were read again");
                            }
                        }
                        Err(error) => {
                            tracing::error!(origin = %self.origin.ascii_serialization(), %error, "the new certificates for fetches of keys cannot be used, the old ones go on");
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the files of certificates for fetches of keys cannot be looked at");
                }
            }
        }
        self.in_use(|in_use| Arc::clone(&in_use.clients))
    }

    /// The `Authorization` for this URL, if there is a file with a token for it.
    async fn credentials(&self, url: &Url) -> Result<Option<HeaderValue>, FetchError> {
        let is_private = url.scheme() == "https" || is_loopback(url);
        let Some(file) =
            self.access.bearer_file.clone().filter(|_| is_private && url.origin() == self.origin)
        else {
            return Ok(None);
        };
        let bytes = self.file_io.run(move || read(&file)).await.flatten().map_err(FetchError::BearerFile)?;
        let token = bytes.trim_ascii_end();
        if token.is_empty() || token.len() > MAX_BEARER_BYTES || !token.iter().all(u8::is_ascii_graphic) {
            return Err(FetchError::Bearer);
        }
        let mut value =
            HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| FetchError::Bearer)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// The files that the clients are made from.
fn files(access: &WebAccess) -> Vec<PathBuf> {
    let WebAccess { allow_http: _, ca, bearer_file: _, client_cert } = access;
    let ca = ca.iter().map(|ca| &ca.file);
    let own = client_cert.iter().flat_map(|own| [&own.cert, &own.key]);
    ca.chain(own).cloned().collect()
}

fn versions(paths: &[PathBuf]) -> Vec<Option<FileVersion>> {
    paths.iter().map(|path| FileVersion::of(path)).collect()
}

/// A file's content, up to one byte more than a token and the line break after it may have.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(MAX_BEARER_BYTES as u64 + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The body, chunk by chunk. The limit counts decompressed bytes, so a compression bomb stops at the limit too.
async fn read_document(mut response: reqwest::Response) -> Result<Bytes, FetchError> {
    if header_text(response.headers(), header::CONTENT_TYPE).is_some_and(|text| is_html(&text)) {
        return Err(FetchError::Html);
    }
    let failed = |error: reqwest::Error| FetchError::Http(with_causes(&error.without_url()));
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_DOCUMENT_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Never from https to http: an attacker on the path of the plain exchange could substitute keys.
fn redirect_action(attempt: redirect::Attempt<'_>, access: &WebAccess, loopback: bool) -> redirect::Action {
    let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("more than 3 redirects")
    } else if from_https && attempt.url().scheme() != "https" {
        attempt.error("a redirect from https to http")
    } else if access.allows(attempt.url()) && is_loopback(attempt.url()) != loopback {
        // The client for remote hosts may use a proxy; the one for loopback addresses must not.
        attempt.error("a redirect between this machine and another")
    } else if access.allows(attempt.url()) {
        attempt.follow()
    } else {
        attempt.error("a redirect to a URL that may not be fetched")
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// A page for people: of a login, or of a proxy's fault. All other types are read: static hosting sends keys as
/// `application/octet-stream`, `text/plain` and others, and the document itself says whether it is JSON.
fn is_html(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "text/html" | "application/xhtml+xml")
}

/// `max-age` in seconds (RFC 9111 section 5.2.2.1). `no-cache` and `no-store` are ignored: the key set is kept anyway.
fn max_age(cache_control: &str) -> Option<Duration> {
    cache_control.split(',').find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| Duration::from_secs(seconds))
    })
}

/// Without its `age` an answer that a cache has kept for an hour would show a clock that is an hour behind.
fn sent_at(headers: &HeaderMap) -> Option<UnixTime> {
    let date = UnixTime::parse_http_date(&header_text(headers, header::DATE)?)?;
    match header_text(headers, header::AGE) {
        Some(age) => Some(date.after(Duration::from_secs(age.trim().parse().ok()?))),
        None => Some(date),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_when_an_answer_was_sent() {
        let date = "Fri, 16 Jan 2026 12:00:00 GMT";
        for (headers, want) in [
            (&[("date", date)][..], UnixTime::parse("2026-01-16T12:00:00Z")),
            (&[("date", date), ("age", "60")], UnixTime::parse("2026-01-16T12:01:00Z")),
            (&[("date", date), ("age", "18446744073709551615")], Some(UnixTime::from_secs(u64::MAX))),
            (&[("date", date), ("age", "-1")], None),
            (&[("date", date), ("age", "")], None),
            (&[("age", "1")], None),
            (&[("date", "2026-01-16T12:00:00Z")], None),
            (&[("date", "Thu, 01 Jan 1200 00:00:00 GMT")], None),
            (&[("date", "")], None),
        ] {
            let named = headers.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            let sent_at = sent_at(&named.collect()).map(UnixTime::as_secs);
            assert_eq!(sent_at, want.map(UnixTime::as_secs), "{headers:?}");
        }
    }

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
            ("text/html", true),
            ("Text/HTML; charset=utf-8", true),
            ("application/xhtml+xml", true),
            ("application/json", false),
            ("application/octet-stream", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_html(text), want, "{text}");
        }
    }
}
