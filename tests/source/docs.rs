//! What the README shows is what the code accepts and the examples ship.

use std::fs;
use std::path::Path;

use passage_authz::config::{Config, Style};
use passage_authz::domain::denial::Denial;
use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The lines between two markers, code fences left out.
fn between(text: &str, marker: &str, open: &str, close: &str) -> Vec<String> {
    let (begin, end) = (format!("{open} {marker}: begin{close}"), format!("{open} {marker}: end{close}"));
    let lines = text.lines().skip_while(|line| line.trim() != begin).skip(1);
    let lines: Vec<_> = lines.take_while(|line| line.trim() != end).map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{marker} is marked");
    lines.into_iter().filter(|line| !line.starts_with("```")).collect()
}

#[test]
fn the_configuration_of_the_readme_is_accepted() {
    let text = between(&read("README.md"), "config", "<!--", " -->").join("\n");
    let config = Config::parse(&text, "README.md").map_err(|error| error.to_string()).unwrap();
    assert_eq!(config.issuers.len(), 2);
}

#[test]
fn the_configuration_for_proxies_over_http_is_accepted() {
    let page = read("deploy/README.md");
    let text = page.split("<<'END'\n").nth(1).unwrap().split("\nEND\n").next().unwrap();
    let config = Config::parse(text, "deploy/README.md").map_err(|error| error.to_string()).unwrap();
    // As each file of these proxies says that it needs it.
    let http = config.http.unwrap();
    assert_eq!((http.listen.as_str(), http.style), ("127.0.0.1:8081", Style::ForwardAuth));
    for file in ["nginx/nginx.conf", "caddy/Caddyfile", "haproxy/haproxy.cfg", "traefik/traefik.yaml"] {
        let needed = "passage-authz needs:  http: {listen: 127.0.0.1:8081, style: forward_auth}";
        assert!(read(&format!("deploy/{file}")).contains(needed), "{file}");
    }
}

#[test]
fn the_filter_of_the_readme_is_the_one_that_is_tested() {
    let shown = between(&read("README.md"), "filter", "<!--", " -->");
    let shipped = between(&read("deploy/envoy/grpc.yaml"), "filter", "#", "");
    let shipped: Vec<_> = shipped.iter().map(|line| line.strip_prefix("          ").unwrap()).collect();
    assert_eq!(shown, shipped);
}

#[test]
fn each_bootstrap_has_the_path_settings_of_the_readme() {
    let shown = between(&read("README.md"), "paths", "<!--", " -->").join("\n");
    let shown: serde_json::Map<String, Value> = serde_saphyr::from_str(&shown).unwrap();
    assert_eq!(shown.len(), 5, "{shown:?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/envoy");
    let shipped = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        shipped.chain([Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose/envoy.yaml")]).collect();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let bootstrap: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let listeners = bootstrap["static_resources"]["listeners"].as_array().unwrap();
        let chains = listeners.iter().flat_map(|listener| listener["filter_chains"].as_array().unwrap());
        for filter in chains.flat_map(|chain| chain["filters"].as_array().unwrap()) {
            for (key, value) in &shown {
                assert_eq!(&filter["typed_config"][key], value, "{key} in {}", file.display());
            }
        }
    }
}

#[test]
fn every_code_has_its_row() {
    let readme = read("README.md");
    for &denial in Denial::ALL {
        let row = format!("| `{}` | {} |", denial.code(), denial.http_status());
        assert_eq!(readme.matches(&row).count(), 1, "{row}");
    }
}

/// Every path that the map names, in backticks, is there.
#[test]
fn the_map_names_what_exists() {
    let map = read("ARCHITECTURE.md");
    let named = map.split('`').skip(1).step_by(2).filter(|text| {
        ["src/", "tests/", "benches/", "docs/", "deploy/", "examples/", "proto/"]
            .iter()
            .any(|root| text.starts_with(root))
    });
    let mut count = 0;
    for path in named.filter(|path| !path.contains([' ', '*', '<']) && !path.contains("foo")) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{path}");
        count += 1;
    }
    assert!(count >= 20, "{count}");
}

/// An operator whom an alert calls finds there what it means.
#[test]
fn each_alert_has_a_section_in_the_runbook() {
    let sorted = |text: &str, prefix: &str| {
        let mut names: Vec<_> =
            text.lines().filter_map(|line| line.trim().strip_prefix(prefix)).map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    let alerts =
        sorted(&read("deploy/helm/passage-authz/templates/prometheusrule.yaml"), "- alert: PassageAuthz");
    assert!(alerts.len() >= 9, "{alerts:?}");
    assert_eq!(sorted(&read("docs/runbook.md"), "## PassageAuthz"), alerts);
}
