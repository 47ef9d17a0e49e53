//! The recorder: what became of every request, per second of the instant at which it was due.
//!
//! Two equations hold in every second, at the end of the run and (once a second is settled) during it:
//!
//! ```text
//! scheduled = sent + shed + unsent
//! sent      = ok + http_error + connection_error + timeout + unfinished
//! ```
//!
//! Latencies go to HDR histograms in nanoseconds, 3 digits, up to an hour; nothing is ever backfilled
//! (`record_correct` would invent samples: see the reference measurements on independent slow requests). A request
//! that timed out or was given up is *censored*: it is in the distributions with the age at which it was last seen,
//! since leaving it out would remove exactly the slowest. A failed request is not: a refusal in 50 us must not
//! improve a percentile. It has a histogram of its own.
//!
//! Each worker keeps a [`Ledger`] and hands it over now and then; the [`Book`] adds them up. A second that is over
//! and has no request open is packed into a few hundred bytes, so memory grows with the seconds that are open, which
//! the time limit bounds, and by those bytes per second of the run.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::result::{Distribution, SecondRecord, TargetRecord, Totals};
use super::{End, ErrorKind, SECOND, Sample, Shed, Sink};

/// The finest difference that the histograms keep apart is 64 ns, the power of two below this. It is 0.1 % from
/// 64 us on, and six doublings of the range that need no memory.
const LOWEST_NS: u64 = 100;
/// Longer times are booked as this and counted in [`Timings::saturated`].
pub const HIGHEST_NS: u64 = 3600 * SECOND;
const DIGITS: u8 = 3;

/// A distribution of times in nanoseconds with its exact sum. Costs nothing until something is recorded.
#[derive(Debug, Clone, Default)]
pub struct Timings {
    histogram: Option<Box<Histogram<u64>>>,
    sum: u128,
    saturated: u64,
}

impl Timings {
    pub fn record(&mut self, ns: u64) {
        if ns > HIGHEST_NS {
            self.saturated += 1;
        }
        self.sum += u128::from(ns);
        let histogram = self.histogram.get_or_insert_with(|| Box::new(empty_histogram()));
        histogram.record(ns.min(HIGHEST_NS)).expect("the histogram grows up to the highest value");
    }

    pub fn merge(&mut self, other: Timings) {
        self.sum += other.sum;
        self.saturated += other.saturated;
        match (&mut self.histogram, other.histogram) {
            (Some(mine), Some(theirs)) => mine.add(*theirs).expect("histograms of one kind, which grow, can be added"),
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }

    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// Exact, unlike the histogram's own.
    pub fn mean_ns(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum as f64 / self.count() as f64 }
    }

    pub fn sum_ns(&self) -> u128 {
        self.sum
    }

    /// The smallest value that at least the share `q` of all does not exceed, 0.1 % exact; 0 if there is none.
    pub fn quantile_ns(&self, q: f64) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.value_at_quantile(q))
    }

    pub fn max_ns(&self) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.max())
    }

    /// Times above [`HIGHEST_NS`].
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    pub fn histogram(&self) -> Option<&Histogram<u64>> {
        self.histogram.as_deref()
    }
}

/// A histogram that those of a ledger can be added to.
pub fn empty_histogram() -> Histogram<u64> {
    // The small range is only where it starts: it grows with the values, most runs never need the hour.
    let mut histogram =
        Histogram::new_with_bounds(LOWEST_NS, 2 * LOWEST_NS, DIGITS).expect("these bounds are valid for 3 digits");
    histogram.auto(true);
    histogram
}

/// How many requests became what. Also the row of a second in a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub scheduled: u64,
    pub sent: u64,
    /// Due but not sent although the run went on: the cap was reached, or the deadline had passed.
    pub shed: u64,
    /// Those of `shed` whose deadline had passed.
    pub shed_deadline: u64,
    /// Due but not sent because the run was over.
    pub unsent: u64,
    pub ok: u64,
    pub http_error: u64,
    pub connection_error: u64,
    pub timeout: u64,
    pub unfinished: u64,
    /// Connections made for requests.
    pub connections: u64,
    /// Bytes of the bodies of answers.
    pub bytes: u64,
}

impl Counts {
    pub fn ended(&self) -> u64 {
        self.ok + self.http_error + self.connection_error + self.timeout + self.unfinished
    }

    /// Whether both equations of the ledger hold: no request of these is open, none was lost.
    pub fn is_closed(&self) -> bool {
        self.scheduled == self.sent + self.shed + self.unsent && self.sent == self.ended()
    }

    /// Requests whose latency is only known to be at least what was recorded.
    pub fn censored(&self) -> u64 {
        self.timeout + self.unfinished
    }

    pub fn add(&mut self, other: &Counts) {
        self.scheduled += other.scheduled;
        self.sent += other.sent;
        self.shed += other.shed;
        self.shed_deadline += other.shed_deadline;
        self.unsent += other.unsent;
        self.ok += other.ok;
        self.http_error += other.http_error;
        self.connection_error += other.connection_error;
        self.timeout += other.timeout;
        self.unfinished += other.unfinished;
        self.connections += other.connections;
        self.bytes += other.bytes;
    }

    fn count_end(&mut self, end: End) {
        match end {
            End::Ok { .. } => self.ok += 1,
            End::HttpError { .. } => self.http_error += 1,
            End::ConnectionError(_) => self.connection_error += 1,
            End::Timeout => self.timeout += 1,
            End::Unfinished => self.unfinished += 1,
        }
    }
}

/// The requests that were due in one second, or in several added up.
#[derive(Debug, Clone, Default)]
pub struct Second {
    pub counts: Counts,
    /// From the intended instant: what users see. Of `ok` and the censored.
    pub response: Timings,
    /// From the actual sending: what the server took. Of the same requests.
    pub service: Timings,
    /// From the intended instant to the failure, of `http_error` and `connection_error`; also of expected refusals
    /// (a 429 above a rate limit), which are `ok` but no measure of the work.
    pub failed: Timings,
    /// From the intended instant to the sending, of all `sent`: what the generator added.
    pub lateness: Timings,
    /// From the intended instant to the first byte of the answer, of `ok`.
    pub first_byte: Timings,
    /// Making connections.
    pub connect: Timings,
    /// The shortest response time among the censored: quantiles from here on are lower bounds, those below are exact.
    pub censored_from: Option<u64>,
    /// What happened *during* this second, whenever it was due.
    pub during: During,
}

/// What happened within a second of the clock, as opposed to what became of the requests due in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct During {
    pub sent: u64,
    pub ended: u64,
    /// Requests in flight, integrated over the second: divided by 1e9 it is their mean number.
    pub in_flight_ns: u64,
}

impl Second {
    pub fn merge(&mut self, other: Second) {
        self.counts.add(&other.counts);
        self.response.merge(other.response);
        self.service.merge(other.service);
        self.failed.merge(other.failed);
        self.lateness.merge(other.lateness);
        self.first_byte.merge(other.first_byte);
        self.connect.merge(other.connect);
        self.censored_from = self.censored_from.into_iter().chain(other.censored_from).min();
        self.during.sent += other.during.sent;
        self.during.ended += other.during.ended;
        self.during.in_flight_ns += other.during.in_flight_ns;
    }

    fn record(&mut self, sample: &Sample) {
        self.counts.count_end(sample.end);
        self.counts.bytes += sample.bytes;
        if let Some(connect) = sample.connect {
            self.counts.connections += 1;
            self.connect.record(connect);
        }
        match sample.end {
            End::Ok { .. } if !sample.end.is_timed() => self.failed.record(sample.response()),
            End::Ok { .. } => {
                if let Some(first_byte) = sample.first_byte {
                    self.first_byte.record(first_byte.saturating_sub(sample.intended));
                }
                self.record_times(sample);
            }
            End::Timeout | End::Unfinished => {
                let response = sample.response();
                self.censored_from = Some(self.censored_from.map_or(response, |from| from.min(response)));
                self.record_times(sample);
            }
            End::HttpError { .. } | End::ConnectionError(_) => self.failed.record(sample.response()),
        }
    }

    fn record_times(&mut self, sample: &Sample) {
        self.response.record(sample.response());
        self.service.record(sample.service());
    }
}

/// What became of the requests to one target, the warm-up left out.
#[derive(Debug, Clone, Default)]
struct Target {
    counts: Counts,
    response: Timings,
}

/// What one worker has seen since it last handed over.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Seconds of warm-up at the start of the run: they are kept like all others, but not in what is not per second.
    warm_up: u32,
    seconds: BTreeMap<u32, Second>,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<ErrorKind, u64>,
    targets: BTreeMap<u32, Target>,
    /// Requests in flight, and until when they are in `in_flight_ns`.
    in_flight: u64,
    integrated_until: u64,
    /// Of every request that ended, warm-up and failures included: one side of Little's law.
    service_ns: u128,
}

impl Ledger {
    pub fn new(warm_up: u32) -> Self {
        Self { warm_up, ..Self::default() }
    }

    /// Everything since the last time, as of `now`; this one goes on with what is in flight.
    pub fn take(&mut self, now: u64) -> Ledger {
        self.integrate(now);
        let fresh = Ledger {
            warm_up: self.warm_up,
            in_flight: self.in_flight,
            integrated_until: self.integrated_until,
            ..Ledger::default()
        };
        std::mem::replace(self, fresh)
    }

    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    fn second(&mut self, at: u64) -> &mut Second {
        self.seconds.entry(second_of(at)).or_default()
    }

    /// Brings the integral over the requests in flight up to `now`, split at the seconds' borders.
    fn integrate(&mut self, now: u64) {
        while self.integrated_until < now {
            let border = (self.integrated_until / SECOND + 1) * SECOND;
            let until = border.min(now);
            if self.in_flight > 0 {
                let area = self.in_flight * (until - self.integrated_until);
                self.second(until - 1).during.in_flight_ns += area;
            }
            self.integrated_until = until;
        }
    }
}

/// The row of an instant. Runs end long before 2^32 seconds.
fn second_of(at: u64) -> u32 {
    u32::try_from(at / SECOND).unwrap_or(u32::MAX)
}

impl Sink for Ledger {
    fn scheduled(&mut self, intended: u64) {
        self.second(intended).counts.scheduled += 1;
    }

    fn shed(&mut self, intended: u64, why: Shed) {
        let counts = &mut self.second(intended).counts;
        counts.shed += 1;
        match why {
            Shed::Cap => {}
            Shed::Deadline => counts.shed_deadline += 1,
        }
    }

    fn unsent(&mut self, intended: u64) {
        self.second(intended).counts.unsent += 1;
    }

    fn sent(&mut self, intended: u64, sent: u64) {
        self.integrate(sent);
        self.in_flight += 1;
        self.second(sent).during.sent += 1;
        let second = self.second(intended);
        second.counts.sent += 1;
        second.lateness.record(sent.saturating_sub(intended));
    }

    fn ended(&mut self, sample: &Sample) {
        self.integrate(sample.ended);
        self.in_flight = self.in_flight.checked_sub(1).expect("a request ends only after it was sent");
        self.service_ns += u128::from(sample.service());
        self.second(sample.ended).during.ended += 1;
        self.second(sample.intended).record(sample);
        if second_of(sample.intended) < self.warm_up {
            return;
        }
        match sample.end {
            End::Ok { status } | End::HttpError { status } => *self.statuses.entry(status).or_default() += 1,
            End::ConnectionError(kind) => *self.errors.entry(kind).or_default() += 1,
            End::Timeout | End::Unfinished => {}
        }
        let target = self.targets.entry(sample.target).or_default();
        target.counts.count_end(sample.end);
        target.counts.sent += 1;
        target.counts.scheduled += 1;
        if sample.end.is_timed() {
            target.response.record(sample.response());
        }
    }
}

/// The ledgers of all workers, added up.
#[derive(Debug, Default)]
pub struct Book {
    warm_up: u32,
    open: BTreeMap<u32, Second>,
    settled: BTreeMap<u32, SecondRecord>,
    /// Of what is settled.
    total: Second,
    warm_up_total: Second,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<ErrorKind, u64>,
    targets: BTreeMap<u32, Target>,
    area_ns: u128,
    service_ns: u128,
}

/// Everything that was booked, as it goes to the result.
#[derive(Debug)]
pub struct Closed {
    pub totals: Totals,
    pub warm_up: Option<Totals>,
    pub seconds: Vec<SecondRecord>,
    /// By the index of the target.
    pub targets: BTreeMap<u32, TargetRecord>,
    /// Requests in flight integrated over the run, and the service times of all requests that ended. Two paths to
    /// the same number: see [`crate::load::watch`].
    pub area_ns: u128,
    pub service_ns: u128,
    /// The totals unpacked, for whoever decides by them.
    pub total: Second,
}

impl Book {
    pub fn new(warm_up: u32) -> Self {
        Self { warm_up, ..Self::default() }
    }

    pub fn absorb(&mut self, ledger: Ledger) {
        for (index, second) in ledger.seconds {
            self.area_ns += u128::from(second.during.in_flight_ns);
            self.open.entry(index).or_default().merge(second);
        }
        self.service_ns += ledger.service_ns;
        for (status, count) in ledger.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (kind, count) in ledger.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        for (index, target) in ledger.targets {
            let mine = self.targets.entry(index).or_default();
            mine.counts.add(&target.counts);
            mine.response.merge(target.response);
        }
    }

    /// Packs the seconds before `horizon` in which no request is open, and returns them. The horizon is the earliest
    /// instant for which some worker may still book something: its next arrival, or the time of its last hand-over.
    pub fn settle(&mut self, horizon: u64) -> Vec<SecondRecord> {
        let before = second_of(horizon);
        let ready: Vec<u32> = self
            .open
            .range(..before)
            .filter(|(_, second)| second.counts.is_closed())
            .map(|(index, _)| *index)
            .collect();
        ready.into_iter().filter_map(|index| self.pack(index)).collect()
    }

    /// The seconds that are not settled, in order: those of now, and older ones with requests in flight.
    pub fn open(&self) -> impl Iterator<Item = (u32, &Second)> {
        self.open.iter().map(|(index, second)| (*index, second))
    }

    /// What was settled of the measured part of the run.
    pub fn total(&self) -> &Second {
        &self.total
    }

    /// Answers by status, settled or not, the warm-up left out.
    pub fn statuses(&self) -> &BTreeMap<u16, u64> {
        &self.statuses
    }

    /// Connection errors by kind, settled or not, the warm-up left out.
    pub fn errors(&self) -> &BTreeMap<ErrorKind, u64> {
        &self.errors
    }

    /// The counts of the whole run up to now, settled or not, the warm-up left out.
    pub fn counts(&self) -> Counts {
        let mut counts = self.total.counts;
        self.open.range(self.warm_up..).for_each(|(_, second)| counts.add(&second.counts));
        counts
    }

    /// The end: everything is packed, also what does not close (a reader must see that it does not).
    pub fn close(mut self) -> Closed {
        let open: Vec<u32> = self.open.keys().copied().collect();
        for index in open {
            self.pack(index);
        }
        Closed {
            totals: Totals::of(&self.total, self.statuses, self.errors),
            warm_up: (self.warm_up > 0)
                .then(|| Totals::of(&self.warm_up_total, BTreeMap::default(), BTreeMap::default())),
            seconds: self.settled.into_values().collect(),
            targets: self
                .targets
                .into_iter()
                .map(|(index, target)| {
                    let response = Distribution::of(&target.response);
                    (index, TargetRecord { name: String::new(), counts: target.counts, response })
                })
                .collect(),
            area_ns: self.area_ns,
            service_ns: self.service_ns,
            total: self.total,
        }
    }

    fn pack(&mut self, index: u32) -> Option<SecondRecord> {
        let second = self.open.remove(&index)?;
        debug_assert!(!self.settled.contains_key(&index), "second {index} was booked after it was settled");
        let record = SecondRecord::of(index, index < self.warm_up, &second);
        self.settled.insert(index, record.clone());
        if index < self.warm_up {
            self.warm_up_total.merge(second);
        } else {
            self.total.merge(second);
        }
        Some(record)
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
