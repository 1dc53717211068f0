//! One unary call over HTTP/2 (gRPC over HTTP2, "Requests" and "Responses"): one message in, one message out. tonic's
//! codec is made for streams and takes a quarter of a check's time; health and reflection still use it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use crate::server::overload::{Deadline, UnfinishedCall};
use crate::wire::envoy::Skimmer;
use crate::wire::frame::PREFIX_BYTES;

/// A call whose message is not whole after this time, or at its deadline, is refused. Envoy sends both together and has
/// given up long before; a client without a deadline may be held up by a busy machine. What such calls hold is bounded
/// by [`UnfinishedCall`]; the time bounds how long a hostile one holds up a drain.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Why a message was not read.
pub(crate) enum ReadError {
    /// It has more bytes than are accepted, by its prefix or so far: a verdict on the request, not a failure of the call.
    TooLarge(usize),
    /// The call fails with this status.
    Failed(Status),
}

impl From<Status> for ReadError {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

/// The time that the caller waits for its answer: `grpc-timeout`, which is 1 to 8 digits and a unit (gRPC over HTTP2,
/// "Requests"). None if it is absent, malformed, or 0: Envoy sends `0m` where its timeout is switched off.
pub(crate) fn call_timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(GRPC_TIMEOUT)?.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    let timeout = match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    };
    (!timeout.is_zero()).then_some(timeout)
}

/// Reads the one message of a call, a check of at most `max_bytes`, within [`MESSAGE_TIMEOUT`] and before the deadline. A request
/// body in one that comes in several frames is left out. Before the call waits for the rest of its message, `detach` frees what the call need not keep, and returns the bytes it keeps.
pub(crate) async fn read_message(
    body: Incoming,
    max_bytes: usize,
    deadline: Deadline,
    call: UnfinishedCall<'_>,
    detach: impl FnOnce() -> usize,
) -> Result<Bytes, ReadError> {
    let mut reading = pin!(read_whole(body, max_bytes, call, detach));
    // As a rule all of it has arrived with the call, and no timer is made.
    match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        Poll::Ready(read) => read,
        Poll::Pending => timeout_at(deadline.at_most(MESSAGE_TIMEOUT), reading)
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("the check did not arrive in time").into())),
    }
}

async fn read_whole(
    mut body: Incoming,
    max_bytes: usize,
    mut call: UnfinishedCall<'_>,
    detach: impl FnOnce() -> usize,
) -> Result<Bytes, ReadError> {
    let (mut first, mut pieces) = (Bytes::new(), Pieces::default());
    let (mut detach, mut kept) = (Some(detach), 0);
    loop {
        let frame = match poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_frame(context))).await {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                // A slice of the connection's read buffer keeps all of it in memory.
                pieces.add(&std::mem::take(&mut first));
                kept += detach.take().map_or(0, |detach| detach());
                call.wait_with(kept + pieces.kept_bytes())
                    .map_err(|refused| Status::unavailable(refused.to_string()))?;
                body.frame().await
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Status::cancelled("the message broke off"))?;
        let Ok(data) = frame.into_data() else { break };
        // Before the next frame is read.
        if first.is_empty() && pieces.is_empty() {
            // As a rule one frame has the whole message, and nothing is copied.
            first = data;
            check_prefix(&first, first.len(), max_bytes)?;
        } else {
            pieces.add(&std::mem::take(&mut first));
            pieces.add(&data);
            check_prefix(&pieces.prefix, pieces.received, max_bytes)?;
        }
    }
    let (prefix, received) =
        if pieces.is_empty() { (&first[..], first.len()) } else { (&pieces.prefix[..], pieces.received) };
    let Some(announced) = announced_bytes(prefix) else {
        return Err(Status::internal("there is no message").into());
    };
    if received != PREFIX_BYTES + announced {
        return Err(Status::internal("there is not one whole message").into());
    }
    Ok(if pieces.is_empty() { first.split_off(PREFIX_BYTES) } else { pieces.message.finish() })
}

/// A message that comes in several frames.
#[derive(Default)]
struct Pieces {
    /// As much of it as has arrived.
    prefix: Vec<u8>,
    message: Skimmer,
    /// Bytes, with those of the prefix and those that are left out.
    received: usize,
}

impl Pieces {
    fn add(&mut self, piece: &[u8]) {
        let missing = PREFIX_BYTES - self.prefix.len();
        let (prefix, message) = piece.split_at(piece.len().min(missing));
        self.prefix.extend_from_slice(prefix);
        self.message.add(message);
        self.received += piece.len();
    }

    const fn is_empty(&self) -> bool {
        self.received == 0
    }

    fn kept_bytes(&self) -> usize {
        self.prefix.len() + self.message.len()
    }
}

/// Reads the one message of a call, of at most `max_bytes`.
pub(crate) async fn read_small(body: Incoming, max_bytes: usize) -> Result<Bytes, Status> {
    let limited = Limited::new(body, PREFIX_BYTES + max_bytes).collect().await;
    let read =
        limited.map_err(|_| Status::out_of_range("the message is too large, or broke off"))?.to_bytes();
    if read.first().is_some_and(|compressed| *compressed != 0) {
        return Err(Status::unimplemented("compressed messages are not read"));
    }
    if announced_bytes(&read).is_some_and(|announced| read.len() == PREFIX_BYTES + announced) {
        Ok(read.slice(PREFIX_BYTES..))
    } else {
        Err(Status::internal("there is not one whole message"))
    }
}

/// The message's length as its prefix has it.
fn announced_bytes(read: &[u8]) -> Option<usize> {
    let [_, length @ ..] = read.first_chunk::<PREFIX_BYTES>()?;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

/// Looks at what has arrived of a message, its prefix included.
fn check_prefix(read: &[u8], received: usize, max_bytes: usize) -> Result<(), ReadError> {
    if read.first().is_some_and(|compressed| *compressed != 0) {
        return Err(Status::unimplemented("compressed messages are not read").into());
    }
    let bytes = announced_bytes(read).unwrap_or_default().max(received.saturating_sub(PREFIX_BYTES));
    if bytes > max_bytes { Err(ReadError::TooLarge(bytes)) } else { Ok(()) }
}

/// The response to a call that is refused by its headers: it is not gRPC (gRPC over HTTP2 has 415 for that), or its
/// messages are compressed.
pub(crate) fn refuse_by_headers(headers: &HeaderMap) -> Option<Response<ResponseBody>> {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        let mut response = Response::new(ResponseBody::End);
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Some(response);
    }
    let compressed = headers.get(GRPC_ENCODING).is_some_and(|encoding| encoding != "identity");
    compressed.then(|| failure(&Status::unimplemented("compressed messages are not read")))
}

/// The response to a call that succeeded; the message has its prefix.
pub(crate) fn success(message: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Message(message));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The response to a call that failed.
pub(crate) fn failure(status: &Status) -> Response<ResponseBody> {
    status.clone().into_http::<()>().map(|()| ResponseBody::End)
}

/// The body of a response.
pub(crate) enum ResponseBody {
    /// One message, then the trailers.
    Message(Bytes),
    /// The trailers: `grpc-status: 0`.
    Trailers,
    /// The end.
    End,
    /// A body of tonic's. A health Watch has no end of its own and would hold up every drain: the body ends with
    /// UNAVAILABLE once `cancelled` is ready and what was sent before is out.
    Stream {
        body: tonic::body::Body,
        cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
        /// Its place among the connection's streams, free again when the body is dropped.
        _place: OwnedSemaphorePermit,
    },
}

impl ResponseBody {
    pub(crate) fn stream(
        body: tonic::body::Body,
        cancel: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self::Stream { body, cancelled: Box::pin(cancel.cancelled_owned()), _place: place }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, next) = match &mut *self {
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Trailers),
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                (Frame::trailers(trailers), Self::End)
            }
            Self::End => return Poll::Ready(None),
            Self::Stream { body, cancelled, _place: _ } => match Pin::new(body).poll_frame(context) {
                Poll::Pending if cancelled.as_mut().poll(context).is_ready() => {
                    let status = Status::unavailable("the server is going away").into_http::<()>();
                    (Frame::trailers(status.into_parts().0.headers), Self::End)
                }
                polled => return polled,
            },
        };
        *self = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            // A failed call of tonic's has no body: its headers must end the stream ("Trailers-Only").
            Self::Stream { body, cancelled: _, _place: _ } => body.is_end_stream(),
            Self::End => true,
            Self::Message(_) | Self::Trailers => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::StreamExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    fn place() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    #[test]
    fn timeouts_of_calls() {
        let (days, millis) = (|days: u64| Duration::from_secs(days * 86_400), Duration::from_millis);
        for (value, want) in [
            ("250m", Some(millis(250))),
            ("1S", Some(millis(1000))),
            ("00000001S", Some(millis(1000))),
            ("2M", Some(millis(120_000))),
            ("24H", Some(days(1))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("200000u", Some(millis(200))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("0m", None),
            ("", None),
            ("m", None),
            ("250", None),
            ("250ms", None),
            ("250s", None),
            ("250h", None),
            ("123456789m", None),
            ("+250m", None),
            ("-1m", None),
            ("2.5S", None),
            (" 250m", None),
            ("250 m", None),
            ("0x10m", None),
        ] {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(value))]);
            assert_eq!(call_timeout(&headers), want, "{value}");
        }
        let illegible = HeaderValue::from_bytes(b"25\xb2m").unwrap();
        assert_eq!(call_timeout(&HeaderMap::from_iter([(GRPC_TIMEOUT, illegible)])), None);
        assert_eq!(call_timeout(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_stream_ends_once_it_is_cancelled() {
        let cancel = CancellationToken::new();
        let last_status = Bytes::from_static(b"not serving");
        let watch = futures_util::stream::iter([Ok::<_, Status>(Frame::data(last_status.clone()))])
            .chain(futures_util::stream::pending());
        let watch = tonic::body::Body::new(http_body_util::StreamBody::new(watch));
        let mut body = ResponseBody::stream(watch, cancel.clone(), place());
        cancel.cancel();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), last_status);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert!(body.is_end_stream() && body.frame().await.is_none());
        // A call that failed.
        assert!(
            ResponseBody::stream(tonic::body::Body::empty(), CancellationToken::new(), place())
                .is_end_stream()
        );
    }
}
