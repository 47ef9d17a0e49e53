//! Message bodies on the way through: where they come from (`Source`) and where they go (`Sink` in `sink.rs`).
//!
//! A source lends what it has read and is told how much was taken, so that a body passes through one buffer, and
//! nothing is read while the other side does not take what is there: that is the back-pressure.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use pingora::protocols::http::v2::client::Http2Session;

use super::buffer::{Buf, SMALL};
use super::io::Io;
use crate::message::chunked::Decoder;
use crate::message::head::http2::trailers_from_http;
use crate::message::head::{Body, Fields, ResponseBody};

/// Why a body could not be read to its end.
#[derive(Debug)]
pub enum BodyError {
    /// The peer closed the connection inside the body.
    Truncated,
    /// The peer broke the connection or the stream.
    Reset(String),
    /// The framing is not valid.
    Malformed(&'static str),
}

impl From<io::Error> for BodyError {
    fn from(error: io::Error) -> Self {
        BodyError::Reset(error.to_string())
    }
}

/// A body being read.
#[derive(Debug)]
pub enum Source<'c> {
    Http1(Http1Source<'c>),
    /// A request of an HTTP/2 client.
    Http2(Http2Source),
    /// An answer of an HTTP/2 upstream.
    Http2Answer(Http2Answer),
    /// A request of our own: what is left of its body. Nobody can leave here.
    Memory(Bytes),
}

impl Source<'_> {
    /// The bytes that are there, without waiting; `Ready(0)` at the end of the body.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        match self {
            Source::Http1(source) => source.poll_fill(cx),
            Source::Http2(source) => source.poll_fill(cx),
            Source::Http2Answer(source) => source.poll_fill(cx),
            Source::Memory(left) => Poll::Ready(Ok(left.len())),
        }
    }

    /// Like `poll_fill`, but only from what is already in memory: `None` when it would have to read.
    pub fn fill_from_memory(&mut self) -> Result<Option<usize>, BodyError> {
        match self {
            Source::Http1(source) => source.decode(),
            Source::Http2(source) => Ok((!source.chunk.is_empty()).then_some(source.chunk.len())),
            Source::Http2Answer(source) => Ok((!source.chunk.is_empty()).then_some(source.chunk.len())),
            Source::Memory(left) => Ok(Some(left.len())),
        }
    }

    pub fn data(&self) -> &[u8] {
        match self {
            Source::Http1(source) => &source.buf.filled()[..source.available],
            Source::Http2(source) => &source.chunk,
            Source::Http2Answer(source) => &source.chunk,
            Source::Memory(left) => left,
        }
    }

    pub fn consume(&mut self, n: usize) {
        match self {
            Source::Http1(source) => source.consume(n),
            Source::Http2(source) => source.consume(n),
            Source::Http2Answer(source) => source.chunk.advance(n),
            Source::Memory(left) => left.advance(n),
        }
    }

    /// True when the whole body has been read (and, without a body, at once).
    pub fn is_done(&self) -> bool {
        match self {
            Source::Http1(source) => source.available == 0 && source.state.is_done(),
            Source::Http2(source) => source.done,
            Source::Http2Answer(source) => source.done && source.chunk.is_empty(),
            Source::Memory(left) => left.is_empty(),
        }
    }

    pub fn trailers(&self) -> Option<&Fields> {
        let trailers = match self {
            Source::Http1(source) => match &source.state {
                State::Chunked(decoder) => decoder.trailers(),
                _ => return None,
            },
            Source::Http2(source) => source.trailers.as_ref()?,
            Source::Http2Answer(source) => source.trailers.as_ref()?,
            Source::Memory(_) => return None,
        };
        (!trailers.is_empty()).then_some(trailers)
    }

    /// Ready when the peer has gone: closed, broke, or (HTTP/2) reset its stream. To be polled only when nothing else
    /// reads from this side. Bytes of a next request may be read on the way; they stay in the buffer.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Source::Http1(source) => source.poll_gone(cx),
            Source::Http2(source) => source.poll_gone(cx),
            Source::Http2Answer(_) | Source::Memory(_) => Poll::Pending,
        }
    }
}

#[derive(Debug)]
pub struct Http1Source<'c> {
    io: &'c Io,
    buf: &'c mut Buf,
    state: State,
    /// Bytes of the body at the front of `buf`.
    available: usize,
    /// A read has filled a small buffer: more is to come, and large buffers take it with fewer calls.
    large: bool,
}

#[derive(Debug)]
enum State {
    Length(u64),
    Chunked(Box<Decoder>),
    /// Until the peer closes; true once it has.
    UntilClose(bool),
}

impl State {
    fn is_done(&self) -> bool {
        match self {
            State::Length(left) => *left == 0,
            State::Chunked(decoder) => decoder.is_done(),
            State::UntilClose(closed) => *closed,
        }
    }
}

impl<'c> Http1Source<'c> {
    pub fn of_request(io: &'c Io, buf: &'c mut Buf, body: Body) -> Self {
        let state = match body {
            Body::None => State::Length(0),
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Chunked(Box::default()),
        };
        Self { io, buf, state, available: 0, large: false }
    }

    pub fn of_response(io: &'c Io, buf: &'c mut Buf, body: ResponseBody) -> Self {
        let state = match body {
            ResponseBody::None => State::Length(0),
            ResponseBody::Length(length) => State::Length(length),
            ResponseBody::Chunked => State::Chunked(Box::default()),
            ResponseBody::UntilClose => State::UntilClose(false),
        };
        Self { io, buf, state, available: 0, large: false }
    }

    /// The connection and what was read of it beyond the body.
    pub fn into_parts(self) -> (&'c Io, &'c mut Buf) {
        (self.io, self.buf)
    }

    /// Finds body bytes in the buffer; `None` when more has to be read first, `Some(0)` at the end.
    fn decode(&mut self) -> Result<Option<usize>, BodyError> {
        if self.available > 0 {
            return Ok(Some(self.available));
        }
        match &mut self.state {
            State::Length(left) => {
                self.available = self.buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            }
            State::UntilClose(_) => self.available = self.buf.len(),
            State::Chunked(decoder) => {
                while !decoder.is_done() && !self.buf.is_empty() {
                    let step = decoder.decode(self.buf.filled()).map_err(|e| BodyError::Malformed(e.detail()))?;
                    self.available = step.data.len();
                    // What lies before the data (or all of it, when there is none) is framing.
                    self.buf.consume(if step.data.is_empty() { step.consumed } else { step.data.start });
                    if self.available > 0 {
                        break;
                    }
                }
            }
        }
        if self.available > 0 || self.state.is_done() { Ok(Some(self.available)) } else { Ok(None) }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        loop {
            if let Some(n) = self.decode()? {
                return Poll::Ready(Ok(n));
            }
            if self.large {
                self.buf.enlarge();
            }
            // Nothing is held while a slow sender is waited for.
            if ready!(self.io.poll_first_read(cx, self.buf))? == 0 {
                match &mut self.state {
                    State::UntilClose(closed) => *closed = true,
                    _ => return Poll::Ready(Err(BodyError::Truncated)),
                }
            }
            self.large |= self.buf.len() == self.buf.capacity();
        }
    }

    fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.available);
        self.available -= n;
        self.buf.consume(n);
        if let State::Length(left) = &mut self.state {
            *left -= n as u64;
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // One buffer of pipelined requests is enough; beyond it the client's leaving shows when we write.
        if self.buf.len() >= SMALL {
            return Poll::Pending;
        }
        match ready!(self.io.poll_first_read(cx, self.buf)) {
            Ok(n) if n > 0 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

/// The sending half of an HTTP/2 stream whose answer has not begun: the exchange answers through it while the
/// request side watches it for the client's reset.
pub type SharedRespond = Arc<Mutex<h2::server::SendResponse<Bytes>>>;

/// A request body that arrives in HTTP/2 frames.
#[derive(Debug)]
pub struct Http2Source {
    stream: h2::RecvStream,
    respond: SharedRespond,
    chunk: Bytes,
    trailers: Option<Fields>,
    data_ended: bool,
    done: bool,
}

impl Http2Source {
    pub fn new(stream: h2::RecvStream, respond: SharedRespond) -> Self {
        let done = stream.is_end_stream();
        Self { stream, respond, chunk: Bytes::new(), trailers: None, data_ended: done, done }
    }

    /// The client's reset, as long as no answer has begun; after that the sink sees it.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut respond = self.respond.lock().unwrap_or_else(PoisonError::into_inner);
        match ready!(respond.poll_reset(cx)) {
            Ok(_) => Poll::Ready(()),
            Err(error) if error.is_io() || error.is_go_away() || error.is_reset() => Poll::Ready(()),
            Err(_) => Poll::Pending,
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        loop {
            if !self.chunk.is_empty() {
                return Poll::Ready(Ok(self.chunk.len()));
            }
            if self.done {
                return Poll::Ready(Ok(0));
            }
            if !self.data_ended {
                match ready!(self.stream.poll_data(cx)) {
                    Some(Ok(chunk)) => self.chunk = chunk,
                    Some(Err(error)) => return Poll::Ready(Err(BodyError::Reset(error.to_string()))),
                    None => self.data_ended = true,
                }
                continue;
            }
            match ready!(self.stream.poll_trailers(cx)) {
                Ok(trailers) => {
                    self.trailers = trailers.map(|map| trailers_from_http(&map));
                    self.done = true;
                }
                Err(error) => return Poll::Ready(Err(BodyError::Reset(error.to_string()))),
            }
        }
    }

    fn consume(&mut self, n: usize) {
        self.chunk.advance(n);
        // The window opens only for what was passed on: back-pressure reaches the sender. An error here means that
        // the stream has ended, which the next poll reports.
        let _ = self.stream.flow_control().release_capacity(n);
    }
}

/// The answer of an HTTP/2 upstream. Dropping it unfinished resets the stream.
#[derive(Debug)]
pub struct Http2Answer {
    session: Session,
    chunk: Bytes,
    trailers: Option<Fields>,
    data_ended: bool,
    done: bool,
}

/// `Http2Session` has no `Debug` of its own.
struct Session(Box<Http2Session>);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http2Session")
    }
}

impl Http2Answer {
    /// `session` has read the head of the answer.
    pub fn new(session: Box<Http2Session>) -> Self {
        Self { session: Session(session), chunk: Bytes::new(), trailers: None, data_ended: false, done: false }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        loop {
            if !self.chunk.is_empty() {
                return Poll::Ready(Ok(self.chunk.len()));
            }
            if self.done {
                return Poll::Ready(Ok(0));
            }
            if !self.data_ended {
                match ready!(self.session.0.poll_read_response_body(cx)) {
                    Some(Ok(chunk)) => self.chunk = chunk,
                    Some(Err(error)) => return Poll::Ready(Err(BodyError::Reset(error.to_string()))),
                    None => self.data_ended = true,
                }
                continue;
            }
            // Reading trailers keeps no state between polls, so that a new future for each poll loses nothing.
            match ready!(pin!(self.session.0.read_trailers()).poll(cx)) {
                Ok(trailers) => {
                    self.trailers = trailers.map(|map| trailers_from_http(&map));
                    self.done = true;
                }
                Err(error) => return Poll::Ready(Err(BodyError::Reset(error.to_string()))),
            }
        }
    }
}

/// Waits for body bytes: `Ok(0)` at the end.
pub async fn fill(source: &mut Source<'_>) -> Result<usize, BodyError> {
    poll_fn(|cx| source.poll_fill(cx)).await
}
