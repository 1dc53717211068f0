//! Tokens that are revoked: which ones, since when, until when, and what becomes of them while the file cannot be used.

use std::path::Path;

use passage_authz::testing::tampered;
use serde_json::{Value, json};

use crate::support::fixtures::{APP, inline, key};
use crate::support::process::{file, replace};
use crate::support::{Service, get, header_map_request, series, wait_until};

fn entry(kind: &str, value: Option<&str>, issued_before: u64) -> String {
    let mut entry = json!({"issuer": "passage", "kind": kind, "issued_before": issued_before, "until": 4_000_000_000_u64});
    if let Some(value) = value {
        entry["value"] = json!(value);
    }
    format!("{entry}\n")
}

fn config(file: &Path, more: &str) -> String {
    inline(&format!("revocation: {{file: '{}'{more}}}", file.display()))
}

const ISSUED: u64 = 1_700_000_000;

fn token(edit: impl FnOnce(&mut Value)) -> String {
    key().mint(APP, |_, claims| {
        (claims["iat"], claims["jti"], claims["sid"]) = (json!(ISSUED), json!("token-1"), json!("session-1"));
        (claims["azp"], claims["client_id"]) = (json!("web"), json!("mobile"));
        edit(claims);
    })
}

#[tokio::test]
async fn a_token_is_revoked_by_each_of_its_names_and_no_other() {
    let list = file("");
    let service = Service::ready(&config(list.path(), "")).await;
    let token = token(|_| {});
    for (kind, value, issued_before, code) in [
        ("jti", Some("token-1"), ISSUED, "token_revoked"),
        ("jti", Some("token-2"), ISSUED, "allowed"),
        ("sid", Some("session-1"), ISSUED, "token_revoked"),
        ("sid", Some("token-1"), ISSUED, "allowed"),
        ("sub", Some("user-1"), ISSUED, "token_revoked"),
        ("sub", Some("user-1"), ISSUED - 1, "allowed"),
        ("client", Some("web"), ISSUED, "token_revoked"),
        ("client", Some("mobile"), ISSUED, "token_revoked"),
        ("client", Some("other"), ISSUED, "allowed"),
        ("issuer", None, ISSUED, "token_revoked"),
        ("issuer", None, ISSUED - 1, "allowed"),
    ] {
        let reads = || async {
            let (_, metrics) = get(service.admin, "/metrics").await;
            series(&metrics, "passage_authz_revocation_events_total")["{source=\"file\",result=\"accepted\"}"]
        };
        let before = reads().await;
        replace(list.path(), &entry(kind, value, issued_before));
        wait_until("read again", || async { reads().await > before }).await;
        // From the cache, too.
        for _ in 0..2 {
            assert_eq!(service.bearer(&token).await.code(), code, "{kind} {value:?} {issued_before}");
        }
    }
}

#[tokio::test]
async fn a_cached_token_is_denied_within_a_second_and_good_again_once_the_entry_is_lifted() {
    let list = file(&entry("sub", Some("somebody"), ISSUED));
    let service = Service::ready(&config(list.path(), "")).await;
    let [mine, others] = ["user-1", "user-2"].map(|sub| token(|claims| claims["sub"] = json!(sub)));
    for _ in 0..3 {
        assert_eq!(service.bearer(&mine).await.code(), "allowed");
    }
    replace(list.path(), &entry("sub", Some("user-1"), ISSUED));
    wait_until("revoked", || async { service.bearer(&mine).await.code() == "token_revoked" }).await;
    assert_eq!(service.bearer(&others).await.code(), "allowed");
    // A new login of the same user.
    let again = token(|claims| claims["iat"] = json!(ISSUED + 1));
    assert_eq!(service.bearer(&again).await.code(), "allowed");
    replace(list.path(), &entry("sub", Some("somebody"), ISSUED));
    wait_until("lifted", || async { service.bearer(&mine).await.code() == "allowed" }).await;
}

#[tokio::test]
async fn revocation_is_the_last_check_of_a_token_and_comes_before_the_rules() {
    let list = file(&entry("issuer", None, 4_000_000_000));
    let rules = "rules: [{name: open, match: {paths: ['/open/*']}, access: public}, \
                 {name: maybe, match: {paths: ['/maybe/*']}, access: optional}, \
                 {name: trial, match: {paths: ['/trial/*']}, shadow: true}, \
                 {name: admin, match: {paths: ['/admin/*']}, require: {claims: {role: admin}}}]";
    let service = Service::ready(&format!("{}{rules}\n", config(list.path(), ""))).await;
    let good = token(|_| {});
    for (path, token, code) in [
        ("/x", good.clone(), "token_revoked"),
        ("/admin/x", good.clone(), "token_revoked"),
        ("/maybe/x", good.clone(), "token_revoked"),
        ("/open/x", good.clone(), "allowed"),
        ("/trial/x", good.clone(), "allowed"),
        ("/x", tampered(&good), "signature_invalid"),
        ("/x", token(|claims| claims["exp"] = json!(1)), "token_expired"),
        ("/x", token(|claims| claims["cnf"] = json!({})), "proof_missing"),
    ] {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let answer = service.send(header_map_request("GET", "shop.example", path, &headers)).await;
        assert_eq!(answer.code(), code, "{path}");
        if code == "allowed" {
            assert!(answer.headers.is_empty(), "a revoked token gives no identity: {:?}", answer.headers);
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_and_its_entries_go_on() {
    let revoked = entry("sub", Some("user-1"), ISSUED);
    let list = file(&revoked);
    let service = Service::ready(&config(list.path(), "")).await;
    let (mine, others) = (token(|_| {}), token(|claims| claims["sub"] = json!("user-2")));
    let next = entry("sub", Some("user-2"), ISSUED);
    for bad in [
        String::new(),
        "\n".to_owned() + &next + "{",
        next.trim_end().to_owned(),
        format!("{next}[]\n"),
        format!("{next}{}", entry("user", Some("x"), 1)),
        format!("{next}{}", entry("sub", None, 1)),
        format!("{next}{}", entry("sub", Some(""), 1)),
        format!("{next}{}", entry("issuer", Some("passage"), 1)),
        format!("{next}{}", next.replace("passage", "other")),
        format!("{next}{}", next.replace("kind", "Kind")),
        format!("{next}{}", next.replace("\"issued_before\":1700000000,", "")),
        format!("{next}{}", next.replace("1700000000", "\"yesterday\"")),
        format!("{next}{}", next.replace("1700000000", "-1")),
        format!("{next}{}", next.replace("{", "{\"kind\":\"sid\",")),
        format!("{next}{}", next.replace("user-2", &"x".repeat(17_000))),
    ] {
        let refused = || async {
            let (_, metrics) = get(service.admin, "/metrics").await;
            series(&metrics, "passage_authz_revocation_events_total")["{source=\"file\",result=\"refused\"}"]
        };
        let before = refused().await;
        replace(list.path(), &bad);
        wait_until(&format!("{bad:.120} is refused"), || async { refused().await > before }).await;
        assert_eq!(service.bearer(&mine).await.code(), "token_revoked", "{bad:.200}");
        assert_eq!(service.bearer(&others).await.code(), "allowed", "{bad:.200}");
    }
    replace(list.path(), &format!("{revoked}{next}"));
    wait_until("a good one is taken", || async { service.bearer(&others).await.code() == "token_revoked" })
        .await;
}

/// As a mounted ConfigMap changes: a link leads elsewhere.
#[tokio::test]
async fn a_link_that_leads_elsewhere_is_followed() {
    let list = file(&entry("sub", Some("user-1"), ISSUED));
    let service = Service::ready(&config(list.path(), "")).await;
    let mine = token(|_| {});
    let folder = list.path().with_extension("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    let link = |target: &Path| {
        let fresh = list.path().with_extension("link");
        std::os::unix::fs::symlink(target, &fresh).unwrap();
        std::fs::rename(&fresh, list.path()).unwrap();
    };
    // A folder has a version and cannot be read.
    link(&folder);
    let said = || async { get(service.admin, "/metrics").await.1 };
    let refused = "passage_authz_revocation_events_total{source=\"file\",result=\"refused\"} 1\n";
    wait_until("refused", || async { said().await.contains(refused) }).await;
    assert_eq!(service.bearer(&mine).await.code(), "token_revoked");
    let other = file(&entry("sub", Some("user-2"), ISSUED));
    link(other.path());
    wait_until("lifted", || async { service.bearer(&mine).await.code() == "allowed" }).await;
    std::fs::remove_dir(folder).unwrap();
}

#[tokio::test]
async fn stale_revocations_deny_tokens_where_that_is_asked_for() {
    for (then, code, ready) in [("serve", "allowed", 200), ("deny", "revocation_unavailable", 503)] {
        let list = file(&entry("sub", Some("user-1"), ISSUED));
        let rules = "rules: [{name: open, match: {paths: ['/open']}, access: public}]\n";
        let more = format!(", when_stale: {{after: 2s, then: {then}}}");
        let service = Service::ready(&format!("{}{rules}", config(list.path(), &more))).await;
        let (mine, others) = (token(|_| {}), token(|claims| claims["sub"] = json!("user-2")));
        assert_eq!(service.bearer(&others).await.code(), "allowed");
        let text = std::fs::read_to_string(list.path()).unwrap();
        std::fs::remove_file(list.path()).unwrap();
        wait_until("stale", || async { get(service.admin, "/readyz").await.1.contains("revocations: ") })
            .await;
        assert_eq!(get(service.admin, "/readyz").await.0, ready, "{then}");
        assert_eq!(service.bearer(&others).await.code(), code);
        assert_eq!(service.bearer(&mine).await.code(), "token_revoked", "what is known goes first");
        let open = service.send(header_map_request("GET", "shop.example", "/open", &[])).await;
        assert_eq!(open.code(), "allowed");
        std::fs::write(list.path(), text).unwrap();
        wait_until("back", || async { service.bearer(&others).await.code() == "allowed" }).await;
        wait_until("ready", || async { get(service.admin, "/readyz").await.0 == 200 }).await;
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_all_the_time_is_read_all_the_same() {
    let list = file(&entry("sub", Some("somebody"), ISSUED));
    let service = Service::ready(&config(list.path(), "")).await;
    let mine = token(|_| {});
    let replacing = async {
        // Held open, so that no file has the inode of one before.
        let mut held = Vec::new();
        for at in 0_u64.. {
            held.push(std::fs::File::open(list.path()).unwrap());
            let more =
                entry("sub", Some("user-1"), ISSUED) + &entry("jti", Some(&format!("other-{at}")), ISSUED);
            replace(list.path(), &more);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let revoked = wait_until("revoked", || async { service.bearer(&mine).await.code() == "token_revoked" });
    tokio::select! { () = replacing => {}, () = revoked => {} }
}
