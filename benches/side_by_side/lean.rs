//! A client for throughput with as little work as possible: prepared HTTP/2 frames over blocking sockets, one thread
//! for each connection. A client that takes more CPU time than the server makes the server wait, and each wait and
//! wake-up takes CPU time of the server.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    to.extend_from_slice(&length[1..]);
    to.extend_from_slice(&[kind, flags]);
    to.extend_from_slice(&stream.to_be_bytes());
    to.extend_from_slice(payload);
}

/// The head of a call as one header block without indexing (RFC 7541 section 6.2.2).
fn head() -> Vec<u8> {
    // `:method: POST` and `:scheme: http` by their index in the static table.
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &str, value: &str| {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("less than 127 bytes"));
            block.extend_from_slice(text.as_bytes());
        }
    };
    literal(":path", "/envoy.service.auth.v3.Authorization/Check");
    literal(":authority", "passage-authz");
    literal("te", "trailers");
    literal("content-type", "application/grpc");
    block
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
    write: Vec<u8>,
    head: Vec<u8>,
    next: u32,
    /// Bytes that may be sent before the next WINDOW_UPDATE (RFC 9113 section 5.2).
    window: i64,
    received: u32,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut write = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // A window of 1 GiB for each stream, and of nearly as much for the connection.
        frame(&mut write, SETTINGS, 0, 0, &[0, 4, 0x40, 0, 0, 0]);
        frame(&mut write, WINDOW_UPDATE, 0, 0, &0x3fff_0000_u32.to_be_bytes());
        Self { stream, read: Vec::new(), write, head: head(), next: 1, window: 65_535, received: 0 }
    }

    fn ask(&mut self, message: &[u8]) {
        frame(&mut self.write, HEADERS, END_HEADERS, self.next, &self.head);
        frame(&mut self.write, DATA, END_STREAM, self.next, message);
        self.window -= i64::try_from(message.len()).expect("a small message");
        self.next += 2;
    }

    /// Writes the prepared frames and reads once. The number of calls that were answered, and the first bytes of the
    /// last message.
    fn exchange(&mut self) -> (usize, [u8; 9]) {
        self.stream.write_all(&self.write).expect("the server reads");
        self.write.clear();
        let (mut answered, mut first) = (0, [0; 9]);
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer).expect("the server answers");
        assert!(count > 0, "the server went away");
        self.read.extend_from_slice(&buffer[..count]);
        let mut at = 0;
        while let Some(head) = self.read.get(at..at + 9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let Some(payload) = self.read.get(at + 9..at + 9 + length) else { break };
            let number = || u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
            match kind {
                DATA => {
                    self.received += u32::try_from(length).expect("a small frame");
                    if let Some(start) = payload.get(..9) {
                        first.copy_from_slice(start);
                    }
                }
                HEADERS if flags & END_STREAM != 0 => answered += 1,
                SETTINGS if flags & ACK == 0 => frame(&mut self.write, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(&mut self.write, PING, ACK, 0, payload),
                WINDOW_UPDATE if head[5..9] == [0; 4] => self.window += i64::from(number()),
                GOAWAY => panic!("the server says goodbye"),
                _ => {}
            }
            at += 9 + length;
        }
        self.read.drain(..at);
        if self.received > 1 << 28 {
            frame(&mut self.write, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
        (answered, first)
    }
}

/// An allow begins with the frame's prefix, then `status` without a code other than 0.
fn is_allowed(first: [u8; 9]) -> bool {
    first[5..7] == [0x0a, 0]
}

/// Closed loop for this time on this number of connections and streams; the number of answers.
pub(crate) fn closed(
    address: SocketAddr,
    (connections, streams): (usize, usize),
    time: Duration,
    checks: &Arc<[Bytes]>,
    allowed: bool,
) -> usize {
    let asking: Vec<_> = (0..connections)
        .map(|at| {
            let checks = Arc::clone(checks);
            std::thread::spawn(move || {
                let mut connection = Connection::open(address);
                // Each connection starts at another token.
                let mut next = at * checks.len() / 2;
                let (mut open, mut answered, end) = (0, 0, Instant::now() + time);
                while Instant::now() < end {
                    while open < streams && connection.window > 16 * 1024 {
                        connection.ask(&checks[next % checks.len()]);
                        (next, open) = (next + 1, open + 1);
                    }
                    let (done, first) = connection.exchange();
                    if done > 0 && first != [0; 9] {
                        assert_eq!(is_allowed(first), allowed, "an answer that was not expected");
                    }
                    (open, answered) = (open - done, answered + done);
                }
                answered
            })
        })
        .collect();
    asking.into_iter().map(|thread| thread.join().expect("it asks to the end")).sum()
}
