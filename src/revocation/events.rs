//! The revocations that signed events brought, as checks look them up: in shards, so that an entry can be added while checks run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use strum::VariantArray as _;

use crate::domain::clock::UnixTime;
use crate::domain::revoked::{Kind, NameHash, Revoked, Times, TokenNames};

/// A table that grows is moved while its lock is held: small tables are moved in little time.
const SHARDS: usize = 256;

#[derive(Debug)]
pub(super) struct EventEntries {
    shards: Box<[RwLock<Revoked>]>,
    /// By [`Kind`].
    counts: [AtomicUsize; Kind::VARIANTS.len()],
}

impl Default for EventEntries {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            counts: std::array::from_fn(|_| AtomicUsize::new(0)),
        }
    }
}

impl EventEntries {
    fn shard(&self, name: &NameHash) -> Option<&RwLock<Revoked>> {
        self.shards.get(name.place(SHARDS))
    }

    pub(super) fn add(&self, name: NameHash, kind: Kind, times: Times) {
        if let Some(shard) = self.shard(&name) {
            let mut revoked = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = revoked.count(kind);
            revoked.add(name, kind, times);
            let after = revoked.count(kind);
            drop(revoked);
            self.count_changed(kind, before, after);
        }
    }

    /// Whether an entry names the token by any of its names.
    pub(super) fn is_revoked(&self, token: &TokenNames, now: UnixTime) -> bool {
        token.hashes().any(|name| {
            self.shard(&name).is_some_and(|shard| {
                shard.read().unwrap_or_else(PoisonError::into_inner).is_revoked_as(&name, token, now)
            })
        })
    }

    /// Takes out the entries of the past.
    pub(super) fn sweep(&self, now: UnixTime) {
        for shard in &self.shards {
            let mut revoked = shard.write().unwrap_or_else(PoisonError::into_inner);
            let counts = |revoked: &Revoked| {
                Kind::VARIANTS.iter().map(|kind| revoked.count(*kind)).collect::<Vec<_>>()
            };
            let before = counts(&revoked);
            revoked.remove_past(now);
            let after = counts(&revoked);
            drop(revoked);
            for ((kind, before), after) in Kind::VARIANTS.iter().zip(before).zip(after) {
                self.count_changed(*kind, before, after);
            }
        }
    }

    fn count_changed(&self, kind: Kind, before: usize, after: usize) {
        if let Some(count) = self.counts.get(kind as usize) {
            // Other threads change other shards: the difference is what this one did.
            count.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        self.counts.get(kind as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn len(&self) -> usize {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::issuer::IssuerName;
    use crate::domain::json::Object;
    use crate::domain::revoked::{EventSubject, NameHashing, SubjectClaims};

    #[test]
    fn entries_name_tokens_by_their_iss_and_go_when_their_time_is_over() {
        let (entries, hashing) = (EventEntries::default(), NameHashing::with_key(&[7; 16]));
        let at = UnixTime::from_secs;
        for user in 0..1000 {
            let name = hashing.of_event("https://i.example", EventSubject::Sub, &format!("user-{user}"));
            entries.add(name, Kind::Sub, Times::new(at(100), at(200 + user)));
            entries.add(name, Kind::Sub, Times::new(at(90), at(150)));
        }
        let session = hashing.of_event("https://i.example", EventSubject::Sid, "s");
        entries.add(session, Kind::Sid, Times::new(at(100), at(200)));
        assert_eq!((entries.len(), entries.count(Kind::Sub), entries.count(Kind::Sid)), (1001, 1000, 1));
        let number = hashing.of_event("https://i.example", EventSubject::Sid, "77");
        entries.add(number, Kind::Sid, Times::new(at(100), at(200)));
        let is_revoked = |claims: &str, now| {
            let claims = Object::parse(claims.as_bytes()).unwrap();
            let (name, subjects) = (IssuerName::new("i"), SubjectClaims::default());
            entries.is_revoked(&TokenNames::of(&claims, "", &name, &hashing, Some(&subjects)), at(now))
        };
        for (claims, now, want) in [
            (r#"{"iss":"https://i.example","sub":"user-7","iat":100}"#, 120, true),
            (r#"{"iss":"https://i.example","sub":"user-7","iat":101}"#, 120, false),
            (r#"{"iss":"https://i.example","sub":"user-7","iat":100}"#, 207, false),
            (r#"{"iss":"https://i.example","sub":"user-1000","iat":100}"#, 120, false),
            (r#"{"iss":"https://i.example/","sub":"user-7","iat":100}"#, 120, false),
            (r#"{"iss":"i","sub":"user-7","iat":100}"#, 120, false),
            (r#"{"iss":"https://i.example","sid":"s"}"#, 120, true),
            (r#"{"iss":"https://i.example","sid":"user-7"}"#, 120, false),
            (r#"{"iss":"https://i.example","sid":77}"#, 120, true),
            (r#"{"iss":"https://i.example","sid":77.0}"#, 120, false),
        ] {
            assert_eq!(is_revoked(claims, now), want, "{claims} {now}");
        }
        entries.sweep(at(700));
        assert_eq!((entries.count(Kind::Sub), entries.count(Kind::Sid)), (499, 0));
    }
}
