//! Published keys: from the bytes of a JWK Set (RFC 7517 section 5) to keys that are ready to verify with. The set is
//! parsed key by key: a key that cannot be used is skipped with its reason and does not cost the others.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::value::RawValue;

use crate::domain::algorithm::Algorithm;
use crate::domain::clock::UnixTime;
use crate::domain::json::{Member, Object, without_byte_order_mark};
use crate::domain::public_key::Verifier;

mod jwk;

pub(crate) use jwk::Unusable;

/// How many keys one token may be tried against: a set with many keys of one `kid`, or tokens without
/// one, must not multiply the cost of a forged token without bound.
const MAX_CANDIDATE_KEYS: usize = 8;

/// A key identifier (`kid`, RFC 7517 section 4.5): never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeyId(String);

impl KeyId {
    #[must_use]
    pub(crate) fn new(kid: &str) -> Option<Self> {
        (!kid.is_empty()).then(|| Self(kid.to_owned()))
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A public key together with the one algorithm it verifies. A token's `alg` chooses nothing: it must
/// equal this one (RFC 8725 section 3.1).
#[derive(Clone)]
pub(crate) struct VerifyingKey {
    id: Option<KeyId>,
    algorithm: Algorithm,
    verifier: Verifier,
    /// The member `issuer`, by which Entra ID says whose tokens a key signs: a URL with a tenant's ID or `{tenantid}` in its path.
    /// Empty if it is no text.
    issuer: Option<Box<str>>,
}

impl VerifyingKey {
    #[must_use]
    pub(crate) const fn id(&self) -> Option<&KeyId> {
        self.id.as_ref()
    }

    #[must_use]
    pub(crate) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the key signs tokens of this tenant, as far as it says whose it signs.
    pub(crate) fn is_of(&self, tenant: Option<&str>) -> bool {
        let (Some(tenant), Some(issuer)) = (tenant, &self.issuer) else { return true };
        issuer.split('/').any(|segment| segment == tenant || segment == "{tenantid}")
    }

    /// Whether the signature over the message is this key's. An error of the crypto library counts as no.
    pub(crate) fn verifies(&self, message: &str, signature: &Vec<u8>) -> bool {
        self.verifier.verifies(message.as_bytes(), signature)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({:?}, {})", self.id.as_ref().map(KeyId::as_str), self.algorithm)
    }
}

/// Identifies one parsed key set among all of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The keys of one issuer at one time: immutable, swapped whole.
#[derive(Debug, Clone)]
pub(crate) struct KeySet {
    keys: Arc<[VerifyingKey]>,
    generation: Generation,
    jwk_count: usize,
    fetched_at: UnixTime,
}

/// A key of a set that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Its place in the published array, from 0.
    pub(crate) index: usize,
    /// Its `kid`, if that is a string with content.
    pub(crate) kid: Option<KeyId>,
    pub(crate) reason: Unusable,
}

/// Why a document is not a key set that can verify anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeySetError {
    #[error("the key set is not a JSON object with unique members")]
    NotAnObject,
    #[error("the key set has no array named keys")]
    NoKeys,
    /// A set without any key is none of these: the issuer has withdrawn its keys.
    #[error("the key set holds no usable key")]
    NoneUsable,
}

impl KeySet {
    /// Parses a JWK Set for an issuer with these algorithms. An empty array of keys is an empty set.
    ///
    /// # Errors
    /// [`KeySetError`] if the set has keys, and none of them is usable. The skipped keys are returned in both cases.
    pub(crate) fn parse(
        bytes: &[u8],
        algorithms: &[Algorithm],
        fetched_at: UnixTime,
    ) -> (Result<Self, KeySetError>, Vec<Skipped>) {
        let mut skipped = Vec::new();
        let elements = match elements(bytes) {
            Ok(elements) => elements,
            Err(error) => return (Err(error), skipped),
        };
        let mut keys = Vec::new();
        let mut jwk_count = 0;
        for (index, element) in elements.into_iter().enumerate() {
            let object = Object::parse(element.get().as_bytes());
            let kid = object.as_ref().ok().and_then(|jwk| match jwk.member("kid") {
                Member::String(kid) => KeyId::new(&kid),
                _ => None,
            });
            let issuer = object.as_ref().ok().and_then(|jwk| match jwk.member("issuer") {
                Member::Absent | Member::Null => None,
                Member::String(issuer) => Some(issuer.as_ref().into()),
                _ => Some("".into()),
            });
            let verifiers =
                object.map_err(|_| Unusable::NotAnObject).and_then(|jwk| jwk::verifiers(&jwk, algorithms));
            match verifiers {
                Ok(verifiers) => {
                    jwk_count += 1;
                    keys.extend(verifiers.into_iter().map(|(algorithm, verifier)| VerifyingKey {
                        id: kid.clone(),
                        algorithm,
                        verifier,
                        issuer: issuer.clone(),
                    }));
                }
                Err(reason) => skipped.push(Skipped { index, kid, reason }),
            }
        }
        let set = if keys.is_empty() && !skipped.is_empty() {
            Err(KeySetError::NoneUsable)
        } else {
            Ok(Self { keys: keys.into(), generation: Generation::next(), jwk_count, fetched_at })
        };
        (set, skipped)
    }

    /// The same keys, confirmed by the issuer at another time.
    #[must_use]
    pub(crate) fn confirmed_at(&self, fetched_at: UnixTime) -> Self {
        Self { keys: Arc::clone(&self.keys), fetched_at, ..*self }
    }

    /// Whether the issuer has withdrawn all its keys.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The same for as long as the issuer confirms the same document.
    #[must_use]
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    /// When the issuer last sent or confirmed this set.
    #[must_use]
    pub(crate) const fn fetched_at(&self) -> UnixTime {
        self.fetched_at
    }

    /// All keys. A JWK without `alg` is in the list once for each algorithm that it may verify.
    #[must_use]
    pub(crate) fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// The key IDs of this set that another one has not, each once.
    #[must_use]
    pub(crate) fn kids_beside<'s>(&'s self, other: Option<&'s Self>) -> Vec<&'s str> {
        let known = other.into_iter().flat_map(|other| other.keys.iter()).filter_map(VerifyingKey::id);
        let mut seen: HashSet<&KeyId> = known.collect();
        let kids = self.keys.iter().filter_map(VerifyingKey::id);
        kids.filter(|kid| seen.insert(kid)).map(KeyId::as_str).collect()
    }

    /// How many JWKs of the set are usable: one without `alg` counts once.
    #[must_use]
    pub(crate) const fn jwk_count(&self) -> usize {
        self.jwk_count
    }

    /// The keys of a token's `alg`, and of its `kid` if it has one; at most [`MAX_CANDIDATE_KEYS`].
    pub(crate) fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &VerifyingKey> {
        self.keys
            .iter()
            .filter(move |key| {
                key.algorithm == algorithm
                    && kid.is_none_or(|kid| key.id().is_some_and(|id| id.as_str() == kid))
            })
            .take(MAX_CANDIDATE_KEYS)
    }
}

fn elements(bytes: &[u8]) -> Result<Vec<&RawValue>, KeySetError> {
    // Shallow: a doubled member in one key must not cost the others.
    let set = Object::parse_shallow(without_byte_order_mark(bytes)).map_err(|_| KeySetError::NotAnObject)?;
    let keys = set.raw("keys").ok_or(KeySetError::NoKeys)?;
    serde_json::from_str(keys.get()).map_err(|_| KeySetError::NoKeys)
}

#[cfg(test)]
mod tests {
    use super::jwk::tests::rsa_jwk;
    use super::*;

    fn parse(keys: &str) -> (Result<usize, KeySetError>, Vec<Unusable>) {
        let (set, skipped) = KeySet::parse(keys.as_bytes(), Algorithm::ALL, UnixTime::from_secs(0));
        (set.map(|set| set.keys().len()), skipped.into_iter().map(|skipped| skipped.reason).collect())
    }

    #[test]
    fn documents_that_are_no_key_set() {
        for (text, want) in [
            ("", KeySetError::NotAnObject),
            ("<html>", KeySetError::NotAnObject),
            ("[]", KeySetError::NotAnObject),
            (r#"{"keys":[],"keys":[]}"#, KeySetError::NotAnObject),
            ("{}", KeySetError::NoKeys),
            (r#"{"keys":{}}"#, KeySetError::NoKeys),
            (r#"{"keys":null}"#, KeySetError::NoKeys),
            (r#"{"keys":[{}]}"#, KeySetError::NoneUsable),
            (r#"{"keys":[null]}"#, KeySetError::NoneUsable),
            (r#"{"keys":[[]]}"#, KeySetError::NoneUsable),
        ] {
            assert_eq!(parse(text).0, Err(want), "{text}");
        }
    }

    #[test]
    fn an_empty_set_withdraws_all_keys() {
        for text in [r#"{"keys":[]}"#, r#" { "keys" : [ ] , "more" : 1 } "#] {
            let (set, skipped) = KeySet::parse(text.as_bytes(), Algorithm::ALL, UnixTime::from_secs(0));
            let set = set.unwrap();
            assert!(set.is_empty() && skipped.is_empty(), "{text}");
            assert!(set.candidates(None, Algorithm::Rs256).next().is_none());
        }
    }

    #[test]
    fn candidates_are_of_the_algorithm_the_kid_and_bounded() {
        let twin = rsa_jwk(2048, &[1, 0, 1], r#","kid":"a""#);
        let nameless = rsa_jwk(2048, &[1, 0, 1], r#","alg":"RS256""#);
        let keys = format!(r#"{{"keys":[{}{nameless}]}}"#, format!("{twin},").repeat(20));
        let (set, _) = KeySet::parse(keys.as_bytes(), &[Algorithm::Rs256], UnixTime::from_secs(0));
        let set = set.unwrap();
        let count = |kid, algorithm| set.candidates(kid, algorithm).count();
        assert_eq!(set.keys().len(), 21, "only the issuer's algorithms");
        assert_eq!(count(Some("a"), Algorithm::Rs256), MAX_CANDIDATE_KEYS);
        assert_eq!(count(None, Algorithm::Rs256), MAX_CANDIDATE_KEYS);
        assert_eq!(count(Some("b"), Algorithm::Rs256), 0);
        assert_eq!(count(Some("a"), Algorithm::Ps256), 0);
    }
}
