//! Each alert of the chart, by promtool: what it fires for, and what it must not fire for.

use std::collections::BTreeSet;

use crate::support::helm::NAMESPACE;
use crate::support::promtool::{Scene, Told, alert_groups, alert_names, firing, told_otherwise};

/// A service at which nothing is wrong. Values are a minute apart.
const HEALTHY: &[(&str, &str)] = &[
    ("passage_authz_build_info{version=\"1\"}", "1+0x1600"),
    ("passage_authz_ready", "1+0x1600"),
    ("passage_authz_issuer_usable{issuer=\"a\"}", "1+0x1600"),
    ("passage_authz_mode{mode=\"shadow\"}", "0+0x1600"),
    ("passage_authz_key_set_age_seconds{issuer=\"a\"}", "300+0x1600"),
    ("passage_authz_clock_skew_seconds{issuer=\"a\"}", "-1+0x1600"),
    ("passage_authz_key_store_ok{issuer=\"a\"}", "1+0x1600"),
    ("passage_authz_overloaded_total", "5+0x1600"),
    ("passage_authz_wrong_protocol_total{port=\"grpc\"}", "5+0x1600"),
    ("passage_authz_config_last_reload_successful", "1+0x1600"),
    ("passage_authz_revocation_age_seconds{source=\"file\"}", "1+0x1600"),
    ("passage_authz_certificate_expiration_timestamp_seconds{certificate=\"server.tls\"}", "7776000+0x1600"),
    ("passage_authz_checks_total{issuer=\"a\",outcome=\"allowed\",code=\"\"}", "0+600x1600"),
    ("passage_authz_checks_total{issuer=\"a\",outcome=\"denied\",code=\"token_expired\"}", "0+10x1600"),
    ("passage_authz_checks_total{issuer=\"a\",outcome=\"error\",code=\"keys_unavailable\"}", "0+0x1600"),
];

/// Series that differ from [`HEALTHY`], or are gone for `stale` and `_`; the minute; whether the alert fires then.
type Row = (&'static str, &'static [(&'static str, &'static str)], usize, bool);

const ALLOWED: &str = "passage_authz_checks_total{issuer=\"a\",outcome=\"allowed\",code=\"\"}";
const DENIED: &str = "passage_authz_checks_total{issuer=\"a\",outcome=\"denied\",code=\"token_expired\"}";
const SHADOW_DENIED: &str =
    "passage_authz_checks_total{issuer=\"a\",outcome=\"shadow_denied\",code=\"token_missing\"}";
const KEYS_UNAVAILABLE: &str =
    "passage_authz_checks_total{issuer=\"a\",outcome=\"error\",code=\"keys_unavailable\"}";
const MALFORMED: &str =
    "passage_authz_checks_total{issuer=\"\",outcome=\"error\",code=\"request_malformed\"}";
const USABLE: &str = "passage_authz_issuer_usable{issuer=\"a\"}";
const READY: &str = "passage_authz_ready";
const EXPIRES: &str = "passage_authz_certificate_expiration_timestamp_seconds{certificate=\"server.tls\"}";
const SKEW: &str = "passage_authz_clock_skew_seconds{issuer=\"a\"}";
const AGE: &str = "passage_authz_key_set_age_seconds{issuer=\"a\"}";
const STORE: &str = "passage_authz_key_store_ok{issuer=\"a\"}";
const SHADOW: &str = "passage_authz_mode{mode=\"shadow\"}";
const BUILD: &str = "passage_authz_build_info{version=\"1\"}";
const OVERLOADED: &str = "passage_authz_overloaded_total";
const WRONG: &str = "passage_authz_wrong_protocol_total{port=\"grpc\"}";
const RELOAD: &str = "passage_authz_config_last_reload_successful";
const REVOCATION: &str = "passage_authz_revocation_age_seconds{source=\"file\"}";
const FULL: &str = "passage_authz_revocation_events_total{source=\"listen\",result=\"full\"}";

const READY_TOO: &str = "passage_authz_ready{pod=\"b\"}";
const USABLE_TOO: &str = "passage_authz_issuer_usable{issuer=\"a\",pod=\"b\"}";
const BUILD_TOO: &str = "passage_authz_build_info{version=\"1\",pod=\"b\"}";

/// One that fires has the first minute in which it does: a minute before, it is silent.
const ROWS: &[Row] = &[
    ("PassageAuthzDown", &[(BUILD, "1+0x10 stale _x20")], 13, true),
    ("PassageAuthzDown", &[(BUILD, "1+0x10 stale 1+0x20")], 13, false),
    // One replica of two.
    ("PassageAuthzDown", &[(BUILD, "1+0x10 stale _x20"), (BUILD_TOO, "1+0x60")], 30, false),
    ("PassageAuthzNoKeys", &[(USABLE, "1+0x10 0+0x20")], 13, true),
    ("PassageAuthzNoKeys", &[(USABLE_TOO, "0+0x60")], 2, true),
    // A replica that starts.
    ("PassageAuthzNoKeys", &[(USABLE, "1+0x10 0 1+0x20")], 13, false),
    ("PassageAuthzNotReady", &[(READY, "1+0x10 0+0x20")], 13, true),
    ("PassageAuthzNotReady", &[(READY, "1+0x10 0 1+0x20")], 13, false),
    ("PassageAuthzNotReady", &[(READY, "0+0x60"), (READY_TOO, "1+0x60")], 30, false),
    ("PassageAuthzDenied", &[(ALLOWED, "0+100x60"), (DENIED, "0+110x60")], 11, true),
    ("PassageAuthzDenied", &[(ALLOWED, "0+100x60"), (SHADOW_DENIED, "0+110x60")], 11, true),
    ("PassageAuthzDenied", &[(ALLOWED, "0+100x60"), (DENIED, "0+90x60")], 30, false),
    // A handful of checks at night, and none at all.
    ("PassageAuthzDenied", &[(ALLOWED, "0+0x60"), (DENIED, "0+7x60")], 15, true),
    ("PassageAuthzDenied", &[(ALLOWED, "0+0x60"), (DENIED, "0+5x60")], 30, false),
    ("PassageAuthzDenied", &[(ALLOWED, "0+0x60"), (DENIED, "0+0x60")], 30, false),
    ("PassageAuthzShadow", &[(SHADOW, "1+0x1600")], 1440, true),
    // A scrape that failed, and a restart of the only replica.
    ("PassageAuthzShadow", &[(SHADOW, "1+0x700 stale _x5 1+0x800")], 1440, true),
    ("PassageAuthzShadow", &[(SHADOW, "1+0x700 0+0x20 1+0x800")], 1500, false),
    ("PassageAuthzKeysOld", &[(AGE, "3500+60x60")], 7, true),
    ("PassageAuthzKeysOld", &[(AGE, "3600+0x60")], 30, false),
    ("PassageAuthzErrors", &[(KEYS_UNAVAILABLE, "0+12x60")], 6, true),
    ("PassageAuthzErrors", &[(KEYS_UNAVAILABLE, "0+3x60")], 15, false),
    // One error among few checks.
    ("PassageAuthzErrors", &[(ALLOWED, "0+2x60"), (KEYS_UNAVAILABLE, "0+0x10 1+0x60")], 15, false),
    ("PassageAuthzErrors", &[(ALLOWED, "0+2x60"), (KEYS_UNAVAILABLE, "0+0x10 1+0x60")], 16, false),
    // The client's fault.
    ("PassageAuthzErrors", &[(MALFORMED, "0+600x60")], 15, false),
    ("PassageAuthzOverloaded", &[(OVERLOADED, "5+1x60")], 6, true),
    // A moment.
    ("PassageAuthzOverloaded", &[(OVERLOADED, "5+0x10 900+0x60")], 15, false),
    ("PassageAuthzOverloaded", &[(OVERLOADED, "5+0x10 900+0x60")], 16, false),
    // A restart.
    ("PassageAuthzOverloaded", &[(OVERLOADED, "900+0x10 0+0x60")], 15, false),
    ("PassageAuthzReloadFailed", &[(RELOAD, "1+0x10 0+0x600")], 11, true),
    ("PassageAuthzReloadFailed", &[(RELOAD, "1+0x10 0+0x10 1+0x60")], 30, false),
    ("PassageAuthzClock", &[(SKEW, "-31+0x60")], 5, true),
    ("PassageAuthzClock", &[(SKEW, "600+0x60")], 5, true),
    ("PassageAuthzClock", &[(SKEW, "30+0x60")], 10, false),
    ("PassageAuthzClock", &[(SKEW, "-30+0x60")], 10, false),
    ("PassageAuthzClock", &[(SKEW, "1+0x10 600+0x4 1+0x60")], 16, false),
    // 14 days and 5 minutes.
    ("PassageAuthzCertificateExpiring", &[(EXPIRES, "1209900+0x60")], 11, true),
    ("PassageAuthzCertificateExpiring", &[(EXPIRES, "1296000+0x60")], 10, false),
    ("PassageAuthzCertificateExpiring", &[(EXPIRES, "-60+0x60")], 10, false),
    ("PassageAuthzCertificateExpired", &[(EXPIRES, "600+0x60")], 10, true),
    ("PassageAuthzCertificateExpired", &[(EXPIRES, "660+0x60")], 10, false),
    ("PassageAuthzKeyStore", &[(STORE, "0+0x60")], 15, true),
    ("PassageAuthzKeyStore", &[(STORE, "0+0x14 1+0x60")], 15, false),
    ("PassageAuthzWrongProtocol", &[(WRONG, "5+5x60")], 7, true),
    // A scanner now and then, and a restart.
    ("PassageAuthzWrongProtocol", &[(WRONG, "5+1x60")], 15, false),
    ("PassageAuthzWrongProtocol", &[(WRONG, "900+0x10 0+0x60")], 15, false),
    ("PassageAuthzRevocationStale", &[(REVOCATION, "1+60x60")], 2, true),
    ("PassageAuthzRevocationStale", &[(REVOCATION, "60+0x60")], 15, false),
    ("PassageAuthzRevocationsFull", &[(FULL, "0+0x10 1+1x60")], 11, true),
    ("PassageAuthzRevocationsFull", &[(FULL, "7+0x60")], 15, false),
];

/// The labels beside `alertname`, `job` and `namespace`, and the summary, in the first row in which the alert fires.
type Said = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const CRITICAL: (&str, &str) = ("severity", "critical");
const WARNING: (&str, &str) = ("severity", "warning");
const LOGIN: (&str, &str) = ("issuer", "a");
const CERTIFICATE: (&str, &str) = ("certificate", "server.tls");

const SAID: &[Said] = &[
    ("PassageAuthzDown", &[CRITICAL], "No replica of passage-authz answers"),
    ("PassageAuthzNoKeys", &[CRITICAL, LOGIN], "A replica has no usable keys of issuer a"),
    ("PassageAuthzNotReady", &[CRITICAL], "No replica of passage-authz is ready"),
    ("PassageAuthzDenied", &[WARNING], "52.38% of the checks are denied"),
    ("PassageAuthzShadow", &[WARNING], "Shadow mode has been on for a day"),
    ("PassageAuthzKeysOld", &[WARNING, LOGIN], "Issuer a has not confirmed its keys for 1h 5m 20s"),
    (
        "PassageAuthzErrors",
        &[WARNING, ("code", "keys_unavailable")],
        "1.929% of the checks end in keys_unavailable",
    ),
    ("PassageAuthzOverloaded", &[CRITICAL], "Checks are refused because too many are under way"),
    ("PassageAuthzReloadFailed", &[WARNING], "A configuration was refused; the old one is in force"),
    ("PassageAuthzClock", &[WARNING, LOGIN], "The clock of a replica and that of issuer a differ by 31s"),
    (
        "PassageAuthzCertificateExpiring",
        &[WARNING, CERTIFICATE],
        "The certificate of server.tls expires in 13d 23h 54m 0s",
    ),
    ("PassageAuthzCertificateExpired", &[CRITICAL, CERTIFICATE], "The certificate of server.tls has expired"),
    ("PassageAuthzKeyStore", &[WARNING, LOGIN], "The keys of issuer a cannot be kept on disk"),
    (
        "PassageAuthzWrongProtocol",
        &[WARNING, ("port", "grpc")],
        "Peers speak another protocol than the grpc port",
    ),
    (
        "PassageAuthzRevocationStale",
        &[WARNING, ("source", "file")],
        "Revocations from the file are 2m 1s old",
    ),
    ("PassageAuthzRevocationsFull", &[CRITICAL], "Revocations are full, and events are refused"),
];

/// [`HEALTHY`], but for these series, which take the place of those of the same name and labels.
fn scene(differs: &[(String, String)], minutes: usize) -> Scene {
    let is_other = |name: &str| differs.iter().any(|(series, _)| series == name);
    let healthy = HEALTHY.iter().filter(|(series, _)| !is_other(series));
    let healthy = healthy.map(|(series, values)| ((*series).to_owned(), (*values).to_owned()));
    Scene { series: healthy.chain(differs.iter().cloned()).collect(), minutes }
}

fn owned(series: &[(&str, &str)]) -> Vec<(String, String)> {
    series.iter().map(|(series, values)| ((*series).to_owned(), (*values).to_owned())).collect()
}

/// The same series of a release in another namespace.
fn elsewhere(series: &[(&str, &str)]) -> Vec<(String, String)> {
    let moved = |series: &str| {
        let (name, own) = series.split_once('{').unwrap_or((series, "}"));
        format!("{name}{{job=\"authz-passage-authz\",namespace=\"other\",{own}")
    };
    series.iter().map(|(series, values)| (moved(series), (*values).to_owned())).collect()
}

#[test]
fn each_alert_fires_for_its_cause_and_for_nothing_else() {
    let named: BTreeSet<_> = alert_names(&alert_groups()).into_iter().collect();
    for fires in [true, false] {
        let rows = ROWS.iter().filter(|row| row.3 == fires).map(|row| row.0.to_owned());
        assert_eq!(rows.collect::<BTreeSet<_>>(), named, "each alert has a row of each kind");
    }
    let scenes: Vec<_> =
        ROWS.iter().map(|(_, differs, minutes, _)| scene(&owned(differs), *minutes)).collect();
    let Some(firing) = firing(&scenes) else { return };
    let mut faults = Vec::new();
    for ((alert, differs, minutes, fires), fired) in ROWS.iter().zip(&firing) {
        let alone = BTreeSet::from([(*alert).to_owned()]);
        if (*fires && *fired != alone) || (!fires && fired.contains(*alert)) {
            faults.push(format!("{differs:?} after {minutes} minutes, {alert}: {fired:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_alert_fires_too_early_or_for_another_namespace() {
    let rows: Vec<_> = ROWS.iter().filter(|row| row.3).collect();
    // What is there always, and is all that a service without TLS, key store and revocations has.
    let optional = [EXPIRES, SKEW, STORE, REVOCATION];
    let bare = HEALTHY.iter().filter(|(series, _)| !optional.contains(series)).copied().collect::<Vec<_>>();
    let bare = Scene { series: owned(&bare), minutes: 1500 };
    let early = rows.iter().map(|(_, differs, minutes, _)| scene(&owned(differs), minutes - 1));
    let other = rows.iter().map(|(_, differs, minutes, _)| scene(&elsewhere(differs), *minutes));
    // Others do not hide that none of ours is left.
    let down = [owned(&[(BUILD, "1+0x10 stale _x20")]), elsewhere(&[(BUILD, "1+0x60")])].concat();
    let scenes: Vec<_> = early.chain(other).chain([scene(&[], 1500), bare, scene(&down, 13)]).collect();
    let Some(firing) = firing(&scenes) else { return };
    let (early, rest) = firing.split_at(rows.len());
    let (other, rest) = rest.split_at(rows.len());
    for (((alert, differs, ..), early), other) in rows.iter().zip(early).zip(other) {
        assert!(!early.contains(*alert), "{alert} fires a minute before: {differs:?}");
        assert!(other.is_empty(), "{other:?} fires for another namespace: {differs:?}");
    }
    let [healthy, bare, down] = rest else { panic!("{rest:?}") };
    assert!(healthy.is_empty() && bare.is_empty(), "nothing is wrong: {healthy:?} {bare:?}");
    assert_eq!(*down, BTreeSet::from(["PassageAuthzDown".to_owned()]));
}

/// What a person is paged with, and what a route of Alertmanager goes by.
#[test]
fn each_alert_says_whose_it_is_and_where_to_read_on() {
    let named: BTreeSet<_> = alert_names(&alert_groups()).into_iter().collect();
    assert_eq!(SAID.iter().map(|said| said.0.to_owned()).collect::<BTreeSet<_>>(), named);
    let told: Vec<_> = SAID
        .iter()
        .map(|(alert, labels, summary)| {
            let first = ROWS.iter().find(|row| row.0 == *alert && row.3).expect("a row");
            let scrape = [("job", "authz-passage-authz"), ("namespace", NAMESPACE)];
            Told {
                alert: (*alert).to_owned(),
                labels: labels.iter().chain(&scrape).copied().collect(),
                summary,
                scene: scene(&owned(first.1), first.2),
            }
        })
        .collect();
    let Some(said) = told_otherwise(&told) else { return };
    assert!(said.is_empty(), "{said}");
}
