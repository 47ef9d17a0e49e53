//! One request, from its head to its record: route, admit, forward, answer.
//!
//! Everything that can go wrong becomes a `Failure`, and one function (`respond::send_failure`) answers it. Everything
//! that is counted is put into the `Facts`, and one function (`Telemetry::finish`) writes them down.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::aggregate::{Finished, Landed};
use super::body::Source;
use super::client::Client;
use super::generation::{Generation, RouteRuntime};
use super::listener::ConnectionInfo;
use super::mirror::Mirrored;
use super::paced::Paced;
use super::prepare::RequestId;
use super::race::race;
use super::relay::{AnswerLimits, BodyLimits, Live};
use super::respond::{self, Failure};
use super::timer::{LazyTimer, StageClock, until};
use super::upgrade::{Switch, TunnelEnd};
use super::workspace::Workspace;
use super::{Proxy, attempt, prepare};
use crate::config::model::aggregate::Aggregate;
use crate::config::model::{Deadline, RouteAction};
use crate::limits::{KeyLookup, Permits, Rejection, RequestKeys, TryAdmit, rate_fields};
use crate::message::head::{Body, Known, Method, RequestHead, Version};
use crate::message::{forwarded, ids, path};
use crate::recorder::Recorded;
use crate::routing::Found;
use crate::telemetry::metrics::{RouteMetrics, UpstreamMetrics};
use crate::telemetry::{InFlightGuard, Protocol, Reason, RequestRecord, SourcesRecord, Timings};

/// How `forebay load` names itself.
const LOAD_TEST: &[u8] = b"forebay-load/";

/// What becomes of the connection after an exchange.
#[derive(Debug)]
pub enum After {
    /// Ready for the next request.
    KeepAlive,
    /// The answer is complete; the connection closes in good order.
    Close,
    /// The answer is not complete, or nobody takes it: the connection is broken off.
    Abort,
    /// Both sides switched protocols; bytes flow until one of them ends it.
    Switched,
}

/// One request on its way.
pub struct Exchange<'c> {
    pub proxy: &'c Arc<Proxy>,
    pub connection: &'c ConnectionInfo,
    pub head: &'c mut RequestHead,
    pub work: &'c mut Workspace,
    pub timer: &'c mut LazyTimer,
    /// The first byte of the head.
    pub started: Instant,
}

/// What is found out about a request while it runs; the record is made from it.
#[derive(Debug, Default)]
pub struct Facts {
    pub route: Option<Arc<RouteMetrics>>,
    pub in_flight: Option<InFlightGuard>,
    pub upstream: Option<Arc<UpstreamMetrics>>,
    pub endpoint: Option<SocketAddr>,
    pub client: Option<IpAddr>,
    pub request_id: Option<RequestId>,
    pub trace_id: Option<ids::Hex<32>>,
    pub status: u16,
    pub reason: Option<Reason>,
    pub detail: Option<Box<str>>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub attempts: u32,
    pub reused: bool,
    pub timings: Timings,
    pub upstream_started: Option<Instant>,
    /// The route's, or the smaller one of a trusted client.
    pub deadline: Option<Instant>,
    /// Bytes per second of the answer's body, as a fault wants it.
    pub bandwidth: Option<u64>,
    /// What a fault does, for the log.
    pub fault: Option<&'static str>,
    /// Its copies wait for its body and its answer.
    pub mirrored: Option<Mirrored>,
    /// What a recording keeps of it.
    pub recorded: Option<Box<Recorded>>,
    /// Of an aggregate: what became of its sources.
    pub sources: Option<Landed>,
}

/// How an exchange that was answered by an upstream (or by a `respond` route) went.
#[derive(Debug)]
pub enum Done {
    Answered { complete: bool },
    Switched,
}

impl Exchange<'_> {
    /// Runs the exchange to its end and writes its record.
    pub async fn run(mut self, mut source: Source<'_>, mut client: Client<'_>) -> After {
        let mut facts = Facts::default();
        let generation = self.proxy.generation();
        let mut switch = None;
        let done = if self.head.is_asterisk() {
            self.respond((200, "", ""), &source, &mut client, &mut facts).await
        } else {
            match self.find_route(&generation, &mut facts) {
                Ok(matched) => {
                    facts.recorded = self.begin_recording(&generation, &matched, &facts);
                    self.serve_route(&matched, &mut source, &mut client, &mut facts, &mut switch).await
                }
                Err(failure) => Err(failure),
            }
        };
        let after = self.conclude(done, &source, &mut client, &mut facts).await;
        if let Some(switch) = switch {
            self.tunnel(switch, source, &mut facts).await;
        }
        self.record(&mut facts);
        self.end_experiments(&generation, &mut facts);
        after
    }

    /// Normalises the path, finds the route, and learns who asks.
    fn find_route(&mut self, generation: &Generation, facts: &mut Facts) -> Result<Matched, Failure> {
        let proxies = self.connection.listener.trusted_proxies();
        let peer = self.connection.peer.ip();
        let trusted = forwarded::is_trusted(peer, proxies);
        let client = forwarded::client_address(peer, proxies, &self.head.fields);
        facts.client = Some(client);
        facts.request_id = Some(prepare::request_id(&self.head.fields, trusted));
        let path = path::normalise(self.head.path(), &mut self.work.path)
            .map_err(|error| Failure::refused(Reason::BadRequest, error.detail()))?
            .path(self.head.path(), &self.work.path);
        match generation.router.find(self.head.method, self.head.host(), path, &self.head.fields) {
            Found::Route(index, params) => {
                let route = generation.routes[index].clone();
                facts.route = Some(route.metrics.clone());
                if self.head.fields.get(Known::UserAgent).is_some_and(|agent| agent.starts_with(LOAD_TEST)) {
                    route.metrics.load_tests.inc();
                }
                facts.in_flight = Some(route.metrics.in_flight.guard(self.started));
                prepare::target(&route.route, self.head, path, &params, &mut self.work.target);
                let parameters = match route.route.action {
                    RouteAction::Aggregate(_) | RouteAction::Results { .. } => {
                        prepare::parameters(&route.route.matches.path, &params, path)
                    }
                    _ => Vec::new(),
                };
                Ok(Matched { route, trusted, client, parameters })
            }
            Found::NoRoute => Err(Reason::NoRoute.into()),
            Found::MethodNotAllowed { allow } => Err(Failure { allow: Some(allow), ..Reason::MethodNotAllowed.into() }),
        }
    }

    async fn serve_route(
        &mut self,
        matched: &Matched,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
        switch: &mut Option<Switch>,
    ) -> Result<Done, Failure> {
        let route = &matched.route;
        self.check_request(route, client)?;
        let deadline = self.deadline(route, matched.trusted);
        facts.deadline = deadline;
        let mut live = Live::new(StageClock::new(self.started, deadline));
        if let Some(recorded) = &facts.recorded {
            live.request_taps.push(recorded.body().clone());
            live.answer_taps.extend(recorded.answer().cloned());
        }
        let mut permits = Some(self.admit(route, matched, source, &live, facts).await?);
        // Active until the exchange ends.
        let strike = self.strike(route);
        if let Some(strike) = &strike {
            self.suffer(strike, route, source, &live, facts).await?;
        }
        let done = match &route.route.action {
            RouteAction::Respond { status, content_type, body } => {
                self.respond((*status, content_type, body), source, client, facts).await
            }
            // Boxed: what they hold would otherwise be part of every request's future.
            RouteAction::Aggregate(_) => {
                let permits = permits.take().unwrap_or_default();
                Box::pin(self.aggregate(matched, source, client, &live, permits, facts)).await
            }
            RouteAction::Results { .. } => Box::pin(self.results(matched, source, client, facts)).await,
            RouteAction::Proxy { .. } => {
                let upstream = route.upstream.as_ref().expect("a proxy route is built with its upstream");
                // Before the fields that ask for it are taken out.
                let upgrade = prepare::upgrade(self.head, &route.route);
                prepare::forwarded_fields(self.head, self.connection, facts, &route.route, &mut self.work.authority);
                if upgrade.is_none() {
                    facts.mirrored = self.mirror(route, facts);
                    if let Some(mirrored) = &facts.mirrored {
                        live.request_taps.extend(mirrored.body.clone());
                        live.answer_taps.extend(mirrored.answer().cloned());
                    }
                }
                let standing = permits.as_ref().and_then(|permits| permits.standing.as_ref());
                let standing = standing.filter(|_| route.route.rate_limit_headers);
                let to = attempt::Destination {
                    rules: attempt::Rules::new(&route.route, upstream),
                    upstream,
                    listener: &self.connection.listener,
                    live: &live,
                    method: self.head.method,
                    upgrade: upgrade.as_deref(),
                    rate_fields: rate_fields(standing),
                    detached: &self.proxy.telemetry.detached,
                    lifecycle: &self.proxy.lifecycle,
                };
                let run = attempt::Run { to, request: self.head, timer: self.timer };
                run.forward(source, client, self.work, facts, switch).await
            }
        };
        facts.request_bytes = live.request_bytes.load(Ordering::Relaxed);
        facts.response_bytes = facts.response_bytes.max(live.response_bytes.load(Ordering::Relaxed));
        if let Some(switch) = switch
            && let Some(permits) = permits
        {
            // The permits of an upgraded connection are held as long as it lives.
            switch.hold(permits);
        }
        if live.head_sent.load(Ordering::Relaxed)
            && let Err(failure) = done
        {
            // Too late for another answer: the connection is broken so that no client takes a part for the whole.
            facts.reason = Some(failure.reason);
            facts.detail = failure.detail.map(|detail| detail.into());
            return Ok(Done::Answered { complete: false });
        }
        done
    }

    /// What can be refused before anything is waited for.
    fn check_request(&self, route: &RouteRuntime, client: &mut Client<'_>) -> Result<(), Failure> {
        if let Body::Length(length) = self.head.framing()
            && length > route.route.max_body_bytes
        {
            client.close_after();
            return Err(Failure::refused(Reason::BodyTooLarge, "the body is larger than this route allows"));
        }
        let websocket = self.head.upgrade().is_some_and(|asked| prepare::names(asked, b"websocket"));
        if websocket && route.upstream.is_some() && prepare::upgrade(self.head, &route.route).is_none() {
            // Other protocols that a route does not list are simply not offered to the upstream, and the client gets an
            // ordinary answer (RFC 9110 §7.8): clients ask for `h2c` with every request. A WebSocket handshake has no
            // use for an ordinary answer, and nobody would learn why it failed.
            return Err(Failure::refused(Reason::UpgradeRefused, "websocket is not among the upgrades of this route"));
        }
        Ok(())
    }

    /// The route's deadline, or the smaller one of a trusted client.
    fn deadline(&self, route: &RouteRuntime, trusted: bool) -> Option<Instant> {
        let own = match route.route.deadline {
            Deadline::After(within) => Some(within),
            Deadline::None => None,
        };
        let asked = if trusted { prepare::asked_deadline(&self.head.fields) } else { None };
        let within = own.into_iter().chain(asked).min()?;
        Some(self.started + within)
    }

    async fn admit(
        &mut self,
        route: &RouteRuntime,
        matched: &Matched,
        source: &mut Source<'_>,
        live: &Live,
        facts: &mut Facts,
    ) -> Result<Permits, Failure> {
        let deadline = live.clock.deadline();
        let admitted = {
            let lookup = HeadLookup(self.head);
            let keys = RequestKeys { client: matched.client, lookup: &lookup };
            match route.admission.try_admit(&keys, deadline) {
                TryAdmit::Admitted(permits) => Ok(permits),
                TryAdmit::Rejected(rejection) => Err(rejection),
                TryAdmit::Wait(pending) => {
                    live.clock.enter(Reason::DeadlineQueue);
                    race(pending.wait(), source, live, self.timer).await?
                }
            }
        };
        match admitted {
            Ok(permits) => {
                facts.timings.rate_delay = permits.rate_delay;
                facts.timings.queue = permits.queue;
                Ok(permits)
            }
            Err(rejection) => {
                facts.timings.rate_delay = rejection.rate_delay;
                facts.timings.queue = rejection.queue;
                Err(rejected(rejection, route.route.rate_limit_headers))
            }
        }
    }

    /// An answer of our own: of a `respond` route, or to `OPTIONS *`, which asks about the server and not for a route.
    async fn respond(
        &mut self,
        (status, content_type, body): (u16, &str, &str),
        source: &Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<Done, Failure> {
        self.work.answer.reset();
        self.work.answer.status = status;
        if !body.is_empty() {
            self.work.answer.fields.push_known(Known::ContentType, content_type.as_bytes());
        }
        if let Some(id) = &facts.request_id {
            self.work.answer.fields.push_known(Known::XRequestId, id.as_bytes());
        }
        // A status that the configuration asks for is no failure, whatever it is.
        facts.reason = Some(Reason::Ok);
        self.send_whole(body.as_bytes(), source, client, facts).await
    }

    /// Sends the answer whose head is prepared, with this body; `facts.reason` says what the end is when it succeeds.
    pub async fn send_whole(
        &mut self,
        body: &[u8],
        source: &Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<Done, Failure> {
        if !source.is_done() || !self.proxy.lifecycle.keep_alive() {
            client.close_after();
        }
        respond::push_date(&mut self.work.answer.fields);
        facts.status = self.work.answer.status;
        facts.timings.response_started = Some(self.started.elapsed());
        let Ok((sink, body)) = respond::begin(client, Some(self.head), &mut self.work.answer, body) else {
            facts.reason = Some(Reason::ClientGone);
            return Ok(Done::Answered { complete: false });
        };
        let mut out = Paced::new(sink, self.timer, self.connection.listener.timeouts().write, facts.deadline)
            .throttled(facts.bandwidth);
        if let Some(tap) = facts.recorded.as_ref().and_then(|recorded| recorded.answer()) {
            tap.copy(body);
            tap.complete();
        }
        let sent = out.send_rest(body).await;
        facts.response_bytes = out.sent;
        if let Err(reason) = sent {
            facts.reason = Some(reason);
        }
        Ok(Done::Answered { complete: sent.is_ok() })
    }

    /// After a 101: the request lasts, and holds its permits, until the upgraded connection ends.
    async fn tunnel(&mut self, switch: Switch, source: Source<'_>, facts: &mut Facts) {
        let Source::Http1(source) = source else { return };
        let (io, buf) = source.into_parts();
        let moved = switch.run(io, buf, self.timer).await;
        facts.request_bytes += moved.up;
        facts.response_bytes += moved.down;
        if moved.end == TunnelEnd::Idle {
            facts.reason = Some(Reason::UpgradeIdle);
        }
    }

    /// Answers what failed, and decides about the connection.
    async fn conclude(
        &mut self,
        done: Result<Done, Failure>,
        source: &Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> After {
        let body_read = source.is_done();
        if !body_read {
            client.close_after();
        }
        let complete = match done {
            Ok(Done::Switched) => return After::Switched,
            Ok(Done::Answered { complete }) => complete,
            Err(failure) => self.answer_failure(failure, client, facts).await,
        };
        match (complete, client.keeps_alive() && body_read) {
            (false, _) => After::Abort,
            (true, true) => After::KeepAlive,
            (true, false) => After::Close,
        }
    }

    async fn answer_failure(&mut self, failure: Failure, client: &mut Client<'_>, facts: &mut Facts) -> bool {
        facts.reason = Some(failure.reason);
        facts.detail = failure.detail.as_deref().map(Into::into);
        facts.status = failure.status();
        match failure.reason {
            Reason::ClientGone => return false,
            Reason::FaultReset => {
                facts.status = 0;
                return false;
            }
            _ => {}
        }
        if !self.proxy.lifecycle.keep_alive() {
            client.close_after();
        }
        // Whoever does not read even this keeps the connection no longer than the listener's write limit.
        let limit = Instant::now() + self.connection.listener.timeouts().write;
        let send = respond::send_failure(client, Some(self.head), facts.request_id.as_ref(), &failure);
        match until(limit, self.timer, send).await.and_then(Result::ok) {
            Some((status, bytes)) => {
                facts.status = status;
                facts.response_bytes = bytes;
                true
            }
            None => false,
        }
    }

    fn record(&self, facts: &mut Facts) {
        let now = Instant::now();
        facts.timings.total = now - self.started;
        if let (Some(started), None) = (facts.upstream_started, facts.timings.upstream) {
            facts.timings.upstream = Some(now - started);
        }
        let reason = facts.reason.unwrap_or(match facts.status {
            500.. => Reason::Upstream5xx,
            _ => Reason::Ok,
        });
        let target: &[u8] = if self.work.path.is_empty() { self.head.target() } else { &self.work.path };
        let request_id = facts.request_id.take();
        let landed = facts.sources.take();
        let sources = landed.as_deref().and_then(|landed| {
            let finished = landed.as_ref().ok()?;
            let Finished { merged, outcomes, .. } = finished;
            let aggregate = &finished.aggregate;
            Some(SourcesRecord { aggregate, outcomes, usable: merged.usable, asked: merged.asked })
        });
        self.proxy.telemetry.finish(&RequestRecord {
            route: facts.route.take().unwrap_or_else(|| self.proxy.unmatched.clone()),
            upstream: facts.upstream.take(),
            listener: self.connection.listener.name.clone(),
            endpoint: facts.endpoint,
            protocol: protocol(self.head.version),
            method: self.head.method.as_str(),
            host: self.head.host(),
            target: &String::from_utf8_lossy(target),
            client: facts.client.unwrap_or(self.connection.peer.ip()),
            request_id: request_id.as_ref().map_or("", |id| id.as_str()),
            trace_id: facts.trace_id.as_ref().map(ids::Hex::as_str),
            status: facts.status,
            reason,
            detail: facts.detail.as_deref(),
            request_bytes: facts.request_bytes,
            response_bytes: facts.response_bytes,
            attempts: sources.map_or(facts.attempts, |all| all.outcomes.iter().map(|outcome| outcome.attempts).sum()),
            reused: facts.reused,
            started: self.started.into_std(),
            timings: facts.timings,
            fault: facts.fault,
            sources: sources.as_ref(),
        });
        // Last: who sees that nothing is in flight finds everything counted.
        if let Some(in_flight) = facts.in_flight.take() {
            in_flight.leave(now);
        }
    }
}

const fn protocol(version: Version) -> Protocol {
    match version {
        Version::Http10 => Protocol::Http10,
        Version::Http11 => Protocol::Http11,
        Version::Http2 => Protocol::Http2,
    }
}

/// Writes the record of a head that was refused: nobody knows what it asked for. `sent` counts the answer's body bytes.
pub fn record_refused(
    proxy: &Proxy,
    connection: &ConnectionInfo,
    version: Version,
    failure: &Failure,
    sent: u64,
    started: Instant,
) {
    proxy.telemetry.finish(&RequestRecord {
        route: proxy.unmatched.clone(),
        upstream: None,
        listener: connection.listener.name.clone(),
        endpoint: None,
        protocol: protocol(version),
        method: "",
        host: "",
        target: "",
        client: connection.peer.ip(),
        request_id: "",
        trace_id: None,
        status: failure.status(),
        reason: failure.reason,
        detail: failure.detail.as_deref(),
        request_bytes: 0,
        response_bytes: sent,
        attempts: 0,
        reused: false,
        started: started.into_std(),
        timings: Timings { total: started.elapsed(), ..Timings::default() },
        fault: None,
        sources: None,
    });
}

/// A request that has found its route.
pub struct Matched {
    pub route: Arc<RouteRuntime>,
    /// The peer is one of the listener's trusted proxies.
    pub trusted: bool,
    pub client: IpAddr,
    /// Of the path, decoded; only for routes that put them into something.
    pub parameters: Vec<(String, String)>,
}

impl Matched {
    /// Of a route that is one.
    pub fn aggregate(&self) -> &Aggregate {
        match &self.route.route.action {
            RouteAction::Aggregate(aggregate) => aggregate,
            _ => unreachable!("only aggregate routes ask"),
        }
    }
}

struct HeadLookup<'a>(&'a RequestHead);

impl KeyLookup for HeadLookup<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.fields.get_name(name)
    }

    fn query(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        path::query_value(self.0.query()?, name.as_bytes())
    }
}

fn rejected(rejection: Rejection, with_fields: bool) -> Failure {
    let standing = with_fields.then_some(rejection.standing.as_ref()).flatten();
    Failure {
        retry_after: rejection.retry_after,
        rate_fields: rate_fields(standing).map(Box::new),
        ..rejection.reason.into()
    }
}

pub fn body_limits(connection: &crate::config::model::Listener, max_bytes: u64, first_byte: Duration) -> BodyLimits {
    BodyLimits { max_bytes, timeout: connection.timeouts.body, min_rate: connection.min_body_rate, first_byte }
}

pub fn answer_limits(
    connection: &crate::config::model::Listener,
    between_bytes: Duration,
    max_bytes: Option<u64>,
    bandwidth: Option<u64>,
) -> AnswerLimits {
    AnswerLimits { between_bytes, client_write: connection.timeouts.write, max_bytes, bandwidth }
}

/// True for requests that may be sent again when a reused connection turns out to be dead.
pub fn may_repeat(method: Method, body: Body) -> bool {
    method.is_idempotent() && body == Body::None
}
