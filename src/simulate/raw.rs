//! Answers that no HTTP library would send: written to the TCP stream itself.
//!
//! A connection's stream is lent to hyper. When a request is to meet such a fault, its service fails, hyper gives up
//! the connection, the stream comes back here, and the broken bytes are written. On HTTP/2 the failure only resets the
//! stream, which is as much as one request may break there.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::settings::FaultKind;
use super::workers::Held;

/// Writing a broken answer to a client that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The bytes in place of an answer, and how the connection ends after them.
#[derive(Debug, PartialEq, Eq)]
pub struct RawAnswer {
    pub bytes: Bytes,
    /// So many bytes of the head at a time.
    pub slow_head: Option<SlowHead>,
    pub end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowHead {
    bytes: usize,
    interval: Duration,
    length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// FIN.
    Close,
    /// RST: `SO_LINGER` of zero throws away what the peer has not taken yet, too.
    Reset,
}

impl RawAnswer {
    /// `None`: this fault needs no broken bytes and is made from an ordinary answer.
    pub fn for_fault(kind: FaultKind, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let half = &body[..body.len() / 2];
        let (bytes, end) = match kind {
            FaultKind::ResetBeforeHead => (Bytes::new(), End::Reset),
            FaultKind::ResetMidBody => (message(status, headers, body.len(), half), End::Reset),
            FaultKind::Truncate => (message(status, headers, body.len(), half), End::Close),
            FaultKind::LengthTooShort => (message(status, headers, half.len(), body), End::Close),
            FaultKind::Garbage => (Bytes::from_static(b"\x00\xffthis is not HTTP\r\n\r\n"), End::Close),
            FaultKind::SlowHead { bytes, interval } => {
                return Some(Self::slow(bytes.get(), interval, status, headers, body));
            }
            FaultKind::StallBeforeHead | FaultKind::StallMidBody | FaultKind::Drip { .. } | FaultKind::BadJson => {
                return None;
            }
        };
        Some(Self { bytes, slow_head: None, end })
    }

    fn slow(bytes: usize, interval: Duration, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let whole = message(status, headers, body.len(), body);
        let length = whole.len() - body.len();
        Self { bytes: whole, slow_head: Some(SlowHead { bytes, interval, length }), end: End::Close }
    }

    /// How long a slow head takes: what one must wait that cannot be sent byte by byte.
    pub fn time_of_head(&self) -> Duration {
        let pauses = self.slow_head.map(|slow| (slow.interval, slow.length.div_ceil(slow.bytes)));
        pauses.map_or(Duration::ZERO, |(interval, pauses)| {
            interval.saturating_mul(u32::try_from(pauses).unwrap_or(u32::MAX))
        })
    }

    /// Writes the bytes and ends the connection.
    pub async fn send(mut self, mut stream: TcpStream) -> io::Result<()> {
        self.send_slow_head(&mut stream).await?;
        let written = tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&self.bytes)).await;
        match self.end {
            End::Reset => {
                if !self.bytes.is_empty() {
                    // A reset overtakes what lies in the peer's receive buffer on some systems; the peer is given the
                    // time to take the first half, or the fault would look like the one before the head.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                stream.set_zero_linger()?;
            }
            End::Close => {
                stream.shutdown().await?;
                drain(&mut stream).await;
            }
        }
        written?
    }
}

impl RawAnswer {
    /// The head in its pieces, if it is slow. A client that leaves ends it: the second piece after that fails.
    async fn send_slow_head(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let Some(SlowHead { bytes, interval, length }) = self.slow_head else { return Ok(()) };
        let mut head = self.bytes.split_to(length);
        while !head.is_empty() {
            let mut piece = head.split_to(bytes.min(head.len()));
            tokio::time::timeout(WRITE_TIMEOUT, stream.write_all_buf(&mut piece)).await??;
            tokio::time::sleep(interval).await;
        }
        Ok(())
    }
}

/// Reads until the client closes: closing with unread bytes would turn the FIN into a RST.
async fn drain(stream: &mut TcpStream) {
    let discard = async { tokio::io::copy(stream, &mut tokio::io::sink()).await };
    // A client that neither reads nor closes is left after this time.
    let _ = tokio::time::timeout(Duration::from_secs(1), discard).await;
}

fn message(status: StatusCode, headers: &HeaderMap, length: usize, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.extend_from_slice(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n").as_bytes());
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out.freeze()
}

/// The error with which a service gives up a connection (HTTP/1) or stream (HTTP/2).
#[derive(Debug)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a simulated fault")
    }
}

impl std::error::Error for Broken {}

/// What service, stream and connection task share about one connection.
#[derive(Debug, Default)]
pub struct Handback(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    answer: Option<(RawAnswer, Held)>,
    stream: Option<TcpStream>,
}

impl Handback {
    /// What to write once the stream is back, and what it holds until then.
    pub fn set_answer(&self, answer: RawAnswer, held: Held) {
        self.lock().answer = Some((answer, held));
    }

    /// After hyper: the broken answer to write, what it holds, and the stream to write it to.
    pub fn take(&self) -> Option<(RawAnswer, Held, TcpStream)> {
        let mut shared = self.lock();
        let (answer, held) = shared.answer.take()?;
        Some((answer, held, shared.stream.take()?))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        // Nothing panics while it is held; two `Option`s are whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that returns to its [`Handback`] when hyper drops it.
#[derive(Debug)]
pub struct LentStream {
    /// Taken on drop only.
    stream: Option<TcpStream>,
    handback: Arc<Handback>,
}

impl LentStream {
    pub fn new(stream: TcpStream, handback: Arc<Handback>) -> Self {
        Self { stream: Some(stream), handback }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("only drop takes the stream"))
    }
}

impl Drop for LentStream {
    fn drop(&mut self) {
        self.handback.lock().stream = self.stream.take();
    }
}

impl AsyncRead for LentStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for LentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn each_raw_fault_has_its_bytes_and_its_end() {
        let answer = |kind| RawAnswer::for_fault(kind, StatusCode::OK, &HeaderMap::new(), b"abcd");
        let expect = |text: &'static str, end| {
            Some(RawAnswer { bytes: Bytes::from_static(text.as_bytes()), slow_head: None, end })
        };

        assert_eq!(answer(FaultKind::ResetBeforeHead), expect("", End::Reset));
        assert_eq!(answer(FaultKind::Truncate), expect("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab", End::Close));
        assert_eq!(
            answer(FaultKind::LengthTooShort),
            expect("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabcd", End::Close)
        );
        assert_eq!(answer(FaultKind::StallMidBody), None);
        let interval = Duration::from_millis(10);
        let slow = answer(FaultKind::SlowHead { bytes: NonZeroUsize::new(10).unwrap(), interval }).unwrap();
        assert_eq!(slow.bytes, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd");
        assert_eq!(slow.time_of_head(), 4 * interval, "38 bytes");
    }
}
