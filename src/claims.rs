//! The only judge of claims. What the signature covers is still the issuer's word, so every rule here
//! names the type it takes and refuses the rest; nothing absent or null ever means "anything".

use crate::clock::UnixTime;
use crate::denial::Denial;
use crate::issuer::{Audiences, Issuer};
use crate::json::{Member, Object};

/// Who the token is about (`sub`, RFC 7519 section 4.1.2): not empty, and legal as a header value, so
/// that a header cannot be smuggled in through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(String);

impl Subject {
    fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && legal_header_value(text)).then(|| Self(text.to_owned()))
    }

    /// The subject.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text can stand in a header as it is: no control character (C0, DEL, C1), no outer white space.
fn legal_header_value(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.trim() == text
}

/// Checks `exp` and `nbf`, then `aud`, then `sub`, in the contract's order of faults.
///
/// # Errors
/// The first fault.
pub(crate) fn check(claims: &Object<'_>, issuer: &Issuer, now: UnixTime) -> Result<Subject, Denial> {
    time(claims, issuer, now)?;
    audience(claims, &issuer.audiences)?;
    match claims.member("sub") {
        Member::Absent | Member::Null => Err(Denial::ClaimMissing),
        Member::String(sub) => Subject::new(&sub).ok_or(Denial::ClaimInvalid),
        Member::Number(_) | Member::Strings(_) | Member::Other => Err(Denial::ClaimInvalid),
    }
}

/// RFC 7519 sections 4.1.4 and 4.1.5, with the issuer's leeway. `exp` is always required here.
fn time(claims: &Object<'_>, issuer: &Issuer, now: UnixTime) -> Result<(), Denial> {
    let (now, leeway) = (now.as_secs_f64(), issuer.leeway.as_secs_f64());
    match claims.member("exp") {
        Member::Absent | Member::Null => return Err(Denial::ClaimMissing),
        Member::Number(exp) if exp <= now - leeway => return Err(Denial::TokenExpired),
        Member::Number(_) => {}
        Member::String(_) | Member::Strings(_) | Member::Other => return Err(Denial::ClaimInvalid),
    }
    match claims.member("nbf") {
        Member::Absent => Ok(()),
        Member::Number(nbf) if nbf > now + leeway => Err(Denial::TokenNotYetValid),
        Member::Number(_) => Ok(()),
        Member::Null | Member::String(_) | Member::Strings(_) | Member::Other => Err(Denial::ClaimInvalid),
    }
}

/// RFC 7519 section 4.1.3: one string, or an array of strings of which one is enough.
fn audience(claims: &Object<'_>, audiences: &Audiences) -> Result<(), Denial> {
    let Audiences::OneOf(accepted) = audiences else { return Ok(()) };
    let accepts = |aud: &str| accepted.iter().any(|audience| audience.0 == aud);
    let met = match claims.member("aud") {
        Member::Absent => false,
        Member::String(aud) => accepts(&aud),
        Member::Strings(auds) => auds.iter().any(|aud| accepts(aud)),
        Member::Null | Member::Number(_) | Member::Other => return Err(Denial::ClaimInvalid),
    };
    if met { Ok(()) } else { Err(Denial::AudienceMismatch) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::algorithm::Algorithm;
    use crate::issuer::{Audience, IssuerName};

    const NOW: u64 = 1_000_000;

    fn judged(claims: &str, audiences: &[&str]) -> Result<String, Denial> {
        let audiences = match audiences {
            [] => Audiences::NotChecked,
            some => Audiences::OneOf(some.iter().map(|aud| Audience((*aud).to_owned())).collect()),
        };
        let issuer = Issuer {
            name: IssuerName::new("i"),
            ids: vec![],
            audiences,
            algorithms: vec![Algorithm::Rs256],
            require_kid: false,
            types: vec![],
            leeway: Duration::from_secs(30),
        };
        let claims = Object::parse(claims.as_bytes()).unwrap();
        check(&claims, &issuer, UnixTime::from_secs(NOW)).map(|sub| sub.as_str().to_owned())
    }

    #[test]
    fn accepts() {
        for (claims, audiences) in [
            (r#"{"exp":1000001,"sub":"u"}"#, &[][..]),
            (r#"{"exp":999970.001,"sub":"u"}"#, &[]),
            (r#"{"exp":1e300,"sub":"u","nbf":-5}"#, &[]),
            (r#"{"exp":1000001,"nbf":1000030,"sub":"u"}"#, &[]),
            (r#"{"exp":1000001,"aud":7,"sub":"u"}"#, &[]),
            (r#"{"exp":1000001,"aud":"a","sub":"u"}"#, &["a", "b"]),
            (r#"{"exp":1000001,"aud":["x","b"],"sub":"u"}"#, &["a", "b"]),
        ] {
            assert_eq!(judged(claims, audiences).as_deref(), Ok("u"), "{claims}");
        }
        assert_eq!(judged(r#"{"exp":1000001,"sub":"José, \"x\""}"#, &[]).as_deref(), Ok("José, \"x\""));
    }

    #[test]
    fn rejects_with_the_first_fault() {
        for (claims, audiences, want) in [
            (r#"{"sub":"u"}"#, &[][..], Denial::ClaimMissing),
            (r#"{"exp":null,"sub":"u"}"#, &[], Denial::ClaimMissing),
            (r#"{"exp":"1000001","sub":"u"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":[1000001],"sub":"u"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":true,"sub":"u"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1e999,"sub":"u"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":999970,"sub":"u"}"#, &[], Denial::TokenExpired),
            (r#"{"exp":0,"sub":"u"}"#, &[], Denial::TokenExpired),
            (r#"{"exp":-1,"nbf":"x"}"#, &[], Denial::TokenExpired),
            (r#"{"exp":1000001,"nbf":1000030.5,"sub":"u"}"#, &[], Denial::TokenNotYetValid),
            (r#"{"exp":1000001,"nbf":"0","sub":"u"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"nbf":null,"sub":"u"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"nbf":1e999,"sub":"u"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":"u"}"#, &["a"], Denial::AudienceMismatch),
            (r#"{"exp":1000001,"aud":"A","sub":"u"}"#, &["a"], Denial::AudienceMismatch),
            (r#"{"exp":1000001,"aud":[],"sub":"u"}"#, &["a"], Denial::AudienceMismatch),
            (r#"{"exp":1000001,"aud":null,"sub":"u"}"#, &["a"], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"aud":["a",1],"sub":"u"}"#, &["a"], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"aud":{"a":1},"sub":"u"}"#, &["a"], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"aud":"x"}"#, &["a"], Denial::AudienceMismatch),
            (r#"{"exp":1000001}"#, &[], Denial::ClaimMissing),
            (r#"{"exp":1000001,"sub":null}"#, &[], Denial::ClaimMissing),
            (r#"{"exp":1000001,"sub":""}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":7}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":["u"]}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":{}}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":" u"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":"u\u00a0"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":"u\r\nx-admin: 1"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":"u\u0000"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":"a\u007fb"}"#, &[], Denial::ClaimInvalid),
            (r#"{"exp":1000001,"sub":"a\u0085b"}"#, &[], Denial::ClaimInvalid),
        ] {
            assert_eq!(judged(claims, audiences), Err(want), "{claims}");
        }
    }
}
