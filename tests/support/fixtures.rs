//! What most tests need: a key, a good token, a configuration that knows the key.

use std::sync::Arc;

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{FakeIssuer, SigningKey, jwks};

/// The Passage app of every fixture: the `iss` of its tokens.
pub(crate) const APP: &str = "app1";

/// The identity header by default.
pub(crate) const USER: &str = "x-passage-user-id";

/// `refresh` for a test that is not about waiting: the longest `wait`, and a `timeout` that a busy machine does not reach.
/// The first unknown `kid` is asked for; with a cool-down longer than `wait`, the next one is unknown at once.
pub(crate) const PATIENT: &str = "timeout: 30s, wait: 10s, unknown_kid_cooldown: 1h";

pub(crate) fn key() -> Arc<SigningKey> {
    SigningKey::shared("k1", Algorithm::Rs256)
}

/// A token of [`APP`], signed by [`key`], for the user `user-1`.
pub(crate) fn good() -> String {
    key().mint(APP, |_, _| {})
}

/// The value of an `authorization` header.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The app with its keys in the configuration: ready at once, and nothing is fetched.
pub(crate) fn inline(more: &str) -> String {
    let keys = jwks(&[&key()]);
    format!("issuers: [{{name: passage, passage: {{app_id: {APP}}}, keys: {{inline: {keys}}}}}]\n{more}\n")
}

/// The app with its keys at this issuer, fetched with patience.
pub(crate) fn passage(issuer: &FakeIssuer) -> String {
    passage_with(issuer, &format!(", refresh: {{{PATIENT}}}"))
}

/// The app with its keys at this issuer, and more settings of the issuer.
pub(crate) fn passage_with(issuer: &FakeIssuer, more: &str) -> String {
    let url = issuer.url();
    format!("issuers: [{{name: passage, passage: {{app_id: {APP}, base_url: '{url}'}}{more}}}]\n")
}

/// A whole configuration file of [`inline`], with these settings of `server`.
pub(crate) fn serving(server: &str, more: &str) -> String {
    format!("server: {{{server}, drain_timeout: 30s}}\nadmin: {{listen: '127.0.0.1:0'}}\n{}", inline(more))
}

const HTTP_RULES: &str = "rules:\n\
    - {name: assets, match: {paths: ['/assets/*']}, access: public}\n\
    - {name: shop, match: {paths: ['/shop/*']}, access: optional}\n\
    - {name: admin, match: {hosts: [admin.example]}, require: {claims: {role: admin}}}\n\
    - {name: closed, match: {paths: [/closed]}, access: deny}\n\
    - {name: trial, match: {paths: [/trial]}, access: deny, shadow: true}\n";

/// [`inline`] with a port for checks over plain HTTP, and rules of each kind of access.
pub(crate) fn http_port(settings: &str) -> String {
    format!("http: {{listen: '127.0.0.1:0', {settings}}}\n{}", inline(HTTP_RULES))
}
