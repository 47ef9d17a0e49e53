//! One HTTP/1 connection: request after request, each with a bounded head, until somebody ends it.
//!
//! While a connection is idle it owns no buffer and no future of an exchange: the state of an exchange is boxed when its
//! first byte has come, and freed when its answer is complete.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::body::{Http1Source, Source};
use super::buffer::Buf;
use super::client::{Client, Http1Client};
use super::exchange::{After, Exchange, record_refused};
use super::io::Io;
use super::listener::ConnectionInfo;
use super::respond::{self, Failure};
use super::timer::{LazyTimer, until};
use super::workspace::{Desk, Lent};
use super::{Counted, Proxy};
use crate::message::head::{HeadError, Parsed, RequestHead, Version, parse_request};
use crate::shutdown::Phase;
use crate::telemetry::Reason;

/// After an answer that ends a connection, what the client still sends is read and thrown away for a while: closing a
/// socket with unread bytes would reset it, and the client could lose the answer (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// When the process drains, an idle connection is not closed under a request that may be on its way: the next one is
/// answered with `connection: close`. Clients that send nothing for this long lose nothing by the close. Below the time
/// that shutdown leaves to connections without requests.
const LAST_REQUEST: Duration = Duration::from_millis(250);

struct Connection<'p> {
    proxy: &'p Arc<Proxy>,
    info: ConnectionInfo,
    io: Io,
    buf: Buf,
    timer: LazyTimer,
    requests: u64,
}

/// Serves requests until the connection ends. `buf` holds what was already read.
pub async fn serve(proxy: &Arc<Proxy>, info: ConnectionInfo, io: Io, buf: Buf) {
    let timer = LazyTimer::new(Instant::now() + info.listener.timeouts().idle);
    let mut connection = Connection { proxy, info, io, buf, timer, requests: 0 };
    let mut draining = pin!(proxy.lifecycle.reached(Phase::Draining));
    loop {
        if !connection.wait_for_request(draining.as_mut()).await {
            break;
        }
        connection.requests += 1;
        match Box::pin(connection.serve_one()).await {
            After::KeepAlive => connection.buf.release(),
            After::Close => return Box::pin(connection.linger()).await,
            After::Abort | After::Switched => return,
        }
    }
    connection.close().await;
}

impl Connection<'_> {
    /// True when bytes of a next request are there; false when there will be none.
    async fn wait_for_request(&mut self, mut draining: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        if !self.buf.is_empty() {
            return true;
        }
        let idle = if self.requests == 0 { self.info.first_head() } else { self.info.listener.timeouts().idle };
        let limit = Instant::now() + idle;
        let mut limit = self.info.ends_at.map_or(limit, |ends_at| limit.min(ends_at));
        let mut leaving = !self.proxy.lifecycle.keep_alive();
        if leaving {
            limit = limit.min(Instant::now() + LAST_REQUEST);
        }
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.io.poll_first_read(cx, &mut self.buf) {
                return Poll::Ready(matches!(read, Ok(n) if n > 0));
            }
            if !leaving && draining.as_mut().poll(cx).is_ready() {
                leaving = true;
                limit = limit.min(Instant::now() + LAST_REQUEST);
            }
            self.timer.poll_until(cx, limit).map(|()| false)
        })
        .await
    }

    async fn serve_one(&mut self) -> After {
        let _counted = Counted::new(&self.proxy.open_requests);
        let started = Instant::now();
        let mut desk = Lent::new();
        let Desk { head, out, work } = &mut *desk;
        match self.read_head(head, started).await {
            Ok(true) => {}
            Ok(false) => return After::Abort,
            Err(failure) => return self.refuse(head, failure, started).await,
        }
        let keep_alive = head.keep_alive()
            && self.proxy.lifecycle.keep_alive()
            && self.requests < self.info.listener.config.max_requests_per_connection
            && self.info.ends_at.is_none_or(|ends_at| started < ends_at);
        let version = head.version;
        let body = head.framing();
        let Self { proxy, info, io, buf, timer, .. } = self;
        let source = Source::Http1(Http1Source::of_request(io, buf, body));
        let client = Client::Http1(Http1Client { io, out, version, keep_alive });
        let exchange = Exchange { proxy, connection: info, head, work, timer, started };
        exchange.run(source, client).await
    }

    /// Reads until the head is complete; false when the client left before it was.
    async fn read_head(&mut self, head: &mut RequestHead, started: Instant) -> Result<bool, Failure> {
        let limit = started + self.info.listener.timeouts().head;
        loop {
            match parse_request(self.buf.filled(), &self.info.listener.head_limits, head) {
                Ok(Parsed::Complete { head_len }) => {
                    self.buf.consume(head_len);
                    return Ok(true);
                }
                Ok(Parsed::Incomplete) => {}
                Err(error) => return Err(head_failure(error)),
            }
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = self.io.poll_read(cx, &mut self.buf) {
                    return Poll::Ready(Some(read));
                }
                self.timer.poll_until(cx, limit).map(|()| None)
            });
            match read.await {
                Some(Ok(n)) if n > 0 => {}
                Some(_) => return Ok(false),
                None => return Err(Reason::HeadTimeout.into()),
            }
        }
    }

    /// Answers a head that was not understood; the connection ends, since nobody knows where the next request begins.
    async fn refuse(&mut self, head: &RequestHead, failure: Failure, started: Instant) -> After {
        self.info.listener.metrics.head_errors.inc();
        let mut out = Vec::new();
        let http1 = Http1Client { io: &self.io, out: &mut out, version: Version::Http11, keep_alive: false };
        let mut client = Client::Http1(http1);
        let limit = Instant::now() + self.info.listener.timeouts().write;
        let send = respond::send_failure(&mut client, None, None, &failure);
        let sent = until(limit, &mut self.timer, send).await.and_then(Result::ok);
        record_refused(
            self.proxy,
            &self.info,
            head.version,
            &failure,
            sent.as_ref().map_or(0, |(_, bytes)| *bytes),
            started,
        );
        if sent.is_some() { After::Close } else { After::Abort }
    }

    /// Closes our side; false when that did not work. Under TLS this writes, for which a client that does not read must
    /// not make us wait for ever.
    async fn close(&mut self) -> bool {
        let shutdown = poll_fn(|cx| self.io.poll_shutdown(cx));
        until(Instant::now() + LINGER, &mut self.timer, shutdown).await.is_some_and(|closed| closed.is_ok())
    }

    async fn linger(mut self) {
        if !self.close().await {
            return;
        }
        let limit = Instant::now() + LINGER;
        let mut thrown_away = 0;
        while thrown_away < LINGER_BYTES {
            self.buf.consume(self.buf.len());
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = self.io.poll_first_read(cx, &mut self.buf) {
                    return Poll::Ready(read.ok());
                }
                self.timer.poll_until(cx, limit).map(|()| None)
            });
            match read.await {
                Some(n) if n > 0 => thrown_away += n,
                _ => return,
            }
        }
    }
}

pub fn head_failure(error: HeadError) -> Failure {
    let reason = match error {
        HeadError::TooLarge(_) => Reason::HeadTooLarge,
        HeadError::MethodRefused => Reason::MethodNotAllowed,
        HeadError::BadRequest(_) | HeadError::VersionNotSupported | HeadError::ExpectationFailed => Reason::BadRequest,
    };
    Failure { status: Some(error.status()), ..Failure::refused(reason, error.detail()) }
}
