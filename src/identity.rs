//! What the service behind may believe: which headers carry the identity, and which names a client could
//! have forged it under.

/// The identity headers, worked out once per configuration.
///
/// Each carries the token's `sub`. On every answer that lets a request through, each is either set,
/// overwriting what the client sent, or removed; its other spellings are always removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    header: String,
    disguises: Vec<String>,
}

impl Identity {
    /// The header the Passage user's ID travels in unless configured otherwise.
    pub const DEFAULT_HEADER: &str = "x-passage-user-id";

    /// Prepares the lists for one header.
    #[must_use]
    pub fn new(header: &str) -> Self {
        Self { header: header.to_owned(), disguises: disguises(header) }
    }

    /// The header that carries `sub`.
    #[must_use]
    pub fn header(&self) -> &str {
        &self.header
    }

    /// The spellings to remove on every answer that lets a request through.
    #[must_use]
    pub fn disguises(&self) -> &[String] {
        &self.disguises
    }
}

/// Every spelling of a header with `_` for one or more `-`. CGI and WSGI map both to one variable (RFC
/// 3875 section 4.1.18), so a forged `x_passage_user_id` would reach the application as ours.
fn disguises(header: &str) -> Vec<String> {
    let dashes: Vec<usize> = header.match_indices('-').map(|(at, _)| at).collect();
    (1..1_usize << dashes.len())
        .map(|chosen| {
            let swapped = |at: usize| {
                dashes.iter().enumerate().any(|(bit, dash)| *dash == at && chosen & (1 << bit) != 0)
            };
            header.char_indices().map(|(at, c)| if swapped(at) { '_' } else { c }).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_every_spelling_but_its_own() {
        assert_eq!(Identity::new("user").disguises(), &[] as &[String]);
        assert_eq!(Identity::new("x-user-id").disguises(), &["x_user-id", "x-user_id", "x_user_id"]);
        let default = Identity::new(Identity::DEFAULT_HEADER);
        assert_eq!(default.disguises().len(), 7);
        assert!(!default.disguises().contains(&default.header));
    }
}
