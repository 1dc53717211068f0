//! Verified tokens: the next check with one of them costs no signature operation. The key is the SHA-256 of the whole
//! token: the cache holds no token, and a token that differs in one bit has another entry. Only verified tokens are put
//! in, so forgeries cannot fill it. A cache belongs to one configuration and is dropped with it.

use std::hash::{BuildHasherDefault, Hasher};

use aws_lc_rs::digest::{self, SHA256};
use moka::policy::EvictionPolicy;
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

/// A digest is evenly distributed already: its first bytes serve as its hash.
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

#[derive(Clone)]
pub(crate) struct TokenCache(Option<Cache<Digest, CachedToken, BuildHasherDefault<FirstBytes>>>);

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenCache(..)")
    }
}

impl TokenCache {
    /// With 0 entries nothing is cached.
    #[must_use]
    pub(crate) fn new(max_entries: u64) -> Self {
        // By use alone, not by how often: a token that was used a thousand times and is expired would keep new ones out.
        let builder = Cache::builder().max_capacity(max_entries).eviction_policy(EvictionPolicy::lru());
        Self((max_entries > 0).then(|| builder.build_with_hasher(BuildHasherDefault::default())))
    }

    /// The digest of a token; `None` if nothing is cached.
    #[must_use]
    pub(crate) fn digest_of(&self, token: Token<'_>) -> Option<Digest> {
        self.0.as_ref()?;
        let digest = digest::digest(&SHA256, token.bytes());
        digest.as_ref().first_chunk().copied().map(Digest)
    }

    #[must_use]
    pub(crate) fn get(&self, digest: &Digest) -> Option<CachedToken> {
        self.0.as_ref()?.get(digest)
    }

    pub(crate) fn put(&self, digest: Digest, token: CachedToken) {
        if let Some(tokens) = &self.0 {
            tokens.insert(digest, token);
        }
    }
}
