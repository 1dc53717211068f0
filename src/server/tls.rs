//! TLS on the gRPC port: the certificates are read at start and again when their files change.

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
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;
use crate::watched_file::{FileIo, WatchedFiles};

pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// With the versions that `config` was made from.
    watched: WatchedFiles,
    file_io: FileIo,
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
        let config = ArcSwap::from_pointee(server_config(&files)?);
        Ok(Self { files, config, watched, file_io })
    }

    /// The TLS handshake with a client.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }

    /// Reads the files again when they change, until `stop`. If the new files cannot be used, the old certificates stay.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let watching = async {
            let mut watched = self.watched.clone();
            loop {
                watched.settled_change().await;
                let files = self.files.clone();
                match self.file_io.run(move || server_config(&files)).await.map_err(TlsError::from).flatten()
                {
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

/// TLS 1.2 and 1.3 with the defaults of rustls, and ALPN `h2` alone: gRPC is HTTP/2.
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
