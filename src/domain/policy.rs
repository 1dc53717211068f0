//! Which rules a request falls under. Each reading of its method, host and path falls under the first rule that matches it, or
//! under the one that demands a token; the rules of all readings must hold.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::domain::claim::Claim;
use crate::domain::denial::Denial;
use crate::domain::readings::host::Authority;
use crate::domain::readings::{Reading, Readings, method};
use crate::domain::request::Request;

mod cover;
mod demand;
mod index;
mod path_demand;
mod pattern;
mod rule;
mod selection;
mod trace;

pub(crate) use cover::{CoveredBy, covered};
pub(crate) use demand::{ClaimDemand, Wanted};
use index::Index;
use path_demand::PathDemand;
pub(crate) use pattern::{HostPattern, Ignored, PathPattern};
pub(crate) use rule::{Access, Requirement, Rule};
pub(crate) use selection::Selection;
pub(crate) use trace::RuleOfReading;
use trace::{Kept, Trace};

/// The most readings of one request, method and host included, that are looked up one by one. One with more falls under every
/// rule.
const MAX_LOOKUPS: usize = 96;

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
    audiences: bool,
    /// Whether a segment of a path is compared with a claim.
    path_claims: bool,
    capitals: bool,
    trailing_slashes: bool,
    /// Whether a pattern of a host names a port.
    ports: bool,
    /// Whether a pattern of a path has escapes.
    levels: bool,
}

/// One reading of a request.
#[derive(Clone, Copy)]
struct Asked<'r> {
    method: &'r [u8],
    host: &'r str,
    port: Option<&'r str>,
    path: &'r [u8],
    /// How often the path's escapes were decoded.
    level: usize,
    ignored: Ignored,
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
            levels: patterns().any(PathPattern::has_levels),
            methods: rules.iter().any(|rule| rule.methods.is_some()),
            audiences: rules.iter().any(|rule| rule.audiences.is_some()),
            path_claims: rules.iter().any(|rule| rule.path_claims().next().is_some()),
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

    /// Whether any rule looks at the method.
    pub(crate) const fn looks_at_methods(&self) -> bool {
        self.looks_at.methods
    }

    /// Whether a rule has audiences of its own.
    pub(crate) const fn has_audiences(&self) -> bool {
        self.looks_at.audiences
    }

    /// The claims that rules ask for.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.rules
            .iter()
            .flat_map(|rule| rule.require.claims.iter().map(|demand| &demand.claim).chain(rule.path_claims()))
    }

    /// The rules of a request: the one that the route names, else for each reading the first that matches it, else the
    /// one that demands a token.
    ///
    /// # Errors
    /// [`Denial::RuleUnknown`] if the route names no rule of ours; [`Denial::RequestMalformed`] if rules look at hosts or at
    /// paths and the request has none.
    pub(crate) fn select(&self, request: &Request<'_>) -> Result<Selection<'_>, Denial> {
        self.select_traced(request, &mut ())
    }

    pub(crate) const fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The readings of a request, each with the rule that it falls under. None if the request cannot be read.
    pub(crate) fn readings(&self, request: &Request<'_>) -> Vec<RuleOfReading> {
        let mut kept = Kept::default();
        self.select_traced(request, &mut kept).map_or_else(|_| Vec::new(), |_| kept.0)
    }

    fn select_traced<T: Trace>(&self, request: &Request<'_>, trace: &mut T) -> Result<Selection<'_>, Denial> {
        if let Some(name) = request.rule {
            let at = str::from_utf8(name).ok().and_then(|name| self.by_name.get(name));
            let (at, rule) = at.and_then(|at| self.ranked(*at)).ok_or(Denial::RuleUnknown)?;
            let mut selected = Selected { selection: None, trace };
            selected.add_without_path((at, rule));
            return selected.selection.ok_or(Denial::RuleUnknown);
        }
        if self.rules.is_empty() {
            return Ok(Selection::of(self.otherwise()));
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
        // Nearly every request has one method and one host: no vector is made for them.
        let (one_method, several_methods): ([Cow<'_, [u8]>; 1], Vec<_>);
        let methods: &[_] = if !self.looks_at.methods || method::is_plain(request) {
            one_method = [Cow::Borrowed(request.method)];
            &one_method
        } else {
            let readings = method::methods(request, &self.methods);
            several_methods = readings.into_iter().map(Cow::Owned).collect();
            &several_methods
        };
        let any_host = [("", None)];
        let named_hosts: Vec<_>;
        let hosts: &[_] = match &authority {
            None => &any_host,
            Some(authority) => {
                named_hosts = authority.hosts().collect();
                &named_hosts
            }
        };
        let mut selected = Selected { selection: None, trace };
        let each = methods.iter().flat_map(|method| hosts.iter().map(move |host| (&**method, *host)));
        match path {
            Readings::One(path) if methods.len() * hosts.len() <= MAX_LOOKUPS => {
                each.for_each(|(method, host)| self.add_folded(method, host, path, 0, &mut selected));
            }
            Readings::Several(all) if all.len() * methods.len() * hosts.len() <= MAX_LOOKUPS => {
                for (method, host) in each {
                    for Reading { level, path } in &all {
                        self.add_folded(method, host, path, *level, &mut selected);
                    }
                }
            }
            Readings::One(_) | Readings::Several(_) | Readings::TooMany => {
                self.add_all(methods, hosts, &mut selected)
            }
        }
        Ok(selected.selection.unwrap_or_else(|| Selection::of(self.otherwise())))
    }

    /// Adds the rules of a path, and of what is left of it when an upstream ignores case or a slash at its end.
    fn add_folded<'p, T: Trace>(
        &'p self,
        method: &[u8],
        (host, port): (&str, Option<&str>),
        path: &[u8],
        level: usize,
        selected: &mut Selected<'p, '_, T>,
    ) {
        let case = self.ignored.case && (self.looks_at.capitals || pattern::has_case(path));
        let trailing_slash =
            self.ignored.trailing_slash && (self.looks_at.trailing_slashes || path.ends_with(b"/"));
        for (way, index) in &self.indexes {
            if (way.case && !case) || (way.trailing_slash && !trailing_slash) {
                continue;
            }
            let folded = way.fold(path);
            let asked = Asked { method, host, port, path: &folded, level, ignored: *way };
            self.add_first(asked, index, selected);
        }
    }

    /// Adds the first rule that matches. A rule that restricts must not be escaped by another port than its host pattern means,
    /// or by another spelling of an escape in its path; one that opens must not be met by either. So where they may differ,
    /// the request is looked up in both ways, each by itself: a rule that is met in one of them hides none that another way finds.
    fn add_first<'p, T: Trace>(
        &'p self,
        asked: Asked<'_>,
        index: &Index,
        selected: &mut Selected<'p, '_, T>,
    ) {
        let find = |any_port: &dyn Fn(&Rule) -> bool, any_level: bool| {
            let matches = |at: usize| {
                let any_level = |rule: &Rule| any_level && rule.closes();
                self.rules.get(at).is_some_and(|rule| asked.matches(rule, any_port(rule), any_level(rule)))
            };
            index.first(asked.path, asked.host, matches).and_then(|at| self.ranked(at))
        };
        let is_usual = matches!(asked.port, None | Some("80" | "443"));
        for any_level in [false, true].into_iter().take(1 + usize::from(self.looks_at.levels)) {
            let exact = find(&|_| false, any_level);
            self.add_on(exact.unwrap_or_else(|| self.otherwise()), asked, any_level, selected);
            if self.looks_at.ports || !is_usual {
                let names_port = exact.is_some_and(|(_, rule)| rule.names_a_port());
                let any_port =
                    |rule: &Rule| rule.restricts() || (!names_port && rule.access == Access::Required);
                let found = find(&any_port, any_level).unwrap_or_else(|| self.otherwise());
                self.add_on(found, asked, any_level, selected);
            }
        }
    }

    /// Adds a rule with what the path asks for by it.
    fn add_on<'p, T: Trace>(
        &self,
        (at, rule): (usize, &'p Rule),
        asked: Asked<'_>,
        any_level: bool,
        selected: &mut Selected<'p, '_, T>,
    ) {
        selected.add((at, rule));
        selected.trace.found(&asked, rule);
        if self.looks_at.path_claims {
            let any_level = any_level && rule.closes();
            if let Some(demand) = rule.path_demand(asked.path, asked.level, asked.ignored, any_level) {
                selected.demand(rule, demand);
            }
        }
    }

    /// Adds every rule that some path of the request may fall under.
    fn add_all<'p, T: Trace>(
        &'p self,
        methods: &[Cow<'_, [u8]>],
        hosts: &[(&str, Option<&str>)],
        selected: &mut Selected<'p, '_, T>,
    ) {
        for (at, rule) in self.rules.iter().enumerate() {
            let any_port = rule.access != Access::Public;
            let may_match = methods.iter().any(|method| rule.matches_method(method))
                && hosts.iter().any(|(host, port)| rule.matches_host(host, *port, any_port));
            if may_match {
                selected.add_without_path((at, rule));
            }
            let matches_all = rule.paths.is_none()
                && methods.iter().all(|method| rule.matches_method(method))
                && hosts.iter().all(|(host, port)| rule.matches_host(host, *port, false));
            if matches_all {
                return;
            }
        }
        selected.add(self.otherwise());
        selected.trace.may_match(&self.otherwise);
    }

    fn ranked(&self, at: usize) -> Option<(usize, &Rule)> {
        self.rules.get(at).map(|rule| (at, rule))
    }

    const fn otherwise(&self) -> (usize, &Rule) {
        (usize::MAX, &self.otherwise)
    }
}

impl Asked<'_> {
    fn matches(&self, rule: &Rule, any_port: bool, any_level: bool) -> bool {
        let Self { method, host, port, path, level, ignored } = *self;
        rule.matches_method(method)
            && rule.matches_host(host, port, any_port)
            && rule.matches_path(path, level, ignored, any_level)
    }
}

/// The rules found so far.
struct Selected<'p, 't, T> {
    selection: Option<Selection<'p>>,
    trace: &'t mut T,
}

impl<'p, T: Trace> Selected<'p, '_, T> {
    fn add(&mut self, rule: (usize, &'p Rule)) {
        match &mut self.selection {
            None => self.selection = Some(Selection::of(rule)),
            Some(selection) => selection.add(rule),
        }
    }

    /// Adds a rule to a request whose path is not looked at. What its paths ask of a token is then never met.
    fn add_without_path(&mut self, (at, rule): (usize, &'p Rule)) {
        self.add((at, rule));
        self.trace.may_match(rule);
        if rule.path_claims().next().is_some() {
            self.demand(rule, PathDemand::unmet());
        }
    }

    fn demand(&mut self, rule: &'p Rule, demand: PathDemand<'p>) {
        if let Some(selection) = &mut self.selection {
            selection.demand(rule, demand);
        }
    }
}

#[cfg(test)]
#[path = "policy/models.rs"]
mod models;

#[cfg(test)]
#[path = "policy/tests.rs"]
mod tests;
