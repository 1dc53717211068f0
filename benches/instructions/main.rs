//! Instructions per check of the real binary, counted by callgrind; unlike times, the counts repeat within a percent.
//! One connection, one check at a time, from socket to socket. Two runs of different length are counted, and their
//! difference leaves out the start.
//!
//! `cargo bench --bench instructions` prints the counts beside the budgets of `budgets.json`; `-- --check` fails if a
//! count differs from its budget by more than its tolerance, if a hostile path costs more than 8 plain ones of its length, or
//! if identity by maps costs a cached token more than 2 %; `-- --keep DIR` keeps callgrind's files in DIR.

#![expect(clippy::print_stdout, reason = "it prints a table")]

#[allow(dead_code, reason = "side_by_side uses the rest")]
#[path = "../side_by_side/client.rs"]
mod client;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use bytes::Bytes;
use client::{Client, check, check_of, session};
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{SigningKey, jwks, tampered};
use serde_json::Value;

/// Checks in the shorter and in the longer run.
const RUNS: [usize; 2] = [200, 1200];

/// The same for revocations: what happens once, such as the first read of the file, counts for little then.
const LONG_RUNS: [usize; 2] = [1000, 21_000];

/// Found by its symbol, which the profile `profiling` keeps.
const DECISION: &str = "--toggle-collect=*check::authorizer::Authorizer::decide*";

/// Relative difference from the budget that is allowed, either way: an improvement lowers its budget.
const TOLERANCE: f64 = 0.03;

/// The same for long paths: how the C library copies kilobytes depends on the processor's caches, and so on the machine.
const TOLERANCE_OF_LONG_PATHS: f64 = 0.1;

/// The most that a hostile path may cost, in plain paths of its length, counted in the same run.
const MAX_PLAIN_PATHS: u64 = 8;

/// The same check with and without maps of the identity, and the most that maps may cost as a ratio of both.
const MAPPED: (&str, &str, f64) = ("cached, identity by maps", "cached token", 1.02);

/// The same check with and without revocations, and how many instructions more its decision may cost. Not in the gate, since valgrind takes
/// minutes for a million entries: `REVOCATIONS=1000000 cargo bench --profile profiling --bench instructions` counts these two alone, and of
/// them what stands below [`DECISION`]. HTTP/2 around it varies by some hundred between two runs.
const WATCHED: (&str, &str, u64) = ("cached, revocations", "cached token", 60);

fn revocations() -> Option<usize> {
    std::env::var("REVOCATIONS").ok()?.parse().ok()
}

struct Scenario {
    name: &'static str,
    config: String,
    checks: Vec<Bytes>,
    status: i32,
}

/// The decision log is off: it is limited per second, and under valgrind the number of checks per second varies.
fn scenarios() -> Vec<Scenario> {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let keys = jwks(&[&key]);
    let config = |more: &str| {
        format!(
            "server: {{listen: '127.0.0.1:0', drain_timeout: 1s}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
             decision_log: {{denied: 0}}\n\
             issuers: [{{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}]\n{more}"
        )
    };
    let token = session(&key, 1);
    let one = |token: &str| vec![check(token)];
    // All hosts and paths differ, and the last rule matches.
    let rules: String = (0..999)
        .map(|at| {
            format!("  - {{name: r{at}, match: {{paths: [/r{at}/*], hosts: [h{at}.example.com]}}, access: public}}\n")
        })
        .collect();
    let table = concat!(env!("CARGO_TARGET_TMPDIR"), "/users.csv");
    let lines: String = (0..1000).map(|at| format!("user-{at},old-{at}\n")).collect();
    std::fs::write(table, lines).expect("written");
    let by_maps = format!(
        "identity:\n  headers: {{x-passage-user-id: {{first: [old_id, sub], cut_prefix: 'auth0|', map: '{table}'}}}}\n  \
         metadata: {{iss: iss, sub: {{claim: sub, map: '{table}'}}}}\n"
    );
    let revoked = concat!(env!("CARGO_TARGET_TMPDIR"), "/revoked");
    let entries: String = (0..revocations().unwrap_or_default())
        .map(|at| {
            format!("{{\"issuer\":\"passage\",\"kind\":\"jti\",\"value\":\"{at:020}\",\"issued_before\":4000000000,\"until\":4000000000}}\n")
        })
        .collect();
    std::fs::write(revoked, entries).expect("written");
    let scenario = |name, config, checks, status| Scenario { name, config, checks, status };
    let paths = "rules: [{name: health, match: {paths: [/healthz, '/assets/*']}, access: public}]\n";
    // Every mark that servers read differently, then escapes: the most that is read in several ways, and more than that.
    let hostile = |bytes: usize| {
        let marks = "/a;b/%3b%25/%2f/\\x//.././/%24%5c%252e/".repeat(5);
        format!("{marks}{}", "%c3%A9".repeat((bytes - marks.len()) / 6))
    };
    let on_path = |target: &str| vec![check_of(&token, target)];
    let mut scenarios = vec![
        scenario("plain path of 2 KB", config(paths), on_path(&format!("/{}", "a".repeat(2000))), 200),
        scenario("hostile path of 2 KB", config(paths), on_path(&hostile(2000)), 200),
        scenario("plain path of 8 KB", config(paths), on_path(&format!("/{}", "a/".repeat(4000))), 200),
        scenario("hostile path of 8 KB", config(paths), on_path(&hostile(8000)), 200),
        scenario("cached token", config(""), one(&token), 200),
        scenario(MAPPED.0, config(&by_maps), one(&token), 200),
        scenario("new token", config("tokens: {cache: {max_entries: 0}}\n"), one(&token), 200),
        scenario("forged signature", config(""), one(&tampered(&token)), 401),
        scenario("malformed token", config(""), one("not.a.token"), 401),
        scenario("oversized token", config(""), one(&"x".repeat(9000)), 401),
        scenario(
            "cached, 1,000 rules",
            config(&format!("rules:\n{rules}  - {{name: last}}\n")),
            one(&token),
            200,
        ),
    ];
    if revocations().is_some() {
        let config = config(&format!("revocation: {{file: '{revoked}'}}\n"));
        scenarios.push(scenario(WATCHED.0, config, one(&token), 200));
    }
    scenarios
}

/// All instructions of a run with this number of checks; with `REVOCATIONS` those of the decisions.
fn run(scenario: &Scenario, checks: usize, file: &Path) -> u64 {
    let mut config = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    config.write_all(scenario.config.as_bytes()).expect("written");
    let mut process = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--log-file=/dev/null"])
        .args(revocations().map(|_| DECISION))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env!("CARGO_BIN_EXE_passage-authz"))
        .args(["serve", "--config"])
        .arg(config.path())
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind is installed");
    let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
    let address: SocketAddr = loop {
        let line = lines.next().expect("it says where it listens").expect("text");
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        if event["message"] == "listening" {
            break event["grpc"].as_str().expect("an address").parse().expect("an address");
        }
    };
    let reading = std::thread::spawn(move || lines.for_each(drop));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(address, 1).await;
        client.count(checks, &scenario.checks, scenario.status).await;
    });
    let id = process.id().to_string();
    let stopped = Command::new("kill").args(["-TERM", &id]).status().expect("kill is there");
    assert!(stopped.success());
    assert!(process.wait().expect("it ends").success());
    reading.join().expect("read to the end");
    total(file)
}

fn total(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).expect("callgrind wrote its file");
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("totals");
    totals.trim().parse().expect("a number")
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let checking = arguments.iter().any(|argument| argument == "--check");
    let keep =
        arguments.iter().position(|argument| argument == "--keep").and_then(|at| arguments.get(at + 1));
    let only =
        arguments.iter().position(|argument| argument == "--only").and_then(|at| arguments.get(at + 1));
    let folder = tempfile::tempdir().expect("a folder");
    let folder = keep.map_or(folder.path(), Path::new);
    assert!(folder.is_dir(), "--keep names a folder that exists, not {}", folder.display());
    let budgets: Value = serde_json::from_str(include_str!("budgets.json")).expect("JSON");
    let (mut missed, mut counts) = (false, BTreeMap::new());
    println!("{:<24} {:>12} {:>12}", "instructions per check", "counted", "budget");
    for scenario in scenarios() {
        let is_watched = [WATCHED.0, WATCHED.1].contains(&scenario.name);
        if only.is_some_and(|only| only != scenario.name) || (revocations().is_some() && !is_watched) {
            continue;
        }
        let file = folder.join(format!("{}.callgrind", scenario.name.replace([' ', ','], "_")));
        let runs = if revocations().is_some() { LONG_RUNS } else { RUNS };
        let [short, long] = runs.map(|checks| run(&scenario, checks, &file));
        let each = (long - short) / (runs[1] - runs[0]) as u64;
        let budget = budgets[scenario.name].as_u64().unwrap_or(0);
        counts.insert(scenario.name, each);
        let off = each as f64 / budget as f64 - 1.0;
        let is_long_path = scenario.name.contains("path of");
        // A part of a check has no budget of its own.
        let fits = revocations().is_some()
            || off.abs() <= if is_long_path { TOLERANCE_OF_LONG_PATHS } else { TOLERANCE };
        missed |= !fits;
        let note = if fits { String::new() } else { format!("  {:+.1} %", off * 100.0) };
        println!("{:<24} {each:>12} {budget:>12}{note}", scenario.name);
    }
    for (hostile, cost) in &counts {
        let plain = hostile.strip_prefix("hostile").and_then(|path| counts.get(&*format!("plain{path}")));
        if let Some(plain) = plain {
            println!("{hostile}: {:.1} plain ones", *cost as f64 / *plain as f64);
            missed |= *cost > MAX_PLAIN_PATHS * plain;
        }
    }
    let (mapped, plain, most) = MAPPED;
    if let (Some(mapped), Some(plain)) = (counts.get(mapped), counts.get(plain)) {
        let ratio = *mapped as f64 / *plain as f64;
        println!("{}: {ratio:.3} of one without", MAPPED.0);
        missed |= ratio > most;
    }
    let (watched, plain, most) = WATCHED;
    if let (Some(watched), Some(plain)) = (counts.get(watched), counts.get(plain)) {
        println!("{}: {:+} instructions", WATCHED.0, watched.cast_signed() - plain.cast_signed());
        missed |= *watched > plain + most;
    }
    if checking && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
