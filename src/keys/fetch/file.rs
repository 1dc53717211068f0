//! Keys in a file, re-read when it changes.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use tokio::time::sleep;

use super::{BoxFuture, Fetch, FetchError, Fetched, MAX_DOCUMENT_BYTES, Validator};
use crate::watched_file::{Disk, FileVersion, POLL_INTERVAL};

pub(super) struct KeyFile {
    path: PathBuf,
    read: Mutex<Option<FileVersion>>,
    disk: Disk,
}

impl KeyFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None), disk: Disk::new() }
    }

    fn last(&self) -> Option<FileVersion> {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch for KeyFile {
    fn fetch<'a>(&'a self, _: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            let path = self.path.clone();
            let (mark, body) = self.disk.run(move || (FileVersion::of(&path), read(&path))).await?;
            // The mark is taken before the read: a change in between is seen at the next look.
            *self.read.lock().unwrap_or_else(PoisonError::into_inner) = mark;
            Ok(Fetched { body: Some(body?), validator: None, max_age: None })
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                sleep(POLL_INTERVAL).await;
                let path = self.path.clone();
                // A look that fails is no change: the file may be in the middle of a swap.
                if let Ok(Some(mark)) = self.disk.run(move || FileVersion::of(&path)).await
                    && self.last() != Some(mark)
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
