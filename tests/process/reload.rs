//! A configuration that is read again while checks go on: by its file, by SIGHUP, with faults.

use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, jwks};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStderr;
use tokio::time::timeout;

use crate::support::fixtures::{APP, bearer, good, key, serving};
use crate::support::process::{Load, Running, binary, file, replace};
use crate::support::{Answer, WAIT_LIMIT, check_request, get, wait_until};

#[tokio::test]
async fn a_reload_under_load_loses_no_check_and_a_bad_file_changes_nothing() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let config = file("");
    let write = |server: &str, rules: &str| {
        let text = format!(
            "server: {{listen: '{server}'}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
             issuers: [{{name: p, passage: {{app_id: app1, base_url: '{}'}}}}]\nrules: {rules}\n",
            issuer.url()
        );
        replace(config.path(), &text);
    };
    const ANY: &str = "127.0.0.1:0";
    write(ANY, "[]");
    let running = Running::serve(config.path(), "info").await;
    running.until_ready().await;
    let reloads = async |result: &str| running.reloads(result).await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let bearer = bearer(&good());
    let ask = |headers: &[(&str, &str)]| {
        let (mut client, request) = (client.clone(), check_request(headers));
        async move {
            Answer::from(client.check(request).await.expect("no check fails").into_inner()).code().to_owned()
        }
    };
    let load = Load::start(client.clone(), &bearer);
    assert_eq!(ask(&[]).await, "token_missing");

    // By the file alone, then by SIGHUP.
    write(ANY, "[{name: all, access: public}]");
    wait_until("the file is seen", || async { reloads("ok").await == 1 }).await;
    assert_eq!(ask(&[]).await, "allowed", "from the swap on the new rules count");
    write(ANY, "[{name: all, access: optional}]");
    running.signal("-HUP").await;
    wait_until("SIGHUP is heard", || async { reloads("ok").await == 2 }).await;
    assert_eq!(ask(&[("authorization", "Bearer x")]).await, "token_malformed");

    // Refused: a bad rule, a file that is none, a change that needs a restart. The rules stay.
    for (server, rules) in [(ANY, "[{name: all, acess: public}]"), (ANY, "{["), ("127.0.0.1:1", "[]")] {
        let before = reloads("failed").await;
        write(server, rules);
        wait_until("the refusal is counted", || async { reloads("failed").await > before }).await;
        assert_eq!(ask(&[("authorization", "Bearer x")]).await, "token_malformed");
        assert_eq!(ask(&[]).await, "allowed");
    }
    assert!(load.stop().await > 0);
    running.signal("-TERM").await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("rules[0].acess: is not a known key"), "{log}");
    assert!(log.contains("a change of server.listen needs a restart"), "{log}");
}

#[tokio::test]
async fn a_reload_leaves_the_keys_of_other_issuers_and_the_checks_that_wait_for_them_alone() {
    let (old, new) = (key(), SigningKey::shared("k2", Algorithm::Rs256));
    let issuer = FakeIssuer::with_keys(&[&old]).await;
    let config = file("");
    let write = |rules: &str| {
        let text = format!(
            "server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\nissuers: [{{name: p, passage: \
             {{app_id: app1, base_url: '{}'}}, refresh: {{wait: 10s, timeout: 20s, unknown_kid_cooldown: 1h}}}}]\nrules: {rules}\n",
            issuer.url()
        );
        std::fs::write(config.path(), text).unwrap();
    };
    write("[]");
    let running = Running::serve(config.path(), "info").await;
    wait_until("ready", || async { get(running.admin, "/readyz").await.0 == 200 }).await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let ask = |token: String| {
        let mut client = client.clone();
        async move {
            let request = check_request(&[("authorization", &format!("Bearer {token}"))]);
            Answer::from(client.check(request).await.unwrap().into_inner()).code().to_owned()
        }
    };
    // A check waits for a key whose fetch is under way; the reload comes in between.
    let late = jwks(&[&new]).to_string().into_bytes();
    issuer.behave(Behavior::Late(Duration::from_secs(5), late));
    let before = issuer.fetches();
    let waiting = tokio::spawn(ask(new.mint(APP, |_, _| {})));
    wait_until("the fetch is under way", || async { issuer.fetches() == before + 1 }).await;
    write("[{name: all, match: {paths: [/none]}, access: deny}]");
    running.signal("-HUP").await;
    wait_until("reloaded", || async { running.reloads("ok").await == 1 }).await;
    assert!(!waiting.is_finished(), "the reload came while the check waited");
    assert_eq!(waiting.await.unwrap(), "allowed");
    assert_eq!(issuer.fetches(), before + 1, "a reload of rules fetches nothing");
    assert_eq!(ask(old.mint(APP, |_, _| {})).await, "key_unknown", "withdrawn, and not brought back");
}

#[tokio::test]
async fn a_reload_changes_what_a_cached_token_may_do() {
    let config = |more: &str| {
        serving("listen: '127.0.0.1:0'", &format!("tokens: {{cache: {{max_entries: 1000}}}}\n{more}"))
    };
    let file = file(&config(""));
    let running = Running::serve(file.path(), "info").await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let token = good();
    let ask = || async {
        let request = check_request(&[("authorization", &format!("Bearer {token}"))]);
        Answer::from(client.clone().check(request).await.unwrap().into_inner())
    };
    assert_eq!(ask().await.code(), "allowed");
    assert_eq!(ask().await.code(), "allowed");
    for (more, code) in [
        ("rules: [{name: a, require: {claims: {role: admin}}}]\n", "claims_insufficient"),
        ("identity: {headers: {x-user: email}}\n", "allowed"),
        ("", "allowed"),
    ] {
        std::fs::write(file.path(), config(more)).unwrap();
        running.signal("-HUP").await;
        let user = if more.starts_with("identity") { None } else { Some("user-1") };
        wait_until("reloaded", || async {
            let answer = ask().await;
            answer.code() == code && (code != "allowed" || answer.header("x-passage-user-id") == user)
        })
        .await;
    }
    let other = config("").replace(APP, "app2");
    std::fs::write(file.path(), other).unwrap();
    running.signal("-HUP").await;
    wait_until("another app", || async { ask().await.code() == "issuer_unknown" }).await;
}

#[tokio::test]
async fn a_warning_is_logged_at_the_start_and_at_each_reload() {
    async fn until(log: &mut Lines<BufReader<ChildStderr>>, message: &str) -> Vec<Value> {
        let mut said = Vec::new();
        while said.last().is_none_or(|event: &Value| event["message"] != message) {
            let line = timeout(WAIT_LIMIT, log.next_line()).await.expect(message).unwrap().expect(message);
            said.push(serde_json::from_str(&line).unwrap());
        }
        said
    }
    let config = |more: &str| serving("listen: '127.0.0.1:0'", more);
    let file = file(&config("mode: shadow"));
    let mut command = binary();
    command.args(["serve", "--config"]).arg(file.path()).env("RUST_LOG", "info");
    let mut process = command.spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let said = until(&mut log, "listening").await;
    let [warning, .., started] = said.as_slice() else { panic!("{said:?}") };
    // What runs: two lines of two configurations differ in their digest, whatever else is the same.
    let shown = |line: &Value| {
        assert_eq!((&line["issuers"], line["file"].as_str()), (&"passage".into(), file.path().to_str()));
        let sha256 = line["sha256"].as_str().unwrap().to_owned();
        assert_eq!(sha256.len(), 64);
        (line["mode"].as_str().unwrap().to_owned(), line["rules"].as_u64().unwrap(), sha256)
    };
    let (mode, rules, mut digest) = shown(started);
    assert_eq!((mode.as_str(), rules), ("shadow", 0));
    assert_eq!(
        (&warning["level"], &warning["key"], &warning["line"]),
        (&"WARN".into(), &"mode".into(), &4.into())
    );
    assert_eq!(warning["file"], file.path().to_str().unwrap());
    let of = |name: &str| warning[name].as_str().unwrap_or_default();
    assert!(of("warning").starts_with("in shadow mode a request"), "{warning}");
    assert!(of("advice").starts_with("write enforce"), "{warning}");
    assert_eq!(said.iter().filter(|event| event["message"] == warning["message"]).count(), 1);

    let rule = config("rules: [{name: all, access: public}]");
    for (text, ends, key) in [
        (&rule, "configuration reloaded", Some("rules[0]")),
        (&config(""), "configuration reloaded", None),
        // A configuration that is refused is not warned of.
        (
            &rule.replace("drain_timeout: 30s", "drain_timeout: 29s"),
            "the new configuration is refused, the old one goes on",
            None,
        ),
    ] {
        std::fs::write(file.path(), text).unwrap();
        let id = process.id().unwrap().to_string();
        assert!(tokio::process::Command::new("kill").args(["-HUP", &id]).status().await.unwrap().success());
        let said = until(&mut log, ends).await;
        let keys: Vec<_> =
            said.iter().filter(|event| event["level"] == "WARN").map(|event| event["key"].as_str()).collect();
        assert_eq!(keys, key.map(Some).into_iter().collect::<Vec<_>>(), "{said:?}");
        if ends == "configuration reloaded" {
            let (mode, rules, other) = shown(said.last().unwrap());
            assert_eq!((mode.as_str(), rules), ("enforce", u64::from(key.is_some())));
            assert_ne!(other, digest);
            digest = other;
        }
    }
}

/// A table of users is a part of the configuration: a new one is in force without a lost check, a damaged one changes nothing.
#[tokio::test]
async fn a_table_of_users_that_changes_is_read_again() {
    let table = file("new-1,old-7\n");
    let header = format!(
        "identity: {{headers: {{x-passage-user-id: {{claim: sub, cut_prefix: 'auth0|', map: '{}'}}}}}}",
        table.path().display()
    );
    let config = file(&serving("listen: '127.0.0.1:0'", &header));
    let running = Running::serve(config.path(), "info").await;
    running.until_ready().await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let user = async |sub: &str| {
        let bearer = bearer(&key().mint(APP, |_, claims| claims["sub"] = Value::from(sub)));
        let answer = client.clone().check(check_request(&[("authorization", &bearer)])).await.unwrap();
        Answer::from(answer.into_inner()).header("x-passage-user-id").map(str::to_owned)
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(user("auth0|new-1").await, some("old-7"));
    assert_eq!(user("new-1").await, some("old-7"));
    assert_eq!(user("auth0|new-2").await, some("new-2"));
    assert_eq!(user("old-7").await, None, "another user's");

    let replace = |text: &str| replace(table.path(), text);
    let load = Load::start(client.clone(), &bearer(&good()));
    replace("new-1,old-7\nnew-2,old-8\n");
    wait_until("the new table", || async { user("new-2").await == some("old-8") }).await;
    let refused = async |times: u64| {
        wait_until("a refused reload", || async { running.reloads("failed").await == times }).await;
        let users = [user("new-1").await, user("new-2").await, user("old-7").await];
        assert_eq!(users, [some("old-7"), some("old-8"), None], "as before");
    };
    replace("new-1,old-9\nnew-1,old-7\n");
    refused(1).await;
    // Written in place, it is empty for a while.
    std::fs::write(table.path(), "").unwrap();
    refused(2).await;
    // Cut off in the last line, whose value is that of another user then.
    replace("new-1,old-7\nnew-2,old-88\nnew-3,old-8");
    refused(3).await;
    replace("new-1,old-9\n");
    wait_until("a good table again", || async { user("new-1").await == some("old-9") }).await;
    assert!(load.stop().await > 0);
    running.signal("-TERM").await;
    let (_, log) = running.end().await;
    assert!(log.contains("lines 1 and 2 have the same key"), "{log}");
    assert!(log.contains("has no line break at its end and had one before"), "{log}");
    assert_eq!(log.matches("the old one goes on").count(), 3, "once each, not each second: {log}");
}

/// What mends a refused configuration may be a file that only that configuration names.
#[tokio::test]
async fn a_file_that_only_a_refused_configuration_names_is_watched() {
    let table = file("new-1,old-7\nnew-1,old-8\n");
    let map = format!("identity: {{headers: {{x-user: {{claim: sub, map: '{}'}}}}}}", table.path().display());
    let config = file(&serving("listen: '127.0.0.1:0'", ""));
    let running = Running::serve(config.path(), "info").await;
    running.until_ready().await;
    replace(config.path(), &serving("listen: '127.0.0.1:0'", &map));
    wait_until("the table is refused", || async { running.reloads("failed").await == 1 }).await;
    replace(table.path(), "new-1,old-7\n");
    wait_until("the table is read again", || async { running.reloads("ok").await == 1 }).await;
    assert_eq!(running.reloads("failed").await, 1);
}

/// Under another name its tokens would be good again.
#[tokio::test]
async fn an_issuer_that_revocations_name_is_not_taken_away() {
    let list = file(
        "{\"issuer\":\"passage\",\"kind\":\"sub\",\"value\":\"user-1\",\"issued_before\":4000000000,\"until\":4000000000}\n",
    );
    let text =
        serving("listen: '127.0.0.1:0'", &format!("revocation: {{file: '{}'}}", list.path().display()));
    let config = file(&text);
    let mut running = Running::serve(config.path(), "info").await;
    running.until_ready().await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let code = async || {
        let request = check_request(&[("authorization", &bearer(&good()))]);
        Answer::from(client.clone().check(request).await.unwrap().into_inner()).code().to_owned()
    };
    assert_eq!(code().await, "token_revoked");
    replace(config.path(), &text.replace("name: passage", "name: renamed"));
    running.until_logged("issuers: passage is named by revocation.file, and is missing").await;
    assert_eq!(code().await, "token_revoked");
    let other_subject = text.replace("keys: {inline", "subject: [oid, sub], keys: {inline");
    replace(config.path(), &other_subject.replace("deny:", "# deny:"));
    let refused = async || running.reloads("failed").await;
    wait_until("refused", || async { refused().await >= 2 }).await;
    assert_eq!(code().await, "token_revoked");
    // Another change is taken, and the revocations stay.
    replace(config.path(), &format!("{text}deny: {{realm: other}}\n"));
    running.until_logged("configuration reloaded").await;
    assert_eq!(code().await, "token_revoked");
    replace(config.path(), &text.replace("revocation:", "# revocation:"));
    running.until_logged("a change of revocation needs a restart").await;
    assert_eq!(code().await, "token_revoked");
}

/// What the file names may be configured by now.
#[tokio::test]
async fn revocations_that_were_refused_are_tried_again_though_the_file_has_not_changed() {
    let entry = |issuer: &str| {
        format!(
            "{{\"issuer\":\"{issuer}\",\"kind\":\"issuer\",\"issued_before\":4000000000,\"until\":4000000000}}\n"
        )
    };
    let list = file("");
    let text =
        serving("listen: '127.0.0.1:0'", &format!("revocation: {{file: '{}'}}", list.path().display()));
    let config = file(&text);
    let mut running = Running::serve(config.path(), "info").await;
    replace(list.path(), &entry("renamed"));
    running.until_logged("line 1: issuer \\\"renamed\\\" is not configured").await;
    replace(config.path(), &text.replace("name: passage", "name: renamed"));
    running.until_logged("configuration reloaded").await;
    running.until_logged("revocations were read again").await;
}
