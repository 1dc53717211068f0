//! One entry as a line of a file: a JSON object.

use std::time::Duration;

use serde_json::json;

use crate::domain::clock::UnixTime;
use crate::domain::issuer::IssuerName;
use crate::domain::json::{Member, Object};
use crate::domain::revoked::{Kind, Revocation};

/// Of `issuers[].leeway`.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("is longer than 16 KiB")]
    TooLong,
    #[error("is not a JSON object with unique members")]
    NotAnObject,
    #[error("{0:?} is not a known member; accepted: issuer, kind, value, issued_before, until")]
    Unknown(String),
    #[error("issuer is missing, or not a text; accepted: the name of an issuer")]
    NoIssuer,
    #[error("issuer {0:?} is not configured")]
    OtherIssuer(String),
    #[error("kind is missing; accepted: jti, sid, sub, client, issuer")]
    Kind,
    #[error("value is missing, or not a text with content")]
    Value,
    #[error("value has no meaning for the kind issuer")]
    ValueOfIssuer,
    #[error("{0} is missing; accepted: RFC 3339, or seconds since 1970")]
    Time(&'static str),
}

/// A line of the file.
pub(crate) fn line_of(revocation: &Revocation) -> String {
    let Revocation { issuer, kind, value, issued_before, until } = revocation;
    let (issuer, kind, named) = (json!(issuer.as_str()), kind.name(), *kind != Kind::Issuer);
    let value = if named { format!(r#","value":{}"#, json!(value)) } else { String::new() };
    let (before, until) = (issued_before.rfc3339(), until.rounded_up().rfc3339());
    format!(
        "{{\"issuer\":{issuer},\"kind\":\"{kind}\"{value},\"issued_before\":\"{before}\",\"until\":\"{until}\"}}\n"
    )
}

/// How long an entry lasts that names tokens issued up to a time: as long as one of them can be good, with the longest leeway that an
/// issuer may have.
pub(crate) fn lasting(issued_before: UnixTime, max_token_lifetime: Duration) -> UnixTime {
    issued_before.after(max_token_lifetime).after(MAX_LEEWAY)
}

/// From an event's `iat` to its arrival: after it, no entry of the event would be met.
pub(crate) const fn lasting_from_now(max_token_lifetime: Duration) -> Duration {
    max_token_lifetime.saturating_add(MAX_LEEWAY)
}

/// Reads a line. Without `until` an entry lasts as long as a token can.
///
/// # Errors
/// [`LineError`].
pub(crate) fn entry_of(
    line: &[u8],
    is_issuer: impl Fn(&str) -> Option<IssuerName>,
    max_token_lifetime: Duration,
) -> Result<Revocation, LineError> {
    let object = Object::parse(line).map_err(|_| LineError::NotAnObject)?;
    let known = ["issuer", "kind", "value", "issued_before", "until"];
    if let Some(name) = object.names().find(|name| !known.contains(name)) {
        return Err(LineError::Unknown(name.chars().take(64).collect()));
    }
    let text = |name| match object.member(name) {
        Member::String(text) => Some(text),
        _ => None,
    };
    let named = text("issuer").ok_or(LineError::NoIssuer)?;
    let issuer =
        is_issuer(&named).ok_or_else(|| LineError::OtherIssuer(named.chars().take(200).collect()))?;
    let kind = text("kind").and_then(|name| Kind::from_name(&name)).ok_or(LineError::Kind)?;
    let value = match (kind, object.member("value")) {
        (Kind::Issuer, Member::Absent) => String::new(),
        (Kind::Issuer, _) => return Err(LineError::ValueOfIssuer),
        (_, Member::String(value)) if !value.is_empty() => value.into_owned(),
        _ => return Err(LineError::Value),
    };
    let time = |name| match object.member(name) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is in the range of u64"
        )]
        Member::Number(seconds) if (0.0..=9e15).contains(&seconds) => {
            // An entry must not end before the last of its tokens.
            let seconds = if name == "until" { seconds.ceil() } else { seconds };
            Ok(Some(UnixTime::from_secs(seconds as u64)))
        }
        Member::String(text) => {
            let time = UnixTime::parse(&text).ok_or(LineError::Time(name))?;
            let has_fraction = name == "until" && text.contains('.');
            Ok(Some(time.after(Duration::from_secs(has_fraction.into()))))
        }
        Member::Absent => Ok(None),
        _ => Err(LineError::Time(name)),
    };
    let issued_before = time("issued_before")?.ok_or(LineError::Time("issued_before"))?;
    let until = time("until")?.unwrap_or_else(|| lasting(issued_before, max_token_lifetime));
    Ok(Revocation { issuer, kind, value, issued_before, until })
}
