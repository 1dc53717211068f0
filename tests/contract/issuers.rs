//! docs/issuers.md: each configuration on the page, with keys and tokens of the issuer's kind.

use std::collections::{BTreeMap, BTreeSet};

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::domain::clock::{Clock, UnixTime};
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, jwks};
use serde_json::{Value, json};

use crate::support::fixtures::USER;
use crate::support::{Service, header_map_request, join_all, wait_until};

/// The YAML of each section of the page.
fn page() -> BTreeMap<&'static str, &'static str> {
    let sections = include_str!("../../docs/issuers.md").split("\n## ").skip(1);
    sections
        .map(|section| {
            let (title, text) = section.split_once('\n').unwrap();
            let (_, from) = text.split_once("```yaml\n").unwrap_or_else(|| panic!("{title}: no YAML"));
            (title, from.split("```").next().unwrap())
        })
        .collect()
}

/// A token of the issuer's kind, and what becomes of it.
struct Row {
    section: &'static str,
    /// Beside `alg` and `kid`.
    header: Value,
    claims: Value,
    path: &'static str,
    want: &'static str,
}

fn row(
    section: &'static str,
    header: &Value,
    claims: &Value,
    changes: Value,
    path: &'static str,
    want: &'static str,
) -> Row {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    Row { section, header: header.clone(), claims, path, want }
}

fn rows() -> Vec<Row> {
    let (typ, none) = (json!({"typ": "JWT"}), json!({}));
    let mut rows = Vec::new();
    let mut add = |section,
                   header: &Value,
                   claims: &Value,
                   tries: Vec<(Value, &'static str, &'static str)>| {
        rows.extend(
            tries.into_iter().map(|(changes, path, want)| row(section, header, claims, changes, path, want)),
        );
    };
    let passage = json!({"iss": "APP_ID", "sub": "Ljf2zZVZ", "aud": ["https://shop.example.com"], "iat": 1_799_999_000, "nbf": 1_799_999_000});
    add(
        "Passage and issuers like it",
        &typ,
        &passage,
        vec![
            (json!({}), "/", "Ljf2zZVZ"),
            (json!({"aud": ["https://other.example.com"]}), "/", "audience_mismatch"),
        ],
    );
    let auth0 = json!({
        "iss": "https://TENANT.eu.auth0.com/", "sub": "auth0|64f0", "azp": "client", "scope": "openid",
        "aud": ["https://api.example.com", "https://TENANT.eu.auth0.com/userinfo"], "permissions": ["read:orders"], "iat": 1_799_999_000,
    });
    add(
        "Auth0",
        &typ,
        &auth0,
        vec![
            (json!({}), "/", "auth0|64f0"),
            (json!({}), "/orders/7", "auth0|64f0"),
            (json!({"permissions": []}), "/orders/7", "claims_insufficient"),
            (json!({"iss": "https://TENANT.eu.auth0.com"}), "/", "issuer_unknown"),
            (json!({"aud": "https://other.example.com"}), "/", "audience_mismatch"),
        ],
    );
    let okta = json!({
        "ver": 1, "iss": "https://ORG.okta.com/oauth2/default", "aud": "api://default", "sub": "ann@example.com", "uid": "00u1", "cid": "0oa1",
        "scp": ["openid"], "auth_time": 1_799_999_000, "iat": 1_799_999_000,
    });
    add(
        "Okta",
        &none,
        &okta,
        vec![
            (json!({}), "/", "00u1"),
            (json!({"uid": null, "sub": "0oa1"}), "/", "0oa1"),
            (json!({"iss": "https://ORG.okta.com"}), "/", "issuer_unknown"),
        ],
    );
    let entra = json!({
        "iss": "https://login.microsoftonline.com/TENANT_ID/v2.0", "aud": "CLIENT_ID", "tid": "TENANT_ID", "oid": "0000-1111", "sub": "AbC",
        "ver": "2.0", "scp": "user_impersonation", "azp": "other", "iat": 1_799_999_000, "nbf": 1_799_999_000,
    });
    add(
        "Entra ID",
        &typ,
        &entra,
        vec![
            (json!({}), "/", "0000-1111"),
            (
                json!({"iss": "https://sts.windows.net/TENANT_ID/", "aud": "api://CLIENT_ID", "ver": "1.0"}),
                "/",
                "0000-1111",
            ),
            (
                json!({"iss": "https://login.microsoftonline.com/OTHER/v2.0", "tid": "OTHER"}),
                "/",
                "issuer_unknown",
            ),
            (json!({"aud": "00000003-0000-0000-c000-000000000000"}), "/", "audience_mismatch"),
            (json!({"oid": null}), "/", "claim_missing"),
        ],
    );
    let tenants = "Entra ID, several tenants";
    add(
        tenants,
        &typ,
        &entra,
        vec![
            (json!({}), "/", "0000-1111"),
            (
                json!({"iss": "https://login.microsoftonline.com/SECOND_TENANT_ID/v2.0", "tid": "SECOND_TENANT_ID"}),
                "/",
                "0000-1111",
            ),
            (
                json!({"iss": "https://login.microsoftonline.com/SECOND_TENANT_ID/v2.0"}),
                "/",
                "issuer_unknown",
            ),
            (json!({"tid": null}), "/", "issuer_unknown"),
            (
                json!({"iss": "https://login.microsoftonline.com/OTHER/v2.0", "tid": "OTHER"}),
                "/",
                "issuer_unknown",
            ),
            (
                json!({"iss": "https://login.microsoftonline.com/{tid}/v2.0", "tid": "{tid}"}),
                "/",
                "issuer_unknown",
            ),
            (json!({"iss": "https://login.microsoftonline.com//v2.0", "tid": ""}), "/", "issuer_unknown"),
        ],
    );
    let cognito = json!({
        "iss": "https://cognito-idp.REGION.amazonaws.com/POOL_ID", "sub": "aaaa-bbbb", "client_id": "CLIENT_ID", "token_use": "access",
        "scope": "aws.cognito.signin.user.admin", "username": "ann", "auth_time": 1_799_999_000, "iat": 1_799_999_000,
    });
    let of_other_app = json!({"client_id": "other"});
    add(
        "Cognito",
        &none,
        &cognito,
        vec![
            (json!({}), "/", "aaaa-bbbb"),
            (of_other_app.clone(), "/", "audience_mismatch"),
            (json!({"token_use": "id", "aud": "CLIENT_ID"}), "/", "claims_insufficient"),
        ],
    );
    add(
        "AWS load balancer",
        &none,
        &cognito,
        vec![(json!({}), "/", "aaaa-bbbb"), (of_other_app, "/", "audience_mismatch")],
    );
    let google = json!({
        "iss": "https://accounts.google.com", "azp": "CLIENT_ID.apps.googleusercontent.com", "aud": "CLIENT_ID.apps.googleusercontent.com",
        "sub": "110169484474386276334", "hd": "example.com", "email": "ann@example.com", "email_verified": true, "iat": 1_799_999_000,
    });
    add(
        "Google",
        &typ,
        &google,
        vec![
            (json!({}), "/", "110169484474386276334"),
            (json!({"iss": "accounts.google.com"}), "/", "110169484474386276334"),
            (json!({"hd": null}), "/", "claims_insufficient"),
            (json!({"aud": "other.apps.googleusercontent.com"}), "/", "audience_mismatch"),
        ],
    );
    let keycloak = json!({
        "iss": "https://login.example.com/realms/REALM", "aud": "account", "sub": "f:1:ann", "typ": "Bearer", "azp": "shop", "sid": "s",
        "realm_access": {"roles": ["admin", "offline_access"]}, "iat": 1_799_999_000,
    });
    add(
        "Keycloak",
        &typ,
        &keycloak,
        vec![
            (json!({}), "/admin/x", "f:1:ann"),
            (json!({"aud": ["shop", "account"], "azp": "web"}), "/", "f:1:ann"),
            (json!({"sub": null, "client_id": "robot"}), "/", "robot"),
            (json!({"azp": "web"}), "/", "audience_mismatch"),
            (json!({"realm_access": {"roles": []}}), "/admin/x", "claims_insufficient"),
        ],
    );
    let zitadel = json!({
        "iss": "https://INSTANCE.zitadel.cloud", "sub": "237410288", "aud": ["client@shop", "PROJECT_ID"], "jti": "V1", "iat": 1_799_999_000,
        "urn:zitadel:iam:org:project:roles": {"admin": {"2374": "example.zitadel.cloud"}}, "nbf": 1_799_999_000,
    });
    add(
        "Zitadel",
        &typ,
        &zitadel,
        vec![
            (json!({}), "/admin/x", "237410288"),
            (json!({"urn:zitadel:iam:org:project:roles": {"user": {}}}), "/admin/x", "claims_insufficient"),
            (json!({"aud": ["client@shop"]}), "/", "audience_mismatch"),
        ],
    );
    let firebase = json!({
        "iss": "https://securetoken.google.com/PROJECT", "aud": "PROJECT", "auth_time": 1_799_999_000, "user_id": "u1", "sub": "u1",
        "iat": 1_799_999_000, "email": "ann@example.com", "firebase": {"identities": {}, "sign_in_provider": "password"},
    });
    add(
        "Firebase",
        &typ,
        &firebase,
        vec![(json!({}), "/", "u1"), (json!({"aud": "OTHER"}), "/", "audience_mismatch")],
    );
    let supabase = json!({
        "iss": "https://PROJECT.supabase.co/auth/v1", "aud": "authenticated", "sub": "8ccaa7af", "role": "authenticated", "aal": "aal1",
        "session_id": "s", "is_anonymous": false, "app_metadata": {"provider": "email"}, "iat": 1_799_999_000,
    });
    add(
        "Supabase",
        &typ,
        &supabase,
        vec![
            (json!({}), "/", "8ccaa7af"),
            (json!({"is_anonymous": true}), "/", "claims_insufficient"),
            (json!({"iss": "supabase"}), "/", "issuer_unknown"),
        ],
    );
    let github = json!({
        "iss": "https://token.actions.githubusercontent.com", "aud": "https://deploy.example.com", "sub": "repo:OWNER/REPOSITORY:ref:refs/heads/main",
        "repository": "OWNER/REPOSITORY", "ref": "refs/heads/main", "iat": 1_799_999_900, "exp": 1_800_000_200, "jti": "j",
    });
    add(
        "GitHub Actions",
        &json!({"typ": "JWT", "x5t": "x"}),
        &github,
        vec![
            (json!({}), "/", "repo:OWNER/REPOSITORY:ref:refs/heads/main"),
            (json!({"repository": "OTHER/REPOSITORY"}), "/", "claims_insufficient"),
            (json!({"ref": "refs/pull/7/merge"}), "/", "claims_insufficient"),
            (json!({"exp": 1_800_086_400}), "/", "claim_invalid"),
        ],
    );
    let kubernetes = json!({
        "iss": "https://kubernetes.default.svc.cluster.local", "aud": ["shop"], "sub": "system:serviceaccount:shop:orders", "iat": 1_799_999_000,
        "nbf": 1_799_999_000, "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "orders", "uid": "u"}},
    });
    add(
        "Kubernetes",
        &none,
        &kubernetes,
        vec![
            (json!({}), "/", "system:serviceaccount:shop:orders"),
            (json!({"sub": "system:serviceaccount:shopping:orders"}), "/", "claims_insufficient"),
            (json!({"aud": ["https://kubernetes.default.svc.cluster.local"]}), "/", "audience_mismatch"),
        ],
    );
    let cloudflare = json!({
        "iss": "https://TEAM.cloudflareaccess.com", "aud": ["AUD_TAG"], "sub": "7335d417", "type": "app", "email": "ann@example.com",
        "iat": 1_799_999_000, "nbf": 1_799_999_000, "country": "DE",
    });
    add(
        "Cloudflare Access",
        &none,
        &cloudflare,
        vec![
            (json!({}), "/", "7335d417"),
            (json!({"sub": "", "common_name": "e367.access"}), "/", "e367.access"),
            (json!({"aud": ["OTHER_TAG"]}), "/", "audience_mismatch"),
        ],
    );
    rows
}

/// The issuer's keys as it publishes them, with the key that signs.
fn published(section: &str, key: &SigningKey) -> Value {
    let mut set = jwks(&[key]);
    let keys = set["keys"].as_array_mut().unwrap();
    match section {
        "Entra ID, several tenants" => {
            keys[0]["issuer"] = json!("https://login.microsoftonline.com/{tenantid}/v2.0");
        }
        "Entra ID" => {
            let own = keys[0].as_object_mut().unwrap();
            own.remove("alg");
            own.extend(json!({"x5t": "t", "x5c": ["MIIC"], "issuer": "https://login.microsoftonline.com/TENANT_ID/v2.0"}).as_object().unwrap().clone());
        }
        "Keycloak" => {
            let mut other = keys[0].clone();
            (other["use"], other["alg"], other["kid"]) = (json!("enc"), json!("RSA-OAEP"), json!("enc"));
            keys.push(other);
        }
        "Cloudflare Access" => {
            set["public_cert"] = json!({"kid": "k", "cert": "-----BEGIN CERTIFICATE-----"});
            set["public_certs"] = json!([]);
        }
        _ => {}
    }
    set
}

/// The page's text, but the issuer is on this machine.
fn reachable(yaml: &str, document: &FakeIssuer, keys: &FakeIssuer, secrets: &str) -> String {
    let at = |line: &str, key: &str, server: &FakeIssuer| {
        let (before, url) = line.split_once(key).unwrap();
        let end = url.find(['}', '"']).unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        format!("{before}{key}{}/{path}{after}", server.url())
    };
    let lines = yaml.lines().map(|line| {
        let line = line.replace("discovery: true", "discovery: https://x/.well-known/openid-configuration");
        match line.as_str() {
            line if line.contains("discovery: ") => at(line, "discovery: ", document),
            line if line.contains("base_url: ") => at(line, "base_url: ", keys),
            line if line.contains("url: \"") => at(line, "url: \"", keys),
            line if line.contains("url: ") => at(line, "url: ", keys),
            line => line.replace("/var/run/secrets/kubernetes.io/serviceaccount", secrets),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn each_configuration_on_the_page_accepts_its_issuers_tokens() {
    let (page, rows) = (page(), rows());
    let (titles, tested): (BTreeSet<_>, BTreeSet<_>) =
        (page.keys().copied().collect(), rows.iter().map(|row| row.section).collect());
    assert_eq!(titles, tested, "each section is tested");
    let secrets = tempfile::tempdir().unwrap();
    let pem = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    std::fs::write(secrets.path().join("ca.crt"), pem).unwrap();
    std::fs::write(secrets.path().join("token"), "c2VydmljZS1hY2NvdW50\n").unwrap();
    let secrets = secrets.path().to_str().unwrap();
    join_all(page.into_iter().map(|(section, yaml)| accepts(section, yaml, &rows, secrets))).await;
}

async fn accepts(section: &str, yaml: &str, rows: &[Row], secrets: &str) {
    let algorithm = if section == "Supabase" { Algorithm::Es256 } else { Algorithm::Rs256 };
    let key = SigningKey::shared("k1", algorithm);
    let keys = FakeIssuer::start(Behavior::json(&published(section, &key))).await;
    let rows: Vec<_> = rows.iter().filter(|row| row.section == section).collect();
    let iss = match section {
        "Entra ID, several tenants" => json!("https://login.microsoftonline.com/{tenantid}/v2.0"),
        _ => rows[0].claims["iss"].clone(),
    };
    let document = json!({"issuer": iss, "jwks_uri": format!("{}/keys", keys.url())});
    let document = FakeIssuer::start(Behavior::json(&document)).await;
    let config = reachable(yaml, &document, &keys, secrets);
    let clock = Clock::stepped(UnixTime::from_secs(1_800_000_000));
    let service = Service::start_at(&config, clock).await;
    service.until_ready().await;
    assert!(rows.iter().any(|row| row.want.contains('_')), "{section}: nothing is refused");
    for Row { header: more, claims, path, want, .. } in rows {
        let mut header = json!({"alg": algorithm.name(), "kid": "k1"});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut claims = claims.clone();
        if claims["exp"].is_null() {
            claims["exp"] = json!(1_800_000_300);
        }
        let token = key.sign_text(&header.to_string(), &claims.to_string());
        let (name, value) = match section {
            "Cloudflare Access" => ("cf-access-jwt-assertion", token),
            "AWS load balancer" => ("x-amzn-oidc-accesstoken", token),
            _ => ("authorization", format!("Bearer {token}")),
        };
        let answer =
            service.send(header_map_request("GET", "shop.example.com", path, &[(name, &value)])).await;
        let got = if answer.http == 200 { answer.header(USER).unwrap() } else { answer.code() };
        assert_eq!(got, *want, "{section} {path} {claims}");
    }
    if section == "Kubernetes" {
        assert!(
            keys.requests()[0].to_ascii_lowercase().contains("authorization: bearer c2vydmljzs1hy2nvdw50")
        );
    }
    assert!(service.end().await.is_ok());
}

/// docs/from-passage.md: the configuration of both issuers, and the line for Auth0.
#[tokio::test]
async fn users_keep_their_ids_on_the_way_from_passage() {
    let page = include_str!("../../docs/from-passage.md");
    let yaml = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let line = page.split("With Auth0 the last line is `").nth(1).unwrap().split("`.\n").next().unwrap();
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let keys = FakeIssuer::with_keys(&[&key]).await;
    let iss = "https://login.example.com";
    let document = json!({"issuer": iss, "jwks_uri": format!("{}/keys", keys.url())});
    let document = FakeIssuer::start(Behavior::json(&document)).await;
    let own = yaml.lines().last().unwrap().trim();
    assert!(own.starts_with("identity:"), "{own}");
    for (yaml, rows) in [
        (
            yaml.to_owned(),
            [
                (json!({"sub": "new-1", "external_id": "old-7"}), Some("old-7")),
                (json!({"sub": "old-7"}), None),
                (json!({"sub": "old-7", "external_id": "old-8"}), Some("old-8")),
            ],
        ),
        (
            yaml.replace(own, line),
            [
                (json!({"sub": "auth0|old-7"}), Some("old-7")),
                (json!({"sub": "auth0|old-8", "external_id": "old-7"}), Some("old-8")),
                (json!({"sub": "auth0|"}), None),
            ],
        ),
    ] {
        let config = reachable(&yaml, &document, &keys, "");
        let service = Service::ready(&config).await;
        let passage = key.mint("APP_ID", |_, claims| claims["sub"] = json!("old-7"));
        wait_until("both issuers", || async { service.bearer(&passage).await.http == 200 }).await;
        assert_eq!(service.bearer(&passage).await.header(USER), Some("old-7"));
        for (claims, want) in rows {
            let token = key.mint(iss, |_, all| {
                all["aud"] = json!("shop");
                all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
            });
            wait_until("both issuers", || async { service.bearer(&token).await.http == 200 }).await;
            assert_eq!(service.bearer(&token).await.header(USER), want, "{claims}");
        }
    }
}

/// Of any tenant; but a key that is one tenant's verifies no token of another one.
#[tokio::test]
async fn a_key_of_one_tenant_signs_for_no_other() {
    let [own, all] = ["own", "all"].map(|kid| SigningKey::shared(kid, Algorithm::Es256));
    let mut keys = jwks(&[&own, &all]);
    keys["keys"][0]["issuer"] = json!("https://login.example/9188040d-6c67/v2.0");
    keys["keys"][1]["issuer"] = json!("https://login.example/{tenantid}/v2.0");
    let config = format!(
        "issuers: [{{name: e, issuer: ['https://login.example/{{tid}}/v2.0', 'https://sts.example/{{tid}}/'], tenants: any, audiences: [], \
         algorithms: [ES256], keys: {{inline: {keys}}}}}]"
    );
    let service = Service::ready(&config).await;
    for (key, iss, tid, want) in [
        (&own, "https://login.example/9188040d-6c67/v2.0", json!("9188040d-6c67"), "allowed"),
        (&own, "https://sts.example/9188040d-6c67/", json!("9188040d-6c67"), "allowed"),
        (&own, "https://login.example/other/v2.0", json!("other"), "key_unknown"),
        (&all, "https://login.example/other/v2.0", json!("other"), "allowed"),
        (&all, "https://sts.example/other/", json!("other"), "allowed"),
        (&all, "https://login.example/other/v2.0", json!("Other"), "issuer_unknown"),
        (&all, "https://login.example/other/v2.0", json!(["other"]), "issuer_unknown"),
        (&all, "https://login.example/a/b/v2.0", json!("a/b"), "issuer_unknown"),
        (&all, "https://login.example/{tid}/v2.0", json!("{tid}"), "issuer_unknown"),
        (&all, "https://login.example//v2.0", json!(""), "issuer_unknown"),
    ] {
        let token = key.mint(iss, |_, claims| claims["tid"] = tid);
        for _ in 0..2 {
            assert_eq!(service.bearer(&token).await.code(), want, "{iss}");
        }
    }
}

/// The load balancer's own token: base64url with padding.
#[tokio::test]
async fn the_token_of_an_aws_load_balancer_is_no_jws() {
    let key = SigningKey::shared("k1", Algorithm::Es256);
    let config = format!(
        "tokens: {{from: [{{header: x-amzn-oidc-data}}]}}\n\
         issuers: [{{name: alb, issuer: 'https://idp.example', audiences: [], algorithms: [ES256], keys: {{inline: {}}}}}]",
        jwks(&[&key])
    );
    let service = Service::ready(&config).await;
    let token = key.mint("https://idp.example", |_, _| {});
    let padded =
        token.split('.').map(|segment| format!("{segment}{}", "=".repeat((4 - segment.len() % 4) % 4)));
    let padded = padded.collect::<Vec<_>>().join(".");
    assert_ne!(padded, token);
    for (token, want) in [(token, "allowed"), (padded, "token_malformed")] {
        assert_eq!(service.check(&[("x-amzn-oidc-data", &token)]).await.code(), want);
    }
}
