//! The layers of `src/`, held against the imports: a folder imports only folders of later layers, no file takes part in a
//! circle, and the core uses no crate that waits, listens or logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers in their order, the binary first. Folders of one layer do not import each other.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["api"],
    &["live"],
    &["check"],
    &["keys", "revocation", "server"],
    &["config", "wire"],
    &["domain"],
    &["per_core", "sha256", "watched_file"],
];

/// The core, and the crates that it must not use: it runs in plain tests and under a fuzzer.
const CORE: &str = "domain";
const BANNED_IN_CORE: &[&str] = &[
    "envoy_types",
    "http",
    "hyper",
    "hyper_util",
    "moka",
    "prost",
    "reqwest",
    "tokio",
    "tokio_util",
    "tonic",
    "tracing",
];

/// Test doubles stand beside the layers: product code names them in its tests only.
const BESIDE: &[&str] = &["lib", "testing"];

/// A source file: its module path below the crate, and its code without comments and tests.
struct Source {
    module: Vec<String>,
    code: String,
}

type Module = Vec<String>;

/// A file together with the folder of its own parts is one room; a layer's own file is another.
fn room(module: &[String]) -> Module {
    module.iter().take(2).cloned().collect()
}

fn segments(path: &str) -> Module {
    path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The code without comments and without what is compiled for tests.
fn product_code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn sources() -> Vec<Source> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    let read = |path: PathBuf| {
        let below = path.strip_prefix(&root).unwrap().with_extension("");
        let module = below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        Source { module, code: product_code(&fs::read_to_string(&path).unwrap()) }
    };
    let sources = paths.into_iter().map(read);
    sources.filter(|source| !source.module.iter().any(|name| name == "tests")).collect()
}

/// Every path that begins with `crate::`, `super::`, the crate's own name or a module that the file declares, groups in
/// braces expanded.
fn paths(code: &str) -> Vec<String> {
    let declared = code.lines().filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod "));
    let children = declared.map(|(_, child)| (format!("{child}::"), "self::"));
    let roots = ["crate::", "super::", "passage_authz::"].map(|root| (root.to_owned(), ""));
    let mut found = Vec::new();
    for (start, prefix) in children.chain(roots) {
        for (at, _) in code.match_indices(&start) {
            let before = code[..at].chars().next_back();
            let continues = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
            if !continues {
                expand(prefix.to_owned(), &code[at..], &mut found);
            }
        }
    }
    found
}

/// Expands one path, and the groups in it, into plain paths; returns what follows it.
fn expand<'a>(prefix: String, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c))).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let prefix = format!("{prefix}{path}");
    if !(prefix.ends_with("::") && rest.starts_with('{')) {
        found.push(prefix);
        return rest;
    }
    let mut rest = &rest[1..];
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if rest.is_empty() {
            return rest;
        }
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        let before = rest.len();
        rest = expand(prefix.clone(), rest, found);
        if rest.len() == before {
            // A macro's or a format string's braces, no list of names.
            return rest;
        }
    }
}

/// The file that a path of `source` names: the longest module that is one.
fn target(source: &Source, path: &str, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut names = segments(path).into_iter().peekable();
    let mut at = match names.next()?.as_str() {
        "crate" | "passage_authz" => Vec::new(),
        "self" => source.module.clone(),
        _ => source.module[..source.module.len() - 1].to_vec(),
    };
    while names.next_if(|name| name == "super").is_some() {
        at.pop();
    }
    let mut found = modules.contains(&at).then(|| at.clone());
    for name in names {
        at.push(name);
        if modules.contains(&at) {
            found = Some(at.clone());
        }
    }
    found
}

type Graph = BTreeMap<Module, BTreeSet<Module>>;

fn imports(sources: &[Source]) -> Graph {
    let modules: BTreeSet<_> = sources.iter().map(|source| source.module.clone()).collect();
    let mut graph = Graph::new();
    for source in sources {
        let from = room(&source.module);
        let targets = paths(&source.code).into_iter().filter_map(|path| target(source, &path, &modules));
        let others: Vec<_> = targets.map(|to| room(&to)).filter(|to| *to != from).collect();
        graph.entry(from).or_default().extend(others);
    }
    graph
}

fn layer(module: &Module) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module[0].as_str()))
}

/// Imports that lead to the same layer's neighbour, or to an earlier layer.
fn upward(graph: &Graph) -> Vec<String> {
    let mut faults = Vec::new();
    for (from, targets) in graph.iter().filter(|(from, _)| !BESIDE.contains(&from[0].as_str())) {
        for to in targets.iter().filter(|to| to[0] != from[0]) {
            let (Some(above), Some(below)) = (layer(from), layer(to)) else {
                faults.push(format!("{} -> {}: not among the layers", from.join("::"), to.join("::")));
                continue;
            };
            if below <= above {
                faults.push(format!("{} -> {}", from.join("::"), to.join("::")));
            }
        }
    }
    faults
}

/// Rooms that import each other: what is left when rooms that import none of the others, or that none of the others
/// imports, are taken away until none is.
fn circles(graph: &Graph) -> Vec<String> {
    let mut left = graph.clone();
    loop {
        let named: BTreeSet<_> = left.values().flatten().cloned().collect();
        let files: BTreeSet<_> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|file, _| named.contains(file));
        left.retain(|_, targets| {
            targets.retain(|target| files.contains(target));
            !targets.is_empty()
        });
        if left.len() == before {
            return left.keys().map(|file| file.join("::")).collect();
        }
    }
}

#[test]
fn imports_lead_to_later_layers() {
    let graph = imports(&sources());
    let names: BTreeSet<_> = graph.keys().map(|file| file[0].as_str()).collect();
    let unknown: Vec<_> = names
        .iter()
        .filter(|name| !BESIDE.contains(name) && !LAYERS.iter().any(|layer| layer.contains(name)))
        .collect();
    assert!(unknown.is_empty(), "in no layer: {unknown:?}");
    assert_eq!(upward(&graph), Vec::<String>::new());
}

#[test]
fn no_rooms_import_each_other() {
    assert_eq!(circles(&imports(&sources())), Vec::<String>::new());
}

#[test]
fn the_core_uses_no_crate_that_waits_listens_or_logs() {
    for source in sources().iter().filter(|source| source.module[0] == CORE) {
        for library in BANNED_IN_CORE {
            let is_use = |(at, _): (usize, &str)| {
                let before = source.code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            };
            let used = source.code.match_indices(&format!("{library}::")).any(is_use);
            assert!(!used, "{} uses {library}", source.module.join("::"));
        }
    }
}

#[test]
fn an_import_upward_and_a_circle_are_seen() {
    let file = |path: &str, code: &str| Source { module: segments(path), code: product_code(code) };
    let graph = imports(&[
        file("check::authorizer", "use crate::{live::{self, Live}, domain::token::Token};\n// crate::api"),
        file("live", "use crate::check::authorizer::Authorizer;"),
        file("domain::token", "use super::json::Object;\nfn f() { \"{crate::x}\" }"),
        file("domain::json", "#[cfg(test)]\nuse crate::domain::token::Token;"),
        file("keys::sets", "use crate::server;"),
        file("server", ""),
    ]);
    assert_eq!(upward(&graph), ["check::authorizer -> live", "keys::sets -> server"]);
    assert_eq!(circles(&graph), ["check::authorizer", "live"]);
    let inside = imports(&[
        file("domain::token", "use super::{json::Object};"),
        file("domain::json", "use crate::domain::token::{self};"),
    ]);
    assert_eq!(upward(&inside), Vec::<String>::new());
    assert_eq!(circles(&inside), ["domain::json", "domain::token"]);
    let parent = imports(&[
        file("config", "mod schema;\nfn parse() { schema::read() }"),
        file("config::schema", "use super::Config;"),
        file("config::schema::rules", "use super::choice;"),
    ]);
    assert_eq!(circles(&parent), ["config", "config::schema"]);
}
