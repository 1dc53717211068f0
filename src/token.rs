//! The token as bytes that nobody has checked: where a request may carry it, and how it comes apart.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::denial::Denial;
use crate::request::Request;

/// A token as the client sent it: not yet looked at, never printed.
#[derive(Clone, Copy)]
pub struct Token<'a>(&'a [u8]);

impl<'a> Token<'a> {
    /// Takes bytes for a token. They are checked when it is [split](Token::split).
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Takes the token apart: three segments of base64url without padding or stray bits (RFC 7515
    /// sections 2 and 7.1).
    ///
    /// # Errors
    /// [`Denial::TokenTooLong`] over `max_length` bytes, before anything is parsed;
    /// [`Denial::TokenMalformed`] for any other form.
    pub fn split(self, max_length: usize) -> Result<Parts<'a>, Denial> {
        if self.0.len() > max_length {
            return Err(Denial::TokenTooLong);
        }
        let text = str::from_utf8(self.0).map_err(|_| Denial::TokenMalformed)?;
        let (signing_input, signature) = text.rsplit_once('.').ok_or(Denial::TokenMalformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(Denial::TokenMalformed)?;
        // A second dot in the payload (a JWE, say) is no base64url and fails here.
        let decode = |segment: &str| URL_SAFE_NO_PAD.decode(segment).map_err(|_| Denial::TokenMalformed);
        decode(signature)?;
        Ok(Parts { signing_input, signature, header: decode(header)?, payload: decode(payload)? })
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// A token taken apart, its header and payload decoded but not read.
pub struct Parts<'a> {
    pub(crate) signing_input: &'a str,
    pub(crate) signature: &'a str,
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parts(..)")
    }
}

/// One place where a request may carry its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `Authorization` with the `Bearer` scheme (RFC 6750 section 2.1).
    Bearer,
    /// The cookie of this exact name (RFC 6265 section 5.4).
    Cookie(String),
}

impl Source {
    /// The token in this place, if there is one. Present but empty counts as absent.
    ///
    /// # Errors
    /// [`Denial::TokenMalformed`] when several `Authorization` values make the token ambiguous.
    fn find<'a>(&self, request: &Request<'a>) -> Result<Option<Token<'a>>, Denial> {
        match self {
            Self::Bearer => {
                let mut values = request.header("authorization");
                let Some(token) = values.next().and_then(bearer) else { return Ok(None) };
                // Envoy joins repeated headers with a comma, which no token survives. Unjoined ones must
                // not fare better: the service behind might take the other one.
                if values.next().is_some() { Err(Denial::TokenMalformed) } else { Ok(Some(token)) }
            }
            Self::Cookie(name) => {
                let found = request.header("cookie").find_map(|header| cookie(header, name));
                Ok(found.filter(|value| !value.is_empty()).map(Token))
            }
        }
    }
}

/// The first source that is present decides; a bad token there is never rescued by a later one.
///
/// # Errors
/// [`Denial::TokenMissing`] if no source is present, [`Denial::TokenMalformed`] for an ambiguous one.
pub fn find<'a>(sources: &[Source], request: &Request<'a>) -> Result<Token<'a>, Denial> {
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
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    let token = rest.strip_prefix(b" ")?.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer") && !token.is_empty()).then_some(Token(token))
}

/// The value of the first cookie of this exact name in one `Cookie` header. Only semicolons separate;
/// quotes stay, so that a quoted token is malformed here exactly as it is behind us.
fn cookie<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    header.split(|byte| *byte == b';').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (found, value) = pair.split_at_checked(equals)?;
        (found.trim_ascii() == name.as_bytes()).then(|| value.get(1..).unwrap_or_default().trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(headers: &[(&'static str, &'static str)]) -> Result<String, Denial> {
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let request = Request { headers };
        let sources = [Source::Bearer, Source::Cookie("psg_auth_token".into())];
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
        assert_eq!(shown, "Token(16 bytes) Parts(..)");
    }
}
