//! What each token comes to, and how it is said: one row for each denial.

use std::path::Path;

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::domain::denial::{Challenge, Denial};
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, jwks, tampered};
use serde_json::{Value, json};

use crate::support::fixtures::{APP, PATIENT, key, passage, passage_with};
use crate::support::process::file;
use crate::support::{Provocation, Service, get, join_all, raw_check_request, wait_until};

#[tokio::test]
async fn a_good_token_is_let_through_under_its_subject() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let service = Service::ready(&passage(&issuer)).await;
    for iss in [issuer.passage_iss(APP), APP.to_owned()] {
        let token = key().mint(&iss, |_, _| {});
        let bearer = format!("Bearer {token}");
        let cookie = format!("theme=dark; psg_auth_token={token}");
        for headers in [
            &[("authorization", bearer.as_str()), ("x-passage-user-id", "forged")][..],
            &[("cookie", cookie.as_str()), ("authorization", "Basic dTpw")],
        ] {
            let answer = service.check(headers).await;
            assert_eq!((answer.grpc_code, answer.http), (0, 200), "{answer:?}");
            assert_eq!(answer.headers, [("x-passage-user-id".to_owned(), "user-1".to_owned())]);
            assert_eq!(answer.remove.len(), 7);
            assert!(answer.remove.iter().all(|name| name.contains('_')), "{:?}", answer.remove);
            let metadata = [("iss".to_owned(), iss.clone()), ("sub".to_owned(), "user-1".to_owned())];
            assert_eq!(answer.metadata, metadata);
        }
        let raw = raw_check_request(&[("authorization", bearer.as_bytes())]);
        assert_eq!(service.send(raw).await.code(), "allowed");
    }
    assert_eq!(issuer.fetches(), 1, "no check fetches");
    assert_eq!(service.end().await.map_err(|error| error.to_string()), Ok(()));
}

/// The contract's table of answers: one row for each denial, so that a new one without a row does not
/// compile.
fn row(denial: Denial) -> (i32, u16, &'static str) {
    match denial {
        Denial::TokenMissing => (16, 401, "Bearer realm=\"shop\""),
        Denial::TokenTooLong
        | Denial::TokenMalformed
        | Denial::CriticalHeader
        | Denial::IssuerUnknown
        | Denial::AlgorithmNotAllowed
        | Denial::TypeNotAllowed
        | Denial::KeyIdMissing
        | Denial::KeyUnknown
        | Denial::SignatureInvalid
        | Denial::TokenExpired
        | Denial::TokenNotYetValid
        | Denial::AudienceMismatch
        | Denial::ClaimMissing
        | Denial::ClaimInvalid
        | Denial::ProofMissing
        | Denial::TokenRevoked => (16, 401, "Bearer realm=\"shop\", error=\"invalid_token\""),
        Denial::ClaimsInsufficient => (7, 403, "Bearer realm=\"shop\", error=\"insufficient_scope\""),
        Denial::IssuerNotAccepted | Denial::RuleDenies => (7, 403, ""),
        Denial::KeysUnavailable | Denial::RevocationUnavailable => (14, 503, ""),
        Denial::RequestMalformed => (3, 400, ""),
        Denial::RequestTooLarge => (3, 413, ""),
        Denial::RuleUnknown => (13, 500, ""),
    }
}

/// A request that ends in this denial.
fn provoke(denial: Denial, iss: &str) -> Provocation {
    use Provocation::{Empty, Large, None, Rule, Token};
    let mint = |edit: fn(&mut Value, &mut Value)| Token(key().mint(iss, edit));
    match denial {
        Denial::TokenMissing => None,
        Denial::TokenTooLong => Token("a".repeat(8193)),
        Denial::TokenMalformed => Token("a.b".to_owned()),
        Denial::CriticalHeader => mint(|header, _| header["crit"] = json!(["b64"])),
        Denial::IssuerUnknown => mint(|_, claims| claims["iss"] = json!("https://evil.example")),
        Denial::AlgorithmNotAllowed => mint(|header, _| header["alg"] = json!("none")),
        Denial::TypeNotAllowed => mint(|header, _| header["typ"] = json!("logout+jwt")),
        Denial::KeyIdMissing => mint(|header, _| drop(header.as_object_mut().unwrap().remove("kid"))),
        Denial::KeyUnknown => mint(|header, _| header["kid"] = json!("unheard-of")),
        Denial::SignatureInvalid => Token(tampered(&key().mint(iss, |_, _| {}))),
        Denial::TokenExpired => mint(|_, claims| claims["exp"] = json!(1_000_000_000)),
        Denial::TokenNotYetValid => mint(|_, claims| claims["nbf"] = json!(3_999_999_999_u64)),
        Denial::AudienceMismatch => Token(key().mint("audience", |_, claims| claims["aud"] = json!("web"))),
        Denial::ClaimMissing => mint(|_, claims| claims["sub"] = Value::Null),
        Denial::ClaimInvalid => mint(|_, claims| claims["sub"] = json!("a\r\nx-admin: 1")),
        Denial::ProofMissing => mint(|_, claims| claims["cnf"] = json!({"jkt": "x"})),
        Denial::ClaimsInsufficient => Rule("admin", key().mint(iss, |_, _| {})),
        Denial::IssuerNotAccepted => Rule("dead", key().mint(iss, |_, _| {})),
        Denial::RuleDenies => Rule("closed", key().mint(iss, |_, _| {})),
        Denial::RuleUnknown => Rule("unheard-of", key().mint(iss, |_, _| {})),
        Denial::KeysUnavailable => Token(key().mint("dead", |_, _| {})),
        Denial::TokenRevoked => mint(|_, claims| claims["sub"] = json!("gone")),
        // Of a service whose revocations are stale.
        Denial::RevocationUnavailable => Token(key().mint(iss, |_, _| {})),
        Denial::RequestMalformed => Empty,
        Denial::RequestTooLarge => Large,
    }
}

#[tokio::test]
async fn every_denial_is_answered_as_the_contract_says() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let dead = FakeIssuer::start(Behavior::Reset).await;
    let inline = jwks(&[&key()]);
    let config = format!(
        "deny: {{realm: shop}}\nissuers:\n\
         - {{name: passage, passage: {{app_id: {APP}, base_url: '{}'}}, refresh: {{{PATIENT}}}}}\n\
         - {{name: dead, issuer: dead, audiences: [], keys: {{url: '{}'}}}}\n\
         - {{name: audience, issuer: audience, audiences: [api], keys: {{inline: {inline}}}}}\n\
         rules:\n\
         - {{name: admin, match: {{hosts: [admin.example]}}, require: {{claims: {{role: admin}}}}}}\n\
         - {{name: dead, match: {{hosts: [dead.example]}}, require: {{issuers: [dead]}}}}\n\
         - {{name: closed, match: {{hosts: [closed.example]}}, access: deny}}\n",
        issuer.url(),
        dead.url()
    );
    let entry = "{\"issuer\":\"passage\",\"kind\":\"sub\",\"value\":\"gone\",\"issued_before\":4000000000,\"until\":4000000000}\n";
    let (revoked, stale) = (file(entry), file(""));
    let with_file =
        |file: &Path, more: &str| format!("{config}revocation: {{file: '{}'{more}}}\n", file.display());
    let service = Service::ready(&with_file(revoked.path(), "")).await;
    let stale_service =
        Service::ready(&with_file(stale.path(), ", when_stale: {after: 2s, then: deny}")).await;
    drop(stale);
    let good = key().mint(APP, |_, _| {});
    wait_until("stale", || async { stale_service.bearer(&good).await.code() == "revocation_unavailable" })
        .await;
    for &denial in Denial::ALL {
        let service = if denial == Denial::RevocationUnavailable { &stale_service } else { &service };
        let answer = service.send(provoke(denial, APP).request()).await;
        let (grpc_code, http, challenge) = row(denial);
        assert_eq!(answer.code(), denial.code(), "{answer:?}");
        assert_eq!((answer.grpc_code, answer.http), (grpc_code, http), "{denial:?}");
        let said = answer.header("www-authenticate").unwrap_or_default();
        let want = match denial.challenge() {
            Challenge::InvalidToken => format!("{challenge}, error_description=\"{}\"", denial.detail()),
            _ => challenge.to_owned(),
        };
        assert_eq!(said, want, "{denial:?}");
        assert_eq!(answer.header("retry-after").is_some(), http == 503, "{denial:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let body = &answer.body;
        assert_eq!(body["type"], "about:blank");
        let titles = [
            (400, "Bad Request"),
            (401, "Unauthorized"),
            (403, "Forbidden"),
            (413, "Payload Too Large"),
            (500, "Internal Server Error"),
            (503, "Service Unavailable"),
        ];
        assert!(titles.contains(&(http, body["title"].as_str().unwrap())), "{body}");
        assert_eq!((&body["status"], &body["detail"]), (&json!(http), &json!(denial.detail())));
        assert_eq!(body.as_object().unwrap().len(), 5, "{body}");
        assert!(answer.metadata.is_empty() && answer.remove.is_empty());
    }
}

#[tokio::test]
async fn without_reasons_a_bad_token_learns_nothing_more() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let service = Service::ready(&format!("deny: {{reasons: false}}\n{}", passage(&issuer))).await;
    let mut seen = Vec::new();
    for denial in [Denial::TokenMalformed, Denial::SignatureInvalid, Denial::TokenExpired] {
        let answer = service.send(provoke(denial, APP).request()).await;
        assert_eq!(answer.body["code"], "invalid_token");
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"passage-authz\", error=\"invalid_token\"")
        );
        assert_eq!(answer.body.get("detail"), None);
        seen.push(answer);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "nothing tells them apart: {seen:?}");
    assert_eq!(service.check(&[]).await.code(), "token_missing", "no token was presented: nothing to hide");
}

#[tokio::test]
async fn issuers_stand_side_by_side_with_every_kind_of_source() {
    let keys = ["a", "b", "c"].map(|kid| SigningKey::shared(kid, Algorithm::Es256));
    let [a, b, c] = &keys;
    let web = FakeIssuer::with_keys(&[a]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), jwks(&[b]).to_string()).unwrap();
    let config = format!(
        "issuers:\n\
         - {{name: url, issuer: a, audiences: [], algorithms: [ES256], keys: {{url: '{}/k'}}, refresh: {{{PATIENT}}}}}\n\
         - {{name: file, issuer: b, audiences: [], algorithms: [ES256], keys: {{file: '{}'}}, refresh: {{{PATIENT}}}}}\n\
         - {{name: inline, issuer: c, audiences: [], algorithms: [ES256], keys: {{inline: {}}}}}\n",
        web.url(),
        file.path().display(),
        jwks(&[c])
    );
    let service = Service::ready(&config).await;
    for (at, key) in keys.iter().enumerate() {
        for (other, iss) in ["a", "b", "c"].into_iter().enumerate() {
            let answer = service.bearer(&key.mint(iss, |_, _| {})).await;
            let want = if at == other { "allowed" } else { "key_unknown" };
            assert_eq!(answer.code(), want, "a key of issuer {at} under iss {iss}");
        }
    }
}

#[tokio::test]
async fn doubled_headers_are_not_a_choice() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let service = Service::ready(&passage(&issuer)).await;
    let good = format!("Bearer {}", key().mint(APP, |_, _| {}));
    let other = format!("Bearer {}", key().mint(APP, |_, claims| claims["jti"] = json!("other")));
    // The very same token is no choice either.
    for (second, want) in [(&other, "token_malformed"), (&good, "allowed")] {
        let joined = format!("{good},{second}");
        assert_eq!(service.check(&[("authorization", &joined)]).await.code(), want);
        let twice = [("authorization", good.as_bytes()), ("authorization", second.as_bytes())];
        assert_eq!(service.send(raw_check_request(&twice)).await.code(), want);
    }
    let bytes = raw_check_request(&[("authorization", b"Bearer \xff\xfe.a.b")]);
    assert_eq!(service.send(bytes).await.code(), "token_malformed");
}

#[tokio::test]
async fn a_dead_issuer_never_allows_and_readiness_says_so() {
    for behavior in [
        Behavior::Reset,
        Behavior::Hang,
        Behavior::Answer(500, vec![], vec![]),
        Behavior::json(&json!({})),
        Behavior::json(&json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]})),
        Behavior::Truncate(jwks(&[&key()]).to_string().into_bytes()),
        Behavior::Answer(200, vec![], vec![b' '; 2 << 20]),
    ] {
        let shown = format!("{behavior:.40?}");
        let issuer = FakeIssuer::start(behavior).await;
        let service = Service::start(&passage_with(&issuer, ", refresh: {timeout: 100ms, wait: 20ms}")).await;
        let answer = service.bearer(&key().mint(APP, |_, _| {})).await;
        assert_eq!((answer.code(), answer.http), ("keys_unavailable", 503), "{shown}");
        assert_eq!(get(service.admin, "/readyz").await.0, 503, "{shown}");
        assert_eq!(get(service.admin, "/livez").await.0, 200, "{shown}");
    }
}

#[tokio::test]
async fn many_at_once_share_the_first_fetch() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let service = Service::start(&passage(&issuer)).await;
    let token = key().mint(APP, |_, _| {});
    let checks = (0..100).map(|_| service.bearer(&token));
    let answers = join_all(checks).await;
    assert!(answers.iter().all(|answer| answer.code() == "allowed"));
    assert_eq!(issuer.fetches(), 1);
}
