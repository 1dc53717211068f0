//! Reading values out of the document, place by place.
//!
//! A place is a key's path together with the node there, if any. A value that is not accepted is noted as a
//! fault with its line and path, and reading goes on with the default.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::document::{Node, Origin, YamlValue};
use super::duration::{format_duration, parse_duration};
use super::fault::{Fault, Warning};
use crate::domain::identity::claim_map::ClaimMap;
use crate::domain::json::Json;
use crate::domain::number::Number;
use crate::watched_file::FileRead;

/// Keys that are less alike, from 0 to 1 by Jaro and Winkler, are not taken for one another.
const LEAST_LIKENESS: f64 = 0.85;

/// Collects the faults and the warnings while the document is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) file: Option<String>,
    pub(super) faults: RefCell<Vec<Fault>>,
    pub(super) warnings: RefCell<Vec<Warning>>,
    pub(super) files: RefCell<Vec<FileRead>>,
    /// The tables that were read, or why one cannot be.
    pub(super) claim_maps: RefCell<HashMap<PathBuf, Result<Arc<ClaimMap>, String>>>,
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

#[derive(Debug, Clone)]
pub(super) struct Place<'n> {
    report: &'n Report,
    path: String,
    parent_line: u64,
    node: Option<&'n Node>,
}

impl<'n> Place<'n> {
    pub(super) const fn root(report: &'n Report, node: &'n Node) -> Self {
        Self { report, path: String::new(), parent_line: 0, node: Some(node) }
    }

    /// Notes a fault: at the node, or at the line of the map that lacks the key.
    pub(super) fn fault(&self, problem: impl Into<String>, accepted: &str) {
        let (line, key) = self.origin();
        self.report.add(line, key, problem.into(), accepted);
    }

    /// Notes a warning about a value that is accepted.
    pub(super) fn warn(&self, problem: impl Into<String>, advice: impl Into<String>) {
        let (line, key) = self.origin();
        let warning = Warning {
            file: self.report.file.clone(),
            line: line.filter(|line| *line > 0),
            key: key.to_owned(),
            problem: problem.into(),
            advice: advice.into(),
        };
        self.report.warnings.borrow_mut().push(warning);
    }

    /// The line and the key's path, or the variable's name.
    fn origin(&self) -> (Option<u64>, &str) {
        match self.node.map(|node| node.origin) {
            Some(Origin::Variable(name)) => (None, name),
            Some(Origin::Line(line)) => (Some(line), &self.path),
            None => (Some(self.parent_line), &self.path),
        }
    }

    /// Whether the key has a value other than null.
    pub(super) fn is_set(&self) -> bool {
        self.node.is_some_and(|node| !matches!(node.value, YamlValue::Null))
    }

    /// Whether the key is written, even without a value (null).
    pub(super) const fn is_written(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn required(&self, accepted: &str) {
        if !self.is_written() {
            self.fault("is missing", accepted);
        }
    }

    fn not_accepted(&self, node: &Node, accepted: &str) {
        match &node.value {
            YamlValue::Null => self.fault("has no value", accepted),
            YamlValue::String(text) => self.fault(format!("{text:?} is not accepted"), accepted),
            YamlValue::Number(number) => self.fault(format!("{number} is not accepted"), accepted),
            YamlValue::Incomparable(text) => {
                self.fault(format!("{text} is no number that can be compared exactly"), accepted);
            }
            _ => self.fault(format!("is {}", node.kind()), accepted),
        }
    }

    /// Reads a map key by key; a key that `read` did not ask for is a fault. Absent is an empty map.
    pub(super) fn table<T>(&self, read: impl FnOnce(&mut Table<'n>) -> T) -> T {
        let entries: &[_] = match self.node {
            Some(Node { value: YamlValue::Map(entries), .. }) => entries,
            Some(node) => {
                self.not_accepted(node, "a map");
                &[]
            }
            None => &[],
        };
        let line = match self.node.map(|node| node.origin) {
            Some(Origin::Line(line)) => line,
            _ => self.parent_line,
        };
        let mut table =
            Table { report: self.report, path: self.path.clone(), line, entries, known_keys: Vec::new() };
        let value = read(&mut table);
        table.finish();
        value
    }

    /// The entries of a map whose keys are data, in their order.
    pub(super) fn entries(&self) -> Vec<(&'n str, Place<'n>)> {
        let Some(node) = self.node else { return Vec::new() };
        let YamlValue::Map(entries) = &node.value else {
            self.not_accepted(node, "a map");
            return Vec::new();
        };
        let mut places = Vec::new();
        for (key, line, node) in entries {
            let place = Place {
                report: self.report,
                path: join(&self.path, key),
                parent_line: *line,
                node: Some(node),
            };
            if places.iter().any(|(other, _)| other == key) {
                self.report.add(Some(*line), &place.path, "is doubled".to_owned(), "each key once");
            }
            places.push((key.as_str(), place));
        }
        places
    }

    /// The items of a list. Absent is `None`; an empty list is an empty `Vec`.
    pub(super) fn list(&self, accepted: &str) -> Option<Vec<Self>> {
        let node = self.node?;
        let YamlValue::List(items) = &node.value else {
            self.not_accepted(node, accepted);
            return None;
        };
        let item = |(index, item): (usize, &'n Node)| Self {
            report: self.report,
            path: format!("{}[{index}]", self.path),
            parent_line: self.parent_line,
            node: Some(item),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The items of a list; a scalar is a list of one.
    pub(super) fn list_or_one(&self, accepted: &str) -> Option<Vec<Self>> {
        match self.node.map(|node| &node.value) {
            Some(YamlValue::List(_) | YamlValue::Map(_) | YamlValue::Null) | None => self.list(accepted),
            Some(_) => Some(vec![self.clone()]),
        }
    }

    /// Notes that a file is about to be read for this value, or cannot be used: a change of it is a change of the configuration.
    pub(super) fn reads(&self, path: &Path) {
        self.report.files.borrow_mut().push(FileRead::about_to_be(path));
    }

    /// Notes that a file cannot be read: a change of it may mend the configuration.
    pub(super) fn unreadable(&self, file: &str, error: &std::io::Error, accepted: &str) {
        // One that is missing may be there by now, and that is a change.
        let is_missing = error.kind() == std::io::ErrorKind::NotFound;
        let read = FileRead::about_to_be(Path::new(file));
        let version = read.version.filter(|_| !is_missing);
        self.report.files.borrow_mut().push(FileRead { version, ..read });
        self.fault(format!("{file} cannot be read: {error}"), accepted);
    }

    /// The table in this file. It is read once for all places that name it, since it may change between two readings.
    pub(super) fn claim_map(
        &self,
        path: &Path,
        read: impl FnOnce() -> Result<ClaimMap, String>,
    ) -> Result<Arc<ClaimMap>, String> {
        if let Some(known) = self.report.claim_maps.borrow().get(path) {
            return known.clone();
        }
        self.reads(path);
        let map = read().map(Arc::new);
        self.report.claim_maps.borrow_mut().insert(path.to_owned(), map.clone());
        map
    }

    /// A text that is not blank.
    pub(super) fn text(&self, accepted: &str) -> Option<&'n str> {
        let node = self.node?;
        match &node.value {
            YamlValue::String(text) if !text.trim().is_empty() => Some(text),
            YamlValue::Number(number) => {
                self.unquoted(number, accepted);
                None
            }
            _ => {
                self.not_accepted(node, accepted);
                None
            }
        }
    }

    fn unquoted(&self, number: &Number, accepted: &str) {
        self.fault(format!("{number} is a number: as a text it stands in quotes"), accepted);
    }

    /// A text that `parse` accepts.
    pub(super) fn parsed<T>(&self, accepted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let node = self.node?;
        if let YamlValue::Number(number) = &node.value {
            // Quotes help only if the text is accepted then.
            match parse(number.as_str()) {
                Some(_) => self.unquoted(number, accepted),
                None => self.not_accepted(node, accepted),
            }
            return None;
        }
        let text = self.text(accepted)?;
        let value = parse(text);
        if value.is_none() {
            self.fault(format!("{text:?} is not accepted"), accepted);
        }
        value
    }

    /// A text, a number that can be compared exactly, or true or false.
    pub(super) fn scalar(&self, accepted: &str) -> Option<Json> {
        let node = self.node?;
        match node.value {
            YamlValue::Bool(_) | YamlValue::Number(_) | YamlValue::String(_) => node.json(),
            YamlValue::Null
            | YamlValue::Incomparable(_)
            | YamlValue::Unread(_)
            | YamlValue::List(_)
            | YamlValue::Map(_) => {
                self.not_accepted(node, accepted);
                None
            }
        }
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node, Some(Node { value: YamlValue::Map(_), .. }))
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.node, Some(Node { value: YamlValue::String(_), .. }))
    }

    /// Whether the value is a text of no characters.
    pub(super) fn is_empty_text(&self) -> bool {
        matches!(self.node, Some(Node { value: YamlValue::String(text), .. }) if text.is_empty())
    }

    pub(super) fn is_empty_list(&self) -> bool {
        matches!(self.node, Some(Node { value: YamlValue::List(items), .. }) if items.is_empty())
    }

    /// Whether the value is a text that begins with `prefix`; notes no fault.
    pub(super) fn starts_with(&self, prefix: &str) -> bool {
        matches!(self.node, Some(Node { value: YamlValue::String(text), .. }) if text.starts_with(prefix))
    }

    pub(super) fn bool(&self, default: bool) -> bool {
        match self.node {
            None => default,
            Some(Node { value: YamlValue::Bool(value), .. }) => *value,
            Some(node) => {
                self.not_accepted(node, "true or false");
                default
            }
        }
    }

    pub(super) fn integer(&self, range: RangeInclusive<i64>, unit: &str, default: i64) -> i64 {
        let Some(node) = self.node else { return default };
        let value = match &node.value {
            YamlValue::Number(number) => number.as_str().parse().ok(),
            _ => None,
        };
        value.filter(|value| range.contains(value)).unwrap_or_else(|| {
            self.not_accepted(
                node,
                &format!("a whole number from {} to {}{unit}", range.start(), range.end()),
            );
            default
        })
    }

    /// A number from 0 to 1.
    pub(super) fn share(&self, default: f64) -> f64 {
        let Some(node) = self.node else { return default };
        let value = match &node.value {
            YamlValue::Number(number) => number.as_str().parse().ok(),
            _ => None,
        };
        value.filter(|value| (0.0..=1.0).contains(value)).unwrap_or_else(|| {
            self.not_accepted(node, "a number from 0 to 1");
            default
        })
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>, default: Duration) -> Duration {
        let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
        let accepted = format!("a duration from {least} to {most}, written like 250ms, 10s, 5m or 24h");
        let read = |text: &str| parse_duration(text).filter(|duration| range.contains(duration));
        self.parsed(&accepted, read).unwrap_or(default)
    }

    /// The value as JSON text.
    pub(super) fn json(&self, accepted: &str) -> Option<String> {
        let json = self.node?.json();
        if json.is_none() {
            self.fault("holds a number that JSON does not have", accepted);
        }
        json.map(|json| json.to_string())
    }
}

/// A map while it is read: it remembers which keys were asked for.
pub(super) struct Table<'n> {
    report: &'n Report,
    path: String,
    line: u64,
    entries: &'n [(String, u64, Node)],
    known_keys: Vec<&'static str>,
}

impl<'n> Table<'n> {
    pub(super) fn at(&mut self, key: &'static str) -> Place<'n> {
        self.known_keys.push(key);
        let node = self.entries.iter().find(|(found, ..)| found == key).map(|(_, _, node)| node);
        Place { report: self.report, path: join(&self.path, key), parent_line: self.line, node }
    }

    /// Notes the keys that are unknown or doubled.
    fn finish(self) {
        let accepted = format!("one of {}", self.known_keys.join(", "));
        for (index, (key, line, _)) in self.entries.iter().enumerate() {
            let earlier = self.entries.get(..index).unwrap_or_default();
            if !self.known_keys.contains(&key.as_str()) {
                let near = nearest(key, &self.known_keys);
                let problem = near.map_or_else(
                    || "is not a known key".to_owned(),
                    |near| format!("is not a known key (perhaps {near})"),
                );
                self.report.add(Some(*line), &join(&self.path, key), problem, &accepted);
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

/// The known key that is written most like this one, if it is like one at all.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let likeness = known.iter().map(|known| (strsim::jaro_winkler(key, known), *known));
    let (likeness, nearest) = likeness.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness >= LEAST_LIKENESS).then_some(nearest)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
