//! Helm's own library (by its Python binding): it lints, judges values by the schema, and renders.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use super::pypi;

const PACKAGE: &str = "helm-python-sdk==0.2.2";

pub(crate) const RELEASE: &str = "authz";
pub(crate) const NAMESPACE: &str = "security";

pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/passage-authz")
}

/// The scenarios that the chart ships, by their names.
pub(crate) fn scenarios() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(chart().join("ci")).expect("scenarios");
    let scenario = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.expect("a file").path();
        let name = path.file_name()?.to_str()?.strip_suffix("-values.yaml")?.to_owned();
        let text = std::fs::read_to_string(&path).expect("its text");
        Some((name, serde_saphyr::from_str(&text).expect("YAML")))
    };
    files.filter_map(scenario).collect()
}

/// What Helm says to one set of values.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) lint: Lint,
    rendered: Option<BTreeMap<String, String>>,
    refused: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Lint {
    pub(crate) messages: Vec<Value>,
    pub(crate) errors: Vec<String>,
}

impl Answer {
    /// The rendered templates by their name in the chart, such as `deployment.yaml`; empty ones left out.
    pub(crate) fn templates(&self) -> BTreeMap<&str, &str> {
        let Some(rendered) = &self.rendered else { panic!("refused: {:?}", self.refused) };
        let short = |name: &str| name.find("/templates/").map_or(0, |at| at + "/templates/".len());
        let named = rendered.iter().map(|(name, text)| (&name[short(name)..], text.trim()));
        named.filter(|(_, text)| !text.is_empty()).collect()
    }

    /// Every Kubernetes object, read strictly as YAML.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let manifests = self.templates().into_iter().filter(|(name, _)| *name != "NOTES.txt");
        manifests
            .flat_map(|(name, text)| {
                serde_saphyr::from_multiple::<Value>(text).unwrap_or_else(|error| panic!("{name}: {error}"))
            })
            .collect()
    }

    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    pub(crate) fn refusal(&self) -> &str {
        self.refused.as_deref().expect("refused, but it was rendered")
    }
}

/// Asks about many sets of values at once: one start of Python costs more than all of them.
pub(crate) fn ask(values: &[Value]) -> Vec<Answer> {
    ask_as(RELEASE, values)
}

pub(crate) fn ask_as(release: &str, values: &[Value]) -> Vec<Answer> {
    let folder = pypi::folder(PACKAGE, true).expect("Helm's library");
    let requests: Vec<_> = values
        .iter()
        .map(|values| json!({"values": values, "name": release, "namespace": NAMESPACE}))
        .collect();
    let mut python = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/helm.py"))
        .arg(chart())
        .env("PYTHONPATH", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3");
    // Read to its end before it answers, so writing first cannot block for good.
    let mut stdin = python.stdin.take().expect("piped");
    stdin.write_all(serde_json::to_string(&requests).expect("JSON").as_bytes()).expect("written");
    drop(stdin);
    let output = python.wait_with_output().expect("its end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
