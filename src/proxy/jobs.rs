//! Background work of aggregates: answered with 202 at once; the result is fetched by its id from a route of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::aggregate::{Answering, Finished, Landed, Work, outcome_fields};
use super::body::Source;
use super::client::Client;
use super::exchange::{Done, Exchange, Facts, Matched};
use super::generation::AggregateRuntime;
use super::prepare::RequestId;
use super::respond::Failure;
use crate::aggregate::Ending;
use crate::aggregate::results::{Id, Lookup, Removed, Results, Stored};
use crate::config::model::aggregate::Aggregate;
use crate::config::model::{PathPattern, Segment};
use crate::limits::{Permits, retry_after_seconds};
use crate::message::head::{Known, Method};
use crate::telemetry::Reason;

/// When a client may ask again whose work runs, or for which there is no room.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Sources that a line of the log names.
const MOST_NAMED: usize = 8;

impl Exchange<'_> {
    /// Begins the work and answers with where its result will be.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request, borrowed separately")]
    pub async fn begin_job(
        &mut self,
        work: Work,
        results: &Arc<Results>,
        permits: Permits,
        answering: &Answering<'_>,
        source: &Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<Done, Failure> {
        if self.head.method == Method::Head {
            // Who asks for no body must not begin anything (RFC 9110 §9.2.1), and there is nothing else to tell.
            let allow = Some("GET, POST, PUT, PATCH, DELETE".to_owned());
            return Err(Failure { allow, ..Reason::MethodNotAllowed.into() });
        }
        let job = results.begin().map_err(|reason| Failure { retry_after: Some(ASK_AGAIN), ..reason.into() })?;
        let id = job.id().to_string();
        let background = answering.matched.aggregate().background.as_ref().expect("results are built for it");
        let location = location(&background.results, &id);
        // Ends with the route's deadline, or when somebody deletes the job.
        let runtime = work.runtime.clone();
        let (route, request_id) = (answering.matched.route.route.name.clone(), facts.request_id.clone());
        let work = work.detached(permits);
        let result = async move {
            let landed = work.await;
            log_end(&route, request_id.as_ref(), runtime.plan.aggregate(), &landed);
            stored(&landed, &runtime)
        };
        self.proxy.tasks.spawn("background job", job.run(result));
        let fields = self.begin_answer(202);
        fields.set_known(Known::ContentType, b"application/json");
        fields.push(b"location", location.as_bytes());
        push_ask_again(fields);
        facts.reason = Some(Reason::Ok);
        let body = serde_json::json!({ "id": id, "status": "running", "status_url": location });
        self.send_answer(&line(&body), answering, source, client, facts).await
    }

    /// Answers with the result of a job, or with how it stands. `DELETE` forgets it, or ends it.
    pub async fn results(
        &mut self,
        matched: &Matched,
        source: &Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<Done, Failure> {
        let results = matched.route.results.as_ref().expect("a route of results is built with them");
        let id = matched.parameters.first().and_then(|(_, id)| Id::parse(id));
        let id = id.ok_or_else(|| Failure::from(Reason::NoResult))?;
        let answering = Answering { matched, rate: None };
        match self.head.method {
            Method::Get | Method::Head => {}
            Method::Delete => {
                return match results.remove(id) {
                    Removed::Result | Removed::Cancelled => {
                        self.begin_answer(204);
                        facts.reason = Some(Reason::Ok);
                        self.send_answer(b"", &answering, source, client, facts).await
                    }
                    Removed::Gone => Err(Reason::ResultGone.into()),
                    Removed::Unknown => Err(Reason::NoResult.into()),
                };
            }
            _ => {
                let allow = Some("GET, HEAD, DELETE".to_owned());
                return Err(Failure { allow, ..Reason::MethodNotAllowed.into() });
            }
        }
        match results.get(id) {
            Lookup::Unknown => Err(Reason::NoResult.into()),
            Lookup::Gone => Err(Reason::ResultGone.into()),
            Lookup::Running { since } => {
                let fields = self.begin_answer(202);
                fields.set_known(Known::ContentType, b"application/json");
                fields.set_known(Known::CacheControl, b"no-store");
                push_ask_again(fields);
                facts.reason = Some(Reason::Ok);
                let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                let body = serde_json::json!({ "id": id.to_string(), "status": "running", "running_ms": ms });
                self.send_answer(&line(&body), &answering, source, client, facts).await
            }
            Lookup::Ready { stored, expires } => {
                self.send_stored(&stored, expires, &answering, source, client, facts).await
            }
        }
    }

    async fn send_stored(
        &mut self,
        stored: &Stored,
        expires: Instant,
        answering: &Answering<'_>,
        source: &Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<Done, Failure> {
        let Some(body) = &stored.body else { return Err(stored.reason.into()) };
        let fields = self.begin_answer(stored.status);
        for (name, value) in &stored.headers {
            fields.set(name, value.as_bytes());
        }
        // Private to whoever has the id, and here only until then.
        let left = expires.saturating_duration_since(Instant::now()).as_secs();
        fields.set_known(Known::CacheControl, format!("private, max-age={left}").as_bytes());
        facts.reason = Some(stored.reason);
        self.send_answer(body, answering, source, client, facts).await
    }
}

/// Says what a job lacks: the line of its request was written when it began, and whoever fetches the result is told the
/// reason, but not which source is to blame for it.
fn log_end(route: &str, request_id: Option<&RequestId>, aggregate: &Aggregate, landed: &Landed) {
    let (reason, lacking) = match &**landed {
        Ok(finished) => (finished.merged.reason, lacking(aggregate, finished)),
        Err(refusal) => (refusal.reason, refusal.detail.clone()),
    };
    if reason != Reason::Ok {
        let (request_id, reason) = (request_id.map(RequestId::as_str), reason.code());
        tracing::warn!(route, request_id, reason, lacking, "a background job ended without a whole answer");
    }
}

/// What is missing, and why: so many sources of them that the line stays one that can be read.
fn lacking(aggregate: &Aggregate, Finished { merged, outcomes, .. }: &Finished) -> String {
    let missing = outcomes.iter().filter(|outcome| matches!(outcome.ending, Ending::Failed | Ending::Partial));
    let words = missing.take(MOST_NAMED).map(|outcome| {
        let name = &aggregate.sources[outcome.source].name;
        match &outcome.detail {
            Some(detail) => format!("{name}: {} ({detail})", outcome.reason),
            None => format!("{name}: {}", outcome.reason),
        }
    });
    // Answers that cannot be merged are nobody's failure.
    let of_the_whole = merged.detail.clone().filter(|_| merged.failed_source.is_none());
    of_the_whole.into_iter().chain(words).collect::<Vec<_>>().join("; ")
}

fn stored(landed: &Landed, runtime: &AggregateRuntime) -> Stored {
    let finished = match &**landed {
        Ok(finished) => finished,
        Err(refusal) => return Stored::failed(refusal.reason),
    };
    let merged = &finished.merged;
    let Some(body) = &merged.body else { return Stored::failed(merged.reason) };
    let mut headers = outcome_fields(finished, runtime.plan.aggregate());
    headers.push((Known::ContentType.name(), merged.content_type.to_string()));
    Stored { status: merged.status, reason: merged.reason, headers, body: Some(body.clone()) }
}

fn push_ask_again(fields: &mut crate::message::head::Fields) {
    fields.push_known(Known::RetryAfter, itoa::Buffer::new().format(retry_after_seconds(ASK_AGAIN)).as_bytes());
}

fn line(body: &serde_json::Value) -> Vec<u8> {
    let mut text = body.to_string().into_bytes();
    text.push(b'\n');
    text
}

/// Where the result will be: the path of the route of results, with the id in the place of its parameter.
fn location(pattern: &PathPattern, id: &str) -> String {
    let PathPattern::Template { segments, .. } = pattern else { return String::new() };
    let parts = segments.iter().map(|segment| match segment {
        Segment::Literal(literal) => literal.as_str(),
        Segment::Parameter(_) => id,
    });
    parts.flat_map(|part| ["/", part]).collect()
}
