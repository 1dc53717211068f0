//! Test doubles for this crate's own tests, examples and benches, behind the feature `testing`: signing keys, minted
//! tokens, an issuer with faults. Never part of the shipped binary.

#![expect(clippy::missing_panics_doc, reason = "a test double panics when its own set-up fails")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::domain::algorithm::Algorithm;
use crate::domain::issuer::{IssuerId, PassageApp};

pub mod log;
pub mod steps;

/// A private key with its `kid` and the one algorithm it signs with.
pub struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl SigningKey {
    /// A new key.
    #[must_use]
    pub fn generate(kid: &str, algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::Es256 => Pair::Ec(ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)),
            Algorithm::Es384 => Pair::Ec(ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)),
            Algorithm::EdDsa => Pair::Ed(Ed25519KeyPair::generate().expect("a key can be generated")),
            _ => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key can be generated")),
        };
        Self { kid: kid.to_owned(), algorithm, pair }
    }

    /// The same key for the same arguments, generated at first use in a process.
    #[must_use]
    pub fn shared(kid: &str, algorithm: Algorithm) -> Arc<Self> {
        type Keys = HashMap<(String, Algorithm), Arc<SigningKey>>;
        static KEYS: LazyLock<Mutex<Keys>> = LazyLock::new(Mutex::default);
        let mut keys = lock(&KEYS);
        let make = || Arc::new(Self::generate(kid, algorithm));
        Arc::clone(keys.entry((kid.to_owned(), algorithm)).or_insert_with(make))
    }

    /// The `kid`.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key as a JWK.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let n = encode(public.modulus().big_endian_without_leading_zero());
                let e = encode(public.exponent().big_endian_without_leading_zero());
                json!({"kty": "RSA", "n": n, "e": e})
            }
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point.split_at(1).1.split_at(point.len() / 2);
                let crv = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)})
            }
            Pair::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
        };
        let own = json!({"kid": self.kid, "alg": self.algorithm.name(), "use": "sig"});
        if let (Value::Object(jwk), Value::Object(own)) = (&mut jwk, own) {
            jwk.extend(own);
        }
        jwk
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match self.algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).expect("the key signs");
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).expect("the key signs").as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token signed by this key: `{alg, kid, typ}` and `{iss, sub, exp}`, changed by `edit`. `exp` is far in the
    /// future: only a test of expiry has to set it.
    #[must_use]
    pub fn mint(&self, iss: &str, edit: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut header = json!({"alg": self.algorithm.name(), "kid": self.kid, "typ": "JWT"});
        let mut claims = json!({"iss": iss, "sub": "user-1", "exp": 4_000_000_000_u64});
        edit(&mut header, &mut claims);
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// A token over exactly these texts, JSON or not.
    #[must_use]
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encode(header), encode(claims));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.sign(message.as_bytes())))
    }
}

fn ec(algorithm: &'static signature::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).expect("a key can be generated")
}

/// The token with one character of its signature changed: the form is valid, the signature is not.
#[must_use]
pub fn tampered(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').expect("a token has dots");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{message}.{first}{}", signature.get(1..).unwrap_or_default())
}

/// A JWK Set of these keys.
#[must_use]
pub fn jwks(keys: &[&SigningKey]) -> Value {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
}

/// How the issuer answers a fetch.
#[derive(Debug, Clone)]
pub enum Behavior {
    /// A status, headers and a body; an `ETag` with 200, and 304 to its `If-None-Match`.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// The connection is reset after the request.
    Reset,
    /// No answer; the connection stays open.
    Hang,
    /// A complete head, then one byte of the body after each pause.
    Drip(Duration),
    /// 200 with this body, after a pause.
    Late(Duration, Vec<u8>),
    /// A complete head, then half of the body that its `content-length` announces.
    Truncate(Vec<u8>),
}

impl Behavior {
    /// 200 with a JWK Set of these keys.
    #[must_use]
    pub fn keys(keys: &[&SigningKey]) -> Self {
        Self::json(&jwks(keys))
    }

    /// 200 with a JSON document.
    #[must_use]
    pub fn json(document: &Value) -> Self {
        let header = ("content-type".to_owned(), "application/json".to_owned());
        Self::Answer(200, vec![header], document.to_string().into_bytes())
    }
}

/// An issuer's web server on a loopback port: it answers as its [`Behavior`] says and keeps the requests. Dropping it
/// ends it.
#[derive(Debug)]
pub struct FakeIssuer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    behavior: Mutex<Behavior>,
    requests: Mutex<Vec<String>>,
}

impl FakeIssuer {
    /// Starts serving.
    pub async fn start(behavior: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound port has an address");
        let shared = Arc::new(Shared { behavior: Mutex::new(behavior), requests: Mutex::default() });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                connections.spawn(async move { shared.answer(stream).await.unwrap_or_default() });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    /// Starts with the JWK Set of these keys.
    pub async fn with_keys(keys: &[&SigningKey]) -> Self {
        Self::start(Behavior::keys(keys)).await
    }

    /// Sets the answer to every request from now on.
    pub fn behave(&self, behavior: Behavior) {
        *lock(&self.shared.behavior) = behavior;
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The `iss` of a Passage app hosted here.
    #[must_use]
    pub fn passage_iss(&self, app_id: &str) -> String {
        let [_, IssuerId(iss)] = PassageApp::new(app_id, &self.url()).ids;
        iss
    }

    /// The number of requests so far.
    #[must_use]
    pub fn fetches(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// The heads of the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }
}

impl Shared {
    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        lock(&self.requests).push(head.clone());
        let behavior = lock(&self.behavior).clone();
        match behavior {
            Behavior::Answer(200, mut headers, body) => {
                let etag = format!(
                    "\"{:x}\"",
                    body.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte))
                );
                let unchanged = head.to_ascii_lowercase().contains(&format!("if-none-match: {etag}"));
                headers.push(("etag".to_owned(), etag));
                let (status, body) = if unchanged { (304, Vec::new()) } else { (200, body) };
                stream.write_all(&reply(status, &headers, body.len())).await?;
                stream.write_all(&body).await?;
            }
            Behavior::Answer(status, headers, body) => {
                stream.write_all(&reply(status, &headers, body.len())).await?;
                stream.write_all(&body).await?;
            }
            Behavior::Reset => {
                // Closing with a zero linger sends RST instead of FIN.
                stream.set_zero_linger()?;
            }
            Behavior::Hang => std::future::pending().await,
            Behavior::Drip(pause) => {
                stream.write_all(&reply(200, &[], 1 << 16)).await?;
                loop {
                    stream.write_all(b" ").await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Behavior::Late(pause, body) => {
                tokio::time::sleep(pause).await;
                stream.write_all(&reply(200, &[], body.len())).await?;
                stream.write_all(&body).await?;
            }
            Behavior::Truncate(body) => {
                stream.write_all(&reply(200, &[], body.len())).await?;
                stream.write_all(body.split_at(body.len() / 2).0).await?;
            }
        }
        stream.shutdown().await
    }
}

fn reply(status: u16, headers: &[(String, String)], length: usize) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
