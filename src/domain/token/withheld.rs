//! What to remove of a request so that the upstream gets no other token than the one that was judged, or none.

use std::fmt;
use std::ops::Range;

use super::authorization::{has_scheme, is_read_as, parts, token_of};
use super::cookies::CookiePlace;
use super::names::{Reading, are_headers_alike};
use super::source::{COOKIE, Joined};
use super::{Judged, Token, TokenPlace, TokenSource, chunks, cookies, query};
use crate::domain::denial::Denial;
use crate::domain::request::Request;

/// Which tokens of a request the upstream may get.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Forwarded<'a> {
    /// All: no token was looked at.
    AsSent,
    /// The one that was judged, wherever it stands, and no other: an upstream may read its sources in another order, and takes
    /// what it gets for verified. `None`: the request has no token.
    Only(Option<Judged<'a>>),
    /// None, not even the one that was judged.
    NoToken,
}

impl Forwarded<'_> {
    /// Whether this value of a source must not reach the upstream.
    fn excludes(self, source: &TokenSource, value: &[u8]) -> bool {
        match self {
            Self::AsSent => false,
            Self::Only(judged) => {
                let is_judged = judged.is_some_and(|judged| judged.token == Token(value));
                !value.is_empty() && !is_judged && !source.is_foreign(value)
            }
            Self::NoToken => true,
        }
    }

    /// The judged token, if it may be forwarded.
    const fn judged(&self) -> Option<&Judged<'_>> {
        match self {
            Self::Only(judged) => judged.as_ref(),
            Self::AsSent | Self::NoToken => None,
        }
    }
}

/// Whether these credentials must not reach the upstream. Those of another scheme may, and the judged token under any of the
/// schemes that are looked for in this header.
fn excludes_credentials(
    forwarded: Forwarded<'_>,
    sources: &[TokenSource],
    source: &TokenSource,
    (header, scheme): (&str, &str),
    part: &[u8],
) -> bool {
    let is_judged = || {
        forwarded.judged().is_some_and(|judged| {
            sources.iter().any(|other| match &other.place {
                TokenPlace::Credentials { header: same, scheme } if same == header => {
                    token_of(part, scheme) == Some(judged.token)
                }
                _ => false,
            })
        })
    };
    match (forwarded, token_of(part, scheme)) {
        (Forwarded::AsSent, _) => false,
        (Forwarded::Only(_), Some(token)) => forwarded.excludes(source, token.bytes()),
        (Forwarded::Only(_), None) => is_read_as(part, scheme) && !is_judged(),
        (Forwarded::NoToken, _) => has_scheme(part, scheme) || is_read_as(part, scheme),
    }
}

/// What to remove from a request.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Withheld {
    /// Headers to remove.
    pub headers: Vec<String>,
    /// The `Cookie` header without the tokens, if other cookies are left.
    pub cookie: Option<Vec<u8>>,
    /// Query parameters to remove, by their undecoded names.
    pub query: Vec<String>,
}

impl fmt::Debug for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { headers, cookie, query } = self;
        // The cookies that are left are other services' sessions, and a parameter's name is whatever the client wrote.
        let cookie = cookie.as_ref().map(|cookie| format!("{} bytes", cookie.len()));
        f.debug_struct("Withheld")
            .field("headers", headers)
            .field("cookie", &cookie)
            .field("query", &query.len())
            .finish()
    }
}

/// What to remove so that the upstream gets these tokens only. An `Authorization` of another scheme is no token and stays.
///
/// # Errors
/// [`Denial::RequestMalformed`] for a header or a query parameter that an answer cannot name, since its name is not UTF-8: it
/// would not be removed.
pub(crate) fn withheld(
    sources: &[TokenSource],
    request: &Request<'_>,
    forwarded: Forwarded<'_>,
) -> Result<Withheld, Denial> {
    let mut withheld = Withheld::default();
    if matches!(forwarded, Forwarded::AsSent) {
        return Ok(withheld);
    }
    let mut has_cookie_source = false;
    for (at, source) in sources.iter().enumerate() {
        let excludes = |value: &[u8]| forwarded.excludes(source, value);
        match &source.place {
            TokenPlace::Credentials { header, scheme } => {
                // All credentials were found to be the token; other spellings of the header's name were not looked at.
                let is_own = forwarded.judged().is_some_and(|judged| judged.source == at);
                let excludes = |name: &[u8], value: &[u8]| {
                    !(is_own && name.eq_ignore_ascii_case(header.as_bytes()))
                        && parts(value).any(|part| {
                            excludes_credentials(forwarded, sources, source, (header, scheme), part)
                        })
                };
                withheld.add_headers(header, request, excludes)?;
            }
            TokenPlace::Header(name) => {
                let excludes = |_: &[u8], value: &[u8]| parts(value).any(|part| excludes(part.trim_ascii()));
                withheld.add_headers(name, request, excludes)?;
                // Seen or not: a proxy may show a check a part of the headers only.
                if matches!(forwarded, Forwarded::NoToken) {
                    withheld.headers.push(name.clone());
                }
            }
            TokenPlace::Cookie(_) | TokenPlace::Chunks(_) => has_cookie_source = true,
            TokenPlace::Query(name) => {
                withheld.add_query(name, request, excludes)?;
                if matches!(forwarded, Forwarded::NoToken) {
                    withheld.query.push(name.clone());
                }
            }
        }
    }
    if has_cookie_source {
        withheld.cut_cookies(sources, request, forwarded);
    }
    for names in [&mut withheld.headers, &mut withheld.query] {
        names.sort_unstable();
        names.dedup();
    }
    Ok(withheld)
}

impl Withheld {
    /// Adds a header, and what CGI and its kin take for it, where its value is excluded.
    fn add_headers(
        &mut self,
        name: &str,
        request: &Request<'_>,
        excludes: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Result<(), Denial> {
        for (found, value) in &request.headers {
            if are_headers_alike(found, name.as_bytes()) && excludes(found, value) {
                self.headers.push(named(found)?.to_ascii_lowercase());
            }
        }
        Ok(())
    }

    fn add_query(
        &mut self,
        name: &str,
        request: &Request<'_>,
        excludes: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Denial> {
        for parameter in query::places(request.path, name).filter(|parameter| excludes(parameter.value)) {
            self.query.push(named(parameter.raw_name)?.to_owned());
        }
        Ok(())
    }

    fn cut_cookies(&mut self, sources: &[TokenSource], request: &Request<'_>, forwarded: Forwarded<'_>) {
        let cuts = |header| cuts(header, sources, request, forwarded);
        // Most requests have nothing to cut.
        if request.header(COOKIE).all(|header| cuts(header).is_empty()) {
            return;
        }
        let mut left = Vec::new();
        for header in request.header(COOKIE) {
            cookies::pairs_left(header, cuts(header), &mut left);
        }
        if left.is_empty() {
            self.headers.push(COOKIE.to_owned());
        } else {
            self.cookie = Some(left.join(&b"; "[..]));
        }
    }
}

/// What to cut of one `Cookie` header.
fn cuts(
    header: &[u8],
    sources: &[TokenSource],
    request: &Request<'_>,
    forwarded: Forwarded<'_>,
) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        match &source.place {
            TokenPlace::Cookie(name) => {
                let places = cookies::places(header, name);
                let excluded = places.filter(|place| forwarded.excludes(source, place.value));
                cuts.extend(excluded.map(|place| place.span));
            }
            TokenPlace::Chunks(name) => {
                for name in chunks::names(name) {
                    let places = cookies::places(header, &name);
                    let excluded =
                        places.filter(|place| !leaves_chunk(forwarded, source, at, request, place));
                    cuts.extend(excluded.map(|place| place.span));
                }
            }
            TokenPlace::Credentials { .. } | TokenPlace::Header(_) | TokenPlace::Query(_) => {}
        }
    }
    cuts
}

/// Whether a cookie of a token in chunks may reach the upstream: if the token was judged, or is no JWT and left to the upstream.
fn leaves_chunk(
    forwarded: Forwarded<'_>,
    source: &TokenSource,
    at: usize,
    request: &Request<'_>,
    place: &CookiePlace<'_>,
) -> bool {
    match forwarded {
        Forwarded::AsSent => true,
        Forwarded::NoToken => false,
        Forwarded::Only(_) if place.value.is_empty() => true,
        Forwarded::Only(judged) => {
            let is_own = judged.is_some_and(|judged| judged.source == at);
            let is_left = is_own || (source.skips_opaque && source.find(request, &Joined::new()) == Ok(None));
            is_left && place.reading != Reading::Alike
        }
    }
}

/// A name as an answer can write it.
fn named(name: &[u8]) -> Result<&str, Denial> {
    str::from_utf8(name).map_err(|_| Denial::RequestMalformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> [TokenSource; 4] {
        [
            TokenSource::bearer(),
            TokenPlace::Header("x-api-token".into()).into(),
            TokenPlace::Cookie("psg".into()).into(),
            TokenPlace::Query("access_token".into()).into(),
        ]
    }

    fn request<'a>(headers: &[(&'a str, &'a str)], path: &'a str) -> Request<'a> {
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        Request { headers, path: path.as_bytes(), ..Request::default() }
    }

    fn want(headers: &[&str], cookie: Option<&str>, query: &[&str]) -> Withheld {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Withheld {
            headers: owned(headers),
            cookie: cookie.map(|left| left.as_bytes().to_vec()),
            query: owned(query),
        }
    }

    #[test]
    fn withholds_all_tokens_and_nothing_else() {
        for (headers, removed, cookie) in [
            (&[][..], &[][..], None),
            (&[("authorization", "Bearer t")][..], &["authorization"][..], None),
            (&[("authorization", "bearer")], &["authorization"], None),
            (&[("authorization", "Bearer\tt")], &["authorization"], None),
            (&[("authorization", "Bearer:t")], &["authorization"], None),
            (&[("authorization", "Basic x")], &[], None),
            (&[("authorization", "Basic x, Digest a=\"b\"")], &[], None),
            (&[("authorization", "Basic x, Bearer t")], &["authorization"], None),
            (&[("authorization", "Basic x Bearer t")], &["authorization"], None),
            (&[("authorization", "Basic x"), ("authorization", "Bearer t")], &["authorization"], None),
            (&[("X_Api_Token", "t")], &["x_api_token"], None),
            (&[("X-Api-Token", "t")], &[], None),
            (&[("cookie", "psg=t")], &["cookie"], None),
            (&[("cookie", "psg=t; psg=u;")], &["cookie"], None),
            (&[("cookie", "psg=t; PSG=u, psg=v")], &["cookie"], None),
            (&[("cookie", "a=1; psg=t; b=2")], &[], Some("a=1; b=2")),
            (&[("cookie", "a=1,psg=t,b=2")], &[], Some("a=1; b=2")),
            (&[("cookie", "a=1;psg=t"), ("cookie", "c; psg =u; d=\"x\"")], &[], Some("a=1; c; d=\"x\"")),
            (&[("cookie", "a=psg=t; psgs=x")], &[], None),
        ] {
            // The header and the query parameter of the name go, seen or not.
            let removed = [&["x-api-token"], removed].concat();
            let mut got = withheld(&sources(), &request(headers, "/"), Forwarded::NoToken).unwrap();
            got.headers.sort_by_key(|name| name != "x-api-token");
            assert_eq!(got, want(&removed, cookie, &["access_token"]), "{headers:?}");
        }
        let all = |path| withheld(&sources(), &request(&[], path), Forwarded::NoToken).unwrap().query;
        assert_eq!(
            all("/?access_token=a&access%5Ftoken=b&c=d;access_token=e"),
            ["access%5Ftoken", "access_token", "c"]
        );
    }

    #[test]
    fn withholds_what_is_not_the_judged_token() {
        let t = [("authorization", "Bearer t"), ("x-api-token", "t")];
        let and = |name, value| [&t[..], &[(name, value)]].concat();
        for (headers, path, want) in [
            (t.to_vec(), "/", want(&[], None, &[])),
            (and("cookie", "a=1; psg=t"), "/?access_token=t", want(&[], None, &[])),
            (and("cookie", "a=1; psg=u"), "/", want(&[], Some("a=1"), &[])),
            (and("cookie", "a=1; psg="), "/?access_token=", want(&[], None, &[])),
            (and("cookie", "psg=u"), "/", want(&["cookie"], None, &[])),
            (and("cookie", "a=1,psg=u"), "/", want(&[], Some("a=1"), &[])),
            (and("cookie", "psg=t; psg=u; b"), "/", want(&[], Some("psg=t; b"), &[])),
            (and("cookie", "psg=t, psg=u"), "/", want(&[], Some("psg=t"), &[])),
            (and("cookie", "psg=u psg=t"), "/", want(&[], Some("psg=t"), &[])),
            (and("cookie", "psg=t; PSG=u"), "/", want(&[], Some("psg=t"), &[])),
            (and("cookie", "psg=t; PSG=t; psg[]=t"), "/", want(&[], None, &[])),
            (and("authorization", "Basic x"), "/", want(&[], None, &[])),
            (and("authorization", "Bearer u"), "/", want(&["authorization"], None, &[])),
            (and("authorization", "Basic x, Bearer u"), "/", want(&["authorization"], None, &[])),
            (and("authorization", "Bearer"), "/", want(&[], None, &[])),
            (and("authorization", "Beareru"), "/", want(&["authorization"], None, &[])),
            (and("x-api-token", "u"), "/", want(&["x-api-token"], None, &[])),
            (and("x-api-token", "t,u"), "/", want(&["x-api-token"], None, &[])),
            (and("x_api_token", "u"), "/", want(&["x_api_token"], None, &[])),
            (and("x_api_token", "t"), "/", want(&[], None, &[])),
            (t.to_vec(), "/?a=b&access_token=u", want(&[], None, &["access_token"])),
            (
                t.to_vec(),
                "/?access_token[]=u&access%5Ftoken=u&ACCESS_TOKEN=t",
                want(&[], None, &["access%5Ftoken", "access_token[]"]),
            ),
            (t.to_vec(), "/?a=b;access_token=u", want(&[], None, &["a"])),
        ] {
            let request = request(&headers, path);
            assert_eq!(
                withheld(
                    &sources(),
                    &request,
                    Forwarded::Only(Some(Judged { token: Token(b"t"), source: 9 }))
                ),
                Ok(want),
                "{headers:?} {path}"
            );
            assert_eq!(withheld(&sources(), &request, Forwarded::AsSent), Ok(Withheld::default()));
        }
        let anonymous =
            request(&[("cookie", "PSG=u; a=psg"), ("authorization", "Bearert")], "/?access.token=u");
        let got = withheld(&sources(), &anonymous, Forwarded::Only(None));
        assert_eq!(got, Ok(want(&["authorization"], Some("a=psg"), &["access.token"])));
    }

    #[test]
    fn what_an_answer_cannot_name_is_denied() {
        let requests = [
            Request { path: b"/?\xffaccess_token=u", ..Request::default() },
            Request { path: b"/?\xff=1;access_token=u", ..Request::default() },
            Request { headers: vec![(b"x\xffapi-token", b"u")], ..Request::default() },
        ];
        for request in requests {
            for forwarded in [Forwarded::Only(None), Forwarded::NoToken] {
                let got = withheld(&sources(), &request, forwarded);
                assert_eq!(got, Err(Denial::RequestMalformed));
            }
            assert_eq!(withheld(&sources(), &request, Forwarded::AsSent), Ok(Withheld::default()));
        }
    }

    #[test]
    fn debug_never_shows_the_cookies_that_are_left() {
        let withheld =
            withheld(&sources(), &request(&[("cookie", "psg=t; other=c2VjcmV0")], "/"), Forwarded::NoToken)
                .unwrap();
        assert_eq!(withheld.cookie.as_deref(), Some(&b"other=c2VjcmV0"[..]));
        let shown = format!("{withheld:?}");
        assert!(shown.contains("14 bytes") && !shown.contains("c2VjcmV0"), "{shown}");
    }
}
