//! Revocations from a file: one JSON object a line. The file is the whole list of its entries: what is no longer in it is lifted.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::state::{IssuerNames, Revocations};
use crate::domain::clock::UnixTime;
use crate::domain::issuer::IssuerName;
use crate::domain::json::{Member, Object};
use crate::domain::revoked::{Kind, NameHashing, Revocation, Revoked};
use crate::watched_file::{FileIo, FileVersion};

/// How often the file is looked at. A change is read when two looks agree: within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A million lines take a second or two, and more where checks use all cores.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest line.
const MAX_LINE_BYTES: u64 = 16 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("line {0}: {1}")]
    Line(u64, LineError),
    /// A file that is written in place may be cut off anywhere; a cut inside a line is found by the line.
    #[error("the last line has no line break: the file may be cut off")]
    CutOff,
    #[error("it is empty, and the entries before it hold still; to lift them all, leave one that is past")]
    Emptied,
    #[error("it has more than {0} entries, which is revocation.max_entries")]
    TooMany(usize),
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("is longer than 16 KiB")]
    TooLong,
    #[error("is not a JSON object with unique members")]
    NotAnObject,
    #[error("{0:?} is not a known member; accepted: issuer, kind, value, issued_before, until")]
    Unknown(String),
    #[error("issuer is missing, or not a text; accepted: the name of an issuer")]
    NoIssuer,
    #[error("issuer {0:?} is not configured")]
    OtherIssuer(String),
    #[error("kind is missing; accepted: jti, sid, sub, client, issuer")]
    Kind,
    #[error("value is missing, or not a text with content")]
    Value,
    #[error("value has no meaning for the kind issuer")]
    ValueOfIssuer,
    #[error("{0} is missing; accepted: RFC 3339, or seconds since 1970")]
    Time(&'static str),
}

/// A line of the file.
pub(crate) fn line_of(revocation: &Revocation) -> String {
    let Revocation { issuer, kind, value, issued_before, until } = revocation;
    let (issuer, kind, named) = (json!(issuer.as_str()), kind.name(), *kind != Kind::Issuer);
    let value = if named { format!(r#","value":{}"#, json!(value)) } else { String::new() };
    let (before, until) = (issued_before.rfc3339(), until.rfc3339());
    format!(
        "{{\"issuer\":{issuer},\"kind\":\"{kind}\"{value},\"issued_before\":\"{before}\",\"until\":\"{until}\"}}\n"
    )
}

/// Reads a line. Without `until` an entry lasts as long as a token can.
///
/// # Errors
/// [`LineError`].
pub(crate) fn entry_of(
    line: &[u8],
    is_issuer: impl Fn(&str) -> Option<IssuerName>,
    max_token_lifetime: Duration,
) -> Result<Revocation, LineError> {
    let object = Object::parse(line).map_err(|_| LineError::NotAnObject)?;
    let known = ["issuer", "kind", "value", "issued_before", "until"];
    if let Some(name) = object.names().find(|name| !known.contains(name)) {
        return Err(LineError::Unknown(name.chars().take(64).collect()));
    }
    let text = |name| match object.member(name) {
        Member::String(text) => Some(text),
        _ => None,
    };
    let named = text("issuer").ok_or(LineError::NoIssuer)?;
    let issuer =
        is_issuer(&named).ok_or_else(|| LineError::OtherIssuer(named.chars().take(200).collect()))?;
    let kind = text("kind").and_then(|name| Kind::from_name(&name)).ok_or(LineError::Kind)?;
    let value = match (kind, object.member("value")) {
        (Kind::Issuer, Member::Absent) => String::new(),
        (Kind::Issuer, _) => return Err(LineError::ValueOfIssuer),
        (_, Member::String(value)) if !value.is_empty() => value.into_owned(),
        _ => return Err(LineError::Value),
    };
    let time = |name| match object.member(name) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is in the range of u64"
        )]
        Member::Number(seconds) if (0.0..=9e15).contains(&seconds) => {
            Ok(Some(UnixTime::from_secs(seconds as u64)))
        }
        Member::String(text) => UnixTime::parse(&text).map(Some).ok_or(LineError::Time(name)),
        Member::Absent => Ok(None),
        _ => Err(LineError::Time(name)),
    };
    let issued_before = time("issued_before")?.ok_or(LineError::Time("issued_before"))?;
    let until = time("until")?.unwrap_or_else(|| issued_before.after(max_token_lifetime));
    Ok(Revocation { issuer, kind, value, issued_before, until })
}

/// What a file must keep to.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub max_entries: usize,
    pub max_token_lifetime: Duration,
}

/// Reads a whole file; entries of the past are left out. Blocks.
///
/// # Errors
/// [`FileError`]: one fault refuses the file.
pub(crate) fn read(
    path: &Path,
    issuers: &IssuerNames,
    hashing: &NameHashing,
    limits: &Limits,
    now: UnixTime,
) -> Result<Revoked, FileError> {
    let is_issuer = |name: &str| issuers.iter().find(|issuer| issuer.as_str() == name).cloned();
    let mut revoked = Revoked::with_capacity(count_lines(path)?.min(limits.max_entries));
    for_each_line(path, |line| {
        let entry = entry_of(line, is_issuer, limits.max_token_lifetime)?;
        if now < entry.until {
            revoked.add(hashing.of(&entry.issuer, entry.kind, &entry.value), &entry);
        }
        Ok(())
    })?;
    if revoked.len() > limits.max_entries {
        return Err(FileError::TooMany(limits.max_entries));
    }
    Ok(revoked)
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

/// Follows the file of revocations until `stop`.
pub(crate) struct RevocationFile {
    path: PathBuf,
    /// Before the entries in force were read.
    in_force: Option<FileVersion>,
    /// At the last look.
    seen: Option<FileVersion>,
    /// A version that was refused, and why.
    refused: Option<(Option<FileVersion>, String)>,
    was_stale: bool,
    disk: FileIo,
}

impl RevocationFile {
    /// Reads the file for the first time. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn start(
        path: &Path,
        revocations: &Revocations,
        issuers: &IssuerNames,
    ) -> Result<Self, FileError> {
        let in_force = FileVersion::of(path);
        let entries = read(path, issuers, &revocations.hashing, &limits(revocations), revocations.now())?;
        revocations.replace_listed(entries);
        revocations.confirm();
        Ok(Self {
            path: path.to_owned(),
            in_force,
            seen: in_force,
            refused: None,
            was_stale: false,
            disk: FileIo::new(),
        })
    }

    /// Reads the file again when it changes, until `stop`. A file that cannot be used is refused, and the entries stay.
    pub(crate) async fn follow(
        mut self,
        revocations: Arc<Revocations>,
        issuers: impl Fn() -> IssuerNames,
        stop: CancellationToken,
    ) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            self.look(&revocations, &issuers).await;
            revocations.look_at_age();
            self.log_age(&revocations);
        }
    }

    async fn look(&mut self, revocations: &Arc<Revocations>, issuers: &impl Fn() -> IssuerNames) {
        let path = self.path.clone();
        let Ok(Some(now)) = self.disk.run(move || FileVersion::of(&path)).await else { return };
        let before = self.seen.replace(now);
        if self.in_force == Some(now) {
            return revocations.confirm();
        }
        let is_refused = self.refused.as_ref().is_some_and(|(version, _)| *version == Some(now));
        if before != Some(now) || is_refused {
            return;
        }
        let (path, names, state) = (self.path.clone(), issuers(), Arc::clone(revocations));
        let reading = self.disk.run_within(READ_TIMEOUT, move || {
            let entries = read(&path, &names, &state.hashing, &limits(&state), state.now())?;
            // A file that is written in place is empty for a while, and an empty list would lift all entries.
            let is_empty = std::fs::metadata(&path)?.len() == 0;
            if is_empty && state.len() > 0 { Err(FileError::Emptied) } else { Ok(entries) }
        });
        let file = self.path.display();
        match reading.await.map_err(FileError::from).flatten() {
            Ok(entries) => {
                tracing::info!(%file, entries = entries.len(), "revocations were read again");
                revocations.replace_listed(entries);
                revocations.confirm();
                revocations.reads().accepted.fetch_add(1, Ordering::Relaxed);
                (self.in_force, self.refused) = (Some(now), None);
            }
            Err(error) => {
                tracing::error!(%file, %error, "the new revocations are refused, those before go on");
                revocations.reads().refused.fetch_add(1, Ordering::Relaxed);
                self.refused = Some((Some(now), error.to_string()));
            }
        }
    }

    fn log_age(&mut self, revocations: &Revocations) {
        let is_stale = revocations.is_stale();
        if is_stale == self.was_stale {
            return;
        }
        self.was_stale = is_stale;
        let (file, denied) = (self.path.display(), revocations.denies());
        if is_stale {
            let error =
                self.refused.as_ref().map(|(_, error)| error.as_str()).unwrap_or("the file cannot be found");
            tracing::error!(%file, error, denied, "revocations are stale: the file is not what is in force");
        } else {
            tracing::info!(%file, "revocations are up to date again");
        }
    }
}

fn limits(revocations: &Revocations) -> Limits {
    let settings = &revocations.settings;
    Limits { max_entries: settings.max_entries, max_token_lifetime: settings.max_token_lifetime }
}
