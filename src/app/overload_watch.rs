//! Says so while checks are refused unseen, and for what. Looked for from outside: a check that is refused writes no line, since a server
//! that is overloaded has no time for lines.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::server::overload::{Admission, Refusal};

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// While checks are refused, a line so often.
const LINES_APART: Duration = Duration::from_secs(60);

/// Logs that checks are refused, with their number since the last line; until `stop`.
pub(crate) async fn watch(admission: Arc<Admission>, stop: CancellationToken) {
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let counts = || {
        [Refusal::TooMany, Refusal::CallerGaveUp, Refusal::Waited, Refusal::Memory]
            .map(|refusal| admission.refused_for(refusal))
    };
    let (mut logged, mut last_line) = ([0; 4], None::<Instant>);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let seen = counts();
        if seen != logged && last_line.is_none_or(|last| last.elapsed() >= LINES_APART) {
            let since = |at: usize| seen.get(at).zip(logged.get(at)).map_or(0, |(now, before)| now - before);
            let [too_many, caller_gave_up, waited, memory] = [since(0), since(1), since(2), since(3)];
            let shortest = admission.take_shortest_timeout().map(|timeout| timeout.as_millis());
            tracing::warn!(
                refused = too_many + caller_gave_up + waited + memory,
                too_many,
                caller_gave_up,
                waited,
                memory,
                shortest_timeout_ms = shortest.map(|millis| u64::try_from(millis).unwrap_or(u64::MAX)),
                "checks are refused unseen: too many are under way, or they wait for too long"
            );
            (logged, last_line) = (seen, Some(Instant::now()));
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
        assert!(said.contains("caller_gave_up=2") && said.contains("shortest_timeout_ms=0"), "{said}");
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
