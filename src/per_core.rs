//! One of something for each core, so that threads which serve at the same time write to no cache line in common. Whoever
//! reads looks at all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_utils::CachePadded;

/// As many as there are cores; a thread finds its own.
#[derive(Debug)]
pub(crate) struct PerCore<T>(Box<[Arc<CachePadded<T>>]>);

impl<T: Default> Default for PerCore<T> {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, Into::into);
        Self((0..cores).map(|_| Arc::default()).collect())
    }
}

impl<T> PerCore<T> {
    /// This thread's own. Threads that began one after the other have different ones, as far as there are.
    pub(crate) fn here(&self) -> &Arc<CachePadded<T>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        let at = THREAD.with(|at| at % self.0.len().max(1));
        self.0.get(at).expect("there is at least one core")
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.0.iter().map(|shard| &***shard)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn threads_write_apart_and_readers_see_all() {
        let shards = PerCore::<AtomicU64>::default();
        let cores = shards.iter().len();
        thread::scope(|scope| {
            for _ in 0..cores * 2 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        shards.here().fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let sum: u64 = shards.iter().map(|shard| shard.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, cores as u64 * 2000);
        let places: Vec<_> = shards.0.iter().map(|shard| std::ptr::from_ref(&**shard).addr()).collect();
        assert!(places.iter().all(|place| place % 128 == 0), "no line is shared: {places:x?}");
        assert!(std::ptr::eq(&raw const **shards.here(), &raw const **shards.here()));
    }
}
