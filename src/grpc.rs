//! One unary call over HTTP/2 (gRPC over HTTP2, "Requests" and "Responses"): one message in, one message out. tonic's
//! own machinery is made for streams, and costs a check a quarter of its time; health and reflection keep it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming};
use tonic::Status;

/// The largest message that is read: Envoy's own header limit is 60 KiB.
const MAX_MESSAGE: usize = 64 * 1024;

/// Whether a message is compressed, and its length.
pub(crate) const PREFIX: usize = 5;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Reads the one message of a call.
///
/// # Errors
/// The status to answer instead.
pub(crate) async fn message(headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, Status> {
    if headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented("compressed messages are not read"));
    }
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
        // Before any more of it is taken in.
        fits(if pieces.is_empty() { &read } else { &pieces })?;
    }
    if !pieces.is_empty() {
        read = pieces.freeze();
    }
    let length = length(&read).ok_or_else(|| Status::internal("there is no message"))?;
    if read.len() != PREFIX + length {
        return Err(Status::internal("there is not one whole message"));
    }
    Ok(read.split_off(PREFIX))
}

fn length(read: &[u8]) -> Option<usize> {
    let [_, length @ ..] = read.first_chunk::<PREFIX>()?;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

fn fits(read: &[u8]) -> Result<(), Status> {
    if read.first().is_some_and(|compressed| *compressed != 0) {
        return Err(Status::unimplemented("compressed messages are not read"));
    }
    if read.len() > PREFIX + MAX_MESSAGE || length(read).is_some_and(|length| length > MAX_MESSAGE) {
        return Err(Status::resource_exhausted("the message is larger than 64 KiB"));
    }
    Ok(())
}

/// Whether a call is gRPC at all; if not, its answer (gRPC over HTTP2 has 415 for it).
pub(crate) fn refusal(headers: &HeaderMap) -> Option<Response<Answer>> {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return None;
    }
    let mut response = Response::new(Answer::Done);
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(response)
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
