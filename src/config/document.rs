//! A YAML document as a tree with line numbers, and the places in it that are read into values.
//!
//! Serde's own structs stop at the first fault and cannot say where it was. An operator with three typos
//! should learn of all three at once, so the document is parsed once, whole, and read place by place;
//! each fault is noted and reading goes on with the default.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use super::fault::Fault;

/// One node of the document.
#[derive(Debug)]
pub(super) struct Node {
    origin: Origin,
    value: YamlValue,
}

/// Where a node was written.
#[derive(Debug, Clone, Copy)]
enum Origin {
    Line(u64),
    Variable(&'static str),
}

#[derive(Debug)]
enum YamlValue {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<(String, u64, Node)>),
}

impl Node {
    /// Parses a document; an empty one is an empty map.
    pub(super) fn parse(text: &str) -> Result<Self, (Option<u64>, String)> {
        // Doubled keys are passed through so that they are reported with all the other faults.
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

    /// A map that stands for environment variables.
    pub(super) fn map(entries: Vec<(&str, Self)>) -> Self {
        let entries = entries.into_iter().map(|(key, node)| (key.to_owned(), 0, node)).collect();
        Self { origin: Origin::Line(0), value: YamlValue::Map(entries) }
    }

    /// A list that stands for environment variables.
    pub(super) const fn list(items: Vec<Self>) -> Self {
        Self { origin: Origin::Line(0), value: YamlValue::List(items) }
    }

    /// A text that came from an environment variable, or stands beside one.
    pub(super) const fn variable(name: &'static str, text: String) -> Self {
        Self { origin: Origin::Variable(name), value: YamlValue::String(text) }
    }

    /// A switch that stands for what a variable implies.
    pub(super) const fn switch(name: &'static str) -> Self {
        Self { origin: Origin::Variable(name), value: YamlValue::Bool(true) }
    }

    /// The node as JSON text: key sets may be written inline as YAML.
    fn json(&self) -> serde_json::Value {
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

    const fn kind(&self) -> &'static str {
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
        struct Any;
        impl<'de> Visitor<'de> for Any {
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
        deserializer.deserialize_any(Any)
    }
}

/// All faults found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) file: Option<String>,
    pub(super) faults: RefCell<Vec<Fault>>,
}

impl Report {
    pub(super) fn add(&self, line: Option<u64>, key: &str, problem: String, accepted: &str) {
        let fault = Fault {
            file: self.file.clone(),
            line: line.filter(|line| *line > 0),
            key: key.to_owned(),
            problem,
            accepted: accepted.to_owned(),
        };
        self.faults.borrow_mut().push(fault);
    }
}

/// A place in the document: a key's path and, if something stands there, the node.
#[derive(Debug, Clone)]
pub(super) struct Place<'n> {
    report: &'n Report,
    path: String,
    parent: u64,
    node: Option<&'n Node>,
}

impl<'n> Place<'n> {
    pub(super) const fn root(report: &'n Report, node: &'n Node) -> Self {
        Self { report, path: String::new(), parent: 0, node: Some(node) }
    }

    /// Notes a fault here.
    pub(super) fn fault(&self, problem: impl Into<String>, accepted: &str) {
        match self.node.map(|node| node.origin) {
            Some(Origin::Variable(name)) => self.report.add(None, name, problem.into(), accepted),
            Some(Origin::Line(line)) => self.report.add(Some(line), &self.path, problem.into(), accepted),
            None => self.report.add(Some(self.parent), &self.path, problem.into(), accepted),
        }
    }

    /// Whether anything but null stands here.
    pub(super) fn is_set(&self) -> bool {
        self.node.is_some_and(|node| !matches!(node.value, YamlValue::Null))
    }

    /// Whether the key is written at all, be it with nothing behind it.
    pub(super) const fn is_written(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn required(&self, accepted: &str) {
        if !self.is_written() {
            self.fault("is missing", accepted);
        }
    }

    fn wrong(&self, node: &Node, accepted: &str) {
        match &node.value {
            YamlValue::Null => self.fault("has no value", accepted),
            YamlValue::String(text) => self.fault(format!("{text:?} is not accepted"), accepted),
            YamlValue::Integer(number) => self.fault(format!("{number} is not accepted"), accepted),
            _ => self.fault(format!("is {}", node.kind()), accepted),
        }
    }

    /// Reads the map here, key by key; keys that were not read are faults. Absent is an empty map.
    pub(super) fn table<T>(&self, read: impl FnOnce(&mut Table<'n>) -> T) -> T {
        let entries: &[_] = match self.node {
            Some(Node { value: YamlValue::Map(entries), .. }) => entries,
            Some(node) => {
                self.wrong(node, "a map");
                &[]
            }
            None => &[],
        };
        let line = match self.node.map(|node| node.origin) {
            Some(Origin::Line(line)) => line,
            _ => self.parent,
        };
        let mut table =
            Table { report: self.report, path: self.path.clone(), line, entries, known: Vec::new() };
        let value = read(&mut table);
        table.finish();
        value
    }

    /// The keys of the map here as they stand, for maps whose keys are data.
    pub(super) fn entries(&self) -> Vec<(&'n str, Place<'n>)> {
        let Some(node) = self.node else { return Vec::new() };
        let YamlValue::Map(entries) = &node.value else {
            self.wrong(node, "a map");
            return Vec::new();
        };
        let mut seen = Vec::new();
        for (key, line, node) in entries {
            let place =
                Place { report: self.report, path: join(&self.path, key), parent: *line, node: Some(node) };
            if seen.iter().any(|(other, _)| other == key) {
                self.report.add(Some(*line), &place.path, "is doubled".to_owned(), "each key once");
            }
            seen.push((key.as_str(), place));
        }
        seen
    }

    /// The items of the list here. Absent is `None`; an empty list is `Some` of nothing.
    pub(super) fn list(&self, accepted: &str) -> Option<Vec<Self>> {
        let node = self.node?;
        let YamlValue::List(items) = &node.value else {
            self.wrong(node, accepted);
            return None;
        };
        let item = |(at, item): (usize, &'n Node)| Self {
            report: self.report,
            path: format!("{}[{at}]", self.path),
            parent: self.parent,
            node: Some(item),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The items of the list here, or the one scalar as its only item.
    pub(super) fn list_or_one(&self, accepted: &str) -> Option<Vec<Self>> {
        match self.node.map(|node| &node.value) {
            Some(YamlValue::List(_) | YamlValue::Map(_) | YamlValue::Null) | None => self.list(accepted),
            Some(_) => Some(vec![self.clone()]),
        }
    }

    /// A text with content.
    pub(super) fn text(&self, accepted: &str) -> Option<&'n str> {
        let node = self.node?;
        match &node.value {
            YamlValue::String(text) if !text.trim().is_empty() => Some(text),
            _ => {
                self.wrong(node, accepted);
                None
            }
        }
    }

    /// A text that `parse` takes.
    pub(super) fn parsed<T>(&self, accepted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(accepted)?;
        let value = parse(text);
        if value.is_none() {
            self.fault(format!("{text:?} is not accepted"), accepted);
        }
        value
    }

    /// A text, a number, or true or false.
    pub(super) fn scalar(&self, accepted: &str) -> Option<serde_json::Value> {
        let node = self.node?;
        match node.value {
            YamlValue::Bool(_) | YamlValue::Integer(_) | YamlValue::Float(_) | YamlValue::String(_) => {
                Some(node.json())
            }
            YamlValue::Null | YamlValue::List(_) | YamlValue::Map(_) => {
                self.wrong(node, accepted);
                None
            }
        }
    }

    /// Whether a list stands here with nothing in it.
    pub(super) fn is_empty_list(&self) -> bool {
        matches!(self.node, Some(Node { value: YamlValue::List(items), .. }) if items.is_empty())
    }

    /// Whether a text stands here of which this is true; nothing is noted.
    pub(super) fn parsed_quietly(&self, is: impl FnOnce(&str) -> bool) -> bool {
        matches!(self.node, Some(Node { value: YamlValue::String(text), .. }) if is(text))
    }

    pub(super) fn bool(&self, default: bool) -> bool {
        match self.node {
            None => default,
            Some(Node { value: YamlValue::Bool(value), .. }) => *value,
            Some(node) => {
                self.wrong(node, "true or false");
                default
            }
        }
    }

    pub(super) fn integer(&self, range: RangeInclusive<i64>, unit: &str, default: i64) -> i64 {
        match self.node {
            None => default,
            Some(Node { value: YamlValue::Integer(value), .. }) if range.contains(value) => *value,
            Some(node) => {
                self.wrong(node, &format!("a whole number from {} to {}{unit}", range.start(), range.end()));
                default
            }
        }
    }

    /// A number from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "only 0 and 1 are let through")]
    pub(super) fn share(&self, default: f64) -> f64 {
        let value = match self.node.map(|node| &node.value) {
            None => return default,
            Some(YamlValue::Integer(value)) => Some(*value as f64),
            Some(YamlValue::Float(value)) => Some(*value),
            Some(_) => None,
        };
        match (value.filter(|value| (0.0..=1.0).contains(value)), self.node) {
            (Some(value), _) => value,
            (None, Some(node)) => {
                self.wrong(node, "a number from 0 to 1");
                default
            }
            (None, None) => default,
        }
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>, default: Duration) -> Duration {
        let (least, most) = (written(*range.start()), written(*range.end()));
        let accepted = format!("a duration from {least} to {most}, written like 250ms, 10s, 5m or 24h");
        let read = |text: &str| duration(text).filter(|duration| range.contains(duration));
        self.parsed(&accepted, read).unwrap_or(default)
    }

    /// The value as JSON, for what is a JSON document of its own.
    pub(super) fn json(&self) -> Option<String> {
        self.node.map(|node| node.json().to_string())
    }
}

/// A map that is being read.
pub(super) struct Table<'n> {
    report: &'n Report,
    path: String,
    line: u64,
    entries: &'n [(String, u64, Node)],
    known: Vec<&'static str>,
}

impl<'n> Table<'n> {
    /// The place of one key.
    pub(super) fn at(&mut self, key: &'static str) -> Place<'n> {
        self.known.push(key);
        let node = self.entries.iter().find(|(found, ..)| found == key).map(|(_, _, node)| node);
        Place { report: self.report, path: join(&self.path, key), parent: self.line, node }
    }

    fn finish(self) {
        let accepted = format!("one of {}", self.known.join(", "));
        for (at, (key, line, _)) in self.entries.iter().enumerate() {
            let earlier = self.entries.get(..at).unwrap_or_default();
            if !self.known.contains(&key.as_str()) {
                self.report.add(
                    Some(*line),
                    &join(&self.path, key),
                    "is not a known key".to_owned(),
                    &accepted,
                );
            } else if earlier.iter().any(|(other, ..)| other == key) {
                self.report.add(
                    Some(*line),
                    &join(&self.path, key),
                    "is doubled".to_owned(),
                    "each key once",
                );
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Reads `250ms`, `10s`, `5m`, `24h`: one whole number and one unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

/// Writes a duration the way it is read.
pub(super) fn written(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (0, 0) => "0s".to_owned(),
        (seconds, 0) if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        (seconds, 0) if seconds % 60 == 0 => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(want)), "{text}");
            assert_eq!(written(Duration::from_millis(want)), text);
        }
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "1.5s",
            "5S",
            "1m30s",
            "5d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
