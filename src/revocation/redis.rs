//! A stream in Redis or Valkey, for many replicas or those that cannot reach each other. It carries the signed events as they came, and
//! each replica verifies them, so that nothing can be revoked by writing to Redis.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamRangeReply, StreamReadReply};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, RedisError, cmd, pipe};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::inbox::Inbox;
use super::signed::{EventId, SignedEvent};
use super::source::Source;
use crate::config::RedisSettings;
use crate::watched_file::FileIo;

/// The stream, in the database that the URL names.
const STREAM: &str = "passage-authz:events";

/// Before the first entry.
const BEGINNING: &str = "0-0";

/// The most entries of one answer.
const COUNT: usize = 100;

/// How long Redis keeps a read that has nothing to answer.
const BLOCK: Duration = Duration::from_millis(500);

/// The longest a connection or an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The other replicas see within this time that the stream was lost, and fill it again.
const REFILLED_AFTER: Duration = Duration::from_millis(1500);

/// Replicas that fill the stream again begin so far apart, in milliseconds.
const MOST_APART_MILLIS: u64 = 400;

/// What is older than any token of this replica stays for so long.
const TRIM_MARGIN: Duration = Duration::from_secs(48 * 3600);

/// Between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Why the stream cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("it does not answer in time")]
    Late,
    #[error("{}: {error}", file.display())]
    PasswordFile { file: PathBuf, error: std::io::Error },
    #[error("it has lost what was read of it")]
    Lost,
    /// More events came than it took.
    #[error("events were to be added faster than it takes them")]
    Behind,
}

/// Follows the stream.
pub(crate) struct RedisStream {
    settings: RedisSettings,
    inbox: Arc<Inbox>,
    file_io: FileIo,
}

/// What a read brought.
struct Answer {
    events: Vec<SignedEvent>,
    /// Whether there is nothing more now.
    is_all: bool,
}

/// How far the stream was read.
struct Reading {
    connection: MultiplexedConnection,
    last: String,
}

impl RedisStream {
    pub(crate) fn new(settings: RedisSettings, inbox: Arc<Inbox>) -> Self {
        Self { settings, inbox, file_io: FileIo::new() }
    }

    /// Until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let following = async {
            let mut was_down = false;
            loop {
                let Err(error) = self.follow(&mut was_down).await;
                let (server, error) = (self.settings.server(), error.to_string());
                self.inbox.revocations.source(Source::Redis).set_trouble(Some(error.clone()));
                if !std::mem::replace(&mut was_down, true) {
                    tracing::warn!(
                        server,
                        error,
                        "the stream of revocation events cannot be followed; trying again"
                    );
                }
                sleep(RETRY_AFTER).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = following => {}
        }
    }

    /// Reads the whole stream, adds what it lacks, then follows it: after a loss of Redis, or of a connection, each replica makes it whole.
    async fn follow(&self, was_down: &mut bool) -> Result<std::convert::Infallible, StreamError> {
        // Before the read, so that no event is missed in between.
        let mut handed_on = self.inbox.handed_on();
        let mut reading = Reading { connection: self.connect().await?, last: BEGINNING.to_owned() };
        let mut writer = self.connect().await?;
        let mut known = self.read_all(&mut reading).await?;
        if known.is_empty() && self.inbox.revocations.is_starting() {
            // It may have been lost a moment ago, and the other replicas fill it again.
            sleep(REFILLED_AFTER).await;
            known = self.read_all(&mut reading).await?;
        }
        if !self.lacking(&known).is_empty() {
            // Other replicas see the same at the same time: one of them is the first, and the others find what it added.
            sleep(Duration::from_millis(fastrand::u64(..MOST_APART_MILLIS))).await;
            known.extend(self.read_all(&mut reading).await?);
        }
        self.add(&mut writer, &self.lacking(&known)).await?;
        // Not before: a stream that takes nothing is none that the others can follow.
        self.confirm();
        if std::mem::take(was_down) {
            tracing::info!(
                server = self.settings.server(),
                "the stream of revocation events is followed again"
            );
        }
        let reads = async {
            loop {
                let Answer { events, is_all } = read(&mut reading, BLOCK).await?;
                for event in events {
                    self.take(&event).await;
                }
                is_whole(&mut reading).await?;
                if is_all {
                    self.confirm();
                }
            }
        };
        let writes = async {
            loop {
                self.add(&mut writer, &[next(&mut handed_on).await?]).await?;
            }
        };
        tokio::select! {
            ended = reads => ended,
            ended = writes => ended,
        }
    }

    /// Reads from where it was read up to now; returns the events of this process that are there as they are here.
    async fn read_all(&self, reading: &mut Reading) -> Result<HashSet<EventId>, StreamError> {
        let mut known = HashSet::new();
        loop {
            let Answer { events, is_all } = read(reading, Duration::ZERO).await?;
            for event in events {
                self.take(&event).await;
                // One with another signature may be verified by no one.
                if self.inbox.has_exactly(&event) {
                    known.insert(event.id());
                }
            }
            if is_all {
                return Ok(known);
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, StreamError> {
        let RedisSettings { url, password_file } = &self.settings;
        let mut info = url.as_str().into_connection_info()?;
        if let Some(file) = password_file.clone() {
            let read = self.file_io.run(move || std::fs::read_to_string(file)).await.flatten();
            let named =
                |error| StreamError::PasswordFile { file: password_file.clone().unwrap_or_default(), error };
            let password = read.map_err(named)?;
            let settings = info.redis_settings().clone().set_password(password.trim_end());
            info = info.set_redis_settings(settings);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            // Above the time that a read may be kept.
            .set_response_timeout(Some(BLOCK + TIMEOUT));
        let client = Client::open(info)?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        Ok(timeout(TIMEOUT, connecting).await.map_err(|_| StreamError::Late)??)
    }

    async fn take(&self, event: &SignedEvent) {
        if !self.inbox.knows(event.id()) {
            // What is refused is counted and logged.
            let _ = self.inbox.offer(event, Source::Redis).await;
        }
    }

    fn confirm(&self) {
        self.inbox.confirm(Source::Redis);
    }

    fn lacking(&self, known: &HashSet<EventId>) -> Vec<SignedEvent> {
        (0..=u8::MAX).flat_map(|part| self.inbox.lacking(part, known)).collect()
    }

    /// Adds events, many at a time, and drops those of which no token can be named any more.
    async fn add(
        &self,
        writer: &mut MultiplexedConnection,
        events: &[SignedEvent],
    ) -> Result<(), StreamError> {
        // With a margin: other replicas may have a longer lifetime, or another clock.
        let oldest = self.inbox.revocations.oldest_event().before(TRIM_MARGIN).as_secs() * 1000;
        for some in events.chunks(COUNT) {
            let mut commands = pipe();
            for event in some {
                let command = commands.cmd("XADD").arg(STREAM).arg("MINID").arg("~").arg(oldest).arg("*");
                command.arg("form").arg(event.form_name()).arg("event").arg(&*event.text).ignore();
            }
            commands.query_async::<()>(writer).await?;
        }
        Ok(())
    }
}

/// Whether what was read last is still there. The newest entry is never trimmed, so without it the stream was lost, or begun anew.
async fn is_whole(reading: &mut Reading) -> Result<(), StreamError> {
    if reading.last == BEGINNING {
        return Ok(());
    }
    let mut command = cmd("XRANGE");
    command.arg(STREAM).arg(&reading.last).arg(&reading.last);
    let found: StreamRangeReply = command.query_async(&mut reading.connection).await?;
    if found.ids.is_empty() { Err(StreamError::Lost) } else { Ok(()) }
}

/// The next event to add.
async fn next(events: &mut broadcast::Receiver<SignedEvent>) -> Result<SignedEvent, StreamError> {
    match events.recv().await {
        Ok(event) => Ok(event),
        Err(RecvError::Lagged(_)) => Err(StreamError::Behind),
        // The sender lives as long as the inbox.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

/// The events among the next entries; none after `block`, which is not waited for if it is zero. Entries that are no events are passed over.
async fn read(reading: &mut Reading, block: Duration) -> Result<Answer, StreamError> {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(COUNT);
    if !block.is_zero() {
        command.arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX));
    }
    command.arg("STREAMS").arg(STREAM).arg(&reading.last);
    let answer: Option<StreamReadReply> = command.query_async(&mut reading.connection).await?;
    let (mut events, mut count) = (Vec::new(), 0);
    let entries = answer.into_iter().flat_map(|answer| answer.keys).flat_map(|stream| stream.ids);
    for entry in entries {
        let text = |name| entry.get::<String>(name);
        events
            .extend(text("form").zip(text("event")).and_then(|(form, event)| SignedEvent::of(&form, &event)));
        (reading.last, count) = (entry.id, count + 1);
    }
    Ok(Answer { events, is_all: count < COUNT })
}
