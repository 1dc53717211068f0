//! Events that are forged or broken, and that no kind of token is taken for another.

use super::*;
use crate::domain::denial::Denial;
use crate::testing::tampered;

#[test]
fn forged_or_broken() {
    use EventFault as F;
    let (good, key) = (minted(LogoutToken, |_, _| {}), key());
    let claims = format!(r#""iss":"{ISS}","aud":"client","iat":{NOW},"jti":"j""#);
    let signed = |claims: &str| key.sign_text(r#"{"alg":"ES256","kid":"event"}"#, claims);
    let (message, _) = good.rsplit_once('.').unwrap();
    let stranger = SigningKey::generate("event", Algorithm::Es256);
    let of_other_issuer = stranger.sign_text(
        r#"{"alg":"ES256","kid":"event","typ":"logout+jwt"}"#,
        &format!(r#"{{{claims},"sub":"u","events":{{"{LOGOUT}":{{}}}}}}"#),
    );
    let whole = signed(&format!(r#"{{{claims},"sub":"u","events":{{"{LOGOUT}":{{}}}}}}"#));
    assert!(judged(&whole, LogoutToken, &["client"]).is_ok());
    for (name, text, want) in [
        ("empty", String::new(), F::Form),
        ("two segments", message.to_owned(), F::Form),
        ("no signature", format!("{message}."), F::Signature),
        ("a signature changed", tampered(&good), F::Signature),
        ("another issuer's key", of_other_issuer, F::Signature),
        ("too long", signed(&" ".repeat(16_384)), F::TooLong),
        ("claims in an array", signed("[]"), F::Form),
        (
            "a doubled claim",
            signed(&format!(r#"{{{claims},"sub":"u","sub":"v","events":{{"{LOGOUT}":{{}}}}}}"#)),
            F::Form,
        ),
        (
            "a doubled event",
            signed(&format!(r#"{{{claims},"sub":"u","events":{{"{LOGOUT}":{{}},"{LOGOUT}":{{}}}}}}"#)),
            F::Form,
        ),
        (
            "a doubled member of a payload",
            signed(&format!(r#"{{{claims},"sub":"u","events":{{"{LOGOUT}":{{"a":1,"\u0061":1}}}}}}"#)),
            F::Form,
        ),
        (
            "a large number",
            signed(&format!(r#"{{{claims},"sub":"u","exp":1e999,"events":{{"{LOGOUT}":{{}}}}}}"#)),
            F::Expired,
        ),
    ] {
        assert_eq!(judged(&text, LogoutToken, &["client"]).err(), Some(want), "{name}");
    }
    assert_eq!(judged(&good, LogoutToken, &[]).err(), Some(F::Audience), "no audience accepts none");
}

/// What the issuer signs for other uses, with everything that the claims of an event have but what tells it.
#[test]
fn no_token_is_taken_for_another() {
    let key = key();
    let token = |edit: Edit| {
        key.mint(ISS, |header, claims| {
            (claims["aud"], claims["iat"], claims["jti"]) = (json!("client"), json!(NOW), json!("j"));
            claims["sid"] = json!("s");
            edit(header, claims);
        })
    };
    for (name, text, logout, event) in [
        ("an ID token", token(|_, _| {}), EventFault::Events, EventFault::Type),
        (
            "an ID token with nonce",
            token(|_, c| c["nonce"] = json!("n")),
            EventFault::Nonce,
            EventFault::Type,
        ),
        ("an access token", token(|h, _| h["typ"] = json!("at+jwt")), EventFault::Type, EventFault::Type),
        (
            "an access token without typ",
            token(|h, _| without(h, "typ")),
            EventFault::Events,
            EventFault::Type,
        ),
    ] {
        assert_eq!(judged(&text, LogoutToken, &["client"]).err(), Some(logout), "{name}");
        assert_eq!(judged(&text, SecurityEvent, &["client"]).err(), Some(event), "{name}");
    }
    // With all that an access token needs.
    for form in [LogoutToken, SecurityEvent] {
        let text = minted(form, |_, c| (c["sub"], c["exp"]) = (json!("u"), json!(NOW + 60)));
        assert!(judged(&text, form, &["client"]).is_ok());
        let segments = Token::new(text.as_bytes()).split(8192).unwrap();
        let issuers = issuers();
        let fault = Unverified::peek(&segments).unwrap().address(&issuers).err();
        assert_eq!(fault, Some(TokenStep::Typ.fault(Denial::TypeNotAllowed)), "{form:?}");
    }
    for typ in [None, Some("JWT"), Some("at+jwt")] {
        let untyped = minted(LogoutToken, |h, c| {
            without(h, "typ");
            (c["sub"], c["exp"]) = (json!("u"), json!(NOW + 60));
        });
        let [_, claims, _] = untyped.split('.').collect::<Vec<_>>().try_into().unwrap();
        let claims =
            base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
        let typ = typ.map(|typ| format!(r#","typ":"{typ}""#)).unwrap_or_default();
        let header = format!(r#"{{"alg":"ES256","kid":"event"{typ}}}"#);
        let text = key.sign_text(&header, str::from_utf8(&claims).unwrap());
        let segments = Token::new(text.as_bytes()).split(8192).unwrap();
        let issuers = issuers();
        let fault = Unverified::peek(&segments).unwrap().address(&issuers).err();
        assert_eq!(fault, Some(TokenStep::Typ.fault(Denial::TypeNotAllowed)), "{typ}");
    }
}
