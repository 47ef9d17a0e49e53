//! Moving one request to an upstream and its answer back, over connections that are already there.
//!
//! Two loops run in one task: `send_request` moves the request's body up and then watches for the client's leaving;
//! `relay_answer` reads the answer and moves it down. Neither waits for the other, so that an upstream may answer
//! before it has read the request, and streams can run both ways at once. Who polls them (`exchange`) also looks at
//! the clock, so each wait in here ends with the deadline without knowing about it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::body::{BodyError, Source, fill};
use super::client::Interim;
use super::sink::Sink;
use super::throttle::Throttle;
use super::timer::StageClock;
use crate::tap::Tap;
use crate::telemetry::Reason;

/// A body that arrives too slowly is not cut within its first seconds: a pause there says nothing about a rate.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// What the parts of one exchange tell each other. All of them run in one task; the atomics are for `Send`.
#[derive(Debug)]
pub struct Live {
    pub clock: StageClock,
    /// Body bytes taken from the client.
    pub request_bytes: AtomicU64,
    /// The request has been sent to its last byte.
    pub request_sent: AtomicBool,
    /// When that was, in nanoseconds since the clock's base.
    request_sent_at: AtomicU64,
    /// The head of the final answer has arrived.
    pub answer_started: AtomicBool,
    /// The answer's head is on its way to the client: a failure can no longer become another answer.
    pub head_sent: AtomicBool,
    pub response_bytes: AtomicU64,
    /// Copies of the request's body, and of the answer's.
    pub request_taps: Vec<Arc<Tap>>,
    pub answer_taps: Vec<Arc<Tap>>,
    /// The client has left, and the work goes on without it (`on_client_gone = "finish"`).
    pub client_gone: AtomicBool,
}

impl Live {
    pub fn new(clock: StageClock) -> Self {
        Self {
            clock,
            request_bytes: AtomicU64::new(0),
            request_sent: AtomicBool::new(false),
            request_sent_at: AtomicU64::new(0),
            answer_started: AtomicBool::new(false),
            head_sent: AtomicBool::new(false),
            response_bytes: AtomicU64::new(0),
            request_taps: Vec::new(),
            answer_taps: Vec::new(),
            client_gone: AtomicBool::new(false),
        }
    }

    fn sent_now(&self, at: Instant) {
        let nanos = at.saturating_duration_since(self.clock.base()).as_nanos();
        self.request_sent_at.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.request_sent.store(true, Ordering::Relaxed);
    }

    /// How long the upstream took from the end of the request to `at`; `None` when it answered before that end.
    pub fn since_request(&self, at: Instant) -> Option<Duration> {
        let sent = Duration::from_nanos(self.request_sent_at.load(Ordering::Relaxed));
        self.request_sent.load(Ordering::Relaxed).then(|| at.saturating_duration_since(self.clock.base() + sent))
    }
}

/// Limits on the request's body, from route and listener.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    pub max_bytes: u64,
    /// From the end of the head.
    pub timeout: Duration,
    /// Bytes per second; 0 = none.
    pub min_rate: u64,
    /// For the upstream: from the end of the request to the first byte of the answer. Without a deadline also the longest
    /// time in which it may take nothing of the request, so that nothing waits for ever.
    pub first_byte: Duration,
}

/// How the request side ended (it ends only when there is something to say).
#[derive(Debug)]
pub enum RequestEnd {
    /// The client has gone: closed, broken or reset.
    ClientGone,
    /// The body cannot be accepted.
    Refused(Reason, &'static str),
}

/// Sends what is left of the head in `sink`, then the body; after that, waits for the client to leave.
pub async fn send_request(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    live: &Live,
    limits: BodyLimits,
    interim: Option<Interim<'_>>,
) -> RequestEnd {
    if let Err(end) = pump_request(source, sink, live, limits, interim).await {
        match end {
            Stop::End(end) => return end,
            // The upstream no longer reads. It may have answered before that; the other loop finds out.
            Stop::UpstreamBroken => {}
        }
    }
    live.clock.unlimit_request_body();
    poll_fn(|cx| source.poll_gone(cx)).await;
    RequestEnd::ClientGone
}

/// Reads a request's body into memory.
pub async fn read_body(
    source: &mut Source<'_>,
    live: &Live,
    limits: BodyLimits,
    interim: Option<Interim<'_>>,
) -> Result<Vec<u8>, RequestEnd> {
    let mut body = Vec::new();
    let read = pump_request(source, &mut Sink::Memory(&mut body), live, limits, interim).await;
    live.clock.unlimit_request_body();
    // Set for the upstream that usually follows.
    live.clock.unlimit_answer();
    match read {
        Ok(()) | Err(Stop::UpstreamBroken) => Ok(body),
        Err(Stop::End(end)) => Err(end),
    }
}

enum Stop {
    End(RequestEnd),
    UpstreamBroken,
}

async fn pump_request(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    live: &Live,
    limits: BodyLimits,
    interim: Option<Interim<'_>>,
) -> Result<(), Stop> {
    live.clock.enter(Reason::DeadlineRequest);
    let mut pace = Pace { started: Instant::now(), blocked: Duration::ZERO };
    if !source.is_done() {
        if let Some(interim) = interim {
            // Asked for by `Expect`: the client sends its body only now that somebody will read it.
            interim.send().await;
        }
        pump_request_body(source, sink, live, limits, &mut pace).await?;
        live.clock.unlimit_request_body();
    }
    live.request_taps.iter().for_each(|tap| tap.complete());
    sink.finish(source.trailers()).map_err(|_| Stop::UpstreamBroken)?;
    blocking_on_upstream(sink, live, limits, &mut pace, |sink, cx| sink.poll_flush(cx)).await?;
    live.sent_now(Instant::now());
    if !live.answer_started.load(Ordering::Relaxed) {
        live.clock.enter(Reason::DeadlineFirstByte);
        live.clock.limit_answer(limits.first_byte, Reason::FirstByteTimeout);
    }
    Ok(())
}

async fn pump_request_body(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    live: &Live,
    limits: BodyLimits,
    pace: &mut Pace,
) -> Result<(), Stop> {
    let mut received = 0u64;
    loop {
        let n = match source.fill_from_memory().map_err(refuse)? {
            Some(n) => n,
            None => {
                blocking_on_upstream(sink, live, limits, pace, |sink, cx| sink.poll_flush(cx)).await?;
                pace.expect_more(&live.clock, limits, received);
                fill(source).await.map_err(refuse)?
            }
        };
        if n == 0 {
            return Ok(());
        }
        if received + n as u64 > limits.max_bytes {
            return Err(Stop::End(RequestEnd::Refused(
                Reason::BodyTooLarge,
                "the body is larger than this route allows",
            )));
        }
        // While the upstream does not take what is there, the client is not to blame for its pace.
        live.clock.unlimit_request_body();
        let data = source.data();
        let taken = blocking_on_upstream(sink, live, limits, pace, |sink, cx| sink.poll_write(cx, data)).await?;
        live.request_taps.iter().for_each(|tap| tap.copy(&data[..taken]));
        source.consume(taken);
        received += taken as u64;
        live.request_bytes.store(received, Ordering::Relaxed);
    }
}

/// Runs one step of the sink; while it waits for the upstream, the time is not the client's, and not without end.
async fn blocking_on_upstream<T>(
    sink: &mut Sink<'_>,
    live: &Live,
    limits: BodyLimits,
    pace: &mut Pace,
    mut step: impl FnMut(&mut Sink<'_>, &mut std::task::Context<'_>) -> Poll<io::Result<T>>,
) -> Result<T, Stop> {
    let unbounded = || live.clock.deadline().is_none() && !live.answer_started.load(Ordering::Relaxed);
    let mut since = None;
    let done = poll_fn(|cx| {
        let polled = step(sink, cx);
        if polled.is_pending() && since.is_none() {
            since = Some(Instant::now());
            if unbounded() {
                live.clock.limit_answer(limits.first_byte, Reason::FirstByteTimeout);
            }
        }
        polled
    })
    .await;
    if let Some(since) = since {
        pace.blocked += since.elapsed();
        if unbounded() {
            live.clock.unlimit_answer();
        }
    }
    done.map_err(|_| Stop::UpstreamBroken)
}

fn refuse(error: BodyError) -> Stop {
    Stop::End(match error {
        BodyError::Truncated | BodyError::Reset(_) => RequestEnd::ClientGone,
        BodyError::Malformed(detail) => RequestEnd::Refused(Reason::BadRequest, detail),
    })
}

/// The client's pace, without the time for which the upstream held it up.
struct Pace {
    started: Instant,
    blocked: Duration,
}

impl Pace {
    /// Sets the limit for the next bytes: the body's timeout, or the moment at which the minimum rate is missed.
    fn expect_more(&self, clock: &StageClock, limits: BodyLimits, received: u64) {
        let start = self.started + self.blocked;
        let end = start + limits.timeout;
        let too_slow = (limits.min_rate > 0)
            .then(|| start + RATE_GRACE + Duration::from_secs_f64(received as f64 / limits.min_rate as f64));
        match too_slow {
            Some(at) if at < end => clock.limit_request_body(at, Reason::BodyTooSlow),
            _ => clock.limit_request_body(end, Reason::BodyTimeout),
        }
    }
}

/// Limits on the answer's body.
#[derive(Debug, Clone, Copy)]
pub struct AnswerLimits {
    pub between_bytes: Duration,
    pub client_write: Duration,
    pub max_bytes: Option<u64>,
    /// Bytes per second, when a fault wants it slow.
    pub bandwidth: Option<u64>,
}

/// Why an answer could not be passed on to its end.
#[derive(Debug)]
pub enum AnswerStop {
    /// The upstream's fault.
    Upstream(Reason, String),
    /// The client no longer takes it.
    ClientGone,
}

/// Passes a body on to its end. With `outlive_client`, it is read to its end though nobody takes it any more.
pub async fn pump_answer(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    live: &Live,
    limits: AnswerLimits,
    outlive_client: bool,
) -> Result<(), AnswerStop> {
    let mut passed = 0u64;
    let mut throttle = limits.bandwidth.map(Throttle::new);
    loop {
        let n = match source.fill_from_memory().map_err(broken)? {
            Some(n) => n,
            None => {
                if sink.has_unflushed() {
                    let flushed = blocking_on_client(sink, live, limits, |sink, cx| sink.poll_flush(cx)).await;
                    or_discard(sink, live, flushed, outlive_client)?;
                }
                live.clock.limit_answer(limits.between_bytes, Reason::BetweenBytesTimeout);
                fill_or_reset(source, sink, live, outlive_client).await?
            }
        };
        if n == 0 {
            break;
        }
        if live.client_gone.load(Ordering::Relaxed) {
            *sink = Sink::Discard;
        }
        if limits.max_bytes.is_some_and(|max| passed + n as u64 > max) {
            return Err(AnswerStop::Upstream(
                Reason::UpstreamTooLarge,
                "the body is larger than max_response_body".into(),
            ));
        }
        let mut data = source.data();
        if let Some(throttle) = &throttle {
            data = &data[..n.min(throttle.piece())];
        }
        let written = blocking_on_client(sink, live, limits, |sink, cx| sink.poll_write(cx, data)).await;
        let taken = or_discard(sink, live, written, outlive_client)?.unwrap_or(data.len());
        live.answer_taps.iter().for_each(|tap| tap.copy(&data[..taken]));
        source.consume(taken);
        passed += taken as u64;
        if !matches!(sink, Sink::Discard) {
            live.response_bytes.store(passed, Ordering::Relaxed);
        }
        if let Some(throttle) = &mut throttle {
            let flushed = blocking_on_client(sink, live, limits, |sink, cx| sink.poll_flush(cx)).await;
            or_discard(sink, live, flushed, outlive_client)?;
            // Neither side is to blame for this wait.
            live.clock.unlimit_answer();
            tokio::time::sleep_until(throttle.sent(taken, Instant::now())).await;
        }
    }
    live.answer_taps.iter().for_each(|tap| tap.complete());
    let finished = sink.finish(source.trailers());
    or_discard(sink, live, finished, outlive_client)?;
    let flushed = blocking_on_client(sink, live, limits, |sink, cx| sink.poll_flush(cx)).await;
    or_discard(sink, live, flushed, outlive_client)?;
    Ok(())
}

fn broken(error: BodyError) -> AnswerStop {
    match error {
        BodyError::Truncated => AnswerStop::Upstream(Reason::UpstreamClosed, "closed inside the body".into()),
        BodyError::Reset(detail) => AnswerStop::Upstream(Reason::UpstreamReset, detail),
        BodyError::Malformed(detail) => AnswerStop::Upstream(Reason::UpstreamBadResponse, detail.into()),
    }
}

/// Waits for bytes of the upstream, and for an HTTP/2 client's reset.
async fn fill_or_reset(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    live: &Live,
    outlive: bool,
) -> Result<usize, AnswerStop> {
    poll_fn(|cx| {
        if let Poll::Ready(filled) = source.poll_fill(cx) {
            return Poll::Ready(filled.map_err(broken));
        }
        if let Sink::Http2(stream) = sink
            && stream.poll_reset(cx).is_ready()
        {
            if !outlive {
                return Poll::Ready(Err(AnswerStop::ClientGone));
            }
            live.client_gone.store(true, Ordering::Relaxed);
            *sink = Sink::Discard;
        }
        Poll::Pending
    })
    .await
}

/// Runs one step of the sink; while it waits for the client, the client's write limit holds and not the upstream's.
async fn blocking_on_client<T>(
    sink: &mut Sink<'_>,
    live: &Live,
    limits: AnswerLimits,
    mut step: impl FnMut(&mut Sink<'_>, &mut std::task::Context<'_>) -> Poll<io::Result<T>>,
) -> io::Result<T> {
    let mut blocked = false;
    poll_fn(|cx| {
        let polled = step(sink, cx);
        if polled.is_pending() && !std::mem::replace(&mut blocked, true) {
            live.clock.limit_answer(limits.client_write, Reason::WriteTimeout);
        }
        polled
    })
    .await
}

/// A client that no longer takes the answer ends the exchange, unless the work is to go on without it.
fn or_discard<T>(
    sink: &mut Sink<'_>,
    live: &Live,
    result: io::Result<T>,
    outlive: bool,
) -> Result<Option<T>, AnswerStop> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(_) if outlive => {
            live.client_gone.store(true, Ordering::Relaxed);
            *sink = Sink::Discard;
            Ok(None)
        }
        Err(_) => Err(AnswerStop::ClientGone),
    }
}
