//! Named fields, headers or keys of the metadata, and what each carries of an issuer's tokens.

use std::collections::{BTreeMap, HashSet};

use crate::domain::identity::MappedClaim;
use crate::domain::issuer::IssuerName;

/// Fields and what they carry, as one part of the configuration has them.
pub(crate) type FieldMap = Vec<(String, MappedClaim)>;

/// What a field carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Carried {
    Claim(MappedClaim),
    /// The issuer's name in the configuration.
    IssuerName,
}

/// Each field, with what it carries of any issuer's tokens and what of those of issuers with a map of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    names: Vec<String>,
    /// In the order of the names; `None` leaves the field out.
    of_any: Vec<Option<Carried>>,
    of_issuers: BTreeMap<IssuerName, Vec<Option<Carried>>>,
}

impl Fields {
    /// What an issuer's own map has replaces what all have. A field that only such a map has is left out for all other issuers.
    pub(super) fn new(
        common: &FieldMap,
        own: &[(IssuerName, &FieldMap)],
        of_issuer_name: Option<&String>,
    ) -> Self {
        let own_names = own.iter().flat_map(|(_, own)| own.iter());
        let mut names: Vec<_> =
            common.iter().chain(own_names).map(|(name, _)| name).chain(of_issuer_name).cloned().collect();
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let carried = |own: &[(String, MappedClaim)]| -> Vec<_> {
            let of = |map: &[(String, MappedClaim)], name: &String| {
                map.iter().find(|(other, _)| other == name).map(|(_, mapped)| Carried::Claim(mapped.clone()))
            };
            names
                .iter()
                .map(|name| match of_issuer_name {
                    Some(field) if field == name => Some(Carried::IssuerName),
                    _ => of(own, name).or_else(|| of(common, name)),
                })
                .collect()
        };
        Self {
            of_any: carried(&[]),
            of_issuers: own.iter().map(|(issuer, own)| (issuer.clone(), carried(own))).collect(),
            names,
        }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// What each field carries of this issuer's tokens, in the order of the names.
    pub(super) fn of(&self, issuer: &IssuerName) -> &[Option<Carried>] {
        self.of_issuers.get(issuer).unwrap_or(&self.of_any)
    }

    /// What a field carries of any issuer's tokens.
    pub(super) fn common_at(&self, at: usize) -> Option<&MappedClaim> {
        match self.of_any.get(at)? {
            Some(Carried::Claim(mapped)) => Some(mapped),
            Some(Carried::IssuerName) | None => None,
        }
    }

    /// The field that carries the issuer's name.
    pub(super) fn of_issuer_name(&self) -> Option<&str> {
        let is_issuer = |(_, carried): &(&String, &Option<Carried>)| **carried == Some(Carried::IssuerName);
        self.names.iter().zip(&self.of_any).find(is_issuer).map(|(name, _)| name.as_str())
    }

    /// What fields carry of any issuer's tokens.
    pub(super) fn common(&self) -> impl Iterator<Item = (&str, &MappedClaim)> {
        self.claims_in(&self.of_any)
    }

    /// What fields carry of any token.
    pub(super) fn all(&self) -> impl Iterator<Item = &MappedClaim> {
        let carried = self.of_any.iter().chain(self.of_issuers.values().flatten());
        carried.filter_map(|carried| match carried {
            Some(Carried::Claim(mapped)) => Some(mapped),
            Some(Carried::IssuerName) | None => None,
        })
    }

    /// What fields carry of this issuer's tokens, where it is not the same as of any other's.
    pub(super) fn own(&self, issuer: &IssuerName) -> impl Iterator<Item = (&str, &MappedClaim)> {
        let own = self.of_issuers.get(issuer).map(Vec::as_slice).unwrap_or_default();
        let is_same = |name: &str, mapped: &MappedClaim| {
            self.common().any(|(other, theirs)| other == name && theirs == mapped)
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
}
