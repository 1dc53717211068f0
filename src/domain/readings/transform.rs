//! The steps in which servers read a path: cutting parameters, decoding escapes, taking other characters for slashes, then
//! resolving dot segments and merging slashes.

use std::borrow::Cow;

use memchr::{memchr2, memmem, memrchr};
use strum::VariantArray;

/// Which escapes a server decodes (RFC 3986 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub(crate) enum Decoding {
    /// Those of unreserved characters, which mean the same either way (RFC 3986 section 6.2.2.2); the others are written in
    /// capitals.
    Unreserved,
    /// All but `%2f` and `%5c`.
    AllButSlashes,
    /// All.
    All,
    /// All, and then all that this brought forth.
    Twice,
}

/// What a server does with path parameters (RFC 3986 section 3.3): the part of a segment from its first semicolon on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub(crate) enum Parameters {
    Kept,
    /// Cut before escapes are decoded; `%3b` begins none.
    CutWhereRaw,
    /// Cut before escapes are decoded; `%3b` begins one as well.
    CutBeforeDecoding,
    /// Cut after escapes were decoded.
    CutAfterDecoding,
}

/// What separates segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub(crate) enum Separators {
    /// The slash, and `%2f` where it is decoded.
    Slash,
    /// `\` and `%5c` as well.
    Backslash,
    /// `\`, `%5c` and `%2f` as well.
    All,
}

/// How the characters of a path are read, before dot segments and repeated slashes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Not at all.
    AsSent,
    Read {
        decoding: Decoding,
        parameters: Parameters,
        separators: Separators,
    },
}

/// What is done to dot segments and repeated slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Repeated slashes are merged; dots stay.
    Merge,
    /// RFC 3986 section 5.2.4; an empty segment is one.
    Dots,
    MergeThenDots,
    DotsThenMerge,
}

impl Mode {
    pub(crate) const PLAIN: Self = Self::Read {
        decoding: Decoding::Unreserved,
        parameters: Parameters::Kept,
        separators: Separators::Slash,
    };

    /// All modes, each at its [index](Self::index).
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let read = Decoding::VARIANTS.iter().flat_map(|decoding| {
            Parameters::VARIANTS.iter().flat_map(|parameters| {
                Separators::VARIANTS.iter().map(|separators| Self::Read {
                    decoding: *decoding,
                    parameters: *parameters,
                    separators: *separators,
                })
            })
        });
        std::iter::once(Self::AsSent).chain(read)
    }

    /// Its place among all of them.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::AsSent => 0,
            Self::Read { decoding, parameters, separators } => {
                1 + (decoding as usize * Parameters::VARIANTS.len() + parameters as usize)
                    * Separators::VARIANTS.len()
                    + separators as usize
            }
        }
    }

    pub(super) const fn keeps_parameters(self) -> bool {
        matches!(self, Self::Read { parameters: Parameters::Kept, .. })
    }

    /// Reads a path in this mode. What is no escape in it, once it has been decoded, stays as it is: a strict server refuses
    /// such a path, a lenient one goes on with the rest.
    pub(crate) fn read(self, sent: &[u8]) -> Vec<u8> {
        let Self::Read { decoding, parameters, separators } = self else { return sent.to_vec() };
        let cut = match parameters {
            Parameters::Kept | Parameters::CutAfterDecoding => Cow::Borrowed(sent),
            Parameters::CutWhereRaw => Cow::Owned(without_parameters(sent, false)),
            Parameters::CutBeforeDecoding => Cow::Owned(without_parameters(sent, true)),
        };
        let mut path = decoded(&cut, decoding, separators);
        if decoding == Decoding::Twice {
            path = decoded(&path, Decoding::All, separators);
        }
        match parameters {
            Parameters::CutAfterDecoding => without_parameters(&path, true),
            Parameters::Kept | Parameters::CutWhereRaw | Parameters::CutBeforeDecoding => path,
        }
    }
}

/// RFC 3986 section 2.3.
pub(super) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The byte of the escape that this begins with.
pub(super) fn unescaped(text: &[u8]) -> Option<u8> {
    if text.first() != Some(&b'%') {
        return None;
    }
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// Writes a byte as an escape.
pub(super) fn escape(byte: u8, path: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    path.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
}

/// Whether escapes in a row are a character in a longer form than its shortest (RFC 3629 section 3): a lax decoder finds a
/// dot or a slash in it.
pub(super) fn overlong(sent: &[u8]) -> bool {
    memchr::memchr_iter(b'%', sent).any(|at| {
        let escape_at = |at: usize| sent.get(at..).and_then(unescaped);
        // The least second byte of a character of three, four, five and six bytes.
        let least = match escape_at(at) {
            Some(0xc0 | 0xc1) => return true,
            Some(0xe0) => 0xa0,
            Some(0xf0) => 0x90,
            Some(0xf8) => 0x88,
            Some(0xfc) => 0x84,
            _ => return false,
        };
        escape_at(at + 3).is_some_and(|second| (0x80..least).contains(&second))
    })
}

fn decoded(path: &[u8], decoding: Decoding, separators: Separators) -> Vec<u8> {
    let separates = |byte: u8| match separators {
        Separators::Slash => false,
        Separators::Backslash => byte == b'\\',
        Separators::All => matches!(byte, b'/' | b'\\'),
    };
    let mut read = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = memchr2(b'%', b'\\', rest) {
        let (before, marked) = rest.split_at_checked(at).unwrap_or_default();
        read.extend_from_slice(before);
        let escaped = unescaped(marked);
        let length = if escaped.is_some() { 3 } else { 1 };
        match escaped.or(marked.first().copied()) {
            Some(byte) if separates(byte) => read.push(b'/'),
            Some(byte) if escaped.is_none() || decodes(decoding, byte) => read.push(byte),
            Some(byte) => escape(byte, &mut read),
            None => {}
        }
        rest = marked.get(length..).unwrap_or_default();
    }
    read.extend_from_slice(rest);
    read
}

const fn decodes(decoding: Decoding, byte: u8) -> bool {
    match decoding {
        Decoding::Unreserved => is_unreserved(byte),
        Decoding::AllButSlashes => !matches!(byte, b'/' | b'\\'),
        Decoding::All | Decoding::Twice => true,
    }
}

/// Cuts each segment at its first semicolon, and at `%3b` if that is one as well.
fn without_parameters(path: &[u8], escaped_too: bool) -> Vec<u8> {
    let mut kept = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = memchr2(b';', b'%', rest) {
        let (before, marked) = rest.split_at_checked(at).unwrap_or_default();
        kept.extend_from_slice(before);
        let begins_one = marked.first() == Some(&b';') || (escaped_too && unescaped(marked) == Some(b';'));
        let end = if begins_one {
            memchr::memchr(b'/', marked).unwrap_or(marked.len())
        } else {
            kept.extend_from_slice(marked.get(..1).unwrap_or_default());
            1
        };
        rest = marked.get(end..).unwrap_or_default();
    }
    kept.extend_from_slice(rest);
    kept
}

/// Whether a path has more `..` than segments before them, repeated slashes merged.
pub(super) fn climbs(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    memmem::find(path, b"..").is_some()
        && path.split(|byte| *byte == b'/').any(|segment| {
            match segment {
                b"" | b"." => {}
                b".." => match depth.checked_sub(1) {
                    Some(above) => depth = above,
                    None => return true,
                },
                _ => depth += 1,
            }
            false
        })
}

impl Resolution {
    pub(super) const fn ends_in_dots(self) -> bool {
        matches!(self, Self::Dots | Self::MergeThenDots)
    }

    /// Those that change a path.
    pub(super) fn of(path: &[u8]) -> &'static [Self] {
        let repeats = memmem::find(path, b"//").is_some();
        let dots = memmem::find_iter(path, b"/.")
            .any(|at| super::is_dot_segment(path.get(at + 1..).unwrap_or_default()));
        match (repeats, dots) {
            (false, false) => &[],
            (true, false) => &[Self::Merge],
            (false, true) => &[Self::Dots],
            // Dots after a slash too many take it away, or the segment before it.
            (true, true) => &[Self::Merge, Self::Dots, Self::MergeThenDots, Self::DotsThenMerge],
        }
    }
}

/// Resolves a path in one of the ways.
pub(super) fn resolved(path: &[u8], resolution: Resolution) -> Vec<u8> {
    match resolution {
        Resolution::Merge => merged(path),
        Resolution::Dots => without_dots(path),
        Resolution::MergeThenDots => without_dots(&merged(path)),
        Resolution::DotsThenMerge => merged(&without_dots(path)),
    }
}

fn merged(path: &[u8]) -> Vec<u8> {
    let mut merged = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = memmem::find(rest, b"//") {
        let (before, slashes) = rest.split_at_checked(at).unwrap_or_default();
        merged.extend_from_slice(before);
        let repeated = slashes.iter().take_while(|byte| **byte == b'/').count();
        // The last of them stays with what follows.
        rest = slashes.get(repeated - 1..).unwrap_or_default();
    }
    merged.extend_from_slice(rest);
    merged
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash; what climbs above the root stops there.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = memmem::find(rest, b"/.") {
        let (before, dots) = rest.split_at_checked(at).unwrap_or_default();
        kept.extend_from_slice(before);
        let segment = dots.get(1..).unwrap_or_default();
        let end = memchr::memchr(b'/', segment).unwrap_or(segment.len());
        let (segment, after) = segment.split_at_checked(end).unwrap_or_default();
        match segment {
            b"." => {}
            b".." => kept.truncate(memrchr(b'/', &kept).unwrap_or(0)),
            other => {
                kept.push(b'/');
                kept.extend_from_slice(other);
                rest = after;
                continue;
            }
        }
        // A dot segment at the end leaves the slash before it.
        rest = if after.is_empty() { b"/" } else { after };
    }
    kept.extend_from_slice(rest);
    kept
}
