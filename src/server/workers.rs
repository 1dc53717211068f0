//! Where connections are served: a thread with a runtime of its own for each core, so that a check never changes
//! threads. Envoy's connections are few and long; they are spread over the threads by count.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The threads, or one runtime that is there already.
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
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Every connection on this runtime.
    #[must_use]
    pub(crate) fn on(runtime: Handle) -> Self {
        Self(Arc::new(vec![Worker { runtime, connections: AtomicUsize::new(0) }]))
    }

    /// One thread for each core that the process may use, by its affinity and its control group.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub async fn start() -> io::Result<(Self, Threads)> {
        let (mut threads, mut workers) = (Vec::new(), Vec::new());
        let stop = CancellationToken::new();
        // An error on the way ends the threads that were started before it.
        let ends_threads = stop.clone().drop_guard();
        for at in 0..thread::available_parallelism().map_or(1, Into::into) {
            let (tell, told) = oneshot::channel();
            let stop = stop.clone();
            let work = move || {
                // Made where it runs; dropped there too, with whatever is left on it.
                match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        let _ = tell.send(Ok(runtime.handle().clone()));
                        runtime.block_on(stop.cancelled());
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            };
            threads.push(thread::Builder::new().name(format!("passage-authz-{at}")).spawn(work)?);
            let runtime = told.await.map_err(io::Error::other)??;
            workers.push(Worker { runtime, connections: AtomicUsize::new(0) });
        }
        Ok((Self(Arc::new(workers)), Threads { stop: ends_threads, threads }))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// A place for one connection, where there are the fewest.
    pub(crate) fn assign(&self) -> Assignment {
        let count =
            |at: &usize| self.0.get(*at).map_or(usize::MAX, |it| it.connections.load(Ordering::Relaxed));
        let at = (0..self.0.len()).min_by_key(count).unwrap_or_default();
        let assignment = Assignment { workers: self.clone(), at };
        assignment.worker().connections.fetch_add(1, Ordering::Relaxed);
        assignment
    }
}

/// One connection's place; it is free again when dropped.
pub(crate) struct Assignment {
    workers: Workers,
    at: usize,
}

impl Assignment {
    fn worker(&self) -> &Worker {
        self.workers.0.get(self.at).expect("there is at least one worker, and none goes")
    }

    pub(crate) fn runtime(&self) -> Handle {
        self.worker().runtime.clone()
    }

    /// Which of the workers it is at, from 0.
    pub(crate) const fn core(&self) -> usize {
        self.at
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.worker().connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Threads {
    /// Ends the threads; blocks until they have.
    pub fn end(self) {
        let Self { stop, threads } = self;
        drop(stop);
        for thread in threads {
            // A panic in a task is caught by its runtime; there is nothing more to say here.
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
