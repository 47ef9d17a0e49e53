//! Mirroring: copies of a route's requests go to another upstream, whose answers nobody gets.
//!
//! The request itself never waits for a copy: a copy that finds no place is dropped and counted. A copy is an attempt like
//! any other (`attempt`), with memory on both sides; its upstream has its own limits, clocks and metrics.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::attempt::{Destination, Rules, Run};
use super::body::Source;
use super::client::Client;
use super::exchange::Facts;
use super::generation::{ListenerRuntime, UpstreamRuntime};
use super::relay::Live;
use super::respond::Failure;
use super::subrequest::Nobody;
use super::timer::{LazyTimer, StageClock};
use super::workspace::{Desk, Lent};
use super::{Proxy, prepare};
use crate::chance;
use crate::config::model::{ClientGone, HeaderEdits, Mirror, Route};
use crate::limits::{Admission, RequestKeys, TryAdmit};
use crate::message::head::{Body, Known, RequestHead};
use crate::message::ids::Traceparent;
use crate::shutdown::Phase;
use crate::tap::{Budget, Copied, Tap};
use crate::telemetry::{MirrorMetrics, MirrorResult};

/// Tells the upstream that nobody waits for its answer.
const MARK: &[u8] = b"x-forebay-mirror";

/// The mirror of a route as its requests use it.
pub struct MirrorRuntime {
    pub config: Arc<Mirror>,
    pub upstream: Arc<UpstreamRuntime>,
    /// Holds the in-flight limit of the upstream.
    pub admission: Admission,
    pub metrics: Arc<MirrorMetrics>,
    in_flight: AtomicUsize,
    budget: Arc<Budget>,
}

impl std::fmt::Debug for MirrorRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MirrorRuntime({})", self.upstream.config.name)
    }
}

impl MirrorRuntime {
    pub fn new(
        config: Arc<Mirror>,
        upstream: Arc<UpstreamRuntime>,
        admission: Admission,
        metrics: Arc<MirrorMetrics>,
    ) -> Arc<Self> {
        let budget = Budget::new(config.max_bytes);
        Arc::new(Self { config, upstream, admission, metrics, in_flight: AtomicUsize::new(0), budget })
    }

    /// True when it does what this configuration says.
    pub fn is(&self, config: &Mirror, upstream: &Arc<UpstreamRuntime>) -> bool {
        *self.config == *config && Arc::ptr_eq(&self.upstream, upstream)
    }

    /// Copies to make of a request: the whole part of `copies`, and one more for as many requests as the rest says,
    /// decided by the hash of the request's id, so that every sidecar that gets this id decides alike.
    fn copies(&self, method: &str, request_id: &str) -> usize {
        if !self.config.methods.iter().any(|mirrored| mirrored == method) {
            return 0;
        }
        let (whole, rest) = (self.config.copies.trunc(), self.config.copies.fract());
        whole as usize + usize::from(chance::unit(0, request_id, 0, 1) < rest)
    }

    /// A place for one copy, if there is one.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let below = |count: usize| (count < self.config.max_in_flight).then_some(count + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        self.metrics.in_flight.inc();
        Some(Place(self.clone()))
    }
}

/// A copy in flight.
struct Place(Arc<MirrorRuntime>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.in_flight.dec();
    }
}

/// What a copy is made from. Taken before the first attempt, when the fields are those that the upstream gets.
pub struct Original<'r> {
    pub proxy: &'r Arc<Proxy>,
    pub listener: &'r Arc<ListenerRuntime>,
    pub route: &'r Arc<Route>,
    pub head: &'r RequestHead,
    pub target: &'r [u8],
    pub request_id: &'r str,
}

/// Begins the copies of a request; gives the tap that its body has to pass when there is a body.
pub fn begin(mirror: &Arc<MirrorRuntime>, original: &Original<'_>) -> Option<Arc<Tap>> {
    let wanted = mirror.copies(original.head.method.as_str(), original.request_id);
    let places: Vec<Place> = std::iter::from_fn(|| mirror.place()).take(wanted).collect();
    mirror.metrics.count_many(MirrorResult::NoPlace, wanted - places.len());
    if places.is_empty() {
        return None;
    }
    let tap = match original.head.framing() {
        Body::None | Body::Length(0) => None,
        _ => Some(Arc::new(Tap::new(mirror.config.max_body_bytes, &mirror.budget))),
    };
    let body = tap.as_ref().map(|tap| tap.completion());
    let shared = Arc::new(Shared {
        proxy: original.proxy.clone(),
        listener: original.listener.clone(),
        route: original.route.clone(),
        head: original.head.clone(),
        target: original.target.to_vec(),
    });
    let draining = original.proxy.lifecycle.clone();
    let work = send_all(places, shared, body);
    original.proxy.tasks.spawn("mirror", async move {
        tokio::select! {
            () = draining.reached(Phase::Draining) => {}
            () = work => {}
        }
    });
    tap
}

/// The request, once for all its copies.
struct Shared {
    proxy: Arc<Proxy>,
    listener: Arc<ListenerRuntime>,
    route: Arc<Route>,
    head: RequestHead,
    target: Vec<u8>,
}

async fn send_all(places: Vec<Place>, shared: Arc<Shared>, body: Option<oneshot::Receiver<Option<Copied>>>) {
    let copied = match body {
        None => Some(None),
        // It is over when the client leaves inside the body, or when the body does not fit.
        Some(body) => body.await.ok().flatten().map(Some),
    };
    let Some(copied) = copied else {
        if let Some(place) = places.first() {
            place.0.metrics.count_many(MirrorResult::NoBody, places.len());
        }
        return;
    };
    let copies = places.into_iter().map(|place| send(place, shared.clone(), copied.clone()));
    futures_util::future::join_all(copies).await;
}

async fn send(place: Place, shared: Arc<Shared>, body: Option<Copied>) {
    let mirror = &place.0;
    let result = match call(mirror, &shared, body.map(|body| body.bytes).unwrap_or_default()).await {
        Ok(_) => MirrorResult::Answered,
        Err(Ended::NoPlace) => MirrorResult::NoPlace,
        Err(Ended::Failed) => MirrorResult::Failed,
    };
    mirror.metrics.count(result);
}

enum Ended {
    /// The limit of the mirror's upstream had no permit: a copy does not wait for one.
    NoPlace,
    Failed,
}

impl From<Failure> for Ended {
    fn from(_: Failure) -> Self {
        Ended::Failed
    }
}

/// Sends one copy and reads its answer to the end; gives its status.
async fn call(mirror: &MirrorRuntime, shared: &Shared, body: Bytes) -> Result<u16, Ended> {
    let keys = RequestKeys { client: IpAddr::V4(Ipv4Addr::UNSPECIFIED), lookup: &Nobody };
    let started = Instant::now();
    let deadline = started + mirror.config.timeout;
    let TryAdmit::Admitted(_permits) = mirror.admission.try_admit(&keys, Some(deadline)) else {
        return Err(Ended::NoPlace);
    };
    let live = Live::new(StageClock::new(started, Some(deadline)));
    let mut timer = LazyTimer::new(deadline);
    let mut desk = Lent::new();
    let Desk { head, work, .. } = &mut *desk;
    write_head(head, mirror, shared, body.len());
    work.target.extend_from_slice(&shared.target);
    let edits = HeaderEdits::default();
    let rules = Rules {
        max_body_bytes: u64::MAX,
        max_answer_bytes: mirror.upstream.config.max_response_body_bytes,
        // Nobody leaves here.
        on_client_gone: ClientGone::Cancel,
        upgrade_idle_timeout: mirror.config.timeout,
        host: &shared.route.host,
        response_headers: &edits,
    };
    let to = Destination {
        rules,
        upstream: &mirror.upstream,
        listener: &shared.listener,
        live: &live,
        method: head.method,
        upgrade: None,
        rate_fields: None,
        detached: &shared.proxy.telemetry.detached,
        lifecycle: &shared.proxy.lifecycle,
    };
    let mut facts = Facts::default();
    let mut source = Source::Memory(body);
    let answer = Tap::new(0, &mirror.budget);
    let mut client = Client::Copy(&answer);
    let run = Run { to, request: head, timer: &mut timer };
    run.forward(&mut source, &mut client, work, &mut facts, &mut None).await?;
    Ok(facts.status)
}

/// The fields as the upstream of the request gets them, with a span of its own, the mark, and the mirror's own edits.
fn write_head(head: &mut RequestHead, mirror: &MirrorRuntime, shared: &Shared, body: usize) {
    head.clone_from(&shared.head);
    head.set_own_body(if body == 0 { Body::None } else { Body::Length(body as u64) });
    let fields = &mut head.fields;
    let parent = fields.get(Known::Traceparent).and_then(Traceparent::parse);
    if let Some(parent) = parent {
        fields.remove(Known::Traceparent);
        fields.push_with(Known::Traceparent, |out| prepare::child_of(parent).write(out));
    }
    fields.push(MARK, b"true");
    prepare::edit(fields, &mirror.config.request_headers);
}
