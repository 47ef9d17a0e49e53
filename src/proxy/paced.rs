//! Answers of our own on their way to a client that may be slow, or may not read at all.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::sink::Sink;
use super::timer::{LazyTimer, until};
use crate::telemetry::Reason;

/// Writes to a client within two limits: the time without any progress, and an end that progress does not move.
pub struct Paced<'c> {
    sink: Sink<'c>,
    timer: &'c mut LazyTimer,
    stall: Duration,
    /// `None` on a route without a deadline: a client that reads something now and then may do so for ever, as it may with an
    /// answer of an upstream's.
    end: Option<Instant>,
    /// Body bytes that the client's side has taken.
    pub sent: u64,
}

impl<'c> Paced<'c> {
    /// An aggregate may use its deadline up, so that its answer begins only then: `stall` is added to it.
    pub fn new(sink: Sink<'c>, timer: &'c mut LazyTimer, stall: Duration, deadline: Option<Instant>) -> Self {
        let end = deadline.map(|deadline| deadline.max(Instant::now()) + stall);
        Self { sink, timer, stall, end, sent: 0 }
    }

    /// Writes all of `data` and flushes it.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), Reason> {
        let mut rest = data;
        while !rest.is_empty() {
            let n = self.step(|sink, cx| sink.poll_write(cx, rest)).await?;
            self.sent += n as u64;
            rest = &rest[n..];
        }
        self.step(|sink, cx| sink.poll_flush(cx)).await
    }

    /// Writes the last of the body and ends it.
    pub async fn send_rest(&mut self, data: &[u8]) -> Result<(), Reason> {
        self.write(data).await?;
        self.sink.finish(None).map_err(|_| Reason::ClientGone)?;
        self.step(|sink, cx| sink.poll_flush(cx)).await
    }

    async fn step<T>(
        &mut self,
        mut step: impl FnMut(&mut Sink<'c>, &mut std::task::Context<'_>) -> Poll<std::io::Result<T>>,
    ) -> Result<T, Reason> {
        let stall = Instant::now() + self.stall;
        let limit = self.end.map_or(stall, |end| end.min(stall));
        let Self { sink, timer, .. } = self;
        match until(limit, timer, poll_fn(|cx| step(sink, cx))).await {
            Some(Ok(done)) => Ok(done),
            Some(Err(_)) => Err(Reason::ClientGone),
            None => Err(Reason::WriteTimeout),
        }
    }
}
