//! A run in virtual time: the same core and the same ledger as in a real one, against servers that are arithmetic.
//!
//! Time jumps from event to event, so ten seconds take milliseconds, nothing depends on the machine, and what the
//! theory says can be asked for exactly. The driver's own parts (pacing, tasks) are absent by design.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::arrivals::{Stream, exponential};
use super::core::{Core, Plan, Release, Step};
use super::{End, SECOND, Sample, Sink};

/// A server whose answer is decided when the request arrives, which is so for all that serve in order of arrival.
pub trait Server {
    /// Called in order of time. The instant of the answer may lie in any future, `u64::MAX` for never.
    fn arrive(&mut self, now: u64, number: u64) -> Answer;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub at: u64,
    pub end: End,
}

impl Answer {
    pub fn ok(at: u64) -> Self {
        Self { at, end: End::Ok { status: 200 } }
    }
}

/// A request on its way, ordered by its end and then by its number.
#[derive(Debug, Clone, Copy)]
struct Flight {
    ends: u64,
    end: End,
    sent: u64,
    release: Release,
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.ends, self.release.number).cmp(&(other.ends, other.release.number))
    }
}

/// Runs `plan` to its end and returns the instant of that.
pub fn simulate(plan: &Plan, server: &mut impl Server, sink: &mut impl Sink) -> u64 {
    let mut core = Core::new(plan, 0, 1);
    let mut flights: BinaryHeap<Reverse<Flight>> = BinaryHeap::new();
    let cut = plan.duration.saturating_add(plan.drain);
    let mut now = 0;
    loop {
        let next_end = flights.peek().map(|Reverse(flight)| flight.ends);
        // Ends go before releases of the same instant: a place that becomes free is free.
        if next_end.is_some_and(|at| at <= now) {
            land(&mut core, &mut flights, sink);
            continue;
        }
        let until = match core.next(now, sink) {
            Step::Release(release) => {
                flights.push(Reverse(send(plan, server, sink, release, now)));
                continue;
            }
            Step::Wait(due) => next_end.map_or(due, |at| at.min(due)),
            Step::Done => match next_end {
                Some(at) => at,
                None => return now,
            },
        };
        if until > cut {
            give_up(cut, &mut flights, sink);
            return cut;
        }
        now = until;
    }
}

fn send(plan: &Plan, server: &mut impl Server, sink: &mut impl Sink, release: Release, now: u64) -> Flight {
    sink.sent(release.intended, now);
    let answer = server.arrive(now, release.number);
    let limit = now.saturating_add(plan.timeout);
    let (ends, end) = if answer.at > limit { (limit, End::Timeout) } else { (answer.at, answer.end) };
    Flight { ends, end, sent: now, release }
}

fn land(core: &mut Core, flights: &mut BinaryHeap<Reverse<Flight>>, sink: &mut impl Sink) {
    let Some(Reverse(flight)) = flights.pop() else { return };
    core.ended(&flight.release, flight.ends);
    sink.ended(&sample(&flight, flight.ends, flight.end));
}

fn give_up(cut: u64, flights: &mut BinaryHeap<Reverse<Flight>>, sink: &mut impl Sink) {
    for Reverse(flight) in flights.drain() {
        sink.ended(&sample(&flight, cut, End::Unfinished));
    }
}

fn sample(flight: &Flight, ended: u64, end: End) -> Sample {
    Sample {
        number: flight.release.number,
        target: flight.release.target,
        intended: flight.release.intended,
        sent: flight.sent,
        first_byte: None,
        ended,
        end,
        bytes: 0,
        connect: None,
    }
}

/// Answers at once, except that nothing is answered from one instant to another. What waited is answered afterwards
/// one by one, `gap` nanoseconds apart: 0 for a server that catches up at once.
#[derive(Debug, Clone)]
pub struct Stalling {
    pub from: u64,
    pub until: u64,
    pub gap: u64,
    next_free: u64,
}

impl Stalling {
    pub fn new(from: u64, until: u64, gap: u64) -> Self {
        Self { from, until, gap, next_free: 0 }
    }
}

impl Server for Stalling {
    fn arrive(&mut self, now: u64, _number: u64) -> Answer {
        let ready = if (self.from..self.until).contains(&now) { self.until } else { now };
        let at = ready.max(self.next_free);
        self.next_free = at.saturating_add(self.gap);
        Answer::ok(at)
    }
}

/// Every `every`-th request takes `slow`, the others `fast`; none waits for another.
#[derive(Debug, Clone, Copy)]
pub struct Independent {
    pub every: u64,
    pub slow: u64,
    pub fast: u64,
}

impl Server for Independent {
    fn arrive(&mut self, now: u64, number: u64) -> Answer {
        Answer::ok(now + if number % self.every == self.every / 2 { self.slow } else { self.fast })
    }
}

/// `workers` that serve in order of arrival, with room for `room` requests in service and waiting; others are turned
/// away with 503 at once.
#[derive(Debug, Clone)]
pub struct Queue {
    service: Service,
    seed: u64,
    room: usize,
    /// When each worker is free.
    free: BinaryHeap<Reverse<u64>>,
    /// When those leave who are there.
    leaving: BinaryHeap<Reverse<u64>>,
}

/// How long a request takes in service; the mean in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub enum Service {
    Fixed(u64),
    Exponential(u64),
    /// One of two values with equal chance.
    Either(u64, u64),
}

impl Queue {
    pub fn new(workers: usize, room: usize, service: Service, seed: u64) -> Self {
        Self { service, seed, room, free: (0..workers).map(|_| Reverse(0)).collect(), leaving: BinaryHeap::new() }
    }
}

impl Server for Queue {
    fn arrive(&mut self, now: u64, number: u64) -> Answer {
        while self.leaving.peek().is_some_and(|Reverse(at)| *at <= now) {
            self.leaving.pop();
        }
        if self.leaving.len() >= self.room {
            return Answer { at: now, end: End::HttpError { status: 503 } };
        }
        let took = match self.service {
            Service::Fixed(ns) => ns,
            Service::Exponential(mean) => {
                (exponential(self.seed, Stream::Service, number) * mean as f64).round() as u64
            }
            Service::Either(one, other) => {
                if super::arrivals::unit(self.seed, Stream::Service, number) < 0.5 {
                    one
                } else {
                    other
                }
            }
        };
        let Reverse(free) = self.free.pop().unwrap_or(Reverse(0));
        let at = free.max(now) + took;
        self.free.push(Reverse(at));
        self.leaving.push(Reverse(at));
        Answer::ok(at)
    }
}

/// A plan with room for everything, for tests and benches to change.
pub fn plan(model: super::core::Model, seconds: u64) -> Plan {
    Plan {
        model,
        targets: super::core::Targets::one(),
        seed: 1,
        duration: seconds * SECOND,
        warm_up: 0,
        cap: u64::MAX,
        timeout: 3600 * SECOND,
        deadline: None,
        drain: 3600 * SECOND,
    }
}

#[cfg(test)]
#[path = "sim_tests.rs"]
mod tests;
