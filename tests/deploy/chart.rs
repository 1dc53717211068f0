//! What the chart renders, by Helm itself, for every scenario that it ships.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::fixtures::serving;
use crate::support::get;
use crate::support::helm::{Answer, NAMESPACE, RELEASE, ask, ask_as, chart, scenarios};
use crate::support::process::{Running, binary, file};
use crate::support::tls::{authority, issued_by};
use serde_json::{Value, json};

fn rendered() -> BTreeMap<String, Answer> {
    let scenarios = scenarios();
    let values: Vec<_> = scenarios.values().cloned().collect();
    scenarios.into_keys().zip(ask(&values)).collect()
}

fn of_kind<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn one<'o>(objects: &'o [Value], kind: &str) -> &'o Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// The Service that proxies are pointed to, not the one of the replicas.
fn service(objects: &[Value]) -> &Value {
    let is_replicas = |service: &Value| service["metadata"]["name"].as_str().unwrap().ends_with("-replicas");
    let found: Vec<_> =
        of_kind(objects, "Service").into_iter().filter(|service| !is_replicas(service)).collect();
    assert_eq!(found.len(), 1);
    found[0]
}

fn minimal(more: Value) -> Value {
    let mut values = json!({"passage": {"appId": "app1"}});
    for (key, value) in more.as_object().unwrap() {
        values[key] = value.clone();
    }
    values
}

#[test]
fn every_scenario_is_linted_and_is_what_it_was() {
    let rendered = rendered();
    assert!(rendered.len() >= 8, "{:?}", rendered.keys());
    for (name, answer) in &rendered {
        assert!(
            answer.lint.messages.is_empty() && answer.lint.errors.is_empty(),
            "{name}: {:?}",
            answer.lint
        );
        let text: Vec<_> = answer
            .templates()
            .iter()
            .map(|(template, text)| format!("# {template}\n---\n{text}\n"))
            .collect();
        let snapshot =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/deploy/snapshots/{name}.yaml"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::write(&snapshot, text.concat()).unwrap();
        }
        let was = fs::read_to_string(&snapshot).unwrap_or_default();
        let first = text
            .concat()
            .lines()
            .zip(was.lines())
            .find(|(is, was)| is != was)
            .map(|(is, was)| format!("is {is:?}, was {was:?}"));
        assert!(text.concat() == was, "{name}: {first:?}; if that is right: UPDATE_SNAPSHOTS=1");
    }
}

/// The restricted profile of the Pod Security Standards, and what we ask beyond it.
fn faults_of_pod(pod: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut demand = |what: &str, holds: bool| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    let context = &pod["securityContext"];
    demand("runAsNonRoot", context["runAsNonRoot"] == true);
    demand("no root user", context["runAsUser"].as_u64() != Some(0));
    demand("seccomp", context["seccompProfile"]["type"] == "RuntimeDefault");
    demand("no token", pod["automountServiceAccountToken"] == false);
    demand("no links", pod["enableServiceLinks"] == false);
    for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
        demand(forbidden, pod[forbidden].is_null());
    }
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        demand("no escalation", context["allowPrivilegeEscalation"] == false);
        demand("read-only root", context["readOnlyRootFilesystem"] == true);
        demand("no capabilities", context["capabilities"] == json!({"drop": ["ALL"]}));
        let resources = &container["resources"];
        let has = |kind: &str, what: &str| resources[kind][what].is_string();
        demand("requests", has("requests", "cpu") && has("requests", "memory"));
        demand("a memory limit and no CPU limit", has("limits", "memory") && !has("limits", "cpu"));
        demand("a tag or a digest", {
            let image = container["image"].as_str().unwrap();
            image.contains("@sha256:") || image.rsplit('/').next().unwrap().contains(':')
        });
    }
    faults
}

#[test]
fn every_object_keeps_to_the_conventions() {
    for (scenario, answer) in rendered() {
        let objects = answer.objects();
        for object in &objects {
            let at = format!("{scenario}: {} {}", object["kind"], object["metadata"]["name"]);
            assert!(object["apiVersion"].is_string() && object["metadata"]["namespace"].is_string(), "{at}");
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/instance"], RELEASE, "{at}");
            if object["metadata"]["name"].as_str().unwrap().ends_with("-more") {
                continue;
            }
            for label in ["name", "version", "component", "part-of", "managed-by"] {
                assert!(labels[format!("app.kubernetes.io/{label}")].is_string(), "{at}: {label}");
            }
            assert_eq!(labels["helm.sh/chart"], "passage-authz-0.1.0", "{at}");
        }
        let deployment = one(&objects, "Deployment");
        let template = &deployment["spec"]["template"];
        // OpenShift chooses the user.
        let has_user = template["spec"]["securityContext"]["runAsUser"].is_u64();
        assert_eq!(has_user, scenario != "openshift", "{scenario}");
        assert_eq!(faults_of_pod(&template["spec"]), [""; 0], "{scenario}");
        assert_eq!(faults_of_pod(&one(&objects, "Pod")["spec"]), [""; 0], "{scenario}");
        for job in of_kind(&objects, "Job") {
            let pod = &job["spec"]["template"]["spec"];
            assert_eq!(faults_of_pod(pod), [""; 0], "{scenario}");
            // The very mounts of the service, but for the configuration, which is the new one.
            let service = &template["spec"];
            assert_eq!(pod["containers"][0]["volumeMounts"], service["containers"][0]["volumeMounts"]);
            let [of_job, of_service] =
                [pod, service].map(|pod| pod["volumes"].as_array().unwrap().split_first().unwrap());
            assert_eq!(of_job.1, of_service.1, "{scenario}");
            let copy = &of_job.0["configMap"]["name"];
            let maps = of_kind(&objects, "ConfigMap");
            let map = |name: &Value| maps.iter().find(|map| map["metadata"]["name"] == *name).unwrap();
            assert_eq!(map(copy)["data"], map(&of_service.0["configMap"]["name"])["data"], "{scenario}");
            assert_eq!(map(copy)["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade");
        }
        assert_eq!(one(&objects, "ServiceAccount")["automountServiceAccountToken"], false, "{scenario}");

        // A selector can never change, so it holds nothing that does; what it selects is this pod, and not the test's.
        let selector = deployment["spec"]["selector"]["matchLabels"].as_object().unwrap();
        assert_eq!(
            selector.keys().collect::<Vec<_>>(),
            ["app.kubernetes.io/name", "app.kubernetes.io/instance"]
        );
        let service = service(&objects);
        assert_eq!(service["spec"]["selector"].as_object(), Some(selector), "{scenario}");
        let selects = |labels: &Value| selector.iter().all(|(label, value)| labels[label] == *value);
        assert!(selects(&template["metadata"]["labels"]), "{scenario}");
        assert!(!selects(&one(&objects, "Pod")["metadata"]["labels"]), "{scenario}");

        let ports = service["spec"]["ports"].as_array().unwrap();
        let grpc = ports.iter().find(|port| port["name"] == "grpc").unwrap();
        assert!(["grpc", "kubernetes.io/h2c"].map(Value::from).contains(&grpc["appProtocol"]), "{scenario}");
        let container = &template["spec"]["containers"][0];
        for port in ports {
            let named = |other: &Value| other["name"] == port["targetPort"];
            assert!(container["ports"].as_array().unwrap().iter().any(named), "{scenario}: {port}");
        }

        // A volume has one source, and the API server refuses another number; schemas do not see it.
        for volume in template["spec"]["volumes"].as_array().unwrap() {
            assert_eq!(volume.as_object().unwrap().len(), 2, "{scenario}: {volume}");
        }
        // A mounted file that changes under the pods would reach all of them at once.
        let mounts = container["volumeMounts"].as_array().unwrap();
        let config_mount = mounts.iter().find(|mount| mount["name"] == "config").unwrap();
        assert_eq!(config_mount["subPath"], "authz.yaml", "{scenario}");
        let argument = format!("--config={}", config_mount["mountPath"].as_str().unwrap());
        assert!(container["args"].as_array().unwrap().contains(&json!(argument)), "{scenario}");

        // The drain is shorter than the time until the pod is killed.
        let config = if scenario == "existing" {
            assert_eq!(template["spec"]["volumes"][0]["configMap"]["name"], "authz-config");
            json!({"server": {"drain_timeout": "30s", "max_connection_age": "10m"}})
        } else {
            configuration(&objects)
        };
        let drain = match config["server"]["drain_timeout"].as_str().unwrap() {
            "20s" => 20,
            "30s" => 30,
            "1m" => 60,
            other => panic!("{other}"),
        };
        let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        let grace = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > sleep + drain, "{scenario}: {grace}");
        assert_ne!(config["server"]["max_connection_age"], "0s", "{scenario}: replicas share load");

        let scaled = !of_kind(&objects, "HorizontalPodAutoscaler").is_empty() || scenario == "existing";
        assert_eq!(deployment["spec"]["replicas"].is_null(), scaled, "{scenario}");
        let single = deployment["spec"]["replicas"] == 1;
        assert_eq!(of_kind(&objects, "PodDisruptionBudget").is_empty(), single, "{scenario}");
    }
}

/// An alert on a job that no series has would never fire, or always.
#[test]
fn alerts_are_of_the_job_that_the_monitor_makes() {
    let monitored = |metrics: Value| {
        let mut metrics = metrics;
        metrics["prometheusRule"]["enabled"] = json!(true);
        minimal(json!({"metrics": metrics}))
    };
    let table = [
        (monitored(json!({"serviceMonitor": {"enabled": true}})), "authz-passage-authz"),
        (monitored(json!({"podMonitor": {"enabled": true}})), "security/authz-passage-authz"),
        (
            monitored(json!({"podMonitor": {"enabled": true, "namespace": "monitoring"}})),
            "monitoring/authz-passage-authz",
        ),
        (monitored(json!({"podMonitor": {"enabled": true}, "prometheusRule": {"job": "mine"}})), "mine"),
        (
            monitored(json!({"podMonitor": {"enabled": true, "jobLabel": "app.kubernetes.io/part-of"}})),
            "passage-authz",
        ),
        (
            monitored(
                json!({"serviceMonitor": {"enabled": true, "jobLabel": "app.kubernetes.io/component"}}),
            ),
            "authorization",
        ),
        (
            monitored(json!({"serviceMonitor": {"enabled": true, "jobLabel": "absent"}})),
            "authz-passage-authz",
        ),
    ];
    let values: Vec<_> = table.iter().map(|(values, _)| values.clone()).collect();
    for ((_, job), answer) in table.iter().zip(ask(&values)) {
        let objects = answer.objects();
        let rules = one(&objects, "PrometheusRule")["spec"]["groups"][0]["rules"].as_array().unwrap();
        for rule in rules {
            let query = rule["expr"].as_str().unwrap();
            assert!(query.contains(&format!("job=\"{job}\", namespace=\"security\"")), "{query}");
            let section = rule["alert"].as_str().unwrap().to_ascii_lowercase();
            let link = rule["annotations"]["runbook_url"].as_str().unwrap();
            assert!(link.ends_with(&format!("/docs/runbook.md#{section}")), "{link}");
        }
        // A monitor selects what there is, by a port that there is.
        let template = &one(&objects, "Deployment")["spec"]["template"];
        let ports = template["spec"]["containers"][0]["ports"].as_array().unwrap();
        for monitor in of_kind(&objects, "PodMonitor") {
            let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
            assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{endpoint}");
            let selector = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
            let labels = &template["metadata"]["labels"];
            assert!(selector.iter().all(|(label, value)| labels[label] == *value), "{selector:?}");
        }
    }
}

#[test]
fn a_configuration_that_is_there_already_is_mounted() {
    for (key, source) in [("existingConfigMap", "/configMap/name"), ("existingSecret", "/secret/secretName")]
    {
        let values = json!({key: "mine", "configCheck": {"enabled": true}});
        let answers = ask(&[values]);
        let objects = answers[0].objects();
        assert_eq!(of_kind(&objects, "ConfigMap").len(), 0, "{key}");
        for kind in ["Deployment", "Job"] {
            let volumes = one(&objects, kind)["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
            assert_eq!((volumes.len(), &volumes[0]["name"]), (1, &json!("config")), "{key} {kind}");
            assert_eq!(volumes[0].pointer(source), Some(&json!("mine")), "{key} {kind}");
        }
    }
}

#[test]
fn a_pod_that_is_not_restricted_is_seen() {
    let answers = ask(&[minimal(json!({}))]);
    let objects = answers[0].objects();
    let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
    for (pointer, value, fault) in [
        ("/securityContext/runAsNonRoot", json!(false), "runAsNonRoot"),
        ("/securityContext/runAsUser", json!(0), "no root user"),
        ("/securityContext/seccompProfile/type", json!("Unconfined"), "seccomp"),
        ("/automountServiceAccountToken", json!(true), "no token"),
        ("/containers/0/securityContext/readOnlyRootFilesystem", json!(false), "read-only root"),
        ("/containers/0/securityContext/capabilities", json!({}), "no capabilities"),
        ("/containers/0/image", json!("registry.example.com:5000/passage-authz"), "a tag or a digest"),
    ] {
        let mut broken = pod.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        assert_eq!(faults_of_pod(&broken), [fault]);
    }
}

fn configuration(objects: &[Value]) -> Value {
    let maps = of_kind(objects, "ConfigMap");
    let text = maps.iter().find_map(|map| map["data"]["authz.yaml"].as_str()).unwrap();
    serde_saphyr::from_str(text).unwrap()
}

#[tokio::test]
async fn the_service_accepts_every_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority();
    let (cert, key) = issued_by(&ca, "localhost");
    for (name, text) in [("tls.crt", cert.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", ca.pem())] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let here = folder.path().to_str().unwrap();
    for (scenario, answer) in rendered() {
        let objects = answer.objects();
        if scenario == "existing" {
            continue;
        }
        let maps = of_kind(&objects, "ConfigMap");
        let text = maps.iter().find_map(|map| map["data"]["authz.yaml"].as_str()).unwrap();
        // What a pod has and this machine has not: the mounts.
        let text = text.replace("/etc/passage-authz/tls", here).replace("/var/lib/passage-authz", here);
        let config = file(&text);
        let output = binary().args(["check-config", "--config"]).arg(config.path()).output().await.unwrap();
        assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn probes_speak_what_the_port_speaks() {
    for (scenario, answer) in rendered() {
        let objects = answer.objects();
        let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        let probes = ["startupProbe", "readinessProbe", "livenessProbe"].map(|name| &container[name]);
        let asked = &one(&objects, "Pod")["spec"]["containers"][0]["args"];
        if scenario == "tls" {
            let paths = probes.map(|probe| probe["httpGet"]["path"].as_str().unwrap());
            assert_eq!(paths, ["/livez", "/readyz", "/livez"]);
            let asked = asked.as_array().unwrap();
            assert!(asked.iter().any(|arg| arg.as_str().unwrap().starts_with("--admin=")), "{asked:?}");
        } else {
            let port = json!(if scenario == "existing" { 50052 } else { 50051 });
            assert_eq!(probes.map(|probe| &probe["grpc"]["port"]), [&port; 3], "{scenario}");
            let services = probes.map(|probe| probe["grpc"]["service"].as_str());
            assert_eq!(services, [Some("liveness"), None, Some("liveness")], "{scenario}");
        }
    }
}

#[test]
fn the_provider_to_paste_names_the_service_and_fails_closed() {
    for (scenario, answer) in rendered() {
        let templates = answer.templates();
        let notes = templates["NOTES.txt"];
        let objects = answer.objects();
        let policies = of_kind(&objects, "AuthorizationPolicy");
        let custom = policies.iter().find(|policy| policy["spec"]["action"] == "CUSTOM");
        assert_eq!(custom.is_some(), notes.contains("extensionProviders: begin"), "{scenario}");
        let Some(custom) = custom else { continue };
        let block = notes.split("# extensionProviders: begin").nth(1).unwrap();
        let block: Value =
            serde_saphyr::from_str(block.split("# extensionProviders: end").next().unwrap()).unwrap();
        let provider = &block["extensionProviders"][0];
        assert_eq!(provider["name"], custom["spec"]["provider"]["name"]);
        let grpc = &provider["envoyExtAuthzGrpc"];
        let service = service(&objects);
        let name = service["metadata"]["name"].as_str().unwrap();
        let host = grpc["service"].as_str().unwrap();
        assert!(host.starts_with(&format!("{name}.{NAMESPACE}.svc.")), "{host}");
        assert_eq!(grpc["port"], service["spec"]["ports"][0]["port"]);
        assert_eq!((&grpc["timeout"], &grpc["failOpen"]), (&json!("0.5s"), &json!(false)));
        assert_eq!(grpc["statusOnError"], "503");
        // Another selects the callers, by the labels of this service's own pods.
        let callers = policies.iter().find(|policy| policy["spec"]["action"] == "ALLOW").unwrap();
        let deployment = one(&objects, "Deployment");
        assert_eq!(callers["spec"]["selector"], deployment["spec"]["selector"]);
        assert!(callers["spec"]["rules"][0]["from"].is_array(), "{scenario}");
    }
}

#[test]
fn a_reference_grant_only_where_namespaces_differ() {
    let policy = |namespace: &str| {
        let refs = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "orders"}]);
        let gateway = json!({"enabled": true, "namespace": namespace, "targetRefs": refs});
        minimal(json!({"envoyGateway": gateway}))
    };
    let answers = ask(&[policy("shop"), policy(""), policy(NAMESPACE)]);
    let grants: Vec<_> =
        answers.iter().map(|answer| of_kind(&answer.objects(), "ReferenceGrant").len()).collect();
    assert_eq!(grants, [1, 0, 0]);
    for answer in &answers {
        let objects = answer.objects();
        let auth = &one(&objects, "SecurityPolicy")["spec"]["extAuth"];
        assert_eq!((&auth["failOpen"], &auth["statusOnError"]), (&json!(false), &json!(503)));
        assert_eq!(auth["grpc"]["backendRefs"][0]["namespace"], NAMESPACE);
    }
}

/// Helm merges maps with the chart's own: what is meant whole must come out whole.
#[test]
fn what_is_said_to_be_whole_is_whole() {
    let claim = json!({"persistentVolumeClaim": {"claimName": "keys"}});
    let labels = json!({"matchLabels": {"app": "other"}});
    let spread = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
    let mut own = spread.clone();
    own["labelSelector"] = labels.clone();
    let answers = ask(&[
        minimal(json!({"keyStore": {"enabled": true, "volume": claim}, "strategy": {"type": "Recreate"}})),
        minimal(json!({"keyStore": {"enabled": true}, "topologySpreadConstraints": [spread, own]})),
        minimal(json!({
            "podAnnotations": {"kubectl.kubernetes.io/default-container": "mine"},
            "global": {"imagePullSecrets": ["a", {"name": "b"}]},
            "image": {"pullSecrets": [{"name": "a"}]},
        })),
    ]);
    let specs: Vec<_> =
        answers.iter().map(|answer| one(&answer.objects(), "Deployment")["spec"].clone()).collect();
    let volume = |spec: &Value| {
        let volumes = spec["template"]["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == "key-store").unwrap().clone()
    };
    assert_eq!(specs[0]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(
        volume(&specs[0]),
        json!({"name": "key-store", "persistentVolumeClaim": {"claimName": "keys"}})
    );
    assert_eq!(volume(&specs[1]), json!({"name": "key-store", "emptyDir": {"sizeLimit": "16Mi"}}));
    let constraints = &specs[1]["template"]["spec"]["topologySpreadConstraints"];
    assert_eq!(constraints[0]["labelSelector"], specs[1]["selector"]);
    assert_eq!(constraints[1]["labelSelector"], labels);
    let template = &specs[2]["template"];
    assert_eq!(template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "mine");
    assert!(template["metadata"]["annotations"]["checksum/config"].is_string());
    assert_eq!(template["spec"]["imagePullSecrets"], json!([{"name": "a"}, {"name": "b"}]));
}

#[test]
fn what_a_reader_must_know_is_printed() {
    let istio = |more: Value| {
        let mut values = minimal(json!({"istio": {"enabled": true, "namespace": "shop"}}));
        values["passage"]["baseUrl"] = json!("https://auth.example.com");
        for (key, value) in more.as_object().unwrap() {
            values["istio"][key] = value.clone();
        }
        values
    };
    let waypoint = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}]);
    let rule = json!([{"to": [{"operation": {"paths": ["/a"]}}]}]);
    let mut elsewhere = minimal(json!({}));
    elsewhere["passage"]["baseUrl"] = json!("https://auth.example.com");
    let (off, unchecked, ignored) = ("switched off on 2026-01-16", "pass UNCHECKED", "would be IGNORED");
    let shadow = "every request is let through";
    let table = [
        (minimal(json!({})), vec![off]),
        (elsewhere, vec![]),
        (istio(json!({})), vec![ignored]),
        (istio(json!({"targetRefs": waypoint})), vec![]),
        (istio(json!({"targetRefs": waypoint, "rules": rule})), vec![unchecked]),
        (
            minimal(json!({"config": {"mode": "shadow"}, "replicaCount": 1})),
            vec![off, shadow, "a single replica"],
        ),
    ];
    let values: Vec<_> = table.iter().map(|(values, _)| values.clone()).collect();
    for ((values, wanted), answer) in table.iter().zip(ask(&values)) {
        let templates = answer.templates();
        let notes = templates["NOTES.txt"];
        for text in [off, unchecked, ignored, shadow, "a single replica"] {
            assert_eq!(notes.contains(text), wanted.contains(&text), "{text}: {values}\n{notes}");
        }
    }
}

#[test]
fn a_changed_configuration_rolls_the_pods_and_nothing_else_does() {
    let shadow = json!({"config": {"mode": "shadow"}});
    let answers = ask(&[minimal(json!({})), minimal(shadow), minimal(json!({"replicaCount": 5}))]);
    let sums: Vec<_> = answers
        .iter()
        .map(|answer| {
            let objects = answer.objects();
            let annotations = &one(&objects, "Deployment")["spec"]["template"]["metadata"]["annotations"];
            annotations["checksum/config"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_ne!(sums[0], sums[1]);
    assert_eq!(sums[0], sums[2]);
}

#[test]
fn names_stay_dns_labels_however_long_the_release() {
    let long = "a-very-long-release-name-that-nobody-should-use";
    let values = scenarios();
    let answers = ask_as(long, &[values["full"].clone(), values["envoy-gateway"].clone()]);
    for object in answers.iter().flat_map(Answer::objects) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let legal =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        assert!(legal && !name.ends_with('-'), "{name}");
        // The one of extraObjects is the user's own.
        assert!(name.len() <= 63 || name.ends_with("-more"), "{name}");
        for (_, value) in object["metadata"]["labels"].as_object().unwrap() {
            assert!(value.as_str().unwrap().len() <= 63, "{value}");
        }
    }
}

#[test]
fn a_name_that_no_service_can_have_is_refused() {
    let answers = ask_as("7up", &[minimal(json!({})), minimal(json!({"fullnameOverride": "seven-up"}))]);
    assert!(answers[0].refusal().contains("does not begin with a letter"), "{}", answers[0].refusal());
    assert_eq!(one(&answers[1].objects(), "Service")["metadata"]["name"], "seven-up");
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    // With all that has metrics of its own.
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority());
    let (certificate, key) = issued_by(&authority, "localhost");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("tls.crt"), certificate.pem()).unwrap();
    fs::write(at("tls.key"), key.serialize_pem()).unwrap();
    fs::write(at("revoked"), "").unwrap();
    let more = format!("revocation: {{file: '{}'}}", at("revoked"));
    let server =
        format!("listen: '127.0.0.1:0', tls: {{cert: '{}', key: '{}'}}", at("tls.crt"), at("tls.key"));
    let config = file(&serving(&server, &more));
    let running = Running::serve(config.path(), "info").await;
    let (_, metrics) = get(running.admin, "/metrics").await;
    let known: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let exists = |name: &str| {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        known.contains(&name) || base.is_some_and(|base| known.contains(&base))
    };
    let dashboard = fs::read_to_string(chart().join("files/dashboard.json")).unwrap();
    let _: Value = serde_json::from_str(&dashboard).unwrap();
    let rules = fs::read_to_string(chart().join("templates/prometheusrule.yaml")).unwrap();
    let mut seen = 0;
    for text in [dashboard, rules] {
        let word = |byte: char| !(byte.is_ascii_alphanumeric() || byte == '_');
        for name in
            text.split(word).filter(|name| name.starts_with("passage_authz_") || name.starts_with("process_"))
        {
            assert!(exists(name), "{name} is no metric of {known:?}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
    assert!(!exists("passage_authz_check_total"), "a typo is seen");
}
