//! Which rule each reading of a request falls under, for a person to read. A check keeps no trace, and pays for none.

use super::Asked;
use super::rule::{Access, Rule};

/// Is told of each rule that a reading falls under.
pub(super) trait Trace {
    fn found(&mut self, reading: &Asked<'_>, rule: &Rule);

    /// The request has too many readings to look each one up: this rule may match some of them.
    fn may_match(&mut self, rule: &Rule);
}

impl Trace for () {
    fn found(&mut self, _: &Asked<'_>, _: &Rule) {}

    fn may_match(&mut self, _: &Rule) {}
}

/// The most readings that are kept.
const MAX_READINGS: usize = 96;

/// A reading of a request, and the rule that it falls under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleOfReading {
    pub method: String,
    /// `None` if no rule looks at hosts.
    pub host: Option<String>,
    /// `None` if no rule looks at paths, and for a request with too many readings.
    pub path: Option<String>,
    /// Empty for a request that no rule matches.
    pub rule: String,
    pub access: Access,
}

/// In the order in which they are looked up, each once.
#[derive(Debug, Default)]
pub(super) struct Kept(pub(super) Vec<RuleOfReading>);

impl Kept {
    fn keep(&mut self, reading: RuleOfReading) {
        if self.0.len() < MAX_READINGS && !self.0.contains(&reading) {
            self.0.push(reading);
        }
    }
}

impl Trace for Kept {
    fn found(&mut self, reading: &Asked<'_>, rule: &Rule) {
        let Asked { method, host, port, path, .. } = reading;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let host = port.map_or_else(|| (*host).to_owned(), |port| format!("{host}:{port}"));
        let (rule, access) = (rule.name.clone(), rule.access);
        let (host, path) = (Some(host).filter(|host| !host.is_empty()), text(path));
        self.keep(RuleOfReading {
            method: text(method),
            host,
            path: Some(path).filter(|path| !path.is_empty()),
            rule,
            access,
        });
    }

    fn may_match(&mut self, rule: &Rule) {
        let (rule, access) = (rule.name.clone(), rule.access);
        self.keep(RuleOfReading { method: String::new(), host: None, path: None, rule, access });
    }
}
