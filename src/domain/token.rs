//! The token as unchecked bytes: the places of a request that may carry it, its three segments, and what to remove of
//! a request so that the upstream gets no other token.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::denial::Denial;
use crate::domain::token_fault::{TokenFault, TokenStep};

mod authorization;
mod chunks;
mod cookies;
mod names;
mod query;
mod source;
mod withheld;

pub(crate) use source::{Joined, Judged, TokenPlace, TokenSource, find, is_hidden};
pub(crate) use withheld::{Forwarded, Withheld, withheld};

/// A token as the client sent it: unchecked, and never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
