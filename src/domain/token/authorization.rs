//! Values of headers: the credentials of an `Authorization` header, and the parts of headers that were joined.

use super::Token;
use super::names::is_blank;

/// The parts of a header's value: proxies join repeated headers with a comma (RFC 9110 section 5.2), and no token holds one.
pub(super) fn parts(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        let Some((part, after)) = memchr::memchr(b',', value).and_then(|at| value.split_at_checked(at))
        else {
            return rest.take();
        };
        rest = after.get(1..);
        Some(part)
    })
}

/// The token of `<scheme> <token>`, the scheme in any case (RFC 9110 section 11.1). Another scheme counts as absent, and so does
/// the scheme alone.
pub(super) fn token_of<'a>(part: &'a [u8], scheme: &str) -> Option<Token<'a>> {
    let (found, rest) = part.trim_ascii().split_at_checked(scheme.len())?;
    let token = rest.trim_ascii_start();
    let is_scheme = found.eq_ignore_ascii_case(scheme.as_bytes()) && token.len() < rest.len();
    (is_scheme && !token.is_empty()).then_some(Token(token))
}

/// Whether the scheme is this one, whatever follows it.
pub(super) fn has_scheme(part: &[u8], scheme: &str) -> bool {
    let found = part.trim_ascii_start().split(|byte| byte.is_ascii_whitespace()).next();
    found.is_some_and(|found| found.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// Whether a careless server may find a token of this scheme in other credentials: where it searches for the word, even inside
/// another, or skips what follows it without a look (`Bearer:x`, `BearerXtoken`, `Basic a Bearer b`). A short word comes up by
/// chance in what other schemes encode, so it counts only where no such text goes before it.
pub(super) fn is_read_as(part: &[u8], scheme: &str) -> bool {
    let Some(first) = scheme.bytes().next() else { return false };
    let is_rare = scheme.len() >= RARE_WORD;
    let starts = memchr::memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), part);
    let mut rests = starts.filter_map(|at| {
        let before = at.checked_sub(1).and_then(|before| part.get(before));
        let is_inside = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte));
        if is_rare || !is_inside { part.get(at..)?.split_at_checked(scheme.len()) } else { None }
    });
    rests.any(|(word, rest)| {
        word.eq_ignore_ascii_case(scheme.as_bytes()) && !rest.iter().all(|byte| is_blank(*byte))
    })
}

/// The length from which on a word does not come up by chance in base64 of a few KiB.
const RARE_WORD: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_commas() {
        let split = |text: &'static str| {
            parts(text.as_bytes()).map(|part| str::from_utf8(part).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(split("a, b,,c,"), ["a", " b", "", "c", ""]);
        assert_eq!(split("a"), ["a"]);
        assert_eq!(split(""), [""]);
    }

    #[test]
    fn what_may_be_read_as_bearer() {
        for value in [
            "Bearer:x",
            "BearerXx",
            "bearer=x",
            "Basic a Bearer b",
            "Bearer\u{a0}x",
            "\u{b}Bearer x",
            "\"Bearer x\"",
            "b bearer b",
            "xBearer y",
            "1Bearer y",
            "Basic eDp5 xBearer b",
        ] {
            assert!(is_read_as(value.as_bytes(), "Bearer"), "{value}");
            assert!(token_of(value.as_bytes(), "Bearer").is_none(), "{value}");
        }
        for value in ["", "Basic dTpw", "Bearer", "Bearer \t", "Digest username=\"b\"", "bear er", "beare"] {
            assert!(!is_read_as(value.as_bytes(), "Bearer"), "{value}");
        }
        for (value, want) in
            [("JWT:x", true), ("Basic a jwt b", true), ("Basic abcJwTdef", false), ("Bearer a-jwt.b", false)]
        {
            assert_eq!(is_read_as(value.as_bytes(), "JWT"), want, "{value}");
        }
    }
}
