//! Which of the chart's alerts fire, by promtool.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use passage_authz::domain::clock::Clock;
use serde_json::{Value, json};

use super::helm::ask;

/// Series as a Prometheus has them, without the labels of the scrape, and how long they have lasted.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Each with its values, a minute apart, as promtool writes them: `1+0x60`.
    pub(crate) series: Vec<(String, String)>,
    pub(crate) minutes: usize,
}

const NOT_RUN: &str = "NOT RUN: promtool is missing (Debian: prometheus)";

/// The command, if it is installed. Fails without it where `REQUIRE_PROMTOOL` is set.
#[expect(clippy::print_stderr, reason = "says that the test did not run")]
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

/// The names of the alerts in these groups.
pub(crate) fn alert_names(groups: &Value) -> Vec<String> {
    let groups = groups["groups"].as_array().expect("groups").iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().expect("rules"));
    rules.filter_map(|rule| rule["alert"].as_str().map(str::to_owned)).collect()
}

/// The alerts that fire at the end of each scene. `None` without promtool.
pub(crate) fn firing(scenes: &[Scene]) -> Option<Vec<BTreeSet<String>>> {
    let rules = alert_groups();
    let (alerts, scraped_as) = (alert_names(&rules), scrape_labels(&rules));
    // What fails is an alert that fires: promtool prints the expression, which has the number of the scene in it.
    let tests = scenes.iter().enumerate().map(|(at, Scene { series, minutes })| {
        let is_silent = |alert: &String| {
            json!({
                "expr": expression(at, alert),
                "eval_time": format!("{minutes}m"),
                "exp_samples": [{"labels": "{}", "value": 0}],
            })
        };
        json!({
            "interval": "1m",
            "input_series": input_series(series, &scraped_as),
            "promql_expr_test": alerts.iter().map(is_silent).collect::<Vec<_>>(),
        })
    });
    let tests = tests.collect();
    let (_, said) = run(&rules, tests)?;
    assert!(said.contains("SUCCESS") || said.contains("got: {}"), "{said}");
    let fire = |at: usize| -> BTreeSet<String> {
        alerts.iter().filter(|alert| said.contains(&expression(at, alert))).cloned().collect()
    };
    Some((0..scenes.len()).map(fire).collect())
}

/// What an alert must say in a scene in which it fires.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) alert: String,
    pub(crate) labels: BTreeMap<&'static str, &'static str>,
    pub(crate) summary: &'static str,
    pub(crate) scene: Scene,
}

/// What promtool says of alerts with other labels or annotations than these, with the chart's texts that have no variables; empty if
/// there are none. `None` without promtool.
pub(crate) fn told_otherwise(all: &[Told]) -> Option<String> {
    let rules = alert_groups();
    let scraped_as = scrape_labels(&rules);
    let tests = all.iter().map(|Told { alert, labels, summary, scene }| {
        let mut annotations = annotations_of(&rules, alert).clone();
        annotations["summary"] = json!(summary);
        json!({
            "interval": "1m",
            "input_series": input_series(&scene.series, &scraped_as),
            "alert_rule_test": [{
                "alertname": alert,
                "eval_time": format!("{}m", scene.minutes),
                "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
            }],
        })
    });
    let tests = tests.collect();
    let (passed, said) = run(&rules, tests)?;
    Some(if passed { String::new() } else { said })
}

/// Queries at the tenth minute of these series, with the value that each must have; none for no result.
#[derive(Debug)]
pub(crate) struct Queries {
    pub(crate) series: Vec<(String, String)>,
    pub(crate) values: Vec<(String, Option<f64>)>,
}

/// What promtool says of queries with other values than these; empty if there are none. `None` without promtool.
pub(crate) fn valued_otherwise(all: &[Queries]) -> Option<String> {
    let rules = alert_groups();
    let scraped_as = scrape_labels(&rules);
    let tests = all.iter().map(|Queries { series, values }| {
        let queries = values.iter().map(|(query, value)| {
            let samples = value.iter().map(|value| json!({"labels": "{}", "value": value}));
            json!({"expr": query, "eval_time": "10m", "exp_samples": samples.collect::<Vec<_>>()})
        });
        json!({
            "interval": "1m",
            "input_series": input_series(series, &scraped_as),
            "promql_expr_test": queries.collect::<Vec<_>>(),
        })
    });
    let (passed, said) = run(&rules, tests.collect())?;
    Some(if passed { String::new() } else { said })
}

fn annotations_of<'r>(rules: &'r Value, alert: &str) -> &'r Value {
    let rules = rules["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"));
    let mut rules = rules.filter(|rule| rule["alert"] == alert);
    &rules.next().expect("the alert")["annotations"]
}

/// With the labels of the scrape, but where a series has a namespace of its own.
fn input_series(series: &[(String, String)], scraped_as: &str) -> Vec<Value> {
    let with_scrape = |(series, values): &(String, String)| {
        let (name, own) = series.split_once('{').unwrap_or((series, ""));
        let own = own.trim_end_matches('}');
        let labels = match own {
            "" => scraped_as.to_owned(),
            own if own.contains("namespace=") => own.to_owned(),
            own => format!("{own},{scraped_as}"),
        };
        json!({"series": format!("{name}{{{labels}}}"), "values": values})
    };
    series.iter().map(with_scrape).collect()
}

/// Whether the rules pass promtool's lint and these tests, and what it says. `None` without promtool.
fn run(rules: &Value, tests: Vec<Value>) -> Option<(bool, String)> {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, json: &Value| {
        std::fs::write(folder.path().join(name), json.to_string()).expect("written")
    };
    write("rules.json", rules);
    write("tests.json", &json!({"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": tests}));
    let call = |arguments: &[&str]| {
        let output = promtool()?.args(arguments).current_dir(folder.path()).output().expect("promtool");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Some((output.status.success(), said.into_owned()))
    };
    let (sound, said) = call(&["check", "rules", "--lint=all", "--lint-fatal", "rules.json"])?;
    assert!(sound, "{said}");
    call(&["test", "rules", "tests.json"])
}

/// The labels that the alerts select series by.
fn scrape_labels(rules: &Value) -> String {
    let text = rules.to_string().replace("\\\"", "\"");
    let (_, selector) =
        text.split_once("absent(passage_authz_build_info{").expect("the alert PassageAuthzDown");
    selector.split_once('}').expect("its end").0.to_owned()
}

/// How many alerts of this name fire; 0 for none. The number stands for the scene.
fn expression(scene: usize, alert: &str) -> String {
    format!("count(ALERTS{{alertname='{alert}',alertstate='firing'}}) or vector(0*{scene})")
}

/// A day and an hour after a service's metrics were scraped twice: gauges stay as they were at the second time, and counters rise each
/// minute by what they rose in between.
pub(crate) fn after_a_day(before: &str, after: &str) -> Scene {
    let minutes = 25 * 60;
    let counters: BTreeSet<&str> =
        after.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let before: BTreeMap<&str, f64> = series_of(before).collect();
    let now = Clock::default().now().as_secs_f64();
    let series = series_of(after).map(|(series, value)| {
        let name = series.split('{').next().unwrap_or_default();
        let (start, step) = if counters.contains(name) {
            let was = before.get(series).copied().unwrap_or_default();
            (was, value - was)
        } else if name.ends_with("_timestamp_seconds") {
            // promtool's time begins at 0.
            (value - now, 0.0)
        } else {
            (value, 0.0)
        };
        (series.to_owned(), format!("{start}{step:+}x{minutes}"))
    });
    Scene { series: series.collect(), minutes }
}

fn series_of(metrics: &str) -> impl Iterator<Item = (&str, f64)> {
    let lines = metrics.lines().filter(|line| line.starts_with("passage_authz_"));
    lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series, value.parse().ok()?))
    })
}
