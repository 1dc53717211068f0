//! Which headers carry the identity to the upstream, and which other spellings of their names a client could use to
//! forge it: those with `-` and `_` are listed once per configuration, those with other marks are found in the request.

use std::collections::BTreeSet;
use std::path::Path;

use crate::domain::denial::Denial;
use crate::domain::issuer::IssuerName;
use crate::domain::json::{Json, Object};

pub(crate) mod claim_map;
mod fields;
mod forwarded;
mod mapped_claim;
mod packed;
mod spelling;

pub(crate) use fields::FieldMap;
pub(crate) use forwarded::{ChangedHeader, ForwardedIdentity, HeaderValue, IdentityValues, MetadataValue};
pub(crate) use mapped_claim::{JsonForm, MappedClaim, PayloadPart, TextClaim};
pub(crate) use spelling::{MAX_MARKS, folded};

use claim_map::ClaimMap;
use fields::{Carried, Fields};
use packed::{Packed, pack};
use spelling::{aliases, fold_alike, is_token_byte};

/// The identity headers and the claims for the proxy's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Every identity header, in lower case.
    headers: Fields,
    metadata: Fields,
    /// Whether the same subject is the same person at each issuer, as the configuration says.
    pub(crate) subjects_are_shared: bool,
    /// Whether each header's value is held against the plain claim: for a shadow rollout.
    pub(crate) compares_with_plain: bool,
    aliases: Vec<String>,
}

/// What headers and metadata carry, as the configuration says for all issuers or for one.
#[derive(Debug, Default)]
pub(crate) struct IdentityMaps {
    pub headers: FieldMap,
    pub metadata: FieldMap,
}

impl Identity {
    /// The header of the Passage user's ID, unless configured otherwise.
    pub(crate) const DEFAULT_HEADER: &str = "x-passage-user-id";

    /// The headers' names must be lower case with at most [`MAX_MARKS`] marks, and no two may be the same once [`folded`]: the
    /// configuration checks all three. A header or key that only an issuer's own map has is left out for all others.
    #[must_use]
    pub(crate) fn new(
        common: &IdentityMaps,
        own: &[(IssuerName, IdentityMaps)],
        issuer_header: Option<&String>,
    ) -> Self {
        let headers: Vec<_> = own.iter().map(|(issuer, own)| (issuer.clone(), &own.headers)).collect();
        let metadata: Vec<_> = own.iter().map(|(issuer, own)| (issuer.clone(), &own.metadata)).collect();
        let headers = Fields::new(&common.headers, &headers, issuer_header);
        Self {
            aliases: headers.names().iter().flat_map(|name| aliases(name)).collect(),
            headers,
            metadata: Fields::new(&common.metadata, &metadata, None),
            subjects_are_shared: false,
            compares_with_plain: false,
        }
    }

    /// What headers carry of any issuer's token.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &MappedClaim)> {
        self.headers.common()
    }

    /// What headers carry of this issuer's tokens, where it is not the same as of any other's.
    pub(crate) fn headers_of_issuer(
        &self,
        issuer: &IssuerName,
    ) -> impl Iterator<Item = (&str, &MappedClaim)> {
        self.headers.own(issuer)
    }

    /// What the metadata carries of any issuer's token.
    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&str, &MappedClaim)> {
        self.metadata.common()
    }

    /// What the metadata carries of this issuer's tokens, where it is not the same as of any other's.
    pub(crate) fn metadata_of_issuer(
        &self,
        issuer: &IssuerName,
    ) -> impl Iterator<Item = (&str, &MappedClaim)> {
        self.metadata.own(issuer)
    }

    /// The files of the tables that have no line break at their end and had one before: they are likely to be cut off in their last line,
    /// whose value may then be another user's.
    pub(crate) fn cut_off_since<'s>(&'s self, before: &Self) -> BTreeSet<&'s Path> {
        let was_whole = |file: &Path| {
            before.claim_maps().any(|before| before.file() == file && before.ends_with_line_break())
        };
        let cut_off = self.claim_maps().filter(|map| !map.ends_with_line_break());
        cut_off.map(|map| map.file().as_path()).filter(|file| was_whole(file)).collect()
    }

    fn claim_maps(&self) -> impl Iterator<Item = &ClaimMap> {
        self.headers.all().chain(self.metadata.all()).filter_map(|mapped| match mapped {
            MappedClaim::Text { map, .. } => map.as_deref(),
            MappedClaim::Json(..) => None,
        })
    }

    /// Every identity header.
    pub(crate) fn header_names(&self) -> impl Iterator<Item = &str> {
        self.headers.names().iter().map(String::as_str)
    }

    /// Every key of the metadata.
    fn metadata_names(&self) -> impl Iterator<Item = &str> {
        self.metadata.names().iter().map(String::as_str)
    }

    /// Each header that carries the subject of several of these issuers' tokens as it is, with these issuers: their users share
    /// one name space.
    pub(crate) fn shared_subjects<'s>(
        &'s self,
        issuers: &'s [IssuerName],
    ) -> Vec<(&'s str, Vec<&'s IssuerName>)> {
        let is_subject = |carried: Option<&Option<Carried>>| match carried {
            Some(Some(Carried::Claim(MappedClaim::Text {
                from: TextClaim::One(claim),
                cut_prefix: None,
                map: None,
            }))) => claim.as_str() == "sub",
            _ => false,
        };
        let shared = self.header_names().enumerate().map(|(at, name)| {
            let sharing = issuers.iter().filter(|issuer| is_subject(self.headers.of(issuer).get(at)));
            (name, sharing.collect::<Vec<_>>())
        });
        shared.filter(|(_, sharing)| sharing.len() > 1).collect()
    }

    /// The header that carries the issuer's name, if there is one.
    pub(crate) fn issuer_header(&self) -> Option<&str> {
        self.headers.of_issuer_name()
    }

    /// Every other spelling of the headers with `-` and `_`.
    #[must_use]
    pub(crate) fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// What headers and metadata carry of a verified token.
    ///
    /// # Errors
    /// [`Denial::ClaimInvalid`] for a claim that has no single form in a header, or that is too deep for the metadata.
    pub(crate) fn values_of(
        &self,
        claims: &Object<'_>,
        issuer: &IssuerName,
    ) -> Result<IdentityValues, Denial> {
        let (mut packed, mut plain_claims, mut differs) = (Vec::new(), Vec::new(), false);
        for (at, carried) in self.headers.of(issuer).iter().enumerate() {
            let value = match carried {
                Some(Carried::Claim(mapped)) => mapped.text(claims)?,
                Some(Carried::IssuerName) => Some(issuer.as_str().to_owned()),
                None => None,
            };
            let is_json = matches!(carried, Some(Carried::Claim(MappedClaim::Json(..))));
            let kind = if is_json { Packed::Json } else { Packed::Text };
            pack(value.as_deref().map_or(Packed::None, kind), &mut packed);
            if !self.compares_with_plain {
                continue;
            }
            let plain = match carried {
                Some(Carried::Claim(mapped)) => {
                    let claim = self.headers.common_at(at).unwrap_or(mapped).plain_claim();
                    claim.map(|claim| claim.header_value(claims).unwrap_or_default())
                }
                Some(Carried::IssuerName) | None => None,
            };
            match plain {
                Some(plain) if plain != value => {
                    differs = true;
                    pack(plain.as_deref().map_or(Packed::None, Packed::Text), &mut plain_claims);
                }
                Some(_) | None => pack(Packed::Same, &mut plain_claims),
            }
        }
        for carried in self.metadata.of(issuer) {
            let value = match carried {
                Some(Carried::Claim(mapped)) => mapped.json(claims)?,
                Some(Carried::IssuerName) | None => None,
            };
            match value {
                None => pack(Packed::None, &mut packed),
                Some(Json::String(text)) => pack(Packed::Text(&text), &mut packed),
                Some(value) => pack(Packed::Json(&value.to_string()), &mut packed),
            }
        }
        if differs {
            packed.append(&mut plain_claims);
        }
        Ok(IdentityValues(packed.into()))
    }

    /// The claim for which [`Identity::values_of`] fails.
    pub(crate) fn claim_at_fault(&self, claims: &Object<'_>, issuer: &IssuerName) -> Option<String> {
        let of_header = |mapped: &&MappedClaim| mapped.text(claims).is_err();
        let of_metadata = |mapped: &&MappedClaim| mapped.json(claims).is_err();
        fn claim(carried: &Option<Carried>) -> Option<&MappedClaim> {
            match carried {
                Some(Carried::Claim(mapped)) => Some(mapped),
                Some(Carried::IssuerName) | None => None,
            }
        }
        let mut headers = self.headers.of(issuer).iter().filter_map(claim);
        let mut metadata = self.metadata.of(issuer).iter().filter_map(claim);
        headers.find(of_header).or_else(|| metadata.find(of_metadata)).map(MappedClaim::name)
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
        let is_alike = self.header_names().any(|header| fold_alike(header.as_bytes(), name));
        // A pseudo-header of HTTP/2 is no header to an upstream.
        is_alike && !name.starts_with(b":")
    }

    /// Whether a spelling is an identity header itself, or has `-` and `_` alone for its marks and so is an alias.
    fn is_listed(&self, spelling: &[u8]) -> bool {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        spelling.iter().all(plain)
            || self.header_names().any(|header| spelling.eq_ignore_ascii_case(header.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::claim::Claim;

    fn identity(headers: &[(&str, &str)]) -> Identity {
        let headers =
            headers.iter().map(|(name, claim)| ((*name).to_owned(), Claim::new(claim).unwrap().into()));
        of_headers(headers.collect())
    }

    fn of_headers(headers: FieldMap) -> Identity {
        Identity::new(&IdentityMaps { headers, metadata: Vec::new() }, &[], None)
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
            let identity = of_headers(headers.collect());
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
            let values = identity.values_of(&claims, &IssuerName::new("issuer")).unwrap();
            let of_token = ForwardedIdentity::of_token(&identity, values);
            for forwarded in [of_token, ForwardedIdentity::anonymous(&identity)] {
                let forwarded = forwarded.removing(seen.clone());
                let set = forwarded.set().map(|(name, _)| name);
                let mut all: Vec<_> = set.chain(forwarded.removed()).map(str::to_ascii_lowercase).collect();
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
