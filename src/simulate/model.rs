//! The inside of a simulated server without its sockets: requests in, completions out, by numbers alone.
//!
//! A discrete-event model in virtual time: times are nanoseconds since the server began, and whoever calls says what
//! time it is. The live server asks this model when a request is done and then only has to wait (`workers.rs`), so what
//! the tests prove of the model by queueing theory holds for the sockets, too; simulations of a load test drive it
//! alone:
//!
//! ```
//! use std::sync::Arc;
//! use forebay::simulate::{Settings, model::{Arrival, Model}};
//!
//! let settings = Settings::parse("[upstream.a]\nlatency = \"2ms\"\nworkers = 1").unwrap();
//! let mut model = Model::new(settings.seed, Arc::new(settings.upstreams[0].clone()));
//! model.arrive(0, Arrival::new(0)).unwrap();
//! model.arrive(500_000, Arrival::new(1)).unwrap();
//!
//! assert_eq!(model.next_event(), Some(2_000_000));
//! let ends: Vec<u64> = std::iter::from_fn(|| model.completed(10_000_000)).map(|done| done.ended).collect();
//! assert_eq!(ends, [2_000_000, 4_000_000]);
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::draw::{Draw, draw_at};
use super::schedule::NEVER;
use super::settings::{Capacity, Discipline, ScheduleFrom, Upstream};

/// A request that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// What its latency, status and fault are drawn by.
    pub number: u64,
    /// To be held for so long in place of the drawn latency.
    pub hold: Option<Duration>,
    /// Its worker is not free when the latency is over, but when [`Model::leave`] says so.
    pub keeps_worker: bool,
}

impl Arrival {
    pub fn new(number: u64) -> Self {
        Self { number, hold: None, keeps_worker: false }
    }
}

/// One request inside the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The latency of a request is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    pub ticket: Ticket,
    pub number: u64,
    pub arrived: u64,
    /// When a worker took it; with processor sharing, when it came.
    pub started: u64,
    pub ended: u64,
    pub draw: Draw,
    /// It keeps its worker until [`Model::leave`].
    pub keeps_worker: bool,
}

/// No worker is free and the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// How many requests are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    pub in_service: usize,
    pub peak_in_service: usize,
    pub queued: usize,
    pub peak_queued: usize,
    pub refused: u64,
}

/// A simulated server.
#[derive(Debug)]
pub struct Model {
    seed: u64,
    upstream: Arc<Upstream>,
    rule: Rule,
    now: u64,
    /// When the time of the schedule began.
    epoch: Option<u64>,
    next_ticket: u64,
    waiting: BTreeMap<Ticket, Job>,
    serving: HashMap<Ticket, Serving>,
    /// The same requests by the mark at which they are done.
    marks: BTreeSet<(u128, Ticket)>,
    /// Done, but keeping their workers.
    keeping: HashSet<Ticket>,
    /// Work that each request in service has got since the server was last empty; processor sharing only.
    attained: u128,
    done: VecDeque<Completion>,
    levels: Levels,
}

/// How capacity is given out.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Unlimited,
    /// A worker for each request in service; the others wait. A mark is the time of the end.
    Slots {
        workers: NonZeroUsize,
        queue: usize,
        last_first: bool,
    },
    /// All requests share the workers. A mark is the work attained at the end, in units of [`FINE`].
    Shared {
        workers: NonZeroUsize,
        queue: usize,
    },
}

/// Units of shared work in a nanosecond: sharing among any number of requests must not round away time.
const FINE: u128 = 1 << 32;

#[derive(Debug, Clone, Copy)]
struct Job {
    arrival: Arrival,
    arrived: u64,
}

#[derive(Debug, Clone, Copy)]
struct Serving {
    job: Job,
    started: u64,
    mark: u128,
    draw: Draw,
}

impl Model {
    /// An empty server at time 0.
    ///
    /// A [`Capacity::Sync`] server is one worker here. Its clients that cannot connect try again and again, so its queue
    /// has no end.
    pub fn new(seed: u64, upstream: Arc<Upstream>) -> Self {
        let rule = match (upstream.capacity, upstream.discipline) {
            (Capacity::Unlimited, _) => Rule::Unlimited,
            (Capacity::Sync { .. }, _) => {
                Rule::Slots { workers: NonZeroUsize::MIN, queue: usize::MAX, last_first: false }
            }
            (Capacity::Workers { workers, queue }, Discipline::Ps) => Rule::Shared { workers, queue },
            (Capacity::Workers { workers, queue }, discipline) => {
                Rule::Slots { workers, queue, last_first: discipline == Discipline::Lifo }
            }
        };
        Self::with_rule(seed, upstream, rule)
    }

    /// A server in which nobody waits, whatever the settings say: for one whose queue is somewhere else.
    pub fn unlimited(seed: u64, upstream: Arc<Upstream>) -> Self {
        Self::with_rule(seed, upstream, Rule::Unlimited)
    }

    fn with_rule(seed: u64, upstream: Arc<Upstream>, rule: Rule) -> Self {
        let epoch = (upstream.schedule_from == ScheduleFrom::Start).then_some(0);
        Self {
            seed,
            upstream,
            rule,
            now: 0,
            epoch,
            next_ticket: 0,
            waiting: BTreeMap::new(),
            serving: HashMap::new(),
            marks: BTreeSet::new(),
            keeping: HashSet::new(),
            attained: 0,
            done: VecDeque::new(),
            levels: Levels::default(),
        }
    }

    /// A request comes. Times never go back: an earlier `now` than before counts as that one.
    pub fn arrive(&mut self, now: u64, arrival: Arrival) -> Result<Ticket, Full> {
        self.advance(now);
        self.epoch.get_or_insert(self.now);
        if self.is_full() {
            self.levels.refused += 1;
            return Err(Full);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, Job { arrival, arrived: self.now });
        self.start_waiting();
        self.levels.peak_queued = self.levels.peak_queued.max(self.levels.queued);
        Ok(ticket)
    }

    /// When something happens next, if nobody comes or leaves.
    pub fn next_event(&self) -> Option<u64> {
        let end = self.next_end();
        let is_empty = self.marks.is_empty() && self.waiting.is_empty();
        let change = if is_empty { None } else { self.next_change_of_workers() };
        [end, change].into_iter().flatten().min().filter(|time| *time != NEVER)
    }

    /// The next request whose latency is over by `now`, in the order of their ends.
    pub fn completed(&mut self, now: u64) -> Option<Completion> {
        self.advance(now);
        self.done.pop_front()
    }

    /// A client has gone, or has its answer: whatever its request still holds is free. No matter if it holds nothing.
    pub fn leave(&mut self, now: u64, ticket: Ticket) {
        self.advance(now);
        if self.waiting.remove(&ticket).is_none() && !self.keeping.remove(&ticket) {
            let Some(serving) = self.serving.remove(&ticket) else { return };
            self.marks.remove(&(serving.mark, ticket));
        }
        self.start_waiting();
    }

    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// Lets happen what happens until `now`.
    fn advance(&mut self, now: u64) {
        while let Some(at) = self.next_event().filter(|at| *at <= now) {
            self.move_clock(at);
            if let Some((mark, ticket)) = self.first_due() {
                self.marks.remove(&(mark, ticket));
                self.complete(ticket);
            }
            self.start_waiting();
        }
        self.move_clock(now);
    }

    fn move_clock(&mut self, to: u64) {
        let to = to.max(self.now);
        if let Rule::Shared { .. } = self.rule {
            let work = self.upstream.schedule.work_between(self.scheduled(self.now), self.scheduled(to));
            let shared = u128::from(work) * FINE * self.running_workers();
            // Empty, it begins again at zero.
            self.attained = shared.checked_div(self.marks.len() as u128).map_or(0, |share| self.attained + share);
        }
        self.now = to;
    }

    /// With sharing, the workers that have something to do.
    fn running_workers(&self) -> u128 {
        (self.workers().min(self.marks.len())) as u128
    }

    fn first_due(&self) -> Option<(u128, Ticket)> {
        let (mark, ticket) = *self.marks.first()?;
        let reached = if let Rule::Shared { .. } = self.rule { self.attained } else { u128::from(self.now) };
        (mark <= reached).then_some((mark, ticket))
    }

    fn next_end(&self) -> Option<u64> {
        let (mark, _) = *self.marks.first()?;
        let Rule::Shared { .. } = self.rule else { return u64::try_from(mark).ok() };
        let missing = mark.saturating_sub(self.attained) * self.marks.len() as u128;
        let work = missing.div_ceil(self.running_workers() * FINE);
        Some(self.end_of_work(u64::try_from(work).unwrap_or(NEVER)))
    }

    /// When so much work from now on is done, with the stalls that it meets.
    fn end_of_work(&self, work: u64) -> u64 {
        let end = self.upstream.schedule.end_of_work(self.scheduled(self.now), work);
        end.saturating_add(self.epoch.unwrap_or_default())
    }

    fn next_change_of_workers(&self) -> Option<u64> {
        let change = self.upstream.schedule.next_change_of_workers(self.scheduled(self.now))?;
        Some(change.saturating_add(self.epoch?))
    }

    /// A time on the axis of the schedule.
    fn scheduled(&self, time: u64) -> u64 {
        time.saturating_sub(self.epoch.unwrap_or(time))
    }

    fn complete(&mut self, ticket: Ticket) {
        let Some(Serving { job, started, draw, .. }) = self.serving.remove(&ticket) else { return };
        let keeps_worker = job.arrival.keeps_worker || draw.fault.is_some_and(|fault| fault.takes_time());
        if keeps_worker {
            self.keeping.insert(ticket);
        }
        let Job { arrival: Arrival { number, .. }, arrived } = job;
        self.done.push_back(Completion { ticket, number, arrived, started, ended: self.now, draw, keeps_worker });
    }

    fn start_waiting(&mut self) {
        while self.has_free_worker() {
            let last_first = matches!(self.rule, Rule::Slots { last_first: true, .. });
            let next = if last_first { self.waiting.pop_last() } else { self.waiting.pop_first() };
            let Some((ticket, job)) = next else { break };
            self.start(ticket, job);
        }
        self.levels.queued = self.waiting.len();
        self.levels.in_service = self.in_service();
        self.levels.peak_in_service = self.levels.peak_in_service.max(self.levels.in_service);
    }

    fn start(&mut self, ticket: Ticket, job: Job) {
        let draw = draw_at(self.seed, &self.upstream, job.arrival.number, self.scheduled(self.now));
        let work = u64::try_from(job.arrival.hold.unwrap_or(draw.latency).as_nanos()).unwrap_or(NEVER);
        let mark = match self.rule {
            Rule::Shared { .. } => self.attained + u128::from(work) * FINE,
            Rule::Slots { .. } | Rule::Unlimited => u128::from(self.end_of_work(work)),
        };
        self.marks.insert((mark, ticket));
        self.serving.insert(ticket, Serving { job, started: self.now, mark, draw });
    }

    fn in_service(&self) -> usize {
        self.serving.len() + self.keeping.len()
    }

    fn workers(&self) -> usize {
        let usual = match self.rule {
            Rule::Unlimited => return usize::MAX,
            Rule::Slots { workers, .. } | Rule::Shared { workers, .. } => workers,
        };
        self.upstream.schedule.workers_at(self.scheduled(self.now)).unwrap_or(usual).get()
    }

    fn has_free_worker(&self) -> bool {
        match self.rule {
            Rule::Unlimited | Rule::Shared { .. } => true,
            Rule::Slots { .. } => self.in_service() < self.workers(),
        }
    }

    fn is_full(&self) -> bool {
        match self.rule {
            Rule::Unlimited => false,
            Rule::Slots { queue, .. } => !self.has_free_worker() && self.waiting.len() >= queue,
            Rule::Shared { queue, .. } => self.in_service() >= self.workers().saturating_add(queue),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod theory_tests;
