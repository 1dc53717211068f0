//! Load that moves on to a new replica, behind the real Envoy, while no check fails.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::envoy::{Envoy, Upstream, binary};
use crate::support::fixtures::{good, serving};
use crate::support::load::Load;
use crate::support::process::{Running, file, free_port};
use crate::support::{WAIT_LIMIT, get, wait_until};

const REPLICAS: &str = include_str!("../../deploy/envoy/replicas.yaml");

async fn replica(listen: &str, age: &str) -> Running {
    let text = serving(&format!("listen: '{listen}', max_connection_age: {age}"), "");
    let running = Running::serve(file(&text).path(), "info").await;
    running.until_ready().await;
    running
}

/// How many checks a replica has answered.
async fn checks(replica: &Running) -> usize {
    let (_, metrics) = get(replica.admin, "/metrics").await;
    let counted = metrics.lines().filter(|line| line.starts_with("passage_authz_checks_total{"));
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

/// The shipped bootstrap with these endpoints.
pub(crate) fn bootstrap(endpoints: &[SocketAddr], upstream: SocketAddr) -> String {
    let mut bootstrap: Value = serde_saphyr::from_str(REPLICAS).unwrap();
    let clusters = bootstrap.pointer_mut("/static_resources/clusters").unwrap().as_array_mut().unwrap();
    // Names, so that STRICT_DNS has something to resolve.
    let endpoint = |host: &str, port: u16| json!({"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}});
    for cluster in clusters {
        let list: Vec<_> = if cluster["name"] == "passage-authz" {
            cluster["dns_lookup_family"] = json!("V4_ONLY");
            endpoints.iter().map(|address| endpoint("localhost", address.port())).collect()
        } else {
            vec![endpoint("127.0.0.1", upstream.port())]
        };
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = json!(list);
    }
    let any = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    bootstrap["admin"]["address"] = any.clone();
    bootstrap["static_resources"]["listeners"][0]["address"] = any;
    bootstrap.to_string()
}

#[tokio::test]
async fn an_envoy_that_sees_each_replica_gives_a_new_one_its_share() {
    let (first, second) = (replica("127.0.0.1:0", "1s").await, replica("127.0.0.1:0", "1s").await);
    let late = free_port();
    let upstream = Upstream::start().await.unwrap();
    let config = bootstrap(&[first.grpc, second.grpc, late], upstream.address);
    let envoy = Envoy::run(&binary().await, config).await.unwrap();
    wait_until("two of three replicas are known", || async { envoy.healthy().await == 2 }).await;
    let row = AtomicUsize::new(0);
    wait_until("its threads know it, too", || async {
        let token = good();
        let asked = reqwest::Client::new().get(format!("http://{}/", envoy.address)).bearer_auth(token);
        let passed = asked.send().await.unwrap().status() == 200;
        row.store(if passed { row.load(Ordering::Relaxed) + 1 } else { 0 }, Ordering::Relaxed);
        row.load(Ordering::Relaxed) >= 20
    })
    .await;
    let load = Load::through(&envoy);
    load.goes_on(200).await;
    let third = replica(&late.to_string(), "1s").await;
    wait_until("the third is asked", || async { checks(&third).await > 0 }).await;
    let before = (load.answered(), checks(&third).await);
    load.goes_on(1000).await;
    let share = (checks(&third).await - before.1) * 100 / (load.answered() - before.0);
    assert!((20..=50).contains(&share), "{share} % for the third of three");
    load.end().await;
}

/// One address in front of many, as a ClusterIP is: each new connection goes to the next replica.
struct Balancer {
    address: SocketAddr,
    replicas: Arc<Mutex<Vec<SocketAddr>>>,
    _stop: DropGuard,
}

impl Balancer {
    async fn start(replicas: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (replicas, stop) = (Arc::new(Mutex::new(replicas)), CancellationToken::new());
        let (known, stopped) = (Arc::clone(&replicas), stop.clone());
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for turn in 0.. {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stopped.cancelled() => return,
                };
                let (mut client, _) = accepted.unwrap();
                let replica = {
                    let known = known.lock().unwrap();
                    known[turn % known.len()]
                };
                connections.spawn(async move {
                    let Ok(mut replica) = TcpStream::connect(replica).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut replica).await;
                });
            }
        });
        Self { address, replicas, _stop: stop.drop_guard() }
    }
}

/// Runs load through one address, adds a third replica, and says how many checks it got of the next ones.
async fn behind_one_address(age: &str, checks_to_wait_for: usize) -> (usize, usize) {
    let (first, second) = (replica("127.0.0.1:0", age).await, replica("127.0.0.1:0", age).await);
    let balancer = Balancer::start(vec![first.grpc, second.grpc]).await;
    let upstream = Upstream::start().await.unwrap();
    let config = bootstrap(&[balancer.address], upstream.address);
    let envoy = Envoy::run(&binary().await, config).await.unwrap();
    wait_until("healthy", || async { envoy.healthy().await == 1 }).await;
    let load = Load::through(&envoy);
    load.goes_on(100).await;
    let third = replica("127.0.0.1:0", age).await;
    balancer.replicas.lock().unwrap().push(third.grpc);
    let before = load.answered();
    let deadline = tokio::time::Instant::now() + WAIT_LIMIT;
    while tokio::time::Instant::now() < deadline
        && (load.answered() < before + 2000 || checks(&third).await < checks_to_wait_for)
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let got = (checks(&third).await, load.answered() - before);
    load.end().await;
    got
}

#[tokio::test]
async fn behind_one_address_the_age_of_connections_moves_load_on() {
    let (third, all) = behind_one_address("1s", 300).await;
    assert!(third >= 300, "{third} of {all}");
}

#[tokio::test]
async fn behind_one_address_without_an_age_a_new_replica_stays_idle() {
    let (third, all) = behind_one_address("0s", 0).await;
    assert_eq!(third, 0, "of {all}");
}
