//! The dashboard as the chart renders it, with these values of `metrics.prometheusRule`: each panel says what it shows, and asks what a
//! Prometheus understands.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::helm::ask;
use crate::support::promtool::{Queries, promtool, valued_otherwise};

fn dashboard(rules: Value) -> Value {
    let metrics = json!({"dashboard": {"enabled": true}, "prometheusRule": rules});
    let answer = ask(&[json!({"passage": {"appId": "app1"}, "metrics": metrics})]).remove(0);
    let objects = answer.objects();
    let text = objects.iter().find_map(|object| object["data"]["passage-authz.json"].as_str());
    serde_json::from_str(text.expect("a dashboard")).expect("JSON")
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

/// The queries of all panels and of the variables, with something in place of the variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let targets =
        panels(dashboard).iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let of_panels = targets.map(|target| target["expr"].as_str().unwrap());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let of_variables = variables.filter_map(|variable| {
        let labels = variable["query"]["query"].as_str()?.strip_prefix("label_values(").unwrap();
        Some(labels.rsplit_once(", ").unwrap().0)
    });
    let replaced = of_panels.chain(of_variables).map(|query| {
        query.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$job", "a|b")
    });
    replaced.inspect(|query| assert!(!query.contains('$'), "{query}")).collect()
}

#[test]
fn each_panel_says_what_it_shows() {
    let dashboard = dashboard(json!({}));
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
        let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array();
        for (at, step) in steps.into_iter().flatten().enumerate() {
            assert_eq!(step["value"].is_number(), at > 0, "{title}: {step}");
        }
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
    // Older ones are migrated when they are loaded; a newer one is not read by each Grafana that is in use.
    assert!((39..=42).contains(&dashboard["schemaVersion"].as_u64().unwrap()));
    assert_eq!(dashboard["templating"]["list"][0]["name"], "datasource");
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
}

/// The numbers at which the colours of a panel change.
fn thresholds(dashboard: &Value, title: &str) -> Vec<f64> {
    let panel = panels(dashboard).iter().find(|panel| panel["title"] == title).expect(title);
    let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().expect(title);
    steps.iter().filter_map(|step| step["value"].as_f64()).collect()
}

#[test]
fn red_begins_where_the_alerts_do() {
    let all = |dashboard: &Value| {
        [
            "Denied",
            "Oldest keys",
            "Age of the key sets",
            "Clocks of issuers",
            "Certificate",
            "Age of the revocations",
        ]
        .map(|title| thresholds(dashboard, title))
    };
    let day = 86_400.0;
    let usual = [vec![0.5], vec![3600.0], vec![3600.0], vec![-30.0, 30.0], vec![14.0 * day], vec![60.0]];
    assert_eq!(all(&dashboard(json!({}))), usual);
    assert_eq!(all(&dashboard(json!({"deniedShare": null}))), usual, "without the alert");
    let ours = dashboard(json!({
        "deniedShare": 0.05, "keySetAgeSeconds": 43_200_000, "clockSkewSeconds": 5, "certificateDays": 30,
        "revocationAgeSeconds": 10, "runbookUrl": "",
    }));
    let expected =
        [vec![0.05], vec![500.0 * day], vec![500.0 * day], vec![-5.0, 5.0], vec![30.0 * day], vec![10.0]];
    assert_eq!(all(&ours), expected);
    // As the alert, which has no value.
    let rules = include_str!("../../deploy/helm/passage-authz/templates/prometheusrule.yaml");
    assert!(rules.contains("[5m])) > 0.01\n"));
    assert_eq!(thresholds(&ours, "Errors"), [0.01]);
}

#[test]
fn each_metric_stands_in_the_readme() {
    let readme = include_str!("../../README.md");
    let rows =
        readme.lines().filter_map(|line| line.strip_prefix("| `passage_authz_")?.split(['{', '`']).next());
    let known: BTreeSet<_> = rows.collect();
    let unknown = |query: &str| -> Vec<String> {
        let words = query.split(|byte: char| !(byte.is_ascii_alphanumeric() || byte == '_'));
        let ours = words.filter_map(|word| word.strip_prefix("passage_authz_"));
        let ours = ours.map(|name| name.strip_suffix("_bucket").unwrap_or(name));
        ours.filter(|name| !known.contains(name)).map(str::to_owned).collect()
    };
    let queries = queries(&dashboard(json!({})));
    for query in &queries {
        assert!(query.contains("passage_authz_") || query.contains("process_"), "{query}");
        assert_eq!(unknown(query), [""; 0], "{query}");
    }
    assert_eq!(unknown("rate(passage_authz_check_total[5m])"), ["check_total"], "a typo is seen");
}

#[test]
fn no_two_panels_overlap() {
    let dashboard = dashboard(json!({}));
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
    let ours = dashboard(json!({"runbookUrl": "https://wiki.example/authz"}));
    assert_eq!(ours["links"][0]["url"], "https://wiki.example/authz");
    let links = panels(&ours).iter().flat_map(|panel| panel["links"].as_array().into_iter().flatten());
    let mut count = 0;
    for link in links {
        let anchor = link["url"].as_str().unwrap().strip_prefix("https://wiki.example/authz#").unwrap();
        assert!(anchors.contains(anchor), "{anchor}");
        count += 1;
    }
    assert!(count > 10, "{count}");
    assert!(!dashboard(json!({})).to_string().contains("RUNBOOK_URL"));
    // Without a page: all the same, but no link.
    let without = dashboard(json!({"runbookUrl": ""}));
    assert!(!without.to_string().contains("\"links\""));
    let mut same = dashboard(json!({}));
    same.as_object_mut().unwrap().remove("links");
    for panel in same["panels"].as_array_mut().unwrap() {
        panel.as_object_mut().unwrap().remove("links");
    }
    assert_eq!(without, same);
}

/// As recording rules, which promtool parses.
#[test]
fn each_query_is_understood() {
    let parses = |queries: &[String]| {
        let rules: Vec<_> = queries
            .iter()
            .enumerate()
            .map(|(at, query)| json!({"record": format!("q:{at}"), "expr": query}))
            .collect();
        let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), groups.to_string()).unwrap();
        let output = promtool()?.args(["check", "rules"]).arg(file.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Some((output.status.success(), said.into_owned()))
    };
    let queries = queries(&dashboard(json!({})));
    assert!(queries.len() > 20, "{}", queries.len());
    let Some((parsed, said)) = parses(&queries) else { return };
    assert!(parsed, "{said}");
    let (parsed, _) = parses(&["sum(rate(a[5m])".to_owned()]).unwrap();
    assert!(!parsed, "a fault is seen");
}

/// An empty panel looks like a fault of the dashboard.
#[test]
fn the_first_row_has_its_numbers_in_an_outage_and_without_denials_too() {
    let dashboard = dashboard(json!({}));
    let query = |title: &str| {
        let panel = panels(&dashboard).iter().find(|panel| panel["title"] == title).unwrap();
        let query = panel["targets"][0]["expr"].as_str().unwrap();
        query.replace("$namespace", ".*").replace("$job", ".*")
    };
    let scene = |series: &[(&str, &str)], ready: f64, replicas: f64, denied: Option<f64>| Queries {
        series: series.iter().map(|(series, values)| ((*series).to_owned(), (*values).to_owned())).collect(),
        values: vec![
            (query("Ready replicas"), Some(ready)),
            (query("Replicas"), Some(replicas)),
            (query("Denied"), denied),
        ],
    };
    let build = ("passage_authz_build_info{version=\"1\"}", "1+0x20");
    let (ready, unready) = (("passage_authz_ready", "1+0x20"), ("passage_authz_ready{pod=\"b\"}", "0+0x20"));
    let checks = "passage_authz_checks_total{issuer=\"a\",outcome=\"allowed\",code=\"\"}";
    let denials = "passage_authz_checks_total{issuer=\"\",outcome=\"denied\",code=\"token_missing\"}";
    let all = [
        scene(&[], 0.0, 0.0, None),
        scene(&[build, unready], 0.0, 1.0, None),
        scene(&[build, ready, (checks, "0+60x20")], 1.0, 1.0, Some(0.0)),
        scene(&[build, ready, unready, (checks, "0+30x20"), (denials, "0+10x20")], 1.0, 1.0, Some(0.25)),
        // At night.
        scene(&[build, ready, (checks, "60+0x20")], 1.0, 1.0, None),
    ];
    let Some(said) = valued_otherwise(&all) else { return };
    assert!(said.is_empty(), "{said}");
}
