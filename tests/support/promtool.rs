//! Which of the chart's alerts fire for a service whose metrics were scraped twice, by promtool.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use passage_authz::domain::clock::Clock;
use serde_json::{Value, json};

use super::helm::ask;

/// Metrics before an incident and while it lasts.
pub(crate) struct Samples<'a> {
    pub(crate) name: &'a str,
    pub(crate) before: &'a str,
    pub(crate) after: &'a str,
}

const NOT_RUN: &str = "NOT RUN: promtool is missing (Debian: prometheus)";

#[expect(clippy::print_stderr, reason = "says that the test did not run")]
/// The command, if it is installed. Fails without it where `REQUIRE_PROMTOOL` is set.
pub(crate) fn promtool() -> Option<Command> {
    let is_there =
        Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        assert!(std::env::var_os("REQUIRE_PROMTOOL").is_none(), "{NOT_RUN}");
        eprintln!("{NOT_RUN}");
    }
    is_there.then(|| Command::new("promtool"))
}

/// The groups of alerts that the chart renders.
pub(crate) fn alert_groups() -> Value {
    let values = json!({"passage": {"appId": "app1"}, "metrics": {"prometheusRule": {"enabled": true}}});
    let answer = ask(&[values]).remove(0);
    let rule = answer.objects().into_iter().find(|object| object["kind"] == "PrometheusRule");
    json!({"groups": rule.expect("a PrometheusRule")["spec"]["groups"]})
}

/// A day and an hour: longer than any alert waits.
const LASTS_MINUTES: usize = 25 * 60;

/// The alerts that fire for each of these when the incident has lasted for a day: gauges stay as they are, and counters rise each minute
/// by what they rose. `None` without promtool.
pub(crate) fn firing(all: &[Samples<'_>]) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let mut promtool = promtool()?;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, json: &Value| {
        std::fs::write(folder.path().join(name), json.to_string()).expect("written")
    };
    let rules = alert_groups();
    write("rules.json", &rules);
    let alerts: Vec<String> = rules["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
        .filter_map(|rule| rule["alert"].as_str().map(str::to_owned))
        .collect();
    let scraped_as = scrape_labels(&rules);
    // What fails is an alert that fires: promtool prints the expression, which has the number of the incident in it.
    let is_silent = |at: usize, alert: &String| {
        json!({
            "expr": expression(at, alert),
            "eval_time": format!("{LASTS_MINUTES}m"),
            "exp_samples": [{"labels": "{}", "value": 0}],
        })
    };
    let tests: Vec<Value> = all
        .iter()
        .enumerate()
        .map(|(at, samples)| {
            json!({
                "interval": "1m",
                "input_series": input_series(samples, &scraped_as),
                "promql_expr_test": alerts.iter().map(|alert| is_silent(at, alert)).collect::<Vec<_>>(),
            })
        })
        .collect();
    write("tests.json", &json!({"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": tests}));
    let output =
        promtool.args(["test", "rules", "tests.json"]).current_dir(folder.path()).output().expect("promtool");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let mut firing: BTreeMap<String, BTreeSet<String>> =
        all.iter().map(|samples| (samples.name.to_owned(), BTreeSet::new())).collect();
    assert!(said.contains("SUCCESS") || said.contains("FAILED"), "{said}");
    for (at, samples) in all.iter().enumerate() {
        for alert in alerts.iter().filter(|alert| said.contains(&expression(at, alert))) {
            firing.get_mut(samples.name).expect("its set").insert(alert.clone());
        }
    }
    Some(firing)
}

/// The labels that the alerts select series by.
fn scrape_labels(rules: &Value) -> String {
    let text = rules.to_string().replace("\\\"", "\"");
    let (_, selector) =
        text.split_once("absent(passage_authz_build_info{").expect("the alert PassageAuthzDown");
    selector.split_once('}').expect("its end").0.to_owned()
}

/// How many alerts of this name fire; 0 for none. The number stands for the incident.
fn expression(incident: usize, alert: &str) -> String {
    format!("count(ALERTS{{alertname='{alert}',alertstate='firing'}}) or vector(0*{incident})")
}

/// Series as promtool writes them: a value and its change at each minute.
fn input_series(samples: &Samples<'_>, scraped_as: &str) -> Vec<Value> {
    let counters: BTreeSet<&str> = samples
        .after
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let before: BTreeMap<&str, f64> = series_of(samples.before).collect();
    let now = Clock::default().now().as_secs_f64();
    series_of(samples.after)
        .map(|(series, value)| {
            let name = series.split('{').next().unwrap_or_default();
            let is_counter = counters.contains(name);
            let (start, step) = if is_counter {
                let was = before.get(series).copied().unwrap_or_default();
                (was, value - was)
            } else if name.ends_with("_timestamp_seconds") {
                // promtool's time begins at 0.
                (value - now, 0.0)
            } else {
                (value, 0.0)
            };
            let own = series.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
            let comma = if own.is_empty() { "" } else { "," };
            let step = if step < 0.0 { format!("{step}") } else { format!("+{step}") };
            json!({
                "series": format!("{name}{{{own}{comma}{scraped_as}}}"),
                "values": format!("{start}{step}x{LASTS_MINUTES}"),
            })
        })
        .collect()
}

fn series_of(metrics: &str) -> impl Iterator<Item = (&str, f64)> {
    let lines = metrics.lines().filter(|line| line.starts_with("passage_authz_"));
    lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series, value.parse().ok()?))
    })
}
