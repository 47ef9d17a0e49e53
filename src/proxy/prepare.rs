//! What goes up and what comes down: targets, forwarding fields, ids, deadlines, and the route's header edits.
//!
//! The request's fields are rewritten once, before the first attempt. What differs from attempt to attempt (host,
//! remaining time) is written next to them each time.

use std::cell::RefCell;

use pingora::http::RequestHeader;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::exchange::Facts;
use super::generation::UpstreamRuntime;
use super::listener::ConnectionInfo;
use super::respond::Failure;
use super::timer::StageClock;
use crate::config::model::{HeaderEdits, HostPolicy, PathPattern, Route, Segment};
use crate::deadline;
use crate::limits::RateFields;
use crate::message::forwarded::{self, Arrival};
use crate::message::head::http2::to_http_request_parts;
use crate::message::head::rules::list;
use crate::message::head::{Body, Fields, Known, RequestHead, write_request_head};
use crate::message::hop::{Keep, strip_hop_by_hop};
use crate::message::path::decode_percent;
use crate::message::{grpc, ids};
use crate::routing::{self, Params};
use crate::telemetry::Reason;
use crate::upstream::Endpoint;

thread_local! {
    /// Ids must not collide; nobody may rely on their being unpredictable, so the small generator will do.
    static RNG: RefCell<SmallRng> = RefCell::new(SmallRng::from_os_rng());
}

fn with_rng<T>(f: impl FnOnce(&mut SmallRng) -> T) -> T {
    RNG.with(|rng| f(&mut rng.borrow_mut()))
}

/// A request id of our own or of a trusted client's.
#[derive(Debug, Clone)]
pub enum RequestId {
    Made(ids::Hex<32>),
    Given(Box<str>),
}

impl RequestId {
    pub fn as_str(&self) -> &str {
        match self {
            RequestId::Made(id) => id.as_str(),
            RequestId::Given(id) => id,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        match self {
            RequestId::Made(id) => id.as_bytes(),
            RequestId::Given(id) => id.as_bytes(),
        }
    }
}

/// The client's id when it can be believed and is safe to write everywhere; a new one otherwise.
pub fn request_id(fields: &Fields, trusted: bool) -> RequestId {
    let given = fields.get(Known::XRequestId).filter(|_| trusted).and_then(ids::valid_request_id);
    match given {
        Some(id) => RequestId::Given(id.into()),
        None => RequestId::Made(with_rng(ids::new_request_id)),
    }
}

/// Path and query for the upstream, from the normalised path.
pub fn target(route: &Route, head: &RequestHead, path: &[u8], params: &Params, out: &mut Vec<u8>) {
    if !routing::rewrite(&route.rewrite, &route.matches.path, params, path, out) {
        out.clear();
        out.extend_from_slice(path);
    }
    if let Some(query) = head.query() {
        out.push(b'?');
        out.extend_from_slice(query);
    }
}

/// The parameters of a path by name, decoded, with what follows the pattern as `rest`; without those that are not UTF-8.
pub fn parameters(pattern: &PathPattern, params: &Params, path: &[u8]) -> Vec<(String, String)> {
    let decoded = |value: &[u8]| String::from_utf8(decode_percent(value).into_owned()).ok();
    let mut found = Vec::new();
    if let PathPattern::Template { segments, .. } = pattern {
        let names = segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name),
            Segment::Literal(_) => None,
        });
        let named = names.enumerate();
        found.extend(named.filter_map(|(index, name)| Some((name.clone(), decoded(params.value(index, path)?)?))));
    }
    found.extend(params.rest(path).and_then(decoded).map(|rest| ("rest".to_owned(), rest)));
    found
}

/// What a trusted client has left: the smaller of its deadline fields.
pub fn asked_deadline(fields: &Fields) -> Option<std::time::Duration> {
    let own = fields.get(Known::ForebayDeadline).and_then(deadline::parse_header);
    let grpc = fields.get(Known::GrpcTimeout).and_then(grpc::parse_timeout);
    own.into_iter().chain(grpc).min()
}

pub fn is_grpc(fields: &Fields) -> bool {
    fields.get(Known::ContentType).is_some_and(grpc::is_grpc)
}

/// The protocol that may be switched to: the first that the client asks for and the route allows. None for a request
/// with a body: what is left of its framing would be taken for bytes of the other protocol.
pub fn upgrade(head: &RequestHead, route: &Route) -> Option<Box<[u8]>> {
    if !matches!(head.framing(), Body::None | Body::Length(0)) {
        return None;
    }
    let allowed = |asked: &&[u8]| route.upgrades.protocols.iter().any(|p| p.as_bytes().eq_ignore_ascii_case(asked));
    list(head.upgrade()?).find(allowed).map(Into::into)
}

/// True when this protocol is in the list of an `Upgrade` field.
pub fn names(upgrade: &[u8], protocol: &[u8]) -> bool {
    list(upgrade).any(|asked| asked.eq_ignore_ascii_case(protocol))
}

/// Rewrites the request's fields for the upstream.
pub fn forwarded_fields(
    head: &mut RequestHead,
    connection: &ConnectionInfo,
    facts: &mut Facts,
    route: &Route,
    authority: &mut Vec<u8>,
) {
    // gRPC servers refuse requests that do not promise to understand trailers.
    let te_trailers = is_grpc(&head.fields);
    strip_hop_by_hop(&mut head.fields, Keep { te_trailers });
    authority.clear();
    authority.extend_from_slice(head.authority());
    let fields = &mut head.fields;
    let arrival = Arrival {
        peer: connection.peer.ip(),
        trusted: connection.listener.trusted_proxies(),
        https: connection.secure,
        authority,
    };
    forwarded::rewrite(fields, &arrival);
    if let Some(id) = &facts.request_id {
        fields.set_known(Known::XRequestId, id.as_bytes());
    }
    let trace = trace(fields);
    facts.trace_id = Some(trace.trace_id());
    fields.remove(Known::Traceparent);
    fields.push_with(Known::Traceparent, |out| trace.write(out));
    fields.retain(|_, _, known| !matches!(known, Known::Expect | Known::ForebayDeadline | Known::GrpcTimeout));
    edit(fields, &route.request_headers);
}

/// The place of this request in its trace: below the client's, or a new one. A state without a parent means nothing, and
/// goes.
pub fn trace(fields: &mut Fields) -> ids::Traceparent {
    match fields.get(Known::Traceparent).and_then(ids::Traceparent::parse) {
        Some(parent) => child_of(parent),
        None => {
            fields.remove(Known::Tracestate);
            with_rng(|rng| ids::Traceparent::new(rng, false))
        }
    }
}

pub fn child_of(parent: ids::Traceparent) -> ids::Traceparent {
    with_rng(|rng| parent.child(rng))
}

pub fn edit(fields: &mut Fields, edits: &HeaderEdits) {
    for name in &edits.remove {
        fields.remove_name(name);
    }
    for (name, value) in &edits.set {
        fields.set(name, value.reveal().as_bytes());
    }
    for (name, value) in &edits.add {
        fields.push(name.as_bytes(), value.reveal().as_bytes());
    }
}

/// Rewrites the answer's fields for the client.
pub fn answer_fields(fields: &mut Fields, edits: &HeaderEdits, facts: &Facts, rate: Option<&RateFields>) {
    edit(fields, edits);
    if let Some(id) = &facts.request_id {
        fields.set_known(Known::XRequestId, id.as_bytes());
    }
    if let Some(rate) = rate {
        fields.set("ratelimit-policy", rate.policy.as_bytes());
        fields.set("ratelimit", rate.rate_limit.as_bytes());
    }
}

/// What the upstream sees as `Host`.
fn host<'a>(head: &'a RequestHead, policy: &'a HostPolicy, endpoint: &'a Endpoint) -> &'a [u8] {
    match policy {
        HostPolicy::Preserve if !head.authority().is_empty() => head.authority(),
        HostPolicy::Set(host) => host.as_bytes(),
        HostPolicy::Preserve | HostPolicy::Upstream => endpoint.authority.as_bytes(),
    }
}

/// Puts what is left of the deadline into the fields: for gRPC in its own field, too.
fn write_deadline(fields: &mut Fields, clock: &StageClock) {
    fields.retain(|_, _, known| !matches!(known, Known::ForebayDeadline | Known::GrpcTimeout));
    if let Some(remaining) = clock.remaining() {
        fields.push_with(Known::ForebayDeadline, |out| deadline::write_header(out, remaining));
        if is_grpc(fields) {
            fields.push_with(Known::GrpcTimeout, |out| grpc::write_timeout(out, remaining));
        }
    }
}

/// The request as it goes to an HTTP/1 upstream. The end of the empty line is the end of `out`.
pub fn write_http1(
    out: &mut Vec<u8>,
    head: &mut RequestHead,
    host_policy: &HostPolicy,
    endpoint: &Endpoint,
    target: &[u8],
    upgrade: Option<&[u8]>,
    clock: &StageClock,
) {
    write_deadline(&mut head.fields, clock);
    if let Some(protocol) = upgrade {
        head.fields.set_known(Known::Connection, b"upgrade");
        head.fields.set_known(Known::Upgrade, protocol);
    }
    write_request_head(out, head.method, target, host(head, host_policy, endpoint), &head.fields, head.framing());
}

/// The request as it goes to an HTTP/2 upstream.
pub fn http2_header(
    head: &mut RequestHead,
    host_policy: &HostPolicy,
    upstream: &UpstreamRuntime,
    endpoint: &Endpoint,
    target: &[u8],
    clock: &StageClock,
) -> Result<RequestHeader, Failure> {
    write_deadline(&mut head.fields, clock);
    let authority = host(head, host_policy, endpoint);
    let scheme = if upstream.config.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP };
    let body: Body = head.framing();
    let parts = to_http_request_parts(head.method, scheme, authority, target, &head.fields, body)
        .map_err(|error| Failure::refused(Reason::BadRequest, error.detail()))?;
    Ok(parts.into())
}
