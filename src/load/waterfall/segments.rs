//! One request, cut into the pieces of its way.
//!
//! The pieces add up to the response time exactly, and none is below zero. Two things need care for that. The sidecar
//! writes whole microseconds, so its first byte may seem to come just before the generator's sending: it counts as the
//! same instant. And the sidecar takes its last instant when its work is done, which may be after the client has read
//! the answer, or has given up: what it did from then on is no part of the response time, so it is cut off, from the
//! last stage backwards, and said ([`Joined::cut`]).

use serde::{Deserialize, Serialize};

/// So much earlier than it was sent may a request seem to arrive; more means that the clocks are not the same one.
const TOLERANCE: u64 = 1_000_000;

/// How many pieces there are.
pub const COUNT: usize = 11;

/// The pieces in words, in the order of the way.
pub const TITLES: [&str; COUNT] = [
    "intended to sent",
    "connecting to the sidecar",
    "sent to accepted",
    "in the sidecar itself",
    "held by a rate limit",
    "waiting in the queue",
    "held by a fault on purpose",
    "connecting to the upstream",
    "the upstream's first byte",
    "the rest of the answer",
    "last byte to the client",
];

/// Something for each piece of the way, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Segments<T> {
    /// From when it was due to when it was sent: the generator.
    pub late_ns: T,
    /// Making a connection to the sidecar for it.
    pub connecting_ns: T,
    /// From the sending to the first byte that the sidecar read: the kernel, and a sidecar that is too busy to look.
    pub accepting_ns: T,
    /// What the sidecar itself took: reading and writing heads, finding the route.
    pub sidecar_ns: T,
    pub rate_delay_ns: T,
    /// Waiting for a permit in flight.
    pub queue_ns: T,
    /// Delayed by a fault that the sidecar's configuration asks for.
    #[serde(default)]
    pub fault_delay_ns: T,
    pub upstream_connecting_ns: T,
    /// From then on to the first byte of the upstream's answer. For an aggregate, the work on it.
    pub first_byte_ns: T,
    /// From there to its last byte. A client that reads slowly is in here, too.
    pub body_ns: T,
    /// From the sidecar's last byte to when the client had it.
    pub delivery_ns: T,
}

impl<T: Copy> Segments<T> {
    pub fn parts(&self) -> [T; COUNT] {
        [
            self.late_ns,
            self.connecting_ns,
            self.accepting_ns,
            self.sidecar_ns,
            self.rate_delay_ns,
            self.queue_ns,
            self.fault_delay_ns,
            self.upstream_connecting_ns,
            self.first_byte_ns,
            self.body_ns,
            self.delivery_ns,
        ]
    }

    pub fn of(parts: [T; COUNT]) -> Self {
        let [
            late,
            connecting,
            accepting,
            sidecar,
            rate_delay,
            queue,
            fault,
            upstream_connecting,
            first_byte,
            body,
            delivery,
        ] = parts;
        Self {
            late_ns: late,
            connecting_ns: connecting,
            accepting_ns: accepting,
            sidecar_ns: sidecar,
            rate_delay_ns: rate_delay,
            queue_ns: queue,
            fault_delay_ns: fault,
            upstream_connecting_ns: upstream_connecting,
            first_byte_ns: first_byte,
            body_ns: body,
            delivery_ns: delivery,
        }
    }
}

/// What the generator knows of a request, in nanoseconds of the machine's clock. The instants ascend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub intended: u64,
    pub sent: u64,
    pub ended: u64,
    /// How long it took to make a connection for it, after `sent`.
    pub connect: u64,
}

/// What the sidecar says of it, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Of the machine's clock.
    pub started: u64,
    pub total: u64,
    pub rate_delay: u64,
    pub queue: u64,
    pub fault_delay: u64,
    pub connect: u64,
    pub upstream: u64,
    /// From `started` on; `None` if the answer never began.
    pub response_started: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joined {
    pub segments: Segments<u64>,
    pub response: u64,
    /// What the sidecar did after the client had its end.
    pub cut: u64,
}

/// Joins both sides; `None` if the request arrived well before it was sent.
pub fn join(asked: &Asked, seen: &Seen) -> Option<Joined> {
    if seen.started.saturating_add(TOLERANCE) < asked.sent {
        return None;
    }
    // A sidecar that comes round to a request after the client has gone has seen nothing of it in time.
    let started = seen.started.clamp(asked.sent, asked.ended);
    let before = started - asked.sent;
    let connecting = asked.connect.min(before);
    let room = asked.ended - started;
    let cut = seen.total.saturating_sub(room);
    let [sidecar, rate_delay, queue, fault_delay, upstream_connecting, first_byte, body] = shorten(stages(seen), cut);
    let delivery = room - seen.total.min(room);
    let late = asked.sent - asked.intended;
    let segments = Segments::of([
        late,
        connecting,
        before - connecting,
        sidecar,
        rate_delay,
        queue,
        fault_delay,
        upstream_connecting,
        first_byte,
        body,
        delivery,
    ]);
    Some(Joined { segments, response: asked.ended - asked.intended, cut })
}

/// The sidecar's stages in the order of the way. They add up to its total, whatever the line says.
fn stages(seen: &Seen) -> [u64; 7] {
    let mut left = seen.total;
    let mut take = |wanted: u64| {
        let taken = wanted.min(left);
        left -= taken;
        taken
    };
    let (rate_delay, queue, fault_delay) = (take(seen.rate_delay), take(seen.queue), take(seen.fault_delay));
    let upstream = take(seen.upstream);
    let connect = seen.connect.min(upstream);
    let after_first_byte = seen.response_started.map_or(0, |started| seen.total.saturating_sub(started));
    let body = after_first_byte.min(upstream - connect);
    [left, rate_delay, queue, fault_delay, connect, upstream - connect - body, body]
}

/// Takes so much away, from the last stage on.
fn shorten(mut stages: [u64; 7], mut cut: u64) -> [u64; 7] {
    for stage in stages.iter_mut().rev() {
        let taken = cut.min(*stage);
        *stage -= taken;
        cut -= taken;
    }
    stages
}
