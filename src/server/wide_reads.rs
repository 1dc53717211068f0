//! Reads that take what has arrived, and not only as much as the reader has room for.
//!
//! h2 reads into the 8 KiB that are unread of its buffer, so a peer that sends many requests at once, or a large one, costs a
//! system call for each piece. Here one call takes up to [`READ_BUFFER_BYTES`] bytes. The room for them is lent by the thread, and only
//! while something is unread in it: a connection that is idle holds none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Two HTTP/2 frames of the largest size we accept, or some eighteen checks.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// How much room a thread keeps for the next reads.
const MAX_SPARE_BUFFERS_PER_THREAD: usize = 4;

type ReadBuffer = Box<[u8]>;

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<ReadBuffer>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> ReadBuffer {
    SPARE_BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; READ_BUFFER_BYTES].into())
}

fn return_buffer(room: ReadBuffer) {
    SPARE_BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < MAX_SPARE_BUFFERS_PER_THREAD {
            buffers.push(room);
        }
    });
}

/// A stream with reads of that kind; writes go through as they are. No `Debug`: what is unread holds tokens.
pub(crate) struct WideReads<S> {
    stream: S,
    unread: Option<Unread>,
}

/// What has been read and not been taken.
struct Unread {
    room: ReadBuffer,
    from: usize,
    to: usize,
}

impl<S> WideReads<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, unread: None }
    }
}

impl Unread {
    /// Hands over as much as there is room for; what then is unread, if anything.
    fn move_into(mut self, buffer: &mut ReadBuf<'_>) -> Option<Self> {
        let here = self.room.get(self.from..self.to).unwrap_or_default();
        let fits = here.len().min(buffer.remaining());
        buffer.put_slice(here.get(..fits).unwrap_or_default());
        self.from += fits;
        if self.from < self.to {
            return Some(self);
        }
        return_buffer(self.room);
        None
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WideReads<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(unread) = this.unread.take() {
            this.unread = unread.move_into(buffer);
            return Poll::Ready(Ok(()));
        }
        if buffer.remaining() >= READ_BUFFER_BYTES {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let mut room = take_buffer();
        let mut read = ReadBuf::new(&mut room);
        let polled = Pin::new(&mut this.stream).poll_read(context, &mut read);
        let to = read.filled().len();
        // Nothing at all is the stream's end, as for any reader.
        this.unread = Unread { room, from: 0, to }.move_into(buffer);
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
    async fn every_byte_arrives_once_and_in_order_whatever_the_reader_has_room_for() {
        let sent: Vec<u8> = (0..200_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for room in
            [1, 9, 1000, 8192, READ_BUFFER_BYTES - 1, READ_BUFFER_BYTES, READ_BUFFER_BYTES + 1, 100_000]
        {
            let (mut here, there) = tokio::io::duplex(70_000);
            let bytes = sent.clone();
            let writing = tokio::spawn(async move {
                here.write_all(&bytes).await.unwrap();
                here.shutdown().await.unwrap();
                // What is written the other way goes through.
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
            assert!(wide.unread.is_none(), "an idle connection holds no room");
        }
        assert!(SPARE_BUFFERS.with_borrow(Vec::len) <= MAX_SPARE_BUFFERS_PER_THREAD);
    }

    #[tokio::test]
    async fn a_stream_that_fails_says_so_after_what_it_had_sent() {
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
