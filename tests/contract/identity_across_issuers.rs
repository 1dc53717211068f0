//! Several issuers behind one set of identity headers: each fills them in its own way, and so it fills the metadata.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use passage_authz::testing::jwks;
use serde_json::{Value, json};

use crate::support::fixtures::{USER, bearer, key};
use crate::support::process::file;
use crate::support::{Service, get, header_map_request, series};

/// One header, filled in each issuer's own way: the person keeps the ID that services know.
#[tokio::test]
async fn each_issuer_has_its_own_claims_behind_a_header() {
    let keys = jwks(&[&key()]);
    let text = format!(
        "issuers:\n\
         - {{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}\n\
         - {{name: auth0, issuer: auth0, audiences: [], keys: {{inline: {keys}}}, \
            identity: {{headers: {{x-passage-user-id: {{first: [external_id, old_id]}}, x-plan: plan}}}}}}\n\
         - {{name: okta, issuer: okta, audiences: [], keys: {{inline: {keys}}}, \
            identity: {{headers: {{x-passage-user-id: {{claim: sub, cut_prefix: 'okta|'}}}}}}}}\n\
         identity: {{headers: {{x-passage-user-id: sub, x-mail: email}}, issuer_header: x-issuer}}\n\
         rules: [{{name: open, match: {{paths: [/open]}}, access: public}}]\n"
    );
    let service = Service::ready(&text).await;
    for (iss, claims, user, plan, issuer) in [
        (
            "app1",
            json!({"sub": "old-7", "external_id": "old-8", "plan": "gold"}),
            Some("old-7"),
            None,
            "passage",
        ),
        (
            "auth0",
            json!({"sub": "auth0|x", "external_id": "old-7", "plan": "gold"}),
            Some("old-7"),
            Some("gold"),
            "auth0",
        ),
        (
            "auth0",
            json!({"sub": "auth0|x", "external_id": "", "old_id": "old-9"}),
            Some("old-9"),
            None,
            "auth0",
        ),
        (
            "auth0",
            json!({"sub": "auth0|x", "external_id": 7, "old_id": "old-9"}),
            Some("old-9"),
            None,
            "auth0",
        ),
        // The ID of another issuer's user.
        ("auth0", json!({"sub": "old-7"}), None, None, "auth0"),
        ("okta", json!({"sub": "okta|old-7", "plan": "gold"}), Some("old-7"), None, "okta"),
        ("okta", json!({"sub": "old-7"}), Some("old-7"), None, "okta"),
        ("okta", json!({"sub": "okta|"}), None, None, "okta"),
        ("okta", json!({"sub": "okta| old-7"}), Some("claim_invalid"), None, "okta"),
    ] {
        let token = key().mint(iss, |_, all| {
            all["email"] = json!("ann@example.com");
            all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        });
        for round in ["verified", "remembered"] {
            let answer = service.bearer(&token).await;
            let case = format!("{iss} {claims} {round}");
            if user == Some("claim_invalid") {
                assert_eq!(answer.code(), "claim_invalid", "{case}");
                continue;
            }
            assert_eq!(answer.http, 200, "{case}");
            for (name, want) in [
                ("x-passage-user-id", user),
                ("x-plan", plan),
                ("x-mail", Some("ann@example.com")),
                ("x-issuer", Some(issuer)),
            ] {
                assert_eq!(answer.header(name), want, "{case} {name}");
                assert_eq!(answer.remove.contains(&name.to_owned()), want.is_none(), "{case} {name}");
            }
        }
    }
    // Forged, on a rule that looks at no token.
    let request =
        header_map_request("GET", "a.example", "/open", &[("x-issuer", "passage"), ("x-plan", "gold")]);
    let answer = service.send(request).await;
    for name in ["x-passage-user-id", "x-plan", "x-mail", "x-issuer"] {
        assert!(answer.remove.contains(&name.to_owned()), "{name}");
    }
}

/// The metadata follows the same maps as the headers, and each issuer may have its own.
#[tokio::test]
async fn the_metadata_has_forms_and_issuers_as_headers_have() {
    let table = file("new-1,old-7\n");
    let keys = jwks(&[&key()]);
    let text = format!(
        "issuers:\n\
         - {{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}\n\
         - {{name: auth0, issuer: auth0, audiences: [], keys: {{inline: {keys}}}, \
            identity: {{metadata: {{user: {{claim: sub, cut_prefix: 'auth0|', map: '{}'}}, plan: /app/plan}}}}}}\n\
         - {{name: okta, issuer: okta, audiences: [], keys: {{inline: {keys}}}, identity: {{metadata: [uid]}}}}\n\
         identity:\n  metadata:\n    user: sub\n    groups: {{claim: groups}}\n    joined: {{claim: groups, as: text}}\n    \
         all: {{claim: '', as: base64}}\n    first: {{first: [nickname, name]}}\n\
         tokens: {{cache: {{max_entries: 1000}}}}\n",
        table.path().display()
    );
    let service = Service::ready(&text).await;
    for (iss, claims, want) in [
        (
            "app1",
            json!({"sub": "old-7", "groups": ["a", "b"], "name": "Ann", "app": {"plan": 1}, "uid": 7}),
            json!({"user": "old-7", "groups": ["a", "b"], "joined": "a,b", "first": "Ann"}),
        ),
        (
            "auth0",
            json!({"sub": "auth0|new-1", "app": {"plan": ["gold"]}}),
            json!({"user": "old-7", "plan": ["gold"]}),
        ),
        // Another user's ID.
        ("auth0", json!({"sub": "auth0|old-7"}), json!({})),
        (
            "okta",
            json!({"sub": "x", "uid": 7, "groups": []}),
            json!({"user": "x", "uid": "Some(NumberValue(7.0))", "groups": []}),
        ),
        ("app1", json!({"sub": "x", "groups": ["a,b"]}), json!("claim_invalid")),
    ] {
        let token = key().mint(iss, |_, all| {
            all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        });
        for round in ["verified", "remembered"] {
            let case = format!("{iss} {claims} {round}");
            let mut answer = service.bearer(&token).await;
            if want == "claim_invalid" {
                assert_eq!(answer.code(), want, "{case}");
                continue;
            }
            let at = answer.metadata.iter().position(|(key, _)| key == "all").unwrap();
            let (_, all) = answer.metadata.remove(at);
            let all: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(all).unwrap()).unwrap();
            assert_eq!((&all["sub"], &all["iss"]), (&claims["sub"], &json!(iss)), "{case}");
            let mut shown = answer.metadata;
            shown.sort();
            let mut wanted: Vec<_> = want
                .as_object()
                .unwrap()
                .iter()
                .map(|(key, value)| {
                    (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                })
                .collect();
            wanted.sort();
            assert_eq!(shown, wanted, "{case}");
        }
    }
}

/// While a rule or the service is in shadow, checks are counted whose identity the maps change.
#[tokio::test]
async fn shadow_counts_identities_that_the_maps_change() {
    let table = file("new-1,old-7\n");
    let keys = jwks(&[&key()]);
    let trial =
        "rules: [{name: trial, match: {paths: [/trial]}, require: {claims: {role: admin}}, shadow: true}]\n";
    for (mode, rules, counted) in
        [("enforce", "", [0.0, 0.0]), ("shadow", "", [2.0, 2.0]), ("enforce", trial, [0.0, 2.0])]
    {
        let text = format!(
            "mode: {mode}\n{rules}issuers:\n\
             - {{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}\n\
             - {{name: mapped, issuer: mapped, audiences: [], keys: {{inline: {keys}}}, \
                identity: {{headers: {{{USER}: {{claim: sub, cut_prefix: 'a|', map: '{0}'}}}}}}}}\n\
             - {{name: claimed, issuer: claimed, audiences: [], keys: {{inline: {keys}}}, \
                identity: {{headers: {{{USER}: {{first: [old_id, other]}}}}}}}}\n\
             tokens: {{cache: {{max_entries: 1000}}}}\n",
            table.path().display()
        );
        let service = Service::ready(&text).await;
        let mut seen = Vec::new();
        for path in ["/", "/trial"] {
            for (iss, claims, changes) in [
                ("app1", json!({"sub": "old-7"}), false),
                ("mapped", json!({"sub": "new-2"}), false),
                ("mapped", json!({"sub": "new-1"}), true),
                ("mapped", json!({"sub": "a|new-2"}), true),
                // Removed: it is another user's.
                ("mapped", json!({"sub": "old-7"}), true),
                ("claimed", json!({"sub": "x", "old_id": "old-7"}), true),
                ("claimed", json!({"sub": "old-7", "other": "old-7"}), false),
                // Removed, since the claim is missing.
                ("claimed", json!({"sub": "x"}), true),
            ] {
                let token = key().mint(iss, |_, all| {
                    all["role"] = json!("admin");
                    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
                });
                let before = changed(&service).await;
                for _ in 0..2 {
                    let request =
                        header_map_request("GET", "a.example", path, &[("authorization", &bearer(&token))]);
                    assert_eq!(service.send(request).await.code(), "allowed");
                }
                let more = changed(&service).await - before;
                let in_shadow = mode == "shadow" || (path == "/trial" && !rules.is_empty());
                assert_eq!(
                    more,
                    if changes && in_shadow { 2.0 } else { 0.0 },
                    "{mode} {path} {iss} {claims}"
                );
                seen.push(more);
            }
        }
        assert_eq!([seen[2], seen[10]], counted, "{mode} {rules}");
    }
}

async fn changed(service: &Service) -> f64 {
    let (_, metrics) = get(service.admin, "/metrics").await;
    series(&metrics, "passage_authz_identity_changed_total").values().sum()
}
