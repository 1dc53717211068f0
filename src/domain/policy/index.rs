//! Finds the rules that may match a request without a look at every rule: a thousand rules cost hardly more than one.
//! Each rule is indexed by its paths or by its hosts, by the one that fewer rules share.

use std::collections::HashMap;

use super::{HostPattern, PathPattern, Rule};

/// Rules by what their patterns begin or end with.
#[derive(Debug, Default)]
pub(super) struct Index {
    paths: Keys,
    hosts: Keys,
    /// Rules of any path and host.
    anywhere: Vec<usize>,
}

/// Rules by the text of a pattern, in their order.
#[derive(Debug, Default)]
struct Keys {
    exact: HashMap<String, Vec<usize>>,
    below: HashMap<String, Vec<usize>>,
    /// The length of the longest key in `below`. Longer prefixes of a request are not looked up, so a long path costs
    /// no more.
    longest: usize,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut shared: HashMap<(bool, String), usize> = HashMap::new();
        for rule in rules {
            for key in paths(rule).map(|key| (true, key.0)).chain(hosts(rule).map(|key| (false, key.0))) {
                *shared.entry(key).or_default() += 1;
            }
        }
        let mut index = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            let crowd =
                |kind: bool, key: &str| shared.get(&(kind, key.to_owned())).copied().unwrap_or_default();
            let by_path: Option<usize> =
                rule.paths.is_some().then(|| paths(rule).map(|(key, _)| crowd(true, &key)).sum());
            let by_host: Option<usize> =
                rule.hosts.is_some().then(|| hosts(rule).map(|(key, _)| crowd(false, &key)).sum());
            match (by_path, by_host) {
                (None, None) => index.anywhere.push(at),
                (Some(path), host) if host.is_none_or(|host| path <= host) => {
                    paths(rule).for_each(|(key, is_below)| index.paths.add(key, is_below, at));
                }
                _ => hosts(rule).for_each(|(key, is_below)| index.hosts.add(key, is_below, at)),
            }
        }
        index
    }

    /// The first rule that `matches`, out of those that may match.
    pub(super) fn first(&self, path: &str, host: &str, matches: impl Fn(usize) -> bool) -> Option<usize> {
        let slashes = path.match_indices('/').map(|(at, _)| at + 1);
        let prefixes = slashes.take_while(|end| *end <= self.paths.longest).filter_map(|end| path.get(..end));
        let dots = host.rmatch_indices('.').map(|(at, _)| at);
        let suffixes =
            dots.take_while(|at| host.len() - at <= self.hosts.longest).filter_map(|at| host.get(at..));
        let lists = self.paths.exact.get(path).into_iter();
        let lists = lists.chain(prefixes.filter_map(|prefix| self.paths.below.get(prefix)));
        let lists = lists.chain(self.hosts.exact.get(host));
        let lists = lists.chain(suffixes.filter_map(|suffix| self.hosts.below.get(suffix)));
        let mut first = None;
        for list in lists.chain([&self.anywhere]) {
            let earlier = |at: &&usize| first.is_none_or(|first| **at < first);
            if let Some(at) = list.iter().take_while(earlier).find(|at| matches(**at)) {
                first = Some(*at);
            }
        }
        first
    }
}

impl Keys {
    fn add(&mut self, key: String, is_below: bool, at: usize) {
        if is_below {
            self.longest = self.longest.max(key.len());
        }
        let list = if is_below { &mut self.below } else { &mut self.exact }.entry(key).or_default();
        // A rule may write one pattern twice.
        if list.last() != Some(&at) {
            list.push(at);
        }
    }
}

fn paths(rule: &Rule) -> impl Iterator<Item = (String, bool)> {
    rule.paths.iter().flatten().map(|pattern| match pattern {
        PathPattern::Exact(path) => (path.clone(), false),
        PathPattern::Below(path) => (path.clone(), true),
    })
}

fn hosts(rule: &Rule) -> impl Iterator<Item = (String, bool)> {
    rule.hosts.iter().flatten().map(|pattern| match pattern {
        HostPattern::Exact(host) => (host.clone(), false),
        HostPattern::Below(host) => (host.clone(), true),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule() -> impl Strategy<Value = Rule> {
        let path = prop_oneof![
            Just("/"),
            Just("/a"),
            Just("/a/b"),
            Just("/*"),
            Just("/a/*"),
            Just("/a/b/*"),
            Just("*")
        ];
        let host = prop_oneof![Just("a"), Just("a.b"), Just("*.b"), Just("*.a.b"), Just("b")];
        let paths = proptest::option::of(proptest::collection::vec(path, 1..3));
        let hosts = proptest::option::of(proptest::collection::vec(host, 1..3));
        (paths, hosts).prop_map(|(paths, hosts)| Rule {
            paths: paths.map(|all| all.into_iter().map(|text| PathPattern::new(text).unwrap()).collect()),
            hosts: hosts.map(|all| all.into_iter().map(|text| HostPattern::new(text).unwrap()).collect()),
            ..Rule::default()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4096, ..ProptestConfig::default() })]

        #[test]
        fn the_index_finds_what_looking_at_all_finds(
            rules in proptest::collection::vec(rule(), 0..12),
            path in "(/[ab]?){0,4}|\\*|",
            host in "[ab](\\.[ab]){0,3}|",
        ) {
            let matches = |rule: &Rule| {
                rule.paths.as_ref().is_none_or(|all| all.iter().any(|pattern| pattern.matches(&path)))
                    && rule.hosts.as_ref().is_none_or(|all| all.iter().any(|pattern| pattern.matches(&host)))
            };
            let all = rules.iter().position(matches);
            let found = Index::new(&rules).first(&path, &host, |at| matches(&rules[at]));
            prop_assert_eq!(found, all);
        }
    }
}
