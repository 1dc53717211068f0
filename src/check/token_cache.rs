//! Verified tokens, so that the next check with one of them costs no signature operation. Keyed by a digest of the
//! whole token: no token is kept, and two that differ in one bit have nothing in common. Only what verified gets in,
//! so nobody fills it with forgeries. It belongs to one configuration and goes with it.

use std::hash::{BuildHasherDefault, Hasher};

use aws_lc_rs::digest::{self, SHA256};
use moka::sync::Cache;

use crate::domain::token::Token;
use crate::domain::verify::CachedToken;

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl std::hash::Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// A digest is as good as random already: its first bytes are its hash.
#[derive(Debug, Clone, Copy, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }
}

/// The tokens that are remembered.
#[derive(Clone)]
pub(crate) struct TokenCache(Option<Cache<Digest, CachedToken, BuildHasherDefault<FirstBytes>>>);

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenCache(..)")
    }
}

impl TokenCache {
    /// Room for so many; 0 remembers nothing.
    #[must_use]
    pub(crate) fn new(max_entries: u64) -> Self {
        Self((max_entries > 0).then(|| {
            Cache::builder().max_capacity(max_entries).build_with_hasher(BuildHasherDefault::default())
        }))
    }

    /// The digest of a token; `None` if nothing is remembered.
    #[must_use]
    pub(crate) fn digest_of(&self, token: Token<'_>) -> Option<Digest> {
        self.0.as_ref()?;
        let digest = digest::digest(&SHA256, token.bytes());
        digest.as_ref().first_chunk().copied().map(Digest)
    }

    /// What is remembered there.
    #[must_use]
    pub(crate) fn get(&self, digest: &Digest) -> Option<CachedToken> {
        self.0.as_ref()?.get(digest)
    }

    /// Remembers a token.
    pub(crate) fn put(&self, digest: Digest, token: CachedToken) {
        if let Some(tokens) = &self.0 {
            tokens.insert(digest, token);
        }
    }
}
