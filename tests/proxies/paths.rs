//! Hostile targets through Envoy with its default path handling, and rules that Envoy's routes choose by name.

use serde_json::Value;

use crate::raw::raw;
use crate::support::attacks::{HOSTILE_PATHS, RULES};
use crate::support::envoy::{Envoy, Upstream, seen};
use crate::support::fixtures::{USER, inline};
use crate::support::{Service, join_all};

#[tokio::test]
async fn the_same_through_envoy_with_its_default_path_handling() {
    let service = Service::ready(&inline(RULES)).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::with_default_paths(service.grpc, upstream.address).await;
    let forged = format!("{USER}: admin\r\n");
    let mut count = 0;
    for (want, paths) in HOSTILE_PATHS {
        let sendable = |path: &&&str| path.is_ascii() && !path.contains(|c: char| c.is_control() || c == ' ');
        // At once: Envoy lingers for a second on each request that it refuses itself.
        let asked = paths.iter().filter(sendable).map(|path| {
            let (envoy, forged) = (&envoy, &forged);
            async move { (path, raw(envoy, path, forged).await) }
        });
        for (path, (status, body)) in join_all(asked).await {
            let code = body["code"].as_str().unwrap_or_default();
            match *want {
                "allowed" if path.contains('#') => {
                    assert_eq!((status, code), (400, ""), "{path}: Envoy's own")
                }
                "allowed" => {
                    assert_eq!(status, 200, "{path}");
                    assert!(seen(&body, USER).is_empty(), "{path}: {body}");
                    // What the upstream saw is what was judged: the target as it came, or tidied.
                    let saw = body["path"].as_str().unwrap();
                    assert!(!saw.contains("secret") || path.contains("secret"), "{path} became {saw}");
                }
                // Absolute form and the empty path are Envoy's to read: it takes the host and path from them.
                _ if path.starts_with("http") => {
                    let public = path.starts_with("http://shop.example");
                    assert_eq!(
                        (status, code),
                        if public { (200, "") } else { (403, "rule_denies") },
                        "{path}"
                    );
                }
                // Envoy refuses some itself, before it asks: those never reach an upstream.
                _ if status == 400 && code.is_empty() => {}
                _ if path.contains('#') && status != 200 => {}
                want => assert_eq!(code, want, "{path}: {status}"),
            }
            count += 1;
        }
    }
    assert!(count >= 100, "{count}");
}

/// The settings that README, "Path and host settings", describes: a check and the upstream get the one spelling.
#[tokio::test]
async fn the_shipped_settings_leave_one_spelling() {
    let service = Service::ready(&inline(RULES)).await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    for (target, saw) in [
        ("/secret/../public/a", "/public/a"),
        ("//public/a", "/public/a"),
        ("/./public//a", "/public/a"),
        ("/%70ublic/a", "/public/a"),
        ("/public\\a", "/public/a"),
        ("/public/a%2Fb", "/public/a%2Fb"),
        ("/public/a%5cb", "/public/a%5cb"),
        ("/public/a%3Ab;x=1/", "/public/a%3Ab;x=1/"),
    ] {
        let (status, body) = raw(&envoy, target, "").await;
        assert_eq!((status, body["path"].as_str()), (200, Some(saw)), "{target}: {body}");
    }
    for target in ["/public/../secret", "//secret", "/public\\..\\secret", "/public/..%2Fsecret"] {
        let (status, body) = raw(&envoy, target, "").await;
        assert_eq!((status, body["code"].as_str()), (401, Some("token_missing")), "{target}");
    }
    for (host, saw) in
        [("a.example:99", "a.example"), ("a.example.", "a.example"), ("a.example.:99", "a.example")]
    {
        let request =
            reqwest::Client::new().get(format!("http://{}/public/a", envoy.address)).header("host", host);
        let body = request.send().await.unwrap().bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(seen(&body, "host"), [saw], "{host}");
    }
    // An upstream is not protected by them alone: a rule for a host is met whatever Envoy strips.
    for host in ["admin.example", "ADMIN.example.:8443", "x.admin.example:1"] {
        let request =
            reqwest::Client::new().get(format!("http://{}/public/a", envoy.address)).header("host", host);
        assert_eq!(request.send().await.unwrap().status(), 403, "{host}");
    }
}

#[tokio::test]
async fn envoys_routes_pick_rules_by_name() {
    let service = Service::ready(&inline(RULES)).await;
    let upstream = Upstream::start().await.unwrap();
    let picked = |config: String| {
        let marked = "              - match: {prefix: /}\n";
        assert!(config.contains(marked));
        let route = |prefix: &str, rule: &str| {
            format!(
                "              - match: {{prefix: {prefix}}}
                route: {{cluster: protected}}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    check_settings: {{context_extensions: {{rule: {rule}}}}}\n"
            )
        };
        let routes = [route("/open", "public"), route("/shut", "internal"), route("/odd", "no-such-rule")];
        config.replace(marked, &format!("{}{marked}", routes.concat()))
    };
    let envoy = Envoy::edited(service.grpc, upstream.address, picked).await;
    for (target, status, code) in [
        ("/open/x", 200, ""),
        ("/open/%2f", 200, ""),
        ("/shut/x", 403, "rule_denies"),
        ("/odd/x", 500, "rule_unknown"),
        ("/other", 401, "token_missing"),
    ] {
        let (got, body) = raw(&envoy, target, &format!("{USER}: admin\r\n")).await;
        assert_eq!((got, body["code"].as_str().unwrap_or_default()), (status, code), "{target}");
        assert!(seen(&body, USER).is_empty(), "{target}");
    }
}
