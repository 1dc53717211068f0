//! The real binary beside a stock tonic server, over loopback, in one interleaved run: CPU time of the server per
//! check, and latency.
//!
//! `cargo bench --bench side_by_side` prints the table; `-- --draw` writes docs/side_by_side.svg as well;
//! `-- --quick` takes fewer rounds; `-- --growth`, `-- --cores` and `-- --memory` measure how cost and memory grow.
//! The servers run on the first core and the client on the second.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod client;
mod lean;
mod stock;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use client::{Client, check, session};
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{SigningKey, jwks, tampered};
use serde_json::{Value, json};

/// Time of one turn of one row.
const SLICE: Duration = Duration::from_millis(700);

/// Enough tokens that a cache of ten has evicted each before it comes again.
const TOKENS: usize = 3000;

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command, bound to these cores.
fn pinned(cores: &str, program: &std::path::Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program).stdin(Stdio::null());
    command
}

impl Server {
    fn stock(jwk: Option<&Value>) -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut command = pinned("0", &own);
        command.arg("--stock");
        if let Some(jwk) = jwk {
            command.arg(jwk.to_string());
        }
        let mut process = command.stdout(Stdio::piped()).spawn().expect("taskset is there");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim().parse().expect("an address");
        // It prints its port before it listens.
        while std::net::TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        Self { process, address }
    }

    fn ours(cores: &str, config: &str) -> Self {
        let mut file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
        file.write_all(config.as_bytes()).expect("written");
        let mut process = pinned(cores, env!("CARGO_BIN_EXE_passage-authz").as_ref())
            .args(["serve", "--config"])
            .arg(file.path())
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .expect("taskset is there");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").expect("text");
            let event: Value = serde_json::from_str(&line).expect("JSON");
            if event["message"] == "listening" {
                break event["grpc"].as_str().expect("an address").parse().expect("an address");
            }
        };
        // The decision log must be read, as it is in production.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    /// CPU time of all its threads so far.
    fn cpu(&self) -> Duration {
        let folder = format!("/proc/{}/task", self.process.id());
        let threads = std::fs::read_dir(folder).expect("it runs");
        let nanos = threads.map(|thread| {
            let text = std::fs::read_to_string(thread.expect("a thread").path().join("schedstat"));
            text.ok().and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Resident memory in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
    }
}

/// One row of the table.
struct Row {
    name: &'static str,
    server: Arc<Server>,
    checks: Arc<[Bytes]>,
    status: i32,
    cpu: Vec<f64>,
    latency: Vec<[Duration; 2]>,
}

impl Row {
    fn new(name: &'static str, server: &Arc<Server>, checks: Arc<[Bytes]>, status: i32) -> Self {
        Self { name, server: Arc::clone(server), checks, status, cpu: Vec::new(), latency: Vec::new() }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn one(token: &str) -> Arc<[Bytes]> {
    vec![check(token)].into()
}

/// One verification with aws-lc-rs and a key parsed once, CPU µs, on the servers' core.
fn verify_cost(jwk: &Value, token: &str) -> f64 {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("a parameter")).expect("base64");
    let components = aws_lc_rs::rsa::PublicKeyComponents { n: part("n"), e: part("e") };
    let key = components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).expect("a key");
    let (message, signature) = token.rsplit_once('.').expect("a token");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let clock = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let begun = clock();
    for _ in 0..2000 {
        key.verify_sig(message.as_bytes(), &signature).expect("it holds");
    }
    (clock() - begun).as_secs_f64() * 1e6 / 2000.0
}

/// Bars, the stock server's on top.
fn picture(bars: &[(&str, f64)]) -> String {
    let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let height = bars.len() * 26 + 44;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"720\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"20\" fill=\"#1f2937\">CPU time of the server per check, in microseconds (less is better)</text>\n"
    );
    for (at, (name, cpu)) in bars.iter().enumerate() {
        let (y, width) = (at * 26 + 34, cpu / most * 420.0);
        let colour = if name.starts_with("stock") { "#9ca3af" } else { "#2563eb" };
        svg.push_str(&format!(
            "<text x=\"210\" y=\"{}\" text-anchor=\"end\" fill=\"#1f2937\">{name}</text>\
             <rect x=\"220\" y=\"{y}\" width=\"{width:.0}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{}\" fill=\"#1f2937\">{cpu:.1}</text>\n",
            y + 14,
            width + 226.0,
            y + 14,
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

/// CPU µs per check of a server under this load; the median of a few turns.
fn cost(server: &Server, load: (usize, usize), checks: &Arc<[Bytes]>) -> f64 {
    lean::closed(server.address, load, SLICE / 2, checks, true);
    let turns: Vec<_> = (0..5)
        .map(|_| {
            let before = server.cpu();
            let answered = lean::closed(server.address, load, SLICE, checks, true);
            server.cpu().saturating_sub(before).as_secs_f64() * 1e6 / answered as f64
        })
        .collect();
    median(&turns)
}

/// A configuration with the key's issuer, further issuers, and further keys.
fn config(key: &SigningKey, algorithm: &str, issuers: &str, more: &str) -> String {
    let keys = jwks(&[key]);
    let app = format!("passage: {{app_id: app1}}, algorithms: [{algorithm}], keys: {{inline: {keys}}}");
    format!(
        "server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\nissuers:\n\
         \u{20} - {{name: passage, {app}}}\n{issuers}{more}"
    )
}

/// This number of rules, none of which matches the check.
fn rules(count: usize) -> String {
    let rule = |at| {
        format!(
            "  - {{name: r{at}, match: {{paths: [/r{at}/*], hosts: [h{at}.example.com]}}, access: public}}\n"
        )
    };
    format!("rules:\n{}", (0..count).map(rule).collect::<String>())
}

fn issuers(count: usize) -> String {
    let issuer = |at| {
        let key = SigningKey::shared(&format!("i{}", at % 3), Algorithm::Rs256);
        let keys = jwks(&[&key]);
        format!("  - {{name: i{at}, issuer: i{at}, audiences: [], keys: {{inline: {keys}}}}}\n")
    };
    (0..count).map(issuer).collect()
}

/// Checks per second on two cores, against one core, and against two processes that share nothing, which are the most
/// that this machine allows. In every case each core runs its own client: a client on an idle core in one case and on
/// the server's core in another would distort the comparison.
fn cores() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    // Tokens of many users: with one token all cores would write to one cache line.
    let checks: Arc<[Bytes]> = (0..500).map(|at| check(&session(&key, at))).collect();
    let server = |cores| Server::ours(cores, &config(&key, "RS256", "", ""));
    let (one, two, apart) = (server("0"), server("0,1"), [server("0"), server("1")]);
    // The server that the client on each core calls.
    let cases =
        [vec![one.address], vec![two.address; 2], apart.iter().map(|server| server.address).collect()];
    let mut answered = [const { Vec::new() }; 3];
    for _ in 0..15 {
        for (addresses, answered) in cases.iter().zip(&mut answered) {
            let clients: Vec<_> = addresses
                .iter()
                .enumerate()
                .map(|(core, &address)| {
                    let checks = Arc::clone(&checks);
                    std::thread::spawn(move || {
                        pin(core);
                        lean::closed(address, (2, 16), SLICE, &checks, true)
                    })
                })
                .collect();
            let all: usize = clients.into_iter().map(|client| client.join().expect("it ended")).sum();
            answered.push(all as f64 / SLICE.as_secs_f64());
        }
    }
    let [one, two, apart] = answered.map(|answered| median(&answered));
    println!("checks a second, the clients' own work on the same cores");
    println!("one core                {one:>9.0}");
    println!("two cores               {two:>9.0} {:>6.2}", two / one);
    println!("two processes of one    {apart:>9.0} {:>6.2}", apart / one);
}

/// Cost of a check by connections and streams, share of new tokens, rules, and issuers.
fn growth() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let config = |issuers: &str, more: &str| config(&key, "RS256", issuers, more);
    let tokens: Vec<_> = (0..TOKENS).map(|at| session(&key, at)).collect();
    let checks: Arc<[Bytes]> = tokens.iter().take(1).map(|token| check(token)).collect();
    pin(1);
    let server = Server::ours("0", &config("", ""));
    for load in [(1, 1), (1, 4), (1, 16), (1, 64), (2, 16), (8, 16), (32, 16), (128, 16)] {
        println!(
            "{:>4} connections, {:>3} streams each {:>8.1}",
            load.0,
            load.1,
            cost(&server, load, &checks)
        );
    }
    for missed in [0, 1, 10, 50, 100] {
        // This share of the checks comes with a token that the small cache has evicted.
        let server = Server::ours("0", &config("", "tokens: {cache: {max_entries: 64}}\n"));
        let mut new = tokens.iter().skip(1).cycle();
        let mixed = (0..TOKENS).map(|at| {
            let token = if at % 100 < missed { new.next() } else { tokens.first() };
            check(token.expect("there are tokens"))
        });
        println!("{missed:>4} % of the tokens new {:>20.1}", cost(&server, (2, 16), &mixed.collect()));
    }
    for count in [1, 10, 100, 1000] {
        let server = Server::ours("0", &config("", &rules(count)));
        println!("{count:>4} rules {:>33.1}", cost(&server, (2, 16), &checks));
    }
    for count in [1, 10, 100] {
        let server = Server::ours("0", &config(&issuers(count - 1), ""));
        println!("{count:>4} issuers {:>31.1}", cost(&server, (2, 16), &checks));
    }
}

/// Resident memory while a million tokens go through a cache of a hundred thousand. `EdDSA`, because it signs fast.
fn memory() {
    let key = SigningKey::shared("e1", Algorithm::EdDsa);
    let server = Server::ours("0", &config(&key, "EdDSA", "", ""));
    pin(1);
    let iss = "https://auth.passage.id/v1/apps/app1";
    let sign = |at: usize| key.mint(iss, |_, claims| claims["sub"] = json!(format!("{at:024}")));
    let warm: Arc<[Bytes]> = vec![check(&sign(0))].into();
    lean::closed(server.address, (2, 16), SLICE, &warm, true);
    let idle = server.resident();
    println!("{:>10} {:>12}", "tokens", "KiB more");
    for hundred_thousand in 0..10 {
        for part in 0..10 {
            let from = hundred_thousand * 100_000 + part * 10_000;
            let checks: Arc<[Bytes]> = (from..from + 10_000).map(|at| check(&sign(at))).collect();
            // Long enough for each token at least once: some 12,000 a second are verified.
            lean::closed(server.address, (1, 16), SLICE * 3, &checks, true);
        }
        let more = server.resident() - idle;
        println!("{:>10} {more:>12}", (hundred_thousand + 1) * 100_000);
    }
}

fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("the core is ours");
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--stock") {
        return stock::serve(arguments.get(1).cloned());
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--memory") {
        return memory();
    }
    if has("--cores") {
        return cores();
    }
    if has("--growth") {
        return growth();
    }
    let rounds = if has("--quick") { 3 } else { 9 };
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let config = |issuers: &str, more: &str| config(&key, "RS256", issuers, more);
    println!("signing {TOKENS} tokens");
    let tokens: Vec<_> = (0..TOKENS).map(|at| session(&key, at)).collect();
    let token = tokens.first().expect("some").clone();
    println!("a token of {} bytes, a check of {}", token.len(), check(&token).len() - 5);

    let stock = Arc::new(Server::stock(None));
    let decoding = Arc::new(Server::stock(Some(&key.jwk())));
    let ours = Arc::new(Server::ours("0", &config("", "")));
    let cold = Arc::new(Server::ours("0", &config("", "tokens: {cache: {max_entries: 10}}\n")));
    let ruled = Arc::new(Server::ours("0", &config("", &rules(1000))));
    let one_rule = Arc::new(Server::ours("0", &config("", &rules(1))));
    let hundred = Arc::new(Server::ours("0", &config(&issuers(99), "")));
    let two_cores = Arc::new(Server::ours("0,1", &config("", "")));
    let new: Arc<[Bytes]> = tokens.iter().map(|token| check(token)).collect();
    let forged: Arc<[Bytes]> = tokens.iter().map(|token| check(&tampered(token))).collect();
    let mut rows = vec![
        Row::new("stock: verifies nothing", &stock, one(&token), 200),
        Row::new("stock + jsonwebtoken::decode", &decoding, one(&token), 200),
        Row::new("cached token", &ours, one(&token), 200),
        Row::new("every token new", &cold, new, 200),
        Row::new("forged signature", &ours, forged, 401),
        Row::new("malformed token", &ours, one("not.a.token"), 401),
        Row::new("oversized token", &ours, one(&"x".repeat(9000)), 401),
        Row::new("cached, 1 rule", &one_rule, one(&token), 200),
        Row::new("cached, 1,000 rules", &ruled, one(&token), 200),
        Row::new("cached, 100 issuers", &hundred, one(&token), 200),
        Row::new("cached, on two cores", &two_cores, one(&token), 200),
    ];
    pin(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut verifies = Vec::new();
    runtime.block_on(async {
        for row in &rows {
            // Each answer is checked here; later only where checking takes no time.
            Client::connect(row.server.address, 1).await.count(200, &row.checks, row.status).await;
        }
        for _ in 0..rounds {
            for row in &mut rows {
                let before = row.server.cpu();
                let answered =
                    lean::closed(row.server.address, (2, 16), SLICE, &row.checks, row.status == 200);
                let took = row.server.cpu().saturating_sub(before);
                row.cpu.push(took.as_secs_f64() * 1e6 / answered as f64);
            }
            pin(0);
            verifies.push(verify_cost(&key.jwk(), &token));
            pin(1);
        }
        for _ in 0..rounds.min(3) {
            for row in &mut rows {
                let Some(check) = row.checks.first() else { continue };
                let client = Client::connect(row.server.address, 2).await;
                let took = client.open(5000, Duration::from_millis(500), check).await;
                row.latency.push([took[took.len() / 2], took[took.len() * 99 / 100]]);
            }
        }
    });
    let base = median(&rows.first().expect("the stock server").cpu);
    let verify = median(&verifies);
    println!("\n{:<30} {:>9} {:>6} {:>9} {:>9}", "", "CPU µs", "ratio", "p50 µs", "p99 µs");
    for row in &rows {
        let cpu = median(&row.cpu);
        let micros = |at: usize| {
            let values: Vec<_> = row.latency.iter().map(|pair| pair[at].as_secs_f64() * 1e6).collect();
            median(&values)
        };
        println!("{:<30} {cpu:>9.1} {:>6.2} {:>9.0} {:>9.0}", row.name, cpu / base, micros(0), micros(1));
    }
    println!("one verify, key parsed once     {verify:>8.1} {:>6.2}", verify / base);
    if has("--draw") {
        let bars: Vec<_> = rows.iter().map(|row| (row.name, median(&row.cpu))).collect();
        std::fs::write("docs/side_by_side.svg", picture(&bars)).expect("docs is there");
    }
    println!("resident, ours after the run: {} KiB", ours.resident());
}
