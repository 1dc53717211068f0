//! JSON values whose numbers keep their digits, unlike those of `serde_json::Value`, which are doubles.

use std::borrow::Cow;
use std::fmt;

use serde::ser::{Error as _, Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

use super::{Object, Text};
use crate::domain::number::Number;

/// Any JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Self>),
    /// In the order of the text.
    Object(Vec<(String, Self)>),
}

/// A value whose elements or members are not parsed yet.
pub(crate) enum Shallow<'a> {
    Null,
    Bool(bool),
    /// The text of the number.
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<&'a RawValue>),
    Object(Object<'a>),
}

impl<'a> Shallow<'a> {
    /// `None` for a broken escape or a doubled member: none is in an object that [`Object::parse`] accepts.
    pub(crate) fn of(value: &'a RawValue) -> Option<Self> {
        let text = value.get();
        Some(match text.as_bytes().first()? {
            b'n' => Self::Null,
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            b'"' => serde_json::from_str(text).map(|Text(string)| Self::String(string)).ok()?,
            b'[' => Self::Array(serde_json::from_str(text).ok()?),
            b'{' => Self::Object(Object::parse_shallow(text.as_bytes()).ok()?),
            _ => Self::Number(text),
        })
    }
}

impl Json {
    /// Reads a value; `None` for one with arrays and objects nested deeper than `max_depth`, or as [`Shallow::of`].
    pub(crate) fn of(value: &RawValue, max_depth: usize) -> Option<Self> {
        let inner = |value: &RawValue| Self::of(value, max_depth.checked_sub(1)?);
        let text = value.get();
        if max_depth == 0 && text.starts_with(['[', '{']) {
            return None;
        }
        if text.starts_with('{') {
            // Not `Shallow::of`, which sorts the members.
            let Object { members, .. } = serde_json::from_str(text).ok()?;
            let read = members.into_iter().map(|(name, value)| Some((name.into_owned(), inner(value)?)));
            return read.collect::<Option<_>>().map(Self::Object);
        }
        Some(match Shallow::of(value)? {
            Shallow::Null => Self::Null,
            Shallow::Bool(value) => Self::Bool(value),
            Shallow::Number(text) => Self::Number(Number::new(text)?),
            Shallow::String(text) => Self::String(text.into_owned()),
            Shallow::Array(items) => Self::Array(items.into_iter().map(inner).collect::<Option<_>>()?),
            Shallow::Object(_) => return None,
        })
    }

    /// Reads a JSON text, as [`Json::of`].
    pub(crate) fn parse(text: &[u8], max_depth: usize) -> Option<Self> {
        Self::of(serde_json::from_slice(text).ok()?, max_depth)
    }

    /// JSON text in one line, with escapes for all that is not ASCII, and for DEL.
    pub(crate) fn to_ascii(&self) -> String {
        let mut ascii = String::new();
        // What is not ASCII stands in strings alone, where an escape means the same.
        for c in self.to_string().chars() {
            if c.is_ascii() && c != '\u{7f}' {
                ascii.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    ascii.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        ascii
    }

    pub(crate) const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(value) => Number::new(&value.to_string()).map_or(Self::Null, Self::Number),
            Value::String(value) => Self::String(value),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Object(members.into_iter().map(|(name, value)| (name, value.into())).collect())
            }
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// For the serializers of serde_json alone: a number is a `RawValue`.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => {
                let raw: &RawValue = serde_json::from_str(number.as_str()).map_err(S::Error::custom)?;
                raw.serialize(serializer)
            }
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// As JSON text: in one line, or indented by `{:#}`.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            if f.alternate() { serde_json::to_string_pretty(self) } else { serde_json::to_string(self) };
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for text in [
            "0",
            "-0",
            "1.50",
            "1e3",
            "1E+3",
            "9007199254740993",
            "18446744073709551617",
            "1e999",
            r#"{"b":[1.0,{"a":123456789012345678901234567890}],"a":null,"t":[true,false,"\u00e9\n"]}"#,
        ] {
            let read = Json::parse(text.as_bytes(), 127).unwrap();
            let again = read.to_string();
            assert_eq!(again, text.replace("\\u00e9", "é"));
            assert_eq!(Json::parse(format!("{read:#}").as_bytes(), 127), Some(read));
        }
    }

    #[test]
    fn no_deeper_than_asked() {
        for (depth, allowed, fits) in
            [(0, 0, true), (1, 0, false), (2, 2, true), (3, 2, false), (120, 127, true)]
        {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                assert_eq!(Json::parse(text.as_bytes(), allowed).is_some(), fits, "{text} {allowed}");
            }
        }
        assert_eq!(Json::parse(b"[]", 0), None);
        assert_eq!(Json::parse(b"{}", 0), None);
    }
}
