//! What is accepted with a warning, each beside what is so near to it that a warning would be noise.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// One line per warning; the text must be accepted.
fn warnings(text: &str) -> Vec<String> {
    let config = parse(text).map_err(|error| format!("{error}\n{text}")).unwrap();
    config.warnings.iter().map(Warning::to_string).collect()
}

#[test]
fn each_with_file_line_key_and_advice_in_the_order_of_the_lines() {
    let text = "\
rules:
- name: open
  access: public
- name: late
  match: {paths: [/late]}
  access: deny
  shadow: true
- name: empty
  match: {paths: ['/users/{id}']}
  require: {}
issuers:
- {name: passage, passage: {app_id: app1, base_url: 'https://a.example'}}
mode: shadow
";
    assert_eq!(
        warnings(text),
        [
            "authz.yaml:2: rules[0]: rule \"open\" matches everything, so a request that no earlier rule matches needs no token; narrow its match, or write access: required",
            "authz.yaml:4: rules[1]: rule \"late\" is never reached, unless a route picks it by name: rule \"open\" before it matches all that it matches; put it before rule \"open\", or leave it out",
            "authz.yaml:7: rules[1].shadow: rule \"late\" denies nothing while it is in shadow; write false once the log denies only what it should",
            "authz.yaml:8: rules[2]: rule \"empty\" is never reached, unless a route picks it by name: rule \"open\" before it matches all that it matches; put it before rule \"open\", or leave it out",
            "authz.yaml:9: rules[2].match.paths[0]: {id} is met by a token with the claim \"id\" of this value, and few issuers have such a claim; write * for any segment, or the name of a claim that your tokens have",
            "authz.yaml:10: rules[2].require: asks nothing of a token; name claims or issuers, or leave the key out",
            "authz.yaml:13: mode: in shadow mode a request that would be denied with 401, 403 or 503 is let through; write enforce once the log denies only what it should",
        ]
    );
}

/// Each text has one warning, and this is in it; none is the near miss.
#[test]
fn warns() {
    let beside = |more: &str| format!("{APP}{more}");
    let rules = |rules: &str| beside(&format!("rules: [{rules}]"));
    let wanted = |claims: &str| {
        rules(&format!("{{name: a, match: {{paths: [/a]}}, require: {{claims: {{{claims}}}}}}}"))
    };
    let path = |path: &str| rules(&format!("{{name: a, match: {{paths: ['{path}']}}}}"));
    let two = |rule: &str| {
        format!(
            "issuers: [{{name: passage, passage: {{app_id: app1, base_url: 'https://a.example'}}}}, {OTHER}]\nidentity: {{shared_subjects: true}}\n\
             rules: [{{name: a, match: {{paths: [/a]}}, {rule}}}]"
        )
    };
    let two_issuers = |more: &str| {
        format!(
            "issuers: [{{name: passage, passage: {{app_id: app1, base_url: 'https://a.example'}}}}, {OTHER}]\n{more}\n"
        )
    };
    let issuer = |issuer: &str| {
        format!("issuers: [{{name: a, audiences: [], keys: {{url: https://a.example}}, issuer: {issuer}}}]")
    };
    let audience = |audience: &str| {
        format!(
            "issuers: [{{name: a, passage: {{app_id: app1, base_url: 'https://a.example'}}, audiences: [{audience}]}}]"
        )
    };
    let (late, open, odd) = ("is never reached", "matches everything", "with a port other than 80 and 443");
    let as_written = "is compared as it is written";
    let quiet = "";
    for (text, want) in [
        (APP.to_owned(), quiet),
        (two_issuers(""), "x-passage-user-id carries sub of the tokens of passage, other"),
        (two_issuers("identity: {shared_subjects: true}"), quiet),
        (two_issuers("identity: {issuer_header: x-issuer}"), quiet),
        (two_issuers("identity: {headers: {x-id: email}}"), quiet),
        (two_issuers("identity: {headers: {x-id: {claim: sub, cut_prefix: 'a|'}}}"), quiet),
        (
            two_issuers("").replace(
                "name: other,",
                "name: other, identity: {headers: {x-passage-user-id: external_id}},",
            ),
            quiet,
        ),
        (
            two_issuers("").replace("name: other,", "name: other, identity: {headers: {x-other: sub}},"),
            "x-passage-user-id carries sub",
        ),
        // Shadow.
        (beside("mode: shadow"), "2: mode: in shadow mode"),
        (beside("mode: enforce"), quiet),
        (rules("{name: a, access: deny, shadow: true}"), "rules[0].shadow: rule \"a\" denies nothing"),
        (rules("{name: a, shadow: true}"), "rules[0].shadow: rule \"a\" is in shadow, so"),
        (rules("{name: a, access: optional, match: {paths: [/a]}, shadow: true}"), "rules[0].shadow: "),
        (rules("{name: a, access: public, match: {paths: [/a]}, shadow: true}"), quiet),
        (rules("{name: a, access: deny, shadow: false}"), quiet),
        // Open to all.
        (rules("{name: a, access: public}"), open),
        (rules("{name: a, access: optional}"), open),
        (rules("{name: a, match: {}, access: public}"), open),
        (rules("{name: a, match: {paths: [/x, '/*']}, access: public}"), open),
        (rules("{name: a, match: {paths: ['/*', '*']}, access: optional}"), open),
        (rules("{name: a, match: {methods: [GET, HEAD, POST, PUT, PATCH, DELETE]}, access: public}"), open),
        (
            rules("{name: b, match: {paths: [/b]}, access: deny}, {name: a, access: public}"),
            "rules[1]: rule \"a\" matches everything",
        ),
        (rules("{name: a}"), quiet),
        (rules("{name: a, access: deny}"), quiet),
        (rules("{name: a, access: optional, require: {claims: {role: admin}}}"), quiet),
        (rules("{name: a, match: {paths: [/]}, access: public}"), quiet),
        (rules("{name: a, match: {paths: ['/a/*']}, access: public}"), quiet),
        (rules("{name: a, match: {hosts: ['*.example.org']}, access: public}"), quiet),
        (rules("{name: a, match: {methods: [GET, OPTIONS]}, access: public}"), quiet),
        // Never reached: the table of `domain::policy::cover` has more.
        (rules("{name: a}, {name: b, access: deny}"), late),
        (rules("{name: a}, {name: b, access: public}"), late),
        (
            rules("{name: a, match: {paths: ['/*']}}, {name: b, match: {paths: ['/admin/*']}, access: deny}"),
            late,
        ),
        (
            rules("{name: a, match: {paths: [/a]}}, {name: b, match: {paths: [/a], methods: [GET]}}"),
            "rules[1]: rule \"b\" is never reached, unless a route picks it by name: rule \"a\"",
        ),
        (
            rules("{name: a, match: {hosts: ['*.example.org']}}, {name: b, match: {hosts: [a.example.org]}}"),
            late,
        ),
        (rules("{name: a, match: {methods: [GET]}}, {name: b, match: {methods: [HEAD]}}"), late),
        (
            rules(
                "{name: a, match: {hosts: [a], paths: ['/*']}, access: public}, {name: b, match: {hosts: [a], paths: [/admin]}, access: deny}",
            ),
            odd,
        ),
        (
            rules("{name: b, match: {paths: ['/admin/*']}, access: deny}, {name: a, match: {paths: ['/*']}}"),
            quiet,
        ),
        (rules("{name: a, match: {paths: [/a]}}, {name: b, match: {paths: ['/a/*']}}"), quiet),
        (rules("{name: a, match: {paths: [/a]}}, {name: b, match: {paths: [/A]}}"), quiet),
        (rules("{name: a, match: {hosts: [a]}}, {name: b, match: {hosts: ['a:8443']}}"), quiet),
        (rules("{name: a, match: {methods: [GET]}}, {name: b}"), quiet),
        // An empty demand.
        (rules("{name: a, require: {}}"), "rules[0].require: asks nothing"),
        (rules("{name: a, require: {claims: {}}}"), "rules[0].require: asks nothing"),
        (rules("{name: a, access: deny, require: {}}"), "rules[0].require: asks nothing"),
        (
            rules("{name: a, require: {issuers: [passage], claims: {}}}"),
            "rules[0].require.claims: asks for no claim",
        ),
        (rules("{name: a, require: {issuers: [passage]}}"), quiet),
        (wanted("role: admin"), quiet),
        // Scopes, and claims that are always texts.
        (wanted("scope: ''"), "rules[0].require.claims.scope: an empty scope is met"),
        (wanted("scp: [read, '']"), "rules[0].require.claims.scp[1]: an empty scope is met"),
        (wanted("scope: read write"), "\"read write\" matches no scope"),
        (wanted("scope: 7"), "7 is no text and matches no token: scope holds texts"),
        (wanted("sub: 7"), "7 is no text and matches no token: sub holds texts"),
        (wanted("iss: ''"), "matches no token: iss is never empty"),
        (wanted("scope: [read, write]"), quiet),
        (wanted("role: '', level: 7, group: a b"), quiet),
        (
            wanted("dept: {any: [a b], split: true}"),
            "dept.any[0]: \"a b\" matches no word: words are separated",
        ),
        (wanted("dept: {all: '', split: true}"), "dept.all: an empty word is met"),
        (wanted("dept: {any: [a, b c]}"), quiet),
        (wanted("sub: {prefix: 'auth0|*'}"), "sub.prefix: \"auth0|*\" is compared as it is written"),
        (wanted("sub: {prefix: 'auth0|'}, cid: {present: true}"), quiet),
        (wanted("repository: 'acme/*'"), "write the exact value, or {prefix: \"acme/\"}"),
        (wanted("sub: '7'"), quiet),
        // Another issuer's claims.
        (
            two("require: {claims: {role: admin}}"),
            "rules[0].require: is met by these claims in a token of any of the 2 issuers",
        ),
        (
            two("access: optional, require: {claims: {role: admin}}"),
            "write issuers beside claims: a list out of passage, other",
        ),
        (two("require: {claims: {role: admin}, issuers: [passage]}"), quiet),
        (two("require: {claims: {role: admin}, issuers: [passage, other]}"), quiet),
        (two("access: required"), quiet),
        (wanted("role: admin"), quiet),
        // Lists as texts.
        (
            beside("identity: {headers: {x-groups: groups}}"),
            "identity.headers.x-groups: the items of groups are joined by commas",
        ),
        (
            beside("identity: {headers: {x-a: {claim: /realm_access/roles}}}"),
            "write {claim: \"/realm_access/roles\", as: json}",
        ),
        (beside("identity: {headers: {x-a: {claim: groups, as: json}, x-b: email}}"), quiet),
        // Patterns where none are read.
        (
            issuer("'https://login.microsoftonline.com/{tenantid}/v2.0'"),
            "1: issuers[0].issuer: \"https://login.microsoftonline.com/{tenantid}/v2.0\" is compared",
        ),
        (
            issuer("[b, 'https://*.example']"),
            "issuers[0].issuer[1]: \"https://*.example\" is compared as it is written: * stands",
        ),
        (issuer("https://login.example/<tenant>"), as_written),
        (issuer("^https://login.example"), as_written),
        (issuer("' https://login.example'"), "begins or ends with a space"),
        (issuer("https://login.example/a-b_c~d?e=f"), quiet),
        (audience("'*'"), "issuers[0].audiences[0]: \"*\" is compared as it is written"),
        (audience("'${AUDIENCE}'"), as_written),
        (audience("'https://api.example/.*'"), as_written),
        (audience("api://default"), quiet),
        (beside("tokens: {from: [{cookie: 'psg_*'}]}"), "tokens.from[0].cookie: \"psg_*\""),
        (beside("tokens: {from: [{header: 'x-*'}]}"), "tokens.from[0].header: "),
        (beside("tokens: {from: [{query: access_token}]}"), quiet),
        (
            "issuers: [{name: a, passage: {app_id: app1, base_url: 'https://a.example'}, types: ['*']}]"
                .into(),
            "issuers[0].types[0]: \"*\"",
        ),
        ("issuers: [{name: a, passage: {app_id: app1, base_url: 'https://a.example'}, types: [application/at+jwt]}]".into(), quiet),
        (
            wanted("repository: 'repo:acme/*'"),
            "rules[0].require.claims.repository: \"repo:acme/*\" is compared as it is written: *",
        ),
        (wanted("repository: [x, '{owner}/x']"), "rules[0].require.claims.repository[1]: "),
        (wanted("role: '^admin$'"), as_written),
        (wanted("repository: repo:acme/x"), quiet),
        (wanted("sum: '$'"), quiet),
        (
            wanted("'roles.*': admin"),
            "rules[0].require.claims.roles.*: \"roles.*\" is compared as it is written",
        ),
        (wanted("/a/b: x, 'https://example.org/c': x"), quiet),
        (rules("{name: a, match: {methods: ['*']}}"), "rules[0].match.methods[0]: \"*\""),
        (path("/users/{id}"), "rules[0].match.paths[0]: {id} is met by a token with the claim \"id\""),
        (path("/users/{userID}/*"), "{userID} is met by a token with the claim \"userID\""),
        (path("/users/{sub}"), quiet),
        (path("/orgs/{org_id}/*/x/*"), quiet),
        (path("/users/user-{sub}"), "\"/users/user-{sub}\" is compared as it is written: {}"),
        (path("/users/:id/x"), "\"/users/:id/x\" is compared as it is written: :"),
        (path("/users/[0-9]+"), "is compared as it is written: []"),
        (path("/users/<int:id>"), "is compared as it is written: <>"),
        (path("/users$"), "is compared as it is written: $"),
        (path("*"), quiet),
        (path("/*"), quiet),
        (path("/a/*"), quiet),
        (path("/v1/things:delete"), quiet),
        (path("/odata/$batch"), quiet),
        (path("/users/%7Bid%7D"), quiet),
        (path("/Products(1)"), quiet),
    ] {
        let said = warnings(&text);
        if want.is_empty() {
            assert!(said.is_empty(), "{text}\n  says: {said:?}");
        } else {
            assert!(said.len() == 1 && said[0].contains(want), "{text}\n  says: {said:?}\n  not: {want}");
        }
    }
}

#[test]
fn a_folder_where_others_may_write() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{APP}key_store: {}", folder.path().display());
    for (mode, is_open) in [
        (0o700, false),
        (0o755, false),
        (0o2750, false),
        (0o720, true),
        (0o702, true),
        (0o777, true),
        (0o1777, true),
    ] {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let said = warnings(&text);
        assert_eq!(said.len(), usize::from(is_open), "{mode:o} {said:?}");
        let want =
            format!("authz.yaml:2: key_store: the folder's mode {mode:04o} lets its group or others write");
        assert!(said.iter().all(|said| said.starts_with(&want)), "{said:?}");
    }
}

#[test]
fn a_table_that_may_be_cut_off_in_its_last_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("{APP}identity: {{headers: {{x-a: {{claim: a, map: {}}}}}}}", file.path().display());
    for (content, is_whole) in [
        ("a,1\n", true),
        ("a,1\r\n", true),
        ("a,1\n\n", true),
        ("a,1", false),
        ("a,1\nb,2", false),
        ("a,\"1\"", false),
        ("a,\"1", false),
    ] {
        std::fs::write(file.path(), content).unwrap();
        let said = warnings(&text);
        assert_eq!(said.len(), usize::from(!is_whole), "{content:?} {said:?}");
        assert!(said.iter().all(|said| said.contains("may be cut off in its last line")), "{said:?}");
    }
}

#[test]
fn keys_of_hosted_passage_are_gone() {
    let app = |more: &str| format!("issuers:\n- {{name: p, passage: {{app_id: app1{more}}}}}");
    let with_keys =
        |keys: &str| format!("{}, keys: {{{keys}}}}}", app("").trim_end_matches('}').to_owned() + "}");
    for (text, is_warned) in [
        (app(""), true),
        (app(", base_url: 'https://auth.passage.id'"), true),
        (app(", base_url: 'https://auth.passage.id/'"), true),
        (app(", base_url: 'https://auth.passage.id.example'"), false),
        (app(", base_url: 'https://auth.example'"), false),
        (with_keys("url: 'https://auth.example/keys'"), false),
        (with_keys("url: 'https://auth.passage.id/v1/apps/app1/.well-known/jwks.json'"), true),
    ] {
        let said = warnings(&text);
        assert_eq!(said.len(), usize::from(is_warned), "{text} {said:?}");
        let want =
            "authz.yaml:2: issuers[0]: the keys are fetched from auth.passage.id, which was switched off";
        assert!(said.iter().all(|said| said.starts_with(want)), "{said:?}");
    }
    let app = Environment { app_id: Some("app1".to_owned()), ..Environment::default() };
    let said = Config::load(None, &app).unwrap().warnings;
    assert!(said.len() == 1 && said[0].to_string().contains("PASSAGE_BASE_URL"), "{said:?}");
}

#[test]
fn a_variable_is_named() {
    let set = |text: &str| Some(text.to_owned());
    let issuer = set("https://login.example/{tenantid}");
    let environment = Environment { issuer, audience: set("api"), ..Environment::default() };
    let said = Config::load(None, &environment).unwrap().warnings;
    let [said] = said.as_slice() else { panic!("{said:?}") };
    assert!(
        said.to_string().starts_with("PASSAGE_AUTHZ_ISSUER: \"https://login.example/{tenantid}\" is"),
        "{said}"
    );
}

#[test]
fn events_that_a_restart_forgets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let store = folder.path().display();
    for (more, is_warned) in [
        ("listen: 'a:1'".to_owned(), true),
        (format!("listen: 'a:1'}}\nkey_store: {{path: '{store}', read_only: true"), true),
        (format!("listen: 'a:1'}}\nkey_store: {{path: '{store}'"), false),
        ("listen: 'a:1', peers: 'b:1'".to_owned(), false),
        ("listen: 'a:1', redis: 'redis://r'".to_owned(), false),
        ("file: /r".to_owned(), false),
    ] {
        let said = warnings(&format!("{APP}revocation: {{{more}}}"));
        assert_eq!(said.len(), usize::from(is_warned), "{more} {said:?}");
        let want = "revocation.listen: what events revoke is kept in memory alone";
        assert!(said.iter().all(|said| said.contains(want)), "{said:?}");
    }
}

#[test]
fn keys_that_last_for_less_than_three_fetches() {
    let refresh = |refresh: &str| {
        format!(
            "issuers: [{{name: a, issuer: a, audiences: [], keys: {{discovery: 'https://a.example'}}, refresh: {{{refresh}}}}}]"
        )
    };
    for (text, is_warned) in [
        ("interval: 1m, max_stale: 179s", true),
        ("interval: 1m, max_stale: 3m", false),
        ("max_stale: 14m", true),
        ("max_stale: 15m", false),
        ("interval: 24h", false),
    ] {
        let said = warnings(&refresh(text));
        assert_eq!(said.len(), usize::from(is_warned), "{text} {said:?}");
        assert!(said.iter().all(|said| said.contains("max_stale: is less than three intervals")), "{said:?}");
    }
}
