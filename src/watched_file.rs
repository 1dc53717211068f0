//! Files that are read again while the process runs: the version of a file, polling for a change that has settled, and
//! file operations on blocking threads with a deadline.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// The time between two polls of a file. A poll is one `stat(2)`, which follows symbolic links: Kubernetes swaps a link
/// above a mounted ConfigMap's files, and inotify on the file's own folder reports nothing then.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How many polls a change that has settled waits for files to rest that need not.
const MAX_WAIT_POLLS: u32 = 10;

/// The longest an operation on small files may take. Network file systems can hang.
const FILE_IO_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of its inode, which a program that restores the time of the content does not restore.
    changed: (i64, i64),
    /// When the file was made, where the file system knows. A new file may have the inode of one that is gone.
    made: Option<SystemTime>,
}

impl FileVersion {
    /// The file's version now; `None` if `stat(2)` fails. Blocks.
    #[must_use]
    pub(crate) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|data| Self::from(&data))
    }

    /// Whether it is of another file than this one, which was put in its place.
    pub(crate) fn is_of_another_file(&self, other: &Self) -> bool {
        self.device != other.device || self.inode != other.inode || self.made != other.made
    }
}

impl From<&fs::Metadata> for FileVersion {
    fn from(data: &fs::Metadata) -> Self {
        let modified = (data.mtime(), data.mtime_nsec());
        let changed = (data.ctime(), data.ctime_nsec());
        let made = data.created().ok();
        Self { device: data.dev(), inode: data.ino(), size: data.size(), modified, changed, made }
    }
}

/// A file, and its version before it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRead {
    pub(crate) path: PathBuf,
    pub(crate) version: Option<FileVersion>,
}

impl FileRead {
    /// Call it before the file is read. Blocks.
    pub(crate) fn about_to_be(path: &Path) -> Self {
        Self { path: path.to_owned(), version: FileVersion::of(path) }
    }
}

/// Files that are polled for a change and read again together. A missing file is a version as well.
#[derive(Debug, Clone)]
pub(crate) struct WatchedFiles {
    paths: Vec<PathBuf>,
    /// How many of them, from the first on, must rest before anything is read. The others are waited for a while.
    must_rest: usize,
    in_use: Vec<Option<FileVersion>>,
    last_poll: Option<Vec<Option<FileVersion>>>,
    /// How many polls ago a change had settled that files of the second kind, which still change, hold up.
    waited_polls: u32,
    file_io: FileIo,
}

impl WatchedFiles {
    /// The files' versions now are the ones in use: call it before the files are read, so that a change between the two
    /// counts. Blocks.
    #[must_use]
    pub(crate) fn new(paths: Vec<PathBuf>, file_io: FileIo) -> Self {
        let (in_use, must_rest) = (versions(&paths), paths.len());
        Self { paths, must_rest, in_use, last_poll: None, waited_polls: 0, file_io }
    }

    /// The versions in use are those that the files had before they were read.
    #[must_use]
    pub(crate) fn read_before(files: impl IntoIterator<Item = FileRead>, file_io: FileIo) -> Self {
        let (paths, in_use): (Vec<_>, _) = files.into_iter().map(|file| (file.path, file.version)).unzip();
        Self { must_rest: paths.len(), paths, in_use, last_poll: None, waited_polls: 0, file_io }
    }

    /// Polls these files instead, of which the `others` need not rest. One that was polled before keeps the version in use.
    pub(crate) fn replace(
        &mut self,
        files: impl IntoIterator<Item = FileRead>,
        others: impl IntoIterator<Item = FileRead>,
    ) {
        let mut seen = HashSet::new();
        let mut is_new = |file: &FileRead| seen.insert(file.path.clone());
        let mut polled: Vec<_> = files.into_iter().filter(|file| is_new(file)).collect();
        let must_rest = polled.len();
        polled.extend(others.into_iter().filter(is_new));
        for FileRead { path, version } in &mut polled {
            if let Some(at) = self.position(path) {
                *version = self.in_use.get(at).copied().flatten();
            }
        }
        *self = Self { must_rest, ..Self::read_before(polled, self.file_io.clone()) };
    }

    fn position(&self, path: &Path) -> Option<usize> {
        self.paths.iter().position(|watched| watched == path)
    }

    /// The versions in use are the ones of now, as in [`Self::new`]. A poll that fails changes nothing.
    pub(crate) async fn use_present(&mut self) {
        if let Some(polled) = self.poll().await {
            self.in_use = polled;
        }
        self.last_poll = None;
    }

    /// The version in use of a file; `None` if it was missing.
    pub(crate) fn in_use(&self, path: &Path) -> Option<FileVersion> {
        self.in_use.get(self.position(path)?).copied().flatten()
    }

    /// Resolves when two polls in a row agree, and disagree with the versions in use; the new versions are in use then.
    /// One poll is not enough: a file may be half written, or the first of several may be written and the others not
    /// yet. Files that need not rest hold up the others for [`MAX_WAIT_POLLS`]. A poll that fails is skipped. Cancel-safe.
    pub(crate) async fn settled_change(&mut self) {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(POLL_INTERVAL).await;
            let Some(polled) = self.poll().await else { continue };
            let Some(before) = self.last_poll.replace(polled.clone()) else { continue };
            if polled.get(..self.must_rest) != before.get(..self.must_rest) {
                continue;
            }
            let all_rest = polled == before;
            let mut has_changed = false;
            let mut in_use = self.in_use.clone();
            for ((in_use, now), before) in in_use.iter_mut().zip(polled).zip(before) {
                if now == before && now != *in_use {
                    *in_use = now;
                    has_changed = true;
                }
            }
            if has_changed && (all_rest || self.waited_polls == MAX_WAIT_POLLS) {
                (self.in_use, self.waited_polls) = (in_use, 0);
                return;
            }
            self.waited_polls = if has_changed { self.waited_polls + 1 } else { 0 };
        }
    }

    /// Whether all files that must rest still have the versions in use, as far as can be seen.
    pub(crate) async fn is_as_in_use(&self) -> bool {
        let polled = self.poll().await;
        polled.is_some_and(|polled| polled.get(..self.must_rest) == self.in_use.get(..self.must_rest))
    }

    async fn poll(&self) -> Option<Vec<Option<FileVersion>>> {
        let paths = self.paths.clone();
        self.file_io.run(move || versions(&paths)).await.ok()
    }
}

fn versions(paths: &[PathBuf]) -> Vec<Option<FileVersion>> {
    paths.iter().map(|path| FileVersion::of(path)).collect()
}

/// Runs one owner's file operations on tokio's blocking threads, one at a time and each with a deadline. A hung
/// `spawn_blocking` thread cannot be cancelled; with one permit an owner, an owner leaks one thread at most.
#[derive(Debug, Clone)]
pub(crate) struct FileIo(Arc<Semaphore>);

impl FileIo {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// [`Self::run_within`] the time that one small file may take.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.run_within(FILE_IO_TIMEOUT, operation).await
    }

    /// Waits for the permit, then for `operation`. The permit is back when `operation` ends, not at the deadline.
    ///
    /// # Errors
    /// The deadline has passed, or `operation` panicked.
    pub(crate) async fn run_within<T: Send + 'static>(
        &self,
        limit: Duration,
        operation: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let running = async {
            let permit = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
            let run = move || {
                let result = operation();
                drop(permit);
                result
            };
            // The error of tokio names the task: another text each time.
            spawn_blocking(run).await.map_err(|_| io::Error::other("the operation panicked"))
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer");
        timeout(limit, running).await.unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_hangs_takes_one_thread_and_no_more() {
        let (file_io, (release, hangs)) = (FileIo::new(), std::sync::mpsc::channel::<()>());
        // Paused time does not run by itself while a thread is busy.
        let late = async {
            tokio::task::yield_now().await;
            tokio::time::advance(FILE_IO_TIMEOUT).await;
        };
        let (first, ()) = tokio::join!(file_io.run(move || hangs.recv()), late);
        assert_eq!(first.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (began, begun) = std::sync::mpsc::channel::<()>();
        let late = tokio::time::advance(FILE_IO_TIMEOUT);
        let (second, ()) = tokio::join!(file_io.run(move || began.send(())), late);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.try_recv().is_err(), "the second must not have begun");
        drop(release);
        assert_eq!(file_io.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_has_settled_when_two_polls_agree() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        fs::write(&first, "1").unwrap();
        let mut watched = WatchedFiles::new(vec![first.clone(), second.clone()], FileIo::new());
        let (one_poll, many_polls) = (POLL_INTERVAL * 3 / 2, POLL_INTERVAL * 10);
        assert!(timeout(many_polls, watched.settled_change()).await.is_err(), "nothing has changed");
        fs::write(&first, "12").unwrap();
        assert!(timeout(one_poll, watched.settled_change()).await.is_err(), "seen by one poll");
        fs::write(&second, "1").unwrap();
        assert!(timeout(one_poll, watched.settled_change()).await.is_err(), "a file changes between polls");
        assert!(timeout(one_poll, watched.settled_change()).await.is_ok(), "two polls agree");
        assert!(timeout(many_polls, watched.settled_change()).await.is_err(), "the change counts once");
        fs::remove_file(&first).unwrap();
        assert!(timeout(many_polls, watched.settled_change()).await.is_ok(), "a missing file is a change");
        fs::write(&first, "123").unwrap();
        fs::remove_file(&first).unwrap();
        assert!(timeout(many_polls, watched.settled_change()).await.is_err(), "the files are as before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_never_rests_holds_up_another_one_for_good_or_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let (busy, calm) = (folder.path().join("busy"), folder.path().join("calm"));
        let mut watched = WatchedFiles::new(vec![busy.clone(), calm.clone()], FileIo::new());
        let mut text = String::new();
        let mut change_for = async |watched: &mut WatchedFiles, polls: u32| {
            for at in 0..polls {
                text.push('x');
                fs::write(&busy, &text).unwrap();
                if timeout(POLL_INTERVAL + POLL_INTERVAL / 100, watched.settled_change()).await.is_ok() {
                    return Some(at);
                }
            }
            None
        };
        assert_eq!(change_for(&mut watched, 3 * MAX_WAIT_POLLS).await, None, "it may be half written");
        fs::write(&calm, "1").unwrap();
        assert_eq!(change_for(&mut watched, 3 * MAX_WAIT_POLLS).await, None, "both must rest");
        assert!(!watched.is_as_in_use().await);
        let file = |path: &PathBuf| FileRead { path: path.clone(), version: None };
        watched.replace([file(&calm)], [file(&busy)]);
        let seen = change_for(&mut watched, 3 * MAX_WAIT_POLLS).await;
        assert_eq!(seen, Some(MAX_WAIT_POLLS + 1));
        assert!(watched.is_as_in_use().await, "the busy file does not count");
        assert_eq!(watched.in_use(&calm), FileVersion::of(&calm));
        assert_eq!(watched.in_use(&busy), None, "not settled yet");
    }

    #[test]
    fn files_that_take_the_place_of_others_keep_what_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, three] = ["1", "2", "3"].map(|name| folder.path().join(name));
        fs::write(&one, "1").unwrap();
        let mut watched = WatchedFiles::new(vec![one.clone(), two.clone()], FileIo::new());
        let first = FileVersion::of(&one);
        fs::write(&one, "12").unwrap();
        fs::write(&three, "3").unwrap();
        let files = |paths: [&PathBuf; 2]| paths.map(|path| FileRead::about_to_be(path));
        watched.replace(files([&one, &one]), files([&one, &three]));
        assert_eq!(watched.paths, [one.clone(), three.clone()]);
        assert_eq!([watched.in_use(&one), watched.in_use(&three)], [first, FileVersion::of(&three)]);
    }
}
