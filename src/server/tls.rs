//! TLS on the gRPC port: certificates read at start and again when they change.

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
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;
use crate::watched_file::{Disk, FileVersion, POLL_INTERVAL};

/// The certificates at work.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// The versions of the files before they were read.
    read: [Option<FileVersion>; 3],
}

/// A certificate that cannot be used.
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
    /// Roots that cannot verify anybody.
    #[error("server.tls: {}: {error}", file.display())]
    Roots {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: VerifierBuilderError,
    },
    /// A disk that hangs.
    #[error("server.tls: {0}")]
    Disk(#[from] io::Error),
}

/// Why a PEM file cannot be read. The library's own words quote the file: a key on one line with its marker
/// would stand in the log.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It cannot be read at all.
    #[error(transparent)]
    File(io::Error),
    /// It holds something else.
    #[error("holds no PEM of the kind that belongs there")]
    Nothing,
    /// It is damaged.
    #[error("is not well-formed PEM")]
    Malformed,
}

impl From<pem::Error> for Unreadable {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => Self::File(error),
            pem::Error::NoItemsFound => Self::Nothing,
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
        let read = marks(&files);
        let config = ArcSwap::from_pointee(server_config(&files)?);
        Ok(Self { files, config, read })
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// Whatever the client did wrong.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }

    /// Reads the files again when they change, until `stop`. Files that cannot be used change nothing.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let watching = async {
            let disk = Disk::new();
            let (mut used, mut seen) = (self.read, None);
            loop {
                sleep(POLL_INTERVAL).await;
                let files = self.files.clone();
                let Ok(marks) = disk.run(move || marks(&files)).await else { continue };
                // Two looks must agree: certificate and key are written one after the other.
                let settled = seen == Some(marks);
                seen = Some(marks);
                if marks == used || !settled {
                    continue;
                }
                used = marks;
                let files = self.files.clone();
                match disk.run(move || server_config(&files)).await.map_err(TlsError::from).flatten() {
                    Ok(config) => {
                        self.config.store(Arc::new(config));
                        tracing::info!("the certificate was replaced");
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

fn marks(TlsFiles { cert, key, client_ca }: &TlsFiles) -> [Option<FileVersion>; 3] {
    [FileVersion::of(cert), FileVersion::of(key), client_ca.as_deref().and_then(FileVersion::of)]
}

/// TLS 1.2 and 1.3 with what rustls holds safe; HTTP/2 alone (gRPC is nothing else).
fn server_config(TlsFiles { cert, key, client_ca }: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let pair = |error| TlsError::Pair { cert: cert.clone(), key: key.clone(), error };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(pair)?;
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
    let mut config = builder.with_single_cert(certificates(cert)?, secret).map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let named = |error: pem::Error| TlsError::File { file: file.to_owned(), error: error.into() };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(file).map_err(named)?.collect::<Result<_, _>>().map_err(named)?;
    if found.is_empty() { Err(TlsError::Empty(file.to_owned())) } else { Ok(found) }
}
