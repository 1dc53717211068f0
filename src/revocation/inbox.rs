//! Where signed events arrive, whoever brings them: each is verified, put in force, written to the disk and handed on to the other
//! replicas.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::journal::{Appender, Journal, StoredEvent, subject_name, subject_of};
use super::kept::{KeptEvents, PARTS};
use super::line::lasting;
use super::signed::{EventId, SignedEvent};
use super::source::Source;
use super::state::{EventNames, Revocations};
use crate::config::EventSettings;
use crate::domain::clock::UnixTime;
use crate::domain::event::{EventFault, VerifiedEvent};

/// How often what is of the past is taken out.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Of refused events one line of the log in this time: each sender can make as many as it likes.
const LINES_APART: Duration = Duration::from_secs(60);

/// Events that wait to be handed on to a replica that is slow. One that misses some asks for them.
const HANDED_ON: usize = 4096;

/// Why an event has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    /// It never will have one.
    #[error("{0}")]
    Fault(EventFault),
    #[error("the issuer's keys are not at hand")]
    KeysUnavailable,
    #[error("there is no room for more revocations")]
    Full,
    #[error("the event cannot be written to the disk")]
    Disk,
}

/// What became of an event that is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It took effect.
    New,
    /// It had taken effect already.
    Known,
    /// It is not of a kind that revokes.
    Nothing,
}

pub(crate) type Verifying<'a> = Pin<Box<dyn Future<Output = Result<VerifiedEvent, NotTaken>> + Send + 'a>>;

/// Verifies events by the configuration in force.
pub(crate) trait Verifier: Send + Sync + 'static {
    fn verify<'a>(&'a self, event: &'a SignedEvent) -> Verifying<'a>;
}

/// The events of this process.
pub(crate) struct Inbox {
    pub(crate) revocations: Arc<Revocations>,
    verifier: Box<dyn Verifier>,
    kept: Mutex<KeptEvents>,
    appender: Option<Appender>,
    has_others: bool,
    /// What this replica was the first to get.
    handed_on: broadcast::Sender<SignedEvent>,
    last_line: Mutex<Option<Instant>>,
}

/// The events that were on the disk, in force, and the file that goes on.
pub(crate) struct Restored {
    kept: KeptEvents,
    appender: Appender,
    journal: Journal,
}

impl Restored {
    /// Puts in force what an earlier process had taken. Blocks.
    ///
    /// # Errors
    /// [`super::journal::JournalError`].
    pub(crate) fn read(
        folder: &std::path::Path,
        revocations: &Revocations,
    ) -> Result<Self, super::journal::JournalError> {
        let (journal, appender, events) = Journal::open(folder, revocations.now())?;
        let mut kept = KeptEvents::default();
        let has_others = has_others(revocations);
        for stored in events {
            let Some(signed) = stored.signed() else { continue };
            let names =
                stored.names.iter().filter_map(|(name, value)| Some((subject_of(name)?, value.clone())));
            let names: Vec<_> = names.collect();
            let until = UnixTime::from_secs(stored.until);
            let issued_before = UnixTime::from_secs(stored.issued_before);
            revocations.add(&EventNames { isses: &stored.iss, names: &names, issued_before, until });
            kept.insert(&signed, until, has_others);
        }
        Ok(Self { kept, appender, journal })
    }
}

fn has_others(revocations: &Revocations) -> bool {
    revocations.settings.events.as_ref().is_some_and(EventSettings::has_others)
}

impl Inbox {
    pub(crate) fn new(
        revocations: Arc<Revocations>,
        verifier: impl Verifier,
        restored: Option<Restored>,
    ) -> (Self, Option<Journal>) {
        let (kept, appender, journal) = match restored {
            Some(Restored { kept, appender, journal }) => (kept, Some(appender), Some(journal)),
            None => (KeptEvents::default(), None, None),
        };
        let has_others = has_others(&revocations);
        let inbox = Self {
            revocations,
            verifier: Box::new(verifier),
            kept: Mutex::new(kept),
            appender,
            has_others,
            handed_on: broadcast::channel(HANDED_ON).0,
            last_line: Mutex::default(),
        };
        (inbox, journal)
    }

    fn kept<T>(&self, look: impl FnOnce(&mut KeptEvents) -> T) -> T {
        look(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether an event has taken effect. Its signature need not be the issuer's then.
    pub(crate) fn knows(&self, id: EventId) -> bool {
        self.kept(|kept| kept.contains(id))
    }

    /// Verifies an event and puts it in force.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub(crate) async fn offer(&self, event: &SignedEvent, source: Source) -> Result<Taken, NotTaken> {
        let taken = self.take(event, source).await;
        match &taken {
            Ok(Taken::New) => self.revocations.source(source).count(true),
            Ok(Taken::Known | Taken::Nothing) => {}
            Err(reason) => {
                self.revocations.source(source).count(false);
                self.log_refused(source, reason);
            }
        }
        taken
    }

    async fn take(&self, event: &SignedEvent, source: Source) -> Result<Taken, NotTaken> {
        let verified = self.verifier.verify(event).await?;
        if !verified.ignored().is_empty() {
            tracing::debug!(events = ?verified.ignored(), "events that mean nothing here");
        }
        let until = lasting(verified.iat(), self.revocations.settings.max_token_lifetime);
        let names = EventNames {
            isses: verified.isses(),
            names: verified.names(),
            issued_before: verified.iat(),
            until,
        };
        if names.len() == 0 {
            return Ok(Taken::Nothing);
        }
        let is_new = self.kept(|kept| {
            if kept.contains(event.id()) {
                return Ok(false);
            }
            if !self.revocations.has_room_for(names.len()) || !kept.has_room_for(event) {
                return Err(NotTaken::Full);
            }
            Ok(kept.insert(event, until, self.has_others))
        })?;
        if !is_new {
            return Ok(Taken::Known);
        }
        self.revocations.add(&names);
        if source == Source::Listen {
            // Without peers there is no receiver.
            let _ = self.handed_on.send(event.clone());
        }
        if let Err(error) = self.write(event, &names, source).await {
            tracing::debug!(error, "an event is not on the disk");
            // It stays in force; sent again, it is written again.
            self.kept(|kept| kept.remove(event.id()));
            return Err(NotTaken::Disk);
        }
        let (issuer, jti, entries) = (verified.issuer(), verified.jti(), names.len());
        tracing::info!(%issuer, jti, entries, source = source.name(), "an event revokes tokens");
        Ok(Taken::New)
    }

    async fn write(&self, event: &SignedEvent, names: &EventNames<'_>, source: Source) -> Result<(), String> {
        let Some(appender) = &self.appender else { return Ok(()) };
        let named =
            names.names.iter().map(|(subject, value)| (subject_name(*subject).to_owned(), value.clone()));
        let stored = StoredEvent {
            form: event.form_name().to_owned(),
            event: event.text.to_string(),
            iss: names.isses.to_vec(),
            names: named.collect(),
            issued_before: names.issued_before.as_secs(),
            until: names.until.rounded_up().as_secs(),
        };
        let line = stored.line().map_err(|error| error.to_string())?;
        match source {
            Source::Peers | Source::Redis => {
                // The replica that was the first to get it has it on its disk.
                appender.append_later(line);
                Ok(())
            }
            Source::Listen | Source::File => appender.append(line).await,
        }
    }

    /// The events that this replica is the first to get, from now on.
    pub(super) fn handed_on(&self) -> broadcast::Receiver<SignedEvent> {
        self.handed_on.subscribe()
    }

    /// What tells, for each part, whether two replicas know the same events.
    pub(crate) fn digests(&self) -> [u128; PARTS] {
        self.kept(|kept| *kept.digests())
    }

    /// The IDs of the events of a part.
    pub(super) fn ids(&self, part: u8) -> Vec<EventId> {
        self.kept(|kept| kept.ids(part).collect())
    }

    /// Events of a part that another replica lacks, as lines, until they have so many bytes.
    pub(crate) fn missing(&self, part: u8, known: &HashSet<EventId>, max_bytes: usize) -> String {
        let (now, mut lines) = (self.revocations.now(), String::new());
        self.kept(|kept| {
            for event in kept.missing(part, now, |id| known.contains(&id)) {
                if lines.len() + event.text.len() > max_bytes {
                    return;
                }
                lines.push_str(&event.line());
            }
        });
        lines
    }

    /// The events of a part that are not among these.
    pub(super) fn lacking(&self, part: u8, known: &HashSet<EventId>) -> Vec<SignedEvent> {
        let now = self.revocations.now();
        self.kept(|kept| kept.missing(part, now, |id| known.contains(&id)).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.kept(|kept| kept.len())
    }

    fn log_refused(&self, source: Source, reason: &NotTaken) {
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= LINES_APART) {
            *last = Some(Instant::now());
            drop(last);
            let refused = self.revocations.source(source).refused.load(std::sync::atomic::Ordering::Relaxed);
            tracing::warn!(source = source.name(), %reason, refused, "an event is refused");
        }
    }

    /// Takes out what is of the past, until `stop`.
    pub(crate) async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut look = interval(SWEEP_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            self.revocations.sweep();
            let now = self.revocations.now();
            self.kept(|kept| kept.sweep(now));
        }
    }
}
