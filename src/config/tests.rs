//! What the configuration accepts, and what it says of the rest.

use std::path::Path;

use super::*;
use crate::domain::algorithm::Algorithm;
use crate::domain::claims::Claim;
use crate::domain::issuer::{Audience, Audiences, IssuerId};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "authz.yaml")
}

/// The faults, a line each.
fn faults(text: &str) -> Vec<String> {
    parse(text)
        .err()
        .map_or_else(Vec::new, |ConfigError(faults)| faults.iter().map(Fault::to_string).collect())
}

fn claim(text: &str) -> Claim {
    Claim::new(text).unwrap()
}

const APP: &str = "issuers: [{name: passage, passage: {app_id: app1}}]\n";
const OTHER: &str =
    "{name: other, issuer: https://a.example, audiences: [], keys: {url: https://a.example/k}}";

#[test]
fn one_app_id_is_a_whole_configuration() {
    let config = parse(APP).unwrap();
    let [issuer] = config.issuers.as_slice() else { panic!("one issuer") };
    let rules = &issuer.issuer;
    assert_eq!(rules.ids[0], IssuerId("app1".into()));
    assert_eq!(rules.ids[1], IssuerId("https://auth.passage.id/v1/apps/app1".into()));
    assert_eq!(rules.algorithms, [Algorithm::Rs256]);
    assert_eq!(rules.audiences, Audiences::NotChecked);
    assert!(rules.require_kid);
    assert_eq!(rules.types, ["jwt", "at+jwt"]);
    assert_eq!(rules.leeway, Duration::from_secs(30));
    let KeySource::Url { url, access: WebAccess { allow_http: false, ca: None } } = &issuer.keys else {
        panic!("a URL")
    };
    assert_eq!(url.as_str(), "https://auth.passage.id/v1/apps/app1/.well-known/jwks.json");
    assert_eq!(issuer.refresh.interval, Duration::from_secs(300));
    assert_eq!(issuer.refresh.timeout, Duration::from_secs(3));
    assert_eq!(issuer.refresh.max_stale, Duration::from_secs(24 * 3600));
    assert_eq!(issuer.refresh.unknown_kid_cooldown, Duration::from_secs(10));
    assert_eq!(issuer.refresh.wait, Duration::from_millis(150));
    assert_eq!(config.server.listen, Listen::Tcp("0.0.0.0:50051".into()));
    assert_eq!(config.server.drain_timeout, Duration::from_secs(20));
    assert_eq!(config.admin_listen, "0.0.0.0:9090");
    assert_eq!(config.tokens.from, [TokenSource::Bearer, TokenSource::Cookie("psg_auth_token".into())]);
    assert_eq!(config.tokens.max_length, 8192);
    let user = vec![("x-passage-user-id".into(), claim("sub"))];
    assert_eq!(config.identity, Identity::new(user, vec![claim("iss"), claim("sub")]));
    assert_eq!(config.check_flags, CheckFlags { shadow: false, allow_preflight: false });
    assert!(config.tokens.forward && config.rules.is_empty());
    assert_eq!(config.tokens.max_cached, 100_000);
    assert_eq!(config.wording, denial::Wording { realm: "passage-authz".into(), reasons: true });
}

#[test]
fn the_profile_sets_only_what_is_not_set_beside_it() {
    let config = parse(
        "issuers:\n\
         - name: p\n  passage: {app_id: app1, base_url: https://auth.example/}\n  audiences: [https://app.example]\n  \
         algorithms: [RS256, ES256]\n  require_kid: false\n  types: [application/JWT]\n  leeway: 0s\n  \
         refresh: {interval: 1m}\n  keys: {inline: {keys: [{kty: EC, crv: P-256, x: \
         f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU, y: x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0}]}}\n",
    );
    let config = config.unwrap();
    let rules = &config.issuers[0].issuer;
    assert_eq!(rules.ids[1], IssuerId("https://auth.example/v1/apps/app1".into()));
    assert_eq!(rules.audiences, Audiences::OneOf(vec![Audience("https://app.example".into())]));
    assert_eq!(rules.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
    assert_eq!((rules.require_kid, rules.leeway), (false, Duration::ZERO));
    assert_eq!(rules.types, ["jwt"]);
    assert_eq!(config.issuers[0].refresh.interval, Duration::from_secs(60));
    assert!(matches!(config.issuers[0].keys, KeySource::Inline(_)));
}

#[test]
fn issuers_side_by_side_and_one_iss_or_several() {
    let two = format!(
        "issuers:\n- {OTHER}\n- {{name: b, issuer: [b1, b2], audiences: [x], keys: {{url: https://b.example}}}}"
    );
    let config = parse(&two).unwrap();
    assert_eq!(config.issuers[0].issuer.ids, [IssuerId("https://a.example".into())]);
    assert_eq!(config.issuers[1].issuer.ids, [IssuerId("b1".into()), IssuerId("b2".into())]);
    assert!(!config.issuers[1].issuer.require_kid);
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
            "authz.yaml:2: sever: is not a known key; accepted: one of mode, cors_preflight, tokens, http, issuers, server, admin, key_store, identity, rules, deny, decision_log",
            "authz.yaml:4: server.listen: 50051 is not accepted; accepted: host:port, such as 0.0.0.0:50051 or [::1]:50051, or unix:/path/to.sock",
            "authz.yaml:5: server.drain_timeout: 20 is not accepted; accepted: a duration from 0s to 1h, written like 250ms, 10s, 5m or 24h",
            "authz.yaml:7: tokens.max_length: 1 is not accepted; accepted: a whole number from 64 to 65536 bytes",
            "authz.yaml:10: issuers[0].passage.app_id: \"a/b\" is not accepted; accepted: the app's ID: letters, digits, dashes and underscores",
            "authz.yaml:11: issuers[0].leeway: \"10 minutes\" is not accepted; accepted: a duration from 0s to 5m, written like 250ms, 10s, 5m or 24h",
            "authz.yaml:12: issuers[0].leeway: is doubled; accepted: each key once",
            "authz.yaml:13: issuers[1].audiences: is missing; accepted: a list of audiences; [] says on purpose that aud is not checked",
            "authz.yaml:13: issuers[1].keys: is missing; accepted: exactly one of discovery: true, url, file, inline",
            "authz.yaml:15: issuers[1].algorithms[1]: \"HS256\" is not accepted; accepted: a list out of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA",
        ]
    );
}

/// Each text is refused, and this is in what is said of it.
#[test]
fn refuses() {
    let long = "x".repeat(64);
    let beside = |more: &str| format!("{APP}{more}");
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
        ("issuers: [{name: a, passage: {app_id: 1}}]".into(), "app_id: 1 is not accepted"),
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
        (discovery("https://a.example", "yes please"), "keys.discovery: \"yes please\" is not accepted"),
        (
            beside("key_store: /no/such/folder"),
            "key_store: \"/no/such/folder\" is not accepted; accepted: a folder that exists",
        ),
        (other("leeway: 10m"), "leeway: \"10m\" is not accepted"),
        (other("types: JWT"), "types: \"JWT\" is not accepted"),
        (other("require_kid: 'yes'"), "require_kid: \"yes\" is not accepted; accepted: true or false"),
        (beside("issuers: []"), "authz.yaml:2: issuers: is doubled"),
        (beside("tokens: {from: []}"), "tokens.from: is empty"),
        (beside("tokens: {from: [{}]}"), "tokens.from[0]: does not name one source"),
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
        (beside("rules: [{name: a, match: {hosts: ['a:80']}}]"), "match.hosts[0]: \"a:80\" is not accepted"),
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
            beside("identity: {headers: {x-user: sub, X_User: email}}"),
            "identity.headers.X_User: folds into one spelling with x-user",
        ),
        (beside("identity: {headers: {a-b-c-d-e-f-g: sub}}"), "a-b-c-d-e-f-g: cannot be an identity header"),
        (beside("identity: {headers: {'a b': sub}}"), "a b: cannot be an identity header"),
        (beside("identity: {headers: {Authorization: sub}}"), "Authorization: cannot be an identity header"),
        (
            beside("identity: {headers: {x_api_token: sub}}\ntokens: {from: [{header: x-api-token}]}"),
            "x_api_token: cannot be an identity header",
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
fn the_ports_and_the_log() {
    let config = parse(&format!(
        "{APP}server: {{listen: 'unix:/run/a.sock', unix_mode: '0600', max_connection_age: 0s, max_connections: 7}}\n\
         http: {{listen: '127.0.0.1:8080', style: envoy, path_prefix: /check}}\n\
         decision_log: {{denied: 0.5, allowed: 1, max_per_second: 9, subject: clear}}"
    ))
    .unwrap();
    let Server { listen, unix_mode, tls, max_connection_age, max_connections, .. } = config.server;
    assert_eq!((listen, unix_mode), (Listen::Unix("/run/a.sock".into()), 0o600));
    assert_eq!((tls, max_connection_age, max_connections), (None, None, 7));
    let http = Http { listen: "127.0.0.1:8080".into(), style: Style::Envoy, path_prefix: "/check".into() };
    assert_eq!(config.http, Some(http));
    let log = DecisionLogSettings { denied: 0.5, allowed: 1.0, max_per_second: 9, subject_in_clear: true };
    assert_eq!(config.decision_log, log);

    let config = parse(APP).unwrap();
    let Server { listen, unix_mode, tls, max_connection_age, max_connections, drain_timeout } = config.server;
    assert_eq!((listen, unix_mode), (Listen::Tcp("0.0.0.0:50051".into()), 0o660));
    assert_eq!((tls, max_connection_age), (None, Some(Duration::from_secs(600))));
    assert_eq!((max_connections, drain_timeout, config.http), (20_000, Duration::from_secs(20), None));
    let log = DecisionLogSettings { denied: 1.0, allowed: 0.0, max_per_second: 100, subject_in_clear: false };
    assert_eq!(config.decision_log, log);

    for (text, want) in [
        (
            "server: {listen: 'unix:run/a.sock'}",
            "\"unix:run/a.sock\" is not accepted; accepted: host:port, or unix:/",
        ),
        ("server: {listen: 'unix:/run/'}", "\"unix:/run/\" is not accepted"),
        (
            "server: {listen: /run/a.sock}",
            "server.listen: \"/run/a.sock\" is not accepted; accepted: host:port, such as 0.0.0.0:50051 or [::1]:50051, or unix:/",
        ),
        ("server: {unix_mode: 660}", "server.unix_mode: 660 is not accepted"),
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
            "http: {listen: 'a:1', style: envoy}\ntokens: {forward: false, from: [{query: t}]}",
            "http: cannot remove a query parameter",
        ),
        ("tokens: {cache: 10}", "tokens.cache: 10 is not accepted; accepted: a map"),
        ("tokens: {cache: {max_entries: -1}}", "tokens.cache.max_entries: -1 is not accepted"),
        ("decision_log: {denied: 1.5}", "decision_log.denied: is a"),
        (
            "decision_log: {denied: 2}",
            "decision_log.denied: 2 is not accepted; accepted: a number from 0 to 1",
        ),
        ("decision_log: {allowed: -0.1}", "decision_log.allowed: is a"),
        ("decision_log: {allowed: all}", "decision_log.allowed: \"all\" is not accepted"),
        ("decision_log: {allowed: .nan}", "non-finite float"),
        ("decision_log: {max_per_second: 0}", "decision_log.max_per_second: 0 is not accepted"),
        ("decision_log: {subject: plain}", "decision_log.subject: \"plain\" is not accepted"),
    ] {
        let said = faults(&format!("{APP}{text}")).join("\n");
        assert!(said.contains(want), "{text}\n  says: {said}\n  not: {want}");
    }
}

#[test]
fn the_environment_alone() {
    let set = |text: &str| Some(text.to_owned());
    let load = |environment: Environment| match Config::load(None, &environment) {
        Ok(config) => Ok(config.issuers.into_iter().map(|config| config.issuer.ids).collect::<Vec<_>>()),
        Err(error) => Err(error.to_string()),
    };
    let app = Environment { app_id: set("app1"), ..Environment::default() };
    let base = Environment { base_url: set("https://auth.example"), ..app.clone() };
    assert_eq!(load(app.clone()).unwrap()[0][1].0, "https://auth.passage.id/v1/apps/app1");
    let both = Environment { issuer: set("https://i.example/"), audience: set("api"), ..app.clone() };
    let config = Config::load(None, &both).unwrap();
    assert_eq!(config.issuers.len(), 2, "side by side");
    assert_eq!(config.issuers[1].issuer.audiences, Audiences::OneOf(vec![Audience("api".into())]));
    let KeySource::Discovery { issuer, document, .. } = &config.issuers[1].keys else { panic!("discovery") };
    assert_eq!(issuer, "https://i.example/");
    assert_eq!(document.as_str(), "https://i.example/.well-known/openid-configuration");
    assert_eq!(load(base).unwrap()[0][1].0, "https://auth.example/v1/apps/app1");
    for (environment, want) in [
        (Environment::default(), "there is no configuration; accepted: --config FILE, PASSAGE_APP_ID"),
        (Environment { app_id: set(""), ..app.clone() }, "PASSAGE_APP_ID: \"\" is not accepted"),
        (Environment { base_url: set("http://a.example"), ..app.clone() }, "PASSAGE_BASE_URL: is not a URL"),
        (
            Environment { app_id: None, base_url: set("https://a"), ..app.clone() },
            "PASSAGE_BASE_URL: is set without an app",
        ),
        (
            Environment { issuer: set("https://i"), ..app.clone() },
            "PASSAGE_AUTHZ_ISSUER: is set without an audience",
        ),
        (
            Environment { audience: set("api"), ..app.clone() },
            "PASSAGE_AUTHZ_AUDIENCE: is set without an issuer",
        ),
        (
            Environment { issuer: set("http://i.example"), audience: set("api"), ..app.clone() },
            "PASSAGE_AUTHZ_ISSUER: the issuer is no URL that may be fetched",
        ),
        (
            Environment { issuer: set("https://i"), audience: set(""), ..app },
            "PASSAGE_AUTHZ_AUDIENCE: \"\" is not accepted",
        ),
    ] {
        let said = load(environment).unwrap_err();
        assert!(said.contains(want), "{said}\n not: {want}");
    }
}

#[test]
fn what_takes_effect_is_itself_a_configuration() {
    let key = "{kty: EC, crv: P-256, x: f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU, \
               y: x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0}";
    let inline = format!(
        "{{name: in, issuer: '0x10', audiences: ['yes', '1e3'], algorithms: [ES256], keys: {{inline: {{keys: [{key}]}}}}}}"
    );
    let discovery =
        "{name: d, issuer: https://d.example, audiences: [api], keys: {discovery: true}, leeway: 1s}";
    let web = "{name: w, issuer: w, audiences: [], allow_http: true, keys: {url: 'http://w.example/k?a=b'}, refresh: {wait: 0s}}";
    let rules = "rules:\n\
        - {name: '~', match: {hosts: ['*.a.example', b.example], paths: [/x, '/y/*', '*'], methods: [GET]}, access: public}\n\
        - {name: claims, require: {issuers: [d], claims: {role: [a, 1, 1.5, true, 'null'], /a/b: 'on'}}, shadow: true}\n\
        - {name: none, match: {paths: [/*]}, access: deny}\n\
        - {name: maybe, access: optional}\n";
    for text in [
        APP.to_owned(),
        format!("issuers: [{inline}, {discovery}, {web}]\n{rules}"),
        format!(
            "{APP}mode: shadow\ncors_preflight: allow\ntokens: {{forward: false, from: [{{query: q}}, {{header: X-T}}, {{cookie: c}}]}}"
        ),
        format!(
            "{APP}identity: {{headers: {{x-a: /a/b, X-B: email}}, metadata: []}}\ndeny: {{realm: \"it's: me\", reasons: false}}"
        ),
        format!("{APP}identity: {{headers: {{}}}}\nkey_store: /\ntokens: {{cache: {{max_entries: 0}}}}"),
        format!(
            "{APP}server: {{listen: 'unix:/a', unix_mode: '0600', tls: {{cert: /, key: /, client_ca: /}}, max_connection_age: 0s}}\n\
             http: {{listen: 'a:1', style: envoy, path_prefix: /c}}\ndecision_log: {{denied: 0.25, allowed: 1, subject: clear}}"
        ),
        format!("{APP}server: {{tls: {{cert: /, key: /}}}}\nhttp: {{listen: 'a:1', style: forward_auth}}"),
    ] {
        let config = parse(&text).map_err(|error| error.to_string()).unwrap();
        let yaml = config.to_yaml().unwrap();
        let again = parse(&yaml).map_err(|error| format!("{error}\n{yaml}")).unwrap();
        assert_eq!(format!("{config:?}"), format!("{again:?}"), "{yaml}");
        assert_eq!(again.to_yaml().unwrap(), yaml);
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let said = Config::load(Some(Path::new("/no/such/authz.yaml")), &Environment::default()).unwrap_err();
    assert!(said.to_string().starts_with("/no/such/authz.yaml: cannot be read: "), "{said}");
}
