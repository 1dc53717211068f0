//! Where signed events arrive, whoever brings them: each is verified, put in force, written to the disk and handed on to the other
//! replicas.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::journal::{self, Appender, Journal, JournalError, StoredEvent, subject_name, subject_of};
use super::kept::{KeptEvents, PARTS};
use super::line::lasting;
use super::signed::{EventId, SignedEvent};
use super::source::{Outcome, Source};
use super::state::{EventNames, Revocations};
use crate::config::{EventSettings, WhenStale};
use crate::domain::clock::UnixTime;
use crate::domain::event::{EventFault, VerifiedEvent};

/// How often what is of the past is taken out.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Of refused events one line of the log in this time: each sender can make as many as it likes.
const LINES_APART: Duration = Duration::from_secs(60);

/// How often is tried again what could not be taken, and how much of it is kept for that.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
const MAX_LATER: usize = 10_000;

/// A start waits no longer for the keys of an issuer that does not answer.
const LONGEST_WAIT_FOR_KEYS: Duration = Duration::from_secs(60);

/// Between two sweeps each replica asks twenty times.
const MAX_MET: usize = 100_000;

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
    /// It had taken effect already: another replica brought it, or its issuer was not told that it was taken.
    Known,
    /// Its issuer was told before that it was taken.
    Again,
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
    /// Of requests of this process to itself: see [`Inbox::new_number`].
    met: Mutex<HashSet<u64>>,
    /// What other replicas brought and could not be taken yet.
    later: Mutex<HashMap<EventId, (SignedEvent, Source, NotTaken)>>,
    begun: Instant,
    /// What this replica was the first to get.
    handed_on: broadcast::Sender<SignedEvent>,
    /// Of events that are refused for what they are, and of others.
    last_lines: [Mutex<Option<Instant>>; 2],
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
    /// [`JournalError`].
    pub(crate) fn read(folder: &Path, revocations: &Revocations) -> Result<Self, JournalError> {
        let (journal, appender, events) =
            Journal::open(folder, revocations.now(), revocations.settings.when_stale == WhenStale::Deny)?;
        let kept = restore(events, revocations);
        Ok(Self { kept, appender, journal })
    }
}

/// Puts in force what is on the disk, without a change of it. Blocks.
///
/// # Errors
/// [`JournalError`].
pub(crate) fn look(folder: &Path, revocations: &Revocations) -> Result<(), JournalError> {
    restore(journal::look(folder, revocations.now())?, revocations);
    Ok(())
}

fn restore(events: Vec<StoredEvent>, revocations: &Revocations) -> KeptEvents {
    let (mut kept, has_others) = (KeptEvents::default(), has_others(revocations));
    for stored in events {
        let Some(signed) = stored.signed() else { continue };
        let names = stored.names.iter().filter_map(|(name, value)| Some((subject_of(name)?, value.clone())));
        let names: Vec<_> = names.collect();
        let until = UnixTime::from_secs(stored.until);
        let issued_before = UnixTime::from_secs(stored.issued_before);
        revocations.add(&EventNames { isses: &stored.iss, names: &names, issued_before, until });
        kept.insert(&signed, until, has_others);
        kept.stored(signed.id());
        kept.answer(signed.id());
    }
    kept
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
            met: Mutex::default(),
            later: Mutex::default(),
            begun: Instant::now(),
            handed_on: broadcast::channel(HANDED_ON).0,
            last_lines: Default::default(),
        };
        (inbox, journal)
    }

    fn kept<T>(&self, look: impl FnOnce(&mut KeptEvents) -> T) -> T {
        look(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that no other process knows before it is sent, to find this process among the addresses of the replicas.
    pub(super) fn new_number(&self) -> u64 {
        let mut bytes = [0; 8];
        // Without randomness the number is known to others, who gain that this replica takes them for itself.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// A request with this number has come.
    pub(crate) fn met(&self, number: u64) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if met.len() < MAX_MET {
            met.insert(number);
        }
    }

    /// Whether a request with this number has come to this process.
    pub(super) fn has_met(&self, number: u64) -> bool {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }

    /// Forgets the numbers of other replicas.
    fn forget_numbers(&self) {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
            Ok(Taken::New) => self.revocations.source(source).count(Outcome::Accepted),
            Ok(Taken::Known | Taken::Again | Taken::Nothing) => {}
            Err(reason) => {
                self.try_later(event, source, reason);
                let counted = if *reason == NotTaken::Full { Outcome::Full } else { Outcome::Refused };
                self.revocations.source(source).count(counted);
                self.log_refused(source, reason);
            }
        }
        taken
    }

    /// What another replica brought and may be taken later is not sent again by itself.
    fn try_later(&self, event: &SignedEvent, source: Source, reason: &NotTaken) {
        if source == Source::Listen || matches!(reason, NotTaken::Fault(_)) {
            return;
        }
        self.later(|later| {
            if later.len() < MAX_LATER || later.contains_key(&event.id()) {
                later.insert(event.id(), (event.clone(), source, reason.clone()));
            }
        });
    }

    /// Tries again what could not be taken, until `stop`.
    pub(crate) async fn retry(self: Arc<Self>, stop: CancellationToken) {
        let mut look = interval(RETRY_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            let later: Vec<_> = self
                .later(|later| later.values().map(|(event, source, _)| (event.clone(), *source)).collect());
            for (event, source) in later {
                match self.take(&event, source).await {
                    Ok(taken) => {
                        self.later(|later| later.remove(&event.id()));
                        if taken == Taken::New {
                            self.revocations.source(source).count(Outcome::Accepted);
                        }
                    }
                    Err(NotTaken::Fault(_)) => drop(self.later(|later| later.remove(&event.id()))),
                    // It was counted when it came.
                    Err(reason) => self.try_later(&event, source, &reason),
                }
                yield_now().await;
            }
        }
    }

    fn later<T>(&self, look: impl FnOnce(&mut HashMap<EventId, (SignedEvent, Source, NotTaken)>) -> T) -> T {
        look(&mut self.later.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that the source has is in force. A start goes on to wait for events whose issuer's keys are not there yet: tokens of the issuer are
    /// good as soon as they are.
    pub(super) fn confirm(&self, source: Source) {
        self.revocations.source(source).confirm();
        let waits = |(_, _, reason): &(SignedEvent, Source, NotTaken)| *reason == NotTaken::KeysUnavailable;
        let is_waiting = self.later.lock().unwrap_or_else(PoisonError::into_inner).values().any(waits);
        if !is_waiting || self.begun.elapsed() > LONGEST_WAIT_FOR_KEYS {
            self.revocations.has_asked(source);
        }
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
            let most = self.revocations.settings.max_entries;
            if !self.revocations.has_room_for(names.len()) || !kept.has_room_for(event) || kept.len() >= most
            {
                return Err(NotTaken::Full);
            }
            Ok(kept.insert(event, until, self.has_others))
        })?;
        if is_new {
            self.revocations.add(&names);
            if source == Source::Listen {
                // Without other replicas there is no receiver.
                let _ = self.handed_on.send(event.clone());
            }
        }
        // Known or new: an event that another replica brought, or whose first write failed or is not done, may not be on the disk.
        self.write(event, &names, source).await?;
        let is_first = source != Source::Listen || self.kept(|kept| kept.answer(event.id()));
        match (is_new, is_first) {
            (false, true) => return Ok(Taken::Known),
            (false, false) => return Ok(Taken::Again),
            (true, _) => {}
        }
        let (issuer, jti, entries) = (verified.issuer(), verified.jti(), names.len());
        tracing::info!(%issuer, jti, entries, source = source.name(), "an event revokes tokens");
        Ok(Taken::New)
    }

    /// Returns when the event is on the disk; for one that another replica brought, without waiting for that.
    async fn write(
        &self,
        event: &SignedEvent,
        names: &EventNames<'_>,
        source: Source,
    ) -> Result<(), NotTaken> {
        let id = event.id();
        let Some(appender) = self.appender.as_ref().filter(|_| !self.kept(|kept| kept.is_stored(id))) else {
            return Ok(());
        };
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
        let line = stored.line().map_err(|_| NotTaken::Disk)?;
        match source {
            Source::Peers | Source::Redis => appender.append_later(line),
            Source::Listen | Source::File => {
                // The error is logged where it arises.
                appender.append(line).await.map_err(|_| NotTaken::Disk)?;
                self.kept(|kept| kept.stored(id));
            }
        }
        Ok(())
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

    /// Whether the event has taken effect, and came with this very signature.
    pub(super) fn has_exactly(&self, event: &SignedEvent) -> bool {
        self.kept(|kept| kept.has_exactly(event))
    }

    pub(crate) fn len(&self) -> usize {
        self.kept(|kept| kept.len())
    }

    fn log_refused(&self, source: Source, reason: &NotTaken) {
        // What any client can send must not hide that good events are refused.
        let [of_faults, of_others] = &self.last_lines;
        let last_line = if matches!(reason, NotTaken::Fault(_)) { of_faults } else { of_others };
        let mut last = last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= LINES_APART) {
            *last = Some(Instant::now());
            drop(last);
            let state = self.revocations.source(source);
            let refused = state.counted(Outcome::Refused) + state.counted(Outcome::Full);
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
            self.forget_numbers();
            self.revocations.sweep();
            let now = self.revocations.now();
            self.kept(|kept| kept.sweep(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::domain::algorithm::Algorithm;
    use crate::domain::clock::Clock;
    use crate::domain::event::{EventForm, EventLimits, UnverifiedEvent};
    use crate::domain::issuer::{Audience, Issuers};
    use crate::domain::key_set::KeySet;
    use crate::domain::revoked::{Kind, SubjectClaims};
    use crate::domain::token::Token;
    use crate::testing::{SigningKey, jwks};

    struct ByKey(Issuers, KeySet);

    impl Verifier for ByKey {
        fn verify<'a>(&'a self, event: &'a SignedEvent) -> Verifying<'a> {
            let Self(issuers, keys) = self;
            let verify = || {
                let segments = Token::new(event.text.as_bytes()).split(16_384)?;
                let event = UnverifiedEvent::peek(&segments, event.form)?.address(issuers, |_| true)?;
                let subject_claims = &SubjectClaims::default();
                let limits = EventLimits { max_age: Duration::from_secs(3600), subject_claims };
                event.verify(keys, &[Audience("shop".to_owned())], &limits, Clock::default().now())
            };
            Box::pin(std::future::ready(verify().map_err(NotTaken::Fault)))
        }
    }

    /// With a disk that answers so, and what an issuer sends.
    fn inbox(answers: Vec<Result<(), String>>) -> (Inbox, SignedEvent) {
        let key = SigningKey::shared("event", Algorithm::Es256);
        let text = "issuers: [{name: i, issuer: i, audiences: [shop], algorithms: [ES256], keys: {discovery: 'https://i.example'}}]\n\
                    revocation: {listen: 'a:1'}";
        let config = Config::parse(text, "test.yaml").unwrap();
        let now = Clock::default().now();
        let issuers = Issuers::new(config.issuers.iter().map(|config| config.issuer.clone()).collect());
        let keys = KeySet::parse(jwks(&[&key]).to_string().as_bytes(), &[Algorithm::Es256], now).0.unwrap();
        let revocations = Revocations::new(config.revocation.unwrap(), Clock::default()).unwrap();
        let (mut inbox, _) = Inbox::new(Arc::new(revocations), ByKey(issuers, keys), None);
        inbox.appender = Some(Appender::answering(answers));
        let logout = key.mint("i", |header, claims| {
            header["typ"] = json!("logout+jwt");
            *claims = json!({
                "iss": "i", "aud": "shop", "iat": now.as_secs(), "jti": "1", "sub": "u",
                "events": {"http://schemas.openid.net/event/backchannel-logout": {}}
            });
        });
        (inbox, SignedEvent { form: EventForm::LogoutToken, text: logout.into() })
    }

    #[tokio::test]
    async fn no_answer_says_that_an_event_is_taken_before_it_is_on_the_disk() {
        let (inbox, event) = inbox(vec![Err("full".to_owned()), Err("full".to_owned()), Ok(())]);
        let offer = async || inbox.offer(&event, Source::Listen).await;
        assert_eq!(offer().await, Err(NotTaken::Disk));
        assert_eq!(inbox.revocations.count(Kind::Sub), 1, "it is in force all the same");
        assert_eq!(offer().await, Err(NotTaken::Disk), "nor when it is sent again");
        assert_eq!(offer().await, Ok(Taken::Known));
        assert_eq!(offer().await, Ok(Taken::Again), "without another write, to which there is no answer");
        assert_eq!(inbox.revocations.count(Kind::Sub), 1);
    }

    #[tokio::test]
    async fn an_event_that_another_replica_brought_is_written_when_its_issuer_sends_it() {
        let (inbox, event) = inbox(vec![Ok(()), Err("full".to_owned()), Ok(())]);
        assert_eq!(inbox.offer(&event, Source::Peers).await, Ok(Taken::New));
        assert_eq!(inbox.offer(&event, Source::Listen).await, Err(NotTaken::Disk));
        assert_eq!(inbox.offer(&event, Source::Listen).await, Ok(Taken::Known));
    }
}
