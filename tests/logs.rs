//! No token stands in any log, whatever the level and wherever a client puts it. A binary of its own, since the
//! subscriber that keeps the log is that of the whole process.

mod support;

use std::collections::HashSet;

use passage_authz::cli::logging;
use passage_authz::testing::log::Kept;
use passage_authz::testing::{Behavior, FakeIssuer, tampered};
use serde_json::{Value, json};
use support::fixtures::{APP, key, passage_with};
use support::{Service, get, header_map_request, raw_check_request};
use tracing_subscriber::EnvFilter;

/// A token as it may stand in a path: escaped, or its segments joined by something else.
fn wrapped(token: &str) -> Vec<String> {
    let joints = ["%2E", "%252E", ";", "/", "./", "=.", "~"];
    let mut wrapped: Vec<_> = joints.iter().map(|joint| token.replace('.', joint)).collect();
    wrapped.push(token.replacen("eyJ", "%65yJ", 3));
    wrapped.push(token.replacen("eyJ", "ey%254A", 3));
    wrapped.push(token.bytes().map(|byte| format!("%{byte:02X}")).collect());
    wrapped.push(token.split('.').next_back().unwrap_or_default().to_owned());
    wrapped
}

fn unescaped(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut read = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let byte = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.zip(piece.get(2..)) {
            Some((byte, rest)) => read.extend([&char::from(byte).to_string(), rest]),
            None => read.extend(["%", piece]),
        }
    }
    read
}

#[tokio::test]
async fn no_token_stands_in_any_log() {
    let kept = Kept::default();
    tracing::subscriber::set_global_default(logging::json(EnvFilter::new("trace"), kept.clone())).unwrap();
    let key = key();
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let source =
        "tokens: {from: [{header: authorization}, {header: x-token}, {cookie: psg_auth_token}, {query: t}]}";
    let rules = "rules: [{name: admin, match: {paths: ['/admin/*']}, require: {claims: {role: admin}}}, \
                 {name: trial, match: {paths: ['/trial/*']}, access: deny, shadow: true}]";
    let service = Service::ready(&format!(
        "http: {{listen: '127.0.0.1:0', style: forward_auth}}\n{source}\n{rules}\n\
         decision_log: {{denied: 1, allowed: 1, max_per_second: 1000000, subject: clear}}\n{}",
        passage_with(&issuer, ", audiences: [api]")
    ))
    .await;
    let iss = issuer.passage_iss(APP);
    let mint = |edit: &dyn Fn(&mut Value, &mut Value)| {
        key.mint(&iss, |header, claims| {
            claims["aud"] = json!("api");
            edit(header, claims);
        })
    };
    let good = mint(&|_, _| {});
    let tokens = [
        good.clone(),
        tampered(&good),
        format!("{good}="),
        mint(&|_, claims| claims["exp"] = json!(1)),
        mint(&|_, claims| claims["sub"] = json!("")),
        mint(&|_, claims| claims["aud"] = json!({"a": 1})),
        mint(&|header, _| header["kid"] = json!("unknown")),
        mint(&|header, _| header["alg"] = json!("none")),
        mint(&|header, _| header["crit"] = json!(["x"])),
        key.mint("stranger", |_, _| {}),
        // What the log says of a denial is itself a token.
        mint(&|header, _| header["kid"] = json!(good)),
        mint(&|_, claims| claims["aud"] = json!(good)),
        mint(&|_, claims| claims["aud"] = json!(["x", format!("Bearer {good}")])),
        key.mint(&good, |_, _| {}),
        mint(&|_, claims| claims["padding"] = json!("x".repeat(9000))),
    ];
    let client = reqwest::Client::new();
    let auth = format!("http://{}/auth", service.http.unwrap());
    for (at, token) in tokens.iter().enumerate() {
        if at == tokens.len() / 2 {
            // Half of them are looked at while the issuer fails.
            issuer.behave(Behavior::Reset);
        }
        let bearer = format!("Bearer {token}");
        let cookie = format!("psg_auth_token={token}");
        for path in ["/", "/admin/x", "/trial/x"] {
            for (name, value) in [
                ("authorization", &bearer),
                ("Authorization", token),
                ("x-token", token),
                ("cookie", &cookie),
                ("x-request-id", token),
                ("traceparent", token),
                ("x-passage-user-id", token),
                ("x-other", &bearer),
            ] {
                let headers = [(name, value.as_str())];
                service.send(header_map_request("GET", "shop.example", path, &headers)).await;
            }
            for target in
                [format!("{path}?t={token}"), format!("{path}/{token}"), format!("{path}%3Ft={token}/x")]
            {
                service.send(header_map_request("GET", "shop.example", &target, &[])).await;
                let url = format!("http://shop.example{target}");
                let request = client.get(&auth).header("x-original-method", "GET");
                let request = request.header("x-original-url", url).header("authorization", &bearer);
                request.send().await.unwrap();
            }
            for wrapped in wrapped(token) {
                let id = [("x-request-id", wrapped.as_str())];
                service.send(header_map_request("GET", &wrapped, &format!("{path}/{wrapped}/x"), &id)).await;
            }
            service.send(header_map_request(token, &format!("{token}.example"), path, &[])).await;
            service.send(header_map_request("GET", token, path, &[("authorization", &bearer)])).await;
        }
        service
            .send(raw_check_request(&[("authorization", bearer.as_bytes()), ("authorization", b"\xff")]))
            .await;
        get(service.admin, &format!("/keys?t={token}")).await;
    }
    let admin = service.admin;
    let (_, metrics) = get(admin, "/metrics").await;
    let (_, keys) = get(admin, "/keys").await;
    assert!(service.end().await.is_ok());

    let log = kept.take();
    let said: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let decisions = said.iter().filter(|event| event["message"] == "decision").count();
    assert!(decisions > 400, "{decisions}");
    assert!(said.iter().any(|event| event["sub"] == "user-1"), "the log is as talkative as it can be");
    assert!(said.iter().any(|event| event["target"] == "passage_authz::api::health"));
    let lines = log.lines().filter(|line| line.contains("\"decision\""));
    // As they stand, and as a reader may decode them.
    let lines: Vec<_> = lines.flat_map(|line| [line.to_owned(), unescaped(&unescaped(line))]).collect();
    for (at, token) in tokens.iter().enumerate() {
        let segments: Vec<_> = token.split('.').filter(|segment| segment.len() > 40).collect();
        let parts: HashSet<_> = segments.iter().flat_map(|segment| segment.as_bytes().windows(12)).collect();
        let shown = |line: &&String| line.as_bytes().windows(12).any(|part| parts.contains(part));
        assert_eq!(lines.iter().find(shown), None, "a part of token {at}");
        let segments: Vec<_> = token.split('.').filter(|segment| segment.len() > 40).collect();
        assert!(segments.len() >= 2, "{at}");
        for segment in segments {
            // Any part of it that is long enough to be of use.
            let part = &segment[..40];
            for (name, text) in [("log", &log), ("metrics", &metrics), ("keys", &keys)] {
                let place = text.find(part).map(|place| &text[place.saturating_sub(300)..place + 40]);
                assert_eq!(place, None, "token {at} in the {name}");
            }
        }
    }
}
