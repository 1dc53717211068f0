//! One unary call over HTTP/2 (gRPC over HTTP2, "Requests" and "Responses"): one message in, one message out. tonic's
//! own machinery is made for streams, and costs a check a quarter of its time; health and reflection keep it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming};
use tokio::time::timeout;
use tonic::Status;

use crate::server::overload::PartialMessage;
use crate::wire::frame::PREFIX_BYTES;

/// The largest message that is read: Envoy's own header limit is 60 KiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// A message must be there this long after its call: Envoy sends both together.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Why a message was not read.
pub(crate) enum Unread {
    /// It is larger than any check; nothing is wrong with the call.
    TooLarge,
    /// The call fails with this status.
    Failed(Status),
}

impl From<Status> for Unread {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

/// Reads the one message of a call, as far as it is no larger than 64 KiB and there in time.
pub(crate) async fn message(body: Incoming, parts: PartialMessage<'_>) -> Result<Bytes, Unread> {
    let mut reading = pin!(whole(body, parts));
    // As a rule it is all there, and needs no timer.
    match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        Poll::Ready(read) => read,
        Poll::Pending => timeout(MESSAGE_TIMEOUT, reading)
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("the check did not arrive in time").into())),
    }
}

async fn whole(mut body: Incoming, mut parts: PartialMessage<'_>) -> Result<Bytes, Unread> {
    let (mut read, mut pieces) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Status::cancelled("the message broke off"))?;
        let Ok(data) = frame.into_data() else { break };
        if read.is_empty() && pieces.is_empty() {
            // As a rule this is all of it, and nothing is copied.
            read = data;
        } else {
            pieces.extend_from_slice(&std::mem::take(&mut read));
            pieces.extend_from_slice(&data);
        }
        let held = if pieces.is_empty() { &read[..] } else { &pieces };
        // Before any more of it is taken in.
        fits(held)?;
        if !body.is_end_stream() && !is_whole(held) {
            parts.hold(held.len()).map_err(|refused| Status::unavailable(refused.to_string()))?;
        }
    }
    if !pieces.is_empty() {
        read = pieces.freeze();
    }
    if length(&read).is_none() {
        return Err(Status::internal("there is no message").into());
    }
    if !is_whole(&read) {
        return Err(Status::internal("there is not one whole message").into());
    }
    Ok(read.split_off(PREFIX_BYTES))
}

fn length(read: &[u8]) -> Option<usize> {
    let [_, length @ ..] = read.first_chunk::<PREFIX_BYTES>()?;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

fn is_whole(read: &[u8]) -> bool {
    length(read).is_some_and(|length| read.len() == PREFIX_BYTES + length)
}

fn fits(read: &[u8]) -> Result<(), Unread> {
    if read.first().is_some_and(|compressed| *compressed != 0) {
        return Err(Status::unimplemented("compressed messages are not read").into());
    }
    if read.len() > PREFIX_BYTES + MAX_MESSAGE_BYTES
        || length(read).is_some_and(|length| length > MAX_MESSAGE_BYTES)
    {
        return Err(Unread::TooLarge);
    }
    Ok(())
}

/// Why a call is answered before its message is read, if it is: it is no gRPC (gRPC over HTTP2 has 415 for that), or
/// its messages are compressed.
pub(crate) fn refusal(headers: &HeaderMap) -> Option<Response<Answer>> {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        let mut response = Response::new(Answer::Done);
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Some(response);
    }
    let compressed = headers.get(GRPC_ENCODING).is_some_and(|encoding| encoding != "identity");
    compressed.then(|| failure(&Status::unimplemented("compressed messages are not read")))
}

/// A message, prefix included, as the answer of a call that succeeded.
pub(crate) fn answer(message: Bytes) -> Response<Answer> {
    let mut response = Response::new(Answer::Message(message));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// A status as the answer of a call that failed.
pub(crate) fn failure(status: &Status) -> Response<Answer> {
    status.clone().into_http::<()>().map(|()| Answer::Done)
}

/// The body of an answer: ours in two frames, or whatever tonic says.
pub(crate) enum Answer {
    /// A message, and then its status.
    Message(Bytes),
    /// Its status: 0.
    Status,
    /// Nothing more.
    Done,
    /// A stream's.
    Stream(tonic::body::Body),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, next) = match &mut *self {
            Self::Stream(body) => return Pin::new(body).poll_frame(context),
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Status),
            Self::Status => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                (Frame::trailers(trailers), Self::Done)
            }
            Self::Done => return Poll::Ready(None),
        };
        *self = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Stream(body) => body.is_end_stream(),
            Self::Done => true,
            Self::Message(_) | Self::Status => false,
        }
    }
}
