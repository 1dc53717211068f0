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
