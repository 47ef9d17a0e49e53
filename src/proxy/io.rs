//! A pingora stream that can be read and written through a shared reference.
//!
//! An exchange reads and writes the same connection at once from one task. Splitting the stream would cost an
//! allocation for each request; a lock that nobody else ever holds costs a few nanoseconds.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use pingora::protocols::Stream;
use tokio::io::ReadBuf;

use super::buffer::Buf;

#[derive(Debug)]
pub struct Io {
    stream: Mutex<Stream>,
}

impl Io {
    pub fn new(stream: Stream) -> Self {
        Self { stream: Mutex::new(stream) }
    }

    pub fn into_stream(self) -> Stream {
        self.stream.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads once into `buf`; 0 means that the peer has closed its side.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<usize>> {
        let mut stream = self.lock();
        let mut space = ReadBuf::new(buf.space());
        ready!(Pin::new(&mut **stream).poll_read(cx, &mut space))?;
        let n = space.filled().len();
        buf.advance(n);
        Poll::Ready(Ok(n))
    }

    /// Reads like `poll_read`, but keeps no empty buffer while it waits: a thousand requests that wait for a slow upstream
    /// hold none.
    pub fn poll_first_read(&self, cx: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<usize>> {
        let polled = self.poll_read(cx, buf);
        if polled.is_pending() {
            buf.release();
        }
        polled
    }

    /// Writes as much of `first` and then `second` as the socket takes at once.
    pub fn poll_write(&self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.lock();
        let stream = Pin::new(&mut **stream);
        let written = match (first.is_empty(), second.is_empty()) {
            (_, true) => ready!(stream.poll_write(cx, first))?,
            (true, _) => ready!(stream.poll_write(cx, second))?,
            _ => ready!(stream.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)]))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.lock()).poll_flush(cx)
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = poll_fn(|cx| self.poll_write(cx, bytes, &[])).await?;
            bytes = &bytes[n..];
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Closes the sending side (FIN; under TLS close_notify first).
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.lock()).poll_shutdown(cx)
    }

    /// True when an idle connection can still be used: open, and nothing unasked has arrived on it.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        let mut space = ReadBuf::new(&mut byte);
        Pin::new(&mut **self.lock()).poll_read(&mut Context::from_waker(Waker::noop()), &mut space).is_pending()
    }
}
