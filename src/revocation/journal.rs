//! The events that took effect, on disk: an append-only file in the folder of `key_store`, so that a process that was killed denies
//! what it denied before. Replicas may share the folder: each writes a file of its own, and reads those of all at its start. An event is acknowledged to its sender when its line is on the disk. A process that can write to the folder can
//! make this server trust its keys, so the lines are not verified again.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::signed::{EventId, SignedEvent};
use crate::domain::clock::UnixTime;
use crate::domain::revoked::EventSubject;
use crate::watched_file::FileIo;

/// The most processes that write into one folder.
const MAX_FILES: usize = 64;

/// The file of a process, and that by which it is known that the process lives.
fn paths(folder: &Path, number: usize) -> (PathBuf, PathBuf) {
    let with = |suffix| folder.join(format!("revocation-events.{number}.{suffix}"));
    (with("jsonl"), with("lock"))
}

/// The longest line: an event of 16 KiB, and the names in it once more.
const MAX_LINE_BYTES: u64 = 256 * 1024;

/// Lines that wait to be written.
const QUEUE: usize = 4096;

/// A write takes milliseconds; a disk that hangs must not hold up the answer for longer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

const COMPACTION_TIMEOUT: Duration = Duration::from_secs(60);
const COMPACTION_INTERVAL: Duration = Duration::from_secs(60);

/// So many lines of the past are left in the file.
const LINES_LEFT: usize = 1000;

/// One line: an event and what it revokes.
// A later version may write more members.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredEvent {
    pub form: String,
    pub event: String,
    pub iss: Vec<String>,
    pub names: Vec<(String, String)>,
    /// Seconds since 1970, as is `until`.
    pub issued_before: u64,
    pub until: u64,
}

const SUBJECTS: [(EventSubject, &str); 4] = [
    (EventSubject::Sub, "sub"),
    (EventSubject::Sid, "sid"),
    (EventSubject::Email, "email"),
    (EventSubject::Account, "account"),
];

pub(super) fn subject_name(subject: EventSubject) -> &'static str {
    SUBJECTS.iter().find(|(other, _)| *other == subject).map_or("", |(_, name)| name)
}

pub(super) fn subject_of(name: &str) -> Option<EventSubject> {
    SUBJECTS.iter().find(|(_, other)| *other == name).map(|(subject, _)| *subject)
}

impl StoredEvent {
    pub(super) fn signed(&self) -> Option<SignedEvent> {
        SignedEvent::of(&self.form, &self.event)
    }

    pub(super) fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// `None` for a line that is damaged, or of which a part means nothing here.
    fn of_line(line: &[u8]) -> Option<Self> {
        let stored: Self = serde_json::from_slice(line).ok()?;
        let is_known =
            stored.signed().is_some() && stored.names.iter().all(|(name, _)| subject_of(name).is_some());
        is_known.then_some(stored)
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct JournalError {
    path: PathBuf,
    error: io::Error,
}

/// Appends to the file; the task of [`Journal`] writes.
#[derive(Debug, Clone)]
pub(super) struct Appender(mpsc::Sender<Append>);

#[derive(Debug)]
struct Append {
    line: Vec<u8>,
    written: oneshot::Sender<Result<(), String>>,
}

impl Appender {
    /// Returns when the line is on the disk.
    ///
    /// # Errors
    /// It is not, or it is not known whether it is.
    pub(super) async fn append(&self, line: Vec<u8>) -> Result<(), String> {
        let (written, answer) = oneshot::channel();
        self.0.send(Append { line, written }).await.map_err(|_| "the service ends".to_owned())?;
        answer.await.map_err(|_| "the service ends".to_owned())?
    }

    /// Without waiting. While the queue is full the line is dropped.
    pub(super) fn append_later(&self, line: Vec<u8>) {
        let _ = self.0.try_send(Append { line, written: oneshot::channel().0 });
    }
}

#[cfg(test)]
impl Appender {
    /// Of a disk that answers so, one line after the other.
    pub(super) fn answering(answers: Vec<Result<(), String>>) -> Self {
        let (sender, mut queue) = mpsc::channel::<Append>(QUEUE);
        tokio::spawn(async move {
            for answer in answers {
                if let Some(append) = queue.recv().await {
                    // A line that is not waited for has no receiver.
                    let _ = append.written.send(answer);
                }
            }
        });
        Self(sender)
    }
}

/// The file, and the lines that wait for it.
pub(crate) struct Journal {
    path: PathBuf,
    file: Arc<Mutex<Lines>>,
    /// Of the file. Beside it, since a disk that hangs holds its lock.
    count: Arc<AtomicUsize>,
    queue: mpsc::Receiver<Append>,
    disk: FileIo,
    /// Held for as long as the process lives: another one would take out its lines.
    _lock: File,
}

struct Lines {
    file: File,
    /// What is known to be written whole: a failed write is cut off again.
    length: u64,
    count: Arc<AtomicUsize>,
}

impl Lines {
    fn append(&mut self, bytes: &[u8], count: usize) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        self.length += bytes.len() as u64;
        self.count.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}

/// The events in the files of this folder that are not of the past. Blocks, and changes nothing.
///
/// # Errors
/// [`JournalError`]: a file cannot be read.
pub(super) fn look(folder: &Path, now: UnixTime) -> Result<Vec<StoredEvent>, JournalError> {
    let mut found = Vec::new();
    for file in files(folder)? {
        read(&file, now, &mut found).map_err(|error| JournalError { path: file.clone(), error })?;
    }
    Ok(found)
}

impl Journal {
    /// Reads the files in this folder. Takes one that no living process has, or makes one, and takes out of it what is of the past. Blocks.
    ///
    /// A last line that was cut off by a crash is dropped: it was not acknowledged. Another line that cannot be read is logged, and the
    /// file is kept beside the new one.
    ///
    /// # Errors
    /// [`JournalError`]: a file cannot be read or written, or [`MAX_FILES`] processes live; or a line cannot be read and it `must_be_whole`.
    pub(super) fn open(
        folder: &Path,
        now: UnixTime,
        must_be_whole: bool,
    ) -> Result<(Self, Appender, Vec<StoredEvent>), JournalError> {
        let (path, lock) = take_free(folder)?;
        let (mut events, mut of_others) = (Vec::new(), Vec::new());
        for file in files(folder)? {
            let found = if file == path { &mut events } else { &mut of_others };
            let named = |error| JournalError { path: file.clone(), error };
            let damaged = read(&file, now, found).map_err(named)?;
            if damaged > 0 && must_be_whole {
                let error = "lines cannot be read, and with when_stale.then: deny it must be known what is revoked; \
                             accepted: to move the file away";
                return Err(named(io::Error::other(error)));
            }
            if damaged > 0 && file == path {
                // Another one each time.
                let aside = format!("damaged-{}.jsonl", now.as_secs());
                fs::copy(&file, file.with_extension(aside)).map_err(named)?;
            }
        }
        let named = |error| JournalError { path: path.clone(), error };
        let count = Arc::<AtomicUsize>::default();
        let lines =
            rewrite(&path, events.iter().map(StoredEvent::line), Arc::clone(&count)).map_err(named)?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let journal =
            Self { path, file: Arc::new(Mutex::new(lines)), count, queue, disk: FileIo::new(), _lock: lock };
        events.extend(of_others);
        Ok((journal, Appender(sender), events))
    }

    /// Writes what is appended, and now and then leaves out the events that are not kept any longer; until `stop`.
    pub(crate) async fn run(
        mut self,
        is_kept: impl Fn(EventId) -> bool + Clone + Send + 'static,
        kept: impl Fn() -> usize,
        stop: CancellationToken,
    ) {
        let mut compaction = interval(COMPACTION_INTERVAL);
        compaction.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    // What other replicas brought waits for no answer.
                    while let Ok(append) = self.queue.try_recv() {
                        batch.push(append);
                    }
                    if !batch.is_empty() {
                        self.write(&mut batch).await;
                    }
                    return;
                }
                received = self.queue.recv_many(&mut batch, QUEUE) => {
                    if received == 0 {
                        // Without appenders nothing is left to do.
                        return stop.cancelled().await;
                    }
                    self.write(&mut batch).await;
                }
                _ = compaction.tick() => {
                    let lines = self.count.load(Ordering::Relaxed);
                    if lines > 2 * kept() + LINES_LEFT {
                        self.compact(is_kept.clone()).await;
                    }
                }
            }
        }
    }

    async fn write(&self, batch: &mut Vec<Append>) {
        let (bytes, count): (Vec<_>, _) =
            (batch.iter().flat_map(|append| append.line.clone()).collect(), batch.len());
        let file = Arc::clone(&self.file);
        let writing = self.disk.run_within(WRITE_TIMEOUT, move || {
            file.lock().unwrap_or_else(PoisonError::into_inner).append(&bytes, count)
        });
        let written = writing.await.flatten().map_err(|error| error.to_string());
        if let Err(error) = &written {
            tracing::error!(file = %self.path.display(), error, "revocation events cannot be written, and are not acknowledged");
        }
        for append in batch.drain(..) {
            // A sender that waits no longer has closed its connection.
            let _ = append.written.send(written.clone());
        }
    }

    async fn compact(&self, is_kept: impl Fn(EventId) -> bool + Send + 'static) {
        let (path, file) = (self.path.clone(), Arc::clone(&self.file));
        let compacting = self.disk.run_within(COMPACTION_TIMEOUT, move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let mut left = Vec::new();
            for_each_line(&path, |line| {
                let signed = StoredEvent::of_line(line).and_then(|event| event.signed());
                if signed.is_some_and(|event| is_kept(event.id())) {
                    left.push([line, b"\n"].concat());
                }
            })?;
            *file = rewrite(&path, left.into_iter().map(Ok), Arc::clone(&file.count))?;
            Ok::<_, io::Error>(())
        });
        if let Err(error) = compacting.await.flatten() {
            tracing::warn!(file = %self.path.display(), %error, "the file of revocation events cannot be written anew, the old one goes on");
        }
    }
}

/// The files of this folder that are there.
fn files(folder: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut found = Vec::new();
    for (path, _) in (1..=MAX_FILES).map(|number| paths(folder, number)) {
        if path.try_exists().map_err(|error| JournalError { path: path.clone(), error })? {
            found.push(path);
        }
    }
    Ok(found)
}

/// The first file that no living process has, and what keeps others from it.
fn take_free(folder: &Path) -> Result<(PathBuf, File), JournalError> {
    for (path, lock) in (1..=MAX_FILES).map(|number| paths(folder, number)) {
        let named = |error| JournalError { path: lock.clone(), error };
        let open = File::options().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let file = open.map_err(named)?;
        match file.try_lock() {
            Ok(()) => return Ok((path, file)),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(named(error)),
        }
    }
    let error = io::Error::other("64 other processes use the folder; accepted: one for each replica");
    Err(JournalError { path: folder.to_owned(), error })
}

/// Adds the events of a file that are not of the past; returns how many lines cannot be read.
fn read(path: &Path, now: UnixTime, found: &mut Vec<StoredEvent>) -> io::Result<usize> {
    let mut damaged = 0_usize;
    for_each_line(path, |line| match StoredEvent::of_line(line) {
        Some(event) if event.until > now.as_secs() => found.push(event),
        Some(_) => {}
        None => damaged += 1,
    })?;
    if damaged > 0 {
        tracing::error!(file = %path.display(), lines = damaged, "lines of revocation events cannot be read: what they revoke is not revoked");
    }
    Ok(damaged)
}

/// Gives each whole line to `take`, without its line break.
fn for_each_line(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\n") {
            Some(whole) => take(whole),
            // The rest of a line that is too long is a line that cannot be read.
            None if line.len() as u64 == MAX_LINE_BYTES => take(&line),
            None => return Ok(()),
        }
    }
}

/// Writes these lines to a file beside it, and puts that in its place.
fn rewrite(
    path: &Path,
    lines: impl Iterator<Item = io::Result<Vec<u8>>>,
    count: Arc<AtomicUsize>,
) -> io::Result<Lines> {
    let temporary = path.with_extension(format!("{:016x}.tmp", fastrand::u64(..)));
    let write = || {
        let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let (mut writer, mut length, mut written) = (BufWriter::new(file), 0, 0);
        for line in lines {
            let line = line?;
            writer.write_all(&line)?;
            (length, written) = (length + line.len() as u64, written + 1);
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let folder = File::open(path.parent().unwrap_or(Path::new(".")))?;
        fs::rename(&temporary, path)?;
        // From here on the file before is gone, so nothing may fail any more. The rename itself is on the disk once the folder is.
        if let Err(error) = folder.sync_all() {
            tracing::warn!(file = %path.display(), %error, "the folder of revocation events cannot be synced");
        }
        count.store(written, Ordering::Relaxed);
        Ok(Lines { file, length, count })
    };
    let written = write();
    if written.is_err() {
        // What it holds is of no use; the error is that of the write.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64, until: u64) -> StoredEvent {
        StoredEvent {
            form: "logout_token".to_owned(),
            event: format!("a.{number}.s"),
            iss: vec!["https://i.example".to_owned()],
            names: vec![("sub".to_owned(), format!("user-{number}"))],
            issued_before: 100,
            until,
        }
    }

    fn opened(folder: &Path, now: u64) -> (Journal, Appender, Vec<String>) {
        let (journal, appender, events) = Journal::open(folder, UnixTime::from_secs(now), false).unwrap();
        (journal, appender, events.into_iter().map(|event| event.event).collect())
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_cut_anywhere_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, appender, events) = opened(folder.path(), 150);
        assert_eq!(events, Vec::<String>::new());
        let stop = CancellationToken::new();
        let running = tokio::spawn(journal.run(|_| true, || 0, stop.clone()));
        for (number, until) in [(1, 200), (2, 160), (3, 200)] {
            appender.append(event(number, until).line().unwrap()).await.unwrap();
        }
        stop.cancel();
        running.await.unwrap();
        assert!(appender.append(Vec::new()).await.is_err());
        let path = paths(folder.path(), 1).0;
        let whole = fs::read(&path).unwrap();
        let torn = event(4, 200).line().unwrap();
        for cut in 0..torn.len() {
            fs::write(&path, [&whole[..], &torn[..cut]].concat()).unwrap();
            let (_, _, events) = opened(folder.path(), 170);
            assert_eq!(events, ["a.1.s", "a.3.s"], "cut at {cut}");
        }
        fs::write(&path, [&whole[..], b"{}\n", &torn].concat()).unwrap();
        assert_eq!(opened(folder.path(), 170).2, ["a.1.s", "a.3.s", "a.4.s"], "a damaged line is left out");
        let aside = path.with_extension("damaged-170.jsonl");
        assert_eq!(fs::read(&aside).unwrap(), [&whole[..], b"{}\n", &torn].concat(), "and is not lost");
        let later = String::from_utf8(torn.clone()).unwrap().replacen('{', "{\"since\":2,", 1);
        fs::write(&path, &later).unwrap();
        assert_eq!(opened(folder.path(), 170).2, ["a.4.s"], "a member of a later version");
        fs::write(&path, later.replace("\"sub\"", "\"phone\"")).unwrap();
        let error = Journal::open(folder.path(), UnixTime::from_secs(170), true).err().unwrap().to_string();
        assert!(error.contains("lines cannot be read"), "{error}");
        assert_eq!(opened(folder.path(), 170).2, Vec::<String>::new());
        fs::write(&path, [&whole[..], &torn].concat()).unwrap();
        assert_eq!(opened(folder.path(), 170).2, ["a.1.s", "a.3.s", "a.4.s"]);
        assert_eq!(fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count(), 3);
    }

    #[tokio::test]
    async fn a_failed_write_is_not_acknowledged_and_spoils_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _appender, _) = opened(folder.path(), 150);
        let mut lines = journal.file.lock().unwrap();
        lines.append(&event(1, 200).line().unwrap(), 1).unwrap();
        // As much as a full disk took of it.
        lines.file.write_all(b"{\"form\":").unwrap();
        lines.append(&event(2, 200).line().unwrap(), 1).unwrap();
        drop(lines);
        drop(journal);
        assert_eq!(opened(folder.path(), 150).2, ["a.1.s", "a.2.s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_written_anew_when_most_of_it_is_of_the_past() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, appender, _) = opened(folder.path(), 150);
        let path = paths(folder.path(), 1).0;
        let stop = CancellationToken::new();
        let last = SignedEvent::of("logout_token", "a.2000.s").unwrap().id();
        let running = tokio::spawn(journal.run(move |id| id == last, || 1, stop.clone()));
        let lines = || fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count();
        for number in 1..=2000 {
            appender.append(event(number, 200).line().unwrap()).await.unwrap();
        }
        while lines() != 1 {
            tokio::time::sleep(COMPACTION_INTERVAL).await;
        }
        appender.append(event(2001, 200).line().unwrap()).await.unwrap();
        stop.cancel();
        running.await.unwrap();
        assert_eq!(opened(folder.path(), 150).2, ["a.2000.s", "a.2001.s"]);
    }

    #[tokio::test]
    async fn processes_that_share_a_folder_have_a_file_each_and_read_all() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _appender, _) = opened(folder.path(), 150);
        first.file.lock().unwrap().append(&event(1, 200).line().unwrap(), 1).unwrap();
        let (second, _appender, events) = opened(folder.path(), 150);
        assert_eq!(events, ["a.1.s"]);
        second.file.lock().unwrap().append(&event(2, 200).line().unwrap(), 1).unwrap();
        let third = opened(folder.path(), 150);
        assert_eq!(third.2, ["a.1.s", "a.2.s"]);
        drop((first, second, third));
        // The first file again.
        let (again, _appender, events) = opened(folder.path(), 150);
        assert_eq!(
            (again.path, events),
            (paths(folder.path(), 1).0, vec!["a.1.s".to_owned(), "a.2.s".to_owned()])
        );
    }
}
