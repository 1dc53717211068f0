//! The incidents of docs/runbook.md, caused at the real binary: each leaves the lines of the log, the metrics and the alerts that its
//! section names, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, jwks};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::transport::Channel;

use crate::support::fixtures::{bearer, key};
use crate::support::process::{Running, file, replace};
use crate::support::promtool::{after_a_day, firing};
use crate::support::tls::{authority, expired_by};
use crate::support::{check_request, check_token, get, series, wait_until};

const ISS: &str = "https://login.example.com";

/// What an incident left.
struct Seen {
    lines: BTreeSet<(String, String)>,
    before: String,
    after: String,
    /// What `/readyz` says.
    ready: String,
}

/// A service with the issuer `login`, whose keys are fetched, and another one, whose keys never fail.
struct Drill {
    issuer: FakeIssuer,
    config: tempfile::NamedTempFile,
    running: Running,
    client: AuthorizationClient<Channel>,
    begun: jiff::Timestamp,
    before: String,
}

/// A configuration; `login` has further settings of the issuer, `more` further sections.
fn config(issuer: &FakeIssuer, iss: &str, login: &str, more: &str) -> String {
    let keys = jwks(&[&SigningKey::shared("other", Algorithm::Es256)]);
    format!(
        "admin: {{listen: '127.0.0.1:0'}}\n\
         issuers:\n\
         - {{name: login, issuer: '{iss}', audiences: [api], keys: {{url: '{}/keys'}}, {login}}}\n\
         - {{name: other, issuer: other, audiences: [api], algorithms: [ES256], keys: {{inline: {keys}}}}}\n{more}\n",
        issuer.url()
    )
}

const SERVER: &str = "server: {listen: '127.0.0.1:0'}";
const PATIENT: &str = "refresh: {interval: 60s, timeout: 5s, wait: 5s}";
/// The interval at which a fetch follows soon.
const SOON: &str = "refresh: {interval: 200ms, timeout: 2s, max_stale: 24h, unknown_kid_cooldown: 1s}";

fn minted(edit: impl FnOnce(&mut Value)) -> String {
    key().mint(ISS, |_, claims| {
        claims["aud"] = json!("api");
        edit(claims);
    })
}

/// The keys, in an answer of a server whose clock is this far from ours.
fn keys_at(seconds: i64) -> Behavior {
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap();
    let Behavior::Answer(status, mut headers, body) = Behavior::keys(&[&key()]) else { unreachable!() };
    headers.push(("date".to_owned(), date));
    Behavior::Answer(status, headers, body)
}

impl Drill {
    async fn start(login: &str, more: &str) -> Self {
        Self::start_with(FakeIssuer::with_keys(&[&key()]).await, login, more).await
    }

    async fn start_with(issuer: FakeIssuer, login: &str, more: &str) -> Self {
        let config = file(&config(&issuer, ISS, login, &format!("{SERVER}\n{more}")));
        Self::start_from(issuer, config).await
    }

    async fn start_from(issuer: FakeIssuer, config: tempfile::NamedTempFile) -> Self {
        let running = Running::serve(config.path(), "info").await;
        let admin = running.admin;
        let usable =
            |metrics: &str| series(metrics, "passage_authz_issuer_usable").values().all(|one| *one == 1.0);
        wait_until("all issuers are usable", || async { usable(&get(admin, "/metrics").await.1) }).await;
        let channel = Channel::from_shared(format!("http://{}", running.grpc)).unwrap();
        let client = AuthorizationClient::new(channel.connect_lazy());
        let mut drill =
            Self { issuer, config, running, client, begun: jiff::Timestamp::now(), before: String::new() };
        drill.begin().await;
        drill
    }

    /// From here on lines and metrics are the incident's.
    async fn begin(&mut self) {
        self.before = self.metrics().await;
        self.begun = jiff::Timestamp::now();
    }

    async fn metrics(&self) -> String {
        get(self.running.admin, "/metrics").await.1
    }

    /// Checks, as many as a service has in a minute that is not idle; returns the code of the last.
    async fn checks(&self, token: &str) -> String {
        let mut code = String::new();
        for _ in 0..60 {
            code = check_token(&self.client, token).await.unwrap().code().to_owned();
        }
        code
    }

    fn rewrite(&self, iss: &str, more: &str) {
        replace(self.config.path(), &config(&self.issuer, iss, PATIENT, &format!("{SERVER}\n{more}")));
    }

    async fn until(&self, name: &str, labels: &str, is: impl Fn(f64) -> bool) {
        let value = || async {
            let metrics = self.metrics().await;
            series(&metrics, name).get(labels).is_some_and(|value| is(*value))
        };
        wait_until(name, value).await;
    }

    async fn end(self) -> Seen {
        let (after, (_, ready)) = (self.metrics().await, get(self.running.admin, "/readyz").await);
        self.running.signal("-TERM").await;
        let (_, log) = self.running.end().await;
        let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
        let events = events
            .skip_while(|event| text(event, "timestamp").parse::<jiff::Timestamp>().unwrap() < self.begun);
        let events = events.take_while(|event| !text(event, "message").starts_with("draining;"));
        // The start's last line may come after the keys that it tells of.
        let events = events.filter(|event| event["message"] != "readiness changed" || event["ready"] != true);
        let lines = events.map(|event| (text(&event, "level"), text(&event, "message"))).collect();
        Seen { lines, before: self.before, after, ready }
    }
}

async fn issuer_is_down() -> Seen {
    let refresh = "refresh: {interval: 200ms, timeout: 2s, max_stale: 1s}";
    let mut drill = Drill::start(refresh, "").await;
    drill.issuer.behave(Behavior::Reset);
    drill.running.until_logged("the issuer's tokens are answered 503").await;
    assert_eq!(drill.checks(&minted(|_| {})).await, "keys_unavailable");
    drill.end().await
}

async fn cause_changes() -> Seen {
    let mut drill = Drill::start(SOON, "").await;
    drill.issuer.behave(Behavior::Reset);
    drill.running.until_logged("keys cannot be fetched").await;
    drill.begin().await;
    drill.issuer.behave(Behavior::Answer(500, vec![], vec![]));
    drill.running.until_logged("the answer's status is 500").await;
    drill
        .until("passage_authz_key_fetches_total", "{issuer=\"login\",result=\"failed\"}", |count| count > 2.0)
        .await;
    assert_eq!(drill.checks(&minted(|_| {})).await, "allowed");
    drill.end().await
}

async fn keys_rotate() -> Seen {
    let drill = Drill::start(SOON, "").await;
    let next = SigningKey::shared("k2", Algorithm::Rs256);
    drill.issuer.behave(Behavior::keys(&[&next]));
    let good = next.mint(ISS, |_, claims| claims["aud"] = json!("api"));
    let changed = "{issuer=\"login\",result=\"changed\"}";
    drill.until("passage_authz_key_fetches_total", changed, |count| count > 1.0).await;
    assert_eq!(drill.checks(&good).await, "allowed");
    assert_eq!(check_token(&drill.client, &minted(|_| {})).await.unwrap().code(), "key_unknown");
    drill.end().await
}

async fn clock_is_wrong(seconds: i64, code: &str) -> Seen {
    let mut drill = Drill::start(SOON, "").await;
    drill.issuer.behave(keys_at(seconds));
    drill.running.until_logged("clock and this one differ").await;
    // A token as the issuer makes it by its own clock.
    let issued = jiff::Timestamp::now().as_second() + seconds;
    let token = minted(|claims| (claims["nbf"], claims["exp"]) = (json!(issued), json!(issued + 300)));
    assert_eq!(drill.checks(&token).await, code);
    drill.end().await
}

async fn issuer_is_wrong_after_a_reload() -> Seen {
    let drill = Drill::start(PATIENT, "").await;
    drill.rewrite("https://login.example.com/", "");
    drill.until("passage_authz_config_reloads_total", "{result=\"ok\"}", |count| count > 0.0).await;
    assert_eq!(drill.checks(&minted(|_| {})).await, "issuer_unknown");
    drill.end().await
}

async fn audience_is_wrong() -> Seen {
    let drill = Drill::start(PATIENT, "").await;
    let token = minted(|claims| claims["aud"] = json!("web"));
    assert_eq!(drill.checks(&token).await, "audience_mismatch");
    drill.end().await
}

async fn http1_to_the_grpc_port() -> Seen {
    let mut drill = Drill::start(PATIENT, "").await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(drill.running.grpc).await.unwrap();
        stream
            .write_all(b"POST /envoy.service.auth.v3.Authorization/Check HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
    }
    drill.running.until_logged("another protocol").await;
    drill.until("passage_authz_wrong_protocol_total", "{port=\"grpc\"}", |count| count == 20.0).await;
    drill.end().await
}

async fn certificate_has_expired() -> Seen {
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority());
    let (certificate, key) = expired_by(&authority, "localhost", Duration::from_secs(3600));
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(at("tls.key"), key.serialize_pem()).unwrap();
    let issuer = FakeIssuer::with_keys(&[&crate::support::fixtures::key()]).await;
    let server = format!(
        "server: {{listen: '127.0.0.1:0', tls: {{cert: {}, key: {}}}}}",
        at("tls.crt"),
        at("tls.key")
    );
    let config = file(&config(&issuer, ISS, PATIENT, &server));
    let begun = jiff::Timestamp::now();
    let mut drill = Drill::start_from(issuer, config).await;
    drill.running.until_logged("has expired").await;
    let mut seen = {
        // The line belongs to the start.
        drill.begun = begun;
        drill.end().await
    };
    seen.lines.retain(|(level, _)| level != "INFO");
    seen
}

async fn configuration_is_refused() -> Seen {
    let mut drill = Drill::start(PATIENT, "").await;
    drill.rewrite(ISS, "rules: [{name: all, acess: public}]");
    drill.running.until_logged("the new configuration is refused").await;
    drill.end().await
}

async fn shadow_is_left_on() -> Seen {
    let drill = Drill::start(PATIENT, "").await;
    drill.rewrite(ISS, "mode: shadow");
    drill.until("passage_authz_mode", "{mode=\"shadow\"}", |value| value == 1.0).await;
    assert_eq!(drill.checks(&minted(|_| {})).await, "allowed");
    drill.end().await
}

async fn key_store_takes_no_keys() -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let mut drill = Drill::start(SOON, &format!("key_store: {}", folder.path().display())).await;
    drill.until("passage_authz_key_store_ok", "{issuer=\"login\"}", |ok| ok == 1.0).await;
    drill.begin().await;
    std::fs::remove_dir_all(folder.path()).unwrap();
    drill.running.until_logged("keys cannot be kept on disk").await;
    drill.end().await
}

async fn too_many_checks() -> Seen {
    let mut drill = Drill::start(PATIENT, "").await;
    // Each has waited for longer than its caller does.
    let refuse = async || {
        let mut request = tonic::Request::new(check_request(&[("authorization", &bearer("x"))]));
        request.metadata_mut().insert("grpc-timeout", "1n".parse().unwrap());
        let _ = drill.client.clone().check(request).await;
    };
    wait_until("refused", || async {
        refuse().await;
        let metrics = drill.metrics().await;
        series(&metrics, "passage_authz_overloaded_total").values().any(|count| *count >= 20.0)
    })
    .await;
    drill.running.until_logged("checks are refused unseen").await;
    drill.end().await
}

/// What a section of the runbook says of its incident.
#[derive(Debug, Default)]
struct Documented {
    lines: BTreeSet<(String, String)>,
    /// The name with its labels, and what is said of the value.
    metrics: Vec<(String, String)>,
    alerts: BTreeSet<String>,
}

fn runbook() -> BTreeMap<String, Documented> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbook.md")).unwrap();
    let (_, incidents) = page.split_once("\n## Incidents\n").unwrap();
    let (incidents, _) = incidents.split_once("\n## ").unwrap();
    let mut sections: BTreeMap<String, Documented> = BTreeMap::new();
    let mut section = String::new();
    for line in incidents.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            section = title.to_owned();
            sections.insert(section.clone(), Documented::default());
        }
        let Some((what, list)) = line.strip_prefix("- ").and_then(|line| line.split_once(": ")) else {
            continue;
        };
        let documented = sections.get_mut(&section).unwrap();
        // A backtick before and after each name, so that the odd parts are names.
        let parts: Vec<_> = list.split('`').collect();
        let pairs = || parts.chunks(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)));
        match what {
            "Log" => {
                let line = |(level, message): (&str, &str)| {
                    (level.trim_matches([',', ' ']).to_owned(), message.to_owned())
                };
                documented.lines = pairs().map(line).collect();
            }
            "Metrics" => {
                let after = parts.get(2..).unwrap_or_default().chunks(2).filter_map(|pair| pair.first());
                let names = pairs().map(|(_, name)| name.to_owned());
                let said = |text: &&str| text.trim_matches([',', ' ']).to_owned();
                documented.metrics = names.zip(after.map(said)).collect();
            }
            "Alerts" if list != "none" => documented.alerts = list.split(", ").map(str::to_owned).collect(),
            "Alerts" => {}
            other => panic!("{section}: {other}"),
        }
    }
    sections
}

fn value(metrics: &str, written: &str) -> f64 {
    let (name, labels) = written.find('{').map_or((written, ""), |at| written.split_at(at));
    series(metrics, name).get(labels).copied().unwrap_or_default()
}

/// Whether a metric is what the runbook says of it.
fn holds(seen: &Seen, written: &str, said: &str) -> bool {
    let (before, after) = (value(&seen.before, written), value(&seen.after, written));
    match said.strip_prefix("is ") {
        #[expect(clippy::cast_precision_loss, reason = "a time in seconds has 11 digits")]
        Some("past") => after > 0.0 && after < jiff::Timestamp::now().as_second() as f64,
        Some(number) => {
            let wanted: f64 = number.parse().unwrap();
            // A clock may have gone on by a second or two between two looks.
            if wanted.abs() > 1.0 { (after - wanted).abs() < 10.0 } else { after == wanted }
        }
        None => said == "rises" && after > before,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_incident_leaves_what_the_runbook_says() {
    let (first, second) =
        tokio::join!(async { vec![("The cause of an outage changes", cause_changes().await),] }, async {
            vec![
                ("The issuer is down", issuer_is_down().await),
                ("The issuer rotates its keys", keys_rotate().await),
                ("The clock is wrong", clock_is_wrong(600, "token_not_yet_valid").await),
                ("The clock is wrong, ahead of the issuer's", clock_is_wrong(-600, "token_expired").await),
                (
                    "Another issuer after a change of the configuration",
                    issuer_is_wrong_after_a_reload().await,
                ),
                ("Another audience", audience_is_wrong().await),
                ("HTTP/1.1 to the gRPC port", http1_to_the_grpc_port().await),
                ("The certificate has expired", certificate_has_expired().await),
                ("A configuration is refused", configuration_is_refused().await),
                ("Shadow mode was left on", shadow_is_left_on().await),
                ("The key store takes no keys", key_store_takes_no_keys().await),
                ("Too many checks", too_many_checks().await),
            ]
        });
    let seen: BTreeMap<_, _> = first.into_iter().chain(second).collect();
    let runbook = runbook();
    let sections: Vec<_> = runbook.keys().map(String::as_str).collect();
    assert_eq!(sections, seen.keys().copied().collect::<Vec<_>>(), "each section is an incident here");
    let mut faults = Vec::new();
    for (incident, seen) in &seen {
        let documented = &runbook[*incident];
        if seen.lines != documented.lines {
            faults.push(format!(
                "{incident}: the log has {:?}, the runbook {:?}",
                seen.lines, documented.lines
            ));
        }
        assert!(!documented.metrics.is_empty(), "{incident}");
        for (metric, said) in &documented.metrics {
            if !holds(seen, metric, said) {
                let values = (value(&seen.before, metric), value(&seen.after, metric));
                faults.push(format!("{incident}: {metric} {said}: before and after it is {values:?}"));
            }
        }
    }
    for (incident, said) in [
        ("The issuer is down", "login (http"),
        ("Shadow mode was left on", "mode is shadow"),
        ("A configuration is refused", "the last configuration was refused"),
        ("The certificate has expired", "the certificate of server.tls expired at "),
        ("The key store takes no keys", "login: its keys cannot be kept on disk: "),
        ("The issuer rotates its keys", ""),
    ] {
        let ready = seen[incident].ready.strip_prefix("ready\n").expect("the other issuer is usable");
        let holds = if said.is_empty() { ready.is_empty() } else { ready.contains(said) };
        assert!(holds, "{incident}: {ready:?}");
    }
    let scenes: Vec<_> = seen.values().map(|seen| after_a_day(&seen.before, &seen.after)).collect();
    if let Some(firing) = firing(&scenes) {
        for (incident, alerts) in seen.keys().zip(firing) {
            let documented = &runbook[*incident].alerts;
            if alerts != *documented {
                faults.push(format!("{incident}: {alerts:?} fire, the runbook names {documented:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
