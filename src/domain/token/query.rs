//! The query parameters of one name.

use super::names::{Reading, is_alike, unescaped};

/// A query parameter that a server may take for the one of the name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameter<'a> {
    pub(super) reading: Reading,
    /// Undecoded: a token needs no escapes.
    pub(super) value: &'a [u8],
    /// The undecoded name of what proxies take for the parameter: only `&` separates for them.
    pub(super) raw_name: &'a [u8],
}

/// Every parameter of a request target that a server may take for the one of this name. Servers decode names, and a semicolon
/// separates for some (HTML 4.01 appendix B.2.2: Rack, Perl, Python before 3.9.2, Go before 1.17).
pub(super) fn places<'a>(target: &'a [u8], name: &str) -> impl Iterator<Item = Parameter<'a>> {
    let start = memchr::memchr(b'?', target).map_or(target.len(), |at| at + 1);
    let mut ampersands = memchr::memchr_iter(b'&', target).filter(move |at| *at >= start);
    let mut at = Some(start);
    let parameters = std::iter::from_fn(move || {
        let from = at?;
        let end = ampersands.next();
        at = end.map(|end| end + 1);
        target.get(from..end.unwrap_or(target.len()))
    });
    parameters.flat_map(move |parameter| {
        let (raw_name, _) = pair(parameter);
        parameter.split(|byte| *byte == b';').enumerate().filter_map(move |(index, part)| {
            let (found, value) = pair(part);
            let reading = if found == name.as_bytes() && index == 0 {
                // What follows a semicolon may be a part of the value as well.
                return Some(Parameter { reading: Reading::Plain, value: pair(parameter).1, raw_name });
            } else if unescaped(found).eq(name.bytes()) {
                Reading::Hidden
            } else if is_alike(found, name) {
                Reading::Alike
            } else {
                return None;
            };
            Some(Parameter { reading, value, raw_name })
        })
    })
}

fn pair(parameter: &[u8]) -> (&[u8], &[u8]) {
    let equals = memchr::memchr(b'=', parameter);
    match equals.and_then(|at| Some((parameter.get(..at)?, parameter.get(at + 1..)?))) {
        Some(pair) => pair,
        None => (parameter, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_a_server_may_find() {
        use Reading::{Alike, Hidden, Plain};
        for (target, want) in [
            ("/access_token=q", &[][..]),
            ("/?", &[]),
            ("/?xaccess_token=q&access_tokens=q", &[]),
            ("/?x=?access_token=q", &[]),
            ("/a&access_token=x?b", &[]),
            ("/?access_token", &[(Plain, "", "access_token")]),
            ("/?access_token=", &[(Plain, "", "access_token")]),
            ("/?a=b&access_token=q=&d", &[(Plain, "q=", "access_token")]),
            (
                "/?access_token=a&access_token=b",
                &[(Plain, "a", "access_token"), (Plain, "b", "access_token")],
            ),
            ("/?access_token=a;b", &[(Plain, "a;b", "access_token")]),
            (
                "/?access_token=a;access_token=b",
                &[(Plain, "a;access_token=b", "access_token"), (Hidden, "b", "access_token")],
            ),
            ("/?a=b;access_token=q", &[(Hidden, "q", "a")]),
            ("/?access%5Ftoken=q", &[(Hidden, "q", "access%5Ftoken")]),
            ("/?%61ccess_token=q&x", &[(Hidden, "q", "%61ccess_token")]),
            ("/?Access_token=q", &[(Alike, "q", "Access_token")]),
            ("/?access_token[]=q", &[(Alike, "q", "access_token[]")]),
            ("/?access_token%5B0%5D=q", &[(Alike, "q", "access_token%5B0%5D")]),
            ("/?access+token=q", &[(Alike, "q", "access+token")]),
            ("/?[access_token]=q", &[(Alike, "q", "[access_token]")]),
        ] {
            let text = |bytes| str::from_utf8(bytes).unwrap();
            let got: Vec<_> = places(target.as_bytes(), "access_token")
                .map(|Parameter { reading, value, raw_name }| (reading, text(value), text(raw_name)))
                .collect();
            assert_eq!(got, want, "{target}");
        }
    }
}
