//! A request as a person writes it on the command line, with the token where the configuration looks for it.

use crate::domain::request::Request;
use crate::domain::token::{TokenPlace, TokenSource};

/// What `--request` holds: `GET https://host/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    method: String,
    /// Empty unless it is written.
    host: String,
    /// With the query.
    path: String,
}

impl Target {
    /// Reads a method and a URL, or a path alone. Nothing of it is normalized: what a client sends is judged, `/a/../b` too.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const ACCEPTED: &str =
            "accepted: a method and a URL or a path, such as 'GET https://shop.example.com/orders/1'";
        let (method, target) = text.split_once(' ').ok_or(ACCEPTED)?;
        let (method, target) = (method.to_owned(), target.trim_start());
        if target.starts_with('/') {
            return Ok(Self { method, host: String::new(), path: target.to_owned() });
        }
        let (_, rest) = target.split_once("://").ok_or(ACCEPTED)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        // RFC 9112 section 3.2.1: an empty path is sent as a slash.
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if host.is_empty() || method.is_empty() {
            return Err(ACCEPTED);
        }
        Ok(Self { method, host: host.to_owned(), path })
    }
}

/// What `--header` holds.
pub(super) fn header(text: &str) -> Result<(String, String), &'static str> {
    let named = text.split_once(':').filter(|(name, _)| !name.trim().is_empty());
    let (name, value) = named.ok_or("accepted: a name and a value, such as 'cookie: a=b'")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// A request to judge.
#[derive(Clone)]
pub(super) struct OwnedRequest {
    target: Target,
    headers: Vec<(String, String)>,
}

impl OwnedRequest {
    pub(super) const fn new(target: Target, headers: Vec<(String, String)>) -> Self {
        Self { target, headers }
    }

    /// The same request with a token in the first place where one is looked for.
    pub(super) fn carrying(mut self, token: &str, sources: &[TokenSource]) -> Self {
        let mut header = |name: &str, value: String| self.headers.push((name.to_owned(), value));
        match sources.first().map(|source| &source.place) {
            Some(TokenPlace::Credentials { header: name, scheme }) => {
                header(name, format!("{scheme} {token}"))
            }
            Some(TokenPlace::Header(name)) => header(name, token.to_owned()),
            Some(TokenPlace::Cookie(name) | TokenPlace::Chunks(name)) => {
                header("cookie", format!("{name}={token}"));
            }
            Some(TokenPlace::Query(name)) => {
                let path = &mut self.target.path;
                let mark = if path.contains('?') { '&' } else { '?' };
                path.push_str(&format!("{mark}{name}={token}"));
            }
            None => {}
        }
        self
    }

    /// As Envoy's check over gRPC has it.
    pub(super) fn view(&self) -> Request<'_> {
        let Self { target: Target { method, host, path }, headers } = self;
        let of_header = headers.iter().find(|(name, _)| name == "host" || name == ":authority");
        let host = if host.is_empty() { of_header.map_or("", |(_, host)| host) } else { host };
        Request {
            method: method.as_bytes(),
            host: host.as_bytes(),
            path: path.as_bytes(),
            headers: headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect(),
            ..Request::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_sent() {
        for (text, want) in [
            ("GET https://a.example/b", Ok(("GET", "a.example", "/b"))),
            ("POST http://a.example:8080", Ok(("POST", "a.example:8080", "/"))),
            ("GET https://a.example?x=1", Ok(("GET", "a.example", "/?x=1"))),
            ("GET https://A.example/a/../%2e%2e//b?c#d", Ok(("GET", "A.example", "/a/../%2e%2e//b?c#d"))),
            ("get  /x y", Ok(("get", "", "/x y"))),
            ("/x", Err(())),
            ("GET", Err(())),
            ("GET x", Err(())),
            ("GET https:///x", Err(())),
            (" https://a.example/", Err(())),
            ("", Err(())),
        ] {
            let target = Target::parse(text);
            let read = target
                .as_ref()
                .map(|target| (target.method.as_str(), target.host.as_str(), target.path.as_str()));
            assert_eq!(read.map_err(|_| ()), want, "{text}");
        }
        assert_eq!(header("Cookie:  a=b; c=d:e "), Ok(("cookie".to_owned(), "a=b; c=d:e".to_owned())));
        assert!(header("cookie").is_err() && header(" : x").is_err());
    }

    #[test]
    fn the_token_is_put_where_it_is_looked_for() {
        let request = OwnedRequest::new(Target::parse("GET /x?a=b").unwrap(), vec![]);
        let place = |place: TokenPlace| {
            let request = request.clone().carrying("T", &[place.into()]);
            let headers: Vec<_> =
                request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            format!("{} {}", request.target.path, headers.join(", "))
        };
        let bearer = request.clone().carrying("T", &[TokenSource::bearer()]);
        assert_eq!(bearer.headers, [("authorization".to_owned(), "Bearer T".to_owned())]);
        assert_eq!(place(TokenPlace::Header("x-t".to_owned())), "/x?a=b x-t: T");
        assert_eq!(place(TokenPlace::Cookie("c".to_owned())), "/x?a=b cookie: c=T");
        assert_eq!(place(TokenPlace::Query("t".to_owned())), "/x?a=b&t=T ");
    }
}
