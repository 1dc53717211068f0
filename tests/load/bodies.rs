//! Request bodies in checks, as the real Envoy sends them with `with_request_body`.

use crate::MEASURING;
use crate::support::envoy::{Envoy, Upstream};
use crate::support::fixtures::{bearer, good, inline};
use crate::support::join_all;
use crate::support::process::Running;

const MIB: usize = 1 << 20;

/// Memory of a hundred checks with a body of 1 MiB each, in KiB: bodies are left out while they arrive.
const MAX_GROWTH_KIB: u64 = 16 * 1024;

async fn post(envoy: &Envoy, path: &str, token: Option<&str>, bytes: usize) -> (u16, String) {
    let mut request = reqwest::Client::new().post(format!("http://{}{path}", envoy.address));
    if let Some(token) = token {
        request = request.header("authorization", bearer(token));
    }
    let response = request.body(vec![b'x'; bytes]).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_change_no_verdict_and_hold_no_memory() {
    let _measuring = MEASURING.lock().await;
    let rules = "rules: [{name: open, match: {paths: [/open]}, access: public}, {name: closed, match: {paths: [/closed]}, access: deny}]";
    for settings in ["allow_partial_message: false", "allow_partial_message: true", "pack_as_bytes: true"] {
        let running = Running::start(&inline(rules), "info").await;
        running.until_ready().await;
        let upstream = Upstream::start().await.unwrap();
        let envoy = Envoy::edited(running.grpc, upstream.address, |config| {
            let body = format!("with_request_body: {{max_request_bytes: {}, {settings}}}", 4 * MIB);
            let at = "failure_mode_allow: false         #";
            assert!(config.contains(at));
            config
                .replace(at, &format!("{body}\n              {at}"))
                .replace("timeout: 0.25s", "timeout: 30s")
        })
        .await;
        let good = good();
        for bytes in [0, 1, 16 * 1024, 64 * 1024, 64 * 1024 + 1, 200_000, MIB] {
            for (path, token, want) in [
                ("/", Some(&*good), 200),
                ("/", None, 401),
                ("/", Some("x"), 401),
                ("/open", None, 200),
                ("/closed", Some(&good), 403),
            ] {
                let (status, body) = post(&envoy, path, token, bytes).await;
                assert_eq!(status, want, "{settings} {bytes} {path} {body}");
            }
        }
        for bytes in [MIB + 64 * 1024, 2 * MIB] {
            let (status, body) = post(&envoy, "/open", Some(&good), bytes).await;
            assert_eq!(status, 413, "{settings} {bytes} {body}");
            // With partial messages Envoy's own buffer is full before.
            let ours = body.contains("\"code\":\"request_too_large\"");
            assert!(ours || settings == "allow_partial_message: true", "{settings} {body}");
        }
        let before = running.peak();
        let answers = join_all((0..100).map(|_| post(&envoy, "/", Some(&good), MIB))).await;
        assert!(answers.iter().all(|(status, _)| *status == 200), "{settings} {answers:?}");
        let grown = running.peak() - before;
        assert!(grown < MAX_GROWTH_KIB, "{settings}: {grown} KiB more");
        running.signal("-TERM").await;
        let (_, log) = running.end().await;
        let large: Vec<_> = log.lines().filter(|line| line.contains("request_too_large")).collect();
        assert!(large.len() == 2 || settings == "allow_partial_message: true", "{log}");
        assert!(large.iter().all(|line| line.contains("\"message_bytes\":")), "{large:?}");
    }
}
