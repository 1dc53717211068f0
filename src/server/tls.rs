//! TLS on the gRPC port and on that of `revocation.listen`: the certificates are read at start and again when their files change.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::interval;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;
use crate::domain::clock::{Clock, UnixTime};
use crate::watched_file::{FileIo, WatchedFiles};

mod expiry;

pub struct Tls {
    files: TlsFiles,
    in_use: ArcSwap<InUse>,
    /// With the versions that `in_use` was made from.
    watched: WatchedFiles,
    file_io: FileIo,
}

impl fmt::Debug for Tls {
    /// Not the configuration: it has the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Over HTTP/2, with a certificate if `server.tls.client_ca` asks for one.
    Proxies,
    /// Over HTTP/1.1 and without a certificate: what issuers send is signed.
    Issuers,
}

struct InUse {
    /// For [`Clients::Proxies`].
    config: Arc<ServerConfig>,
    /// For [`Clients::Issuers`].
    open: Arc<ServerConfig>,
    expires_at: Option<UnixTime>,
}

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the kind that belongs there.
    #[error("server.tls: {}: {error}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: Unreadable,
    },
    /// A file without a certificate.
    #[error("server.tls: {}: holds no certificate", .0.display())]
    Empty(PathBuf),
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("server.tls: {} with {}: {error}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
    /// Roots that no client certificate can be verified with.
    #[error("server.tls: {}: {error}", file.display())]
    Roots {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: VerifierBuilderError,
    },
    /// The files' disk hangs.
    #[error("server.tls: {0}")]
    FileIo(#[from] io::Error),
}

/// Why a PEM file cannot be read. [`pem::Error`]'s own message quotes the file: a private key on one line with its marker
/// would be logged.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The read failed.
    #[error(transparent)]
    File(io::Error),
    /// PEM of other kinds, or no PEM.
    #[error("holds no PEM of the kind that belongs there")]
    NoItem,
    /// Damaged PEM.
    #[error("is not well-formed PEM")]
    Malformed,
}

impl From<pem::Error> for Unreadable {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => Self::File(error),
            pem::Error::NoItemsFound => Self::NoItem,
            _ => Self::Malformed,
        }
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let TlsFiles { cert, key, client_ca } = &files;
        let paths = [cert, key].into_iter().chain(client_ca).cloned().collect();
        let file_io = FileIo::new();
        let watched = WatchedFiles::new(paths, file_io.clone());
        let in_use = ArcSwap::from_pointee(read(&files)?);
        Ok(Self { files, in_use, watched, file_io })
    }

    /// The TLS handshake with a client.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        clients: Clients,
    ) -> io::Result<TlsStream<S>> {
        let in_use = self.in_use.load();
        let config = match clients {
            Clients::Proxies => &in_use.config,
            Clients::Issuers => &in_use.open,
        };
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        drop(in_use);
        acceptor.accept(stream).await
    }

    /// When the certificate that clients are shown expires.
    pub(crate) fn expires_at(&self) -> Option<UnixTime> {
        self.in_use.load().expires_at
    }

    /// Reads the files again when they change, until `stop`. If the new files cannot be used, the old certificates stay. A
    /// certificate that has expired, or soon will, is logged.
    pub(crate) async fn follow(self: Arc<Self>, clock: Clock, stop: CancellationToken) {
        let watching = async {
            let (mut watched, mut look) = (self.watched.clone(), interval(expiry::LOOK_INTERVAL));
            loop {
                tokio::select! {
                    () = watched.settled_change() => {}
                    _ = look.tick() => {
                        if let Some(expires_at) = self.expires_at() {
                            expiry::log(&self.files.cert, expires_at, clock.now());
                        }
                        continue;
                    }
                }
                let files = self.files.clone();
                match self.file_io.run(move || read(&files)).await.map_err(TlsError::from).flatten() {
                    Ok(in_use) => {
                        let expires = in_use.expires_at.map(UnixTime::rfc3339);
                        self.in_use.store(Arc::new(in_use));
                        tracing::info!(expires, "the certificate was replaced");
                        look.reset_immediately();
                    }
                    Err(error) => {
                        tracing::error!(%error, "the new certificate is refused, the old one goes on");
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = watching => {}
        }
    }
}

/// TLS 1.2 and 1.3 with the defaults of rustls, and ALPN `h2` alone: gRPC is HTTP/2.
fn read(TlsFiles { cert, key, client_ca }: &TlsFiles) -> Result<InUse, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let pair = |error| TlsError::Pair { cert: cert.clone(), key: key.clone(), error };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(pair)?;
    let open = builder.clone().with_no_client_auth();
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            let named = |error| TlsError::Roots { file: file.clone(), error };
            for root in certificates(file)? {
                let unusable = |_| named(VerifierBuilderError::NoRootAnchors);
                roots.add(root).map_err(unusable)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(named)?)
        }
    };
    let secret = PrivateKeyDer::from_pem_file(key);
    let secret = secret.map_err(|error| TlsError::File { file: key.clone(), error: error.into() })?;
    let chain = certificates(cert)?;
    let expires_at = expiry::of(&chain);
    let mut open = open.with_single_cert(chain.clone(), secret.clone_key()).map_err(pair)?;
    open.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut config = builder.with_single_cert(chain, secret).map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(InUse { config: Arc::new(config), open: Arc::new(open), expires_at })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let named = |error: pem::Error| TlsError::File { file: file.to_owned(), error: error.into() };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(file).map_err(named)?.collect::<Result<_, _>>().map_err(named)?;
    if found.is_empty() { Err(TlsError::Empty(file.to_owned())) } else { Ok(found) }
}
