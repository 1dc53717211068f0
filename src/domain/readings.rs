//! The readings of a request target: every path that a known kind of upstream may take it for.
//!
//! A rule is matched against a path, and the upstream parses the path again in its own way. Servers, and proxies before them,
//! differ in which escapes they decode and how often, in what separates segments, in whether they cut path parameters, resolve
//! dot segments and merge slashes, and in the order of these steps. So the readings are the closure of the target under the
//! steps, whatever their order, and the rule of every reading must hold (`policy::Selection`). A target that all servers read
//! alike has one reading and is not copied.

use memchr::memmem;

pub(crate) mod host;
pub(crate) mod method;
mod steps;

pub(crate) use steps::MAX_LEVEL;
use steps::Step;

/// The most readings that are worked out for one target. A target that a person means has a few; one with more falls under
/// every rule, as does one whose readings cannot be told (`steps::is_unclear`).
const MAX_READINGS: usize = 48;

/// The most bytes of readings that are worked out for one target beside the path as sent, with the same consequence: it bounds
/// the work to a few times that of a plain path of that length.
const MAX_BYTES: usize = 6 * 1024;

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
    /// Servers may read different paths. The first is the path as sent.
    Several(Vec<Reading>),
    /// Working out all readings would cost more than a request may.
    TooMany,
}

/// One path that a target may be read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// How often escapes were decoded. A pattern opens a path only where it was decoded as often.
    pub(crate) level: usize,
    pub(crate) path: Vec<u8>,
}

impl<'a> Readings<'a> {
    /// Reads a request target (RFC 9112 section 3.2): a path and, after a question mark, a query, which is cut.
    ///
    /// # Errors
    /// [`NotAPath`].
    pub(crate) fn of(target: &'a [u8]) -> Result<Self, NotAPath> {
        let path = match first_special(target).map(|at| (target.split_at(at).0, target.get(at))) {
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

    fn of_marked(path: &[u8]) -> Result<Self, NotAPath> {
        let sent = escaped(path)?;
        if sent.first() != Some(&b'/') || !steps::is_well_formed(&sent) || steps::climbs(&sent) {
            return Err(NotAPath);
        }
        Ok(closure(sent).map_or(Self::TooMany, Self::Several))
    }
}

/// All that a path becomes by any steps in any order; `None` if that is too much to work out.
fn closure(sent: Vec<u8>) -> Option<Vec<Reading>> {
    let mut bytes = 0;
    let mut found = vec![Reading { level: 0, path: sent }];
    let mut at = 0;
    while at < found.len() {
        for step in Step::ALL {
            let Some(from) = found.get(at) else { break };
            let level = from.level + step.levels();
            let Some(mut path) = (level <= MAX_LEVEL).then(|| step.apply(&from.path, from.level)).flatten()
            else {
                continue;
            };
            if step.levels() > 0 {
                steps::capitalise_escapes(&mut path);
                if steps::is_unclear(&path) {
                    return None;
                }
            }
            // One that was decoded less often can become all that this one can.
            if found.iter().any(|other| other.level <= level && other.path == path) {
                continue;
            }
            bytes += path.len();
            if found.len() == MAX_READINGS || bytes > MAX_BYTES {
                return None;
            }
            found.push(Reading { level, path });
        }
        at += 1;
    }
    Some(found)
}

/// Every escape decoded once; `None` if there is none.
pub(crate) fn decoded_once(text: &[u8]) -> Option<Vec<u8>> {
    Step::Decode.apply(text, 0)
}

/// What a pattern's text stands for where escapes were decoded so often: none, once, twice.
pub(crate) fn levels(text: &[u8]) -> [Vec<Vec<u8>>; MAX_LEVEL + 1] {
    let mut texts = vec![text.to_vec()];
    std::array::from_fn(|level| {
        if level > 0 {
            let decoded = |step: Step| {
                texts.iter().map(move |text| {
                    let mut text = step.apply(text, level).unwrap_or_else(|| text.clone());
                    steps::capitalise_escapes(&mut text);
                    text
                })
            };
            let all: Vec<_> = decoded(Step::Decode).chain(decoded(Step::DecodeButSlashes)).collect();
            texts = all;
        }
        for step in [Step::DecodeSlash, Step::DecodeBackslash] {
            let decoded: Vec<_> = texts.iter().filter_map(|text| step.apply(text, level)).collect();
            texts.extend(decoded);
        }
        texts.sort_unstable();
        texts.dedup();
        texts.clone()
    })
}

/// Where the first byte stands that not all servers take for itself. In chunks, so that the compiler compares many at a time.
fn first_special(target: &[u8]) -> Option<usize> {
    const CHUNK: usize = 64;
    let special = |byte: &u8| !is_ordinary(*byte);
    let any = |chunk: &[u8]| chunk.iter().fold(false, |found, byte| found | special(byte));
    let before = target.chunks(CHUNK).position(any)? * CHUNK;
    Some(before + target.get(before..)?.iter().position(special)?)
}

fn is_ordinary(byte: u8) -> bool {
    (byte.wrapping_sub(b' ') < 0x7f - b' ')
        & (byte != b'%')
        & (byte != b'?')
        & (byte != b'#')
        & (byte != b'\\')
        & (byte != b';')
}

/// Whether a path has a dot segment (RFC 3986 section 3.3) or a repeated slash.
pub(crate) fn has_structure(path: &[u8]) -> bool {
    memmem::find(path, b"//").is_some()
        || memmem::find_iter(path, b"/.")
            .any(|at| steps::is_dot_segment(path.get(at + 1..).unwrap_or_default()))
}

/// The path with its bytes beyond ASCII written as escapes (RFC 3987 section 3.1), which is how servers read them, and with
/// escapes in capitals.
fn escaped(path: &[u8]) -> Result<Vec<u8>, NotAPath> {
    if path.iter().any(|byte| *byte < b' ' || matches!(byte, 0x7f | b'#')) {
        return Err(NotAPath);
    }
    let mut sent = Vec::with_capacity(path.len());
    for byte in path {
        if byte.is_ascii() { sent.push(*byte) } else { steps::escape(*byte, &mut sent) }
    }
    steps::capitalise_escapes(&mut sent);
    Ok(sent)
}

/// A pattern's text, its characters beyond ASCII written as escapes; `None` for one that no path could hold.
pub(crate) fn escaped_text(text: &str) -> Option<String> {
    String::from_utf8(escaped(text.as_bytes()).ok()?).ok()
}

#[cfg(test)]
#[path = "readings/tests.rs"]
mod tests;
