//! Keys through rotation, faults, outages and restarts: what was fetched once serves until it is too old.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::domain::clock::{Clock, UnixTime};
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, jwks};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::fixtures::PATIENT;
use crate::support::tls::Tls;
use crate::support::{Service, WAIT_LIMIT, get, gzip, join_all, wait_until};

fn key(kid: &str) -> Arc<SigningKey> {
    SigningKey::shared(kid, Algorithm::Es256)
}

/// One issuer named `issuer`, with `iss: i`, its keys at a URL.
fn by_url(url: &str, refresh: &str, more: &str) -> String {
    format!(
        "issuers: [{{name: issuer, issuer: i, audiences: [], algorithms: [ES256], keys: {{url: '{url}/keys'}}, \
         refresh: {{{refresh}}}{more}}}]\n"
    )
}

fn mint(kid: &str) -> String {
    key(kid).mint("i", |_, _| {})
}

/// A metric's value, by its whole name with labels.
async fn metric(service: &Service, name: &str) -> f64 {
    let (status, text) = get(service.admin, "/metrics").await;
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

async fn fetches(service: &Service, result: &str) -> f64 {
    metric(service, &format!("passage_authz_key_fetches_total{{issuer=\"issuer\",result=\"{result}\"}}"))
        .await
}

async fn issuer_status(service: &Service) -> Value {
    let (status, text) = get(service.admin, "/keys").await;
    assert_eq!(status, 200);
    serde_json::from_str::<Value>(&text).unwrap()["issuers"][0].clone()
}

#[tokio::test]
async fn whatever_the_issuer_does_the_old_keys_go_on_and_recovery_is_automatic() {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let json_type = || header("content-type", "application/json");
    let good = jwks(&[&key("old")]).to_string().into_bytes();
    // Other bytes, or If-None-Match would be answered 304.
    let other = [&good[..], b"\n"].concat();
    let mut big = jwks(&[&key("old")]);
    big["padding"] = "x".repeat(10 << 20).into();
    let encryption = json!({"kty": "EC", "use": "enc", "crv": "P-256"});
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let rows: Vec<(&str, Behavior, &str)> = vec![
        ("500", Behavior::Answer(500, vec![], vec![]), "the answer's status is 500"),
        ("404", Behavior::Answer(404, vec![json_type()], good.clone()), "the answer's status is 404"),
        ("204", Behavior::Answer(204, vec![], vec![]), "the answer's status is 204"),
        ("304 unasked", Behavior::Answer(304, vec![], vec![]), ""),
        ("reset", Behavior::Reset, ""),
        ("hang", Behavior::Hang, "no complete answer within 2s"),
        ("drip", Behavior::Drip(Duration::from_millis(20)), "no complete answer within 2s"),
        ("10 MiB", Behavior::json(&big), "larger than 1 MiB"),
        (
            "64 MiB in 64 KiB",
            Behavior::Answer(200, vec![json_type(), header("content-encoding", "gzip")], bomb),
            "larger than 1 MiB",
        ),
        ("truncated", Behavior::Truncate(good.clone()), ""),
        ("not JSON", Behavior::Answer(200, vec![json_type()], b"<html>".to_vec()), "not a JSON object"),
        ("{}", Behavior::json(&json!({})), "no array named keys"),
        ("keys that are null", Behavior::json(&json!({"keys": null})), "no array named keys"),
        ("no usable key", Behavior::json(&json!({"keys": [encryption]})), "no usable key"),
        (
            "content type",
            Behavior::Answer(200, vec![header("content-type", "text/html")], other),
            "the answer is an HTML page",
        ),
        (
            "redirect loop",
            Behavior::Answer(302, vec![header("location", "/keys")], vec![]),
            "more than 3 redirects",
        ),
        (
            "away",
            Behavior::Answer(302, vec![header("location", "http://issuer.example/keys")], vec![]),
            "may not be fetched",
        ),
    ];
    join_all(rows.into_iter().map(|(name, behavior, error)| async move {
        let issuer = FakeIssuer::with_keys(&[&key("old")]).await;
        // A check that waited for the issuer would wait for up to 10 s. Only what never ends is given up soon.
        let limit = if error.ends_with("within 2s") { "2s" } else { "30s" };
        let refresh = format!("interval: 100ms, timeout: {limit}, wait: 10s");
        let service = Service::ready(&by_url(&issuer.url(), &refresh, "")).await;
        issuer.behave(behavior);
        if name == "304 unasked" {
            // Asked for with If-None-Match, a 304 is the right answer.
            wait_until("unchanged", || async { fetches(&service, "unchanged").await > 1.0 }).await;
        } else {
            wait_until(&format!("the fault {name} is counted"), || async {
                fetches(&service, "failed").await >= 1.0
            })
            .await;
            let status = issuer_status(&service).await;
            let said = status["last_error"]["error"].as_str().unwrap();
            assert!(said.contains(error), "{name}: {said}");
        }
        let answer = timeout(Duration::from_secs(9), service.bearer(&mint("old"))).await;
        assert_eq!(answer.expect("no check waits for the issuer").code(), "allowed", "{name}");
        assert_eq!(get(service.admin, "/readyz").await.0, 200, "{name}");
        issuer.behave(Behavior::keys(&[&key("new")]));
        wait_until(&format!("recovery from {name}"), || async {
            issuer_status(&service).await["keys"][0]["kid"] == "new"
        })
        .await;
        assert_eq!(service.bearer(&mint("new")).await.code(), "allowed", "{name}");
        assert_eq!(service.bearer(&mint("old")).await.code(), "key_unknown", "{name}");
    }))
    .await;
}

#[tokio::test]
async fn a_new_key_is_followed_at_once_and_an_old_one_dropped_with_the_swap() {
    let issuer = FakeIssuer::with_keys(&[&key("old")]).await;
    let refresh = "interval: 1h, timeout: 30s, wait: 10s, unknown_kid_cooldown: 100ms";
    let service = Service::ready(&by_url(&issuer.url(), refresh, "")).await;
    assert_eq!(service.bearer(&mint("old")).await.code(), "allowed");
    let before = issuer.fetches();
    issuer.behave(Behavior::keys(&[&key("old"), &key("new")]));
    let token = mint("new");
    let answers = join_all((0..100).map(|_| service.bearer(&token))).await;
    assert!(answers.iter().all(|answer| answer.code() == "allowed"), "{answers:?}");
    assert_eq!(issuer.fetches(), before + 1, "one fetch for all");

    issuer.behave(Behavior::keys(&[&key("new"), &key("newer")]));
    assert_eq!(service.bearer(&mint("old")).await.code(), "allowed", "no fetch has said otherwise yet");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(service.bearer(&mint("newer")).await.code(), "allowed");
    let answers = join_all((0..20).map(|_| service.check(&[]))).await;
    assert_eq!(answers.len(), 20);
    assert_eq!(service.bearer(&mint("new")).await.code(), "allowed");
    // From the swap on the old key is as unknown as any other. A wait that ends during a fetch says so instead.
    wait_until("the old key is unknown", || async {
        let answer = service.bearer(&mint("old")).await;
        assert!(["key_unknown", "keys_unavailable"].contains(&answer.code()), "{answer:?}");
        answer.code() == "key_unknown"
    })
    .await;
}

#[tokio::test]
async fn a_restart_during_an_outage_serves_from_the_key_store() {
    let issuer = FakeIssuer::with_keys(&[&key("old")]).await;
    let folder = tempfile::tempdir().unwrap();
    let store = format!("key_store: '{}'\n", folder.path().display());
    let config = |more: &str| format!("{store}{}", by_url(&issuer.url(), more, ""));
    let entry = folder.path().join("issuer.jwks.json");
    let service = Service::ready(&config(&format!("interval: 1h, {PATIENT}"))).await;
    wait_until("the keys are kept", || async { entry.is_file() }).await;
    service.end().await.unwrap();

    for behavior in [Behavior::Reset, Behavior::Hang, Behavior::Answer(503, vec![], vec![])] {
        issuer.behave(behavior.clone());
        let service = Service::start(&config("timeout: 60s")).await;
        let ready = timeout(Duration::from_secs(50), service.until_ready()).await;
        assert!(ready.is_ok(), "{behavior:?}: not before the fetch's own timeout");
        assert_eq!(service.bearer(&mint("old")).await.code(), "allowed", "{behavior:?}");
        let status = issuer_status(&service).await;
        assert_eq!(status["usable"], true);
        service.end().await.unwrap();
    }

    // Back again, the issuer's own word counts, not the folder's.
    issuer.behave(Behavior::keys(&[&key("new")]));
    let service = Service::ready(&config(&format!("interval: 1h, {PATIENT}"))).await;
    assert_eq!(service.bearer(&mint("old")).await.code(), "key_unknown");
    wait_until("the new keys are kept", || async { fs::read_to_string(&entry).unwrap().contains("new") })
        .await;
    service.end().await.unwrap();
}

#[tokio::test]
async fn what_the_key_store_may_not_bring_back() {
    let issuer = FakeIssuer::with_keys(&[&key("old")]).await;
    let folder = tempfile::tempdir().unwrap();
    let start = UnixTime::from_secs(3_000_000_000);
    let config = |url: &str| {
        format!(
            "key_store: '{}'\n{}",
            folder.path().display(),
            by_url(url, "max_stale: 1h, timeout: 30s", "")
        )
    };
    let entry = folder.path().join("issuer.jwks.json");
    let service = Service::start_at(&config(&issuer.url()), Clock::stepped(start)).await;
    service.until_ready().await;
    wait_until("the keys are kept", || async { entry.is_file() }).await;
    service.end().await.unwrap();
    let good = fs::read(&entry).unwrap();
    issuer.behave(Behavior::Reset);

    let elsewhere = FakeIssuer::start(Behavior::Reset).await;
    let damage = |bytes: &[u8]| fs::write(&entry, bytes).unwrap();
    let hour = Duration::from_secs(3600);
    for (name, url, clock, prepare) in [
        ("as it is", issuer.url(), start, None),
        ("at the last moment", issuer.url(), start.after(hour), None),
        ("too old", issuer.url(), start.after(hour + Duration::from_secs(1)), None),
        ("from the future", issuer.url(), UnixTime::from_secs(2_999_999_999), None),
        ("of another URL", elsewhere.url(), start, None),
        ("cut short", issuer.url(), start, Some(&good[..good.len() / 2])),
        ("not JSON", issuer.url(), start, Some(&b"\0\xff"[..])),
        ("empty", issuer.url(), start, Some(&b""[..])),
    ] {
        damage(prepare.unwrap_or(&good));
        let service = Service::start_at(&config(&url), Clock::stepped(clock)).await;
        let want =
            if ["as it is", "at the last moment"].contains(&name) { "allowed" } else { "keys_unavailable" };
        if want == "allowed" {
            service.until_ready().await;
        }
        let failed = || async { fetches(&service, "failed").await >= 1.0 };
        wait_until("the first fetch has failed", failed).await;
        assert_eq!(service.bearer(&mint("old")).await.code(), want, "{name}");
        service.end().await.expect("no crash");
    }
}

#[tokio::test]
async fn discovery_finds_the_keys_and_follows_them() {
    let keys = FakeIssuer::with_keys(&[&key("old")]).await;
    let moved = FakeIssuer::with_keys(&[&key("new")]).await;
    let login = FakeIssuer::start(Behavior::Hang).await;
    let document = |issuer: &str, keys: &FakeIssuer| {
        Behavior::json(&json!({"issuer": issuer, "jwks_uri": format!("{}/keys", keys.url())}))
    };
    login.behave(document(&login.url(), &keys));
    let config = format!(
        "issuers: [{{name: issuer, issuer: '{}', audiences: [], algorithms: [ES256], keys: {{discovery: true}}, \
         refresh: {{interval: 100ms, {PATIENT}}}}}]",
        login.url()
    );
    let service = Service::ready(&config).await;
    let mint = |kid: &str| key(kid).mint(&login.url(), |_, _| {});
    assert_eq!(service.bearer(&mint("old")).await.code(), "allowed");
    let asked = login.requests()[0].to_ascii_lowercase();
    assert!(asked.starts_with("get /.well-known/openid-configuration http/1.1\r\n"), "{asked}");
    // A document of another issuer changes nothing.
    login.behave(document("https://other.example", &moved));
    wait_until("the wrong document is seen", || async { fetches(&service, "failed").await >= 1.0 }).await;
    let said = issuer_status(&service).await["last_error"]["error"].as_str().unwrap().to_owned();
    assert!(said.contains("issuer is \"https://other.example\", which is not configured"), "{said}");
    assert_eq!(service.bearer(&mint("old")).await.code(), "allowed");
    login.behave(document(&login.url(), &moved));
    wait_until("the move is followed", || async { service.bearer(&mint("new")).await.code() == "allowed" })
        .await;
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    // As Kubernetes mounts a ConfigMap: the name is a link to ..data/name, and ..data a link to a folder.
    let publish = |version: &str, kids: &[&str]| {
        let keys: Vec<_> = kids.iter().map(|kid| key(kid)).collect();
        let document = jwks(&keys.iter().map(AsRef::as_ref).collect::<Vec<_>>()).to_string();
        let versioned = folder.path().join(version);
        fs::create_dir(&versioned).unwrap();
        fs::write(versioned.join("jwks.json"), document).unwrap();
        let (fresh, data) = (folder.path().join("..data_tmp"), folder.path().join("..data"));
        std::os::unix::fs::symlink(Path::new(version), &fresh).unwrap();
        fs::rename(fresh, data).unwrap();
    };
    publish("..v1", &["old"]);
    let path = folder.path().join("jwks.json");
    std::os::unix::fs::symlink(Path::new("..data/jwks.json"), &path).unwrap();
    let config = format!(
        "issuers: [{{name: issuer, issuer: i, audiences: [], algorithms: [ES256], keys: {{file: '{}'}}, \
         refresh: {{interval: 1h, wait: 0s}}}}]",
        path.display()
    );
    let service = Service::ready(&config).await;
    assert_eq!(service.bearer(&mint("old")).await.code(), "allowed");
    publish("..v2", &["new"]);
    wait_until("the swap is seen", || async { issuer_status(&service).await["keys"][0]["kid"] == "new" })
        .await;
    assert_eq!(service.bearer(&mint("new")).await.code(), "allowed");
    // Half a file is no key set: what was read before stays.
    fs::write(&path, "{\"keys\": [").unwrap();
    wait_until("the damage is seen", || async { fetches(&service, "failed").await >= 1.0 }).await;
    assert_eq!(service.bearer(&mint("new")).await.code(), "allowed");
    fs::write(&path, jwks(&[&key("newer")]).to_string()).unwrap();
    wait_until("the repair is seen", || async { issuer_status(&service).await["keys"][0]["kid"] == "newer" })
        .await;
}

#[tokio::test]
async fn one_issuer_that_hangs_delays_no_other() {
    let (good, bad) = (FakeIssuer::with_keys(&[&key("old")]).await, FakeIssuer::start(Behavior::Hang).await);
    let issuer = |name: &str, url: String| {
        format!(
            "- {{name: {name}, issuer: {name}, audiences: [], algorithms: [ES256], keys: {{url: '{url}'}}, \
             refresh: {{timeout: 60s, wait: 10s}}}}\n"
        )
    };
    let config = format!("issuers:\n{}{}", issuer("bad", bad.url()), issuer("good", good.url()));
    let service = Service::ready(&config).await;
    let token = |iss: &str| key("old").mint(iss, |_, _| {});
    let (bad_token, good_token) = (token("bad"), token("good"));
    let hanging = join_all((0..50).map(|_| service.bearer(&bad_token)));
    let served = async {
        for _ in 0..50 {
            assert_eq!(service.bearer(&good_token).await.code(), "allowed");
        }
    };
    tokio::select! {
        answers = timeout(WAIT_LIMIT, hanging) => panic!("the hanging issuer's checks came first: {answers:?}"),
        () = served => {}
    }
}

#[tokio::test]
async fn fetches_are_polite_and_tls_leads_nowhere_else() {
    let plain = FakeIssuer::with_keys(&[&key("old")]).await;
    let tls = Tls::in_front_of(&plain).await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    fs::write(ca.path(), &tls.ca).unwrap();
    let refresh = &format!("interval: 100ms, {PATIENT}");
    let trusting = format!(", ca: '{}'", ca.path().display());
    let service = Service::ready(&by_url(&tls.url(), refresh, &trusting)).await;
    assert_eq!(service.bearer(&mint("old")).await.code(), "allowed");
    wait_until("a second fetch", || async { fetches(&service, "unchanged").await >= 1.0 }).await;
    let heads: Vec<_> = plain.requests().iter().map(|head| head.to_ascii_lowercase()).collect();
    assert!(heads.iter().all(|head| head.contains("\r\nuser-agent: passage-authz/")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains("\r\naccept-encoding: gzip")), "{heads:?}");
    assert!(!heads[0].contains("if-none-match") && heads[1].contains("\r\nif-none-match: \""), "{heads:?}");

    // A redirect from https to http is refused, loopback or not.
    let trap = FakeIssuer::with_keys(&[&key("evil")]).await;
    let location = ("location".to_owned(), format!("{}/keys", trap.url()));
    plain.behave(Behavior::Answer(302, vec![location], vec![]));
    wait_until("the redirect is refused", || async { fetches(&service, "failed").await >= 1.0 }).await;
    let said = issuer_status(&service).await["last_error"]["error"].as_str().unwrap().to_owned();
    assert!(said.contains("a redirect from https to http"), "{said}");
    assert_eq!(trap.fetches(), 0);
    assert_eq!(service.bearer(&mint("old")).await.code(), "allowed");

    // Without the CA nothing is believed at all.
    let distrusting = Service::start(&by_url(&tls.url(), refresh, "")).await;
    wait_until("TLS fails", || async { fetches(&distrusting, "failed").await >= 1.0 }).await;
    assert_eq!(distrusting.bearer(&mint("old")).await.code(), "keys_unavailable");
}

#[tokio::test]
async fn the_admin_port_says_which_keys_are_at_hand() {
    let issuer = FakeIssuer::with_keys(&[&key("old")]).await;
    let service = Service::ready(&by_url(
        &format!("{}/p?secret=s", issuer.url()),
        &format!("interval: 1h, {PATIENT}"),
        "",
    ))
    .await;
    let status = issuer_status(&service).await;
    let text = status.to_string();
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(status["issuer"], "issuer");
    assert_eq!(status["keys"], json!([{"kid": "old", "kty": "EC", "alg": "ES256"}]));
    assert_eq!((&status["usable"], &status["last_error"]), (&json!(true), &Value::Null));
    assert_eq!(status["iss"], json!(["i"]));
    for time in ["last_success", "next_refresh", "usable_until"] {
        assert!(status[time].as_str().unwrap().ends_with('Z'), "{text}");
    }
    assert!(status["age_seconds"].as_u64().unwrap() < 60);
    assert!((metric(&service, "passage_authz_keys{issuer=\"issuer\"}").await - 1.0).abs() < f64::EPSILON);
    assert!(metric(&service, "passage_authz_key_set_age_seconds{issuer=\"issuer\"}").await < 60.0);
    assert!((fetches(&service, "changed").await - 1.0).abs() < f64::EPSILON);
    issuer.behave(Behavior::Reset);
    let _ = service.bearer(&mint("new")).await;
    wait_until("the error is shown", || async { !issuer_status(&service).await["last_error"].is_null() })
        .await;
}
