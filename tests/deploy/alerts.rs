//! Each alert of the chart, by promtool: what it fires for, and what it must not fire for.

use std::collections::BTreeSet;

use crate::support::promtool::{Scene, alert_groups, alert_names, firing};

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

/// A series that differs from [`HEALTHY`], or is gone for `_`; the minute; whether the alert fires then.
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

const ROWS: &[Row] = &[
    ("PassageAuthzDown", &[(BUILD, "1+0x10 _x20")], 19, true),
    ("PassageAuthzDown", &[(BUILD, "1+0x10 _x5 1+0x20")], 11, false),
    ("PassageAuthzDown", &[(BUILD, "1+0x10 _x1 1+0x20")], 14, false),
    ("PassageAuthzNoKeys", &[(USABLE, "1+0x10 0+0x20")], 13, true),
    // A replica that starts.
    ("PassageAuthzNoKeys", &[(USABLE, "1+0x10 0 1+0x20")], 13, false),
    ("PassageAuthzNotReady", &[(READY, "1+0x10 0+0x20")], 13, true),
    ("PassageAuthzNotReady", &[(READY, "1+0x10 0 1+0x20")], 12, false),
    ("PassageAuthzDenied", &[(ALLOWED, "0+100x60"), (DENIED, "0+110x60")], 30, true),
    ("PassageAuthzDenied", &[(ALLOWED, "0+100x60"), (SHADOW_DENIED, "0+110x60")], 30, true),
    ("PassageAuthzDenied", &[(ALLOWED, "0+100x60"), (DENIED, "0+90x60")], 30, false),
    ("PassageAuthzDenied", &[(ALLOWED, "0+100x60"), (DENIED, "0+110x60")], 9, false),
    // A handful of checks at night.
    ("PassageAuthzDenied", &[(ALLOWED, "0+0x60"), (DENIED, "0+3x60")], 30, false),
    ("PassageAuthzDenied", &[(ALLOWED, "0+0x60"), (DENIED, "0+0x60")], 30, false),
    ("PassageAuthzShadow", &[(SHADOW, "1+0x1600")], 1445, true),
    ("PassageAuthzShadow", &[(SHADOW, "1+0x1600")], 1435, false),
    ("PassageAuthzKeysOld", &[(AGE, "3500+60x60")], 10, true),
    ("PassageAuthzKeysOld", &[(AGE, "3599+0x60")], 30, false),
    ("PassageAuthzErrors", &[(KEYS_UNAVAILABLE, "0+12x60")], 15, true),
    ("PassageAuthzErrors", &[(KEYS_UNAVAILABLE, "0+3x60")], 15, false),
    // The client's fault.
    ("PassageAuthzErrors", &[(MALFORMED, "0+600x60")], 15, false),
    ("PassageAuthzOverloaded", &[(OVERLOADED, "5+1x60")], 15, true),
    // After it has ended.
    ("PassageAuthzOverloaded", &[(OVERLOADED, "5+1x10 15+0x60")], 30, false),
    ("PassageAuthzReloadFailed", &[(RELOAD, "1+0x10 0+0x600")], 500, true),
    ("PassageAuthzReloadFailed", &[(RELOAD, "1+0x10 0+0x10 1+0x60")], 30, false),
    ("PassageAuthzClock", &[(SKEW, "-31+0x60")], 10, true),
    ("PassageAuthzClock", &[(SKEW, "600+0x60")], 10, true),
    ("PassageAuthzClock", &[(SKEW, "30+0x60")], 10, false),
    ("PassageAuthzClock", &[(SKEW, "1+0x10 600 1+0x60")], 12, false),
    // 13 days from the beginning.
    ("PassageAuthzCertificateExpiring", &[(EXPIRES, "1123200+0x60")], 10, true),
    ("PassageAuthzCertificateExpiring", &[(EXPIRES, "1296000+0x60")], 10, false),
    ("PassageAuthzCertificateExpiring", &[(EXPIRES, "-60+0x60")], 10, false),
    ("PassageAuthzCertificateExpired", &[(EXPIRES, "600+0x60")], 10, true),
    ("PassageAuthzCertificateExpired", &[(EXPIRES, "660+0x60")], 10, false),
    ("PassageAuthzKeyStore", &[(STORE, "0+0x60")], 20, true),
    ("PassageAuthzKeyStore", &[(STORE, "0+0x60")], 10, false),
    ("PassageAuthzWrongProtocol", &[(WRONG, "5+5x60")], 15, true),
    // A scanner now and then.
    ("PassageAuthzWrongProtocol", &[(WRONG, "5+1x60")], 15, false),
    ("PassageAuthzRevocationStale", &[(REVOCATION, "1+60x60")], 5, true),
    ("PassageAuthzRevocationStale", &[(REVOCATION, "59+0x60")], 15, false),
];

#[test]
fn each_alert_fires_for_its_cause_and_for_nothing_else() {
    let named: BTreeSet<_> = alert_names(&alert_groups()).into_iter().collect();
    for fires in [true, false] {
        let rows = ROWS.iter().filter(|row| row.3 == fires).map(|row| row.0.to_owned());
        assert_eq!(rows.collect::<BTreeSet<_>>(), named, "each alert has a row of each kind");
    }
    let healthy = || HEALTHY.iter().map(|(series, values)| ((*series).to_owned(), (*values).to_owned()));
    let scene = |(_, differs, minutes, _): &Row| {
        let is_other = |name: &str| differs.iter().any(|(series, _)| *series == name);
        let own = differs.iter().map(|(series, values)| ((*series).to_owned(), (*values).to_owned()));
        Scene {
            series: healthy().filter(|(name, _)| !is_other(name)).chain(own).collect(),
            minutes: *minutes,
        }
    };
    let quiet = Scene { series: healthy().collect(), minutes: 1500 };
    let scenes: Vec<_> = ROWS.iter().map(scene).chain([quiet]).collect();
    let Some(firing) = firing(&scenes) else { return };
    let mut faults = Vec::new();
    for ((alert, differs, minutes, fires), fired) in ROWS.iter().zip(&firing) {
        let alone = BTreeSet::from([(*alert).to_owned()]);
        if (*fires && *fired != alone) || (!fires && fired.contains(*alert)) {
            faults.push(format!("{differs:?} after {minutes} minutes, {alert}: {fired:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(firing.last(), Some(&BTreeSet::new()), "nothing is wrong");
}
