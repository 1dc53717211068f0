//! What operators rely on: certificates, sockets, ages, limits, numbers, logs and traces.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::envoy::{Envoy, Upstream, seen};
use crate::support::process::{Running, binary, file, wait_until};
use crate::support::tls::{authority, issued_by};
use crate::support::{Answer, Service, check_request, get, raw_check_request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::config::Config;
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey, jwks, tampered};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn key() -> Arc<SigningKey> {
    SigningKey::shared("k1", Algorithm::Rs256)
}

/// One app whose keys are in the configuration.
fn inline() -> String {
    let keys = jwks(&[&key()]);
    format!("issuers: [{{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}]\n")
}

/// The same, for more issuers to follow.
fn inline_block() -> String {
    let keys = jwks(&[&key()]);
    format!("issuers:\n  - {{name: passage, passage: {{app_id: app1}}, keys: {{inline: {keys}}}}}\n")
}

fn good() -> String {
    key().mint("app1", |_, _| {})
}

async fn bearer(client: &AuthorizationClient<Channel>, token: &str) -> Result<Answer, tonic::Status> {
    let request = check_request(&[("authorization", &format!("Bearer {token}"))]);
    client.clone().check(request).await.map(|response| Answer::from(response.into_inner()))
}

/// Asks without pause until it is dropped; counts what was answered, and fails on what was not.
struct Constant {
    stop: Arc<AtomicBool>,
    tasks: tokio::task::JoinSet<usize>,
}

impl Constant {
    fn load<F: Future<Output = ()> + Send + 'static>(ask: impl Fn() -> F + Clone + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (stop, ask) = (Arc::clone(&stop), ask.clone());
            tasks.spawn(async move {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    ask().await;
                    asked += 1;
                }
                asked
            });
        }
        Self { stop, tasks }
    }

    async fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut asked = 0;
        while let Some(task) = self.tasks.join_next().await {
            asked += task.expect("no request fails");
        }
        asked
    }
}

struct Certificates {
    folder: tempfile::TempDir,
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap(), authority: authority() };
        std::fs::write(made.folder.path().join("ca.pem"), made.authority.pem()).unwrap();
        made.renew();
        made
    }

    /// A new certificate under the same authority, certificate first and key after it.
    fn renew(&self) {
        let (certificate, key) = issued_by(&self.authority, "localhost");
        std::fs::write(self.folder.path().join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(self.folder.path().join("tls.key"), key.serialize_pem()).unwrap();
    }

    fn config(&self, client_ca: bool) -> String {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let client_ca = if client_ca { format!(", client_ca: {}", at("ca.pem")) } else { String::new() };
        format!("{{cert: {}, key: {}{client_ca}}}", at("tls.crt"), at("tls.key"))
    }

    fn client(&self, address: SocketAddr, identity: bool) -> AuthorizationClient<Channel> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name("localhost");
        if identity {
            let (certificate, key) = issued_by(&self.authority, "client");
            tls = tls.identity(Identity::from_pem(certificate.pem(), key.serialize_pem()));
        }
        let channel = Channel::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
        AuthorizationClient::new(channel.connect_lazy())
    }

    /// The certificate that the server shows.
    async fn shown(&self, address: SocketAddr) -> Vec<u8> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let connected =
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        connected.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

fn serving(server: &str, more: &str) -> String {
    format!("server: {{{server}, drain_timeout: 5s}}\nadmin: {{listen: '127.0.0.1:0'}}\n{}{more}", inline())
}

#[tokio::test]
async fn a_certificate_is_replaced_under_load_and_a_bad_one_is_not() {
    let certificates = Certificates::new();
    let config = serving(&format!("listen: '127.0.0.1:0', tls: {}", certificates.config(false)), "");
    let config = file(&config);
    let running = Running::serve(config.path(), "info").await;
    let address = running.grpc;
    let first = certificates.shown(address).await;
    // A new connection for each request, and one that stays.
    let stays = certificates.client(address, false);
    let certificates = Arc::new(certificates);
    let asked = Arc::clone(&certificates);
    let load = Constant::load(move || {
        let (fresh, stays) = (asked.client(address, false), stays.clone());
        async move {
            for client in [fresh, stays] {
                assert_eq!(bearer(&client, &good()).await.expect("no request fails").code(), "allowed");
            }
        }
    });
    std::fs::write(certificates.folder.path().join("tls.key"), "-----BEGIN PRIVATE KEY----- c2VjcmV0")
        .unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(certificates.shown(address).await, first, "a bad key changes nothing");
    certificates.renew();
    wait_until("the new certificate", || async { certificates.shown(address).await != first }).await;
    assert!(load.end().await > 10);
    let plain = AuthorizationClient::connect(format!("http://{address}")).await.unwrap();
    assert!(bearer(&plain, &good()).await.is_err(), "plaintext is refused");

    running.signal("-TERM").await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("the new certificate is refused, the old one goes on").count(), 1, "{log}");
    assert_eq!(log.matches("the certificate was replaced").count(), 1, "{log}");
    assert!(!log.contains("c2VjcmV0"), "{log}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_turned_away() {
    let certificates = Certificates::new();
    let config = serving(&format!("listen: '127.0.0.1:0', tls: {}", certificates.config(true)), "");
    let running = Running::serve(file(&config).path(), "info").await;
    let known = certificates.client(running.grpc, true);
    assert_eq!(bearer(&known, &good()).await.unwrap().code(), "allowed");
    assert!(bearer(&certificates.client(running.grpc, false), &good()).await.is_err());
    let stranger = Certificates::new();
    let (certificate, key) = issued_by(&stranger.authority, "client");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(certificates.authority.pem()))
        .domain_name("localhost")
        .identity(Identity::from_pem(certificate.pem(), key.serialize_pem()));
    let channel = Channel::from_shared(format!("https://{}", running.grpc)).unwrap();
    let client = AuthorizationClient::new(channel.tls_config(tls).unwrap().connect_lazy());
    assert!(bearer(&client, &good()).await.is_err());
}

#[tokio::test]
async fn an_unusable_certificate_ends_with_2_before_anything_is_bound() {
    let (certificates, other) = (Certificates::new(), Certificates::new());
    let at = |of: &Certificates, name: &str| of.folder.path().join(name).display().to_string();
    let (cert, key) = (at(&certificates, "tls.crt"), at(&certificates, "tls.key"));
    for (tls, want) in [
        (format!("{{cert: {cert}, key: {}}}", at(&other, "tls.key")), "KeyMismatch"),
        (format!("{{cert: {key}, key: {key}}}"), "tls.key: holds no certificate"),
        (format!("{{cert: {cert}, key: {cert}}}"), "tls.crt: holds no PEM of the kind that belongs there"),
        (format!("{{cert: {cert}, key: {key}, client_ca: {key}}}"), "tls.key: holds no certificate"),
        (format!("{{cert: /no/such.crt, key: {key}}}"), "/no/such.crt cannot be read"),
    ] {
        let config = file(&serving(&format!("listen: '127.0.0.1:0', tls: {tls}"), ""));
        for verb in ["serve", "check-config"] {
            let output = binary().args([verb, "--config"]).arg(config.path()).output().await.unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{verb} {tls}: {said}");
            assert!(said.contains(want) && said.contains("server.tls"), "{said}\n not: {want}");
            assert!(!said.contains("listening") && !said.contains("BEGIN"), "{said}");
        }
    }
}

#[tokio::test]
async fn envoy_asks_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authz.sock");
    let config = serving(&format!("listen: 'unix:{}', unix_mode: '0600'", path.display()), "");
    let running = Running::serve(file(&config).path(), "info").await;
    let upstream = Upstream::start().await.unwrap();
    let envoy = tokio::task::spawn_blocking(|| crate::support::envoy::find(true)).await.unwrap().unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let pipe = |config: String| {
        let socket = "socket_address: {address: 127.0.0.1, port_value: 1}";
        assert!(config.contains(socket));
        config.replace(socket, &format!("pipe: {{path: {}}}", path.display()))
    };
    let envoy = Envoy::start(&envoy, nowhere, upstream.address, pipe).await.unwrap();
    let client = reqwest::Client::new();
    let ask = || client.get(format!("http://{}/", envoy.address));
    assert_eq!(ask().send().await.unwrap().status(), 401);
    let answer = ask().bearer_auth(good()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let echo: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(seen(&echo, "x-passage-user-id"), ["user-1"]);
    running.signal("-TERM").await;
    assert_eq!(running.end().await.0, Some(0));
    assert!(!path.exists(), "the socket goes with its server");
}

#[tokio::test]
async fn a_connection_that_is_old_goes_away_without_losing_a_check() {
    let config = serving("listen: '127.0.0.1:0', max_connection_age: 1s", "");
    let running = Running::serve(file(&config).path(), "debug").await;
    let address = running.grpc;
    // What a client sees of it: GOAWAY at an age of 0.9 to 1.1 s, on an idle connection too.
    let begun = tokio::time::Instant::now();
    let stream = TcpStream::connect(address).await.unwrap();
    let (_send, connection) = h2::client::handshake(stream).await.unwrap();
    let idle = tokio::spawn(async move {
        let ended = connection.await;
        (begun.elapsed(), ended.map_err(|error| error.to_string()))
    });
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(address, &upstream).await;
    let (client, url) = (reqwest::Client::new(), format!("http://{}/", envoy.address));
    let load = Constant::load(move || {
        let request = client.get(&url).bearer_auth(good());
        async move { assert_eq!(request.send().await.unwrap().status(), 200, "no check is lost") }
    });
    let (age, ended) = idle.await.unwrap();
    assert_eq!(ended, Ok(()), "a goodbye, not a cut");
    // An idle connection is let go after 20 s in any case.
    assert!((Duration::from_millis(900)..Duration::from_secs(15)).contains(&age), "{age:?}");
    // Long enough for Envoy's own connection to be replaced more than once.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert!(load.end().await > 100);
    let (_, metrics) = get(running.admin, "/metrics").await;
    assert!(metrics.contains("passage_authz_connections{port=\"grpc\"} "), "{metrics}");
}

#[tokio::test]
async fn past_max_connections_new_ones_are_refused_and_old_ones_served() {
    let config = serving("listen: '127.0.0.1:0', max_connections: 3", "");
    let running = Running::serve(file(&config).path(), "info").await;
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    assert_eq!(bearer(&client, &good()).await.unwrap().code(), "allowed");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(running.grpc).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        stream.read_u8().await.expect("the server's own SETTINGS");
        held.push(stream);
    }
    for _ in 0..5 {
        let mut stream = TcpStream::connect(running.grpc).await.unwrap();
        let ended = stream.read(&mut [0; 16]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "closed at once: {ended:?}");
    }
    assert_eq!(bearer(&client, &good()).await.unwrap().code(), "allowed");
    let (_, metrics) = get(running.admin, "/metrics").await;
    assert!(metrics.contains("passage_authz_connections_refused_total{port=\"grpc\"} 5\n"), "{metrics}");
    held.pop();
    wait_until("room again", || async {
        let fresh = AuthorizationClient::connect(format!("http://{}", running.grpc)).await;
        match fresh {
            Ok(fresh) => bearer(&fresh, &good()).await.is_ok(),
            Err(_) => false,
        }
    })
    .await;
}

#[tokio::test]
async fn too_many_checks_under_way_are_refused_at_once_and_health_is_not() {
    let slow = FakeIssuer::start(Behavior::Hang).await;
    let running = Running::start(
        &format!(
            "{}  - {{name: slow, issuer: slow, audiences: [], refresh: {{timeout: 10s, wait: 10s}}, keys: {{url: '{}/keys'}}}}\n",
            inline_block(),
            slow.url()
        ),
        "info",
    )
    .await;
    running.until_ready().await;
    let client = AuthorizationClient::new(channel(running.grpc));
    assert_eq!(bearer(&client, &good()).await.unwrap().code(), "allowed");
    // Checks that wait for keys, as many as two cores may not have under way; who is refused tries again.
    let token = key().mint("slow", |_, _| {});
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..34 {
        let client = AuthorizationClient::new(channel(running.grpc));
        for _ in 0..256 {
            let (client, token) = (client.clone(), token.clone());
            waiting.spawn(async move {
                while bearer(&client, &token).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
    }
    let refused = async || client.clone().check(check_request(&[])).await.err().map(|status| status.code());
    // Often enough that it is for good.
    for _ in 0..5 {
        wait_until("refused", || async { refused().await == Some(tonic::Code::Unavailable) }).await;
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(refused().await, Some(tonic::Code::Unavailable));
    assert!(begun.elapsed() < Duration::from_secs(2), "at once: {:?}", begun.elapsed());
    let health = HealthClient::new(channel(running.grpc)).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status, 1, "too much to do is no reason to be restarted");
    let (_, metrics) = get(running.admin, "/metrics").await;
    assert!(series(&metrics, "passage_authz_overloaded_total").values().all(|count| *count >= 2.0));
    waiting.shutdown().await;
    wait_until("served again", || async { refused().await.is_none() }).await;
}

fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

/// The messages of one call as they go over the wire; the call stays open. Its grpc-status, whenever it comes.
async fn status_of(address: SocketAddr, path: &str, data: &[u8]) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let serving = tokio::spawn(connection);
    let request = http::Request::post(format!("http://a{path}")).header("content-type", "application/grpc");
    let request = request.body(()).unwrap();
    let (response, mut open) = send.ready().await.unwrap().send_request(request, false).unwrap();
    if !data.is_empty() {
        open.send_data(data.to_vec().into(), false).unwrap();
    }
    let response = response.await.unwrap();
    let status = response.headers().get("grpc-status").cloned();
    let status = match status {
        Some(status) => status,
        None => {
            let mut body = response.into_body();
            while body.data().await.is_some() {}
            body.trailers().await.unwrap().unwrap().get("grpc-status").cloned().unwrap()
        }
    };
    serving.abort();
    status.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn messages_that_never_come_are_not_waited_for_and_none_is_larger_than_it_may_be() {
    const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
    const HEALTH: &str = "/grpc.health.v1.Health/Check";
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let (unavailable, late, out_of_range) = ("14", "4", "11");
    let service = Service::ready(&inline()).await;
    let announcing = |length: u32| [&[0][..], &length.to_be_bytes()].concat();
    let begun = tokio::time::Instant::now();
    let asked = [
        (CHECK, Vec::new(), unavailable),
        (CHECK, announcing(1000), unavailable),
        (CHECK, [announcing(1000), vec![0; 500]].concat(), unavailable),
        (HEALTH, Vec::new(), late),
        (HEALTH, announcing(1000), late),
        // What is announced is made room for, so it is the announcement that is refused.
        (HEALTH, announcing(4 * 1024 * 1024 - 1), out_of_range),
        (HEALTH, announcing(5000), out_of_range),
        // It ends without a word.
        (REFLECTION, announcing(4 * 1024 * 1024 - 1), "0"),
    ];
    for (path, data, want) in &asked {
        assert_eq!(status_of(service.grpc, path, data).await, *want, "{path} {data:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // Too large for a check is a verdict, so that it is counted, logged, and never for the proxy to decide.
    let large = announcing(64 * 1024 + 1);
    assert_eq!(status_of(service.grpc, CHECK, &large).await, "0");
    let open = tokio::spawn(async move { status_of(service.grpc, HEALTH, &[]).await });
    let begun = tokio::time::Instant::now();
    assert!(service.end().await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(12), "a question without an end holds up no drain");
    open.abort();
}

#[tokio::test]
async fn a_check_that_is_too_large_is_answered_400_and_the_connection_lives() {
    let service = Service::ready(&inline()).await;
    let large = raw_check_request(&[("x-large", &[b'a'; 64 * 1024])]);
    let answer = service.send(large).await;
    assert_eq!((answer.http, answer.code()), (400, "request_malformed"));
    let fits = raw_check_request(&[("x-large", &[b'a'; 60 * 1024])]);
    assert_eq!(service.send(fits).await.code(), "token_missing");
    let (_, metrics) = get(service.admin, "/metrics").await;
    let counted = series(&metrics, "passage_authz_checks_total");
    let malformed = counted.iter().find(|(labels, _)| labels.contains("request_malformed")).unwrap();
    assert_eq!(*malformed.1, 1.0);

    // The same through Envoy, which says the path twice: half of its own limit is enough.
    let upstream = Upstream::start().await.unwrap();
    let envoy = Envoy::in_front_of(service.grpc, &upstream).await;
    let ask = async |length: usize| {
        let url = format!("http://{}/{}", envoy.address, "a".repeat(length));
        let answer = reqwest::Client::new().get(url).bearer_auth(good()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask(20_000).await.0, 200);
    let (status, body) = ask(40_000).await;
    assert_eq!(status, 400);
    assert!(body.contains("request_malformed"), "{body}");
}

#[tokio::test]
async fn reflection_and_health_say_what_is_there() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let service = Service::ready(&inline()).await;
    let channel = Channel::from_shared(format!("http://{}", service.grpc)).unwrap().connect_lazy();
    let ask = async |message| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let (send, receive) = tokio::sync::mpsc::channel(1);
        send.send(request).await.unwrap();
        let mut client = ServerReflectionClient::new(channel.clone());
        let requests = tokio_stream_of(receive);
        let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
        let ServerReflectionResponse { message_response, .. } = answers.message().await.unwrap().unwrap();
        // The stream stays open on purpose: a drain must not wait for it.
        tokio::spawn(async move {
            let _open = (send, answers.message().await);
        });
        message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("a list")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let want = [
        "envoy.service.auth.v3.Authorization",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ];
    assert_eq!(names, want);
    let symbol = MessageRequest::FileContainingSymbol("envoy.service.auth.v3.CheckRequest".to_owned());
    assert!(matches!(ask(symbol).await, MessageResponse::FileDescriptorResponse(_)));

    let mut health = HealthClient::new(channel);
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request.clone()).await.unwrap().into_inner().status, 1, "{service}");
        let mut watch = health.watch(request).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    }
    let begun = tokio::time::Instant::now();
    assert!(service.end().await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(4), "open streams hold up no drain");
}

fn tokio_stream_of<T: Send + 'static>(
    mut receive: tokio::sync::mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> + Send + 'static {
    futures_util::stream::poll_fn(move |context| receive.poll_recv(context))
}

/// The value of each series of a metric, by its labels as they stand.
fn series(metrics: &str, name: &str) -> HashMap<String, f64> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let lines = lines.filter(|line| line.starts_with('{') || line.starts_with(' '));
    let series = lines.map(|line| line.rsplit_once(' ').unwrap());
    series.map(|(labels, value)| (labels.to_owned(), value.parse().unwrap())).collect()
}

#[tokio::test]
async fn ten_thousand_checks_are_counted_as_the_client_counted_them() {
    let service = Service::ready(&inline()).await;
    let mint = |edit: fn(&mut Value, &mut Value)| key().mint("app1", edit);
    let tokens = [
        good(),
        tampered(&good()),
        mint(|_, claims| claims["exp"] = json!(1)),
        mint(|_, claims| claims["iss"] = json!("stranger")),
        mint(|header, _| header["kid"] = json!("unknown")),
        mint(|header, _| header["alg"] = json!("none")),
        "x".to_owned(),
        "x".repeat(9000),
    ];
    let counted: HashMap<String, usize> = HashMap::new();
    let counted = Arc::new(std::sync::Mutex::new(counted));
    let next = Arc::new(AtomicUsize::new(0));
    let asking = (0..32).map(|_| {
        let (service, tokens) = (&service, &tokens);
        let (counted, next) = (Arc::clone(&counted), Arc::clone(&next));
        async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= 10_000 {
                    return;
                }
                let answer = match tokens.get(at % (tokens.len() + 2)) {
                    Some(token) => service.bearer(token).await,
                    None if at % 2 == 0 => service.check(&[]).await,
                    None => service.send(Default::default()).await,
                };
                *counted.lock().unwrap().entry(answer.code().to_owned()).or_default() += 1;
            }
        }
    });
    crate::support::join_all(asking).await;
    let (_, metrics) = get(service.admin, "/metrics").await;
    let mut told: HashMap<String, usize> = HashMap::new();
    for (labels, count) in series(&metrics, "passage_authz_checks_total") {
        let code = labels.split("code=\"").nth(1).unwrap().split('"').next().unwrap();
        let code = if code.is_empty() { "allowed" } else { code };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = count as usize;
        *told.entry(code.to_owned()).or_default() += count;
    }
    let counted = counted.lock().unwrap().clone();
    assert_eq!(counted.values().sum::<usize>(), 10_000);
    assert_eq!(counted.len(), 10, "{counted:?}");
    assert_eq!(told, counted);
    let duration = series(&metrics, "passage_authz_check_duration_seconds_count");
    assert_eq!(duration.values().copied().collect::<Vec<_>>(), [10_000.0]);
    for name in [
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_virtual_memory_bytes ",
        "process_open_fds ",
        "process_max_fds ",
        "process_start_time_seconds ",
        "passage_authz_overloaded_total 0",
        concat!("passage_authz_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}\n{metrics}");
    }
    // Every metric stands in the README, and nothing else does.
    let readme = include_str!("../../README.md");
    let shown =
        readme.lines().filter_map(|line| line.strip_prefix("| `passage_authz_")?.split(['{', '`']).next());
    let shown: std::collections::BTreeSet<_> = shown.map(|name| name.trim_end_matches("_total")).collect();
    let ours =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE passage_authz_")?.split(' ').next());
    let ours: std::collections::BTreeSet<_> =
        ours.map(|name| if name == "build" { "build_info" } else { name }).collect();
    assert_eq!(shown, ours);
    let start = series(&metrics, "process_start_time_seconds").into_values().next().unwrap();
    let now = passage_authz::domain::clock::Clock::default().now().as_secs_f64();
    assert!((now - 600.0..=now + 1.0).contains(&start), "{start} {now}");
}

#[tokio::test]
async fn a_denial_is_one_line_and_an_allow_is_none_unless_wanted() {
    let rules = "rules: [{name: admin, match: {paths: ['/admin/*']}, require: {claims: {role: admin}}}]\n";
    for (log, lines) in [
        ("", vec![("denied", "claims_insufficient", true), ("denied", "token_missing", false)]),
        (
            "decision_log: {denied: 1, allowed: 1, subject: clear}",
            vec![
                ("denied", "claims_insufficient", true),
                ("denied", "token_missing", false),
                ("allowed", "", true),
            ],
        ),
        ("decision_log: {denied: 0}", vec![]),
    ] {
        let running = Running::start(&format!("{}{rules}{log}", inline()), "info").await;
        let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
        let bearer = format!("Bearer {}", good());
        let ask = async |path: &str, headers: &[(&str, &str)]| {
            let request = crate::support::header_map_request("GET", "shop.example", path, headers);
            Answer::from(client.clone().check(request).await.unwrap().into_inner()).code().to_owned()
        };
        let id = ("x-request-id", "id-7");
        let code = ask("/admin/x?access_token=secret", &[("authorization", &bearer), id]).await;
        assert_eq!(code, "claims_insufficient");
        assert_eq!(ask("/", &[id]).await, "token_missing");
        assert_eq!(ask("/", &[("authorization", &bearer)]).await, "allowed");
        running.signal("-TERM").await;
        let (_, said) = running.end().await;
        let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let said: Vec<_> = said.into_iter().filter(|event| event["message"] == "decision").collect();
        assert_eq!(said.len(), lines.len(), "{log}: {said:#?}");
        for (event, (outcome, code, has_subject)) in said.iter().zip(lines) {
            assert_eq!((event["outcome"].as_str(), event["code"].as_str()), (Some(outcome), Some(code)));
            let hash = "c6c289e49e9c05b2145860387b73bcb18df43fb09a1e4a4a9713c76c88bb541b";
            let subject = if log.contains("clear") { "user-1" } else { hash };
            assert_eq!(event["sub"].as_str(), has_subject.then_some(subject), "{event}");
            assert_eq!(event["issuer"].as_str(), has_subject.then_some("passage"), "{event}");
            assert_eq!((&event["host"], &event["method"]), (&json!("shop.example"), &json!("GET")));
            if code == "claims_insufficient" {
                assert_eq!((&event["path"], &event["rule"]), (&json!("/admin/x"), &json!("admin")));
                assert_eq!(event["request_id"], "id-7");
            }
        }
    }
}

/// A collector that keeps what it is sent over HTTP.
async fn collector() -> (SocketAddr, Arc<std::sync::Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let keep = Arc::clone(&keep);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    keep.lock().unwrap().extend_from_slice(&buffer[..count]);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    (address, kept)
}

#[tokio::test]
async fn a_check_is_a_span_of_the_requests_trace() {
    let (address, kept) = collector().await;
    let config = file(&serving("listen: '127.0.0.1:0'", ""));
    let start = async |exporting: bool| {
        let mut command = binary();
        command.args(["serve", "--config"]).arg(config.path()).env("RUST_LOG", "info");
        if exporting {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
        }
        Running::spawn(&mut command).await
    };
    let holds = |bytes: &[u8]| {
        let kept = kept.lock().unwrap();
        kept.windows(bytes.len()).any(|window| window == bytes)
    };
    for exporting in [false, true] {
        let running = start(exporting).await;
        let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
        let of_request = format!("00-{}-{}-01", "ab".repeat(16), "cd".repeat(8));
        let of_call = format!("00-{}-{}-01", "12".repeat(16), "34".repeat(8));
        let request = check_request(&[("traceparent", &of_request)]);
        client.clone().check(request.clone()).await.unwrap();
        let mut with_own = tonic::Request::new(request.clone());
        with_own.metadata_mut().insert("traceparent", of_call.parse().unwrap());
        client.clone().check(with_own).await.unwrap();
        let unsampled =
            check_request(&[("traceparent", &of_request.replace("ab", "ef").replace("-01", "-00"))]);
        client.clone().check(unsampled).await.unwrap();
        running.signal("-TERM").await;
        let (code, log) = running.end().await;
        assert_eq!(code, Some(0), "{log}");
        // What is left is sent at the end.
        for bytes in [[0xab; 16], [0x12; 16]] {
            assert_eq!(holds(&bytes), exporting, "{bytes:x?} {log}");
        }
        assert!(!holds(&[0xef; 16]), "the caller's sampling decision is kept");
        for text in ["passage-authz", "token_missing", "passage_authz.outcome"] {
            assert_eq!(holds(text.as_bytes()), exporting, "{text}");
        }
    }
    for parent in [[0xcd_u8; 8], [0x34; 8]] {
        assert!(holds(&parent), "the span hangs under its parent");
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_a_taken_port_is_named() {
    let running = Running::start_with(&inline(), "info", "1m").await;
    // A check whose message never comes keeps the drain waiting.
    let stream = TcpStream::connect(running.grpc).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://a/envoy.service.auth.v3.Authorization/Check")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let _open = send.send_request(request, false).unwrap();
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    assert_eq!(bearer(&client, &good()).await.unwrap().code(), "allowed");

    for (listen, key) in [("server", "server.listen"), ("admin", "admin.listen")] {
        let taken = if listen == "server" { running.grpc } else { running.admin };
        let other = if listen == "server" { "admin" } else { "server" };
        let config =
            format!("{listen}: {{listen: '{taken}'}}\n{other}: {{listen: '127.0.0.1:0'}}\n{}", inline());
        let output = binary().args(["serve", "--config"]).arg(file(&config).path()).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{key}: cannot listen on {taken}: Address already in use")), "{said}");
    }

    let admin = running.admin;
    running.signal("-TERM").await;
    wait_until("draining", || async { get(admin, "/readyz").await.1 == "draining\n" }).await;
    let begun = tokio::time::Instant::now();
    running.signal("-INT").await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(log.contains("a second signal: the service ends without draining"), "{log}");
}

#[test]
fn the_unit_of_systemd_matches_the_service() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/passage-authz.service");
    let unit = std::fs::read_to_string(path).unwrap();
    assert!(unit.contains("\nType=notify\n"));
    assert!(
        unit.contains("\nExecStart=/usr/bin/passage-authz serve --config /etc/passage-authz/authz.yaml\n")
    );
    // The default drain_timeout and the last words fit into systemd's patience.
    let patience: u64 =
        unit.split("\nTimeoutStopSec=").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    let config = Config::parse(&inline(), "test.yaml").unwrap();
    assert!(Duration::from_secs(patience) > config.server.drain_timeout + Duration::from_secs(5));
}
