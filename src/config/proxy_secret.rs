//! The secret that a proxy sends with each check over HTTP, and the file that holds it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// A secret shared by the proxy and passage-authz. Never printed.
pub(crate) struct ProxySecret(Box<[u8]>);

/// Why a file holds no usable secret. Nothing of the file is quoted.
#[derive(Debug, thiserror::Error)]
pub enum ProxySecretError {
    /// The read failed.
    #[error("cannot be read: {0}")]
    File(#[from] io::Error),
    /// Too short to be a secret, or too long for a header.
    #[error("holds no secret of {} to {} bytes", ProxySecret::MIN_BYTES, ProxySecret::MAX_BYTES)]
    Length,
    /// Bytes that a header's value cannot carry, or that a proxy would write into it in another way.
    #[error("holds other bytes than printable ASCII without spaces, or more than one line")]
    Bytes,
}

impl ProxySecret {
    /// 16 random bytes cannot be guessed.
    const MIN_BYTES: usize = 16;

    /// Fits into a request's headers beside everything else.
    const MAX_BYTES: usize = 1024;

    /// Reads a secret without the white space around it. Blocks.
    ///
    /// # Errors
    /// [`ProxySecretError`].
    pub(crate) fn read(file: &Path) -> Result<Self, ProxySecretError> {
        let mut bytes = Vec::new();
        // White space around the secret included; a device without an end is not read to the end.
        File::open(file)?.take(2 * Self::MAX_BYTES as u64).read_to_end(&mut bytes)?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, ProxySecretError> {
        let secret = bytes.trim_ascii();
        if !(Self::MIN_BYTES..=Self::MAX_BYTES).contains(&secret.len()) {
            return Err(ProxySecretError::Length);
        }
        if secret.iter().all(u8::is_ascii_graphic) {
            Ok(Self(secret.into()))
        } else {
            Err(ProxySecretError::Bytes)
        }
    }

    /// Whether this is the secret. The time that it takes depends on the lengths alone.
    #[must_use]
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        verify_slices_are_equal(&self.0, value).is_ok()
    }
}

impl fmt::Debug for ProxySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxySecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_16_to_1024_bytes() {
        let long = "x".repeat(1024);
        for (text, want) in [
            ("0123456789abcdef", Some("0123456789abcdef")),
            (" \t0123456789abcdef\r\n\n", Some("0123456789abcdef")),
            (&long, Some(long.as_str())),
            ("0123456789abcde", None),
            ("  0123456789abcde  ", None),
            ("", None),
            (&format!("{long}x"), None),
            ("0123456789 abcdef", None),
            ("0123456789abcdef\n0123456789abcdef", None),
            ("0123456789abcdef\u{e9}", None),
            ("0123456789abcdef\0", None),
        ] {
            let read = ProxySecret::parse(text.as_bytes()).ok();
            assert_eq!(read.is_some(), want.is_some(), "{text:?}");
            let Some((read, want)) = read.zip(want) else { continue };
            assert!(read.matches(want.as_bytes()), "{text:?}");
            for other in ["", "0123456789abcdeF", "0123456789abcde", "0123456789abcdef ", "0123456789abcdefg"]
            {
                assert!(!read.matches(other.as_bytes()), "{text:?} {other:?}");
            }
            assert_eq!(format!("{read:?}"), "ProxySecret(..)");
        }
    }

    #[test]
    fn a_file_without_an_end_is_no_secret() {
        assert!(matches!(ProxySecret::read(Path::new("/dev/zero")), Err(ProxySecretError::Length)));
        assert!(matches!(ProxySecret::read(Path::new("/no/such/file")), Err(ProxySecretError::File(_))));
        assert!(matches!(ProxySecret::read(Path::new("/")), Err(ProxySecretError::File(_))));
    }
}
