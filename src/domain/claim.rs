//! One claim: its place in a payload, and its value as a header carries it.

use serde_json::value::RawValue;

use crate::domain::denial::Denial;
use crate::domain::json::{Json, Object, Shallow};

/// The place of a claim in the payload: a top-level name, or a JSON Pointer (RFC 6901) if it begins with a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    written: String,
    member: String,
    /// The rest of the pointer, inside the member: a name or an index a level, escapes resolved.
    inner: Vec<String>,
}

impl Claim {
    /// Reads a name or a pointer; `None` for an empty name or a pointer that breaks RFC 6901 section 3.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let Some(pointer) = text.strip_prefix('/') else {
            let named = Self { written: text.to_owned(), member: text.to_owned(), inner: Vec::new() };
            return (!text.is_empty()).then_some(named);
        };
        let tilde_is_escape = |(at, _)| matches!(pointer.as_bytes().get(at + 1), Some(b'0' | b'1'));
        if !pointer.match_indices('~').all(tilde_is_escape) {
            return None;
        }
        let mut names = pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~"));
        Some(Self { written: text.to_owned(), member: names.next()?, inner: names.collect() })
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

    /// The text of the claim's value; `None` if it is missing.
    pub(crate) fn of<'a>(&self, claims: &Object<'a>) -> Option<&'a RawValue> {
        let member = claims.raw(&self.member)?;
        self.inner.iter().try_fold(member, |value, name| match Shallow::of(value)? {
            Shallow::Object(members) => members.raw(name),
            // RFC 6901 section 4: no sign and no leading zero.
            Shallow::Array(items) if name == "0" || !name.starts_with(['0', '+']) => {
                items.get(name.parse::<usize>().ok()?).copied()
            }
            _ => None,
        })
    }

    /// The claim's value; `Ok(None)` if it is missing or null.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a value that nests arrays and objects deeper than `max_depth`.
    pub(crate) fn value(&self, claims: &Object<'_>, max_depth: usize) -> Result<Option<Json>, Denial> {
        let Some(raw) = self.of(claims) else { return Ok(None) };
        let value = Json::of(raw, max_depth).ok_or(Denial::ClaimInvalid)?;
        Ok((!value.is_null()).then_some(value))
    }

    /// The claim as a header's value; `None` leaves the header out: the claim is missing, null or empty. A number has
    /// the digits of the token.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a value that has no one form in a header.
    pub(crate) fn header_value(&self, claims: &Object<'_>) -> Result<Option<String>, Denial> {
        let Some(raw) = self.of(claims) else { return Ok(None) };
        let text = match Shallow::of(raw).ok_or(Denial::ClaimInvalid)? {
            Shallow::Null => return Ok(None),
            Shallow::String(text) => text.into_owned(),
            Shallow::Number(text) => text.to_owned(),
            Shallow::Bool(value) => value.to_string(),
            Shallow::Array(items) => joined(&items).ok_or(Denial::ClaimInvalid)?,
            Shallow::Object(_) => return Err(Denial::ClaimInvalid),
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
fn joined(items: &[&RawValue]) -> Option<String> {
    let text = |item: &&RawValue| match Shallow::of(item)? {
        Shallow::String(text) if !text.contains(',') => Some(text.into_owned()),
        _ => None,
    };
    items.iter().map(text).collect::<Option<Vec<_>>>().map(|texts| texts.join(","))
}

/// Whether a text can stand in a header as it is: no control character (C0, DEL, C1), no outer white space.
pub(crate) fn legal_header_value(text: &str) -> bool {
    // Nearly every value is of visible ASCII alone, which is neither.
    text.bytes().all(|byte| byte.is_ascii_graphic())
        || (!text.chars().any(char::is_control) && text.trim() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_headers() {
        let text = r#"{"s":"x","e":"","n":null,"i":7,"f":1.5,"t":true,"l":["a","b"],"el":[],"comma":["a,b"],
            "mixed":["a",1],"o":{"k":"v","d":{"x":"y"},"a/b":"c","m~n":"t"},"crlf":"a\r\nb","sp":" a","big":1e999,
            "id":18446744073709551617,"cents":1.50,"exp":1E+3,"nested":{"ids":[9007199254740993,{"x":-0.10}],"big":1e999,"k":"v"},
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
            ("big", Ok(Some("1e999"))),
            ("id", Ok(Some("18446744073709551617"))),
            ("cents", Ok(Some("1.50"))),
            ("exp", Ok(Some("1E+3"))),
            ("/nested/ids/0", Ok(Some("9007199254740993"))),
            ("/nested/ids/00", Ok(None)),
            ("/nested/ids/+0", Ok(None)),
            ("/nested/ids/-", Ok(None)),
            ("/nested/ids/99999999999999999999999", Ok(None)),
            ("/nested/ids/1/x", Ok(Some("-0.10"))),
            ("/nested/k", Ok(Some("v"))),
            ("/nested/ids", invalid),
            ("/i/0", Ok(None)),
            ("/s/0", Ok(None)),
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
}
