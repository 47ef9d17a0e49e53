//! After a 101: bytes flow both ways until one side ends or nothing moves for the route's idle limit.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::buffer::Buf;
use super::io::Io;
use super::timer::LazyTimer;
use crate::limits::Permits;

/// The upstream's side of an upgraded connection, and what it holds while it lives.
#[derive(Debug)]
pub struct Switch {
    io: Io,
    /// What the upstream sent behind its 101.
    buf: Buf,
    idle_timeout: Duration,
    held: Option<Permits>,
}

/// How an upgraded connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides have closed, or one has broken the connection.
    Closed,
    Idle,
}

impl Switch {
    pub fn new(io: Io, buf: Buf, idle_timeout: Duration) -> Self {
        Self { io, buf, idle_timeout, held: None }
    }

    /// Keeps the request's permits until the connection ends.
    pub fn hold(&mut self, permits: Permits) {
        self.held = Some(permits);
    }

    /// Moves bytes until the end. `buf` holds what the client sent behind its request.
    pub async fn run(mut self, client: &Io, buf: &mut Buf, timer: &mut LazyTimer) -> Moved {
        let mut up = Direction::default();
        let mut down = Direction::default();
        let mut active = Instant::now();
        let end = poll_fn(|cx| {
            let moved_up = up.poll(cx, client, buf, &self.io);
            let moved_down = down.poll(cx, &self.io, &mut self.buf, client);
            match (moved_up, moved_down) {
                (Err(_), _) | (_, Err(_)) => return Poll::Ready(TunnelEnd::Closed),
                (Ok(up), Ok(down)) if up || down => active = Instant::now(),
                _ => {}
            }
            if up.closed && down.closed {
                return Poll::Ready(TunnelEnd::Closed);
            }
            timer.poll_until(cx, active + self.idle_timeout).map(|()| TunnelEnd::Idle)
        })
        .await;
        Moved { up: up.bytes, down: down.bytes, end }
    }
}

/// What went through an upgraded connection.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    /// From the client.
    pub up: u64,
    pub down: u64,
    pub end: TunnelEnd,
}

#[derive(Debug, Default)]
struct Direction {
    bytes: u64,
    /// The sender has closed, and the receiver has been told so.
    closed: bool,
    ended: bool,
}

impl Direction {
    /// Moves what can be moved; true when anything did.
    fn poll(&mut self, cx: &mut Context<'_>, from: &Io, buf: &mut Buf, to: &Io) -> io::Result<bool> {
        let mut moved = false;
        loop {
            match self.poll_step(cx, from, buf, to) {
                Poll::Ready(Ok(true)) => moved = true,
                Poll::Ready(Ok(false)) | Poll::Pending => return Ok(moved),
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>, from: &Io, buf: &mut Buf, to: &Io) -> Poll<io::Result<bool>> {
        if self.closed {
            return Poll::Ready(Ok(false));
        }
        if !buf.is_empty() {
            let n = ready!(to.poll_write(cx, buf.filled(), &[]))?;
            buf.consume(n);
            self.bytes += n as u64;
            return Poll::Ready(Ok(true));
        }
        ready!(to.poll_flush(cx))?;
        if self.ended {
            ready!(to.poll_shutdown(cx))?;
            self.closed = true;
            return Poll::Ready(Ok(true));
        }
        // An idle tunnel owns no buffers either.
        if ready!(from.poll_first_read(cx, buf))? == 0 {
            self.ended = true;
        }
        Poll::Ready(Ok(true))
    }
}
