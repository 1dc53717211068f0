//! Which rules may match a request, found without looking at all of them: a thousand rules cost hardly more than
//! one. Each rule stands under the keys of its paths or of its hosts, whichever fewer rules share.

use std::collections::HashMap;

use super::pattern::{HostName, Ignored};
use super::rule::Rule;

/// Rules by what their patterns begin or end with.
#[derive(Debug, Default)]
pub(super) struct Index {
    paths: Keys<Box<[u8]>>,
    hosts: Keys<String>,
    /// Rules of any path and host.
    anywhere: Vec<usize>,
}

/// Rules by the text of a pattern, in their order.
#[derive(Debug)]
struct Keys<K> {
    exact: HashMap<K, Vec<usize>>,
    below: HashMap<K, Vec<usize>>,
    /// The longest of `exact`: what is longer need not be looked up, however long the request.
    longest_exact: usize,
    /// The lengths of `below`, in order: only these need be looked up.
    below_lengths: Vec<usize>,
}

impl<K> Default for Keys<K> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), longest_exact: 0, below_lengths: Vec::new() }
    }
}

impl Index {
    /// Rules by their patterns, while this is ignored in paths.
    pub(super) fn new(rules: &[Rule], ignored: Ignored) -> Self {
        let mut shared: HashMap<(bool, Vec<u8>), usize> = HashMap::new();
        for rule in rules {
            let paths = paths(rule, ignored).into_iter().map(|(key, _)| (true, key.to_vec()));
            let hosts = hosts(rule).map(|(key, _)| (false, key.into_bytes()));
            for key in paths.chain(hosts) {
                *shared.entry(key).or_default() += 1;
            }
        }
        let mut index = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            let crowd =
                |kind: bool, key: &[u8]| shared.get(&(kind, key.to_vec())).copied().unwrap_or_default();
            let by_path: Option<usize> = rule
                .paths
                .is_some()
                .then(|| paths(rule, ignored).iter().map(|(key, _)| crowd(true, key)).sum());
            let by_host: Option<usize> =
                rule.hosts.is_some().then(|| hosts(rule).map(|(key, _)| crowd(false, key.as_bytes())).sum());
            match (by_path, by_host) {
                (None, None) => index.anywhere.push(at),
                (Some(path), host) if host.is_none_or(|host| path <= host) => {
                    for (key, is_below) in paths(rule, ignored) {
                        let length = key.len();
                        index.paths.add(key, length, is_below, at);
                    }
                }
                _ => hosts(rule).for_each(|(key, is_below)| {
                    let length = key.len();
                    index.hosts.add(key, length, is_below, at);
                }),
            }
        }
        index
    }

    /// The first rule that this is true of, out of those that may match.
    pub(super) fn first(&self, path: &[u8], host: &str, matches: impl Fn(usize) -> bool) -> Option<usize> {
        // A prefix ends before a slash, or with the path.
        let is_end = |end: &usize| *end == path.len() || path.get(*end) == Some(&b'/');
        let prefixes = self.paths.below_lengths.iter().copied().take_while(|end| *end <= path.len());
        let prefixes = prefixes.filter(is_end).filter_map(|end| path.get(..end));
        let ends = self.hosts.below_lengths.iter().filter_map(|length| host.len().checked_sub(*length));
        let suffixes = ends.filter_map(|at| host.get(at..));
        let exact_path =
            (path.len() <= self.paths.longest_exact).then(|| self.paths.exact.get(path)).flatten();
        let exact_host =
            (host.len() <= self.hosts.longest_exact).then(|| self.hosts.exact.get(host)).flatten();
        let lists = exact_path.into_iter().chain(prefixes.filter_map(|prefix| self.paths.below.get(prefix)));
        let lists = lists.chain(exact_host).chain(suffixes.filter_map(|suffix| self.hosts.below.get(suffix)));
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

impl<K: Eq + std::hash::Hash> Keys<K> {
    fn add(&mut self, key: K, length: usize, is_below: bool, at: usize) {
        let lists = if is_below {
            if let Err(at) = self.below_lengths.binary_search(&length) {
                self.below_lengths.insert(at, length);
            }
            &mut self.below
        } else {
            self.longest_exact = length.max(self.longest_exact);
            &mut self.exact
        };
        let list = lists.entry(key).or_default();
        // A rule may write one pattern twice.
        if list.last() != Some(&at) {
            list.push(at);
        }
    }
}

fn paths(rule: &Rule, ignored: Ignored) -> Vec<(Box<[u8]>, bool)> {
    let patterns = rule.paths.iter().flatten();
    let texts =
        patterns.flat_map(|pattern| pattern.keys(ignored).map(|(text, is_below)| (text.into(), is_below)));
    let mut keys: Vec<(Box<[u8]>, bool)> = texts.collect();
    keys.sort();
    keys.dedup();
    keys
}

fn hosts(rule: &Rule) -> impl Iterator<Item = (String, bool)> {
    rule.hosts.iter().flatten().map(|pattern| match pattern.name() {
        HostName::Exact(host) => (host.clone(), false),
        HostName::Below(host) => (host.clone(), true),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pattern::{HostPattern, PathPattern};
    use super::*;
    use crate::domain::readings::MAX_LEVEL;

    fn rule() -> impl Strategy<Value = Rule> {
        let path = prop_oneof![
            Just("/"),
            Just("/a"),
            Just("/a/b"),
            Just("/*"),
            Just("/a/*"),
            Just("/A/b/*"),
            Just("/a/"),
            Just("/a%3Bb"),
            Just("/{sub}/*"),
            Just("/a/*/b"),
            Just("/*/{sub}"),
            Just("/A/{x}"),
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
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

        #[test]
        fn the_index_finds_what_looking_at_all_finds(
            rules in proptest::collection::vec(rule(), 0..12),
            path in "(/[abA]?){0,4}|\\*||/a;b|/a%3Bb",
            host in "[ab](\\.[ab]){0,3}|",
            way in 0..Ignored::WAYS,
        ) {
            let ignored = Ignored::all().nth(way).unwrap();
            let path = ignored.fold(path.as_bytes());
            let index = Index::new(&rules, ignored);
            for (level, restricts) in (0..=MAX_LEVEL).flat_map(|level| [(level, false), (level, true)]) {
                let matches = |rule: &Rule| {
                    rule.matches_path(&path, level, ignored, restricts) && rule.matches_host(&host, None, restricts)
                };
                let all = rules.iter().position(matches);
                let found = index.first(&path, &host, |at| matches(&rules[at]));
                prop_assert_eq!(found, all);
            }
        }
    }
}
