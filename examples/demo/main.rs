//! All of it on one machine: a Passage-like issuer, passage-authz, an upstream and a real Envoy, and a table of
//! requests sent through them.
//!
//! `cargo run --example demo` exits 0 if every request got the expected answer. With `-- --keep` all processes keep
//! running, and curl lines to try are printed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks")]

use std::error::Error;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use passage_authz::app::{Bound, Setup};
use passage_authz::config::Config;
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::domain::clock::Clock;
use passage_authz::testing::{FakeIssuer, SigningKey, tampered};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/envoy.rs"]
mod envoy;
#[path = "../../tests/support/pypi.rs"]
mod pypi;

use envoy::{Envoy, Upstream};

const APP: &str = "demo-app";
const USER: &str = "x-passage-user-id";

/// The issuer that a customer of Passage moves to. It keeps the old ID of a user in the claim `external_id`.
const SUCCESSOR: &str = "https://login.example.com";

#[tokio::main]
async fn main() -> ExitCode {
    let keep = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--keep") => true,
        Some(other) => {
            eprintln!("demo: {other:?} is not known; accepted: --keep");
            return ExitCode::from(2);
        }
    };
    match demo(keep).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("demo: a request did not come out as it should");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One request and its expected result: the user that the upstream must see, or the code of the denial.
struct Row {
    name: &'static str,
    headers: Vec<(&'static str, String)>,
    want: Result<&'static str, &'static str>,
}

async fn demo(keep: bool) -> Result<bool, Box<dyn Error>> {
    let binary = tokio::task::spawn_blocking(|| envoy::find(false)).await??;
    let key = SigningKey::generate("demo-key", Algorithm::Rs256);
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let config = format!(
        "server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
         issuers:\n\
         - {{name: passage, passage: {{app_id: {APP}, base_url: '{url}'}}}}\n\
         - {{name: successor, issuer: '{SUCCESSOR}', audiences: [orders], keys: {{url: '{url}/keys'}}, \
            identity: {{headers: {{{USER}: external_id}}}}}}\n\
         revocation: {{listen: '127.0.0.1:0', audiences: [demo]}}\n",
        url = issuer.url()
    );
    let config = Config::parse(&config, "demo.yaml")?;
    let setup = Setup { config, clock: Clock::default(), source: None, exporter: None };
    let bound = Bound::bind(setup).await?;
    let (grpc, admin) = (bound.grpc_address().clone(), bound.admin_address().clone());
    let events = bound.events_address().cloned().expect("it is configured");
    let stop = CancellationToken::new();
    let service = tokio::spawn(bound.run(stop.clone()));
    let upstream = Upstream::start().await?;
    let envoy = Envoy::start(&binary, grpc.tcp().expect("a port"), upstream.address, |config| config).await?;
    until_ready(&format!("http://{admin}/readyz")).await?;

    println!("client -> Envoy {} -> passage-authz {grpc} -> upstream {}", envoy.address, upstream.address);
    println!("keys from {}, Passage app {APP:?}\n", issuer.url());
    let now = Clock::default().now().as_secs();
    let token = |app: &str, subject: &str, exp: u64| {
        key.mint(&issuer.passage_iss(app), |_, claims| {
            (claims["sub"], claims["exp"]) = (json!(subject), json!(exp))
        })
    };
    let valid = token(APP, "user-4711", now + 3600);
    let url = format!("http://{}/orders", envoy.address);
    let moved = key.mint(SUCCESSOR, |_, claims| {
        (claims["sub"], claims["external_id"]) = (json!("new-1"), json!("user-4711"));
        (claims["aud"], claims["exp"]) = (json!("orders"), json!(now + 3600));
    });
    println!("   {:<26}{:<34}the upstream saw", "request", "the client got");
    let mut all_good = play(&url, &rows(&token, &valid, &moved, now)).await?;
    let logout = key.mint(&issuer.passage_iss(APP), |header, claims| {
        header["typ"] = json!("logout+jwt");
        *claims = json!({
            "iss": claims["iss"], "aud": "demo", "iat": now, "jti": "logout-1", "sub": "user-4711",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}}
        });
    });
    log_out(&format!("http://{events}/backchannel-logout"), &logout).await?;
    let logged_out = ("authorization", format!("Bearer {valid}"));
    let want = Err("token_revoked");
    all_good &= play(&url, &[Row { name: "valid, logged out", headers: vec![logged_out], want }]).await?;
    if keep {
        print_curl(&url, &token(APP, "user-1", now + 3600), &token(APP, "user-1", now - 3600));
        tokio::signal::ctrl_c().await?;
    }
    drop(envoy);
    stop.cancel();
    service.await??;
    Ok(all_good)
}

fn rows(token: &dyn Fn(&str, &str, u64) -> String, valid: &str, moved: &str, now: u64) -> Vec<Row> {
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let row = |name, headers, want| Row { name, headers, want };
    vec![
        row("no token", vec![], Err("token_missing")),
        row("valid, in the header", vec![bearer(valid)], Ok("user-4711")),
        row("valid, in the cookie", vec![("cookie", format!("psg_auth_token={valid}"))], Ok("user-4711")),
        row("expired", vec![bearer(&token(APP, "user-4711", now - 3600))], Err("token_expired")),
        row("tampered", vec![bearer(&tampered(valid))], Err("signature_invalid")),
        row("another app's", vec![bearer(&token("other-app", "eve", now + 3600))], Err("issuer_unknown")),
        row("valid, user ID forged", vec![bearer(valid), (USER, "admin".to_owned())], Ok("user-4711")),
        row("no token, user ID forged", vec![(USER, "admin".to_owned())], Err("token_missing")),
        row("the same user, moved", vec![bearer(moved)], Ok("user-4711")),
        row("moved, user ID forged", vec![bearer(moved), (USER, "admin".to_owned())], Ok("user-4711")),
    ]
}

/// The issuer tells the service that a user has logged out.
async fn log_out(url: &str, token: &str) -> Result<(), Box<dyn Error>> {
    let form = format!("logout_token={token}");
    let content_type = "application/x-www-form-urlencoded";
    let sent = reqwest::Client::new().post(url).header("content-type", content_type).body(form);
    sent.send().await?.error_for_status()?;
    Ok(())
}

async fn play(url: &str, rows: &[Row]) -> Result<bool, Box<dyn Error>> {
    let mut all_good = true;
    let client = reqwest::Client::new();
    for row in rows {
        let mut request = client.get(url);
        for (name, value) in &row.headers {
            request = request.header(*name, value);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let body: Value = serde_json::from_slice(&response.bytes().await?)?;
        let code = body["code"].as_str().unwrap_or_default();
        let users = envoy::seen(&body, USER);
        let good = match row.want {
            Ok(user) => status == 200 && users == [user],
            Err(want) => status == 401 && code == want,
        };
        all_good &= good;
        let saw = if status == 200 { format!("{USER}: {}", users.join(", ")) } else { "nothing".to_owned() };
        println!("{} {:<26}{:<34}{saw}", mark(good), row.name, format!("{status} {code}"));
    }
    Ok(all_good)
}

/// Coloured on a terminal, plain text in a file.
fn mark(good: bool) -> &'static str {
    match (good, std::io::stdout().is_terminal()) {
        (true, true) => "\u{1b}[32mok\u{1b}[0m",
        (false, true) => "\u{1b}[31m!!\u{1b}[0m",
        (true, false) => "ok",
        (false, false) => "!!",
    }
}

fn print_curl(url: &str, valid: &str, expired: &str) {
    println!(
        "\nTry it yourself; Ctrl-C ends it.\n\n\
         VALID={valid}\n\
         EXPIRED={expired}\n\
         curl -i {url}\n\
         curl -i {url} -H \"authorization: Bearer $VALID\"\n\
         curl -i {url} -H \"cookie: psg_auth_token=$VALID\"\n\
         curl -i {url} -H \"authorization: Bearer $EXPIRED\"\n\
         curl -i {url} -H \"authorization: Bearer $VALID\" -H \"{USER}: admin\"\n"
    );
}

async fn until_ready(url: &str) -> Result<(), Box<dyn Error>> {
    for _ in 0..200 {
        if reqwest::get(url).await?.status().is_success() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Err("the service is not ready after 2 s".into())
}
