//! Finds requests whose target has a fragment (`#`). The http crate cuts it while it parses the target: hyper hands on `/public`
//! for `/public#/../admin`, and a rule would be matched against a path that is not the one that the proxy forwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

use super::wrong_protocol::FirstBytes;

/// An extension of a request: its target may have been longer than it looks. Over HTTP/1.1 the target, or that of a request right
/// behind it, had a fragment. HTTP/2 compresses its headers, so over HTTP/2 any target may have had one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MayBeCut;

/// What is between the target and the end of the request line. httparse, by which hyper reads, takes one space, capital letters
/// and no other version.
const VERSION: &[u8] = b" HTTP/1.";

/// Whether a fragment has been seen on a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct FragmentSeen(Arc<AtomicBool>);

impl FragmentSeen {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The stream, with a look for fragments at the bytes before its reader gets them, and at the first of them. `None`: nothing is
/// looked for.
pub(super) fn watch<S: AsyncRead>(
    stream: S,
    seen: Option<FragmentSeen>,
    mut first_bytes: Option<FirstBytes>,
) -> InspectReader<S, impl FnMut(&[u8]) + Send> {
    let mut search = Search::Hash;
    InspectReader::new(stream, move |bytes| {
        if let Some(first) = first_bytes.take_if(|_| !bytes.is_empty()) {
            first.note(bytes);
        }
        if let Some(FragmentSeen(seen)) = &seen {
            search = search.go_on(bytes);
            if search == Search::Found {
                seen.store(true, Ordering::Relaxed);
            }
        }
    })
}

/// A search for `#`, characters of a target, and [`VERSION`], in a stream that comes in pieces. Where a request begins in the
/// stream need not be known for it, so no body can hide a request line. A header or a body may hold the same text: then the
/// request is refused without need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// For `#`.
    Hash,
    /// Behind `#`, for the end of the target.
    End,
    /// For the rest of [`VERSION`], of which so many bytes were there.
    Version(usize),
    Found,
}

impl Search {
    fn go_on(mut self, mut bytes: &[u8]) -> Self {
        loop {
            if self == Self::Found {
                return self;
            }
            if self == Self::Hash {
                let Some(at) = memchr::memchr(b'#', bytes) else { return self };
                bytes = bytes.get(at..).unwrap_or_default();
            }
            let Some((byte, rest)) = bytes.split_first() else { return self };
            bytes = rest;
            self = match (self, byte) {
                (Self::Version(matched), byte) if VERSION.get(matched) == Some(byte) => {
                    if matched + 1 == VERSION.len() { Self::Found } else { Self::Version(matched + 1) }
                }
                (_, b'#') => Self::End,
                (Self::End, b' ') => Self::Version(1),
                (Self::End, byte) if *byte > b' ' && *byte != 0x7f => Self::End,
                _ => Self::Hash,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fragments_in_request_lines_are_found_in_any_pieces() {
        for (text, want) in [
            ("GET /a#b HTTP/1.1\r\n\r\n", true),
            ("GET /a# HTTP/1.0\n\n", true),
            ("GET /a?b#c#d HTTP/1.1\r\n", true),
            ("GET http://h/a#b HTTP/1.1\r\n", true),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET /a#\u{e9} HTTP/1.1\r\n", true),
            ("x# HTTP# HTTP/1.1", true),
            ("# HTTP/1#/ HTTP/1.1", true),
            // Text that only looks like a request line: refused without need.
            ("GET / HTTP/1.1\r\nreferer: /#a HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nreferer: https://a.example/#top\r\ncookie: a=#\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nx: #\r\n HTTP/1.1\r\n\r\n", false),
            ("GET /a%23b HTTP/1.1\r\nx: #\r\n\r\nGET / HTTP/1.1\r\n\r\n", false),
            // What hyper does not read as a request line.
            ("GET /a#b  HTTP/1.1\r\n", false),
            ("GET /a#b http/1.1\r\n", false),
            ("GET /a#b\tHTTP/1.1\r\n", false),
            ("", false),
        ] {
            for cut in 0..=text.len() {
                let (one, other) = text.as_bytes().split_at(cut);
                let found = Search::Hash.go_on(one).go_on(other) == Search::Found;
                assert_eq!(found, want, "{text} cut at {cut}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        /// Every request that hyper's parser reads, and whose target the http crate cuts.
        #[test]
        fn no_cut_target_goes_unseen(
            target in "/[a#? %~]{0,6}",
            between in prop::sample::select(vec![" ", "  ", "\t"]),
            version in prop::sample::select(vec!["HTTP/1.1", "HTTP/1.0", "http/1.1", "HTTP/2.0"]),
            end in prop::sample::select(vec!["\r\n\r\n", "\n\n", "\r\nx: y\r\n\r\n", " \r\n\r\n"]),
            before in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let line = format!("GET {target}{between}{version}{end}");
            // hyper reads with httparse, and so does the http crate's cut follow from its target.
            let cut = target.parse::<http::Uri>().is_ok_and(|uri| uri.to_string() != target);
            let is_read = between == " " && version.starts_with("HTTP/1.") && end != " \r\n\r\n" && !target.contains(' ');
            if cut && is_read {
                let bytes = [&before, line.as_bytes()].concat();
                prop_assert_eq!(Search::Hash.go_on(&bytes), Search::Found, "{}", line);
            }
        }
    }
}
