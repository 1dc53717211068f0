//! A table of user IDs with as many lines as there may be.

use std::fmt::Write as _;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use serde_json::Value;

use crate::MEASURING;
use crate::support::fixtures::{APP, bearer, good, key, serving};
use crate::support::process::{Load, Running, file, replace};
use crate::support::{Answer, check_request, get, wait_until};

const LINES: usize = 1_000_000;

/// Memory of the table, in KiB.
const MAX_GROWTH_KIB: u64 = 100 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_users_fit_in_memory_and_are_replaced_under_load() {
    let _measuring = MEASURING.lock().await;
    let lines = |old: &str| {
        let mut text = String::new();
        for at in 0..LINES {
            writeln!(text, "auth0|{at:024x},{old}_{at:020}").unwrap();
        }
        text
    };
    let table = file(&lines("usr"));
    let replace = |text: &str| replace(table.path(), text);
    let without = Running::serve(file(&serving("listen: '127.0.0.1:0'", "")).path(), "info").await;
    without.until_ready().await;
    let usual = without.peak();
    without.signal("-TERM").await;
    without.end().await;

    let map = format!(
        "identity: {{headers: {{x-passage-user-id: {{claim: sub, map: '{}'}}}}}}",
        table.path().display()
    );
    let config = file(&serving("listen: '127.0.0.1:0'", &map));
    let running = Running::serve(config.path(), "info").await;
    running.until_ready().await;
    let grown = running.peak() - usual;
    assert!(grown <= MAX_GROWTH_KIB, "{grown} KiB");

    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    let user = async |at: usize| {
        let bearer =
            bearer(&key().mint(APP, |_, claims| claims["sub"] = Value::from(format!("auth0|{at:024x}"))));
        let answer = client.clone().check(check_request(&[("authorization", &bearer)])).await.unwrap();
        Answer::from(answer.into_inner()).header("x-passage-user-id").map(str::to_owned)
    };
    for at in [0, 1, LINES / 2, LINES - 1] {
        assert_eq!(user(at).await, Some(format!("usr_{at:020}")));
    }
    let load = Load::start(client.clone(), &bearer(&good()));
    let is_counted =
        async |line: &str| get(running.admin, "/metrics").await.1.lines().any(|found| found == line);
    let bad = lines("bad");
    let (_, all_but_one) = bad.split_once('\n').unwrap();
    replace(&format!("{all_but_one}auth0|{:024x},twice\n", 7));
    let failed = "passage_authz_config_reloads_total{result=\"failed\"} 1";
    wait_until("the damaged table is refused", || is_counted(failed)).await;
    assert_eq!(user(7).await, Some(format!("usr_{:020}", 7)), "the old table goes on");
    replace(&lines("new"));
    wait_until("the new table", async || user(7).await == Some(format!("new_{:020}", 7))).await;
    assert!(load.stop().await > 0);
    running.signal("-TERM").await;
    let (_, log) = running.end().await;
    assert!(log.contains(&format!("lines 7 and {LINES} have the same key")), "{log}");
}
