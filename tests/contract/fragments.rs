//! `style: envoy` and a `#` in the target: the path that is judged is the one that the proxy forwards, or none.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::fixtures::inline;
use crate::support::{Service, WAIT_LIMIT, header_map_request};

const PATH_RULES: &str = "rules:\n\
    - {name: public, match: {paths: [/public, '/public/*']}, access: public}\n\
    - {name: admin, match: {paths: ['/admin/*']}, access: deny}\n";

const HOST_RULES: &str = "rules: [{name: public, match: {hosts: [shop.example]}, access: public}]\n";

fn config(more: &str, rules: &str) -> String {
    format!("http: {{listen: '127.0.0.1:0', style: envoy{more}}}\n{}", inline(rules))
}

/// All that the server sends to these pieces, until it closes the connection.
async fn exchange(address: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut answer = Vec::new();
    timeout(WAIT_LIMIT, stream.read_to_end(&mut answer)).await.expect("the connection is closed").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status and the code of one request with this target, which the connection does not outlive.
async fn ask(address: SocketAddr, target: &str) -> (u16, String) {
    let request = format!("GET {target} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n");
    let answer = exchange(address, &[request.as_bytes()]).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let code = answer.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
    (status, code.unwrap_or("allowed").to_owned())
}

#[tokio::test]
async fn a_cut_path_is_never_judged() {
    let service = Service::ready(&config("", PATH_RULES)).await;
    let http = service.http.unwrap();
    for (target, status, code) in [
        ("/public", 200, "allowed"),
        ("/public/a%23b", 200, "allowed"),
        ("/public#/../admin", 400, "request_malformed"),
        ("/public/a#", 400, "request_malformed"),
        ("/public#?a", 400, "request_malformed"),
        ("/public/#//\u{e9}", 400, "request_malformed"),
        ("/admin/a#b", 400, "request_malformed"),
        ("http://shop.example/public#/../admin", 400, "request_malformed"),
        ("/#", 400, "request_malformed"),
        // The path is whole, only the query may be cut.
        ("/public?a#b", 200, "allowed"),
        ("/admin/x?a#b", 403, "rule_denies"),
        ("/admin/x", 403, "rule_denies"),
        ("/other", 401, "token_missing"),
    ] {
        assert_eq!(ask(http, target).await, (status, code.to_owned()), "{target}");
        if target.starts_with('/') {
            let same = service.send(header_map_request("GET", "shop.example", target, &[])).await;
            assert_eq!((same.http, same.code()), (status, code), "gRPC: {target}");
        }
    }
    // A header that only mentions a fragment.
    let request = "GET /public HTTP/1.1\r\nhost: a\r\nreferer: https://a/#b\r\nconnection: close\r\n\r\n";
    assert!(exchange(http, &[request.as_bytes()]).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn without_rules_with_paths_a_fragment_is_no_fault() {
    let service = Service::ready(&config("", HOST_RULES)).await;
    assert_eq!(ask(service.http.unwrap(), "/public#/../admin").await, (200, "allowed".to_owned()));
    let same = header_map_request("GET", "shop.example", "/public#/../admin", &[]);
    assert_eq!(service.send(same).await.code(), "allowed");
}

/// A token or another method may stand behind the fragment.
#[tokio::test]
async fn where_a_query_may_decide_a_fragment_in_it_is_refused() {
    let methods =
        "rules: [{name: delete, match: {methods: [DELETE]}, access: deny}, {name: rest, access: public}]\n";
    let query = "tokens: {from: [{query: access_token}]}\nrules: [{name: rest, access: optional}]\n";
    for rules in [methods, query] {
        let service = Service::ready(&config("", rules)).await;
        for target in ["/a?a#&_method=DELETE", "/a#?access_token=x", "/a#"] {
            let got = ask(service.http.unwrap(), target).await;
            assert_eq!(got, (400, "request_malformed".to_owned()), "{target} {rules}");
        }
        assert_eq!(ask(service.http.unwrap(), "/a?a").await.0, 200, "{rules}");
    }
}

#[tokio::test]
async fn a_prefix_is_cut_before() {
    let service = Service::ready(&config(", path_prefix: /check", PATH_RULES)).await;
    let http = service.http.unwrap();
    for (target, status) in [
        ("/check/public", 200),
        ("/check/public#/../admin", 400),
        ("/check#", 400),
        ("/check#/public", 400),
        ("/#/check/public", 400),
    ] {
        assert_eq!(ask(http, target).await.0, status, "{target}");
    }
}

#[tokio::test]
async fn in_pieces_behind_others_and_behind_a_body() {
    let service = Service::ready(&config("", PATH_RULES)).await;
    let http = service.http.unwrap();
    let plain = "GET /public HTTP/1.1\r\nhost: a\r\n\r\n";
    let cut = "GET /public#/../admin HTTP/1.1\r\nhost: a\r\n\r\n";
    let statuses = |answer: &str| -> Vec<String> {
        answer.match_indices("HTTP/1.1 ").map(|(at, _)| answer[at + 9..at + 12].to_owned()).collect()
    };
    for at in 1..cut.len() {
        let (one, other) = cut.as_bytes().split_at(at);
        if at % 5 == 0 {
            assert_eq!(statuses(&exchange(http, &[one, other]).await), ["400"], "cut at {at}");
        }
    }
    // The connection ends with it, so no request behind it is refused without need, and none is missed.
    let kept = [plain.as_bytes(), plain.as_bytes(), cut.as_bytes(), plain.as_bytes()];
    assert_eq!(statuses(&exchange(http, &kept).await), ["200", "200", "400"]);
    let body = "POST /public HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(statuses(&exchange(http, &[body.as_bytes(), cut.as_bytes()]).await), ["200", "400"]);
    // Pipelined: whichever is answered, none is allowed by a cut path.
    let answer = exchange(http, &[format!("{plain}{cut}{cut}").as_bytes()]).await;
    assert!(statuses(&answer).iter().all(|status| status == "400"), "{answer}");
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
}

/// Over HTTP/2 with prior knowledge; GOAWAY ends the exchange.
async fn ask_http2(address: SocketAddr, path: &str) -> String {
    // RFC 7541: GET, http, then :authority and :path as literals without Huffman code.
    let literal =
        |index: u8, text: &str| [&[index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let block = [vec![0x82, 0x86], literal(0x01, "shop.example"), literal(0x04, path)].concat();
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(1, 0x5, 1, &block)];
    let goodbye = frame(7, 0, 0, &[0; 8]);
    exchange(address, &[&bytes.concat(), &goodbye]).await
}

#[tokio::test]
async fn over_http2_paths_cannot_be_judged() {
    let service = Service::ready(&config("", PATH_RULES)).await;
    for path in ["/public#/../admin", "/public", "/admin/x"] {
        let answer = ask_http2(service.http.unwrap(), path).await;
        assert!(answer.contains("\"code\":\"request_malformed\""), "{path}: {answer}");
    }
    let answer = ask_http2(service.http.unwrap(), "/admin/x?a#b").await;
    assert!(answer.contains("\"code\":\"rule_denies\""), "{answer}");
    // Where no rule has paths nothing is lost.
    let service = Service::ready(&config("", HOST_RULES)).await;
    for path in ["/public#/../admin", "/public"] {
        let answer = ask_http2(service.http.unwrap(), path).await;
        assert!(!answer.contains("\"code\""), "{path}: {answer}");
    }
}
