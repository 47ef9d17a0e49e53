//! Mirroring: copies of a route's requests go to another upstream, whose answers nobody gets.
//!
//! The request itself never waits for a copy: a copy that finds no place is dropped and counted. A copy is an attempt like
//! any other (`attempt`), with memory on both sides; its upstream has its own limits, clocks and metrics.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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
use crate::message::head::{Body, Known, RequestHead, ResponseHead};
use crate::message::ids::Traceparent;
use crate::replay::difference::{self, Mask};
use crate::shutdown::Phase;
use crate::tap::{Budget, Copied, Tap};
use crate::telemetry::logging::RateBound;
use crate::telemetry::{Compared, MirrorMetrics, MirrorResult};

/// Tells the upstream that nobody waits for its answer.
const MARK: &str = "x-forebay-mirror";
/// A difference is told in the log once in this time.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Characters of the path to what differs.
const MOST_TOLD: usize = 200;

/// The mirror of a route as its requests use it.
pub struct MirrorRuntime {
    pub config: Arc<Mirror>,
    pub upstream: Arc<UpstreamRuntime>,
    /// Holds the in-flight limit of the upstream.
    pub admission: Admission,
    pub metrics: Arc<MirrorMetrics>,
    /// What may differ.
    mask: Arc<Mask>,
    in_flight: AtomicUsize,
    budget: Arc<Budget>,
    told: RateBound,
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
        let mask = Arc::new(Mask::new(config.compare.iter().flatten().cloned()));
        Arc::new(Self {
            mask,
            config,
            upstream,
            admission,
            metrics,
            in_flight: AtomicUsize::new(0),
            budget,
            told: RateBound::new(TELL_EVERY),
        })
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

    /// Says in the log that answers differ: seldom, since all of them may.
    fn tell(&self, shared: &Shared, what: &str, how: impl FnOnce() -> String) {
        if let Some(suppressed) = self.told.allow(std::time::Instant::now()) {
            let request_id = shared.head.fields.get(Known::XRequestId).map(String::from_utf8_lossy);
            let route = &shared.route.name;
            tracing::info!(route, request_id = request_id.as_deref(), what, how = how(), suppressed, "answers differ");
        }
    }

    /// A place for one copy, if there is one.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let below = |count: usize| (count < self.config.max_in_flight).then_some(count + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        self.metrics.in_flight.inc();
        Some(Place { mirror: self.clone(), is_counted: false })
    }
}

/// A copy in flight.
struct Place {
    mirror: Arc<MirrorRuntime>,
    is_counted: bool,
}

impl Place {
    fn count(&mut self, result: MirrorResult) {
        self.is_counted = true;
        self.mirror.metrics.count(result);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_counted {
            // The process drains.
            self.count(MirrorResult::Failed);
        }
        self.mirror.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.mirror.metrics.in_flight.dec();
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

/// What the request has to do for its copies.
#[derive(Debug)]
pub struct Mirrored {
    /// The request's body has to pass this, when there is one.
    pub body: Option<Arc<Tap>>,
    answer: Option<Awaited>,
}

/// The answer is waited for, to be compared.
#[derive(Debug)]
struct Awaited {
    tap: Arc<Tap>,
    sender: oneshot::Sender<Answer>,
}

/// What one of the two upstreams answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    coded: bool,
    /// `None` when it is too large, or not whole.
    body: Option<Copied>,
}

impl Mirrored {
    /// The answer's body has to pass this.
    pub fn answer(&self) -> Option<&Arc<Tap>> {
        self.answer.as_ref().map(|awaited| &awaited.tap)
    }

    /// The request was answered by its upstream, with this head. Where it was not, this is dropped.
    pub fn answered(self, head: &ResponseHead) {
        let Some(Awaited { tap, sender }) = self.answer else { return };
        // Nobody may wait any more.
        let _ = sender.send(Answer::new(head, &tap));
    }
}

impl Answer {
    fn new(head: &ResponseHead, tap: &Tap) -> Self {
        let coded = head.fields.contains(Known::ContentEncoding);
        Self { status: head.status, coded, body: tap.copied() }
    }
}

/// Begins the copies of a request.
pub fn begin(mirror: &Arc<MirrorRuntime>, original: &Original<'_>) -> Option<Mirrored> {
    if original.head.fields.get_name(MARK).is_some() {
        // A copy of a copy would be the beginning of a loop when the other upstream leads back here.
        return None;
    }
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
    let (awaited, answered) = match &mirror.config.compare {
        Some(_) => {
            let tap = Arc::new(Tap::new(mirror.config.max_body_bytes, &mirror.budget));
            let (sender, receiver) = oneshot::channel();
            (Some(Awaited { tap, sender }), Some(receiver))
        }
        None => (None, None),
    };
    let work = send_all(places, shared, body, answered);
    original.proxy.tasks.spawn("mirror", async move {
        tokio::select! {
            () = draining.reached(Phase::Draining) => {}
            () = work => {}
        }
    });
    Some(Mirrored { body: tap, answer: awaited })
}

/// The request, once for all its copies.
struct Shared {
    proxy: Arc<Proxy>,
    listener: Arc<ListenerRuntime>,
    route: Arc<Route>,
    head: RequestHead,
    target: Vec<u8>,
}

async fn send_all(
    places: Vec<Place>,
    shared: Arc<Shared>,
    body: Option<oneshot::Receiver<Option<Copied>>>,
    mut answered: Option<oneshot::Receiver<Answer>>,
) {
    let copied = match body {
        None => Some(None),
        // It is over when the client leaves inside the body, or when the body does not fit.
        Some(body) => body.await.ok().flatten().map(Some),
    };
    let Some(copied) = copied else {
        places.into_iter().for_each(|mut place| place.count(MirrorResult::NoBody));
        return;
    };
    let copies = places.into_iter().map(|place| send(place, shared.clone(), copied.clone(), answered.take()));
    futures_util::future::join_all(copies).await;
}

/// Sends one copy; compares its answer with the one that the client gets, when that is given.
async fn send(
    mut place: Place,
    shared: Arc<Shared>,
    body: Option<Copied>,
    answered: Option<oneshot::Receiver<Answer>>,
) {
    let mirror = &place.mirror.clone();
    let body = body.map(|body| body.bytes).unwrap_or_default();
    let keep = if answered.is_some() { mirror.config.max_body_bytes } else { 0 };
    let (result, answer) = match call(mirror, &shared, body, keep).await {
        Ok(answer) => (MirrorResult::Answered, Some(answer)),
        Err(Ended::NoPlace) => (MirrorResult::NoPlace, None),
        Err(Ended::Failed) => (MirrorResult::Failed, None),
    };
    place.count(result);
    let (Some(answer), Some(answered)) = (answer, answered) else { return };
    // The client may take its time over its answer.
    let original = tokio::time::timeout(mirror.config.timeout, answered).await;
    let compared = match original {
        Ok(Ok(original)) => compare(mirror, &shared, original, answer).await,
        _ => Compared::Skipped,
    };
    mirror.metrics.compared(compared);
}

/// Off the event loop: bodies may be large and deep.
async fn compare(mirror: &MirrorRuntime, shared: &Shared, original: Answer, answer: Answer) -> Compared {
    if original.status != answer.status {
        mirror.tell(shared, "status", || format!("{} became {}", original.status, answer.status));
        return Compared::Status;
    }
    let (Some(then), Some(now)) = (original.body, answer.body) else { return Compared::Skipped };
    if then.bytes == now.bytes {
        return Compared::Same;
    }
    if original.coded || answer.coded {
        return Compared::Skipped;
    }
    let mask = mirror.mask.clone();
    let find = move || difference::of_bodies(&then.bytes, &now.bytes, &mask);
    let Ok(differences) = tokio::task::spawn_blocking(find).await else { return Compared::Skipped };
    let Some(first) = differences.first() else { return Compared::Same };
    // The part, and not what it says: that may be anybody's secret.
    mirror.tell(shared, "body", || format!("{} ({} in all)", cut(first.path()), differences.len()));
    Compared::Body
}

/// The names in a path are the services', which may make them as long as they like.
fn cut(path: String) -> String {
    match path.char_indices().nth(MOST_TOLD) {
        Some((end, _)) => format!("{}...", &path[..end]),
        None => path,
    }
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

/// Sends one copy and reads its answer to the end, of which at most `keep` bytes are kept.
async fn call(mirror: &MirrorRuntime, shared: &Shared, body: Bytes, keep: usize) -> Result<Answer, Ended> {
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
    let answer = Tap::new(keep, &mirror.budget);
    let mut client = Client::Copy(&answer);
    let run = Run { to, request: head, timer: &mut timer };
    run.forward(&mut source, &mut client, work, &mut facts, &mut None).await?;
    Ok(Answer::new(&work.answer, &answer))
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
    fields.push(MARK.as_bytes(), b"true");
    prepare::edit(fields, &mirror.config.request_headers);
}
