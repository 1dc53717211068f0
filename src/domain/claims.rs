//! The only judge of claims. A good signature says which issuer wrote a claim, not that the claim is usable, so every
//! check here names the JSON types it takes and refuses the rest; an absent or null claim never means "anything".

use crate::domain::claim::{Claim, legal_header_value};
use crate::domain::clock::UnixTime;
use crate::domain::denial::Denial;
use crate::domain::issuer::{Audience, Audiences, BoundTokens, Issuer};
use crate::domain::json::{Member, Object};
use crate::domain::token_fault::{TokenFault, TokenStep};

/// Who a token is about: its `sub` (RFC 7519 section 4.1.2), or what its issuer's `subject` names. Not empty, and legal as a header
/// value, so that a line break in it cannot add a header.
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

/// Checks `exp` and `nbf`, then that the audience is among each of these, then the subject and the lifetime. From then on the
/// claim that is the subject is read under the name `sub`.
///
/// # Errors
/// The first fault.
pub(crate) fn judge<'x>(
    claims: &mut Object<'_>,
    issuer: &Issuer,
    audiences: impl Iterator<Item = &'x Audiences>,
    now: UnixTime,
) -> Result<Subject, TokenFault> {
    let subject = judge_again(claims, issuer, audiences, now)?;
    lifetime(claims, issuer).map_err(|denial| TokenStep::Claims.fault(denial))?;
    Ok(subject)
}

/// Proof of possession (RFC 7800 section 3.1): the token is good only beside a proof of the key that the claim names.
const CONFIRMATION: &str = "cnf";

/// A token with `cnf` is no bearer token: a thief of the token alone must not get through. No proof is read here, so
/// none is ever there. Whatever the claim holds counts, null too: the issuer meant to bind the token.
///
/// # Errors
/// [`Denial::ProofMissing`], unless the issuer's `bound_tokens` is `ignore`.
pub(crate) fn binding(claims: &Object<'_>, issuer: &Issuer) -> Result<(), TokenFault> {
    match issuer.bound_tokens {
        BoundTokens::Verify if claims.has(CONFIRMATION) => {
            Err(TokenStep::Binding.fault(Denial::ProofMissing))
        }
        BoundTokens::Verify | BoundTokens::Ignore => Ok(()),
    }
}

/// The claims that [`judge_again`] and [`binding`] read of every token, beside those that its issuer names: all that must be
/// kept of a payload for them.
pub(crate) const JUDGED_AGAIN: [&str; 3] = ["exp", "nbf", CONFIRMATION];

/// Judges claims that [`judge`] accepted before. Of its checks the one of `exp` and `nbf` depends on the time, and the one of
/// the audience on the rule.
///
/// # Errors
/// The first fault.
pub(crate) fn judge_again<'x>(
    claims: &mut Object<'_>,
    issuer: &Issuer,
    mut audiences: impl Iterator<Item = &'x Audiences>,
    now: UnixTime,
) -> Result<Subject, TokenFault> {
    time(claims, issuer, now).map_err(|denial| TokenStep::Time.fault(denial))?;
    audiences
        .try_for_each(|accepted| audience(claims, &issuer.audience_claims, accepted))
        .map_err(|denial| TokenStep::Audience.fault(denial))?;
    subject(claims, issuer).map_err(|denial| TokenStep::Claims.fault(denial))
}

/// The first of the issuer's subject claims that is a string with content, which is read as `sub` from here on. Always required.
fn subject(claims: &mut Object<'_>, issuer: &Issuer) -> Result<Subject, Denial> {
    let (subject, claim) = find_subject(claims, issuer)?;
    if let Some(raw) = claim.of(claims).filter(|_| claim.as_str() != SUBJECT) {
        claims.let_stand_for(SUBJECT, raw);
    }
    Ok(subject)
}

fn find_subject<'i>(claims: &Object<'_>, issuer: &'i Issuer) -> Result<(Subject, &'i Claim), Denial> {
    let mut fault = Denial::ClaimMissing;
    for claim in &issuer.subject {
        match Member::of(claim.of(claims)) {
            Member::Absent | Member::Null => {}
            Member::String(text) if !text.is_empty() => {
                return Ok((Subject::new(&text).ok_or(Denial::ClaimInvalid)?, claim));
            }
            _ => fault = Denial::ClaimInvalid,
        }
    }
    Err(fault)
}

/// RFC 7519 section 4.1.2.
const SUBJECT: &str = "sub";

/// The time from `iat` (RFC 7519 section 4.1.6) to `exp`, where the issuer's tokens may live for a limited time only.
fn lifetime(claims: &Object<'_>, issuer: &Issuer) -> Result<(), Denial> {
    let Some(max_lifetime) = issuer.max_lifetime else { return Ok(()) };
    match (claims.member("iat"), claims.member("exp")) {
        (Member::Absent | Member::Null, _) => Err(Denial::ClaimMissing),
        (Member::Number(iat), Member::Number(exp)) if exp - iat <= max_lifetime.as_secs_f64() => Ok(()),
        _ => Err(Denial::ClaimInvalid),
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

/// RFC 7519 section 4.1.3: one string, or an array of strings of which one is enough. The same holds for other claims that
/// issuers write the audience into; each must have one of these types if it is there.
fn audience(claims: &Object<'_>, names: &[Claim], audiences: &Audiences) -> Result<(), Denial> {
    let Audiences::OneOf(accepted) = audiences else { return Ok(()) };
    let accepts = |aud: &str| accepted.iter().any(|audience| audience.0 == aud);
    let mut is_accepted = false;
    for name in names {
        is_accepted |= match Member::of(name.of(claims)) {
            Member::Absent => false,
            Member::String(aud) => accepts(&aud),
            Member::Strings(auds) => auds.iter().any(|aud| accepts(aud)),
            Member::Null | Member::Number(_) | Member::Other => return Err(Denial::ClaimInvalid),
        };
    }
    if is_accepted { Ok(()) } else { Err(Denial::AudienceMismatch) }
}

/// Of these audiences the first that the token's is not among.
pub(crate) fn unmet<'x>(
    claims: &Object<'_>,
    issuer: &Issuer,
    mut audiences: impl Iterator<Item = &'x Audiences>,
) -> Option<&'x [Audience]> {
    let unmet = audiences.find(|accepted| audience(claims, &issuer.audience_claims, accepted).is_err());
    match unmet? {
        Audiences::OneOf(accepted) => Some(accepted),
        Audiences::NotChecked => None,
    }
}

/// The claim for which one of the checks of this step fails with [`Denial::ClaimMissing`] or [`Denial::ClaimInvalid`].
pub(crate) fn at_fault(step: TokenStep, claims: &Object<'_>, issuer: &Issuer) -> Option<String> {
    let is_number = |name| matches!(claims.member(name), Member::Number(_));
    let is_audience = |claim: &&Claim| {
        matches!(Member::of(claim.of(claims)), Member::Absent | Member::String(_) | Member::Strings(_))
    };
    match step {
        TokenStep::Time => Some(if is_number("exp") { "nbf" } else { "exp" }.to_owned()),
        TokenStep::Audience => {
            let claim = issuer.audience_claims.iter().find(|claim| !is_audience(claim));
            claim.map(|claim| claim.as_str().to_owned())
        }
        TokenStep::Claims if find_subject(claims, issuer).is_err() => {
            let names: Vec<_> = issuer.subject.iter().map(Claim::as_str).collect();
            Some(names.join(" or "))
        }
        TokenStep::Claims => lifetime(claims, issuer).is_err().then(|| "iat".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::value::RawValue;

    use super::*;
    use crate::domain::algorithm::Algorithm;
    use crate::domain::issuer::{IssuerName, Issuers};
    use crate::domain::json::MAX_DEPTH;
    use crate::domain::verify::ClaimsNeeded;

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
            tenants: None,
            audience_claims: vec![Claim::new("aud").unwrap()],
            subject: vec![Claim::new("sub").unwrap()],
            algorithms: vec![Algorithm::Rs256],
            require_kid: false,
            types: vec![],
            leeway: Duration::from_secs(30),
            bound_tokens: BoundTokens::Verify,
            max_lifetime: None,
        };
        judged_by(claims, &issuer)
    }

    fn judged_by(claims: &str, issuer: &Issuer) -> Result<String, TokenFault> {
        let (mut claims, now) = (Object::parse(claims.as_bytes()).unwrap(), UnixTime::from_secs(NOW));
        let judged = judge(&mut claims, issuer, std::iter::once(&issuer.audiences), now);
        if judged.is_ok() || (issuer.audiences == Audiences::NotChecked && issuer.max_lifetime.is_none()) {
            let issuers = Issuers::new(vec![issuer.clone()]);
            let needed = ClaimsNeeded::of(&issuers, std::iter::empty(), true);
            let kept = claims.subset_as_json(needed.names());
            let mut kept = Object::parse(kept.as_bytes()).unwrap();
            let again = judge_again(&mut kept, issuer, std::iter::once(&issuer.audiences), now);
            assert_eq!(again, judged, "judged again by what is kept");
            if judged.is_ok() {
                assert_eq!(kept.raw("sub").map(RawValue::get), claims.raw("sub").map(RawValue::get));
            }
        }
        judged.map(|subject| subject.0)
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

    fn with(subject: &[&str], audience_claims: &[&str], max_lifetime: Option<u64>) -> Issuer {
        let claims = |names: &[&str]| names.iter().filter_map(|name| Claim::new(name)).collect();
        let audiences = match audience_claims {
            [] => Audiences::NotChecked,
            _ => Audiences::OneOf(["a", "b"].map(|aud| Audience(aud.to_owned())).to_vec()),
        };
        Issuer {
            name: IssuerName::new("i"),
            ids: vec![],
            audiences,
            tenants: None,
            audience_claims: claims(audience_claims),
            subject: claims(subject),
            algorithms: vec![Algorithm::Rs256],
            require_kid: false,
            types: vec![],
            leeway: Duration::from_secs(30),
            bound_tokens: BoundTokens::Verify,
            max_lifetime: max_lifetime.map(Duration::from_secs),
        }
    }

    #[test]
    fn the_subject_is_the_first_claim_with_content() {
        let (missing, invalid) = (Err(Denial::ClaimMissing), Err(Denial::ClaimInvalid));
        for (names, claims, want) in [
            (&["sub"][..], r#""sub":"u""#, Ok("u")),
            (&["sub", "client_id"], r#""sub":"u","client_id":"c""#, Ok("u")),
            (&["sub", "client_id"], r#""sub":"","client_id":"c""#, Ok("c")),
            (&["sub", "client_id"], r#""sub":null,"client_id":"c""#, Ok("c")),
            (&["sub", "client_id"], r#""client_id":"\u0063""#, Ok("c")),
            (&["sub", "client_id"], r#""sub":7,"client_id":"c""#, Ok("c")),
            (&["sub", "client_id"], r#""sub":["u"],"client_id":"""#, invalid),
            (&["sub", "client_id"], r#""sub":"","client_id":"""#, invalid),
            (&["sub", "client_id"], r#""sub":"","client_id":null"#, invalid),
            (&["sub", "client_id"], r#""sub":null"#, missing),
            (&["sub", "client_id"], "", missing),
            // A text that no header takes is not passed over.
            (&["sub", "client_id"], r#""sub":"a\nb","client_id":"c""#, invalid),
            (&["oid"], r#""sub":"u""#, missing),
            (&["oid"], r#""sub":"u","oid":"o""#, Ok("o")),
            (&["/user/id"], r#""sub":"u","user":{"id":"i"}"#, Ok("i")),
            (&["/user/id", "sub"], r#""sub":"u","user":[]"#, Ok("u")),
            (&["/user/id"], r#""sub":"u","user":{"id":7}"#, invalid),
        ] {
            let comma = if claims.is_empty() { "" } else { "," };
            let got = judged_by(&format!(r#"{{"exp":1000001{comma}{claims}}}"#), &with(names, &[], None));
            let got = got.map_err(|fault| fault.denial);
            assert_eq!(got, want.map(str::to_owned), "{names:?} {claims}");
        }
    }

    #[test]
    fn the_subject_is_read_as_sub_and_the_payload_stays() {
        let text = r#"{"exp":1000001,"oid":"o","sub":"u"}"#;
        let mut claims = Object::parse(text.as_bytes()).unwrap();
        let issuer = with(&["oid", "sub"], &[], None);
        judge(&mut claims, &issuer, std::iter::empty(), UnixTime::from_secs(NOW)).unwrap();
        assert_eq!(Claim::new("sub").unwrap().header_value(&claims), Ok(Some("o".to_owned())));
        assert_eq!(Claim::new("/sub").unwrap().header_value(&claims), Ok(Some("o".to_owned())));
        assert_eq!(claims.member("sub"), Member::String("o".into()));
        assert_eq!(claims.to_json(MAX_DEPTH).unwrap().to_string(), text);
        assert_eq!(claims.subset_as_json(claims.names()), text);
    }

    #[test]
    fn one_match_in_any_audience_claim_is_enough() {
        let (mismatch, invalid) = (Err(Denial::AudienceMismatch), Err(Denial::ClaimInvalid));
        let names = &["aud", "client_id", "/realm/azp"];
        for (claims, want) in [
            (r#""aud":"a""#, Ok(())),
            (r#""aud":"x","client_id":"b""#, Ok(())),
            (r#""aud":["x","y"],"realm":{"azp":["b"]}"#, Ok(())),
            (r#""client_id":"b""#, Ok(())),
            (r#""aud":"x","client_id":"y""#, mismatch),
            (r#""azp":"a""#, mismatch),
            (r#""x":1"#, mismatch),
            (r#""aud":"a","client_id":7"#, invalid),
            (r#""aud":"x","client_id":null"#, invalid),
            (r#""aud":{"a":"a"},"client_id":"a""#, invalid),
            (r#""realm":{"azp":["a",1]}"#, invalid),
        ] {
            let got =
                judged_by(&format!(r#"{{"exp":1000001,"sub":"u",{claims}}}"#), &with(&["sub"], names, None));
            assert_eq!(got.map(drop).map_err(|fault| fault.denial), want, "{claims}");
        }
    }

    #[test]
    fn a_lifetime_is_at_most_so_long() {
        let (missing, invalid) = (Err(Denial::ClaimMissing), Err(Denial::ClaimInvalid));
        for (iat, want) in [
            (r#","iat":1000001"#, Ok(())),
            (r#","iat":999941"#, Ok(())),
            (r#","iat":999940.5"#, invalid),
            (r#","iat":0"#, invalid),
            (r#","iat":2000000"#, Ok(())),
            ("", missing),
            (r#","iat":null"#, missing),
            (r#","iat":"999999""#, invalid),
            (r#","iat":[1000001]"#, invalid),
            (r#","iat":1e999"#, invalid),
        ] {
            let got =
                judged_by(&format!(r#"{{"exp":1000001,"sub":"u"{iat}}}"#), &with(&["sub"], &[], Some(60)));
            assert_eq!(got.map(drop).map_err(|fault| fault.denial), want, "{iat}");
        }
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
