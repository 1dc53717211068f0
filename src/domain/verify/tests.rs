//! The order of faults, every algorithm, and other projects' vectors.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use strum::VariantArray as _;

use super::*;
use crate::domain::identity::{Identity, IdentityMaps};
use crate::domain::issuer::{Audience, Audiences, BoundTokens, IssuerId, IssuerName, PassageApp};
use crate::domain::token::Token;
use crate::domain::verdict::Grant;
use crate::testing::{SigningKey, jwks, tampered};

const NOW: UnixTime = UnixTime::from_secs(2_000_000_000);
const ISS: &str = "https://issuer.example";

fn issuer(algorithms: &[Algorithm]) -> Issuer {
    Issuer {
        name: IssuerName::new("issuer"),
        ids: vec![IssuerId(ISS.to_owned())],
        audiences: Audiences::OneOf(vec![Audience("api".to_owned())]),
        tenants: None,
        audience_claims: vec![Claim::new("aud").unwrap()],
        subject: vec![Claim::new("sub").unwrap()],
        max_lifetime: None,
        algorithms: algorithms.to_vec(),
        require_kid: true,
        types: vec!["jwt".to_owned(), "at+jwt".to_owned()],
        leeway: Duration::from_secs(30),
        bound_tokens: BoundTokens::Verify,
    }
}

fn set(keys: &Value, algorithms: &[Algorithm]) -> KeySet {
    KeySet::parse(keys.to_string().as_bytes(), algorithms, NOW).0.unwrap()
}

/// By the issuer's own audiences.
fn verify<'a, 'i>(
    addressed: Addressed<'a, 'i>,
    keys: &KeySet,
    now: UnixTime,
) -> Result<Verified<'a, 'i>, TokenFault> {
    let audiences = std::iter::once(&addressed.issuer().audiences);
    addressed.verify(keys, audiences, now)
}

/// The subject, or the denial, exactly as a check would come to it.
fn verdict(token: &str, issuer: Issuer, keys: &KeySet) -> Result<String, Denial> {
    let segments = Token::new(token.as_bytes()).split(8192)?;
    let issuers = Issuers::new(vec![issuer]);
    let verified = verify(Unverified::peek(&segments)?.address(&issuers)?, keys, NOW)?;
    Ok(verified.subject().as_str().to_owned())
}

#[test]
fn every_algorithm_verifies_and_only_with_its_own_key() {
    let shared = |algorithm: &Algorithm| SigningKey::shared(algorithm.name(), *algorithm);
    let keys: Vec<_> = Algorithm::ALL.iter().map(shared).collect();
    for (key, &algorithm) in keys.iter().zip(Algorithm::ALL) {
        let token = key.mint(ISS, |_, claims| claims["aud"] = json!("api"));
        let own = set(&jwks(&[key]), Algorithm::ALL);
        assert_eq!(verdict(&token, issuer(Algorithm::ALL), &own).as_deref(), Ok("user-1"), "{algorithm}");
        let forged = verdict(&tampered(&token), issuer(Algorithm::ALL), &own);
        assert_eq!(forged, Err(Denial::SignatureInvalid), "{algorithm}");
        let others: Vec<_> = Algorithm::ALL.iter().copied().filter(|other| *other != algorithm).collect();
        let refused = verdict(&token, issuer(&others), &own);
        assert_eq!(refused, Err(Denial::AlgorithmNotAllowed), "{algorithm}");
        // Another key under this key's kid: of another algorithm it is no candidate at all.
        for (other, other_algorithm) in keys.iter().zip(Algorithm::ALL).filter(|(_, o)| **o != algorithm) {
            let mut jwk = other.jwk();
            jwk["kid"] = json!(algorithm.name());
            let confused = set(&json!({"keys": [jwk]}), Algorithm::ALL);
            let confused = verdict(&token, issuer(Algorithm::ALL), &confused);
            assert_eq!(confused, Err(Denial::KeyUnknown), "{algorithm} with {other_algorithm}");
        }
    }
}

/// A name, an edit of header and claims, and the expected result.
type Row = (&'static str, fn(&mut Value, &mut Value), Result<(), Denial>);

#[test]
fn accepts_and_rejects() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let keys = set(&jwks(&[&key]), &[Algorithm::Rs256]);
    let rows: &[Row] = &[
        ("as it should be", |_, _| {}, Ok(())),
        ("typ any case", |h, _| h["typ"] = json!("jwt"), Ok(())),
        ("typ with application/", |h, _| h["typ"] = json!("Application/AT+JWT"), Ok(())),
        ("no typ", |h, _| drop(h.as_object_mut().unwrap().remove("typ")), Ok(())),
        ("embedded keys are ignored", |h, _| h["jwk"] = json!({"kty": "oct", "k": "AA"}), Ok(())),
        ("key URLs are ignored", |h, _| h["jku"] = json!("https://evil.example/keys"), Ok(())),
        ("certificates are ignored", |h, _| h["x5u"] = json!(["x"]), Ok(())),
        ("kid of a wrong type", |h, _| h["kid"] = json!(1), Err(Denial::TokenMalformed)),
        ("kid null", |h, _| h["kid"] = Value::Null, Err(Denial::TokenMalformed)),
        ("kid empty", |h, _| h["kid"] = json!(""), Err(Denial::TokenMalformed)),
        ("crit", |h, _| h["crit"] = json!(["exp"]), Err(Denial::CriticalHeader)),
        ("crit null", |h, _| h["crit"] = Value::Null, Err(Denial::CriticalHeader)),
        ("no iss", |_, c| drop(c.as_object_mut().unwrap().remove("iss")), Err(Denial::IssuerUnknown)),
        ("iss number", |_, c| c["iss"] = json!(7), Err(Denial::IssuerUnknown)),
        ("iss in an array", |_, c| c["iss"] = json!([ISS]), Err(Denial::IssuerUnknown)),
        ("iss with a slash more", |_, c| c["iss"] = json!(format!("{ISS}/")), Err(Denial::IssuerUnknown)),
        ("iss in capitals", |_, c| c["iss"] = json!(ISS.to_uppercase()), Err(Denial::IssuerUnknown)),
        ("no alg", |h, _| drop(h.as_object_mut().unwrap().remove("alg")), Err(Denial::TokenMalformed)),
        ("alg number", |h, _| h["alg"] = json!(256), Err(Denial::TokenMalformed)),
        ("alg none", |h, _| h["alg"] = json!("none"), Err(Denial::AlgorithmNotAllowed)),
        ("alg NoNe", |h, _| h["alg"] = json!("NoNe"), Err(Denial::AlgorithmNotAllowed)),
        ("alg HS256", |h, _| h["alg"] = json!("HS256"), Err(Denial::AlgorithmNotAllowed)),
        ("alg rs256", |h, _| h["alg"] = json!("rs256"), Err(Denial::AlgorithmNotAllowed)),
        ("alg of another issuer", |h, _| h["alg"] = json!("PS256"), Err(Denial::AlgorithmNotAllowed)),
        ("typ of another use", |h, _| h["typ"] = json!("dpop+jwt"), Err(Denial::TypeNotAllowed)),
        ("typ number", |h, _| h["typ"] = json!(1), Err(Denial::TypeNotAllowed)),
        ("typ null", |h, _| h["typ"] = Value::Null, Err(Denial::TypeNotAllowed)),
        ("no kid", |h, _| drop(h.as_object_mut().unwrap().remove("kid")), Err(Denial::KeyIdMissing)),
        ("kid unknown", |h, _| h["kid"] = json!("k2"), Err(Denial::KeyUnknown)),
        ("no exp", |_, c| drop(c.as_object_mut().unwrap().remove("exp")), Err(Denial::ClaimMissing)),
        ("expired", |_, c| c["exp"] = json!(1_999_999_970), Err(Denial::TokenExpired)),
        ("not yet valid", |_, c| c["nbf"] = json!(2_000_000_031), Err(Denial::TokenNotYetValid)),
        ("other audience", |_, c| c["aud"] = json!("web"), Err(Denial::AudienceMismatch)),
        ("no sub", |_, c| drop(c.as_object_mut().unwrap().remove("sub")), Err(Denial::ClaimMissing)),
        ("sub with a line break", |_, c| c["sub"] = json!("a\r\nb"), Err(Denial::ClaimInvalid)),
        ("nested doubles aside, any claim", |_, c| c["x"] = json!({"y": [1, {"z": null}]}), Ok(())),
        // Two faults: the first in the order of the steps names the code.
        (
            "crit before iss",
            |h, c| (h["crit"], c["iss"]) = (json!([]), json!("x")),
            Err(Denial::CriticalHeader),
        ),
        (
            "iss before alg",
            |h, c| (h["alg"], c["iss"]) = (json!("none"), json!("x")),
            Err(Denial::IssuerUnknown),
        ),
        (
            "alg before typ",
            |h, _| (h["alg"], h["typ"]) = (json!("none"), json!("x")),
            Err(Denial::AlgorithmNotAllowed),
        ),
        (
            "typ before kid",
            |h, _| (h["typ"], h["kid"]) = (json!("x"), json!("k2")),
            Err(Denial::TypeNotAllowed),
        ),
        ("key before claims", |h, c| (h["kid"], c["exp"]) = (json!("k2"), json!(0)), Err(Denial::KeyUnknown)),
        ("time before aud", |_, c| (c["exp"], c["aud"]) = (json!(0), json!("x")), Err(Denial::TokenExpired)),
        (
            "aud before sub",
            |_, c| (c["aud"], c["sub"]) = (json!("x"), json!("")),
            Err(Denial::AudienceMismatch),
        ),
    ];
    for (name, edit, want) in rows {
        let token = key.mint(ISS, |header, claims| {
            claims["aud"] = json!("api");
            edit(header, claims);
        });
        let got = verdict(&token, issuer(&[Algorithm::Rs256]), &keys).map(drop);
        assert_eq!(got, *want, "{name}");
        // A bad signature hides every fault of the claims, which are judged after it, and no fault before it.
        let hidden = matches!(
            want,
            Ok(())
                | Err(Denial::ClaimMissing
                    | Denial::ClaimInvalid
                    | Denial::TokenExpired
                    | Denial::TokenNotYetValid
                    | Denial::AudienceMismatch)
        );
        let forged = verdict(&tampered(&token), issuer(&[Algorithm::Rs256]), &keys).map(drop);
        assert_eq!(forged, if hidden { Err(Denial::SignatureInvalid) } else { *want }, "{name}, forged");
    }
}

/// A token that fails at two steps is denied for the first: each step before the failed one was made, and none after
/// it.
#[test]
fn the_checks_are_made_in_the_order_of_the_steps() {
    let (key, other) =
        (SigningKey::shared("k1", Algorithm::Rs256), SigningKey::shared("k1", Algorithm::Es256));
    let [own, without_its_key] = [&key, &other].map(|key| set(&jwks(&[key]), Algorithm::ALL));
    let issuers = Issuers::new(vec![issuer(&[Algorithm::Rs256])]);
    let headers = vec![("x-role".to_owned(), Claim::new("role").unwrap().into())];
    let identity = Identity::new(&IdentityMaps { headers, ..IdentityMaps::default() }, &[], None);
    // The last one, of revocations, is the authorizer's.
    let steps = &TokenStep::VARIANTS[..TokenStep::VARIANTS.len() - 1];
    for (at, &first) in steps.iter().enumerate() {
        for &second in &steps[at..] {
            let fails_at = |step| step == first || step == second;
            let token = key.mint(ISS, |header, claims| {
                claims["aud"] = json!("api");
                for step in [first, second] {
                    match step {
                        TokenStep::Crit => header["crit"] = json!(["exp"]),
                        TokenStep::Iss => claims["iss"] = json!("x"),
                        TokenStep::Alg => header["alg"] = json!("none"),
                        TokenStep::Typ => header["typ"] = json!("x"),
                        TokenStep::Kid => drop(header.as_object_mut().unwrap().remove("kid")),
                        TokenStep::Time => claims["exp"] = json!("tomorrow"),
                        TokenStep::Audience => claims["aud"] = json!("web"),
                        // One of the two claims faults, so that the other order would show.
                        TokenStep::Claims => claims["role"] = json!("a\nb"),
                        TokenStep::Binding => claims["cnf"] = json!({}),
                        // Outside of the JSON objects: below.
                        TokenStep::Length | TokenStep::Form | TokenStep::Key | TokenStep::Signature => {}
                        // No step of the core.
                        TokenStep::Revocation => {}
                    }
                }
            });
            let signed = if fails_at(TokenStep::Signature) { tampered(&token) } else { token };
            let text = if fails_at(TokenStep::Form) { format!("{signed}=") } else { signed };
            let max_bytes = if fails_at(TokenStep::Length) { text.len() - 1 } else { text.len() };
            let keys = if fails_at(TokenStep::Key) { &without_its_key } else { &own };
            let failed = (|| -> Result<(), TokenFault> {
                let segments = Token::new(text.as_bytes()).split(max_bytes)?;
                let verified = verify(Unverified::peek(&segments)?.address(&issuers)?, keys, NOW)?;
                Grant::to(&verified, &identity, verified.identity(&identity)).map(drop)
            })();
            assert_eq!(failed.map_err(|fault| fault.step), Err(first), "{first:?} and {second:?}");
        }
    }
}

#[test]
fn texts_that_two_parsers_could_read_differently() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let keys = set(&jwks(&[&key]), &[Algorithm::Rs256]);
    let header = r#"{"alg":"RS256","kid":"k1"}"#;
    let claims = format!(r#"{{"iss":"{ISS}","sub":"u","exp":4000000000,"aud":"api"}}"#);
    let twice = format!(r#"{{"sub":"admin",{}"#, &claims[1..]);
    let nested = format!(r#"{{"o":{{"a":1,"a":2}},{}"#, &claims[1..]);
    for (header, claims, want) in [
        (header, claims.as_str(), Ok("u".to_owned())),
        (header, &twice, Err(Denial::TokenMalformed)),
        (header, &nested, Err(Denial::TokenMalformed)),
        (r#"{"alg":"none","alg":"RS256","kid":"k1"}"#, &claims, Err(Denial::TokenMalformed)),
        (header, "[]", Err(Denial::TokenMalformed)),
        (header, "", Err(Denial::TokenMalformed)),
        ("", &claims, Err(Denial::TokenMalformed)),
        ("null", &claims, Err(Denial::TokenMalformed)),
    ] {
        let token = key.sign_text(header, claims);
        assert_eq!(verdict(&token, issuer(&[Algorithm::Rs256]), &keys), want, "{header} {claims}");
    }
}

#[test]
fn without_a_kid_every_fitting_key_is_tried() {
    let [a, b] = ["a", "b"].map(|kid| SigningKey::shared(kid, Algorithm::Es256));
    let token = b.mint(ISS, |header, claims| {
        header.as_object_mut().unwrap().remove("kid");
        claims["aud"] = json!("api");
    });
    let issuer = Issuer { require_kid: false, ..issuer(&[Algorithm::Es256]) };
    let verdict =
        |keys: &[&SigningKey]| verdict(&token, issuer.clone(), &set(&jwks(keys), &[Algorithm::Es256]));
    assert_eq!(verdict(&[&a, &b]).as_deref(), Ok("user-1"));
    assert_eq!(verdict(&[&a]), Err(Denial::SignatureInvalid));
}

#[test]
fn two_keys_of_one_kid_are_both_tried() {
    let [a, b] = ["same", "other"].map(|kid| SigningKey::shared(kid, Algorithm::Es256));
    let mut twin = b.jwk();
    twin["kid"] = json!("same");
    let keys = set(&json!({"keys": [a.jwk(), twin]}), &[Algorithm::Es256]);
    for key in [&a, &b] {
        let token = key.mint(ISS, |header, claims| {
            header["kid"] = json!("same");
            claims["aud"] = json!("api");
        });
        assert_eq!(verdict(&token, issuer(&[Algorithm::Es256]), &keys).as_deref(), Ok("user-1"));
    }
}

/// A file of tests/vectors/, whose README.md names the origin of each.
fn vectors(name: &str) -> Value {
    let path = format!("{}{name}", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&bytes).unwrap()
}

/// The checks of header, key and signature alone: Wycheproof's payloads are no claims.
fn has_good_signature(jws: &str, keys: &Value) -> bool {
    let check = || -> Result<(), Denial> {
        let segments = Token::new(jws.as_bytes()).split(65_536)?;
        let header = Object::parse(&segments.header).map_err(|_| Denial::TokenMalformed)?;
        if header.has("crit") {
            return Err(Denial::CriticalHeader);
        }
        let kid = key_id(&header)?;
        let algorithm = algorithm(&header, &issuer(Algorithm::ALL))?;
        let (set, _) = KeySet::parse(keys.to_string().as_bytes(), Algorithm::ALL, NOW);
        Ok(signature(
            &segments,
            set.map_err(|_| Denial::KeysUnavailable)?.candidates(kid.as_deref(), algorithm),
        )?)
    };
    check().is_ok()
}

/// Runs a Wycheproof file. `refused` are the vectors that are marked valid but rest on what is not supported here,
/// `accepted` those that are marked invalid but break no check here.
fn wycheproof(name: &str, refused: &[(&str, &[u64])], accepted: &[(&str, &[u64])]) {
    let file = vectors(name);
    let named = |list: &[(&str, &[u64])], id: u64| list.iter().any(|(_, ids)| ids.contains(&id));
    let mut seen = 0;
    for group in file["testGroups"].as_array().unwrap() {
        // A symmetric key has no public half; the file calls it private.
        let keys = group.get("public").unwrap_or(&group["private"]);
        let keys = if keys.get("keys").is_some() { keys.clone() } else { json!({"keys": [keys]}) };
        for test in group["tests"].as_array().unwrap() {
            let (id, result) = (test["tcId"].as_u64().unwrap(), test["result"].as_str().unwrap());
            let want = (result == "valid" && !named(refused, id)) || named(accepted, id);
            let jws = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
            assert_eq!(has_good_signature(&jws, &keys), want, "tcId {id}: {}", test["comment"]);
            seen += 1;
        }
    }
    assert_eq!(file["numberOfTests"].as_u64(), Some(seen), "every vector is looked at");
}

#[test]
fn wycheproof_json_web_signature() {
    wycheproof(
        "wycheproof_json_web_signature_test.json",
        &[
            ("HS256 has no name here", &[1, 348, 352, 357, 358, 359, 372, 373, 376, 377]),
            ("the key's alg is PS256, the token's PS384", &[346, 350]),
            ("P-521 is not among the contract's curves", &[347, 351]),
        ],
        &[],
    );
}

#[test]
fn wycheproof_json_web_key() {
    wycheproof(
        "wycheproof_json_web_key_test.json",
        &[("HS256, HS384 and HS512 have no name here", &[2, 13, 14, 15])],
        &[("a key of the ROCA kind is weak, but the contract has no rule against it", &[7])],
    );
}

#[test]
fn passage_id() {
    let file = vectors("passage-id.json");
    let app = PassageApp::new(file["app_id"].as_str().unwrap(), PassageApp::BASE_URL);
    let keys = set(&json!({"keys": [file["jwk"]]}), &[Algorithm::Rs256]);
    let issuer =
        Issuer { ids: app.ids.to_vec(), audiences: Audiences::NotChecked, ..issuer(&[Algorithm::Rs256]) };
    // The vectors date from 2023 and expire in 2033.
    let now = UnixTime::from_secs(1_800_000_000);
    let rows = file["tokens"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    for row in rows {
        let issuers = Issuers::new(vec![issuer.clone()]);
        let got = (|| -> Result<(), TokenFault> {
            let segments = Token::new(row["token"].as_str().unwrap().as_bytes()).split(8192)?;
            verify(Unverified::peek(&segments)?.address(&issuers)?, &keys, now).map(drop)
        })();
        let got = got.err().map(|fault| fault.denial.code());
        assert_eq!(got, row["code"].as_str(), "{}", row["name"]);
        assert_eq!(row["expect"], if got.is_none() { "allow" } else { "deny" }, "{}", row["name"]);
    }
}

#[test]
fn stray_bits_in_the_signature_are_another_token() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let keys = set(&jwks(&[&key]), &[Algorithm::Rs256]);
    let token = key.mint(ISS, |_, claims| claims["aud"] = json!("api"));
    // 256 bytes end in two characters of which the last carries four unused bits.
    let (start, last) = token.split_at(token.len() - 1);
    assert_eq!(URL_SAFE_NO_PAD.decode(token.rsplit('.').next().unwrap()).unwrap().len(), 256);
    assert!(["A", "Q", "g", "w"].contains(&last));
    for stray in ["B", "R", "h", "x"] {
        let got = verdict(&format!("{start}{stray}"), issuer(&[Algorithm::Rs256]), &keys);
        assert_eq!(got, Err(Denial::TokenMalformed));
    }
}

#[test]
fn every_single_change_of_a_token_is_noticed() {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let keys = set(&jwks(&[&key]), &[Algorithm::Rs256]);
    let token = key.mint(ISS, |_, claims| claims["aud"] = json!("api"));
    let judge = |token: &str| verdict(token, issuer(&[Algorithm::Rs256]), &keys);
    assert_eq!(judge(&token).as_deref(), Ok("user-1"));
    for at in 0..token.len() {
        for other in ["A", "b", "-", ".", "=", "", " ", "AA", "\0", "é"] {
            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            if changed != token {
                assert!(judge(&changed).is_err(), "{other:?} at {at}");
            }
        }
    }
}
