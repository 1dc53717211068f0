//! Says so when the system's clock is set back: the service's time does not follow it (`domain::clock`).

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::domain::clock::Clock;

/// How often the clock is looked at, and the shortest time between two lines of the log.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The default leeway of an issuer: clocks of two machines that are this far apart are no fault.
const TOLERATED: Duration = Duration::from_secs(30);

/// Logs a line at each look at which the system's clock is behind, and one when it no longer is; until `stop`.
pub(crate) async fn watch(clock: Clock, stop: CancellationToken) {
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_behind = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let behind = clock.behind();
        let is_behind = behind > TOLERATED;
        if is_behind {
            tracing::warn!(
                seconds = behind.as_secs(),
                "the system's clock was set back and is behind the time that tokens and keys are judged by; \
                 if the earlier time was wrong, restart"
            );
        } else if was_behind {
            tracing::info!("the system's clock has caught up");
        }
        was_behind = is_behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::UnixTime;
    use crate::testing::log::Kept;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_behind_is_logged_once_a_minute() {
        let kept = Kept::default();
        let _guard = kept.capture();
        let (clock, stop) = (Clock::stepped(UnixTime::from_secs(1_800_000_000)), CancellationToken::new());
        let watching = tokio::spawn(watch(clock.clone(), stop.clone()));
        let lines = || {
            let text = kept.take();
            let of = |level: &str| text.lines().filter(|line| line.contains(level)).count();
            (of("WARN"), of("INFO"))
        };
        let minutes = async |minutes: u32| {
            for _ in 0..minutes {
                clock.advance(LOOK_INTERVAL);
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        minutes(5).await;
        assert_eq!(lines(), (0, 0));
        clock.set_back(TOLERATED);
        minutes(5).await;
        assert_eq!(lines(), (0, 0), "no more than two machines may differ");
        clock.set_back(Duration::from_secs(1));
        minutes(5).await;
        assert_eq!(lines(), (5, 0));
        clock.set_forward(TOLERATED);
        minutes(5).await;
        assert_eq!(lines(), (0, 1));
        stop.cancel();
        watching.await.unwrap();
    }
}
