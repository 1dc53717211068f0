//! What keeps an overloaded service useful: checks that cannot be answered in time are refused at once, so that
//! Envoy hears it before its own timeout, and the others are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::per_core::{Apart, Shards};

/// The most checks under way on one core at a time: some fifty milliseconds' work.
const MOST: usize = 4096;

/// The most bytes of messages that are not all there: whoever sends them slowly must not fill the memory.
const MOST_PARTS: usize = 32 * 1024 * 1024;

/// A check that waited this long for its turn is refused: Envoy gives up after 200 ms unless told otherwise.
const OVERDUE: Duration = Duration::from_millis(100);

/// The checks under way.
#[derive(Debug, Default)]
pub struct Load {
    shards: Shards<Shard>,
    parts: AtomicUsize,
}

/// What one core has seen.
#[derive(Debug, Default)]
struct Shard {
    arrived: AtomicU64,
    under_way: AtomicUsize,
    refused: AtomicU64,
}

/// Too many checks are under way, or this one waited too long for its turn; nothing of it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("overloaded: try again")]
pub struct Overloaded;

impl Load {
    /// A check has arrived.
    pub fn begin(&self) -> Turn {
        let shard = Arc::clone(self.shards.here());
        shard.arrived.fetch_add(1, Ordering::Relaxed);
        let fits = shard.under_way.fetch_add(1, Ordering::Relaxed) < MOST;
        Turn { shard, fits, arrived: Instant::now() }
    }

    /// Checks that have arrived so far.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.shards.iter().map(|shard| shard.arrived.load(Ordering::Relaxed)).sum()
    }

    /// Checks that were refused because there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shards.iter().map(|shard| shard.refused.load(Ordering::Relaxed)).sum()
    }

    /// Room for the parts of a message that is not all there.
    pub(crate) const fn parts(&self) -> Parts<'_> {
        Parts { load: self, bytes: 0 }
    }
}

/// One check's place among those under way, from its arrival to its end.
#[derive(Debug)]
pub struct Turn {
    shard: Arc<Apart<Shard>>,
    fits: bool,
    arrived: Instant,
}

impl Turn {
    /// Whether the check can still be in time; asked when it is its turn.
    ///
    /// # Errors
    /// [`Overloaded`].
    pub fn in_time(&self) -> Result<(), Overloaded> {
        if self.fits && self.arrived.elapsed() <= OVERDUE {
            return Ok(());
        }
        self.shard.refused.fetch_add(1, Ordering::Relaxed);
        Err(Overloaded)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shard.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The parts of one message; their room is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    load: &'a Load,
    bytes: usize,
}

impl Parts<'_> {
    /// Takes room for so many bytes in all.
    ///
    /// # Errors
    /// [`Overloaded`] if the parts of all messages have no more.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Overloaded> {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        let all = self.load.parts.fetch_add(more, Ordering::Relaxed) + more;
        if all <= MOST_PARTS {
            return Ok(());
        }
        self.load.shards.here().refused.fetch_add(1, Ordering::Relaxed);
        Err(Overloaded)
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.load.parts.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waited_too_long_is_refused_and_what_is_prompt_is_not() {
        let load = Load::default();
        let prompt = load.begin();
        tokio::time::advance(OVERDUE).await;
        assert_eq!(prompt.in_time(), Ok(()));
        drop(prompt);
        let overdue = load.begin();
        tokio::time::advance(OVERDUE + Duration::from_millis(1)).await;
        assert_eq!(overdue.in_time(), Err(Overloaded));
        drop(overdue);
        assert_eq!((load.arrived(), load.refused()), (2, 1));
        assert_eq!(load.shards.here().under_way.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn one_too_many_is_refused_until_another_ends() {
        let load = Load::default();
        let mut held: Vec<_> = (0..MOST).map(|_| load.begin()).collect();
        assert_eq!(load.begin().in_time(), Err(Overloaded));
        held.pop();
        assert_eq!(load.begin().in_time(), Ok(()));
    }

    #[test]
    fn parts_of_messages_have_so_much_room_together() {
        let load = Load::default();
        let (mut one, mut other) = (load.parts(), load.parts());
        assert_eq!(one.hold(MOST_PARTS - 10), Ok(()));
        assert_eq!(other.hold(8), Ok(()));
        assert_eq!(other.hold(10), Ok(()), "in all, not one after the other");
        assert_eq!(other.hold(11), Err(Overloaded));
        drop(one);
        assert_eq!(other.hold(MOST_PARTS), Ok(()));
        drop(other);
        assert_eq!((load.parts.load(Ordering::Relaxed), load.refused()), (0, 1));
    }
}
