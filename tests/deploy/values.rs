//! What the chart takes as values, what it refuses and in which words, and the table in its README.

use std::collections::BTreeSet;
use std::fs;

use crate::support::helm::{ask, chart};
use serde_json::{Value, json};

const APP: &str = "dk8fn3fns93kJD6Vdj1k";

fn read(name: &str) -> String {
    fs::read_to_string(chart().join(name)).unwrap()
}

/// The minimal values with one of them, named by its path, set.
fn with(path: &str, value: Value) -> Value {
    let nested = path.rsplit('.').fold(value, |value, key| json!({key: value}));
    let mut values = json!({"passage": {"appId": APP}});
    merge(&mut values, nested);
    values
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[test]
fn the_schema_refuses_typos_and_wrong_types_by_name() {
    let issuer = |key: &str, value: Value| {
        let mut issuer =
            json!({"name": "a", "issuer": "https://a.example", "audiences": [], "keys": {"discovery": true}});
        issuer[key] = value;
        json!([issuer])
    };
    let claims = |value: Value| json!([{"name": "a", "require": {"claims": {"id": value}}}]);
    let table = [
        ("replicas", json!(3), "replicas"),
        ("passage.appID", json!("x"), "appID"),
        ("passage.appId", json!("with space"), "/passage/appId"),
        ("passage.appId", json!(7), "/passage/appId"),
        ("fullnameOverride", json!("My_Name"), "/fullnameOverride"),
        ("service.ipFamilies", json!(["ipv6"]), "/service/ipFamilies/0"),
        ("service.type", json!("ExternalName"), "/service/type"),
        ("hostUsers", json!("no"), "/hostUsers"),
        ("keyStore.volume", json!({"emptyDir": {}, "hostPath": {}}), "/keyStore/volume"),
        ("global.imagePullSecrets", json!([""]), "/global/imagePullSecrets/0"),
        ("config.server.listen", json!("50051"), "/config/server/listen"),
        ("replicaCount", json!("3"), "/replicaCount"),
        ("replicaCount", json!(-1), "/replicaCount"),
        ("image.digest", json!("sha256:abc"), "/image/digest"),
        ("image.pullPolicy", json!("always"), "/image/pullPolicy"),
        ("service.appProtocol", json!("http2"), "/service/appProtocol"),
        ("service.port", json!(70_000), "/service/port"),
        ("probes.type", json!("tcp"), "/probes/type"),
        ("podDisruptionBudget.enabled", json!("yes"), "/podDisruptionBudget/enabled"),
        ("istio.enable", json!(true), "enable"),
        ("istio.selector", json!({"app": "orders"}), "app"),
        ("istio.targetRefs", json!([{"kind": "Gateway"}]), "name"),
        ("envoyGateway.timeout", json!("1 second"), "/envoyGateway/timeout"),
        ("metrics.serviceMonitor.enabled", json!("maybe"), "/metrics/serviceMonitor/enabled"),
        ("metrics.serviceMonitor.scheme", json!("HTTPS"), "/metrics/serviceMonitor/scheme"),
        ("metrics.podMonitor.tlsConfig", json!({"certFile": "/a"}), "/metrics/podMonitor/tlsConfig"),
        ("metrics.podMonitor.targetLabels", json!(["a"]), "targetLabels"),
        ("extraArgs", json!("--verbose"), "/extraArgs"),
        // The service's own configuration.
        ("config.mod", json!("shadow"), "mod"),
        ("config.mode", json!("dry-run"), "/config/mode"),
        ("config.server.max_conections", json!(1), "max_conections"),
        ("config.server.drain_timeout", json!("20 seconds"), "/config/server/drain_timeout"),
        ("config.server.drain_timeout", json!(20), "/config/server/drain_timeout"),
        ("config.server.unix_mode", json!(660), "/config/server/unix_mode"),
        ("config.tokens.from", json!([]), "/config/tokens/from"),
        ("config.tokens.from", json!([{"header": "a", "cookie": "b"}]), "/config/tokens/from/0"),
        ("config.issuers", issuer("audience", json!([])), "audience"),
        ("config.issuers", issuer("audiences", json!("api")), "/config/issuers/0/audiences"),
        ("config.issuers", issuer("algorithms", json!(["HS256"])), "/config/issuers/0/algorithms/0"),
        ("config.issuers", issuer("keys", json!({"discovery": true, "url": "x"})), "/config/issuers/0/keys"),
        ("config.paths.ignore_cases", json!(true), "ignore_cases"),
        ("config.paths.ignore_case", json!("yes"), "/config/paths/ignore_case"),
        ("config.rules", json!([{"name": "a", "acess": "public"}]), "acess"),
        (
            "config.rules",
            json!([{"name": "a", "match": {"methods": ["get"]}}]),
            "/config/rules/0/match/methods/0",
        ),
        ("config.rules", json!([{"name": "a", "match": {"paths": []}}]), "/config/rules/0/match/paths"),
        // Helm would round them.
        ("config.rules", claims(json!(9_007_199_254_740_993_u64)), "/config/rules/0/require/claims/id"),
        ("config.rules", claims(json!([1, 9_007_199_254_740_993_u64])), "/config/rules/0/require/claims/id"),
        ("config.issuers", issuer("bound_tokens", json!("verified")), "/config/issuers/0/bound_tokens"),
    ];
    let values: Vec<_> = table.iter().map(|(path, value, _)| with(path, value.clone())).collect();
    for ((path, value, named), answer) in table.iter().zip(ask(&values)) {
        let refusal = answer.refusal();
        assert!(
            refusal.contains("don't meet the specifications of the schema"),
            "{path}: {value}: {refusal}"
        );
        // JSON Schema writes paths as /a/b, or 'b' for an unknown key.
        assert!(refusal.contains(named), "{path}: {value}: {refusal}");
    }
}

#[test]
fn what_cannot_work_is_refused_with_its_remedy() {
    let ours = json!({"app.kubernetes.io/instance": "authz"});
    let gateway = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}]);
    let istio = |more: Value| {
        let mut istio = json!({"enabled": true, "namespace": "shop"});
        merge(&mut istio, more);
        with("istio", istio)
    };
    let passage = json!([{"name": "passage", "passage": {"app_id": "b"}}]);
    let both = |mut values: Value, path: &str, value: Value| {
        merge(&mut values, with(path, value));
        values
    };
    let rule = |place: Value| istio(json!({"rules": [place]}));
    let table = [
        (json!({}), "set passage.appId, or config.issuers"),
        (
            json!({"passage": {"baseUrl": "https://a.example"}, "config": {"issuers": [{"name": "a"}]}}),
            "without passage.appId",
        ),
        (with("config.issuers", passage), "an issuer named passage"),
        (with("config.server.listen", json!("unix:/run/a.sock")), "is a Unix socket"),
        (
            with("metrics", json!({"serviceMonitor": {"enabled": true}, "podMonitor": {"enabled": true}})),
            "enable one of the two",
        ),
        (
            with("config.server.listen", json!("127.0.0.1:50051")),
            "config.server.listen is a loopback address",
        ),
        (with("config.admin.listen", json!("[::1]:9090")), "config.admin.listen is a loopback address"),
        (
            with("config.http", json!({"listen": "localhost:8081", "style": "envoy"})),
            "config.http.listen is a loopback address",
        ),
        (with("service.port", json!(9090)), "9090, 9090: each must be another"),
        (
            with("config.http", json!({"listen": "0.0.0.0:50051", "style": "envoy"})),
            "50051, 9090, 50051: each must be another",
        ),
        (with("podDisruptionBudget.maxUnavailable", json!(0)), "maxUnavailable is 0"),
        (with("podDisruptionBudget.minAvailable", json!("100%")), "minAvailable is 100%"),
        (with("tls.clientCertificates", json!(true)), "needs tls.existingSecret"),
        (
            both(
                with("tls.existingSecret", json!("a")),
                "config.server.tls",
                json!({"cert": "a", "key": "b"}),
            ),
            "set one of the two",
        ),
        (
            both(with("keyStore.enabled", json!(true)), "config.key_store", json!("/keys")),
            "leave config.key_store out",
        ),
        (
            both(with("revocation.enabled", json!(true)), "config.revocation", json!({"peers": "a:1"})),
            "revocation.enabled sets config.revocation.peers: leave it out",
        ),
        (
            both(with("revocation.enabled", json!(true)), "revocation.port", json!(50051)),
            "each must be another",
        ),
        (
            both(with("tls.existingSecret", json!("a")), "probes.type", json!("grpc")),
            "gRPC probes speak plaintext only",
        ),
        (
            both(with("podDisruptionBudget.enabled", json!(true)), "replicaCount", json!(1)),
            "with a single replica",
        ),
        (
            both(
                with("podDisruptionBudget.enabled", json!(true)),
                "autoscaling",
                json!({"enabled": true, "minReplicas": 1}),
            ),
            "with a single replica",
        ),
        (with("podDisruptionBudget.minAvailable", json!(2)), "minAvailable is 2 of 2 replicas"),
        (
            with("autoscaling", json!({"enabled": true, "maxReplicas": 1})),
            "more than autoscaling.maxReplicas",
        ),
        (
            with("autoscaling", json!({"enabled": true, "targetCPUUtilizationPercentage": null})),
            "nothing to go by",
        ),
        (
            both(with("autoscaling.enabled", json!(true)), "resources.requests", json!({"cpu": null})),
            "resources.requests.cpu, which is not set",
        ),
        (with("terminationGracePeriodSeconds", json!(25)), "take 25: checks would be cut off"),
        (
            both(
                with("terminationGracePeriodSeconds", json!(60)),
                "config.server.drain_timeout",
                json!("1m"),
            ),
            "take 65: checks would be cut off",
        ),
        (with("networkPolicy.enabled", json!(true)), "networkPolicy.callers is empty"),
        (
            with("envoyGateway.enabled", json!(true)),
            "envoyGateway.targetRefs and envoyGateway.targetSelectors are empty",
        ),
        (with("existingSecret", json!("a")), "the configuration is in a, and passage.appId"),
        (
            json!({"existingConfigMap": "a", "config": {"rules": [{"name": "a"}]}}),
            "the configuration is in a, and passage.appId, config.issuers and config.rules would have no effect",
        ),
        (json!({"existingConfigMap": "a", "existingSecret": "b"}), "both name the configuration"),
        (istio(json!({"provider": "Passage_Authz"})), "is no DNS label"),
        (istio(json!({"provider": "a".repeat(64)})), "is no DNS label"),
        (
            istio(json!({"selector": {"matchLabels": {"a": "b"}}, "targetRefs": gateway})),
            "exclude each other",
        ),
        (istio(json!({"selector": {"matchLabels": {}}})), "istio.selector has no matchLabels"),
        (istio(json!({"rules": []})), "istio.rules is empty"),
        (rule(json!({"from": [{"source": {"requestPrincipals": ["*"]}}]})), "uses requestPrincipals"),
        (rule(json!({"from": [{"source": {"namespaces": ["a"]}}]})), "uses namespaces"),
        (rule(json!({"when": [{"key": "request.auth.claims[iss]", "values": ["a"]}]})), "uses request.auth"),
        (istio(json!({"callers": {"principals": []}})), "istio.callers names nobody"),
        // Whatever selects the service itself.
        (istio(json!({"namespace": ""})), "every Check would call Check"),
        (istio(json!({"namespace": "security"})), "every Check would call Check"),
        (istio(json!({"namespace": "istio-system"})), "every Check would call Check"),
        (istio(json!({"namespace": "", "selector": {"matchLabels": ours}})), "every Check would call Check"),
        (
            istio(
                json!({"namespace": "", "targetRefs": [{"group": "", "kind": "Service", "name": "authz-passage-authz"}]}),
            ),
            "passage-authz's own Service",
        ),
    ];
    let values: Vec<_> = table.iter().map(|(values, _)| values.clone()).collect();
    for ((values, sentence), answer) in table.iter().zip(ask(&values)) {
        let refusal = answer.refusal();
        assert!(refusal.contains(sentence), "{values}: {refusal}");
    }
}

#[test]
fn what_lies_next_to_a_refusal_is_rendered() {
    let istio = |more: Value| with("istio", more);
    let values = [
        istio(json!({"enabled": true, "namespace": "", "selector": {"matchLabels": {"app": "orders"}}})),
        istio(json!({"enabled": true, "namespace": "shop"})),
        istio(
            json!({"enabled": true, "namespace": "shop", "selector": {"matchLabels": {"app.kubernetes.io/instance": "authz"}}}),
        ),
        istio(
            json!({"enabled": true, "namespace": "istio-system", "selector": {"matchLabels": {"istio": "ingressgateway"}}}),
        ),
        istio(json!({"enabled": true, "namespace": "shop", "provider": "a".repeat(63)})),
        with("terminationGracePeriodSeconds", json!(26)),
        with("replicaCount", json!(1)),
        with("podDisruptionBudget", json!({"enabled": true, "minAvailable": "50%"})),
        with("podDisruptionBudget", json!({"minAvailable": 1, "maxUnavailable": 0})),
        with("service.port", json!(443)),
        with("tls.existingSecret", json!("a")),
        with("global.other", json!({"of": "a parent chart"})),
        with("enabled", json!(true)),
    ];
    for (values, answer) in values.iter().zip(ask(&values)) {
        assert!(answer.templates().contains_key("deployment.yaml"), "{values}");
    }
}

/// Every path of a map.
fn paths(value: &Value, above: &str, found: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        paths(value, &path, found);
        found.push(path);
    }
}

/// What null may make impossible, in the chart's own words.
const NEEDED: [&str; 6] = [
    "no issuer is configured",
    "resources.requests.cpu, which is not set",
    "autoscaling has nothing to go by",
    "networkPolicy.callers is empty",
    "would select passage-authz itself",
    "envoyGateway.targetRefs and envoyGateway.targetSelectors are empty",
];

/// Whatever key null removes, the chart is rendered, with everything switched on as well, or says what it needs.
#[test]
fn null_takes_any_key_out() {
    let mut keys = Vec::new();
    paths(&serde_saphyr::from_str(&read("values.yaml")).unwrap(), "", &mut keys);
    assert!(keys.len() > 150, "{}", keys.len());
    let on = json!({
        "autoscaling": {"enabled": true},
        "istio": {"enabled": true, "selector": {"matchLabels": {"app": "orders"}}},
        "keyStore": {"enabled": true},
        "revocation": {"enabled": true},
        "metrics": {"serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}},
        "networkPolicy": {"enabled": true, "callers": [{"podSelector": {}}]},
    });
    let targets = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "orders"}]);
    let gateway = json!({"envoyGateway": {"enabled": true, "targetRefs": targets}});
    let cases: Vec<_> = [json!({}), on, gateway]
        .iter()
        .flat_map(|more| {
            keys.iter().map(move |key| {
                let mut values = json!({"passage": {"appId": APP}});
                merge(&mut values, more.clone());
                merge(&mut values, key.rsplit('.').fold(Value::Null, |value, key| json!({key: value})));
                (key, values)
            })
        })
        .collect();
    let values: Vec<_> = cases.iter().map(|(_, values)| values.clone()).collect();
    for ((key, values), answer) in cases.iter().zip(ask(&values)) {
        if let Some(refused) = answer.refused() {
            assert!(NEEDED.iter().any(|words| refused.contains(words)), "{key}: null: {refused}");
            continue;
        }
        assert!(
            answer.lint.errors.is_empty() && answer.lint.messages.is_empty(),
            "{key}: {values}: {:?}",
            answer.lint
        );
        assert!(answer.objects().len() > 3, "{key}");
        for (template, text) in answer.templates() {
            // The lowest threshold of a Grafana panel has no value.
            let mut lines = text.lines().filter(|line| line.trim() != "\"value\": null");
            let bad = lines.find(|line| {
                ["<nil>", "%!", "no value"].iter().any(|mark| line.contains(mark))
                    || line.trim_end().ends_with(": null")
            });
            assert_eq!(bad, None, "{key}: {template}");
        }
    }
}

/// What stands for a removed key is what values.yaml has for it, or empty.
#[test]
fn defaults_of_the_templates_are_those_of_the_values() {
    let text = read("templates/_defaults.tpl");
    let text = text.split_once("defaults.values\" -}}\n").unwrap().1.split_once("{{- end -}}").unwrap().0;
    let defaults: Value = serde_saphyr::from_str(text).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let mut keys = Vec::new();
    paths(&defaults, "", &mut keys);
    assert!(keys.len() > 80, "{}", keys.len());
    for key in keys {
        let at = format!("/{}", key.replace('.', "/"));
        let (default, value) = (defaults.pointer(&at).unwrap(), values.pointer(&at));
        let is_empty = default.as_str() == Some("") || *default == json!({}) || *default == json!([]);
        assert!(value.is_some(), "{key} is no key of values.yaml");
        assert!(is_empty || default.is_object() || Some(default) == value, "{key}: {default}, {value:?}");
    }
}

#[test]
fn an_image_is_named_as_container_engines_read_it() {
    let table = [
        (json!({}), "ghcr.io/passage-authz/passage-authz"),
        (json!({"image": {"registry": "reg.example"}}), "reg.example/passage-authz/passage-authz"),
        (json!({"image": {"registry": ""}}), "passage-authz/passage-authz"),
        (json!({"image": {"registry": null}}), "passage-authz/passage-authz"),
        (json!({"image": {"repository": "reg.example/team/authz"}}), "reg.example/team/authz"),
        (json!({"image": {"repository": "localhost/authz"}}), "localhost/authz"),
        (json!({"image": {"repository": "registry:5000/authz"}}), "registry:5000/authz"),
        (json!({"image": {"repository": "team/my.authz"}}), "ghcr.io/team/my.authz"),
        (json!({"image": {"repository": "authz"}}), "ghcr.io/authz"),
        (json!({"image": {"registry": "a.example/b", "repository": "authz"}}), "a.example/b/authz"),
        (
            json!({"global": {"imageRegistry": "mirror.example"}, "image": {"repository": "reg.example/team/authz"}}),
            "mirror.example/team/authz",
        ),
        (
            json!({"global": {"imageRegistry": "mirror.example"}, "image": {"registry": ""}}),
            "mirror.example/passage-authz/passage-authz",
        ),
    ];
    let values: Vec<_> = table
        .iter()
        .map(|(more, _)| {
            let mut values = json!({"passage": {"appId": APP}});
            merge(&mut values, more.clone());
            values
        })
        .collect();
    for ((more, want), answer) in table.iter().zip(ask(&values)) {
        let objects = answer.objects();
        for kind in ["Deployment", "Pod"] {
            let object = objects.iter().find(|object| object["kind"] == kind).unwrap();
            let pod = if kind == "Pod" { &object["spec"] } else { &object["spec"]["template"]["spec"] };
            assert_eq!(
                pod["containers"][0]["image"],
                format!("{want}:{}", env!("CARGO_PKG_VERSION")),
                "{more}"
            );
        }
    }
}

/// Keys of the README's full configuration and of the schema: what one knows the other does, too.
#[test]
fn the_schema_knows_the_whole_configuration_and_nothing_else() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let block = readme.split("<!-- config: begin -->").nth(1).unwrap();
    let block = block.split("<!-- config: end -->").next().unwrap().replace("```yaml", "").replace("```", "");
    let config: Value = serde_saphyr::from_str(&block).unwrap();
    let answers = ask(&[json!({"config": config})]);
    assert!(answers[0].templates().contains_key("configmap.yaml"));

    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let mut known = BTreeSet::new();
    properties(&schema["$defs"]["config"], &mut known);
    for key in &known {
        // In the example, or in the remark after it.
        assert!(
            block.contains(&format!("{key}:"))
                || ["inline", "client_ca", "path_prefix", "query", "ca", "allow_http"]
                    .contains(&key.as_str()),
            "{key}"
        );
    }
    assert!(known.len() > 50, "{}", known.len());
}

fn properties(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "properties" && schema["additionalProperties"] == false {
                    into.extend(value.as_object().unwrap().keys().cloned());
                }
                properties(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, into)),
        _ => {}
    }
}

/// A documented value: its path, how its default reads, and the text above it.
struct Documented {
    path: String,
    default: String,
    text: String,
}

/// Reads the `# -- ` comments of values.yaml, which is written with two spaces a level and comments above keys.
fn documented() -> Vec<Documented> {
    let text = read("values.yaml");
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let (mut path, mut comment, mut found) = (Vec::<String>::new(), None, Vec::new());
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(text) = line.trim().strip_prefix("# -- ") {
            comment = Some(text.to_owned());
        } else if let (Some((key, _)), false) =
            (line.trim().split_once(':'), line.trim().starts_with(['#', '-']))
        {
            path.truncate(indent / 2);
            path.push(key.to_owned());
            if let Some(text) = comment.take() {
                let value = values.pointer(&format!("/{}", path.join("/"))).unwrap();
                found.push(Documented { path: path.join("."), default: value.to_string(), text });
            }
        }
    }
    found
}

/// Every path of values.yaml down to where a documented one covers it.
fn undocumented(value: &Value, path: &str, documented: &[Documented], found: &mut Vec<String>) {
    if documented.iter().any(|known| known.path == path) {
        return;
    }
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                undocumented(value, &path, documented, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn every_value_is_documented_typed_and_in_the_readme() {
    let documented = documented();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let mut missing = Vec::new();
    undocumented(&values, "", &documented, &mut missing);
    assert_eq!(missing, [""; 0], "values without a comment");

    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    for known in &documented {
        let pointer = format!("/properties/{}", known.path.replace('.', "/properties/"));
        assert!(schema.pointer(&pointer).is_some(), "{} is not in the schema", known.path);
    }

    let row = |known: &Documented| format!("| `{}` | {} | `{}` |", known.path, known.text, known.default);
    let rows: Vec<_> = documented.iter().map(row).collect();
    let readme = read("README.md");
    let (before, after) = readme.split_once("<!-- values: begin -->\n").unwrap();
    let (table, after) = after.split_once("<!-- values: end -->").unwrap();
    let wanted = format!("| value | what it is | default |\n|---|---|---|\n{}\n", rows.join("\n"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let readme = format!("{before}<!-- values: begin -->\n{wanted}<!-- values: end -->{after}");
        fs::write(chart().join("README.md"), readme).unwrap();
    } else {
        assert!(table == wanted, "the table of the chart's README is behind values.yaml: UPDATE_SNAPSHOTS=1");
    }
}

/// What deploy/README.md shows is what the chart takes, and what it then prints.
#[test]
fn the_quickstarts_render_and_show_what_helm_prints() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.md")).unwrap();
    let blocks = |marker: &str| -> Vec<Value> {
        let after = readme.split(marker).skip(1);
        let yaml = after.map(|text| text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap());
        yaml.map(|text| serde_saphyr::from_str(text).unwrap()).collect()
    };
    let values = blocks("<!-- values: ");
    let answers = ask(&values);
    assert!(answers.len() >= 4);
    let shown = blocks("<!-- provider -->").remove(0);
    let mut printed = 0;
    for answer in &answers {
        assert!(answer.lint.messages.is_empty(), "{:?}", answer.lint);
        let templates = answer.templates();
        let Some(block) = templates["NOTES.txt"].split("# extensionProviders: begin").nth(1) else {
            continue;
        };
        let block = block.split("# extensionProviders: end").next().unwrap();
        assert_eq!(serde_saphyr::from_str::<Value>(block).unwrap(), shown);
        printed += 1;
    }
    assert_eq!(printed, 2, "with sidecars, and in ambient mode");
}

#[test]
fn the_chart_is_of_this_version() {
    let metadata: Value = serde_saphyr::from_str(&read("Chart.yaml")).unwrap();
    assert_eq!(metadata["appVersion"], env!("CARGO_PKG_VERSION"));
    let images = metadata["annotations"]["artifacthub.io/images"].as_str().unwrap();
    assert!(images.contains(&format!("passage-authz:{}", env!("CARGO_PKG_VERSION"))), "{images}");
    // Artifact Hub leaves out an annotation that it cannot read, and says so to the publisher alone.
    let lists: [(&str, &[&str]); 3] =
        [("images", &["name", "image"]), ("links", &["name", "url"]), ("changes", &["kind", "description"])];
    for (annotation, keys) in lists {
        let text = metadata["annotations"][format!("artifacthub.io/{annotation}")].as_str().unwrap();
        let entries: Vec<Value> = serde_saphyr::from_str(text).unwrap();
        assert!(!entries.is_empty(), "{annotation}");
        for entry in entries {
            assert!(keys.iter().all(|key| entry[key].is_string()), "{annotation}: {entry}");
            if annotation == "changes" {
                let kinds = ["added", "changed", "deprecated", "removed", "fixed", "security"];
                assert!(kinds.contains(&entry["kind"].as_str().unwrap()), "{entry}");
            }
        }
    }
}
