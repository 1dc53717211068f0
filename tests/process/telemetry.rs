//! The decision log, the log of an outage, and spans in the trace of a request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, jwks};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::fixtures::{APP, bearer, good, inline, key, passage_with, serving};
use crate::support::process::{Running, binary, file};
use crate::support::tls::{authority, issued_by};
use crate::support::{Answer, check_request, header_map_request, wait_until};

#[tokio::test]
async fn a_denial_is_one_line_and_an_allow_is_none_unless_wanted() {
    let rules = "rules: [{name: admin, match: {paths: ['/admin/*']}, require: {claims: {role: admin}}}]\n";
    for (log, lines) in [
        ("", vec![("denied", "claims_insufficient", true), ("denied", "token_missing", false)]),
        (
            "decision_log: {denied: 1, allowed: 1, subject: clear}",
            vec![
                ("denied", "claims_insufficient", true),
                ("denied", "token_missing", false),
                ("allowed", "", true),
            ],
        ),
        ("decision_log: {denied: 0}", vec![]),
    ] {
        let running = Running::start(&inline(&format!("{rules}{log}")), "info").await;
        let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
        let bearer = bearer(&good());
        let ask = async |path: &str, headers: &[(&str, &str)]| {
            let request = header_map_request("GET", "shop.example", path, headers);
            Answer::from(client.clone().check(request).await.unwrap().into_inner()).code().to_owned()
        };
        let id = ("x-request-id", "id-7");
        let code = ask("/admin/x?access_token=secret", &[("authorization", &bearer), id]).await;
        assert_eq!(code, "claims_insufficient");
        assert_eq!(ask("/", &[id]).await, "token_missing");
        assert_eq!(ask("/", &[("authorization", &bearer)]).await, "allowed");
        running.signal("-TERM").await;
        let (_, said) = running.end().await;
        let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let said: Vec<_> = said.into_iter().filter(|event| event["message"] == "decision").collect();
        assert_eq!(said.len(), lines.len(), "{log}: {said:#?}");
        for (event, (outcome, code, has_subject)) in said.iter().zip(lines) {
            assert_eq!((event["outcome"].as_str(), event["code"].as_str()), (Some(outcome), Some(code)));
            let hash = "c6c289e49e9c05b2145860387b73bcb18df43fb09a1e4a4a9713c76c88bb541b";
            let subject = if log.contains("clear") { "user-1" } else { hash };
            assert_eq!(event["sub"].as_str(), has_subject.then_some(subject), "{event}");
            assert_eq!(event["issuer"].as_str(), has_subject.then_some("passage"), "{event}");
            assert_eq!((&event["host"], &event["method"]), (&json!("shop.example"), &json!("GET")));
            if code == "claims_insufficient" {
                assert_eq!((&event["path"], &event["rule"]), (&json!("/admin/x"), &json!("admin")));
                assert_eq!(event["request_id"], "id-7");
            }
        }
    }
}

/// Which issuer a refused token names is what an operator needs to know. It is the client's text: short, on one line, without
/// a token in it.
#[tokio::test]
async fn the_log_names_the_iss_that_is_not_configured() {
    let running = Running::start(&inline(""), "info").await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let secret = good();
    let long = format!("https://{}", "a".repeat(1000));
    let with_token = format!("https://x.example/{secret}");
    let rows = [
        ("https://login.example.com/", Some("https://login.example.com/")),
        ("a\nb", Some("a\nb")),
        (long.as_str(), Some(&long[..256])),
        (with_token.as_str(), Some("https://x.example/[token]")),
    ];
    for (iss, _) in rows {
        let bearer = bearer(&key().mint(iss, |_, _| {}));
        let request = header_map_request("GET", "shop.example", "/", &[("authorization", &bearer)]);
        let answer = Answer::from(client.clone().check(request).await.unwrap().into_inner());
        assert_eq!(answer.code(), "issuer_unknown");
    }
    let expired = key().mint("app1", |_, claims| claims["exp"] = json!(1));
    let request = header_map_request("GET", "shop.example", "/", &[("authorization", &bearer(&expired))]);
    client.clone().check(request).await.unwrap();
    running.signal("-TERM").await;
    let (_, said) = running.end().await;
    let decisions: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &Value| event["message"] == "decision")
        .collect();
    assert_eq!(decisions.len(), rows.len() + 1, "one line each: {said}");
    for (event, want) in decisions.iter().zip(rows.map(|(_, want)| want).into_iter().chain([None])) {
        assert_eq!(event["iss"].as_str(), want, "{event}");
    }
}

/// In a shadow rollout each token whose identity the maps change is named once, be it verified before or not. The lines have a limit
/// of their own, and what may hold any claim is never shown in clear.
#[tokio::test]
async fn a_changed_identity_is_logged_once_for_each_token_that_is_cached() {
    let own = "identity: {headers: {x-user: {claim: sub, cut_prefix: 'a|'}, x-all: {claim: '', as: json}}}";
    let keys = jwks(&[&key()]);
    let running = Running::start(
        &format!(
            "issuers: [{{name: mapped, issuer: mapped, audiences: [], keys: {{inline: {keys}}}, {own}}}]\n\
             identity: {{headers: {{x-user: sub, x-all: sub}}}}\n\
             rules: [{{name: trial, match: {{paths: [/trial]}}, require: {{claims: {{iss: mapped}}}}, shadow: true}}]\n\
             decision_log: {{max_per_second: 2, subject: clear}}\n\
             tokens: {{cache: {{max_entries: 1000}}}}\n"
        ),
        "info",
    )
    .await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let ask = async |path: &str, sub: &str| {
        let bearer = bearer(&key().mint("mapped", |_, claims| claims["sub"] = json!(sub)));
        let request = header_map_request("GET", "shop.example", path, &[("authorization", &bearer)]);
        Answer::from(client.clone().check(request).await.unwrap().into_inner())
    };
    for (path, sub) in
        [("/", "a|1"), ("/trial", "a|1"), ("/trial", "a|1"), ("/trial", "a|2"), ("/trial", "a|2")]
    {
        assert_eq!(ask(path, sub).await.code(), "allowed");
    }
    // Two tokens were logged: denials have a limit of their own.
    for _ in 0..2 {
        assert_eq!(ask("/trial", "").await.code(), "allowed");
    }
    running.signal("-TERM").await;
    let (_, said) = running.end().await;
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changed: Vec<_> = events
        .iter()
        .filter(|event| {
            event["message"] == "identity differs from the plain claim" && event["header"] == "x-user"
        })
        .map(|event| (event["plain"].as_str().unwrap(), event["mapped"].as_str().unwrap()))
        .collect();
    assert_eq!(changed, [("a|1", "1"), ("a|2", "2")], "{said}");
    assert_eq!(events.iter().filter(|event| event["header"] == "x-all").count(), 2, "{said}");
    assert_eq!(events.iter().filter(|event| event["message"] == "decision").count(), 2, "{said}");
    for shown in ["mapped\\\"", "{\\\"", "exp\\\""] {
        assert!(!said.contains(shown), "a payload stands in the log: {said}");
    }
}

/// What an operator finds in the log of an outage, of its end, and of a rotation: what it is, since when, where the keys come from.
#[tokio::test]
async fn an_outage_and_a_rotation_are_a_few_lines_of_log_however_long() {
    let issuer = FakeIssuer::start(Behavior::Reset).await;
    let config = passage_with(&issuer, ", refresh: {interval: 100ms}");
    let mut running = Running::start(&config, "info").await;
    wait_until("ten fetches", || async { issuer.fetches() >= 10 }).await;
    running.until_logged("answered 503").await;
    issuer.behave(Behavior::keys(&[&key()]));
    running.until_ready().await;
    let next = SigningKey::shared("k2", Algorithm::Rs256);
    issuer.behave(Behavior::keys(&[&next, &key()]));
    let fetched = issuer.fetches();
    wait_until("rotated", || async { issuer.fetches() > fetched + 1 }).await;
    issuer.behave(Behavior::keys(&[&next]));
    let fetched = issuer.fetches();
    wait_until("withdrawn", || async { issuer.fetches() > fetched + 1 }).await;
    running.signal("-TERM").await;
    let (_, log) = running.end().await;
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |message: &str| events.iter().filter(|event| event["message"] == message).collect::<Vec<_>>();
    let source = format!("{}/v1/apps/{APP}/.well-known/jwks.json", issuer.url());
    for (message, level, times) in [
        ("keys cannot be fetched; trying again", "WARN", 1),
        ("the issuer's tokens are answered 503", "ERROR", 1),
        ("keys can be fetched again", "INFO", 1),
        ("the issuer's tokens can be verified again", "INFO", 1),
        ("keys changed", "INFO", 3),
    ] {
        let lines = of(message);
        assert_eq!(lines.len(), times, "{message}: {log}");
        assert!(lines.iter().all(|line| line["level"] == level && line["issuer"] == "passage"), "{log}");
        let names_source = message != "keys can be fetched again";
        assert!(!names_source || lines.iter().all(|line| line["source"] == *source), "{source}: {log}");
    }
    assert_eq!(of("the issuer's tokens are answered 503")[0]["why"], "it has no keys");
    assert!(of("the issuer's tokens are answered 503")[0]["error"].is_string(), "{log}");
    let changes: Vec<_> =
        of("keys changed").iter().map(|line| (line["added"].as_str(), line["removed"].as_str())).collect();
    assert_eq!(
        changes,
        [(Some("[\"k1\"]"), Some("[]")), (Some("[\"k2\"]"), Some("[]")), (Some("[]"), Some("[\"k1\"]"))],
        "{log}"
    );
}

/// A cluster without HTTP/2 or with the wrong transport socket is the commonest mistake in a mesh.
#[tokio::test]
async fn a_peer_that_speaks_another_protocol_is_named_with_the_remedy() {
    let ca = authority();
    let (cert, private) = issued_by(&ca, "localhost");
    let (cert, private) = (file(&cert.pem()), file(&private.serialize_pem()));
    let tls = format!(", tls: {{cert: '{}', key: '{}'}}", cert.path().display(), private.path().display());
    for (tls, bytes, spoken, advice) in [
        ("", &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], "HTTP/1.1", "appProtocol grpc"),
        ("", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03........................", "TLS", "server.tls"),
        (tls.as_str(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "plaintext", "transport socket"),
        (tls.as_str(), b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "plaintext", "transport socket"),
    ] {
        let config = file(&serving(&format!("listen: '127.0.0.1:0'{tls}"), ""));
        let mut running = Running::serve(config.path(), "info").await;
        for _ in 0..3 {
            let mut stream = TcpStream::connect(running.grpc).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        running.until_logged("another protocol").await;
        running.signal("-TERM").await;
        let (_, log) = running.end().await;
        let lines: Vec<_> = log.lines().filter(|line| line.contains("another protocol")).collect();
        assert_eq!(lines.len(), 1, "once a minute: {log}");
        let line: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!((&line["level"], &line["spoken"]), (&"WARN".into(), &spoken.into()), "{line}");
        assert!(line["advice"].as_str().unwrap().contains(advice), "{line}");
    }
}

/// Each refresh writes the keys to disk. A disk that cannot be written to is said once, and so is its end; a store that is
/// read-only by configuration is not written to.
#[tokio::test]
async fn a_key_store_that_cannot_be_written_is_said_once() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    for (read_only, warnings) in [(false, 1), (true, 0)] {
        let folder = tempfile::tempdir().unwrap();
        // No file can be renamed over a folder.
        let taken = folder.path().join("passage.jwks.json");
        std::fs::create_dir(&taken).unwrap();
        let config = format!(
            "key_store: {{path: '{}', read_only: {read_only}}}\n{}",
            folder.path().display(),
            passage_with(&issuer, ", refresh: {interval: 100ms}")
        );
        let running = Running::start(&config, "info").await;
        running.until_ready().await;
        let before = issuer.fetches();
        wait_until("ten refreshes", || async { issuer.fetches() >= before + 10 }).await;
        std::fs::remove_dir(&taken).unwrap();
        let before = issuer.fetches();
        wait_until("more refreshes", || async { issuer.fetches() >= before + 3 }).await;
        if !read_only {
            wait_until("the file", || async { taken.is_file() }).await;
        }
        running.signal("-TERM").await;
        let (_, log) = running.end().await;
        assert_eq!(taken.exists(), !read_only);
        assert_eq!(log.matches("keys cannot be kept on disk").count(), warnings, "{log}");
        assert_eq!(log.matches("keys are kept on disk again").count(), warnings, "{log}");
    }
}

/// A collector that keeps what it is sent over HTTP.
async fn collector() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let keep = Arc::clone(&keep);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    keep.lock().unwrap().extend_from_slice(&buffer[..count]);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    (address, kept)
}

#[tokio::test]
async fn a_check_is_a_span_of_the_requests_trace() {
    let (address, kept) = collector().await;
    let config = file(&serving("listen: '127.0.0.1:0'", ""));
    let start = async |exporting: bool| {
        let mut command = binary();
        command.args(["serve", "--config"]).arg(config.path()).env("RUST_LOG", "info");
        if exporting {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
        }
        Running::spawn(&mut command).await
    };
    let holds = |bytes: &[u8]| {
        let kept = kept.lock().unwrap();
        kept.windows(bytes.len()).any(|window| window == bytes)
    };
    for exporting in [false, true] {
        let running = start(exporting).await;
        let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
        let of_request = format!("00-{}-{}-01", "ab".repeat(16), "cd".repeat(8));
        let of_call = format!("00-{}-{}-01", "12".repeat(16), "34".repeat(8));
        let request = check_request(&[("traceparent", &of_request)]);
        client.clone().check(request.clone()).await.unwrap();
        let mut with_own = tonic::Request::new(request.clone());
        with_own.metadata_mut().insert("traceparent", of_call.parse().unwrap());
        client.clone().check(with_own).await.unwrap();
        let unsampled =
            check_request(&[("traceparent", &of_request.replace("ab", "ef").replace("-01", "-00"))]);
        client.clone().check(unsampled).await.unwrap();
        // No trace to belong to: the span is the root of one.
        client.clone().check(check_request(&[("authorization", "Bearer x")])).await.unwrap();
        running.signal("-TERM").await;
        let (code, log) = running.end().await;
        assert_eq!(code, Some(0), "{log}");
        // What is left is sent at the end.
        for bytes in [[0xab; 16], [0x12; 16]] {
            assert_eq!(holds(&bytes), exporting, "{bytes:x?} {log}");
        }
        assert!(!holds(&[0xef; 16]), "the caller's sampling decision is kept");
        for text in ["passage-authz", "token_missing", "token_malformed", "passage_authz.outcome"] {
            assert_eq!(holds(text.as_bytes()), exporting, "{text}");
        }
    }
    for parent in [[0xcd_u8; 8], [0x34; 8]] {
        assert!(holds(&parent), "the span hangs under its parent");
    }
}
