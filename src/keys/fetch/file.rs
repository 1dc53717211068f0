//! Keys in a file, read again when the file changes.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::time::sleep;

use super::{BoxFuture, Fetch, FetchError, Fetched, MAX_DOCUMENT_BYTES, Validator};
use crate::watched_file::{FileIo, FileVersion, POLL_INTERVAL};

pub(super) struct KeyFile {
    path: PathBuf,
    version_read: Mutex<Option<FileVersion>>,
    file_io: FileIo,
}

impl KeyFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, version_read: Mutex::new(None), file_io: FileIo::new() }
    }

    fn version_read(&self) -> Option<FileVersion> {
        *self.version_read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch for KeyFile {
    fn fetch<'a>(&'a self, _: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            let path = self.path.clone();
            // The version is taken before the read, so the next poll sees a change between the two.
            let (version, body) = self.file_io.run(move || (FileVersion::of(&path), read(&path))).await?;
            *self.version_read.lock().unwrap_or_else(PoisonError::into_inner) = version;
            Ok(Fetched { body: Some(body?), validator: None, max_age: None, sent_at: None })
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                sleep(POLL_INTERVAL).await;
                let path = self.path.clone();
                // A poll that fails is no change: the file may be in the middle of a swap. One poll is enough: a key set
                // that is cut off is no JSON, so the fetch fails and the last good set stays.
                if let Ok(Some(version)) = self.file_io.run(move || FileVersion::of(&path)).await
                    && self.version_read() != Some(version)
                {
                    return;
                }
            }
        })
    }
}

fn read(path: &Path) -> Result<Bytes, FetchError> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_DOCUMENT_BYTES { Err(FetchError::TooLarge) } else { Ok(bytes.into()) }
}
