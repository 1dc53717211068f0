//! A table that gives another value for a claim's value: old user IDs by the new ones.

use std::fmt;
use std::path::PathBuf;

use crate::domain::claim::legal_header_value;

/// The most lines of one table.
const MAX_LINES: usize = 1_000_000;

/// A table from a file. All texts lie behind each other in one allocation: a million lines take some tens of bytes each.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ClaimMap {
    file: PathBuf,
    text: String,
    /// In the order of their keys.
    lines: Vec<Line>,
    /// The places in `lines`, in the order of the values.
    by_value: Vec<u32>,
    /// RFC 4180 section 2 does not ask for it, but where it is missing the file may be cut off.
    ends_with_line_break: bool,
}

/// Where the key and the value of a line lie in the text, one behind the other.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Line {
    start: u32,
    middle: u32,
    end: u32,
    /// Of the file, from 1.
    number: u32,
}

/// Why a table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClaimMapError {
    /// A file that is written in place is empty for a while, and an empty table would give away the IDs that it kept.
    #[error("it has no lines")]
    Empty,
    #[error("line {0} has no key")]
    NoKey(u32),
    #[error("line {0} has a value that no header can carry")]
    Value(u32),
    #[error("lines {0} and {1} have the same key")]
    Doubled(u32, u32),
    #[error("it has more than a million lines")]
    TooManyLines,
    #[error("it is larger than 4 GiB")]
    TooLarge,
}

/// Lines are added one by one, then the table is made.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    text: String,
    lines: Vec<Line>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.number)
    }
}

impl fmt::Debug for ClaimMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClaimMap({}, {} lines)", self.file.display(), self.lines.len())
    }
}

impl Builder {
    /// Adds the line of this number.
    ///
    /// # Errors
    /// [`ClaimMapError`].
    pub(crate) fn add(&mut self, number: u32, key: &str, value: &str) -> Result<(), ClaimMapError> {
        if key.is_empty() {
            return Err(ClaimMapError::NoKey(number));
        }
        if value.is_empty() || !legal_header_value(value) {
            return Err(ClaimMapError::Value(number));
        }
        if self.lines.len() == MAX_LINES {
            return Err(ClaimMapError::TooManyLines);
        }
        let place = |text: &String| u32::try_from(text.len()).map_err(|_| ClaimMapError::TooLarge);
        let start = place(&self.text)?;
        self.text.push_str(key);
        let middle = place(&self.text)?;
        self.text.push_str(value);
        self.lines.push(Line { start, middle, end: place(&self.text)?, number });
        Ok(())
    }

    /// The table.
    ///
    /// # Errors
    /// [`ClaimMapError::Empty`], [`ClaimMapError::Doubled`].
    pub(crate) fn build(self, file: PathBuf, ends_with_line_break: bool) -> Result<ClaimMap, ClaimMapError> {
        let Self { mut text, mut lines } = self;
        if lines.is_empty() {
            return Err(ClaimMapError::Empty);
        }
        text.shrink_to_fit();
        lines.shrink_to_fit();
        // Most keys differ in their first bytes, which are compared as a number.
        lines.sort_unstable_by(|one, other| {
            let [one, other] = [one, other].map(|line| line.key(&text));
            (first_bytes(one), one).cmp(&(first_bytes(other), other))
        });
        let doubled = lines.windows(2).find_map(|pair| match pair {
            [one, other] if one.key(&text) == other.key(&text) => Some((one.number, other.number)),
            _ => None,
        });
        if let Some((one, other)) = doubled {
            return Err(ClaimMapError::Doubled(one.min(other), one.max(other)));
        }
        let count = u32::try_from(lines.len()).map_err(|_| ClaimMapError::TooManyLines)?;
        let mut by_value: Vec<u32> = (0..count).collect();
        let value = |at: &u32| line_at(&lines, *at).map_or("", |line| line.value(&text));
        by_value.sort_unstable_by(|one, other| {
            let [one, other] = [value(one), value(other)];
            (first_bytes(one), one).cmp(&(first_bytes(other), other))
        });
        Ok(ClaimMap { file, text, lines, by_value, ends_with_line_break })
    }
}

impl Line {
    fn part(text: &str, from: u32, to: u32) -> &str {
        let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
        range.and_then(|(from, to)| text.get(from..to)).unwrap_or_default()
    }

    fn key(self, text: &str) -> &str {
        Self::part(text, self.start, self.middle)
    }

    fn value(self, text: &str) -> &str {
        Self::part(text, self.middle, self.end)
    }
}

fn line_at(lines: &[Line], at: u32) -> Option<Line> {
    lines.get(usize::try_from(at).ok()?).copied()
}

/// The first eight bytes, in the order of the text.
fn first_bytes(text: &str) -> u64 {
    let mut first = [0; 8];
    first.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(first)
}

impl ClaimMap {
    pub(crate) const fn file(&self) -> &PathBuf {
        &self.file
    }

    /// Whether the last line ends as all others do.
    pub(crate) const fn ends_with_line_break(&self) -> bool {
        self.ends_with_line_break
    }

    /// The value for a claim's value. One without a line is itself, unless it is the value of another line: that
    /// ID belongs to another user, so there is none.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let order = |found: &str| (first_bytes(found), found).cmp(&(first_bytes(key), key));
        let found = self.lines.binary_search_by(|line| order(line.key(&self.text)));
        if let Some(line) = found.ok().and_then(|at| self.lines.get(at)) {
            return Some(line.value(&self.text).to_owned());
        }
        let value = |at: &u32| line_at(&self.lines, *at).map_or("", |line| line.value(&self.text));
        let is_anothers = self.by_value.binary_search_by(|at| order(value(at))).is_ok();
        (!is_anothers).then(|| key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> Result<ClaimMap, ClaimMapError> {
        let mut builder = Builder::default();
        for (at, (key, value)) in (1..).zip(lines) {
            builder.add(at, key, value)?;
        }
        builder.build("users.csv".into(), true)
    }

    #[test]
    fn gives_the_value_of_a_line() {
        let lines =
            [("new-1", "old-7"), ("new-10", "old-8"), ("b", "a"), ("", "x"), ("a\0", "y"), ("a", "c")];
        let map = map(&lines.into_iter().filter(|(key, _)| !key.is_empty()).collect::<Vec<_>>()).unwrap();
        for (key, want) in [
            ("new-1", Some("old-7")),
            ("new-10", Some("old-8")),
            ("b", Some("a")),
            ("a\0", Some("y")),
            ("a", Some("c")),
            // Without a line.
            ("new-2", Some("new-2")),
            ("new-", Some("new-")),
            // Another user's.
            ("old-7", None),
            ("c", None),
        ] {
            assert_eq!(map.get(key).as_deref(), want, "{key:?}");
        }
        assert_eq!(format!("{map:?}"), "ClaimMap(users.csv, 5 lines)");
    }

    #[test]
    fn refuses_what_has_no_one_meaning() {
        for (lines, want) in [
            (&[("a", "1"), ("b", "2"), ("a", "1")][..], ClaimMapError::Doubled(1, 3)),
            (&[("a", "1"), ("", "2")], ClaimMapError::NoKey(2)),
            (&[("a", "")], ClaimMapError::Value(1)),
            (&[("a", "x\ny")], ClaimMapError::Value(1)),
            (&[("a", " x")], ClaimMapError::Value(1)),
        ] {
            assert_eq!(map(lines).err(), Some(want), "{lines:?}");
        }
        assert_eq!(map(&[]).err(), Some(ClaimMapError::Empty));
    }
}
