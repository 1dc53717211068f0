//! Adds an entry to the file of revocations: all of it or nothing, beside other processes that do the same.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;
use std::time::Duration;

use super::line::{LineError, entry_of, line_of};
use super::list::{FileError, Limits, MAX_LINE_BYTES, among, for_each_line};
use crate::domain::clock::UnixTime;
use crate::domain::issuer::IssuerName;
use crate::domain::revoked::Revocation;

/// An entry of the past stays for as long in the file: the clock of the machine on which `revoke` runs may be ahead of the others.
const KEPT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Writes the file anew with this entry, without those of the past. Blocks.
///
/// # Errors
/// [`FileError`]: the file stays as it is. A file with a fault is not written to, so that the fault is seen.
pub(crate) fn append(
    path: &Path,
    revocation: &Revocation,
    issuers: &[IssuerName],
    limits: &Limits,
    now: UnixTime,
) -> Result<(), FileError> {
    // As the server will read it: a line that it refuses would refuse all others with it.
    let line = line_of(revocation);
    if line.len() as u64 > MAX_LINE_BYTES {
        return Err(FileError::Entry(LineError::TooLong));
    }
    let read = entry_of(line.trim_end().as_bytes(), among(issuers), limits.max_token_lifetime)
        .map_err(FileError::Entry)?;
    if read.until <= now {
        return Err(FileError::Past);
    }
    // A link stays one: what it leads to is written.
    let path = fs::canonicalize(path)?;
    let beside = |suffix: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        path.with_file_name(name)
    };
    // The file itself is replaced, so a lock on it would be one on a file that is gone.
    let _lock = lock(&beside(".lock")).map_err(FileError::Write)?;
    let temporary = beside(&format!(".{:016x}.tmp", fastrand::u64(..)));
    let written = write(&path, &temporary, revocation, issuers, limits, now);
    if written.is_err() {
        // What it holds is of no use; the error is that of the write.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// How long another process may take. One that holds the lock for longer hangs, or means harm.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_LOOKS_APART: Duration = Duration::from_millis(20);

/// Held until it is dropped. Blocks. Only its owner, or root, can open it, and so hold it.
#[expect(clippy::disallowed_methods, reason = "nothing else runs in the process of `revoke`")]
fn lock(path: &Path) -> io::Result<File> {
    // Of another user it may be one that can only be read, which is enough.
    let new = || File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = File::open(path).or_else(|_| new())?;
    for _ in 0..LOCK_TIMEOUT.as_millis() / LOCK_LOOKS_APART.as_millis() {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_LOOKS_APART),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    let held = format!("{} is held by another process for ten seconds", path.display());
    Err(io::Error::new(io::ErrorKind::TimedOut, held))
}

fn write(
    path: &Path,
    temporary: &Path,
    revocation: &Revocation,
    issuers: &[IssuerName],
    limits: &Limits,
    now: UnixTime,
) -> Result<(), FileError> {
    let before = fs::metadata(path)?;
    let file =
        File::options().write(true).create_new(true).mode(0o600).open(temporary).map_err(FileError::Write)?;
    // The server that reads it may be another user than the one who revokes.
    let same_owner = |file: &File| -> io::Result<()> {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
            fchown(file, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(before.permissions())
    };
    same_owner(&file).map_err(FileError::Write)?;
    let mut writer = BufWriter::new(file);
    let (mut entries, mut failed) = (1, Ok(()));
    for_each_line(path, |line| {
        let entry = entry_of(line, among(issuers), limits.max_token_lifetime)?;
        if now < entry.until.after(KEPT_AFTER) && failed.is_ok() {
            // The server counts those that are not of the past.
            entries += usize::from(now < entry.until);
            failed = writer.write_all(line).and_then(|()| writer.write_all(b"\n"));
        }
        Ok(())
    })?;
    failed.map_err(FileError::Write)?;
    if entries > limits.max_entries {
        return Err(FileError::TooMany(limits.max_entries));
    }
    let finish = || {
        writer.write_all(line_of(revocation).as_bytes())?;
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(temporary, path)?;
        // The rename itself is on the disk once the folder is.
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    finish().map_err(FileError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::revoked::Kind;

    #[test]
    fn entries_are_added_and_those_of_the_past_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("revoked"), folder.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let at = UnixTime::from_secs;
        let (issuers, limits) =
            ([IssuerName::new("a")], Limits { max_entries: 2, max_token_lifetime: Duration::from_secs(100) });
        let entry = |value: &str, until| Revocation {
            issuer: IssuerName::new("a"),
            kind: Kind::Sub,
            value: value.to_owned(),
            issued_before: at(1000),
            until: at(until),
        };
        let add = |value: &str, until, now| append(&link, &entry(value, until), &issuers, &limits, at(now));
        let error = |result: Result<(), FileError>| result.unwrap_err().to_string();
        assert!(
            error(add("u", 2000, 1000)).contains("No such file"),
            "a file that is missing may be another one's"
        );
        fs::write(&path, "").unwrap();
        add("u \"1\"", 2000, 1000).unwrap();
        add("v", 3000, 1000).unwrap();
        let lines = |path: &Path| fs::read_to_string(path).unwrap();
        let [u, v] = [entry("u \"1\"", 2000), entry("v", 3000)].map(|entry| line_of(&entry));
        assert_eq!(lines(&path), format!("{u}{v}"));
        assert!(link.is_symlink());
        assert!(error(add("w", 3000, 1000)).contains("more than 2 entries"));
        assert_eq!(lines(&path), format!("{u}{v}"), "a refused entry changes nothing");
        assert!(error(add("w", 3000, 2000 + 23 * 3600)).contains("of the past already"));
        let day_after = 2000 + 24 * 3600;
        add("w", 100_000, day_after).unwrap();
        assert_eq!(lines(&path), format!("{v}{}", line_of(&entry("w", 100_000))));
        fs::write(&path, format!("{v}{{}}\n")).unwrap();
        assert_eq!(
            error(add("x", 3000, 1000)),
            "line 2: issuer is missing, or not a text; accepted: the name of an issuer"
        );
        let files = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 3, "the file, the link and the lock");
    }
}
