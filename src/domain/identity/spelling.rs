//! The spellings of a header's name that an upstream may take for it.

/// How many dashes, underscores and other marks a header's name may have: each doubles its spellings.
pub(crate) const MAX_MARKS: usize = 5;

/// A byte of a header's name as an upstream may read it. CGI and WSGI map `-` to `_` (RFC 3875 section 4.1.18), PHP and
/// lighttpd every byte but letters and digits: such an application cannot tell `x.passage.user.id` from
/// `x-passage-user-id`.
const fn folded_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// The name as an upstream may read it: the same for a name and all its spellings. Of non-ASCII each byte is a mark.
#[must_use]
pub(crate) fn folded(name: &str) -> String {
    name.bytes().map(|byte| char::from(folded_byte(byte))).collect()
}

/// Whether two names are the same once folded. A name is as long as its folded form, so most pairs differ in length.
pub(super) fn fold_alike(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| folded_byte(*one) == folded_byte(*other))
}

/// Whether a byte may stand in a header's name (RFC 9110 section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Every other spelling of a name with `-` or `_` for each of its marks.
pub(super) fn aliases(name: &str) -> Vec<String> {
    let is_mark = |c: char| !c.is_ascii_alphanumeric();
    let places: Vec<usize> = name.match_indices(is_mark).map(|(at, _)| at).collect();
    (0..1_usize << places.len().min(MAX_MARKS))
        .map(|chosen| {
            let spelled = |(at, c): (usize, char)| match places.iter().position(|place| *place == at) {
                Some(bit) if chosen & (1 << bit) != 0 => '_',
                Some(_) => '-',
                None => c,
            };
            name.char_indices().map(spelled).collect()
        })
        .filter(|spelling: &String| spelling != name)
        .collect()
}
