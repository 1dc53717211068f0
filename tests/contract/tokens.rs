//! Where a token may stand in a request, in which form, and whose signature counts.

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{FakeIssuer, SigningKey, tampered};
use serde_json::json;

use crate::support::attacks::{RULES, ask};
use crate::support::fixtures::{APP, good, inline, key, passage};
use crate::support::{Service, header_map_request};

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
            jwk["alg"] = of_key.map_or(serde_json::Value::Null, Into::into);
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
