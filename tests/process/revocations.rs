//! Events and several replicas, as processes: what one has taken all deny, after a kill, a split and a late start.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::testing::{Behavior, FakeIssuer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::support::events::{log_out, logout_token, old_token as token, push, replica, security_event};
use crate::support::fixtures::{APP, inline, key};
use crate::support::process::{Running, binary, file, free_port};
use crate::support::{check_token, get, series, wait_until};

/// With a folder of its own.
fn stored(listen: &str, key_store: &Path) -> String {
    let revocation = format!("revocation: {{listen: '{listen}', audiences: [shop]}}");
    inline(&format!("{revocation}\nkey_store: '{}'", key_store.display()))
}

async fn start(config: &str) -> Running {
    let running = Running::start(config, "info").await;
    running.until_ready().await;
    running
}

pub(crate) async fn code(replica: &Running, sub: &str) -> String {
    let channel = Channel::from_shared(format!("http://{}", replica.grpc)).unwrap().connect_lazy();
    check_token(&AuthorizationClient::new(channel), &token(sub)).await.unwrap().code().to_owned()
}

pub(crate) async fn until_denied(replica: &Running, sub: &str) {
    wait_until(&format!("{sub} is denied"), || async { code(replica, sub).await == "token_revoked" }).await;
}

#[tokio::test]
async fn a_killed_process_denies_from_its_first_answer_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = stored("127.0.0.1:0", folder.path());
    let first = start(&config).await;
    for user in 0..20 {
        let sent = log_out(first.events, &logout_token(&format!("user-{user}"), |_, _| {})).await;
        assert_eq!(sent.status, 200, "{sent:?}");
    }
    let mut process = first.process;
    process.kill().await.unwrap();
    let second = Running::start(&config, "info").await;
    for user in 0..20 {
        assert_eq!(code(&second, &format!("user-{user}")).await, "token_revoked");
    }
    assert_eq!(code(&second, "user-20").await, "allowed");
    let again =
        log_out(second.events, &logout_token("user-1", |_, claims| claims["jti"] = json!("another"))).await;
    assert_eq!(again.status, 200, "another event of the same user is no replay");
    // `verify` and `check-config` know them, too, and change nothing.
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    let before = files();
    let own = file(&config);
    for (verb, want) in [("verify", "token_revoked"), ("check-config", "revocation:")] {
        let mut command = binary();
        command.arg(verb).arg("--config").arg(own.path());
        if verb == "verify" {
            command.arg(token("user-1"));
        }
        let said = String::from_utf8(command.output().await.unwrap().stdout).unwrap();
        assert!(said.contains(want), "{said}");
    }
    assert_eq!(files(), before);
    // Replicas may share the folder.
    let third = Running::start(&config, "info").await;
    assert_eq!([code(&third, "user-1").await, code(&third, "user-20").await], ["token_revoked", "allowed"]);
}

#[tokio::test]
async fn each_replica_denies_what_one_was_told_and_a_late_one_asks_before_it_is_ready() {
    let ports = [free_port(), free_port(), free_port()];
    let start_replica = async |at: usize| start(&replica(ports[at], &ports, "")).await;
    let (first, second) = (start_replica(0).await, start_replica(1).await);
    assert_eq!(log_out(first.events, &logout_token("user-1", |_, _| {})).await.status, 200);
    assert_eq!(push(second.events, &security_event("user-2", |_, _| {})).await.status, 202);
    for replica in [&first, &second] {
        until_denied(replica, "user-1").await;
        until_denied(replica, "user-2").await;
    }
    // It has neither a file nor a line of its own.
    let third = Running::start(&replica(ports[2], &ports, ""), "info").await;
    for user in ["user-1", "user-2"] {
        let first_answer = code(&third, user).await;
        assert!(
            ["token_revoked", "revocation_unavailable"].contains(&first_answer.as_str()),
            "{first_answer}"
        );
    }
    third.until_ready().await;
    assert_eq!([code(&third, "user-1").await, code(&third, "user-2").await], ["token_revoked"; 2]);
    assert_eq!(code(&third, "user-3").await, "allowed");
    let (_, metrics) = get(third.admin, "/metrics").await;
    let counted = series(&metrics, "passage_authz_revocation_events_total");
    assert_eq!(counted["{source=\"peers\",result=\"accepted\"}"], 2.0);
    assert!(series(&metrics, "passage_authz_revocation_age_seconds").contains_key("{source=\"peers\"}"));
    // Killed, and started again.
    let mut process = first.process;
    process.kill().await.unwrap();
    let first = start_replica(0).await;
    assert_eq!([code(&first, "user-1").await, code(&first, "user-2").await], ["token_revoked"; 2]);
}

/// A way from one replica to the others that can be cut.
struct Relay {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
    _task: JoinSet<()>,
}

impl Relay {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, cut) =
            (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Mutex::new(CancellationToken::new())));
        let (seen, token) = (Arc::clone(&is_cut), Arc::clone(&cut));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                if seen.load(Ordering::Relaxed) {
                    continue;
                }
                let cut = token.lock().unwrap().clone();
                connections.spawn(async move {
                    let relaying = async {
                        if let Ok(mut server) = TcpStream::connect(target).await {
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        }
                    };
                    tokio::select! { () = cut.cancelled() => {}, () = relaying => {} }
                });
            }
        });
        Self { address, is_cut, cut, _task: task }
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        self.cut.lock().unwrap().cancel();
    }

    fn mend(&self) {
        *self.cut.lock().unwrap() = CancellationToken::new();
        self.is_cut.store(false, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_split_between_replicas_heals() {
    let ports = [free_port(), free_port()];
    let relays = [Relay::to(ports[0]).await, Relay::to(ports[1]).await];
    let more = ", when_stale: {after: 2s, then: deny}";
    let config = |at: usize| replica(ports[at], &[relays[1 - at].address], more);
    // The first has none to ask yet, and denies for as long.
    let mut first = Running::start(&config(0), "info").await;
    assert_eq!(code(&first, "user-0").await, "revocation_unavailable");
    let (status, said) = get(first.admin, "/readyz").await;
    assert_eq!(status, 503);
    assert!(said.contains("revocations: the other replicas are asked what they know"), "{said}");
    let second = start(&config(1)).await;
    first.until_ready().await;
    assert_eq!(code(&first, "user-0").await, "allowed");
    relays.iter().for_each(Relay::cut);
    for user in 0..50 {
        let sub = format!("user-{user}");
        let to = if user % 2 == 0 { first.events } else { second.events };
        assert_eq!(log_out(to, &logout_token(&sub, |_, _| {})).await.status, 200);
    }
    wait_until("it is known that they are apart", || async {
        code(&first, "user-1").await == "revocation_unavailable"
            && code(&second, "user-99").await == "revocation_unavailable"
    })
    .await;
    assert_eq!(code(&first, "user-0").await, "token_revoked");
    first.until_logged("revocations are stale: what the source has may not be in force").await;
    relays.iter().for_each(Relay::mend);
    for replica in [&first, &second] {
        for user in 0..50 {
            until_denied(replica, &format!("user-{user}")).await;
        }
        wait_until("the others pass", || async { code(replica, "user-99").await == "allowed" }).await;
    }
}

/// One that starts knows nothing more than another that starts; the third, which knows, is not there yet.
#[tokio::test]
async fn replicas_that_start_together_do_not_take_each_other_for_the_whole() {
    let ports = [free_port(), free_port(), free_port()];
    let more = ", when_stale: {after: 2s, then: deny}";
    let config = |at: usize| replica(ports[at], &ports, more);
    let [first, second] =
        [Running::start(&config(0), "info").await, Running::start(&config(1), "info").await];
    for replica in [&first, &second] {
        let (_, metrics) = get(replica.admin, "/metrics").await;
        assert!(metrics.contains("passage_authz_ready 0\n"), "{metrics}");
        assert_eq!(code(replica, "user-1").await, "revocation_unavailable");
    }
    let third = Running::start(&config(2), "info").await;
    for replica in [&first, &second, &third] {
        replica.until_ready().await;
        assert_eq!(code(replica, "user-1").await, "allowed", "all start together, and each has asked each");
    }
}

#[tokio::test]
async fn an_event_without_effect_is_not_asked_for_again_and_again() {
    let port = free_port();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let liar = liar(
        security_event("user-1", |_, claims| {
            claims["events"] = json!({"https://schemas.openid.net/secevent/ssf/event-type/verification": {}});
        }),
        Arc::clone(&asked),
    )
    .await;
    let running = start(&replica(port, &[liar], "")).await;
    wait_until("asked", || async { asked.load(Ordering::Relaxed) >= 10 }).await;
    // Two requests a look, or one, and a look each 500 ms.
    let before = (asked.load(Ordering::Relaxed), tokio::time::Instant::now());
    wait_until("asked again", || async { asked.load(Ordering::Relaxed) >= before.0 + 10 }).await;
    assert!(before.1.elapsed() > std::time::Duration::from_secs(1), "without a pause");
    drop(running);
}

/// A replica that says of itself that it knows this event, and gives it to all who ask.
async fn liar(event: String, asked: Arc<std::sync::atomic::AtomicUsize>) -> SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (event, asked) = (event.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut request = vec![0; 1 << 16];
                while let Ok(length @ 1..) = stream.read(&mut request).await {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let is_digests = request[..length].starts_with(b"GET");
                    let body = if is_digests {
                        format!("{:032x}\n", 1) + &format!("{:032x}\n", 0).repeat(255)
                    } else {
                        format!("security_event {event}\n")
                    };
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_replica_that_is_alone_does_not_wait() {
    let port = free_port();
    let alone = start(&replica(port, &[port], ", when_stale: {after: 2s, then: deny}")).await;
    assert_eq!(code(&alone, "user-1").await, "allowed");
    // Who is no replica learns nothing; the loopback address is one here, so it does.
    let client = reqwest::Client::new();
    let forged = client.post(format!("http://{}/replica/events", alone.events));
    let body = format!(
        "logout_token {}\nsecurity_event x.y.z\n\nrubbish\n",
        passage_authz::testing::tampered(&logout_token("user-1", |_, _| {}))
    );
    assert_eq!(forged.body(body).send().await.unwrap().status(), 200);
    assert_eq!(code(&alone, "user-1").await, "allowed", "another replica need not be trusted");
    for body in ["", "zz\n", "00\nzz\n", "00\n00\n"] {
        let asked = client.post(format!("http://{}/replica/missing", alone.events)).body(body);
        assert_eq!(asked.send().await.unwrap().status(), 400, "{body:?}");
    }
}

#[tokio::test]
async fn a_stranger_is_told_nothing_and_asks_nothing() {
    // Another loopback address than that from which the test asks.
    let config = replica(free_port(), &["127.0.0.2:1".parse().unwrap()], "");
    let running = Running::start(&config, "info").await;
    let client = reqwest::Client::new();
    let logout = logout_token("user-1", |_, _| {});
    let url = |path: &str| format!("http://{}/replica/{path}", running.events);
    for request in [
        client.get(url("digests")),
        client.get(url("digests?number=1")),
        client.post(url("missing")).body("00\n"),
        client.post(url("events")).body(format!("logout_token {logout}\n")),
        client.post(url("events")).body("x".repeat(1 << 16)),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 403);
        let names: Vec<_> = answer.headers().keys().map(ToString::to_string).collect();
        assert!(!names.iter().any(|name| name == "x-passage-authz-replica"), "{names:?}");
        assert_eq!(answer.text().await.unwrap(), "");
    }
    running.until_ready().await;
    assert_eq!(code(&running, "user-1").await, "allowed");
    assert_eq!(log_out(running.events, &logout).await.status, 200);
    assert_eq!(code(&running, "user-1").await, "token_revoked");
}

/// One name that leads nowhere keeps no other from being asked, and a replica that is dead is not waited for by those that can be asked.
#[tokio::test]
async fn names_without_an_address_and_replicas_that_are_dead_are_left_out() {
    let ports = [free_port(), free_port(), free_port()];
    let peers = format!("['{}', '{}', '{}', 'a..b:1']", ports[0], ports[1], ports[2]);
    let config = |at: usize| {
        inline(&format!("revocation: {{listen: '{}', audiences: [shop], peers: {peers}}}\n", ports[at]))
    };
    let (first, second) = (start(&config(0)).await, start(&config(1)).await);
    assert_eq!(log_out(first.events, &logout_token("user-1", |_, _| {})).await.status, 200);
    until_denied(&second, "user-1").await;
}

/// The keys come late: what the others know is taken before a token of the issuer is good.
#[tokio::test]
async fn a_start_waits_for_events_whose_keys_are_not_there_yet() {
    let ports = [free_port(), free_port()];
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let config = |at: usize| {
        let peers = format!("['{}', '{}']", ports[0], ports[1]);
        let more = "refresh: {timeout: 2s, wait: 10ms}";
        format!(
            "issuers: [{{name: passage, issuer: {APP}, audiences: [], keys: {{url: '{}/keys'}}, {more}}}]\n\
             revocation: {{listen: '{}', audiences: [shop], peers: {peers}, when_stale: {{after: 5s, then: deny}}}}\n",
            issuer.url(),
            ports[at]
        )
    };
    let configs = [config(0), config(1)];
    let (first, mut second) = tokio::join!(start(&configs[0]), Running::start(&configs[1], "info"));
    second.process.kill().await.unwrap();
    assert_eq!(log_out(first.events, &logout_token("user-1", |_, _| {})).await.status, 200);
    issuer.behave(Behavior::Answer(500, Vec::new(), Vec::new()));
    let second = Running::start(&configs[1], "info").await;
    wait_until("the others were asked", || async {
        let (_, metrics) = get(second.admin, "/metrics").await;
        series(&metrics, "passage_authz_revocation_events_total")["{source=\"peers\",result=\"refused\"}"]
            >= 1.0
    })
    .await;
    issuer.behave(Behavior::keys(&[&key()]));
    let mut codes = std::collections::BTreeSet::new();
    let last = loop {
        let code = code(&second, "user-1").await;
        codes.insert(code.clone());
        if code == "token_revoked" {
            break code;
        }
        assert_ne!(code, "allowed", "{codes:?}");
    };
    assert_eq!(last, "token_revoked");
    second.until_ready().await;
}
