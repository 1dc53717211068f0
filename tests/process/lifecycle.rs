//! The real binary: how it starts, refuses, serves and ends.

use std::time::Duration;

use crate::support::process::{Running, binary, file, wait_until};
use crate::support::{Answer, check_request, get};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

async fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = tokio::time::timeout(Duration::from_secs(20), command.output()).await;
    let output = output.expect("it ends by itself").unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_bad_configuration_ends_with_2_and_every_reason() {
    let bad = file("server: {listen: nowhere}\nissuers:\n- name: passage\n  passage: {app_idd: x}\n");
    let path = bad.path().display().to_string();
    let (code, said) = run(binary().args(["serve", "--config"]).arg(bad.path())).await;
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(
        said,
        format!(
            "passage-authz: {path}:1: server.listen: \"nowhere\" is not accepted; accepted: host:port, such as 0.0.0.0:50051 or [::1]:50051, or unix:/path/to.sock\n\
             passage-authz: {path}:4: issuers[0].passage.app_id: is missing; accepted: the app's ID: letters, digits, dashes and underscores\n\
             passage-authz: {path}:4: issuers[0].passage.app_idd: is not a known key; accepted: one of app_id, base_url\n"
        )
    );
    let not_pem = file("not a certificate");
    let ca = format!("issuers: [{{name: a, passage: {{app_id: a}}, ca: '{}'}}]", not_pem.path().display());
    for (text, want) in [
        (ca.as_str(), "passage-authz: issuer a: "),
        ("issuers: [{name: a, passage: {app_id: a}, ca: /no/such/file}]", "cannot be read"),
    ] {
        let config = file(text);
        let (code, said) = run(binary().args(["serve", "--config"]).arg(config.path())).await;
        assert!(code == Some(2) && said.contains(want), "{code:?} {said}");
    }
    let (code, said) = run(binary().arg("serve")).await;
    assert!(code == Some(2) && said.contains("PASSAGE_APP_ID"), "{said}");
    let (code, _) = run(binary().arg("surf")).await;
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn a_bad_configuration_binds_nothing() {
    // The port is free, and the configuration's fault is found only when the client is built.
    let not_pem = file("not a certificate");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = file(&format!(
        "server: {{listen: '{}'}}\nissuers: [{{name: a, passage: {{app_id: a}}, ca: '{}'}}]",
        taken.local_addr().unwrap(),
        not_pem.path().display()
    ));
    let (code, said) = run(binary().args(["serve", "--config"]).arg(config.path())).await;
    assert!(code == Some(2) && !said.contains("cannot listen"), "had it tried to bind: {said}");
}

#[tokio::test]
async fn a_taken_port_ends_with_1_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = file(&format!(
        "server: {{listen: '{address}'}}\nadmin: {{listen: '127.0.0.1:0'}}\nissuers: [{{name: a, passage: {{app_id: a}}}}]"
    ));
    let (code, said) = run(binary().args(["serve", "--config"]).arg(config.path())).await;
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("cannot listen on {address}: ")), "{said}");
}

#[tokio::test]
async fn it_serves_reports_its_health_and_drains_on_sigterm() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let issuer = FakeIssuer::start(Behavior::Hang).await;
    let config = format!(
        "issuers: [{{name: passage, passage: {{app_id: app1, base_url: '{}'}}, refresh: {{timeout: 300ms, wait: 10s}}}}]",
        issuer.url()
    );
    let running = Running::start(&config, "passage_authz=trace,info").await;
    let health = |service: &'static str| async move {
        let channel = Channel::from_shared(format!("http://{}", running.grpc)).unwrap().connect_lazy();
        let mut client = HealthClient::new(channel);
        let asked = client.check(HealthCheckRequest { service: service.to_owned() }).await;
        asked.map(|answer| answer.into_inner().status).map_err(|status| status.code())
    };
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        assert_eq!(health(service).await, Ok(NOT_SERVING), "no keys yet");
    }
    assert_eq!(health("liveness").await, Ok(SERVING), "without keys, but alive");
    assert_eq!(health("unheard.of").await, Err(tonic::Code::NotFound));
    assert_eq!(get(running.admin, "/readyz").await.0, 503);
    assert_eq!(get(running.admin, "/livez").await.0, 200);
    assert_eq!(get(running.admin, "/other").await.0, 404);

    issuer.behave(Behavior::keys(&[&key]));
    for _ in 0..500 {
        if get(running.admin, "/readyz").await.0 == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let token = key.mint("app1", |_, _| {});
    let mut client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let request = || check_request(&[("authorization", &format!("Bearer {token}"))]);
    let answer = client.check(request()).await.unwrap().into_inner();
    assert_eq!(Answer::from(answer).code(), "allowed");
    assert_eq!(health("").await, Ok(SERVING));

    // A check that waits for an unknown key is under way when the signal comes: it is answered.
    issuer.behave(Behavior::Hang);
    let before = issuer.fetches();
    let unknown = key.mint("app1", |header, _| header["kid"] = "new".into());
    let waiting = tokio::spawn({
        let mut client = client.clone();
        let request = check_request(&[("authorization", &format!("Bearer {unknown}"))]);
        async move { client.check(request).await.map(|answer| Answer::from(answer.into_inner())) }
    });
    while issuer.fetches() == before {
        tokio::task::yield_now().await;
    }
    running.signal("-TERM").await;
    let answer = waiting.await.unwrap().expect("no check is lost");
    assert_eq!(answer.code(), "keys_unavailable");
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"message\":\"drained\""), "{log}");
    for token in [token, unknown] {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!log.contains(signature) && !log.contains(&token[..20]), "a token in the log");
    }
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_drain() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let config = format!("issuers: [{{name: p, passage: {{app_id: app1, base_url: '{}'}}}}]", issuer.url());
    let running = Running::start(&config, "info").await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap());
        idle[0].check(check_request(&[])).await.unwrap();
    }
    // Silent from the start: not even a preface.
    let _silent = tokio::net::TcpStream::connect(running.grpc).await.unwrap();
    running.signal("-INT").await;
    let ended = tokio::time::timeout(Duration::from_secs(4), running.end()).await;
    let (code, log) = ended.expect("well before drain_timeout");
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test]
async fn a_watcher_of_the_health_is_told_and_does_not_hold_up_the_drain() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let config = format!("issuers: [{{name: p, passage: {{app_id: app1, base_url: '{}'}}}}]", issuer.url());
    let running = Running::start_with(&config, "info", "15s").await;
    let channel = Channel::from_shared(format!("http://{}", running.grpc)).unwrap().connect_lazy();
    let watched = HealthClient::new(channel).watch(HealthCheckRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();
    wait_until("ready", || async { get(running.admin, "/readyz").await.0 == 200 }).await;
    running.signal("-TERM").await;
    let ended = tokio::time::timeout(Duration::from_secs(8), running.end()).await;
    let (code, log) = ended.expect("well before drain_timeout");
    assert_eq!(code, Some(0), "{log}");
    let mut last = None;
    while let Ok(Some(answer)) = watched.message().await {
        last = Some(answer.status);
    }
    assert_eq!(last, Some(2), "NOT_SERVING is the last that is said");
}

#[tokio::test]
async fn the_environment_alone_serves() {
    let issuer = FakeIssuer::with_keys(&[&SigningKey::shared("k1", Algorithm::Rs256)]).await;
    let mut command = binary();
    command.arg("serve").env("PASSAGE_APP_ID", "app1").env("PASSAGE_BASE_URL", issuer.url());
    let free = |port| std::net::TcpListener::bind(("0.0.0.0", port)).is_ok();
    if !free(50051) || !free(9090) {
        // Somebody else has a default port: that it is tried is all that can be seen.
        let (code, said) = run(&mut command).await;
        assert!(code == Some(1) && said.contains("cannot listen on 0.0.0.0:"), "{said}");
        return;
    }
    let mut process = command.spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let line = log.next_line().await.unwrap().unwrap();
    assert!(line.contains("0.0.0.0:50051") && line.contains("0.0.0.0:9090"), "{line}");
    process.kill().await.unwrap();
}

#[tokio::test]
async fn an_outage_is_two_lines_of_log_however_long() {
    let issuer = FakeIssuer::start(Behavior::Reset).await;
    let config = format!(
        "issuers: [{{name: p, passage: {{app_id: app1, base_url: '{}'}}, refresh: {{interval: 100ms}}}}]",
        issuer.url()
    );
    let running = Running::start(&config, "info").await;
    let outage = async {
        while issuer.fetches() < 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        issuer.behave(Behavior::keys(&[&SigningKey::shared("k1", Algorithm::Rs256)]));
        while get(running.admin, "/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), outage).await.expect("it recovers by itself");
    running.signal("-TERM").await;
    let (_, log) = running.end().await;
    assert_eq!(log.matches("keys cannot be fetched").count(), 1, "{log}");
    assert_eq!(log.matches("keys can be fetched again").count(), 1, "{log}");
}

#[tokio::test]
async fn a_proxy_from_the_environment_is_used() {
    let proxy = FakeIssuer::with_keys(&[&SigningKey::shared("k1", Algorithm::Rs256)]).await;
    let config = file(
        "server: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}\n\
         issuers: [{name: p, passage: {app_id: app1, base_url: http://passage.test}, allow_http: true}]",
    );
    let mut command = binary();
    command.args(["serve", "--config"]).arg(config.path()).env("http_proxy", proxy.url());
    let process = command.spawn().unwrap();
    let asked = async {
        while proxy.fetches() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.expect("the proxy is asked");
    drop(process);
    let head = proxy.requests().remove(0);
    assert!(head.starts_with("GET http://passage.test/v1/apps/app1/.well-known/jwks.json "), "{head}");
}

#[tokio::test]
async fn a_reload_under_load_loses_no_check_and_a_bad_file_changes_nothing() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let config = file("");
    let write = |server: &str, rules: &str| {
        let text = format!(
            "server: {{listen: '{server}'}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
             issuers: [{{name: p, passage: {{app_id: app1, base_url: '{}'}}}}]\nrules: {rules}\n",
            issuer.url()
        );
        // As an editor saves: a new file under the old name.
        let fresh = config.path().with_extension("new");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, config.path()).unwrap();
    };
    const ANY: &str = "127.0.0.1:0";
    write(ANY, "[]");
    let running = Running::serve(config.path(), "info").await;
    let ready = || async { get(running.admin, "/readyz").await.0 == 200 };
    wait_until("ready", ready).await;
    let reloads = |result: &'static str| async move {
        let (_, text) = get(running.admin, "/metrics").await;
        let name = format!("passage_authz_config_reloads_total{{result=\"{result}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<u64>().unwrap()
    };
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let bearer = format!("Bearer {}", key.mint("app1", |_, _| {}));
    let ask = |headers: &[(&str, &str)]| {
        let (mut client, request) = (client.clone(), check_request(headers));
        async move {
            Answer::from(client.check(request).await.expect("no check fails").into_inner()).code().to_owned()
        }
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let load = {
        let (client, bearer, stop) = (client.clone(), bearer.clone(), stop.clone());
        tokio::spawn(async move {
            let mut checks = 0;
            while !stop.is_cancelled() {
                let request = check_request(&[("authorization", &bearer)]);
                let answer = client.clone().check(request).await.expect("no check fails").into_inner();
                assert_eq!(Answer::from(answer).code(), "allowed");
                checks += 1;
            }
            checks
        })
    };
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
    stop.cancel();
    assert!(load.await.unwrap() > 0);
    running.signal("-TERM").await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("rules[0].acess: is not a known key"), "{log}");
    assert!(log.contains("a change of server.listen needs a restart"), "{log}");
}

#[tokio::test]
async fn a_reload_leaves_the_keys_of_other_issuers_and_who_waits_for_them_alone() {
    let (old, new) = (SigningKey::shared("k1", Algorithm::Rs256), SigningKey::shared("k2", Algorithm::Rs256));
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
    let late = passage_authz::testing::jwks(&[&new]).to_string().into_bytes();
    issuer.behave(Behavior::Late(Duration::from_millis(1500), late));
    let before = issuer.fetches();
    let waiting = tokio::spawn(ask(new.mint("app1", |_, _| {})));
    wait_until("the fetch is under way", || async { issuer.fetches() == before + 1 }).await;
    write("[{name: all, match: {paths: [/none]}, access: deny}]");
    running.signal("-HUP").await;
    wait_until("reloaded", || async {
        get(running.admin, "/metrics").await.1.contains("passage_authz_config_reloads_total{result=\"ok\"} 1")
    })
    .await;
    assert!(!waiting.is_finished(), "the reload came while the check waited");
    assert_eq!(waiting.await.unwrap(), "allowed");
    assert_eq!(issuer.fetches(), before + 1, "a reload of rules fetches nothing");
    assert_eq!(ask(old.mint("app1", |_, _| {})).await, "key_unknown", "withdrawn, and not brought back");
}

#[tokio::test]
async fn what_is_fetched_from_this_machine_goes_through_no_proxy() {
    let issuer = FakeIssuer::with_keys(&[&SigningKey::shared("k1", Algorithm::Rs256)]).await;
    let proxy = FakeIssuer::with_keys(&[&SigningKey::shared("evil", Algorithm::Rs256)]).await;
    let config = file(&format!(
        "server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
         issuers: [{{name: p, passage: {{app_id: app1, base_url: '{}'}}}}]",
        issuer.url()
    ));
    let mut command = binary();
    command.args(["serve", "--config"]).arg(config.path());
    command.env("http_proxy", proxy.url()).env("HTTP_PROXY", proxy.url()).env("all_proxy", proxy.url());
    let _process = command.spawn().unwrap();
    wait_until("the issuer is asked", || async { issuer.fetches() + proxy.fetches() > 0 }).await;
    assert_eq!((issuer.fetches(), proxy.fetches()), (1, 0));
}

#[tokio::test]
async fn help_says_what_there_is() {
    let output = binary().args(["serve", "--help"]).output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for word in ["--config <FILE>", "PASSAGE_AUTHZ_CONFIG", "PASSAGE_APP_ID", "RUST_LOG", "Exits with 0"] {
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn checks_that_outlast_the_drain_are_cut_off_and_counted() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let config = format!(
        "issuers: [{{name: p, passage: {{app_id: app1, base_url: '{}'}}, refresh: {{timeout: 60s, wait: 10s}}}}]",
        issuer.url()
    );
    let running = Running::start_with(&config, "info", "0s").await;
    let mut client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    client
        .check(check_request(&[("authorization", &format!("Bearer {}", key.mint("app1", |_, _| {})))]))
        .await
        .unwrap();
    issuer.behave(Behavior::Hang);
    let before = issuer.fetches();
    let unknown = key.mint("app1", |header, _| header["kid"] = "new".into());
    let request = check_request(&[("authorization", &format!("Bearer {unknown}"))]);
    let waiting = tokio::spawn(async move { client.check(request).await });
    while issuer.fetches() == before {
        tokio::task::yield_now().await;
    }
    running.signal("-TERM").await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("1 checks were cut off by drain_timeout"), "{log}");
    assert!(waiting.await.unwrap().is_err(), "cut off is an error for Envoy, which denies");
}
