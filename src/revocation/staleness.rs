//! Sees when a source of revocations has become too old, and says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::source::Source;
use super::state::Revocations;
use crate::config::WhenStale;

const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A start waits so long for what the other replicas know, unless tokens are denied without it.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks at the age of each source until `stop`. By itself: a disk that hangs, or a peer that does not answer, must not keep the age
/// from being seen.
pub(crate) async fn watch(revocations: Arc<Revocations>, stop: CancellationToken) {
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut stale, begun) = (Vec::new(), Instant::now());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => {}
        }
        revocations.look_at_age();
        let waits = revocations.settings.when_stale == WhenStale::Deny;
        if !waits && begun.elapsed() > START_TIMEOUT && revocations.is_starting() {
            tracing::warn!(
                "no other replica has said what it knows: revocations that only others took are not known here"
            );
            revocations.has_started();
        }
        log(&revocations, &mut stale);
    }
}

/// Says which sources have become stale, and which no longer are.
fn log(revocations: &Revocations, stale: &mut Vec<Source>) {
    let denied = revocations.denies();
    for (source, state) in revocations.aged_sources() {
        let is_stale = state.age() > revocations.settings.stale_after;
        let was_stale = stale.contains(&source);
        let (name, error) = (source.name(), state.trouble());
        if is_stale && !was_stale {
            stale.push(source);
            tracing::error!(
                source = name,
                error,
                denied,
                "revocations are stale: what the source has may not be in force"
            );
        } else if was_stale && !is_stale {
            stale.retain(|other| *other != source);
            tracing::info!(source = name, "revocations are up to date again");
        }
    }
}
