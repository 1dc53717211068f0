//! The same decision over plain HTTP, for proxies that ask in HTTP: Envoy's `http_service`, nginx's
//! `auth_request`, Traefik's and Caddy's forward auth.

use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;

use crate::config::{Http, Style};
use crate::domain::denial::{Denial, Wording};
use crate::domain::request::Request;
use crate::domain::token::Withheld;
use crate::domain::verdict::{Grant, Verdict};
use crate::live::Live;
use crate::server::overload::Admission;
use crate::wire::denied::{self, Denied};

/// Answers checks over HTTP.
#[derive(Clone)]
pub(crate) struct HttpChecks {
    live: Arc<Live>,
    admission: Arc<Admission>,
    style: Style,
    path_prefix: Arc<str>,
}

impl HttpChecks {
    pub(crate) fn new(live: Arc<Live>, admission: Arc<Admission>, http: &Http) -> Self {
        let Http { listen: _, style, path_prefix } = http;
        Self { live, admission, style: *style, path_prefix: path_prefix.as_str().into() }
    }

    /// Answers one request. Its body, if any, is not looked at.
    pub(crate) fn respond(self, request: Parts) -> impl Future<Output = Response<Full<Bytes>>> + Send {
        // From here on it waits for its turn.
        let ticket = self.admission.begin();
        async move {
            match ticket.in_time() {
                Ok(()) => self.answer(request).await,
                Err(refused) => {
                    tracing::debug!(%refused, "a check was refused");
                    bare(StatusCode::SERVICE_UNAVAILABLE)
                }
            }
        }
    }

    async fn answer(self, request: Parts) -> Response<Full<Bytes>> {
        // One configuration from the first look to the answer.
        let current = self.live.current();
        let authorizer = &current.authorizer;
        let verdict = match self.view(&request) {
            Some(request) => authorizer.decide(&request).await,
            None => authorizer.deny_unread(Denial::RequestMalformed),
        };
        let answer = match verdict {
            Verdict::Allow(grant) => granted(&grant),
            Verdict::Deny(denial) => denied(denial, &authorizer.wording),
        };
        // A value that no header can hold would have to be left out: rather no answer than half of one.
        answer.unwrap_or_else(|| bare(StatusCode::INTERNAL_SERVER_ERROR))
    }

    fn view<'a>(&self, request: &'a Parts) -> Option<Request<'a>> {
        match self.style {
            Style::Envoy => request_itself(request, &self.path_prefix),
            Style::ForwardAuth => described_request(request),
        }
    }
}

/// `style: envoy`: the request itself is the one to authorize.
fn request_itself<'a>(request: &'a Parts, prefix: &str) -> Option<Request<'a>> {
    let Parts { method, uri, headers, .. } = request;
    let host = match (uri.authority(), one(headers, &HOST)?) {
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, host) => host.unwrap_or_default(),
    };
    let path = without(prefix, target(uri))?;
    Some(Request {
        method: method.as_str().as_bytes(),
        host,
        path,
        headers: all(headers),
        ..Request::default()
    })
}

fn target(uri: &Uri) -> &[u8] {
    uri.path_and_query().map_or(&b""[..], |target| target.as_str().as_bytes())
}

/// The path behind the prefix; `None` if it does not stand there as a whole.
fn without<'a>(prefix: &str, path: &'a [u8]) -> Option<&'a [u8]> {
    if prefix.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(prefix.as_bytes())? {
        [] => Some(b"/"),
        rest if rest.starts_with(b"/") => Some(rest),
        _ => None,
    }
}

/// The two families of headers that describe the request: Traefik's and Caddy's, and nginx's.
const FORWARDED: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-method"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-uri"),
];
const ORIGINAL: [HeaderName; 2] =
    [HeaderName::from_static("x-original-method"), HeaderName::from_static("x-original-url")];

/// `style: forward_auth`: headers describe the request. A client may have sent the other family's, and which one
/// the proxy wrote cannot be seen: both together say nothing.
fn described_request(request: &Parts) -> Option<Request<'_>> {
    let headers = &request.headers;
    let any = |family: &[HeaderName]| family.iter().any(|name| headers.contains_key(name));
    let value = |name| one(headers, name).flatten().filter(|value| !value.is_empty());
    let [method, host, uri] = FORWARDED;
    let [original_method, original_url] = ORIGINAL;
    let (method, host, path) = match (any(&FORWARDED), any(&ORIGINAL)) {
        (true, false) => (value(&method)?, value(&host)?, value(&uri)?),
        (false, true) => {
            let (host, path) = split(value(&original_url)?)?;
            (value(&original_method)?, host, path)
        }
        _ => return None,
    };
    Some(Request { method, host, path, headers: all(headers), ..Request::default() })
}

/// Host and target of `scheme://host/path?query`. Cut by hand: a URL parser would resolve the path, and what
/// it resolves is not what the service behind sees.
fn split(url: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = url.strip_prefix(b"http://").or_else(|| url.strip_prefix(b"https://"))?;
    let (host, path) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'/')?)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    (!host.is_empty() && host.iter().all(plain)).then_some((host, path))
}

/// The one value of a header, if it is there; `None` if there are several.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a [u8]>> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = values.next();
    if values.next().is_some() { None } else { Some(first) }
}

fn all(headers: &HeaderMap) -> Vec<(&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect()
}

/// 200 with the identity. An HTTP answer cannot remove a header, so what is to be removed is sent empty.
fn granted(grant: &Grant<'_>) -> Option<Response<Full<Bytes>>> {
    let headers_of = grant.headers();
    // The configuration refuses query sources that are withheld over HTTP.
    let Withheld { headers: tokens, cookie, query: _ } = grant.withheld();
    let mut response = bare(StatusCode::OK);
    let headers = response.headers_mut();
    for (name, value) in &headers_of.set {
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
    }
    for name in headers_of.removed().chain(tokens.iter().map(String::as_str)) {
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_static(""));
    }
    if let Some(rest) = cookie {
        headers.insert(http::header::COOKIE, HeaderValue::from_bytes(rest).ok()?);
    }
    Some(response)
}

fn denied(denial: Denial, wording: &Wording) -> Option<Response<Full<Bytes>>> {
    let Denied { status, headers, body } = denied::denied(denial, wording);
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    for (name, value) in headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?);
    }
    Some(response)
}

fn bare(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn seen<'a>(request: Option<&'a Request<'a>>) -> Option<[&'a str; 3]> {
        let text = |bytes| str::from_utf8(bytes).unwrap();
        request.map(|request| [text(request.method), text(request.host), text(request.path)])
    }

    #[test]
    fn the_request_itself() {
        for (prefix, target, headers, want) in [
            ("", "/a?b=c", &[("host", "h:80")][..], Some(["GET", "h:80", "/a?b=c"])),
            ("", "http://h/a", &[("host", "other")], Some(["GET", "h", "/a"])),
            ("", "/a", &[], Some(["GET", "", "/a"])),
            ("", "/a", &[("host", "h"), ("host", "i")], None),
            ("/check", "/check/a/../b?c", &[], Some(["GET", "", "/a/../b?c"])),
            ("/check", "/check", &[], Some(["GET", "", "/"])),
            ("/check", "/check?a", &[], None),
            ("/check", "/checked", &[], None),
            ("/check", "/a", &[], None),
            ("/check", "//check/a", &[], None),
        ] {
            let parts = parts(target, headers);
            assert_eq!(seen(request_itself(&parts, prefix).as_ref()), want, "{prefix} {target} {headers:?}");
        }
    }

    #[test]
    fn the_request_that_headers_describe() {
        let [m, h, u] = ["x-forwarded-method", "x-forwarded-host", "x-forwarded-uri"];
        let [om, ou] = ["x-original-method", "x-original-url"];
        for (headers, want) in [
            (&[(m, "PUT"), (h, "a.example"), (u, "/x?y")][..], Some(["PUT", "a.example", "/x?y"])),
            (
                &[(om, "PUT"), (ou, "https://a.example:8443/x/../y?z")],
                Some(["PUT", "a.example:8443", "/x/../y?z"]),
            ),
            (&[(om, "GET"), (ou, "http://[::1]:80//x")], Some(["GET", "[::1]:80", "//x"])),
            (&[], None),
            (&[(m, "GET"), (h, "a")], None),
            (&[(m, "GET"), (u, "/x")], None),
            (&[(h, "a"), (u, "/x")], None),
            (&[(m, "GET"), (h, "a"), (u, "")], None),
            (&[(m, "GET"), (h, "a"), (u, "/x"), (u, "/y")], None),
            (&[(m, "GET"), (m, "PUT"), (h, "a"), (u, "/x")], None),
            (&[(om, "GET")], None),
            (&[(ou, "http://a/x")], None),
            (&[(om, "GET"), (ou, "/x")], None),
            (&[(om, "GET"), (ou, "http://a")], None),
            (&[(om, "GET"), (ou, "http://a?/x")], None),
            (&[(om, "GET"), (ou, "http://user@a/x")], None),
            (&[(om, "GET"), (ou, "http:///x")], None),
            (&[(om, "GET"), (ou, "ftp://a/x")], None),
            (&[(om, "GET"), (ou, "http://a/x"), (ou, "http://a/y")], None),
            // A client's own header of the other family.
            (&[(m, "GET"), (h, "a"), (u, "/x"), (ou, "http://a/public")], None),
            (&[(om, "GET"), (ou, "http://a/x"), (u, "/public")], None),
            (&[(om, "GET"), (ou, "http://a/x"), (h, "b")], None),
        ] {
            let parts = parts("/auth", headers);
            assert_eq!(seen(described_request(&parts).as_ref()), want, "{headers:?}");
        }
    }
}
