//! What a rule asks of one claim of a verified token.

use crate::domain::claim::Claim;
use crate::domain::json::{Json, Object, Shallow};

/// Claims that hold a list as one text, separated by spaces (RFC 8693 section 4.2 for `scope`; `scp` is Entra's and Okta's).
const SPACE_SEPARATED: [&str; 2] = ["scope", "scp"];

/// A claim, and what must be found in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClaimDemand {
    pub(crate) claim: Claim,
    pub(crate) wanted: Wanted,
    /// Whether a text is a list whose items are separated by spaces.
    pub(crate) split: bool,
}

/// What is wanted of a claim. A claim that is an array, or a text that is split, has its items for values; any other claim is its
/// one value. Values are texts, numbers, `true` and `false`, and of another type than the wanted one none is met.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    /// One of these is a value of the claim. Never empty.
    Any(Vec<Json>),
    /// Each of these is a value of the claim. Never empty.
    All(Vec<Json>),
    /// A value is a text that begins with this. Never empty.
    Prefix(String),
    /// The claim is there and not null, whatever it holds.
    Present,
}

impl ClaimDemand {
    /// Whether the claim's texts are split without being told to.
    pub(crate) fn is_split_by_name(claim: &Claim) -> bool {
        SPACE_SEPARATED.contains(&claim.as_str())
    }

    /// Whether the claims of a token meet it. A claim that is missing or null meets nothing.
    pub(super) fn is_met_by(&self, claims: &Object<'_>) -> bool {
        self.claim.of(claims).and_then(Shallow::of).is_some_and(|found| self.holds(&found))
    }

    fn holds(&self, found: &Shallow<'_>) -> bool {
        let has = |wanted: &Json| self.any_value(found, |value| is_same(value, wanted));
        match &self.wanted {
            Wanted::Any(values) => values.iter().any(has),
            Wanted::All(values) => values.iter().all(has),
            Wanted::Prefix(prefix) => self.any_value(
                found,
                |value| matches!(value, Shallow::String(text) if text.starts_with(prefix.as_str())),
            ),
            Wanted::Present => !matches!(found, Shallow::Null),
        }
    }

    fn any_value(&self, found: &Shallow<'_>, mut is: impl FnMut(&Shallow<'_>) -> bool) -> bool {
        match found {
            Shallow::Array(items) => items.iter().any(|item| Shallow::of(item).is_some_and(|item| is(&item))),
            Shallow::String(text) if self.split => {
                text.split(' ').any(|word| is(&Shallow::String(word.into())))
            }
            other => is(other),
        }
    }
}

/// Numbers by value, texts as written, nothing else but `true` and `false`.
fn is_same(found: &Shallow<'_>, wanted: &Json) -> bool {
    match (found, wanted) {
        (Shallow::String(found), Json::String(wanted)) => found == wanted,
        (Shallow::Number(found), Json::Number(wanted)) => wanted.is_value_of(found),
        (Shallow::Bool(found), Json::Bool(wanted)) => found == wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text.as_bytes(), 0).unwrap()
    }

    fn is_met(claim: &str, wanted: Wanted, split: bool, found: &str) -> bool {
        let claim = Claim::new(claim).unwrap();
        let split = split || ClaimDemand::is_split_by_name(&claim);
        let claims = format!("{{{found}}}");
        ClaimDemand { claim, wanted, split }.is_met_by(&Object::parse(claims.as_bytes()).unwrap())
    }

    #[test]
    fn values_are_compared_strictly() {
        for (name, found, wanted, met) in [
            ("role", "\"admin\"", "\"admin\"", true),
            ("role", "\"Admin\"", "\"admin\"", false),
            ("role", "[\"a\",\"admin\"]", "\"admin\"", true),
            ("role", "\"admin user\"", "\"admin\"", false),
            ("role", "1", "\"1\"", false),
            ("role", "\"1\"", "1", false),
            ("role", "1", "1.0", true),
            ("role", "true", "\"true\"", false),
            ("role", "true", "true", true),
            ("role", "null", "\"null\"", false),
            ("role", "{\"admin\":true}", "\"admin\"", false),
            ("role", "[[\"admin\"]]", "\"admin\"", false),
            ("scope", "\"read write\"", "\"write\"", true),
            ("scp", "\"read write\"", "\"read\"", true),
            ("scope", "\"rewrite\"", "\"write\"", false),
            ("scope", "\"read  write\"", "\"\"", true),
            ("scope", "[\"read write\"]", "\"read\"", false),
            ("id", "9007199254740993", "9007199254740992", false),
            ("id", "9007199254740993.0", "9007199254740993", true),
            ("id", "9223372036854775807", "9223372036854775809", false),
            ("id", "9223372036854775809", "9223372036854775809", true),
            ("id", "18446744073709551617", "18446744073709551616", false),
            ("id", "18446744073709551617", "1.8446744073709551617e19", true),
            ("id", "1e999", "1e999", true),
            ("id", "1e999", "1e998", false),
            ("id", "[1, 18446744073709551617]", "18446744073709551617", true),
            ("id", "[1, 18446744073709551617]", "18446744073709551616", false),
            ("id", "[[7]]", "7", false),
            ("id", "0", "false", false),
            ("id", "false", "0", false),
            ("scope", "7", "7", true),
        ] {
            let claims = format!("\"{name}\":{found}");
            assert_eq!(
                is_met(name, Wanted::Any(vec![json(wanted)]), false, &claims),
                met,
                "{claims} {wanted}"
            );
            assert_eq!(
                is_met(name, Wanted::All(vec![json(wanted)]), false, &claims),
                met,
                "{claims} {wanted}"
            );
        }
    }

    #[test]
    fn all_prefix_present_and_split() {
        let all = |values: &[&str]| Wanted::All(values.iter().map(|value| json(value)).collect());
        let prefix = |text: &str| Wanted::Prefix(text.to_owned());
        for (claim, wanted, split, found, met) in [
            ("role", all(&["\"a\"", "\"b\""]), false, r#""role":["b","x","a"]"#, true),
            ("role", all(&["\"a\"", "\"b\""]), false, r#""role":["a"]"#, false),
            ("role", all(&["\"a\"", "\"b\""]), false, r#""role":"a b""#, false),
            ("role", all(&["\"a\"", "\"b\""]), true, r#""role":"a b""#, true),
            ("scope", all(&["\"a\"", "\"b\""]), false, r#""scope":"b c a""#, true),
            ("role", all(&["\"a\"", "1"]), false, r#""role":["a",1.0]"#, true),
            ("role", all(&["\"a\""]), false, r#""x":1"#, false),
            ("sub", prefix("auth0|"), false, r#""sub":"auth0|7""#, true),
            ("sub", prefix("auth0|"), false, r#""sub":"x auth0|7""#, false),
            ("sub", prefix("auth0|"), true, r#""sub":"x auth0|7""#, true),
            ("sub", prefix("1"), false, r#""sub":12"#, false),
            ("groups", prefix("team-"), false, r#""groups":["x","team-a"]"#, true),
            ("groups", prefix("team-"), false, r#""groups":[["team-a"],{"team-":1}]"#, false),
            ("groups", prefix("team-"), true, r#""groups":["x team-a"]"#, false),
            ("cid", Wanted::Present, false, r#""cid":"""#, true),
            ("cid", Wanted::Present, false, r#""cid":false"#, true),
            ("cid", Wanted::Present, false, r#""cid":null"#, false),
            ("cid", Wanted::Present, false, r#""x":1"#, false),
            ("/roles/admin", Wanted::Present, false, r#""roles":{"admin":{"1":"org"}}"#, true),
            ("/roles/admin", Wanted::Present, false, r#""roles":{"user":{}}"#, false),
            ("/roles/admin", Wanted::Present, false, r#""roles":["admin"]"#, false),
            ("/roles/1", Wanted::Present, false, r#""roles":["admin"]"#, false),
            ("dept", Wanted::Any(vec![json("\"b\"")]), true, r#""dept":"a b""#, true),
            ("dept", Wanted::Any(vec![json("\"b\"")]), true, r#""dept":"a\tb""#, false),
        ] {
            assert_eq!(
                is_met(claim, wanted.clone(), split, found),
                met,
                "{claim} {wanted:?} {split} {found}"
            );
        }
    }
}
