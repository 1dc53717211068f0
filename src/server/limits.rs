//! The limits of a port and its connections, each with its reason. Those in bytes, streams and seconds bound what one
//! hostile client can hold.

use std::time::Duration;

/// The pause after a failed accept: as a rule the process is out of file descriptors, and accept(2) would fail at once
/// again.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest a TLS handshake may take.
pub(super) const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest the head of an HTTP/1.1 request may take to arrive.
pub(super) const HTTP1_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection without any request after this time gets GOAWAY: a half-open connection, or a client that sends the
/// HTTP/2 preface byte by byte.
pub(super) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The number of requests of a connection is read at this interval. A connection without a new request since the last
/// reading gets GOAWAY.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// A connection that stays open after GOAWAY is cut after this time: long enough for any check, and the longest waits
/// 10 s for a key.
pub(super) const GOAWAY_GRACE: Duration = Duration::from_secs(15);

/// HTTP/2 keep-alive: a connection without a frame for this long gets a PING, and is cut without an answer to it
/// within the timeout.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Concurrent HTTP/2 streams of one connection. Envoy opens one stream for each check under way, and a second connection
/// when it needs more.
pub(super) const MAX_STREAMS: u32 = 256;

/// The largest header list of a request (RFC 9113 section 6.5.2). A gRPC check carries the client's headers in its message,
/// so its own header list is short; over HTTP the client's headers are the header list.
pub(super) const MAX_GRPC_HEADER_LIST_BYTES: u32 = 16 * 1024;
pub(super) const MAX_HTTP_HEADER_LIST_BYTES: u32 = 64 * 1024;

/// The largest head of an HTTP/1.1 request: the header list, and 8 KiB for the request line.
pub(super) const MAX_HTTP1_HEAD_BYTES: usize = MAX_HTTP_HEADER_LIST_BYTES as usize + 8 * 1024;

/// HTTP/2 flow control, the bytes that a client may send before they are read: a whole message on each stream, and four
/// such messages on a connection.
pub(super) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// Streams that the client has opened and reset before the server accepted them (CVE-2023-44487): past this number the
/// connection is closed. After a pause of this process all streams of an honest connection are such: Envoy resets each
/// check at its timeout.
pub(super) const MAX_PENDING_RESETS: usize = MAX_STREAMS as usize;

/// Resets that the server has sent for the client's protocol errors: past this number the connection is closed.
pub(super) const MAX_LOCAL_ERROR_RESETS: usize = 256;

/// A connection without a request stays open for this long after the last check of a drain: enough for the client to read
/// and answer GOAWAY, so that a request that crosses GOAWAY is served.
pub(super) const IDLE_LINGER: Duration = Duration::from_millis(500);

/// A drain closes the port after this long without a check. Envoy polls our health once a second in deploy/, so each
/// Envoy has seen the drain by then.
pub(super) const LAME_DUCK_QUIET: Duration = Duration::from_millis(1500);

/// The age at which a connection accepted during a drain gets GOAWAY.
pub(super) const DRAIN_CONNECTION_AGE: Duration = Duration::from_millis(250);
