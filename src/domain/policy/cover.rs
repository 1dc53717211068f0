//! Which rules are never taken, because an earlier one matches whatever they match. For warnings of the configuration only:
//! no request is judged here.

use super::pattern::{HostPattern, Ignored};
use super::rule::{Access, Rule};

/// An earlier rule that matches each reading of a request that a later one matches, `OPTIONS *` aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoveredBy {
    /// The earlier rule's place.
    pub(crate) earlier: usize,
    /// Whether the later rule is still met with ports other than 80 and 443.
    pub(crate) but_for_odd_ports: bool,
}

/// For each rule whether an earlier one covers it. Several earlier rules that cover it only together are not found.
pub(crate) fn covered(rules: &[Rule], ignored: Ignored) -> Vec<Option<CoveredBy>> {
    let a_port_is_named = rules.iter().any(Rule::names_a_port);
    let by = |at: usize, later: &Rule| {
        let pairs = rules.iter().take(at).enumerate();
        let alike: Vec<_> = pairs
            .filter(|(_, rule)| rule.covers_methods(later) && rule.covers_paths(later, ignored))
            .collect();
        [false, true].into_iter().find_map(|usual_ports| {
            let covering =
                alike.iter().find(|(_, rule)| rule.covers_hosts(later, a_port_is_named, usual_ports));
            covering.map(|(earlier, _)| CoveredBy { earlier: *earlier, but_for_odd_ports: usual_ports })
        })
    };
    rules.iter().enumerate().map(|(at, later)| by(at, later)).collect()
}

/// A rule that names them all is taken to match any method.
const COMMON_METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

impl Rule {
    /// Whether it matches any host, path and method, `OPTIONS *` and rare methods aside.
    pub(crate) fn matches_everything(&self) -> bool {
        let paths = self.paths.as_ref().is_none_or(|paths| paths.iter().any(|path| path.is_root()));
        let methods = COMMON_METHODS.iter().all(|method| self.matches_method(method.as_bytes()));
        self.hosts.is_none() && paths && methods
    }

    fn covers_methods(&self, later: &Self) -> bool {
        match &later.methods {
            None => self.methods.is_none(),
            Some(methods) => methods.iter().all(|method| self.matches_method(method.as_bytes())),
        }
    }

    fn covers_paths(&self, later: &Self, ignored: Ignored) -> bool {
        let Some(own) = &self.paths else { return true };
        match &later.paths {
            None => own.iter().any(|path| path.is_root()),
            Some(paths) => paths.iter().all(|path| own.iter().any(|own| own.covers(path, ignored))),
        }
    }

    /// In each of the ways in which `Policy::select` looks for the first rule: a rule that names no port is met with any port
    /// never, if it restricts, or if it demands a token. The second way is used only where a rule names a port.
    fn covers_hosts(&self, later: &Self, a_port_is_named: bool, usual_ports: bool) -> bool {
        let Some(own) = &self.hosts else { return true };
        let Some(hosts) = &later.hosts else { return false };
        let covered = |any_port: fn(&Self) -> bool| {
            let covers =
                |own: &HostPattern, host| own.covers(any_port(self), host, any_port(later), usual_ports);
            hosts.iter().all(|host| own.iter().any(|own| covers(own, host)))
        };
        covered(|_| false)
            && (!a_port_is_named || covered(Self::restricts))
            && covered(|rule| rule.restricts() || rule.access == Access::Required)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{ALL, request, rule};
    use super::super::{ClaimDemand, Policy, Requirement, Wanted};
    use super::*;
    use crate::domain::claim::Claim;

    const EXACT: Ignored = Ignored { case: false, trailing_slash: false };

    fn of(text: &str) -> Rule {
        // Hosts, paths and methods, each separated by commas; an asterisk in front of the access: with a requirement.
        let parts: Vec<_> = text.split_whitespace().collect();
        let [access, parts @ ..] = parts.as_slice() else { panic!("{text}") };
        let list = |key: &str| -> Vec<&str> {
            let part = parts.iter().find_map(|part| part.strip_prefix(key));
            part.map_or_else(Vec::new, |part| part.split(',').collect())
        };
        let level = match access.trim_start_matches('!') {
            "public" => Access::Public,
            "lenient" => Access::Lenient,
            "optional" => Access::Optional,
            "required" => Access::Required,
            "deny" => Access::Deny,
            _ => panic!("{text}"),
        };
        let mut rule = rule(text, level, &list("hosts="), &list("paths="), &list("methods="));
        if access.starts_with('!') {
            let (claim, wanted) = (Claim::new("role").unwrap(), Wanted::Any(vec!["admin".into()]));
            let role = ClaimDemand { claim, wanted, split: false };
            rule.require = Requirement { issuers: None, claims: vec![role] };
        }
        rule
    }

    #[test]
    fn an_earlier_rule_covers_a_later_one() {
        for (earlier, later, covers) in [
            ("public", "deny", true),
            ("public", "public hosts=a paths=/a methods=GET", true),
            ("public paths=/a", "public", false),
            // Methods.
            ("public methods=GET", "public methods=GET", true),
            ("public methods=GET", "public methods=HEAD", true),
            ("public methods=HEAD", "public methods=GET", false),
            ("public methods=GET,POST", "public methods=POST", true),
            ("public methods=POST", "public methods=GET,POST", false),
            ("public methods=GET", "public", false),
            // Paths.
            ("public paths=/a", "public paths=/a", true),
            ("public paths=/a,/b", "public paths=/b,/a", true),
            ("public paths=/a", "public paths=/a,/b", false),
            ("public paths=/*", "public paths=/a,/b/*", true),
            ("public paths=/*", "public paths=/", true),
            ("public paths=/", "public paths=/*", false),
            ("public paths=/*", "public paths=*", false),
            ("public paths=*", "public paths=/*", false),
            ("public paths=/*", "public", true),
            ("public paths=/a/*", "public paths=/a/b/*", true),
            ("public paths=/a/*", "public paths=/a", true),
            ("public paths=/a/*", "public paths=/a/", true),
            ("public paths=/a/*", "public paths=/ab", false),
            ("public paths=/a/*", "public paths=/ab/*", false),
            ("public paths=/a/b/*", "public paths=/a/*", false),
            ("public paths=/a", "public paths=/a/*", false),
            ("public paths=/A/*", "public paths=/a/b", false),
            ("public paths=/a/*", "public paths=/A/b", false),
            ("public paths=/a", "public paths=/a/", false),
            ("public paths=/a/", "public paths=/a", false),
            ("public paths=/a%3Bb/*", "public paths=/a%3Bb/c", true),
            ("public paths=/a/*", "public paths=/a/%3Bb", true),
            ("public paths=/a%3Bb", "public paths=/a%3Bc", false),
            // Hosts.
            ("public hosts=*.a.b", "public hosts=x.a.b", true),
            ("public hosts=*.a.b", "public hosts=*.a.b", true),
            ("public hosts=*.a.b", "public hosts=*.x.a.b,y.a.b", true),
            ("public hosts=*.a.b", "public hosts=a.b", false),
            ("public hosts=*.a.b", "public hosts=*.b", false),
            ("public hosts=x.a.b", "public hosts=*.a.b", false),
            ("public hosts=*.a.b", "public hosts=xa.b", false),
            ("public hosts=a,b", "public hosts=b", true),
            ("public hosts=a", "public", false),
            ("public", "public hosts=a", true),
            // Ports: a rule that restricts and names none is met with any.
            ("public hosts=a", "public hosts=a:8443", false),
            ("public hosts=a", "public hosts=a:443", true),
            ("public hosts=a:443", "public hosts=a", false),
            ("public hosts=a:8443", "public hosts=a:8443", true),
            ("public hosts=a:8443", "public hosts=a:8444", false),
            ("public hosts=a:8443", "public hosts=a:*", false),
            ("public hosts=a:*", "public hosts=a,a:8443", true),
            ("public hosts=a:*", "deny hosts=a", true),
            ("public hosts=a", "deny hosts=a", false),
            ("optional hosts=a", "!required hosts=a", false),
            ("public hosts=a", "required hosts=a", false),
            ("public hosts=a", "optional hosts=a", true),
            ("deny hosts=a", "public hosts=a", true),
            ("deny hosts=a", "deny hosts=a", true),
            ("!required hosts=a", "deny hosts=a", true),
            ("required hosts=a", "deny hosts=a", true),
            ("required hosts=a", "required hosts=a", true),
            ("deny hosts=a", "deny hosts=a:8443", false),
        ] {
            let by = covered(&[of(earlier), of(later)], ALL);
            let [None, by] = by.as_slice() else { panic!("{by:?}") };
            let by = by.filter(|by| !by.but_for_odd_ports);
            assert_eq!(by.is_some(), covers, "{earlier} / {later}");
        }
    }

    #[test]
    fn at_the_usual_ports() {
        for (rules, want) in [
            (&["public hosts=a", "deny hosts=a"][..], Some((0, true))),
            (&["public hosts=*.a", "!required hosts=b.a paths=/admin/*"], Some((0, true))),
            (&["public hosts=a", "deny hosts=a:8443"], None),
            (&["public hosts=a", "deny hosts=a:*"], None),
            (&["public hosts=a:8443", "deny hosts=a"], None),
            (&["public hosts=a", "deny hosts=a", "deny hosts=a"], Some((1, false))),
            (&["required hosts=a", "deny hosts=a"], Some((0, false))),
            (&["public hosts=b:8443", "required hosts=a", "deny hosts=a"], Some((1, true))),
        ] {
            let rules: Vec<_> = rules.iter().map(|rule| of(rule)).collect();
            let last = covered(&rules, ALL).last().copied().flatten();
            assert_eq!(last.map(|by| (by.earlier, by.but_for_odd_ports)), want, "{rules:?}");
        }
    }

    #[test]
    fn what_is_ignored_decides_how_patterns_are_compared() {
        // The pattern's own text is always one reading, so patterns that differ in case never cover each other.
        for ignored in [ALL, EXACT] {
            for (paths, is_covered) in [(["/a/*", "/A"], false), (["/a/*", "/a/B"], true)] {
                let rules = paths.map(|path| of(&format!("public paths={path}")));
                assert_eq!(covered(&rules, ignored)[1].is_some(), is_covered, "{paths:?} {ignored:?}");
            }
        }
    }

    #[test]
    fn everything() {
        for (rule, is_everything) in [
            ("public", true),
            ("public paths=/*", true),
            ("public paths=/a,/*,*", true),
            ("public methods=GET,POST,PUT,PATCH,DELETE", true),
            ("public paths=/", false),
            ("public paths=*", false),
            ("public paths=/a/*", false),
            ("public hosts=a", false),
            ("public methods=GET,POST", false),
        ] {
            assert_eq!(of(rule).matches_everything(), is_everything, "{rule}");
        }
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let list = |options: &'static [&'static str]| {
            proptest::option::of(proptest::collection::vec(proptest::sample::select(options), 1..3))
        };
        let access =
            proptest::sample::select(&["public", "lenient", "optional", "required", "!required", "deny"][..]);
        let hosts = list(&["a", "b.a", "*.a", "*.b.a", "a:8", "a:443", "a:*", "*.a:8", "*.a:*"]);
        let paths = list(&["/", "/*", "/a", "/a/", "/a/*", "/A/*", "/a/b", "/a/b/*", "/a%3Bb", "/a%3Bb/*"]);
        let methods = list(&["GET", "HEAD", "POST"]);
        (access, hosts, paths, methods).prop_map(|(access, hosts, paths, methods)| {
            let part = |key: &str, list: Option<Vec<&str>>| {
                list.map_or_else(String::new, |list| format!(" {key}={}", list.join(",")))
            };
            of(&format!(
                "{access}{}{}{}",
                part("hosts", hosts),
                part("paths", paths),
                part("methods", methods)
            ))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn a_covered_rule_is_never_selected(
            rules in proptest::collection::vec(any_rule(), 2..6),
            requests in proptest::collection::vec((
                proptest::sample::select(&["GET", "HEAD", "POST", "PUT"][..]),
                "(a|b\\.a|c\\.a|c\\.b\\.a|d)\\.?(:(8|80|443|9))?",
                "(/[aAb]?|/\\.\\.|%3B|;|%2f){0,4}",
            ), 1..20),
            case: bool,
            trailing_slash: bool,
        ) {
            let ignored = Ignored { case, trailing_slash };
            let covered = covered(&rules, ignored);
            let numbered = rules.iter().cloned().enumerate().map(|(at, rule)| Rule { name: at.to_string(), ..rule });
            let policy = Policy::new(numbered.collect(), ignored);
            for (method, host, path) in &requests {
                let path = format!("/{path}");
                let Ok(selection) = policy.select(&request(method, host, &path)) else { continue };
                for rule in selection.rules().filter(|rule| !rule.name.is_empty()) {
                    let at: usize = rule.name.parse().unwrap();
                    let is_usual = !host.ends_with(":8") && !host.ends_with(":9");
                    let is_covered = covered[at].is_some_and(|by| !by.but_for_odd_ports || is_usual);
                    prop_assert!(!is_covered, "{} by {method} {host} {path} in {rules:?}", rules[at].name);
                }
            }
        }
    }
}
