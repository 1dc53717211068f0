//! Checks over plain HTTP: Envoy's `http_service`, nginx's `auth_request`, Traefik's and Caddy's forward auth.

use std::sync::{Arc, Once};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode, Uri, Version};
use http_body_util::Full;
use hyper::body::Bytes;

use crate::api::proxy_secret::WatchedSecret;
use crate::config::{ClientIdentity, Http, Style};
use crate::domain::denial::{Denial, Wording};
use crate::domain::identity::Identity;
use crate::domain::request::Request;
use crate::domain::token::Withheld;
use crate::domain::verdict::{Grant, Verdict};
use crate::live::Live;
use crate::server::fragments::MayBeCut;
use crate::server::overload::{Admission, Deadline};
use crate::wire::denied::{self, Denied};

/// Answers checks over HTTP.
#[derive(Clone)]
pub(crate) struct HttpChecks {
    live: Arc<Live>,
    admission: Arc<Admission>,
    settings: Arc<Settings>,
}

struct Settings {
    style: Style,
    path_prefix: String,
    client_identity: ClientIdentity,
    proxy_secret: Option<Arc<WatchedSecret>>,
}

/// What the proxy proves itself with, if `http.proxy_secret_file` is set.
const PROXY_SECRET: HeaderName = HeaderName::from_static("x-passage-authz-proxy-secret");

/// Names the headers that the proxy removes from the request, separated by commas. Envoy obeys it (`http_service` of ext_authz);
/// other proxies can be configured to, and cannot tell a header that is sent empty from one that is not sent (nginx's
/// `$upstream_http_...`).
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// The body of a denial once more, for a proxy that keeps no body of a check's answer (nginx's `auth_request`). Envoy hands on
/// the body, and would hand on this too.
const DENIAL: HeaderName = HeaderName::from_static("x-passage-authz-denial");

impl HttpChecks {
    pub(crate) fn new(
        live: Arc<Live>,
        admission: Arc<Admission>,
        http: &Http,
        proxy_secret: Option<Arc<WatchedSecret>>,
    ) -> Self {
        // The file was read into `proxy_secret`.
        let Http { listen: _, style, path_prefix, client_identity, proxy_secret_file: _ } = http;
        let (style, client_identity, path_prefix) = (*style, *client_identity, path_prefix.clone());
        let settings = Settings { style, path_prefix, client_identity, proxy_secret };
        Self { live, admission, settings: Arc::new(settings) }
    }

    /// Answers one request. Its body, if any, is not read.
    pub(crate) fn respond(self, request: Parts) -> impl Future<Output = Response<Full<Bytes>>> + Send {
        // No body is read, so the check is whole now; its wait for its turn is measured from here.
        let (ticket, deadline) = (self.admission.begin(), Deadline::of_call(None));
        async move {
            match ticket.in_time(deadline) {
                Ok(()) => self.answer(request).await,
                Err(refused) => {
                    tracing::debug!(%refused, "a check was refused");
                    empty_response(StatusCode::SERVICE_UNAVAILABLE)
                }
            }
        }
    }

    async fn answer(self, mut request: Parts) -> Response<Full<Bytes>> {
        // One configuration for the whole check.
        let current = self.live.current();
        let authorizer = &current.authorizer;
        let settings = &self.settings;
        let envoy = settings.style == Style::Envoy;
        let may_be_cut = envoy && request.extensions.get::<MayBeCut>().is_some();
        let marked_path = envoy.then(|| marked_path(&request, &settings.path_prefix)).flatten();
        let verdict = match settings.view(&mut request, marked_path.as_deref()) {
            // A parameter of the query may be behind the fragment.
            Some(request)
                if (may_be_cut && authorizer.looks_at_queries())
                    || settings.refuses_identity_of(&request, &authorizer.identity) =>
            {
                authorizer.deny_unjudged(Denial::RequestMalformed, &request)
            }
            Some(request) => authorizer.decide(&request).await,
            None => authorizer.deny_unreadable(Denial::RequestMalformed),
        };
        let response = match verdict {
            Verdict::Allow(grant) => settings.allow_response(&grant),
            Verdict::Deny(denial) => deny_response(denial, &current.wording, settings.style),
        };
        // A value that is illegal in a header: without its header the response would be an allow with half an identity.
        response.unwrap_or_else(|| empty_response(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

impl Settings {
    /// The request to authorize; `None` if the proxy's secret is wrong or the request is not described.
    fn view<'a>(&self, request: &'a mut Parts, marked_path: Option<&'a [u8]>) -> Option<Request<'a>> {
        if let Some(secret) = &self.proxy_secret {
            let sent = single_value(&request.headers, &PROXY_SECRET).flatten();
            if !sent.is_some_and(|sent| secret.matches(sent)) {
                tracing::debug!("a check without the proxy's secret");
                return None;
            }
            // Nothing after this sees the secret.
            request.headers.remove(PROXY_SECRET);
        }
        match self.style {
            Style::Envoy => {
                let request = request_itself(request, &self.path_prefix)?;
                Some(Request { path: marked_path.unwrap_or(request.path), ..request })
            }
            Style::ForwardAuth => described_request(request),
        }
    }

    /// Whether the request carries an identity header that the proxy might forward: proxies that ask in the style
    /// `forward_auth` do not remove a header that the answer names, and some (Caddy 2.10) ignore one that it has empty.
    fn refuses_identity_of(&self, request: &Request<'_>, identity: &Identity) -> bool {
        let forged = || {
            let mut headers = request.headers.iter();
            headers.any(|(name, value)| identity.is_spelling(name) && !value.trim_ascii().is_empty())
        };
        match (self.style, self.client_identity) {
            (Style::ForwardAuth, ClientIdentity::Refuse) => forged(),
            (Style::ForwardAuth, ClientIdentity::Overwritten) | (Style::Envoy, _) => false,
        }
    }

    /// 200 with the identity, and with what must not reach the upstream.
    fn allow_response(&self, grant: &Grant<'_>) -> Option<Response<Full<Bytes>>> {
        // The configuration refuses a query source that is withheld if there is an HTTP port, and a check denies a token in the
        // query that is not the one it judged.
        let Withheld { headers: tokens, cookie, query: _ } = grant.withheld();
        let mut response = empty_response(StatusCode::OK);
        let headers = response.headers_mut();
        for (name, value) in grant.identity().set() {
            headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
        }
        if let Some(rest) = cookie {
            headers.insert(http::header::COOKIE, HeaderValue::from_bytes(rest).ok()?);
        }
        let secret = self.proxy_secret.as_ref().map(|_| PROXY_SECRET);
        let tokens = tokens.iter().map(String::as_str);
        let removed: Vec<_> =
            grant.identity().removed().chain(tokens).chain(secret.as_ref().map(HeaderName::as_str)).collect();
        if !removed.is_empty() {
            headers.insert(TO_REMOVE, HeaderValue::try_from(removed.join(",")).ok()?);
        }
        match self.style {
            Style::Envoy => {}
            // A proxy that copies the header from the answer overwrites the client's; one that takes an empty header for none
            // can be configured to obey the list.
            Style::ForwardAuth => {
                for name in removed {
                    headers
                        .insert(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_static(""));
                }
            }
        }
        Some(response)
    }
}

/// `style: envoy`: the request is a copy of the one to authorize.
fn request_itself<'a>(request: &'a Parts, prefix: &str) -> Option<Request<'a>> {
    let Parts { method, uri, headers, .. } = request;
    let host = match (uri.authority(), single_value(headers, &HOST)?) {
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, host) => host.unwrap_or_default(),
    };
    let path = strip_path_prefix(prefix, target(uri))?;
    Some(Request {
        method: method.as_str().as_bytes(),
        host,
        path,
        headers: borrow_all(headers),
        query_stays: true,
        ..Request::default()
    })
}

/// The path of a target that may have been cut at a `#`, with a `#` at its end: rules with paths then answer that it is no path,
/// as they do over gRPC, where the target is seen whole. A target with a query is judged as it is: only the query may have
/// been cut.
fn marked_path(request: &Parts, prefix: &str) -> Option<Vec<u8>> {
    request.extensions.get::<MayBeCut>()?;
    let path = strip_path_prefix(prefix, target(&request.uri))?;
    if path.contains(&b'?') {
        return None;
    }
    if request.version >= Version::HTTP_2 {
        static FIRST: Once = Once::new();
        FIRST.call_once(|| {
            tracing::warn!(
                "checks come over HTTP/2, where a path may be cut at a # before it can be seen: rules with paths answer \
                 400; let the proxy use HTTP/1.1 to http.listen, or gRPC"
            );
        });
    }
    Some([path, b"#"].concat())
}

fn target(uri: &Uri) -> &[u8] {
    uri.path_and_query().map_or(&b""[..], |target| target.as_str().as_bytes())
}

/// The path after the prefix, which ends at a slash or at the path's end.
fn strip_path_prefix<'a>(prefix: &str, path: &'a [u8]) -> Option<&'a [u8]> {
    if prefix.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(prefix.as_bytes())? {
        [] => Some(b"/"),
        rest if rest.starts_with(b"/") => Some(rest),
        _ => None,
    }
}

/// The families of headers that describe a request: Traefik's and Caddy's, nginx's `X-Original-URL`, and `X-Original-URI`, which
/// has no host.
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");

/// `style: forward_auth`: headers describe the request to authorize. Which family the proxy wrote cannot be seen, and
/// the others may be a client's: with values of several the request is malformed. An empty header counts as absent: by it
/// nginx and Traefik clear what a client sent.
fn described_request(request: &Parts) -> Option<Request<'_>> {
    let headers = &request.headers;
    // `None` if there are several values.
    let value = |name| single_value(headers, &name).map(|value| value.filter(|value| !value.is_empty()));
    let forwarded = [value(FORWARDED_METHOD)?, value(FORWARDED_HOST)?, value(FORWARDED_URI)?];
    let [method, url, uri] = [value(ORIGINAL_METHOD)?, value(ORIGINAL_URL)?, value(ORIGINAL_URI)?];
    let (method, host, path) = match (forwarded, url, uri) {
        ([None, None, None], Some(url), None) => {
            let (host, path) = split_url(url)?;
            (method, host, path)
        }
        // The host of this request is the proxy's or the client's. Rules that look at hosts answer 400 to an empty one.
        ([None, None, None], None, Some(uri)) => (method, &b""[..], uri),
        ([forwarded_method, Some(host), Some(uri)], None, None) if method.is_none() => {
            (forwarded_method, host, uri)
        }
        _ => return None,
    };
    if method.is_none() {
        static FIRST: Once = Once::new();
        FIRST.call_once(|| {
            tracing::warn!(
                "a check came without a method: rules that let requests through by their method do not match it. Let the \
                 proxy set X-Original-Method or X-Forwarded-Method, or clear it: a client's own would be believed"
            );
        });
    }
    Some(Request {
        method: method.unwrap_or_default(),
        host,
        path,
        headers: borrow_all(headers),
        query_stays: true,
        ..Request::default()
    })
}

/// Host and target of `scheme://host/path?query`. Not by a URL parser, which resolves `..` in the path: the upstream
/// sees the path as it came.
fn split_url(url: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = url.strip_prefix(b"http://").or_else(|| url.strip_prefix(b"https://"))?;
    let (host, path) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'/')?)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    (!host.is_empty() && host.iter().all(plain)).then_some((host, path))
}

/// The value of a header, if there is one; `None` if there are several.
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a [u8]>> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = values.next();
    if values.next().is_some() { None } else { Some(first) }
}

fn borrow_all(headers: &HeaderMap) -> Vec<(&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect()
}

fn deny_response(denial: Denial, wording: &Wording, style: Style) -> Option<Response<Full<Bytes>>> {
    let Denied { status, headers, body } = denied::render(denial, wording);
    let mut response = empty_response(StatusCode::from_u16(status).ok()?);
    for (name, value) in headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?);
    }
    match style {
        Style::Envoy => {}
        Style::ForwardAuth => {
            response.headers_mut().insert(DENIAL, HeaderValue::from_str(&body).ok()?);
        }
    }
    *response.body_mut() = Full::new(Bytes::from(body));
    Some(response)
}

fn empty_response(status: StatusCode) -> Response<Full<Bytes>> {
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
        let [om, ou, oi] = ["x-original-method", "x-original-url", "x-original-uri"];
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
            (&[(h, "a"), (u, "/x")], Some(["", "a", "/x"])),
            (&[(m, ""), (h, "a"), (u, "/x")], Some(["", "a", "/x"])),
            (&[(m, ""), (u, "/x")], None),
            (&[(m, "GET"), (h, "a"), (u, "")], None),
            (&[(m, "GET"), (h, "a"), (u, "/x"), (u, "/y")], None),
            (&[(m, "GET"), (m, "PUT"), (h, "a"), (u, "/x")], None),
            (&[(om, "GET")], None),
            (&[(ou, "http://a/x")], Some(["", "a", "/x"])),
            (&[(oi, "/x?y")], Some(["", "", "/x?y"])),
            (&[(om, "PUT"), (oi, "/x?y")], Some(["PUT", "", "/x?y"])),
            (&[(om, "PUT"), (oi, "")], None),
            (&[(oi, "/x"), (oi, "/y")], None),
            // Empty headers of other families are how a proxy clears them.
            (
                &[(om, "PUT"), (ou, "http://a/x"), (oi, ""), (m, ""), (h, ""), (u, "")],
                Some(["PUT", "a", "/x"]),
            ),
            (&[(m, "PUT"), (h, "a"), (u, "/x"), (om, ""), (ou, ""), (oi, "")], Some(["PUT", "a", "/x"])),
            (&[(m, ""), (h, ""), (u, ""), (om, ""), (ou, ""), (oi, "")], None),
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
            (&[(ou, "http://a/x"), (m, "GET")], None),
            (&[(om, "GET"), (oi, "/x"), (ou, "http://a/x")], None),
            (&[(oi, "/x"), (h, "a")], None),
            (&[(m, "GET"), (h, "a"), (u, "/x"), (oi, "/x")], None),
            (&[(h, "a"), (u, "/x"), (om, "GET")], None),
        ] {
            let parts = parts("/auth", headers);
            assert_eq!(seen(described_request(&parts).as_ref()), want, "{headers:?}");
        }
    }
}
