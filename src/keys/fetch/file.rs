//! Keys in a file, re-read when it changes.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::{BoxFuture, Fetch, FetchError, Fetched, MAX_BYTES, Validator, on_disk};

/// How often the file is looked at. A look is one `stat`, and it follows the symbolic links that
/// Kubernetes swaps under a mounted ConfigMap, which watching a directory entry would miss.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct KeyFile {
    path: PathBuf,
    read: Mutex<Option<Mark>>,
}

/// What tells one version of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl KeyFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    fn last(&self) -> Option<Mark> {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch for KeyFile {
    fn fetch<'a>(&'a self, _: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            let path = self.path.clone();
            let (mark, body) = on_disk(move || (mark(&path), read(&path))).await?;
            // The mark is taken before the read: a change in between is seen at the next look.
            *self.read.lock().unwrap_or_else(PoisonError::into_inner) = mark;
            Ok(Fetched { body: Some(body?), validator: None, max_age: None })
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                sleep(LOOK).await;
                let path = self.path.clone();
                // A look that fails is no change: the file may be in the middle of a swap.
                if let Ok(Some(mark)) = on_disk(move || mark(&path)).await
                    && self.last() != Some(mark)
                {
                    return;
                }
            }
        })
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let data = fs::metadata(path).ok()?;
    let modified = (data.mtime(), data.mtime_nsec());
    Some(Mark { device: data.dev(), inode: data.ino(), size: data.size(), modified })
}

fn read(path: &Path) -> Result<Bytes, FetchError> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES { Err(FetchError::TooLarge) } else { Ok(bytes.into()) }
}
