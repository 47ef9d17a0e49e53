//! The last minutes, second by second: what became of each route and upstream between two readings. Bounded by
//! [`KEEP`] and by the names of the configuration. Pure: readings and instants are arguments.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::Latencies;
use crate::telemetry::reading::{Ends, Reading};

/// Seconds that are kept: 48 bytes each, and 16 for each of the latency buckets that were hit in it.
pub const KEEP: usize = 300;
/// Over which rates are taken: shorter ones jump, longer ones lag.
pub const RATE_SECONDS: usize = 10;
/// Over which shares and quantiles are taken.
pub const WINDOW_SECONDS: usize = 60;
/// Of a sparkline.
pub const SPARK_SECONDS: usize = 120;

/// The newest of a bounded number of values.
#[derive(Debug, Clone)]
pub struct Ring<T> {
    values: VecDeque<T>,
    keep: usize,
}

impl<T> Ring<T> {
    pub fn new(keep: usize) -> Self {
        Self { values: VecDeque::with_capacity(keep), keep }
    }

    /// The oldest makes room.
    pub fn push(&mut self, value: T) {
        if self.values.len() >= self.keep {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// The newest `count` of them, oldest first.
    pub fn last(&self, count: usize) -> impl ExactSizeIterator<Item = &T> + DoubleEndedIterator {
        self.values.range(self.values.len().saturating_sub(count)..)
    }
}

/// What happened between two readings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Second {
    /// Its real length: a busy machine reads late.
    pub length: Duration,
    pub ended: u32,
    pub failed: u32,
    /// The exact mean, from the time integral.
    pub in_flight: f32,
    pub latencies: Latencies,
    /// Up to an hour; the true one, while quantiles of `latencies` may err by the width of a bucket.
    pub longest_micros: u32,
}

impl Second {
    fn between(before: &Ends, after: &Ends, length: Duration) -> Self {
        let count = |now: u64, then: u64| u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX);
        let busy = after.in_flight.integral.saturating_sub(before.in_flight.integral);
        Self {
            length,
            ended: count(after.total(), before.total()),
            failed: count(after.failed(), before.failed()),
            in_flight: busy.as_secs_f32() / length.as_secs_f32().max(0.001),
            latencies: after.latencies.since(&before.latencies),
            longest_micros: u32::try_from(after.longest.as_micros()).unwrap_or(u32::MAX),
        }
    }

    /// Seconds; never more than the longest.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        at_most(self.longest(), self.latencies.quantile(q))
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(u64::from(self.longest_micros))
    }
}

/// A quantile may err upwards by the width of a bucket, but nothing took longer than the longest.
fn at_most(longest: Duration, quantile: Option<f64>) -> Option<f64> {
    quantile.map(|seconds| seconds.min(longest.as_secs_f64()))
}

pub type Seconds = BTreeMap<String, Ring<Second>>;

/// The readings' differences, and the newest reading itself.
#[derive(Debug, Default)]
pub struct History {
    taken: Option<(Instant, Reading)>,
    pub routes: Seconds,
    pub upstreams: Seconds,
    /// How many waited at each reading, by scope and name.
    pub depths: BTreeMap<(&'static str, String), Ring<u32>>,
    /// Requests of load tests at the readings of the last [`RATE_SECONDS`], by route.
    load_tests: BTreeMap<String, Ring<(Instant, u64)>>,
}

impl History {
    /// Takes over a reading of `at`; what it no longer names is forgotten.
    pub fn add(&mut self, reading: Reading, at: Instant) {
        if let Some((before_at, before)) = &self.taken {
            let length = at.saturating_duration_since(*before_at);
            advance(&mut self.routes, &before.routes, &reading.routes, length);
            advance(&mut self.upstreams, &before.upstreams, &reading.upstreams, length);
        }
        self.load_tests.retain(|name, _| reading.load_tests.iter().any(|(known, _)| known == name));
        for (route, count) in &reading.load_tests {
            let ring = self.load_tests.entry(route.clone()).or_insert_with(|| Ring::new(RATE_SECONDS + 1));
            ring.push((at, *count));
        }
        let limits = &reading.in_flight_limits;
        self.depths.retain(|(scope, name), _| limits.iter().any(|limit| limit.scope == *scope && limit.name == *name));
        for limit in limits {
            let ring = self.depths.entry((limit.scope, limit.name.clone())).or_insert_with(|| Ring::new(KEEP));
            ring.push(u32::try_from(limit.depth).unwrap_or(0));
        }
        self.taken = Some((at, reading));
    }

    /// Routes that load tests ask, with their requests per second.
    pub fn load_tests(&self) -> impl Iterator<Item = (&str, f64)> {
        self.load_tests.iter().filter_map(|(route, ring)| {
            let ((then, before), (now, after)) = (ring.last(RATE_SECONDS + 1).next()?, ring.last(1).next()?);
            let seconds = now.saturating_duration_since(*then).as_secs_f64();
            (after > before && seconds > 0.0).then(|| (route.as_str(), (after - before) as f64 / seconds))
        })
    }

    /// The newest reading; `None` before the first.
    pub fn newest(&self) -> Option<&Reading> {
        self.taken.as_ref().map(|(_, reading)| reading)
    }

    /// The most that waited at once at any reading of the window.
    pub fn deepest(&self, scope: &'static str, name: &str) -> u32 {
        let ring = self.depths.get(&(scope, name.to_owned()));
        ring.into_iter().flat_map(|ring| ring.last(WINDOW_SECONDS)).copied().max().unwrap_or(0)
    }
}

fn advance(all: &mut Seconds, before: &[(String, Ends)], after: &[(String, Ends)], length: Duration) {
    all.retain(|name, _| after.iter().any(|(known, _)| known == name));
    for (name, ends) in after {
        // Both lists are in the order of their names.
        let Ok(index) = before.binary_search_by(|(known, _)| known.cmp(name)) else { continue };
        let second = Second::between(&before[index].1, ends, length);
        all.entry(name.clone()).or_insert_with(|| Ring::new(KEEP)).push(second);
    }
}

/// What the newest seconds say together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recent {
    /// Ended per second, over [`RATE_SECONDS`].
    pub rate: f64,
    /// Over [`WINDOW_SECONDS`], as are those below.
    pub ended: u64,
    pub failed: u64,
    pub latencies: Latencies,
    longest: Duration,
}

impl Recent {
    pub fn of(ring: Option<&Ring<Second>>) -> Self {
        let Some(ring) = ring else { return Self::default() };
        let (mut ended, mut length) = (0, Duration::ZERO);
        for second in ring.last(RATE_SECONDS) {
            ended += u64::from(second.ended);
            length += second.length;
        }
        let window = || ring.last(WINDOW_SECONDS);
        Self {
            rate: if ended == 0 { 0.0 } else { ended as f64 / length.as_secs_f64().max(0.001) },
            ended: window().map(|second| u64::from(second.ended)).sum(),
            failed: window().map(|second| u64::from(second.failed)).sum(),
            latencies: Latencies::sum(window().map(|second| &second.latencies)),
            longest: window().map(Second::longest).max().unwrap_or_default(),
        }
    }

    /// Seconds; never more than the longest.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        at_most(self.longest, self.latencies.quantile(q))
    }

    /// `None` when nothing ended.
    pub fn longest(&self) -> Option<Duration> {
        (self.ended > 0).then_some(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Reason, Telemetry};

    #[test]
    fn a_ring_keeps_the_newest() {
        let mut ring = Ring::new(3);
        (1..=5).for_each(|value| ring.push(value));

        assert_eq!(ring.last(9).copied().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(ring.last(2).copied().collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn a_load_test_is_there_as_long_as_its_requests_come() {
        let (telemetry, start) = (Telemetry::quiet(), Instant::now());
        let (tested, _other) = (telemetry.route("tested"), telemetry.route("other"));
        let mut history = History::default();
        let second = |history: &mut History, seconds, requests| {
            tested.load_tests.inc_by(requests);
            history.add(telemetry.reading(at(start, seconds)), at(start, seconds));
        };
        second(&mut history, 0, 0);
        assert_eq!(history.load_tests().count(), 0);

        second(&mut history, 1, 5);
        second(&mut history, 2, 50);
        assert_eq!(history.load_tests().collect::<Vec<_>>(), [("tested", 50.0)]);

        (3..=12).for_each(|seconds| second(&mut history, seconds, 0));
        assert_eq!(history.load_tests().count(), 0);
    }

    #[test]
    fn a_ring_takes_no_more_memory_than_it_keeps() {
        let mut ring = Ring::new(KEEP);
        (0..2 * KEEP).for_each(|value| ring.push(value));

        assert_eq!(ring.values.capacity(), KEEP);
        assert_eq!(size_of::<Second>(), 48, "docs/page.md says what a route costs");
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn seconds_have_what_came_in_them() {
        let (telemetry, start) = (Telemetry::quiet(), Instant::now());
        let upstream = telemetry.upstream("users");
        let attempt = |reason, ms| upstream.attempt(reason, Duration::from_millis(ms), None, None);
        let mut history = History::default();
        attempt(Reason::Ok, 999);
        history.add(telemetry.reading(start), start);

        attempt(Reason::Ok, 100);
        attempt(Reason::ConnectFailed, 1);
        let guard = upstream.in_flight.guard(at(start, 1));
        history.add(telemetry.reading(at(start, 2)), at(start, 2));
        drop(guard);
        attempt(Reason::ClientGone, 1);
        history.add(telemetry.reading(at(start, 3)), at(start, 3));

        let seconds: Vec<_> = history.upstreams["users"].last(KEEP).collect();
        let counts: Vec<_> = seconds.iter().map(|second| (second.ended, second.failed)).collect();
        assert_eq!(counts, [(2, 1), (1, 0)]);
        assert_eq!(seconds[0].in_flight, 0.5, "one in flight for one of two seconds");
        let recent = Recent::of(history.upstreams.get("users"));
        assert_eq!((recent.rate, recent.ended, recent.failed), (1.0, 3, 1));
        assert_eq!(recent.longest(), Some(Duration::from_millis(100)), "what was before is not in it");
        assert_eq!(recent.quantile(1.0), Some(0.1), "its bucket reaches to 0.105");
        assert_eq!(seconds[1].quantile(0.99), Some(0.001));
    }

    #[test]
    fn a_bounded_number_of_seconds_and_only_known_names_are_kept() {
        let (telemetry, start) = (Telemetry::quiet(), Instant::now());
        telemetry.upstream("old");
        telemetry.queue("upstream", "old").depth.set(4);
        let mut history = History::default();
        for second in 0..2 * KEEP as u64 {
            history.add(telemetry.reading(start), at(start, second));
        }
        assert_eq!((history.upstreams["old"].last(usize::MAX).len(), history.deepest("upstream", "old")), (KEEP, 4));

        history.add(Telemetry::quiet().reading(start), at(start, 1000));

        assert!(history.upstreams.is_empty() && history.depths.is_empty());
    }
}
