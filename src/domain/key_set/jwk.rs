//! One JSON Web Key (RFC 7517 section 4, RFC 7518 section 6): whether it can be used here, and for which algorithms.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::algorithm::{Algorithm, KeyKind};
use crate::domain::json::{Member, Object};
use crate::domain::public_key::{Material, Verifier};

/// RSA moduli in bits: shorter is not secure (RFC 7518 section 3.3), longer is refused by the backend and
/// would only cost time.
const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The largest RSA exponent in bits that the backend takes; e = 65537 has 17.
const MAX_RSA_EXPONENT_BITS: usize = 33;

/// Why a key is not used (RFC 7517 section 4, RFC 7518 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is not a JSON object with unique members")]
    NotAnObject,
    #[error("its use is not sig")]
    Use,
    #[error("its key_ops lack verify")]
    KeyOps,
    #[error("its kid is not a string, or empty")]
    Kid,
    #[error("its kty or crv is not supported: RSA, EC with P-256 or P-384, OKP with Ed25519 are")]
    Kind,
    #[error("its alg does not fit the key or is not among the issuer's algorithms")]
    Algorithm,
    /// Not base64url, or not of the length that the key's kind demands.
    #[error("a parameter is missing or not well formed")]
    Parameter,
    #[error("its RSA modulus is not of 2048 to 8192 bits")]
    Modulus,
    /// For example a point that is not on its curve.
    #[error("its numbers are no key of its kind")]
    NoKey,
    #[error("its RSA exponent is even, below 65537 or over 33 bits")]
    Exponent,
}

/// One verifier for each of the issuer's algorithms that the JWK may verify; never an empty list. A member that is null is absent:
/// serializers write so what a key does not have.
pub(super) fn verifiers(
    jwk: &Object<'_>,
    algorithms: &[Algorithm],
) -> Result<Vec<(Algorithm, Verifier)>, Unusable> {
    match jwk.member("use") {
        Member::Absent | Member::Null => {}
        Member::String(purpose) if purpose == "sig" => {}
        _ => return Err(Unusable::Use),
    }
    match jwk.member("key_ops") {
        Member::Absent | Member::Null => {}
        Member::Strings(operations) if operations.iter().any(|op| op == "verify") => {}
        _ => return Err(Unusable::KeyOps),
    }
    match jwk.member("kid") {
        Member::Absent | Member::Null => {}
        Member::String(kid) if !kid.is_empty() => {}
        _ => return Err(Unusable::Kid),
    }
    let (material, kind) = match text(jwk, "kty").as_deref() {
        Some("RSA") => (rsa(jwk)?, KeyKind::Rsa),
        Some("EC") => match text(jwk, "crv").as_deref() {
            Some("P-256") => (ec(jwk, 32)?, KeyKind::P256),
            Some("P-384") => (ec(jwk, 48)?, KeyKind::P384),
            _ => return Err(Unusable::Kind),
        },
        Some("OKP") if text(jwk, "crv").as_deref() == Some("Ed25519") => (ed25519(jwk)?, KeyKind::Ed25519),
        _ => return Err(Unusable::Kind),
    };
    let own = match jwk.member("alg") {
        Member::Absent | Member::Null => None,
        Member::String(name) => Some(Algorithm::from_name(&name).ok_or(Unusable::Algorithm)?),
        _ => return Err(Unusable::Algorithm),
    };
    let fits = |algorithm: &Algorithm| {
        algorithm.key_kind() == kind
            && algorithms.contains(algorithm)
            && own.is_none_or(|own| own == *algorithm)
    };
    let fitting: Vec<_> = Algorithm::ALL.iter().copied().filter(fits).collect();
    if fitting.is_empty() {
        return Err(Unusable::Algorithm);
    }
    let verifier = |algorithm| Some((algorithm, Verifier::new(&material, algorithm)?));
    fitting.into_iter().map(|algorithm| verifier(algorithm).ok_or(Unusable::NoKey)).collect()
}

fn text(jwk: &Object<'_>, name: &str) -> Option<String> {
    match jwk.member(name) {
        Member::String(text) => Some(text.into_owned()),
        _ => None,
    }
}

/// The bytes of a parameter, from base64url (RFC 7518 section 2, "Base64urlUInt").
fn octets(jwk: &Object<'_>, name: &str) -> Result<Vec<u8>, Unusable> {
    let text = text(jwk, name).ok_or(Unusable::Parameter)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Unusable::Parameter)
}

fn rsa(jwk: &Object<'_>) -> Result<Material, Unusable> {
    let (n, e) = (octets(jwk, "n")?, octets(jwk, "e")?);
    let (n, e) = (without_leading_zeros(&n), without_leading_zeros(&e));
    if !RSA_MODULUS_BITS.contains(&bit_length(n)) {
        return Err(Unusable::Modulus);
    }
    let odd = e.last().is_some_and(|byte| byte & 1 == 1);
    // 65537 is the smallest odd number of 17 bits that is a usable exponent: one more than 2^16.
    if !odd || !(17..=MAX_RSA_EXPONENT_BITS).contains(&bit_length(e)) {
        return Err(Unusable::Exponent);
    }
    Ok(Material::Rsa(n.to_vec(), e.to_vec()))
}

fn ec(jwk: &Object<'_>, coordinate_bytes: usize) -> Result<Material, Unusable> {
    // RFC 7518 section 6.2.1.2 demands the full length of the curve's coordinates. Some issuers write them as numbers all the same,
    // without the zeros in front or with the sign byte of ASN.1; the point is the same one.
    let coordinate = |name| {
        let written = octets(jwk, name)?;
        let number = without_leading_zeros(&written);
        let missing = coordinate_bytes.checked_sub(number.len()).filter(|_| !written.is_empty());
        Ok([vec![0; missing.ok_or(Unusable::Parameter)?], number.to_vec()].concat())
    };
    // SEC 1 section 2.3.3: 4 marks a point with both coordinates.
    Ok(Material::Ec([vec![4], coordinate("x")?, coordinate("y")?].concat()))
}

fn ed25519(jwk: &Object<'_>) -> Result<Material, Unusable> {
    let x = octets(jwk, "x")?;
    if x.len() == 32 { Ok(Material::Ed25519(x)) } else { Err(Unusable::Parameter) }
}

/// Some issuers publish the sign byte of an ASN.1 integer too; it does not change the number.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The length of a big-endian number without leading zeros.
fn bit_length(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::clock::UnixTime;
    use crate::domain::key_set::{KeySet, KeySetError};

    fn parse(keys: &str) -> (Result<usize, KeySetError>, Vec<Unusable>) {
        let (set, skipped) = KeySet::parse(keys.as_bytes(), Algorithm::ALL, UnixTime::from_secs(0));
        (set.map(|set| set.keys().len()), skipped.into_iter().map(|skipped| skipped.reason).collect())
    }

    /// An RSA JWK whose modulus has this many bits; its factors do not matter to the rules here.
    pub(in crate::domain::key_set) fn rsa_jwk(bits: usize, exponent: &[u8], more: &str) -> String {
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
            (rsa_jwk(2048, &f4, r#","use":null,"kid":null,"alg":null,"key_ops":null"#), Ok(6)),
            (rsa_jwk(2048, &f4, r#","key_ops":["sign"]"#), Err(Unusable::KeyOps)),
            (rsa_jwk(2048, &f4, r#","key_ops":"verify""#), Err(Unusable::KeyOps)),
            (rsa_jwk(2048, &f4, r#","kid":7"#), Err(Unusable::Kid)),
            (rsa_jwk(2048, &f4, r#","kid":"""#), Err(Unusable::Kid)),
            (rsa_jwk(2048, &f4, r#","alg":"ES256""#), Err(Unusable::Algorithm)),
            (rsa_jwk(2048, &f4, r#","alg":"HS256""#), Err(Unusable::Algorithm)),
            (rsa_jwk(2048, &f4, r#","alg":["RS256"]"#), Err(Unusable::Algorithm)),
            (rsa_jwk(2048, &f4, r#","e":"AQAB""#), Err(Unusable::NotAnObject)),
            (r#"{"kty":"RSA","n":"AQ==","e":"AQAB"}"#.into(), Err(Unusable::Parameter)),
            (r#"{"kty":"RSA","e":"AQAB"}"#.into(), Err(Unusable::Parameter)),
            (P256_JWK.into(), Ok(1)),
            (P384_JWK.into(), Ok(1)),
            (ec("P-256", 32, 32, ""), Err(Unusable::NoKey)),
            (ec("P-384", 48, 48, r#","alg":"ES384""#), Err(Unusable::NoKey)),
            (ec("P-256", 31, 32, ""), Err(Unusable::NoKey)),
            (ec("P-256", 0, 32, ""), Err(Unusable::Parameter)),
            (ec("P-256", 32, 48, ""), Err(Unusable::Parameter)),
            (ec("P-256", 32, 32, r#","alg":"ES384""#), Err(Unusable::Algorithm)),
            (ec("P-521", 66, 66, ""), Err(Unusable::Kind)),
            (ec("secp256k1", 32, 32, ""), Err(Unusable::Kind)),
            (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, coordinate(32)), Ok(1)),
            (format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"Ed25519","x":"{}"}}"#, coordinate(32)), Ok(1)),
            (format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"{}"}}"#, coordinate(32)), Ok(1)),
            (
                format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"Ed448","x":"{}"}}"#, coordinate(32)),
                Err(Unusable::Algorithm),
            ),
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
}
