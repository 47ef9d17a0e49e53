//! A run in real time: performs what the core says, with real requests, and writes the ledger.
//!
//! Each worker is a thread with a runtime of its own, a share of the plan and its own [`Protocol`], and shares nothing
//! with the others: an answer is taken by the thread that sent the request. It waits for the next instant with the
//! pacer, spawns what is due, and now and then hands its ledger to whoever called [`run`], who adds them up, shows
//! progress and draws the conclusion at the end.
//!
//! Everything ends: a request by its timeout, the run by its duration, the drain after it by its limit. What is still
//! in flight then is booked as unfinished. Stopping (first Ctrl-C) moves the end of the run to now; aborting (second)
//! moves the end of the drain to now as well. The books close in every case, because a request is booked by the guard
//! that its task holds, also when that task is dropped.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::core::{Core, Plan, Release, Step};
use super::ledger::{Book, Closed, Ledger};
use super::pace::{Clock, Pacer, nanoseconds};
use super::result::{
    Environment, Generator, Little, PlanRecord, RunResult, SCHEMA, SecondRecord, TargetRecord, Verdict,
};
use super::watch::{self, Facts, Heartbeat};
use super::waterfall::RequestKey;
use super::{CallEnd, Connected, End, Protocol, SECOND, Sample, Sink};

/// From the call of [`run`] to the start: so much time have the workers to be there.
const LEAD: Duration = Duration::from_millis(20);
/// How often a worker hands over, and with it the steps of the live view.
const HAND_OVER: Duration = Duration::from_millis(100);
/// Hand-overs that may wait. A caller who is slower only gets larger ones.
const HAND_OVERS_WAITING: usize = 16;
/// Requests released in a row before answers are looked at, when a worker is behind.
const RELEASES_AT_ONCE: u32 = 16;
/// Tasks polled between two looks at sockets and timers. The runtime's 61 would let the pacer's timer wait behind
/// that many answers; one look costs about a microsecond.
const TASKS_PER_LOOK: u32 = 8;

/// How the caller ends a run early.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// No more requests; those in flight may end.
    pub stop: CancellationToken,
    /// Nothing more at all.
    pub abort: CancellationToken,
}

/// Is told of each request that was sent and has ended, with the id that its answer named, by the worker that sent it:
/// it must not block.
pub type Tap = Arc<dyn Fn(&Clock, &Sample, Option<RequestKey>) + Send + Sync>;

/// How a run is performed.
#[derive(Clone, Default)]
pub struct Manner {
    /// Spins before each release.
    pub precise: bool,
    pub tap: Option<Tap>,
}

/// The run so far, told about every tenth of a second.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Nanoseconds since the start.
    pub now: u64,
    pub in_flight: u64,
    pub book: &'a Book,
    /// The seconds that were settled since the last time, each of which comes once.
    pub settled: &'a [SecondRecord],
    /// After the last request was due.
    pub draining: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    pub closed: Closed,
    pub plan: PlanRecord,
    pub environment: Environment,
    pub started_unix: f64,
    pub generator: Generator,
    pub little: Little,
    pub verdict: Verdict,
}

impl Report {
    /// As it is written down; `targets` are their names in order.
    pub fn into_result(mut self, command_line: Vec<String>, targets: &[String]) -> RunResult {
        let targets = targets.iter().zip(0..).map(|(name, index)| {
            let of_target = self.closed.targets.remove(&index);
            let empty =
                || TargetRecord { name: String::new(), counts: Default::default(), response: Default::default() };
            TargetRecord { name: name.clone(), ..of_target.unwrap_or_else(empty) }
        });
        RunResult {
            schema: SCHEMA.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_unix: self.started_unix,
            command_line,
            plan: self.plan,
            environment: self.environment,
            targets: targets.collect(),
            totals: self.closed.totals,
            warm_up: self.closed.warm_up,
            seconds: self.closed.seconds,
            generator: self.generator,
            little: self.little,
            waterfall: None,
            answers: None,
            verdict: self.verdict,
            gates: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Performs `plan` with one worker per element of `protocols` and returns when nothing is in flight any more, or may
/// be. `observe` is called from the task of the caller and must not block.
///
/// # Errors
///
/// When a thread, a runtime or a timer cannot be made; the run has not begun then.
pub async fn run<P: Protocol>(
    plan: &Plan,
    protocols: Vec<P>,
    manner: Manner,
    control: &Control,
    mut observe: impl FnMut(&Progress<'_>),
) -> io::Result<Report> {
    let environment = watch::environment();
    let cpu_before = watch::process_cpu();
    let started_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + LEAD;
    let clock = Clock::starting_in(LEAD);
    let workers = protocols.len().max(1);
    let (hand_over, mut hand_overs) = mpsc::channel(HAND_OVERS_WAITING);
    let mut threads = Threads { list: Vec::with_capacity(workers), abort: control.abort.child_token() };
    for (index, protocol) in protocols.into_iter().enumerate() {
        let worker = Worker {
            index,
            clock,
            manner: manner.clone(),
            core: Core::new(plan, index, workers),
            warm_up: plan.warm_up,
            timeout: Duration::from_nanos(plan.timeout),
            drain: Duration::from_nanos(plan.drain),
            control: Control { stop: control.stop.clone(), abort: threads.abort.clone() },
            hand_over: hand_over.clone(),
        };
        threads.list.push(worker.spawn(protocol)?);
    }
    drop(hand_over);
    let heartbeat = Heartbeat::start(clock)?;

    let mut books = Books::new(plan.warm_up, workers);
    while let Some(message) = hand_overs.recv().await {
        let settled = books.absorb(message);
        observe(&books.progress(clock.now(), plan.duration, &settled));
    }
    let ended: Vec<Ended> = threads.join()?;

    let stalls = heartbeat.stop();
    let cpu_after = watch::process_cpu();
    let elapsed = ended.iter().map(|worker| worker.at).max().unwrap_or_default();
    let interrupted = control.stop.is_cancelled() || control.abort.is_cancelled();
    let ran = ended.iter().map(|worker| worker.end_of_run).max().unwrap_or_default();
    let closed = books.book.close();
    let generator = Generator {
        user_cpu_s: cpu_after.0 - cpu_before.0,
        system_cpu_s: cpu_after.1 - cpu_before.1,
        busiest_worker: ended.iter().map(|worker| worker.busy).fold(0.0, f64::max),
        precise: manner.precise,
        stalls,
    };
    let ended_requests: u64 = closed.seconds.iter().map(|second| second.during.ended).sum();
    let little = watch::little(closed.area_ns, closed.service_ns, ended_requests, elapsed);
    let facts = Facts { interrupted, ..Facts::of(&closed, generator, little, ran) };
    let verdict = Verdict::new(interrupted, watch::judge(&facts));
    Ok(Report {
        plan: plan_record(plan, ran, elapsed, workers),
        closed,
        environment,
        started_unix: started_unix.as_secs_f64(),
        generator: facts.generator,
        little,
        verdict,
    })
}

fn plan_record(plan: &Plan, ran: u64, elapsed: u64, workers: usize) -> PlanRecord {
    let seconds = |ns: u64| ns as f64 / SECOND as f64;
    PlanRecord {
        model: plan.model.name().into(),
        arrivals: plan.model.describe(),
        seed: plan.seed,
        duration_s: seconds(plan.duration),
        warm_up_s: plan.warm_up,
        ran_s: seconds(ran),
        took_s: Some(seconds(elapsed)),
        workers,
        in_flight_cap: plan.cap,
        timeout_s: seconds(plan.timeout),
        deadline_s: plan.deadline.map(seconds),
    }
}

/// The workers' threads. Dropping them, which happens when the caller gives up or a later one cannot be made, aborts
/// them: none goes on sending requests that nobody counts.
struct Threads {
    list: Vec<JoinHandle<io::Result<Ended>>>,
    abort: CancellationToken,
}

impl Threads {
    fn join(mut self) -> io::Result<Vec<Ended>> {
        let joined = std::mem::take(&mut self.list).into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker of the load generator panicked")))
        });
        joined.collect()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if !self.list.is_empty() {
            self.abort.cancel();
        }
    }
}

/// What a worker hands over.
#[derive(Debug)]
struct HandOver {
    worker: usize,
    ledger: Ledger,
    /// Nothing before this will be booked by this worker, unless a second is open.
    horizon: u64,
    in_flight: u64,
}

/// What all workers have handed over.
#[derive(Debug)]
struct Books {
    book: Book,
    horizons: Vec<u64>,
    in_flight: Vec<u64>,
}

impl Books {
    fn new(warm_up: u32, workers: usize) -> Self {
        Self { book: Book::new(warm_up), horizons: vec![0; workers], in_flight: vec![0; workers] }
    }

    fn absorb(&mut self, message: HandOver) -> Vec<SecondRecord> {
        self.book.absorb(message.ledger);
        self.horizons[message.worker] = message.horizon;
        self.in_flight[message.worker] = message.in_flight;
        self.book.settle(self.horizons.iter().copied().min().unwrap_or_default())
    }

    fn progress<'a>(&'a self, now: u64, duration: u64, settled: &'a [SecondRecord]) -> Progress<'a> {
        let in_flight = self.in_flight.iter().sum();
        Progress { now, in_flight, book: &self.book, settled, draining: now >= duration }
    }
}

/// How a worker ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    at: u64,
    /// From here on nothing was due: the duration, unless it was stopped.
    end_of_run: u64,
    /// The share of its life that its thread was on a CPU. A life has a length, also if the run was stopped before
    /// its start.
    busy: f64,
}

/// One thread and its share of the run.
struct Worker {
    index: usize,
    clock: Clock,
    manner: Manner,
    core: Core,
    warm_up: u32,
    timeout: Duration,
    drain: Duration,
    control: Control,
    hand_over: mpsc::Sender<HandOver>,
}

impl Worker {
    fn spawn<P: Protocol>(self, protocol: P) -> io::Result<JoinHandle<io::Result<Ended>>> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().event_interval(TASKS_PER_LOOK).build()?;
        let pacer = {
            let _inside = runtime.enter();
            Pacer::new(self.clock, self.manner.precise)?
        };
        let name = format!("load-{}", self.index);
        std::thread::Builder::new().name(name).spawn(move || self.perform(runtime, pacer, protocol))
    }

    fn perform<P: Protocol>(self, runtime: Runtime, pacer: Pacer, protocol: P) -> io::Result<Ended> {
        let born = Instant::now();
        let Worker { index, clock, manner, core, warm_up, timeout, drain, control, hand_over } = self;
        let notify = core.waits_for_ends();
        let state = Mutex::new(State { core, ledger: Ledger::new(warm_up), notify });
        let shared = Arc::new(Shared { clock, tap: manner.tap, state, ended: Notify::new() });
        let caller = Caller { protocol: Arc::new(protocol), shared: Arc::clone(&shared), timeout };

        let performed = runtime.block_on(async {
            tokio::spawn(keep_handing_over(Arc::clone(&shared), index, hand_over.clone()));
            tokio::select! {
                // Everything was released, or the kernel's timer failed.
                released = release_all(&caller, &pacer) => released?,
                () = control.stop.cancelled() => shared.stop(),
                () = control.abort.cancelled() => shared.stop(),
            }
            tokio::select! {
                () = shared.drained() => {}
                // The drain takes too long: what is in flight is given up.
                () = tokio::time::sleep(drain) => {}
                () = control.abort.cancelled() => {}
            }
            Ok(())
        });
        drop(pacer);
        // Drops all tasks, and those that were in flight book themselves as unfinished. A name lookup may still
        // block a thread of the runtime; it is not waited for.
        runtime.shutdown_background();

        let mut last = shared.hand_over(index);
        last.horizon = u64::MAX;
        // Fails only if the caller has gone, and with it everybody who wants to know.
        let _ = hand_over.blocking_send(last);
        let end_of_run = shared.lock().core.end();
        let busy = watch::thread_cpu() as f64 / nanoseconds(born.elapsed()).max(1) as f64;
        performed.map(|()| Ended { at: clock.now(), end_of_run, busy: busy.min(1.0) })
    }
}

/// What the tasks of a worker share. All of them run on its thread, so the lock is never waited for.
struct Shared {
    clock: Clock,
    tap: Option<Tap>,
    state: Mutex<State>,
    /// A request has ended: another may be due, or the drain over.
    ended: Notify,
}

struct State {
    core: Core,
    ledger: Ledger,
    /// Whether somebody wants to know of ends: a model in which they make requests due, or the drain.
    notify: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with the lock was between two bookings, each of which is a few additions.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Step {
        let now = self.clock.now();
        let State { core, ledger, .. } = &mut *self.lock();
        core.next(now, ledger)
    }

    /// Ends the run now. What was due and could not be released is booked as unsent.
    fn stop(&self) {
        let now = self.clock.now();
        let State { core, ledger, .. } = &mut *self.lock();
        core.stop(now);
        core.finish(ledger);
    }

    async fn drained(&self) {
        self.lock().notify = true;
        while self.lock().core.in_flight() > 0 {
            self.ended.notified().await;
        }
    }

    fn hand_over(&self, worker: usize) -> HandOver {
        let State { core, ledger, .. } = &mut *self.lock();
        let now = self.clock.now();
        let ledger = ledger.take(now);
        HandOver { worker, ledger, horizon: core.horizon(now), in_flight: core.in_flight() }
    }
}

async fn keep_handing_over(shared: Arc<Shared>, index: usize, hand_over: mpsc::Sender<HandOver>) {
    let mut ticks = tokio::time::interval(HAND_OVER);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Ok(permit) = hand_over.try_reserve() {
            permit.send(shared.hand_over(index));
        }
    }
}

/// Returns when nothing is due any more. May be dropped at any time: what is released has its own task.
async fn release_all<P: Protocol>(caller: &Caller<P>, pacer: &Pacer) -> io::Result<()> {
    pacer.start().await?;
    let mut in_a_row = 0;
    loop {
        match caller.shared.next() {
            Step::Release(release) => {
                let booking = Booking {
                    shared: Arc::clone(&caller.shared),
                    release,
                    sent: None,
                    connected: Connected::default(),
                    booked: false,
                };
                tokio::spawn(call(Arc::clone(&caller.protocol), booking, caller.timeout));
                in_a_row += 1;
                if in_a_row == RELEASES_AT_ONCE {
                    in_a_row = 0;
                    tokio::task::yield_now().await;
                }
            }
            Step::Wait(at) => {
                if in_a_row > 0 {
                    // What was released goes out before the next wait is prepared.
                    in_a_row = 0;
                    tokio::task::yield_now().await;
                }
                tokio::select! {
                    waited = pacer.until(at) => waited?,
                    // Somebody's next request may be due before.
                    () = caller.shared.ended.notified() => {}
                }
            }
            Step::Done => return Ok(()),
        }
    }
}

/// Who makes the requests of a worker.
struct Caller<P> {
    protocol: Arc<P>,
    shared: Arc<Shared>,
    timeout: Duration,
}

async fn call<P: Protocol>(protocol: Arc<P>, mut booking: Booking, timeout: Duration) {
    let Release { target, number, .. } = booking.release;
    booking.send();
    let ended = tokio::time::timeout(timeout, protocol.call(target as usize, number, &booking.connected)).await;
    booking.end(ended.unwrap_or(CallEnd::without_answer(End::Timeout)));
}

/// A request that was released, until it is in the books. When its task is dropped or panics, it books itself.
struct Booking {
    shared: Arc<Shared>,
    release: Release,
    sent: Option<u64>,
    connected: Connected,
    booked: bool,
}

impl Booking {
    fn send(&mut self) {
        let mut state = self.shared.lock();
        let now = self.shared.clock.now();
        state.ledger.sent(self.release.intended, now);
        self.sent = Some(now);
    }

    fn end(mut self, end: CallEnd) {
        self.book(end);
    }

    fn book(&mut self, end: CallEnd) {
        self.booked = true;
        if let Some(sample) = self.close(&end)
            && let Some(tap) = &self.shared.tap
        {
            tap(&self.shared.clock, &sample, end.answered);
        }
    }

    /// Writes it into the books; `None` if it was never sent.
    fn close(&self, end: &CallEnd) -> Option<Sample> {
        let mut state = self.shared.lock();
        // Under the lock, as all instants are that the ledger gets: so they ascend.
        let now = self.shared.clock.now();
        state.core.ended(&self.release, now);
        let sample = self.sent.map(|sent| Sample {
            number: self.release.number,
            target: self.release.target,
            intended: self.release.intended,
            sent,
            first_byte: end.first_byte.map(|instant| self.shared.clock.at(instant)),
            ended: now,
            end: end.end,
            bytes: end.bytes,
            connect: self.connected.took().map(nanoseconds),
        });
        match &sample {
            None => state.ledger.unsent(self.release.intended),
            Some(sample) => state.ledger.ended(sample),
        }
        if state.notify {
            self.shared.ended.notify_one();
        }
        sample
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        if !self.booked {
            self.book(CallEnd::without_answer(End::Unfinished));
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
