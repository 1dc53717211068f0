//! Requests without a pause, while something happens beside them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::envoy::Envoy;
use super::fixtures::good;
use super::wait_until;

/// Asks from several tasks until its end; counts what was answered, and keeps what went wrong.
pub(crate) struct Load {
    answered: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Load {
    pub(crate) fn start<F>(tasks: usize, ask: impl Fn() -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (answered, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
        for _ in 0..tasks {
            let (answered, failed, stop) = (Arc::clone(&answered), Arc::clone(&failed), stop.clone());
            let ask = ask.clone();
            running.spawn(async move {
                while !stop.is_cancelled() {
                    if let Err(what) = ask().await {
                        failed.lock().unwrap().push(what);
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { answered, failed, stop, tasks: running }
    }

    /// Requests with a good token through Envoy: each must be let through.
    pub(crate) fn through(envoy: &Envoy) -> Self {
        let (client, url, token) = (reqwest::Client::new(), format!("http://{}/", envoy.address), good());
        Self::start(8, move || {
            let request = client.get(&url).bearer_auth(&token);
            async move {
                let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
                let status = answer.status();
                let body = answer.text().await.unwrap_or_default();
                if status == 200 { Ok(()) } else { Err(format!("{status} {body}")) }
            }
        })
    }

    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until this many more were answered.
    pub(crate) async fn goes_on(&self, more: usize) {
        let before = self.answered();
        wait_until("the load goes on", || async { self.answered() >= before + more }).await;
    }

    /// Ends, and fails if any request did.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), self.answered(), failed.first());
    }
}
