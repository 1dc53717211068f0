//! The readings of a method: as sent, in capitals, and what a header or a query parameter says that it stands for. Frameworks
//! look for these on a POST, some on any request. A method in the body of a form is not seen here.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::memchr;

use crate::domain::request::Request;

/// Headers, and to some frameworks query parameters, by which a request stands for another method; `_` for any mark.
const OVERRIDES: [&str; 3] = ["x_http_method_override", "x_http_method", "x_method_override"];

/// Further query parameters that mean the same.
const OVERRIDE_PARAMETERS: [&str; 2] = ["_method", "_httpmethod"];

/// The most methods of headers and parameters that are told apart. A request with more may stand for any method.
const MAX_OVERRIDES: usize = 16;

/// The methods that servers may take a request's for. `named` are the methods that rules name: of all others one is enough, so
/// the number of readings is bounded by the configuration.
pub(crate) fn methods(request: &Request<'_>, named: &HashSet<Vec<u8>>) -> Vec<Vec<u8>> {
    if request.method.is_empty() {
        // Any method that no rule names stands for all of them.
        return named.iter().cloned().chain([b"-".to_vec()]).collect();
    }
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
    // Envoy joins the values of a header that comes twice.
    let headers =
        header_overrides(request).flat_map(|value| value.split(|byte| *byte == b',')).map(Cow::Borrowed);
    let parameters = query_overrides(request.path).map(|value| decoded(value));
    let mut all = headers.chain(parameters);
    all.by_ref().take(MAX_OVERRIDES).for_each(|method| add(&method));
    if all.next().is_some() {
        named.iter().for_each(|method| add(method));
        // Any method that no rule names stands for all of them.
        add(b"-");
    }
    readings
}

/// Whether a request's method has one reading.
pub(crate) fn is_plain(request: &Request<'_>) -> bool {
    let is_sent = !request.method.is_empty() && !request.method.iter().any(u8::is_ascii_lowercase);
    is_sent && header_overrides(request).next().is_none() && query_overrides(request.path).next().is_none()
}

/// The values of the headers, `_` or any other mark for a dash: CGI knows no difference (RFC 3875 section 4.1.18).
fn header_overrides<'a>(request: &Request<'a>) -> impl Iterator<Item = &'a [u8]> {
    request.headers.iter().filter(|(name, _)| is_one_of(&OVERRIDES, name)).map(|(_, value)| *value)
}

/// The values of the query's parameters, undecoded. To some servers `;` separates too, and what follows a second `?` is counted
/// as well: it costs an honest request nothing.
fn query_overrides(target: &[u8]) -> impl Iterator<Item = &[u8]> {
    let query = memchr(b'?', target).and_then(|at| target.get(at + 1..)).unwrap_or_default();
    query.split(|byte| matches!(byte, b'?' | b'&' | b';')).filter_map(|pair| {
        let equals = memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = pair.split_at_checked(equals)?;
        is_override_parameter(name).then(|| value.get(1..).unwrap_or_default())
    })
}

/// Whether a parameter's name may be read as one of [`OVERRIDES`] or [`OVERRIDE_PARAMETERS`]. PHP takes marks in a name for `_`, leaves out spaces
/// before it, and ends it at a null.
fn is_override_parameter(name: &[u8]) -> bool {
    let name = decoded(name);
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0x0b | b'+');
    let spaces = name.iter().take_while(|byte| is_space(byte)).count();
    let is_one = |name| is_one_of(&OVERRIDES, name) || is_one_of(&OVERRIDE_PARAMETERS, name);
    [Some(name), name.get(spaces..)].into_iter().flatten().any(is_one)
}

/// Whether a name is one of these, in any case and with any marks.
fn is_one_of(names: &[&str], name: &[u8]) -> bool {
    let folded = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' };
    names.iter().any(|own| own.len() == name.len() && name.iter().map(folded).eq(own.bytes()))
}

/// A query's text with its escapes decoded; what is none stays.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    super::decoded_once(text).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_a_method() {
        let named: HashSet<_> = ["GET", "DELETE", "PATCH"].map(|name| name.as_bytes().to_vec()).into();
        for (method, path, headers, want) in [
            ("GET", "/", &[][..], &["GET"][..]),
            ("-", "/", &[], &["-"]),
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
            ("PUT", "/?_method=delete", &[("x-http-method-override", "DELETE")], &["PUT", "DELETE"]),
            ("GET", "/", &[("X_HTTP_Method.Override", "DELETE")], &["GET", "DELETE"]),
            ("POST", "/?a=1;%5Fmethod=DEL%45TE", &[], &["POST", "DELETE"]),
            ("POST", "/?.method=DELETE&_METHOD=PATCH", &[], &["POST", "DELETE", "PATCH"]),
            ("POST", "/?x_method=DELETE&_methods=DELETE&_method", &[], &["POST"]),
        ] {
            let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let request =
                Request { method: method.as_bytes(), path: path.as_bytes(), headers, ..Request::default() };
            let read = methods(&request, &named);
            let read: Vec<_> = read.iter().map(|method| str::from_utf8(method).unwrap()).collect();
            assert_eq!(read, want, "{method} {path}");
            assert!(!is_plain(&request) || read.len() == 1);
        }
        let unknown = Request { path: b"/?_method=GET", ..Request::default() };
        let mut all = methods(&unknown, &named);
        all.sort();
        assert_eq!(all, ["-", "DELETE", "GET", "PATCH"].map(|name| name.as_bytes().to_vec()));
        assert!(!is_plain(&unknown));
    }
}
