//! The steps in which servers read a path. Each is one thing that some server does, alone; `readings` takes them in every
//! order.

use memchr::{memchr, memchr2, memmem, memrchr};

/// How often escapes are decoded: once by a server, and once by what stands before or behind it.
pub(crate) const MAX_LEVEL: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Escapes of unreserved characters, which mean the same either way (RFC 3986 section 6.2.2.2).
    DecodeUnreserved,
    /// `%2f` alone: a server that takes it for a slash and leaves other escapes to later.
    DecodeSlash,
    /// `%5c` alone.
    DecodeBackslash,
    /// `\` is `/` (the URL standard, and servers on Windows).
    BackslashIsSlash,
    /// Path parameters (RFC 3986 section 3.3) are cut: each segment from its first semicolon on (the servlet specification).
    CutParameters,
    /// The same, and `%3b` begins one as well.
    CutEscapedParameters,
    /// The path ends at its first semicolon, which begins the query (find-my-way, hence Fastify).
    CutAtSemicolon,
    /// The path ends at a question mark or number sign that was an escape before.
    CutAtDecodedQuery,
    MergeSlashes,
    /// Dot segments are resolved (RFC 3986 section 5.2.4); an empty segment is one, and what climbs above the root stops there.
    ResolveDots,
    /// What follows two slashes is a host (RFC 3986 section 4.2, the URL standard): it is no part of the path.
    CutAuthority,
    /// The same for those that end a host at a slash alone, and not at a backslash.
    CutAuthorityAtSlash,
    /// Every escape is its byte.
    Decode,
    /// Every escape but `%2f` and `%5c`.
    DecodeButSlashes,
    /// Bytes that are no UTF-8 are left out (decoders that ignore errors).
    DropInvalidUtf8,
}

impl Step {
    /// Those that decode nothing come first: what they lead to can still be decoded.
    pub(super) const ALL: [Self; 15] = [
        Self::DecodeUnreserved,
        Self::DecodeSlash,
        Self::DecodeBackslash,
        Self::BackslashIsSlash,
        Self::CutParameters,
        Self::CutEscapedParameters,
        Self::CutAtSemicolon,
        Self::CutAtDecodedQuery,
        Self::MergeSlashes,
        Self::ResolveDots,
        Self::CutAuthority,
        Self::CutAuthorityAtSlash,
        Self::Decode,
        Self::DecodeButSlashes,
        Self::DropInvalidUtf8,
    ];

    /// How many times it decodes.
    pub(super) const fn levels(self) -> usize {
        matches!(self, Self::Decode | Self::DecodeButSlashes) as usize
    }

    /// What a path becomes by it; `None` if it stays as it is. Escapes were decoded `level` times before.
    pub(super) fn apply(self, path: &[u8], level: usize) -> Option<Vec<u8>> {
        match self {
            Self::DecodeUnreserved => decoded(path, is_unreserved),
            Self::DecodeSlash => decoded(path, |byte| byte == b'/'),
            Self::DecodeBackslash => decoded(path, |byte| byte == b'\\'),
            Self::Decode => decoded(path, |_| true),
            Self::DecodeButSlashes => decoded(path, |byte| !matches!(byte, b'/' | b'\\')),
            Self::BackslashIsSlash => memchr(b'\\', path)
                .map(|_| path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()),
            Self::CutParameters => memchr(b';', path).map(|_| without_parameters(path, false)),
            Self::CutEscapedParameters => {
                Some(without_parameters(path, true)).filter(|cut| cut.len() < path.len())
            }
            Self::CutAtSemicolon => memchr(b';', path).and_then(|at| path.get(..at)).map(<[u8]>::to_vec),
            Self::CutAtDecodedQuery if level > 0 => {
                memchr2(b'?', b'#', path).and_then(|at| path.get(..at)).map(<[u8]>::to_vec)
            }
            Self::CutAtDecodedQuery => None,
            Self::MergeSlashes => memmem::find(path, b"//").map(|_| merged(path)),
            Self::ResolveDots => Some(without_dots(path)).filter(|resolved| resolved != path),
            Self::CutAuthority => without_authority(path, |byte| matches!(byte, b'/' | b'\\')),
            Self::CutAuthorityAtSlash => without_authority(path, |byte| byte == b'/'),
            Self::DropInvalidUtf8 => str::from_utf8(path)
                .is_err()
                .then(|| path.utf8_chunks().flat_map(|chunk| chunk.valid().as_bytes()).copied().collect()),
        }
    }
}

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The byte of the escape that this begins with.
fn unescaped(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    if text.first() == Some(&b'%') { u8::try_from(digit(1)? * 16 + digit(2)?).ok() } else { None }
}

/// Writes a byte as an escape.
pub(super) fn escape(byte: u8, path: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    path.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
}

/// Whether every percent sign begins an escape, none of a control character, and none in a row that is a character in a longer
/// form than its shortest (RFC 3629 section 3): a lax decoder finds a dot or a slash in it.
pub(super) fn is_well_formed(sent: &[u8]) -> bool {
    let escape_at = |at: usize| sent.get(at..).and_then(unescaped);
    memchr::memchr_iter(b'%', sent).all(|at| {
        // The least second byte of a character of three, four, five and six bytes.
        let least = match escape_at(at) {
            None | Some(0..=0x1f | 0x7f | 0xc0 | 0xc1) => return false,
            Some(0xe0) => 0xa0,
            Some(0xf0) => 0x90,
            Some(0xf8) => 0x88,
            Some(0xfc) => 0x84,
            Some(_) => return true,
        };
        !escape_at(at + 3).is_some_and(|second| (0x80..least).contains(&second))
    })
}

/// Whether a path, its unreserved characters decoded, has more `..` than segments before them, empty ones not counted.
pub(super) fn climbs(sent: &[u8]) -> bool {
    let plain = Step::DecodeUnreserved.apply(sent, 0);
    let path = plain.as_deref().unwrap_or(sent);
    let mut depth = 0_usize;
    path.split(|byte| *byte == b'/').any(|segment| {
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

/// The path with these escapes as their bytes. What is no escape, once others have been decoded, stays as it is: a strict
/// server refuses such a path, a lenient one goes on with the rest.
fn decoded(path: &[u8], decodes: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    let mut read: Option<Vec<u8>> = None;
    let mut copied = 0;
    for at in memchr::memchr_iter(b'%', path) {
        let Some(byte) = path.get(at..).and_then(unescaped).filter(|byte| decodes(*byte)) else { continue };
        // An escape within the one before it is none: `%2` of `%252f` ends it.
        if at < copied {
            continue;
        }
        let read = read.get_or_insert_with(|| Vec::with_capacity(path.len()));
        read.extend_from_slice(path.get(copied..at).unwrap_or_default());
        read.push(byte);
        copied = at + 3;
    }
    let mut read = read?;
    read.extend_from_slice(path.get(copied..).unwrap_or_default());
    Some(read)
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
            memchr(b'/', marked).unwrap_or(marked.len())
        } else {
            kept.extend_from_slice(marked.get(..1).unwrap_or_default());
            1
        };
        rest = marked.get(end..).unwrap_or_default();
    }
    kept.extend_from_slice(rest);
    kept
}

/// Whether what follows a slash begins with a dot segment.
pub(super) fn is_dot_segment(rest: &[u8]) -> bool {
    matches!(rest, [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
}

fn merged(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    merged
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = memmem::find(rest, b"/.") {
        let (before, dots) = rest.split_at_checked(at).unwrap_or_default();
        kept.extend_from_slice(before);
        let segment = dots.get(1..).unwrap_or_default();
        let end = memchr(b'/', segment).unwrap_or(segment.len());
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

/// What follows the host, if a path begins as a reference with one does; before it, a backslash counts as a slash.
fn without_authority(path: &[u8], ends_host: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    let slashes = path.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
    let after = path.get(slashes..).filter(|_| slashes > 1)?;
    let host = after.iter().take_while(|byte| !ends_host(**byte)).count();
    let rest = after.get(host..).unwrap_or_default();
    Some(if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() })
}

/// Writes the digits of escapes as capitals: their case means nothing (RFC 3986 section 6.2.2.1).
pub(super) fn capitalise_escapes(path: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = path.get(at..).and_then(|rest| memchr(b'%', rest)) {
        at += found + 1;
        if let Some(digits) = path.get_mut(at..at + 2)
            && digits.iter().all(u8::is_ascii_hexdigit)
        {
            digits.make_ascii_uppercase();
        }
    }
}

/// Whether a decoded path has what a request's own path must not have, so that a second decoder behind the first one may find any
/// character in it or none: a control character, a character in a longer form than its shortest, or `%uXXXX`.
pub(super) fn is_unclear(path: &[u8]) -> bool {
    let is_control = |byte: &u8| *byte < b' ' || *byte == 0x7f;
    let is_overlong =
        |pair: &[u8]| matches!(pair, [0xc0 | 0xc1, _] | [0xe0, 0x80..0xa0] | [0xf0, 0x80..0x90]);
    let is_unicode_escape = |at: usize| {
        let digits = path.get(at + 2..at + 6);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    path.iter().any(is_control)
        || (!path.is_ascii() && path.windows(2).any(is_overlong))
        || memmem::find_iter(path, b"%u").chain(memmem::find_iter(path, b"%U")).any(is_unicode_escape)
}
