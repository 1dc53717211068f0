//! Names that a server may read as the configured one.

/// How a server comes to read a value as the token of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// As the specifications say: the value is the source's.
    Plain,
    /// Under the very name, in a place where only some servers begin a pair, or with escapes in the name.
    Hidden,
    /// Under another name that some servers take for it.
    Alike,
}

/// White space or a byte that a server may trim as such: `str.strip` of Python and `trim` of JavaScript also trim U+0085,
/// U+00A0 and others beyond ASCII.
pub(super) const fn is_blank(byte: u8) -> bool {
    byte <= b' ' || byte >= 0x7f
}

/// Whether a server may read the name of a cookie or of a query parameter as this one: with its escapes decoded (queries;
/// cookies: Rack before 2.2.3, PHP before 7.4.11), in any case (ASP.NET), with space, dot and `[` for `_` and cut at NUL
/// (PHP's `php_register_variable_ex`), as an array's or an object's member (`name[]`, and `[name]` of Express's `qs`).
pub(super) fn is_alike(raw: &[u8], name: &str) -> bool {
    let mut read = unescaped(raw).skip_while(|byte| is_blank(*byte)).peekable();
    if !name.starts_with('[') {
        read.next_if_eq(&b'[');
    }
    name.bytes().all(|wanted| read.next().is_some_and(|byte| fold(byte) == fold(wanted)))
        && match read.next() {
            None | Some(b'\0' | b'[' | b']') => true,
            Some(byte) => is_blank(byte) && read.all(is_blank),
        }
}

const fn fold(byte: u8) -> u8 {
    match byte {
        b' ' | b'.' | b'[' => b'_',
        _ => byte.to_ascii_lowercase(),
    }
}

/// How rare each letter from a to z is in English and in names, roughly.
const RARITY: &[u8; 26] = b"13221333154221135111243535";

/// The rarity of a letter in either case; 0 for what is no letter.
fn rarity(byte: u8) -> u8 {
    let at = byte.to_ascii_lowercase().wrapping_sub(b'a');
    RARITY.get(usize::from(at)).copied().unwrap_or_default()
}

/// Whether bytes may hold the name or one that is alike: a search for its rarest letter, which skips many bytes at a time.
/// Most headers of cookies do not, and have many pairs.
pub(super) fn may_hold(bytes: &[u8], name: &str) -> bool {
    let mut rarest = (0, 0, 0);
    for (at, byte) in name.bytes().enumerate() {
        if rarity(byte) > rarest.0 {
            rarest = (rarity(byte), at, byte);
        }
    }
    let (rank, at, rarest) = rarest;
    if rank == 0 {
        return true;
    }
    let neighbour = |wanted: Option<&u8>, found: Option<&u8>| match (wanted, found) {
        (Some(wanted), Some(found)) => fold(*wanted) == fold(*found) || *found == b'+',
        (None, _) => true,
        (Some(_), None) => false,
    };
    let name = name.as_bytes();
    let before = at.checked_sub(1).and_then(|before| name.get(before));
    let after = name.get(at + 1);
    let [small, capital] = [rarest.to_ascii_lowercase(), rarest.to_ascii_uppercase()];
    memchr::memchr3_iter(small, capital, b'%', bytes).any(|found| {
        bytes.get(found) == Some(&b'%')
            || (neighbour(after, bytes.get(found + 1))
                && neighbour(before, found.checked_sub(1).and_then(|before| bytes.get(before))))
    })
}

/// The bytes with escapes and `+` decoded, once; a broken escape stays.
pub(super) fn unescaped(raw: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut rest = raw;
    std::iter::from_fn(move || {
        let (byte, after) = rest.split_first()?;
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) if digit(high).is_some() && digit(low).is_some() => {
                rest = after;
                u8::try_from(digit(high)? * 16 + digit(low)?).ok()
            }
            (b'+', _) => Some(b' '),
            _ => Some(*byte),
        }
    })
}

/// Whether CGI, WSGI or PHP cannot tell two names of headers apart: they map what is no letter or digit to `_` (RFC 3875
/// section 4.1.18).
pub(super) fn are_headers_alike(one: &[u8], other: &[u8]) -> bool {
    let alike = |(one, other): (&u8, &u8)| {
        one.eq_ignore_ascii_case(other) || !(one.is_ascii_alphanumeric() || other.is_ascii_alphanumeric())
    };
    one.len() == other.len() && one.iter().zip(other).all(alike)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_servers_take_for_one() {
        for name in [
            "access_token",
            "ACCESS_token",
            "access%5Ftoken",
            "%61ccess_toke%6e",
            "access.token",
            "access+token",
            "access%20token",
            "access[token",
            "access_token[]",
            "access_token[a][b]",
            "access_token%5B%5D",
            "[access_token]",
            "[access_token",
            "+access_token",
            "%20 access.token ",
            "access_token%00x",
            "access_token\u{a0}",
        ] {
            assert!(is_alike(name.as_bytes(), "access_token"), "{name}");
            assert!(may_hold(format!("a=kK; {name}=x").as_bytes(), "access_token"), "{name}");
        }
        for name in [
            "",
            "access",
            "access-token",
            "access_tokens",
            "xaccess_token",
            "access%5token",
            "access%255Ftoken",
            "x[access_token]",
        ] {
            assert!(!is_alike(name.as_bytes(), "access_token"), "{name}");
        }
        for name in ["k", "_", "__", "1k", "Z9", "my.token", "zz"] {
            assert!(is_alike(name.as_bytes(), name) && may_hold(name.as_bytes(), name), "{name}");
            assert!(may_hold(name.to_ascii_uppercase().as_bytes(), name), "{name}");
        }
        assert!(!may_hold(b"", "access_token") && !may_hold(b"theme=dark; tokyo=1; CK=kke", "access_token"));
        assert!(is_alike(b"my_token", "my.token") && !is_alike(b"my-token", "my.token"));
        assert!(
            are_headers_alike(b"X_Api.Token", b"x-api-token")
                && !are_headers_alike(b"xapi-token", b"x-api-token")
        );
        assert!(!are_headers_alike(b"x-api1token", b"x-api-token"));
    }
}
