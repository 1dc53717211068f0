//! Keys over HTTP: at a fixed URL, or where the issuer's discovery document says.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use reqwest::redirect;
use url::Url;

use super::{BoxFuture, ClientError, Fetch, FetchError, Fetched, MAX_DOCUMENT_BYTES, Validator, reasons};
use crate::config::WebAccess;
use crate::domain::issuer::is_loopback;
use crate::domain::json::{Member, Object};

/// The most redirects one request follows.
const MAX_REDIRECTS: usize = 3;

/// What a fetch calls itself.
const USER_AGENT: &str = concat!("passage-authz/", env!("CARGO_PKG_VERSION"));

/// The key set at a fixed URL.
pub(super) struct KeysAt {
    web: Web,
    url: Url,
    timeout: Duration,
}

impl KeysAt {
    pub(super) fn new(url: Url, access: &WebAccess, timeout: Duration) -> Result<Self, ClientError> {
        Ok(Self { web: Web::new(access)?, url, timeout })
    }
}

impl Fetch for KeysAt {
    fn fetch<'a>(&'a self, known: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(within(self.timeout, self.web.get(&self.url, known)))
    }
}

/// The key set of an issuer that speaks OpenID Connect Discovery 1.0.
pub(super) struct Discovered {
    web: Web,
    issuer: String,
    document: Url,
    timeout: Duration,
}

impl Discovered {
    pub(super) fn new(
        issuer: String,
        document: Url,
        access: &WebAccess,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        Ok(Self { web: Web::new(access)?, issuer, document, timeout })
    }

    /// The document, then the keys it names: asked for together, so that a move of the keys is followed.
    async fn both(&self, known: Option<&Validator>) -> Result<Fetched, FetchError> {
        let document = self.web.get(&self.document, None).await?.body.unwrap_or_default();
        let keys_uri = self.keys_uri(&document)?;
        self.web.get(&keys_uri, known).await
    }

    /// OpenID Connect Discovery 1.0 section 4.3: the issuer must be identical, or the document is not its.
    fn keys_uri(&self, document: &[u8]) -> Result<Url, FetchError> {
        let document = Object::parse_shallow(document).map_err(|_| FetchError::NotADocument)?;
        match document.member("issuer") {
            Member::String(issuer) if issuer == self.issuer => {}
            _ => return Err(FetchError::OtherIssuer),
        }
        let Member::String(uri) = document.member("jwks_uri") else { return Err(FetchError::KeysUri) };
        let uri = Url::parse(&uri).map_err(|_| FetchError::KeysUri)?;
        // As for a redirect: never from https down to http.
        let downgrade = self.document.scheme() == "https" && uri.scheme() != "https";
        if downgrade || !self.web.access.allows(&uri) { Err(FetchError::KeysUri) } else { Ok(uri) }
    }
}

impl Fetch for Discovered {
    fn fetch<'a>(&'a self, known: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(within(self.timeout, self.both(known)))
    }
}

/// One limit for the whole exchange: a body that drips in is cut like a server that hangs.
async fn within(
    limit: Duration,
    exchange: impl Future<Output = Result<Fetched, FetchError>>,
) -> Result<Fetched, FetchError> {
    tokio::time::timeout(limit, exchange).await.unwrap_or(Err(FetchError::Timeout(limit)))
}

/// A client with the rules that every request to an issuer follows.
struct Web {
    client: reqwest::Client,
    /// For this machine itself: past any proxy, for plain http is only safe if it never leaves.
    direct: reqwest::Client,
    access: WebAccess,
}

impl Web {
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
                .redirect(redirect::Policy::custom(move |attempt| follow(attempt, &policy, loopback)))
                .tls_certs_merge(roots.clone())
        };
        let (client, direct) = (builder(false).build()?, builder(true).no_proxy().build()?);
        Ok(Self { client, direct, access: access.clone() })
    }

    async fn get(&self, url: &Url, known: Option<&Validator>) -> Result<Fetched, FetchError> {
        let known = known.filter(|known| known.url == *url);
        let client = if is_loopback(url) { &self.direct } else { &self.client };
        let mut request = client.get(url.clone());
        request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        if let Some(Validator { etag, .. }) = known {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let failed = |error: reqwest::Error| FetchError::Http(reasons(&error.without_url()));
        let response = request.send().await.map_err(failed)?;
        let etag = text(response.headers(), header::ETAG);
        let mut fetched = Fetched {
            body: None,
            validator: etag.map(|etag| Validator { url: url.clone(), etag }),
            max_age: text(response.headers(), header::CACHE_CONTROL).and_then(|text| max_age(&text)),
        };
        match response.status() {
            StatusCode::OK => fetched.body = Some(body(response).await?),
            StatusCode::NOT_MODIFIED if known.is_some() => {
                fetched.validator = fetched.validator.or_else(|| known.cloned());
            }
            StatusCode::NOT_MODIFIED => return Err(FetchError::Unchanged),
            other => return Err(FetchError::Status(other)),
        }
        Ok(fetched)
    }
}

/// The body, unpacked as it comes and never beyond the limit.
async fn body(mut response: reqwest::Response) -> Result<Bytes, FetchError> {
    let content_type = text(response.headers(), header::CONTENT_TYPE);
    if !content_type.is_none_or(|text| is_json(&text)) {
        return Err(FetchError::ContentType);
    }
    let failed = |error: reqwest::Error| FetchError::Http(reasons(&error.without_url()));
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_DOCUMENT_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Never from https down to http: whoever can tamper with the plain exchange could hand out keys.
fn follow(attempt: redirect::Attempt<'_>, access: &WebAccess, loopback: bool) -> redirect::Action {
    let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("more than 3 redirects")
    } else if from_https && attempt.url().scheme() != "https" {
        attempt.error("a redirect from https to http")
    } else if access.allows(attempt.url()) && is_loopback(attempt.url()) != loopback {
        // Each has its own client: the one goes through the proxy, the other must not.
        attempt.error("a redirect between this machine and another")
    } else if access.allows(attempt.url()) {
        attempt.follow()
    } else {
        attempt.error("a redirect to a URL that may not be fetched")
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
        let source = Discovered::new(issuer.to_owned(), document, &access, Duration::from_secs(1)).unwrap();
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
