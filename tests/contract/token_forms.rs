//! Tokens under another scheme, beside tokens that are no JWT, and in several cookies.

use passage_authz::testing::tampered;

use crate::support::fixtures::{USER, good, inline};
use crate::support::{Service, header_map_request};

const CONFIG: &str = "tokens: {from: [{header: authorization, opaque: skip}, {header: authorization, scheme: JWT}, \
    {header: x-forwarded-authorization, scheme: Bearer}, {header: x-raw, opaque: skip}, {cookie: session, chunked: true, opaque: skip}, {cookie: other, chunked: true}]}\n\
    rules: [{name: shop, match: {paths: ['/shop/*']}, access: optional}]\n";

const MALFORMED: &str = "token_malformed";
const MISSING: &str = "token_missing";

/// The token in two cookies.
fn in_two(token: &str) -> (String, String) {
    let (one, two) = token.split_at(token.len() / 2);
    (one.to_owned(), two.to_owned())
}

#[tokio::test]
async fn schemes_opaque_values_and_chunks() {
    let service = Service::ready(&inline(CONFIG)).await;
    let (good, bad) = (good(), tampered(&good()));
    let (one, two) = in_two(&good);
    let (bad_one, bad_two) = in_two(&bad);
    let cookie = |text: &str| ("cookie", text.to_owned());
    let header = |name: &'static str, text: &str| (name, text.to_owned());
    let bearer = || header("authorization", &format!("Bearer {good}"));
    let both = format!("session.0={one}; session.1={two}");
    // What is decided, which headers of tokens are removed, and the cookies that are left of those sent.
    type Row<'a> = (&'a str, Vec<(&'static str, String)>, &'a str, &'a [&'a str], Option<String>);
    let rows: Vec<Row<'_>> = vec![
        // Schemes.
        ("/", vec![header("authorization", &format!("JWT {good}"))], "user-1", &[], None),
        ("/", vec![header("authorization", &format!("jwt {bad}"))], "signature_invalid", &[], None),
        ("/", vec![header("authorization", &format!("Token {good}"))], MISSING, &[], None),
        ("/", vec![header("authorization", &good)], MISSING, &[], None),
        ("/", vec![header("authorization", &format!("Bearer {good}, JWT {good}"))], MALFORMED, &[], None),
        ("/", vec![header("authorization", &format!("Bearer {bad}, JWT {good}"))], MALFORMED, &[], None),
        ("/", vec![header("x-forwarded-authorization", &format!("bearer {good}"))], "user-1", &[], None),
        ("/", vec![header("x-forwarded-authorization", &good)], MISSING, &[], None),
        (
            "/",
            vec![bearer(), header("x-forwarded-authorization", &format!("Bearer {bad}"))],
            "user-1",
            &["x-forwarded-authorization"],
            None,
        ),
        (
            "/",
            vec![bearer(), header("x_forwarded_authorization", &format!("Bearer {bad}"))],
            "user-1",
            &["x_forwarded_authorization"],
            None,
        ),
        ("/", vec![bearer(), header("x-forwarded-authorization", "Basic dTpw")], "user-1", &[], None),
        // Opaque values are the upstream's own, and are no user's.
        ("/", vec![header("authorization", "Bearer opaque")], MISSING, &[], None),
        ("/", vec![header("authorization", "Bearer a.b")], MISSING, &[], None),
        ("/", vec![header("authorization", "Bearer a.b.c.d.e")], MISSING, &[], None),
        ("/", vec![header("authorization", "Bearer a.b.c")], MALFORMED, &[], None),
        ("/shop/a", vec![header("authorization", "Bearer opaque")], "anonymous", &[], None),
        ("/shop/a", vec![header("authorization", "JWT opaque")], MALFORMED, &[], None),
        ("/shop/a", vec![header("authorization", "Bearer:opaque")], "anonymous", &["authorization"], None),
        ("/", vec![header("authorization", &format!("Bearer opaque, Bearer {good}"))], MALFORMED, &[], None),
        ("/", vec![header("authorization", "Bearer opaque"), header("x-raw", &good)], "user-1", &[], None),
        ("/", vec![bearer(), header("x-raw", "opaque")], "user-1", &[], None),
        ("/", vec![bearer(), header("x-raw", &bad)], "user-1", &["x-raw"], None),
        // Chunks.
        ("/", vec![cookie(&format!("session={good}"))], "user-1", &[], None),
        ("/", vec![cookie(&both)], "user-1", &[], None),
        ("/", vec![cookie(&format!("session.1={two}; a=b; session.0={one}"))], "user-1", &[], None),
        (
            "/",
            vec![cookie(&format!("session.0={one}")), cookie(&format!("session.1={two}"))],
            "user-1",
            &[],
            None,
        ),
        (
            "/",
            vec![cookie(&format!("session.0={bad_one}; session.1={bad_two}"))],
            "signature_invalid",
            &[],
            None,
        ),
        ("/", vec![cookie(&format!("session.0={one}; session.2={two}"))], MALFORMED, &[], None),
        ("/", vec![cookie(&format!("{both}; session.1=x"))], MALFORMED, &[], None),
        ("/", vec![cookie(&format!("{both}; session={good}"))], MALFORMED, &[], None),
        ("/", vec![cookie(&format!("{both}; session.02=x"))], MALFORMED, &[], None),
        ("/", vec![cookie(&format!("{both}, session.2=x"))], MALFORMED, &[], None),
        ("/", vec![cookie(&format!("{both}; SESSION.0=x"))], "user-1", &[], Some(both.clone())),
        ("/", vec![cookie("session.0=opa; session.1=que")], MISSING, &[], None),
        ("/shop/a", vec![cookie("session.0=opa; session.1=que")], "anonymous", &[], None),
        ("/shop/a", vec![cookie("session=opaque")], "anonymous", &[], None),
        ("/shop/a", vec![cookie("a=b, session.0=x")], MALFORMED, &[], None),
        (
            "/",
            vec![cookie(&format!("session.0=opa; session.1=que; other.0={one}; other.1={two}"))],
            "user-1",
            &[],
            None,
        ),
        (
            "/",
            vec![cookie(&format!("{both}; other.0={one}; other.1={two}"))],
            "user-1",
            &[],
            Some(both.clone()),
        ),
        // Another token than the judged one, in chunks: all of them go.
        (
            "/",
            vec![bearer(), cookie(&format!("a=b; session.0={bad_one}; session.1={bad_two}"))],
            "user-1",
            &[],
            Some("a=b".to_owned()),
        ),
        (
            "/",
            vec![bearer(), cookie(&format!("session.0={bad_one}; session.1={bad_two}"))],
            "user-1",
            &["cookie"],
            None,
        ),
        ("/", vec![bearer(), cookie("a=b; session.0=opa; session.1=que")], "user-1", &[], None),
    ];
    for (path, headers, want, removed, left) in rows {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = service.send(header_map_request("GET", "a.example", path, &headers)).await;
        let case: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value:.40}")).collect();
        let got = if answer.http == 200 { answer.header(USER).unwrap_or("anonymous") } else { answer.code() };
        assert_eq!(got, want, "{path} {case:?}");
        if answer.http == 200 {
            let is_token =
                |name: &&String| name.contains("authorization") || *name == "x-raw" || *name == "cookie";
            let gone: Vec<_> = answer.remove.iter().filter(is_token).collect();
            assert_eq!(gone, removed, "{path} {case:?}");
            assert_eq!(answer.header("cookie"), left.as_deref(), "{path} {case:?}");
        }
    }
}

#[tokio::test]
async fn chunks_that_are_not_forwarded() {
    let config = inline(CONFIG).replace("tokens: {", "tokens: {forward: false, ");
    let service = Service::ready(&config).await;
    let (one, two) = in_two(&good());
    for (headers, removed, left) in [
        (vec![("cookie", format!("a=b; session.0={one}; session.1={two}"))], &["x-raw"][..], Some("a=b")),
        (vec![("cookie", format!("session.0={one}; session.1={two}"))], &["cookie", "x-raw"], None),
        (vec![("authorization", format!("JWT {}", good()))], &["authorization", "x-raw"], None),
        (
            vec![("authorization", "Bearer opaque".to_owned()), ("x-raw", good())],
            &["authorization", "x-raw"],
            None,
        ),
        (vec![("authorization", "Basic dTpw".to_owned()), ("x-raw", good())], &["x-raw"], None),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = service.send(header_map_request("GET", "a.example", "/", &headers)).await;
        assert_eq!(answer.header(USER), Some("user-1"), "{:?}", answer.code());
        let is_token =
            |name: &&String| name.contains("authorization") || *name == "x-raw" || *name == "cookie";
        assert_eq!(answer.remove.iter().filter(is_token).collect::<Vec<_>>(), removed);
        assert_eq!(answer.header("cookie"), left);
    }
}
