//! What keeps an overloaded service useful: checks that cannot be answered in time are refused at once, so that
//! Envoy hears it before its own timeout, and the others are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// The most checks under way at a time. It bounds memory: each may hold one message of the largest size.
const MOST: usize = 8192;

/// A check that waited this long for its turn is refused: Envoy gives up after 200 ms unless told otherwise.
const OVERDUE: Duration = Duration::from_millis(100);

/// How long a check may take from its headers to its answer: its message must come, and an unknown key may be
/// waited for (`refresh.wait`, at most 10 s).
const LONGEST: Duration = Duration::from_secs(12);

/// The checks under way.
#[derive(Debug, Default)]
pub struct Load {
    arrived: AtomicU64,
    under_way: AtomicUsize,
    refused: AtomicU64,
}

/// Why a check was not even looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many are under way, or it waited too long for its turn.
    #[error("overloaded: try again")]
    Overloaded,
    /// Its message did not come.
    #[error("the check did not arrive in time")]
    Late,
}

impl Load {
    /// A check has arrived.
    pub fn begin(self: &Arc<Self>) -> Turn {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let fits = self.under_way.fetch_add(1, Ordering::Relaxed) < MOST;
        Turn { load: Arc::clone(self), fits, arrived: Instant::now() }
    }

    /// Checks that have arrived so far.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Checks that were refused because there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// One check's place among those under way, from its arrival on.
#[derive(Debug)]
pub struct Turn {
    load: Arc<Load>,
    fits: bool,
    arrived: Instant,
}

impl Turn {
    /// Runs the check, if it can still be in time.
    ///
    /// # Errors
    /// [`Refused`]; `Overloaded` before anything of it was looked at.
    pub async fn run<F: Future>(self, check: impl FnOnce() -> F) -> Result<F::Output, Refused> {
        if !self.fits || self.arrived.elapsed() > OVERDUE {
            self.load.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Overloaded);
        }
        timeout(LONGEST, check()).await.map_err(|_| Refused::Late)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.load.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waited_too_long_is_refused_and_what_is_prompt_is_not() {
        let load = Arc::new(Load::default());
        let prompt = load.begin();
        tokio::time::advance(OVERDUE).await;
        assert_eq!(prompt.run(|| async { 1 }).await, Ok(1));
        let overdue = load.begin();
        tokio::time::advance(OVERDUE + Duration::from_millis(1)).await;
        let overdue = overdue.run(|| async { panic!("must not begin") });
        assert_eq!(overdue.await, Err::<(), _>(Refused::Overloaded));
        assert_eq!(load.begin().run(std::future::pending::<()>).await, Err(Refused::Late));
        assert_eq!((load.refused(), load.under_way.load(Ordering::Relaxed)), (1, 0));
    }

    #[tokio::test]
    async fn one_too_many_is_refused_until_another_ends() {
        let load = Arc::new(Load::default());
        let mut held: Vec<_> = (0..MOST).map(|_| load.begin()).collect();
        assert_eq!(load.begin().run(|| async {}).await, Err(Refused::Overloaded));
        held.pop();
        assert_eq!(load.begin().run(|| async {}).await, Ok(()));
    }
}
