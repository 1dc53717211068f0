//! What tells one version of a file from the next, for files that are read again when they change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// How often a file is looked at. A look is one `stat`, and it follows the symbolic links that Kubernetes
/// swaps under a mounted ConfigMap, which watching a directory entry would miss.
pub const LOOK: Duration = Duration::from_secs(1);

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
