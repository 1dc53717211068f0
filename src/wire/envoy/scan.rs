//! Reads what a check needs out of an encoded `CheckRequest` and skips the rest: Envoy sends some forty strings, of
//! which five matter. Everything is borrowed from the message. The tests compare with prost's decoding of the same
//! bytes.

use crate::domain::request::Request;

/// The bytes are no `CheckRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What the message has; absent parts are empty.
#[derive(Default)]
pub(super) struct Scanned<'a> {
    pub(super) request: Request<'a>,
    /// Whether the message has an HTTP request.
    pub(super) is_http: bool,
    /// Whether the route names more than one rule, or under a key that is not [`RULE`] but was meant to be.
    pub(super) has_unclear_rule: bool,
}

/// The key of `context_extensions` that picks a rule by its name.
const RULE: &[u8] = b"rule";

/// Whether a key of `context_extensions` is a misspelt [`RULE`]: `Rule`, `RULE`, `rules`. Envoy hands the keys on as they are
/// configured, and a request on such a route would fall under no picked rule without a word. Other keys belong to other
/// services.
fn is_misspelt_rule(key: &[u8]) -> bool {
    key != RULE && (key.eq_ignore_ascii_case(RULE) || key.eq_ignore_ascii_case(b"rules"))
}

/// Field numbers of the messages in proto/, and of Envoy's own.
pub(super) mod field {
    pub(in crate::wire::envoy) const CHECK_ATTRIBUTES: u32 = 1;
    pub(in crate::wire::envoy) const ATTRIBUTES_REQUEST: u32 = 4;
    pub(in crate::wire::envoy) const ATTRIBUTES_CONTEXT_EXTENSIONS: u32 = 10;
    pub(in crate::wire::envoy) const REQUEST_HTTP: u32 = 2;
    pub(in crate::wire::envoy) const HTTP_METHOD: u32 = 2;
    pub(in crate::wire::envoy) const HTTP_HEADERS: u32 = 3;
    pub(in crate::wire::envoy) const HTTP_PATH: u32 = 4;
    pub(in crate::wire::envoy) const HTTP_HOST: u32 = 5;
    pub(in crate::wire::envoy) const HTTP_BODY: u32 = 11;
    pub(in crate::wire::envoy) const HTTP_RAW_BODY: u32 = 12;
    pub(in crate::wire::envoy) const HTTP_HEADER_MAP: u32 = 13;
    pub(in crate::wire::envoy) const HEADER_MAP_HEADERS: u32 = 1;
}

/// Reads a `CheckRequest`. A repeated message field is merged, and of a repeated scalar the last counts (Protocol
/// Buffers Encoding, "Last One Wins").
pub(super) fn scan(message: &[u8]) -> Result<Scanned<'_>, Malformed> {
    let mut scanned = Scanned::default();
    // Envoy sends about this many.
    scanned.request.headers.reserve(24);
    each_field(message, |field, value| {
        if field == field::CHECK_ATTRIBUTES { attributes(value.bytes()?, &mut scanned) } else { Ok(()) }
    })?;
    Ok(scanned)
}

fn attributes<'a>(message: &'a [u8], scanned: &mut Scanned<'a>) -> Result<(), Malformed> {
    each_field(message, |field, value| match field {
        field::ATTRIBUTES_REQUEST => each_field(value.bytes()?, |field, value| {
            if field == field::REQUEST_HTTP { http(value.bytes()?, scanned) } else { Ok(()) }
        }),
        field::ATTRIBUTES_CONTEXT_EXTENSIONS => {
            let [key, value] = leading_fields(value.bytes()?)?;
            if key == RULE {
                scanned.has_unclear_rule |= scanned.request.rule.replace(value).is_some();
            } else {
                scanned.has_unclear_rule |= is_misspelt_rule(key);
            }
            Ok(())
        }
        _ => Ok(()),
    })
}

fn http<'a>(message: &'a [u8], scanned: &mut Scanned<'a>) -> Result<(), Malformed> {
    scanned.is_http = true;
    let request = &mut scanned.request;
    each_field(message, |field, value| {
        match field {
            field::HTTP_METHOD => request.method = value.bytes()?,
            field::HTTP_PATH => request.path = value.bytes()?,
            field::HTTP_HOST => request.host = value.bytes()?,
            field::HTTP_HEADERS => {
                let [name, value] = leading_fields(value.bytes()?)?;
                request.headers.push((name, value));
            }
            // Envoy fills one of the two, by `encode_raw_headers`. Of both, both are read.
            field::HTTP_HEADER_MAP => each_field(value.bytes()?, |field, value| {
                if field == field::HEADER_MAP_HEADERS {
                    let [name, value, raw] = leading_fields(value.bytes()?)?;
                    request.headers.push((name, if raw.is_empty() { value } else { raw }));
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })
}

/// The fields of a message with the numbers 1 to `COUNT`: two of a map's entry, its key and its value; three of a
/// `HeaderValue`, which has a raw value as well. Other fields are skipped, whatever their type.
fn leading_fields<const COUNT: usize>(message: &[u8]) -> Result<[&[u8]; COUNT], Malformed> {
    let mut values = [&[][..]; COUNT];
    each_field(message, |field, value| {
        let place = usize::try_from(field).ok().and_then(|number| values.get_mut(number.checked_sub(1)?));
        if let Some(place) = place {
            *place = value.bytes()?;
        }
        Ok(())
    })?;
    Ok(values)
}

#[derive(Clone, Copy)]
enum FieldValue<'a> {
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// A number or a group: no field that is read has one.
    Other,
}

impl<'a> FieldValue<'a> {
    const fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Other => Err(Malformed),
        }
    }
}

fn each_field<'a>(
    mut message: &'a [u8],
    mut read: impl FnMut(u32, FieldValue<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !message.is_empty() {
        let (number, value, rest) = match short_bytes_field(message) {
            Some(field) => field,
            None => {
                let (tag, rest) = varint(message)?;
                next_field(u32::try_from(tag).map_err(|_| Malformed)?, rest, MAX_GROUP_DEPTH)?
            }
        };
        read(number, value)?;
        message = rest;
    }
    Ok(())
}

/// What [`next_field`] reads, for what nearly every field is: up to 127 bytes, under a number from 1 to 15. A tag and a length of a
/// byte each; all others are left to `next_field`.
#[inline]
fn short_bytes_field(message: &[u8]) -> Option<(u32, FieldValue<'_>, &[u8])> {
    let [tag @ 8..0x80, length @ ..0x80, rest @ ..] = message else { return None };
    if tag & 7 != 2 {
        return None;
    }
    let (bytes, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((u32::from(tag >> 3), FieldValue::Bytes(bytes), rest))
}

/// The deepest nesting of groups that is skipped: [`next_field`] recurses for each level. Groups are obsolete, and Envoy
/// sends none.
const MAX_GROUP_DEPTH: u32 = 32;

/// A field's number and value, and the bytes after it.
fn next_field(tag: u32, rest: &[u8], depth: u32) -> Result<(u32, FieldValue<'_>, &[u8]), Malformed> {
    let number = tag >> 3;
    if number == 0 {
        return Err(Malformed);
    }
    let skip = |bytes: usize| rest.get(bytes..).ok_or(Malformed);
    match tag & 7 {
        0 => Ok((number, FieldValue::Other, varint(rest)?.1)),
        1 => Ok((number, FieldValue::Other, skip(8)?)),
        2 => {
            let (length, rest) = varint(rest)?;
            let length = usize::try_from(length).map_err(|_| Malformed)?;
            let (bytes, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
            Ok((number, FieldValue::Bytes(bytes), rest))
        }
        3 => Ok((number, FieldValue::Other, skip_group(number, rest, depth)?)),
        5 => Ok((number, FieldValue::Other, skip(4)?)),
        _ => Err(Malformed),
    }
}

/// The bytes after a group.
fn skip_group(number: u32, mut rest: &[u8], depth: u32) -> Result<&[u8], Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    loop {
        let (tag, after) = varint(rest)?;
        let tag = u32::try_from(tag).map_err(|_| Malformed)?;
        if tag & 7 == 4 {
            return if tag >> 3 == number { Ok(after) } else { Err(Malformed) };
        }
        rest = next_field(tag, after, depth)?.2;
    }
}

/// A number of up to 64 bits in groups of 7, the least significant first; and the bytes after it.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    match bytes {
        [first, rest @ ..] if *first < 0x80 => Ok((u64::from(*first), rest)),
        _ => long_varint(bytes),
    }
}

fn long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        // The tenth group has one bit: 9 times 7 is 63.
        if at == 9 && *byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return Ok((value, bytes.get(at + 1..).unwrap_or_default()));
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::super::proto::attribute_context::{HttpRequest, Request as HttpPart};
    use super::super::proto::{AttributeContext, CheckRequest, Entry, HeaderMap, HeaderValue};
    use super::*;

    /// The scan and prost's decoding have the same result.
    fn agree(bytes: &[u8]) {
        let own = scan(bytes);
        let theirs = CheckRequest::decode(bytes);
        let (Ok(own), Ok(theirs)) = (&own, &theirs) else {
            assert_eq!(own.is_ok(), theirs.is_ok(), "{theirs:?} {bytes:x?}", theirs = theirs.is_ok());
            return;
        };
        let attributes = theirs.attributes.clone().unwrap_or_default();
        let http = attributes.request.and_then(|request| request.http);
        assert_eq!(own.is_http, http.is_some());
        let http = http.unwrap_or_default();
        let request = &own.request;
        assert_eq!(
            (request.method, request.path, request.host),
            (&http.method[..], &http.path[..], &http.host[..])
        );
        let mut headers: Vec<_> =
            http.headers.iter().map(|entry| (entry.key.to_vec(), entry.value.to_vec())).collect();
        headers.extend(http.header_map.iter().flat_map(|map| &map.headers).map(|header| {
            let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
            (header.key.to_vec(), value.to_vec())
        }));
        let mut found: Vec<_> =
            request.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        // The two lists may be mixed on the wire.
        found.sort();
        headers.sort();
        assert_eq!(found, headers);
        let keys = || attributes.context_extensions.iter().map(|entry| &entry.key[..]);
        let rules: Vec<_> =
            attributes.context_extensions.iter().filter(|entry| &entry.key[..] == b"rule").collect();
        assert_eq!(request.rule, rules.last().map(|entry| &entry.value[..]));
        let misspelt = keys()
            .any(|key| key != b"rule" && [&b"rule"[..], b"rules"].contains(&&key.to_ascii_lowercase()[..]));
        assert_eq!(own.has_unclear_rule, rules.len() > 1 || misspelt);
    }

    /// An encoded message.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let text = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let key = || {
            let known = vec![&b"rule"[..], b"Rule", b"rULE", b"rules", b"RULES", b"rule ", b"ruleset"];
            prop_oneof![
                1 => Just(Bytes::from_static(b"rule")),
                1 => proptest::sample::select(known).prop_map(Bytes::from_static),
                1 => text(),
            ]
        };
        let entries = move || proptest::collection::vec((key(), text()), 0..4);
        let header_map = proptest::option::of(proptest::collection::vec((text(), text(), text()), 0..4));
        let http = (text(), text(), text(), entries(), header_map);
        (proptest::option::of(proptest::option::of(http)), entries()).prop_map(|(request, extensions)| {
            let entry = |(key, value)| Entry { key, value };
            let header = |(key, value, raw_value)| HeaderValue { key, value, raw_value };
            let request = request.map(|http| HttpPart {
                http: http.map(|(method, path, host, headers, header_map)| HttpRequest {
                    method,
                    path,
                    host,
                    headers: headers.into_iter().map(entry).collect(),
                    header_map: header_map
                        .map(|headers| HeaderMap { headers: headers.into_iter().map(header).collect() }),
                }),
            });
            let context_extensions = extensions.into_iter().map(entry).collect();
            CheckRequest { attributes: Some(AttributeContext { request, context_extensions }) }
                .encode_to_vec()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whole_messages_read_as_prost_reads_them(first in message(), second in message()) {
            agree(&first);
            // One after the other is their merger.
            agree(&[first, second].concat());
        }

        #[test]
        fn damaged_messages_read_as_prost_reads_them(
            message in message(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = message;
            for (at, byte) in damage {
                let length = bytes.len();
                if length > 0 {
                    bytes[at.index(length)] = byte;
                }
            }
            agree(&bytes);
            bytes.truncate(cut.index(bytes.len() + 1));
            agree(&bytes);
        }

        #[test]
        fn noise_reads_as_prost_reads_it(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            agree(&bytes);
            // The same where the interesting fields are.
            agree(&[&[0x0a, bytes.len() as u8][..], &bytes].concat());
            let inner = [&[0x22, bytes.len() as u8 + 2, 0x12, bytes.len() as u8][..], &bytes].concat();
            agree(&[&[0x0a, inner.len() as u8][..], &inner].concat());
        }
    }

    /// Field 3 is a header's raw value, and nothing in a map's entry: there it is unknown, of whatever type.
    #[test]
    fn what_a_message_does_not_know_is_stepped_over() {
        let nested = |path: &[u8], inner: &[u8]| {
            path.iter().rev().fold(inner.to_vec(), |inner, tag| {
                [&[*tag, u8::try_from(inner.len()).unwrap()][..], &inner].concat()
            })
        };
        let fixed = [0x0a, 1, b'a', 0x12, 1, b'b', 0x1d, 1, 2, 3, 4];
        let number = [0x0a, 1, b'a', 0x12, 1, b'b', 0x18, 7];
        for inner in [&fixed[..], &number] {
            // A context extension, a header of the map: stepped over. One of the header map: malformed.
            for (path, reads) in [
                (&[0x0a, 0x52][..], true),
                (&[0x0a, 0x22, 0x12, 0x1a], true),
                (&[0x0a, 0x22, 0x12, 0x6a, 0x0a], false),
            ] {
                let bytes = nested(path, inner);
                assert_eq!(scan(&bytes).is_ok(), reads, "{bytes:x?}");
                agree(&bytes);
            }
        }
    }

    #[test]
    fn numbers_and_groups() {
        for (bytes, want) in [
            (&[0x00][..], Ok(0)),
            (&[0x7f], Ok(127)),
            (&[0x80, 0x01], Ok(128)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Ok(u64::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], Err(Malformed)),
            (&[0x80; 10], Err(Malformed)),
            (&[0x80], Err(Malformed)),
            (&[], Err(Malformed)),
        ] {
            assert_eq!(varint(bytes).map(|(value, _)| value), want, "{bytes:x?}");
        }
        // Field 6 as a group that holds a group; too deep; never closed; closed as another.
        agree(&[0x33, 0x3b, 0x08, 0x01, 0x3c, 0x34]);
        assert!(scan(&[[0x33; 200], [0x34; 200]].concat()).is_err());
        agree(&[0x33]);
        agree(&[0x33, 0x3c]);
        agree(&[0x34]);
    }
}
