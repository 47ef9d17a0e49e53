//! Limits, on a route, on an upstream and over all: rates, requests in flight and their queue.

use std::time::Duration;

use crate::config::decode::{Decoder, Field, Spot, element};
use crate::config::describe::{HOUR, MILLISECOND};
use crate::config::diagnostic::{Code, Problem};
use crate::config::model;
use crate::config::settings::Origin;
use crate::config::value::container::OneOrMany;
use crate::config::value::http::KeyKind;

/// How many requests may be in flight or waiting: each costs memory, so there is always a bound.
pub const MOST_IN_FLIGHT: u64 = 1_000_000;
const MOST_KEYS: u64 = 10_000_000;
const NO_LIMIT: &str = "leave the key out to have no limit";

element! {
    /// Limits over all routes together.
    pub struct GlobalLimits {
        /// A limit on the rate of all requests, or a list of them. The strictest decides.
        rate_limit: OneOrMany<RateLimit> = none, example("{ rate = \"1000/s\", burst = 200 }");
        /// Requests in flight over all routes together.
        max_in_flight: usize = none, between(1, MOST_IN_FLIGHT), advice(NO_LIMIT), example("1000");
        /// Where requests beyond `max_in_flight` wait.
        queue: Queue = {};
    }
}

element! {
    /// A limit on the rate of requests.
    pub struct RateLimit {
        /// So many requests in such a time: "100/s", "5/min", "1000/10s".
        rate: model::Rate = required, example("\"100/s\"");
        /// Requests that may come at once. By default the count of the rate.
        burst: u32 = none, between(1, 1_000_000_000), advice("1 is the least: one request at a time"), example("20");
        /// What is counted apart: "none" (all requests together), "client_ip", "header:NAME" or "query:NAME".
        key: KeyKind = "none", instead_of(&["by", "key_by"]);
        /// For "client_ip": the part of an IPv4 address that counts, in bits.
        ipv4_prefix: u32 = 32, between(1, 32);
        /// For "client_ip": the part of an IPv6 address that counts. A household has a /64 of its own.
        ipv6_prefix: u32 = 64, between(1, 128);
        /// "reject" answers 429, "delay" lets the request wait its turn, "shadow" only counts.
        mode: model::RateMode = "reject";
        /// Keys that are remembered at once.
        max_keys: usize = 100_000, between(1, MOST_KEYS);
        /// For "delay": requests that may wait at once.
        max_delayed: usize = 100, between(1, MOST_IN_FLIGHT);
        /// Its name in metrics and in `RateLimit-Policy`. By default made from the route's name.
        name: String = none, example("\"per-client\"");
    }
}

element! {
    /// Where requests wait that are beyond a limit of requests in flight.
    pub struct Queue {
        /// Requests that may wait. 0: none waits, the request is refused at once.
        capacity: usize = 0, between(0, MOST_IN_FLIGHT), instead_of(&["size", "length", "max"]);
        /// The longest wait.
        timeout: Duration = "1s", between(MILLISECOND, HOUR), instead_of(&["wait", "max_wait"]);
        /// "fifo": the longest waiting goes first; "lifo": the newest, which keeps some fast in an overload.
        order: model::QueueOrder = "fifo";
    }
}

element! {
    /// A limit of requests in flight for each client.
    pub struct ClientInFlight {
        /// Requests in flight with the same key.
        max: usize = required, between(1, MOST_IN_FLIGHT), advice("leave `client_in_flight` out to have no limit"), example("10");
        /// What a client is: "client_ip", "header:NAME" or "query:NAME".
        key: KeyKind = "client_ip", instead_of(&["by", "key_by"]);
        /// For "client_ip": the part of an IPv4 address that counts, in bits.
        ipv4_prefix: u32 = 32, between(1, 32);
        /// For "client_ip": the part of an IPv6 address that counts.
        ipv6_prefix: u32 = 64, between(1, 128);
        /// Keys that are remembered at once.
        max_keys: usize = 100_000, between(1, MOST_KEYS);
    }
}

/// The key of a limit, from the key that names it and those that refine it.
fn limit_key(key: &Field<KeyKind>, ipv4: &Field<u32>, ipv6: &Field<u32>) -> Option<model::LimitKey> {
    Some(match key.cloned()? {
        KeyKind::None => model::LimitKey::None,
        KeyKind::ClientIp => model::LimitKey::ClientIp {
            v4_prefix: u8::try_from(ipv4.copied()?).ok()?,
            v6_prefix: u8::try_from(ipv6.copied()?).ok()?,
        },
        KeyKind::Header(name) => model::LimitKey::Header(name),
        KeyKind::Query(name) => model::LimitKey::Query(name),
    })
}

/// Reports a written key that nothing reads.
pub fn no_effect<T>(cx: &mut Decoder<'_>, name: &str, field: &Field<T>, why: &str) {
    if field.is_set() {
        let problem = Problem::warning(Code::NoEffect, field.key_span(), format!("`{name}` has no effect: {why}"));
        cx.report(problem.help(format!("take `{name}` out")));
    }
}

impl RateLimit {
    fn resolve(&self, name: String) -> Option<model::RateLimit> {
        let rate = self.rate.copied()?;
        Some(model::RateLimit {
            name,
            rate,
            burst: if self.burst.is_written() { self.burst.copied()? } else { rate.count },
            key: limit_key(&self.key, &self.ipv4_prefix, &self.ipv6_prefix)?,
            max_keys: self.max_keys.copied()?,
            mode: self.mode.copied()?,
            max_delayed: self.max_delayed.copied()?,
        })
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        if self.key.get().is_some_and(|key| *key != KeyKind::ClientIp) {
            no_effect(cx, "ipv4_prefix", &self.ipv4_prefix, "`key` is not \"client_ip\"");
            no_effect(cx, "ipv6_prefix", &self.ipv6_prefix, "`key` is not \"client_ip\"");
        }
        if self.key.get() == Some(&KeyKind::None) {
            no_effect(cx, "max_keys", &self.max_keys, "without a `key` all requests are counted together");
        }
        if self.mode.get().is_some_and(|mode| *mode != model::RateMode::Delay) {
            no_effect(cx, "max_delayed", &self.max_delayed, "`mode` is not \"delay\"");
        }
        if let Some((name, span)) = self.name.written() {
            crate::config::value::container::check_name(cx, name, &span);
        }
    }
}

/// The limits of a route or of all, named `prefix/1`, `prefix/2` unless they have a name.
pub fn resolve_rate_limits(
    cx: &mut Decoder<'_>,
    path: &str,
    prefix: &str,
    limits: &Field<OneOrMany<RateLimit>>,
) -> Option<Vec<model::RateLimit>> {
    let Some(limits) = limits.get() else {
        return (!limits.is_written()).then(Vec::new);
    };
    let mut resolved = Vec::new();
    for (index, Spot { value: limit, .. }) in limits.items.iter().enumerate() {
        limit.check(cx);
        let path = if limits.many { format!("{path}.rate_limit.{index}") } else { format!("{path}.rate_limit") };
        let name = limit.name.cloned().unwrap_or_else(|| format!("{prefix}/{}", index + 1));
        if let Some(limit) = limit.resolve(name) {
            note_derived(cx, &path, &limit);
            resolved.push(limit);
        }
    }
    (resolved.len() == limits.items.len()).then_some(resolved)
}

fn note_derived(cx: &mut Decoder<'_>, path: &str, limit: &model::RateLimit) {
    let (burst, name) = (format!("{path}.burst"), format!("{path}.name"));
    if cx.settings.get(&burst).is_none() {
        cx.note(burst, limit.burst.into(), Origin::Derived("the count of the rate"));
    }
    if cx.settings.get(&name).is_none() {
        cx.note(name, limit.name.as_str().into(), Origin::Derived("from the place of the limit"));
    }
}

/// `max_in_flight` with its queue; `Some(None)` when there is no limit.
pub fn resolve_in_flight(max: &Field<usize>, queue: &Field<Queue>) -> Option<Option<model::InFlight>> {
    if !max.is_written() {
        return Some(None);
    }
    let queue = queue.get()?;
    let queue = model::Queue {
        capacity: queue.capacity.copied()?,
        timeout: queue.timeout.copied()?,
        order: queue.order.copied()?,
    };
    Some(Some(model::InFlight { max: max.copied()?, queue }))
}

/// A queue only matters behind a limit, and only with places.
pub fn check_queue(cx: &mut Decoder<'_>, max: &Field<usize>, queue: &Field<Queue>) {
    let Some(written) = queue.get().filter(|queue| queue.is_set()) else { return };
    if !max.is_written() {
        let message = "`queue` without `max_in_flight`: nothing is limited, so nothing waits";
        let problem = Problem::error(Code::Conflict, queue.key_span(), message);
        cx.report(problem.help("add `max_in_flight`, or take `queue` out"));
        return;
    }
    if written.capacity.copied() == Some(0) && written.timeout.is_set() {
        let message = "this wait can never happen: the queue has no places";
        let problem = Problem::error(Code::NeverFires, written.timeout.key_span(), message);
        cx.report(problem.help("give the queue places with `capacity`, or take `timeout` out"));
    }
}

impl Queue {
    fn is_set(&self) -> bool {
        self.capacity.is_set() || self.timeout.is_set() || self.order.is_set()
    }
}

impl ClientInFlight {
    pub fn resolve(&self) -> Option<model::ClientInFlight> {
        Some(model::ClientInFlight {
            max: self.max.copied()?,
            key: limit_key(&self.key, &self.ipv4_prefix, &self.ipv6_prefix)?,
            max_keys: self.max_keys.copied()?,
        })
    }

    pub fn check(&self, cx: &mut Decoder<'_>) {
        match self.key.get() {
            Some(KeyKind::None) => {
                let message = "`client_in_flight` needs a key to tell clients apart";
                let problem = Problem::error(Code::Conflict, self.key.span(), message);
                cx.report(problem.help("for all clients together use `max_in_flight`"));
            }
            Some(KeyKind::Header(_) | KeyKind::Query(_)) => {
                no_effect(cx, "ipv4_prefix", &self.ipv4_prefix, "`key` is not \"client_ip\"");
                no_effect(cx, "ipv6_prefix", &self.ipv6_prefix, "`key` is not \"client_ip\"");
            }
            Some(KeyKind::ClientIp) | None => {}
        }
    }
}
