//! The secret of `http.proxy_secret_file` at work: read at start and again when the file changes.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::config::{ProxySecret, ProxySecretError};
use crate::watched_file::{FileIo, WatchedFiles};

pub(crate) struct WatchedSecret {
    file: PathBuf,
    secret: ArcSwap<ProxySecret>,
    /// With the version that `secret` was read from.
    watched: WatchedFiles,
    file_io: FileIo,
}

/// The file holds no usable secret.
#[derive(Debug, thiserror::Error)]
#[error("http.proxy_secret_file: {} {error}", file.display())]
pub struct UnusableSecret {
    file: PathBuf,
    error: ProxySecretError,
}

impl WatchedSecret {
    /// Reads the file. Blocks.
    ///
    /// # Errors
    /// [`UnusableSecret`].
    pub(crate) fn load(file: PathBuf) -> Result<Self, UnusableSecret> {
        let file_io = FileIo::new();
        let watched = WatchedFiles::new(vec![file.clone()], file_io.clone());
        match ProxySecret::read(&file) {
            Ok(secret) => Ok(Self { file, secret: ArcSwap::from_pointee(secret), watched, file_io }),
            Err(error) => Err(UnusableSecret { file, error }),
        }
    }

    /// Whether this is the secret.
    #[must_use]
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        self.secret.load().matches(value)
    }

    /// Reads the file again when it changes, until `stop`. If the new file cannot be used, the old secret stays.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let watching = async {
            let mut watched = self.watched.clone();
            loop {
                watched.settled_change().await;
                let file = self.file.clone();
                let read = self.file_io.run(move || ProxySecret::read(&file)).await;
                match read.map_err(ProxySecretError::from).flatten() {
                    Ok(secret) => {
                        self.secret.store(Arc::new(secret));
                        tracing::info!("the proxy secret was replaced");
                    }
                    Err(error) => {
                        let file = self.file.display();
                        tracing::error!(%file, %error, "the new proxy secret is refused, the old one goes on");
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
