//! Tokens that are elsewhere: a second value of one source, another token in another source, `tokens.forward: false`.

use passage_authz::testing::tampered;
use serde_json::{Value, json};

use crate::support::fixtures::{APP, USER, good, inline, key};
use crate::support::http::said;
use crate::support::{Answer, Service, header_map_request};

const TOKENS: &str =
    "from: [{header: authorization}, {header: x-api-token}, {cookie: psg_auth_token}, {query: access_token}]";

const RULES: &str = "cors_preflight: allow\nrules:\n\
    - {name: public, match: {paths: ['/public/*']}, access: public}\n\
    - {name: optional, match: {paths: ['/optional/*']}, access: optional}\n\
    - {name: trial, match: {paths: ['/trial/*']}, shadow: true}\n\
    - {name: closed, match: {paths: ['/closed/*']}, access: deny, shadow: true}\n";

fn config(forward: bool, style: &str) -> String {
    let http = format!("http: {{listen: '127.0.0.1:0', style: {style}}}");
    inline(&format!("{http}\ntokens: {{{TOKENS}, forward: {forward}}}\n{RULES}"))
}

/// [`config`] without a query, which over HTTP cannot be removed, and so with a port for HTTP.
fn withholding(style: &str) -> String {
    config(false, style).replace(", {query: access_token}", "")
}

/// What a request comes to, and what the upstream gets of its tokens.
#[derive(Debug, PartialEq)]
struct Outcome {
    code: String,
    user: bool,
    /// Headers that are removed.
    removed: Vec<String>,
    cookie: Option<String>,
    query: Vec<String>,
}

const TOKEN_HEADERS: [&str; 4] = ["authorization", "x-api-token", "x_api_token", "cookie"];

impl Outcome {
    fn denied(code: &str) -> Self {
        Self { code: code.to_owned(), user: false, removed: vec![], cookie: None, query: vec![] }
    }

    fn of(answer: &Answer) -> Self {
        let removed = answer.remove.iter().filter(|name| TOKEN_HEADERS.contains(&name.as_str()));
        Self {
            code: answer.code().to_owned(),
            user: answer.header(USER).is_some(),
            removed: removed.cloned().collect(),
            cookie: answer.header("cookie").map(str::to_owned),
            query: answer.remove_query.clone(),
        }
    }
}

async fn over_http(service: &Service, method: &str, path: &str, headers: &[(&str, &str)]) -> Outcome {
    let url = format!("http://{}{path}", service.http.unwrap());
    let mut request = reqwest::Client::new().request(method.parse().unwrap(), url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let got = said(request).await;
    if got.status != 200 {
        let body: Value = serde_json::from_str(&got.body).unwrap();
        return Outcome::denied(body["code"].as_str().unwrap());
    }
    let removed = got.header("x-envoy-auth-headers-to-remove").unwrap_or_default();
    Outcome {
        code: "allowed".to_owned(),
        user: got.header(USER).is_some_and(|user| !user.is_empty()),
        removed: removed.split(',').filter(|name| TOKEN_HEADERS.contains(name)).map(str::to_owned).collect(),
        cookie: got.header("cookie").map(str::to_owned),
        query: vec![],
    }
}

/// A request, and what it comes to: the code (`user`: allowed with an identity, `anonymous`: allowed without), the headers
/// that are removed, the cookies that are set, the query parameters that are removed.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], (&'a str, &'a [&'a str], Option<&'a str>, &'a [&'a str]));

/// Checks each row over gRPC, as a list and, where no name comes twice, as a map; and over HTTP.
async fn check(service: &Service, rows: &[Row<'_>]) {
    let good = good();
    // Good as well, and another.
    let older = key().mint(APP, |_, claims| claims["jti"] = json!("older"));
    let forged = tampered(&good);
    let fill = |text: &str| text.replace("GOOD", &good).replace("OLDER", &older).replace("FORGED", &forged);
    for (path, headers, (want, removed, cookie, query)) in rows {
        let case = format!("{path} {headers:?}");
        let (method, path) = path.strip_prefix("OPTIONS ").map_or(("GET", *path), |path| ("OPTIONS", path));
        let path = fill(path);
        let filled: Vec<_> = headers.iter().map(|(name, value)| (*name, fill(value))).collect();
        let headers: Vec<_> = filled.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let owned = |names: &[&str]| {
            let mut names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            names.sort_unstable();
            names
        };
        let want = match *want {
            "user" | "anonymous" => Outcome {
                code: "allowed".to_owned(),
                user: *want == "user",
                removed: owned(removed),
                cookie: cookie.map(fill),
                query: owned(query),
            },
            code => Outcome::denied(code),
        };
        let mut request = header_map_request(method, "h", &path, &headers);
        assert_eq!(Outcome::of(&service.send(request.clone()).await), want, "{case}");
        let http = request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
        http.header_map = None;
        http.headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if http.headers.len() == headers.len() {
            assert_eq!(Outcome::of(&service.send(request).await), want, "{case} as a map");
        }
        if service.http.is_some() {
            let got = over_http(service, method, &path, &headers).await;
            let judged = !path.starts_with("/public/") && method != "OPTIONS";
            if !want.query.is_empty() && judged {
                assert_eq!(got, Outcome::denied("token_malformed"), "{case} over HTTP");
            } else {
                assert_eq!(got, Outcome { query: vec![], ..want }, "{case} over HTTP");
            }
        }
    }
}

const BEARER: (&str, &str) = ("authorization", "Bearer GOOD");
const SAME: (&str, &[&str], Option<&str>, &[&str]) = ("user", &[], None, &[]);
const MALFORMED: (&str, &[&str], Option<&str>, &[&str]) = ("token_malformed", &[], None, &[]);
const MISSING: (&str, &[&str], Option<&str>, &[&str]) = ("token_missing", &[], None, &[]);
const ANONYMOUS: (&str, &[&str], Option<&str>, &[&str]) = ("anonymous", &[], None, &[]);

#[tokio::test]
async fn a_second_value_of_a_source_is_the_very_same_token_or_malformed() {
    let service = Service::ready(&config(true, "envoy")).await;
    let cookie = |value| ("cookie", value);
    let rows: &[Row<'_>] = &[
        // The example, its two lines as Envoy joins them and unjoined.
        ("/optional/a", &[cookie("a=b,psg_auth_token=FORGED")], MALFORMED),
        (
            "/optional/a",
            &[cookie("a=b"), cookie("psg_auth_token=FORGED")],
            ("signature_invalid", &[], None, &[]),
        ),
        ("/optional/a", &[cookie("a=b, psg_auth_token = GOOD; c")], MALFORMED),
        ("/optional/a", &[cookie("a=b psg_auth_token=FORGED")], MALFORMED),
        ("/optional/a", &[cookie("a=\"b\"psg_auth_token=FORGED")], MALFORMED),
        ("/a", &[cookie("a=b,psg_auth_token=GOOD")], MISSING),
        ("/a", &[cookie("psg_auth_token=GOOD; psg_auth_token=FORGED")], MALFORMED),
        ("/a", &[cookie("psg_auth_token=FORGED; psg_auth_token=GOOD")], MALFORMED),
        ("/a", &[cookie("psg_auth_token=GOOD; psg_auth_token=OLDER")], MALFORMED),
        ("/a", &[cookie("psg_auth_token=GOOD; psg_auth_token=")], MALFORMED),
        ("/a", &[cookie("psg_auth_token=GOOD"), cookie("psg_auth_token=FORGED")], MALFORMED),
        ("/a", &[cookie("psg_auth_token=GOOD,psg_auth_token=FORGED")], MALFORMED),
        ("/a", &[cookie("a=b,psg_auth_token=FORGED; psg_auth_token=GOOD")], MALFORMED),
        ("/a", &[cookie("psg_auth_token=GOOD; psg_auth_token=GOOD")], SAME),
        ("/a", &[cookie("psg_auth_token=GOOD"), cookie("a=b; psg_auth_token=GOOD")], SAME),
        ("/a", &[cookie("psg_auth_token=GOOD,psg_auth_token=GOOD")], SAME),
        ("/a", &[BEARER, ("authorization", "Bearer FORGED")], MALFORMED),
        ("/a", &[BEARER, ("authorization", "Basic eDp5")], MALFORMED),
        ("/a", &[("authorization", "Basic eDp5"), BEARER], MALFORMED),
        ("/optional/a", &[("authorization", "Basic eDp5, Bearer FORGED")], MALFORMED),
        ("/optional/a", &[("authorization", "Basic eDp5,bearer GOOD")], MALFORMED),
        ("/a", &[("authorization", "Bearer GOOD, Basic eDp5")], MALFORMED),
        ("/a", &[("authorization", "Bearer GOOD, Bearer FORGED")], MALFORMED),
        ("/a", &[("authorization", "Bearer GOOD, Bearer GOOD")], SAME),
        ("/a", &[BEARER, BEARER], SAME),
        ("/optional/a", &[("authorization", "Basic eDp5")], ANONYMOUS),
        ("/optional/a", &[("authorization", "Digest username=\"x\", realm=\"y\"")], ANONYMOUS),
        ("/a", &[("x-api-token", "GOOD"), ("x-api-token", "FORGED")], MALFORMED),
        ("/a", &[("x-api-token", "GOOD, FORGED")], MALFORMED),
        ("/a", &[("x-api-token", "GOOD,GOOD")], SAME),
        ("/a?access_token=GOOD&access_token=FORGED", &[], MALFORMED),
        ("/a?access_token=GOOD&access%5Ftoken=FORGED", &[], MALFORMED),
        ("/a?b=c;access_token=FORGED&access_token=GOOD", &[], MALFORMED),
        ("/a?access_token=GOOD&access_token=GOOD", &[], SAME),
        ("/optional/a?access%5Ftoken=FORGED", &[], MALFORMED),
        ("/optional/a?b=c;access_token=FORGED", &[], MALFORMED),
        ("/a?access%5Ftoken=GOOD", &[], MISSING),
    ];
    check(&service, rows).await;
}

#[tokio::test]
async fn another_token_in_another_source_is_removed_and_the_very_same_stays() {
    let service = Service::ready(&config(true, "envoy")).await;
    let cookie = |value| ("cookie", value);
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
    let with_preflight =
        [preflight[0], preflight[1], ("authorization", "Bearer FORGED"), cookie("a=b; psg_auth_token=x")];
    let rows: &[Row<'_>] = &[
        ("/a", &[BEARER, cookie("a=b; psg_auth_token=GOOD")], SAME),
        ("/a", &[BEARER, cookie("a=b; psg_auth_token=")], SAME),
        ("/a", &[BEARER, cookie("a=b; psg_auth_token=FORGED; c=d")], ("user", &[], Some("a=b; c=d"), &[])),
        ("/a", &[BEARER, cookie("a=b; psg_auth_token=OLDER")], ("user", &[], Some("a=b"), &[])),
        ("/a", &[BEARER, cookie("psg_auth_token=OLDER")], ("user", &["cookie"], None, &[])),
        ("/a", &[BEARER, cookie("a=b,psg_auth_token=FORGED")], ("user", &[], Some("a=b"), &[])),
        ("/a", &[BEARER, cookie("psg_auth_token=OLDER; psg_auth_token=x")], ("user", &["cookie"], None, &[])),
        (
            "/a",
            &[BEARER, cookie("psg_auth_token=GOOD; psg_auth_token=x")],
            ("user", &[], Some("psg_auth_token=GOOD"), &[]),
        ),
        ("/a", &[BEARER, cookie("a=b"), cookie("psg_auth_token=x")], ("user", &[], Some("a=b"), &[])),
        ("/a", &[BEARER, ("x-api-token", "GOOD")], SAME),
        ("/a", &[BEARER, ("x-api-token", "FORGED")], ("user", &["x-api-token"], None, &[])),
        ("/a", &[BEARER, ("x_api_token", "FORGED")], ("user", &["x_api_token"], None, &[])),
        ("/a?access_token=GOOD&b=c", &[BEARER], SAME),
        ("/a?access_token=FORGED&b=c", &[BEARER], ("user", &[], None, &["access_token"])),
        ("/a?access%5Ftoken=FORGED", &[BEARER], ("user", &[], None, &["access%5Ftoken"])),
        ("/a?access_token=GOOD&access_token[]=FORGED", &[], ("user", &[], None, &["access_token[]"])),
        ("/a", &[("x-api-token", "GOOD"), ("authorization", "Basic eDp5")], SAME),
        (
            "/a",
            &[cookie("psg_auth_token=GOOD; PSG_AUTH_TOKEN=FORGED")],
            ("user", &[], Some("psg_auth_token=GOOD"), &[]),
        ),
        ("/optional/a", &[BEARER, cookie("psg_auth_token=FORGED")], ("user", &["cookie"], None, &[])),
        // Anonymous, what an upstream could take for a token does not pass either.
        ("/optional/a", &[cookie("a=b; psg.auth.token=FORGED")], ("anonymous", &[], Some("a=b"), &[])),
        ("/optional/a", &[("authorization", "BearerXFORGED")], ("anonymous", &["authorization"], None, &[])),
        (
            "/optional/a",
            &[("authorization", "Basic x Bearer FORGED")],
            ("anonymous", &["authorization"], None, &[]),
        ),
        ("/optional/a", &[("x_api_token", "FORGED")], ("anonymous", &["x_api_token"], None, &[])),
        ("/optional/a?Access_token=FORGED", &[], ("anonymous", &[], None, &["Access_token"])),
        ("/optional/a", &[cookie("a=b")], ANONYMOUS),
        // No token is looked at.
        (
            "/public/a?access_token=x",
            &[("authorization", "Basic a, Bearer x"), cookie("psg_auth_token=x; psg_auth_token=y")],
            ANONYMOUS,
        ),
        ("/closed/a", &[("authorization", "Bearer x"), cookie("psg_auth_token=y")], ANONYMOUS),
        // In shadow a token that was looked at is the only one as well; a request without one goes on as it came.
        ("/trial/a", &[("authorization", "Bearer FORGED"), cookie("a=b; psg_auth_token=FORGED")], ANONYMOUS),
        (
            "/trial/a",
            &[("authorization", "Bearer FORGED"), cookie("a=b; psg_auth_token=GOOD")],
            ("anonymous", &[], Some("a=b"), &[]),
        ),
        ("/trial/a", &[cookie("psg_auth_token=x; psg_auth_token=y")], ANONYMOUS),
        ("/trial/a", &[cookie("a=b,psg_auth_token=x")], ANONYMOUS),
        // A preflight has no credentials.
        (
            "OPTIONS /a",
            &with_preflight,
            ("anonymous", &["authorization", "x-api-token"], Some("a=b"), &["access_token"]),
        ),
        ("OPTIONS /public/a", &with_preflight, ANONYMOUS),
    ];
    check(&service, rows).await;
}

#[tokio::test]
async fn tokens_that_are_not_forwarded() {
    let cookie = |value| ("cookie", value);
    let rows: &[Row<'_>] = &[
        (
            "/a",
            &[BEARER, cookie("a=b; psg_auth_token=GOOD; c=d")],
            ("user", &["authorization", "x-api-token"], Some("a=b; c=d"), &[]),
        ),
        ("/a", &[BEARER], ("user", &["authorization", "x-api-token"], None, &[])),
        (
            "/a",
            &[cookie("psg_auth_token=GOOD,psg_auth_token=GOOD")],
            ("user", &["x-api-token", "cookie"], None, &[]),
        ),
        (
            "/a",
            &[("authorization", "Basic eDp5"), cookie("psg_auth_token=GOOD")],
            ("user", &["x-api-token", "cookie"], None, &[]),
        ),
        (
            "/public/a",
            &[cookie("a=b,psg_auth_token=x,c=d; e")],
            ("anonymous", &["x-api-token"], Some("a=b; c=d; e"), &[]),
        ),
        (
            "/public/a",
            &[cookie("a=b"), cookie("psg_auth_token=x")],
            ("anonymous", &["x-api-token"], Some("a=b"), &[]),
        ),
        (
            "/public/a",
            &[("authorization", "Basic eDp5, Bearer x")],
            ("anonymous", &["authorization", "x-api-token"], None, &[]),
        ),
        (
            "/public/a",
            &[("authorization", "Basic eDp5"), ("x_api_token", "x")],
            ("anonymous", &["x-api-token", "x_api_token"], None, &[]),
        ),
        (
            "/trial/a",
            &[("authorization", "Bearer x"), cookie("psg_auth_token=x")],
            ("anonymous", &["authorization", "x-api-token", "cookie"], None, &[]),
        ),
        (
            "/closed/a",
            &[cookie("psg_auth_token=x; psg_auth_token=y")],
            ("anonymous", &["x-api-token", "cookie"], None, &[]),
        ),
        ("/optional/a", &[cookie("a=b")], ("anonymous", &["x-api-token"], None, &[])),
        ("/optional/a", &[cookie("a=b,psg_auth_token=x")], MALFORMED),
    ];
    check(&Service::ready(&withholding("envoy")).await, rows).await;
    let with_query: &[Row<'_>] = &[
        (
            "/a?b=c&access_token=GOOD&access_token=GOOD",
            &[],
            ("user", &["x-api-token"], None, &["access_token"]),
        ),
        (
            "/public/a?access%5Ftoken=x;b",
            &[],
            ("anonymous", &["x-api-token"], None, &["access%5Ftoken", "access_token"]),
        ),
    ];
    let without_http = config(false, "envoy").replacen("http: {", "#", 1);
    check(&Service::ready(&without_http).await, with_query).await;
}

/// nginx cannot tell a header that is sent empty from one that is not sent.
#[tokio::test]
async fn forward_auth_sends_empty_and_names_what_is_to_be_removed() {
    let service = Service::ready(&withholding("forward_auth")).await;
    let good = good();
    let request = reqwest::Client::new().get(format!("http://{}/", service.http.unwrap())).bearer_auth(&good);
    let request = request.header("x-original-method", "GET").header("x-original-url", "http://h/a");
    let got = said(request.header("cookie", format!("psg_auth_token={good}"))).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let named = got.header("x-envoy-auth-headers-to-remove").unwrap();
    assert!(named.ends_with(",authorization,cookie,x-api-token"), "{named}");
    for name in ["authorization", "x-api-token", "cookie"] {
        assert_eq!(got.header(name), Some(""), "{name}");
    }
}
