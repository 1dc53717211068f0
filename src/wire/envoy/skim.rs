//! Leaves the request's body out of an encoded `CheckRequest` while the message arrives in pieces. Envoy sends bodies with
//! `with_request_body`; no rule looks at one, and a hundred calls with a MiB each would hold a hundred MiB until their messages
//! were whole.
//!
//! What is left is a message with the same meaning, for [`super::view`]: the lengths of the messages around the body are written
//! anew in their old places. Protocol Buffers allow a varint to be longer than it must be (Encoding, "Base 128 Varints").

use bytes::{Bytes, BytesMut};

use super::scan::field;

/// The messages around a body, from the outside in: where they are, and the fields by which they are entered.
const WAY: [u32; 3] = [field::CHECK_ATTRIBUTES, field::ATTRIBUTES_REQUEST, field::REQUEST_HTTP];

/// The fields of an `HttpRequest` that hold its body: as text, or as bytes.
const BODIES: [u32; 2] = [field::HTTP_BODY, field::HTTP_RAW_BODY];

/// The longest varint.
const MAX_VARINT_BYTES: usize = 10;

/// A message that arrives in pieces. Each byte is looked at once, so the work is linear.
#[derive(Default)]
pub(crate) struct Skimmer {
    /// All that has arrived, but for bodies and for `header`.
    kept: BytesMut,
    /// The beginning of a field: its tag, and its length or its number, until they are whole.
    header: Vec<u8>,
    /// The bytes of a field's content that are still to come, and kept.
    to_keep: usize,
    /// The bytes of a body that are still to come, and left out.
    to_leave_out: usize,
    /// The messages around the next field, from the outside in.
    open: Vec<Open>,
    /// Whether something was met that is not understood here: from then on all is kept, and the scan judges it.
    is_verbatim: bool,
}

/// A message on the [`WAY`].
struct Open {
    /// Where its length is written.
    length_at: usize,
    length_bytes: usize,
    content_at: usize,
    /// Where it ends in `kept`; each byte that is left out moves the end.
    end: usize,
}

/// What begins with a field's header.
struct Field {
    /// Of a field with a length.
    number: Option<u64>,
    tag_bytes: usize,
    length_bytes: usize,
    /// The bytes after the header.
    content: usize,
}

/// The bytes are no field, or one that is not read here.
struct NotRead;

impl Skimmer {
    /// Adds the next piece of the message.
    pub(crate) fn add(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.is_verbatim {
                self.kept.extend_from_slice(piece);
                return;
            }
            if self.to_leave_out > 0 {
                piece = piece.get(take(&mut self.to_leave_out, piece)..).unwrap_or_default();
            } else if self.to_keep > 0 {
                let (kept, rest) = piece.split_at(take(&mut self.to_keep, piece));
                self.kept.extend_from_slice(kept);
                piece = rest;
            } else {
                self.close_ended();
                let Some((first, rest)) = piece.split_first() else { return };
                self.header.push(*first);
                self.read_header();
                piece = rest;
            }
        }
    }

    /// The bytes that are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.len() + self.header.len()
    }

    /// The message without its bodies.
    pub(crate) fn finish(mut self) -> Bytes {
        self.kept.extend_from_slice(&self.header);
        while let Some(open) = self.open.pop() {
            self.close(&open);
        }
        self.kept.freeze()
    }

    /// Goes on with the content of a field, once its header is whole.
    fn read_header(&mut self) {
        let field = match field_of(&self.header) {
            Ok(None) => return,
            Ok(Some(field)) => field,
            Err(NotRead) => return self.keep_all(),
        };
        let header_bytes = self.header.len();
        let content_at = self.kept.len() + header_bytes;
        let end = content_at.checked_add(field.content);
        let Some(end) = end.filter(|end| self.open.last().is_none_or(|open| *end <= open.end)) else {
            // Longer than the message that it is in.
            return self.keep_all();
        };
        let is = |number: u32| field.number == Some(u64::from(number));
        if self.open.len() == WAY.len() && BODIES.into_iter().any(is) {
            self.header.clear();
            self.to_leave_out = field.content;
            for open in &mut self.open {
                open.end -= header_bytes + field.content;
            }
            return;
        }
        if WAY.get(self.open.len()).is_some_and(|number| is(*number)) {
            let length_at = self.kept.len() + field.tag_bytes;
            self.open.push(Open { length_at, length_bytes: field.length_bytes, content_at, end });
        } else {
            self.to_keep = field.content;
        }
        self.kept.extend_from_slice(&std::mem::take(&mut self.header));
    }

    fn keep_all(&mut self) {
        self.is_verbatim = true;
        self.kept.extend_from_slice(&std::mem::take(&mut self.header));
    }

    /// Leaves the messages that end before the next field.
    fn close_ended(&mut self) {
        if !self.header.is_empty() {
            return;
        }
        let at = self.kept.len();
        while let Some(open) = self.open.pop_if(|open| open.end == at) {
            self.close(&open);
        }
    }

    /// Writes the length that a message has without what was left out, as wide as before.
    fn close(&mut self, open: &Open) {
        let mut length = open.end - open.content_at;
        let place = self.kept.get_mut(open.length_at..open.length_at + open.length_bytes);
        let Some((last, before)) = place.and_then(<[u8]>::split_last_mut) else { return };
        let mut next_group = || {
            let group = u8::try_from(length & 0x7f).unwrap_or_default();
            length >>= 7;
            group
        };
        before.iter_mut().for_each(|byte| *byte = next_group() | 0x80);
        *last = next_group();
    }
}

/// Takes as many bytes of a piece as are wanted, and as it has.
fn take(wanted: &mut usize, piece: &[u8]) -> usize {
    let taken = piece.len().min(*wanted);
    *wanted -= taken;
    taken
}

/// The field that a header begins; `None` if the header is not whole.
fn field_of(header: &[u8]) -> Result<Option<Field>, NotRead> {
    let Some((tag, tag_bytes)) = varint(header)? else { return Ok(None) };
    let value = header.get(tag_bytes..).unwrap_or_default();
    let plain = |content| Field { number: None, tag_bytes, length_bytes: 0, content };
    Ok(match tag & 7 {
        0 => varint(value)?.map(|_| plain(0)),
        1 => Some(plain(8)),
        5 => Some(plain(4)),
        2 => varint(value)?.map(|(length, length_bytes)| Field {
            number: Some(tag >> 3),
            length_bytes,
            ..plain(usize::try_from(length).unwrap_or(usize::MAX))
        }),
        // Groups, which are obsolete, and what is no field.
        _ => return Err(NotRead),
    })
}

/// A varint and its length; `None` if it has not arrived whole.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, NotRead> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate() {
        // The tenth group has one bit: 9 times 7 is 63.
        if at + 1 == MAX_VARINT_BYTES && *byte > 1 {
            return Err(NotRead);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return Ok(Some((value, at + 1)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scan::scan;
    use super::*;

    fn skimmed(message: &[u8], cuts: &[usize]) -> Bytes {
        let mut skimmer = Skimmer::default();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([message.len()]) {
            let cut = cut.clamp(from, message.len());
            skimmer.add(&message[from..cut]);
            from = cut;
        }
        skimmer.finish()
    }

    /// A field with a length.
    fn encoded(number: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        [&bytes[..], content].concat()
    }

    fn check(http: &[u8], more: &[u8]) -> Vec<u8> {
        encoded(1, &[encoded(4, &encoded(2, http)), more.to_vec()].concat())
    }

    /// The body is gone, and all else reads as before.
    fn same_but_for_the_body(message: &[u8], skimmed: &[u8]) {
        let (Ok(before), Ok(after)) = (scan(message), scan(skimmed)) else {
            assert_eq!(scan(message).is_err(), scan(skimmed).is_err(), "{message:x?} {skimmed:x?}");
            return;
        };
        let parts = |scanned: &super::super::scan::Scanned<'_>| {
            let request = &scanned.request;
            let owned = |bytes: &[u8]| bytes.to_vec();
            let headers: Vec<_> =
                request.headers.iter().map(|(name, value)| (owned(name), owned(value))).collect();
            let strings = [request.method, request.path, request.host].map(owned);
            (strings, headers, request.rule.map(owned), scanned.is_http, scanned.has_unclear_rule)
        };
        assert_eq!(parts(&before), parts(&after));
    }

    #[test]
    fn a_body_is_left_out_wherever_the_message_is_cut() {
        let header = encoded(3, &[encoded(1, b"cookie"), encoded(2, b"a=b")].concat());
        for (kind, length) in [(11, 3), (12, 3), (11, 300), (12, 0)] {
            let http = [
                encoded(2, b"GET"),
                header.clone(),
                encoded(4, b"/a"),
                vec![0x48, 0xff, 0x01],
                encoded(kind, &vec![b'x'; length]),
                encoded(13, &encoded(1, &[encoded(1, b"n"), encoded(3, b"v")].concat())),
                encoded(5, b"host"),
            ];
            let extension = encoded(10, &[encoded(1, b"rule"), encoded(2, b"r")].concat());
            let message = check(&http.concat(), &extension);
            for one in 0..=message.len() {
                for other in [one, one + 1, one + 2, one + 7, one + 200] {
                    let skimmed = skimmed(&message, &[one, other]);
                    same_but_for_the_body(&message, &skimmed);
                    assert!(!skimmed.windows(2).any(|pair| pair == b"xx"));
                }
            }
            let bytes: Vec<_> = (0..message.len()).collect();
            same_but_for_the_body(&message, &skimmed(&message, &bytes));
        }
        // Two bodies, and fields of the same numbers elsewhere.
        let message =
            check(&[encoded(11, b"xx"), encoded(4, b"/a"), encoded(12, b"xx")].concat(), &encoded(11, b"yy"));
        let skimmed = skimmed(&message, &[5]);
        same_but_for_the_body(&message, &skimmed);
        assert!(
            skimmed.windows(2).any(|pair| pair == b"yy") && !skimmed.windows(2).any(|pair| pair == b"xx")
        );
    }

    #[test]
    fn a_megabyte_in_frames_is_never_held() {
        let message =
            check(&[encoded(4, b"/a"), encoded(11, &vec![b'x'; 1 << 20]), encoded(5, b"h")].concat(), b"");
        let mut skimmer = Skimmer::default();
        for frame in message.chunks(16 * 1024) {
            skimmer.add(frame);
            assert!(skimmer.len() < 100, "{}", skimmer.len());
        }
        let left = skimmer.finish();
        same_but_for_the_body(&message, &left);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        /// Messages of fields in any order, damaged or not, in any pieces.
        #[test]
        fn every_message_reads_as_without_skimming(
            fields in proptest::collection::vec((0..16_u32, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            attributes in proptest::collection::vec((0..13_u32, proptest::collection::vec(any::<u8>(), 0..10)), 0..3),
            damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cuts in proptest::collection::vec(0..300_usize, 0..6),
        ) {
            let encode = |fields: &[(u32, Vec<u8>)]| -> Vec<u8> {
                fields.iter().flat_map(|(number, content)| encoded((*number).max(1), content)).collect()
            };
            let mut message = check(&encode(&fields), &encode(&attributes));
            if let Some((at, byte)) = damage {
                *at.get_mut(&mut message) = byte;
            }
            let mut cuts = cuts;
            cuts.sort_unstable();
            same_but_for_the_body(&message, &skimmed(&message, &cuts));
        }

        #[test]
        fn noise_reads_as_without_skimming(
            message in proptest::collection::vec(any::<u8>(), 0..60),
            cuts in proptest::collection::vec(0..60_usize, 0..4),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            same_but_for_the_body(&message, &skimmed(&message, &cuts));
            let nested = check(&message, &message);
            same_but_for_the_body(&nested, &skimmed(&nested, &cuts));
        }
    }
}
