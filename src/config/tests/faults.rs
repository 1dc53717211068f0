//! What the configuration refuses, and with which words.

use super::*;

/// One line per fault.
fn faults(text: &str) -> Vec<String> {
    parse(text)
        .err()
        .map_or_else(Vec::new, |ConfigError { faults, .. }| faults.iter().map(Fault::to_string).collect())
}

#[test]
fn all_faults_at_once_with_file_line_key_and_remedy() {
    let text = "\
mode: enforced
sever: {}
server:
  listen: 50051
  drain_timeout: 20
tokens:
  max_length: 1
issuers:
- name: passage
  passage: {app_id: a/b}
  leeway: 10 minutes
  leeway: 10s
- name: other
  issuer: https://a.example
  algorithms: [RS256, HS256]
";
    assert_eq!(
        faults(text),
        [
            "authz.yaml:1: mode: \"enforced\" is not accepted; accepted: enforce or shadow",
            "authz.yaml:2: sever: is not a known key (perhaps server); accepted: one of mode, cors_preflight, tokens, http, issuers, server, admin, key_store, revocation, identity, paths, rules, deny, decision_log",
            "authz.yaml:4: server.listen: 50051 is not accepted; accepted: host:port, such as '[::]:50051' or 127.0.0.1:50051, or unix:/path/to.sock",
            "authz.yaml:5: server.drain_timeout: 20 is not accepted; accepted: a duration from 0s to 1h, written like 250ms, 10s, 5m or 24h",
            "authz.yaml:7: tokens.max_length: 1 is not accepted; accepted: a whole number from 64 to 65536 bytes",
            "authz.yaml:10: issuers[0].passage.app_id: \"a/b\" is not accepted; accepted: the app's ID: letters, digits, dashes and underscores",
            "authz.yaml:11: issuers[0].leeway: \"10 minutes\" is not accepted; accepted: a duration from 0s to 5m, written like 250ms, 10s, 5m or 24h",
            "authz.yaml:12: issuers[0].leeway: is doubled; accepted: each key once",
            "authz.yaml:13: issuers[1].audiences: is missing; accepted: a list of audiences; [] says on purpose that aud is not checked",
            "authz.yaml:13: issuers[1].keys: is missing; accepted: exactly one of discovery, url, file, inline",
            "authz.yaml:15: issuers[1].algorithms[1]: \"HS256\" is not accepted; accepted: a list out of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA",
        ]
    );
}

/// Each text is refused, and this is in what is said of it.
#[test]
fn refuses() {
    let long = "x".repeat(64);
    let beside = |more: &str| format!("{APP}{more}");
    let demand = |role: &str| beside(&format!("rules: [{{name: a, require: {{claims: {{role: {role}}}}}}}]"));
    let other = |more: &str| format!("issuers:\n- {{{}, {more}}}", OTHER[1..].strip_suffix('}').unwrap());
    let discovery = |issuer: &str, on: &str| {
        format!("issuers: [{{name: a, issuer: {issuer}, audiences: [], keys: {{discovery: {on}}}}}]")
    };
    for (text, want) in [
        (String::new(), "authz.yaml:1: issuers: is missing"),
        ("[]".into(), "authz.yaml:1: is a list; accepted: a map"),
        ("issuers: []".into(), "issuers: is empty, so no token could be accepted"),
        ("issuers:".into(), "authz.yaml:1: issuers: has no value"),
        ("issuers: [7]".into(), "issuers[0]: 7 is not accepted; accepted: a map"),
        ("issuers: [{passage: {app_id: a}}]".into(), "issuers[0].name: is missing"),
        (format!("issuers: [{{name: {long}, passage: {{app_id: a}}}}]"), "issuers[0].name: "),
        ("issuers: [{name: a b, passage: {app_id: a}}]".into(), "\"a b\" is not accepted"),
        ("issuers: [{name: a, passage: }]".into(), "issuers[0].passage: has no value"),
        ("issuers: [{name: a, passage: {}}]".into(), "issuers[0].passage.app_id: is missing"),
        ("issuers: [{name: a, passage: {app_id: 1}}]".into(), "app_id: 1 is a number: as a text it stands in quotes"),
        ("issuers: [{name: a, passage: {app_id: ''}}]".into(), "app_id: \"\" is not accepted"),
        (
            "issuers: [{name: a, passage: {app_id: a, base_url: http://auth.passage.id}}]".into(),
            "base_url: is not a URL",
        ),
        ("issuers: [{name: a, passage: {app_id: a}, audiences: }]".into(), "audiences: has no value"),
        (
            "issuers: [{name: a, passage: {app_id: a}, audiences: ['']}]".into(),
            "audiences[0]: \"\" is not accepted",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, audiences: x}]".into(),
            "audiences: \"x\" is not accepted",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, bound_tokens: verified}]".into(),
            "bound_tokens: \"verified\" is not accepted; accepted: verify or ignore",
        ),
        ("issuers: [{name: a, passage: {app_id: a}, bound_tokens: }]".into(), "bound_tokens: has no value"),
        (
            "issuers: [{name: a, issuer: a, audiences: [], keys: {inline: {keys: [{d: x, n: 1e999}]}}}]"
                .into(),
            "holds a private key",
        ),
        (
            "server: {max_connections: 18446744073709551617}".into(),
            "max_connections: 18446744073709551617 is not",
        ),
        ("server: {max_connections: .inf}".into(), "max_connections: .inf is no number"),
        ("issuers: [{name: a, passage: {app_id: a}, algorithms: []}]".into(), "algorithms: is empty"),
        ("issuers: [{name: a, passage: {app_id: a}, algorithms: [none]}]".into(), "algorithms[0]: \"none\""),
        ("issuers: [{name: a, passage: {app_id: a}, issuer: []}]".into(), "issuers[0].issuer: is empty"),
        (
            "issuers: [{name: a, passage: {app_id: a}, ca: /no/such/file}]".into(),
            "ca: /no/such/file cannot be read",
        ),
        ("issuers: [{name: a, passage: {app_id: a}, keys: {}}]".into(), "keys: names 0 sources"),
        (
            "issuers: [{name: a, passage: {app_id: a}, keys: {file: /no/such/file}}]".into(),
            "keys.file: /no/such/file cannot be read",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, keys: {discovery: true}}]".into(),
            "keys.discovery: there are 2 iss values",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, keys: {url: https://a, file: /b}}]".into(),
            "keys: names 2 sources",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, keys: {url: http://a.example}}]".into(),
            "keys.url: is not a URL that may be fetched",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, keys: {url: 'https://u:secret@a.example'}}]".into(),
            "keys.url: is not a URL that may be fetched",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, keys: {url: 'file:///etc/passwd'}}]".into(),
            "keys.url: is not a URL",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, keys: {inline: {keys: []}}}]".into(),
            "keys.inline: the key set holds no usable key",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, keys: {inline: {keys: [{kty: oct, k: AA}]}}}]".into(),
            "keys.inline: key 0 cannot be used",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, refresh: {interval: 1ms}}]".into(),
            "refresh.interval: \"1ms\"",
        ),
        (format!("issuers: [{OTHER}, {OTHER}]"), "issuers[1]: the name other is taken"),
        (
            format!("issuers: [{OTHER}, {}]", OTHER.replace("other", "b")),
            "iss \"https://a.example\" belongs to issuer other already",
        ),
        (
            "issuers: [{name: a, passage: {app_id: a}, keys: {inline: {keys: [{kty: EC, d: secret}]}}}]"
                .into(),
            "keys.inline: holds a private key",
        ),
        (discovery("https://a.example", "false"), "keys.discovery: is off"),
        (
            discovery("[https://a.example, https://b.example]", "true"),
            "keys.discovery: there are 2 iss values",
        ),
        (discovery("a.example", "true"), "keys.discovery: the issuer is no URL"),
        (discovery("http://a.example", "true"), "keys.discovery: the issuer is no URL"),
        (discovery("https://a.example/?x=y", "true"), "keys.discovery: the issuer is no URL"),
        (discovery("https://a.example", "yes please"), "keys.discovery: is not a URL that may be fetched"),
        (discovery("a", "http://a.example/d"), "keys.discovery: is not a URL that may be fetched"),
        (discovery("a", "https://u:p@a.example/d"), "keys.discovery: is not a URL that may be fetched"),
        (discovery("a", "7"), "keys.discovery: 7 is not accepted; accepted: true or false"),
        (discovery("a", "https://a/d, bearer_file: /no/such"), "keys.bearer_file: /no/such cannot be read"),
        (discovery("a", "https://a/d, bearer_file: ''"), "keys.bearer_file: \"\" is not accepted"),
        (discovery("a", "https://a/d, client_cert: {cert: /no/such, key: /no}"), "keys.client_cert: cannot be read"),
        (discovery("a", "https://a/d, client_cert: {cert: /no/such}"), "keys.client_cert.key: is missing"),
        (discovery("a", "https://a/d, client_cert: /no/such"), "client_cert: \"/no/such\" is not accepted"),
        (
            "issuers: [{name: a, issuer: a, audiences: [], allow_http: true, keys: {url: 'http://a.example', bearer_file: /etc/passwd}}]".into(),
            "keys.bearer_file: would be sent in clear; accepted: an https URL beside it",
        ),
        (
            "issuers: [{name: a, issuer: a, audiences: [], keys: {inline: {keys: []}, bearer_file: /etc/passwd}}]".into(),
            "keys.bearer_file: has no meaning without a fetch",
        ),
        (
            beside("key_store: {read_only: true}"),
            "key_store.path: is missing; accepted: a folder that exists",
        ),
        (beside("key_store: {path: /, read_only: 1}"), "key_store.read_only: 1 is not accepted"),
        (beside("revocation: {}"), "revocation.file: is missing; accepted: a file of entries"),
        (beside("revocation: {listen: here}"), "revocation.listen: \"here\" is not accepted"),
        (beside("revocation: {listen: 'a:1', audiences: []}"), "revocation.audiences: an empty list accepts no event"),
        (beside("revocation: {listen: 'a:1', peers: b}"), "revocation.peers: \"b\" is not accepted; accepted: HOST:PORT"),
        (beside("revocation: {listen: 'a:1', peers: 'http://b:1'}"), "revocation.peers: \"http://b:1\" is not accepted"),
        (beside("revocation: {listen: 'a:1', subject_claims: {phone: p}}"), "revocation.subject_claims.phone: is not a known key"),
        (beside("revocation: {file: /r, peers: 'a:1'}"), "revocation.peers: is of no use without revocation.listen"),
        (beside("revocation: {redis: 'redis://:pw@r:1'}"), "revocation.redis: has a password; accepted: redis://HOST:PORT"),
        (beside("revocation: {redis: 'redis://:s3cr/et@r:1'}"), "revocation.redis: is no such URL; accepted: redis://HOST:PORT"),
        (beside("revocation: {redis: 'redis://r:1/x'}"), "revocation.redis: is no such URL"),
        (beside("revocation: {redis: 'rediss://r:1/#insecure'}"), "revocation.redis: is no such URL"),
        (beside("revocation: {redis: 'http://r:1'}"), "revocation.redis: is no such URL; accepted: redis://HOST:PORT"),
        (beside("revocation: {redis: 'redis://r:1', peers: 'a:1'}"), "revocation.peers: is of no use without revocation.listen"),
        (beside("revocation: {file: /r, audiences: [a]}"), "revocation.audiences: is of no use without revocation.listen"),
        (beside("revocation: {file: ''}"), "revocation.file: \"\" is not accepted"),
        (beside("revocation: {file: /r, max_entries: 0}"), "revocation.max_entries: 0 is not accepted"),
        (beside("revocation: {file: /r, when_stale: {then: allow}}"), "revocation.when_stale.then: \"allow\" is not accepted"),
        (
            beside("key_store: /no/such/folder"),
            "key_store: \"/no/such/folder\" is not accepted; accepted: a folder that exists",
        ),
        (other("leeway: 10m"), "leeway: \"10m\" is not accepted"),
        (other("subject: []"), "subject: is empty"),
        (other("tenants: any"), "tenants: has no meaning without an issuer that has them"),
        (
            "issuers: [{name: a, issuer: 'https://a/{tid}', audiences: [], keys: {url: 'https://a/k'}}]".into(),
            "issuer: \"https://a/{tid}\" is the iss of an issuer with tenants; accepted: tenants beside it",
        ),
        (
            "issuers: [{name: a, issuer: 'https://a/{tid}', tenants: [], audiences: [], keys: {url: 'https://a/k'}}]".into(),
            "tenants: is empty",
        ),
        (
            "issuers: [{name: a, issuer: 'https://a/{tid}', tenants: all, audiences: [], keys: {url: 'https://a/k'}}]".into(),
            "tenants: \"all\" is not accepted",
        ),
        (
            "issuers: [{name: a, issuer: ['https://a/{tid}', b], tenants: any, audiences: [], keys: {url: 'https://a/k'}}]".into(),
            "issuer[1]: \"b\" does not say where the tenant's ID stands",
        ),
        (
            "issuers: [{name: a, issuer: 'https://a/{tid}', tenants: any, audiences: [], keys: {discovery: true}}]".into(),
            "keys.discovery: the issuer is no URL that may be fetched",
        ),
        (other("subject: /a~"), "subject: \"/a~\" is not accepted"),
        (other("subject: [sub, 7]"), "subject[1]: 7 is a number: as a text it stands in quotes"),
        (other("max_lifetime: 0s"), "max_lifetime: \"0s\" is not accepted"),
        (other("max_lifetime: 1 day"), "max_lifetime: \"1 day\" is not accepted"),
        (
            "issuers: [{name: a, issuer: a, audiences: [x], audience_claims: [], keys: {discovery: 'https://a/d'}}]".into(),
            "audience_claims: is empty",
        ),
        (
            "issuers: [{name: a, issuer: a, audiences: [], audience_claims: [azp], keys: {discovery: 'https://a/d'}}]".into(),
            "audience_claims: is never looked at: audiences is empty",
        ),
        (beside("rules: [{name: a, audiences: []}]"), "rules[0].audiences: is empty"),
        (
            beside("rules: [{name: a, access: public, match: {paths: ['/users/{sub}']}}]"),
            "rules[0]: asks something of a token that it never looks at",
        ),
        (
            beside("rules: [{name: a, access: public, match: {paths: [/a]}, audiences: [x]}]"),
            "rules[0]: asks something of a token that it never looks at",
        ),
        (other("types: JWT"), "types: \"JWT\" is not accepted"),
        (other("require_kid: 'yes'"), "require_kid: \"yes\" is not accepted; accepted: true or false"),
        (beside("issuers: []"), "authz.yaml:2: issuers: is doubled"),
        (beside("tokens: {from: []}"), "tokens.from: is empty"),
        (beside("tokens: {from: [{}]}"), "tokens.from[0]: does not name one source"),
        (beside("tokens: {from: [{cookie: a, scheme: JWT}]}"), "tokens.from[0].scheme: has no meaning without header"),
        (beside("tokens: {from: [{header: a, chunked: true}]}"), "chunked: has no meaning without cookie"),
        (beside("tokens: {from: [{header: a, scheme: 'a b'}]}"), "scheme: \"a b\" is not accepted"),
        (beside("tokens: {from: [{header: a, opaque: allow}]}"), "opaque: \"allow\" is not accepted"),
        (
            beside("tokens: {from: [{header: authorization}, {header: Authorization, scheme: bearer}]}"),
            "tokens.from[1]: reads what an earlier source reads",
        ),
        (
            beside("tokens: {from: [{header: authorization}, {header: authorization, scheme: none}]}"),
            "tokens.from[1]: reads what an earlier source reads",
        ),
        (
            beside("tokens: {from: [{cookie: a}, {cookie: b}, {cookie: a, chunked: true}]}"),
            "tokens.from[2]: reads what an earlier source reads",
        ),
        (beside("tokens: {from: [{cookie: 'a b'}]}"), "cookie: \"a b\" is not accepted"),
        (beside("tokens: {from: [{cookie: a, header: authorization}]}"), "does not name one source"),
        (beside("deny: {realm: 'a\"b'}"), "deny.realm: \"a\\\"b\" is not accepted"),
        (beside("admin: {listen: ':9090'}"), "admin.listen: \":9090\" is not accepted"),
        (beside("admin: {listen: 'h:99999'}"), "admin.listen: \"h:99999\" is not accepted"),
        (beside("rules: [{name: a, acess: public}]"), "rules[0].acess: is not a known key"),
        (beside("rules: [{access: public}]"), "rules[0].name: is missing"),
        (beside("rules: [{name: a}, {name: a}]"), "rules[1]: the name \"a\" is taken"),
        (beside("rules: [{name: a, match: }]"), "rules[0].match: has no value"),
        (beside("rules: [{name: a, match: {paths: []}}]"), "match.paths: is empty"),
        (
            beside("rules: [{name: a, match: {paths: [/a/../b]}}]"),
            "match.paths[0]: \"/a/../b\" is not accepted",
        ),
        (beside("rules: [{name: a, match: {paths: ['/a*']}}]"), "match.paths[0]: \"/a*\" is not accepted"),
        (beside("rules: [{name: a, match: {paths: /a}}]"), "match.paths: \"/a\" is not accepted"),
        (beside("rules: [{name: a, match: {hosts: ['a:x']}}]"), "match.hosts[0]: \"a:x\" is not accepted"),
        (beside("rules: [{name: a, match: {methods: []}}]"), "match.methods: is empty"),
        (
            beside("rules: [{name: a, match: {methods: ['G T']}}]"),
            "match.methods[0]: \"G T\" is not accepted",
        ),
        (beside("rules: [{name: a, access: none}]"), "access: \"none\" is not accepted"),
        (
            beside("rules: [{name: a, access: public, require: {claims: {a: b}}}]"),
            "rules[0]: asks something of a token",
        ),
        (
            beside("rules: [{name: a, require: {issuers: [other]}}]"),
            "issuers[0]: \"other\" is not accepted; accepted: a list out of passage",
        ),
        (beside("rules: [{name: a, require: {issuers: []}}]"), "require.issuers: is empty"),
        (beside("rules: [{name: a, require: {claims: {role: }}}]"), "claims.role: has no value"),
        (beside("rules: [{name: a, require: {claims: {role: []}}}]"), "claims.role: is empty"),
        (beside("rules: [{name: a, require: {claims: {role: [[a]]}}}]"), "claims.role[0]: is a list"),
        (beside("rules: [{name: a, require: {claims: {/a~: b}}}]"), "claims./a~: is no claim"),
        (beside("rules: [{name: a, require: {claims: {role: a, role: b}}}]"), "claims.role: is doubled"),
        (
            demand("{}"),
            "claims.role: names 0 ways to be met; accepted: exactly one of any, all, prefix, present",
        ),
        (demand("{any: a, prefix: b}"), "claims.role: names 2 ways to be met"),
        (demand("{split: true}"), "claims.role: names 0 ways to be met"),
        (demand("{none: a}"), "claims.role.none: is not a known key; accepted: one of any, all, prefix"),
        (demand("{any: []}"), "claims.role.any: is empty"),
        (demand("{all: }"), "claims.role.all: has no value"),
        (demand("{all: [[a]]}"), "claims.role.all[0]: is a list"),
        (
            demand("{prefix: ''}"),
            "claims.role.prefix: \"\" is not accepted; accepted: the text that values begin with",
        ),
        (demand("{prefix: 7}"), "claims.role.prefix: 7 is a number: as a text it stands in quotes"),
        (demand("{prefix: [a]}"), "claims.role.prefix: is a list"),
        (demand("{present: false}"), "claims.role.present: asks for nothing; accepted: true"),
        (demand("{present: 'yes'}"), "claims.role.present: \"yes\" is not accepted"),
        (demand("{present: true, split: true}"), "claims.role.split: has no meaning beside present"),
        (
            beside("identity: {headers: {x-user: sub, X_User: email}}"),
            "identity.headers.X_User: folds into one spelling with x-user",
        ),
        (beside("identity: {headers: {x-a: {as: json}}}"), "identity.headers.x-a.claim: is missing"),
        (beside("identity: {headers: {x-a: {claim: a, first: [b]}}}"), "x-a.first: stands beside claim"),
        (beside("identity: {headers: {x-a: {first: []}}}"), "x-a.first: is empty"),
        (beside("identity: {headers: {x-a: {claim: a, map: /no/such.csv}}}"), "x-a.map: /no/such.csv cannot be read"),
        (beside("identity: {headers: {x-a: {claim: a, map: /, as: json}}}"), "x-a.map: is of a text"),
        (beside("identity: {headers: {x-a: {first: [a], as: json}}}"), "x-a.first: is of a text"),
        (beside("identity: {headers: {x-a: {claim: a, cut_prefix: b, as: base64}}}"), "x-a.cut_prefix: is of a text"),
        (
            beside("identity: {issuer_header: x-passage.user-id}"),
            "x-passage.user-id folds into one spelling with x-passage-user-id",
        ),
        (
            beside("identity: {issuer_header: x-passage-user-id}"),
            "x-passage-user-id folds into one spelling with x-passage-user-id",
        ),
        (beside("identity: {issuer_header: host}"), "identity.issuer_header: cannot be an identity header"),
        (
            other("identity: {headers: {x_passage_user_id: sub}}"),
            "x-passage-user-id folds into one spelling with x_passage_user_id",
        ),
        (other("identity: {metadata: sub}"), "identity.metadata: \"sub\" is not accepted"),
        (other("identity: {issuer_header: x-i}"), "identity.issuer_header: is not a known key"),
        (beside("identity: {metadata: {u: {claim: '', as: text}}}"), "u.claim: is all claims, which are no text"),
        (beside("identity: {metadata: {u: {first: [a], as: json}}}"), "metadata.u.first: is of a text"),
        (beside("identity: {metadata: {u: ''}}"), "metadata.u: \"\" is not accepted"),
        (beside("identity: {metadata: {'': sub}}"), "metadata.: has no name"),
        (
            beside("identity: {headers: {x-a: {claim: a, as: xml}}}"),
            "headers.x-a.as: \"xml\" is not accepted; accepted: text or json or base64",
        ),
        (
            beside("identity: {headers: {x-a: {claim: ''}}}"),
            "headers.x-a.claim: is all claims, which are no text; accepted: as: json or base64",
        ),
        (beside("identity: {headers: {x-a: ''}}"), "identity.headers.x-a: \"\" is not accepted"),
        (beside("identity: {headers: {x-a: {claim: /a~, as: json}}}"), "headers.x-a.claim: \"/a~\" is not"),
        (
            beside("identity: {headers: {x-a: {claim: a, form: json}}}"),
            "headers.x-a.form: is not a known key",
        ),
        (beside("identity: {headers: {a-b-c-d-e-f-g: sub}}"), "a-b-c-d-e-f-g: cannot be an identity header"),
        (beside("identity: {headers: {'a b': sub}}"), "a b: cannot be an identity header"),
        (beside("identity: {headers: {Authorization: sub}}"), "Authorization: cannot be an identity header"),
        (
            beside("identity: {headers: {x_api_token: sub}}\ntokens: {from: [{header: x-api-token}]}"),
            "x_api_token: cannot be an identity header",
        ),
        (
            beside("identity: {headers: {x-user-id: sub, x.user!id: email}}"),
            "identity.headers.x.user!id: folds into one spelling with x-user-id",
        ),
        (beside("identity: {headers: {a.b.c.d.e.f.g: sub}}"), "a.b.c.d.e.f.g: cannot be an identity header"),
        (
            beside("identity: {headers: {content.length: sub}}"),
            "content.length: cannot be an identity header",
        ),
        (beside("identity: {headers: {x-user: ''}}"), "x-user: \"\" is not accepted"),
        (beside("identity: {headers: {x-user: /a~2}}"), "x-user: \"/a~2\" is not accepted"),
        (beside("identity: {metadata: sub}"), "identity.metadata: \"sub\" is not accepted"),
        (beside("mode: shadow\nmode: enforce"), "authz.yaml:3: mode: is doubled"),
        (beside("{ - : ]"), "accepted: one YAML document with a map at its top"),
    ] {
        let said = faults(&text).join("\n");
        assert!(said.contains(want), "{text}\n  says: {said}\n  not: {want}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn refuses_ports_and_the_log() {
    for (text, want) in [
        (
            "server: {listen: 'unix:run/a.sock'}",
            "\"unix:run/a.sock\" is not accepted; accepted: host:port, or unix:/",
        ),
        ("server: {listen: 'unix:/run/'}", "\"unix:/run/\" is not accepted"),
        (
            "server: {listen: /run/a.sock}",
            "server.listen: \"/run/a.sock\" is not accepted; accepted: host:port, such as '[::]:50051' or 127.0.0.1:50051, or unix:/",
        ),
        ("server: {unix_mode: 660}", "server.unix_mode: 660 is a number: as a text it stands in quotes"),
        ("server: {unix_mode: '0999'}", "server.unix_mode: \"0999\" is not accepted"),
        ("server: {unix_mode: '7777'}", "server.unix_mode: \"7777\" is not accepted"),
        ("server: {tls: {}}", "server.tls.cert: is missing"),
        (
            "server: {tls: {cert: /no/such.pem, key: /no/such.key}}",
            "server.tls.cert: /no/such.pem cannot be read",
        ),
        ("server: {tls: {cert: /, key: /, client_ca: }}", "server.tls.client_ca: has no value"),
        ("server: {tls: {cert: /, key: /, client_ca: ''}}", "server.tls.client_ca: \"\" is not accepted"),
        ("server: {tls: true}", "server.tls: is true"),
        (
            "server: {max_message: 65MiB}",
            "server.max_message: \"65MiB\" is not accepted; accepted: a size from 64KiB to 64MiB, written like 512KiB or 1MiB",
        ),
        ("server: {max_message: 1048576}", "server.max_message: 1048576 is not accepted"),
        ("server: {max_message: 1KiB}", "server.max_message: \"1KiB\" is not accepted"),
        ("server: {max_connections: 0}", "server.max_connections: 0 is not accepted"),
        ("server: {max_connection_age: 10}", "server.max_connection_age: 10 is not accepted"),
        ("http: {listen: '0.0.0.0:8080'}", "http.style: is missing"),
        ("http: {style: envoy}", "http.listen: is missing"),
        (
            "http: {listen: '0.0.0.0:8080', style: nginx}",
            "http.style: \"nginx\" is not accepted; accepted: envoy or forward_auth",
        ),
        ("http: {listen: 'unix:/a', style: envoy}", "http.listen: \"unix:/a\" is not accepted"),
        (
            "http: {listen: 'a:1', style: envoy, path_prefix: check}",
            "http.path_prefix: \"check\" is not accepted",
        ),
        ("http: {listen: 'a:1', style: envoy, path_prefix: /check/}", "http.path_prefix: \"/check/\" is not"),
        ("http: {listen: 'a:1', style: envoy, path_prefix: '/a?b'}", "http.path_prefix: \"/a?b\" is not"),
        ("http: {listen: 'a:1', style: forward_auth, path_prefix: /a}", "http.path_prefix: has no meaning"),
        (
            "http: {listen: 'a:1', style: envoy, client_identity: refuse}",
            "http.client_identity: has no meaning in the style envoy",
        ),
        (
            "http: {listen: 'a:1', style: forward_auth, client_identity: allow}",
            "http.client_identity: \"allow\" is not accepted; accepted: refuse or overwritten",
        ),
        (
            "http: {listen: 'a:1', style: forward_auth, client_identity: }",
            "http.client_identity: has no value",
        ),
        (
            "http: {listen: 'a:1', style: envoy, proxy_secret_file: }",
            "http.proxy_secret_file: has no value; accepted: a readable file with the secret",
        ),
        (
            "http: {listen: 'a:1', style: envoy, proxy_secret_file: /no/such/file}",
            "http.proxy_secret_file: /no/such/file cannot be read: ",
        ),
        (
            "http: {listen: 'a:1', style: envoy, proxy_secret_file: /dev/null}",
            "http.proxy_secret_file: /dev/null holds no secret of 16 to 1024 bytes",
        ),
        (
            "http: {listen: 'a:1', style: envoy}\ntokens: {forward: false, from: [{query: t}]}",
            "http: cannot remove a query parameter",
        ),
        (
            "identity: {headers: {x_passage_authz_proxy_secret: sub}}",
            "x_passage_authz_proxy_secret: cannot be an identity header",
        ),
        ("tokens: {cache: 10}", "tokens.cache: 10 is not accepted; accepted: a map"),
        ("tokens: {cache: {max_entries: -1}}", "tokens.cache.max_entries: -1 is not accepted"),
        ("decision_log: {denied: 1.5}", "decision_log.denied: 1.5 is not accepted"),
        (
            "decision_log: {denied: 2}",
            "decision_log.denied: 2 is not accepted; accepted: a number from 0 to 1",
        ),
        ("decision_log: {allowed: -0.1}", "decision_log.allowed: -0.1 is not accepted"),
        ("decision_log: {allowed: all}", "decision_log.allowed: \"all\" is not accepted"),
        ("decision_log: {allowed: .nan}", ".nan is no number that can be compared exactly"),
        ("decision_log: {max_per_second: 0}", "decision_log.max_per_second: 0 is not accepted"),
        ("decision_log: {subject: plain}", "decision_log.subject: \"plain\" is not accepted"),
    ] {
        let said = faults(&format!("{APP}{text}")).join("\n");
        assert!(said.contains(want), "{text}\n  says: {said}\n  not: {want}");
    }
}

/// A table of user IDs: the fault says which line, and shows no ID.
#[test]
fn tables_that_cannot_be_used() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("{APP}identity: {{headers: {{x-a: {{claim: a, map: {}}}}}}}", file.path().display());
    for (content, want) in [
        (&b"id-1,1\nid-2\n"[..], "line 2 has 1 columns"),
        (b"id-1,1,2\n", "line 1 has 3 columns"),
        (b"id-1,1\n,2\n", "line 2 has no key"),
        (b"id-1,1\nid-2,\n", "line 2 has a value that no header can carry"),
        (b"id-1,\"a\nb\"\n", "line 1 has a value that no header can carry"),
        (b"id-1,1\nid-2,2\nid-1,3\n", "lines 1 and 3 have the same key"),
        (b"id-1,1\nid-\xff,2\n", "line 2 is not UTF-8"),
        (b"", "it has no lines"),
        (b"\n\n", "it has no lines"),
    ] {
        std::fs::write(file.path(), content).unwrap();
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains(want) && !said.contains("id-"), "{said}");
    }
    for content in [&b"\xef\xbb\xbfid-1,1\r\n\"id,2\",\"2\"\"\"\r\n"[..], b"id-1,1"] {
        std::fs::write(file.path(), content).unwrap();
        assert!(parse(&text).is_ok(), "{content:?}");
    }
}

/// What people write most often, each with the remedy and without a word of the YAML reader.
#[test]
fn slips_are_named_with_their_remedy() {
    let issuer = |more: &str| {
        format!(
            "issuers: [{{name: a, issuer: a, audiences: [api], keys: {{discovery: 'https://a.example'}}, {more}}}]"
        )
    };
    for (text, want) in [
        (
            "issuers: []\n---\na: b\n".to_owned(),
            "authz.yaml:3: a second document begins here; accepted: one document: leave out the line ---",
        ),
        (
            format!("{APP}rules:\n- {{name: a, match: {{hosts: [*.example.com]}}, access: deny}}\n"),
            "authz.yaml:3: a text that begins with * is an alias in YAML; accepted: such a text in quotes",
        ),
        ("mode:\n\tenforce\n".to_owned(), "a tab indents this line; accepted: spaces"),
        (
            "issuers: [{name: p, passage: {app_id: 12345}}]".to_owned(),
            "passage.app_id: 12345 is a number: as a text it stands in quotes; accepted: the app's ID",
        ),
        (
            format!("{APP}server: {{drain_timeout: 20}}"),
            "server.drain_timeout: 20 is not accepted; accepted: a duration",
        ),
        (
            issuer("audience: x"),
            "issuers[0].audience: is not a known key (perhaps audiences); accepted: one of",
        ),
        (issuer("leway: 1s"), "issuers[0].leway: is not a known key (perhaps leeway)"),
        (format!("{APP}modes: shadow"), "modes: is not a known key (perhaps mode)"),
        (format!("{APP}xyz: 1"), "xyz: is not a known key; accepted: one of"),
    ] {
        let said = faults(&text).join("\n");
        assert!(said.contains(want), "{text}\n  says: {said}\n  not: {want}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_watched() {
    for (more, files) in [
        ("    keys: {file: /no/keys}\n", &["/no/keys"][..]),
        ("    keys: {url: 'https://a.example/', bearer_file: /no/bearer}\n", &["/no/bearer"]),
        ("    keys: {url: 'https://a.example/'}\n    ca: /no/ca\n", &["/no/ca"]),
        (
            "    keys: {url: 'https://a.example/', client_cert: {cert: /no/cert, key: /no/key}}\n",
            &["/no/cert", "/no/key"],
        ),
        ("server: {tls: {cert: /no/cert, key: /no/key}}\n", &["/no/cert", "/no/key"]),
        ("http: {listen: '127.0.0.1:0', style: envoy, proxy_secret_file: /no/secret}\n", &["/no/secret"]),
    ] {
        let refused =
            parse(&format!("issuers:\n  - name: a\n    issuer: a\n    audiences: []\n{more}")).unwrap_err();
        let watched: Vec<_> = refused.files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(watched, files, "{refused}");
    }
}

#[test]
fn a_table_that_several_headers_name_is_read_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let map = format!("map: {}", file.path().display());
    let text = format!("{APP}identity: {{headers: {{x-a: {{claim: a, {map}}}, x-b: {{claim: b, {map}}}}}}}");
    std::fs::write(file.path(), "a,1\n").unwrap();
    assert_eq!(parse(&text).unwrap().files.len(), 1);
    std::fs::write(file.path(), "a\n").unwrap();
    let refused = parse(&text).unwrap_err();
    let keys: Vec<_> = refused.faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["identity.headers.x-a.map", "identity.headers.x-b.map"]);
    assert_eq!(refused.files.len(), 1, "a new table mends it");
}
