//! What is accepted and what it revokes, what is refused and why.

use serde_json::{Value, json};

use super::*;
use crate::domain::algorithm::Algorithm;
use crate::domain::claim::Claim;
use crate::domain::issuer::{Audiences, BoundTokens, Issuer, IssuerId, Tenants};
use crate::domain::revoked::{EventSubject, SubjectClaims};
use crate::domain::token::Token;
use crate::testing::{SigningKey, jwks};
use EventForm::{LogoutToken, SecurityEvent};

mod confusion;

const NOW: u64 = 2_000_000_000;
const ISS: &str = "https://issuer.example";
/// Another `iss` of the same issuer.
const ALIAS: &str = "https://alias.example";
const OTHER: &str = "https://other.example";
const SILENT: &str = "https://silent.example";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const MAX_AGE: Duration = Duration::from_secs(300);

fn issuer(name: &str, ids: &[&str]) -> Issuer {
    let [audience_claims, subject] = ["aud", "sub"].map(|name| Claim::new(name).into_iter().collect());
    Issuer {
        name: IssuerName::new(name),
        ids: ids.iter().map(|id| IssuerId((*id).to_owned())).collect(),
        audiences: Audiences::OneOf(vec![Audience("client".to_owned())]),
        tenants: None,
        audience_claims,
        subject,
        max_lifetime: None,
        algorithms: vec![Algorithm::Es256],
        require_kid: true,
        types: vec!["jwt".to_owned(), "at+jwt".to_owned()],
        leeway: Duration::from_secs(30),
        bound_tokens: BoundTokens::Verify,
    }
}

fn issuers() -> Issuers {
    let tenants =
        Issuer { tenants: Some(Tenants::Any), ..issuer("tenants", &["https://many.example/{tid}"]) };
    Issuers::new(vec![
        issuer("one", &[ISS, ALIAS]),
        issuer("two", &[OTHER]),
        issuer("silent", &[SILENT]),
        tenants,
    ])
}

fn key() -> std::sync::Arc<SigningKey> {
    SigningKey::shared("event", Algorithm::Es256)
}

/// The claim of accounts is not configured.
fn subject_claims() -> SubjectClaims {
    SubjectClaims { email: Claim::new("email"), account: None }
}

/// As the listener would come to it. The keys are those of whichever issuer is found.
fn judged(text: &str, form: EventForm, audiences: &[&str]) -> Result<VerifiedEvent, EventFault> {
    let (now, issuers) = (UnixTime::from_secs(NOW), issuers());
    let segments = Token::new(text.as_bytes()).split(16_384)?;
    let addressed =
        UnverifiedEvent::peek(&segments, form)?.address(&issuers, |name| name.as_str() != "silent")?;
    let keys = KeySet::parse(jwks(&[&key()]).to_string().as_bytes(), &[Algorithm::Es256], now).0.unwrap();
    let has_candidate = addressed.addressed().has_candidate(&keys);
    let accepted: Vec<_> = audiences.iter().map(|aud| Audience((*aud).to_owned())).collect();
    let verified = addressed.verify(
        &keys,
        &accepted,
        &EventLimits { max_age: MAX_AGE, subject_claims: &subject_claims() },
        now,
    );
    assert_eq!(has_candidate, verified.as_ref().err() != Some(&EventFault::KeyUnknown));
    verified
}

type Edit = fn(&mut Value, &mut Value);

/// A good event of this form, and an edit of its header and claims.
fn minted(form: EventForm, edit: Edit) -> String {
    key().mint(ISS, |header, claims| {
        *claims = json!({"iss": ISS, "aud": "client", "iat": NOW - 10, "jti": "j1"});
        match form {
            LogoutToken => {
                header["typ"] = json!("logout+jwt");
                claims["sub"] = json!("u");
                claims["events"] = json!({LOGOUT: {}});
            }
            SecurityEvent => {
                header["typ"] = json!("secevent+jwt");
                claims["sub_id"] = json!({"format": "iss_sub", "iss": ISS, "sub": "u"});
                claims["events"] = json!({caep("session-revoked"): {}});
            }
        }
        edit(header, claims);
    })
}

fn caep(event: &str) -> String {
    format!("https://schemas.openid.net/secevent/caep/event-type/{event}")
}

fn risc(event: &str) -> String {
    format!("https://schemas.openid.net/secevent/risc/event-type/{event}")
}

fn ssf(event: &str) -> String {
    format!("https://schemas.openid.net/secevent/ssf/event-type/{event}")
}

fn without(object: &mut Value, name: &str) {
    object.as_object_mut().unwrap().remove(name).unwrap();
}

/// Only this event, without payload.
fn only(claims: &mut Value, uri: &str) {
    claims["events"] = json!({uri: {}});
}

const SUB: (EventSubject, &str) = (EventSubject::Sub, "u");
const SID: (EventSubject, &str) = (EventSubject::Sid, "s");

#[test]
fn accepts() {
    type Row = (&'static str, EventForm, Edit, &'static [(EventSubject, &'static str)], usize);
    let rows: &[Row] = &[
        ("logout of a user", LogoutToken, |_, _| {}, &[SUB], 0),
        (
            "logout of a session",
            LogoutToken,
            |_, c| {
                without(c, "sub");
                c["sid"] = json!("s")
            },
            &[SID],
            0,
        ),
        ("logout of a user's session", LogoutToken, |_, c| c["sid"] = json!("s"), &[SID], 0),
        ("logout without typ", LogoutToken, |h, _| without(h, "typ"), &[SUB], 0),
        ("logout with typ JWT", LogoutToken, |h, _| h["typ"] = json!("JWT"), &[SUB], 0),
        ("typ in full", LogoutToken, |h, _| h["typ"] = json!("Application/Logout+JWT"), &[SUB], 0),
        ("aud in an array", LogoutToken, |_, c| c["aud"] = json!(["x", "client"]), &[SUB], 0),
        ("another event beside", LogoutToken, |_, c| c["events"]["urn:x"] = json!({}), &[SUB], 1),
        ("a payload", LogoutToken, |_, c| c["events"][LOGOUT] = json!({"a": [1]}), &[SUB], 0),
        ("exp", LogoutToken, |_, c| c["exp"] = json!(NOW + 110), &[SUB], 0),
        ("exp within leeway", LogoutToken, |_, c| c["exp"] = json!(NOW - 29), &[SUB], 0),
        ("as old as may be", LogoutToken, |_, c| c["iat"] = json!(NOW - 300), &[SUB], 0),
        ("as new as may be", LogoutToken, |_, c| c["iat"] = json!(NOW + 30), &[SUB], 0),
        ("a fraction", LogoutToken, |_, c| c["iat"] = json!(NOW as f64 - 9.5), &[SUB], 0),
        ("256 bytes of jti", LogoutToken, |_, c| c["jti"] = json!("j".repeat(256)), &[SUB], 0),
        ("a SET", SecurityEvent, |_, _| {}, &[SUB], 0),
        ("its typ in full", SecurityEvent, |h, _| h["typ"] = json!("application/secevent+jwt"), &[SUB], 0),
        ("credential-change", SecurityEvent, |_, c| only(c, &caep("credential-change")), &[SUB], 0),
        ("token-claims-change", SecurityEvent, |_, c| only(c, &caep("token-claims-change")), &[SUB], 0),
        ("account-disabled", SecurityEvent, |_, c| only(c, &risc("account-disabled")), &[SUB], 0),
        ("account-purged", SecurityEvent, |_, c| only(c, &risc("account-purged")), &[SUB], 0),
        ("sessions-revoked", SecurityEvent, |_, c| only(c, &risc("sessions-revoked")), &[SUB], 0),
        (
            "the same user twice",
            SecurityEvent,
            |_, c| c["events"][risc("account-purged")] = json!({}),
            &[SUB],
            0,
        ),
        (
            "verification",
            SecurityEvent,
            |_, c| {
                c["sub_id"] = json!({"format": "opaque", "id": "stream"});
                c["events"] = json!({ssf("verification"): {"state": "x"}});
            },
            &[],
            0,
        ),
        (
            "stream-updated",
            SecurityEvent,
            |_, c| {
                without(c, "sub_id");
                only(c, &ssf("stream-updated"))
            },
            &[],
            0,
        ),
        ("an unknown event", SecurityEvent, |_, c| only(c, "urn:x"), &[], 1),
        ("an unknown event of CAEP", SecurityEvent, |_, c| only(c, &caep("assurance-level-change")), &[], 1),
        (
            "an unknown event's subject",
            SecurityEvent,
            |_, c| {
                c["sub_id"] = json!(7);
                only(c, "urn:x")
            },
            &[],
            1,
        ),
        ("a known and an unknown one", SecurityEvent, |_, c| c["events"]["urn:x"] = json!({}), &[SUB], 1),
        ("a logout as a SET is unknown", SecurityEvent, |_, c| only(c, LOGOUT), &[], 1),
        ("opaque", SecurityEvent, |_, c| c["sub_id"] = json!({"format": "opaque", "id": "u"}), &[SUB], 0),
        ("the issuer's other iss", SecurityEvent, |_, c| c["sub_id"]["iss"] = json!(ALIAS), &[SUB], 0),
        (
            "subjects of events",
            SecurityEvent,
            |_, c| {
                without(c, "sub_id");
                c["events"] = json!({
                    caep("session-revoked"): {"subject": {"session": {"format": "opaque", "id": "s"}}},
                    risc("account-purged"): {"subject": {"format": "opaque", "id": "u"}},
                });
            },
            &[SID, SUB],
            0,
        ),
        (
            "sub_id before subject",
            SecurityEvent,
            |_, c| {
                c["events"][caep("session-revoked")]["subject"] = json!({"format": "opaque", "id": "x"});
            },
            &[SUB],
            0,
        ),
        (
            "a complex session",
            SecurityEvent,
            |_, c| {
                c["sub_id"] = json!({"format": "complex", "session": {"format": "opaque", "id": "s"}});
            },
            &[SID],
            0,
        ),
        (
            "a complex user",
            SecurityEvent,
            |_, c| {
                c["sub_id"] = json!({"format": "complex", "user": c["sub_id"]});
            },
            &[SUB],
            0,
        ),
        (
            "a session before its user",
            SecurityEvent,
            |_, c| {
                let user = json!({"format": "account", "uri": "acct:u@x.example"});
                c["sub_id"] =
                    json!({"format": "complex", "user": user, "session": {"format": "opaque", "id": "s"}});
            },
            &[SID],
            0,
        ),
        (
            "an account before a session of it",
            SecurityEvent,
            |_, c| {
                let session = json!({"format": "opaque", "id": "s"});
                c["sub_id"] = json!({"format": "complex", "user": c["sub_id"], "session": session});
                only(c, &risc("account-disabled"));
            },
            &[SUB],
            0,
        ),
        (
            "an account's session where only it is named",
            SecurityEvent,
            |_, c| {
                c["sub_id"] = json!({"format": "complex", "session": {"format": "opaque", "id": "s"}});
                only(c, &risc("account-disabled"));
            },
            &[SID],
            0,
        ),
        (
            "a user by e-mail",
            SecurityEvent,
            |_, c| c["sub_id"] = json!({"format": "email", "email": "U@x.example"}),
            &[(EventSubject::Email, "u@x.example")],
            0,
        ),
        (
            "a tenant's user",
            SecurityEvent,
            |_, c| {
                (c["iss"], c["tid"]) = (json!("https://many.example/t1"), json!("t1"));
                c["sub_id"]["iss"] = json!("https://many.example/t1");
            },
            &[SUB],
            0,
        ),
    ];
    for (name, form, edit, want, ignored) in rows {
        let event = judged(&minted(*form, *edit), *form, &["api", "client"]).expect(name);
        let got: Vec<_> = event.names().iter().map(|(subject, value)| (*subject, value.as_str())).collect();
        assert_eq!((got.as_slice(), event.ignored().len()), (*want, *ignored), "{name}");
    }
}

#[test]
fn an_event_holds_up_to_its_iat_under_each_iss_of_the_issuer() {
    let cut = minted(LogoutToken, |_, c| c["iat"] = json!(NOW as f64 - 9.5));
    let event = judged(&cut, LogoutToken, &["client"]).unwrap();
    let (issuer, iat) = (IssuerName::new("one"), UnixTime::from_secs(NOW - 10));
    assert_eq!((event.issuer(), event.jti(), event.iat()), (&issuer, "j1", iat));
    assert_eq!(event.isses(), [ISS, ALIAS]);
    let tenant = minted(SecurityEvent, |_, c| {
        (c["iss"], c["tid"]) = (json!("https://many.example/t1"), json!("t1"));
        c["sub_id"]["iss"] = json!("https://many.example/t1");
    });
    let event = judged(&tenant, SecurityEvent, &["client"]).unwrap();
    assert_eq!(event.isses(), ["https://many.example/t1"], "another tenant may have a user of the same sub");
}

#[test]
fn rejects() {
    use EventFault as F;
    type Row = (&'static str, EventForm, Edit, EventFault);
    let rows: &[Row] = &[
        ("kid of a wrong type", LogoutToken, |h, _| h["kid"] = json!(1), F::Form),
        ("too deep", LogoutToken, |_, c| c["events"][LOGOUT] = deep(126), F::Form),
        ("crit", LogoutToken, |h, _| h["crit"] = json!(["b64"]), F::Crit),
        ("no iss", LogoutToken, |_, c| without(c, "iss"), F::Issuer),
        ("iss in an array", LogoutToken, |_, c| c["iss"] = json!([ISS]), F::Issuer),
        ("unknown iss", LogoutToken, |_, c| c["iss"] = json!("https://x.example"), F::Issuer),
        ("an issuer without events", LogoutToken, |_, c| c["iss"] = json!(SILENT), F::Issuer),
        (
            "another tenant's tid",
            SecurityEvent,
            |_, c| {
                (c["iss"], c["tid"]) = (json!("https://many.example/t1"), json!("t2"));
            },
            F::Issuer,
        ),
        ("alg none", LogoutToken, |h, _| h["alg"] = json!("none"), F::Algorithm),
        ("alg HS256", SecurityEvent, |h, _| h["alg"] = json!("HS256"), F::Algorithm),
        ("no alg", LogoutToken, |h, _| without(h, "alg"), F::Algorithm),
        ("alg not on the list", LogoutToken, |h, _| h["alg"] = json!("RS256"), F::Algorithm),
        ("a SET as a logout token", LogoutToken, |h, _| h["typ"] = json!("secevent+jwt"), F::Type),
        ("an access token's typ", LogoutToken, |h, _| h["typ"] = json!("at+jwt"), F::Type),
        ("typ null", LogoutToken, |h, _| h["typ"] = Value::Null, F::Type),
        ("a logout token as a SET", SecurityEvent, |h, _| h["typ"] = json!("logout+jwt"), F::Type),
        ("a SET without typ", SecurityEvent, |h, _| without(h, "typ"), F::Type),
        ("a SET with typ JWT", SecurityEvent, |h, _| h["typ"] = json!("JWT"), F::Type),
        ("no kid", LogoutToken, |h, _| without(h, "kid"), F::KeyIdMissing),
        ("unknown kid", LogoutToken, |h, _| h["kid"] = json!("k2"), F::KeyUnknown),
        ("no iat", LogoutToken, |_, c| without(c, "iat"), F::IssuedAt),
        ("iat as a text", LogoutToken, |_, c| c["iat"] = json!(NOW.to_string()), F::IssuedAt),
        ("iat before 1970", LogoutToken, |_, c| c["iat"] = json!(-1), F::IssuedAt),
        ("old", LogoutToken, |_, c| c["iat"] = json!(NOW - 301), F::TooOld),
        ("future", SecurityEvent, |_, c| c["iat"] = json!(NOW + 31), F::InTheFuture),
        ("far future", SecurityEvent, |_, c| c["iat"] = json!(1e300), F::InTheFuture),
        ("expired", LogoutToken, |_, c| c["exp"] = json!(NOW - 30), F::Expired),
        ("exp null", LogoutToken, |_, c| c["exp"] = Value::Null, F::Expired),
        ("no aud", SecurityEvent, |_, c| without(c, "aud"), F::Audience),
        ("aud null", LogoutToken, |_, c| c["aud"] = Value::Null, F::Audience),
        ("aud empty", LogoutToken, |_, c| c["aud"] = json!([]), F::Audience),
        ("another aud", LogoutToken, |_, c| c["aud"] = json!("web"), F::Audience),
        ("other auds", SecurityEvent, |_, c| c["aud"] = json!(["web", "Client"]), F::Audience),
        ("aud mixed", SecurityEvent, |_, c| c["aud"] = json!(["client", 7]), F::Audience),
        ("no jti", LogoutToken, |_, c| without(c, "jti"), F::Jti),
        ("jti empty", SecurityEvent, |_, c| c["jti"] = json!(""), F::Jti),
        ("jti a number", LogoutToken, |_, c| c["jti"] = json!(7), F::Jti),
        ("300 bytes of jti", LogoutToken, |_, c| c["jti"] = json!("j".repeat(300)), F::Jti),
        (
            "257 bytes in few characters",
            LogoutToken,
            |_, c| c["jti"] = json!(format!("{}j", "é".repeat(128))),
            F::Jti,
        ),
        ("nonce", LogoutToken, |_, c| c["nonce"] = json!("n"), F::Nonce),
        ("nonce null", LogoutToken, |_, c| c["nonce"] = Value::Null, F::Nonce),
        ("no events", LogoutToken, |_, c| without(c, "events"), F::Events),
        ("events in an array", LogoutToken, |_, c| c["events"] = json!([LOGOUT]), F::Events),
        ("events null", SecurityEvent, |_, c| c["events"] = Value::Null, F::Events),
        ("events empty", SecurityEvent, |_, c| c["events"] = json!({}), F::Events),
        ("another event alone", LogoutToken, |_, c| only(c, &caep("session-revoked")), F::NoLogout),
        ("a payload that is no object", LogoutToken, |_, c| c["events"][LOGOUT] = json!([]), F::Payload),
        (
            "a payload null",
            SecurityEvent,
            |_, c| c["events"][caep("session-revoked")] = Value::Null,
            F::Payload,
        ),
        ("an unknown event's payload", SecurityEvent, |_, c| c["events"]["urn:x"] = json!("x"), F::Payload),
        ("neither sub nor sid", LogoutToken, |_, c| without(c, "sub"), F::NoSubject),
        ("sid empty", LogoutToken, |_, c| c["sid"] = json!(""), F::Subject),
        ("sid a number", LogoutToken, |_, c| c["sid"] = json!(7), F::Subject),
        ("sid null beside sub", LogoutToken, |_, c| c["sid"] = Value::Null, F::Subject),
        (
            "sub a number beside sid",
            LogoutToken,
            |_, c| (c["sid"], c["sub"]) = (json!("s"), json!(7)),
            F::Subject,
        ),
        ("sub in an array", LogoutToken, |_, c| c["sub"] = json!(["u"]), F::Subject),
        ("no subject", SecurityEvent, |_, c| without(c, "sub_id"), F::NoSubject),
        (
            "sub is no sub_id",
            SecurityEvent,
            |_, c| {
                without(c, "sub_id");
                c["sub"] = json!("u")
            },
            F::NoSubject,
        ),
        ("sub_id null", SecurityEvent, |_, c| c["sub_id"] = Value::Null, F::Subject),
        ("sub_id a text", SecurityEvent, |_, c| c["sub_id"] = json!("u"), F::Subject),
        (
            "one event without subject",
            SecurityEvent,
            |_, c| {
                without(c, "sub_id");
                c["events"][caep("session-revoked")]["subject"] = json!({"format": "opaque", "id": "u"});
                c["events"][risc("account-purged")] = json!({});
            },
            F::NoSubject,
        ),
        ("another issuer's user", SecurityEvent, |_, c| c["sub_id"]["iss"] = json!(OTHER), F::SubjectIssuer),
        (
            "another tenant's user",
            SecurityEvent,
            |_, c| {
                (c["iss"], c["tid"]) = (json!("https://many.example/t1"), json!("t1"));
                c["sub_id"]["iss"] = json!("https://many.example/t2");
            },
            F::SubjectIssuer,
        ),
        (
            "a template for a tenant",
            SecurityEvent,
            |_, c| {
                (c["iss"], c["tid"]) = (json!("https://many.example/t1"), json!("t1"));
                c["sub_id"]["iss"] = json!("https://many.example/{tid}");
            },
            F::SubjectIssuer,
        ),
        (
            "a session of another issuer's user",
            SecurityEvent,
            |_, c| {
                let user = json!({"format": "iss_sub", "iss": OTHER, "sub": "u"});
                c["sub_id"] =
                    json!({"format": "complex", "user": user, "session": {"format": "opaque", "id": "s"}});
            },
            F::SubjectIssuer,
        ),
        ("no iss of the user", SecurityEvent, |_, c| without(&mut c["sub_id"], "iss"), F::Subject),
        ("sub empty", SecurityEvent, |_, c| c["sub_id"]["sub"] = json!(""), F::Subject),
        ("id a number", SecurityEvent, |_, c| c["sub_id"] = json!({"format": "opaque", "id": 7}), F::Subject),
        ("no format", SecurityEvent, |_, c| without(&mut c["sub_id"], "format"), F::SubjectFormat),
        ("format a number", SecurityEvent, |_, c| c["sub_id"]["format"] = json!(7), F::SubjectFormat),
        (
            "account without its claim",
            SecurityEvent,
            |_, c| c["sub_id"] = json!({"format": "account", "uri": "acct:u@x.example"}),
            F::SubjectFormat,
        ),
        (
            "account",
            SecurityEvent,
            |_, c| c["sub_id"] = json!({"format": "account", "uri": "acct:u@x"}),
            F::SubjectFormat,
        ),
        (
            "phone",
            SecurityEvent,
            |_, c| c["sub_id"] = json!({"format": "phone_number", "phone_number": "+1"}),
            F::SubjectFormat,
        ),
        (
            "complex in complex",
            SecurityEvent,
            |_, c| {
                c["sub_id"] =
                    json!({"format": "complex", "user": {"format": "complex", "user": c["sub_id"]}});
            },
            F::SubjectFormat,
        ),
        (
            "a tenant alone",
            SecurityEvent,
            |_, c| {
                c["sub_id"] = json!({"format": "complex", "tenant": {"format": "opaque", "id": "t"}});
            },
            F::NoSubject,
        ),
        (
            "a session by another format",
            SecurityEvent,
            |_, c| {
                c["sub_id"] = json!({"format": "complex", "session": c["sub_id"]});
            },
            F::SubjectFormat,
        ),
        (
            "a session that is a text",
            SecurityEvent,
            |_, c| {
                c["sub_id"] = json!({"format": "complex", "session": "s"});
            },
            F::Subject,
        ),
        (
            "an account by email, and a session",
            SecurityEvent,
            |_, c| {
                let user = json!({"format": "account", "uri": "acct:u@x.example"});
                c["sub_id"] =
                    json!({"format": "complex", "user": user, "session": {"format": "opaque", "id": "s"}});
                only(c, &risc("account-disabled"));
            },
            F::SubjectFormat,
        ),
        // Two faults: the first in the order of the checks is told.
        ("crit before iss", LogoutToken, |h, c| (h["crit"], c["iss"]) = (json!([]), json!("x")), F::Crit),
        ("iss before alg", LogoutToken, |h, c| (h["alg"], c["iss"]) = (json!("none"), json!("x")), F::Issuer),
        (
            "alg before typ",
            LogoutToken,
            |h, _| (h["alg"], h["typ"]) = (json!("none"), json!("x")),
            F::Algorithm,
        ),
        ("typ before key", LogoutToken, |h, _| (h["kid"], h["typ"]) = (json!("k2"), json!("x")), F::Type),
        ("iat before aud", LogoutToken, |_, c| (c["iat"], c["aud"]) = (json!(0), json!("x")), F::TooOld),
        ("aud before jti", LogoutToken, |_, c| (c["jti"], c["aud"]) = (json!(0), json!("x")), F::Audience),
        ("jti before nonce", LogoutToken, |_, c| (c["jti"], c["nonce"]) = (json!(0), json!("x")), F::Jti),
        (
            "nonce before events",
            LogoutToken,
            |_, c| (c["events"], c["nonce"]) = (json!(0), json!("x")),
            F::Nonce,
        ),
    ];
    for (name, form, edit, want) in rows {
        let text = minted(*form, *edit);
        assert_eq!(judged(&text, *form, &["api", "client"]).err(), Some(*want), "{name}");
    }
}

/// So many arrays in an object.
fn deep(levels: usize) -> Value {
    (0..levels).fold(json!({}), |inner, _| json!([inner]))
}

#[test]
fn faults_have_the_codes_of_rfc_8935() {
    for (fault, err) in [
        (EventFault::Form, "invalid_request"),
        (EventFault::Issuer, "invalid_issuer"),
        (EventFault::KeyUnknown, "invalid_key"),
        (EventFault::Signature, "authentication_failed"),
        (EventFault::Audience, "invalid_audience"),
        (EventFault::SubjectFormat, "invalid_request"),
    ] {
        assert_eq!(fault.err(), err);
    }
}
