//! What the log says of issuers whose clocks differ from ours. A wrong clock makes every token expired or not yet valid, and nothing
//! else shows it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::issuer::{Issuer, IssuerName};
use crate::keys::sets::KeySets;

/// A difference that lasts is logged so often.
const LINES_APART: Duration = Duration::from_secs(3600);

/// The lines about issuers whose clocks are further from ours than their leeway.
#[derive(Debug, Default)]
pub(crate) struct ClockSkewLog(HashMap<IssuerName, Instant>);

impl ClockSkewLog {
    /// Logs a difference when it begins, once an hour while it lasts, and when it ends.
    pub(crate) fn look(&mut self, keys: &KeySets, issuers: &[Issuer]) {
        let now = Instant::now();
        self.0.retain(|name, _| issuers.iter().any(|issuer| issuer.name == *name));
        for Issuer { name, leeway, .. } in issuers {
            let Some(skew) = keys.inspect(name).1.clock_skew else { continue };
            if !skew.exceeds(*leeway) {
                if self.0.remove(name).is_some() {
                    tracing::info!(issuer = %name, "the issuer's clock and this one agree again");
                }
                continue;
            }
            if self.0.get(name).is_some_and(|logged| now.duration_since(*logged) < LINES_APART) {
                continue;
            }
            self.0.insert(name.clone(), now);
            tracing::warn!(
                issuer = %name,
                clock_skew_seconds = skew.seconds(),
                leeway = leeway.as_secs(),
                advice = "compare `date -u` on this node with another clock; tokens are judged by this node's",
                "the issuer's clock and this one differ by more than the leeway"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::domain::clock::{Clock, UnixTime};
    use crate::domain::clock_skew::ClockSkew;
    use crate::keys::sets::SlotSettings;
    use crate::testing::log::Kept;

    #[tokio::test(start_paused = true)]
    async fn a_difference_is_logged_when_it_begins_once_an_hour_and_when_it_ends() {
        let kept = Kept::default();
        let _guard = kept.capture();
        let text = "issuers: [{name: i, issuer: 'https://a.example', audiences: [], leeway: 30s, keys: {discovery: true}}]";
        let config = Config::parse(text, "test.yaml").unwrap();
        let issuers: Vec<_> = config.issuers.iter().map(|config| config.issuer.clone()).collect();
        let slots = config.issuers.iter().map(|config| SlotSettings {
            issuer: config.issuer.name.clone(),
            source: config.keys.to_string(),
            refresh: config.refresh.clone(),
            inline: false,
        });
        let start = UnixTime::from_secs(1_800_000_000);
        let keys = KeySets::new(slots, Clock::stepped(start));
        let publisher = keys.publisher(&issuers[0].name).unwrap();
        let mut log = ClockSkewLog::default();
        let mut lines = |issuers: &[Issuer]| {
            log.look(&keys, issuers);
            let text = kept.take();
            let of = |level: &str| text.lines().filter(|line| line.contains(level)).count();
            (of("WARN"), of("INFO"))
        };
        let behind = |seconds: u64| {
            ClockSkew::of(
                start,
                start.after(Duration::from_secs(1 + seconds)),
                start.after(Duration::from_secs(1 + seconds)),
            )
        };
        assert_eq!(lines(&issuers), (0, 0), "no answer told the time yet");
        publisher.compared_clocks(behind(30));
        assert_eq!(lines(&issuers), (0, 0));
        publisher.compared_clocks(behind(31));
        assert_eq!([lines(&issuers), lines(&issuers)], [(1, 0), (0, 0)]);
        tokio::time::advance(LINES_APART).await;
        assert_eq!([lines(&issuers), lines(&issuers)], [(1, 0), (0, 0)]);
        publisher.compared_clocks(behind(0));
        assert_eq!([lines(&issuers), lines(&issuers)], [(0, 1), (0, 0)]);
        // A larger leeway after a reload ends it, too.
        publisher.compared_clocks(behind(60));
        assert_eq!(lines(&issuers), (1, 0));
        let patient = [Issuer { leeway: Duration::from_secs(60), ..issuers[0].clone() }];
        assert_eq!(lines(&patient), (0, 1));
    }
}
