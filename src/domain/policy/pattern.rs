//! What rules match: patterns of hosts and of paths. A path's reading is matched against the pattern read in the same way, so
//! that an escape in a pattern means the character that it stands for.

use std::borrow::Cow;
use std::fmt;

use crate::domain::readings::{Mode, Readings, escaped_text, has_structure};

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
        let name =
            if is_below { HostName::Below(format!(".{host}")) } else { HostName::Exact(host.to_owned()) };
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
        if self.case && path.iter().any(u8::is_ascii_uppercase) {
            Cow::Owned(path.to_ascii_lowercase())
        } else {
            Cow::Borrowed(path)
        }
    }
}

/// A path, or a path and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathPattern {
    text: String,
    is_prefix: bool,
    texts: Texts,
}

/// What the pattern's text is in each mode, for each way to ignore something.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Texts {
    SameInAllModes(Folded),
    /// In the order of [`Mode::all`].
    ByMode(Vec<Folded>),
}

type Folded = [Box<[u8]>; Ignored::WAYS];

fn folded(text: &[u8]) -> Folded {
    std::array::from_fn(|way| {
        let ignored = Ignored { case: way & 1 != 0, trailing_slash: way & 2 != 0 };
        ignored.fold(text).into()
    })
}

impl PathPattern {
    /// Reads an exact path, or a path that ends in `/*` and stands for itself and all below (as a `PathPrefix` of the Gateway
    /// API). Only plain forms: what any server reads in another way, but for escapes and parameters, could not be meant.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let text = escaped_text(text)?;
        let (path, is_prefix) = text.strip_suffix("/*").map_or((text.as_str(), false), |path| (path, true));
        let has_wildcard = path != "*" && path.contains('*');
        if has_wildcard || path.contains(['?', '\\']) || (path == "*" && is_prefix) {
            return None;
        }
        // The prefix `/*` alone leaves nothing before its slash.
        let whole = if is_prefix && path.is_empty() { "/" } else { path };
        let texts = match Readings::of(whole.as_bytes()).ok()? {
            Readings::One(_) => Texts::SameInAllModes(folded(path.as_bytes())),
            Readings::TooMany => return None,
            Readings::Several(_) => {
                let read = |mode: Mode| mode.read(path.as_bytes());
                if read(Mode::PLAIN) != path.as_bytes() {
                    return None;
                }
                let read: Vec<_> = Mode::all().map(read).collect();
                if read.iter().any(|read| has_structure(read)) {
                    return None;
                }
                Texts::ByMode(read.iter().map(|read| folded(read)).collect())
            }
        };
        Some(Self { text: path.to_owned(), is_prefix, texts })
    }

    pub(super) const fn is_prefix(&self) -> bool {
        self.is_prefix
    }

    /// All texts that it may stand for while this is ignored.
    pub(super) fn texts(&self, ignored: Ignored) -> Vec<&[u8]> {
        match &self.texts {
            Texts::SameInAllModes(folded) => {
                folded.get(ignored.index()).map(|text| &**text).into_iter().collect()
            }
            Texts::ByMode(modes) => {
                modes.iter().filter_map(|folded| folded.get(ignored.index())).map(|text| &**text).collect()
            }
        }
    }

    fn text(&self, mode: Mode, ignored: Ignored) -> Option<&[u8]> {
        let folded = match &self.texts {
            Texts::SameInAllModes(folded) => folded,
            Texts::ByMode(modes) => modes.get(mode.index())?,
        };
        folded.get(ignored.index()).map(|text| &**text)
    }

    /// Whether a path that was read in this mode and folded in this way meets the pattern.
    pub(super) fn matches(&self, path: &[u8], mode: Mode, ignored: Ignored) -> bool {
        let Some(own) = self.text(mode, ignored) else { return false };
        match path.strip_prefix(own) {
            Some([]) => !self.is_prefix || !own.is_empty(),
            Some([b'/', ..]) => self.is_prefix,
            _ => false,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.is_prefix { "/*" } else { "" };
        write!(f, "{}{below}", self.text)
    }
}
