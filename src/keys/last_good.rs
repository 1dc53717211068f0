//! The last good key set of an issuer on disk (`key_store`), for a start while the issuer cannot be reached. An entry is
//! bound to the issuer's name and source of keys, and its age counts from the fetch: a set of another issuer, or one
//! older than `max_stale`, is never used. A process that can write to the folder can make this
//! server trust its keys.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::clock::UnixTime;
use crate::domain::issuer::IssuerName;

/// The most that is read of a file: a key set of 1 MiB as an escaped JSON string, and the other members.
const MAX_ENTRY_BYTES: u64 = 8 << 20;

/// One issuer's file in the folder.
#[derive(Debug, Clone)]
pub(crate) struct LastGood {
    path: PathBuf,
    issuer: IssuerName,
    source: String,
}

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKeySet {
    issuer: String,
    source: String,
    /// Seconds since the epoch.
    fetched_at: u64,
    /// The document as the issuer sent it.
    keys: String,
}

/// Why an entry is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LastGoodError {
    #[error(transparent)]
    File(#[from] io::Error),
    /// Not the JSON that [`LastGood::write`] writes.
    #[error("the file is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    #[error("the file belongs to another issuer or another source of keys")]
    OtherIssuer,
    /// The fetch's time lies after now, so the set has no age.
    #[error("the file's time lies in the future")]
    Future,
}

impl LastGood {
    #[must_use]
    pub(crate) fn new(folder: &Path, issuer: &IssuerName, source: String) -> Self {
        // Names are letters, digits, dots, dashes and underscores: never a path separator.
        let path = folder.join(format!("{issuer}.jwks.json"));
        Self { path, issuer: issuer.clone(), source }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The document and the time of its fetch; `None` if there is no file.
    ///
    /// # Errors
    /// [`LastGoodError`] for a file that cannot be used.
    pub(crate) fn read(&self, now: UnixTime) -> Result<Option<(Bytes, UnixTime)>, LastGoodError> {
        use io::Read as _;
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(file) => file.take(MAX_ENTRY_BYTES).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let StoredKeySet { issuer, source, fetched_at, keys } = serde_json::from_slice(&bytes)?;
        if issuer != self.issuer.as_str() || source != self.source {
            return Err(LastGoodError::OtherIssuer);
        }
        let fetched_at = UnixTime::from_secs(fetched_at);
        if fetched_at > now { Err(LastGoodError::Future) } else { Ok(Some((keys.into(), fetched_at))) }
    }

    /// Writes a temporary file, syncs it and renames it over the old one, so a crash leaves the old or the new entry
    /// whole.
    ///
    /// # Errors
    /// [`LastGoodError`] if the document is not UTF-8 or the folder cannot be written.
    pub(crate) fn write(&self, document: &[u8], fetched_at: UnixTime) -> Result<(), LastGoodError> {
        let keys = str::from_utf8(document).map_err(io::Error::other)?;
        let entry = StoredKeySet {
            issuer: self.issuer.as_str().to_owned(),
            source: self.source.clone(),
            fetched_at: fetched_at.as_secs(),
            keys: keys.to_owned(),
        };
        // A random name for each write: replicas may share the folder, and each is process 1 of its container.
        let temporary = self.path.with_extension(format!("{:016x}.tmp", fastrand::u64(..)));
        let written = write_synced(&temporary, &serde_json::to_vec(&entry)?)
            .and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        // The rename survives a crash only after the folder is synced (fsync(2)).
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_000_000);

    #[test]
    fn a_written_entry_is_read_back_for_the_same_issuer_only() {
        let folder = tempfile::tempdir().unwrap();
        let last_good = |name: &str, source: &str| {
            LastGood::new(folder.path(), &IssuerName::new(name), source.to_owned())
        };
        let mine = last_good("a", "https://a.example/keys");
        assert!(mine.read(NOW).unwrap().is_none());
        for document in ["{\"keys\":[]}", "{\"keys\": [\"é\\u0000\"]}"] {
            mine.write(document.as_bytes(), NOW).unwrap();
            assert_eq!(mine.read(NOW).unwrap(), Some((Bytes::from(document), NOW)));
        }
        let other = last_good("a", "https://b.example/keys");
        assert!(matches!(other.read(NOW), Err(LastGoodError::OtherIssuer)));
        fs::copy(folder.path().join("a.jwks.json"), folder.path().join("b.jwks.json")).unwrap();
        assert!(matches!(
            last_good("b", "https://a.example/keys").read(NOW),
            Err(LastGoodError::OtherIssuer)
        ));
        assert!(matches!(mine.read(UnixTime::from_secs(999_999)), Err(LastGoodError::Future)));
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "no temporary file stays: {names:?}");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_key_set() {
        let folder = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(folder.path(), &IssuerName::new("a"), "s".to_owned());
        last_good.write(b"{\"keys\":[]}", NOW).unwrap();
        let path = folder.path().join("a.jwks.json");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(last_good.read(NOW), Err(LastGoodError::Damaged(_))), "cut at {length}");
        }
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(last_good.read(NOW).is_err());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(last_good.read(NOW), Err(LastGoodError::File(_))));
        assert!(last_good.write(b"{}", NOW).is_err());
    }
}
