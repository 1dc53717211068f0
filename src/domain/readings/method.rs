//! The readings of a method: as sent, in capitals, and what a POST says that it stands for.

use std::collections::HashSet;

use crate::domain::request::Request;

/// Headers by which frameworks let a POST stand for another method.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// The query parameter that means the same to some of them.
const OVERRIDE_PARAMETER: &str = "_method";

/// The methods that servers may take a request's for. `named` are the methods that rules name: of all others one is enough, so
/// the number of readings is bounded by the configuration.
pub(crate) fn methods(request: &Request<'_>, named: &HashSet<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut readings = vec![request.method.to_vec()];
    let mut has_other = !named.contains(request.method);
    let mut add = |method: &[u8]| {
        let method = method.trim_ascii().to_ascii_uppercase();
        let is_other = !named.contains(&method);
        let is_one_more = is_other && has_other;
        if !method.is_empty() && !is_one_more && !readings.contains(&method) {
            has_other |= is_other;
            readings.push(method);
        }
    };
    add(request.method);
    if request.method.eq_ignore_ascii_case(b"POST") {
        let headers = OVERRIDES.iter().flat_map(|name| request.header(name));
        let parameters = request.query(OVERRIDE_PARAMETER);
        // Envoy joins the values of a header that comes twice.
        headers.chain(parameters).flat_map(|value| value.split(|byte| *byte == b',')).for_each(add);
    }
    readings
}

/// Whether a request's method has one reading.
pub(crate) fn is_plain(request: &Request<'_>) -> bool {
    request.method != b"POST" && !request.method.iter().any(u8::is_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_a_method() {
        let named: HashSet<_> = ["GET", "DELETE", "PATCH"].map(|name| name.as_bytes().to_vec()).into();
        for (method, path, headers, want) in [
            ("GET", "/", &[][..], &["GET"][..]),
            ("delete", "/", &[], &["delete", "DELETE"]),
            ("POST", "/", &[], &["POST"]),
            ("POST", "/", &[("X-HTTP-Method-Override", "DELETE")], &["POST", "DELETE"]),
            ("post", "/", &[("x-http-method", " patch ")], &["post", "PATCH"]),
            (
                "POST",
                "/?_method=delete",
                &[("x-method-override", "PATCH,GET")],
                &["POST", "PATCH", "GET", "DELETE"],
            ),
            ("POST", "/", &[("x-http-method", "A,B,C,DELETE"), ("x-http-method", "")], &["POST", "DELETE"]),
            ("PUT", "/?_method=delete", &[("x-http-method-override", "DELETE")], &["PUT"]),
        ] {
            let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let request =
                Request { method: method.as_bytes(), path: path.as_bytes(), headers, ..Request::default() };
            let read = methods(&request, &named);
            let read: Vec<_> = read.iter().map(|method| str::from_utf8(method).unwrap()).collect();
            assert_eq!(read, want, "{method} {path}");
            assert!(!is_plain(&request) || read.len() == 1);
        }
    }
}
