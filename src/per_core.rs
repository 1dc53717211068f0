//! One value for each core, each on cache lines of its own, so that threads that serve at the same time never write to the
//! same line. A reader visits all values.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_utils::CachePadded;

#[derive(Debug)]
pub(crate) struct PerCore<T>(Box<[Arc<CachePadded<T>>]>);

impl<T: Default> Default for PerCore<T> {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, Into::into);
        Self((0..cores).map(|_| Arc::default()).collect())
    }
}

impl<T> PerCore<T> {
    /// The value of the calling thread. Threads are numbered at their first call, modulo the number of cores: the worker
    /// threads get different values, and with more threads than cores some share one.
    pub(crate) fn here(&self) -> &Arc<CachePadded<T>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        let core = THREAD.with(|thread| thread % self.0.len().max(1));
        self.0.get(core).expect("there is at least one core")
    }

    /// The values of all cores.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.0.iter().map(|value| &***value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn threads_share_no_cache_line_and_readers_see_all_values() {
        let values = PerCore::<AtomicU64>::default();
        let cores = values.iter().len();
        thread::scope(|scope| {
            for _ in 0..cores * 2 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        values.here().fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let sum: u64 = values.iter().map(|value| value.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, cores as u64 * 2000);
        let addresses: Vec<_> = values.0.iter().map(|value| std::ptr::from_ref(&**value).addr()).collect();
        assert!(addresses.iter().all(|address| address % 128 == 0), "no line is shared: {addresses:x?}");
        assert!(std::ptr::eq(&raw const **values.here(), &raw const **values.here()));
    }
}
