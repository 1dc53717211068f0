//! The requests under way, counted on the core that serves them, so that no request writes to a count that cores share. A
//! drain waits for all counts.

use hyper::rt::Executor;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TrackedFuture;

/// One count for each core.
#[derive(Debug, Clone)]
pub(crate) struct RequestsInFlight(Vec<TaskTracker>);

impl RequestsInFlight {
    pub(crate) fn for_cores(cores: usize) -> Self {
        Self((0..cores).map(|_| TaskTracker::new()).collect())
    }

    pub(crate) fn on_core(&self, core: usize) -> RequestTracker {
        RequestTracker(self.0.get(core).cloned().expect("there is a count for each core"))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(TaskTracker::len).sum()
    }

    /// Waits for each core in turn until it has no request for a moment; a core may have new ones by the end.
    pub(crate) async fn wait(&self) {
        for core in &self.0 {
            // `TaskTracker::wait` only returns on a closed tracker. A closed tracker still tracks new tasks.
            core.close();
            core.wait().await;
        }
    }
}

/// Tracks the requests of one core. As hyper's executor it spawns and tracks the task of each HTTP/2 stream.
#[derive(Debug, Clone)]
pub(crate) struct RequestTracker(TaskTracker);

impl RequestTracker {
    /// For an HTTP/1.1 request, which hyper polls inside the connection's task.
    pub(crate) fn track<F: Future>(&self, request: F) -> TrackedFuture<F> {
        self.0.track_future(request)
    }
}

impl<F> Executor<F> for RequestTracker
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
