//! One HTTP/2 connection: pingora's handshake, then a task for each stream.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use pingora::protocols::Stream;
use pingora::protocols::http::v2::server::{default_h2_options, handshake};
use tokio::time::Instant;

use super::body::{Http2Source, Source};
use super::client::Client;
use super::exchange::{Exchange, record_refused};
use super::http1::head_failure;
use super::listener::ConnectionInfo;
use super::respond;
use super::timer::{LazyTimer, until};
use super::workspace::{Desk, Lent};
use super::{Counted, Proxy};
use crate::message::head::{HeadError, Version};
use crate::shutdown::Phase;

/// After GOAWAY, how long an idle connection may stay open for a client that does not close it.
const GOAWAY_GRACE: Duration = Duration::from_secs(1);
/// Streams that a client may reset before we have seen them, at once (CVE-2023-44487); more end the connection.
const MAX_PENDING_RESETS: usize = 20;
/// What h2 keeps of one stream for a client that does not read: 100 streams hold a few megabytes, not h2's default of 40.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// Serves streams until the connection ends.
pub async fn serve(proxy: &Arc<Proxy>, info: ConnectionInfo, stream: Stream) {
    let config = &info.listener.config;
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(config.http2_max_streams)
        .initial_window_size(config.http2_stream_window)
        .initial_connection_window_size(config.http2_connection_window)
        .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    let started = tokio::time::timeout(config.timeouts.head, handshake(stream, Some(options))).await;
    let Ok(Ok(mut connection)) = started else {
        info.listener.metrics.head_errors.inc();
        return;
    };
    let info = Arc::new(info);
    let open = Arc::new(AtomicUsize::new(0));
    let mut timer = LazyTimer::new(Instant::now() + info.listener.timeouts().idle);
    let mut draining = pin!(proxy.lifecycle.reached(Phase::Draining));
    let mut leaving = false;
    let mut requests = 0u64;
    let mut idle_since = Instant::now();
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(Next::Accepted(accepted));
            }
            if !leaving && draining.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Leave);
            }
            let limit = match (open.load(Ordering::Acquire), leaving) {
                (0, true) => idle_since + GOAWAY_GRACE,
                (0, false) if requests == 0 => idle_since + info.first_head(),
                (0, false) => idle_since + info.listener.timeouts().idle,
                // Streams bound themselves; look again later whether the connection has become idle.
                _ => {
                    idle_since = Instant::now();
                    idle_since + Duration::from_secs(1)
                }
            };
            let limit = match info.ends_at {
                Some(ends_at) if !leaving => limit.min(ends_at),
                _ => limit,
            };
            timer.poll_until(cx, limit).map(|()| Next::Time)
        })
        .await;
        match next {
            Next::Accepted(Some(Ok((request, respond)))) => {
                requests += 1;
                idle_since = Instant::now();
                spawn_stream(proxy, &info, &open, request, respond);
                let max = info.listener.config.max_requests_per_connection;
                if requests >= max && !leaving {
                    leaving = true;
                    connection.graceful_shutdown();
                }
                // GOAWAY takes full effect when the client acknowledges it. One that goes on instead is cut off.
                if requests >= max.saturating_mul(2) {
                    return;
                }
            }
            Next::Accepted(Some(Err(error))) => {
                tracing::debug!(peer = %info.peer, %error, "an HTTP/2 connection failed");
                return;
            }
            Next::Accepted(None) => return,
            Next::Leave => {
                leaving = true;
                idle_since = Instant::now();
                connection.graceful_shutdown();
            }
            Next::Time if open.load(Ordering::Acquire) > 0 => {
                if info.ends_at.is_some_and(|ends_at| Instant::now() >= ends_at) && !leaving {
                    leaving = true;
                    connection.graceful_shutdown();
                }
            }
            Next::Time if leaving => return,
            Next::Time => {
                leaving = true;
                idle_since = Instant::now();
                connection.graceful_shutdown();
            }
        }
    }
}

/// A request stream as h2 gives it.
type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>);

#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one turn of the loop, and the large variant is the usual one"
)]
enum Next {
    Accepted(Option<Result<Accepted, h2::Error>>),
    Leave,
    Time,
}

struct OpenStream(Arc<AtomicUsize>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn spawn_stream(
    proxy: &Arc<Proxy>,
    info: &Arc<ConnectionInfo>,
    open: &Arc<AtomicUsize>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    open.fetch_add(1, Ordering::AcqRel);
    let open = OpenStream(open.clone());
    let (proxy, info) = (proxy.clone(), info.clone());
    // Ends with the exchange, which the route's deadline and the phase limits bound.
    proxy.tasks.clone().spawn("stream", async move {
        let _open = open;
        let _counted = Counted::new(&proxy.open_requests);
        serve_stream(&proxy, &info, request, respond).await;
    });
}

async fn serve_stream(
    proxy: &Arc<Proxy>,
    info: &ConnectionInfo,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let started = Instant::now();
    let respond = Arc::new(Mutex::new(respond));
    let (parts, stream) = request.into_parts();
    let mut client = Client::Http2(respond.clone());
    let mut timer = LazyTimer::new(started + info.listener.timeouts().idle);
    let mut desk = Lent::new();
    let Desk { head, work, .. } = &mut *desk;
    let filled = match parts.headers.len() > info.listener.config.max_headers {
        true => Err(HeadError::TooLarge("the head has more fields than allowed")),
        false => head.fill_from_http2(&parts, stream.is_end_stream()),
    };
    match filled {
        Ok(()) => {}
        Err(error) => {
            info.listener.metrics.head_errors.inc();
            let failure = head_failure(error);
            let limit = started + info.listener.timeouts().write;
            let sent = until(limit, &mut timer, respond::send_failure(&mut client, None, None, &failure)).await;
            let sent = sent.and_then(Result::ok).map_or(0, |(_, bytes)| bytes);
            return record_refused(proxy, info, Version::Http2, &failure, sent, started);
        }
    }
    let source = Source::Http2(Http2Source::new(stream, respond));
    let exchange = Exchange { proxy, connection: info, head, work, timer: &mut timer, started };
    // HTTP/2 knows no 101, so nothing can switch; what `After` says about a connection is about HTTP/1. A stream that
    // was not answered completely is reset when its halves are dropped.
    exchange.run(source, client).await;
}
