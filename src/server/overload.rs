//! Admission under overload: a check that cannot be answered before Envoy's timeout is refused at once, so that its work
//! does not delay the checks that can. Also the bound on the bytes of partly received messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::time::Instant;

use crate::per_core::PerCore;

/// Checks under way on one core: some fifty milliseconds of work.
const MAX_CHECKS_PER_CORE: usize = 4096;

/// Bytes of partly received messages, over all connections: clients that send slowly must not fill the memory.
const MAX_PARTIAL_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// A check that waited this long before its work begins is refused: Envoy's default timeout is 200 ms.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Counts of the checks under way and of the checks refused.
#[derive(Debug, Default)]
pub struct Admission {
    shards: PerCore<Shard>,
    parts: AtomicUsize,
}

/// The counts of one core.
#[derive(Debug, Default)]
struct Shard {
    arrived: AtomicU64,
    under_way: AtomicUsize,
    refused: AtomicU64,
}

/// Too many checks are under way, or this one waited too long. Its message was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("overloaded: try again")]
pub struct Overloaded;

impl Admission {
    /// A check has arrived.
    pub fn begin(&self) -> Ticket {
        let shard = Arc::clone(self.shards.here());
        shard.arrived.fetch_add(1, Ordering::Relaxed);
        let fits = shard.under_way.fetch_add(1, Ordering::Relaxed) < MAX_CHECKS_PER_CORE;
        Ticket { shard, fits, arrived: Instant::now() }
    }

    /// Checks that have arrived since the start.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.shards.iter().map(|shard| shard.arrived.load(Ordering::Relaxed)).sum()
    }

    /// Checks refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shards.iter().map(|shard| shard.refused.load(Ordering::Relaxed)).sum()
    }

    /// A share of [`MAX_PARTIAL_MESSAGE_BYTES`] for one message, empty at first.
    pub(crate) const fn partial_message(&self) -> PartialMessage<'_> {
        PartialMessage { admission: self, bytes: 0 }
    }
}

/// Counts one check as under way until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    shard: Arc<CachePadded<Shard>>,
    fits: bool,
    arrived: Instant,
}

impl Ticket {
    /// Called when the check's work begins.
    ///
    /// # Errors
    /// [`Overloaded`]: the check came past the limit of its core, or waited longer than [`MAX_WAIT`].
    pub fn in_time(&self) -> Result<(), Overloaded> {
        if self.fits && self.arrived.elapsed() <= MAX_WAIT {
            return Ok(());
        }
        self.shard.refused.fetch_add(1, Ordering::Relaxed);
        Err(Overloaded)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shard.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes that a partly received message holds; dropping it frees them.
#[derive(Debug)]
pub(crate) struct PartialMessage<'a> {
    admission: &'a Admission,
    bytes: usize,
}

impl PartialMessage<'_> {
    /// Raises this message's share to `bytes` in all.
    ///
    /// # Errors
    /// [`Overloaded`] if all messages together hold too many bytes.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Overloaded> {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        let all = self.admission.parts.fetch_add(more, Ordering::Relaxed) + more;
        if all <= MAX_PARTIAL_MESSAGE_BYTES {
            return Ok(());
        }
        self.admission.shards.here().refused.fetch_add(1, Ordering::Relaxed);
        Err(Overloaded)
    }
}

impl Drop for PartialMessage<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.admission.parts.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waited_too_long_is_refused_and_what_is_prompt_is_not() {
        let admission = Admission::default();
        let prompt = admission.begin();
        tokio::time::advance(MAX_WAIT).await;
        assert_eq!(prompt.in_time(), Ok(()));
        drop(prompt);
        let overdue = admission.begin();
        tokio::time::advance(MAX_WAIT + Duration::from_millis(1)).await;
        assert_eq!(overdue.in_time(), Err(Overloaded));
        drop(overdue);
        assert_eq!((admission.arrived(), admission.refused()), (2, 1));
        assert_eq!(admission.shards.here().under_way.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn one_too_many_is_refused_until_another_ends() {
        let admission = Admission::default();
        let mut held: Vec<_> = (0..MAX_CHECKS_PER_CORE).map(|_| admission.begin()).collect();
        assert_eq!(admission.begin().in_time(), Err(Overloaded));
        held.pop();
        assert_eq!(admission.begin().in_time(), Ok(()));
    }

    #[test]
    fn parts_of_messages_have_so_much_room_together() {
        let admission = Admission::default();
        let (mut one, mut other) = (admission.partial_message(), admission.partial_message());
        assert_eq!(one.hold(MAX_PARTIAL_MESSAGE_BYTES - 10), Ok(()));
        assert_eq!(other.hold(8), Ok(()));
        assert_eq!(other.hold(10), Ok(()), "in all, not one after the other");
        assert_eq!(other.hold(11), Err(Overloaded));
        drop(one);
        assert_eq!(other.hold(MAX_PARTIAL_MESSAGE_BYTES), Ok(()));
        drop(other);
        assert_eq!((admission.parts.load(Ordering::Relaxed), admission.refused()), (0, 1));
    }
}
