//! Events and several replicas that share a stream in a real Redis: what one has taken all deny, also after Redis was lost.

use passage_authz::testing::tampered;
use redis::AsyncCommands as _;

use crate::revocations::{code, until_denied};
use crate::support::events::{log_out, logout_token, push, replica_by_redis, security_event};
use crate::support::process::{Running, file, free_port};
use crate::support::redis::Redis;
use crate::support::{get, series, wait_until};

#[tokio::test]
async fn a_stream_is_followed_by_all_and_made_whole_after_a_loss() {
    let at = free_port();
    let Some(server) = Redis::start(at).await else { return };
    let password = file("secret\n");
    let config = replica_by_redis(at, password.path());
    let start = async || {
        let running = Running::start(&config, "info").await;
        running.until_ready().await;
        running
    };
    let (mut first, second) = (start().await, start().await);
    assert_eq!(log_out(first.events, &logout_token("user-1", |_, _| {})).await.status, 200);
    assert_eq!(push(second.events, &security_event("user-2", |_, _| {})).await.status, 202);
    for replica in [&first, &second] {
        until_denied(replica, "user-1").await;
        until_denied(replica, "user-2").await;
    }
    // What somebody writes who can write to Redis.
    let client = redis::Client::open(format!("redis://:secret@{at}")).unwrap();
    let mut writer = client.get_multiplexed_async_connection().await.unwrap();
    let forged = tampered(&logout_token("user-3", |_, _| {}));
    for (form, event) in
        [("logout_token", forged.as_str()), ("logout_token", "rubbish"), ("other", "x"), ("", "")]
    {
        let _: String =
            writer.xadd("passage-authz:events", "*", &[("form", form), ("event", event)]).await.unwrap();
    }
    let _: String = writer.xadd("passage-authz:events", "*", &[("x", "y")]).await.unwrap();
    let late = Running::start(&config, "info").await;
    for user in ["user-1", "user-2"] {
        let first_answer = code(&late, user).await;
        assert!(
            ["token_revoked", "revocation_unavailable"].contains(&first_answer.as_str()),
            "{first_answer}"
        );
    }
    late.until_ready().await;
    assert_eq!([code(&late, "user-1").await, code(&late, "user-2").await], ["token_revoked"; 2]);
    assert_eq!(code(&late, "user-3").await, "allowed", "nothing is revoked by who can write to Redis");
    let (_, metrics) = get(late.admin, "/metrics").await;
    assert!(series(&metrics, "passage_authz_revocation_age_seconds").contains_key("{source=\"redis\"}"));

    // The stream alone is lost, and its connections live on.
    let _: usize = writer.del("passage-authz:events").await.unwrap();
    let is_filled = async || {
        let mut writer = writer.clone();
        let length: usize = writer.xlen("passage-authz:events").await.unwrap();
        length >= 2
    };
    wait_until("it is filled again", is_filled).await;
    // It takes no more: an event that reaches one replica would not reach the others.
    let limit = |memory: &str| {
        let (mut writer, memory) = (writer.clone(), memory.to_owned());
        async move {
            let mut command = redis::cmd("CONFIG");
            command.arg("SET").arg("maxmemory").arg(memory);
            command.query_async::<()>(&mut writer).await.unwrap();
        }
    };
    limit("1").await;
    assert_eq!(log_out(second.events, &logout_token("user-6", |_, _| {})).await.status, 200);
    let age = async |replica: &Running| {
        let (_, metrics) = get(replica.admin, "/metrics").await;
        series(&metrics, "passage_authz_revocation_age_seconds")["{source=\"redis\"}"]
    };
    wait_until("it is seen", || async { age(&second).await > 2.0 }).await;
    limit("0").await;
    until_denied(&first, "user-6").await;
    wait_until("it is over", || async { age(&second).await < 2.0 }).await;

    server.kill().await;
    first.until_logged("the stream of revocation events cannot be followed").await;
    assert_eq!(log_out(second.events, &logout_token("user-4", |_, _| {})).await.status, 200);
    until_denied(&second, "user-4").await;
    assert_eq!(code(&first, "user-4").await, "allowed", "it cannot know yet");
    assert_eq!(code(&first, "user-1").await, "token_revoked");
    let server = Redis::start(at).await.unwrap();
    until_denied(&first, "user-4").await;
    first.until_logged("is followed again").await;
    // Redis had lost all: the replicas have filled it again.
    let last = start().await;
    for user in ["user-1", "user-2", "user-4"] {
        wait_until(&format!("{user} is known"), || async { code(&last, user).await == "token_revoked" })
            .await;
    }
    assert_eq!(code(&last, "user-5").await, "allowed");
    server.kill().await;
}
