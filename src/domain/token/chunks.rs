//! A token in several cookies: `NAME.0`, `NAME.1` and so on, or the one cookie `NAME`.

use std::borrow::Cow;

use super::cookies;
use super::source::{COOKIE, cookie};
use crate::domain::denial::Denial;
use crate::domain::request::Request;

/// The most cookies that one token is joined from.
const MAX_CHUNKS: usize = 16;

/// The name of the one cookie, and those of the chunks.
pub(super) fn names(name: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let chunks = (0..MAX_CHUNKS).map(move |index| Cow::Owned(chunk(name, index)));
    std::iter::once(Cow::Borrowed(name)).chain(chunks)
}

fn chunk(name: &str, index: usize) -> String {
    format!("{name}.{index}")
}

/// The token of the one cookie, or of the chunks, joined.
///
/// # Errors
/// [`Denial::TokenMalformed`] if a client that joins them might read another token: if the one cookie is there as well, if a
/// chunk before another is missing, if one is there twice with two values, if there are more than [`MAX_CHUNKS`], or if the
/// number of one is written in another way (`NAME.00`).
pub(super) fn find<'a>(name: &str, request: &Request<'a>) -> Result<Option<Cow<'a, [u8]>>, Denial> {
    let whole = cookie(request, name)?.map(|token| Cow::Borrowed(token.bytes()));
    let numbers: Vec<_> =
        request.header(COOKIE).flat_map(|header| cookies::numbers_behind(header, name)).collect();
    if numbers.is_empty() {
        return Ok(whole);
    }
    if whole.is_some() {
        return Err(Denial::TokenMalformed);
    }
    let mut token = Vec::new();
    let mut count = 0;
    while let Some(value) = cookie(request, &chunk(name, count))? {
        token.extend_from_slice(value.bytes());
        count += 1;
        if count > MAX_CHUNKS {
            return Err(Denial::TokenMalformed);
        }
    }
    let is_joined = |number: &&[u8]| (0..count).any(|index| index.to_string().as_bytes() == *number);
    if count == 0 || !numbers.iter().all(is_joined) {
        return Err(Denial::TokenMalformed);
    }
    Ok(Some(Cow::Owned(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_in_their_order_and_nothing_beside_them() {
        let eleven: String = (0..11).map(|at| format!("s.{at}={at}; ")).collect();
        let seventeen: String = (0..17).map(|at| format!("s.{at}=x; ")).collect();
        let malformed = Err(Denial::TokenMalformed);
        for (cookies, want) in [
            ("", Ok(None)),
            ("s=t", Ok(Some("t"))),
            ("s.0=a", Ok(Some("a"))),
            ("s.0=a; s.1=b; s.2=c", Ok(Some("abc"))),
            ("s.2=c; x=y; s.0=a; s.1=b", Ok(Some("abc"))),
            (eleven.as_str(), Ok(Some("012345678910"))),
            ("s.0=a; s.1=b; s.sig=x; s.max=y; sx.2=z; S.9=q", Ok(Some("ab"))),
            ("s.0=a; s.1=b; s.1=b", Ok(Some("ab"))),
            ("s=t; s.0=t", malformed),
            ("s.1=b", malformed),
            ("s.0=a; s.2=c", malformed),
            ("s.0=a; s.1=b; s.1=c", malformed),
            ("s.0=a; s.1=; s.2=c", malformed),
            ("s.0=; s.1=b", malformed),
            ("s.0=a; s.00=b", malformed),
            ("s.0=a; s.1x=b", malformed),
            ("s.0=a, s.1=b", malformed),
            (seventeen.as_str(), malformed),
        ] {
            let request = Request { headers: vec![(b"cookie", cookies.as_bytes())], ..Request::default() };
            let got = find("s", &request);
            let got = got.map(|token| token.map(|token| String::from_utf8(token.into_owned()).unwrap()));
            assert_eq!(got, want.map(|token: Option<&str>| token.map(str::to_owned)), "{cookies}");
        }
    }
}
