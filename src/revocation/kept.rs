//! The events that took effect and whose entries may still be met: so that a replay has no effect, and another replica can be told what
//! it has missed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::signed::{EventId, SignedEvent};
use crate::domain::clock::UnixTime;
use crate::domain::event::EventForm;

/// The events are compared in so many parts, by the first byte of the ID.
pub(crate) const PARTS: usize = 256;

/// The most that is kept of events for other replicas, in bytes.
const MAX_TEXT_BYTES: usize = 256 << 20;

/// In the order of the IDs.
#[derive(Debug)]
pub(crate) struct KeptEvents {
    by_id: BTreeMap<EventId, KeptEvent>,
    /// For each part, all of its IDs added up without carry: equal for the same events, in whatever order they came.
    digests: [u128; PARTS],
    text_bytes: usize,
}

#[derive(Debug)]
struct KeptEvent {
    /// When the last of its entries is of the past, in seconds since 1970.
    until: u64,
    form: EventForm,
    /// `None` where there are no other replicas to be told.
    text: Option<Arc<str>>,
    /// Whether it is known to be on the disk.
    is_stored: bool,
    /// Whether its issuer was told that it is taken.
    is_answered: bool,
}

impl Default for KeptEvents {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), digests: [0; PARTS], text_bytes: 0 }
    }
}

const fn part(id: EventId) -> usize {
    (id.0 >> 120) as usize
}

impl KeptEvents {
    pub(crate) fn contains(&self, id: EventId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether the event's text is within the bound.
    pub(crate) fn has_room_for(&self, event: &SignedEvent) -> bool {
        self.text_bytes + event.text.len() <= MAX_TEXT_BYTES
    }

    /// Keeps an event, with its text if other replicas may ask for it. Returns whether it is new.
    pub(crate) fn insert(&mut self, event: &SignedEvent, until: UnixTime, with_text: bool) -> bool {
        let id = event.id();
        if self.contains(id) {
            return false;
        }
        let text = with_text.then(|| Arc::clone(&event.text));
        self.text_bytes += text.as_ref().map_or(0, |text| text.len());
        let until = until.rounded_up().as_secs();
        self.by_id
            .insert(id, KeptEvent { until, form: event.form, text, is_stored: false, is_answered: false });
        self.flip(id);
        true
    }

    /// Whether the event is kept with this very signature.
    pub(crate) fn has_exactly(&self, event: &SignedEvent) -> bool {
        self.by_id.get(&event.id()).and_then(|kept| kept.text.as_ref()) == Some(&event.text)
    }

    pub(crate) fn is_stored(&self, id: EventId) -> bool {
        self.by_id.get(&id).is_some_and(|kept| kept.is_stored)
    }

    /// Its issuer is told that the event is taken; returns whether for the first time.
    pub(crate) fn answer(&mut self, id: EventId) -> bool {
        self.by_id.get_mut(&id).is_some_and(|kept| !std::mem::replace(&mut kept.is_answered, true))
    }

    /// The event is on the disk.
    pub(crate) fn stored(&mut self, id: EventId) {
        if let Some(kept) = self.by_id.get_mut(&id) {
            kept.is_stored = true;
        }
    }

    fn remove(&mut self, id: EventId) {
        if let Some(KeptEvent { text, .. }) = self.by_id.remove(&id) {
            self.text_bytes -= text.map_or(0, |text| text.len());
            self.flip(id);
        }
    }

    fn flip(&mut self, id: EventId) {
        if let Some(digest) = self.digests.get_mut(part(id)) {
            *digest ^= id.0;
        }
    }

    /// Forgets the events of which all entries are of the past.
    pub(crate) fn sweep(&mut self, now: UnixTime) {
        let past: Vec<_> =
            self.by_id.iter().filter(|(_, kept)| kept.until <= now.as_secs()).map(|(id, _)| *id).collect();
        for id in past {
            self.remove(id);
        }
    }

    pub(crate) const fn digests(&self) -> &[u128; PARTS] {
        &self.digests
    }

    /// The IDs of a part.
    pub(crate) fn ids(&self, part: u8) -> impl Iterator<Item = EventId> {
        self.part(part).map(|(id, _)| id)
    }

    fn part(&self, part: u8) -> impl Iterator<Item = (EventId, &KeptEvent)> {
        let first = u128::from(part) << 120;
        let last = first | (u128::MAX >> 8);
        self.by_id.range(EventId(first)..=EventId(last)).map(|(id, kept)| (*id, kept))
    }

    /// The events of a part that `knows` does not know, without those of the past.
    pub(crate) fn missing(
        &self,
        part: u8,
        now: UnixTime,
        knows: impl Fn(EventId) -> bool,
    ) -> impl Iterator<Item = SignedEvent> {
        self.part(part).filter_map(move |(id, kept)| {
            let text = kept.text.as_ref().filter(|_| kept.until > now.as_secs() && !knows(id))?;
            Some(SignedEvent { form: kept.form, text: Arc::clone(text) })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(number: u32) -> SignedEvent {
        SignedEvent::of("logout_token", &format!("a.{number}.s")).unwrap()
    }

    proptest! {
        #[test]
        fn digests_are_equal_for_the_same_events_and_what_is_missing_makes_them_so(
            mine in proptest::collection::vec(0_u32..40, 0..60),
            yours in proptest::collection::vec(0_u32..40, 0..60),
        ) {
            let at = UnixTime::from_secs;
            let kept = |numbers: &[u32]| {
                let mut kept = KeptEvents::default();
                for number in numbers {
                    kept.insert(&event(*number), at(100), true);
                }
                kept
            };
            let (mut mine, yours) = (kept(&mine), kept(&yours));
            for part in 0..=u8::MAX {
                let known: Vec<_> = mine.ids(part).collect();
                let missing: Vec<_> = yours.missing(part, at(50), |id| known.contains(&id)).collect();
                for event in missing {
                    prop_assert!(mine.insert(&event, at(100), true));
                }
            }
            let mut both = mine.by_id.keys().copied().collect::<Vec<_>>();
            both.retain(|id| !yours.contains(*id));
            for id in both {
                mine.remove(id);
            }
            prop_assert_eq!(mine.digests(), yours.digests());
            prop_assert_eq!(mine.text_bytes, yours.text_bytes);
            mine.sweep(at(100));
            prop_assert_eq!((mine.len(), mine.text_bytes, mine.digests()), (0, 0, &[0; PARTS]));
            prop_assert_eq!((0..=u8::MAX).flat_map(|part| yours.missing(part, at(100), |_| false)).count(), 0);
        }
    }
}
