//! The readings of a request target: every path that a known kind of upstream may take it for.
//!
//! A rule is matched against a path, and the upstream parses the path again in its own way. Servers differ in which escapes
//! they decode and how often, in what separates segments, and in whether and when they cut path parameters, resolve dot
//! segments and merge slashes. So the target is read in each of these ways, and the rule of every reading must hold
//! (`policy::Selection`). A target that all servers read alike has one reading and is not copied.

use std::borrow::Cow;

use memchr::memmem;

pub(crate) mod host;
pub(crate) mod method;
mod transform;

use strum::VariantArray as _;
pub(crate) use transform::Mode;

use transform::{Decoding, Parameters, Resolution, Separators, overlong, resolved, unescaped};

/// The longest path in bytes that is read in several ways. The work for one request is bounded: a longer path that servers
/// may read in several ways falls under every rule.
const MAX_BYTES: usize = 2048;

/// The most marks in a path that is read in several ways: dot segments, repeated slashes, backslashes, semicolons, and
/// escapes of a slash, backslash, semicolon, dot or percent sign. Each reading visits each mark. A path with more of them
/// falls under every rule.
const MAX_MARKS: usize = 64;

/// As sent or plainly read, the target holds a control character, a broken escape, overlong UTF-8 or `#`, does not begin
/// with a slash, or climbs above the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the target is no path")]
pub(crate) struct NotAPath;

/// How a target may be read.
#[derive(Debug)]
pub(crate) enum Readings<'a> {
    /// All servers read this path.
    One(&'a [u8]),
    /// Servers may read different paths.
    Several(Several<'a>),
    /// Working out all readings would cost more than a request may.
    TooMany,
}

/// A path that has several readings, in the form it was sent in.
#[derive(Debug)]
pub(crate) struct Several<'a> {
    /// The path as sent, bytes beyond ASCII written as escapes.
    sent: Cow<'a, [u8]>,
    marks: Marks,
}

impl<'a> Readings<'a> {
    /// Reads a request target (RFC 9112 section 3.2): a path and, after a question mark, a query, which is cut.
    ///
    /// # Errors
    /// [`NotAPath`].
    pub(crate) fn of(target: &'a [u8]) -> Result<Self, NotAPath> {
        let end = target.iter().position(|byte| !is_ordinary(*byte));
        let path = match end.map(|at| (target.split_at(at).0, target.get(at))) {
            None => target,
            Some((path, Some(b'?'))) => path,
            Some(_) => return Self::of_marked(target.split(|byte| *byte == b'?').next().unwrap_or_default()),
        };
        match path {
            // RFC 9112 section 3.2.4: the server as a whole.
            b"*" => Ok(Self::One(path)),
            [b'/', ..] if !has_structure(path) => Ok(Self::One(path)),
            _ => Self::of_marked(path),
        }
    }

    fn of_marked(path: &'a [u8]) -> Result<Self, NotAPath> {
        let sent = escaped(path)?;
        if sent.first() != Some(&b'/') || overlong(&sent) {
            return Err(NotAPath);
        }
        let marks = Marks::of(&sent)?;
        if sent.len() > MAX_BYTES || marks.count > MAX_MARKS {
            return Ok(Self::TooMany);
        }
        Ok(Self::Several(Several { sent, marks }))
    }
}

impl Several<'_> {
    /// Gives each reading to `take`, with the mode in which its characters were read. One path may come more than once.
    pub(crate) fn for_each(&self, mut take: impl FnMut(Mode, &[u8])) {
        take(Mode::AsSent, &self.sent);
        self.marks.modes().for_each(|mode| Self::read(&self.sent, mode, &mut take));
        // A proxy or a client library in between may resolve what stands there in clear, before escapes are decoded.
        for resolution in Resolution::of(&self.sent).iter().filter(|resolution| resolution.ends_in_dots()) {
            let sent = resolved(&self.sent, *resolution);
            let modes = self.marks.modes().filter(|mode| mode.keeps_parameters());
            modes.for_each(|mode| Self::read(&sent, mode, &mut take));
        }
    }

    fn read(sent: &[u8], mode: Mode, take: &mut impl FnMut(Mode, &[u8])) {
        let path = mode.read(sent);
        for resolution in Resolution::of(&path) {
            take(mode, &resolved(&path, *resolution));
        }
        take(mode, &path);
    }
}

/// Whether all servers take a byte for itself, wherever it stands. Written so that the compiler compares many at a time.
fn is_ordinary(byte: u8) -> bool {
    (byte >= b' ') & (byte < 0x7f) & !matches!(byte, b'%' | b'?' | b'#' | b'\\' | b';')
}

/// Whether a path has a dot segment (RFC 3986 section 3.3) or a repeated slash.
pub(crate) fn has_structure(path: &[u8]) -> bool {
    memmem::find(path, b"//").is_some()
        || memmem::find_iter(path, b"/.").any(|at| is_dot_segment(path.get(at + 1..).unwrap_or_default()))
}

/// Whether what follows a slash begins with a dot segment.
fn is_dot_segment(rest: &[u8]) -> bool {
    matches!(rest, [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
}

/// The path with its bytes beyond ASCII written as escapes (RFC 3987 section 3.1), which is how servers read them.
fn escaped(path: &[u8]) -> Result<Cow<'_, [u8]>, NotAPath> {
    if path.iter().any(|byte| *byte < b' ' || matches!(byte, 0x7f | b'#')) {
        return Err(NotAPath);
    }
    if path.is_ascii() {
        return Ok(Cow::Borrowed(path));
    }
    let mut sent = Vec::with_capacity(path.len() * 3);
    for byte in path {
        if byte.is_ascii() { sent.push(*byte) } else { transform::escape(*byte, &mut sent) }
    }
    Ok(Cow::Owned(sent))
}

/// A pattern's text, its characters beyond ASCII written as escapes; `None` for one that no path could hold.
pub(crate) fn escaped_text(text: &str) -> Option<String> {
    String::from_utf8(escaped(text.as_bytes()).ok()?.into_owned()).ok()
}

/// What in a path servers may read differently.
#[derive(Debug, Default)]
struct Marks {
    count: usize,
    has_backslash: bool,
    has_semicolon: bool,
    /// `%2f`, `%5c`
    has_escaped_slash: bool,
    /// `%3b`
    has_escaped_semicolon: bool,
    /// `%25`: decoded, it may begin another escape.
    has_escaped_percent: bool,
    /// An escape of any other reserved character, or of a byte beyond ASCII.
    has_other_escape: bool,
}

impl Marks {
    /// Finds the marks of a path in ASCII.
    ///
    /// # Errors
    /// [`NotAPath`] for a broken escape, an escaped control character, or a path that climbs above the root.
    fn of(sent: &[u8]) -> Result<Self, NotAPath> {
        let mut marks = Self::default();
        for (at, byte) in sent.iter().enumerate() {
            match byte {
                b'\\' => marks.has_backslash = true,
                b';' => marks.has_semicolon = true,
                b'/' if matches!(sent.get(at + 1), Some(b'/' | b'.')) => {}
                b'%' => match unescaped(sent.get(at..).unwrap_or_default()).ok_or(NotAPath)? {
                    0..=0x1f | 0x7f => return Err(NotAPath),
                    b'/' | b'\\' => marks.has_escaped_slash = true,
                    b';' => marks.has_escaped_semicolon = true,
                    b'%' => marks.has_escaped_percent = true,
                    b'.' => {}
                    other => {
                        marks.has_other_escape |= !transform::is_unreserved(other);
                        continue;
                    }
                },
                _ => continue,
            }
            marks.count += 1;
        }
        if transform::climbs(&Mode::PLAIN.read(sent)) { Err(NotAPath) } else { Ok(marks) }
    }

    /// The modes in which the marks make a difference.
    fn modes(&self) -> impl Iterator<Item = Mode> {
        let any_escape = self.has_escaped_slash
            || self.has_escaped_semicolon
            || self.has_escaped_percent
            || self.has_other_escape;
        let decodings = [
            (Decoding::Unreserved, true),
            (Decoding::AllButSlashes, any_escape),
            (Decoding::All, any_escape),
            (Decoding::Twice, self.has_escaped_percent),
        ];
        let semicolon = self.has_semicolon || self.has_escaped_semicolon;
        let parameters = [
            (Parameters::Kept, true),
            (Parameters::CutWhereRaw, self.has_semicolon),
            (Parameters::CutBeforeDecoding, self.has_escaped_semicolon),
            (Parameters::CutAfterDecoding, semicolon || self.has_escaped_percent),
        ];
        let separators: &[_] = if self.has_backslash || self.has_escaped_slash || self.has_escaped_percent {
            Separators::VARIANTS
        } else {
            &[Separators::Slash]
        };
        let decodings = decodings.into_iter().filter_map(|(decoding, differs)| differs.then_some(decoding));
        decodings.flat_map(move |decoding| {
            let parameters = parameters.into_iter().filter_map(|(choice, differs)| differs.then_some(choice));
            parameters.flat_map(move |parameters| {
                separators.iter().map(move |separators| Mode::Read {
                    decoding,
                    parameters,
                    separators: *separators,
                })
            })
        })
    }
}

#[cfg(test)]
#[path = "readings/tests.rs"]
mod tests;
