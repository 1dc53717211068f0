//! A file of revocations with as many entries as there may be by default.

use std::fmt::Write as _;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use serde_json::json;

use crate::MEASURING;
use crate::support::fixtures::{APP, bearer, good, key, serving};
use crate::support::process::{Load, Running, file, replace};
use crate::support::{check_token, get, wait_until};

const ENTRIES: usize = 1_000_000;

/// Memory of the entries, in KiB.
const MAX_GROWTH_KIB: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_revocations_fit_in_memory_and_are_replaced_under_load() {
    let _measuring = MEASURING.lock().await;
    let lines = |name: &str| {
        let mut text = String::new();
        for at in 0..ENTRIES {
            writeln!(
                text,
                "{{\"issuer\":\"passage\",\"kind\":\"jti\",\"value\":\"{name}-{at:020}\",\"issued_before\":4000000000,\"until\":4000000000}}"
            )
            .unwrap();
        }
        text
    };
    let list = file(&lines("a"));
    let without = Running::serve(file(&serving("listen: '127.0.0.1:0'", "")).path(), "info").await;
    without.until_ready().await;
    let usual = without.resident();
    without.signal("-TERM").await;
    without.end().await;

    let config = file(&serving(
        "listen: '127.0.0.1:0'",
        &format!("revocation: {{file: '{}'}}", list.path().display()),
    ));
    let running = Running::serve(config.path(), "info").await;
    running.until_ready().await;
    let grown = running.resident() - usual;
    assert!(grown <= MAX_GROWTH_KIB, "{grown} KiB");
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let code = async |jti: String| {
        let token = key().mint(APP, |_, claims| claims["jti"] = json!(jti));
        check_token(&client, &token).await.unwrap().code().to_owned()
    };
    for at in [0, 1, ENTRIES / 2, ENTRIES - 1] {
        assert_eq!(code(format!("a-{at:020}")).await, "token_revoked");
        assert_eq!(code(format!("b-{at:020}")).await, "allowed");
    }
    let load = Load::start(client.clone(), &bearer(&good()));
    replace(list.path(), &lines("b"));
    wait_until("the new list", async || code(format!("b-{:020}", 7)).await == "token_revoked").await;
    assert_eq!(code(format!("a-{:020}", 7)).await, "allowed", "lifted");
    assert!(load.stop().await > 0, "no check failed meanwhile");
    let (_, metrics) = get(running.admin, "/metrics").await;
    assert!(metrics.contains(&format!("passage_authz_revocations{{kind=\"jti\"}} {ENTRIES}\n")), "{metrics}");
    // One more than may be.
    let more = lines("c") + lines("d").lines().next().unwrap() + "\n";
    replace(list.path(), &more);
    let refused = "passage_authz_revocation_events_total{source=\"file\",result=\"refused\"} 1\n";
    wait_until("refused", async || get(running.admin, "/metrics").await.1.contains(refused)).await;
    assert_eq!(code(format!("b-{:020}", 7)).await, "token_revoked", "those before go on");
}
