//! Every Envoy bootstrap in deploy/, started with the real Envoy in front of the service that its first lines ask for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use passage_authz::testing::jwks;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::envoy::{Envoy, Upstream, binary, seen};
use crate::support::fixtures::{USER, bearer, good, key};
use crate::support::process::{Running, file};
use crate::support::tls::{authority, issued_by};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Every file below deploy/ that Envoy could be started with.
fn bootstraps() -> BTreeSet<PathBuf> {
    let (mut folders, mut found) = (vec![deploy()], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::read_to_string(&path).is_ok_and(|text| text.contains("\nstatic_resources:")) {
                found.insert(path.strip_prefix(deploy()).unwrap().to_owned());
            }
        }
    }
    found
}

/// What the file's first lines say that passage-authz needs.
fn needs(text: &str) -> Value {
    let lines = text.lines().skip_while(|line| *line != "# passage-authz needs:").skip(1);
    let lines: Vec<_> = lines.map_while(|line| line.strip_prefix("#   ")).collect();
    let read = serde_saphyr::from_str::<Option<Value>>(&lines.join("\n"));
    read.unwrap().unwrap_or_else(|| json!({}))
}

fn clusters(bootstrap: &mut Value) -> &mut Vec<Value> {
    bootstrap.pointer_mut("/static_resources/clusters").unwrap().as_array_mut().unwrap()
}

/// Sets the address of each endpoint of a cluster, where it is a port.
fn at(bootstrap: &mut Value, cluster: &str, port: u16) {
    let cluster = clusters(bootstrap).iter_mut().find(|found| found["name"] == cluster).unwrap();
    let endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array_mut().unwrap();
    for endpoint in endpoints {
        let address = &mut endpoint["endpoint"]["address"];
        if address.get("socket_address").is_some() {
            *address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
        }
    }
}

/// The files that configuration and bootstrap name, here instead of below /etc and /run.
fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    for (name, files) in
        [("authz.example.com", ["tls.crt", "tls.key"]), ("envoy", ["client.crt", "client.key"])]
    {
        let (certificate, key) = issued_by(&ca, name);
        write(files[0], certificate.pem());
        write(files[1], key.serialize_pem());
    }
    write("ca.crt", ca.pem());
    write("client-ca.crt", ca.pem());
    folder
}

fn moved(text: &str, folder: &TempDir) -> String {
    let here = format!("{}/", folder.path().display());
    ["/etc/passage-authz/", "/etc/envoy/", "/run/passage-authz/"]
        .iter()
        .fold(text.to_owned(), |text, path| text.replace(path, &here))
}

async fn status(envoy: &Envoy, headers: &[(&str, &str)]) -> (u16, Value, Option<String>) {
    let mut request = reqwest::Client::new().get(format!("http://{}/orders", envoy.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default(), challenge)
}

#[tokio::test]
async fn each_lets_a_good_token_through_and_nothing_else() {
    let token = bearer(&good());
    let binary = binary().await;
    let upstream = Upstream::start().await.unwrap();
    let all = bootstraps();
    assert!(all.len() >= 6, "{all:?}");
    for name in all {
        let at_name = name.display();
        let folder = files();
        let text = moved(&fs::read_to_string(deploy().join(&name)).unwrap(), &folder);

        let mut config = needs(&text);
        let listen = config["server"]["listen"].as_str().unwrap_or("[::]:50051");
        if !listen.starts_with("unix:") {
            config["server"]["listen"] = json!("127.0.0.1:0");
        }
        if config["http"].is_object() {
            config["http"]["listen"] = json!("127.0.0.1:0");
        }
        config["admin"] = json!({"listen": "127.0.0.1:0"});
        let keys: Value = serde_json::from_str(&jwks(&[&key()]).to_string()).unwrap();
        config["issuers"] =
            json!([{"name": "passage", "passage": {"app_id": "app1"}, "keys": {"inline": keys}}]);
        let running = Running::serve(file(&config.to_string()).path(), "info").await;
        running.until_ready().await;

        let mut bootstrap: Value = serde_saphyr::from_str(&text).unwrap();
        let port = if config["http"].is_object() { running.http.port() } else { running.grpc.port() };
        at(&mut bootstrap, "passage-authz", port);
        at(&mut bootstrap, "protected", upstream.address.port());
        let any = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
        bootstrap["admin"]["address"] = any.clone();
        bootstrap["static_resources"]["listeners"][0]["address"] = any;
        let envoy = Envoy::run(&binary, bootstrap.to_string()).await.unwrap();

        let (code, body, challenge) = status(&envoy, &[(USER, "admin")]).await;
        assert_eq!((code, &body["code"]), (401, &json!("token_missing")), "{at_name}");
        assert_eq!(challenge.as_deref(), Some("Bearer realm=\"passage-authz\""), "{at_name}");
        let forged = [
            ("authorization", token.as_str()),
            (USER, "admin"),
            ("x_passage_user_id", "admin"),
            ("x.passage.user.id", "admin"),
        ];
        for headers in [&forged[..1], &forged] {
            let (code, echo, _) = status(&envoy, headers).await;
            assert_eq!(code, 200, "{at_name}");
            assert_eq!(seen(&echo, USER), ["user-1"], "{at_name}: {headers:?}");
        }
        running.signal("-TERM").await;
        assert_eq!(running.end().await.0, Some(0), "{at_name}");
        assert_eq!(
            status(&envoy, &[("authorization", &token)]).await.0,
            503,
            "{at_name}: without the service"
        );
    }
}
