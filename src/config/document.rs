//! A YAML document as a tree whose nodes know their line.
//!
//! Serde's derived structs stop at the first fault and do not keep its line. The tree is parsed once, whole,
//! and `place` reads values out of it, so that three typos are reported at once, each with its line.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use crate::domain::json::Json;
use crate::domain::number::Number;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: YamlValue,
}

/// Where a node was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// Counted from 1; 0 is a node of no file.
    Line(u64),
    Variable(&'static str),
}

/// `Map` keeps the order of its entries, and each key with its line.
#[derive(Debug)]
pub(super) enum YamlValue {
    Null,
    Bool(bool),
    /// With the digits of the document.
    Number(Number),
    /// A number that cannot be compared exactly: infinite, not a number, or with an exponent or in hexadecimal digits
    /// too large to be read.
    Incomparable(String),
    /// A number that serde-saphyr rounds to a double, by its place in the document, until the document is parsed whole.
    Unread(Range<usize>),
    String(String),
    List(Vec<Node>),
    Map(Vec<(String, u64, Node)>),
}

impl Node {
    /// Parses a document; an empty one is an empty map. The error is a line, where known, and a message.
    pub(super) fn parse(text: &str) -> Result<Self, (Option<u64>, String)> {
        // serde-saphyr passes doubled keys through, so that they are reported together with all other faults.
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            // A number beyond the doubles is read by its digits, below.
            non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        };
        let parsed = serde_saphyr::from_str_with_options::<Self>(text, options);
        let mut root = parsed.map_err(|error| {
            let line = error.location().map(|location| location.line());
            let message = error.without_snippet().to_string();
            (line, message.lines().next().unwrap_or_default().to_owned())
        })?;
        if matches!(root.value, YamlValue::Null) {
            root.value = YamlValue::Map(Vec::new());
        }
        root.read_numbers(text);
        Ok(root)
    }

    /// Reads the numbers that serde-saphyr rounded.
    fn read_numbers(&mut self, document: &str) {
        match &mut self.value {
            YamlValue::Unread(place) => {
                let written = document.get(place.clone()).unwrap_or_default();
                self.value = exact(written)
                    .map_or_else(|| YamlValue::Incomparable(written.to_owned()), YamlValue::Number);
            }
            YamlValue::List(items) => items.iter_mut().for_each(|item| item.read_numbers(document)),
            YamlValue::Map(entries) => entries.iter_mut().for_each(|(.., node)| node.read_numbers(document)),
            YamlValue::Null
            | YamlValue::Bool(_)
            | YamlValue::Number(_)
            | YamlValue::Incomparable(_)
            | YamlValue::String(_) => {}
        }
    }

    /// A map without a line, built from environment variables.
    pub(super) fn map(entries: Vec<(&str, Self)>) -> Self {
        let entries = entries.into_iter().map(|(key, node)| (key.to_owned(), 0, node)).collect();
        Self { origin: Origin::Line(0), value: YamlValue::Map(entries) }
    }

    /// A list without a line, built from environment variables.
    pub(super) const fn list(items: Vec<Self>) -> Self {
        Self { origin: Origin::Line(0), value: YamlValue::List(items) }
    }

    /// A text that an environment variable holds or implies; faults in it name the variable.
    pub(super) const fn text_of_variable(name: &'static str, text: String) -> Self {
        Self { origin: Origin::Variable(name), value: YamlValue::String(text) }
    }

    /// A `true` that an environment variable implies; faults in it name the variable.
    pub(super) const fn true_of_variable(name: &'static str) -> Self {
        Self { origin: Origin::Variable(name), value: YamlValue::Bool(true) }
    }

    /// The node as JSON: key sets may be written inline as YAML. `None` if a number in it is none of JSON.
    pub(super) fn json(&self) -> Option<Json> {
        Some(match &self.value {
            YamlValue::Null => Json::Null,
            YamlValue::Bool(value) => Json::Bool(*value),
            YamlValue::Number(value) => Json::Number(value.clone()),
            YamlValue::Incomparable(_) | YamlValue::Unread(_) => return None,
            YamlValue::String(value) => Json::String(value.clone()),
            YamlValue::List(items) => Json::Array(items.iter().map(Self::json).collect::<Option<_>>()?),
            YamlValue::Map(entries) => {
                let members = entries.iter().map(|(key, _, node)| Some((key.clone(), node.json()?)));
                Json::Object(members.collect::<Option<_>>()?)
            }
        })
    }

    /// What stands here, worded for a fault.
    pub(super) const fn kind(&self) -> &'static str {
        match self.value {
            YamlValue::Null => "nothing",
            YamlValue::Bool(_) => "true or false",
            YamlValue::Number(_) | YamlValue::Incomparable(_) | YamlValue::Unread(_) => "a number",
            YamlValue::String(_) => "a text",
            YamlValue::List(_) => "a list",
            YamlValue::Map(_) => "a map",
        }
    }
}

/// A decimal of YAML 1.2 (core schema, section 10.3.2) as JSON writes it; `None` for `.inf` and `.nan`, and for an
/// exponent that [`Number::is_comparable`] refuses.
fn exact(written: &str) -> Option<Number> {
    // Quoted, a number needs a tag: `!!float "1"`.
    let quoted = |quote| written.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    let written = quoted('"').or_else(|| quoted('\'')).unwrap_or(written).trim();
    let (sign, magnitude) = match written.strip_prefix('-') {
        Some(magnitude) => ("-", magnitude),
        None => ("", written.strip_prefix('+').unwrap_or(written)),
    };
    let significand = magnitude.split(['e', 'E']).next()?;
    let exponent = magnitude.get(significand.len()..)?;
    let (integer, fraction) = significand.split_once('.').unwrap_or((significand, ""));
    if integer.is_empty() && fraction.is_empty() {
        return None;
    }
    let integer = match integer.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    Number::new(&format!("{sign}{integer}{point}{fraction}{exponent}")).filter(Number::is_comparable)
}

/// Whether a plain scalar is an integer in octal or hexadecimal digits that serde-saphyr, which reads 64 bits, takes
/// for a text.
fn is_large_integer(text: &str) -> bool {
    let digits = |prefix, radix| {
        let digits = text.strip_prefix(prefix).filter(|digits: &&str| !digits.is_empty());
        digits.is_some_and(|digits| digits.chars().all(|digit| digit.is_digit(radix)))
    };
    digits("0x", 16) || digits("0o", 8)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::<YamlValue>::deserialize(deserializer)?;
        let span = defined.span();
        let offset =
            |bytes: Option<u64>| bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
        let (start, length) = (offset(span.byte_offset()), offset(span.byte_len()));
        let value = match value {
            YamlValue::Unread(_) => YamlValue::Unread(start..start + length),
            // A quoted one is longer by its quotes.
            YamlValue::String(text) if text.len() == length && is_large_integer(&text) => {
                YamlValue::Incomparable(text)
            }
            value => value,
        };
        Ok(Self { origin: Origin::Line(referenced.line()), value })
    }
}

impl<'de> Deserialize<'de> for YamlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct YamlVisitor;
        impl<'de> Visitor<'de> for YamlVisitor {
            type Value = YamlValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }
            fn visit_unit<E>(self) -> Result<YamlValue, E> {
                Ok(YamlValue::Null)
            }
            fn visit_none<E>(self) -> Result<YamlValue, E> {
                Ok(YamlValue::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<YamlValue, D::Error> {
                YamlValue::deserialize(deserializer)
            }
            fn visit_bool<E>(self, value: bool) -> Result<YamlValue, E> {
                Ok(YamlValue::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<YamlValue, E> {
                Ok(YamlValue::Number(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<YamlValue, E> {
                Ok(YamlValue::Number(value.into()))
            }
            fn visit_f64<E>(self, _: f64) -> Result<YamlValue, E> {
                Ok(YamlValue::Unread(0..0))
            }
            fn visit_str<E>(self, value: &str) -> Result<YamlValue, E> {
                Ok(YamlValue::String(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<YamlValue, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(YamlValue::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<YamlValue, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    entries.push((key.value, key.referenced.line(), map.next_value()?));
                }
                Ok(YamlValue::Map(entries))
            }
        }
        deserializer.deserialize_any(YamlVisitor)
    }
}
