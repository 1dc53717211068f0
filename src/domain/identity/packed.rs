//! Values of one token, one behind the other in one allocation: the token cache holds many of them.

/// A value of a header or of a key of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed<'a> {
    None,
    Text(&'a str),
    /// The text of a JSON value.
    Json(&'a str),
    /// Of the plain claims: the header has the same value.
    Same,
}

const NONE: u8 = 0;
const TEXT: u8 = 1;
const JSON: u8 = 2;
const SAME: u8 = 3;

/// Adds a value: a byte for its kind, four for its length, its text.
pub(super) fn pack(value: Packed<'_>, into: &mut Vec<u8>) {
    let (kind, text) = match value {
        Packed::None => (NONE, ""),
        Packed::Text(text) => (TEXT, text),
        Packed::Json(text) => (JSON, text),
        Packed::Same => (SAME, ""),
    };
    // A token is shorter by far.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    into.push(kind);
    into.extend(length.to_le_bytes());
    into.extend(text.as_bytes());
}

/// The values that were packed.
pub(super) fn unpack(mut rest: &[u8]) -> impl Iterator<Item = Packed<'_>> {
    std::iter::from_fn(move || {
        let (kind, after) = rest.split_first()?;
        let (length, after) = after.split_first_chunk()?;
        let (text, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        rest = after;
        let text = str::from_utf8(text).ok()?;
        Some(match *kind {
            TEXT => Packed::Text(text),
            JSON => Packed::Json(text),
            SAME => Packed::Same,
            _ => Packed::None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were() {
        let long = "\u{e9}".repeat(5000);
        let values = [
            Packed::Text("a"),
            Packed::None,
            Packed::Text(""),
            Packed::Json("{}"),
            Packed::Same,
            Packed::Text(&long),
        ];
        let mut bytes = Vec::new();
        values.iter().for_each(|value| pack(*value, &mut bytes));
        assert_eq!(unpack(&bytes).collect::<Vec<_>>(), values);
        assert_eq!(unpack(&[]).count(), 0);
    }
}
