//! Which rules a request falls under. Each reading of its method, host and path falls under the first rule that matches it, or
//! under the one that demands a token; the rules of all readings must hold.

use std::collections::{HashMap, HashSet};

use crate::domain::claims::Claim;
use crate::domain::denial::Denial;
use crate::domain::readings::host::Authority;
use crate::domain::readings::{Mode, Readings, method};
use crate::domain::request::Request;

mod index;
mod pattern;
mod rule;
mod selection;

use index::Index;
pub(crate) use pattern::{HostPattern, Ignored, PathPattern};
pub(crate) use rule::{Access, Requirement, Rule};
pub(crate) use selection::Selection;

/// All rules, in their order.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
    by_name: HashMap<String, usize>,
    /// One for each way to ignore something in a path that makes a difference here.
    indexes: Vec<(Ignored, Index)>,
    ignored: Ignored,
    /// The methods that rules name, and HEAD beside GET.
    methods: HashSet<Vec<u8>>,
    looks_at: LooksAt,
    otherwise: Rule,
}

/// What any of the rules looks at, or has in its patterns.
#[derive(Debug, Clone, Copy)]
struct LooksAt {
    hosts: bool,
    paths: bool,
    methods: bool,
    capitals: bool,
    trailing_slashes: bool,
    /// Whether a pattern of a host names a port.
    ports: bool,
}

/// One reading of a request.
#[derive(Clone, Copy)]
struct Reading<'r> {
    method: &'r [u8],
    host: &'r str,
    port: Option<&'r str>,
    /// `None` stands for any path.
    path: Option<(&'r [u8], Mode, Ignored)>,
}

impl Policy {
    /// A policy of these rules, in this order.
    pub(crate) fn new(rules: Vec<Rule>, ignored: Ignored) -> Self {
        let by_name = rules.iter().enumerate().map(|(at, rule)| (rule.name.clone(), at)).collect();
        let patterns = || rules.iter().flat_map(|rule| rule.paths.iter().flatten());
        let differs =
            |way: Ignored| patterns().any(|pattern| pattern.texts(way) != pattern.texts(Ignored::NOTHING));
        let looks_at = LooksAt {
            hosts: rules.iter().any(|rule| rule.hosts.is_some()),
            paths: rules.iter().any(|rule| rule.paths.is_some()),
            ports: rules.iter().any(Rule::names_a_port),
            methods: rules.iter().any(|rule| rule.methods.is_some()),
            capitals: ignored.case && differs(Ignored { case: true, ..Ignored::NOTHING }),
            trailing_slashes: ignored.trailing_slash
                && differs(Ignored { trailing_slash: true, ..Ignored::NOTHING }),
        };
        let indexes = Ignored::all().map(|way| (way, Index::new(&rules, way))).collect();
        let named = rules.iter().flat_map(|rule| rule.methods.iter().flatten());
        let mut methods: HashSet<_> = named.map(|method| method.as_bytes().to_vec()).collect();
        if methods.contains(&b"GET"[..]) {
            methods.insert(b"HEAD".to_vec());
        }
        Self { rules, by_name, indexes, ignored, methods, looks_at, otherwise: Rule::default() }
    }

    /// The claims that rules ask for.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.rules.iter().flat_map(|rule| rule.require.claims.iter().map(|(claim, _)| claim))
    }

    /// The rules of a request: the one that the route names, else for each reading the first that matches it, else the
    /// one that demands a token.
    ///
    /// # Errors
    /// [`Denial::RuleUnknown`] if the route names no rule of ours; [`Denial::RequestMalformed`] if rules look at hosts or at
    /// paths and the request has none.
    pub(crate) fn select(&self, request: &Request<'_>) -> Result<Selection<'_>, Denial> {
        if let Some(name) = request.rule {
            let at = str::from_utf8(name).ok().and_then(|name| self.by_name.get(name));
            return at.and_then(|at| self.ranked(*at)).map(Selection::of).ok_or(Denial::RuleUnknown);
        }
        let authority = if self.looks_at.hosts {
            Some(Authority::parse(request.host).ok_or(Denial::RequestMalformed)?)
        } else {
            None
        };
        let path = if self.looks_at.paths {
            Readings::of(request.path).map_err(|_| Denial::RequestMalformed)?
        } else {
            Readings::One(b"")
        };
        let mut selected = Selected(None);
        let mut with_method = |method: &[u8]| match &authority {
            None => self.add_paths(method, "", None, &path, &mut selected),
            Some(authority) => {
                for name in authority.names() {
                    self.add_paths(method, name, authority.port, &path, &mut selected);
                }
            }
        };
        if !self.looks_at.methods || method::is_plain(request) {
            with_method(request.method);
        } else {
            method::methods(request, &self.methods).iter().for_each(|method| with_method(method));
        }
        Ok(selected.0.unwrap_or_else(|| Selection::of(self.otherwise())))
    }

    fn add_paths<'p>(
        &'p self,
        method: &[u8],
        host: &str,
        port: Option<&str>,
        path: &Readings<'_>,
        selected: &mut Selected<'p>,
    ) {
        let anywhere = Reading { method, host, port, path: None };
        match path {
            Readings::One(path) => self.add_folded(anywhere, Mode::AsSent, path, selected),
            Readings::Several(readings) => {
                readings.for_each(|mode, path| self.add_folded(anywhere, mode, path, selected));
            }
            Readings::TooMany => self.add_all(anywhere, selected),
        }
    }

    /// Adds the rules of a path, and of what is left of it when an upstream ignores case or a slash at its end.
    fn add_folded<'p>(&'p self, at: Reading<'_>, mode: Mode, path: &[u8], selected: &mut Selected<'p>) {
        let case = self.ignored.case && (self.looks_at.capitals || path.iter().any(u8::is_ascii_uppercase));
        let trailing_slash =
            self.ignored.trailing_slash && (self.looks_at.trailing_slashes || path.ends_with(b"/"));
        for (way, index) in &self.indexes {
            if (way.case && !case) || (way.trailing_slash && !trailing_slash) {
                continue;
            }
            let folded = way.fold(path);
            let reading = Reading { path: Some((&folded, mode, *way)), ..at };
            self.add_first(reading, index, selected);
        }
    }

    /// Adds the first rule that matches a reading. Another port than the usual ones must not escape a rule that restricts and
    /// names no port, nor open one that does not: such a port is read in both ways.
    fn add_first<'p>(&'p self, reading: Reading<'_>, index: &Index, selected: &mut Selected<'p>) {
        let path = reading.path.map_or(&b""[..], |(path, ..)| path);
        let first = |any_port: &dyn Fn(&Rule) -> bool| {
            let matches =
                |at: usize| self.rules.get(at).is_some_and(|rule| reading.matches(rule, any_port(rule)));
            index.first(path, reading.host, matches).and_then(|at| self.ranked(at))
        };
        let exact = first(&|_| false);
        selected.add(exact.unwrap_or_else(|| self.otherwise()));
        let is_usual = matches!(reading.port, None | Some("80" | "443"));
        if self.looks_at.ports || !is_usual {
            let names_port = exact.is_some_and(|(_, rule)| rule.names_a_port());
            let restricts =
                |rule: &Rule| rule.restricts() || (!names_port && rule.access == Access::Required);
            selected.add(first(&restricts).unwrap_or_else(|| self.otherwise()));
        }
    }

    /// Adds every rule that a path may fall under.
    fn add_all<'p>(&'p self, reading: Reading<'_>, selected: &mut Selected<'p>) {
        let all = self.rules.iter().enumerate();
        for (at, rule) in all.filter(|(_, rule)| reading.matches(rule, rule.access != Access::Public)) {
            selected.add((at, rule));
            if rule.paths.is_none() && reading.matches(rule, false) {
                return;
            }
        }
        selected.add(self.otherwise());
    }

    fn ranked(&self, at: usize) -> Option<(usize, &Rule)> {
        self.rules.get(at).map(|rule| (at, rule))
    }

    const fn otherwise(&self) -> (usize, &Rule) {
        (usize::MAX, &self.otherwise)
    }
}

impl Reading<'_> {
    fn matches(&self, rule: &Rule, any_port: bool) -> bool {
        let host = |patterns: &Vec<HostPattern>| {
            patterns.iter().any(|pattern| pattern.matches(self.host, self.port, any_port))
        };
        let path = |patterns: &Vec<PathPattern>| match self.path {
            None => true,
            Some((path, mode, ignored)) => {
                patterns.iter().any(|pattern| pattern.matches(path, mode, ignored))
            }
        };
        rule.matches_method(self.method)
            && rule.hosts.as_ref().is_none_or(host)
            && rule.paths.as_ref().is_none_or(path)
    }
}

/// The rules found so far.
struct Selected<'p>(Option<Selection<'p>>);

impl<'p> Selected<'p> {
    fn add(&mut self, rule: (usize, &'p Rule)) {
        match &mut self.0 {
            None => self.0 = Some(Selection::of(rule)),
            Some(selection) => selection.add(rule),
        }
    }
}

#[cfg(test)]
#[path = "policy/models.rs"]
mod models;

#[cfg(test)]
#[path = "policy/tests.rs"]
mod tests;
