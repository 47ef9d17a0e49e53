//! The calls of an aggregate's sources, over the same connections, limits, clocks and metrics as proxied requests.
//!
//! A call is an attempt like any other (`attempt`), whose client is memory on both sides. So everything that holds for
//! an upstream holds here, too: its endpoints and their health, phase timeouts, retries after failed connects, HTTP/2, TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Proxy;
use super::attempt::{Destination, Rules, Run};
use super::body::Source;
use super::client::Client;
use super::exchange::Facts;
use super::generation::{ListenerRuntime, UpstreamRuntime};
use super::prepare::{self, RequestId};
use super::race::race;
use super::relay::Live;
use super::respond::Failure;
use super::timer::{LazyTimer, StageClock};
use super::workspace::{Desk, Lent};
use crate::aggregate::{Answer, Call, Called, Failed, Fetch};
use crate::config::model::{ClientGone, HeaderEdits, HostPolicy};
use crate::limits::{Admission, KeyLookup, Permits, Rejection, RequestKeys, TryAdmit};
use crate::message::head::{Body, Fields, Known, RequestHead};
use crate::message::ids::Traceparent;
use crate::telemetry::Reason;

/// Where the timer of a call without a deadline stands at first.
const FAR: Duration = Duration::from_secs(3600);

/// What an upstream is told when the source names no `user-agent`.
const USER_AGENT: &str = concat!("forebay/", env!("CARGO_PKG_VERSION"));

/// A source as its calls use it.
#[derive(Debug)]
pub struct SourceRuntime {
    pub upstream: Arc<UpstreamRuntime>,
    /// Holds the in-flight limit of the upstream.
    pub admission: Admission,
}

/// Sends the calls of one request.
pub struct Subrequests {
    pub proxy: Arc<Proxy>,
    /// In the order of the aggregate.
    pub sources: Arc<[SourceRuntime]>,
    pub listener: Arc<ListenerRuntime>,
    pub context: Context,
}

/// What ties the calls to the client's request, in logs and traces.
#[derive(Debug, Clone)]
pub struct Context {
    pub request_id: Option<RequestId>,
    pub trace: Traceparent,
    /// The client's, when its `traceparent` was taken up.
    pub tracestate: Option<Box<[u8]>>,
}

impl Fetch for Subrequests {
    async fn fetch(&self, call: Call, deadline: Option<Instant>) -> Called {
        let started = Instant::now();
        let mut facts = Facts::default();
        let live = Live::new(StageClock::new(started, deadline));
        let mut timer = LazyTimer::new(deadline.unwrap_or(started + FAR));
        let result = self.call(call, &live, &mut timer, &mut facts).await.map_err(|failure| Failed {
            reason: failure.reason,
            detail: failure.detail.map(Into::into),
            retry_after: failure.retry_after,
        });
        Called { result, attempts: facts.attempts, queue: facts.timings.queue.unwrap_or_default() }
    }
}

impl Subrequests {
    async fn call(&self, call: Call, live: &Live, timer: &mut LazyTimer, facts: &mut Facts) -> Result<Answer, Failure> {
        let SourceRuntime { upstream, admission } = &self.sources[call.source];
        let mut body = Source::Memory(call.body.clone().unwrap_or_default());
        let _permits = admit(admission, live, timer, &mut body, facts).await?;
        let mut desk = Lent::new();
        let Desk { head, work, .. } = &mut *desk;
        self.write_head(&call, head);
        work.target.extend_from_slice(call.target.as_bytes());
        let smaller = |max: u64| max.min(call.max_body_bytes);
        let edits = HeaderEdits::default();
        let rules = Rules {
            max_body_bytes: u64::MAX,
            max_answer_bytes: Some(upstream.config.max_response_body_bytes.map_or(call.max_body_bytes, smaller)),
            // Nobody leaves here: who no longer wants the answer drops the call.
            on_client_gone: ClientGone::Cancel,
            upgrade_idle_timeout: Duration::ZERO,
            host: &HostPolicy::Upstream,
            response_headers: &edits,
        };
        let to = Destination {
            rules,
            upstream,
            listener: &self.listener,
            live,
            method: head.method,
            upgrade: None,
            rate_fields: None,
            detached: &self.proxy.telemetry.detached,
            lifecycle: &self.proxy.lifecycle,
        };
        let mut answer = Vec::new();
        let mut client = Client::Memory(&mut answer);
        let run = Run { to, request: head, timer };
        run.forward(&mut body, &mut client, work, facts, &mut None).await?;
        let text = |known| work.answer.fields.get(known).map(|value| String::from_utf8_lossy(value).into_owned());
        Ok(Answer {
            status: facts.status,
            content_type: text(Known::ContentType),
            content_encoding: content_encoding(&work.answer.fields),
            body: Bytes::from(answer),
        })
    }

    fn write_head(&self, call: &Call, head: &mut RequestHead) {
        head.begin_own(call.method, call.body.as_ref().map_or(Body::None, |body| Body::Length(body.len() as u64)));
        let fields = &mut head.fields;
        for (name, value) in &call.headers {
            fields.push(name.as_bytes(), value);
        }
        if !fields.contains(Known::UserAgent) {
            fields.push_known(Known::UserAgent, USER_AGENT.as_bytes());
        }
        self.context.write(fields);
    }
}

impl Context {
    /// Each call is a span of its own below the request's.
    fn write(&self, fields: &mut Fields) {
        if let Some(id) = &self.request_id {
            fields.set_known(Known::XRequestId, id.as_bytes());
        }
        fields.remove(Known::Traceparent);
        fields.push_with(Known::Traceparent, |out| prepare::child_of(self.trace).write(out));
        if let Some(state) = &self.tracestate {
            fields.set_known(Known::Tracestate, state);
        }
    }
}

/// All codings of an answer: several fields are one list (RFC 9110 §5.3), and undoing only the first of them would give
/// out what is still encoded.
fn content_encoding(fields: &Fields) -> Option<String> {
    fields.get(Known::ContentEncoding)?;
    let values: Vec<_> = fields.values_of(Known::ContentEncoding.name()).map(String::from_utf8_lossy).collect();
    Some(values.join(", ")).filter(|coding| !coding.eq_ignore_ascii_case("identity"))
}

async fn admit(
    admission: &Admission,
    live: &Live,
    timer: &mut LazyTimer,
    body: &mut Source<'_>,
    facts: &mut Facts,
) -> Result<Permits, Failure> {
    // The limits that look at a client were met by its request.
    let keys = RequestKeys { client: IpAddr::V4(Ipv4Addr::UNSPECIFIED), lookup: &Nobody };
    let admitted = match admission.try_admit(&keys, live.clock.deadline()) {
        TryAdmit::Admitted(permits) => Ok(permits),
        TryAdmit::Rejected(rejection) => Err(rejection),
        TryAdmit::Wait(pending) => {
            live.clock.enter(Reason::DeadlineQueue);
            race(pending.wait(), body, live, timer).await?
        }
    };
    match admitted {
        Ok(permits) => {
            facts.timings.queue = permits.queue;
            Ok(permits)
        }
        Err(Rejection { reason, retry_after, queue, .. }) => {
            facts.timings.queue = queue;
            Err(Failure { retry_after, ..reason.into() })
        }
    }
}

/// Nobody in particular: the limits that look at a client do not hold here.
pub struct Nobody;

impl KeyLookup for Nobody {
    fn header(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn query(&self, _name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        None
    }
}
