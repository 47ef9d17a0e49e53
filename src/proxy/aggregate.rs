//! Routes that answer from several sources: what a request brings is collected, the sources are called, one answer is
//! sent. What is called and what the answer looks like is decided in `crate::aggregate`; here are the client, its leaving
//! and the work that goes on without it. `stream` sends parts as they complete, `jobs` works in the background.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::body::Source;
use super::client::Client;
use super::exchange::{Done, Exchange, Facts, Matched, body_limits};
use super::generation::{AggregateRuntime, ListenerRuntime};
use super::relay::{Live, RequestEnd, read_body};
use super::respond::Failure;
use super::subrequest::{Context, Subrequests};
use super::{OpenRequest, Proxy, prepare};
use crate::aggregate::flights::{Key, Shared};
use crate::aggregate::{self, Inputs, Merged, Outcome, Refusal};
use crate::config::model::ClientGone;
use crate::config::model::aggregate::Aggregate;
use crate::limits::{Permits, RateFields, rate_fields};
use crate::message::head::{Fields, Known};
use crate::message::path;
use crate::telemetry::{Completeness, Reason, server_timing};

/// Nesting of a request's JSON body that templates look into.
const REQUEST_DEPTH: usize = 64;
/// Sources that gave something usable, of those that were asked.
const COMPLETENESS: &str = "x-forebay-completeness";
/// A list that was longer than allowed: how many of its items were left out.
const TRUNCATED: &str = "x-forebay-truncated";

/// What the sources gave for one request.
#[derive(Debug)]
pub struct Finished {
    pub aggregate: Arc<Aggregate>,
    pub merged: Merged,
    pub outcomes: Vec<Outcome>,
}

/// The end of one request's work, as clients share it.
pub type Landed = Arc<Result<Finished, Refusal>>;

impl Shared for Landed {
    fn reason(&self) -> Reason {
        match &**self {
            Ok(finished) => finished.merged.reason,
            Err(refusal) => refusal.reason,
        }
    }
}

/// One request's work on its sources. It owns all it needs and can go on without the client.
pub struct Work {
    pub runtime: Arc<AggregateRuntime>,
    pub inputs: Arc<Inputs>,
    proxy: Arc<Proxy>,
    listener: Arc<ListenerRuntime>,
    context: Context,
    pub deadline: Option<Instant>,
}

impl Work {
    /// Refuses what can be refused before an answer is begun; `run` does so, too.
    async fn check(&self) -> Result<(), Failure> {
        aggregate::check(&self.runtime.plan, &self.inputs).await.map_err(refused)
    }

    /// Calls the sources and merges what they say; `on_end` hears of each source at its end.
    pub async fn run(self, on_end: impl FnMut(&Outcome) + Send) -> Result<Finished, Refusal> {
        let started = Instant::now();
        let Self { runtime, inputs, proxy, listener, context, deadline } = self;
        let calls = Subrequests { proxy, sources: runtime.sources.clone(), listener, context };
        let outcomes = aggregate::execute(&runtime.plan, &inputs, &calls, deadline, on_end).await?;
        let (outcomes, merged) = aggregate::merge_off_loop(&runtime.plan, &inputs, outcomes).await;
        runtime.metrics.record(&outcomes, started.elapsed(), Completeness::of(merged.reason));
        Ok(Finished { aggregate: runtime.plan.aggregate().clone(), merged, outcomes })
    }

    /// The work as a task of its own: it counts as a request for shutdown, and holds its places in the limits.
    pub fn detached(self, permits: Permits) -> impl Future<Output = Landed> + Send + 'static {
        let open = OpenRequest::new(self.proxy.clone());
        async move {
            let landed = Arc::new(self.run(|_| {}).await);
            drop((open, permits));
            landed
        }
    }
}

/// How an aggregate is answered: fields that depend on the route and not on the sources.
pub struct Answering<'r> {
    pub matched: &'r Matched,
    pub rate: Option<RateFields>,
}

/// What a request brings.
struct Received {
    inputs: Inputs,
    /// The body as it came, when something looks at it.
    body: Option<Bytes>,
}

impl Exchange<'_> {
    /// Answers from the route's sources.
    pub async fn aggregate(
        &mut self,
        matched: &Matched,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        live: &Live,
        permits: Permits,
        facts: &mut Facts,
    ) -> Result<Done, Failure> {
        let route = &matched.route;
        let runtime = route.aggregate.as_ref().expect("an aggregate route is built with its sources");
        let received = self.receive(runtime, matched, source, client, live).await?;
        let standing = route.route.rate_limit_headers.then_some(permits.standing.as_ref()).flatten();
        let answering = Answering { matched, rate: rate_fields(standing) };
        let work = Work {
            runtime: runtime.clone(),
            inputs: Arc::new(received.inputs),
            proxy: self.proxy.clone(),
            listener: self.connection.listener.clone(),
            context: self.context(facts),
            deadline: live.clock.deadline(),
        };
        live.clock.enter(Reason::DeadlineFirstByte);
        if let Some(jobs) = &runtime.jobs {
            work.check().await?;
            return self.begin_job(work, &jobs.results, permits, &answering, source, client, facts).await;
        }
        if let Some(format) = self.stream_format(runtime) {
            work.check().await?;
            return self.stream(work, format, &answering, source, client, facts).await;
        }
        let begun = Instant::now();
        let landed = match &runtime.flights {
            Some(flights) => {
                let coalesce = matched.aggregate().coalesce.as_ref().expect("flights are built for it");
                let key = Key::new(&route.route.name, coalesce, self.head, received.body.as_ref());
                let answer = flights.answer(&key, live.clock.deadline(), || work.detached(permits));
                // Shared work goes on without this client, or ends, as the route says.
                let answered = self.stay(answer, ClientGone::Cancel, source, facts).await?;
                if !answered.leads {
                    runtime.metrics.joined();
                }
                answered.result.map_err(Failure::from)?
            }
            None => Arc::new(self.stay(work.run(|_| {}), route.route.on_client_gone, source, facts).await?),
        };
        facts.timings.upstream = Some(begun.elapsed());
        match &*landed {
            Ok(_) => self.answer_merged(landed, &answering, source, client, facts).await,
            Err(refusal) => Err(refused(refusal.clone())),
        }
    }

    /// Runs the work while the client stays, or to its end where the route says so; then the reason says that nobody
    /// takes the answer.
    pub async fn stay<T>(
        &mut self,
        work: impl Future<Output = T>,
        on_client_gone: ClientGone,
        source: &mut Source<'_>,
        facts: &mut Facts,
    ) -> Result<T, Failure> {
        let detached = &self.proxy.telemetry.detached;
        let mut alone = None;
        let mut work = pin!(work);
        let done = poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if alone.is_none() && source.poll_gone(cx).is_ready() {
                if on_client_gone == ClientGone::Cancel {
                    return Poll::Ready(None);
                }
                alone = Some(detached.begin());
            }
            Poll::Pending
        })
        .await;
        if let Some(alone) = alone {
            alone.finished();
            facts.reason = Some(Reason::ClientGone);
        }
        done.ok_or_else(|| Reason::ClientGone.into())
    }

    /// Sends the answer. `landed` is one that finished.
    async fn answer_merged(
        &mut self,
        landed: Landed,
        answering: &Answering<'_>,
        source: &Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<Done, Failure> {
        let Ok(finished) = &*landed else { return Err(Reason::Internal.into()) };
        facts.sources = Some(landed.clone());
        let merged = &finished.merged;
        if facts.reason == Some(Reason::ClientGone) {
            // It left while the work went on.
            return Ok(Done::Answered { complete: false });
        }
        let Some(body) = &merged.body else { return Err(failure(finished, answering)) };
        let fields = self.begin_answer(merged.status);
        fields.set_known(Known::ContentType, merged.content_type.as_bytes());
        for (name, value) in outcome_fields(finished, answering.matched.aggregate()) {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        facts.reason = Some(merged.reason);
        let body = body.clone();
        self.send_answer(&body, answering, source, client, facts).await
    }

    /// Begins the head of an answer of our own; gives its fields.
    pub fn begin_answer(&mut self, status: u16) -> &mut Fields {
        self.work.answer.reset();
        self.work.answer.status = status;
        &mut self.work.answer.fields
    }

    /// What every answer of the route has; the route's own edits come last, so that they hold for all fields.
    pub fn complete_head(&mut self, answering: &Answering<'_>, facts: &Facts) {
        let edits = &answering.matched.route.route.response_headers;
        prepare::answer_fields(&mut self.work.answer.fields, edits, facts, answering.rate.as_ref());
    }

    /// Sends the answer that was begun. `facts.reason` says what the end is when that succeeds.
    pub async fn send_answer(
        &mut self,
        body: &[u8],
        answering: &Answering<'_>,
        source: &Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<Done, Failure> {
        self.complete_head(answering, facts);
        self.send_whole(body, source, client, facts).await
    }

    /// What the templates of the route need of this request.
    async fn receive(
        &mut self,
        runtime: &AggregateRuntime,
        matched: &Matched,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        live: &Live,
    ) -> Result<Received, Failure> {
        let needs = runtime.plan.needs();
        // A value that is not UTF-8 is one that is not there: nothing may be sent on that the client did not mean.
        let text = |bytes: Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).ok();
        let query = match self.head.query() {
            Some(raw) if needs.query => {
                path::query_pairs(raw).filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
            }
            _ => Vec::new(),
        };
        let named = |name: &String| Some((name.clone(), joined_values(&self.head.fields, name)?));
        let headers = needs.headers.iter().filter_map(named).collect();
        let raw = match needs.body || runtime.keyed_by_body() {
            true => Some(self.read_body(matched, source, client, live).await?),
            false => None,
        };
        let body = match &raw {
            Some(raw) if needs.body && !raw.is_empty() => {
                Some(aggregate::read_request(raw.clone(), REQUEST_DEPTH).await.map_err(refused)?)
            }
            _ => None,
        };
        let parameters = matched.parameters.clone();
        Ok(Received { inputs: Inputs { parameters, query, headers, body }, body: raw })
    }

    async fn read_body(
        &mut self,
        matched: &Matched,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        live: &Live,
    ) -> Result<Bytes, Failure> {
        let route = &matched.route.route;
        let limits = body_limits(&self.connection.listener.config, route.max_body_bytes, Duration::ZERO);
        let interim = self.head.expects_continue().then(|| client.interim());
        let mut read = pin!(read_body(source, live, limits, interim));
        let read = poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(read) => Poll::Ready(Ok(read)),
            Poll::Pending => live.clock.poll_expired(cx, self.timer).map(Err),
        });
        match read.await {
            Ok(Ok(body)) => Ok(body.into()),
            Ok(Err(RequestEnd::ClientGone)) => Err(Reason::ClientGone.into()),
            Ok(Err(RequestEnd::Refused(reason, detail))) => Err(Failure::refused(reason, detail)),
            Err(reason) => Err(reason.into()),
        }
    }

    fn context(&mut self, facts: &mut Facts) -> Context {
        let trace = prepare::trace(&mut self.head.fields);
        facts.trace_id = Some(trace.trace_id());
        let tracestate = self.head.fields.get(Known::Tracestate).map(Into::into);
        Context { request_id: facts.request_id.clone(), trace, tracestate }
    }
}

/// The problem that is answered when nothing can be made of the outcomes.
pub fn failure(finished: &Finished, answering: &Answering<'_>) -> Failure {
    let merged = &finished.merged;
    let public = merged.failed_source.map(|index| {
        let source = &answering.matched.aggregate().sources[index];
        format!("source {:?}: {}", source.name, finished.outcomes[index].reason.title()).into()
    });
    let of_a_source = || finished.outcomes.iter().find_map(|outcome| outcome.detail.clone());
    let detail = merged.detail.clone().or_else(of_a_source).map(Into::into);
    Failure { public, detail, retry_after: merged.retry_after, ..merged.reason.into() }
}

/// All values of a field as one (RFC 9110 §5.3; RFC 6265 §5.4 for cookies): a source gets what the client sent, in however
/// many lines.
fn joined_values(fields: &Fields, name: &str) -> Option<Vec<u8>> {
    let mut values = fields.values_of(name);
    let mut joined = values.next()?.to_vec();
    let separator: &[u8] = if name == Known::Cookie.name() { b"; " } else { b", " };
    for value in values {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(value);
    }
    Some(joined)
}

/// A request that the plan refuses for what it says.
pub fn refused(refusal: Refusal) -> Failure {
    let detail: Cow<'static, str> = refusal.detail.into();
    Failure { public: Some(detail.clone()), detail: Some(detail), ..refusal.reason.into() }
}

/// Fields that say how complete the answer is and where its time went.
pub fn outcome_fields(finished: &Finished, aggregate: &Aggregate) -> Vec<(&'static str, String)> {
    let Finished { merged, outcomes, .. } = finished;
    let mut fields = vec![(COMPLETENESS, merged.completeness())];
    if merged.reason == Reason::Partial {
        fields.push((Known::ForebayReason.name(), merged.reason.code().to_owned()));
        // A part must not be kept and given out as the whole.
        fields.push((Known::CacheControl.name(), "no-store".to_owned()));
    }
    for (source, cut) in &merged.truncated {
        fields.push((TRUNCATED, format!("{};items={cut}", aggregate.sources[*source].name)));
    }
    if aggregate.server_timing {
        fields.push(("server-timing", server_timing(aggregate, outcomes)));
    }
    fields
}
