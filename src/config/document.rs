//! A YAML document as a tree whose nodes know their line.
//!
//! Serde's derived structs stop at the first fault and do not keep its line. The tree is parsed once, whole,
//! and `place` reads values out of it, so that three typos are reported at once, each with its line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

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
    Integer(i64),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<(String, u64, Node)>),
}

impl Node {
    /// Parses a document; an empty one is an empty map. The error is a line, where known, and a message.
    pub(super) fn parse(text: &str) -> Result<Self, (Option<u64>, String)> {
        // serde-saphyr passes doubled keys through, so that they are reported together with all other faults.
        let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
        let parsed = serde_saphyr::from_str_with_options::<Self>(text, options);
        let mut root = parsed.map_err(|error| {
            let line = error.location().map(|location| location.line());
            let message = error.without_snippet().to_string();
            (line, message.lines().next().unwrap_or_default().to_owned())
        })?;
        if matches!(root.value, YamlValue::Null) {
            root.value = YamlValue::Map(Vec::new());
        }
        Ok(root)
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

    /// The node as JSON: key sets may be written inline as YAML.
    pub(super) fn json(&self) -> serde_json::Value {
        match &self.value {
            YamlValue::Null => serde_json::Value::Null,
            YamlValue::Float(value) => (*value).into(),
            YamlValue::Bool(value) => (*value).into(),
            YamlValue::Integer(value) => (*value).into(),
            YamlValue::String(value) => value.clone().into(),
            YamlValue::List(items) => items.iter().map(Self::json).collect(),
            YamlValue::Map(entries) => {
                entries.iter().map(|(key, _, node)| (key.clone(), node.json())).collect()
            }
        }
    }

    /// What stands here, worded for a fault.
    pub(super) const fn kind(&self) -> &'static str {
        match self.value {
            YamlValue::Null => "nothing",
            YamlValue::Bool(_) => "true or false",
            YamlValue::Integer(_) | YamlValue::Float(_) => "a number",
            YamlValue::String(_) => "a text",
            YamlValue::List(_) => "a list",
            YamlValue::Map(_) => "a map",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<YamlValue>::deserialize(deserializer)?;
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
                Ok(YamlValue::Integer(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<YamlValue, E> {
                #[expect(clippy::cast_precision_loss, reason = "no key takes a number that large")]
                let large = || YamlValue::Float(value as f64);
                Ok(i64::try_from(value).map_or_else(|_| large(), YamlValue::Integer))
            }
            fn visit_f64<E>(self, value: f64) -> Result<YamlValue, E> {
                Ok(YamlValue::Float(value))
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
