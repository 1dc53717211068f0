//! The runtimes that serve connections: one thread with a current_thread runtime for each core, so that no check moves
//! between threads. Envoy's connections are few and long; a new one goes to the thread with the fewest.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

/// One runtime for each core, or one that is there already.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Vec<Worker>>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: AtomicUsize,
}

/// The threads' owner. Dropping it ends them, [`Threads::end`] also waits until they have ended.
#[derive(Debug)]
pub struct Threads {
    stop: DropGuard,
    cancelled: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Every connection on this runtime.
    #[must_use]
    pub(crate) fn on(runtime: Handle) -> Self {
        Self(Arc::new(vec![Worker { runtime, connections: AtomicUsize::new(0) }]))
    }

    /// One thread for each core that the process may use, by its CPU affinity and its cgroup quota.
    ///
    /// # Errors
    /// A thread cannot be spawned or its runtime cannot be built.
    pub async fn start() -> io::Result<(Self, Threads)> {
        let (mut threads, mut workers) = (Vec::new(), Vec::new());
        let stop = CancellationToken::new();
        // An error on the way ends the threads that were started before it.
        let ends_threads = stop.clone().drop_guard();
        for core in 0..thread::available_parallelism().map_or(1, Into::into) {
            let (runtime, thread) = start_thread(&core.to_string(), stop.clone()).await?;
            threads.push(thread);
            workers.push(Worker { runtime, connections: AtomicUsize::new(0) });
        }
        Ok((Self(Arc::new(workers)), Threads { stop: ends_threads, cancelled: stop, threads }))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Counts a new connection on the core that has the fewest.
    pub(crate) fn assign(&self) -> Assignment {
        let connections = |core: &usize| {
            self.0.get(*core).map_or(usize::MAX, |worker| worker.connections.load(Ordering::Relaxed))
        };
        let core = (0..self.0.len()).min_by_key(connections).unwrap_or_default();
        let assignment = Assignment { workers: self.clone(), core };
        assignment.worker().connections.fetch_add(1, Ordering::Relaxed);
        assignment
    }
}

/// The core of one connection; dropping it ends the count of the connection there.
pub(crate) struct Assignment {
    workers: Workers,
    core: usize,
}

impl Assignment {
    fn worker(&self) -> &Worker {
        self.workers.0.get(self.core).expect("there is at least one worker, and none is removed")
    }

    pub(crate) fn runtime(&self) -> Handle {
        self.worker().runtime.clone()
    }

    /// From 0, below [`Workers::count`].
    pub(crate) const fn core(&self) -> usize {
        self.core
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.worker().connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A thread with a runtime, until `stop`.
async fn start_thread(name: &str, stop: CancellationToken) -> io::Result<(Handle, JoinHandle<()>)> {
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        // The runtime is built and dropped on its own thread, together with the tasks that are left on it.
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = sender.send(Ok(runtime.handle().clone()));
                runtime.block_on(stop.cancelled());
            }
            Err(error) => drop(sender.send(Err(error))),
        }
    };
    let thread = thread::Builder::new().name(format!("passage-authz-{name}")).spawn(work)?;
    Ok((receiver.await.map_err(io::Error::other)??, thread))
}

impl Threads {
    /// One more thread, which ends with the others.
    ///
    /// # Errors
    /// The thread cannot be spawned or its runtime cannot be built.
    pub(crate) async fn start_one(&mut self, name: &str) -> io::Result<Handle> {
        let (runtime, thread) = start_thread(name, self.cancelled.clone()).await?;
        self.threads.push(thread);
        Ok(runtime)
    }

    /// Stops the threads and joins them. Blocks.
    pub fn end(self) {
        let Self { stop, cancelled: _, threads } = self;
        drop(stop);
        for thread in threads {
            // An error is a panic of the thread itself. A task's panic ends in its `JoinHandle`.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_spread_by_count() {
        let (workers, threads) = Workers::start().await.unwrap();
        let count = workers.0.len();
        let places: Vec<_> = (0..count * 3).map(|_| workers.assign()).collect();
        let counts = || workers.0.iter().map(|worker| worker.connections.load(Ordering::Relaxed));
        assert!(counts().all(|connections| connections == 3));
        let name = places[0].runtime().spawn(async { thread::current().name().map(str::to_owned) });
        assert_eq!(name.await.unwrap().as_deref(), Some("passage-authz-0"));
        drop(places);
        assert!(counts().all(|connections| connections == 0));
        tokio::task::spawn_blocking(|| threads.end()).await.unwrap();
    }
}
