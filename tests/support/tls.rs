//! TLS in front of a plain server, under a certificate authority of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use passage_authz::domain::clock::Clock;
use passage_authz::testing::FakeIssuer;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// A certificate authority of its own.
pub(crate) fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this name, and its key.
pub(crate) fn issued_by(authority: &CertifiedIssuer<'_, KeyPair>, name: &str) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut own = CertificateParams::new(vec![name.to_owned()]).unwrap();
    // By default rcgen gives every certificate the same name, and one named like its issuer counts as self-signed.
    own.distinguished_name.push(DnType::CommonName, name);
    (own.signed_by(&key, authority).unwrap(), key)
}

/// A certificate for this name that expired so long ago, and its key.
pub(crate) fn expired_by(
    authority: &CertifiedIssuer<'_, KeyPair>,
    name: &str,
    ago: Duration,
) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut own = CertificateParams::new(vec![name.to_owned()]).unwrap();
    own.distinguished_name.push(DnType::CommonName, name);
    let expired = Duration::from_secs(Clock::default().now().as_secs()) - ago;
    own.not_after = (SystemTime::UNIX_EPOCH + expired).into();
    (own.signed_by(&key, authority).unwrap(), key)
}

/// A TLS server on `localhost` that passes on to another; it ends when dropped.
pub(crate) struct Tls {
    address: SocketAddr,
    /// The authority's certificate, PEM.
    pub(crate) ca: String,
    _tasks: JoinSet<()>,
}

impl Tls {
    pub(crate) async fn in_front_of(issuer: &FakeIssuer) -> Self {
        Self::demanding(issuer, None).await
    }

    /// With the authority of the certificates that clients must show.
    pub(crate) async fn demanding(
        issuer: &FakeIssuer,
        clients: Option<&CertifiedIssuer<'_, KeyPair>>,
    ) -> Self {
        let authority = authority();
        let (certificate, key) = issued_by(&authority, "localhost");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = match clients {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = issuer.url().strip_prefix("http://").unwrap().to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                connections.spawn(async move {
                    // A client that does not trust the authority ends the handshake.
                    let Ok(mut outer) = acceptor.accept(stream).await else { return };
                    let mut inner = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        Self { address, ca: authority.pem(), _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}
