//! The tasks of a running service: those that last until the ports have drained, and the ports themselves. The first
//! one that ends before `stop` ends the service and is named.

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::server::Drained;

/// Why the tasks did not last until `stop`.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task ended that should run as long as the service.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
    /// A task panicked.
    #[error("a task failed: {0}")]
    Failed(#[from] JoinError),
}

pub(crate) struct Tasks {
    running: JoinSet<Ended>,
    /// Ports that have not drained yet.
    ports: usize,
    stop: CancellationToken,
    drained: CancellationToken,
}

struct Ended {
    task: &'static str,
    /// For a port only.
    drained: Option<Drained>,
}

impl Tasks {
    /// No tasks yet. From `stop` on each of them may end.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { running: JoinSet::new(), ports: 0, stop, drained: CancellationToken::new() }
    }

    /// Cancelled once every port has drained. Then the tasks end that a drain needs: keys, certificates, the admin port.
    pub(crate) fn drained(&self) -> CancellationToken {
        self.drained.clone()
    }

    /// Starts a task that must not end before `stop`.
    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            task.await;
            Ended { task: name, drained: None }
        });
    }

    /// Starts a port that must not end before `stop`, and drains then.
    pub(crate) fn spawn_port(
        &mut self,
        name: &'static str,
        port: impl Future<Output = Drained> + Send + 'static,
    ) {
        self.ports += 1;
        self.running.spawn(async move {
            let drained = port.await;
            Ended { task: name, drained: Some(drained) }
        });
    }

    /// Waits for all tasks; returns how many checks the drains have cut off. An error aborts the tasks that are left.
    pub(crate) async fn join(mut self) -> Result<usize, TaskError> {
        let mut cut = 0;
        while let Some(ended) = self.running.join_next().await {
            let Ended { task, drained } = ended?;
            if !self.stop.is_cancelled() {
                return Err(TaskError::Ended(task));
            }
            let Some(drained) = drained else { continue };
            cut += match drained {
                Drained::Clean => 0,
                Drained::Cut(checks) => checks,
            };
            self.ports -= 1;
            if self.ports == 0 {
                self.drained.cancel();
            }
        }
        Ok(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn port(stop: CancellationToken, outcome: Drained) -> Drained {
        stop.cancelled().await;
        outcome
    }

    #[tokio::test]
    async fn tasks_end_after_the_last_port_and_cut_checks_are_added_up() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let drained = tasks.drained();
        tasks.spawn("a task", async move { drained.cancelled().await });
        tasks.spawn_port("one port", port(stop.clone(), Drained::Cut(2)));
        tasks.spawn_port("another port", port(stop.clone(), Drained::Cut(3)));
        tasks.spawn_port("a third port", port(stop.clone(), Drained::Clean));
        stop.cancel();
        assert_eq!(tasks.join().await.unwrap(), 5);
    }

    /// What ends a service of one port and this.
    async fn error_of(start: fn(&mut Tasks)) -> String {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn_port("another port", port(stop, Drained::Clean));
        start(&mut tasks);
        tasks.join().await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn the_first_early_end_is_named() {
        let error = error_of(|tasks| tasks.spawn("a task", async {})).await;
        assert_eq!(error, "a task ended unexpectedly");
        let error = error_of(|tasks| tasks.spawn_port("a port", async { Drained::Clean })).await;
        assert_eq!(error, "a port ended unexpectedly");
        let error = error_of(|tasks| tasks.spawn("a task", async { panic!("a test") })).await;
        assert!(error.starts_with("a task failed: "), "{error}");
    }
}
