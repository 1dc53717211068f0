//! Peers that speak another protocol than the port does, recognized by the first bytes of a connection. It is the commonest mistake in a
//! mesh, and all that HTTP/2 says of it is that a frame is malformed.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One line of the log for each port in this time, however many connections there are.
const LINES_APART: Duration = Duration::from_secs(60);

/// What a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Tls,
    Plaintext,
}

impl Spoken {
    const fn advice(self) -> &'static str {
        match self {
            Self::Http1 => {
                "give its cluster HTTP/2: appProtocol grpc or a port named grpc in Kubernetes, http2_protocol_options in Envoy"
            }
            Self::Tls => "set server.tls, or let its cluster speak plaintext",
            Self::Plaintext => "give its cluster a transport socket with TLS, or leave server.tls out",
        }
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1.1",
            Self::Tls => "TLS",
            Self::Plaintext => "plaintext",
        })
    }
}

/// The first four bytes of a connection; zero until they are there.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstBytes(Arc<AtomicU32>);

impl FirstBytes {
    pub(super) fn note(&self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0.store(u32::from_be_bytes(*first), Ordering::Relaxed);
        }
    }

    /// What the peer speaks, if it is certainly not HTTP/2 in plaintext.
    pub(super) fn spoken(&self) -> Option<Spoken> {
        match &self.0.load(Ordering::Relaxed).to_be_bytes() {
            // A handshake record (RFC 8446 section 5.1).
            [0x16, 0x03, ..] => Some(Spoken::Tls),
            b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" | b"PATC" | b"CONN" | b"TRAC" => {
                Some(Spoken::Http1)
            }
            _ => None,
        }
    }
}

/// The connections of one port that spoke another protocol: counted, and logged now and then.
#[derive(Debug, Default)]
pub(crate) struct WrongProtocol {
    last_line: Mutex<Option<Instant>>,
    connections: AtomicU64,
}

impl WrongProtocol {
    pub(super) fn warn(&self, peer: impl fmt::Display, spoken: Spoken) {
        let connections = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        if self.is_due() {
            let advice = spoken.advice();
            tracing::warn!(%peer, %spoken, connections, advice, "a peer speaks another protocol than the port");
        }
    }

    /// Such connections so far.
    pub(crate) fn count(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    fn is_due(&self) -> bool {
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < LINES_APART) {
            return false;
        }
        *last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for (bytes, want) in [
            (&b"PRI * HTTP/2.0\r\n"[..], None),
            (b"GET / HTTP/1.1\r\n", Some(Spoken::Http1)),
            (b"POST /envoy.service.auth.v3.Authorization/Check HTTP/1.1", Some(Spoken::Http1)),
            (b"\x16\x03\x01\x02\x00\x01", Some(Spoken::Tls)),
            (b"\x16\x04\x01\x02", None),
            (b"GET", None),
            (b"", None),
            (b"\0\0\0\0", None),
        ] {
            let first = FirstBytes::default();
            first.note(bytes);
            assert_eq!(first.spoken(), want, "{bytes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute() {
        let log = WrongProtocol::default();
        assert_eq!([log.is_due(), log.is_due()], [true, false]);
        tokio::time::advance(LINES_APART).await;
        assert_eq!([log.is_due(), log.is_due()], [true, false]);
    }
}
