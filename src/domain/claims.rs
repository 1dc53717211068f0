//! The only judge of claims. A good signature says which issuer wrote a claim, not that the claim is usable, so every
//! check here names the JSON types it takes and refuses the rest; an absent or null claim never means "anything".

use crate::domain::clock::UnixTime;
use crate::domain::denial::Denial;
use crate::domain::issuer::{Audiences, Issuer};
use crate::domain::json::{Member, Object};
use crate::domain::token_fault::{TokenFault, TokenStep};

use serde_json::Value;

/// The `sub` of a token (RFC 7519 section 4.1.2): not empty, and legal as a header value, so that a line break in it
/// cannot add a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject(String);

impl Subject {
    fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && legal_header_value(text)).then(|| Self(text.to_owned()))
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The place of a claim in the payload: a top-level name, or a JSON Pointer (RFC 6901) if it begins with a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    written: String,
    member: String,
    /// The rest of the pointer, inside the member.
    inner_pointer: Option<String>,
}

impl Claim {
    /// Reads a name or a pointer; `None` for an empty name or a pointer that breaks RFC 6901 section 3.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let Some(pointer) = text.strip_prefix('/') else {
            let named = Self { written: text.to_owned(), member: text.to_owned(), inner_pointer: None };
            return (!text.is_empty()).then_some(named);
        };
        let tilde_is_escape = |(at, _)| matches!(pointer.as_bytes().get(at + 1), Some(b'0' | b'1'));
        if !pointer.match_indices('~').all(tilde_is_escape) {
            return None;
        }
        let (first, inner_pointer) = match pointer.split_once('/') {
            Some((first, inner)) => (first, Some(format!("/{inner}"))),
            None => (pointer, None),
        };
        let member = first.replace("~1", "/").replace("~0", "~");
        Some(Self { written: text.to_owned(), member, inner_pointer })
    }

    /// The name or pointer as the configuration has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The top-level member that the claim is, or is part of.
    pub(crate) fn member(&self) -> &str {
        &self.member
    }

    /// The claim's value; `None` if it is missing, or a number too large for a double is in its member.
    pub(crate) fn of(&self, claims: &Object<'_>) -> Option<Value> {
        let member: Value = serde_json::from_str(claims.raw(&self.member)?.get()).ok()?;
        match &self.inner_pointer {
            None => Some(member),
            Some(pointer) => member.pointer(pointer).cloned(),
        }
    }

    /// The claim as a header's value; `None` leaves the header out: the claim is missing, null or empty.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a value that has no one form in a header.
    pub(crate) fn header_value(&self, claims: &Object<'_>) -> Result<Option<String>, Denial> {
        let text = match self.of(claims) {
            // Present, but not representable.
            None if self.inner_pointer.is_none() && claims.has(&self.member) => {
                return Err(Denial::ClaimInvalid);
            }
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text,
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            Some(Value::Array(items)) => joined(&items).ok_or(Denial::ClaimInvalid)?,
            Some(Value::Object(_)) => return Err(Denial::ClaimInvalid),
        };
        match text.as_str() {
            "" => Ok(None),
            legal if legal_header_value(legal) => Ok(Some(text)),
            _ => Err(Denial::ClaimInvalid),
        }
    }
}

/// An array of strings as one header value. `None` if an element has the separator in it: the upstream would read
/// that element as two.
fn joined(items: &[Value]) -> Option<String> {
    let texts: Option<Vec<_>> =
        items.iter().map(|item| item.as_str().filter(|text| !text.contains(','))).collect();
    texts.map(|texts| texts.join(","))
}

/// Whether a text can stand in a header as it is: no control character (C0, DEL, C1), no outer white space.
fn legal_header_value(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.trim() == text
}

/// Checks `exp` and `nbf`, then `aud`, then `sub`.
///
/// # Errors
/// The first fault.
pub(crate) fn judge(claims: &Object<'_>, issuer: &Issuer, now: UnixTime) -> Result<Subject, TokenFault> {
    time(claims, issuer, now).map_err(|denial| TokenStep::Time.fault(denial))?;
    audience(claims, &issuer.audiences).map_err(|denial| TokenStep::Audience.fault(denial))?;
    subject(claims).map_err(|denial| TokenStep::Claims.fault(denial))
}

/// The claims that [`judge_again`] reads: all that must be kept of a payload for it.
pub(crate) const JUDGED_AGAIN: [&str; 3] = ["exp", "nbf", "sub"];

/// Judges claims that [`judge`] accepted before: of its checks only the one of `exp` and `nbf` depends on the time.
///
/// # Errors
/// [`Denial::TokenExpired`] or [`Denial::TokenNotYetValid`].
pub(crate) fn judge_again(
    claims: &Object<'_>,
    issuer: &Issuer,
    now: UnixTime,
) -> Result<Subject, TokenFault> {
    time(claims, issuer, now).map_err(|denial| TokenStep::Time.fault(denial))?;
    subject(claims).map_err(|denial| TokenStep::Claims.fault(denial))
}

/// RFC 7519 section 4.1.2; always required here.
fn subject(claims: &Object<'_>) -> Result<Subject, Denial> {
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
    let is_accepted = match claims.member("aud") {
        Member::Absent => false,
        Member::String(aud) => accepts(&aud),
        Member::Strings(auds) => auds.iter().any(|aud| accepts(aud)),
        Member::Null | Member::Number(_) | Member::Other => return Err(Denial::ClaimInvalid),
    };
    if is_accepted { Ok(()) } else { Err(Denial::AudienceMismatch) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::algorithm::Algorithm;
    use crate::domain::issuer::{Audience, IssuerName};

    const NOW: u64 = 1_000_000;

    fn judged(claims: &str, audiences: &[&str]) -> Result<String, TokenFault> {
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
        let (claims, now) = (Object::parse(claims.as_bytes()).unwrap(), UnixTime::from_secs(NOW));
        let judged = judge(&claims, &issuer, now);
        if issuer.audiences == Audiences::NotChecked {
            let kept = claims.subset_as_json(JUDGED_AGAIN.into_iter());
            let again = judge_again(&Object::parse(kept.as_bytes()).unwrap(), &issuer, now);
            assert_eq!(again, judged, "judged again by what is kept");
        }
        judged.map(|subject| subject.0)
    }

    #[test]
    fn values_in_headers() {
        let text = r#"{"s":"x","e":"","n":null,"i":7,"f":1.5,"t":true,"l":["a","b"],"el":[],"comma":["a,b"],
            "mixed":["a",1],"o":{"k":"v","d":{"x":"y"},"a/b":"c","m~n":"t"},"crlf":"a\r\nb","sp":" a","big":1e999,
            "utf":"é","del":"a\u007f","c1":"a\u0085"}"#;
        let claims = Object::parse(text.as_bytes()).unwrap();
        let invalid = Err(Denial::ClaimInvalid);
        for (claim, want) in [
            ("s", Ok(Some("x"))),
            ("e", Ok(None)),
            ("n", Ok(None)),
            ("missing", Ok(None)),
            ("i", Ok(Some("7"))),
            ("f", Ok(Some("1.5"))),
            ("t", Ok(Some("true"))),
            ("l", Ok(Some("a,b"))),
            ("el", Ok(None)),
            ("comma", invalid),
            ("mixed", invalid),
            ("o", invalid),
            ("crlf", invalid),
            ("sp", invalid),
            ("big", invalid),
            ("del", invalid),
            ("c1", invalid),
            ("utf", Ok(Some("é"))),
            ("/s", Ok(Some("x"))),
            ("/o/k", Ok(Some("v"))),
            ("/o/d/x", Ok(Some("y"))),
            ("/o/a~1b", Ok(Some("c"))),
            ("/o/m~0n", Ok(Some("t"))),
            ("/l/1", Ok(Some("b"))),
            ("/l/2", Ok(None)),
            ("/o/missing", Ok(None)),
            ("/o/d", invalid),
        ] {
            let got = Claim::new(claim).unwrap().header_value(&claims);
            assert_eq!(got, want.map(|some| some.map(str::to_owned)), "{claim}");
        }
        for claim in ["", "/a~", "/a~2", "/~/b"] {
            assert_eq!(Claim::new(claim), None, "{claim}");
        }
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
        type Row = (&'static str, &'static [&'static str], Denial);
        let by_step: [(TokenStep, &[Row]); 3] = [
            (
                TokenStep::Time,
                &[
                    (r#"{"sub":"u"}"#, &[], Denial::ClaimMissing),
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
                ],
            ),
            (
                TokenStep::Audience,
                &[
                    (r#"{"exp":1000001,"sub":"u"}"#, &["a"], Denial::AudienceMismatch),
                    (r#"{"exp":1000001,"aud":"A","sub":"u"}"#, &["a"], Denial::AudienceMismatch),
                    (r#"{"exp":1000001,"aud":[],"sub":"u"}"#, &["a"], Denial::AudienceMismatch),
                    (r#"{"exp":1000001,"aud":null,"sub":"u"}"#, &["a"], Denial::ClaimInvalid),
                    (r#"{"exp":1000001,"aud":["a",1],"sub":"u"}"#, &["a"], Denial::ClaimInvalid),
                    (r#"{"exp":1000001,"aud":{"a":1},"sub":"u"}"#, &["a"], Denial::ClaimInvalid),
                    (r#"{"exp":1000001,"aud":"x"}"#, &["a"], Denial::AudienceMismatch),
                ],
            ),
            (
                TokenStep::Claims,
                &[
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
                ],
            ),
        ];
        for (step, rows) in by_step {
            for (claims, audiences, denial) in rows {
                assert_eq!(judged(claims, audiences), Err(step.fault(*denial)), "{claims}");
            }
        }
    }
}
