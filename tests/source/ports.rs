//! One port for one thing: what deploy/ and the README write fits the table of ports in deploy/README.md.

use std::fs;
use std::path::{Path, PathBuf};

use passage_authz::config::Config;

const CHECKS: &str = "8081";
const UPSTREAM: &str = "8080";

/// What is written beside, or above, the port of the checks over HTTP.
const OF_CHECKS: [&str; 6] =
    ["passage-authz", "forward_auth", "forward-auth", "forwardAuth", "auth-url", "http:"];

/// The same for the service that is protected. `upstream passage-authz` is nginx's word for a group of servers.
const OF_UPSTREAM: [&str; 5] = ["protected", "the upstream", "server upstream", "upstream:", "reverse_proxy"];

/// What stands before the port of an example's gateway, which is none of ours.
const OF_GATEWAYS: [&str; 2] = [".example.com:", "ateway on port "];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The places in a line where this number stands alone, without those of gateways in examples.
fn places(line: &str, port: &str) -> Vec<usize> {
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    line.match_indices(port)
        .map(|(at, _)| at)
        .filter(|at| {
            let (before, after) = (&line[..*at], &line[at + port.len()..]);
            !digit(before.chars().next_back())
                && !digit(after.chars().next())
                && !OF_GATEWAYS.iter().any(|text| before.ends_with(text))
        })
        .collect()
}

/// How far the nearest of these words is from the port in this line.
fn distance(line: &str, at: usize, words: &[&str]) -> Option<usize> {
    let found = words.iter().flat_map(|word| line.match_indices(word));
    let end = at + UPSTREAM.len();
    found
        .map(
            |(place, word)| {
                if place < at { at.saturating_sub(place + word.len()) } else { place.saturating_sub(end) }
            },
        )
        .min()
}

/// The port that belongs where this one stands: by the nearest word of its line, else of the lines above it.
fn belongs(lines: &[&str], row: usize, at: usize) -> Option<&'static str> {
    lines[..=row].iter().enumerate().rev().find_map(|(other, line)| {
        let at = if other == row { at } else { line.len() };
        match (distance(line, at, &OF_CHECKS), distance(line, at, &OF_UPSTREAM)) {
            (None, None) => None,
            (Some(checks), Some(upstream)) => Some(if checks < upstream { CHECKS } else { UPSTREAM }),
            (Some(_), None) => Some(CHECKS),
            (None, Some(_)) => Some(UPSTREAM),
        }
    })
}

/// How many places there are, and those that do not fit.
fn check(name: &str, text: &str) -> (usize, Vec<String>) {
    // The scheme of a URL is no key `http`.
    let text = text.replace("http://", "");
    let lines: Vec<_> = text.lines().collect();
    let (mut count, mut faults) = (0, Vec::new());
    for (row, line) in lines.iter().enumerate() {
        for port in [CHECKS, UPSTREAM] {
            for at in places(line, port) {
                count += 1;
                if belongs(&lines, row, at) != Some(port) {
                    faults.push(format!("{name}:{}: {}", row + 1, line.trim()));
                }
            }
        }
    }
    (count, faults)
}

#[test]
fn no_file_takes_one_port_for_another() {
    let mut all = vec![root().join("README.md")];
    files(&root().join("deploy"), &mut all);
    let texts: Vec<_> = all
        .into_iter()
        .filter_map(|path| Some((path.display().to_string(), fs::read_to_string(&path).ok()?)))
        .filter(|(name, text)| check(name, text).0 > 0)
        .collect();
    assert!(texts.len() >= 15, "{} files", texts.len());
    let faults: Vec<_> = texts.iter().flat_map(|(name, text)| check(name, text).1).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    // With the two exchanged every place is refused: no place is taken for right whatever it holds.
    for (name, text) in texts {
        let exchanged = text.replace(CHECKS, "\0").replace(UPSTREAM, CHECKS).replace('\0', UPSTREAM);
        let (count, refused) = check(&name, &exchanged);
        assert_eq!(refused.len(), count, "{name}: {refused:#?}");
    }
}

#[test]
fn the_table_of_ports_has_the_defaults() {
    let text = fs::read_to_string(root().join("deploy/README.md")).unwrap();
    let section = text.split("\n## Ports\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<Vec<_>> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1).take(5).collect())
        .collect();
    let row =
        |port: &str| rows.iter().find(|row| row[0] == port).unwrap_or_else(|| panic!("no row of {port}"));
    let defaults = Config::parse("issuers: [{name: p, passage: {app_id: a}}]", "").unwrap();
    let port = |listen: String| listen.rsplit(':').next().unwrap().to_owned();
    for (port, key) in [
        (port(defaults.server.listen.to_string()), "server.listen"),
        (port(defaults.admin_listen), "admin.listen"),
        (CHECKS.to_owned(), "http.listen"),
    ] {
        let row = row(&port);
        assert!(row[1].starts_with("passage-authz"), "{row:?}");
        assert!(row[3].starts_with(key), "{row:?}");
    }
    assert!(row(UPSTREAM)[1].starts_with("the upstream"), "{:?}", row(UPSTREAM));
    assert!(row("10000")[1].starts_with("the proxy"), "{:?}", row("10000"));
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains("(deploy/README.md#ports)"), "the README links the table");
}
