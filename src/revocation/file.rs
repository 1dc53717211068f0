//! Revocations from a file: one JSON object a line. The file is the whole list of its entries: what is no longer in it is lifted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::list::{FileError, Limits, read};
use super::source::{Outcome, Source};
use super::state::Revocations;
use crate::domain::issuer::IssuerName;
use crate::watched_file::{FileIo, FileVersion};

/// How often the file is looked at. A change is read when two looks agree: within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A file that is put in place by a rename is whole. One that is replaced between all looks never rests, and is read after so many.
const MAX_REPLACED: u32 = 3;

/// A file that was refused is read again after this time, though it has not changed: its issuers may be configured by now, or its
/// permissions set right.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A million lines take a second or two, and more where checks use all cores.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Follows the file of revocations until `stop`.
pub(crate) struct RevocationFile {
    path: PathBuf,
    /// Before the entries in force were read. `None` until the file was read after a rest: one that was written to a moment ago may have
    /// been written to again in the same tick of its clock.
    in_force: Option<FileVersion>,
    at_start: Option<FileVersion>,
    /// At the last look.
    seen: Option<FileVersion>,
    /// At so many looks in a row another file was in the place of the one before.
    replaced: u32,
    refused: Option<Refused>,
    disk: FileIo,
}

/// A version that was refused.
struct Refused {
    version: FileVersion,
    error: String,
    at: Instant,
}

impl RevocationFile {
    /// Reads the file for the first time. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn start(
        path: &Path,
        revocations: &Revocations,
        issuers: &[IssuerName],
    ) -> Result<Self, FileError> {
        let (version, limits) = (FileVersion::of(path), limits(revocations));
        let list = read(path, version, issuers, &revocations.hashing, &limits, revocations.now())?;
        revocations.replace_listed(list);
        revocations.source(Source::File).confirm();
        let path = path.to_owned();
        Ok(Self {
            path,
            in_force: None,
            at_start: version,
            seen: None,
            replaced: 0,
            refused: None,
            disk: FileIo::new(),
        })
    }

    /// Reads the file again when it changes, until `stop`. A file that cannot be used is refused, and the entries stay.
    pub(crate) async fn follow(
        mut self,
        revocations: Arc<Revocations>,
        issuers: impl Fn() -> Vec<IssuerName>,
        stop: CancellationToken,
    ) {
        let looking = async {
            let mut look = interval(LOOK_INTERVAL);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                look.tick().await;
                self.look(&revocations, &issuers).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = looking => {}
        }
    }

    async fn look(&mut self, revocations: &Arc<Revocations>, issuers: &impl Fn() -> Vec<IssuerName>) {
        let path = self.path.clone();
        let source = revocations.source(Source::File);
        let Ok(Some(now)) = self.disk.run(move || FileVersion::of(&path)).await else {
            return source.set_trouble(Some("the file cannot be found".to_owned()));
        };
        let before = self.seen.replace(now);
        if self.in_force == Some(now) {
            self.refused = None;
            return source.confirm();
        }
        let tried = self.refused.as_ref().filter(|refused| refused.version == now);
        let is_replaced = before.is_some_and(|before| before.is_of_another_file(&now));
        self.replaced = if is_replaced { self.replaced + 1 } else { 0 };
        let rests = before == Some(now) || self.replaced >= MAX_REPLACED;
        if !rests || tried.is_some_and(|refused| refused.at.elapsed() < RETRY_AFTER) {
            return;
        }
        let (path, names, state) = (self.path.clone(), issuers(), Arc::clone(revocations));
        let reading = self.disk.run_within(READ_TIMEOUT, move || {
            let list = read(&path, Some(now), &names, &state.hashing, &limits(&state), state.now())?;
            // A file that is written in place is empty for a while, and an empty list would lift all entries.
            if list.is_empty && state.holds_any() { Err(FileError::Emptied) } else { Ok(list) }
        });
        let (file, is_as_at_start) =
            (self.path.display(), self.in_force.is_none() && self.at_start == Some(now));
        match reading.await.map_err(FileError::from).flatten() {
            Ok(list) => {
                if !is_as_at_start {
                    tracing::info!(%file, entries = list.revoked.len(), "revocations were read again");
                    source.count(Outcome::Accepted);
                }
                revocations.replace_listed(list);
                source.confirm();
                (self.in_force, self.refused) = (Some(now), None);
            }
            // The next looks see what it becomes.
            Err(FileError::Changing) => source.set_trouble(Some(FileError::Changing.to_string())),
            Err(error) => {
                let error = error.to_string();
                if self
                    .refused
                    .as_ref()
                    .is_none_or(|refused| refused.version != now || refused.error != error)
                {
                    tracing::error!(%file, error, "the new revocations are refused, those before go on");
                    source.count(Outcome::Refused);
                }
                source.set_trouble(Some(error.clone()));
                self.refused = Some(Refused { version: now, error, at: Instant::now() });
            }
        }
    }
}

fn limits(revocations: &Revocations) -> Limits {
    let settings = &revocations.settings;
    Limits { max_entries: settings.max_entries, max_token_lifetime: settings.max_token_lifetime }
}
