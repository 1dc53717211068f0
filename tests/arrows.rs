//! The arrows of ARCHITECTURE.md, held against the imports. An arrow against them is a red test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom, by module. A file's module is its first path segment below `src/`, but for the
/// parts of `keys`, which are rooms of their own.
const ARROWS: &[(&str, &[&str])] = &[
    // The binary.
    ("main", &["cli"]),
    (
        "cli",
        &[
            "app",
            "clock",
            "config",
            "engine",
            "explain",
            "probe",
            "process",
            "reload",
            "shutdown",
            "spans",
            "telemetry",
            "tls",
            "workers",
        ],
    ),
    ("explain", &["authz", "clock", "denial", "token", "verdict", "verify"]),
    (
        "app",
        &[
            "admin", "clock", "config", "engine", "health", "http", "listen", "load", "metrics", "reload",
            "rpc", "server", "spans", "tls", "workers",
        ],
    ),
    ("reload", &["issuer", "clock", "config", "engine", "keys::refresh", "live", "disk"]),
    (
        "engine",
        &[
            "cache",
            "verify",
            "wire",
            "counts",
            "decisions",
            "observe",
            "spans",
            "authz",
            "clock",
            "config",
            "issuer",
            "keys::fetch",
            "keys::kept",
            "keys::refresh",
            "keys::store",
            "policy",
        ],
    ),
    ("live", &["authz"]),
    ("cache", &["token", "verify"]),
    ("disk", &[]),
    // The ring.
    ("counts", &["issuer", "observe", "shards"]),
    ("observe", &["clock", "counts", "decisions", "denial", "issuer", "request", "spans"]),
    ("decisions", &["config", "issuer", "observe", "request"]),
    ("spans", &["clock", "issuer", "observe", "request"]),
    (
        "authz",
        &[
            "cache",
            "claims",
            "observe",
            "clock",
            "config",
            "denial",
            "identity",
            "issuer",
            "keys",
            "keys::store",
            "live",
            "policy",
            "request",
            "token",
            "verdict",
            "verify",
            "wire",
        ],
    ),
    ("wire", &["answer", "denial", "grpc", "identity", "request", "token", "verdict"]),
    ("http", &["answer", "config", "denial", "identity", "live", "load", "request", "token", "verdict"]),
    ("rpc", &["authz", "grpc", "health", "live", "load", "wire"]),
    ("grpc", &["load"]),
    ("load", &["shards"]),
    ("shards", &[]),
    ("requests", &[]),
    ("admin", &["clock", "live", "metrics"]),
    ("metrics", &["issuer", "live", "load", "process", "server"]),
    ("process", &[]),
    ("probe", &[]),
    ("reads", &[]),
    ("health", &["live", "wire"]),
    (
        "keys::refresh",
        &["disk", "algorithm", "clock", "config", "keys", "keys::fetch", "keys::kept", "keys::store"],
    ),
    ("keys::kept", &["clock", "issuer"]),
    ("keys::store", &["clock", "config", "issuer", "keys"]),
    ("keys::fetch", &["issuer", "config", "json", "disk"]),
    ("server", &["listen", "load", "reads", "requests", "tls", "workers"]),
    ("workers", &[]),
    ("listen", &["config"]),
    ("tls", &["config", "disk"]),
    ("shutdown", &[]),
    ("telemetry", &[]),
    // Between core and ring: it reads, and decides nothing.
    ("config", &["algorithm", "claims", "clock", "denial", "identity", "issuer", "keys", "policy", "token"]),
    // The core.
    ("answer", &["denial"]),
    ("verdict", &["claims", "denial", "identity", "issuer", "token", "verify"]),
    ("policy", &["claims", "denial", "issuer", "path", "request", "verify"]),
    ("path", &[]),
    ("verify", &["algorithm", "claims", "clock", "denial", "issuer", "json", "keys", "token"]),
    ("identity", &["claims", "denial", "json"]),
    ("claims", &["clock", "denial", "issuer", "json"]),
    ("keys", &["algorithm", "clock", "json", "verifier"]),
    ("verifier", &["algorithm"]),
    ("token", &["denial", "request"]),
    ("issuer", &["algorithm"]),
    ("request", &[]),
    ("denial", &[]),
    ("algorithm", &[]),
    ("json", &[]),
    ("clock", &[]),
    // Beside the house.
    (
        "testing",
        &[
            "algorithm",
            "cache",
            "clock",
            "config",
            "denial",
            "identity",
            "issuer",
            "keys",
            "token",
            "verdict",
            "verify",
            "wire",
        ],
    ),
];

const CORE: &[&str] = &[
    "verifier",
    "verdict",
    "policy",
    "path",
    "verify",
    "identity",
    "claims",
    "keys",
    "token",
    "issuer",
    "request",
    "denial",
    "algorithm",
    "json",
    "clock",
];

/// What only the ring may touch.
const RING_ONLY: &[&str] =
    &["tokio", "tokio_util", "tonic", "moka", "envoy_types", "tracing", "hyper", "reqwest", "http"];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module a file belongs to.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let segments: Vec<_> =
        below.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    match segments.as_slice() {
        [keys, part, ..] if keys == "keys" => format!("keys::{part}"),
        [first, ..] => first.clone(),
        [] => unreachable!("a file has a name"),
    }
}

/// The file's code without its tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every module of this crate that the code names after `crate::` or `passage_authz::`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for start in ["crate::", "passage_authz::"] {
        for (at, _) in code.match_indices(start) {
            let rest = &code[at + start.len()..];
            let name = |text: &str| {
                text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned()
            };
            let first = name(rest);
            let part = rest.strip_prefix("keys::").map(name);
            found.insert(match part {
                Some(part) if ["fetch", "kept", "refresh", "store"].contains(&part.as_str()) => {
                    format!("keys::{part}")
                }
                _ => first,
            });
        }
    }
    found
}

#[test]
fn imports_follow_the_arrows() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut paths = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    let mut seen = BTreeSet::new();
    for path in paths {
        let module = module(&path);
        if module == "lib" || path.ends_with("tests.rs") {
            continue;
        }
        let code = code(&fs::read_to_string(&path).unwrap());
        let to = allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not on the map"));
        for import in imports(&code).into_iter().filter(|import| *import != module && !import.is_empty()) {
            assert!(to.contains(&import.as_str()), "{module} -> {import} is against the arrows");
        }
        if CORE.contains(&module.as_str()) || module == "config" {
            for library in RING_ONLY {
                let used =
                    code.contains(&format!("use {library}::")) || code.contains(&format!(" {library}::"));
                assert!(!used, "{module} uses {library}, which is the ring's");
            }
        }
        seen.insert(module);
    }
    let unused: Vec<_> = allowed.keys().filter(|module| !seen.contains(**module)).collect();
    assert!(unused.is_empty(), "on the map, not in the house: {unused:?}");
}

#[test]
fn the_check_can_fail() {
    let code = code(
        "use crate::wire::x;\nuse crate::keys::store::Y;\n// crate::comment\n#[cfg(test)]\nuse crate::tests;",
    );
    assert_eq!(imports(&code), BTreeSet::from(["keys::store".to_owned(), "wire".to_owned()]));
}
