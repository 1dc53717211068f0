//! The token as unchecked bytes: the places of a request that may carry it, its three segments, and what to remove of
//! a request so that the upstream does not get it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::denial::Denial;
use crate::domain::request::Request;
use crate::domain::token_fault::{TokenFault, TokenStep};

/// A token as the client sent it: unchecked, and never printed.
#[derive(Clone, Copy)]
pub(crate) struct Token<'a>(&'a [u8]);

impl<'a> Token<'a> {
    #[must_use]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Splits the token into three segments of base64url without padding or stray bits (RFC 7515 sections 2
    /// and 7.1).
    ///
    /// # Errors
    /// [`Denial::TokenTooLong`] over `max_bytes`, before anything is parsed; [`Denial::TokenMalformed`] for any
    /// other form.
    pub(crate) fn split(self, max_bytes: usize) -> Result<Segments<'a>, TokenFault> {
        const MALFORMED: TokenFault = TokenStep::Form.fault(Denial::TokenMalformed);
        let text = str::from_utf8(self.bounded(max_bytes)?.0).map_err(|_| MALFORMED)?;
        let (signing_input, signature) = text.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, payload) = signing_input.split_once('.').ok_or(MALFORMED)?;
        // A second dot in the payload (a JWE, for example) is not base64url and fails here.
        let decode = |segment: &str| URL_SAFE_NO_PAD.decode(segment).map_err(|_| MALFORMED);
        let signature = decode(signature)?;
        Ok(Segments { signing_input, signature, header: decode(header)?, payload: decode(payload)? })
    }

    /// The same token, if it has at most so many bytes.
    ///
    /// # Errors
    /// [`Denial::TokenTooLong`].
    pub(crate) const fn bounded(self, max_bytes: usize) -> Result<Self, TokenFault> {
        if self.0.len() > max_bytes { Err(TokenStep::Length.fault(Denial::TokenTooLong)) } else { Ok(self) }
    }

    pub(crate) const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// The segments of a token, decoded from base64url but not parsed as JSON.
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
    /// The token in this place, if there is one. An empty value counts as absent.
    ///
    /// # Errors
    /// [`Denial::TokenMalformed`] when several values of one name make the token ambiguous.
    fn find<'a>(&self, request: &Request<'a>) -> Result<Option<Token<'a>>, Denial> {
        match self {
            Self::Bearer => at_most_one(request.header(AUTHORIZATION), bearer),
            Self::Header(name) => at_most_one(request.header(name), non_empty),
            Self::Query(name) => at_most_one(request.query(name), non_empty),
            Self::Cookie(name) => {
                let found = request.header("cookie").find_map(|header| cookie(header, name));
                Ok(found.filter(|value| !value.is_empty()).map(Token))
            }
        }
    }
}

/// The token among the values of one name, if there is one. A second value next to a token is an error: Envoy joins
/// repeated headers with a comma, which makes the token malformed, and values that arrive unjoined must end the same
/// way, because the upstream might read the other one.
fn at_most_one<'a>(
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

/// What to remove from a request whose tokens are not forwarded to the upstream.
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
        let Self { headers, cookie, query } = self;
        // The cookies that are left are other services' sessions.
        let cookie = cookie.as_ref().map(|cookie| format!("{} bytes", cookie.len()));
        f.debug_struct("Withheld")
            .field("headers", headers)
            .field("cookie", &cookie)
            .field("query", query)
            .finish()
    }
}

/// Every configured source that the request carries is withheld, whether its token is good or bad. An `Authorization`
/// of another scheme is no token and stays.
#[must_use]
pub(crate) fn withheld(sources: &[TokenSource], request: &Request<'_>) -> Withheld {
    let mut withheld = Withheld::default();
    let mut token_cookies = Vec::new();
    for source in sources {
        match source {
            TokenSource::Bearer if request.header(AUTHORIZATION).any(is_bearer) => {
                withheld.headers.push(AUTHORIZATION.to_owned());
            }
            TokenSource::Bearer => {}
            TokenSource::Header(name) => withheld.headers.push(name.clone()),
            TokenSource::Cookie(name) => token_cookies.push(name.as_str()),
            TokenSource::Query(name) => withheld.query.push(name.clone()),
        }
    }
    let pairs = || request.header("cookie").flat_map(|header| header.split(|byte| *byte == b';'));
    let is_token = |pair: &&[u8]| {
        cookie_name(pair).is_some_and(|found| token_cookies.iter().any(|name| found == name.as_bytes()))
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

/// The token of the first source that is present. A bad token there is denied, even if a later source has a good one.
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
    is_bearer(value).then(|| non_empty(token)).flatten()
}

/// Whether the scheme is `Bearer`, whatever follows it.
fn is_bearer(value: &[u8]) -> bool {
    let scheme = value.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t')).next();
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Bearer"))
}

/// The whole value as a token, unless it is empty.
fn non_empty(value: &[u8]) -> Option<Token<'_>> {
    let value = value.trim_ascii();
    (!value.is_empty()).then_some(Token(value))
}

/// The name of one pair of a `Cookie` header.
fn cookie_name(pair: &[u8]) -> Option<&[u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    pair.get(..equals).map(<[u8]>::trim_ascii)
}

/// The value of the first cookie of this exact name in one `Cookie` header. Only semicolons separate;
/// quotes stay part of the value, so a quoted token is malformed.
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
        let malformed = TokenStep::Form.fault(Denial::TokenMalformed);
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
            assert_eq!(split.err(), Some(malformed), "{text:?}");
        }
        assert_eq!(Token::new(b"e30.\xff.e30").split(64).err(), Some(malformed));
        let too_long = TokenStep::Length.fault(Denial::TokenTooLong);
        assert_eq!(Token::new(&[b'.'; 65]).split(64).err(), Some(too_long));
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
