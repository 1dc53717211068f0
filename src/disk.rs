//! Files that are read while the service runs: what tells one version from the next, and a limit for disks
//! that hang.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How often a file is looked at. A look is one `stat`, and it follows the symbolic links that Kubernetes
/// swaps under a mounted ConfigMap, which watching a directory entry would miss.
pub const LOOK: Duration = Duration::from_secs(1);

/// How long a disk may take. Network file systems can hang.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// One version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Mark {
    /// The version that stands there now; `None` if none can be seen.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        let modified = (data.mtime(), data.mtime_nsec());
        Some(Self { device: data.dev(), inode: data.ino(), size: data.size(), modified })
    }
}

/// Runs something that waits for a disk, on a thread where that may take its time, and not for ever.
///
/// # Errors
/// The time is up, or the thread panicked.
pub(crate) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    match timeout(DISK_TIMEOUT, spawn_blocking(work)).await {
        Ok(done) => done.map_err(io::Error::other),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")),
    }
}
