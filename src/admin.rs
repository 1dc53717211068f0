//! The admin port: is it alive, is it ready. Nothing secret, for probes.

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};

use crate::keys::store::KeyStore;

/// Answers one request of the admin port.
pub(crate) fn respond(request: &Request<Incoming>, keys: &KeyStore, draining: bool) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, "alive\n"),
        (&Method::GET | &Method::HEAD, "/readyz") => match (draining, keys.is_ready()) {
            (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "no issuer has usable keys\n"),
            (false, true) => (StatusCode::OK, "ready\n"),
        },
        (_, "/livez" | "/readyz") => (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n"),
        _ => (StatusCode::NOT_FOUND, "/livez or /readyz\n"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}
