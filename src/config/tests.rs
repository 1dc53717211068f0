//! What the configuration accepts and writes back; `faults` has what it refuses.

use std::path::Path;

use super::*;
use crate::domain::algorithm::Algorithm;
use crate::domain::claim::Claim;
use crate::domain::identity::{IdentityMaps, MappedClaim};
use crate::domain::issuer::{Audience, Audiences, BoundTokens, IssuerId};
use crate::domain::json::Json;
use crate::domain::policy::Wanted;
use crate::domain::token::TokenPlace;

mod faults;
mod warnings;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "authz.yaml")
}

fn claim(text: &str) -> Claim {
    Claim::new(text).unwrap()
}

const APP: &str = "issuers: [{name: passage, passage: {app_id: app1, base_url: 'https://a.example'}}]\n";
const OTHER: &str =
    "{name: other, issuer: https://a.example, audiences: [], keys: {url: https://a.example/k}}";

#[test]
fn one_app_id_is_a_whole_configuration() {
    let config = parse("issuers: [{name: passage, passage: {app_id: app1}}]").unwrap();
    let [issuer] = config.issuers.as_slice() else { panic!("one issuer") };
    let rules = &issuer.issuer;
    assert_eq!(rules.ids[0], IssuerId("app1".into()));
    assert_eq!(rules.ids[1], IssuerId("https://auth.passage.id/v1/apps/app1".into()));
    assert_eq!(rules.algorithms, [Algorithm::Rs256]);
    assert_eq!(rules.audiences, Audiences::NotChecked);
    assert!(rules.require_kid);
    assert_eq!(rules.types, ["jwt", "at+jwt"]);
    assert_eq!(rules.leeway, Duration::from_secs(30));
    assert_eq!(rules.bound_tokens, BoundTokens::Verify);
    let KeySource::Url { url, access } = &issuer.keys else { panic!("a URL") };
    assert_eq!(*access, WebAccess::default());
    assert_eq!(url.as_str(), "https://auth.passage.id/v1/apps/app1/.well-known/jwks.json");
    assert_eq!(issuer.refresh.interval, Duration::from_secs(300));
    assert_eq!(issuer.refresh.timeout, Duration::from_secs(3));
    assert_eq!(issuer.refresh.max_stale, Duration::from_secs(24 * 3600));
    assert_eq!(issuer.refresh.unknown_kid_cooldown, Duration::from_secs(10));
    assert_eq!(issuer.refresh.wait, Duration::from_millis(150));
    assert_eq!(config.server.listen, Listen::Tcp("[::]:50051".into()));
    assert_eq!(config.server.drain_timeout, Duration::from_secs(20));
    assert_eq!(config.admin_listen, "[::]:9090");
    assert_eq!(
        config.tokens.from,
        [TokenSource::bearer(), TokenPlace::Cookie("psg_auth_token".into()).into()]
    );
    assert_eq!(config.tokens.max_length, 8192);
    let user = vec![("x-passage-user-id".into(), claim("sub").into())];
    let metadata = ["iss", "sub"].map(|name| (name.into(), MappedClaim::json_of(claim(name)))).into();
    assert_eq!(config.identity, Identity::new(&IdentityMaps { headers: user, metadata }, &[], None));
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
    let http = Http {
        listen: "127.0.0.1:8080".into(),
        style: Style::Envoy,
        path_prefix: "/check".into(),
        client_identity: ClientIdentity::Refuse,
        proxy_secret_file: None,
    };
    assert_eq!(config.http, Some(http));
    let log = DecisionLogSettings { denied: 0.5, allowed: 1.0, max_per_second: 9, subject_in_clear: true };
    assert_eq!(config.decision_log, log);

    let config = parse(APP).unwrap();
    let Server { listen, unix_mode, tls, max_connection_age, max_connections, max_message, drain_timeout } =
        config.server;
    assert_eq!(max_message, 1 << 20);
    assert_eq!((listen, unix_mode), (Listen::Tcp("[::]:50051".into()), 0o660));
    assert_eq!((tls, max_connection_age), (None, Some(Duration::from_secs(600))));
    assert_eq!((max_connections, drain_timeout, config.http), (20_000, Duration::from_secs(20), None));
    let log = DecisionLogSettings { denied: 1.0, allowed: 0.0, max_per_second: 100, subject_in_clear: false };
    assert_eq!(config.decision_log, log);
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
    let KeySource::Discovery { issuers, document, .. } = &config.issuers[1].keys else { panic!("discovery") };
    assert_eq!(issuers[..], ["https://i.example/"]);
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
    let discovery = "{name: d, issuer: https://d.example, audiences: [api], keys: {discovery: true}, leeway: 1s, bound_tokens: ignore}";
    let web = "{name: w, issuer: w, audiences: [], allow_http: true, keys: {url: 'http://w.example/k?a=b'}, refresh: {wait: 0s}}";
    let secret_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret_file.path(), "0123456789abcdef\n").unwrap();
    let secret = format!("proxy_secret_file: '{}'", secret_file.path().display());
    let google = "{name: google, issuer: [accounts.google.com, 'https://accounts.google.com'], audiences: [c], \
                  keys: {discovery: 'https://accounts.google.com/.well-known/openid-configuration'}}";
    let pem = secret_file.path().display();
    let inner = format!(
        "{{name: k8s, issuer: 'https://kubernetes.default.svc', audiences: [a], \
         keys: {{url: 'https://k8s.example/openid/v1/jwks', bearer_file: '{pem}', client_cert: {{cert: '{pem}', key: '{pem}'}}}}}}"
    );
    let rules = "rules:\n\
        - {name: '~', match: {hosts: ['*.a.example', b.example], paths: [/x, '/y/*', '*', '/a/*/b'], methods: [GET]}, access: public}\n\
        - {name: claims, require: {issuers: [d], claims: {role: [a, 1, 1.5, 18446744073709551617, 1e999, true, 'null'], /a/b: 'on'}}, shadow: true}\n\
        - {name: none, match: {paths: [/*]}, access: deny}\n\
        - {name: api, match: {paths: ['/api/*', '/u/{sub}/*/x/*']}, access: lenient, audiences: [api, 'no']}\n\
        - {name: maybe, access: optional}\n";
    let cognito = "{name: c, issuer: c, audiences: [a], audience_claims: [aud, client_id, /a/b], subject: [sub, client_id], \
                   max_lifetime: 24h, keys: {discovery: 'https://c.example/d'}}";
    for text in [
        APP.to_owned(),
        "issuers: [{name: passage, passage: {app_id: app1}}]".to_owned(),
        format!("issuers: [{inline}, {discovery}, {web}]\n{rules}"),
        format!("issuers: [{google}, {inner}, {cognito}]"),
        "issuers: [{name: e, issuer: ['https://e.example/{tid}/v2.0', 'https://sts.example/{tid}/'], tenants: any, audiences: [a], keys: {discovery: 'https://e.example/d'}}, \
         {name: f, issuer: 'https://f.example/{tid}', tenants: [a-b, 'no'], audiences: [a], keys: {url: 'https://e.example/k'}}]".to_owned(),
        format!(
            "{APP}mode: shadow\ncors_preflight: allow\ntokens: {{forward: false, from: [{{query: q}}, {{header: X-T}}, {{cookie: c}}]}}"
        ),
        format!(
            "{APP}tokens: {{from: [{{header: Authorization, scheme: JWT}}, {{header: authorization, opaque: skip}}, {{header: x-a, scheme: none}}, \
             {{cookie: c, chunked: true, opaque: malformed}}]}}"
        ),
        format!(
            "{APP}identity: {{headers: {{x-a: /a/b, X-B: email}}, metadata: []}}\ndeny: {{realm: \"it's: me\", reasons: false}}"
        ),
        format!(
            "{APP}identity: {{headers: {{x-a: {{claim: groups, as: json}}, x-b: {{claim: '', as: base64}}, x-c: {{claim: email}}}}}}"
        ),
        "identity: {headers: {x-id: {first: [external_id, sub], cut_prefix: 'auth0|'}, x-b: {claim: email, cut_prefix: a}}, issuer_header: X-Issuer, shared_subjects: true}\n\
         issuers: [{name: a, issuer: a, audiences: [], keys: {discovery: 'https://a.example'}, identity: {headers: {x-id: sub, x-own: {claim: groups, as: json}}}}, \
         {name: b, issuer: b, audiences: [], keys: {discovery: 'https://b.example'}}]".to_owned(),
        format!("{APP}identity: {{metadata: {{user: sub, sub: sub, g: {{claim: groups, as: text}}, h: {{claim: groups, as: base64}}, i: {{first: [a, b]}}, all: {{claim: '', as: json}}}}}}"),
        "issuers: [{name: a, issuer: a, audiences: [], keys: {discovery: 'https://a.example'}, identity: {metadata: [uid]}}, \
         {name: b, issuer: b, audiences: [], keys: {discovery: 'https://b.example'}, identity: {metadata: {sub: {claim: sub, cut_prefix: b}, iss: iss}}}]"
            .to_owned(),
        format!("{APP}key_store: {{path: /, read_only: true}}"),
        format!("{APP}revocation: {{file: /r, max_token_lifetime: 1h, max_entries: 7, when_stale: {{after: 10s, then: deny}}}}"),
        format!("{APP}revocation: {{listen: 'a:1', audiences: [a, b], subject_claims: {{email: /contact/email}}, peers: 'b:1'}}"),
        format!("{APP}revocation: {{redis: 'rediss://me@r:6379/2', audiences: [a]}}"),
        format!("{APP}revocation: {{listen: 'a:1', redis: {{url: 'redis://r:6379', password_file: /p}}}}"),
        format!("{APP}revocation: {{file: /r, listen: 'a:1', peers: ['b:1', '[::1]:2']}}"),
        format!("{APP}identity: {{headers: {{}}}}\nkey_store: /\ntokens: {{cache: {{max_entries: 0}}}}"),
        format!(
            "{APP}server: {{listen: 'unix:/a', unix_mode: '0600', tls: {{cert: /, key: /, client_ca: /}}, max_connection_age: 0s, max_message: 512KiB}}\n\
             http: {{listen: 'a:1', style: envoy, path_prefix: /c}}\ndecision_log: {{denied: 0.25, allowed: 1, subject: clear}}"
        ),
        format!("{APP}server: {{tls: {{cert: /, key: /}}}}\nhttp: {{listen: 'a:1', style: forward_auth}}"),
        format!("{APP}http: {{listen: 'a:1', style: forward_auth, client_identity: overwritten, {secret}}}"),
        format!("{APP}http: {{listen: 'a:1', style: envoy, {secret}}}"),
    ] {
        let mut config = parse(&text).map_err(|error| error.to_string()).unwrap();
        let yaml = config.to_yaml().unwrap();
        let mut again = parse(&yaml).map_err(|error| format!("{error}\n{yaml}")).unwrap();
        for config in [&mut config, &mut again] {
            // The same warnings, on other lines.
            config.warnings.iter_mut().for_each(|warning| warning.line = None);
            config.warnings.sort_by_key(Warning::to_string);
        }
        assert_eq!(format!("{config:?}"), format!("{again:?}"), "{yaml}");
        assert_eq!(again.to_yaml().unwrap(), yaml);
    }
}

/// All values that the first rule wants of claims.
fn wanted_values(config: &Config) -> Vec<Json> {
    let demands = config.rules[0].require.claims.iter();
    demands
        .flat_map(|demand| match &demand.wanted {
            Wanted::Any(values) | Wanted::All(values) => values.clone(),
            Wanted::Prefix(_) | Wanted::Present => Vec::new(),
        })
        .collect()
}

/// The one value of `require: {claims: {id: …}}`.
fn wanted(text: &str) -> Result<Json, String> {
    let rule = format!("{APP}rules: [{{name: r, require: {{claims: {{id: {text}}}}}}}]");
    let config = parse(&rule).map_err(|error| error.to_string())?;
    let yaml = config.to_yaml().unwrap();
    let again = parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let [wanted, again] = [config, again].map(|config| wanted_values(&config)[0].clone());
    assert_eq!(wanted, again, "written back as\n{yaml}");
    Ok(wanted)
}

#[test]
fn a_required_number_has_the_digits_of_the_document() {
    let ninety = "9".repeat(90);
    for (text, want) in [
        ("7", "7"),
        ("+7", "7"),
        ("-7", "-7"),
        ("007", "7"),
        ("0x10", "16"),
        ("0o17", "15"),
        ("0xFFFFFFFFFFFFFFFF", "18446744073709551615"),
        ("1.50", "1.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("-.5e1", "-5"),
        ("1e3", "1000"),
        ("1e+06", "1000000"),
        ("9007199254740993", "9007199254740993"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775808"),
        ("9223372036854775809", "9223372036854775809"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709551616"),
        ("18446744073709551617", "18446744073709551617"),
        ("100000000000000000000", "1e20"),
        ("170141183460469231731687303715884105728", "170141183460469231731687303715884105728"),
        (&ninety, &ninety),
        ("0.1", "0.1"),
        ("0.1000000000000000055", "0.1000000000000000055"),
        ("9007199254740993.5", "9007199254740993.5"),
        ("1e999", "1e999"),
        ("-1e-999", "-1e-999"),
        ("1e999999999", "1e999999999"),
        ("!!float 18446744073709551617", "18446744073709551617"),
        ("!!float '18446744073709551617'", "18446744073709551617"),
        ("!!float \"1.5\"", "1.5"),
        ("&a 18446744073709551617", "18446744073709551617"),
        ("[é, 18446744073709551617]", "\"é\""),
        ("\"18446744073709551617\"", "\"18446744073709551617\""),
        ("'0xFFFFFFFFFFFFFFFFFF'", "\"0xFFFFFFFFFFFFFFFFFF\""),
        ("!!str 18446744073709551617", "\"18446744073709551617\""),
    ] {
        assert_eq!(wanted(text), Ok(Json::parse(want.as_bytes(), 0).unwrap()), "{text}");
    }
    for text in [
        ".inf",
        "-.INF",
        ".nan",
        "!!float .inf",
        "0xFFFFFFFFFFFFFFFFFF",
        "0o7777777777777777777777777",
        "1e1000000000000000000",
        "1e-1000000000000000000",
        "10e999999999999999999",
    ] {
        let said = wanted(text).unwrap_err();
        assert!(
            said.contains(" is no number that can be compared exactly; accepted: a text, a number"),
            "{said}"
        );
        assert!(said.starts_with("authz.yaml:2: rules[0].require.claims.id: "), "{said}");
    }
    // The digits of an alias are where its anchor is, of a later number behind characters of several bytes.
    let text = format!(
        "{APP}rules:\n- name: é\n  require: {{claims: {{a: [&id 18446744073709551617, 18446744073709551618], b: *id}}}}"
    );
    let config = parse(&text).unwrap();
    let wanted = wanted_values(&config);
    let json = |text: &str| Json::parse(text.as_bytes(), 0).unwrap();
    assert_eq!(wanted, ["18446744073709551617", "18446744073709551618", "18446744073709551617"].map(json));
    // A byte order mark moves them by its own bytes.
    let marked = parse(&format!("\u{feff}{text}")).unwrap();
    assert_eq!(wanted_values(&marked)[0], json("18446744073709551617"));
}

#[test]
fn ways_to_meet_a_claim() {
    let texts = |items: &[&str]| items.iter().map(|text| Json::from(*text)).collect::<Vec<_>>();
    for (claim, wanted, split) in [
        ("a: x", Wanted::Any(texts(&["x"])), false),
        ("scope: [x, z]", Wanted::Any(texts(&["x", "z"])), true),
        ("a: {any: x}", Wanted::Any(texts(&["x"])), false),
        ("a: {all: [x, z]}", Wanted::All(texts(&["x", "z"])), false),
        ("a: {all: [x, z], split: true}", Wanted::All(texts(&["x", "z"])), true),
        ("scope: {any: [x], split: false}", Wanted::Any(texts(&["x"])), false),
        ("scp: {prefix: 'x:'}", Wanted::Prefix("x:".into()), true),
        ("/a/b: {present: true}", Wanted::Present, false),
    ] {
        let config = parse(&format!("{APP}rules: [{{name: r, require: {{claims: {{{claim}}}}}}}]")).unwrap();
        assert_eq!(config.warnings.len(), 0, "{claim}");
        let yaml = config.to_yaml().unwrap();
        for config in [config, parse(&yaml).unwrap()] {
            let [demand] = &config.rules[0].require.claims[..] else { panic!("{yaml}") };
            assert_eq!((&demand.wanted, demand.split), (&wanted, split), "{claim}\n{yaml}");
        }
    }
}

#[test]
fn what_a_client_sends_of_an_identity_is_refused_unless_the_proxy_removes_it() {
    for (text, want) in [
        ("style: forward_auth", ClientIdentity::Refuse),
        ("style: forward_auth, client_identity: refuse", ClientIdentity::Refuse),
        ("style: forward_auth, client_identity: overwritten", ClientIdentity::Overwritten),
    ] {
        let config = parse(&format!("{APP}http: {{listen: 'a:1', {text}}}")).unwrap();
        assert_eq!(config.http.unwrap().client_identity, want, "{text}");
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let said = Config::load(Some(Path::new("/no/such/authz.yaml")), &Environment::default()).unwrap_err();
    assert!(said.to_string().starts_with("/no/such/authz.yaml: cannot be read: "), "{said}");
}
