//! What a denied token holds where something else is accepted: for the log and for `verify`, never for a client. It is looked for
//! after the denial, so that a token that is accepted costs nothing more.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::domain::claims;
use crate::domain::clock::UnixTime;
use crate::domain::denial::Denial;
use crate::domain::identity::Identity;
use crate::domain::issuer::{Audience, Audiences, Issuer};
use crate::domain::json::{Member, Object};
use crate::domain::token_fault::{TokenFault, TokenStep};

/// Unverified, unless the step that failed comes after the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// An `iss` that no issuer has.
    Iss(String),
    /// A `kid` that the issuer's keys have not.
    Kid(String),
    /// The time since `exp`, without the leeway.
    ExpiredFor(Duration),
    /// The time until `nbf`, without the leeway.
    ValidIn(Duration),
    /// The JSON of the claims that name the audience, and what is accepted.
    Audience { found: String, accepted: Vec<Audience> },
    /// The claim that is missing or cannot be used.
    Claim(String),
}

impl Evidence {
    /// Of a token whose signature is good.
    pub(crate) fn of_claims<'x>(
        fault: TokenFault,
        claims: &Object<'_>,
        issuer: &Issuer,
        audiences: impl Iterator<Item = &'x Audiences>,
        identity: &Identity,
        now: UnixTime,
    ) -> Option<Self> {
        let number = |name| match claims.member(name) {
            Member::Number(seconds) => Some(seconds),
            _ => None,
        };
        match (fault.step, fault.denial) {
            (TokenStep::Time, Denial::TokenExpired) => {
                Some(Self::ExpiredFor(seconds(now.as_secs_f64() - number("exp")?)))
            }
            (TokenStep::Time, Denial::TokenNotYetValid) => {
                Some(Self::ValidIn(seconds(number("nbf")? - now.as_secs_f64())))
            }
            (TokenStep::Audience, Denial::AudienceMismatch) => {
                let accepted = claims::unmet(claims, issuer, audiences)?;
                Some(Self::Audience { found: found_audience(claims, issuer), accepted: accepted.to_vec() })
            }
            (TokenStep::Time | TokenStep::Audience | TokenStep::Claims, _) => {
                let at_fault = claims::at_fault(fault.step, claims, issuer);
                at_fault.or_else(|| identity.claim_at_fault(claims, &issuer.name)).map(Self::Claim)
            }
            _ => None,
        }
    }
}

/// Of a difference of two times, of which one is a client's.
fn seconds(seconds: f64) -> Duration {
    let longest = if seconds > 0.0 { Duration::MAX } else { Duration::ZERO };
    Duration::try_from_secs_f64(seconds).unwrap_or(longest)
}

fn found_audience(claims: &Object<'_>, issuer: &Issuer) -> String {
    let found = issuer.audience_claims.iter().filter_map(|claim| {
        let value = claim.of(claims).map(RawValue::get)?;
        Some(if claim.as_str() == "aud" { value.to_owned() } else { format!("{}: {value}", claim.as_str()) })
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() { "absent".to_owned() } else { found.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::algorithm::Algorithm;
    use crate::domain::claim::Claim;
    use crate::domain::identity::{IdentityMaps, MappedClaim};
    use crate::domain::issuer::{BoundTokens, IssuerName};

    const NOW: u64 = 1_000_000;

    fn audiences(accepted: &[&str]) -> Audiences {
        Audiences::OneOf(accepted.iter().map(|aud| Audience((*aud).to_owned())).collect())
    }

    fn issuer() -> Issuer {
        let claims = |names: &[&str]| names.iter().filter_map(|name| Claim::new(name)).collect();
        Issuer {
            name: IssuerName::new("i"),
            ids: vec![],
            audiences: audiences(&["a", "b"]),
            tenants: None,
            audience_claims: claims(&["aud", "azp"]),
            subject: claims(&["oid", "sub"]),
            algorithms: vec![Algorithm::Rs256],
            require_kid: false,
            types: vec![],
            leeway: Duration::from_secs(30),
            bound_tokens: BoundTokens::Verify,
            max_lifetime: Some(Duration::from_secs(3600)),
        }
    }

    /// The evidence that is found for the fault that the judge of claims finds.
    fn found(claims: &str, of_rule: Option<Audiences>) -> Option<Evidence> {
        let (issuer, now) = (issuer(), UnixTime::from_secs(NOW));
        let accepted: Vec<_> = std::iter::once(&issuer.audiences).chain(&of_rule).collect();
        let mut judged = Object::parse(claims.as_bytes()).unwrap();
        let fault = claims::judge(&mut judged, &issuer, accepted.iter().copied(), now).expect_err("a fault");
        let claims = Object::parse(claims.as_bytes()).unwrap();
        let identity = Identity::new(&IdentityMaps::default(), &[], None);
        Evidence::of_claims(fault, &claims, &issuer, accepted.into_iter(), &identity, now)
    }

    #[test]
    fn of_a_claim_that_no_header_can_carry() {
        let mapped = |name: &str| MappedClaim::from(Claim::new(name).unwrap());
        let headers =
            vec![("x-user".to_owned(), mapped("sub")), ("x-groups".to_owned(), mapped("/realm/groups"))];
        let identity = Identity::new(&IdentityMaps { headers, metadata: vec![] }, &[], None);
        let claims = Object::parse(br#"{"sub":"u","iat":1,"exp":2,"realm":{"groups":[{"a":1}]}}"#).unwrap();
        let fault = TokenStep::Claims.fault(Denial::ClaimInvalid);
        let (issuer, now) = (issuer(), UnixTime::from_secs(NOW));
        let found = Evidence::of_claims(fault, &claims, &issuer, std::iter::empty(), &identity, now);
        assert_eq!(found, Some(Evidence::Claim("/realm/groups".to_owned())));
    }

    #[test]
    fn of_claims_that_are_denied() {
        let claim = |name: &str| Evidence::Claim(name.to_owned());
        let mismatch = |found: &str, accepted: &[&str]| {
            let Audiences::OneOf(accepted) = audiences(accepted) else { unreachable!() };
            Evidence::Audience { found: found.to_owned(), accepted }
        };
        for (claims, want) in [
            (r#"{"exp":999000}"#, Evidence::ExpiredFor(Duration::from_secs(1000))),
            (r#"{"exp":-1e300}"#, Evidence::ExpiredFor(Duration::MAX)),
            (r#"{"exp":2e6,"nbf":1000031.5}"#, Evidence::ValidIn(Duration::from_millis(31_500))),
            (r#"{"exp":2e6,"nbf":1e300}"#, Evidence::ValidIn(Duration::MAX)),
            (r#"{}"#, claim("exp")),
            (r#"{"exp":null}"#, claim("exp")),
            (r#"{"exp":"2000000"}"#, claim("exp")),
            (r#"{"exp":2e6,"nbf":"1"}"#, claim("nbf")),
            (r#"{"exp":2e6}"#, mismatch("absent", &["a", "b"])),
            (r#"{"exp":2e6,"aud":"x"}"#, mismatch("\"x\"", &["a", "b"])),
            (r#"{"exp":2e6,"aud":["x","y"],"azp":"z"}"#, mismatch("[\"x\",\"y\"], azp: \"z\"", &["a", "b"])),
            (r#"{"exp":2e6,"aud":7}"#, claim("aud")),
            (r#"{"exp":2e6,"aud":"a","azp":{}}"#, claim("azp")),
            (r#"{"exp":2e6,"aud":"a"}"#, claim("oid or sub")),
            (r#"{"exp":2e6,"aud":"a","oid":"","sub":7}"#, claim("oid or sub")),
            (r#"{"exp":2e6,"aud":"a","sub":"u"}"#, claim("iat")),
            (r#"{"exp":2e6,"aud":"a","sub":"u","iat":1000000}"#, claim("iat")),
        ] {
            assert_eq!(found(claims, None).as_ref(), Some(&want), "{claims}");
        }
        // What a rule accepts, where the issuer's own audience is met.
        let of_rule = found(r#"{"exp":2e6,"aud":"a"}"#, Some(audiences(&["admin"])));
        assert_eq!(of_rule, Some(mismatch("\"a\"", &["admin"])));
    }
}
