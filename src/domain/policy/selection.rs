//! The rules of all readings of a request, held together: what one of them closes, none of the others opens.

use super::path_demand::PathDemand;
use super::rule::{Access, Rule};
use crate::domain::denial::Denial;
use crate::domain::issuer::{Audiences, Issuer};
use crate::domain::verify::Verified;

/// The rules that a request must satisfy, never none: the rule of each reading.
#[derive(Debug, Clone)]
pub(crate) struct Selection<'p> {
    first: Ranked<'p>,
    /// In the policy's order, so that adding one does not compare it with all of them.
    others: Vec<Ranked<'p>>,
    /// What the readings of the path ask of the token, each with its rule.
    path_demands: Vec<(&'p Rule, PathDemand<'p>)>,
}

/// The most segments of readings that are compared with claims. A path that a person means has a few; one with more meets no
/// rule that compares them.
const MAX_PATH_DEMANDS: usize = 32;

/// A rule and its place in the policy.
type Ranked<'p> = (usize, &'p Rule);

impl<'p> Selection<'p> {
    pub(super) const fn of(rule: Ranked<'p>) -> Self {
        Self { first: rule, others: Vec::new(), path_demands: Vec::new() }
    }

    /// Adds a rule, unless it is there.
    pub(super) fn add(&mut self, rule: Ranked<'p>) {
        if rule.0 != self.first.0
            && let Err(at) = self.others.binary_search_by_key(&rule.0, |(place, _)| *place)
        {
            self.others.insert(at, rule);
        }
    }

    /// Adds what one reading of the path asks for by a rule.
    pub(super) fn demand(&mut self, rule: &'p Rule, demand: PathDemand<'p>) {
        if self.path_demands.iter().any(|(of, other)| std::ptr::eq(*of, rule) && *other == demand) {
            return;
        }
        if self.path_demands.len() < MAX_PATH_DEMANDS {
            self.path_demands.push((rule, demand));
        } else {
            self.path_demands = vec![(rule, PathDemand::unmet())];
        }
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &'p Rule> {
        std::iter::once(self.first).chain(self.others.iter().copied()).map(|(_, rule)| rule)
    }

    /// The rule that lets the least through: it decides, unless another one's requirement is not met.
    pub(crate) fn strictest(&self) -> &'p Rule {
        let stricter = |one: &'p Rule, other: &'p Rule| if other.access > one.access { other } else { one };
        self.rules().fold(self.first.1, stricter)
    }

    pub(crate) fn access(&self) -> Access {
        self.strictest().access
    }

    /// Whether no token at all is good enough.
    pub(crate) fn allows_anonymous(&self) -> bool {
        self.access() <= Access::Optional
            && self.path_demands.is_empty()
            && self.rules().all(|rule| rule.require.is_empty())
    }

    /// Whether a token that is not good is as none.
    pub(crate) fn ignores_bad_tokens(&self) -> bool {
        self.access() == Access::Lenient && self.allows_anonymous()
    }

    /// What the audience of a token of this issuer must be among: for each rule its own, or the issuer's.
    pub(crate) fn audiences(&self, issuer: &'p Issuer) -> impl Iterator<Item = &'p Audiences> {
        self.rules().map(|rule| rule.audiences.as_ref().unwrap_or(&issuer.audiences))
    }

    /// Whether denials are let through: only if each of the rules alone would let its own through.
    pub(crate) fn is_in_shadow(&self) -> bool {
        self.rules().all(|rule| rule.shadow)
    }

    /// Holds a verified token against what each of the rules asks.
    ///
    /// # Errors
    /// The first rule whose requirement is not met, and how the request is denied.
    pub(crate) fn judge(&self, token: &Verified<'_, '_>) -> Result<(), (&'p Rule, Denial)> {
        self.rules().try_for_each(|rule| rule.require.judge(token).map_err(|denial| (rule, denial)))?;
        match self.path_demands.iter().find(|(_, demand)| !demand.is_met_by(token.claims())) {
            Some((rule, _)) => Err((rule, Denial::ClaimsInsufficient)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, access: Access, shadow: bool) -> Rule {
        Rule { name: name.to_owned(), access, shadow, ..Rule::default() }
    }

    #[test]
    fn the_strictest_decides_and_shadow_needs_all() {
        use Access::{Deny, Optional, Public, Required};
        for (rules, strictest, anonymous, shadow) in [
            (&[(Public, false)][..], 0, true, false),
            (&[(Public, true), (Optional, true)], 1, true, true),
            (&[(Optional, true), (Public, false)], 0, true, false),
            (&[(Public, false), (Required, false), (Optional, false)], 1, false, false),
            (&[(Required, true), (Required, true)], 0, false, true),
            (&[(Required, false), (Deny, true)], 1, false, false),
        ] {
            let rules: Vec<_> = rules
                .iter()
                .enumerate()
                .map(|(at, (access, shadow))| rule(&at.to_string(), *access, *shadow))
                .collect();
            let mut selection = Selection::of((0, &rules[0]));
            rules.iter().enumerate().rev().for_each(|rule| selection.add(rule));
            rules.iter().enumerate().for_each(|rule| selection.add(rule));
            assert_eq!(selection.rules().count(), rules.len(), "each rule once");
            assert_eq!(selection.strictest().name, strictest.to_string());
            assert_eq!(
                (selection.allows_anonymous(), selection.is_in_shadow()),
                (anonymous, shadow),
                "{rules:?}"
            );
        }
    }
}
