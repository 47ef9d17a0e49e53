//! Results of background work, for one route: what runs, what is kept, and what was kept once.
//!
//! An id is 128 random bits of the operating system's and gives its bearer the result. Looking one up cannot be timed into
//! guessing it: the table is keyed by SipHash with random keys, so how long a lookup takes depends on hashes that nobody
//! outside can compute, and ids are compared as one integer, never byte by byte.
//!
//! Everything is bounded. At most `max_running` jobs run; they are never evicted, and one that is dropped without a result
//! (a panic, a cancel) ends as failed. At most `max_results` results of `max_bytes` together stay, each for `keep` after
//! its end; the oldest go first. The ids of those that went are remembered, as many as `max_results`, so that asking for
//! one is answered with 410 and not with 404.
//!
//! Lookups never see an expired result, but its memory is freed by the next call of any kind, or by [`Results::sweep`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::model::aggregate::Background;
use crate::telemetry::{self, JobMetrics, Reason, ReasonClass};

/// The longest time between sweeps; only memory waits for them.
const MAX_SWEEP_PAUSE: Duration = Duration::from_secs(3600);

/// Longer than any process lives, and short enough to be added to any instant.
const MAX_KEEP: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Names a job and its result; cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u128);

impl Id {
    const DIGITS: usize = 32;

    /// `None` when the operating system has no random numbers.
    fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        OsRng.try_fill_bytes(&mut bytes).ok()?;
        Some(Self(u128::from_be_bytes(bytes)))
    }

    /// Of the 32 lower-case hexadecimal digits that `Display` writes; of nothing else, so that a result has one address.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != Self::DIGITS || !text.bytes().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Not the id: whoever reads it in a log could fetch the result.
impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Id(..)")
    }
}

/// The end of a job, as it is sent to those who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub status: u16,
    pub reason: Reason,
    /// Lower-case names: content type, completeness and so on, without those of the connection.
    pub headers: Vec<(&'static str, String)>,
    /// `None`: Forebay's own answer to `reason`, which is made when somebody asks for it. Otherwise it should not be a
    /// slice of something larger, which would be kept whole and counted in part.
    pub body: Option<Bytes>,
}

impl Stored {
    /// A job that failed for this reason.
    pub fn failed(reason: Reason) -> Self {
        Self { status: reason.status(), reason, headers: Vec::new(), body: None }
    }

    /// What counts towards `max_bytes`. The rest is of fixed size, and bounded by `max_results`.
    fn bytes(&self) -> u64 {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        (headers + self.body.as_ref().map_or(0, Bytes::len)) as u64
    }
}

/// What there is under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    Running {
        since: Instant,
    },
    Ready {
        stored: Arc<Stored>,
        /// When it goes, unless others push it out before.
        expires: Instant,
    },
    /// There was something: it expired, had to make room or was removed.
    Gone,
    Unknown,
}

/// What removing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// A result was forgotten.
    Result,
    /// A job was told to end; its result will not be kept.
    Cancelled,
    /// It was gone before.
    Gone,
    Unknown,
}

/// How much there is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Jobs that have not ended, those which were removed included.
    pub running: usize,
    pub kept: usize,
    /// Of what is kept.
    pub bytes: u64,
}

/// The jobs and results of one route.
#[derive(Debug)]
pub struct Results {
    state: Mutex<State>,
    metrics: Arc<JobMetrics>,
}

/// A job that runs; dropping it unfinished ends it as failed.
#[derive(Debug)]
#[must_use = "a job that is dropped has failed"]
pub struct Job {
    results: Arc<Results>,
    id: Id,
    cancelled: CancellationToken,
    /// Taken by the end.
    running: Option<telemetry::Job>,
}

impl Results {
    pub fn new(bounds: &Background, metrics: Arc<JobMetrics>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new(bounds, Arc::clone(&metrics))), metrics })
    }

    /// A new job, unless too many run: `TooManyJobs`. `Internal` when the operating system has no random numbers.
    pub fn begin(self: &Arc<Self>) -> Result<Job, Reason> {
        // Not under the lock: it is a system call.
        let id = Id::random().ok_or(Reason::Internal)?;
        let now = Instant::now();
        let Some(cancelled) = self.lock_swept(now).begin(id, now) else {
            self.metrics.refused.inc();
            return Err(Reason::TooManyJobs);
        };
        Ok(Job { results: Arc::clone(self), id, cancelled, running: Some(self.metrics.begin()) })
    }

    pub fn get(&self, id: Id) -> Lookup {
        self.lock_swept(Instant::now()).get(id)
    }

    /// Forgets a result, or ends a job: it is gone from now on, although the job counts as running until it is dropped.
    pub fn remove(&self, id: Id) -> Removed {
        self.lock_swept(Instant::now()).remove(id)
    }

    /// Frees what has expired by `now`.
    pub fn sweep(&self, now: Instant) {
        drop(self.lock_swept(now));
    }

    /// When to call [`Results::sweep`] next. Nothing that ends later can expire earlier than this, so who sleeps until
    /// then needs no wake-up.
    pub fn next_sweep(&self, now: Instant) -> Instant {
        let state = self.lock();
        let keep = state.bounds.keep.min(MAX_SWEEP_PAUSE);
        state.kept.values().next().map_or(now + keep, |oldest| (now + keep).min(state.expiry(oldest)))
    }

    /// Takes over other bounds at a reload. What is too much for them goes, except jobs, which run to their end.
    pub fn resize(&self, bounds: &Background) {
        let mut state = self.lock();
        state.bounds = Bounds::of(bounds);
        state.sweep(Instant::now());
        state.make_room();
        state.forget_the_oldest();
    }

    pub fn counts(&self) -> Counts {
        self.lock_swept(Instant::now()).counts()
    }

    fn end(&self, id: Id, stored: Stored) -> Ended {
        let now = Instant::now();
        self.lock_swept(now).end(id, stored, now)
    }

    fn lock_swept(&self, now: Instant) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.sweep(now);
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can panic half way, short of a bug that aborts one request.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    pub fn id(&self) -> Id {
        self.id
    }

    /// Cancelled when somebody removes the job. Clones share it.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Waits for the work and keeps what it gives; drops the work at once when somebody removes the job.
    pub async fn run(self, work: impl Future<Output = Stored>) {
        if let Some(stored) = self.cancelled.run_until_cancelled(work).await {
            self.finish(stored);
        }
    }

    /// Keeps the result, or `ResultTooLarge` in its place when it is larger than all results together may be.
    pub fn finish(mut self, stored: Stored) {
        let Some(running) = self.running.take() else { return };
        match self.results.end(self.id, stored) {
            Ended::Kept(reason) if reason.class() == ReasonClass::Success => running.finished(),
            Ended::Kept(_) => running.failed(),
            // Counted as cut.
            Ended::Removed => drop(running),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.results.end(self.id, Stored::failed(Reason::Internal));
        }
    }
}

/// The part of [`Background`] that counts here.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    keep: Duration,
    max_running: usize,
    max_results: usize,
    max_bytes: u64,
}

impl Bounds {
    fn of(config: &Background) -> Self {
        let Background { keep, max_running, max_results, max_bytes, results: _ } = *config;
        Self { keep: keep.min(MAX_KEEP), max_running, max_results, max_bytes }
    }
}

#[derive(Debug)]
struct State {
    bounds: Bounds,
    /// What an id stands for. An id that is nowhere was never given out, or is forgotten.
    entries: HashMap<Id, Entry>,
    /// Results in the order of their end, which is that in which they expire and are evicted. Numbered, so that one in the
    /// middle can be removed.
    kept: BTreeMap<u64, Kept>,
    next_number: u64,
    /// Jobs, those which were removed but have not ended included.
    running: usize,
    /// Of all results.
    bytes: u64,
    gone: Gone,
    metrics: Arc<JobMetrics>,
}

/// What became of a job's result.
#[derive(Debug)]
enum Ended {
    /// A result with this reason is kept, or was for a moment.
    Kept(Reason),
    /// Somebody had removed the job.
    Removed,
}

#[derive(Debug)]
enum Entry {
    Running {
        since: Instant,
        cancel: CancellationToken,
    },
    /// The number of a result.
    Kept(u64),
}

#[derive(Debug)]
struct Kept {
    id: Id,
    stored: Arc<Stored>,
    bytes: u64,
    ended: Instant,
}

impl State {
    fn new(bounds: &Background, metrics: Arc<JobMetrics>) -> Self {
        Self {
            bounds: Bounds::of(bounds),
            entries: HashMap::new(),
            kept: BTreeMap::new(),
            next_number: 0,
            running: 0,
            bytes: 0,
            gone: Gone::default(),
            metrics,
        }
    }

    fn begin(&mut self, id: Id, now: Instant) -> Option<CancellationToken> {
        if self.running >= self.bounds.max_running {
            return None;
        }
        let cancel = CancellationToken::new();
        self.running += 1;
        self.entries.insert(id, Entry::Running { since: now, cancel: cancel.clone() });
        Some(cancel)
    }

    fn end(&mut self, id: Id, stored: Stored, now: Instant) -> Ended {
        self.running -= 1;
        if !self.entries.contains_key(&id) {
            return Ended::Removed;
        }
        let stored = self.fitting(stored);
        let reason = stored.reason;
        self.keep(id, stored, now);
        self.make_room();
        Ended::Kept(reason)
    }

    /// What is too large alone is not kept at the cost of everything else.
    fn fitting(&self, stored: Stored) -> Stored {
        if stored.bytes() <= self.bounds.max_bytes {
            return stored;
        }
        self.metrics.evictions.inc();
        Stored::failed(Reason::ResultTooLarge)
    }

    fn keep(&mut self, id: Id, stored: Stored, now: Instant) {
        let bytes = stored.bytes();
        let number = self.next_number;
        self.next_number += 1;
        self.bytes += bytes;
        self.metrics.results.inc();
        self.metrics.result_bytes.add(bytes as i64);
        self.entries.insert(id, Entry::Kept(number));
        self.kept.insert(number, Kept { id, stored: Arc::new(stored), bytes, ended: now });
    }

    fn get(&self, id: Id) -> Lookup {
        match self.entries.get(&id) {
            Some(Entry::Running { since, .. }) => Lookup::Running { since: *since },
            Some(Entry::Kept(number)) => {
                let kept = self.kept.get(number).expect("an entry goes together with its result");
                Lookup::Ready { stored: Arc::clone(&kept.stored), expires: self.expiry(kept) }
            }
            None if self.gone.contains(id) => Lookup::Gone,
            None => Lookup::Unknown,
        }
    }

    fn remove(&mut self, id: Id) -> Removed {
        match self.entries.get(&id) {
            Some(Entry::Running { cancel, .. }) => {
                cancel.cancel();
                self.forget(id);
                Removed::Cancelled
            }
            Some(Entry::Kept(number)) => {
                self.drop_result(*number);
                Removed::Result
            }
            None if self.gone.contains(id) => Removed::Gone,
            None => Removed::Unknown,
        }
    }

    fn expiry(&self, kept: &Kept) -> Instant {
        kept.ended + self.bounds.keep
    }

    fn sweep(&mut self, now: Instant) {
        while let Some((number, kept)) = self.kept.first_key_value()
            && self.expiry(kept) <= now
        {
            self.drop_result(*number);
        }
    }

    /// Evicts the oldest results until the rest is within the bounds.
    fn make_room(&mut self) {
        while (self.kept.len() > self.bounds.max_results || self.bytes > self.bounds.max_bytes)
            && let Some(number) = self.kept.keys().next().copied()
        {
            self.drop_result(number);
            self.metrics.evictions.inc();
        }
    }

    fn drop_result(&mut self, number: u64) {
        if let Some(kept) = self.kept.remove(&number) {
            self.bytes -= kept.bytes;
            self.metrics.results.dec();
            self.metrics.result_bytes.sub(kept.bytes as i64);
            self.forget(kept.id);
        }
    }

    /// Nothing is under this id any more, but it is remembered for a while.
    fn forget(&mut self, id: Id) {
        self.entries.remove(&id);
        self.gone.push(id);
        self.forget_the_oldest();
    }

    fn forget_the_oldest(&mut self) {
        self.gone.shrink_to(self.bounds.max_results);
    }

    fn counts(&self) -> Counts {
        Counts { running: self.running, kept: self.kept.len(), bytes: self.bytes }
    }
}

impl Drop for State {
    /// The route is gone; its metrics may stay.
    fn drop(&mut self) {
        self.metrics.results.sub(self.kept.len() as i64);
        self.metrics.result_bytes.sub(self.bytes as i64);
    }
}

/// Ids under which there was something, the oldest first.
#[derive(Debug, Default)]
struct Gone {
    order: VecDeque<Id>,
    ids: HashSet<Id>,
}

impl Gone {
    fn contains(&self, id: Id) -> bool {
        self.ids.contains(&id)
    }

    fn push(&mut self, id: Id) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
    }

    fn shrink_to(&mut self, max: usize) {
        while self.order.len() > max
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;
