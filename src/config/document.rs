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
    /// What serde-saphyr takes for a number or a switch, by its place in the document, until the document is parsed whole: it
    /// rounds numbers to doubles, and reads words of YAML 1.1 (`y`, `no`, `on`) as switches.
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
        root.read_scalars(text);
        Ok(root)
    }

    /// Reads what was left [`YamlValue::Unread`].
    fn read_scalars(&mut self, document: &str) {
        match &mut self.value {
            YamlValue::Unread(place) => {
                self.value = core_schema(document.get(place.clone()).unwrap_or_default());
            }
            YamlValue::List(items) => items.iter_mut().for_each(|item| item.read_scalars(document)),
            YamlValue::Map(entries) => entries.iter_mut().for_each(|(.., node)| node.read_scalars(document)),
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

/// A scalar that is not null, by the core schema (YAML 1.2.2 section 10.3.2).
fn core_schema(written: &str) -> YamlValue {
    // In quotes a number or a switch needs a tag: `!!float "1"`.
    let quoted = |quote| written.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(written).trim();
    match text {
        "true" | "True" | "TRUE" => return YamlValue::Bool(true),
        "false" | "False" | "FALSE" => return YamlValue::Bool(false),
        _ => {}
    }
    if !is_number(text) {
        return YamlValue::String(text.to_owned());
    }
    exact(text).map_or_else(|| YamlValue::Incomparable(text.to_owned()), YamlValue::Number)
}

/// The prefix and the radix of integers that are not decimal. They have no sign.
const RADICES: [(&str, u32); 2] = [("0o", 8), ("0x", 16)];

/// Whether the core schema reads a scalar as a number.
fn is_number(text: &str) -> bool {
    let digits = |text: &str, radix| text.chars().all(|digit| digit.is_digit(radix));
    if RADICES.iter().any(|(prefix, radix)| {
        text.strip_prefix(prefix).is_some_and(|text| !text.is_empty() && digits(text, *radix))
    }) {
        return true;
    }
    let magnitude = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(magnitude, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (significand, exponent) = magnitude.split_once(['e', 'E']).unwrap_or((magnitude, "0"));
    let (integer, fraction) = significand.split_once('.').unwrap_or((significand, ""));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let has_digits = !(exponent.is_empty() || integer.is_empty() && fraction.is_empty());
    has_digits && [integer, fraction, exponent].iter().all(|part| digits(part, 10))
}

/// A number as JSON writes it; `None` for `.inf` and `.nan`, for an integer in octal or hexadecimal digits beyond 64 bits, and for
/// an exponent that [`Number::is_comparable`] refuses.
fn exact(written: &str) -> Option<Number> {
    if let Some((digits, radix)) =
        RADICES.iter().find_map(|(prefix, radix)| Some((written.strip_prefix(prefix)?, *radix)))
    {
        return u64::from_str_radix(digits, radix).ok().map(Number::from);
    }
    let (sign, magnitude) = match written.strip_prefix('-') {
        Some(magnitude) => ("-", magnitude),
        None => ("", written.strip_prefix('+').unwrap_or(written)),
    };
    let significand = magnitude.split(['e', 'E']).next()?;
    let exponent = magnitude.get(significand.len()..)?;
    let (integer, fraction) = significand.split_once('.').unwrap_or((significand, ""));
    let integer = match integer.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    Number::new(&format!("{sign}{integer}{point}{fraction}{exponent}")).filter(Number::is_comparable)
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
            // An integer of more than 64 bits, which serde-saphyr takes for a text. One in quotes is longer by its quotes.
            YamlValue::String(text)
                if text.len() == length
                    && RADICES.iter().any(|(prefix, _)| text.starts_with(prefix))
                    && is_number(&text) =>
            {
                YamlValue::Unread(start..start + length)
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
            fn visit_bool<E>(self, _: bool) -> Result<YamlValue, E> {
                Ok(YamlValue::Unread(0..0))
            }
            fn visit_i64<E>(self, _: i64) -> Result<YamlValue, E> {
                Ok(YamlValue::Unread(0..0))
            }
            fn visit_u64<E>(self, _: u64) -> Result<YamlValue, E> {
                Ok(YamlValue::Unread(0..0))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> YamlValue {
        match Node::parse(&format!("# é\na: {text}\n")).unwrap().value {
            YamlValue::Map(mut entries) => entries.swap_remove(0).2.value,
            other => panic!("{other:?}"),
        }
    }

    /// Scalars by the core schema of YAML 1.2.2 (section 10.3.2), and what other programs, of YAML 1.1 among them, read in them.
    #[test]
    fn scalars_by_the_core_schema() {
        let number = |text: &str| format!("{:?}", YamlValue::Number(Number::new(text).unwrap()));
        let text = |text: &str| format!("{:?}", YamlValue::String(text.to_owned()));
        let incomparable = |text: &str| format!("{:?}", YamlValue::Incomparable(text.to_owned()));
        for plain in [
            "y",
            "Y",
            "n",
            "N",
            "yes",
            "Yes",
            "YES",
            "no",
            "No",
            "NO",
            "on",
            "On",
            "ON",
            "off",
            "Off",
            "OFF",
            "tRUE",
            "truE",
            "T",
            "nul",
            "nULL",
            "none",
            "1_000",
            "0b1",
            "0B1",
            "0O17",
            "0X1F",
            "0o8",
            "0xG",
            "0x",
            "0o",
            "+0x1F",
            "-0o7",
            "1:30",
            "190:20:30",
            "1e",
            "1e+",
            "e1",
            ".",
            "+",
            "--1",
            "1.2.3",
            ".e1",
            "inf",
            "nan",
            "+.nan",
            "infinity",
            "NaN",
            "1 000",
            "1,000",
            "2026-11-26",
            "2026-11-26T10:00:00Z",
            "=",
            "<<x",
            "١",
            "0.5s",
            "10m",
        ] {
            assert_eq!(format!("{:?}", value(plain)), text(plain), "{plain}");
        }
        for (written, want) in [
            ("true", "Bool(true)".to_owned()),
            ("True", "Bool(true)".to_owned()),
            ("TRUE", "Bool(true)".to_owned()),
            ("false", "Bool(false)".to_owned()),
            ("FALSE", "Bool(false)".to_owned()),
            ("~", "Null".to_owned()),
            ("null", "Null".to_owned()),
            ("Null", "Null".to_owned()),
            ("NULL", "Null".to_owned()),
            ("", "Null".to_owned()),
            ("0", number("0")),
            ("-0", number("-0")),
            ("+12", number("12")),
            ("012", number("12")),
            ("0o17", number("15")),
            ("0x1F", number("31")),
            ("0xffffffffffffffff", number("18446744073709551615")),
            ("0x10000000000000000", incomparable("0x10000000000000000")),
            ("18446744073709551617", number("18446744073709551617")),
            ("1.", number("1")),
            (".5", number("0.5")),
            ("-.5e-3", number("-0.5e-3")),
            ("1.10", number("1.10")),
            ("1e3", number("1e3")),
            ("1E+3", number("1E+3")),
            ("1e999", number("1e999")),
            (".inf", incomparable(".inf")),
            ("-.INF", incomparable("-.INF")),
            (".NaN", incomparable(".NaN")),
            ("'true'", text("true")),
            ("\"1\"", text("1")),
            ("'~'", text("~")),
            ("|-\n  12", text("12")),
            ("|-\n  true", text("true")),
            (">-\n  0x1F", text("0x1F")),
            ("!!str 12", text("12")),
            ("!!str true", text("true")),
            ("!!str y", text("y")),
            ("&anchor no", text("no")),
            ("!!float '1'", number("1")),
            ("!!int \"0x1F\"", number("31")),
            ("!!bool 'true'", "Bool(true)".to_owned()),
        ] {
            assert_eq!(format!("{:?}", value(written)), want, "{written}");
        }
    }

    #[test]
    fn keys_and_aliases() {
        let text =
            "é: [&a y, *a, &b 1_0, *b, &c True, *c]\ny: 1\nno: 2\nnull.: 3\n1e3: 4\ntrue: 5\n0x10: 6\n";
        let YamlValue::Map(entries) = Node::parse(text).unwrap().value else { panic!("a map") };
        let keys: Vec<_> = entries.iter().map(|(key, line, _)| (key.as_str(), *line)).collect();
        assert_eq!(keys, [("é", 1), ("y", 2), ("no", 3), ("null.", 4), ("1e3", 5), ("true", 6), ("0x10", 7)]);
        let YamlValue::List(items) = &entries[0].2.value else { panic!("a list") };
        let items: Vec<_> = items.iter().map(|item| format!("{:?}", item.value)).collect();
        let [y, ten] = ["y", "1_0"].map(|text| format!("{:?}", YamlValue::String(text.to_owned())));
        assert_eq!(items, [&y, &y, &ten, &ten, "Bool(true)", "Bool(true)"]);
    }
}
