//! Which rules requests fall under.

use super::*;

pub(super) const ALL: Ignored = Ignored { case: true, trailing_slash: true };

pub(super) fn rule(name: &str, access: Access, hosts: &[&str], paths: &[&str], methods: &[&str]) -> Rule {
    fn some<T>(list: &[&str], read: impl Fn(&str) -> T) -> Option<Vec<T>> {
        (!list.is_empty()).then(|| list.iter().map(|text| read(text)).collect())
    }
    Rule {
        name: name.to_owned(),
        hosts: some(hosts, |text| HostPattern::new(text).unwrap()),
        paths: some(paths, |text| PathPattern::new(text).unwrap()),
        methods: some(methods, str::to_owned),
        access,
        ..Rule::default()
    }
}

pub(super) fn request<'a>(method: &'a str, host: &'a str, path: &'a str) -> Request<'a> {
    Request { method: method.as_bytes(), host: host.as_bytes(), path: path.as_bytes(), ..Request::default() }
}

/// The name of the strictest rule, or the code of the denial.
fn selected<'p>(policy: &'p Policy, request: &Request<'_>) -> &'p str {
    match policy.select(request) {
        Ok(selection) => &selection.strictest().name,
        Err(denial) => denial.code(),
    }
}

#[test]
fn the_first_match_counts() {
    let policy = Policy::new(
        vec![
            rule("health", Access::Public, &[], &["/healthz"], &["GET"]),
            rule("assets", Access::Public, &["api.example.com", "*.example.org"], &["/assets/*"], &[]),
            rule("wild", Access::Public, &["*.example.org"], &[], &[]),
            rule("post", Access::Public, &[], &[], &["POST"]),
            rule("six", Access::Public, &["[::1]:*"], &[], &[]),
        ],
        ALL,
    );
    for (method, host, path, want) in [
        ("GET", "any", "/healthz", "health"),
        ("GET", "any", "/healthz?x", "health"),
        ("HEAD", "any", "/healthz", "health"),
        ("get", "any", "/healthz", ""),
        ("PUT", "any", "/healthz", ""),
        ("GET", "any", "/healthz/", ""),
        ("GET", "any", "/healthzz", ""),
        ("GET", "any", "/x/../healthz", ""),
        ("GET", "API.example.com:443", "/assets/", "assets"),
        ("GET", "api.example.com:80", "/assets/a/b", "assets"),
        ("GET", "api.example.com", "/assets", "assets"),
        ("GET", "api.example.com", "/Assets/a", ""),
        ("GET", "api.example.com:8443", "/assets/", ""),
        ("GET", "api.example.com.", "/assets/a", ""),
        ("GET", "api.example.com", "/assetsx", ""),
        ("GET", "a.b.example.org", "/assets/x", "assets"),
        ("GET", "a.b.example.org", "/", "wild"),
        ("GET", "example.org", "/", ""),
        ("GET", "evil-example.org", "/", ""),
        ("GET", ".example.org", "/", ""),
        ("POST", "any", "/", "post"),
        ("GET", "[::1]:8080", "/", "six"),
        ("GET", "[::1]", "/", "six"),
        ("OPTIONS", "any", "*", ""),
        ("GET", "any:", "/", "request_malformed"),
        ("GET", "", "/", "request_malformed"),
        ("GET", "any", "/%", "request_malformed"),
    ] {
        assert_eq!(selected(&policy, &request(method, host, path)), want, "{method} {host} {path}");
    }
    let odd = request("GET", "any:", "/%");
    let named = |name: &'static [u8]| Request { rule: Some(name), ..odd.clone() };
    assert_eq!(selected(&policy, &named(b"wild")), "wild", "a rule picked by name looks at nothing");
    for name in [&b"Wild"[..], b"", b"\xff", b"wild "] {
        assert_eq!(selected(&policy, &named(name)), "rule_unknown");
    }
    let methods = Policy::new(vec![rule("post", Access::Public, &[], &[], &["POST"])], ALL);
    assert_eq!(selected(&methods, &odd), "", "neither host nor path is looked at");
    assert_eq!(selected(&Policy::new(Vec::new(), ALL), &odd), "");
}

/// The rows of the security review, each with a rule that a reading must not escape or open.
#[test]
fn no_reading_opens_what_another_closes() {
    let policy = Policy::new(
        vec![
            rule("public", Access::Public, &[], &["/healthz", "/assets/*"], &[]),
            rule(
                "admin",
                Access::Deny,
                &[],
                &["/admin/*", "/internal/*", "/v1/things:delete", "/odata/$batch"],
                &[],
            ),
        ],
        ALL,
    );
    for (path, want) in [
        ("/healthz", "public"),
        ("/assets/a%20b", "public"),
        ("/assets/a//b", "public"),
        ("/assets/a;v=1/b%2Fc/100%25", "public"),
        ("/assets/%E6%97%A5", "public"),
        ("/assets/日", "public"),
        ("/admin/../healthz", "admin"),
        ("/admin/x/../../assets/y", "admin"),
        ("/x/../assets/a", ""),
        ("//assets/a", ""),
        ("/./assets/a", ""),
        ("/%61ssets/a", ""),
        ("/Assets/a", ""),
        ("/healthz/", ""),
        ("/healthz;/x", ""),
        ("/assets/..%2fadmin/x", "admin"),
        ("/assets/%2e%2e/x", ""),
        ("/assets/..;/x", ""),
        ("/assets/%252e%252e%252fx", ""),
        ("/admin;x=1/users", "admin"),
        ("/admin;/users", "admin"),
        ("/ADMIN/x", "admin"),
        ("/admin/..//x", "admin"),
        ("/internal;/x", "admin"),
        ("/internal", "admin"),
        ("/internal/", "admin"),
        ("/%69nternal", "admin"),
        ("/x/..%2finternal", "admin"),
        ("/x%5c..%5cinternal", "admin"),
        ("/v1/things%3Adelete", "admin"),
        ("/v1/things:delete/", "admin"),
        ("/V1/things%3adelete", "admin"),
        ("/odata/%24batch", "admin"),
        ("/odata/%2524batch", "admin"),
        ("/v1;a/things:delete", "admin"),
        ("/api/v4/projects/group%2Fproject", ""),
        ("/@scope%2fname", ""),
        ("/bucket/a%252Fb", ""),
        ("/search/100%25abc", ""),
        ("/files/café.txt", ""),
        ("/a%5Cb", ""),
        ("/app/./x;v=1", ""),
        ("/adminx/y", ""),
        ("//x/admin/y", "admin"),
        ("/\\x/admin/y", "admin"),
        ("/x%5cy\\..\\admin/z", "admin"),
        ("/x%2fy/%2e%2e/admin%2fz", "admin"),
        ("/admin;x/healthz", "admin"),
        ("/internal%3Fx", "admin"),
        ("/adm%FFin/x", "admin"),
        ("/adm%C4%B0n/x", "admin"),
    ] {
        assert_eq!(selected(&policy, &request("GET", "any", path)), want, "{path}");
    }
    let many = "/assets/a;b/%3b%25/%2f/\\x//..//./%24%5c";
    assert_eq!(selected(&policy, &request("GET", "any", many)), "admin", "more readings than are worked out");
    let exact = Policy::new(
        vec![
            rule("admin", Access::Deny, &[], &["/Admin/"], &[]),
            rule("rest", Access::Public, &[], &["/*"], &[]),
        ],
        Ignored::NOTHING,
    );
    for (path, want) in
        [("/Admin/", "admin"), ("/admin/", "rest"), ("/Admin", "rest"), ("/%41dmin/", "admin")]
    {
        assert_eq!(selected(&exact, &request("GET", "any", path)), want, "{path}");
    }
    // The pattern is folded as the path is.
    let folded = Policy::new(
        vec![
            rule("admin", Access::Deny, &[], &["/Admin/"], &[]),
            rule("rest", Access::Public, &[], &["/*"], &[]),
        ],
        ALL,
    );
    for path in ["/Admin/", "/admin/", "/Admin", "/ADMIN", "/%61dmin/"] {
        assert_eq!(selected(&folded, &request("GET", "any", path)), "admin", "{path}");
    }
}

/// An escape in a pattern means the character that it stands for to a rule that restricts, and itself to one that opens.
#[test]
fn escapes_in_patterns() {
    let paths = ["/odata/%24batch", "/v1/things%3Adelete", "/a%20b/*", "/projects/group%2Fsecret/*"];
    let policy = Policy::new(
        vec![
            rule("deny", Access::Deny, &[], &paths, &[]),
            rule("open", Access::Public, &[], &["/o%20p/*", "/caf%C3%A9"], &[]),
        ],
        ALL,
    );
    for (path, want) in [
        ("/odata/%24batch", "deny"),
        ("/odata/$batch", "deny"),
        ("//odata//$batch", "deny"),
        ("/odata;x/$batch", "deny"),
        ("/odata/%2524batch", "deny"),
        ("/v1/things:delete", "deny"),
        ("/a b/x", "deny"),
        ("/a%20b", "deny"),
        ("/projects/group/secret/x", "deny"),
        ("/projects/group%2fsecret", "deny"),
        ("/o%20p/x", "open"),
        ("/o%20p/a%20b", "open"),
        ("/o p/x", ""),
        ("/o%2520p/x", ""),
        ("/caf%C3%A9", "open"),
        ("/café", "open"),
        ("/CAF%C3%89", ""),
    ] {
        assert_eq!(selected(&policy, &request("GET", "any", path)), want, "{path}");
    }
}

#[test]
fn hosts_and_their_ports() {
    let policy = Policy::new(
        vec![
            rule("admin", Access::Deny, &["admin.example.com"], &[], &[]),
            rule("debug", Access::Public, &["www.example.com:8443"], &[], &[]),
            rule("www", Access::Public, &["www.example.com"], &[], &[]),
            rule("any", Access::Public, &["any.example.com:*"], &[], &[]),
            rule("alt", Access::Deny, &["alt.example.com:8443"], &[], &[]),
            rule("own", Access::Required, &["own.example.com"], &[], &[]),
            rule("rest", Access::Optional, &["*.example.com:*"], &[], &[]),
        ],
        ALL,
    );
    for (host, want) in [
        ("www.example.com", "www"),
        ("WWW.example.com:443", "www"),
        ("www.example.com:99", "rest"),
        ("www.example.com.", ""),
        ("www.example.com.:99", ""),
        ("www.example.com:8443", "debug"),
        ("www.example.com:08443", "rest"),
        ("www.example.com:0080", "rest"),
        ("any.example.com:1", "any"),
        ("admin.example.com", "admin"),
        ("ADMIN.example.com.", "admin"),
        ("admin.example.com:8443", "admin"),
        ("admin.example.com.:1", "admin"),
        ("alt.example.com:8443", "alt"),
        ("alt.example.com:08443", "alt"),
        ("alt.example.com:1", "rest"),
        ("own.example.com:99", "rest"),
        ("www.example.com:", "request_malformed"),
        ("admin.example.com:x", "request_malformed"),
        ("admin.example.com:80x", "request_malformed"),
        ("admin.example.com:80:80", "request_malformed"),
        ("admin.example.com:+80", "request_malformed"),
        ("admin.example.com:-1", "request_malformed"),
    ] {
        assert_eq!(selected(&policy, &request("GET", host, "/")), want, "{host}");
    }
}

/// A rule that demands a token is not escaped by another port, unless the rule that matches names that port.
#[test]
fn another_port_does_not_escape_a_rule_that_demands_a_token() {
    let policy = Policy::new(
        vec![
            rule("own", Access::Required, &["own.example.com"], &[], &[]),
            rule("rest", Access::Public, &[], &[], &[]),
        ],
        ALL,
    );
    for (host, want) in [
        ("own.example.com", "own"),
        ("own.example.com:99", "own"),
        ("own.example.com.:99", "own"),
        ("a:99", "rest"),
    ] {
        assert_eq!(selected(&policy, &request("GET", host, "/")), want, "{host}");
    }
}

#[test]
fn methods_and_what_they_stand_for() {
    let policy = Policy::new(
        vec![
            rule("read", Access::Public, &[], &[], &["GET"]),
            rule("delete", Access::Deny, &[], &[], &["DELETE"]),
        ],
        ALL,
    );
    for (method, path, headers, want) in [
        ("GET", "/", &[][..], "read"),
        ("HEAD", "/", &[], "read"),
        ("head", "/", &[], ""),
        ("DELETE", "/", &[], "delete"),
        ("delete", "/", &[], "delete"),
        ("POST", "/", &[], ""),
        ("POST", "/", &[("X-HTTP-Method-Override", "DELETE")], "delete"),
        ("POST", "/", &[("x-http-method", "delete")], "delete"),
        ("POST", "/?_method=DELETE", &[], "delete"),
        ("POST", "/", &[("x-method-override", "GET")], ""),
        ("GET", "/", &[("x-http-method-override", "DELETE")], "delete"),
    ] {
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let request = Request { headers, ..request(method, "any", path) };
        assert_eq!(selected(&policy, &request), want, "{method} {path}");
    }
}

/// Where a rule is met by another port and another by another spelling, neither hides the other.
#[test]
fn ports_and_spellings_loosen_each_by_itself() {
    let policy = Policy::new(
        vec![
            rule("wide", Access::Required, &["x.com"], &[], &[]),
            rule("port", Access::Deny, &["x.com:8443"], &["/v1/things%3Adelete"], &[]),
            rule("whole", Access::Deny, &["y.com:8443"], &[], &[]),
            rule("colon", Access::Required, &[], &["/v1/colon%3Adelete"], &[]),
            rule("open", Access::Public, &["api.example.com:*"], &[], &[]),
            rule("names", Access::Deny, &[], &["/admin/*", "/µ/*", "/οδος/*"], &[]),
            rule("npm", Access::Public, &[], &["/@scope%2Fname", "/café/*", "/g%2fproject/*"], &[]),
            rule("rest", Access::Public, &[], &[], &[]),
        ],
        ALL,
    );
    for (host, path, want) in [
        ("x.com:8443", "/v1/things%3Adelete", "port"),
        ("x.com:8443", "/v1/things:delete", "port"),
        ("x.com:08443", "/v1/things:delete", "port"),
        ("x.com:08443", "/v1//things:delete", "port"),
        ("x.com:08443", "/a", "wide"),
        ("y.com:08443", "/a", "whole"),
        ("x.com:080", "/a", "wide"),
        ("api.example.com", "/v1/colon:delete", "colon"),
        ("api.example.com:8443", "/v1/colon:delete", "colon"),
        ("api.example.com:8443", "/v1//colon:delete", "colon"),
        ("api.example.com:8443", "/a", "open"),
        ("any", "/@scope%2fname", "npm"),
        ("any", "/@scope%2Fname", "npm"),
        ("any", "/caf%c3%a9/a", "npm"),
        ("any", "/g%2Fproject/a", "npm"),
        ("any", "/g%2fproject/a", "npm"),
        ("any", "/adm%C4%B1n/x", "names"),
        ("any", "/%CE%BC/x", "names"),
        ("any", "/%CE%9F%CE%94%CE%9F%CE%A3/x", "names"),
        ("any", "//x\\a/admin/y", "names"),
        ("any", "/ad%2509min/x", "names"),
        ("any", "/assets/%252e%2509%252e/admin", "names"),
        ("any", "/%25u0061dmin/x", "names"),
        ("any", "/assets/%25c0%25ae%25c0%25ae/admin", "names"),
        ("any", "/assets/%25c0%ae%25c0%ae/admin", "names"),
    ] {
        assert_eq!(selected(&policy, &request("GET", host, path)), want, "{host} {path}");
    }
}

/// However a framework may spell the parameter, and however many there are.
#[test]
fn parameters_that_stand_for_a_method() {
    let policy = Policy::new(
        vec![
            rule("delete", Access::Deny, &[], &[], &["DELETE"]),
            rule("rest", Access::Public, &[], &[], &[]),
        ],
        ALL,
    );
    for query in [
        "_method=DELETE",
        "+_method=DELETE",
        "%20_method=DELETE",
        "%20%20%20%20%20%20%20%20%20%20%09+_method=DELETE",
        "_method%00a=DELETE",
        ".method=DELETE",
        "a=b&_Method=delete",
        "X-HTTP-Method-Override=DELETE",
        "_HttpMethod=DELETE",
    ] {
        assert_eq!(selected(&policy, &request("POST", "any", &format!("/x?{query}"))), "delete", "{query}");
    }
    for query in ["method=DELETE", "a_method=DELETE", "_method2=DELETE", "x=_method=DELETE"] {
        assert_eq!(selected(&policy, &request("POST", "any", &format!("/x?{query}"))), "rest", "{query}");
    }
    // More than are told apart may be any.
    let many = "_method=A&".repeat(17);
    assert_eq!(selected(&policy, &request("POST", "any", &format!("/x?{many}"))), "delete");
    assert_eq!(
        selected(&policy, &request("POST", "any", &format!("/x?{}", "_method=A&".repeat(16)))),
        "rest"
    );
}

#[test]
fn patterns_that_could_never_match_are_none() {
    for text in [
        "",
        "/a/../b",
        "//a",
        "/a*",
        "/a/*b",
        "/a/{x}*/b",
        "/a/x*/*",
        "a",
        "/%61",
        "/a/**",
        "/a?b",
        "/a\\b",
        "/a#b",
        "/a//*",
        "/a/..;/b",
        "*/*",
        "/a%2F..%2Fb",
    ] {
        assert_eq!(PathPattern::new(text), None, "{text}");
    }
    for text in [
        "/",
        "/*",
        "/a",
        "/a/*",
        "*",
        "/a%20b/*",
        "/v1;x/*",
        "/group%2Fproject",
        "/é",
        "/*/b",
        "/a/*/*",
        "/a/{sub}",
    ] {
        assert!(PathPattern::new(text).is_some(), "{text}");
    }
    for text in ["", "*", "*.", "*.*.a", "a b", "a.", ".a", "é", "a:", "a:x", "a:0080", "a:65536", "a:80:80"]
    {
        assert_eq!(HostPattern::new(text), None, "{text}");
    }
    for text in ["a", "*.a", "a:80", "a:*", "*.a:8443", "[::1]", "[::1]:80"] {
        assert_eq!(HostPattern::new(text).map(|pattern| pattern.to_string()).as_deref(), Some(text));
    }
}

#[test]
fn readings_are_told_with_their_rules() {
    let policy = Policy::new(
        vec![
            rule("files", Access::Public, &[], &["/files/*"], &[]),
            rule("closed", Access::Deny, &[], &["/closed/*"], &[]),
        ],
        Ignored::NOTHING,
    );
    let told = |path: &str| {
        let readings = policy.readings(&request("GET", "any", path)).into_iter();
        readings.map(|reading| (reading.path.unwrap_or_default(), reading.rule)).collect::<Vec<_>>()
    };
    let pair = |path: &str, rule: &str| (path.to_owned(), rule.to_owned());
    assert_eq!(told("/files/x?y"), [pair("/files/x", "files")]);
    assert_eq!(told("/other"), [pair("/other", "")]);
    let climbing = told("/files/%2e%2e/closed/x");
    for wanted in [pair("/files/../closed/x", "files"), pair("/closed/x", "closed")] {
        assert!(climbing.contains(&wanted), "{climbing:?}");
    }
    assert_eq!(told("no path"), [], "it is denied before any rule is looked for");
    // More readings than are looked up: every rule that may match, and none that is left out.
    let many = told(&"/a;b/%3b%25/%2f/\\x//.././/%24%5c%252e/".repeat(5));
    assert_eq!(many, [pair("", "files"), pair("", "closed"), pair("", "")]);
    // What is told is what is held.
    for path in ["/files/x", "/other", "/files/%2e%2e/closed/x", "/files/..%2fclosed/x"] {
        let request = request("GET", "any", path);
        let selection = policy.select(&request).unwrap();
        let mut held: Vec<_> = selection.rules().map(|rule| rule.name.clone()).collect();
        let mut told: Vec<_> = told(path).into_iter().map(|(_, rule)| rule).collect();
        held.sort();
        told.sort();
        told.dedup();
        assert_eq!(held, told, "{path}");
    }
}
