//! Admission under overload: a check whose caller has given up, or that comes past the bound of its core, is refused
//! before any work, so that it does not delay the checks that can still be answered. Also the bound on the memory of calls
//! whose message is not whole yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use strum::VariantArray;
use tokio::time::Instant;

use crate::per_core::PerCore;

/// Checks under way on one core, from the whole message to the answer. A check leaves this state within its first poll
/// unless it waits for a key, so this bounds the memory of checks that wait for keys; a queue of checks that wait for
/// the processor is cut by their deadlines.
const MAX_CHECKS_PER_CORE: usize = 4096;

/// The deadline of a check whose call has none. Envoy and most gRPC clients send one. A client that sends none waits
/// for its answer, so only a check that has waited longer than any client is known to is refused: 10 s is also the
/// longest wait for a key.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A check that waited less for its turn is prompt.
const PROMPT_WAIT: Duration = Duration::from_millis(20);

/// A core without a prompt check for this long has more work than it can do. A pause that a CPU quota makes is shorter,
/// and prompt checks come between two of them.
const OVERLOAD_AFTER: Duration = Duration::from_millis(500);

/// On an overloaded core a check is refused after this part of its caller's time, for Envoy's default after 100 ms. A check
/// waits twice, and about as long: in the socket, before it is counted as arrived, and for its turn. With the whole time
/// each answer would come just after its caller has given up: at 1.2 times its capacity a core would answer none in
/// time.
const OVERLOADED_SHARE: u32 = 2;

/// Memory of all calls whose message is not whole: clients that send HEADERS alone, or send slowly, must not fill it.
const MAX_UNFINISHED_BYTES: usize = 48 * 1024 * 1024;

/// What a call without a whole message holds beside its message: its task, its stream and a timer.
const UNFINISHED_CALL_BYTES: usize = 2 * 1024;

/// A connection holds more than this only while all connections together hold less than [`MAX_CALM_BYTES`]. It is enough
/// for HEADERS alone on each of its 256 streams, which an honest client sends too: in a burst of large checks HTTP/2
/// flow control holds back the messages, and not the HEADERS.
const MAX_CONNECTION_BYTES: usize = 512 * 1024;

/// Below this a few connections may hold all there is. The rest is for connections that hold little.
const MAX_CALM_BYTES: usize = 16 * 1024 * 1024;

/// What a connection may always hold, whatever others hold: some eight calls, or a check of the usual size in parts.
const MIN_CONNECTION_BYTES: usize = 16 * 1024;

/// Counts of the checks under way and of the checks refused.
#[derive(Debug, Default)]
pub struct Admission {
    shards: PerCore<Shard>,
    unfinished_bytes: AtomicUsize,
}

/// The counts of one core.
#[derive(Debug)]
struct Shard {
    started: Instant,
    arrived: AtomicU64,
    under_way: AtomicUsize,
    refused: PerRefusal,
    /// The shortest time that a caller gave who had given up, in milliseconds; `u64::MAX` if there is none.
    shortest_timeout: AtomicU64,
    /// When the first of the last checks, none of which was prompt, had its turn: milliseconds after `started`, and 1 more;
    /// 0 if the last check was prompt.
    late_since: AtomicU64,
}

impl Default for Shard {
    fn default() -> Self {
        let (arrived, under_way, refused, late_since) = Default::default();
        let shortest_timeout = AtomicU64::new(u64::MAX);
        Self { started: Instant::now(), arrived, under_way, refused, shortest_timeout, late_since }
    }
}

impl Shard {
    fn refuse(&self, refusal: Refusal) {
        if let Some(count) = self.refused.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A check that waited for so long has its turn now. Whether the core is overloaded.
    fn is_overloaded(&self, waited: Duration, now: Instant) -> bool {
        let since = self.late_since.load(Ordering::Relaxed);
        if waited < PROMPT_WAIT {
            if since != 0 {
                self.late_since.store(0, Ordering::Relaxed);
            }
            return false;
        }
        let now =
            u64::try_from(now.duration_since(self.started).as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        if since == 0 {
            self.late_since.store(now, Ordering::Relaxed);
            return false;
        }
        u128::from(now.saturating_sub(since)) > OVERLOAD_AFTER.as_millis()
    }
}

/// Why a check is refused unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub(crate) enum Refusal {
    /// [`MAX_CHECKS_PER_CORE`] are under way.
    TooMany,
    /// Its caller gave up before the check had its turn.
    CallerGaveUp,
    /// It waited for long on a core that is overloaded.
    Waited,
    /// Its message is not whole yet and would take too much memory.
    Memory,
}

/// A count for each [`Refusal`].
type PerRefusal = [AtomicU64; Refusal::VARIANTS.len()];

/// The check was refused without work: too many are under way, its caller has given up, or its message may take no more
/// memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("overloaded: try again")]
pub(crate) struct Overloaded;

/// When a call arrived, and when its caller gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    arrived: Instant,
    timeout: Duration,
}

impl Deadline {
    /// Of a call that arrives now with this timeout of its own.
    pub(crate) fn of_call(timeout: Option<Duration>) -> Self {
        Self { arrived: Instant::now(), timeout: timeout.unwrap_or(DEFAULT_TIMEOUT) }
    }

    /// The deadline, or this long after the arrival if that is earlier.
    pub(crate) fn at_most(self, wait: Duration) -> Instant {
        self.arrived + self.timeout.min(wait)
    }
}

impl Admission {
    /// A check has arrived whole.
    pub(crate) fn begin(&self) -> Ticket {
        let shard = Arc::clone(self.shards.here());
        shard.arrived.fetch_add(1, Ordering::Relaxed);
        let fits = shard.under_way.fetch_add(1, Ordering::Relaxed) < MAX_CHECKS_PER_CORE;
        Ticket { shard, fits }
    }

    /// Checks that have arrived since the start.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.shards.iter().map(|shard| shard.arrived.load(Ordering::Relaxed)).sum()
    }

    /// Checks refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        Refusal::VARIANTS.iter().map(|refusal| self.refused_for(*refusal)).sum()
    }

    /// Checks refused for this since the start.
    pub(crate) fn refused_for(&self, refusal: Refusal) -> u64 {
        let counts = self.shards.iter().filter_map(|shard| shard.refused.get(refusal as usize));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The shortest time that a caller gave who had given up, since the last call of this.
    pub(crate) fn take_shortest_timeout(&self) -> Option<Duration> {
        let taken = self.shards.iter().map(|shard| shard.shortest_timeout.swap(u64::MAX, Ordering::Relaxed));
        taken.min().filter(|millis| *millis != u64::MAX).map(Duration::from_millis)
    }

    /// A call of this connection whose message is not whole yet. It holds nothing at first.
    pub(crate) const fn unfinished<'a>(&'a self, connection: &'a ConnectionShare) -> UnfinishedCall<'a> {
        UnfinishedCall { admission: self, connection, bytes: 0 }
    }
}

/// Counts one check as under way until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    shard: Arc<CachePadded<Shard>>,
    fits: bool,
}

impl Ticket {
    /// Called when the check's work begins.
    ///
    /// # Errors
    /// [`Overloaded`]: the check came past the limit of its core, or its deadline has passed, or it waited for long on a
    /// core that is overloaded.
    pub(crate) fn in_time(&self, deadline: Deadline) -> Result<(), Overloaded> {
        let Deadline { arrived, timeout } = deadline;
        let now = Instant::now();
        let waited = now.duration_since(arrived);
        let overloaded = self.shard.is_overloaded(waited, now);
        let most = if overloaded { timeout / OVERLOADED_SHARE } else { timeout };
        if self.fits && waited <= most {
            return Ok(());
        }
        let refusal = match (self.fits, waited <= timeout) {
            (false, _) => Refusal::TooMany,
            (true, false) => Refusal::CallerGaveUp,
            (true, true) => Refusal::Waited,
        };
        if refusal == Refusal::CallerGaveUp {
            let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX - 1);
            self.shard.shortest_timeout.fetch_min(millis, Ordering::Relaxed);
        }
        self.shard.refuse(refusal);
        Err(Overloaded)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shard.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the calls of one connection hold while their messages are not whole.
#[derive(Debug, Default)]
pub(crate) struct ConnectionShare {
    bytes: AtomicUsize,
}

/// The memory of a call whose message is not whole; dropping it frees its share.
#[derive(Debug)]
pub(crate) struct UnfinishedCall<'a> {
    admission: &'a Admission,
    connection: &'a ConnectionShare,
    bytes: usize,
}

impl UnfinishedCall<'_> {
    /// The call waits for the rest of its message and holds `bytes` of it. What hostile connections hold does not refuse the
    /// calls of others: past [`MAX_CALM_BYTES`] each has its [`MAX_CONNECTION_BYTES`], and when less than that is left, a
    /// connection may hold as much as is left, and no less than [`MIN_CONNECTION_BYTES`].
    ///
    /// # Errors
    /// [`Overloaded`] if the connection would hold more than that.
    pub(crate) fn wait_with(&mut self, bytes: usize) -> Result<(), Overloaded> {
        let more = (UNFINISHED_CALL_BYTES + bytes).saturating_sub(self.bytes);
        self.bytes += more;
        let connection = self.connection.bytes.fetch_add(more, Ordering::Relaxed) + more;
        let all = self.admission.unfinished_bytes.fetch_add(more, Ordering::Relaxed) + more;
        let left = MAX_UNFINISHED_BYTES.saturating_sub(all);
        let most = if all <= MAX_CALM_BYTES { MAX_CALM_BYTES } else { MAX_CONNECTION_BYTES.min(left) };
        if connection <= most.max(MIN_CONNECTION_BYTES) {
            return Ok(());
        }
        self.admission.shards.here().refuse(Refusal::Memory);
        Err(Overloaded)
    }
}

impl Drop for UnfinishedCall<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.connection.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            self.admission.unfinished_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_check_is_refused_once_its_own_deadline_has_passed() {
        for timeout in [Some(Duration::from_millis(200)), Some(Duration::from_secs(3600)), None] {
            let admission = Admission::default();
            let deadline = Deadline::of_call(timeout);
            let ticket = admission.begin();
            tokio::time::advance(timeout.unwrap_or(DEFAULT_TIMEOUT)).await;
            assert_eq!(ticket.in_time(deadline), Ok(()), "{timeout:?}");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(ticket.in_time(deadline), Err(Overloaded), "{timeout:?}");
            drop(ticket);
            assert_eq!((admission.arrived(), admission.refused()), (1, 1));
            assert_eq!(admission.shards.here().under_way.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_core_without_a_prompt_check_for_long_is_overloaded() {
        let admission = Admission::default();
        let timeout = Duration::from_millis(200);
        let after = async |wait| {
            let (ticket, deadline) = (admission.begin(), Deadline::of_call(Some(timeout)));
            tokio::time::advance(wait).await;
            ticket.in_time(deadline).is_ok()
        };
        let [prompt, fair, late] = [PROMPT_WAIT / 2, timeout / OVERLOADED_SHARE, timeout * 9 / 10];
        // Pauses, however many, with a prompt check between two of them.
        for _ in 0..20 {
            assert!(after(late).await && after(late).await && after(prompt).await);
        }
        // A time without checks is no time without prompt ones.
        tokio::time::advance(OVERLOAD_AFTER * 2).await;
        assert!(after(late).await && after(late).await && after(late).await);
        for _ in 0..5 {
            after(late).await;
        }
        assert!(!after(late).await && after(fair).await && !after(fair + Duration::from_millis(1)).await);
        assert!(after(prompt).await && after(late).await, "it has recovered");
    }

    /// A core with the tasks of its connections and of its checks in one queue, as tokio has them; half as many checks
    /// again come as it can answer. Of those it answers, most must be in time.
    #[tokio::test(start_paused = true)]
    async fn under_overload_most_answers_are_in_time() {
        enum Task {
            /// A connection, and when its next check is sent.
            Read(Instant),
            /// A check, and when it was sent.
            Check(Instant, Deadline),
        }
        const CONNECTIONS: u32 = 16;
        let (work, small, timeout) =
            (Duration::from_millis(1), Duration::from_micros(50), Duration::from_millis(200));
        let apart = work * CONNECTIONS * 2 / 3;
        let admission = Admission::default();
        let begun = Instant::now();
        let mut queue: std::collections::VecDeque<_> = (0..CONNECTIONS).map(|_| Task::Read(begun)).collect();
        let (mut answered, mut in_time) = (0, 0);
        while begun.elapsed() < Duration::from_secs(5) {
            tokio::time::advance(small).await;
            match queue.pop_front().expect("connections stay") {
                Task::Read(mut next) => {
                    while next <= Instant::now() {
                        queue.push_back(Task::Check(next, Deadline::of_call(Some(timeout))));
                        next += apart;
                    }
                    queue.push_back(Task::Read(next));
                }
                Task::Check(sent, deadline) => {
                    if admission.begin().in_time(deadline).is_err() {
                        continue;
                    }
                    tokio::time::advance(work).await;
                    // From when the overload is known.
                    if begun.elapsed() > Duration::from_secs(2) {
                        answered += 1;
                        in_time += u32::from(sent.elapsed() <= timeout);
                    }
                }
            }
        }
        assert!(in_time > 1500 && in_time * 10 > answered * 9, "{in_time} of {answered} in time");
    }

    #[tokio::test]
    async fn one_too_many_is_refused_until_another_ends() {
        let admission = Admission::default();
        let deadline = Deadline::of_call(None);
        let mut held: Vec<_> = (0..MAX_CHECKS_PER_CORE).map(|_| admission.begin()).collect();
        assert_eq!(admission.begin().in_time(deadline), Err(Overloaded));
        held.pop();
        assert_eq!(admission.begin().in_time(deadline), Ok(()));
    }

    /// As many calls of a connection as may wait with so many bytes.
    fn fill<'a>(
        admission: &'a Admission,
        connection: &'a ConnectionShare,
        bytes: usize,
        most: usize,
    ) -> Vec<UnfinishedCall<'a>> {
        let mut held = Vec::new();
        while held.len() < most {
            let mut call = admission.unfinished(connection);
            if call.wait_with(bytes).is_err() {
                break;
            }
            held.push(call);
        }
        held
    }

    #[test]
    fn connections_that_hold_all_they_can_leave_room_for_others() {
        let admission = Admission::default();
        let hostile: Vec<_> = (0..40).map(|_| ConnectionShare::default()).collect();
        for bytes in [0, 60 * 1024] {
            let mut held = Vec::new();
            for _ in 0..3 {
                // Again, with what the others left.
                held.extend(hostile.iter().flat_map(|connection| fill(&admission, connection, bytes, 256)));
            }
            let all = admission.unfinished_bytes.load(Ordering::Relaxed);
            assert!(all <= MAX_UNFINISHED_BYTES, "{all}");
            // A burst of an honest connection: 200 calls whose messages HTTP/2 flow control holds back.
            let honest = ConnectionShare::default();
            let burst = fill(&admission, &honest, 0, 200);
            assert_eq!(burst.len(), 200, "beside {} of {bytes} bytes, {all} in all", held.len());
            drop((burst, held));
            assert_eq!(admission.unfinished_bytes.load(Ordering::Relaxed), 0);
            assert_eq!(honest.bytes.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_connection_may_always_receive_one_usual_check_in_parts_and_never_all_there_is() {
        let admission = Admission::default();
        let shares: Vec<_> = (0..30_000).map(|_| ConnectionShare::default()).collect();
        let _held: Vec<_> = shares.iter().flat_map(|connection| fill(&admission, connection, 0, 1)).collect();
        let (late, other) = (ConnectionShare::default(), ConnectionShare::default());
        let mut call = admission.unfinished(&late);
        assert_eq!(call.wait_with(MIN_CONNECTION_BYTES - UNFINISHED_CALL_BYTES), Ok(()));
        let refused = admission.refused();
        assert_eq!(call.wait_with(MIN_CONNECTION_BYTES), Err(Overloaded));
        assert_eq!(admission.refused(), refused + 1);
        assert_eq!(fill(&admission, &other, 0, 256).len(), MIN_CONNECTION_BYTES / UNFINISHED_CALL_BYTES);

        let alone = Admission::default();
        let mut call = alone.unfinished(&other);
        assert_eq!(call.wait_with(MAX_CALM_BYTES - UNFINISHED_CALL_BYTES), Ok(()));
        assert_eq!(call.wait_with(MAX_CALM_BYTES), Err(Overloaded), "in all, not one after the other");
    }
}
