//! Attempts of one request at its upstream: choose an endpoint, get a connection, send, relay.
//!
//! Another attempt follows in two cases only. No connection could be made: then another endpoint is tried, as often as
//! `connect_retries` says; nothing was sent. Or a pooled connection ended before a byte of the answer came: then once on
//! a new one. That the upstream has not acted on the request is likely then but not certain, hence for idempotent
//! requests without a body only (RFC 9112 §9.3.1).

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora::connectors::http::v2::ConnectionRef;
use tokio::time::Instant;

use super::body::{Http1Source, Http2Answer, Source};
use super::buffer::Buf;
use super::client::Client;
use super::connector::{Connection, Http1Connection, Need};
use super::exchange::{Done, Facts, answer_limits, body_limits, may_repeat};
use super::generation::{ListenerRuntime, UpstreamRuntime};
use super::prepare;
use super::race::{race, run_both};
use super::relay::{AnswerLimits, AnswerStop, Live, pump_answer, send_request};
use super::respond::Failure;
use super::sink::{Framing, Http1Sink, Http2Sink, Sink};
use super::timer::LazyTimer;
use super::upgrade::Switch;
use super::workspace::Workspace;
use crate::config::model::{ClientGone, HeaderEdits, HostPolicy, Route};
use crate::limits::RateFields;
use crate::message::head::{Body, HeadLimits, Method, Parsed, RequestHead, ResponseBody, ResponseHead, parse_response};
use crate::message::hop::{Keep, strip_hop_by_hop};
use crate::shutdown::Lifecycle;
use crate::telemetry::Reason;
use crate::telemetry::metrics::{DetachedMetrics, UpstreamMetrics};
use crate::upstream::Endpoint;

/// Interim answers (1xx) that are read past before an answer counts as not valid.
const MAX_INTERIM: u32 = 16;

/// One request at one upstream.
pub struct Run<'r> {
    pub to: Destination<'r>,
    pub request: &'r mut RequestHead,
    pub timer: &'r mut LazyTimer,
}

/// Where the request goes and under which rules: what both loops of an attempt look at.
pub struct Destination<'r> {
    pub rules: Rules<'r>,
    pub upstream: &'r Arc<UpstreamRuntime>,
    pub listener: &'r ListenerRuntime,
    pub live: &'r Live,
    pub method: Method,
    /// The protocol that may be switched to.
    pub upgrade: Option<&'r [u8]>,
    pub rate_fields: Option<RateFields>,
    pub detached: &'r DetachedMetrics,
    /// Asked when the answer's head is written: a request that began before the drain ends its connection, too.
    pub lifecycle: &'r Lifecycle,
}

/// What a route, or a source of an aggregate, asks of its attempts.
#[derive(Clone, Copy)]
pub struct Rules<'r> {
    /// Of the request.
    pub max_body_bytes: u64,
    /// Of the answer.
    pub max_answer_bytes: Option<u64>,
    pub on_client_gone: ClientGone,
    pub upgrade_idle_timeout: Duration,
    pub host: &'r HostPolicy,
    pub response_headers: &'r HeaderEdits,
}

impl<'r> Rules<'r> {
    pub fn new(route: &'r Route, upstream: &UpstreamRuntime) -> Self {
        Self {
            max_body_bytes: route.max_body_bytes,
            max_answer_bytes: upstream.config.max_response_body_bytes,
            on_client_gone: route.on_client_gone,
            upgrade_idle_timeout: route.upgrades.idle_timeout,
            host: &route.host,
            response_headers: &route.response_headers,
        }
    }
}

enum AttemptError {
    /// No connection: another endpoint may be tried.
    Connect(Failure),
    /// A pooled connection was closed before it was used: a new one may be tried.
    Stale,
    Failed(Failure),
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> Self {
        AttemptError::Failed(failure)
    }
}

/// Counts an attempt that is dropped before its end: the source of an aggregate that others made superfluous.
struct Unfinished<'m> {
    metrics: &'m UpstreamMetrics,
    begun: Instant,
}

impl Unfinished<'_> {
    fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.metrics.attempt(Reason::NotNeeded, self.begun.elapsed(), None, None);
    }
}

/// What a relayed answer leaves behind.
struct Relayed {
    /// The upstream's connection may serve another request.
    reusable: bool,
    /// The client took all of it.
    delivered: bool,
    switched: bool,
}

impl Run<'_> {
    pub async fn forward(
        mut self,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        work: &mut Workspace,
        facts: &mut Facts,
        switch: &mut Option<Switch>,
    ) -> Result<Done, Failure> {
        facts.upstream = Some(self.to.upstream.metrics.clone());
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut only_new = false;
        let mut last = None;
        loop {
            let Some(endpoint) = self.to.upstream.endpoints.pick(&tried) else {
                return Err(last.unwrap_or_else(|| Reason::NoEndpoint.into()));
            };
            match self.attempt(&endpoint, only_new, source, client, work, facts, switch).await {
                Ok(done) => return Ok(done),
                Err(AttemptError::Failed(failure)) => return Err(failure),
                Err(AttemptError::Stale) => only_new = true,
                Err(AttemptError::Connect(failure)) => {
                    tried.push(endpoint.address);
                    if tried.len() > self.to.upstream.config.connect_retries as usize {
                        return Err(failure);
                    }
                    self.to.upstream.metrics.connect_retries.inc();
                    last = Some(failure);
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, borrowed separately")]
    async fn attempt(
        &mut self,
        endpoint: &Arc<Endpoint>,
        only_new: bool,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        work: &mut Workspace,
        facts: &mut Facts,
        switch: &mut Option<Switch>,
    ) -> Result<Done, AttemptError> {
        let begun = Instant::now();
        if let Some(reason) = self.to.live.clock.passed(begun) {
            // Nobody waits for what the upstream would do now.
            return Err(Failure::from(reason).into());
        }
        facts.upstream_started.get_or_insert(begun);
        facts.endpoint = Some(endpoint.address);
        facts.attempts += 1;
        facts.timings.connect = None;
        facts.timings.first_byte = None;
        let in_flight = self.to.upstream.metrics.in_flight.guard(begun);
        let unfinished = Unfinished { metrics: &self.to.upstream.metrics, begun };
        let result = self.attempt_once(endpoint, only_new, source, client, work, facts, switch).await;
        let now = Instant::now();
        facts.timings.upstream = facts.upstream_started.map(|started| now - started);
        let reason = match &result {
            Ok(_) => facts.reason.unwrap_or(if facts.status >= 500 { Reason::Upstream5xx } else { Reason::Ok }),
            Err(AttemptError::Stale) => Reason::UpstreamClosed,
            Err(AttemptError::Connect(failure) | AttemptError::Failed(failure)) => failure.reason,
        };
        unfinished.ended();
        self.to.upstream.metrics.attempt(reason, now - begun, facts.timings.first_byte, facts.timings.connect);
        in_flight.leave(now);
        result
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, borrowed separately")]
    async fn attempt_once(
        &mut self,
        endpoint: &Arc<Endpoint>,
        only_new: bool,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        work: &mut Workspace,
        facts: &mut Facts,
        switch: &mut Option<Switch>,
    ) -> Result<Done, AttemptError> {
        let pooled = if only_new { None } else { self.to.upstream.checkout(endpoint, self.to.need()) };
        facts.reused = pooled.is_some();
        let connection = match pooled {
            Some(connection) => connection,
            None => self.connect(endpoint, source, facts).await?,
        };
        match connection {
            Connection::Http1(connection) => {
                self.over_http1(endpoint, connection, source, client, work, facts, switch).await
            }
            Connection::Http2(connection) => self.over_http2(endpoint, connection, source, client, work, facts).await,
        }
    }

    async fn connect(
        &mut self,
        endpoint: &Endpoint,
        source: &mut Source<'_>,
        facts: &mut Facts,
    ) -> Result<Connection, AttemptError> {
        let begun = Instant::now();
        self.to.live.clock.enter(Reason::DeadlineConnect);
        let connected = race(
            self.to.upstream.connect(endpoint, self.to.need(), &self.to.live.clock),
            source,
            self.to.live,
            self.timer,
        )
        .await;
        self.to.live.clock.unlimit_answer();
        let failure = match connected {
            Ok(Ok(connection)) => {
                facts.timings.connect = Some(begun.elapsed());
                return Ok(connection);
            }
            Ok(Err(error)) => Failure::detailed(error.reason, error.detail),
            Err(failure) => failure,
        };
        match failure.reason {
            Reason::ConnectFailed | Reason::ConnectTimeout | Reason::TlsFailed | Reason::TlsTimeout => {
                endpoint.connect_failed();
                Err(AttemptError::Connect(failure))
            }
            _ => Err(AttemptError::Failed(failure)),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, borrowed separately")]
    async fn over_http1(
        &mut self,
        endpoint: &Arc<Endpoint>,
        connection: Http1Connection,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        work: &mut Workspace,
        facts: &mut Facts,
        switch: &mut Option<Switch>,
    ) -> Result<Done, AttemptError> {
        let body = self.request.framing();
        let upgrade = self.to.upgrade;
        work.out.clear();
        prepare::write_http1(
            &mut work.out,
            self.request,
            self.to.rules.host,
            endpoint,
            &work.target,
            upgrade,
            &self.to.live.clock,
        );
        let framing = if body == Body::Chunked { Framing::Chunked } else { Framing::Length };
        let interim = self.request.expects_continue().then(|| client.interim());
        let mut buf = Buf::default();
        let dead = AtomicBool::new(false);

        let Workspace { answer, out, .. } = work;
        let mut request_sink = Sink::Http1(Http1Sink::new(&connection.io, out, framing));
        let limits = body_limits(&self.to.listener.config, self.to.rules.max_body_bytes, self.to.timeouts().first_byte);
        let sending = send_request(source, &mut request_sink, self.to.live, limits, interim);
        let relaying = async {
            self.to.read_answer(&connection, &mut buf, answer, &dead).await?;
            self.to.started(answer, facts)?;
            if answer.status == 101 {
                return self.to.switch(answer, upgrade, client, facts).await;
            }
            let body = answer.framing();
            let keep_alive = answer.keep_alive();
            let mut source = Source::Http1(Http1Source::of_response(&connection.io, &mut buf, body));
            let delivered = self.to.pass_on(answer, body, &mut source, client, facts).await?;
            Ok(Relayed { reusable: keep_alive && source.is_done() && buf.is_empty(), delivered, switched: false })
        };
        let relayed =
            run_both(sending, relaying, self.to.live, self.timer, self.to.rules.on_client_gone, self.to.detached).await;
        drop(request_sink);

        let relayed = match relayed {
            Ok(relayed) => relayed,
            Err(_) if dead.load(Ordering::Relaxed) && connection.reused && may_repeat(self.request.method, body) => {
                return Err(AttemptError::Stale);
            }
            Err(failure) => return Err(failure.into()),
        };
        if relayed.switched {
            *switch = Some(Switch::new(connection.io, buf, self.to.rules.upgrade_idle_timeout));
            return Ok(Done::Switched);
        }
        if relayed.reusable && self.to.live.request_sent.load(Ordering::Relaxed) && self.to.lifecycle.keep_alive() {
            self.to.upstream.release(endpoint, connection);
        }
        Ok(Done::Answered { complete: relayed.delivered })
    }

    async fn over_http2(
        &mut self,
        endpoint: &Arc<Endpoint>,
        connection: ConnectionRef,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        work: &mut Workspace,
        facts: &mut Facts,
    ) -> Result<Done, AttemptError> {
        self.to.live.clock.enter(Reason::DeadlineConnect);
        let stream = race(connection.spawn_stream(), source, self.to.live, self.timer).await?;
        let mut session = match stream {
            Ok(Some(session)) => Box::new(session),
            // The connection is full or closing: nothing was sent.
            Ok(None) if facts.reused => return Err(AttemptError::Stale),
            Ok(None) => return Err(AttemptError::Connect(Failure::detailed(Reason::ConnectFailed, "takes no stream"))),
            Err(error) => {
                return Err(AttemptError::Connect(Failure::detailed(Reason::ConnectFailed, error.to_string())));
            }
        };
        let ends = source.is_done();
        let repeatable = may_repeat(self.request.method, self.request.framing());
        let dead = AtomicBool::new(false);
        let header = prepare::http2_header(
            self.request,
            self.to.rules.host,
            self.to.upstream,
            endpoint,
            &work.target,
            &self.to.live.clock,
        )?;
        session
            .write_request_header(Box::new(header), ends)
            .map_err(|error| Failure::detailed(Reason::UpstreamReset, error.to_string()))?;
        let mut request_sink = match session.take_request_body_writer() {
            Some(stream) if !ends => Sink::Http2(Http2Sink::new(stream, false)),
            _ => Sink::Discard,
        };
        let limits = body_limits(&self.to.listener.config, self.to.rules.max_body_bytes, self.to.timeouts().first_byte);
        let interim = self.request.expects_continue().then(|| client.interim());
        let answer = &mut work.answer;
        let sending = send_request(source, &mut request_sink, self.to.live, limits, interim);
        let relaying = async {
            session.read_response_header().await.map_err(|error| {
                dead.store(connection.is_closed() || was_not_processed(&error), Ordering::Relaxed);
                AnswerStop::Upstream(Reason::UpstreamReset, error.to_string())
            })?;
            let header = session.response_header().ok_or_else(|| bad("no head"))?;
            *answer = ResponseHead::from_http2(header, self.to.method, session.response_finished()).map_err(refused)?;
            self.to.started(answer, facts)?;
            let body = answer.framing();
            let mut source = Source::Http2Answer(Http2Answer::new(session));
            self.to.pass_on(answer, body, &mut source, client, facts).await
        };
        let relayed =
            run_both(sending, relaying, self.to.live, self.timer, self.to.rules.on_client_gone, self.to.detached).await;
        match relayed {
            Ok(delivered) => Ok(Done::Answered { complete: delivered }),
            Err(_) if dead.load(Ordering::Relaxed) && facts.reused && repeatable => Err(AttemptError::Stale),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl Destination<'_> {
    fn need(&self) -> Need {
        if self.upgrade.is_some() { Need::Upgrade } else { Need::Any }
    }

    /// Reads heads until the final one has arrived. `dead` is set when the connection ended before any byte did.
    async fn read_answer(
        &self,
        connection: &Http1Connection,
        buf: &mut Buf,
        answer: &mut ResponseHead,
        dead: &AtomicBool,
    ) -> Result<(), AnswerStop> {
        let limits = HeadLimits {
            max_bytes: self.upstream.config.max_response_head_bytes,
            ..self.listener.upstream_head_limits
        };
        answer.reset();
        let mut interim = 0;
        let mut begun = false;
        loop {
            if !buf.is_empty() {
                match parse_response(buf.filled(), &limits, self.method, answer) {
                    Ok(Parsed::Complete { head_len }) => {
                        buf.consume(head_len);
                        if !answer.is_interim() {
                            return Ok(());
                        }
                        interim += 1;
                        if interim > MAX_INTERIM {
                            return Err(bad("too many interim answers"));
                        }
                        answer.reset();
                        if std::mem::take(&mut begun) {
                            self.limit_first_byte();
                        }
                        continue;
                    }
                    // Set once: a head is short enough to be there in the time that an answer may be silent.
                    Ok(Parsed::Incomplete) if begun => {}
                    Ok(Parsed::Incomplete) => {
                        begun = true;
                        self.live.clock.limit_answer(self.timeouts().between_bytes, Reason::BetweenBytesTimeout);
                    }
                    Err(error) => return Err(refused(error)),
                }
            }
            let read = poll_fn(|cx| connection.io.poll_first_read(cx, buf)).await;
            let nothing_yet = buf.is_empty() && interim == 0;
            match read {
                Ok(0) => {
                    dead.store(nothing_yet, Ordering::Relaxed);
                    return Err(AnswerStop::Upstream(Reason::UpstreamClosed, "closed before an answer".into()));
                }
                Ok(_) => {}
                Err(error) => {
                    dead.store(nothing_yet, Ordering::Relaxed);
                    return Err(AnswerStop::Upstream(Reason::UpstreamReset, error.to_string()));
                }
            }
        }
    }

    /// The wait for the answer goes on after an interim one.
    fn limit_first_byte(&self) {
        if self.live.request_sent.load(Ordering::Relaxed) {
            self.live.clock.limit_answer(self.timeouts().first_byte, Reason::FirstByteTimeout);
        } else {
            self.live.clock.unlimit_answer();
        }
    }

    /// Notes that the final answer's head is here, and refuses one that is known to be too large.
    fn started(&self, answer: &ResponseHead, facts: &mut Facts) -> Result<(), AnswerStop> {
        let now = Instant::now();
        self.live.answer_started.store(true, Ordering::Relaxed);
        self.live.clock.enter(Reason::DeadlineBody);
        self.live.clock.unlimit_answer();
        facts.timings.first_byte = self.live.since_request(now);
        facts.timings.response_started = Some(now - self.live.clock.base());
        let max = self.rules.max_answer_bytes;
        match answer.framing() {
            ResponseBody::Length(length) if max.is_some_and(|max| length > max) => Err(AnswerStop::Upstream(
                Reason::UpstreamTooLarge,
                format!("a body of {length} bytes is larger than allowed"),
            )),
            _ => Ok(()),
        }
    }

    /// Writes the head to the client and passes the body on; false when the client did not take all of it.
    async fn pass_on(
        &self,
        answer: &mut ResponseHead,
        body: ResponseBody,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<bool, AnswerStop> {
        facts.status = answer.status;
        strip_hop_by_hop(&mut answer.fields, Keep::default());
        prepare::answer_fields(&mut answer.fields, self.rules.response_headers, facts, self.rate_fields.as_ref());
        if !self.lifecycle.keep_alive() {
            client.close_after();
        }
        self.live.head_sent.store(true, Ordering::Relaxed);
        let outlive = self.rules.on_client_gone == ClientGone::Finish;
        let begun = if self.live.client_gone.load(Ordering::Relaxed) { None } else { client.begin(answer, body).ok() };
        let mut sink = match begun {
            Some(sink) => sink,
            None if outlive => {
                self.live.client_gone.store(true, Ordering::Relaxed);
                Sink::Discard
            }
            None => return Err(AnswerStop::ClientGone),
        };
        pump_answer(source, &mut sink, self.live, self.answer_limits(facts.bandwidth), outlive).await?;
        let delivered = !matches!(sink, Sink::Discard) && !self.live.client_gone.load(Ordering::Relaxed);
        if !delivered {
            facts.reason = Some(Reason::ClientGone);
        }
        Ok(delivered)
    }

    /// A 101: only where the client asked for this very protocol.
    async fn switch(
        &self,
        answer: &mut ResponseHead,
        asked: Option<&[u8]>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<Relayed, AnswerStop> {
        let agreed = answer.upgrade().map(Box::<[u8]>::from);
        let (Some(asked), Some(agreed)) = (asked, agreed) else { return Err(unexpected_upgrade()) };
        if !asked.eq_ignore_ascii_case(&agreed) {
            return Err(unexpected_upgrade());
        }
        facts.status = 101;
        strip_hop_by_hop(&mut answer.fields, Keep::default());
        prepare::answer_fields(&mut answer.fields, self.rules.response_headers, facts, None);
        answer.fields.push(b"connection", b"upgrade");
        answer.fields.push(b"upgrade", &agreed);
        self.live.head_sent.store(true, Ordering::Relaxed);
        let mut sink = client.begin(answer, ResponseBody::None).map_err(|_| AnswerStop::ClientGone)?;
        sink.flush().await.map_err(|_| AnswerStop::ClientGone)?;
        Ok(Relayed { reusable: false, delivered: true, switched: true })
    }

    fn timeouts(&self) -> &crate::config::model::UpstreamTimeouts {
        &self.upstream.config.timeouts
    }

    fn answer_limits(&self, bandwidth: Option<u64>) -> AnswerLimits {
        let max_bytes = self.rules.max_answer_bytes;
        answer_limits(&self.listener.config, self.timeouts().between_bytes, max_bytes, bandwidth)
    }
}

/// The upstream says that it has not looked at the stream (RFC 9113 §8.7), or its connection has ended.
fn was_not_processed(error: &pingora::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    cause.is_some_and(|h2| h2.is_io() || h2.is_go_away() || h2.reason() == Some(h2::Reason::REFUSED_STREAM))
}

fn bad(detail: &str) -> AnswerStop {
    AnswerStop::Upstream(Reason::UpstreamBadResponse, detail.into())
}

fn refused(error: crate::message::head::ResponseError) -> AnswerStop {
    use crate::message::head::ResponseError;
    let reason = match error {
        ResponseError::TooLarge(_) => Reason::UpstreamTooLarge,
        ResponseError::Bad(_) => Reason::UpstreamBadResponse,
    };
    AnswerStop::Upstream(reason, error.detail().into())
}

fn unexpected_upgrade() -> AnswerStop {
    AnswerStop::Upstream(Reason::UnexpectedUpgrade, "answered 101 to a request that did not ask for it".into())
}
