//! Which headers carry the identity to the upstream, and which other spellings of their names a client could use to
//! forge it: those with `-` and `_` are listed once per configuration, those with other marks are found in the request.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::domain::claim::Claim;
use crate::domain::denial::Denial;
use crate::domain::issuer::IssuerName;
use crate::domain::json::{Json, Object};

pub(crate) mod claim_map;
mod mapped_claim;

pub(crate) use mapped_claim::{JsonForm, MappedClaim, PayloadPart, TextClaim};

/// The identity headers and the claims for the proxy's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Every identity header, in lower case.
    names: Vec<String>,
    /// What each of them carries of a token, in the same order; `None` removes it.
    carried: Vec<Option<Carried>>,
    /// The same for tokens of issuers with headers of their own.
    of_issuers: HashMap<IssuerName, Vec<Option<Carried>>>,
    /// Whether the same subject is the same person at each issuer, as the configuration says.
    pub(crate) subjects_are_shared: bool,
    aliases: Vec<String>,
    metadata: Vec<Claim>,
}

/// What an identity header carries.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Carried {
    Claim(MappedClaim),
    /// The issuer's name in the configuration.
    IssuerName,
}

/// Headers and what they carry.
pub(crate) type HeaderMap = Vec<(String, MappedClaim)>;

/// The identity headers of one request: those to set and those to remove. No name is in both lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers<'c> {
    /// To set; each overwrites what the client sent.
    pub set: Vec<(&'c str, String)>,
    /// To remove, besides the aliases: identity headers without a claim, and spellings with other marks that the request has.
    pub remove: Vec<Cow<'c, str>>,
    /// The spellings of the identity headers with `-` and `_`: to remove from every request, seen or not.
    pub aliases: &'c [String],
}

impl Headers<'_> {
    pub fn removed(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(String::as_str).chain(self.remove.iter().map(|name| &**name))
    }
}

/// How many arrays and objects a claim in the metadata may nest. Each level is two messages to protobuf, whose C++
/// parser stops at a depth of 100.
const MAX_METADATA_DEPTH: usize = 16;

impl Identity {
    /// The header of the Passage user's ID, unless configured otherwise.
    pub const DEFAULT_HEADER: &str = "x-passage-user-id";

    /// How many dashes, underscores and other marks a header's name may have: each doubles its spellings.
    pub const MAX_MARKS: usize = 5;

    /// The names must be lower case with at most [`Self::MAX_MARKS`] marks, and no two may be the same once [`folded`]: the
    /// configuration checks all three.
    #[must_use]
    pub fn new(headers: Vec<(String, MappedClaim)>, metadata: Vec<Claim>) -> Self {
        Self::for_issuers(headers, Vec::new(), None, metadata)
    }

    /// The same, with what headers carry of some issuers' tokens instead, and a header for the issuer's name. A header that only
    /// such an issuer has is removed for all others.
    #[must_use]
    pub(crate) fn for_issuers(
        headers: HeaderMap,
        of_issuers: Vec<(IssuerName, HeaderMap)>,
        issuer_header: Option<String>,
        metadata: Vec<Claim>,
    ) -> Self {
        let own = of_issuers.iter().flat_map(|(_, own)| own);
        let mut names: Vec<_> =
            headers.iter().chain(own).map(|(name, _)| name).chain(&issuer_header).cloned().collect();
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let carried = |own: &HeaderMap| -> Vec<_> {
            let of = |map: &HeaderMap, name: &String| {
                map.iter().find(|(other, _)| other == name).map(|(_, mapped)| Carried::Claim(mapped.clone()))
            };
            names
                .iter()
                .map(|name| match &issuer_header {
                    Some(header) if header == name => Some(Carried::IssuerName),
                    _ => of(own, name).or_else(|| of(&headers, name)),
                })
                .collect()
        };
        Self {
            carried: carried(&Vec::new()),
            of_issuers: of_issuers.iter().map(|(issuer, own)| (issuer.clone(), carried(own))).collect(),
            subjects_are_shared: false,
            aliases: names.iter().flat_map(|name| aliases(name)).collect(),
            metadata,
            names,
        }
    }

    /// What headers carry of any issuer's token.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &MappedClaim)> {
        self.claims_in(&self.carried)
    }

    /// What headers carry of this issuer's tokens, where it is not the same as of any other's.
    pub(crate) fn headers_of_issuer(
        &self,
        issuer: &IssuerName,
    ) -> impl Iterator<Item = (&str, &MappedClaim)> {
        let own = self.of_issuers.get(issuer).map(Vec::as_slice).unwrap_or_default();
        let is_same = |name: &str, mapped: &MappedClaim| {
            self.headers().any(|(other, theirs)| other == name && theirs == mapped)
        };
        self.claims_in(own).filter(move |(name, mapped)| !is_same(name, mapped))
    }

    fn claims_in<'s>(
        &'s self,
        carried: &'s [Option<Carried>],
    ) -> impl Iterator<Item = (&'s str, &'s MappedClaim)> {
        self.names.iter().zip(carried).filter_map(|(name, carried)| match carried {
            Some(Carried::Claim(mapped)) => Some((name.as_str(), mapped)),
            Some(Carried::IssuerName) | None => None,
        })
    }

    /// Each header that carries the subject of several of these issuers' tokens as it is, with these issuers: their users share
    /// one name space.
    pub(crate) fn shared_subjects<'s>(
        &'s self,
        issuers: &'s [IssuerName],
    ) -> Vec<(&'s str, Vec<&'s IssuerName>)> {
        let is_subject = |carried: &Option<Carried>| match carried {
            Some(Carried::Claim(MappedClaim::Text {
                from: TextClaim::One(claim),
                cut_prefix: None,
                map: None,
            })) => claim.as_str() == "sub",
            _ => false,
        };
        let of =
            |issuer: &IssuerName, at: usize| self.of_issuers.get(issuer).unwrap_or(&self.carried).get(at);
        let shared = self.names.iter().enumerate().map(|(at, name)| {
            let sharing = issuers.iter().filter(|issuer| of(issuer, at).is_some_and(is_subject));
            (name.as_str(), sharing.collect::<Vec<_>>())
        });
        shared.filter(|(_, sharing)| sharing.len() > 1).collect()
    }

    /// The header that carries the issuer's name, if there is one.
    pub(crate) fn issuer_header(&self) -> Option<&str> {
        let is_issuer = |(_, carried): &(&String, &Option<Carried>)| **carried == Some(Carried::IssuerName);
        self.names.iter().zip(&self.carried).find(is_issuer).map(|(name, _)| name.as_str())
    }

    /// The claims that headers and metadata are made of; `None` if a header carries all of them.
    pub(crate) fn claims(&self) -> Option<impl Iterator<Item = &Claim>> {
        let maps = std::iter::once(&self.carried).chain(self.of_issuers.values());
        let mapped = maps.flat_map(|carried| self.claims_in(carried).map(|(_, mapped)| mapped.claims()));
        let of_headers: Option<Vec<_>> = mapped.collect();
        Some(of_headers?.into_iter().flatten().chain(&self.metadata))
    }

    /// Every other spelling of the headers with `-` and `_`.
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
    pub(crate) fn headers_of(&self, claims: &Object<'_>, issuer: &IssuerName) -> Result<Headers<'_>, Denial> {
        let own = if self.of_issuers.is_empty() { None } else { self.of_issuers.get(issuer) };
        let mut headers = Headers { set: Vec::new(), remove: Vec::new(), aliases: &self.aliases };
        for (name, carried) in self.names.iter().zip(own.unwrap_or(&self.carried)) {
            let value = match carried {
                Some(Carried::Claim(claim)) => claim.value(claims)?,
                Some(Carried::IssuerName) => Some(issuer.as_str().to_owned()),
                None => None,
            };
            match value {
                Some(value) => headers.set.push((name, value)),
                None => headers.remove.push(name.into()),
            }
        }
        Ok(headers)
    }

    /// The headers of an anonymous request: none is set, all are removed.
    #[must_use]
    pub fn anonymous(&self) -> Headers<'_> {
        let remove = self.names.iter().map(Into::into).collect();
        Headers { set: Vec::new(), remove, aliases: &self.aliases }
    }

    /// The names of the request that an upstream may read as an identity header and that are neither such a header itself
    /// nor one of its aliases, which are removed from every request: each name once, in lower case.
    ///
    /// # Errors
    /// [`Denial::RequestMalformed`] for a name that is no `token` of RFC 9110 section 5.6.2: an answer cannot name it, so
    /// it would not be removed.
    pub(crate) fn seen<'r>(&self, names: impl Iterator<Item = &'r [u8]>) -> Result<Vec<String>, Denial> {
        let mut seen = Vec::new();
        for name in names.filter(|name| self.is_spelling(name) && !self.is_listed(name)) {
            let token = str::from_utf8(name).ok().filter(|name| name.bytes().all(is_token_byte));
            seen.push(token.ok_or(Denial::RequestMalformed)?.to_ascii_lowercase());
        }
        seen.sort_unstable();
        seen.dedup();
        Ok(seen)
    }

    /// Whether an upstream may read a header of this name as an identity header.
    #[must_use]
    pub(crate) fn is_spelling(&self, name: &[u8]) -> bool {
        let is_alike = self.names.iter().any(|header| fold_alike(header.as_bytes(), name));
        // A pseudo-header of HTTP/2 is no header to an upstream.
        is_alike && !name.starts_with(b":")
    }

    /// Whether a spelling is an identity header itself, or has `-` and `_` alone for its marks and so is an alias.
    fn is_listed(&self, spelling: &[u8]) -> bool {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        spelling.iter().all(plain)
            || self.names.iter().any(|header| spelling.eq_ignore_ascii_case(header.as_bytes()))
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
fn fold_alike(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| folded_byte(*one) == folded_byte(*other))
}

/// Whether a byte may stand in a header's name (RFC 9110 section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Every other spelling of a name with `-` or `_` for each of its marks.
fn aliases(name: &str) -> Vec<String> {
    let is_mark = |c: char| !c.is_ascii_alphanumeric();
    let places: Vec<usize> = name.match_indices(is_mark).map(|(at, _)| at).collect();
    (0..1_usize << places.len().min(Identity::MAX_MARKS))
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
        let headers =
            headers.iter().map(|(name, claim)| ((*name).to_owned(), Claim::new(claim).unwrap().into()));
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
        assert_eq!(
            identity(&[("x.user!id", "sub")]).aliases(),
            ["x-user-id", "x_user-id", "x-user_id", "x_user_id"]
        );
    }

    #[test]
    fn finds_the_spellings_with_other_marks() {
        let seen = |identity: &Identity, names: &[&[u8]]| identity.seen(names.iter().copied());
        let default = identity(&[(Identity::DEFAULT_HEADER, "sub")]);
        let found = |names: &[&[u8]]| seen(&default, names).unwrap();
        for name in [
            "x.passage.user.id",
            "x!passage~user*id",
            "X-PASSAGE-USER.ID",
            "x_passage-user+id",
            "x#passage$user%id",
            "x&passage'user^id",
            "x`passage|user-id",
        ] {
            assert_eq!(found(&[b"accept", name.as_bytes(), b":path"]), [name.to_ascii_lowercase()]);
        }
        for name in [
            // Set or removed, seen or not.
            &b"x-passage-user-id"[..],
            b"X-Passage-User-ID",
            b"x_passage_user_id",
            b"X_Passage-User_Id",
            // Other headers.
            b"x-passage-user-i",
            b"x-passage-user-idx",
            b"xx.passage.user.id",
            b"x..passage.userid",
            b"x.passage.user.1d",
            b"",
        ] {
            assert_eq!(found(&[name]), [] as [&str; 0], "{name:?}");
        }
        assert_eq!(
            found(&[b"x.passage.user.id", b"X.Passage.User.Id", b"x.passage.user.id"]),
            ["x.passage.user.id"]
        );
        for name in [
            &b"x\xffpassage-user-id"[..],
            b"x passage user id",
            b"x\0passage-user-id",
            b"x,passage,user,id",
            b"x-passage-user:id",
        ] {
            assert_eq!(seen(&default, &[name]), Err(Denial::RequestMalformed), "{name:?}");
        }
        let two_bytes = identity(&[("x--id", "sub")]);
        assert_eq!(seen(&two_bytes, &["x\u{a7}id".as_bytes()]), Err(Denial::RequestMalformed));
        let dotted = identity(&[("x.user", "sub"), ("-path", "sub")]);
        assert_eq!(seen(&dotted, &[b"X.USER", b"x-user", b"x_user", b":path"]), Ok(vec![]));
        assert_eq!(seen(&dotted, &[b"x~user", b".path"]), Ok(vec![".path".to_owned(), "x~user".to_owned()]));
        assert_eq!(seen(&identity(&[]), &[b"x.passage.user.id"]), Ok(vec![]));
    }

    /// 64 KiB of such names cost no more than a sort of them.
    #[test]
    fn many_spellings_are_named_once_each() {
        let marks = b"!#$%&*+.^~";
        let mut names = Vec::new();
        for (one, two, three) in marks.iter().flat_map(|one| {
            marks.iter().flat_map(move |two| marks.iter().map(move |three| (*one, *two, *three)))
        }) {
            let [one, two, three] = [one, two, three].map(char::from);
            names.push(format!("x{one}passage{two}user{three}id"));
        }
        let doubled: Vec<_> = names.iter().chain(names.iter().rev()).map(String::as_bytes).collect();
        let identity = identity(&[(Identity::DEFAULT_HEADER, "sub")]);
        let mut want = names.clone();
        want.sort();
        assert_eq!(identity.seen(doubled.into_iter()), Ok(want));
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
            names in proptest::collection::vec("[a-c]{1,2}([-_.][a-c]{1,2}){0,4}", 1..5),
            present in proptest::collection::vec(0..4_u8, 5),
            forged in proptest::collection::vec((any::<prop::sample::Index>(), "[-_.!~*]{4}", any::<bool>()), 0..8),
        ) {
            let mut seen = HashSet::new();
            let names: Vec<_> = names.into_iter().filter(|name| seen.insert(folded(name))).collect();
            let headers = names.iter().enumerate().map(|(at, name)| (name.clone(), Claim::new(&format!("c{at}")).unwrap().into()));
            let identity = Identity::new(headers.collect(), Vec::new());
            let claims: Vec<_> = present.iter().enumerate().map(|(at, kind)| match kind {
                0 => format!("\"c{at}\":\"x\""),
                1 => format!("\"c{at}\":null"),
                2 => format!("\"c{at}\":\"\""),
                _ => format!("\"d{at}\":1"),
            }).collect();
            let text = format!("{{{}}}", claims.join(","));
            let claims = Object::parse(text.as_bytes()).unwrap();
            let forged: Vec<_> = forged.iter().map(|(name, marks, capitals)| {
                let mut marks = marks.chars();
                let spelled = name.get(&names).chars().map(|c| {
                    if c.is_ascii_alphanumeric() { c } else { marks.next().unwrap_or(c) }
                });
                let spelled: String = spelled.collect();
                if *capitals { spelled.to_ascii_uppercase() } else { spelled }
            }).collect();
            let seen = identity.seen(forged.iter().map(String::as_bytes)).unwrap();
            for mut headers in [identity.headers_of(&claims, &IssuerName::new("issuer")).unwrap(), identity.anonymous()] {
                headers.remove.extend(seen.iter().cloned().map(Cow::Owned));
                let set = headers.set.iter().map(|(name, _)| *name);
                let mut all: Vec<_> = set.chain(headers.removed()).map(str::to_ascii_lowercase).collect();
                let count = all.len();
                all.sort();
                all.dedup();
                prop_assert_eq!(all.len(), count, "a name stands twice");
                for name in names.iter().chain(&forged).map(|name| name.to_ascii_lowercase()) {
                    prop_assert!(all.contains(&name), "{} is neither set nor removed", name);
                }
            }
        }
    }
}
