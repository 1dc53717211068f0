//! Public keys that are parsed once for many verifications: jsonwebtoken's trait `JwtVerifier` over aws-lc-rs.
//! jsonwebtoken's own verifiers parse the key again for each token, which costs a fifth of an RSA verification.

use std::sync::Arc;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters};
use jsonwebtoken::crypto::JwtVerifier;
use jsonwebtoken::signature::Error;

use crate::domain::algorithm::Algorithm;

/// The numbers of a public key. Their form is checked, but not yet whether they are a key.
pub(crate) enum Material {
    /// Modulus and exponent, big-endian.
    Rsa(Vec<u8>, Vec<u8>),
    /// An uncompressed point (SEC 1 section 2.3.3).
    Ec(Vec<u8>),
    /// 32 bytes (RFC 8032 section 5.1.5).
    Ed25519(Vec<u8>),
}

/// A public key and the one algorithm it verifies.
#[derive(Clone)]
pub(crate) struct Verifier(Arc<dyn JwtVerifier + Send + Sync>);

impl Verifier {
    /// `None` if the numbers are not a key of this algorithm; for example a point that is not on its curve.
    pub(crate) fn new(material: &Material, algorithm: Algorithm) -> Option<Self> {
        let key = match (material, algorithm) {
            (Material::Rsa(n, e), _) => {
                PublicKeyComponents { n, e }.to_parsed_public_key(rsa_parameters(algorithm)?)
            }
            (Material::Ec(point), Algorithm::Es256) => {
                ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            (Material::Ec(point), Algorithm::Es384) => {
                ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            (Material::Ed25519(key), Algorithm::EdDsa) => ParsedPublicKey::new(&signature::ED25519, key),
            _ => return None,
        };
        Some(Self(Arc::new(ParsedVerifier { key: key.ok()?, algorithm: algorithm.jsonwebtoken() })))
    }

    /// Whether the signature over the message is this key's. An error of the crypto library counts as no.
    pub(crate) fn verifies(&self, message: &[u8], signature: &Vec<u8>) -> bool {
        self.0.verify(message, signature).is_ok()
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return None,
    })
}

struct ParsedVerifier {
    key: ParsedPublicKey,
    algorithm: jsonwebtoken::Algorithm,
}

impl jsonwebtoken::signature::Verifier<Vec<u8>> for ParsedVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Error> {
        self.key.verify_sig(message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for ParsedVerifier {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        self.algorithm
    }
}
