//! A token with `cnf` is no bearer token: without a proof of its key it is denied, unless its issuer's is to be ignored.

use passage_authz::testing::{FakeIssuer, jwks};
use serde_json::{Value, json};

use crate::support::attacks::ask;
use crate::support::fixtures::{APP, USER, bearer, http_port, inline, key, passage_with};
use crate::support::{Service, get, series};

/// What a `cnf` may hold (RFC 7800 sections 3.1 to 3.6, RFC 8705 section 3.1, RFC 9449 section 6.1), and what it may not.
fn confirmations() -> Vec<Value> {
    vec![
        json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
        json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}),
        json!({"jwk": {"kty": "EC"}}),
        json!({"kid": "k1"}),
        json!({"unheard-of": 1}),
        json!({}),
        Value::Null,
        json!(""),
        json!(false),
        json!([]),
        json!(0),
        json!("c".repeat(2000)),
    ]
}

fn bound(iss: &str, confirmation: &Value) -> String {
    key().mint(iss, |_, claims| claims["cnf"] = confirmation.clone())
}

#[tokio::test]
async fn a_bound_token_is_no_bearer_token() {
    let service = Service::ready(&inline("")).await;
    for confirmation in confirmations() {
        let token = bound(APP, &confirmation);
        for round in ["verified", "cached"] {
            let answer = service.bearer(&token).await;
            assert_eq!(
                (answer.code(), answer.grpc_code, answer.http),
                ("proof_missing", 16, 401),
                "{confirmation}"
            );
            let said = answer.header("www-authenticate").unwrap();
            assert!(
                said.starts_with(
                    "Bearer realm=\"passage-authz\", error=\"invalid_token\", error_description=\""
                ),
                "{round}: {said}"
            );
        }
        let cookie = format!("psg_auth_token={token}");
        assert_eq!(service.check(&[("cookie", &cookie)]).await.code(), "proof_missing", "{confirmation}");
    }
    // A proof is not judged here, so it proves nothing.
    let token = bound(APP, &json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}));
    let answer = service.check(&[("authorization", &bearer(&token)), ("dpop", "e30.e30.AAAA")]).await;
    assert_eq!(answer.code(), "proof_missing");
    // The name of the member is `cnf`, however it is escaped, at the top, and nothing else is.
    let sign = |members: &str| {
        let payload = format!(r#"{{"iss":"{APP}","sub":"user-1","exp":4000000000,{members}}}"#);
        key().sign_text(r#"{"alg":"RS256","kid":"k1"}"#, &payload)
    };
    for (members, code) in [
        (r#""\u0063\u006e\u0066":{}"#, "proof_missing"),
        (r#""cnf":1e999"#, "proof_missing"),
        (r#""CNF":{},"cnf ":{},"/cnf":{},"o":{"cnf":{}}"#, "allowed"),
    ] {
        let token = sign(members);
        for _ in 0..2 {
            assert_eq!(service.bearer(&token).await.code(), code, "{members}");
        }
    }
}

#[tokio::test]
async fn the_fault_comes_after_all_other_claims_and_before_the_rule() {
    let text = format!(
        "issuers: [{{name: a, issuer: {APP}, audiences: [api], keys: {{inline: {}}}}}]\n\
         identity: {{headers: {{x-role: role}}, metadata: [deep]}}\n\
         rules: [{{name: admin, match: {{paths: [/admin]}}, require: {{claims: {{role: admin}}}}}}]",
        jwks(&[&key()])
    );
    let service = Service::ready(&text).await;
    let deep = (0..17).fold(json!(1), |inner, _| json!([inner]));
    type Edit<'a> = &'a dyn Fn(&mut Value);
    let rows: &[(&str, Edit<'_>)] = &[
        ("token_expired", &|claims| claims["exp"] = json!(1_000_000_000)),
        ("audience_mismatch", &|claims| claims["aud"] = json!("web")),
        ("claim_invalid", &|claims| claims["sub"] = json!("")),
        ("claim_missing", &|claims| claims["sub"] = Value::Null),
        ("claim_invalid", &|claims| claims["role"] = json!("a\nb")),
        ("claim_invalid", &|claims| claims["deep"] = deep.clone()),
        ("proof_missing", &|_| {}),
    ];
    for (code, edit) in rows {
        let token = key().mint(APP, |_, claims| {
            claims["aud"] = json!("api");
            claims["cnf"] = json!({"jkt": "x"});
            edit(claims);
        });
        for _ in 0..2 {
            let answer = ask(&service, "GET", "h", "/admin", &[("authorization", &bearer(&token))]).await;
            assert_eq!(answer.code(), *code);
        }
    }
}

#[tokio::test]
async fn an_issuer_may_say_that_its_bound_tokens_are_bearer_tokens() {
    let keys = jwks(&[&key()]);
    let text = format!(
        "issuers:\n\
         - {{name: strict, passage: {{app_id: {APP}}}, bound_tokens: verify, keys: {{inline: {keys}}}}}\n\
         - {{name: lax, issuer: lax, audiences: [], bound_tokens: ignore, keys: {{inline: {keys}}}}}\n\
         - {{name: other, issuer: other, audiences: [], keys: {{inline: {keys}}}}}\n"
    );
    let service = Service::ready(&text).await;
    for confirmation in confirmations() {
        for (iss, code) in [(APP, "proof_missing"), ("lax", "allowed"), ("other", "proof_missing")] {
            let token = bound(iss, &confirmation);
            for _ in 0..2 {
                assert_eq!(service.bearer(&token).await.code(), code, "{iss} {confirmation}");
            }
        }
    }
}

#[tokio::test]
async fn every_kind_of_rule_and_port() {
    let rules = "rules:\n\
        - {name: public, match: {paths: [/public]}, access: public}\n\
        - {name: optional, match: {paths: [/optional]}, access: optional}\n\
        - {name: trial, match: {paths: [/trial]}, shadow: true}\n\
        - {name: closed, match: {paths: [/closed]}, access: deny}\n";
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let service = Service::ready(&format!("{}{rules}", passage_with(&issuer, ""))).await;
    let token = bound(&issuer.passage_iss(APP), &json!({"jkt": "x"}));
    let bearer = bearer(&token);
    for _ in 0..2 {
        for (path, code) in [
            ("/", "proof_missing"),
            ("/public", "allowed"),
            ("/optional", "proof_missing"),
            ("/closed", "rule_denies"),
            ("/trial", "allowed"),
        ] {
            let answer = ask(&service, "GET", "h", path, &[("authorization", &bearer)]).await;
            assert_eq!(answer.code(), code, "{path}");
            if code == "allowed" {
                assert!(answer.headers.is_empty(), "{path} is anonymous: {:?}", answer.headers);
                assert!(answer.remove.contains(&USER.to_owned()), "{path}");
            }
            if path == "/trial" {
                assert_eq!(answer.metadata, [("shadow".to_owned(), "proof_missing".to_owned())]);
            }
        }
    }
    let metrics = get(service.admin, "/metrics").await.1;
    let counted = series(&metrics, "passage_authz_checks_total");
    for outcome in ["denied", "shadow_denied"] {
        let labels = format!("issuer=\"passage\",outcome=\"{outcome}\",code=\"proof_missing\"");
        assert!(
            counted.iter().any(|(found, count)| found.contains(&labels) && *count >= 2.0),
            "{labels} in {counted:?}"
        );
    }

    let service = Service::ready(&http_port("style: envoy")).await;
    let url = format!("http://{}/", service.http.unwrap());
    for _ in 0..2 {
        let request = reqwest::Client::new().get(&url).bearer_auth(bound(APP, &json!({"jkt": "x"})));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.text().await.unwrap().contains("\"proof_missing\""));
    }
}
