//! Where a token may stand in a request, in which form, and whose signature counts.

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::domain::clock::{Clock, UnixTime};
use passage_authz::testing::{FakeIssuer, SigningKey, jwks, tampered};
use serde_json::{Value, json};

use crate::support::attacks::{RULES, ask};
use crate::support::fixtures::{APP, USER, good, inline, key, passage};
use crate::support::{Service, header_map_request};

/// Access tokens of Cognito, of Keycloak 25 and of services: the audience and the subject stand in other claims. What is then
/// read as `sub` is the subject, everywhere, of a token that is verified and of one that is remembered.
#[tokio::test]
async fn subjects_and_audiences_in_other_claims() {
    let keys = jwks(&[&key()]);
    let config = format!(
        "issuers:\n\
         - {{name: app, issuer: app1, audiences: [shop], audience_claims: [aud, client_id, azp], subject: [sub, client_id], \
           max_lifetime: 1h, keys: {{inline: {keys}}}}}\n\
         identity: {{headers: {{x-passage-user-id: sub, x-payload: {{claim: '', as: json}}}}, metadata: [iss, sub]}}\n\
         rules: [{{name: robots, match: {{paths: [/robots]}}, require: {{claims: {{sub: shop}}}}}}]\n"
    );
    let clock = Clock::stepped(UnixTime::from_secs(1_800_000_000));
    let service = Service::start_at(&config, clock).await;
    service.until_ready().await;
    type Edit = fn(&mut Value);
    let rows: [(&str, Edit, &str); 9] = [
        ("/", |c| (c["aud"], c["sub"]) = (json!("shop"), json!("ann")), "ann"),
        ("/", |c| (c["aud"], c["azp"], c["sub"]) = (json!("account"), json!("shop"), json!("ann")), "ann"),
        ("/", |c| (c["client_id"], c["sub"]) = (json!("shop"), json!("")), "shop"),
        ("/robots", |c| (c["client_id"], c["sub"]) = (json!("shop"), Value::Null), "shop"),
        ("/robots", |c| (c["client_id"], c["sub"]) = (json!("shop"), json!("ann")), "claims_insufficient"),
        ("/", |c| (c["client_id"], c["sub"]) = (json!("other"), json!("ann")), "audience_mismatch"),
        ("/", |c| (c["client_id"], c["sub"]) = (json!(["shop", 7]), json!("ann")), "claim_invalid"),
        ("/", |c| (c["azp"], c["sub"]) = (json!("shop"), Value::Null), "claim_missing"),
        (
            "/",
            |c| (c["aud"], c["sub"], c["exp"]) = (json!("shop"), json!("ann"), json!(1_800_003_601)),
            "claim_invalid",
        ),
    ];
    for (path, edit, want) in rows {
        let token = key().mint("app1", |_, claims| {
            (claims["iat"], claims["exp"]) = (json!(1_800_000_000), json!(1_800_003_600));
            edit(claims);
        });
        for round in ["verified", "remembered"] {
            let bearer = format!("Bearer {token}");
            let request = header_map_request("GET", "a.example", path, &[("authorization", &bearer)]);
            let answer = service.send(request).await;
            let got = if answer.http == 200 { answer.header(USER).unwrap() } else { answer.code() };
            assert_eq!(got, want, "{path} {round}");
            if answer.http == 200 {
                assert!(answer.metadata.iter().any(|(name, value)| name == "sub" && value.contains(want)));
                let payload: Value = serde_json::from_str(answer.header("x-payload").unwrap()).unwrap();
                assert_ne!(payload["sub"] == json!("ann"), want == "shop", "the payload is the token's own");
            }
        }
    }
    assert!(service.end().await.is_ok());
}

/// A rule's audiences hold instead of the issuer's, and a token that was good under one rule is judged again under another.
#[tokio::test]
async fn audiences_of_a_rule() {
    let keys = jwks(&[&key()]);
    let config = format!(
        "issuers: [{{name: app, issuer: app1, audiences: [shop], keys: {{inline: {keys}}}}}]\n\
         rules:\n\
         - {{name: api, match: {{paths: ['/api/*']}}, audiences: [api]}}\n\
         - {{name: both, match: {{paths: ['/both/*']}}, audiences: [api, shop]}}\n\
         - {{name: maybe, match: {{paths: ['/maybe/*']}}, access: optional, audiences: [api]}}\n"
    );
    let service = Service::ready(&config).await;
    let token = |aud: Value| key().mint("app1", |_, claims| claims["aud"] = aud);
    let tokens =
        [token(json!("shop")), token(json!("api")), token(json!(["shop", "api"])), token(Value::Null)];
    let mismatch = "audience_mismatch";
    for _ in 0..2 {
        for (path, want) in [
            ("/", ["allowed", mismatch, "allowed", "claim_invalid"]),
            ("/api/x", [mismatch, "allowed", "allowed", "claim_invalid"]),
            ("/both/x", ["allowed", "allowed", "allowed", "claim_invalid"]),
            ("/maybe/x", [mismatch, "allowed", "allowed", "claim_invalid"]),
            // One reading falls under each of two rules, so both audiences are asked for.
            ("/api/..%2fx", [mismatch, mismatch, "allowed", "claim_invalid"]),
        ] {
            for (token, want) in tokens.iter().zip(want) {
                let bearer = format!("Bearer {token}");
                let request = header_map_request("GET", "a.example", path, &[("authorization", &bearer)]);
                assert_eq!(service.send(request).await.code(), want, "{path}");
            }
            let none = service.send(header_map_request("GET", "a.example", path, &[])).await;
            assert_eq!(none.code(), if path == "/maybe/x" { "allowed" } else { "token_missing" }, "{path}");
        }
    }
    assert!(service.end().await.is_ok());
}

#[tokio::test]
async fn tokens_in_odd_places_and_odd_forms() {
    let sources = "tokens: {from: [{header: authorization}, {header: x-api-token}, {cookie: psg_auth_token}, {query: access_token}]}";
    let service = Service::ready(&inline(sources)).await;
    let good = good();
    let bad = tampered(&good);
    let bearer = |token: &str| format!("Bearer {token}");
    let cookie = |token: &str| format!("psg_auth_token={token}");
    type Row<'a> = (&'a str, Vec<(&'a str, String)>, &'a str);
    let rows: Vec<Row<'_>> = vec![
        ("allowed", vec![("authorization", bearer(&good))], "/"),
        ("allowed", vec![("authorization", format!("bEaReR {good}"))], "/"),
        ("allowed", vec![("x-api-token", good.clone())], "/"),
        ("allowed", vec![("cookie", cookie(&good))], "/"),
        ("allowed", vec![("authorization", format!("Bearer {good}, Bearer {good}"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good}, Bearer {bad}"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good},{good}"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good}\0"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good}="))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {good}."))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer .{good}"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer \"{good}\""))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer Bearer {good}"))], "/"),
        ("token_malformed", vec![("authorization", format!("Bearer {}", good.replacen('.', ".\n", 1)))], "/"),
        ("token_too_long", vec![("authorization", bearer(&"a".repeat(9000)))], "/"),
        // The first source that is present decides, and is not rescued.
        ("signature_invalid", vec![("authorization", bearer(&bad)), ("x-api-token", good.clone())], "/"),
        ("signature_invalid", vec![("authorization", bearer(&bad)), ("cookie", cookie(&good))], "/"),
        ("token_malformed", vec![("x-api-token", "x".to_owned()), ("cookie", cookie(&good))], "/"),
        ("signature_invalid", vec![("cookie", cookie(&bad))], "/?access_token=GOOD"),
        ("token_malformed", vec![("cookie", format!("{}; {}", cookie(&bad), cookie(&good)))], "/"),
        ("token_malformed", vec![("cookie", format!("{}; {}", cookie(&good), cookie(&bad)))], "/"),
        ("allowed", vec![("authorization", "Basic eDp5".to_owned()), ("cookie", cookie(&good))], "/"),
        ("allowed", vec![("authorization", "Bearer".to_owned()), ("cookie", cookie(&good))], "/"),
        ("allowed", vec![("authorization", "Bearer ".to_owned()), ("cookie", cookie(&good))], "/"),
        ("token_missing", vec![("authorization", good.clone())], "/"),
        ("token_missing", vec![("authorization", format!("Bearer{good}"))], "/"),
        ("token_missing", vec![("authorization", format!("Token {good}"))], "/"),
        ("token_missing", vec![("proxy-authorization", bearer(&good))], "/"),
        ("token_missing", vec![("cookie", format!("x=1,{}", cookie(&good)))], "/"),
        ("token_missing", vec![("cookie", format!("x{}", cookie(&good)))], "/"),
        ("token_missing", vec![("cookie2", cookie(&good))], "/"),
        ("token_malformed", vec![("cookie", format!("psg_auth_token=\"{good}\""))], "/"),
        ("token_missing", vec![("set-cookie", cookie(&good))], "/"),
        ("allowed", vec![], "/?access_token=GOOD"),
        ("allowed", vec![], "/a?b&access_token=GOOD&c=d"),
        ("allowed", vec![], "/?access_token=GOOD&access_token=GOOD"),
        ("token_malformed", vec![], "/?access_token=GOOD&access_token=x"),
        ("token_malformed", vec![], "/?access_token=GOOD#x"),
        ("token_missing", vec![], "/access_token=GOOD"),
        ("token_missing", vec![], "/?ACCESS_TOKEN=GOOD"),
        ("token_missing", vec![], "/?x=?access_token=GOOD"),
        ("token_missing", vec![], "/?%61ccess_token=GOOD"),
        ("token_missing", vec![], "/;access_token=GOOD"),
    ];
    assert!(rows.len() >= 40);
    for (want, headers, path) in rows {
        let path = path.replace("GOOD", &good);
        let borrowed: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let listed = ask(&service, "GET", "h", &path, &borrowed).await;
        assert_eq!(listed.code(), want, "{headers:?} {path}");
        // The same through header_map, as Envoy sends it with encode_raw_headers.
        let raw = service.send(header_map_request("GET", "h", &path, &borrowed)).await;
        assert_eq!(raw, listed, "{headers:?} {path}");
    }
    let optional = Service::ready(&inline(RULES)).await;
    let bearers = [bearer(&good), bearer(&bad)];
    let doubled = bearers.each_ref().map(|value| ("authorization", value.as_str()));
    let twice = header_map_request("GET", "h", "/optional/a", &doubled);
    assert_eq!(optional.send(twice).await.code(), "token_malformed", "optional is no excuse for a bad token");
    for (name, values, want) in [
        ("authorization", [bearer(&good), bearer(&bad)], "token_malformed"),
        ("x-api-token", [good.clone(), bad.clone()], "token_malformed"),
        ("authorization", [bearer(&good), bearer(&good)], "allowed"),
        ("x-api-token", [good.clone(), good.clone()], "allowed"),
    ] {
        let doubled = values.each_ref().map(|value| (name, value.as_str()));
        assert_eq!(service.send(header_map_request("GET", "h", "/", &doubled)).await.code(), want, "{name}");
    }
}

#[tokio::test]
async fn another_key_under_the_same_kid_does_not_count() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let service = Service::ready(&passage(&issuer)).await;
    let evil = SigningKey::shared("k1", Algorithm::Es256);
    for token in [
        // Another key under our kid, its algorithm said outright or hidden.
        evil.mint(APP, |_, _| {}),
        evil.mint(APP, |header, _| header["alg"] = json!("RS256")),
        evil.mint(APP, |header, _| (header["jwk"], header["alg"]) = (evil.jwk(), json!("RS256"))),
        key().mint(APP, |header, _| header["jku"] = json!("http://evil.example")).replace('.', ".."),
    ] {
        let answer = service.bearer(&token).await;
        assert!(
            ["algorithm_not_allowed", "signature_invalid", "token_malformed"].contains(&answer.code()),
            "{answer:?}"
        );
    }
    assert_eq!(issuer.fetches(), 1);
}

/// RFC 9864 names the algorithm `Ed25519`; before it, `EdDSA` alone was there.
#[tokio::test]
async fn both_names_of_ed25519() {
    let key = SigningKey::shared("ed", Algorithm::EdDsa);
    for configured in ["EdDSA", "Ed25519"] {
        for of_key in [None, Some("EdDSA"), Some("Ed25519")] {
            let mut jwk = key.jwk();
            jwk["alg"] = of_key.map_or(Value::Null, Into::into);
            let keys = json!({"keys": [jwk]});
            let text = format!(
                "issuers: [{{name: i, issuer: i, audiences: [], algorithms: [{configured}], keys: {{inline: {keys}}}}}]"
            );
            let service = Service::ready(&text).await;
            for of_token in ["EdDSA", "Ed25519"] {
                let token = key.mint("i", |header, _| header["alg"] = json!(of_token));
                let code = service.bearer(&token).await.code().to_owned();
                assert_eq!(code, "allowed", "{configured} {of_key:?} {of_token}");
            }
            let other = key.mint("i", |header, _| header["alg"] = json!("ed25519"));
            assert_eq!(service.bearer(&other).await.code(), "algorithm_not_allowed");
        }
    }
}
