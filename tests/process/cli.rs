//! What `verify` and `check-config` print, and how they end.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use passage_authz::testing::{Behavior, FakeIssuer, jwks, tampered};
use serde_json::{Value, json};

use crate::support::fixtures::{APP, good, inline, key, passage};
use crate::support::process::file;
use crate::support::tls::{authority, expired_by};

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str], input: &str) -> Ran {
    let mut process = Command::new(env!("CARGO_BIN_EXE_passage-authz"))
        .env_clear()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A verb that has all its arguments does not read its input, and the pipe breaks.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let output = process.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn token() -> String {
    token_until(1_800_000_000)
}

fn token_until(exp: u64) -> String {
    key().mint(APP, |_, claims| claims["exp"] = json!(exp))
}

const GOOD: &str = "\
pass  length    457 of at most 8192 bytes
pass  form
pass  crit
pass  iss       \"app1\", issuer passage
pass  alg       RS256
pass  typ       \"JWT\"
pass  kid       k1
pass  key       keys at hand: \"k1\" for RS256; from inline
pass  signature
pass  exp, nbf  the time is 2027-01-15T07:59:59Z, exp is 2027-01-15T08:00:00Z, in 1s; leeway 30 s
pass  aud       not checked: audiences is []
pass  claims    x-passage-user-id: user-1
pass  binding
pass  revoked   not checked: no revocation is configured

allow

header:
{
  \"alg\": \"RS256\",
  \"kid\": \"k1\",
  \"typ\": \"JWT\"
}

claims:
{
  \"iss\": \"app1\",
  \"sub\": \"user-1\",
  \"exp\": 1800000000
}
";

const EXPIRED: &str = "\
pass  length    457 of at most 8192 bytes
pass  form
pass  crit
pass  iss       \"app1\", issuer passage
pass  alg       RS256
pass  typ       \"JWT\"
pass  kid       k1
pass  key       keys at hand: \"k1\" for RS256; from inline
pass  signature
FAIL  exp, nbf  token_expired: The token has expired.
                the time is 2027-01-15T08:00:30Z, exp is 2027-01-15T08:00:00Z, 30s ago; leeway 30 s
  -   aud
  -   claims
  -   binding
  -   revoked

deny 401 token_expired

header, NOT verified:
{
  \"alg\": \"RS256\",
  \"kid\": \"k1\",
  \"typ\": \"JWT\"
}

claims, NOT verified:
{
  \"iss\": \"app1\",
  \"sub\": \"user-1\",
  \"exp\": 1800000000
}
";

const TAMPERED: &str = "\
pass  length    457 of at most 8192 bytes
pass  form
pass  crit
pass  iss       \"app1\", issuer passage
pass  alg       RS256
pass  typ       \"JWT\"
pass  kid       k1
pass  key       keys at hand: \"k1\" for RS256; from inline
FAIL  signature signature_invalid: The token's signature does not verify.
  -   exp, nbf
  -   aud
  -   claims
  -   binding
  -   revoked

deny 401 signature_invalid

header, NOT verified:
{
  \"alg\": \"RS256\",
  \"kid\": \"k1\",
  \"typ\": \"JWT\"
}

claims, NOT verified:
{
  \"iss\": \"app1\",
  \"sub\": \"user-1\",
  \"exp\": 1800000000
}
";

#[test]
fn verify_prints_every_step_and_never_the_signature() {
    let (file, token) = (file(&inline("")), token());
    let forged = tampered(&token);
    let path = file.path().to_str().unwrap();
    for (at, token, code, want) in [
        ("1799999999", &token, 0, GOOD),
        ("2027-01-15T07:59:59Z", &token, 0, GOOD),
        ("1800000030", &token, 1, EXPIRED),
        ("1799999999", &forged, 1, TAMPERED),
    ] {
        let ran = run(&["verify", "--config", path, "--at", at, token], "");
        assert_eq!(ran.stdout, want, "{}", ran.stderr);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""));
        let piped = run(&["verify", "--config", path, "--at", at, "-"], &format!("{token}\n"));
        assert_eq!((piped.code, piped.stdout), (ran.code, ran.stdout));
    }
}

#[test]
fn verify_speaks_json_and_names_every_fault() {
    let file = file(&inline(""));
    let path = file.path().to_str().unwrap();
    let edit = |edit: fn(&mut Value, &mut Value)| key().mint(APP, edit);
    for (token, code, failed) in [
        (edit(|_, _| {}), Value::Null, None),
        ("x".repeat(9000), json!("token_too_long"), Some("length")),
        ("a.b".to_owned(), json!("token_malformed"), Some("form")),
        (edit(|header, _| header["crit"] = json!([])), json!("critical_header"), Some("crit")),
        (edit(|_, claims| claims["iss"] = json!(1)), json!("issuer_unknown"), Some("iss")),
        (edit(|header, _| header["alg"] = json!("none")), json!("algorithm_not_allowed"), Some("alg")),
        (edit(|header, _| header["typ"] = json!("x")), json!("type_not_allowed"), Some("typ")),
        (
            edit(|header, _| drop(header.as_object_mut().unwrap().remove("kid"))),
            json!("key_id_missing"),
            Some("kid"),
        ),
        (edit(|header, _| header["kid"] = json!("\u{1b}[31m")), json!("key_unknown"), Some("key")),
        (edit(|_, claims| claims["nbf"] = json!(3e9)), json!("token_not_yet_valid"), Some("exp, nbf")),
        (edit(|_, claims| claims["sub"] = json!("")), json!("claim_invalid"), Some("claims")),
        (edit(|_, claims| claims["cnf"] = json!({"jkt": "x"})), json!("proof_missing"), Some("binding")),
    ] {
        let ran = run(&["verify", "--config", path, "--output", "json", "-"], &token);
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(said["code"], code, "{}", ran.stdout);
        assert_eq!(ran.code, Some(i32::from(!code.is_null())));
        assert_eq!(said["verdict"], if code.is_null() { "allow" } else { "deny" });
        let steps = said["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 14);
        let result = |name: &str| steps.iter().filter(|step| step["result"] == name).count();
        let fails: Vec<_> = steps
            .iter()
            .filter(|step| step["result"] == "fail")
            .map(|step| step["step"].as_str().unwrap())
            .collect();
        assert_eq!(fails, failed.into_iter().collect::<Vec<_>>());
        assert_eq!(result("pass") + result("fail") + result("skipped"), 14);
        if let Some(signature) = token.rsplit('.').next().filter(|signature| signature.len() > 20) {
            assert!(!ran.stdout.contains(signature) || token.len() == 9000);
        }
        let text = run(&["verify", "--config", path, "-"], &token).stdout;
        assert!(!text.contains('\u{1b}'), "not a terminal, and no escapes of the token's: {text:?}");
    }
}

/// What a person cannot see in a token that was copied from somewhere, or is of another kind than they think.
#[test]
fn verify_says_what_is_wrong_with_a_token() {
    let keys = jwks(&[&key()]);
    let file = file(&format!(
        "issuers: [{{name: a, issuer: app1, audiences: [api], audience_claims: [aud, azp], keys: {{inline: {keys}}}}}]"
    ));
    let path = file.path().to_str().unwrap();
    let good = key().mint(APP, |_, claims| claims["aud"] = json!("api"));
    let of_graph = key().mint(APP, |header, _| header["nonce"] = json!("x"));
    let claims = r#"{"iss":"app1","sub":"u","exp":4000000000,"aud":"api","sub":"v"}"#;
    for (token, want) in [
        (good.clone(), None),
        (format!("Bearer {good}"), None),
        (format!("  bearer   {good}\n"), None),
        (format!("DPoP {good}"), Some("DPoP is the scheme of the credentials")),
        (format!("\"{good}\""), Some("it stands in quotes")),
        (format!("psg_auth_token={good}"), Some("psg_auth_token= is the name of a cookie")),
        (good.replace('.', "=."), Some("its header is padded with =")),
        (key().sign_text(r#"{"alg":"RS256","kid":"k1"}"#, claims), Some("the member \"sub\" twice")),
        (tampered(&of_graph), Some("its header has a nonce: Microsoft")),
        (key().mint("app2", |_, _| {}), Some("iss is \"app2\"; configured: \"app1\"")),
        (
            key().mint(APP, |_, claims| claims["aud"] = json!(["web", 1])),
            Some("aud is [\"web\",1]; accepted: a text or a list of texts, with one of \"api\""),
        ),
        (
            key().mint(APP, |_, claims| claims["azp"] = json!("web")),
            Some("aud is azp: \"web\"; accepted: \"api\""),
        ),
        (key().mint(APP, |_, _| {}), Some("aud is absent; accepted: \"api\"")),
        (
            key().mint(APP, |header, _| header["alg"] = json!("RS512")),
            Some("alg is \"RS512\"; accepted: RS256"),
        ),
        (
            key().mint(APP, |header, _| header["typ"] = json!("dpop+jwt")),
            Some("typ is \"dpop+jwt\"; accepted: "),
        ),
        (
            key().mint(APP, |header, _| header["crit"] = json!(["b64"])),
            Some("crit is [\"b64\"]; accepted: no crit"),
        ),
        (
            key().mint(APP, |header, _| header["kid"] = json!("k9")),
            Some("keys at hand: \"k1\" for RS256; from inline"),
        ),
        (
            key()
                .mint(APP, |_, claims| (claims["aud"], claims["exp"]) = (json!("api"), json!(1_700_000_000))),
            Some(", exp is 2023-11-14T22:13:20Z, "),
        ),
        (
            key().mint(APP, |_, claims| {
                (claims["aud"], claims["nbf"]) = (json!("api"), json!(3_900_000_000_u64))
            }),
            Some(", nbf is 2093-08-01T21:20:00Z, in "),
        ),
        (
            key().mint(APP, |_, claims| {
                claims["aud"] = json!("api");
                claims.as_object_mut().unwrap().remove("sub");
            }),
            Some("sub is absent"),
        ),
        (
            key().mint(APP, |_, claims| (claims["aud"], claims["exp"]) = (json!("api"), json!("soon"))),
            Some("exp is \"soon\""),
        ),
        (
            key().mint(APP, |_, claims| (claims["aud"], claims["cnf"]) = (json!("api"), json!({}))),
            Some("accepted with bound_tokens: ignore"),
        ),
    ] {
        let text = run(&["verify", "--config", path, "-"], &token).stdout;
        let json: Value =
            serde_json::from_str(&run(&["verify", "--config", path, "--output", "json", "-"], &token).stdout)
                .unwrap();
        assert_eq!(json["verdict"] == "allow", want.is_none());
        match want {
            Some(want) => {
                assert!(text.contains(want), "{want}: {text}");
                assert!(json["hint"].as_str().unwrap().contains(want));
            }
            None => assert_eq!(json["hint"], Value::Null),
        }
        let signature = good.rsplit('.').next().unwrap();
        assert!(!text.contains(signature), "{text}");
    }
}

#[test]
fn verify_names_an_empty_input() {
    let file = file(&inline(""));
    for input in ["", " \n"] {
        let ran = run(&["verify", "--config", file.path().to_str().unwrap(), "-"], input);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
        assert_eq!(ran.stderr, "passage-authz: standard input holds no token\n");
    }
}

/// Which rule decides on a request, and which of the readings falls under it.
#[test]
fn verify_judges_a_request_by_the_rules() {
    let rules = "rules:\n\
        - {name: files, match: {paths: ['/files/*']}, access: public}\n\
        - {name: admin, match: {hosts: [admin.example]}, require: {claims: {role: admin}}}\n\
        - {name: closed, match: {paths: ['/closed/*']}, access: deny}\n\
        - {name: trial, match: {paths: [/trial]}, access: deny, shadow: true}\n";
    let file = file(&inline(rules));
    let path = file.path().to_str().unwrap();
    let (token, boss) =
        (token_until(4_000_000_000), key().mint(APP, |_, claims| claims["role"] = json!("admin")));
    let cookie = format!("cookie: psg_auth_token={token}");
    for (arguments, verdict, lines) in [
        (
            vec!["GET https://shop.example/x", &token],
            "allow",
            vec![
                "GET shop.example /x",
                "no rule (access: required), which decides",
                "the upstream gets x-passage-user-id: user-1",
            ],
        ),
        (vec!["GET https://shop.example/x"], "deny 401 token_missing: The request", vec!["no rule"]),
        (vec!["GET https://shop.example/x", "--header", &cookie], "allow", vec!["user-1"]),
        (
            vec!["GET https://shop.example/files/x", "a.b"],
            "allow",
            vec!["rule files (access: public), which decides", "the token is not looked at"],
        ),
        (
            vec!["GET https://shop.example/files/x"],
            "allow",
            vec!["rule files (access: public), which decides"],
        ),
        (
            vec!["GET https://shop.example/files/%2e%2e/closed/x", &token],
            "deny 403 rule_denies: This request",
            vec![
                "/closed/x",
                "rule closed (access: deny), which decides",
                "/files/%2e%2e/closed/x",
                "rule files (access: public)\n",
            ],
        ),
        (
            vec!["GET https://admin.example/x", &token],
            "deny 403 claims_insufficient",
            vec!["rule admin (access: required), which decides"],
        ),
        (vec!["GET https://admin.example/x", &boss], "allow", vec!["rule admin"]),
        (vec!["GET /x", "--header", "Host: admin.example", &boss], "allow", vec!["rule admin"]),
        (
            vec!["GET https://shop.example/trial", &token],
            "allow",
            vec!["rule trial (access: deny), which decides", "shadow: without it, 403 rule_denies"],
        ),
        (vec!["GET /x", &token], "deny 400 request_malformed", vec!["no host or no path"]),
    ] {
        let all = [&["verify", "--config", path, "--request"][..], &arguments].concat();
        let ran = run(&all, "");
        assert!(ran.stdout.contains(&format!("\n{verdict}")), "{arguments:?}: {} {}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, Some(i32::from(verdict != "allow")));
        for line in lines {
            assert!(ran.stdout.contains(line), "{arguments:?}, {line}: {}", ran.stdout);
        }
        let signature = token.rsplit('.').next().unwrap();
        assert!(!ran.stdout.contains(signature), "{}", ran.stdout);
        let json = run(&[&all[..], &["--output", "json"]].concat(), "").stdout;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["verdict"], verdict.split(' ').next().unwrap());
        assert!(json["request"]["readings"].is_array(), "{json}");
    }
}

#[test]
fn revoke_adds_an_entry_that_verify_knows() {
    let keys = jwks(&[&key()]);
    let list = file("");
    let config = file(&format!(
        "issuers:\n- {{name: a, issuer: app1, audiences: [], keys: {{inline: {keys}}}}}\n\
         - {{name: b, issuer: b, audiences: [], keys: {{inline: {keys}}}}}\n\
         revocation: {{file: '{}'}}\n",
        list.path().display()
    ));
    let path = config.path().to_str().unwrap();
    let mint = |sub: &str, jti: &str| {
        key().mint(APP, |_, claims| (claims["sub"], claims["jti"]) = (json!(sub), json!(jti)))
    };
    let verdict = |token: &str| {
        let said = run(&["verify", "--config", path, "--output", "json", token], "").stdout;
        let said: Value = serde_json::from_str(&said).unwrap();
        said["code"].as_str().unwrap_or("allow").to_owned()
    };
    let (one, two, three) = (mint("u", "1"), mint("u", "2"), mint("v", "3"));
    let revoke =
        |arguments: &[&str], input: &str| run(&[&["revoke", "--config", path], arguments].concat(), input);
    assert_eq!(verdict(&one), "allow");
    let ran = revoke(&["-"], &format!("Bearer {one}\n"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("{\"issuer\":\"a\",\"kind\":\"jti\",\"value\":\"1\","), "{}", ran.stdout);
    assert!(ran.stdout.contains("\"until\":\"2096-10-02T07:07:10"), "as long as the token: {}", ran.stdout);
    assert_eq!([&one, &two, &three].map(|token| verdict(token)), ["token_revoked", "allow", "allow"]);
    assert_eq!(revoke(&["--issuer", "a", "--subject", "u"], "").code, Some(0));
    assert_eq!([&one, &two, &three].map(|token| verdict(token)), ["token_revoked", "token_revoked", "allow"]);
    let text = run(&["verify", "--config", path, &two], "").stdout;
    assert!(text.contains("FAIL  revoked   token_revoked: The token has been revoked."), "{text}");
    let held = std::fs::read_to_string(list.path()).unwrap();
    assert_eq!(held.lines().count(), 2, "{held}");
    for (arguments, input, want) in [
        (&["--subject", "u"][..], "", "--issuer: is missing; accepted: one of a, b"),
        (&["--issuer", "c", "--subject", "u"], "", "--issuer: \"c\" is not configured"),
        (&["--issuer", "a", "--subject", ""], "", "sub: is empty"),
        (&["-"], "", "standard input holds no token"),
        (&["x.y.z"], "", "not a well-formed JSON Web Token"),
        (&[&key().mint("else", |_, _| {})], "", "issuer is not configured"),
        (&[&token()], "", "no jti"),
        (&["--issuer", "a", "--subject", &"x".repeat(20_000)], "", "the entry is longer than 16 KiB"),
        (
            &[&key().mint(APP, |_, claims| claims["jti"] = json!("x".repeat(17_000)))],
            "",
            "is longer than 16 KiB",
        ),
        (&["--issuer", "a", "--subject", "u", "--until", "1"], "", "of the past already"),
        (
            &[&key().mint(APP, |_, claims| (claims["jti"], claims["exp"]) = (json!("x"), json!(5)))],
            "",
            "of the past already",
        ),
        (&[], "", "required arguments"),
        (&["--all", "--subject", "u"], "", "cannot be used with"),
    ] {
        let ran = revoke(arguments, input);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ran.stderr.contains(want), "{want}: {}", ran.stderr);
        assert_eq!(std::fs::read_to_string(list.path()).unwrap(), held, "nothing was written");
    }
    std::fs::write(list.path(), "{}\n").unwrap();
    let ran = run(&["check-config", "--config", path], "");
    let fault = format!("revocation.file: {}: line 1: issuer is missing", list.path().display());
    assert!(ran.code == Some(2) && ran.stderr.contains(&fault), "{}", ran.stderr);
}

/// Each waits for the others, so none is lost.
#[test]
fn many_revoke_at_a_time() {
    let list = file("");
    let config = file(&inline(&format!("revocation: {{file: '{}'}}", list.path().display())));
    let path = config.path().to_str().unwrap();
    std::thread::scope(|scope| {
        for at in 0..12 {
            scope.spawn(move || {
                let ran = run(&["revoke", "--config", path, "--subject", &format!("u{at}")], "");
                assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            });
        }
    });
    assert_eq!(std::fs::read_to_string(list.path()).unwrap().lines().count(), 12);
}

#[test]
fn verify_prints_numbers_with_their_digits_and_members_in_their_order() {
    let file = file(&inline(""));
    let path = file.path().to_str().unwrap();
    let claims =
        format!(r#"{{"sub":"u","z":18446744073709551617,"iss":"{APP}","exp":4000000000,"a":[1.50,1e999]}}"#);
    let token = key().sign_text(r#"{"alg":"RS256","kid":"k1"}"#, &claims);
    for format in ["text", "json"] {
        let ran = run(&["verify", "--config", path, "--output", format, "-"], &token);
        let printed: String = ran.stdout.split_whitespace().collect();
        assert!(printed.contains(&claims), "{format}: {}", ran.stdout);
        assert_eq!(ran.code, Some(0));
    }
}

#[test]
fn verify_skips_the_steps_after_the_failed_one() {
    let keys = jwks(&[&key()]);
    let file = file(&format!(
        "issuers: [{{name: a, issuer: a, audiences: [api], keys: {{inline: {keys}}}}}]\n\
         identity: {{headers: {{x-user: sub, x-role: role}}, metadata: [org]}}\n"
    ));
    let path = file.path().to_str().unwrap();
    let labels = [
        "length",
        "form",
        "crit",
        "iss",
        "alg",
        "typ",
        "kid",
        "key",
        "signature",
        "exp, nbf",
        "aud",
        "claims",
        "binding",
        "revoked",
    ];
    let deep = format!("{}1{}", "[".repeat(17), "]".repeat(17));
    type Edit<'a> = &'a dyn Fn(&mut Value, &mut Value);
    let rows: &[(&str, Edit<'_>, &str, &str)] = &[
        ("kid of a wrong type", &|header, _| header["kid"] = json!(7), "token_malformed", "form"),
        ("alg of a wrong type", &|header, _| header["alg"] = json!(7), "token_malformed", "alg"),
        (
            "exp of a wrong type, another aud",
            &|_, claims| (claims["exp"], claims["aud"]) = (json!("tomorrow"), json!("WRONG")),
            "claim_invalid",
            "exp, nbf",
        ),
        (
            "no exp",
            &|_, claims| drop(claims.as_object_mut().unwrap().remove("exp")),
            "claim_missing",
            "exp, nbf",
        ),
        ("nbf of a wrong type", &|_, claims| claims["nbf"] = json!("x"), "claim_invalid", "exp, nbf"),
        ("another aud", &|_, claims| claims["aud"] = json!("WRONG"), "audience_mismatch", "aud"),
        ("aud of a wrong type", &|_, claims| claims["aud"] = json!(7), "claim_invalid", "aud"),
        ("sub of a wrong type", &|_, claims| claims["sub"] = json!(7), "claim_invalid", "claims"),
        (
            "no sub",
            &|_, claims| drop(claims.as_object_mut().unwrap().remove("sub")),
            "claim_missing",
            "claims",
        ),
        (
            "a claim that no header can carry",
            &|_, claims| claims["role"] = json!("a\nb"),
            "claim_invalid",
            "claims",
        ),
        (
            "a claim that is too deep for the metadata",
            &|_, claims| claims["org"] = serde_json::from_str(&deep).unwrap(),
            "claim_invalid",
            "claims",
        ),
    ];
    for (name, edit, code, failed) in rows {
        let token = key().mint("a", |header, claims| {
            claims["aud"] = json!("api");
            edit(header, claims);
        });
        let ran = run(&["verify", "--config", path, "--output", "json", "-"], &token);
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((ran.code, said["code"].as_str()), (Some(1), Some(*code)), "{name}");
        let steps = said["steps"].as_array().unwrap();
        assert_eq!(steps.len(), labels.len());
        let at = labels.iter().position(|label| label == failed).unwrap();
        for (place, (label, step)) in labels.iter().zip(steps).enumerate() {
            let want = match place.cmp(&at) {
                std::cmp::Ordering::Less => "pass",
                std::cmp::Ordering::Equal => "fail",
                std::cmp::Ordering::Greater => "skipped",
            };
            assert_eq!(
                (step["step"].as_str(), step["result"].as_str()),
                (Some(*label), Some(want)),
                "{name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_gets_its_keys_as_the_server_does() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let file = file(&passage(&issuer));
    let path = file.path().to_str().unwrap().to_owned();
    let verify = |token: String| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            run(&["verify", "--config", &path, "--at", "1700000000", "-"], &token)
        })
    };
    let ran = verify(token()).await.unwrap();
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    issuer.behave(Behavior::Reset);
    let ran = verify(token()).await.unwrap();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("FAIL  key       keys_unavailable: "), "{}", ran.stdout);
}

#[test]
fn bad_calls_end_with_2() {
    let (good, bad) = (file(&inline("")), file("issuers: 7"));
    let (good, bad) = (good.path().to_str().unwrap(), bad.path().to_str().unwrap());
    for (arguments, said) in [
        (vec!["verify", "--config", bad, "x"], "issuers: 7 is not accepted"),
        (vec!["verify", "--config", good, "--at", "tomorrow", "x"], "RFC 3339"),
        (vec!["verify", "--config", good], "TOKEN"),
        (vec!["verify", "--config", good, "--request", "/x"], "a method and a URL or a path"),
        (vec!["verify", "--config", good, "--request", "GET /x", "--at", "1"], "--at"),
        (vec!["verify", "--config", good, "--header", "a: b", "x"], "--request"),
        (vec!["check-config", "--config", bad], "issuers: 7 is not accepted"),
        (vec!["check-config", "--config", "/no/such/file"], "cannot be read"),
    ] {
        let ran = run(&arguments, "");
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
}

#[test]
fn check_config_prints_what_it_would_accept() {
    let accepted = file(
        "issuers: [{name: passage, passage: {app_id: app1, base_url: 'https://auth.example'}}]\nrules: [{name: health, match: {paths: [/healthz]}, access: public}]\n",
    );
    let first = run(&["check-config", "--config", accepted.path().to_str().unwrap()], "");
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    assert!(
        first.stdout.contains("url: https://auth.example/v1/apps/app1/.well-known/jwks.json"),
        "{}",
        first.stdout
    );
    let again = file(&first.stdout);
    let second = run(&["check-config", "--config", again.path().to_str().unwrap()], "");
    assert_eq!((second.code, second.stdout), (Some(0), first.stdout));
}

#[test]
fn check_config_warns_and_strict_makes_it_an_error() {
    let quiet =
        file("issuers: [{name: passage, passage: {app_id: app1, base_url: 'https://auth.example'}}]\n");
    let warned = file(
        "issuers: [{name: passage, passage: {app_id: app1, base_url: 'https://auth.example'}}]\nmode: shadow\n\
         rules:\n- {name: all, access: public}\n- {name: late, access: deny}\n",
    );
    let call = |file: &std::path::Path, more: &[&str]| {
        let arguments = [&["check-config", "--config", file.to_str().unwrap()], more].concat();
        run(&arguments, "")
    };
    for more in [&[][..], &["--strict"]] {
        let ran = call(quiet.path(), more);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        assert!(ran.stdout.contains("mode: enforce"), "{}", ran.stdout);
    }
    let name = warned.path().display();
    let warnings = format!(
        "passage-authz: warning: {name}:2: mode: in shadow mode a request that would be denied with 401, 403 or 503 is let \
         through; write enforce once the log denies only what it should\n\
         passage-authz: warning: {name}:4: rules[0]: rule \"all\" matches everything, so a request that no earlier rule matches \
         needs no token; narrow its match, or write access: required\n\
         passage-authz: warning: {name}:5: rules[1]: rule \"late\" is never reached, unless a route picks it by name: rule \
         \"all\" before it matches all that it matches; put it before rule \"all\", or leave it out\n"
    );
    let ran = call(warned.path(), &[]);
    assert_eq!((ran.code, &ran.stderr), (Some(0), &warnings));
    assert!(ran.stdout.contains("mode: shadow"), "{}", ran.stdout);
    let again = file(&ran.stdout);
    let said = call(again.path(), &[]).stderr;
    assert_eq!(said.matches("passage-authz: warning: ").count(), 3, "{said}");
    let ran = call(warned.path(), &["--strict"]);
    let error = format!("{warnings}passage-authz: warnings are errors by --strict: 3\n");
    assert_eq!((ran.code, ran.stdout.as_str(), &ran.stderr), (Some(2), "", &error));
}

#[test]
fn verify_says_that_shadow_mode_lets_a_bad_token_through() {
    let of = |mode: &str| {
        let config = file(&inline(&format!("mode: {mode}")));
        run(&["verify", "--config", config.path().to_str().unwrap(), "-"], &tampered(&good())).stdout
    };
    let said = "deny 401 signature_invalid\nmode is shadow: a server lets the request through all the same, without an identity\n";
    assert!(of("shadow").contains(said), "{}", of("shadow"));
    assert!(!of("enforce").contains("shadow"));
}

#[test]
fn check_config_warns_of_a_certificate_that_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = expired_by(&authority(), "localhost", Duration::from_secs(3600));
    let [cert, key] =
        [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())].map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        });
    let config = file(&inline(&format!("server: {{tls: {{cert: '{cert}', key: '{key}'}}}}")));
    let path = config.path().to_str().unwrap();
    for (arguments, code) in
        [(&["check-config", "--config", path][..], 0), (&["check-config", "--strict", "--config", path], 2)]
    {
        let ran = run(arguments, "");
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.contains("warning: server.tls.cert: it expired at "), "{}", ran.stderr);
    }
}
