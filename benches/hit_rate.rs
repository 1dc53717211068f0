//! How often a replica has verified a token before: a simulation of the token cache over replicas and ways to balance, with the
//! cache's own crate. `cargo bench --bench hit_rate` prints two tables; `-- --draw` writes docs/hit_rate.svg as well.
//!
//! The model: so many sessions are alive, and each request is of a random one of them. A session renews its token after a number
//! of requests that is random, with a mean that is a parameter. Replicas share nothing. All requests are seeded: two runs print
//! the same, but for the eviction of the crate, which depends on threads that are not used here.

#![expect(clippy::print_stdout, reason = "it prints tables")]

use std::fmt::Write as _;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

const SESSIONS: usize = 4_000;

/// The share of hits is counted over so many requests, after as many that fill the caches.
const REQUESTS: usize = 1_500_000;

const REPLICAS: [usize; 6] = [1, 2, 4, 8, 16, 32];

const REQUESTS_PER_TOKEN: [f64; 3] = [10.0, 100.0, 1000.0];

/// As docs/performance.md has them: CPU time of a check with a cached and with a new token, in microseconds.
const CACHED_MICROS: f64 = 6.8;
const NEW_MICROS: f64 = 22.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Balance {
    /// Any replica, for each request by itself: Envoy's ROUND_ROBIN, RANDOM and LEAST_REQUEST.
    EachRequest,
    /// Always the same replica for one token: RING_HASH or MAGLEV by a hash of the token's header.
    ByToken,
}

struct Run {
    replicas: usize,
    requests_per_token: f64,
    balance: Balance,
    /// Of each replica.
    max_entries: usize,
    /// The service's is LRU; see src/check/token_cache.rs.
    policy: EvictionPolicy,
}

impl Run {
    /// The share of requests whose token the replica has in its cache.
    fn hit_rate(&self) -> f64 {
        let mut random = fastrand::Rng::with_seed(7);
        let caches: Vec<Cache<u64, ()>> = (0..self.replicas)
            .map(|_| {
                let max_entries = u64::try_from(self.max_entries).unwrap_or(u64::MAX);
                Cache::builder().max_capacity(max_entries).eviction_policy(self.policy.clone()).build()
            })
            .collect();
        let mut tokens: Vec<u64> = (0..SESSIONS).map(|_| random.u64(..)).collect();
        let mut hits = 0_u32;
        for at in 0..2 * REQUESTS {
            let session = random.usize(..tokens.len());
            if random.f64() * self.requests_per_token < 1.0 {
                tokens[session] = random.u64(..);
            }
            let token = tokens[session];
            let replica = match self.balance {
                Balance::EachRequest => random.usize(..self.replicas),
                Balance::ByToken => usize::try_from(token >> 32).unwrap_or_default() % self.replicas,
            };
            if caches[replica].get(&token).is_some() {
                hits += u32::from(at >= REQUESTS);
            } else {
                caches[replica].insert(token, ());
            }
        }
        f64::from(hits) / f64::from(u32::try_from(REQUESTS).unwrap_or(u32::MAX))
    }
}

fn micros(hit_rate: f64) -> f64 {
    hit_rate * CACHED_MICROS + (1.0 - hit_rate) * NEW_MICROS
}

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    println!("hits, of caches that are large enough (CPU per check)\n");
    println!(
        "| balanced | requests per token | {} |",
        REPLICAS.map(|count| format!("{count} replicas")).join(" | ")
    );
    println!("|---|---{}|", "|---".repeat(REPLICAS.len()));
    let mut curves = Vec::new();
    for (balance, name) in [(Balance::EachRequest, "each request"), (Balance::ByToken, "by token")] {
        for requests_per_token in REQUESTS_PER_TOKEN {
            let rates = REPLICAS.map(|replicas| {
                let (max_entries, policy) = (4 * SESSIONS, EvictionPolicy::lru());
                Run { replicas, requests_per_token, balance, max_entries, policy }.hit_rate()
            });
            let cells = rates.map(|rate| format!("{:.1} % ({:.1} µs)", 100.0 * rate, micros(rate)));
            println!("| {name} | {requests_per_token} | {} |", cells.join(" | "));
            curves.push((balance, requests_per_token, rates));
        }
    }

    println!("\nhits with 4 replicas and 100 requests per token, by the size of each replica's cache\n");
    println!("| balanced | evicted | max_entries: a quarter of the live tokens | half | all | twice |");
    println!("|---|---|---|---|---|---|");
    for (balance, name) in [(Balance::EachRequest, "each request"), (Balance::ByToken, "by token")] {
        for (policy, evicted) in [(EvictionPolicy::lru(), "LRU"), (EvictionPolicy::tiny_lfu(), "TinyLFU")] {
            let cells = [SESSIONS / 4, SESSIONS / 2, SESSIONS, 2 * SESSIONS].map(|max_entries| {
                let policy = policy.clone();
                let run = Run { replicas: 4, requests_per_token: 100.0, balance, max_entries, policy };
                format!("{:.1} %", 100.0 * run.hit_rate())
            });
            println!("| {name} | {evicted} | {} |", cells.join(" | "));
        }
    }
    println!(
        "\nhits with 1 replica whose cache is full of tokens that were renewed, 10 requests per token\n"
    );
    for (policy, evicted) in [(EvictionPolicy::lru(), "LRU"), (EvictionPolicy::tiny_lfu(), "TinyLFU")] {
        let balance = Balance::EachRequest;
        let run = Run { replicas: 1, requests_per_token: 10.0, balance, max_entries: 4 * SESSIONS, policy };
        println!("| {evicted} | {:.1} % |", 100.0 * run.hit_rate());
    }
    if std::env::args().any(|arg| arg == "--draw") {
        std::fs::write("docs/hit_rate.svg", picture(&curves)).expect("docs is there");
    }
}

/// Hits over replicas, the number of replicas as powers of two.
fn picture(curves: &[(Balance, f64, [f64; REPLICAS.len()])]) -> String {
    let (left, top, width, height) = (60.0, 40.0, 460.0, 260.0);
    let x = |at: usize| left + width * f64::from(u32::try_from(at).unwrap_or_default()) / 5.0;
    let y = |rate: f64| top + height * (1.0 - rate);
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 350\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"720\" height=\"350\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"20\" fill=\"#1f2937\">Share of checks whose token is in the replica's cache, by the number of replicas</text>\n",
    );
    for percent in [0, 25, 50, 75, 100] {
        let at = y(f64::from(percent) / 100.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" y1=\"{at}\" x2=\"{}\" y2=\"{at}\" stroke=\"#e5e7eb\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#1f2937\">{percent} %</text>",
            left + width,
            left - 8.0,
            at + 4.0
        );
    }
    for (at, replicas) in REPLICAS.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#1f2937\">{replicas}</text>",
            x(at),
            top + height + 20.0
        );
    }
    for (balance, requests_per_token, rates) in curves {
        let points: Vec<_> =
            rates.iter().enumerate().map(|(at, rate)| format!("{:.1},{:.1}", x(at), y(*rate))).collect();
        let (color, dash, name) = match balance {
            Balance::EachRequest => ("#2563eb", "", "each request"),
            Balance::ByToken => ("#9ca3af", " stroke-dasharray=\"5 4\"", "by token"),
        };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"{dash}/>",
            points.join(" ")
        );
        // The lines by token lie close together at the top; one label stands for them.
        let last = rates.last().copied().unwrap_or_default();
        if *balance == Balance::EachRequest {
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" fill=\"{color}\">{name}, {requests_per_token} per token</text>",
                left + width + 8.0,
                y(last) + 4.0
            );
        }
    }
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{}\" fill=\"#6b7280\">dashed: the same balanced by token, for 10, 100 and 1000 requests per token</text>\n</svg>",
        top + height + 42.0
    );
    svg
}
