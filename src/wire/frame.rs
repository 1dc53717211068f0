//! The frame of a gRPC message (gRPC over HTTP2, "Length-Prefixed-Message").

use bytes::{Bytes, BytesMut};

/// One byte for the compressed flag, four for the message's length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// An encoded message with its prefix, not compressed.
pub(crate) fn prefixed(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut buffer = BytesMut::with_capacity(512);
    buffer.extend_from_slice(&[0; PREFIX_BYTES]);
    encode(&mut buffer);
    let length = u32::try_from(buffer.len() - PREFIX_BYTES).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = buffer.get_mut(1..PREFIX_BYTES) {
        place.copy_from_slice(&length);
    }
    buffer.freeze()
}
