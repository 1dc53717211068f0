//! The steps of a check, one at a time, for benchmarks.

use crate::check::token_cache::{Digest, TokenCache};
use crate::config::{Config, KeySource};
use crate::domain::clock::UnixTime;
use crate::domain::denial::{Denial, Wording};
use crate::domain::identity::Identity;
use crate::domain::issuer::Issuers;
use crate::domain::key_set::KeySet;
use crate::domain::token::Token;
use crate::domain::verdict::{Grant, Verdict};
use crate::domain::verify::{ClaimsNeeded, Unverified, Verified};
use crate::wire::envoy::{self, Answers};

/// One step. The names are those of the benchmark's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reads the request out of the encoded message.
    Scan,
    /// Computes the token's digest, the cache's key.
    Digest,
    /// Looks the digest up in the cache.
    Lookup,
    /// Checks a cached token's key and times, and makes a grant.
    Recall,
    /// Splits and reads a token, finds its issuer and key.
    Read,
    /// Splits, reads and verifies a token, and makes a grant.
    Verify,
    /// Encodes the answer of a grant.
    Grant,
    /// Encodes the answer of a denial.
    Deny,
}

impl Step {
    /// In the order of a check.
    pub const ALL: [Self; 8] = [
        Self::Scan,
        Self::Digest,
        Self::Lookup,
        Self::Recall,
        Self::Read,
        Self::Verify,
        Self::Grant,
        Self::Deny,
    ];
}

/// What the steps work on.
pub struct CheckSteps {
    message: Vec<u8>,
    token: String,
    // Leaked, because `granted` borrows from them; a benchmark makes one `CheckSteps`.
    issuers: &'static Issuers,
    keys: KeySet,
    identity: &'static Identity,
    cache: TokenCache,
    digest: Digest,
    answers: Answers,
    granted: Verdict<'static>,
    now: UnixTime,
}

impl CheckSteps {
    /// Takes a configuration with inline keys, an encoded `CheckRequest`, and the token in it.
    #[must_use]
    pub fn new(config: &str, message: &[u8], token: &str) -> Self {
        let config = Config::parse(config, "steps.yaml").expect("a configuration");
        let first = config.issuers.first().expect("an issuer");
        let jwks = match &first.keys {
            KeySource::Inline(jwks) => Some(jwks),
            _ => None,
        };
        let jwks = jwks.expect("inline keys");
        let now = UnixTime::from_secs(1_800_000_000);
        let (keys, _) = KeySet::parse(jwks.as_bytes(), &first.issuer.algorithms, now);
        let keys = keys.expect("usable keys");
        let issuers = Issuers::new(config.issuers.iter().map(|config| config.issuer.clone()).collect());
        let issuers: &'static Issuers = Box::leak(Box::new(issuers));
        let identity: &'static Identity = Box::leak(Box::new(config.identity));
        let wording = Wording { realm: "bench".to_owned(), reasons: true };
        let (cache, answers) = (TokenCache::new(100), Answers::new(&wording, identity));
        let digest = cache.digest_of(Token::new(token.as_bytes())).expect("a cache");
        let claims_needed = ClaimsNeeded::of(issuers, std::iter::empty(), false);
        let grant = verified(token, issuers, &keys, now, |verified| {
            let of_token = verified.identity(identity);
            let cached = verified.to_cached(&keys, issuers, &claims_needed, of_token.clone(), None);
            cache.put(digest, cached.expect("a small token"));
            Grant::to(verified, identity, of_token).expect("an identity")
        });
        let granted = Verdict::Allow(grant);
        let (message, token) = (message.to_vec(), token.to_owned());
        Self { message, token, issuers, keys, identity, cache, digest, answers, granted, now }
    }

    /// Runs one step; returns a number of the result, so that the compiler cannot drop the work.
    #[must_use]
    pub fn run(&self, step: Step) -> usize {
        let token = Token::new(self.token.as_bytes());
        match step {
            Step::Scan => envoy::view(&self.message).expect("a check").headers.len(),
            Step::Digest => usize::from(self.cache.digest_of(token).is_some()),
            Step::Lookup => usize::from(self.cache.get(&self.digest).is_some()),
            Step::Recall => {
                let cached = self.cache.get(&self.digest).expect("it is there");
                let issuer = cached.issuer(self.issuers).expect("an issuer");
                let verified = cached
                    .judge_again(issuer, self.keys.generation(), std::iter::empty(), self.now)
                    .expect("its key")
                    .expect("its time");
                let grant = Grant::to(&verified, self.identity, cached.identity());
                grant.expect("an identity").identity().set().count()
            }
            Step::Read => {
                let segments = token.split(8192).expect("a token");
                let addressed = Unverified::peek(&segments).and_then(|it| it.address(self.issuers));
                usize::from(addressed.expect("an issuer").has_candidate(&self.keys))
            }
            Step::Verify => verified(&self.token, self.issuers, &self.keys, self.now, |verified| {
                let grant = Grant::to(verified, self.identity, verified.identity(self.identity));
                grant.expect("an identity").identity().set().count()
            }),
            Step::Grant => self.answers.of(&self.granted).len(),
            Step::Deny => self.answers.of(&Verdict::Deny(Denial::SignatureInvalid)).len(),
        }
    }
}

fn verified<'i, T>(
    token: &str,
    issuers: &'i Issuers,
    keys: &KeySet,
    now: UnixTime,
    then: impl FnOnce(&Verified<'_, 'i>) -> T,
) -> T {
    let segments = Token::new(token.as_bytes()).split(8192).expect("a token");
    let addressed = Unverified::peek(&segments).and_then(|it| it.address(issuers)).expect("an issuer");
    let audiences = std::iter::once(&addressed.issuer().audiences);
    then(&addressed.verify(keys, audiences, now).expect("a good token"))
}
