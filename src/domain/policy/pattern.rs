//! What rules match: patterns of hosts and of paths. A path's reading is matched against the pattern read in the same way, so
//! that an escape in a pattern means the character that it stands for.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use crate::domain::claim::Claim;
use crate::domain::readings::{MAX_LEVEL, Readings, escaped_text, has_structure, levels};

/// A host, or all hosts below one, with the ports that it is met by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPattern {
    name: HostName,
    port: HostPort,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostName {
    /// In small letters.
    Exact(String),
    /// Any depth below this host; begins with a dot.
    Below(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPort {
    /// None is written: no port, 80 and 443.
    Standard,
    Number(u16),
    /// `:*`
    Any,
}

impl HostPattern {
    /// Reads `api.example.com`, `*.example.org`, `api.example.com:8443` or `api.example.com:*`.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (name, port) = match text.rsplit_once(':') {
            // Not the last group of an IPv6 address.
            Some((name, port)) if !port.contains(']') => (name, Self::port(port)?),
            _ => (text.as_str(), HostPort::Standard),
        };
        let (host, is_below) = name.strip_prefix("*.").map_or((name, false), |host| (host, true));
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let legal =
            |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || (bracketed && "[]:".contains(c));
        if host.is_empty() || !host.chars().all(legal) || host.ends_with('.') || host.starts_with('.') {
            return None;
        }
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            // In the one form of RFC 5952, as the request's.
            Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
            None => host.to_owned(),
        };
        let name = if is_below { HostName::Below(format!(".{host}")) } else { HostName::Exact(host) };
        Some(Self { name, port })
    }

    fn port(text: &str) -> Option<HostPort> {
        match text {
            "*" => Some(HostPort::Any),
            // Without zeros in front: as a client writes it.
            digits => {
                digits.parse().ok().filter(|port: &u16| port.to_string() == digits).map(HostPort::Number)
            }
        }
    }

    pub(super) const fn name(&self) -> &HostName {
        &self.name
    }

    pub(super) const fn names_a_port(&self) -> bool {
        !matches!(self.port, HostPort::Standard)
    }

    /// Whether a host with this port meets the pattern. A rule that restricts must not be escaped by another port, or by
    /// another spelling of the same one.
    pub(super) fn matches(&self, host: &str, port: Option<&str>, any_port_restricts: bool) -> bool {
        let named = match &self.name {
            HostName::Exact(own) => host == own,
            HostName::Below(own) => host.len() > own.len() && host.ends_with(own.as_str()),
        };
        named
            && match &self.port {
                HostPort::Any => true,
                HostPort::Standard => matches!(port, None | Some("80" | "443")) || any_port_restricts,
                HostPort::Number(own) if any_port_restricts => match port {
                    None => matches!(own, 80 | 443),
                    Some(port) => port.parse() == Ok(*own),
                },
                HostPort::Number(own) => port.is_some_and(|port| port == own.to_string()),
            }
    }

    /// Whether each host and port that meets the other pattern meets this one; the flags are those of `matches`, for each of
    /// the two. Ports with zeros in front are left out of account, and with `usual_ports` all but 80 and 443, unless the other
    /// pattern names one.
    pub(super) fn covers(
        &self,
        any_port_restricts: bool,
        other: &Self,
        others_any_port_restricts: bool,
        usual_ports: bool,
    ) -> bool {
        // No exact pattern holds an asterisk, so this stands for all hosts below.
        let host = match &other.name {
            HostName::Exact(host) => host.clone(),
            HostName::Below(host) => format!("*{host}"),
        };
        let number = |pattern: &Self| match pattern.port {
            HostPort::Number(number) => Some(number.to_string()),
            HostPort::Standard | HostPort::Any => None,
        };
        let (own, others) = (number(self), number(other));
        let odd_ports = [own.as_deref(), others.as_deref(), Some("any other")];
        let odd_ports = odd_ports.into_iter().filter(|_| !usual_ports || other.names_a_port());
        [None, Some("80"), Some("443")].into_iter().chain(odd_ports).all(|port| {
            !other.matches(&host, port, others_any_port_restricts)
                || self.matches(&host, port, any_port_restricts)
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            HostName::Exact(host) => f.write_str(host)?,
            HostName::Below(host) => write!(f, "*{host}")?,
        }
        match &self.port {
            HostPort::Standard => Ok(()),
            HostPort::Number(port) => write!(f, ":{port}"),
            HostPort::Any => f.write_str(":*"),
        }
    }
}

/// Which differences between paths an upstream may ignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ignored {
    pub(crate) case: bool,
    pub(crate) trailing_slash: bool,
}

impl Ignored {
    /// How many ways there are to ignore some of it.
    pub(super) const WAYS: usize = 4;

    pub(super) const NOTHING: Self = Self { case: false, trailing_slash: false };

    /// Its place among all ways.
    pub(super) const fn index(self) -> usize {
        self.case as usize + 2 * self.trailing_slash as usize
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..Self::WAYS).map(|way| Self { case: way & 1 != 0, trailing_slash: way & 2 != 0 })
    }

    /// The path that is left: in small letters, and without a slash at its end.
    pub(super) fn fold(self, path: &[u8]) -> Cow<'_, [u8]> {
        let path = match path {
            [kept @ .., b'/'] if self.trailing_slash && !kept.is_empty() => kept,
            path => path,
        };
        if !self.case || !has_case(path) {
            return Cow::Borrowed(path);
        }
        Cow::Owned(match str::from_utf8(path) {
            Ok(text) if !text.is_ascii() => text.chars().flat_map(small).collect::<String>().into_bytes(),
            _ => path.to_ascii_lowercase(),
        })
    }
}

/// Whether a path may change in small letters.
pub(super) fn has_case(path: &[u8]) -> bool {
    path.iter().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii())
}

/// A character as what compares it without case takes it for: the small letter of its capital, so that all letters with one
/// capital are alike (the dotless i, the long s, both sigmas), and the dotted capital I, which some tables make one letter.
fn small(c: char) -> impl Iterator<Item = char> {
    let c = if c == '\u{130}' { 'i' } else { c };
    c.to_uppercase().flat_map(char::to_lowercase)
}

/// A segment of a pattern that stands for any one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wild {
    /// `*`
    Any,
    /// `{claim}`: the segment must be what this claim of the token is.
    Claim(Claim),
}

/// Stands for a wild segment in a pattern's texts. No path holds it: a control character makes a target no path.
const WILD: &[u8] = b"\x01";

/// A path, or a path and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathPattern {
    text: String,
    is_prefix: bool,
    /// In their order.
    wild: Vec<Wild>,
    /// What the text stands for where escapes were decoded so often, for each way to ignore something.
    texts: Vec<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Text {
    /// `None` stands for all of them.
    level: Option<usize>,
    folded: [Box<[u8]>; Ignored::WAYS],
}

impl Text {
    fn new(level: Option<usize>, text: &[u8]) -> Self {
        let mut ways = Ignored::all();
        Self {
            level,
            folded: std::array::from_fn(|_| ways.next().unwrap_or(Ignored::NOTHING).fold(text).into()),
        }
    }

    fn under(&self, ignored: Ignored) -> Option<&[u8]> {
        self.folded.get(ignored.index()).map(|text| &**text)
    }
}

impl PathPattern {
    /// Reads an exact path, or a path that ends in `/*` and stands for itself and all below (as a `PathPrefix` of the Gateway
    /// API). In between, a segment may be `*`, for any one segment, or `{claim}`. Only plain forms: a path with dot segments or
    /// repeated slashes, however they are written, could not be meant.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let text = escaped_text(text)?;
        let (written, is_prefix) =
            text.strip_suffix("/*").map_or((text.as_str(), false), |path| (path, true));
        let segments: Vec<_> = written.split('/').map(|segment| (segment, wild(segment))).collect();
        let is_server = written == "*";
        let with = |stand_in: &'static str| {
            let texts: Vec<_> = segments
                .iter()
                .map(|(segment, wild)| if wild.is_some() && !is_server { stand_in } else { *segment })
                .collect();
            texts.join("/")
        };
        // A letter stands in for a wild segment where the pattern is judged as a path.
        let path = with("x");
        let is_odd = !is_server && path.contains('*');
        if is_odd || path.contains(['?', '\\']) || (is_prefix && (is_server || path.ends_with('/'))) {
            return None;
        }
        let marked = with("\u{1}");
        // The prefix `/*` alone leaves nothing before its slash.
        let whole = if is_prefix && path.is_empty() { "/" } else { &path };
        let texts = match Readings::of(whole.as_bytes()).ok()? {
            Readings::One(_) => vec![Text::new(None, marked.as_bytes())],
            Readings::TooMany => return None,
            Readings::Several(all) => {
                let levels = levels(marked.as_bytes());
                let is_plain =
                    !has_plain_escape(&path) && !all.iter().any(|reading| has_structure(&reading.path));
                let levels = levels.iter().enumerate().filter(|_| is_plain);
                let texts = levels
                    .flat_map(|(level, texts)| texts.iter().map(move |text| Text::new(Some(level), text)));
                texts.collect()
            }
        };
        let wild = segments.into_iter().filter_map(|(_, wild)| wild.filter(|_| !is_server)).collect();
        (!texts.is_empty()).then(|| Self { text: written.to_owned(), is_prefix, wild, texts })
    }

    /// The claims that segments are compared with.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.wild.iter().filter_map(|wild| match wild {
            Wild::Any => None,
            Wild::Claim(claim) => Some(claim),
        })
    }

    /// Whether decoding makes a difference to the pattern's own text.
    pub(super) fn has_levels(&self) -> bool {
        self.texts.iter().any(|text| text.level.is_some())
    }

    /// All texts that it may stand for while this is ignored.
    pub(super) fn texts(&self, ignored: Ignored) -> Vec<&[u8]> {
        self.texts.iter().filter_map(|text| text.under(ignored)).collect()
    }

    /// What each path that meets the pattern begins with or is, and whether more may follow after a slash.
    pub(super) fn keys(&self, ignored: Ignored) -> impl Iterator<Item = (&[u8], bool)> {
        self.texts(ignored).into_iter().map(|text| match memchr::memmem::find(text, b"/\x01") {
            Some(first) => (text.get(..first).unwrap_or_default(), true),
            None => (text, self.is_prefix),
        })
    }

    /// Whether a path meets the pattern, folded in this way. A pattern that opens a path must have been decoded as often as the
    /// path was; a rule that restricts is met by any spelling of what it means.
    pub(super) fn matches(&self, path: &[u8], level: usize, ignored: Ignored, restricts: bool) -> bool {
        if !self.wild.is_empty() {
            return self.captures(path, level, ignored, restricts).next().is_some();
        }
        let meets = |own: &[u8]| match path.strip_prefix(own) {
            Some([]) => !self.is_prefix || !own.is_empty(),
            Some([b'/', ..]) => self.is_prefix,
            _ => false,
        };
        self.texts_at(level, ignored, restricts).any(meets)
    }

    fn texts_at(&self, level: usize, ignored: Ignored, restricts: bool) -> impl Iterator<Item = &[u8]> {
        let counts = move |text: &&Text| restricts || text.level.is_none_or(|own| own == level);
        self.texts.iter().filter(counts).filter_map(move |text| text.under(ignored))
    }

    /// The segments of a path that stand where the pattern has claims, once for each text of the pattern that the path meets.
    pub(super) fn captures<'p, 'r>(
        &'p self,
        path: &'r [u8],
        level: usize,
        ignored: Ignored,
        restricts: bool,
    ) -> impl Iterator<Item = Vec<(&'p Claim, &'r [u8])>> + use<'p, 'r> {
        let texts: Vec<_> = self.texts_at(level, ignored, restricts).collect();
        texts.into_iter().filter_map(move |own| {
            let (mut own, mut found) = (own.split(|byte| *byte == b'/'), path.split(|byte| *byte == b'/'));
            let mut wild = self.wild.iter();
            let mut captured = Vec::new();
            for wanted in own.by_ref() {
                let segment = found.next()?;
                if wanted != WILD {
                    (wanted == segment).then_some(())?;
                } else if let Wild::Claim(claim) = wild.next()? {
                    captured.push((claim, segment));
                }
            }
            (self.is_prefix || found.next().is_none()).then_some(captured)
        })
    }

    /// Whether it is `/*`: each path, but not the `*` of `OPTIONS *`.
    pub(super) const fn is_root(&self) -> bool {
        self.is_prefix && self.text.is_empty()
    }

    /// Whether each path that meets the other pattern meets this one, however often it was decoded, and however much of what
    /// may be ignored is.
    pub(super) fn covers(&self, other: &Self, ignored: Ignored) -> bool {
        let is_way =
            |way: &Ignored| (ignored.case || !way.case) && (ignored.trailing_slash || !way.trailing_slash);
        let covers = |text: &Text, way: Ignored| {
            let own = text.under(way).unwrap_or_default();
            // The prefix `/*`.
            let own = if own.is_empty() { b"/" } else { own };
            let mut levels = text.level.map_or(0..=MAX_LEVEL, |level| level..=level);
            levels.all(|level| self.matches(own, level, way, false))
        };
        (self.is_prefix || !other.is_prefix)
            && other.texts.iter().all(|text| Ignored::all().filter(is_way).all(|way| covers(text, way)))
    }
}

/// What a segment of a pattern stands for, if not for its own text.
fn wild(segment: &str) -> Option<Wild> {
    if segment == "*" {
        return Some(Wild::Any);
    }
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    // A segment holds no slash, so the claim is a top-level name.
    if name.contains(['{', '}']) { None } else { Claim::new(name).map(Wild::Claim) }
}

/// Whether a text has an escape of an unreserved character, or one in small letters: it is not in plain form.
fn has_plain_escape(text: &str) -> bool {
    text.match_indices('%').any(|(at, _)| {
        let digits = text.get(at + 1..at + 3).unwrap_or_default();
        let byte = u8::from_str_radix(digits, 16).map(char::from);
        let is_small = digits.bytes().any(|digit| digit.is_ascii_lowercase());
        is_small || byte.is_ok_and(|byte| byte.is_ascii_alphanumeric() || "-._~".contains(byte))
    })
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.is_prefix { "/*" } else { "" };
        write!(f, "{}{below}", self.text)
    }
}
