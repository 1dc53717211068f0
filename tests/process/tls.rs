//! `server.tls`: certificates that are replaced, clients that must show one, files that cannot be used.

use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::support::events::{logout_token, old_token};
use crate::support::fixtures::{good, serving};
use crate::support::load::Load;
use crate::support::process::{Running, binary, file, free_port};
use crate::support::tls::{authority, issued_by};
use crate::support::{check_token, wait_until};

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

#[tokio::test]
async fn a_certificate_is_replaced_under_load_and_a_bad_one_is_not() {
    let certificates = Certificates::new();
    let config = serving(&format!("listen: '127.0.0.1:0', tls: {}", certificates.config(false)), "");
    let config = file(&config);
    let mut running = Running::serve(config.path(), "info").await;
    let address = running.grpc;
    let first = certificates.shown(address).await;
    // A new connection for each request, and one that stays.
    let stays = certificates.client(address, false);
    let certificates = Arc::new(certificates);
    let asked = Arc::clone(&certificates);
    let load = Load::start(4, move || {
        let (fresh, stays) = (asked.client(address, false), stays.clone());
        async move {
            for client in [fresh, stays] {
                let answer = check_token(&client, &good()).await.map_err(|status| status.to_string())?;
                if answer.code() != "allowed" {
                    return Err(answer.code().to_owned());
                }
            }
            Ok(())
        }
    });
    std::fs::write(certificates.folder.path().join("tls.key"), "-----BEGIN PRIVATE KEY----- c2VjcmV0")
        .unwrap();
    running.until_logged("the new certificate is refused, the old one goes on").await;
    assert_eq!(certificates.shown(address).await, first, "a bad key changes nothing");
    certificates.renew();
    wait_until("the new certificate", || async { certificates.shown(address).await != first }).await;
    load.goes_on(10).await;
    load.end().await;
    let plain = AuthorizationClient::connect(format!("http://{address}")).await.unwrap();
    assert!(check_token(&plain, &good()).await.is_err(), "plaintext is refused");

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
    assert_eq!(check_token(&known, &good()).await.unwrap().code(), "allowed");
    assert!(check_token(&certificates.client(running.grpc, false), &good()).await.is_err());
    let stranger = Certificates::new();
    let (certificate, key) = issued_by(&stranger.authority, "client");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(certificates.authority.pem()))
        .domain_name("localhost")
        .identity(Identity::from_pem(certificate.pem(), key.serialize_pem()));
    let channel = Channel::from_shared(format!("https://{}", running.grpc)).unwrap();
    let client = AuthorizationClient::new(channel.tls_config(tls).unwrap().connect_lazy());
    assert!(check_token(&client, &good()).await.is_err());
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

/// Proxies must show a certificate, issuers need none, and replicas know each other by the authority.
#[tokio::test]
async fn events_come_over_the_same_certificate_from_clients_without_one() {
    let certificates = Certificates::new();
    let ports = [free_port().port(), free_port().port()];
    let config = |at: usize| {
        let server = format!("listen: '127.0.0.1:0', tls: {}", certificates.config(true));
        let peers = format!("['localhost:{}', 'localhost:{}']", ports[0], ports[1]);
        let listen = format!("127.0.0.1:{}", ports[at]);
        serving(&server, &format!("revocation: {{listen: '{listen}', audiences: [shop], peers: {peers}}}"))
    };
    let mut replicas = Vec::new();
    for at in 0..2 {
        let running = Running::serve(file(&config(at)).path(), "info").await;
        running.until_ready().await;
        replicas.push(running);
    }
    let root = reqwest::Certificate::from_pem(certificates.authority.pem().as_bytes()).unwrap();
    let issuer = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
    let logout = logout_token("user-1", |_, _| {});
    let request = issuer
        .post(format!("https://localhost:{}/backchannel-logout", ports[0]))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("logout_token={logout}"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let token = old_token("user-1");
    for replica in &replicas {
        let client = certificates.client(replica.grpc, true);
        let is_revoked = || async {
            check_token(&client, &token).await.is_ok_and(|answer| answer.code() == "token_revoked")
        };
        wait_until("revoked", is_revoked).await;
    }
    // In plaintext nothing is understood.
    let plain = reqwest::get(format!("http://127.0.0.1:{}/backchannel-logout", ports[0])).await;
    assert!(plain.is_err(), "{plain:?}");
}
