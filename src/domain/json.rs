//! JSON objects without a doubled member at any depth. Parsers differ in which of two members with one name counts,
//! so the verifier and the upstream could read different claims out of one token. RFC 7515 section 4 and RFC 7519
//! section 4 allow a parser to reject such an object; this one does.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

mod value;

pub(crate) use value::{Json, Shallow};

/// The members of one JSON object, sorted by name. Values stay raw text until [`Object::member`] parses one.
pub(crate) struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// A value that is read under this name instead of the member's own.
    stand_in: Option<(&'static str, &'a RawValue)>,
}

/// The bytes are not one JSON object with unique members in well-formed UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object with unique members")]
pub(crate) struct NotAnObject;

/// The value of a member, for the few types that claims have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Member<'a> {
    Absent,
    Null,
    /// A string, escapes resolved.
    String(Cow<'a, str>),
    /// A finite number.
    Number(f64),
    Strings(Vec<Cow<'a, str>>),
    /// Any other value, also a number too large for a double.
    Other,
}

/// The text without a byte order mark in front of it, which some tools write. RFC 8259 section 8.1 lets a parser ignore it;
/// that is done for documents that people publish, and not for tokens.
pub(crate) fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

impl<'a> Object<'a> {
    /// Parses one object.
    ///
    /// # Errors
    /// [`NotAnObject`] for anything else: other types, trailing bytes, doubled members at any depth,
    /// broken UTF-8 or escapes, nesting deeper than the parser's 128 levels.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, NotAnObject> {
        let object = Self::parse_shallow(bytes)?;
        if object.members.iter().all(|(_, value)| well_formed(value)) { Ok(object) } else { Err(NotAnObject) }
    }

    /// Parses one object, but does not look inside its members for doubled members or broken escapes.
    ///
    /// # Errors
    /// [`NotAnObject`] as [`Object::parse`], for the object's own members only.
    pub(crate) fn parse_shallow(bytes: &'a [u8]) -> Result<Self, NotAnObject> {
        let Self { mut members, .. } = serde_json::from_slice(bytes).map_err(|_| NotAnObject)?;
        // Sorted: the search for doubled members in a payload of n members then takes n log n comparisons, not n
        // squared.
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        let doubled = members.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
        if doubled { Err(NotAnObject) } else { Ok(Self { members, stand_in: None }) }
    }

    /// From now on this value is read under the name. The object as a whole stays as it is.
    pub(crate) const fn let_stand_for(&mut self, name: &'static str, value: &'a RawValue) {
        self.stand_in = Some((name, value));
    }

    #[must_use]
    pub(crate) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        match self.stand_in {
            Some((stands_for, value)) if stands_for == name => Some(value),
            _ => self.own(name),
        }
    }

    /// The member itself, whatever stands for it.
    pub(crate) fn own(&self, name: &str) -> Option<&'a RawValue> {
        let at = self.members.binary_search_by(|(key, _)| key.as_ref().cmp(name)).ok()?;
        self.members.get(at).map(|(_, value)| *value)
    }

    /// An object with these members only, as JSON text without spaces.
    pub(crate) fn subset_as_json<'n>(&self, names: impl Iterator<Item = &'n str>) -> String {
        let mut text = String::from("{");
        for name in names {
            if let Some(value) = self.own(name) {
                let comma = if text.len() > 1 { "," } else { "" };
                // Names are escaped as JSON strings; the raw value is the token's own text.
                text.push_str(&format!("{comma}{}:{}", serde_json::Value::from(name), value.get()));
            }
        }
        text.push('}');
        text
    }

    /// The object as a value, its members sorted by name; `None` as for [`Json::of`], which each member is read by.
    pub(crate) fn to_json(&self, max_depth: usize) -> Option<Json> {
        let member = |(name, value): &(Cow<'a, str>, &'a RawValue)| {
            Some((name.clone().into_owned(), Json::of(value, max_depth)?))
        };
        self.members.iter().map(member).collect::<Option<_>>().map(Json::Object)
    }

    /// The names of its members.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| &**name)
    }

    #[must_use]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    #[must_use]
    pub(crate) fn member(&self, name: &str) -> Member<'a> {
        Member::of(self.raw(name))
    }
}

impl<'a> Member<'a> {
    /// The value of this text; [`Member::Absent`] if there is none.
    pub(crate) fn of(raw: Option<&'a RawValue>) -> Self {
        let Some(text) = raw.map(RawValue::get) else { return Self::Absent };
        match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b'"') => serde_json::from_str(text).map_or(Self::Other, |Text(s)| Self::String(s)),
            Some(b'[') => serde_json::from_str::<Vec<Text<'a>>>(text).map_or(Self::Other, |items| {
                Self::Strings(items.into_iter().map(|Text(item)| item).collect())
            }),
            Some(b'-' | b'0'..=b'9') => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Self::Number(number),
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// The arrays and objects that a member may nest: serde_json's own limit of 128 levels, the object itself among them,
/// which it does not keep for a `RawValue`.
pub(crate) const MAX_DEPTH: usize = 127;

/// Checks what serde_json does not check in a `RawValue`: escapes in strings, doubled members at any depth, and
/// [`MAX_DEPTH`].
fn well_formed(value: &RawValue) -> bool {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => !text.contains("\\u") || serde_json::from_str::<Text<'_>>(text).is_ok(),
        Some(b'{' | b'[') => well_formed_inside(text).is_some(),
        _ => true,
    }
}

/// The same for an array or an object. Tokens are read here before their signature is verified, so this is one pass
/// over the text, whatever its depth. Numbers are not parsed: a large one is no fault of form.
fn well_formed_inside(text: &str) -> Option<()> {
    // The names of each open object; `None` for an array.
    let mut open: Vec<Option<HashSet<Cow<'_, str>>>> = Vec::new();
    let mut is_name = false;
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        at += 1;
        match byte {
            b'"' => {
                let end = at + end_of_string(text.get(at..)?)?;
                let string = text.get(at - 1..end)?;
                at = end;
                if is_name {
                    let Text(name) = serde_json::from_str(string).ok()?;
                    open.last_mut()?.as_mut()?.insert(name).then_some(())?;
                } else if string.contains("\\u") {
                    let Text(_) = serde_json::from_str(string).ok()?;
                }
                is_name = false;
            }
            b',' => is_name = matches!(open.last(), Some(Some(_))),
            b'{' | b'[' => {
                is_name = *byte == b'{';
                open.push(is_name.then(HashSet::new));
                (open.len() <= MAX_DEPTH).then_some(())?;
            }
            b'}' | b']' => {
                open.pop();
                is_name = false;
            }
            _ => {}
        }
    }
    Some(())
}

/// The length of a string's rest, its closing quote included.
fn end_of_string(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at + 1),
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    None
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Object { members, stand_in: None })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A string that borrows from the input unless it has escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::{Error as _, SeqAccess};

    use super::*;

    /// Any value in which no object has a member twice. The value itself is not kept.
    struct Unique;

    impl<'de> Deserialize<'de> for Unique {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Walk;
            impl<'de> Visitor<'de> for Walk {
                type Value = Unique;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a JSON value")
                }
                fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
                    Ok(Unique)
                }
                fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
                    Ok(Unique)
                }
                fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
                    Ok(Unique)
                }
                fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
                    Ok(Unique)
                }
                fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
                    Ok(Unique)
                }
                fn visit_unit<E>(self) -> Result<Unique, E> {
                    Ok(Unique)
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
                    while let Some(Unique) = seq.next_element()? {}
                    Ok(Unique)
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                    let mut names = HashSet::new();
                    while let Some(Text(name)) = map.next_key()? {
                        if !names.insert(name) {
                            return Err(A::Error::custom("doubled member"));
                        }
                        let Unique = map.next_value()?;
                    }
                    Ok(Unique)
                }
            }
            deserializer.deserialize_any(Walk)
        }
    }
    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Of texts that serde_json takes for a value, the model and the one pass refuse the same.
        #[test]
        fn one_pass_agrees_with_a_parser(
            parts in proptest::collection::vec(
                prop_oneof![
                    6 => prop_oneof![Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":")],
                    6 => prop_oneof![Just("\"a\""), Just("\"\\u0061\""), Just("\"b\""), Just("\"\\\"{\"")],
                    2 => prop_oneof![Just("\"\\\\\""), Just("\"\\ud800\""), Just("1"), Just("-2.5e3"), Just("null"), Just(" ")],
                ],
                0..14,
            ),
            values in proptest::collection::vec(
                prop_oneof![Just("1"), Just("{\"a\":[{}]}"), Just("[[\"\\ud800\"]]"), Just("{\"b\":{\"b\":0},\"\\u0062\":1}"), Just("\"]\"")],
                0..4,
            ),
            names in proptest::collection::vec("[ab]", 4),
        ) {
            let members: Vec<_> = names.iter().zip(&values).map(|(name, value)| format!("\"{name}\": {value}")).collect();
            for text in [parts.concat(), format!("[{}]", values.join(" , ")), format!("{{{}}}", members.join(","))] {
                if let Ok(raw) = serde_json::from_str::<&RawValue>(&text) {
                    prop_assert_eq!(well_formed(raw), serde_json::from_str::<Unique>(raw.get()).is_ok(), "{}", text);
                }
            }
        }
    }

    #[test]
    fn large_numbers_are_no_fault_of_form() {
        for text in [r#"{"a":1e999}"#, r#"{"a":[1e999,-1e999]}"#, r#"{"a":{"b":[1e99999999999999999999]}}"#] {
            assert!(Object::parse(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn nests_as_deep_as_a_parser_goes() {
        for (depth, fits) in [(127, true), (128, false)] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                assert_eq!(serde_json::from_str::<Unique>(&text).is_ok(), fits, "the model");
                assert_eq!(
                    Object::parse(format!("{{\"a\":{text}}}").as_bytes()).is_ok(),
                    fits,
                    "{depth} {open}"
                );
            }
        }
    }

    #[test]
    fn refuses_what_two_parsers_could_read_differently() {
        for text in [
            "",
            "[]",
            "7",
            "null",
            "\"{}\"",
            "{} {}",
            "{}x",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"a\":{\"b\":1,\"b\":2}}",
            "{\"a\":[{\"b\":1,\"b\":2}]}",
            "{\"a\":1,}",
            "{'a':1}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":[\"\\ud800\"]}",
            "{\"a\":\"\n\"}",
            "{\"a\":01}",
            "{\"a\":NaN}",
            "\u{feff}{}",
        ] {
            assert!(Object::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_err(), "broken UTF-8");
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(4000), "]".repeat(4000));
        assert!(Object::parse(deep.as_bytes()).is_err(), "too deep");
    }

    #[test]
    fn reads_members_by_type() {
        let text = r#"{"s":"x","e":"\u0061\n","n":null,"i":7,"f":1.5,"neg":-2,"big":1e999,"l":["a","b"],
                       "mixed":["a",1],"o":{"k":[]},"t":true,"empty":[]}"#;
        let object = Object::parse(text.as_bytes()).unwrap();
        assert_eq!(object.member("s"), Member::String("x".into()));
        assert_eq!(object.member("e"), Member::String("a\n".into()));
        assert_eq!(object.member("n"), Member::Null);
        assert_eq!(object.member("i"), Member::Number(7.0));
        assert_eq!(object.member("f"), Member::Number(1.5));
        assert_eq!(object.member("neg"), Member::Number(-2.0));
        assert_eq!(object.member("big"), Member::Other);
        assert_eq!(object.member("l"), Member::Strings(vec!["a".into(), "b".into()]));
        assert_eq!(object.member("empty"), Member::Strings(vec![]));
        assert_eq!(object.member("mixed"), Member::Other);
        assert_eq!(object.member("o"), Member::Other);
        assert_eq!(object.member("t"), Member::Other);
        assert_eq!(object.member("missing"), Member::Absent);
        assert!(object.has("n") && !object.has("missing"));
    }
}
