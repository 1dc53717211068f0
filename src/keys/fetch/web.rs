//! Keys over HTTP: at a fixed URL, or at the `jwks_uri` of the issuer's discovery document.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use reqwest::redirect;
use url::Url;

use super::{BoxFuture, ClientError, Fetch, FetchError, Fetched, MAX_DOCUMENT_BYTES, Validator, with_causes};
use crate::config::WebAccess;
use crate::domain::issuer::is_loopback;
use crate::domain::json::{Member, Object};

/// The most redirects one request follows.
const MAX_REDIRECTS: usize = 3;

const USER_AGENT: &str = concat!("passage-authz/", env!("CARGO_PKG_VERSION"));

pub(super) struct FixedUrl {
    client: IssuerClient,
    url: Url,
    timeout: Duration,
}

impl FixedUrl {
    pub(super) fn new(url: Url, access: &WebAccess, timeout: Duration) -> Result<Self, ClientError> {
        Ok(Self { client: IssuerClient::new(access)?, url, timeout })
    }
}

impl Fetch for FixedUrl {
    fn fetch<'a>(&'a self, validator: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(with_timeout(self.timeout, self.client.get(&self.url, validator)))
    }
}

/// OpenID Connect Discovery 1.0.
pub(super) struct Discovery {
    client: IssuerClient,
    issuer: String,
    document: Url,
    timeout: Duration,
}

impl Discovery {
    pub(super) fn new(
        issuer: String,
        document: Url,
        access: &WebAccess,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        Ok(Self { client: IssuerClient::new(access)?, issuer, document, timeout })
    }

    /// Each fetch requests the discovery document as well, so a changed `jwks_uri` takes effect.
    async fn document_and_keys(&self, validator: Option<&Validator>) -> Result<Fetched, FetchError> {
        let document = self.client.get(&self.document, None).await?.body.unwrap_or_default();
        let keys_uri = self.keys_uri(&document)?;
        self.client.get(&keys_uri, validator).await
    }

    /// OpenID Connect Discovery 1.0 section 4.3: the document's `issuer` must be identical to the configured issuer.
    fn keys_uri(&self, document: &[u8]) -> Result<Url, FetchError> {
        let document = Object::parse_shallow(document).map_err(|_| FetchError::NotADocument)?;
        match document.member("issuer") {
            Member::String(issuer) if issuer == self.issuer => {}
            _ => return Err(FetchError::OtherIssuer),
        }
        let Member::String(text) = document.member("jwks_uri") else { return Err(FetchError::KeysUri) };
        let uri = Url::parse(&text).map_err(|_| FetchError::KeysUri)?;
        // Never from https to http, as for a redirect.
        let downgrade = self.document.scheme() == "https" && uri.scheme() != "https";
        if downgrade || !self.client.access.allows(&uri) { Err(FetchError::KeysUri) } else { Ok(uri) }
    }
}

impl Fetch for Discovery {
    fn fetch<'a>(&'a self, validator: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(with_timeout(self.timeout, self.document_and_keys(validator)))
    }
}

/// One timeout for the whole exchange: it covers a body that arrives byte by byte as well as a server that never answers.
async fn with_timeout(
    limit: Duration,
    exchange: impl Future<Output = Result<Fetched, FetchError>>,
) -> Result<Fetched, FetchError> {
    tokio::time::timeout(limit, exchange).await.unwrap_or(Err(FetchError::Timeout(limit)))
}

/// HTTP requests to an issuer, with the same redirect rules, roots and limits for each.
struct IssuerClient {
    remote: reqwest::Client,
    /// Uses no proxy: plain http to a loopback address is only safe if it does not leave the machine.
    loopback: reqwest::Client,
    access: WebAccess,
}

impl IssuerClient {
    fn new(access: &WebAccess) -> Result<Self, ClientError> {
        let roots =
            access.ca.as_ref().map(|ca| reqwest::Certificate::from_pem_bundle(&ca.pem)).transpose()?;
        if roots.as_ref().is_some_and(Vec::is_empty) {
            return Err(ClientError::NoCertificate);
        }
        let roots = roots.unwrap_or_default();
        let builder = |loopback: bool| {
            let policy = access.clone();
            reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(redirect::Policy::custom(move |attempt| {
                    redirect_action(attempt, &policy, loopback)
                }))
                .tls_certs_merge(roots.clone())
        };
        let (remote, loopback) = (builder(false).build()?, builder(true).no_proxy().build()?);
        Ok(Self { remote, loopback, access: access.clone() })
    }

    async fn get(&self, url: &Url, validator: Option<&Validator>) -> Result<Fetched, FetchError> {
        let sent = validator.filter(|validator| validator.url == *url);
        let client = if is_loopback(url) { &self.loopback } else { &self.remote };
        let mut request = client.get(url.clone());
        request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        if let Some(Validator { url: _, etag }) = sent {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let failed = |error: reqwest::Error| FetchError::Http(with_causes(&error.without_url()));
        let response = request.send().await.map_err(failed)?;
        let etag = header_text(response.headers(), header::ETAG);
        let mut fetched = Fetched {
            body: None,
            validator: etag.map(|etag| Validator { url: url.clone(), etag }),
            max_age: header_text(response.headers(), header::CACHE_CONTROL).and_then(|text| max_age(&text)),
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
}

/// The body, chunk by chunk. The limit counts decompressed bytes, so a compression bomb stops at the limit too.
async fn read_document(mut response: reqwest::Response) -> Result<Bytes, FetchError> {
    let content_type = header_text(response.headers(), header::CONTENT_TYPE);
    if !content_type.is_none_or(|text| is_json(&text)) {
        return Err(FetchError::ContentType);
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

/// `application/json`, any `application/*+json` such as `application/jwk-set+json` (RFC 7517 section 8.5.2), and `text/json`.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
        || essence == "text/json"
}

/// `max-age` in seconds (RFC 9111 section 5.2.2.1). `no-cache` and `no-store` are ignored: the key set is kept anyway.
fn max_age(cache_control: &str) -> Option<Duration> {
    cache_control.split(',').find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| Duration::from_secs(seconds))
    })
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

    #[test]
    fn the_discovery_document_must_be_the_issuers_own() {
        let access = WebAccess { allow_http: false, ca: None };
        let issuer = "https://login.example";
        let document = Url::parse("https://login.example/.well-known/openid-configuration").unwrap();
        let source = Discovery::new(issuer.to_owned(), document, &access, Duration::from_secs(1)).unwrap();
        let uri = |text: &str| {
            source.keys_uri(text.as_bytes()).map(|url| url.to_string()).map_err(|e| e.to_string())
        };
        let good = r#"{"issuer":"https://login.example","jwks_uri":"https://keys.example/k"}"#;
        assert_eq!(uri(good).as_deref(), Ok("https://keys.example/k"));
        for (text, want) in [
            ("<html>", FetchError::NotADocument),
            (r#"{"jwks_uri":"https://keys.example/k"}"#, FetchError::OtherIssuer),
            (
                r#"{"issuer":"https://login.example/","jwks_uri":"https://keys.example/k"}"#,
                FetchError::OtherIssuer,
            ),
            (
                r#"{"issuer":["https://login.example"],"jwks_uri":"https://keys.example/k"}"#,
                FetchError::OtherIssuer,
            ),
            (r#"{"issuer":"https://login.example"}"#, FetchError::KeysUri),
            (r#"{"issuer":"https://login.example","jwks_uri":"keys"}"#, FetchError::KeysUri),
            (r#"{"issuer":"https://login.example","jwks_uri":"http://127.0.0.1/k"}"#, FetchError::KeysUri),
            (r#"{"issuer":"https://login.example","jwks_uri":"file:///etc/passwd"}"#, FetchError::KeysUri),
        ] {
            assert_eq!(uri(text), Err(want.to_string()), "{text}");
        }
    }
}
