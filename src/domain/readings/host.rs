//! The readings of an authority: the host as sent, and without the dot that ends an absolute domain name.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// An authority without user information: `name`, `name:port`, `[v6]` or `[v6]:port` (RFC 3986 section 3.2), with a port of one
/// to five digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    /// In small letters; an IPv6 address with its brackets.
    name: Cow<'a, str>,
    port: Option<&'a str>,
}

impl<'a> Authority<'a> {
    /// Reads an authority; `None` for any other form.
    pub(crate) fn parse(host: &'a [u8]) -> Option<Self> {
        let host = str::from_utf8(host).ok()?;
        let (name, rest) = match host.strip_prefix('[') {
            Some(address) => {
                let (address, _) = address.split_once(']')?;
                let written = address.len() + 2;
                let address: Ipv6Addr = address.parse().ok()?;
                let port = port(host.get(written..)?)?;
                // In the one form of RFC 5952.
                return Some(Self { name: Cow::Owned(format!("[{address}]")), port });
            }
            None => {
                let (name, rest) = host.split_at_checked(host.find(':').unwrap_or(host.len()))?;
                let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                if name.is_empty() || !name.bytes().all(legal) {
                    return None;
                }
                (name, rest)
            }
        };
        let port = port(rest)?;
        let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        let name = if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) };
        Some(Self { name, port })
    }

    /// The names that servers may take it for: as sent, and without one trailing dot (RFC 1034 section 3.1).
    fn names(&self) -> impl Iterator<Item = &str> {
        let relative = self.name.strip_suffix('.').filter(|name| !name.is_empty());
        std::iter::once(self.name.as_ref()).chain(relative)
    }

    /// The ports that servers may take it for: as sent, and without zeros in front of it, since servers compare numbers.
    fn ports(&self) -> impl Iterator<Item = Option<&'a str>> {
        let number = self.port.map(|port| port.trim_start_matches('0'));
        let number = number.filter(|number| !number.is_empty() && Some(*number) != self.port);
        std::iter::once(self.port).chain(number.map(Some))
    }

    /// Each name with each port.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&str, Option<&'a str>)> {
        self.names().flat_map(|name| self.ports().map(move |port| (name, port)))
    }
}

/// The port behind a name, if there is one; `None` for anything else.
fn port(rest: &str) -> Option<Option<&str>> {
    let Some(port) = rest.strip_prefix(':') else { return rest.is_empty().then_some(None) };
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    is_port.then_some(Some(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_and_what_is_none() {
        for (text, want) in [
            ("api.example.com", Some((&["api.example.com"][..], None))),
            ("API.Example.com:8443", Some((&["api.example.com"], Some("8443")))),
            ("api.example.com.", Some((&["api.example.com.", "api.example.com"], None))),
            ("a.:1", Some((&["a.", "a"], Some("1")))),
            ("a..", Some((&["a..", "a."], None))),
            (".", Some((&["."], None))),
            ("[::1]", Some((&["[::1]"], None))),
            ("[0:0:0:0:0:0:0:1]:80", Some((&["[::1]"], Some("80")))),
            ("[2001:DB8::1]:443", Some((&["[2001:db8::1]"], Some("443")))),
            ("127.0.0.1:00080", Some((&["127.0.0.1"], Some("00080")))),
            ("x_y~z", Some((&["x_y~z"], None))),
            ("", None),
            (":80", None),
            ("a:", None),
            ("a:x", None),
            ("a:80x", None),
            ("a:80:80", None),
            ("a:+80", None),
            ("a:-1", None),
            ("a: 80", None),
            ("a:123456", None),
            ("[::1", None),
            ("[::1]80", None),
            ("[::1]:", None),
            ("[]", None),
            ("[1.2.3.4]", None),
            ("::1", None),
            ("user@a", None),
            ("a b", None),
            ("a/b", None),
            ("a,b", None),
            ("a%2eb", None),
            ("é.example", None),
        ] {
            let authority = Authority::parse(text.as_bytes());
            let read =
                authority.as_ref().map(|authority| (authority.names().collect::<Vec<_>>(), authority.port));
            assert_eq!(read, want.map(|(names, port)| (names.to_vec(), port)), "{text}");
        }
        assert_eq!(Authority::parse(b"a\xff"), None);
    }
}
