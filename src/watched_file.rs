//! Files that are read while the service runs: what tells one version from the next, and a limit for disks
//! that hang.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How often a file is looked at. A look is one `stat`, and it follows the symbolic links that Kubernetes
/// swaps under a mounted ConfigMap, which watching a directory entry would miss.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a disk may take. Network file systems can hang.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// One version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileVersion {
    /// The version that stands there now; `None` if none can be seen.
    #[must_use]
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        let modified = (data.mtime(), data.mtime_nsec());
        Some(Self { device: data.dev(), inode: data.ino(), size: data.size(), modified })
    }
}

/// One owner's way to a disk. A thread that a disk keeps for good cannot be taken back, so each owner has at most
/// one there.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Semaphore>);

impl Disk {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Runs something that waits for a disk, on a thread where that may take its time, and not for ever.
    ///
    /// # Errors
    /// The time is up, or the thread panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let working = async {
            let permit = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
            let work = move || {
                let done = work();
                drop(permit);
                done
            };
            spawn_blocking(work).await.map_err(io::Error::other)
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer");
        timeout(DISK_TIMEOUT, working).await.unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_keeps_one_thread_and_no_more() {
        let (disk, (release, hangs)) = (Disk::new(), std::sync::mpsc::channel::<()>());
        // Paused time does not run by itself while a thread is busy.
        let late = async {
            tokio::task::yield_now().await;
            tokio::time::advance(DISK_TIMEOUT).await;
        };
        let (first, ()) = tokio::join!(disk.run(move || hangs.recv()), late);
        assert_eq!(first.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (began, begun) = std::sync::mpsc::channel::<()>();
        let late = tokio::time::advance(DISK_TIMEOUT);
        let (second, ()) = tokio::join!(disk.run(move || began.send(())), late);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.try_recv().is_err(), "the second must not have begun");
        drop(release);
        assert_eq!(disk.run(|| 7).await.unwrap(), 7);
    }
}
