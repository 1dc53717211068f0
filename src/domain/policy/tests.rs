//! Which rules requests fall under.

use super::*;

fn rule(name: &str, hosts: &[&str], paths: &[&str], methods: &[&str]) -> Rule {
    fn some<T>(list: &[&str], read: impl Fn(&str) -> T) -> Option<Vec<T>> {
        (!list.is_empty()).then(|| list.iter().map(|text| read(text)).collect())
    }
    Rule {
        name: name.to_owned(),
        hosts: some(hosts, |text| HostPattern::new(text).unwrap()),
        paths: some(paths, |text| PathPattern::new(text).unwrap()),
        methods: some(methods, str::to_owned),
        ..Rule::default()
    }
}
