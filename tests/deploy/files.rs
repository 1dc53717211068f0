//! The files of deploy/ that no test starts: compose and the systemd unit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use passage_authz::config::Config;
use serde_json::{Value, json};

use crate::support::fixtures::inline;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

#[test]
fn compose_publishes_envoy_alone_and_hardens_all() {
    let folder = deploy().join("compose");
    let compose: Value =
        serde_saphyr::from_str(&fs::read_to_string(folder.join("compose.yaml")).unwrap()).unwrap();
    let bootstrap: Value =
        serde_saphyr::from_str(&fs::read_to_string(folder.join("envoy.yaml")).unwrap()).unwrap();
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        assert_eq!(service["ports"].is_array(), name == "envoy", "{name}");
        let image = service["image"].as_str().unwrap();
        assert!(image.contains(':') && !image.ends_with(":latest"), "{image}");
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let mut parts = volume.as_str().unwrap().split(':');
            assert!(folder.join(parts.next().unwrap()).is_file() && parts.nth(1) == Some("ro"), "{volume}");
        }
    }
    // The hosts of each cluster of Envoy are containers of this file.
    for cluster in bootstrap["static_resources"]["clusters"].as_array().unwrap() {
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        let host = endpoint["address"]["socket_address"]["address"].as_str().unwrap();
        assert!(services.contains_key(host), "{host}");
    }
    let authz = &services["passage-authz"];
    let build = &authz["build"];
    let context = folder.join(build["context"].as_str().unwrap());
    assert!(context.join("Cargo.toml").is_file());
    assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file());
    assert_eq!(authz["user"], "65532:65532");
}

#[test]
fn the_unit_of_systemd_matches_the_service() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/passage-authz.service");
    let unit = fs::read_to_string(path).unwrap();
    assert!(unit.contains("\nType=notify\n"));
    assert!(
        unit.contains("\nExecStart=/usr/bin/passage-authz serve --config /etc/passage-authz/authz.yaml\n")
    );
    // The default drain_timeout and the last words fit into systemd's patience.
    let patience: u64 =
        unit.split("\nTimeoutStopSec=").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    let config = Config::parse(&inline(""), "test.yaml").unwrap();
    assert!(Duration::from_secs(patience) > config.server.drain_timeout + Duration::from_secs(5));
}
