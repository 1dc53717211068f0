//! Numbers of a token are compared and forwarded with their own digits, verified anew and from the cache.

use passage_authz::config::Config;

use crate::support::fixtures::{APP, bearer, inline, key};
use crate::support::{Answer, Service, header_map_request};

/// A token with these members, written as they stand: a number that goes through `serde_json::Value` is a double.
fn token(members: &str) -> String {
    let payload = format!(r#"{{"iss":"{APP}","sub":"user-1","exp":4000000000,{members}}}"#);
    key().sign_text(r#"{"alg":"RS256","kid":"k1"}"#, &payload)
}

/// The answer of a miss and of a hit: the cache changes nothing.
async fn ask(service: &Service, path: &str, token: &str) -> Answer {
    let bearer = bearer(token);
    let check =
        async || service.send(header_map_request("GET", "h", path, &[("authorization", &bearer)])).await;
    let first = check().await;
    assert_eq!(check().await, first, "{path}");
    first
}

/// What `require` asks, what the token has, and whether that is the same value.
const REQUIRED: &[(&str, &str, bool)] = &[
    ("9223372036854775809", "9223372036854775809", true),
    ("9223372036854775809", "9223372036854775807", false),
    ("9223372036854775809", "9223372036854775808", false),
    ("9223372036854775807", "9223372036854775808", false),
    ("-9223372036854775809", "-9223372036854775808", false),
    ("18446744073709551617", "18446744073709551617", true),
    ("18446744073709551617", "18446744073709551616", false),
    ("18446744073709551617", "18446744073709551617.0", true),
    ("18446744073709551617", "1.8446744073709551617e19", true),
    ("18446744073709551617", "\"18446744073709551617\"", false),
    ("18446744073709551617", "[1,18446744073709551617]", true),
    ("18446744073709551617", "[1,18446744073709551616]", false),
    ("100000000000000000001", "100000000000000000000", false),
    ("100000000000000000000", "1e20", true),
    ("123456789012345678901234567890123456789012345", "123456789012345678901234567890123456789012345", true),
    ("123456789012345678901234567890123456789012345", "123456789012345678901234567890123456789012344", false),
    ("9007199254740993", "9007199254740992", false),
    ("9007199254740993", "9007199254740992.0", false),
    ("9007199254740993.0", "9007199254740993", true),
    ("1", "1.0", true),
    ("1.0", "1", true),
    ("1e0", "10e-1", true),
    ("0x10", "16", true),
    ("0", "-0.0", true),
    ("1", "true", false),
    ("0.1", "0.1", true),
    ("0.1", "0.1000000000000000055511151231257827", false),
    ("1e999", "1e999", true),
    ("1e999", "1e998", false),
    ("1e999999999", "10e999999998", true),
    ("1e999999999", "1e999999998", false),
    ("1", "1e99999999999999999999999999999999999999999999", false),
    ("0", "0e99999999999999999999999999999999999999999999", true),
];

#[tokio::test]
async fn rules_compare_numbers_by_their_value() {
    let rules: String = REQUIRED
        .iter()
        .enumerate()
        .map(|(at, (want, ..))| {
            let name = |kind: &str, claim: &str| {
                format!("- {{name: {kind}{at}, match: {{paths: [/{kind}/{at}]}}, require: {{claims: {{{claim}: [x, {want}]}}}}}}\n")
            };
            name("id", "id") + &name("deep", "/o/ids/1")
        })
        .collect();
    let text = inline(&format!("rules:\n{rules}"));
    let written = Config::parse(&text, "test.yaml").unwrap().to_yaml().unwrap();
    for config in [text, written_without_ports(&written)] {
        let service = Service::ready(&config).await;
        for (at, (want, found, equal)) in REQUIRED.iter().enumerate() {
            let code = if *equal { "allowed" } else { "claims_insufficient" };
            let token = token(&format!(r#""id":{found},"o":{{"ids":[0,{found}]}}"#));
            for kind in ["id", "deep"] {
                let answer = ask(&service, &format!("/{kind}/{at}"), &token).await;
                assert_eq!(answer.code(), code, "{kind}: {want} of {found}");
            }
        }
    }
}

/// What `check-config` prints, but for the ports, which the test chooses.
fn written_without_ports(yaml: &str) -> String {
    assert!(yaml.contains("\nserver:\n") && yaml.contains("\nadmin:\n"));
    let mut kept = Vec::new();
    let mut keeps = true;
    for line in yaml.lines() {
        if !line.starts_with([' ', '-']) {
            keeps = !line.starts_with("server:") && !line.starts_with("admin:");
        }
        if keeps {
            kept.push(line);
        }
    }
    kept.join("\n") + "\n"
}

#[tokio::test]
async fn headers_have_the_digits_of_the_token() {
    let identity = "identity: {headers: {x-id: id, x-deep: /o/ids/1}, metadata: []}";
    let service = Service::ready(&inline(identity)).await;
    for digits in [
        "7",
        "-0",
        "1.50",
        "1e3",
        "1E+3",
        "100000000000000000000",
        "100000000000000000001",
        "18446744073709551616",
        "18446744073709551617",
        "9007199254740993",
        "-9223372036854775809",
        "0.1000000000000000055511151231257827",
        "1e999",
        "1e-999999999",
    ] {
        let token = token(&format!(r#""id":{digits},"o":{{"ids":[0, {digits} ],"max":1e999}}"#));
        let answer = ask(&service, "/", &token).await;
        for name in ["x-id", "x-deep"] {
            assert_eq!(answer.header(name), Some(digits), "{answer:?}");
        }
    }
    for list in ["[1]", "[\"a\",18446744073709551617]"] {
        let answer = ask(&service, "/", &token(&format!(r#""id":{list}"#))).await;
        assert_eq!(answer.code(), "claim_invalid", "{list}");
    }
}

#[tokio::test]
async fn metadata_has_a_number_only_if_a_double_holds_it() {
    let identity = "identity: {headers: {}, metadata: [id, /o/list/0, o]}";
    let service = Service::ready(&inline(identity)).await;
    for (digits, number) in [
        ("7", "7.0"),
        ("1.50", "1.5"),
        ("1e3", "1000.0"),
        ("-0", "-0.0"),
        ("4000000000", "4000000000.0"),
        ("9007199254740992", "9007199254740992.0"),
        ("9007199254740994", "9007199254740994.0"),
        ("1e22", "1e22"),
        ("123456789012345680", "1.2345678901234568e17"),
        // What no double holds is a text of its digits.
        ("9007199254740993", ""),
        ("-9007199254740993", ""),
        ("123456789012345678", ""),
        ("123456789012345679", ""),
        ("18446744073709551617", ""),
        ("1e23", ""),
        ("0.1", ""),
        ("1e999", ""),
        ("-1e-999999999", ""),
    ] {
        let object = format!(r#"{{"list":[{digits},[{digits}]]}}"#);
        let answer = ask(&service, "/", &token(&format!(r#""id":{digits},"o":{object}"#))).await;
        assert_eq!(answer.code(), "allowed", "{digits}");
        let shown = |name: &str| &answer.metadata.iter().find(|(found, _)| found == name).unwrap().1;
        let kind = if number.is_empty() {
            format!("StringValue({digits:?})")
        } else {
            format!("NumberValue({number})")
        };
        let plain = if number.is_empty() { digits.to_owned() } else { format!("Some({kind})") };
        assert_eq!((shown("id"), shown("/o/list/0")), (&plain, &plain));
        let nested = shown("o");
        assert_eq!(nested.matches(&kind).count(), 2, "{kind} in {nested}");
        let numbers = nested.matches("NumberValue(").count();
        assert_eq!(numbers, if number.is_empty() { 0 } else { 2 }, "{nested}");
    }
}

#[tokio::test]
async fn times_that_no_double_holds_are_still_invalid() {
    let service = Service::ready(&inline("")).await;
    let minted = |exp: &str, more: &str| {
        let payload = format!(r#"{{"iss":"{APP}","sub":"user-1","exp":{exp}{more}}}"#);
        key().sign_text(r#"{"alg":"RS256","kid":"k1"}"#, &payload)
    };
    for (exp, more, code) in [
        ("4000000000.5", "", "allowed"),
        ("4e9", "", "allowed"),
        ("1e999", "", "claim_invalid"),
        ("-1e999", "", "claim_invalid"),
        ("4000000000", r#","nbf":1e999"#, "claim_invalid"),
        ("4000000000", r#","nbf":-1e999"#, "claim_invalid"),
        // Elsewhere a large number is no fault, however deep.
        ("4000000000", r#","o":[{"max":1e999}],"max":-1e999"#, "allowed"),
    ] {
        assert_eq!(service.bearer(&minted(exp, more)).await.code(), code, "{exp} {more}");
    }
}
