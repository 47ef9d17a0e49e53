//! Answers of our own on their way to a client that may be slow, or may not read at all.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::sink::Sink;
use super::throttle::Throttle;
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
    throttle: Option<Throttle>,
    /// Body bytes that the client's side has taken.
    pub sent: u64,
}

impl<'c> Paced<'c> {
    /// An aggregate may use its deadline up, so that its answer begins only then: `stall` is added to it.
    pub fn new(sink: Sink<'c>, timer: &'c mut LazyTimer, stall: Duration, deadline: Option<Instant>) -> Self {
        let end = deadline.map(|deadline| deadline.max(Instant::now()) + stall);
        Self { sink, timer, stall, end, throttle: None, sent: 0 }
    }

    /// With so many bytes per second, when a fault wants it slow.
    pub fn throttled(mut self, bytes_per_second: Option<u64>) -> Self {
        self.throttle = bytes_per_second.map(Throttle::new);
        self
    }

    /// Writes all of `data` and flushes it.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), Reason> {
        let mut rest = data;
        while !rest.is_empty() {
            let most = self.throttle.as_ref().map_or(rest.len(), Throttle::piece).min(rest.len());
            let n = self.step(|sink, cx| sink.poll_write(cx, &rest[..most])).await?;
            self.sent += n as u64;
            rest = &rest[n..];
            if let Some(next) = self.throttle.as_mut().map(|throttle| throttle.sent(n, Instant::now())) {
                self.step(|sink, cx| sink.poll_flush(cx)).await?;
                self.pause(next).await?;
            }
        }
        self.step(|sink, cx| sink.poll_flush(cx)).await
    }

    /// Writes the last of the body and ends it.
    pub async fn send_rest(&mut self, data: &[u8]) -> Result<(), Reason> {
        self.write(data).await?;
        self.sink.finish(None).map_err(|_| Reason::ClientGone)?;
        self.step(|sink, cx| sink.poll_flush(cx)).await
    }

    /// Waits until `next`, or as long as the end allows.
    async fn pause(&mut self, next: Instant) -> Result<(), Reason> {
        let end = self.end.unwrap_or(next);
        tokio::time::sleep_until(next.min(end)).await;
        if next > end { Err(Reason::DeadlineBody) } else { Ok(()) }
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
