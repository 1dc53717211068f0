//! Targets, hosts and methods that try to pass for another: the rule that is chosen must be the one that the upstream
//! would serve.

use crate::support::attacks::{HOSTILE_PATHS, RULES, ask};
use crate::support::fixtures::{good, inline};
use crate::support::{Service, raw_check_request};

#[tokio::test]
async fn paths_that_pass_for_public_ones_do_not_pass() {
    let service = Service::ready(&inline(RULES)).await;
    let mut count = 0;
    for (want, paths) in HOSTILE_PATHS {
        for path in *paths {
            let answer = ask(&service, "GET", "shop.example", path, &[]).await;
            assert_eq!(answer.code(), *want, "{path:?}");
            count += 1;
        }
    }
    assert!(count >= 140, "{count}");
    // The whole target is looked at as bytes, too.
    let mut bytes = raw_check_request(&[]);
    let http = bytes.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    "/public/\u{fffd}".clone_into(&mut http.path);
    "shop.example".clone_into(&mut http.host);
    assert_eq!(service.send(bytes).await.code(), "allowed");
}

#[tokio::test]
async fn what_is_denied_stays_denied_however_it_is_spelled() {
    let service = Service::ready(&inline(RULES)).await;
    let bearer = format!("Bearer {}", good());
    let headers = [("authorization", bearer.as_str())];
    for path in [
        "/internal",
        "/internal/",
        "/internal/x",
        "//internal/x",
        "/./internal/x",
        "/x/../internal/x",
        "/%69nternal/x",
        "/internal?x",
        "/internal//x",
        "/public/../internal/x",
        "/internal/%2e/x",
        "/internal/./",
        "/internal/..?",
        "/internal/x/..",
        "/%69%6E%74%65%72%6e%61%6c",
        "/public/%2e%2e/internal",
    ] {
        let answer = ask(&service, "GET", "shop.example", path, &headers).await;
        assert_eq!(answer.code(), "rule_denies", "{path}");
    }
    for host in [
        "admin.example",
        "ADMIN.EXAMPLE",
        "Admin.Example",
        "admin.example:443",
        "admin.example.",
        "admin.example.:8443",
        "x.admin.example",
        "a.b.admin.example:80",
        "X.ADMIN.EXAMPLE.",
    ] {
        assert_eq!(ask(&service, "GET", host, "/orders", &headers).await.code(), "rule_denies", "{host}");
        assert_eq!(ask(&service, "GET", host, "/public/a", &headers).await.code(), "rule_denies", "{host}");
    }
    for host in ["admin.example.evil.example", "adminxexample", "xadmin.example", "[::1]:80"] {
        assert_eq!(ask(&service, "GET", host, "/orders", &headers).await.code(), "allowed", "{host}");
        assert_eq!(ask(&service, "GET", host, "/orders", &[]).await.code(), "token_missing", "{host}");
    }
    for host in [
        "",
        "admin.example:",
        "admin.example:x",
        "admin.example:80:80",
        "admin.example:-1",
        "evil.example:admin.example",
    ] {
        let answer = ask(&service, "GET", host, "/orders", &headers).await;
        assert_eq!(answer.code(), "request_malformed", "{host}");
    }
    assert_eq!(ask(&service, "HEAD", "shop.example", "/healthz", &[]).await.code(), "allowed");
    for method in ["POST", "get", "", "GET ", "OPTIONS", "TRACE"] {
        assert_eq!(
            ask(&service, method, "shop.example", "/healthz", &[]).await.code(),
            "token_missing",
            "{method}"
        );
    }
}
