//! The ports as written: `server`, `http`, and the addresses of all three.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::super::place::{Place, Table};
use super::super::size::{KIB, MIB, format_size, parse_size};
use super::super::{ClientIdentity, Http, Listen, ProxySecret, Server, Style, TlsFiles, TokenSettings};
use super::shapes::{HOUR, SECOND, choice};
use crate::domain::token::TokenPlace;

pub(super) fn server(server: &mut Table<'_>) -> Server {
    let mode = server.at("unix_mode").parsed("an octal file mode in quotes, such as \"0660\"", octal);
    let age = server.at("max_connection_age").duration(Duration::ZERO..=HOUR * 24, SECOND * 600);
    let max_connections = server.at("max_connections").integer(1..=1_000_000, " connections", 20_000);
    Server {
        listen: listen(&server.at("listen")),
        unix_mode: mode.unwrap_or(0o660),
        tls: tls(&server.at("tls")),
        max_connection_age: (!age.is_zero()).then_some(age),
        max_connections: usize::try_from(max_connections).unwrap_or_default(),
        max_message: size(&server.at("max_message"), 64 * KIB..=64 * MIB, MIB),
        drain_timeout: server.at("drain_timeout").duration(Duration::ZERO..=HOUR, SECOND * 20),
    }
}

/// A number of bytes, written with its unit.
fn size(place: &Place<'_>, range: RangeInclusive<usize>, default: usize) -> usize {
    let (least, most) = (format_size(*range.start()), format_size(*range.end()));
    let accepted = format!("a size from {least} to {most}, written like 512KiB or 1MiB");
    place.parsed(&accepted, |text| parse_size(text).filter(|size| range.contains(size))).unwrap_or(default)
}

fn listen(place: &Place<'_>) -> Listen {
    if !place.starts_with("unix:") {
        return Listen::Tcp(address(place, "[::]:50051", ", or unix:/path/to.sock"));
    }
    let path = place.parsed("host:port, or unix:/path/to.sock", |text| {
        let path = text.strip_prefix("unix:")?;
        (path.starts_with('/') && !path.ends_with('/') && !path.contains('\0')).then(|| path.into())
    });
    Listen::Unix(path.unwrap_or_default())
}

fn tls(place: &Place<'_>) -> Option<TlsFiles> {
    if !place.is_set() {
        return None;
    }
    place.table(|tls| {
        let (cert_place, key_place) = (tls.at("cert"), tls.at("key"));
        cert_place.required("a PEM file with the certificate chain");
        key_place.required("a PEM file with the private key");
        let cert = readable(&cert_place, "a readable PEM file with the certificate chain");
        let key = readable(&key_place, "a readable PEM file with the private key");
        // Without the key, clients need no certificate. Null or an empty text looks like a demand for one but
        // would set none, so both are faults.
        let accepted = "a readable PEM file with the roots of client certificates";
        let client_ca = readable(&tls.at("client_ca"), accepted);
        Some(TlsFiles { cert: cert?, key: key?, client_ca })
    })
}

fn readable(place: &Place<'_>, accepted: &str) -> Option<PathBuf> {
    let file = place.text(accepted)?;
    if let Err(error) = std::fs::File::open(file) {
        place.unreadable(file, &error, accepted);
    }
    Some(file.into())
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
}

pub(super) fn http(place: &Place<'_>, tokens: &TokenSettings) -> Option<Http> {
    if !place.is_set() {
        return None;
    }
    if !tokens.forward && tokens.from.iter().any(|source| matches!(source.place, TokenPlace::Query(_))) {
        let accepted = "tokens.forward: true, or no query among tokens.from";
        place.fault("cannot remove a query parameter: no HTTP answer can", accepted);
    }
    place.table(|http| {
        let (listen, style) = (http.at("listen"), http.at("style"));
        listen.required("host:port");
        style.required("envoy or forward_auth");
        let forward_auth = choice(&style, &["envoy", "forward_auth"]) == Some("forward_auth");
        let prefix = http.at("path_prefix");
        if forward_auth && prefix.is_written() {
            prefix.fault("has no meaning in the style forward_auth", "leaving it out");
        }
        let client_identity = http.at("client_identity");
        let overwritten = choice(&client_identity, &["refuse", "overwritten"]) == Some("overwritten");
        if !forward_auth && client_identity.is_written() {
            client_identity
                .fault("has no meaning in the style envoy", "leaving it out: the answer removes them");
        }
        let accepted = "a path that begins with / and does not end with one";
        let path_prefix = prefix.parsed(accepted, |path| {
            let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte));
            (plain && path.starts_with('/') && !path.ends_with('/')).then(|| path.to_owned())
        });
        Some(Http {
            listen: address(&listen, "", ""),
            style: if forward_auth { Style::ForwardAuth } else { Style::Envoy },
            path_prefix: path_prefix.unwrap_or_default(),
            client_identity: if overwritten { ClientIdentity::Overwritten } else { ClientIdentity::Refuse },
            proxy_secret_file: proxy_secret_file(&http.at("proxy_secret_file")),
        })
    })
}

/// A key without a value is a fault: it looks like a demand for a secret but would set none.
fn proxy_secret_file(place: &Place<'_>) -> Option<PathBuf> {
    let accepted = "a readable file with the secret, 16 to 1024 bytes of printable ASCII on one line";
    let file = PathBuf::from(place.text(accepted)?);
    if let Err(error) = ProxySecret::read(&file) {
        place.reads(&file);
        place.fault(format!("{} {error}", file.display()), accepted);
    }
    Some(file)
}

pub(super) fn admin_listen(admin: &mut Table<'_>) -> String {
    address(&admin.at("listen"), "[::]:9090", "")
}

/// `host:port`; `alternative` ends the list of what is accepted.
pub(super) fn address(place: &Place<'_>, default: &str, alternative: &str) -> String {
    let accepted = format!("host:port, such as '[::]:50051' or 127.0.0.1:50051{alternative}");
    let read = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        // An IPv6 address stands in brackets: its own colons would hide where the port begins.
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        (bare && !host.is_empty() && port.parse::<u16>().is_ok()).then(|| text.to_owned())
    };
    place.parsed(&accepted, read).unwrap_or_else(|| default.to_owned())
}
