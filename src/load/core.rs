//! What a run does when, without a clock and without a network.
//!
//! Everyone who makes requests is a visitor. Visitors arrive, make some requests one after the other with time to
//! think in between, and leave. The three models of load differ in nothing else:
//!
//! | model    | visitors arrive      | and make                        |
//! |----------|----------------------|---------------------------------|
//! | open     | as [`Arrivals`] say  | one request                     |
//! | sessions | as [`Arrivals`] say  | a geometric number of requests  |
//! | closed   | all at the start     | requests for as long as it runs |
//!
//! The performer asks [`Core::next`] what to do at an instant, does it, and reports ends to [`Core::ended`]. Every
//! request that becomes due is reported to the [`Sink`] as scheduled exactly once, at the instant at which it was due
//! and not at which somebody came round to it: that is what makes latencies honest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;
use std::sync::Arc;

use super::arrivals::{Arrivals, Starts, Stream, exponential, unit};
use super::{SECOND, Shed, Sink};

/// How long after the end of the run a request that was due before it is still released. An arrival in the last
/// microsecond is released after the end by the pacer's own precision; one that is later than this is a generator
/// that could not keep up, and the request is counted as unsent.
pub const RELEASE_GRACE: u64 = SECOND / 10;

/// What a run shall do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub model: Model,
    pub targets: Targets,
    pub seed: u64,
    /// Requests are due before this, nanoseconds after the start. The warm-up is a part of it.
    pub duration: u64,
    /// Seconds at the start that are reported apart.
    pub warm_up: u32,
    /// Requests in flight at most; what is due beyond that is shed and counted. Raised to the number of users of a
    /// closed model, of which none can be turned away.
    pub cap: u64,
    /// From the actual sending to the end of the answer.
    pub timeout: u64,
    /// From the intended instant to the sending: what is later is shed. Requests in flight are left alone: aborting
    /// them makes a storm of reconnects (measured by others at seven times the target's memory).
    pub deadline: Option<u64>,
    /// How long requests in flight may go on after the last one was due.
    pub drain: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Model {
    Open(Arrivals),
    /// A fixed number of users, each waiting for its answer and then thinking.
    Closed {
        users: u32,
        think: Think,
    },
    /// Sessions that start as `starts` say, of a geometric number of requests with that mean, at least one.
    Sessions {
        starts: Arrivals,
        mean_requests: f64,
        think: Think,
    },
}

/// The pause between an answer and the same visitor's next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Think {
    Fixed(u64),
    /// The mean.
    Exponential(u64),
}

/// Which target a request goes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// Drawn by weight, from the seed and the number of the request.
    Weighted(Vec<f64>),
    /// Request `n` goes to target `n` modulo this number: lists to be walked through.
    InOrder(u32),
    /// Request `n` goes to the `n`th of these.
    Listed(Arc<[u32]>),
}

impl Targets {
    pub fn one() -> Self {
        Targets::InOrder(1)
    }

    fn of(&self, seed: u64, number: u64) -> u32 {
        match self {
            Targets::InOrder(count) => u32::try_from(number % u64::from((*count).max(1))).unwrap_or_default(),
            Targets::Listed(list) => {
                let place = usize::try_from(number).unwrap_or(usize::MAX);
                list.get(place).copied().unwrap_or_default()
            }
            Targets::Weighted(weights) => {
                let mut left = unit(seed, Stream::Target, number) * weights.iter().sum::<f64>();
                let chosen = weights.iter().position(|weight| {
                    left -= weight;
                    left < 0.0
                });
                u32::try_from(chosen.unwrap_or_default()).unwrap_or_default()
            }
        }
    }
}

impl Model {
    pub const fn name(&self) -> &'static str {
        match self {
            Model::Open(_) => "open",
            Model::Closed { .. } => "closed",
            Model::Sessions { .. } => "sessions",
        }
    }

    /// The load in words.
    pub fn describe(&self) -> String {
        match self {
            Model::Open(arrivals) => arrivals.to_string(),
            Model::Closed { users, think } => format!("{users} users, {}", think.describe()),
            Model::Sessions { starts, mean_requests, think } => {
                format!("sessions {starts}, {mean_requests} requests each in the mean, {}", think.describe())
            }
        }
    }

    /// Says what is wrong with the numbers.
    ///
    /// # Errors
    ///
    /// As [`Arrivals::check`], and for models in which nobody asks for anything.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Model::Open(arrivals) => arrivals.check(),
            Model::Closed { users: 0, .. } => Err("a closed model needs at least one user".into()),
            Model::Closed { .. } => Ok(()),
            Model::Sessions { starts, mean_requests, .. } => {
                if !(mean_requests.is_finite() && *mean_requests >= 1.0) {
                    return Err(format!("sessions of {mean_requests} requests; write a mean of 1 or more"));
                }
                starts.check()
            }
        }
    }
}

impl Think {
    fn describe(self) -> String {
        let seconds = |ns: u64| ns as f64 / SECOND as f64;
        match self {
            Think::Fixed(0) => "no think time".into(),
            Think::Fixed(ns) => format!("{} s to think", seconds(ns)),
            Think::Exponential(ns) => format!("{} s to think in the mean", seconds(ns)),
        }
    }

    /// The pause before request `step` of a visitor.
    fn pause(self, seed: u64, visitor: u64, step: u64) -> u64 {
        match self {
            Think::Fixed(ns) => ns,
            Think::Exponential(mean) => {
                // One number for the pair; visitors with 2^20 requests share draws with another one, no more.
                let number = visitor.wrapping_mul(1 << 20).wrapping_add(step);
                (exponential(seed, Stream::Think, number) * mean as f64) as u64
            }
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send this request, now.
    Release(Release),
    /// Nothing until this instant, or until a request ends if [`Core::waits_for_ends`].
    Wait(u64),
    /// Nothing any more; what is in flight may end.
    Done,
}

/// A request to be sent. Given back to [`Core::ended`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Its place in the run. In an open model that of its arrival, whatever worker has it.
    pub number: u64,
    pub target: u32,
    pub intended: u64,
    turn: Turn,
}

/// A visitor's next request. Ordered by time, then by visitor, so that equal instants have one order everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    due: u64,
    visitor: u64,
    step: u64,
    /// Requests after this one; `None` for a visitor who never leaves.
    left: Option<u64>,
}

/// One worker's part of a run.
#[derive(Debug)]
pub struct Core {
    seed: u64,
    targets: Targets,
    behaviour: Behaviour,
    cap: u64,
    deadline: Option<u64>,
    /// Nothing is due from here on; `grace` later nothing is released any more.
    end: u64,
    grace: u64,
    arriving: Peekable<Arriving>,
    returning: BinaryHeap<Reverse<Turn>>,
    in_flight: u64,
    /// Requests that became due, for numbers in models whose requests have none beforehand.
    turns: u64,
    worker: u64,
    workers: u64,
}

#[derive(Debug, Clone, Copy)]
enum Behaviour {
    OneRequest,
    Session { mean_requests: f64, think: Think },
    Stay { think: Think },
}

/// Visitors and when they arrive, of one worker: every `workers`-th of all.
#[derive(Debug)]
struct Arriving {
    starts: VisitorStarts,
    worker: u64,
    workers: u64,
    next: u64,
}

#[derive(Debug)]
enum VisitorStarts {
    Planned(Starts),
    /// All at once; how many are left.
    AtOnce(u64),
}

impl Iterator for Arriving {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        loop {
            let visitor = self.next;
            let at = match &mut self.starts {
                VisitorStarts::Planned(starts) => starts.next()?,
                VisitorStarts::AtOnce(left) => {
                    *left = left.checked_sub(1)?;
                    0
                }
            };
            self.next += 1;
            if visitor % self.workers == self.worker {
                return Some((visitor, at));
            }
        }
    }
}

impl Core {
    /// The part of worker `worker` of `workers`. All parts together release what a single one would.
    pub fn new(plan: &Plan, worker: usize, workers: usize) -> Self {
        let (worker, workers) = (worker as u64, (workers as u64).max(1));
        let (starts, behaviour, users) = match &plan.model {
            Model::Open(arrivals) => {
                (VisitorStarts::Planned(arrivals.starts(plan.duration, plan.seed)), Behaviour::OneRequest, 0)
            }
            Model::Closed { users, think } => {
                let users = u64::from(*users);
                (VisitorStarts::AtOnce(users), Behaviour::Stay { think: *think }, users)
            }
            Model::Sessions { starts, mean_requests, think } => (
                VisitorStarts::Planned(starts.starts(plan.duration, plan.seed)),
                Behaviour::Session { mean_requests: *mean_requests, think: *think },
                0,
            ),
        };
        let share = |all: u64| all / workers + u64::from(worker < all % workers);
        Self {
            seed: plan.seed,
            targets: plan.targets.clone(),
            behaviour,
            cap: share(plan.cap).max(share(users)).max(1),
            deadline: plan.deadline,
            end: plan.duration,
            grace: RELEASE_GRACE,
            arriving: Arriving { starts, worker, workers, next: 0 }.peekable(),
            returning: BinaryHeap::new(),
            in_flight: 0,
            turns: 0,
            worker,
            workers,
        }
    }

    /// What to do at `now`, which must not go back. What needs no performer (shedding) is done here.
    pub fn next(&mut self, now: u64, sink: &mut impl Sink) -> Step {
        loop {
            let Some(turn) = self.peek() else {
                let may_return = self.in_flight > 0 && self.waits_for_ends() && now < self.end;
                return if may_return { Step::Wait(self.end) } else { Step::Done };
            };
            if turn.due > now {
                return Step::Wait(turn.due);
            }
            self.pop(turn);
            sink.scheduled(turn.due);
            let number = self.number(turn);
            if now >= self.end.saturating_add(self.grace) {
                sink.unsent(turn.due);
            } else if let Some(why) = self.shed(turn, now) {
                sink.shed(turn.due, why);
                self.after_shed(turn, now);
            } else {
                self.in_flight += 1;
                let target = self.targets.of(self.seed, number);
                return Step::Release(Release { number, target, intended: turn.due, turn });
            }
        }
    }

    /// A released request has ended, however.
    pub fn ended(&mut self, release: &Release, now: u64) {
        self.in_flight = self.in_flight.checked_sub(1).expect("only what was released ends");
        let Turn { visitor, step, left, .. } = release.turn;
        if left == Some(0) {
            return;
        }
        let left = left.map(|left| left - 1);
        self.returns(visitor, step + 1, left, now);
    }

    /// The run ends at `now` instead: nothing that is not due yet ever is, nothing more is released.
    pub fn stop(&mut self, now: u64) {
        self.end = self.end.min(now);
        self.grace = 0;
    }

    /// Books what was due and never released. For a run that is given up; [`Core::next`] does it otherwise.
    pub fn finish(&mut self, sink: &mut impl Sink) {
        while let Some(turn) = self.peek() {
            self.pop(turn);
            sink.scheduled(turn.due);
            sink.unsent(turn.due);
        }
    }

    /// No request will be reported as due before this instant any more, if asked at `now`.
    pub fn horizon(&mut self, now: u64) -> u64 {
        self.peek().map_or(now, |turn| turn.due.min(now))
    }

    /// The end of the run as it is known now.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether the end of a request makes another one due: its visitor's next.
    pub fn waits_for_ends(&self) -> bool {
        !matches!(self.behaviour, Behaviour::OneRequest)
    }

    /// The next turn before the end, of those who arrive and those who return.
    fn peek(&mut self) -> Option<Turn> {
        let returning = self.returning.peek().map(|Reverse(turn)| *turn);
        let arriving = self.arriving.peek().copied().map(|(visitor, at)| self.first_turn(visitor, at));
        returning.into_iter().chain(arriving).min().filter(|turn| turn.due < self.end)
    }

    fn pop(&mut self, turn: Turn) {
        self.turns += 1;
        if self.returning.peek() == Some(&Reverse(turn)) {
            self.returning.pop();
        } else {
            self.arriving.next();
        }
    }

    fn first_turn(&self, visitor: u64, due: u64) -> Turn {
        let left = match self.behaviour {
            Behaviour::OneRequest => Some(0),
            Behaviour::Stay { .. } => None,
            Behaviour::Session { mean_requests, .. } => Some(geometric(self.seed, visitor, mean_requests) - 1),
        };
        Turn { due, visitor, step: 0, left }
    }

    fn number(&self, turn: Turn) -> u64 {
        match self.behaviour {
            Behaviour::OneRequest => turn.visitor,
            Behaviour::Session { .. } | Behaviour::Stay { .. } => (self.turns - 1) * self.workers + self.worker,
        }
    }

    fn shed(&self, turn: Turn, now: u64) -> Option<Shed> {
        if self.deadline.is_some_and(|deadline| now - turn.due > deadline) {
            return Some(Shed::Deadline);
        }
        (self.in_flight >= self.cap).then_some(Shed::Cap)
    }

    /// A session that is turned away is over. A user of a closed model has nowhere to go and comes back.
    fn after_shed(&mut self, turn: Turn, now: u64) {
        if turn.left.is_none() {
            self.returns(turn.visitor, turn.step + 1, None, now);
        }
    }

    fn returns(&mut self, visitor: u64, step: u64, left: Option<u64>, now: u64) {
        let think = match self.behaviour {
            Behaviour::OneRequest => return,
            Behaviour::Session { think, .. } | Behaviour::Stay { think } => think,
        };
        let due = now.saturating_add(think.pause(self.seed, visitor, step));
        if due < self.end {
            self.returning.push(Reverse(Turn { due, visitor, step, left }));
        }
    }
}

/// A number of requests, at least one, from the geometric distribution of that mean: its tail inverted.
fn geometric(seed: u64, visitor: u64, mean: f64) -> u64 {
    if mean <= 1.0 {
        return 1;
    }
    let tail = 1.0 - unit(seed, Stream::SessionLength, visitor);
    1 + (tail.ln() / (1.0 - 1.0 / mean).ln()) as u64
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
