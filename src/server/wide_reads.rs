//! Reads of up to [`READ_BUFFER_BYTES`] in one system call. h2 reads into the free part of an 8 KiB buffer, so a client that
//! sends many requests at once, or a large one, costs a system call for each piece. The buffer belongs to the thread, and a
//! connection holds one only while unread bytes are in it: an idle connection holds none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Two HTTP/2 frames of the largest size we accept (16 KiB), or some eighteen checks.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// Buffers that a thread keeps for its next reads: 128 KiB.
const MAX_SPARE_BUFFERS_PER_THREAD: usize = 4;

type ReadBuffer = Box<[u8]>;

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<ReadBuffer>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> ReadBuffer {
    SPARE_BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; READ_BUFFER_BYTES].into())
}

fn return_buffer(buffer: ReadBuffer) {
    SPARE_BUFFERS.with_borrow_mut(|spare| {
        if spare.len() < MAX_SPARE_BUFFERS_PER_THREAD {
            spare.push(buffer);
        }
    });
}

/// A stream with wide reads. `is_write_vectored` is not forwarded, on purpose: h2 must not use vectored writes here
/// (docs/decisions/0005). No `Debug`: the unread bytes hold tokens.
pub(crate) struct WideReads<S> {
    stream: S,
    unread: Option<Unread>,
}

/// Bytes that were read from the stream and not yet by the reader.
struct Unread {
    buffer: ReadBuffer,
    from: usize,
    to: usize,
}

impl<S> WideReads<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, unread: None }
    }
}

impl Unread {
    /// Copies as many bytes as fit; returns the rest, if any.
    fn copy_into(mut self, target: &mut ReadBuf<'_>) -> Option<Self> {
        let bytes = self.buffer.get(self.from..self.to).unwrap_or_default();
        let copied = bytes.len().min(target.remaining());
        target.put_slice(bytes.get(..copied).unwrap_or_default());
        self.from += copied;
        if self.from < self.to {
            return Some(self);
        }
        return_buffer(self.buffer);
        None
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WideReads<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(unread) = this.unread.take() {
            this.unread = unread.copy_into(target);
            return Poll::Ready(Ok(()));
        }
        if target.remaining() >= READ_BUFFER_BYTES {
            return Pin::new(&mut this.stream).poll_read(context, target);
        }
        let mut buffer = take_buffer();
        let mut read = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut this.stream).poll_read(context, &mut read);
        let to = read.filled().len();
        // With no bytes read, `polled` is pending, an error or the end of the stream, and the buffer goes back.
        this.unread = Unread { buffer, from: 0, to }.copy_into(target);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WideReads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn every_byte_arrives_once_and_in_order_for_any_size_of_read() {
        let sent: Vec<u8> = (0..200_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for room in
            [1, 9, 1000, 8192, READ_BUFFER_BYTES - 1, READ_BUFFER_BYTES, READ_BUFFER_BYTES + 1, 100_000]
        {
            let (mut here, there) = tokio::io::duplex(70_000);
            let bytes = sent.clone();
            let writing = tokio::spawn(async move {
                here.write_all(&bytes).await.unwrap();
                here.shutdown().await.unwrap();
                // Writes in the other direction arrive.
                let mut answer = [0; 2];
                here.read_exact(&mut answer).await.unwrap();
                answer
            });
            let mut wide = WideReads::new(there);
            let (mut received, mut part) = (Vec::new(), vec![0; room]);
            loop {
                match wide.read(&mut part).await.unwrap() {
                    0 => break,
                    read => received.extend_from_slice(&part[..read]),
                }
            }
            assert!(received == sent, "{room}");
            wide.write_all(b"ok").await.unwrap();
            assert_eq!(&writing.await.unwrap(), b"ok");
            assert!(wide.unread.is_none(), "an idle connection holds no buffer");
        }
        assert!(SPARE_BUFFERS.with_borrow(Vec::len) <= MAX_SPARE_BUFFERS_PER_THREAD);
    }

    #[tokio::test]
    async fn an_error_of_the_stream_comes_after_the_bytes_before_it() {
        let mut wide = WideReads::new(six_bytes());
        let mut part = [0; 4];
        assert_eq!(wide.read(&mut part).await.unwrap(), 4);
        assert_eq!(wide.read(&mut part).await.unwrap(), 2);
        assert_eq!(wide.read(&mut part).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    /// Six bytes, then a reset.
    fn six_bytes() -> impl AsyncRead + Unpin {
        struct Six(bool);
        impl AsyncRead for Six {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                if std::mem::replace(&mut self.0, true) {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                buffer.put_slice(b"sixsix");
                Poll::Ready(Ok(()))
            }
        }
        Six(false)
    }
}
