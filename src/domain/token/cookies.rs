//! The cookies of one name: where a server may take a part of a `Cookie` header for one, and the header without them.

use std::ops::Range;

use super::names::{Reading, is_alike, is_blank, may_hold};

/// A part of a `Cookie` header that a server may take for the cookie.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CookiePlace<'a> {
    pub(super) reading: Reading,
    pub(super) value: &'a [u8],
    /// What to cut so that the header has no such cookie.
    pub(super) span: Range<usize>,
}

/// Where a pair of the name begins, and where its value does.
#[derive(Clone, Copy)]
struct Start {
    reading: Reading,
    name: usize,
    value: usize,
}

/// Every place of one `Cookie` header where a server may find a cookie of this name.
///
/// Only semicolons separate cookies (RFC 6265 section 4.2.1). But a proxy that joins two `Cookie` headers puts a comma between
/// them, commas separate cookies for some servers (ASP.NET, Jetty, Rack before 2.2), white space does for Python's
/// `SimpleCookie`, and servers differ in whether a semicolon in quotes separates. There the pair is hidden. Quotes stay part
/// of the value.
pub(super) fn places<'a>(header: &'a [u8], name: &str) -> impl Iterator<Item = CookiePlace<'a>> {
    let searched = if may_hold(header, name) { header } else { &[] };
    // No name reaches over an equals sign, so the work for all of them is linear.
    let mut before = 0;
    let equals = memchr::memchr_iter(b'=', searched)
        .map(move |equals| (std::mem::replace(&mut before, equals), equals));
    let mut starts = equals.filter_map(move |(from, equals)| start(header, from, equals, name)).peekable();
    std::iter::from_fn(move || {
        let Start { reading, name, value } = starts.next()?;
        let next = starts.peek().map_or(header.len(), |next| next.name);
        let rest = header.get(value..next).unwrap_or_default();
        let (value_end, pair_end) = match memchr::memchr(b';', rest) {
            Some(end) => (end, end),
            // The comma or the white space before the next place is of neither.
            None if next < header.len() => (trimmed_end(rest), rest.len()),
            None => (rest.len(), rest.len()),
        };
        let pair_end = memchr::memchr(b',', rest.get(..pair_end)?).unwrap_or(pair_end);
        Some(CookiePlace {
            reading,
            value: rest.get(..value_end)?.trim_ascii(),
            span: name..value.checked_add(pair_end)?,
        })
    })
}

/// What stands behind `name.` in the names of cookies, where it begins with a digit.
pub(super) fn numbers_behind<'a>(header: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let separates = |byte: &u8| is_blank(*byte) || b";,\"".contains(byte);
    memchr::memchr_iter(b'=', header).filter_map(move |equals| {
        let before = header.get(..equals)?;
        let before = before.get(..=before.iter().rposition(|byte| !is_blank(*byte))?)?;
        let found = before.rsplit(separates).next()?;
        let number = found.strip_prefix(name.as_bytes())?.strip_prefix(b".")?;
        number.first().is_some_and(u8::is_ascii_digit).then_some(number)
    })
}

/// The length without separators at the end.
fn trimmed_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != b',' && !is_blank(*byte)).map_or(0, |at| at + 1)
}

/// The pair of this equals sign, if a server may take what stands between the equals sign before it and this one for the name.
fn start(header: &[u8], from: usize, equals: usize, name: &str) -> Option<Start> {
    let before = header.get(..equals)?;
    let end = before.iter().rposition(|byte| !is_blank(*byte))? + 1;
    let before = before.get(..end)?;
    let last = before.last()?;
    // What a server cuts from a name's end begins with a bracket, or with the escape of a null.
    let is_likely = name.as_bytes().last().is_some_and(|wanted| last.eq_ignore_ascii_case(wanted))
        || matches!(last, b'_' | b'.')
        || memchr::memchr2(b'[', b'%', before.get(from..).unwrap_or_default()).is_some();
    if !is_likely {
        return None;
    }
    let value = equals + 1;
    if let Some(outside) = before.strip_suffix(name.as_bytes()) {
        let is_plain = matches!(outside.trim_ascii_end(), [] | [.., b';'])
            && header.get(end..equals)?.iter().all(u8::is_ascii_whitespace);
        let begins = outside.last().is_none_or(|byte| is_blank(*byte) || b";,\"".contains(byte));
        if is_plain || begins {
            let reading = if is_plain { Reading::Plain } else { Reading::Hidden };
            return Some(Start { reading, name: outside.len(), value });
        }
    }
    let near = before.get(from..)?;
    let after = |is_separator: fn(u8) -> bool| {
        near.iter().rposition(|byte| is_separator(*byte)).map_or(from, |at| from + at + 1)
    };
    [after(|byte| matches!(byte, b';' | b',')), after(|byte| is_blank(byte) || b";,\"".contains(&byte))]
        .into_iter()
        .find(|at| before.get(*at..).is_some_and(|found| is_alike(found, name)))
        .map(|at| Start { reading: Reading::Alike, name: at, value })
}

/// Adds the pairs of a `Cookie` header that are left without these spans, in their order.
pub(super) fn pairs_left<'a>(header: &'a [u8], mut cut: Vec<Range<usize>>, left: &mut Vec<&'a [u8]>) {
    cut.sort_by_key(|span| span.start);
    let mut at = 0;
    for (index, Range { start, end }) in cut.into_iter().enumerate() {
        add_pairs(header.get(at..start).unwrap_or_default(), index > 0, true, left);
        at = at.max(end);
    }
    add_pairs(header.get(at..).unwrap_or_default(), at > 0, false, left);
}

/// Adds the pairs between two cuts. What follows a cut after a comma is kept only if it is a pair of another line, and not
/// the rest of the value that was cut.
fn add_pairs<'a>(piece: &'a [u8], after_cut: bool, before_cut: bool, left: &mut Vec<&'a [u8]>) {
    let kept = if before_cut { piece.get(..trimmed_end(piece)).unwrap_or_default() } else { piece };
    for (index, pair) in kept.split(|byte| *byte == b';').enumerate() {
        let mut pair = pair.trim_ascii();
        if index == 0 && after_cut {
            let rest_of_value = |byte: &u8| *byte == b',' || is_blank(*byte);
            pair = pair.get(pair.iter().take_while(|byte| rest_of_value(byte)).count()..).unwrap_or_default();
            if !pair.contains(&b'=') {
                continue;
            }
        }
        if !pair.is_empty() {
            left.push(pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(header: &[u8]) -> Vec<(Reading, String)> {
        let text = |value| String::from_utf8_lossy(value).into_owned();
        places(header, "psg_auth_token").map(|place| (place.reading, text(place.value))).collect()
    }

    #[test]
    fn places_where_a_server_may_find_the_cookie() {
        use Reading::{Alike, Hidden, Plain};
        for (header, want) in [
            (&b""[..], &[][..]),
            (b"=", &[]),
            (b"a=b; c=d", &[]),
            (b"psg_auth_token", &[]),
            (b"psg_auth_token=t", &[(Plain, "t")]),
            (b"a=1;psg_auth_token = t ;b=2", &[(Plain, "t")]),
            (b"a=1; \tpsg_auth_token=t", &[(Plain, "t")]),
            (b"psg_auth_token=", &[(Plain, "")]),
            (b"psg_auth_token=\"t\"", &[(Plain, "\"t\"")]),
            (b"psg_auth_token=t,b=2", &[(Plain, "t,b=2")]),
            (b"psg_auth_token=t==; x", &[(Plain, "t==")]),
            (b"psg_auth_token[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]=t", &[(Alike, "t")]),
            (b"a=b; psg_auth_token%00x=t", &[(Alike, "t")]),
            (b"psg_auth_token[x]y=t", &[(Alike, "t")]),
            (b"%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20psg_auth_token=t", &[(Alike, "t")]),
            (b"psg_auth_token=t; psg_auth_token=u", &[(Plain, "t"), (Plain, "u")]),
            (b"psg_auth_token=t, psg_auth_token=u", &[(Plain, "t"), (Hidden, "u")]),
            (b"psg_auth_token=t psg_auth_token=u,", &[(Plain, "t"), (Hidden, "u,")]),
            (b"a=b,psg_auth_token=u", &[(Hidden, "u")]),
            (b"a=b , psg_auth_token\t=u;c", &[(Hidden, "u")]),
            (b"a=b psg_auth_token=u", &[(Hidden, "u")]),
            (b"a=b\x0bpsg_auth_token=u", &[(Hidden, "u")]),
            (b"a=b;\x0bpsg_auth_token=u", &[(Hidden, "u")]),
            (b"a=b;\xa0psg_auth_token=u", &[(Hidden, "u")]),
            (b"a=b;\xc2\xa0psg_auth_token=u", &[(Hidden, "u")]),
            (b"psg_auth_token\xa0=u", &[(Hidden, "u")]),
            (b"a=\"psg_auth_token=u", &[(Hidden, "u")]),
            (b"a=\"x; psg_auth_token=u\"", &[(Plain, "u\"")]),
            (b"a=\"b\"psg_auth_token=u", &[(Hidden, "u")]),
            (b"a=psg_auth_token=u", &[]),
            (b"xpsg_auth_token=u; psg_auth_tokenx=u; psg-auth-token=u; x.psg_auth_token=u", &[]),
            (b"PSG_Auth_Token=u", &[(Alike, "u")]),
            (b"a=b,PSG_AUTH_TOKEN=u", &[(Alike, "u")]),
            (b"psg.auth.token=u", &[(Alike, "u")]),
            (b"psg%5Fauth_token=u", &[(Alike, "u")]),
            (b"psg_auth_toke%6E=u", &[(Alike, "u")]),
            (b"psg_auth_token[]=u", &[(Alike, "u")]),
            (b"a=b psg[auth_token=u", &[(Alike, "u")]),
            (b"psg auth_token=u", &[(Alike, "u")]),
        ] {
            let want: Vec<_> = want.iter().map(|(reading, value)| (*reading, (*value).to_owned())).collect();
            assert_eq!(found(header), want, "{:?}", String::from_utf8_lossy(header));
        }
    }

    /// Half a MiB of what might be names: each is looked at once.
    #[test]
    fn a_hostile_header_costs_its_length() {
        for part in ["n=", "PSG_AUTH_TOKEX_=", " =", "n ="] {
            assert_eq!(places(part.repeat(1 << 15).as_bytes(), "psg_auth_token").count(), 0, "{part}");
        }
        for part in ["PSG_AUTH_TOKEN=,", "psg_auth_token= ", "psg_auth_token=x;"] {
            let header = part.repeat(1 << 13);
            let cut: Vec<_> = places(header.as_bytes(), "psg_auth_token").map(|place| place.span).collect();
            assert_eq!(cut.len(), 1 << 13, "{part}");
            let mut left = Vec::new();
            pairs_left(header.as_bytes(), cut, &mut left);
            assert_eq!(left.len(), 0, "{part}");
        }
    }

    #[test]
    fn cuts_a_cookie_alone() {
        for (header, want) in [
            ("psg=t", ""),
            ("a=1; psg=t; b=2", "a=1; b=2"),
            ("a=1,psg=t", "a=1"),
            ("a=1, psg=t, b=2; c", "a=1; b=2; c"),
            ("psg=t,b=2", "b=2"),
            ("psg=t,u", ""),
            ("psg=t,u; v", "v"),
            ("a=1 psg=t u", "a=1"),
            ("psg=t; psg=u,", ""),
            ("psg=t psg=u, psg=v ,b=1,2; c=,", "b=1,2; c=,"),
            ("a=x,y; psg = t ; ; b", "a=x,y; b"),
            ("a=\"x; psg=t\"; b", "a=\"x; b"),
            ("a=1; PSG=t; psg[x]=y,c=3", "a=1; c=3"),
        ] {
            let mut left = Vec::new();
            pairs_left(
                header.as_bytes(),
                places(header.as_bytes(), "psg").map(|place| place.span).collect(),
                &mut left,
            );
            assert_eq!(String::from_utf8_lossy(&left.join(&b"; "[..])), want, "{header}");
        }
    }
}
