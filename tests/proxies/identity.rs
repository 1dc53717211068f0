//! Identity headers through Envoy: the upstream sees the verified user, or no user, whatever the client sends.

use passage_authz::testing::{jwks, tampered};
use serde_json::json;

use crate::raw::raw;
use crate::support::Service;
use crate::support::attacks::RULES;
use crate::support::envoy::{Envoy, Upstream, seen};
use crate::support::fixtures::{APP, USER, good, inline, key};

#[tokio::test]
async fn whatever_is_forged_the_upstream_sees_the_true_user_or_nothing() {
    let service = Service::ready(&inline(RULES)).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    let good = good();
    let expired = key().mint(APP, |_, claims| claims["exp"] = json!(1));
    let states = [
        ("none", String::new()),
        ("valid", format!("authorization: Bearer {good}\r\n")),
        ("expired", format!("authorization: Bearer {expired}\r\n")),
        ("tampered", format!("authorization: Bearer {}\r\n", tampered(&good))),
        ("malformed", "authorization: Bearer x\r\n".to_owned()),
    ];
    let spellings = [
        "x-passage-user-id",
        "x_passage_user_id",
        "X-Passage_User-ID",
        "x.passage.user.id",
        "X!Passage~User*Id",
        "x-passage_user+id",
    ];
    let mut count = 0;
    for (access, path) in [
        ("public", "/public/a"),
        ("optional", "/optional/a"),
        ("required", "/orders"),
        ("deny", "/internal/a"),
        ("shadow", "/tried/a"),
        ("claims", "/staff/a"),
        ("claims in shadow", "/staff-tried/a"),
    ] {
        for (state, token) in &states {
            for spelling in spellings {
                let headers = format!("{token}{spelling}: admin\r\n{}: root\r\n", spelling.to_uppercase());
                let (status, body) = raw(&envoy, path, &headers).await;
                let through = match access {
                    "public" | "shadow" | "claims in shadow" => true,
                    "optional" => ["none", "valid"].contains(state),
                    "required" => *state == "valid",
                    _ => false,
                };
                let known = *state == "valid" && ["optional", "required", "shadow"].contains(&access);
                assert_eq!(status == 200, through, "{access}, {state}: {status} {body}");
                if through {
                    let want: &[&str] = if known { &["user-1"] } else { &[] };
                    assert_eq!(seen(&body, USER), want, "{access}, {state}, {spelling}");
                }
                count += 1;
            }
        }
    }
    assert_eq!(count, 7 * 5 * 6);
}

#[tokio::test]
async fn several_identity_headers_and_claims_that_envoy_can_use() {
    let more = "identity: {headers: {x-user: sub, x-mail: email, x-roles: roles, x-org: /org/id}, metadata: [sub, email, /org/id, org]}";
    let service = Service::ready(&inline(more)).await;
    let upstream = Upstream::start().await.unwrap();
    // The claims of the dynamic metadata, shown in a response header by the route.
    let shown = |config: String| {
        let marked = "domains: [\"*\"]";
        assert!(config.contains(marked));
        let value = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:email)% %DYNAMIC_METADATA(envoy.filters.http.ext_authz:/org/id)%";
        config.replace(marked, &format!("domains: [\"*\"]\n              request_headers_to_add: [{{header: {{key: x-shown, value: '{value}'}}}}]"))
    };
    let envoy = Envoy::edited(service.grpc, upstream.address, shown).await;
    let full = key().mint(APP, |_, claims| {
        claims["email"] = json!("a@b.example");
        claims["roles"] = json!(["x", "y"]);
        claims["org"] = json!({"id": 7});
    });
    let forged = "x-user: admin\r\nx_mail: admin\r\nX-Roles: admin\r\nx-org: 1\r\n";
    let (status, body) = raw(&envoy, "/", &format!("authorization: Bearer {full}\r\n{forged}")).await;
    assert_eq!(status, 200);
    for (name, want) in [("x-user", "user-1"), ("x-mail", "a@b.example"), ("x-roles", "x,y"), ("x-org", "7")]
    {
        assert_eq!(seen(&body, name), [want], "{name}");
    }
    assert_eq!(seen(&body, "x-shown"), ["a@b.example 7"]);
    let (status, body) = raw(&envoy, "/", &format!("authorization: Bearer {}\r\n{forged}", good())).await;
    assert_eq!(status, 200);
    assert_eq!(seen(&body, "x-user"), ["user-1"]);
    for name in ["x-mail", "x-roles", "x-org"] {
        assert_eq!(seen(&body, name), [] as [&str; 0], "a missing claim leaves nothing of the forged {name}");
    }
    let comma = key().mint(APP, |_, claims| claims["roles"] = json!(["a,admin"]));
    let (status, body) = raw(&envoy, "/", &format!("authorization: Bearer {comma}\r\n")).await;
    assert_eq!((status, &body["code"]), (401, &json!("claim_invalid")));
}

/// A person who moves from the one issuer to the other stays the same user; no other user becomes that user by a name of their choice.
#[tokio::test]
async fn the_same_person_by_two_issuers() {
    let keys = jwks(&[&key()]);
    let service = Service::ready(&format!(
        "issuers:\n\
         - {{name: passage, passage: {{app_id: {APP}}}, keys: {{inline: {keys}}}}}\n\
         - {{name: successor, issuer: 'https://login.example', audiences: [], keys: {{inline: {keys}}}, \
            identity: {{headers: {{{USER}: external_id}}}}}}\n"
    ))
    .await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    for (iss, sub, external_id, want) in [
        (APP, "old-7", json!(null), &["old-7"][..]),
        ("https://login.example", "new-1", json!("old-7"), &["old-7"]),
        ("https://login.example", "old-7", json!("old-8"), &["old-8"]),
        ("https://login.example", "old-7", json!(null), &[]),
        (APP, "old-8", json!("old-7"), &["old-8"]),
    ] {
        let token =
            key().mint(iss, |_, claims| (claims["sub"], claims["external_id"]) = (json!(sub), external_id));
        let (status, body) =
            raw(&envoy, "/", &format!("authorization: Bearer {token}\r\n{USER}: root\r\n")).await;
        assert_eq!(
            (status, seen(&body, USER)),
            (200, want.iter().map(|&user| user.to_owned()).collect()),
            "{iss} {sub}"
        );
    }
}
