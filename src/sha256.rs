//! SHA-256 in hex, for the log: what `sha256sum` prints.

use std::fmt::Write as _;

use aws_lc_rs::digest;

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in digest::digest(&digest::SHA256, bytes).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    #[test]
    fn as_sha256sum_prints_it() {
        // printf '%s' user-1 | sha256sum
        let hash = "c6c289e49e9c05b2145860387b73bcb18df43fb09a1e4a4a9713c76c88bb541b";
        assert_eq!(super::hex(b"user-1"), hash);
    }
}
