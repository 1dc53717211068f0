//! The one writer of one issuer's keys: the refresher reports the start and the result of each fetch here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::slot::{LastFetch, LastWrite, Slot};
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::clock_skew::ClockSkew;
use crate::domain::issuer::IssuerName;
use crate::domain::key_set::KeySet;

#[derive(Debug)]
pub(crate) struct Publisher {
    issuer: IssuerName,
    /// Where the keys come from, as operators see it.
    source: String,
    slot: Arc<Slot>,
    /// Of all issuers' key sets.
    changed: watch::Sender<()>,
    clock: Clock,
}

/// Where the result of a write to the disk is reported.
pub(crate) struct StoreStatus(Arc<Slot>);

impl StoreStatus {
    /// A write ended; returns how the one before it did.
    pub(super) fn written(&self, write: LastWrite) -> LastWrite {
        std::mem::replace(&mut self.0.status().last_write, write)
    }
}

impl Drop for Publisher {
    /// Dropping the publisher withdraws the keys: without a refresher, a key that the issuer revokes would stay.
    fn drop(&mut self) {
        self.slot.clear();
    }
}

impl Publisher {
    #[must_use]
    pub(super) const fn new(
        issuer: IssuerName,
        source: String,
        slot: Arc<Slot>,
        changed: watch::Sender<()>,
        clock: Clock,
    ) -> Self {
        Self { issuer, source, slot, changed, clock }
    }

    #[must_use]
    pub(crate) const fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    /// Where the keys come from, as operators see it.
    #[must_use]
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The time by the clock that judges the keys' age.
    #[must_use]
    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// The set in force, however old.
    #[must_use]
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        self.slot.set()
    }

    /// A fetch starts; until `cooldown_until` no other one starts for an unknown key id.
    pub(crate) fn fetch_started(&self, cooldown_until: Instant) {
        self.slot.status().next_refresh = None;
        self.slot.progress.send_modify(|progress| {
            progress.fetches_started += 1;
            progress.in_flight = true;
            progress.cooldown_until = cooldown_until;
        });
    }

    /// The set is swapped first and the waiting checks are woken after that, so a woken check finds the new set.
    pub(crate) fn fetch_succeeded(&self, set: KeySet, changed: bool) {
        {
            let mut status = self.slot.status();
            status.last_success = Some(set.fetched_at());
            let fetches = &mut status.fetches;
            *(if changed { &mut fetches.changed } else { &mut fetches.unchanged }) += 1;
        }
        self.slot.put(Arc::new(set));
        self.fetch_ended(LastFetch::Succeeded);
        self.changed.send_replace(());
    }

    /// The set in force stays.
    pub(crate) fn fetch_failed(&self, reason: String) {
        {
            let mut status = self.slot.status();
            status.last_error = Some((self.clock.now(), reason));
            status.fetches.failed += 1;
        }
        self.fetch_ended(LastFetch::Failed);
    }

    /// An answer told how far the issuer's clock is from ours.
    pub(crate) fn compared_clocks(&self, skew: ClockSkew) {
        self.slot.status().clock_skew = Some(skew);
    }

    /// For a write to the disk, which outlives the fetch that it follows.
    pub(crate) fn store_status(&self) -> StoreStatus {
        StoreStatus(Arc::clone(&self.slot))
    }

    /// Puts a set in force that was fetched before this start. It counts as no fetch.
    pub(crate) fn restore(&self, set: KeySet) {
        self.slot.status().last_success = Some(set.fetched_at());
        self.slot.put(Arc::new(set));
        // No value changes, but the receivers are notified: a waiting check may find its key now.
        self.slot.progress.send_modify(|_| {});
        self.changed.send_replace(());
    }

    /// Shows operators the time of the next fetch; `None`: no fetch will follow.
    pub(crate) fn plan_next(&self, pause: Option<Duration>) {
        self.slot.status().next_refresh = pause.map(|pause| self.clock.now().after(pause));
    }

    fn fetch_ended(&self, last_fetch: LastFetch) {
        self.slot.progress.send_modify(|progress| {
            progress.in_flight = false;
            progress.last_fetch = last_fetch;
        });
    }

    /// Whether a check requested a fetch that has not started.
    #[must_use]
    pub(crate) fn is_fetch_requested(&self) -> bool {
        self.slot.is_fetch_requested()
    }

    /// Waits for the next request for a fetch.
    pub(crate) async fn fetch_requested(&self) {
        self.slot.fetch_requested().await;
    }
}
