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
    let shown: std::collections::BTreeSet<_> = shown.collect();
    let ours =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE passage_authz_")?.split(' ').next());
    let ours: std::collections::BTreeSet<_> = ours.collect();
    let absent: std::collections::BTreeSet<_> = shown.difference(&ours).copied().collect();
    // Of sections that this configuration has not.
    let optional = [
        "certificate_expiration_timestamp_seconds",
        "revocation_age_seconds",
        "revocation_events_total",
        "revocations",
    ];
    assert_eq!(absent, optional.into());
    assert_eq!(ours.difference(&shown).count(), 0, "{ours:?}");
    let start = series(&metrics, "process_start_time_seconds").into_values().next().unwrap();
    let now = passage_authz::domain::clock::Clock::default().now().as_secs_f64();
    // This binary may have run for a while.
    assert!((now - 3600.0..=now + 1.0).contains(&start), "{start} {now}");
}

/// Prometheus' text format 0.0.4 as strictly as its documentation has it: each sample belongs to a family whose type was declared
/// before it.
fn parse_text_format(text: &str) -> HashMap<String, String> {
    let mut types: HashMap<String, String> = HashMap::new();
    let mut samples = HashMap::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (family, kind) = declared.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind), "{line}");
            assert!(types.insert(family.to_owned(), kind.to_owned()).is_none(), "{line} stands twice");
        } else if !line.starts_with("# HELP ") {
            assert!(!line.starts_with('#'), "{line}");
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = series.split('{').next().unwrap();
            let of_histogram =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let kind =
                types.get(name).or_else(|| types.get(of_histogram?).filter(|kind| *kind == "histogram"));
            samples.insert(name.to_owned(), kind.unwrap_or_else(|| panic!("{name} has no type")).clone());
        }
    }
    samples
}

#[tokio::test]
async fn both_text_formats_by_accept() {
    let service = Service::ready(&inline("")).await;
    service.bearer(&good()).await;
    let scrape = |accept: Option<&'static str>| {
        let request = reqwest::Client::new().get(format!("http://{}/metrics", service.admin));
        let request = accept.into_iter().fold(request, |request, accept| request.header("accept", accept));
        async move {
            let response = request.send().await.unwrap();
            let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
            (content_type, response.text().await.unwrap())
        }
    };
    for accept in [None, Some("text/plain"), Some("application/json")] {
        let (content_type, text) = scrape(accept).await;
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8", "{accept:?}");
        let samples = parse_text_format(&text);
        for (name, kind) in [
            ("passage_authz_checks_total", "counter"),
            ("passage_authz_check_duration_seconds_bucket", "histogram"),
            ("passage_authz_build_info", "gauge"),
            ("passage_authz_keys", "gauge"),
            ("passage_authz_key_set_age_seconds", "gauge"),
            ("process_cpu_seconds_total", "counter"),
            ("process_resident_memory_bytes", "gauge"),
        ] {
            assert_eq!(samples.get(name).map(String::as_str), Some(kind), "{name}");
        }
    }
    let (content_type, text) =
        scrape(Some("application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.2")).await;
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE passage_authz_checks counter\n"), "{text}");
}
