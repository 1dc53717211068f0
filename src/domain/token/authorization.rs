//! Values of headers: the credentials of an `Authorization` header, and the parts of headers that were joined.

use super::Token;
use super::names::is_blank;

const SCHEME: &[u8] = b"Bearer";

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

/// The token of `Bearer <token>`, the scheme in any case (RFC 9110 section 11.1). Another scheme counts as absent, and so does
/// `Bearer` alone.
pub(super) fn bearer(part: &[u8]) -> Option<Token<'_>> {
    let (scheme, rest) = part.trim_ascii().split_at_checked(SCHEME.len())?;
    let token = rest.trim_ascii_start();
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME) && token.len() < rest.len();
    (is_bearer && !token.is_empty()).then_some(Token(token))
}

/// Whether the scheme is `Bearer`, whatever follows it.
pub(super) fn is_bearer(part: &[u8]) -> bool {
    let scheme = part.trim_ascii_start().split(|byte| byte.is_ascii_whitespace()).next();
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
}

/// Whether a careless server may find a bearer token in other credentials: where it searches for the word, even inside another, or skips what
/// follows it without a look (`Bearer:x`, `BearerXtoken`, `Basic a Bearer b`).
pub(super) fn is_read_as_bearer(part: &[u8]) -> bool {
    let starts = memchr::memchr2_iter(b'b', b'B', part);
    let mut rests = starts.filter_map(|at| part.get(at..)?.split_at_checked(SCHEME.len()));
    rests.any(|(word, rest)| word.eq_ignore_ascii_case(SCHEME) && !rest.iter().all(|byte| is_blank(*byte)))
}

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
            assert!(is_read_as_bearer(value.as_bytes()) && bearer(value.as_bytes()).is_none(), "{value}");
        }
        for value in ["", "Basic dTpw", "Bearer", "Bearer \t", "Digest username=\"b\"", "bear er", "beare"] {
            assert!(!is_read_as_bearer(value.as_bytes()), "{value}");
        }
    }
}
