//! What is being authorized, borrowed from whatever protocol brought it.

/// One request's view. Nothing in it is trusted: header names and values are bytes as they came.
pub struct Request<'a> {
    /// Names and values in the order they came; a name may repeat.
    pub headers: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Request<'a> {
    /// The values of a header, its name compared without case (RFC 9110 section 5.1).
    pub fn header(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| *value)
    }
}
