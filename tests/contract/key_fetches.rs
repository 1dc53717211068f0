//! Fetches of keys from issuers as they are: static hosting, private authorities, and servers that want credentials.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, jwks};
use serde_json::{Value, json};

use crate::support::fixtures::PATIENT;
use crate::support::tls::{Tls, authority, issued_by};
use crate::support::{Service, get, join_all, wait_until};

fn key(kid: &str) -> Arc<SigningKey> {
    SigningKey::shared(kid, Algorithm::Es256)
}

fn mint(iss: &str) -> String {
    key("k").mint(iss, |_, _| {})
}

/// The issuer `i` with these keys, fetched ten times a second.
fn issuer(keys: &str, more: &str) -> String {
    issuer_every("100ms", keys, more)
}

fn issuer_every(interval: &str, keys: &str, more: &str) -> String {
    format!(
        "issuers: [{{name: issuer, issuer: i, audiences: [], algorithms: [ES256], keys: {{{keys}}}, \
         refresh: {{interval: {interval}, {PATIENT}}}{more}}}]\n"
    )
}

async fn last_error(service: &Service) -> String {
    let (_, text) = get(service.admin, "/keys").await;
    let status: Value = serde_json::from_str(&text).unwrap();
    status["issuers"][0]["last_error"]["error"].as_str().unwrap_or_default().to_owned()
}

async fn fails_with(service: &Service, error: &str) -> String {
    wait_until(error, || async { last_error(service).await.contains(error) }).await;
    last_error(service).await
}

/// The values of `authorization` that a server was sent, `-` for none.
fn credentials(issuer: &FakeIssuer) -> Vec<String> {
    let value = |head: &String| {
        let line = head.lines().find_map(|line| {
            line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        });
        line.map_or("-".to_owned(), |(_, value)| value.to_owned())
    };
    issuer.requests().iter().map(value).collect()
}

#[tokio::test]
async fn the_body_decides_and_not_its_type() {
    let set = jwks(&[&key("k")]).to_string();
    let marked = format!("\u{feff}{set}");
    let with_nulls = {
        let mut set = jwks(&[&key("k")]);
        for member in ["use", "alg", "key_ops", "x5t"] {
            set["keys"][0][member] = Value::Null;
        }
        set.to_string()
    };
    let rows = [
        (Some("text/plain"), &set),
        (Some("application/octet-stream"), &set),
        (Some("binary/octet-stream"), &set),
        (Some("application/javascript; charset=utf-8"), &set),
        (Some(""), &set),
        (None, &set),
        (Some("application/json"), &marked),
        (Some("application/json"), &with_nulls),
    ];
    join_all(rows.into_iter().map(|(content_type, body)| async move {
        let headers = content_type.map(|value| ("content-type".to_owned(), value.to_owned()));
        let server =
            FakeIssuer::start(Behavior::Answer(200, headers.into_iter().collect(), body.clone().into()))
                .await;
        let service = Service::ready(&issuer(&format!("url: '{}/keys'", server.url()), "")).await;
        assert_eq!(service.bearer(&mint("i")).await.code(), "allowed", "{content_type:?} {body}");
    }))
    .await;
}

#[tokio::test]
async fn a_discovery_document_elsewhere_names_one_of_the_issuers() {
    let keys = FakeIssuer::with_keys(&[&key("k")]).await;
    let login = FakeIssuer::start(Behavior::Hang).await;
    let document =
        |issuer: &str| Behavior::json(&json!({"issuer": issuer, "jwks_uri": format!("{}/keys", keys.url())}));
    login.behave(document("https://accounts.example"));
    let text = format!(
        "issuers: [{{name: issuer, issuer: [accounts.example, 'https://accounts.example'], audiences: [], algorithms: [ES256], \
         keys: {{discovery: '{}/elsewhere?a=b'}}, refresh: {{interval: 100ms, {PATIENT}}}}}]",
        login.url()
    );
    let service = Service::ready(&text).await;
    for (iss, want) in [
        ("accounts.example", "allowed"),
        ("https://accounts.example", "allowed"),
        ("https://accounts.example/", "issuer_unknown"),
    ] {
        assert_eq!(service.bearer(&mint(iss)).await.code(), want, "{iss}");
    }
    assert!(login.requests()[0].starts_with("GET /elsewhere?a=b HTTP/1.1\r\n"));
    login.behave(document("http://accounts.example\n"));
    fails_with(&service, "issuer is \"http://accounts.example\\n\", which is not configured").await;
}

#[tokio::test]
async fn a_bearer_token_goes_to_the_configured_server_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "first\n").unwrap();
    let server = FakeIssuer::with_keys(&[&key("k")]).await;
    let other = FakeIssuer::with_keys(&[&key("k")]).await;
    let by = |way: &str, path: &str, file: &Path| {
        issuer(&format!("{way}: '{}{path}', bearer_file: '{}'", server.url(), file.display()), "")
    };
    let service = Service::ready(&by("url", "/keys", &file)).await;
    assert_eq!(credentials(&server)[0], "Bearer first");
    // The file is read for each fetch: a projected token of Kubernetes is replaced every hour.
    fs::write(&file, "second").unwrap();
    wait_until("the new token", || async { credentials(&server).contains(&"Bearer second".to_owned()) })
        .await;
    // A redirect to another server.
    let location = ("location".to_owned(), format!("{}/keys", other.url()));
    server.behave(Behavior::Answer(302, vec![location], vec![]));
    wait_until("the redirect", || async { other.fetches() > 0 }).await;
    assert!(credentials(&other).iter().all(|value| value == "-"), "{:?}", credentials(&other));
    // What is no token is sent to no server, and not shown.
    for (content, error) in [
        (&b""[..], "keys.bearer_file holds no token"),
        (b"\n", "keys.bearer_file holds no token"),
        (b"c2VjcmV0 second", "keys.bearer_file holds no token"),
        (b"c2VjcmV0\nX-Evil: 1", "keys.bearer_file holds no token"),
        (b"c2VjcmV0\xff", "keys.bearer_file holds no token"),
        (&[b'x'; 16 * 1024 + 1], "keys.bearer_file holds no token"),
    ] {
        fs::write(&file, "good").unwrap();
        wait_until("a fetch", || async { last_error(&service).await.is_empty() || server.fetches() > 0 })
            .await;
        fs::write(&file, content).unwrap();
        let said = fails_with(&service, error).await;
        assert!(!said.contains("c2VjcmV0"), "{said}");
    }
    fs::remove_file(&file).unwrap();
    fails_with(&service, "keys.bearer_file cannot be read: No such file").await;
    assert!(
        credentials(&server)
            .iter()
            .all(|value| ["Bearer first", "Bearer second", "Bearer good"].contains(&&**value))
    );

    // A discovery document that names keys on another server.
    let document = json!({"issuer": "i", "jwks_uri": format!("{}/keys", other.url())});
    let before = other.fetches();
    fs::write(&file, "third").unwrap();
    server.behave(Behavior::json(&document));
    let discovering = Service::ready(&by("discovery", "/document", &file)).await;
    assert_eq!(discovering.bearer(&mint("i")).await.code(), "allowed");
    assert_eq!(credentials(&server).last().map(String::as_str), Some("Bearer third"));
    assert!(other.fetches() > before && credentials(&other).iter().all(|value| value == "-"));
}

#[tokio::test]
async fn roots_are_read_again_when_their_file_changes() {
    let plain = FakeIssuer::with_keys(&[&key("k")]).await;
    let tls = Tls::in_front_of(&plain).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority().pem()).unwrap();
    // Each change brings a fetch by itself.
    let config =
        issuer_every("1h", &format!("url: '{}/keys'", tls.url()), &format!(", ca: '{}'", ca.display()));
    let service = Service::start(&config).await;
    fails_with(&service, "certificate").await;
    assert_eq!(service.bearer(&mint("i")).await.code(), "keys_unavailable");
    fs::write(&ca, &tls.ca).unwrap();
    wait_until("the new root", || async { service.bearer(&mint("i")).await.code() == "allowed" }).await;
    // What is no certificate is refused: the fetches go on with the roots before.
    for content in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let before = plain.fetches();
        fs::write(&ca, content).unwrap();
        wait_until("a fetch", || async { plain.fetches() > before }).await;
    }
    assert_eq!(service.bearer(&mint("i")).await.code(), "allowed");
    // A root that is taken away is no longer trusted.
    fs::write(&ca, authority().pem()).unwrap();
    fails_with(&service, "certificate").await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_read_again() {
    let plain = FakeIssuer::with_keys(&[&key("k")]).await;
    let (trusted, stranger) = (authority(), authority());
    let tls = Tls::demanding(&plain, Some(&trusted)).await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("ca.pem"), &tls.ca).unwrap();
    let write = |authority| {
        let (certificate, key) = issued_by(authority, "passage-authz");
        fs::write(at("cert.pem"), certificate.pem()).unwrap();
        fs::write(at("key.pem"), key.serialize_pem()).unwrap();
    };
    write(&stranger);
    let keys = format!(
        "url: '{}/keys', client_cert: {{cert: '{}', key: '{}'}}",
        tls.url(),
        at("cert.pem").display(),
        at("key.pem").display()
    );
    let service = Service::start(&issuer(&keys, &format!(", ca: '{}'", at("ca.pem").display()))).await;
    wait_until("a failure", || async { !last_error(&service).await.is_empty() }).await;
    assert_eq!(service.bearer(&mint("i")).await.code(), "keys_unavailable");
    write(&trusted);
    wait_until("the new certificate", || async { service.bearer(&mint("i")).await.code() == "allowed" })
        .await;
}
