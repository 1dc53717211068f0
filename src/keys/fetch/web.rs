//! Keys over HTTP: at a fixed URL, or at the `jwks_uri` of the issuer's discovery document.

use std::time::Duration;

use url::Url;

use super::client::IssuerClient;
use super::{BoxFuture, ClientError, Fetch, FetchError, Fetched, OtherIssuer, Validator};
use crate::config::WebAccess;
use crate::domain::json::{Member, Object, without_byte_order_mark};

pub(super) struct FixedUrl {
    client: IssuerClient,
    url: Url,
    timeout: Duration,
}

impl FixedUrl {
    pub(super) fn new(url: Url, access: &WebAccess, timeout: Duration) -> Result<Self, ClientError> {
        Ok(Self { client: IssuerClient::new(access, &url)?, url, timeout })
    }
}

impl Fetch for FixedUrl {
    fn fetch<'a>(&'a self, validator: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(with_timeout(self.timeout, self.client.get(&self.url, validator)))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.client.files_changed())
    }
}

/// OpenID Connect Discovery 1.0.
pub(super) struct Discovery {
    client: IssuerClient,
    /// The document must name one of these.
    issuers: Vec<String>,
    document: Url,
    timeout: Duration,
}

impl Discovery {
    pub(super) fn new(
        issuers: Vec<String>,
        document: Url,
        access: &WebAccess,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        Ok(Self { client: IssuerClient::new(access, &document)?, issuers, document, timeout })
    }

    /// Each fetch requests the discovery document as well, so a changed `jwks_uri` takes effect.
    async fn document_and_keys(&self, validator: Option<&Validator>) -> Result<Fetched, FetchError> {
        let document = self.client.get(&self.document, None).await?.body.unwrap_or_default();
        let keys_uri = self.keys_uri(&document)?;
        self.client.get(&keys_uri, validator).await
    }

    /// OpenID Connect Discovery 1.0 section 4.3: the document's `issuer` must be identical to the configured issuer, or to one
    /// of them.
    fn keys_uri(&self, document: &[u8]) -> Result<Url, FetchError> {
        let document = Object::parse_shallow(without_byte_order_mark(document));
        let document = document.map_err(|_| FetchError::NotADocument)?;
        match document.member("issuer") {
            Member::String(issuer) if self.issuers.iter().any(|own| *own == issuer) => {}
            Member::String(issuer) => return Err(FetchError::OtherIssuer(OtherIssuer::new(&issuer))),
            _ => return Err(FetchError::NoIssuer),
        }
        let Member::String(text) = document.member("jwks_uri") else { return Err(FetchError::KeysUri) };
        let uri = Url::parse(&text).map_err(|_| FetchError::KeysUri)?;
        // Never from https to http, as for a redirect.
        let downgrade = self.document.scheme() == "https" && uri.scheme() != "https";
        if downgrade || !self.client.allows(&uri) { Err(FetchError::KeysUri) } else { Ok(uri) }
    }
}

impl Fetch for Discovery {
    fn fetch<'a>(&'a self, validator: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(with_timeout(self.timeout, self.document_and_keys(validator)))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.client.files_changed())
    }
}

/// One timeout for the whole exchange: it covers a body that arrives byte by byte as well as a server that never answers.
async fn with_timeout(
    limit: Duration,
    exchange: impl Future<Output = Result<Fetched, FetchError>>,
) -> Result<Fetched, FetchError> {
    tokio::time::timeout(limit, exchange).await.unwrap_or(Err(FetchError::Timeout(limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discovery_document_must_be_the_issuers_own() {
        let access = WebAccess::default();
        let issuer = "https://login.example";
        let document = Url::parse("https://login.example/.well-known/openid-configuration").unwrap();
        let source = Discovery::new(
            vec!["other".to_owned(), issuer.to_owned()],
            document,
            &access,
            Duration::from_secs(1),
        )
        .unwrap();
        let uri = |text: &str| {
            source.keys_uri(text.as_bytes()).map(|url| url.to_string()).map_err(|e| e.to_string())
        };
        let good = r#"{"issuer":"https://login.example","jwks_uri":"https://keys.example/k"}"#;
        assert_eq!(uri(good).as_deref(), Ok("https://keys.example/k"));
        assert_eq!(uri(&format!("\u{feff}{good}")).as_deref(), Ok("https://keys.example/k"));
        for (text, want) in [
            ("<html>", FetchError::NotADocument),
            (r#"{"jwks_uri":"https://keys.example/k"}"#, FetchError::NoIssuer),
            (
                r#"{"issuer":"https://login.example/","jwks_uri":"https://keys.example/k"}"#,
                FetchError::OtherIssuer(OtherIssuer("https://login.example/".to_owned())),
            ),
            (
                r#"{"issuer":["https://login.example"],"jwks_uri":"https://keys.example/k"}"#,
                FetchError::NoIssuer,
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
