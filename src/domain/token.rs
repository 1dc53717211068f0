//! The token as bytes that nobody has checked: where a request may carry it, and how it comes apart.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::denial::Denial;
use crate::domain::request::Request;

/// A token as the client sent it: not yet looked at, never printed.
#[derive(Clone, Copy)]
pub(crate) struct Token<'a>(&'a [u8]);

impl<'a> Token<'a> {
    /// Takes bytes for a token. They are checked when it is [split](Token::split).
    #[must_use]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Takes the token apart: three segments of base64url without padding or stray bits (RFC 7515
    /// sections 2 and 7.1).
    ///
    /// # Errors
    /// [`Denial::TokenTooLong`] over `max_length` bytes, before anything is parsed;
    /// [`Denial::TokenMalformed`] for any other form.
    pub(crate) fn split(self, max_length: usize) -> Result<Segments<'a>, Denial> {
        let text = str::from_utf8(self.of_at_most(max_length)?.0).map_err(|_| Denial::TokenMalformed)?;
        let (signing_input, signature) = text.rsplit_once('.').ok_or(Denial::TokenMalformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(Denial::TokenMalformed)?;
        // A second dot in the payload (a JWE, say) is no base64url and fails here.
        let decode = |segment: &str| URL_SAFE_NO_PAD.decode(segment).map_err(|_| Denial::TokenMalformed);
        let signature = decode(signature)?;
        Ok(Segments { signing_input, signature, header: decode(header)?, payload: decode(payload)? })
    }
}

impl<'a> Token<'a> {
    /// The token, if it is not longer than this.
    ///
    /// # Errors
    /// [`Denial::TokenTooLong`].
    pub(crate) const fn of_at_most(self, max_length: usize) -> Result<Self, Denial> {
        if self.0.len() > max_length { Err(Denial::TokenTooLong) } else { Ok(self) }
    }

    /// The bytes, for a digest of them.
    pub(crate) const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// A token taken apart, its segments decoded but not read.
pub(crate) struct Segments<'a> {
    pub(crate) signing_input: &'a str,
    pub(crate) signature: Vec<u8>,
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl fmt::Debug for Segments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Segments(..)")
    }
}

/// One place where a request may carry its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization` with the `Bearer` scheme (RFC 6750 section 2.1).
    Bearer,
    /// Any other header: the whole value is the token.
    Header(String),
    /// The cookie of this exact name (RFC 6265 section 5.4).
    Cookie(String),
    /// The query parameter of this exact name (RFC 6750 section 2.3), undecoded: a token needs no escapes.
    Query(String),
}

impl TokenSource {
    /// The token in this place, if there is one. Present but empty counts as absent.
    ///
    /// # Errors
    /// [`Denial::TokenMalformed`] when several values of one name make the token ambiguous.
    fn find<'a>(&self, request: &Request<'a>) -> Result<Option<Token<'a>>, Denial> {
        match self {
            Self::Bearer => only(request.header(AUTHORIZATION), bearer),
            Self::Header(name) => only(request.header(name), whole),
            Self::Query(name) => only(request.query(name), whole),
            Self::Cookie(name) => {
                let found = request.header("cookie").find_map(|header| cookie(header, name));
                Ok(found.filter(|value| !value.is_empty()).map(Token))
            }
        }
    }
}

/// The one value of its kind. Envoy joins repeated headers with a comma, which no token survives; values that
/// were not joined must not fare better, for the service behind might take another one.
fn only<'a>(
    mut values: impl Iterator<Item = &'a [u8]>,
    token: impl Fn(&'a [u8]) -> Option<Token<'a>>,
) -> Result<Option<Token<'a>>, Denial> {
    let Some(first) = values.next().map(&token) else { return Ok(None) };
    match values.next().map(&token) {
        None => Ok(first),
        Some(second) if first.or(second).or_else(|| values.find_map(&token)).is_some() => {
            Err(Denial::TokenMalformed)
        }
        // None of them is a token.
        Some(_) => Ok(None),
    }
}

/// What the service behind must not see of a request whose tokens are not forwarded.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Withheld {
    /// Headers to remove.
    pub headers: Vec<String>,
    /// The `Cookie` header without the token, if other cookies are left.
    pub cookie: Option<Vec<u8>>,
    /// Query parameters to remove.
    pub query: Vec<String>,
}

impl fmt::Debug for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The cookies that are left are other services' sessions.
        let cookie = self.cookie.as_ref().map(|cookie| format!("{} bytes", cookie.len()));
        f.debug_struct("Withheld")
            .field("headers", &self.headers)
            .field("cookie", &cookie)
            .field("query", &self.query)
            .finish()
    }
}

/// Works out what to withhold: every configured source that the request carries, good token or bad. An
/// `Authorization` of another scheme is no token and stays.
#[must_use]
pub(crate) fn withheld(sources: &[TokenSource], request: &Request<'_>) -> Withheld {
    let mut withheld = Withheld::default();
    let mut names = Vec::new();
    for source in sources {
        match source {
            TokenSource::Bearer if request.header(AUTHORIZATION).any(is_bearer) => {
                withheld.headers.push(AUTHORIZATION.to_owned());
            }
            TokenSource::Bearer => {}
            TokenSource::Header(name) => withheld.headers.push(name.clone()),
            TokenSource::Cookie(name) => names.push(name.as_str()),
            TokenSource::Query(name) => withheld.query.push(name.clone()),
        }
    }
    let pairs = || request.header("cookie").flat_map(|header| header.split(|byte| *byte == b';'));
    let is_token = |pair: &&[u8]| {
        cookie_name(pair).is_some_and(|found| names.iter().any(|name| found == name.as_bytes()))
    };
    if pairs().any(|pair| is_token(&pair)) {
        let rest: Vec<_> = pairs()
            .filter(|pair| !is_token(pair))
            .map(<[u8]>::trim_ascii)
            .filter(|pair| !pair.is_empty())
            .collect();
        if rest.is_empty() {
            withheld.headers.push("cookie".to_owned());
        } else {
            withheld.cookie = Some(rest.join(&b"; "[..]));
        }
    }
    withheld
}

const AUTHORIZATION: &str = "authorization";

/// The first source that is present decides; a bad token there is never rescued by a later one.
///
/// # Errors
/// [`Denial::TokenMissing`] if no source is present, [`Denial::TokenMalformed`] for an ambiguous one.
pub(crate) fn find<'a>(sources: &[TokenSource], request: &Request<'a>) -> Result<Token<'a>, Denial> {
    for source in sources {
        if let Some(token) = source.find(request)? {
            return Ok(token);
        }
    }
    Err(Denial::TokenMissing)
}

/// The token of `Bearer <token>`, the scheme in any case (RFC 9110 section 11.1). Another scheme counts
/// as absent, and so does `Bearer` alone.
fn bearer(value: &[u8]) -> Option<Token<'_>> {
    let value = value.trim_ascii();
    let token = value.get("Bearer".len()..)?.strip_prefix(b" ")?;
    is_bearer(value).then(|| whole(token)).flatten()
}

/// Whether the scheme is `Bearer`, whatever follows it.
fn is_bearer(value: &[u8]) -> bool {
    let scheme = value.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t')).next();
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Bearer"))
}

/// A value that is a token as a whole, if there is anything in it.
fn whole(value: &[u8]) -> Option<Token<'_>> {
    let value = value.trim_ascii();
    (!value.is_empty()).then_some(Token(value))
}

/// The name of one pair of a `Cookie` header.
fn cookie_name(pair: &[u8]) -> Option<&[u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    pair.get(..equals).map(<[u8]>::trim_ascii)
}

/// The value of the first cookie of this exact name in one `Cookie` header. Only semicolons separate;
/// quotes stay, so that a quoted token is malformed here exactly as it is behind us.
fn cookie<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    header.split(|byte| *byte == b';').find_map(|pair| {
        let value = pair.iter().position(|byte| *byte == b'=')? + 1;
        let named = cookie_name(pair)? == name.as_bytes();
        named.then(|| pair.get(value..).unwrap_or_default().trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(headers: &[(&'static str, &'static str)]) -> Result<String, Denial> {
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let request = Request { headers, ..Request::default() };
        let sources = [TokenSource::Bearer, TokenSource::Cookie("psg_auth_token".into())];
        find(&sources, &request).map(|token| String::from_utf8_lossy(token.0).into_owned())
    }

    #[test]
    fn the_first_source_that_is_present_decides() {
        let missing = Err(Denial::TokenMissing);
        let malformed = Err(Denial::TokenMalformed);
        let ok = |token: &str| Ok(token.to_owned());
        for (headers, want) in [
            (&[][..], missing.clone()),
            (&[("authorization", "Bearer t")][..], ok("t")),
            (&[("authorization", "bearer t")], ok("t")),
            (&[("Authorization", "BEARER   t ")], ok("t")),
            (&[("authorization", "Bearer")], missing.clone()),
            (&[("authorization", "Bearer  ")], missing.clone()),
            (&[("authorization", "")], missing.clone()),
            (&[("authorization", "Bearert")], missing.clone()),
            (&[("authorization", "Bear")], missing.clone()),
            (&[("authorization", "Basic dTpw")], missing.clone()),
            (&[("authorization", "Bearer a,Bearer b")], ok("a,Bearer b")),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer b")], malformed.clone()),
            (&[("authorization", "Bearer a"), ("authorization", "Basic b")], malformed.clone()),
            (&[("authorization", "Basic b"), ("authorization", "Bearer a")], malformed.clone()),
            (
                &[("authorization", ""), ("authorization", ""), ("authorization", "Bearer a")],
                malformed.clone(),
            ),
            (&[("authorization", "Basic a"), ("authorization", "")], missing.clone()),
            (&[("cookie", "psg_auth_token=t")], ok("t")),
            (&[("cookie", "a=1; psg_auth_token=t; b=2")], ok("t")),
            (&[("cookie", "a=1;psg_auth_token = t ")], ok("t")),
            (&[("cookie", "psg_auth_token=t; psg_auth_token=u")], ok("t")),
            (&[("cookie", "psg_auth_token=; psg_auth_token=u")], missing.clone()),
            (&[("cookie", "psg_auth_token=\"t\"")], ok("\"t\"")),
            (&[("cookie", "a=1,psg_auth_token=t")], missing.clone()),
            (&[("cookie", "psg_auth_token")], missing.clone()),
            (&[("cookie", "PSG_AUTH_TOKEN=t")], missing.clone()),
            (&[("cookie", "xpsg_auth_token=t; psg_auth_tokenx=t")], missing.clone()),
            (&[("cookie", "a=1"), ("cookie", "psg_auth_token=t")], ok("t")),
            (&[("cookie", "psg_auth_token=c"), ("authorization", "Bearer h")], ok("h")),
            (&[("cookie", "psg_auth_token=c"), ("authorization", "Basic h")], ok("c")),
            (&[("x-authorization", "Bearer t")], missing.clone()),
        ] {
            assert_eq!(found(headers), want, "{headers:?}");
        }
    }

    #[test]
    fn other_headers_and_query_parameters() {
        let found = |headers: &[(&'static str, &'static str)], path: &'static str| {
            let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let request = Request { headers, path: path.as_bytes(), ..Request::default() };
            let sources =
                [TokenSource::Header("x-api-token".into()), TokenSource::Query("access_token".into())];
            find(&sources, &request).map(|token| String::from_utf8_lossy(token.0).into_owned())
        };
        let (missing, malformed) = (Err(Denial::TokenMissing), Err(Denial::TokenMalformed));
        let ok = |token: &str| Ok(token.to_owned());
        for (headers, path, want) in [
            (&[("X-Api-Token", " t ")][..], "/", ok("t")),
            (&[("x-api-token", "Bearer t")], "/", ok("Bearer t")),
            (&[("x-api-token", "")], "/?access_token=q", ok("q")),
            (&[("x-api-token", "a"), ("x-api-token", "b")], "/", malformed.clone()),
            (&[("x-api-token", ""), ("x-api-token", "b")], "/", malformed.clone()),
            (&[("x-api-token", ""), ("x-api-token", " ")], "/?access_token=q", ok("q")),
            (&[], "/?access_token=q", ok("q")),
            (&[], "/a?b=c&access_token=q&d", ok("q")),
            (&[], "/?access_token=a%2Eb", ok("a%2Eb")),
            (&[], "/?access_token=a&access_token=b", malformed.clone()),
            (&[], "/?access_token=&access_token=b", malformed),
            (&[], "/?access_token=", missing.clone()),
            (&[], "/?access_token", missing.clone()),
            (&[], "/?Access_token=q", missing.clone()),
            (&[], "/?xaccess_token=q", missing.clone()),
            (&[], "/access_token=q", missing.clone()),
            (&[("x-api-token", "h")], "/?access_token=q", ok("h")),
        ] {
            assert_eq!(found(headers, path), want, "{headers:?} {path}");
        }
    }

    #[test]
    fn withholds_tokens_and_nothing_else() {
        let sources = [
            TokenSource::Bearer,
            TokenSource::Header("x-api-token".into()),
            TokenSource::Cookie("psg".into()),
            TokenSource::Query("access_token".into()),
        ];
        for (headers, removed, cookie) in [
            (&[][..], &[][..], None),
            (&[("authorization", "Bearer t")][..], &["authorization"], None),
            (&[("authorization", "bearer")], &["authorization"], None),
            (&[("authorization", "Bearer\tt")], &["authorization"], None),
            (&[("authorization", "Basic x")], &[], None),
            (&[("authorization", "Basic x"), ("authorization", "Bearer t")], &["authorization"], None),
            (&[("cookie", "psg=t")], &["cookie"], None),
            (&[("cookie", "psg=t; psg=u;")], &["cookie"], None),
            (&[("cookie", "a=1; psg=t; b=2")], &[], Some("a=1; b=2")),
            (&[("cookie", "a=1;psg=t"), ("cookie", "c; psg =u; d=\"x\"")], &[], Some("a=1; c; d=\"x\"")),
            (&[("cookie", "a=psg=t; PSG=x")], &[], None),
        ] {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let request = Request { headers, ..Request::default() };
            let want = Withheld {
                headers: ["x-api-token"].iter().chain(removed).map(|name| (*name).to_owned()).collect(),
                cookie: cookie.map(|rest: &str| rest.as_bytes().to_vec()),
                query: vec!["access_token".to_owned()],
            };
            let mut got = withheld(&sources, &request);
            got.headers.sort_by_key(|name| name != "x-api-token");
            assert_eq!(got, want, "{:?}", request.headers);
        }
    }

    #[test]
    fn splits_only_three_strict_base64url_segments() {
        for text in ["e30.e30.", "e30.e30.e30", ".e30.e30", "..", "e30..AA"] {
            assert!(Token::new(text.as_bytes()).split(64).is_ok(), "{text}");
        }
        for text in [
            "",
            ".",
            "e30.e30",
            "e30.e30.e30.e30",
            "e30=.e30.e30",
            "e30.e30.e3+",
            "e30.e30.e3/0",
            "e30.e30 .e30",
            " e30.e30.e30",
            "e30.e30.e30\n",
            "e31.e30.e30",
            "e30.e30.A",
            "e30.e30.AB",
            "é.e30.e30",
            "e30.e30.e30,Bearer e30.e30.e30",
        ] {
            let split = Token::new(text.as_bytes()).split(64);
            assert_eq!(split.err(), Some(Denial::TokenMalformed), "{text:?}");
        }
        assert_eq!(Token::new(b"e30.\xff.e30").split(64).err(), Some(Denial::TokenMalformed));
        assert_eq!(Token::new(&[b'.'; 65]).split(64).err(), Some(Denial::TokenTooLong));
    }

    #[test]
    fn debug_never_shows_the_token() {
        let token = Token::new(b"e30.e30.c2VjcmV0");
        let shown = format!("{token:?} {:?}", token.split(64).unwrap());
        assert_eq!(shown, "Token(16 bytes) Segments(..)");
    }

    #[test]
    fn debug_never_shows_the_cookies_that_are_left() {
        let headers = vec![(&b"cookie"[..], &b"psg_auth_token=t; other=c2VjcmV0"[..])];
        let request = Request { headers, ..Request::default() };
        let withheld = withheld(&[TokenSource::Cookie("psg_auth_token".into())], &request);
        assert_eq!(withheld.cookie.as_deref(), Some(&b"other=c2VjcmV0"[..]));
        let shown = format!("{withheld:?}");
        assert!(shown.contains("14 bytes") && !shown.contains("c2VjcmV0"), "{shown}");
    }
}
