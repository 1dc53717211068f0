//! Published keys: from the bytes of a JWK Set (RFC 7517) to keys that are ready to verify with.
//!
//! The set is read key by key, so that one odd key never costs the others, and each unusable one is
//! named with its reason. What fetches, keeps and swaps the sets is below, in the ring.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;

use crate::domain::algorithm::Algorithm;
use crate::domain::clock::UnixTime;
use crate::domain::json::{Member, Object};
use crate::domain::public_key::{Material, Verifier};

/// How many keys one token may be tried against: a set with many keys of one `kid`, or tokens without
/// one, must not multiply the cost of a forged token without bound.
const MAX_CANDIDATES: usize = 8;

/// RSA moduli in bits: shorter is not secure (RFC 7518 section 3.3), longer is refused by the backend and
/// would only cost time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The largest RSA exponent in bits that the backend takes; e = 65537 has 17.
const MAX_EXPONENT_BITS: usize = 33;

/// A key identifier (`kid`, RFC 7517 section 4.5): never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// A `kid`, unless it is empty.
    #[must_use]
    pub fn new(kid: &str) -> Option<Self> {
        (!kid.is_empty()).then(|| Self(kid.to_owned()))
    }

    /// The `kid`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A public key together with the one algorithm it verifies. A token's `alg` chooses nothing: it must
/// equal this one (RFC 8725 section 3.1).
#[derive(Clone)]
pub struct VerifyingKey {
    id: Option<KeyId>,
    algorithm: Algorithm,
    verifier: Verifier,
}

impl VerifyingKey {
    /// Its `kid`, if it has one.
    #[must_use]
    pub const fn id(&self) -> Option<&KeyId> {
        self.id.as_ref()
    }

    /// The one algorithm it verifies.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the signature over the message is this key's. Any error is a no.
    pub(crate) fn verifies(&self, message: &str, signature: &Vec<u8>) -> bool {
        self.verifier.verifies(message.as_bytes(), signature)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({:?}, {})", self.id.as_ref().map(KeyId::as_str), self.algorithm)
    }
}

/// Tells one set of keys from every other of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

impl Generation {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The keys of one issuer at one time: immutable, swapped whole.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Arc<[VerifyingKey]>,
    generation: Generation,
    distinct: usize,
    fetched_at: UnixTime,
}

/// A key of a set that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its place in the set, from 0.
    pub index: usize,
    /// Its `kid`, if it has a readable one.
    pub kid: Option<KeyId>,
    /// Why it is not used.
    pub reason: Unusable,
}

/// Why a key is not used (RFC 7517 section 4, RFC 7518 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not a JSON object with unique members.
    #[error("it is not a JSON object with unique members")]
    NotAnObject,
    /// `use` is present and not `sig`.
    #[error("its use is not sig")]
    Use,
    /// `key_ops` is present and lacks `verify`.
    #[error("its key_ops lack verify")]
    KeyOps,
    /// `kid` is present and not a string with content.
    #[error("its kid is not a string, or empty")]
    Kid,
    /// `kty` (or `crv`) names no supported kind of key.
    #[error("its kty or crv is not supported: RSA, EC with P-256 or P-384, OKP with Ed25519 are")]
    Kind,
    /// `alg` is unknown, not for this kind of key, or not on the issuer's list.
    #[error("its alg does not fit the key or is not among the issuer's algorithms")]
    Algorithm,
    /// A parameter is missing or no base64url of the right length.
    #[error("a parameter is missing or not well formed")]
    Parameter,
    /// RSA modulus outside 2048 to 8192 bits.
    #[error("its RSA modulus is not of 2048 to 8192 bits")]
    Modulus,
    /// The numbers are no key.
    #[error("its numbers are no key of its kind")]
    NoKey,
    /// RSA exponent even, below 65537, or over 33 bits.
    #[error("its RSA exponent is even, below 65537 or over 33 bits")]
    Exponent,
}

/// Why bytes are no key set to verify with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not a JSON object with unique members.
    #[error("the key set is not a JSON object with unique members")]
    NotAnObject,
    /// No `keys` array.
    #[error("the key set has no array named keys")]
    NoKeys,
    /// Not one key in it can be used here.
    #[error("the key set holds no usable key")]
    NoneUsable,
}

impl KeySet {
    /// Reads a JWK Set for an issuer with these algorithms.
    ///
    /// # Errors
    /// [`KeySetError`] if no usable key comes out. The skipped keys are returned in both cases.
    pub fn parse(
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
        let mut distinct = 0;
        for (index, element) in elements.into_iter().enumerate() {
            let object = Object::parse(element.get().as_bytes());
            let kid = object.as_ref().ok().and_then(|jwk| match jwk.member("kid") {
                Member::String(kid) => KeyId::new(&kid),
                _ => None,
            });
            let usable = object.map_err(|_| Unusable::NotAnObject).and_then(|jwk| usable(&jwk, algorithms));
            match usable {
                Ok(fitting) => {
                    distinct += 1;
                    keys.extend(fitting.into_iter().map(|(algorithm, verifier)| VerifyingKey {
                        id: kid.clone(),
                        algorithm,
                        verifier,
                    }));
                }
                Err(reason) => skipped.push(Skipped { index, kid, reason }),
            }
        }
        let set = if keys.is_empty() {
            Err(KeySetError::NoneUsable)
        } else {
            Ok(Self { keys: keys.into(), generation: Generation::next(), distinct, fetched_at })
        };
        (set, skipped)
    }

    /// The same keys, confirmed by the issuer at another time.
    #[must_use]
    pub fn confirmed_at(&self, fetched_at: UnixTime) -> Self {
        Self { keys: Arc::clone(&self.keys), fetched_at, ..*self }
    }

    /// Which keys these are: the same for as long as the issuer confirms them.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// When the issuer last said that these are its keys.
    #[must_use]
    pub const fn fetched_at(&self) -> UnixTime {
        self.fetched_at
    }

    /// All keys. A key whose JWK names no `alg` stands here once for each algorithm it may verify.
    #[must_use]
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// How many published keys the set stands for: a key without an `alg` counts once.
    #[must_use]
    pub const fn distinct(&self) -> usize {
        self.distinct
    }

    /// The keys that may have signed a token: of its algorithm, and of its `kid` if it names one.
    pub fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &VerifyingKey> {
        self.keys
            .iter()
            .filter(move |key| {
                key.algorithm == algorithm
                    && kid.is_none_or(|kid| key.id().is_some_and(|id| id.as_str() == kid))
            })
            .take(MAX_CANDIDATES)
    }
}

fn elements(bytes: &[u8]) -> Result<Vec<&RawValue>, KeySetError> {
    // Shallow: an odd key must not cost the others.
    let set = Object::parse_shallow(bytes).map_err(|_| KeySetError::NotAnObject)?;
    let keys = set.raw("keys").ok_or(KeySetError::NoKeys)?;
    serde_json::from_str(keys.get()).map_err(|_| KeySetError::NoKeys)
}

/// What a JWK may verify for this issuer, by algorithm; never an empty list.
fn usable(jwk: &Object<'_>, algorithms: &[Algorithm]) -> Result<Vec<(Algorithm, Verifier)>, Unusable> {
    match jwk.member("use") {
        Member::Absent => {}
        Member::String(purpose) if purpose == "sig" => {}
        _ => return Err(Unusable::Use),
    }
    match jwk.member("key_ops") {
        Member::Absent => {}
        Member::Strings(operations) if operations.iter().any(|op| op == "verify") => {}
        _ => return Err(Unusable::KeyOps),
    }
    match jwk.member("kid") {
        Member::Absent => {}
        Member::String(kid) if !kid.is_empty() => {}
        _ => return Err(Unusable::Kid),
    }
    let (material, family) = match text(jwk, "kty").as_deref() {
        Some("RSA") => (rsa(jwk)?, RSA),
        Some("EC") => match text(jwk, "crv").as_deref() {
            Some("P-256") => (ec(jwk, 32)?, P256),
            Some("P-384") => (ec(jwk, 48)?, P384),
            _ => return Err(Unusable::Kind),
        },
        Some("OKP") if text(jwk, "crv").as_deref() == Some("Ed25519") => (ed25519(jwk)?, ED25519),
        _ => return Err(Unusable::Kind),
    };
    let own = match jwk.member("alg") {
        Member::Absent => None,
        Member::String(name) => Some(Algorithm::from_name(&name).ok_or(Unusable::Algorithm)?),
        _ => return Err(Unusable::Algorithm),
    };
    let fits =
        |algorithm: &Algorithm| algorithms.contains(algorithm) && own.is_none_or(|own| own == *algorithm);
    let fitting: Vec<_> = family.iter().copied().filter(fits).collect();
    if fitting.is_empty() {
        return Err(Unusable::Algorithm);
    }
    let verifier = |algorithm| Some((algorithm, Verifier::new(&material, algorithm)?));
    fitting.into_iter().map(|algorithm| verifier(algorithm).ok_or(Unusable::NoKey)).collect()
}

const RSA: &[Algorithm] = &[
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
];
const P256: &[Algorithm] = &[Algorithm::Es256];
const P384: &[Algorithm] = &[Algorithm::Es384];
const ED25519: &[Algorithm] = &[Algorithm::EdDsa];

fn text(jwk: &Object<'_>, name: &str) -> Option<String> {
    match jwk.member(name) {
        Member::String(text) => Some(text.into_owned()),
        _ => None,
    }
}

/// A parameter's bytes, from base64url (RFC 7518 section 2, "Base64urlUInt").
fn octets(jwk: &Object<'_>, name: &str) -> Result<Vec<u8>, Unusable> {
    let text = text(jwk, name).ok_or(Unusable::Parameter)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Unusable::Parameter)
}

fn rsa(jwk: &Object<'_>) -> Result<Material, Unusable> {
    let (n, e) = (octets(jwk, "n")?, octets(jwk, "e")?);
    let (n, e) = (without_leading_zeros(&n), without_leading_zeros(&e));
    if !RSA_BITS.contains(&bits(n)) {
        return Err(Unusable::Modulus);
    }
    let odd = e.last().is_some_and(|byte| byte & 1 == 1);
    // 65537 is the smallest odd number of 17 bits that is a usable exponent: one more than 2^16.
    if !odd || !(17..=MAX_EXPONENT_BITS).contains(&bits(e)) {
        return Err(Unusable::Exponent);
    }
    Ok(Material::Rsa(n.to_vec(), e.to_vec()))
}

fn ec(jwk: &Object<'_>, coordinate: usize) -> Result<Material, Unusable> {
    let (x, y) = (octets(jwk, "x")?, octets(jwk, "y")?);
    // RFC 7518 section 6.2.1.2: always the full length of the curve's coordinates.
    if x.len() != coordinate || y.len() != coordinate {
        return Err(Unusable::Parameter);
    }
    // SEC 1 section 2.3.3: 4 says that both coordinates follow.
    Ok(Material::Ec([&[4][..], &x, &y].concat()))
}

fn ed25519(jwk: &Object<'_>) -> Result<Material, Unusable> {
    let x = octets(jwk, "x")?;
    if x.len() == 32 { Ok(Material::Ed25519(x)) } else { Err(Unusable::Parameter) }
}

/// Some issuers write the sign byte of ASN.1 integers; it does not change the number.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The length in bits of a big-endian number without leading zeros.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(keys: &str) -> (Result<usize, KeySetError>, Vec<Unusable>) {
        let (set, skipped) = KeySet::parse(keys.as_bytes(), Algorithm::ALL, UnixTime::from_secs(0));
        (set.map(|set| set.keys().len()), skipped.into_iter().map(|skipped| skipped.reason).collect())
    }

    /// An RSA JWK whose modulus has this many bits; its factors do not matter to the rules here.
    fn rsa_jwk(bits: usize, exponent: &[u8], more: &str) -> String {
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] = 0xff >> (n.len() * 8 - bits);
        let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(exponent));
        format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}"{more}}}"#)
    }

    /// Any points on their curves.
    const P256_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const P384_JWK: &str = r#"{"kty":"EC","crv":"P-384","alg":"ES384","x":"p0C8MlbEYKZW8HwK_y8md5QqkQZM78_ehpp2tsYgnvP5rEwIjMB1UCogMfgfK4Ps","y":"RYYj7m0yl8iuIfHBE1hZU4-vdSc1HdrrY0hswC-h1z6u2ZgHjNNzFZVLjwYg9XfO"}"#;

    fn coordinate(length: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![7; length])
    }

    #[test]
    fn each_key_is_judged_alone() {
        let f4 = [1, 0, 1];
        let ec = |crv: &str, x: usize, y: usize, more: &str| {
            format!(r#"{{"kty":"EC","crv":"{crv}","x":"{}","y":"{}"{more}}}"#, coordinate(x), coordinate(y))
        };
        for (jwk, want) in [
            (rsa_jwk(2048, &f4, ""), Ok(6)),
            (rsa_jwk(2048, &f4, r#","alg":"RS256","use":"sig","kid":"a","key_ops":["verify"]"#), Ok(1)),
            (rsa_jwk(2048, &[0, 1, 0, 1], r#","alg":"PS512""#), Ok(1)),
            (rsa_jwk(8192, &[1, 0, 0, 0, 1], ""), Ok(6)),
            (rsa_jwk(2047, &f4, ""), Err(Unusable::Modulus)),
            (rsa_jwk(512, &f4, ""), Err(Unusable::Modulus)),
            (rsa_jwk(8193, &f4, ""), Err(Unusable::Modulus)),
            (rsa_jwk(2048, &[3], ""), Err(Unusable::Exponent)),
            (rsa_jwk(2048, &[0xff, 0xff], ""), Err(Unusable::Exponent)),
            (rsa_jwk(2048, &[1, 0, 2], ""), Err(Unusable::Exponent)),
            (rsa_jwk(2048, &[3, 0, 0, 0, 1], ""), Err(Unusable::Exponent)),
            (rsa_jwk(2048, &[], ""), Err(Unusable::Exponent)),
            (rsa_jwk(2048, &f4, r#","use":"enc""#), Err(Unusable::Use)),
            (rsa_jwk(2048, &f4, r#","use":null"#), Err(Unusable::Use)),
            (rsa_jwk(2048, &f4, r#","key_ops":["sign"]"#), Err(Unusable::KeyOps)),
            (rsa_jwk(2048, &f4, r#","key_ops":"verify""#), Err(Unusable::KeyOps)),
            (rsa_jwk(2048, &f4, r#","kid":7"#), Err(Unusable::Kid)),
            (rsa_jwk(2048, &f4, r#","kid":"""#), Err(Unusable::Kid)),
            (rsa_jwk(2048, &f4, r#","alg":"ES256""#), Err(Unusable::Algorithm)),
            (rsa_jwk(2048, &f4, r#","alg":"HS256""#), Err(Unusable::Algorithm)),
            (rsa_jwk(2048, &f4, r#","alg":null"#), Err(Unusable::Algorithm)),
            (rsa_jwk(2048, &f4, r#","e":"AQAB""#), Err(Unusable::NotAnObject)),
            (r#"{"kty":"RSA","n":"AQ==","e":"AQAB"}"#.into(), Err(Unusable::Parameter)),
            (r#"{"kty":"RSA","e":"AQAB"}"#.into(), Err(Unusable::Parameter)),
            (P256_JWK.into(), Ok(1)),
            (P384_JWK.into(), Ok(1)),
            (ec("P-256", 32, 32, ""), Err(Unusable::NoKey)),
            (ec("P-384", 48, 48, r#","alg":"ES384""#), Err(Unusable::NoKey)),
            (ec("P-256", 31, 32, ""), Err(Unusable::Parameter)),
            (ec("P-256", 32, 48, ""), Err(Unusable::Parameter)),
            (ec("P-256", 32, 32, r#","alg":"ES384""#), Err(Unusable::Algorithm)),
            (ec("P-521", 66, 66, ""), Err(Unusable::Kind)),
            (ec("secp256k1", 32, 32, ""), Err(Unusable::Kind)),
            (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, coordinate(32)), Ok(1)),
            (
                format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, coordinate(33)),
                Err(Unusable::Parameter),
            ),
            (format!(r#"{{"kty":"OKP","crv":"X25519","x":"{}"}}"#, coordinate(32)), Err(Unusable::Kind)),
            (r#"{"kty":"oct","k":"c2VjcmV0"}"#.into(), Err(Unusable::Kind)),
            ("7".into(), Err(Unusable::NotAnObject)),
        ] {
            let alone = parse(&format!(r#"{{"keys":[{jwk}]}}"#));
            match want {
                Ok(keys) => assert_eq!(alone, (Ok(keys), vec![]), "{jwk}"),
                Err(reason) => assert_eq!(alone, (Err(KeySetError::NoneUsable), vec![reason]), "{jwk}"),
            }
            let good = rsa_jwk(2048, &f4, r#","alg":"RS256""#);
            let (beside, _) = parse(&format!(r#"{{"keys":[{jwk},{good}]}}"#));
            assert_eq!(beside, Ok(want.unwrap_or(0) + 1), "{jwk} must not cost its neighbour");
        }
    }

    #[test]
    fn what_is_no_key_set() {
        for (text, want) in [
            ("", KeySetError::NotAnObject),
            ("<html>", KeySetError::NotAnObject),
            ("[]", KeySetError::NotAnObject),
            (r#"{"keys":[],"keys":[]}"#, KeySetError::NotAnObject),
            ("{}", KeySetError::NoKeys),
            (r#"{"keys":{}}"#, KeySetError::NoKeys),
            (r#"{"keys":null}"#, KeySetError::NoKeys),
            (r#"{"keys":[]}"#, KeySetError::NoneUsable),
        ] {
            assert_eq!(parse(text).0, Err(want), "{text}");
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
        assert_eq!(count(Some("a"), Algorithm::Rs256), MAX_CANDIDATES);
        assert_eq!(count(None, Algorithm::Rs256), MAX_CANDIDATES);
        assert_eq!(count(Some("b"), Algorithm::Rs256), 0);
        assert_eq!(count(Some("a"), Algorithm::Ps256), 0);
    }
}
