//! The real binary: how it starts, refuses, serves and ends.

use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::fixtures::{APP, bearer, good, inline, key, passage, passage_with};
use crate::support::process::{Running, binary, file};
use crate::support::{Answer, WAIT_LIMIT, check_request, check_token, get, wait_until};

async fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = tokio::time::timeout(WAIT_LIMIT, command.output()).await;
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
            "passage-authz: {path}:1: server.listen: \"nowhere\" is not accepted; accepted: host:port, such as '[::]:50051' or 127.0.0.1:50051, or unix:/path/to.sock\n\
             passage-authz: {path}:4: issuers[0].passage.app_id: is missing; accepted: the app's ID: letters, digits, dashes and underscores\n\
             passage-authz: {path}:4: issuers[0].passage.app_idd: is not a known key (perhaps app_id); accepted: one of app_id, base_url\n"
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
    let issuer = FakeIssuer::start(Behavior::Hang).await;
    let config = passage_with(&issuer, ", refresh: {timeout: 2s, wait: 10s}");
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

    issuer.behave(Behavior::keys(&[&key()]));
    running.until_ready().await;
    let token = good();
    let mut client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let request = || check_request(&[("authorization", &bearer(&token))]);
    let answer = client.check(request()).await.unwrap().into_inner();
    assert_eq!(Answer::from(answer).code(), "allowed");
    assert_eq!(health("").await, Ok(SERVING));

    // A check that waits for an unknown key is under way when the signal comes: it is answered.
    issuer.behave(Behavior::Hang);
    let before = issuer.fetches();
    let unknown = key().mint(APP, |header, _| header["kid"] = "new".into());
    let waiting = tokio::spawn({
        let mut client = client.clone();
        let request = check_request(&[("authorization", &bearer(&unknown))]);
        async move { client.check(request).await.map(|answer| Answer::from(answer.into_inner())) }
    });
    wait_until("the fetch is under way", || async { issuer.fetches() > before }).await;
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
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let running = Running::start(&passage(&issuer), "info").await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap());
        idle[0].check(check_request(&[])).await.unwrap();
    }
    // Silent from the start: not even a preface.
    let _silent = TcpStream::connect(running.grpc).await.unwrap();
    running.signal("-INT").await;
    let ended = tokio::time::timeout(Duration::from_secs(25), running.end()).await;
    let (code, log) = ended.expect("well before the drain_timeout of 30 s");
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test]
async fn a_watcher_of_the_health_is_told_and_does_not_hold_up_the_drain() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let running = Running::start(&passage(&issuer), "info").await;
    let channel = Channel::from_shared(format!("http://{}", running.grpc)).unwrap().connect_lazy();
    let watched = HealthClient::new(channel).watch(HealthCheckRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();
    running.until_ready().await;
    running.signal("-TERM").await;
    let ended = tokio::time::timeout(Duration::from_secs(25), running.end()).await;
    let (code, log) = ended.expect("well before the drain_timeout of 30 s");
    assert_eq!(code, Some(0), "{log}");
    let mut last = None;
    while let Ok(Some(answer)) = watched.message().await {
        last = Some(answer.status);
    }
    assert_eq!(last, Some(2), "NOT_SERVING is the last that is said");
}

#[tokio::test]
async fn the_environment_alone_serves() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let mut command = binary();
    command.arg("serve").env("PASSAGE_APP_ID", "app1").env("PASSAGE_BASE_URL", issuer.url());
    let free = |port| std::net::TcpListener::bind(("::", port)).is_ok();
    if !free(50051) || !free(9090) {
        // Another process has a default port: that it is tried is all that can be seen.
        let (code, said) = run(&mut command).await;
        assert!(code == Some(1) && said.contains("cannot listen on [::]:"), "{said}");
        return;
    }
    let mut process = command.spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let line = log.next_line().await.unwrap().unwrap();
    assert!(line.contains("[::]:50051") && line.contains("[::]:9090"), "{line}");
    for host in ["127.0.0.1", "[::1]"] {
        let answer = reqwest::get(format!("http://{host}:9090/livez")).await.unwrap();
        assert_eq!(answer.status(), 200, "{host}");
        AuthorizationClient::connect(format!("http://{host}:50051")).await.unwrap();
    }
    process.kill().await.unwrap();
}

#[tokio::test]
async fn a_proxy_from_the_environment_is_used() {
    let proxy = FakeIssuer::with_keys(&[&key()]).await;
    let config = file(
        "server: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}\n\
         issuers: [{name: p, passage: {app_id: app1, base_url: http://passage.test}, allow_http: true}]",
    );
    let mut command = binary();
    command.args(["serve", "--config"]).arg(config.path()).env("http_proxy", proxy.url());
    let process = command.spawn().unwrap();
    wait_until("the proxy is asked", || async { proxy.fetches() > 0 }).await;
    drop(process);
    let head = proxy.requests().remove(0);
    assert!(head.starts_with("GET http://passage.test/v1/apps/app1/.well-known/jwks.json "), "{head}");
}

#[tokio::test]
async fn what_is_fetched_from_this_machine_goes_through_no_proxy() {
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let proxy = FakeIssuer::with_keys(&[&SigningKey::shared("evil", Algorithm::Rs256)]).await;
    let config =
        format!("server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\n{}", passage(&issuer));
    let config = file(&config);
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
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let config = passage_with(&issuer, ", refresh: {timeout: 60s, wait: 10s}");
    let running = Running::start_with(&config, "info", "0s").await;
    let mut client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    check_token(&client, &good()).await.unwrap();
    issuer.behave(Behavior::Hang);
    let before = issuer.fetches();
    let unknown = key().mint(APP, |header, _| header["kid"] = "new".into());
    let request = check_request(&[("authorization", &bearer(&unknown))]);
    let waiting = tokio::spawn(async move { client.check(request).await });
    wait_until("the fetch is under way", || async { issuer.fetches() > before }).await;
    running.signal("-TERM").await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("1 checks were cut off by drain_timeout"), "{log}");
    assert!(waiting.await.unwrap().is_err(), "cut off is an error for Envoy, which denies");
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_a_taken_port_is_named() {
    let running = Running::start_with(&inline(""), "info", "1m").await;
    // A check whose message never comes keeps the drain waiting.
    let stream = TcpStream::connect(running.grpc).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://a/envoy.service.auth.v3.Authorization/Check")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let _open = send.send_request(request, false).unwrap();
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    assert_eq!(check_token(&client, &good()).await.unwrap().code(), "allowed");

    for (listen, key) in [("server", "server.listen"), ("admin", "admin.listen")] {
        let taken = if listen == "server" { running.grpc } else { running.admin };
        let other = if listen == "server" { "admin" } else { "server" };
        let config =
            format!("{listen}: {{listen: '{taken}'}}\n{other}: {{listen: '127.0.0.1:0'}}\n{}", inline(""));
        let output = binary().args(["serve", "--config"]).arg(file(&config).path()).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{key}: cannot listen on {taken}: Address already in use")), "{said}");
    }

    let admin = running.admin;
    running.signal("-TERM").await;
    wait_until("draining", || async { get(admin, "/readyz").await.1 == "draining\n" }).await;
    let begun = tokio::time::Instant::now();
    // As a supervisor does that signals the process and its group.
    running.signal("-TERM").await;
    let again = async {
        loop {
            running.signal("-INT").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(1500), again).await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(50), "of a minute: {:?}", begun.elapsed());
    assert!(log.contains("a second signal: the service ends without draining"), "{log}");
}

/// A pod of a cluster that has one version of IP alone, as a network namespace. The ports are the defaults.
#[tokio::test]
async fn the_default_ports_answer_where_there_is_one_version_of_ip_alone() {
    let config = file(&inline(""));
    for (version, prepare, host) in [
        ("IPv6 alone", "ip address del 127.0.0.1/8 dev lo", "[::1]"),
        ("IPv6 switched off", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6", "127.0.0.1"),
    ] {
        let alone = |script: &str| {
            let mut command = Command::new("unshare");
            let script = format!("ip link set lo up && {prepare} && {script}");
            command.args(["--user", "--map-root-user", "--net", "sh", "-c", &script]).kill_on_drop(true);
            command
        };
        if !alone("true").output().await.is_ok_and(|output| output.status.success()) {
            eprintln!("NOT RUN: no network namespace can be made, so {version} was not tried");
            continue;
        }
        let binary = env!("CARGO_BIN_EXE_passage-authz");
        let mut server = alone(&format!(
            "{{ {binary} serve --config {config} & }} && server=$! && \
             {binary} health --address '{host}:50051' --wait --timeout 30s; grpc=$?; \
             {binary} health --admin '{host}:9090' --wait --timeout 30s; admin=$?; \
             kill -TERM $server; wait $server; echo $grpc $admin $?",
            config = config.path().display()
        ));
        let output = server.output();
        let output = tokio::time::timeout(WAIT_LIMIT * 2, output).await.expect("it ends").unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.lines().last(), Some("0 0 0"), "{version}: {output:?}");
    }
}
