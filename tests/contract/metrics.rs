//! `/metrics`: what is counted is what clients counted, and each metric has its row in the README.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use passage_authz::testing::tampered;
use serde_json::{Value, json};

use crate::support::fixtures::{APP, good, inline, key};
use crate::support::{Service, get, join_all, series};

#[tokio::test]
async fn ten_thousand_checks_are_counted_as_the_client_counted_them() {
    let service = Service::ready(&inline("")).await;
    let mint = |edit: fn(&mut Value, &mut Value)| key().mint(APP, edit);
    let tokens = [
        good(),
        tampered(&good()),
        mint(|_, claims| claims["exp"] = json!(1)),
        mint(|_, claims| claims["iss"] = json!("stranger")),
        mint(|header, _| header["kid"] = json!("unknown")),
        mint(|header, _| header["alg"] = json!("none")),
        "x".to_owned(),
        "x".repeat(9000),
    ];
    let counted: HashMap<String, usize> = HashMap::new();
    let counted = Arc::new(std::sync::Mutex::new(counted));
    let next = Arc::new(AtomicUsize::new(0));
    let asking = (0..32).map(|_| {
        let (service, tokens) = (&service, &tokens);
        let (counted, next) = (Arc::clone(&counted), Arc::clone(&next));
        async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= 10_000 {
                    return;
                }
                let answer = match tokens.get(at % (tokens.len() + 2)) {
                    Some(token) => service.bearer(token).await,
                    None if at % 2 == 0 => service.check(&[]).await,
                    None => service.send(Default::default()).await,
                };
                *counted.lock().unwrap().entry(answer.code().to_owned()).or_default() += 1;
            }
        }
    });
    join_all(asking).await;
    let (_, metrics) = get(service.admin, "/metrics").await;
    let mut told: HashMap<String, usize> = HashMap::new();
    for (labels, count) in series(&metrics, "passage_authz_checks_total") {
        let code = labels.split("code=\"").nth(1).unwrap().split('"').next().unwrap();
        let code = if code.is_empty() { "allowed" } else { code };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = count as usize;
        *told.entry(code.to_owned()).or_default() += count;
    }
    let counted = counted.lock().unwrap().clone();
    assert_eq!(counted.values().sum::<usize>(), 10_000);
    assert_eq!(counted.len(), 10, "{counted:?}");
    assert_eq!(told, counted);
    let duration = series(&metrics, "passage_authz_check_duration_seconds_count");
    assert_eq!(duration.values().copied().collect::<Vec<_>>(), [10_000.0]);
    for name in [
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_virtual_memory_bytes ",
        "process_open_fds ",
        "process_max_fds ",
        "process_start_time_seconds ",
        "passage_authz_overloaded_total 0",
        concat!("passage_authz_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}\n{metrics}");
    }
    // Every metric stands in the README, and nothing else does.
    let readme = include_str!("../../README.md");
    let shown =
        readme.lines().filter_map(|line| line.strip_prefix("| `passage_authz_")?.split(['{', '`']).next());
    let shown: std::collections::BTreeSet<_> = shown.map(|name| name.trim_end_matches("_total")).collect();
    let ours =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE passage_authz_")?.split(' ').next());
    let ours: std::collections::BTreeSet<_> =
        ours.map(|name| if name == "build" { "build_info" } else { name }).collect();
    assert_eq!(shown, ours);
    let start = series(&metrics, "process_start_time_seconds").into_values().next().unwrap();
    let now = passage_authz::domain::clock::Clock::default().now().as_secs_f64();
    // This binary may have run for a while.
    assert!((now - 3600.0..=now + 1.0).contains(&start), "{start} {now}");
}
