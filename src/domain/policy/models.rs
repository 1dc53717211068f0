//! A differential test: rules applied to what known servers read of a target are never stricter than our verdict.
//!
//! Each model is a pure function from the target that a proxy forwards to the paths that the server's router and its handlers
//! see. The sources are the servers' own documentation and code: Express 5 (`router` and `path-to-regexp`: the path as
//! sent, case and one trailing slash ignored), Flask 3 with Werkzeug 3 (WSGI's `PATH_INFO`, PEP 3333: decoded once; the map's
//! `merge_slashes`), Starlette with uvicorn (ASGI's `path`: decoded once), Go 1.22's `net/http` (handlers see `URL.Path`, decoded
//! once, and clean it by `path.Clean`; `ServeMux` cleans the path as sent and compares its segments, each decoded alone), and
//! Tomcat 10 (`CoyoteAdapter`: parameters cut at raw semicolons, then decoded, `encodedSolidusHandling` as `decode` or `passthrough`,
//! then normalised, backslashes optionally slashes).

use super::tests::{ALL, request, rule};
use super::*;

/// A path that a server reads, and what it ignores when it compares it.
struct Read {
    path: Vec<u8>,
    ignored: Ignored,
}

const EXACT: Ignored = Ignored::NOTHING;

/// Each escape that `decodes` takes is its byte; `None` for a broken one.
fn unquote(path: &[u8], decodes: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    let (mut read, mut at) = (Vec::new(), 0);
    while let Some(byte) = path.get(at) {
        if *byte != b'%' {
            read.push(*byte);
            at += 1;
            continue;
        }
        let hex = str::from_utf8(path.get(at + 1..at + 3)?).ok()?;
        let escaped = u8::from_str_radix(hex, 16).ok()?;
        if decodes(escaped) {
            read.push(escaped)
        } else {
            read.extend_from_slice(&path[at..at + 3])
        }
        at += 3;
    }
    Some(read)
}

fn segments(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').skip(1).map(<[u8]>::to_vec).collect()
}

fn joined(segments: &[Vec<u8>]) -> Vec<u8> {
    segments.iter().flat_map(|segment| [b"/", &segment[..]].concat()).collect()
}

/// Go's `path.Clean` with the trailing slash kept, and Tomcat's `normalize` but for its errors: empty and `.` segments go, `..`
/// takes one away and stops at the root.
fn clean(path: &[u8]) -> (Vec<u8>, bool) {
    let (mut kept, mut climbs) = (Vec::<Vec<u8>>::new(), false);
    let all = segments(path);
    for segment in &all {
        match &segment[..] {
            b"" | b"." => {}
            b".." => climbs |= kept.pop().is_none(),
            other => kept.push(other.to_vec()),
        }
    }
    let is_folder = all.last().is_some_and(|last| matches!(&last[..], b"" | b"." | b".."));
    if is_folder {
        kept.push(Vec::new());
    }
    (joined(&kept), climbs)
}

fn express(path: &[u8]) -> Vec<Read> {
    vec![Read { path: path.to_vec(), ignored: ALL }]
}

fn flask(path: &[u8]) -> Vec<Read> {
    let Some(path) = unquote(path, |_| true) else { return Vec::new() };
    let mut merged = path.clone();
    merged.dedup_by(|one, before| *one == b'/' && *before == b'/');
    [path, merged].map(|path| Read { path, ignored: EXACT }).into()
}

fn starlette(path: &[u8]) -> Vec<Read> {
    unquote(path, |_| true).into_iter().map(|path| Read { path, ignored: EXACT }).collect()
}

fn go(path: &[u8]) -> Vec<Read> {
    let Some(decoded) = unquote(path, |_| true) else { return Vec::new() };
    let (cleaned, _) = clean(&decoded);
    // The pattern's segments are compared with the decoded ones; a slash in one separates nothing, as an escape would not.
    let segment = unquote(&clean(path).0, |byte| byte != b'/');
    let paths = [Some(decoded), Some(cleaned), segment];
    paths.into_iter().flatten().map(|path| Read { path, ignored: EXACT }).collect()
}

fn tomcat(path: &[u8]) -> Vec<Read> {
    let cut = segments(path)
        .into_iter()
        .map(|segment| segment.split(|byte| *byte == b';').next().unwrap().to_vec());
    let cut = joined(&cut.collect::<Vec<_>>());
    let mut read = Vec::new();
    for decoded in [unquote(&cut, |_| true), unquote(&cut, |byte| byte != b'/')].into_iter().flatten() {
        let backslashes: Vec<u8> =
            decoded.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
        for path in [decoded, backslashes] {
            let (path, climbs) = clean(&path);
            if !climbs {
                read.push(Read { path, ignored: EXACT });
            }
        }
    }
    read
}

/// The first rule that matches a path as it stands.
fn first<'p>(policy: &'p Policy, read: &Read) -> &'p Rule {
    let fold = |path: &[u8]| read.ignored.fold(path).to_vec();
    let path = fold(&read.path);
    let matches = |pattern: &PathPattern| {
        let text = pattern.to_string();
        if text == "*" || text == "/*" {
            return if text == "*" { path == b"*" } else { path.starts_with(b"/") };
        }
        let (text, is_prefix) = text.strip_suffix("/*").map_or((text.as_str(), false), |text| (text, true));
        let whole = match text.strip_suffix('/') {
            Some(text) if read.ignored.trailing_slash && !is_prefix && !text.is_empty() => text,
            _ => text,
        };
        let mut found = path.split(|byte| *byte == b'/');
        let meets = |(wanted, segment): (&str, &[u8])| {
            ["*", "{sub}"].contains(&wanted) || *read.ignored.fold(wanted.as_bytes()) == *segment
        };
        whole.split('/').all(|wanted| found.next().is_some_and(|segment| meets((wanted, segment))))
            && (is_prefix || found.next().is_none())
    };
    let met = |rule: &&Rule| rule.paths.as_ref().is_none_or(|all| all.iter().any(matches));
    policy.rules.iter().find(met).unwrap_or(&policy.otherwise)
}

const FRAGMENTS: &[&str] = &[
    "/",
    "/",
    "/",
    "/a",
    "/b",
    "/admin",
    "/ADMIN",
    "/x:y",
    "/$b",
    "a",
    "b",
    "admin",
    "..",
    ".",
    "...",
    "//",
    ";",
    ";x=1",
    "\\",
    "%2e",
    "%2E",
    "%2f",
    "%2F",
    "%5c",
    "%3b",
    "%3A",
    "%24",
    "%61",
    "%41",
    "%25",
    "%252e",
    "%252f",
    "%255c",
    "%253b",
    "%25%32%66",
    "%20",
    "%c3%a9",
    "é",
    "/..",
    "/.",
    "/../",
    "/./",
    "/..;/",
    "/%2e%2e/",
    "..%2f",
    "%2f..",
    "?a=/../b",
];

const PATTERNS: &[&str] = &[
    "/",
    "/*",
    "/a",
    "/a/*",
    "/a/b",
    "/A/*",
    "/b/",
    "/admin",
    "/admin/*",
    "/a/admin/*",
    "/x:y",
    "/x:y/*",
    "/$b",
    "/b/a/*",
    "/*/b",
    "/a/*/b/*",
    "/*/*",
    "/a/{sub}/b",
    "/a b",
    "*",
];

/// The readings of a path by one server.
type Model = fn(&[u8]) -> Vec<Read>;

/// Targets and rules from a seed; the same for the same seed.
fn differential(cases: u32, seed: u64) {
    let random = &mut fastrand::Rng::with_seed(seed);
    let accesses = [Access::Public, Access::Lenient, Access::Optional, Access::Required, Access::Deny];
    let models: [(&str, Model); 5] =
        [("Express", express), ("Flask", flask), ("Starlette", starlette), ("Go", go), ("Tomcat", tomcat)];
    let (mut compared, mut policy) = (0_u64, Policy::new(Vec::new(), ALL));
    for case in 0..cases {
        if case % 64 == 0 {
            let rules = (0..random.usize(1..5)).map(|at| {
                let paths: Vec<_> =
                    (0..random.usize(1..4)).filter_map(|_| random.choice(PATTERNS).copied()).collect();
                rule(&at.to_string(), *random.choice(&accesses).unwrap(), &[], &paths, &[])
            });
            policy = Policy::new(rules.collect(), ALL);
        }
        let mut target = String::from("/");
        (0..random.usize(0..9)).for_each(|_| target.push_str(random.choice(FRAGMENTS).unwrap()));
        let Ok(selection) = policy.select(&request("GET", "any", &target)) else { continue };
        // Servers see bytes beyond ASCII, and the proxy forwards them, as they are.
        let path = target.split('?').next().unwrap().as_bytes();
        for (server, model) in models {
            for read in model(path) {
                let alone = first(&policy, &read);
                compared += 1;
                assert!(
                    selection.rules().any(|rule| std::ptr::eq(rule, alone)),
                    "{server} reads {target} as {:?}: rule {:?} of {:?} is not among {:?}",
                    String::from_utf8_lossy(&read.path),
                    alone.name,
                    policy.rules,
                    selection.rules().map(|rule| &rule.name).collect::<Vec<_>>()
                );
            }
        }
    }
    assert!(compared > u64::from(cases), "the models read hardly anything: {compared}");
}

/// A million in the gate (`.ci/run`).
#[test]
fn no_server_reads_a_target_under_a_rule_that_is_not_held() {
    let cases = std::env::var("DIFFERENTIAL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    differential(cases, 0x7061_7373_6167_6521);
}
