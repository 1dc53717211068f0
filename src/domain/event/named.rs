//! What an event says is good no longer: the user or the session that it names. Nothing that cannot be read is passed over, so that an
//! event with an effect is never accepted without it.

use serde_json::value::RawValue;

use crate::domain::event::EventFault;
use crate::domain::issuer::{Issuer, IssuerId};
use crate::domain::json::{Member, Object};
use crate::domain::revoked::{EventSubject, SubjectClaims};

/// What the events of one token name.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Each once.
    pub(super) names: Vec<(EventSubject, String)>,
    /// The URIs of events that mean nothing here.
    pub(super) ignored: Vec<String>,
}

/// OpenID Connect Back-Channel Logout 1.0 section 2.4.
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Sections 2.4 and 2.6 of the same: the session if there is a `sid`, else all of the user's.
pub(super) fn by_logout_token(claims: &Object<'_>) -> Result<Named, EventFault> {
    if claims.has("nonce") {
        return Err(EventFault::Nonce);
    }
    let (logout, others): (Vec<_>, Vec<_>) = events(claims)?.into_iter().partition(|(uri, _)| uri == LOGOUT);
    if logout.is_empty() {
        return Err(EventFault::NoLogout);
    }
    let name = match (text_if_there(claims, "sid")?, text_if_there(claims, "sub")?) {
        (Some(sid), _) => (EventSubject::Sid, sid),
        (None, Some(sub)) => (EventSubject::Sub, sub),
        (None, None) => return Err(EventFault::NoSubject),
    };
    Ok(Named { names: vec![name], ignored: others.into_iter().map(|(uri, _)| uri).collect() })
}

/// How far an event reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The session if one is named, else the user.
    Session,
    /// The user, whose session may be named beside: in it the event came about.
    User,
    /// An event about the stream itself.
    Nothing,
}

/// CAEP 1.0 section 3, RISC 1.0 section 2, Shared Signals Framework 1.0 section 8.1.
fn reach(uri: &str) -> Option<Reach> {
    match uri.strip_prefix("https://schemas.openid.net/secevent/")? {
        "caep/event-type/session-revoked" | "caep/event-type/token-claims-change" => Some(Reach::Session),
        "caep/event-type/credential-change"
        | "risc/event-type/account-disabled"
        | "risc/event-type/account-purged"
        | "risc/event-type/sessions-revoked" => Some(Reach::User),
        "ssf/event-type/verification" | "ssf/event-type/stream-updated" => Some(Reach::Nothing),
        _ => None,
    }
}

/// The events of a Security Event Token. The subject stands in `sub_id` (RFC 9493 section 4.1), or, as older senders have it, in each
/// event.
pub(super) fn by_security_event(
    claims: &Object<'_>,
    issuer: &Issuer,
    subject_claims: &SubjectClaims,
) -> Result<Named, EventFault> {
    let is_ours = |other: &str| {
        // Of an issuer with tenants, only the tenant that signed.
        let ids = if issuer.tenants.is_none() { &issuer.ids[..] } else { &[] };
        let is_signer = matches!(claims.member("iss"), Member::String(iss) if iss == other);
        is_signer || ids.iter().any(|IssuerId(id)| id == other)
    };
    let mut named = Named::default();
    for (uri, payload) in events(claims)? {
        let reach = match reach(&uri) {
            None => {
                named.ignored.push(uri);
                continue;
            }
            Some(Reach::Nothing) => continue,
            Some(reach) => reach,
        };
        let subject = claims.own("sub_id").or_else(|| payload.own("subject")).ok_or(EventFault::NoSubject)?;
        let name = subject_of(subject, reach, &is_ours, subject_claims)?;
        if !named.names.contains(&name) {
            named.names.push(name);
        }
    }
    Ok(named)
}

/// RFC 9493 section 3, and the complex subjects of the Shared Signals Framework 1.0 section 3.3, whose drafts had no `format`.
fn subject_of(
    raw: &RawValue,
    reach: Reach,
    is_ours: &impl Fn(&str) -> bool,
    subject_claims: &SubjectClaims,
) -> Result<(EventSubject, String), EventFault> {
    let user_of = |user: &Object<'_>| user_of(user, is_ours, subject_claims);
    let subject = object(raw)?;
    let is_complex = match subject.member("format") {
        Member::String(format) => format == "complex",
        Member::Absent => subject.has("user") || subject.has("session"),
        _ => false,
    };
    if !is_complex {
        return user_of(&subject);
    }
    let part = |name| subject.own(name).map(object).transpose();
    match (part("session")?, part("user")?) {
        (Some(session), user) if reach == Reach::Session || user.is_none() => {
            // Another issuer's user has no session here. A format that is not supported does no harm beside a session.
            if let Some(beside) = &user
                && user_of(beside) == Err(EventFault::SubjectIssuer)
            {
                return Err(EventFault::SubjectIssuer);
            }
            match session.member("format") {
                Member::String(format) if format == "opaque" => {
                    Ok((EventSubject::Sid, text(&session, "id")?))
                }
                _ => Err(EventFault::SubjectFormat),
            }
        }
        (_, Some(user)) => user_of(&user),
        (_, None) => Err(EventFault::NoSubject),
    }
}

/// RFC 9493 sections 3.2.1 to 3.2.4.
fn user_of(
    user: &Object<'_>,
    is_ours: &impl Fn(&str) -> bool,
    subject_claims: &SubjectClaims,
) -> Result<(EventSubject, String), EventFault> {
    let Member::String(format) = user.member("format") else { return Err(EventFault::SubjectFormat) };
    match &*format {
        "opaque" => Ok((EventSubject::Sub, text(user, "id")?)),
        "iss_sub" => {
            let (iss, sub) = (text(user, "iss")?, text(user, "sub")?);
            if is_ours(&iss) { Ok((EventSubject::Sub, sub)) } else { Err(EventFault::SubjectIssuer) }
        }
        "email" if subject_claims.email.is_some() => {
            Ok((EventSubject::Email, text(user, "email")?.to_ascii_lowercase()))
        }
        "account" if subject_claims.account.is_some() => Ok((EventSubject::Account, text(user, "uri")?)),
        _ => Err(EventFault::SubjectFormat),
    }
}

/// RFC 8417 section 2.2: an object of at least one event, whose payloads are objects.
fn events<'c>(claims: &Object<'c>) -> Result<Vec<(String, Object<'c>)>, EventFault> {
    let events = claims.own("events").map(object).transpose().map_err(|_| EventFault::Events)?;
    let events = events.ok_or(EventFault::Events)?;
    let event = |uri: &str| {
        let payload = events.own(uri).map(object).transpose().ok().flatten();
        Ok((uri.to_owned(), payload.ok_or(EventFault::Payload)?))
    };
    let events = events.names().map(event).collect::<Result<Vec<_>, EventFault>>()?;
    if events.is_empty() { Err(EventFault::Events) } else { Ok(events) }
}

/// A member that is an object. [`Object::parse`] of the claims has looked inside already.
fn object(raw: &RawValue) -> Result<Object<'_>, EventFault> {
    Object::parse_shallow(raw.get().as_bytes()).map_err(|_| EventFault::Subject)
}

fn text(object: &Object<'_>, name: &str) -> Result<String, EventFault> {
    text_if_there(object, name)?.ok_or(EventFault::Subject)
}

/// A text with content, if there is such a member.
fn text_if_there(object: &Object<'_>, name: &str) -> Result<Option<String>, EventFault> {
    match object.member(name) {
        Member::Absent => Ok(None),
        Member::String(text) if !text.is_empty() => Ok(Some(text.into_owned())),
        _ => Err(EventFault::Subject),
    }
}
