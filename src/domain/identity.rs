//! Which headers carry the identity to the upstream, and which other spellings of their names a client could use to
//! forge it. Both lists are made once per configuration, not per request.

use crate::domain::claims::Claim;
use crate::domain::denial::Denial;
use crate::domain::json::{Json, Object};

/// The identity headers and the claims for the proxy's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    headers: Vec<(String, Claim)>,
    aliases: Vec<String>,
    metadata: Vec<Claim>,
}

/// The identity headers of one request: those to set and those to remove. No name is in both lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers<'c> {
    /// To set; each overwrites what the client sent.
    pub set: Vec<(&'c str, String)>,
    /// To remove, besides the aliases.
    pub remove: Vec<&'c str>,
    /// Every other spelling of the identity headers: to remove from every request.
    pub aliases: &'c [String],
}

impl<'c> Headers<'c> {
    pub fn removed(&self) -> impl Iterator<Item = &'c str> {
        self.aliases.iter().map(String::as_str).chain(self.remove.iter().copied())
    }
}

/// How many arrays and objects a claim in the metadata may nest. Each level is two messages to protobuf, whose C++
/// parser stops at a depth of 100.
const MAX_METADATA_DEPTH: usize = 16;

impl Identity {
    /// The header of the Passage user's ID, unless configured otherwise.
    pub const DEFAULT_HEADER: &str = "x-passage-user-id";

    /// How many dashes or underscores a header's name may have: each doubles its spellings.
    pub const MAX_DASHES: usize = 5;

    /// The names must be lower case, and no two may be the same once [`folded`]: the configuration checks both.
    #[must_use]
    pub fn new(headers: Vec<(String, Claim)>, metadata: Vec<Claim>) -> Self {
        let aliases = headers.iter().flat_map(|(name, _)| aliases(name)).collect();
        Self { headers, aliases, metadata }
    }

    /// Each header with the claim that it carries.
    #[must_use]
    pub fn headers(&self) -> &[(String, Claim)] {
        &self.headers
    }

    /// Every other spelling of the headers.
    #[must_use]
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// The claims that go into the proxy's metadata.
    #[must_use]
    pub fn metadata(&self) -> &[Claim] {
        &self.metadata
    }

    /// The headers of a request with a verified token.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a claim that has no single form in a header.
    pub(crate) fn headers_of(&self, claims: &Object<'_>) -> Result<Headers<'_>, Denial> {
        let mut headers = Headers { set: Vec::new(), remove: Vec::new(), aliases: &self.aliases };
        for (name, claim) in &self.headers {
            match claim.header_value(claims)? {
                Some(value) => headers.set.push((name, value)),
                None => headers.remove.push(name),
            }
        }
        Ok(headers)
    }

    /// The headers of an anonymous request: none is set, all are removed.
    #[must_use]
    pub fn anonymous(&self) -> Headers<'_> {
        let remove = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        Headers { set: Vec::new(), remove, aliases: &self.aliases }
    }

    /// The claims for the proxy's metadata, each under its name as configured; missing and null claims are left out.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a claim that is deeper than [`MAX_METADATA_DEPTH`]: the proxy could not parse the
    /// answer.
    pub(crate) fn metadata_of(&self, claims: &Object<'_>) -> Result<Vec<(&str, Json)>, Denial> {
        let mut metadata = Vec::with_capacity(self.metadata.len());
        for claim in &self.metadata {
            if let Some(value) = claim.value(claims, MAX_METADATA_DEPTH)? {
                metadata.push((claim.as_str(), value));
            }
        }
        Ok(metadata)
    }
}

/// The name in lower case with `-` for `_`: the same for a name and all its [`aliases`].
#[must_use]
pub(crate) fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Every other spelling of a name with `_` for `-`, or the other way round. CGI and WSGI map both to one
/// variable (RFC 3875 section 4.1.18), so an application could not tell a forged `x_passage_user_id` from the header
/// that is set here.
fn aliases(name: &str) -> Vec<String> {
    let places: Vec<usize> = name.match_indices(['-', '_']).map(|(at, _)| at).collect();
    (0..1_usize << places.len().min(Identity::MAX_DASHES))
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn identity(headers: &[(&str, &str)]) -> Identity {
        let headers = headers.iter().map(|(name, claim)| ((*name).to_owned(), Claim::new(claim).unwrap()));
        Identity::new(headers.collect(), Vec::new())
    }

    #[test]
    fn knows_every_spelling_but_its_own() {
        assert!(identity(&[("user", "sub")]).aliases().is_empty());
        let spelled = identity(&[("x-user-id", "sub")]);
        assert_eq!(spelled.aliases(), ["x_user-id", "x-user_id", "x_user_id"]);
        assert_eq!(identity(&[("x_user", "sub")]).aliases(), ["x-user"]);
        assert_eq!(identity(&[(Identity::DEFAULT_HEADER, "sub")]).aliases.len(), 7);
        assert_eq!(identity(&[("a-b-c-d-e-f", "sub")]).aliases.len(), 31);
    }

    #[test]
    fn metadata_is_no_deeper_than_a_proxy_reads() {
        let identity = Identity::new(Vec::new(), vec![Claim::new("d").unwrap()]);
        for (depth, fits) in
            [(0, true), (MAX_METADATA_DEPTH, true), (MAX_METADATA_DEPTH + 1, false), (120, false)]
        {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = format!("{{\"d\":{}1{}}}", open.repeat(depth), close.repeat(depth));
                let claims = Object::parse(text.as_bytes()).unwrap();
                assert_eq!(
                    identity.metadata_of(&claims).map(|metadata| metadata.len()),
                    if fits { Ok(1) } else { Err(Denial::ClaimInvalid) },
                    "{depth} {open}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_name_is_set_and_removed(
            names in proptest::collection::vec("[a-c]{1,2}([-_][a-c]{1,2}){0,4}", 1..5),
            present in proptest::collection::vec(0..4_u8, 5),
        ) {
            let mut seen = HashSet::new();
            let names: Vec<_> = names.into_iter().filter(|name| seen.insert(folded(name))).collect();
            let headers = names.iter().enumerate().map(|(at, name)| (name.clone(), Claim::new(&format!("c{at}")).unwrap()));
            let identity = Identity::new(headers.collect(), Vec::new());
            let claims: Vec<_> = present.iter().enumerate().map(|(at, kind)| match kind {
                0 => format!("\"c{at}\":\"x\""),
                1 => format!("\"c{at}\":null"),
                2 => format!("\"c{at}\":\"\""),
                _ => format!("\"d{at}\":1"),
            }).collect();
            let text = format!("{{{}}}", claims.join(","));
            let claims = Object::parse(text.as_bytes()).unwrap();
            for headers in [identity.headers_of(&claims).unwrap(), identity.anonymous()] {
                let set = headers.set.iter().map(|(name, _)| *name);
                let mut all: Vec<_> = set.chain(headers.removed()).map(str::to_ascii_lowercase).collect();
                let count = all.len();
                all.sort();
                all.dedup();
                prop_assert_eq!(all.len(), count, "a name stands twice");
                for name in &names {
                    prop_assert!(all.contains(name), "{} is neither set nor removed", name);
                }
            }
        }
    }
}
