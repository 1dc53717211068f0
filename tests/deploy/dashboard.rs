//! The dashboard as the chart renders it: each panel says what it shows, and asks what a Prometheus understands.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::helm::ask;
use crate::support::promtool::promtool;

fn dashboard(runbook_url: Option<&str>) -> Value {
    let mut metrics = json!({"dashboard": {"enabled": true}});
    if let Some(url) = runbook_url {
        metrics["prometheusRule"] = json!({"runbookUrl": url});
    }
    let answer = ask(&[json!({"passage": {"appId": "app1"}, "metrics": metrics})]).remove(0);
    let objects = answer.objects();
    let text = objects.iter().find_map(|object| object["data"]["passage-authz.json"].as_str());
    serde_json::from_str(text.expect("a dashboard")).expect("JSON")
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

/// The queries of all panels, and of the variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let targets =
        panels(dashboard).iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_panel_says_what_it_shows() {
    let dashboard = dashboard(None);
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        assert_eq!(panel["datasource"], source, "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let refs: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert_eq!(refs.len(), targets.len(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"], source, "{title}");
            let query = target["expr"].as_str().unwrap();
            let selected = query.matches("namespace=~\"$namespace\", job=~\"$job\"").count();
            assert_eq!(selected, query.matches('{').count(), "{title}: {query}");
        }
    }
    assert_eq!(panels(&dashboard)[0]["title"], "Now");
}

#[test]
fn no_two_panels_overlap() {
    let dashboard = dashboard(None);
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} overlaps another one", panel["title"]);
            }
        }
    }
}

#[test]
fn links_lead_to_sections_of_the_runbook() {
    let page = include_str!("../../docs/runbook.md");
    let anchors: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_ascii_lowercase).collect();
    let ours = dashboard(Some("https://wiki.example/authz"));
    assert_eq!(ours["links"][0]["url"], "https://wiki.example/authz");
    let links = panels(&ours).iter().flat_map(|panel| panel["links"].as_array().into_iter().flatten());
    let mut count = 0;
    for link in links {
        let anchor = link["url"].as_str().unwrap().strip_prefix("https://wiki.example/authz#").unwrap();
        assert!(anchors.contains(anchor), "{anchor}");
        count += 1;
    }
    assert!(count > 10, "{count}");
    assert!(!dashboard(None).to_string().contains("RUNBOOK_URL"));
    assert_eq!(dashboard(Some(""))["links"][0]["url"], "about:blank");
}

/// As recording rules, which promtool parses.
#[test]
fn each_query_is_understood() {
    let parses = |queries: &[String]| {
        let rules: Vec<_> = queries
            .iter()
            .enumerate()
            .map(|(at, query)| json!({"record": format!("q:{at}"), "expr": query.replace("$__rate_interval", "5m")}))
            .collect();
        let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), groups.to_string()).unwrap();
        let output = promtool()?.args(["check", "rules"]).arg(file.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Some((output.status.success(), said.into_owned()))
    };
    let queries = queries(&dashboard(None));
    assert!(queries.len() > 20, "{}", queries.len());
    let Some((parsed, said)) = parses(&queries) else { return };
    assert!(parsed, "{said}");
    let (parsed, _) = parses(&["sum(rate(a[5m])".to_owned()]).unwrap();
    assert!(!parsed, "a fault is seen");
}
