//! What the log says of issuers whose tokens cannot be verified: a line when that begins, and one when it ends.

use std::collections::HashMap;

use crate::domain::issuer::IssuerName;
use crate::keys::sets::KeySets;

/// Which issuers' tokens were answered 503 when it was last looked.
#[derive(Debug, Default)]
pub(crate) struct Outages(HashMap<IssuerName, bool>);

impl Outages {
    /// Logs what has changed. An issuer whose first fetch is under way is left out.
    pub(crate) fn look(&mut self, keys: &KeySets) {
        let now = keys.now();
        self.0.retain(|issuer, _| keys.sources().iter().any(|(configured, _)| configured == issuer));
        for (issuer, source) in keys.sources() {
            if keys.is_starting(issuer) {
                continue;
            }
            let is_out = keys.snapshot(issuer, now).is_err();
            let was_out = self.0.insert(issuer.clone(), is_out).unwrap_or_default();
            if is_out && !was_out {
                let age = keys.age(issuer).map(|age| age.as_secs());
                let error = keys.inspect(issuer).1.last_error.map(|(_, error)| error);
                let why = if age.is_some() { "its keys are older than max_stale" } else { "it has no keys" };
                tracing::error!(%issuer, %source, why, age, error, "the issuer's tokens are answered 503");
            } else if was_out && !is_out {
                tracing::info!(%issuer, %source, "the issuer's tokens can be verified again");
            }
        }
    }
}
