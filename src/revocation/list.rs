//! A file of revocations as a whole: its entries, and what it must keep to.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::time::Duration;

use super::line::{LineError, entry_of};
use crate::domain::clock::UnixTime;
use crate::domain::issuer::IssuerName;
use crate::domain::revoked::{NameHashing, Revoked, Times};
use crate::watched_file::FileVersion;

/// The longest line.
pub(super) const MAX_LINE_BYTES: u64 = 16 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// One that is to be added.
    #[error("the entry {0}")]
    Entry(LineError),
    #[error("the entry would be of the past already: its until is not after now")]
    Past,
    #[error("line {0}: {1}")]
    Line(u64, LineError),
    /// A file that is written in place may be cut off anywhere; a cut inside a line is found by the line.
    #[error("the last line has no line break: the file may be cut off")]
    CutOff,
    #[error("it is written to while it is read")]
    Changing,
    #[error("it is empty, and the entries before it hold still; to lift them all, leave one that is past")]
    Emptied,
    #[error("it has more than {0} entries, which is revocation.max_entries")]
    TooMany(usize),
}

/// What a file must keep to.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub max_entries: usize,
    pub max_token_lifetime: Duration,
}

/// The entries of a file that are not of the past.
#[derive(Debug, Default)]
pub(crate) struct List {
    pub revoked: Revoked,
    /// The issuers that entries name.
    pub issuers: BTreeSet<IssuerName>,
    /// Whether the file has no entry at all, not even one of the past.
    pub is_empty: bool,
}

/// Whether a name is that of an issuer.
pub(super) fn among(issuers: &[IssuerName]) -> impl Fn(&str) -> Option<IssuerName> {
    |name| issuers.iter().find(|issuer| issuer.as_str() == name).cloned()
}

/// Reads a whole file, of which `version` is the version. Blocks.
///
/// # Errors
/// [`FileError`]: one fault refuses the file.
pub(crate) fn read(
    path: &Path,
    version: Option<FileVersion>,
    issuers: &[IssuerName],
    hashing: &NameHashing,
    limits: &Limits,
    now: UnixTime,
) -> Result<List, FileError> {
    let mut revoked = Revoked::with_capacity(count_lines(path)?.min(limits.max_entries));
    let (mut named, mut is_empty, mut too_many) = (BTreeSet::new(), true, false);
    for_each_line(path, |line| {
        is_empty = false;
        let entry = entry_of(line, among(issuers), limits.max_token_lifetime)?;
        too_many |= revoked.len() > limits.max_entries;
        if now < entry.until && !too_many {
            let times = Times::new(entry.issued_before, entry.until);
            revoked.add(hashing.of(&entry.issuer, entry.kind, &entry.value), entry.kind, times);
            if !named.contains(&entry.issuer) {
                named.insert(entry.issuer);
            }
        }
        Ok(())
    })?;
    if too_many || revoked.len() > limits.max_entries {
        return Err(FileError::TooMany(limits.max_entries));
    }
    // What was read may be a part of what is being written.
    if FileVersion::of(path) != version {
        return Err(FileError::Changing);
    }
    Ok(List { revoked, issuers: named, is_empty })
}

fn count_lines(path: &Path) -> io::Result<usize> {
    let (mut file, mut buffer, mut lines) = (File::open(path)?, vec![0; 1 << 16], 0);
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(lines);
        }
        lines += memchr::memchr_iter(b'\n', buffer.get(..length).unwrap_or_default()).count();
    }
}

/// Gives each line to `take`, without its line break. Blank lines are skipped.
///
/// # Errors
/// [`FileError`].
pub(crate) fn for_each_line(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<(), LineError>,
) -> Result<(), FileError> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let length = reader.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            let too_long = line.len() as u64 > MAX_LINE_BYTES;
            return Err(if too_long {
                FileError::Line(number, LineError::TooLong)
            } else {
                FileError::CutOff
            });
        };
        if !text.trim_ascii().is_empty() {
            take(text).map_err(|error| FileError::Line(number, error))?;
        }
    }
}
