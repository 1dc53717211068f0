//! The requests under way, counted where they are served: one count for each core, and a drain waits for all of them.

use hyper::rt::Executor;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TrackedFuture;

/// The counts of all cores.
#[derive(Debug, Clone)]
pub(crate) struct RequestsInFlight(Vec<TaskTracker>);

impl RequestsInFlight {
    /// With so many cores.
    pub(crate) fn on(cores: usize) -> Self {
        Self((0..cores).map(|_| TaskTracker::new()).collect())
    }

    /// The count of one core.
    pub(crate) fn of(&self, core: usize) -> Counting {
        Counting(self.0.get(core).cloned().expect("there is a count for each core"))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(TaskTracker::len).sum()
    }

    /// Waits until each core had none for a moment.
    pub(crate) async fn wait(&self) {
        for core in &self.0 {
            // Not for good: it ends a wait, and counts as before.
            core.close();
            core.wait().await;
        }
    }
}

/// Counts requests, and spawns hyper's tasks, one for each HTTP/2 stream, where they are counted.
#[derive(Debug, Clone)]
pub(crate) struct Counting(TaskTracker);

impl Counting {
    /// Counts one that is no task of its own.
    pub(crate) fn count<F: Future>(&self, request: F) -> TrackedFuture<F> {
        self.0.track_future(request)
    }
}

impl<F> Executor<F> for Counting
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
