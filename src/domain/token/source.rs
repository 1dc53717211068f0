//! The places of a request that may carry its token, and the token that the request is judged by.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::authorization::{parts, token_of};
use super::names::Reading;
use super::{Token, chunks, cookies, query};
use crate::domain::denial::Denial;
use crate::domain::request::Request;

pub(super) const AUTHORIZATION: &str = "authorization";
pub(super) const COOKIE: &str = "cookie";

/// One place where a request may carry its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSource {
    pub place: TokenPlace,
    /// Whether a value that is not three segments counts as absent. It is then the upstream's own, and is forwarded.
    pub skips_opaque: bool,
}

/// Where a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// A header with credentials of this scheme (RFC 9110 section 11.4), `Authorization` with `Bearer` by default (RFC 6750
    /// section 2.1).
    Credentials { header: String, scheme: String },
    /// A header whose whole value is the token.
    Header(String),
    /// The cookie of this exact name (RFC 6265 section 5.4).
    Cookie(String),
    /// The same, or the cookies of this name with `.0`, `.1` and so on behind it, joined in this order: how clients write a
    /// token that is larger than a cookie may be.
    Chunks(String),
    /// The query parameter of this exact name (RFC 6750 section 2.3), undecoded: a token needs no escapes.
    Query(String),
}

impl From<TokenPlace> for TokenSource {
    fn from(place: TokenPlace) -> Self {
        Self { place, skips_opaque: false }
    }
}

/// Where a token is kept that was joined from several cookies. Empty at first.
pub(crate) type Joined = OnceLock<Vec<u8>>;

impl TokenSource {
    /// `Authorization: Bearer`.
    #[must_use]
    pub fn bearer() -> Self {
        TokenPlace::Credentials { header: AUTHORIZATION.to_owned(), scheme: "Bearer".to_owned() }.into()
    }

    /// Gives each value to `take` that a server may read from this source. One that is no token is empty.
    fn for_each_value<'a>(&self, request: &Request<'a>, mut take: impl FnMut(Reading, &'a [u8])) {
        match &self.place {
            TokenPlace::Credentials { header, scheme } => {
                let credentials = request.header(header).flat_map(parts);
                credentials.for_each(|part| {
                    let token = token_of(part, scheme).map_or(&b""[..], Token::bytes);
                    take(Reading::Plain, self.unless_foreign(token));
                });
            }
            TokenPlace::Header(name) => {
                let values = request.header(name).flat_map(parts);
                values.for_each(|part| take(Reading::Plain, self.unless_foreign(part.trim_ascii())));
            }
            TokenPlace::Cookie(name) => {
                for_each_cookie(request, name, |reading, value| take(reading, self.unless_foreign(value)));
            }
            TokenPlace::Chunks(name) => {
                chunks::names(name).for_each(|name| for_each_cookie(request, &name, &mut take));
            }
            TokenPlace::Query(name) => query::places(request.path, name)
                .for_each(|place| take(place.reading, self.unless_foreign(place.value))),
        }
    }

    fn unless_foreign<'a>(&self, value: &'a [u8]) -> &'a [u8] {
        if self.is_foreign(value) { b"" } else { value }
    }

    /// Whether a value of this source is no JWT and is left to the upstream.
    pub(super) fn is_foreign(&self, value: &[u8]) -> bool {
        self.skips_opaque && memchr::memchr_iter(b'.', value).count() != 2
    }

    /// The token in this source, if there is one. An empty value counts as absent.
    ///
    /// # Errors
    /// [`Denial::TokenMalformed`] if there is a token, and another value beside it that is not the very same token: the
    /// upstream might read that one.
    pub(super) fn find<'a>(
        &self,
        request: &Request<'a>,
        joined: &'a Joined,
    ) -> Result<Option<Token<'a>>, Denial> {
        if let TokenPlace::Chunks(name) = &self.place {
            let token = chunks::find(name, request)?.filter(|token| !self.is_foreign(token));
            return Ok(token.map(|token| match token {
                Cow::Borrowed(token) => Token(token),
                // Of several sources one is found at most, so the place is free.
                Cow::Owned(token) => Token(joined.get_or_init(|| token)),
            }));
        }
        let mut values = Values::default();
        self.for_each_value(request, |reading, value| values.add(reading, value));
        values.the_one()
    }
}

fn for_each_cookie<'a>(request: &Request<'a>, name: &str, mut take: impl FnMut(Reading, &'a [u8])) {
    let places = request.header(COOKIE).flat_map(|header| cookies::places(header, name));
    places.for_each(|place| take(place.reading, place.value));
}

/// The value of a cookie, if there is one.
///
/// # Errors
/// As [`TokenSource::find`].
pub(super) fn cookie<'a>(request: &Request<'a>, name: &str) -> Result<Option<Token<'a>>, Denial> {
    let mut values = Values::default();
    for_each_cookie(request, name, |reading, value| values.add(reading, value));
    values.the_one()
}

/// The values of one source.
#[derive(Default)]
struct Values<'a> {
    first: Option<&'a [u8]>,
    is_present: bool,
    differ: bool,
}

impl<'a> Values<'a> {
    fn add(&mut self, reading: Reading, value: &'a [u8]) {
        self.is_present |= reading == Reading::Plain && !value.is_empty();
        if reading == Reading::Plain || (reading == Reading::Hidden && !value.is_empty()) {
            self.differ |= *self.first.get_or_insert(value) != value;
        }
    }

    /// The token, if there is one.
    ///
    /// # Errors
    /// As [`TokenSource::find`].
    const fn the_one(self) -> Result<Option<Token<'a>>, Denial> {
        match self.first {
            Some(_) if self.is_present && self.differ => Err(Denial::TokenMalformed),
            Some(token) if self.is_present => Ok(Some(Token(token))),
            _ => Ok(None),
        }
    }
}

/// The token that a request is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judged<'a> {
    pub(crate) token: Token<'a>,
    /// Which of the sources has the token.
    pub(super) source: usize,
}

/// The token of the first source that is present. A bad token there is denied, even if a later source has a good one.
///
/// # Errors
/// [`Denial::TokenMissing`] if no source is present, [`Denial::TokenMalformed`] for an ambiguous one.
pub(crate) fn find<'a>(
    sources: &[TokenSource],
    request: &Request<'a>,
    joined: &'a Joined,
) -> Result<Judged<'a>, Denial> {
    for (at, source) in sources.iter().enumerate() {
        if let Some(token) = source.find(request, joined)? {
            return Ok(Judged { token, source: at });
        }
    }
    Err(Denial::TokenMissing)
}

/// Whether a request without a token has a value that some servers read under the very name of a source: it must not pass as
/// anonymous.
pub(crate) fn is_hidden(sources: &[TokenSource], request: &Request<'_>) -> bool {
    let mut is_hidden = false;
    for source in sources {
        source.for_each_value(request, |reading, value| {
            is_hidden |= reading == Reading::Hidden && !value.is_empty();
        });
    }
    is_hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token's text; `None` for one that is hidden.
    fn found(
        headers: &[(&str, &str)],
        path: &str,
        sources: &[TokenSource],
    ) -> Result<Option<String>, Denial> {
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let request = Request { headers, path: path.as_bytes(), ..Request::default() };
        match find(sources, &request, &Joined::new()) {
            Ok(judged) => Ok(Some(String::from_utf8_lossy(judged.token.0).into_owned())),
            Err(Denial::TokenMissing) if is_hidden(sources, &request) => Ok(None),
            Err(denial) => Err(denial),
        }
    }

    #[test]
    fn the_first_source_that_is_present_decides() {
        let sources = [TokenSource::bearer(), TokenPlace::Cookie("psg_auth_token".into()).into()];
        let missing = Err(Denial::TokenMissing);
        let malformed = Err(Denial::TokenMalformed);
        let ok = |token: &str| Ok(Some(token.to_owned()));
        let hidden = Ok(None);
        for (headers, want) in [
            (&[][..], &missing),
            (&[("authorization", "Bearer t")][..], &ok("t")),
            (&[("authorization", "bearer t")], &ok("t")),
            (&[("Authorization", "BEARER   t ")], &ok("t")),
            (&[("authorization", "Bearer\tt")], &ok("t")),
            (&[("authorization", "Bearer")], &missing),
            (&[("authorization", "Bearer  ")], &missing),
            (&[("authorization", "")], &missing),
            (&[("authorization", "Bearert")], &missing),
            (&[("authorization", "Bear")], &missing),
            (&[("authorization", "Basic dTpw")], &missing),
            (&[("authorization", "Basic a, Basic b")], &missing),
            (&[("authorization", "Digest username=\"Bearer\", realm=\"x\"")], &missing),
            (&[("authorization", "Bearer a,Bearer b")], &malformed),
            (&[("authorization", "Bearer a, Bearer a")], &ok("a")),
            (&[("authorization", "Bearer a,a")], &malformed),
            (&[("authorization", "Bearer a,")], &malformed),
            (&[("authorization", "Basic a, Bearer b")], &malformed),
            (&[("authorization", "Bearer b, Basic a")], &malformed),
            (&[("authorization", "Digest a=\"b\", bearer t")], &malformed),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer b")], &malformed),
            (&[("authorization", "Bearer a"), ("authorization", "bearer  a")], &ok("a")),
            (&[("authorization", "Bearer a"), ("authorization", "Basic b")], &malformed),
            (&[("authorization", "Basic b"), ("authorization", "Bearer a")], &malformed),
            (&[("authorization", ""), ("authorization", ""), ("authorization", "Bearer a")], &malformed),
            (&[("authorization", "Basic a"), ("authorization", "")], &missing),
            (&[("cookie", "psg_auth_token=t")], &ok("t")),
            (&[("cookie", "a=1; psg_auth_token=t; b=2")], &ok("t")),
            (&[("cookie", "a=1;psg_auth_token = t ")], &ok("t")),
            (&[("cookie", "psg_auth_token=t; psg_auth_token=u")], &malformed),
            (&[("cookie", "psg_auth_token=t; a=b; psg_auth_token=t")], &ok("t")),
            (&[("cookie", "psg_auth_token=t"), ("cookie", "psg_auth_token=t")], &ok("t")),
            (&[("cookie", "psg_auth_token=t"), ("cookie", "a=b; psg_auth_token=u")], &malformed),
            (&[("cookie", "psg_auth_token=t,psg_auth_token=t")], &ok("t")),
            (&[("cookie", "psg_auth_token=t,psg_auth_token=u")], &malformed),
            (&[("cookie", "a=b,psg_auth_token=u; psg_auth_token=t")], &malformed),
            (&[("cookie", "a=b psg_auth_token=u; psg_auth_token=t")], &malformed),
            (&[("cookie", "a=b,psg_auth_token=t; psg_auth_token=t")], &ok("t")),
            (&[("cookie", "psg_auth_token=; psg_auth_token=u")], &malformed),
            (&[("cookie", "psg_auth_token=u; psg_auth_token=")], &malformed),
            (&[("cookie", "psg_auth_token=; psg_auth_token= ")], &missing),
            (&[("cookie", "psg_auth_token=,psg_auth_token=u")], &hidden),
            (&[("cookie", "psg_auth_token=\"t\"")], &ok("\"t\"")),
            (&[("cookie", "a=1,psg_auth_token=t")], &hidden),
            (&[("cookie", "a=1 psg_auth_token=t")], &hidden),
            (&[("cookie", "a=1,psg_auth_token=")], &missing),
            (&[("cookie", "psg_auth_token")], &missing),
            (&[("cookie", "PSG_AUTH_TOKEN=t")], &missing),
            (&[("cookie", "PSG_AUTH_TOKEN=u; psg_auth_token=t")], &ok("t")),
            (&[("cookie", "xpsg_auth_token=t; psg_auth_tokenx=t")], &missing),
            (&[("cookie", "a=1"), ("cookie", "psg_auth_token=t")], &ok("t")),
            (&[("cookie", "psg_auth_token=c"), ("authorization", "Bearer h")], &ok("h")),
            (&[("cookie", "psg_auth_token=c; psg_auth_token=d"), ("authorization", "Bearer h")], &ok("h")),
            (&[("cookie", "psg_auth_token=c"), ("authorization", "Basic h")], &ok("c")),
            (&[("x-authorization", "Bearer t")], &missing),
        ] {
            assert_eq!(found(headers, "/", &sources), *want, "{headers:?}");
        }
    }

    #[test]
    fn other_headers_and_query_parameters() {
        let sources = [
            TokenPlace::Header("x-api-token".into()).into(),
            TokenPlace::Query("access_token".into()).into(),
        ];
        let (missing, malformed, hidden) = (Err(Denial::TokenMissing), Err(Denial::TokenMalformed), Ok(None));
        let ok = |token: &str| Ok(Some(token.to_owned()));
        for (headers, path, want) in [
            (&[("X-Api-Token", " t ")][..], "/", &ok("t")),
            (&[("x-api-token", "Bearer t")], "/", &ok("Bearer t")),
            (&[("x-api-token", "")], "/?access_token=q", &ok("q")),
            (&[("x-api-token", "a"), ("x-api-token", "b")], "/", &malformed),
            (&[("x-api-token", "a"), ("x-api-token", "a")], "/", &ok("a")),
            (&[("x-api-token", "a, a")], "/", &ok("a")),
            (&[("x-api-token", "a, b")], "/", &malformed),
            (&[("x-api-token", "a,")], "/", &malformed),
            (&[("x-api-token", ""), ("x-api-token", "b")], "/", &malformed),
            (&[("x-api-token", ""), ("x-api-token", " ")], "/?access_token=q", &ok("q")),
            (&[("x_api_token", "t")], "/", &missing),
            (&[], "/?access_token=q", &ok("q")),
            (&[], "/a?b=c&access_token=q&d", &ok("q")),
            (&[], "/?access_token=a%2Eb", &ok("a%2Eb")),
            (&[], "/?access_token=a&access_token=b", &malformed),
            (&[], "/?access_token=a&access_token=a", &ok("a")),
            (&[], "/?access_token=a&access%5Ftoken=a", &ok("a")),
            (&[], "/?access_token=a&access%5Ftoken=b", &malformed),
            (&[], "/?access%5Ftoken=b&access_token=a", &malformed),
            (&[], "/?access%5Ftoken=b", &hidden),
            (&[], "/?a=b;access_token=c", &hidden),
            (&[], "/?a=b;access_token=c&access_token=d", &malformed),
            (&[], "/?access_token=d;access_token=d", &malformed),
            (&[], "/?access_token=a&access_token[]=b", &ok("a")),
            (&[], "/?access_token[]=b", &missing),
            (&[], "/?access_token=&access_token=b", &malformed),
            (&[], "/?access_token=", &missing),
            (&[], "/?access_token", &missing),
            (&[], "/?Access_token=q", &missing),
            (&[], "/?xaccess_token=q", &missing),
            (&[], "/access_token=q", &missing),
            (&[("x-api-token", "h")], "/?access_token=q", &ok("h")),
        ] {
            assert_eq!(found(headers, path, &sources), *want, "{headers:?} {path}");
        }
    }
}
