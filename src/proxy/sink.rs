//! Where a message's body goes: to the client, to the upstream, or nowhere (the client has left, the work goes on).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::io::Io;
use crate::message::chunked::{CHUNK_END, LAST_CHUNK, write_chunk_header, write_last_chunk};
use crate::message::head::Fields;
use crate::message::head::http2::to_http_trailers;
use crate::tap::Tap;

/// Bytes collected before a write: a usual small answer leaves in one piece, head and body.
const COALESCE: usize = 16 * 1024;
/// HTTP/2 data is handed over in pieces of at most this size, so that little is copied ahead of the peer's window.
const H2_PIECE: usize = 64 * 1024;

/// A body being written. `written` counts body bytes that were accepted, without framing.
#[derive(Debug)]
pub enum Sink<'c> {
    Http1(Http1Sink<'c>),
    Http2(Http2Sink),
    /// Kept: an answer that is looked into before anything is sent, a request's body that is.
    Memory(&'c mut Vec<u8>),
    /// Takes everything and keeps what the tap takes.
    Copy(&'c Tap),
    /// Takes everything and keeps nothing.
    Discard,
}

impl Sink<'_> {
    /// Takes some of `data` (not empty), ready with how much. Small pieces may stay in memory until `poll_flush`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Sink::Http1(sink) => sink.poll_write(cx, data),
            Sink::Http2(sink) => sink.poll_write(cx, data),
            Sink::Memory(kept) => {
                kept.extend_from_slice(data);
                Poll::Ready(Ok(data.len()))
            }
            Sink::Copy(tap) => {
                tap.copy(data);
                Poll::Ready(Ok(data.len()))
            }
            Sink::Discard => Poll::Ready(Ok(data.len())),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Sink::Http1(sink) => sink.poll_flush(cx),
            Sink::Http2(_) | Sink::Memory(_) | Sink::Copy(_) | Sink::Discard => Poll::Ready(Ok(())),
        }
    }

    /// Marks the end of the body; what is still in memory leaves with the next flush.
    pub fn finish(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        match self {
            Sink::Http1(sink) => sink.finish(trailers),
            Sink::Http2(sink) => sink.finish(trailers),
            Sink::Copy(tap) => {
                tap.complete();
                Ok(())
            }
            Sink::Memory(_) | Sink::Discard => Ok(()),
        }
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    pub fn has_unflushed(&self) -> bool {
        matches!(self, Sink::Http1(sink) if sink.pending() > 0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As many bytes as the head announced, or none.
    Length,
    Chunked,
    /// Until we close (HTTP/1.0 clients).
    UntilClose,
}

/// An HTTP/1 message being written: `out` holds the head and small body pieces until they are flushed.
#[derive(Debug)]
pub struct Http1Sink<'c> {
    io: &'c Io,
    out: &'c mut Vec<u8>,
    sent: usize,
    framing: Framing,
    /// Body bytes still owed to the chunk whose header was written.
    chunk_left: usize,
}

impl<'c> Http1Sink<'c> {
    /// `out` already holds the head.
    pub fn new(io: &'c Io, out: &'c mut Vec<u8>, framing: Framing) -> Self {
        Self { io, out, sent: 0, framing, chunk_left: 0 }
    }

    fn pending(&self) -> usize {
        self.out.len() - self.sent
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.framing == Framing::Chunked && self.chunk_left == 0 {
            // The whole of `data` becomes one chunk; the caller offers the rest of it again until it is taken.
            write_chunk_header(self.out, data.len());
            self.chunk_left = data.len();
        }
        let taken = if self.pending() + data.len() <= COALESCE {
            self.out.extend_from_slice(data);
            data.len()
        } else {
            ready!(self.poll_write_through(cx, data))?
        };
        self.close_chunk(taken);
        Poll::Ready(Ok(taken))
    }

    /// Writes what is in memory and `data` behind it, until at least one byte of `data` is taken.
    fn poll_write_through(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // Inside a chunk no more than the chunk may follow.
        let data = if self.framing == Framing::Chunked { &data[..data.len().min(self.chunk_left)] } else { data };
        loop {
            let pending = self.pending();
            let n = ready!(self.io.poll_write(cx, &self.out[self.sent..], data))?;
            if n >= pending {
                self.out.clear();
                self.sent = 0;
                if n > pending {
                    return Poll::Ready(Ok(n - pending));
                }
            } else {
                self.sent += n;
            }
        }
    }

    fn close_chunk(&mut self, taken: usize) {
        if self.framing == Framing::Chunked {
            self.chunk_left -= taken;
            if self.chunk_left == 0 {
                self.out.extend_from_slice(CHUNK_END);
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending() > 0 {
            self.sent += ready!(self.io.poll_write(cx, &self.out[self.sent..], &[]))?;
        }
        self.out.clear();
        self.sent = 0;
        self.io.poll_flush(cx)
    }

    fn finish(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        if self.framing == Framing::Chunked {
            match trailers {
                Some(trailers) => write_last_chunk(self.out, trailers),
                None => self.out.extend_from_slice(LAST_CHUNK),
            }
        }
        Ok(())
    }
}

/// One direction of an HTTP/2 stream. Dropping it unfinished resets the stream.
#[derive(Debug)]
pub struct Http2Sink {
    stream: h2::SendStream<Bytes>,
    finished: bool,
}

impl Http2Sink {
    pub fn new(stream: h2::SendStream<Bytes>, finished: bool) -> Self {
        Self { stream, finished }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let want = data.len().min(H2_PIECE);
        self.stream.reserve_capacity(want);
        let granted = match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(cx)) {
                Some(granted) => granted.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            granted => granted,
        };
        let n = granted.min(want);
        if n == 0 {
            // The window shrank again before we came to use it.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.stream.send_data(Bytes::copy_from_slice(&data[..n]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(n))
    }

    fn finish(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        match trailers {
            Some(trailers) => self.stream.send_trailers(to_http_trailers(trailers)),
            None => self.stream.send_data(Bytes::new(), true),
        }
        .map_err(io::Error::other)
    }

    /// Ready when the peer has reset the stream or the connection has ended.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }
}

impl Drop for Http2Sink {
    fn drop(&mut self) {
        if !self.finished {
            self.stream.send_reset(h2::Reason::CANCEL);
        }
    }
}
