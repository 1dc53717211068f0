//! Says so while checks are refused because too many are under way. Looked for from outside: a check that is refused writes no line,
//! for then is no time for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::server::overload::Admission;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// While checks are refused, a line so often.
const LINES_APART: Duration = Duration::from_secs(60);

/// Logs that checks are refused, with their number since the last line; until `stop`.
pub(crate) async fn watch(admission: Arc<Admission>, stop: CancellationToken) {
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut logged, mut last_line) = (0, None::<Instant>);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let refused = admission.refused();
        if refused > logged && last_line.is_none_or(|last| last.elapsed() >= LINES_APART) {
            tracing::warn!(
                refused = refused - logged,
                "checks are refused unseen: too many are under way, or they wait for too long"
            );
            (logged, last_line) = (refused, Some(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::overload::Deadline;
    use crate::testing::log::Kept;

    #[tokio::test(start_paused = true)]
    async fn refused_checks_are_logged_once_a_minute() {
        let kept = Kept::default();
        let _guard = kept.capture();
        let (admission, stop) = (Arc::new(Admission::default()), CancellationToken::new());
        let watching = tokio::spawn(watch(Arc::clone(&admission), stop.clone()));
        let seconds = |seconds| tokio::time::sleep(LOOK_INTERVAL * seconds);
        seconds(5).await;
        assert_eq!(kept.take(), "");
        let deadline = Deadline::of_call(Some(Duration::ZERO));
        tokio::time::advance(Duration::from_millis(1)).await;
        let refused =
            |count: usize| (0..count).for_each(|_| assert!(admission.begin().in_time(deadline).is_err()));
        refused(2);
        seconds(2).await;
        let said = kept.take();
        assert!(said.contains("checks are refused unseen") && said.contains("refused=2"), "{said}");
        refused(3);
        seconds(50).await;
        assert_eq!(kept.take(), "");
        seconds(20).await;
        assert!(kept.take().contains("refused=3"));
        seconds(120).await;
        assert_eq!(kept.take(), "", "none is refused any more");
        stop.cancel();
        watching.await.unwrap();
    }
}
