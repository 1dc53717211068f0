//! Events and several replicas, as processes: what one has taken all deny, after a kill, a split and a late start.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::support::events::{log_out, logout_token, now, old_token as token, push, replica, security_event};
use crate::support::fixtures::inline;
use crate::support::process::{Running, free_port};
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
        log_out(second.events, &logout_token("user-1", |_, claims| claims["iat"] = json!(now() - 1))).await;
    assert_eq!(again.status, 200, "another event of the same user is no replay");
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
