//! How many are in flight: now, the peak of a window, and the time integral.
//!
//! The integral of n dt is kept as the sum of the instants of leaving minus the sum of the instants of entering;
//! what is still in flight adds `now` each. So over a drained run it equals the sum of the durations exactly,
//! whatever the order in which threads report (Little's law as an identity), and an `enter` may be given an instant
//! that lies in the past, such as the first byte of a request whose route is known only later.
//!
//! Two atomics cannot be read together without tearing (off by a whole timestamp), so a mutex guards three words;
//! it is held for a few nanoseconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Counts what is in flight. Feed it with [`InFlightMeter::guard`], or by hand with `enter` and `leave`, whose
/// instants are arguments so that the durations measured elsewhere are exactly those integrated here.
#[derive(Debug)]
pub struct InFlightMeter {
    epoch: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now: u64,
    /// Sum of the leaving instants minus sum of the entering instants, nanoseconds since the epoch, wrapping.
    balance: u64,
    /// The highest integral handed out: a counter must not step back when a `leave` with an earlier instant
    /// arrives after a scrape. It stands until the integral has caught up, a few microseconds of one request later.
    exported: u64,
    peaks: Peaks,
}

/// Maxima of whole seconds; slot `second % len` is valid while it carries that second.
#[derive(Debug)]
struct Peaks(Box<[Peak]>);

#[derive(Debug, Clone, Copy, Default)]
struct Peak {
    second: u64,
    max: u64,
}

impl Peaks {
    fn touch(&mut self, second: u64, level: u64) {
        let len = self.0.len() as u64;
        let slot = &mut self.0[(second % len) as usize];
        if slot.second < second {
            *slot = Peak { second, max: level };
        } else if slot.second == second {
            slot.max = slot.max.max(level);
        }
    }

    /// The highest level since the start of the window that ends with `second`.
    fn max(&self, second: u64, level_now: u64) -> u64 {
        let oldest = second.saturating_sub(self.0.len() as u64 - 1);
        let recent = self.0.iter().filter(|slot| slot.second >= oldest);
        recent.map(|slot| slot.max).fold(level_now, u64::max)
    }
}

/// One reading of the meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightReading {
    pub now: u64,
    /// The most at once within the window, to the second.
    pub peak: u64,
    /// Never steps back.
    pub integral: Duration,
}

impl InFlightMeter {
    /// `window` is rounded up to whole seconds, between one second and one hour.
    pub fn new(window: Duration) -> Self {
        let seconds = window.as_secs() + u64::from(window.subsec_nanos() > 0);
        // One slot more than the window, since the current second has only begun.
        let slots = seconds.clamp(1, 3600) as usize + 1;
        let peaks = Peaks(vec![Peak::default(); slots].into());
        let state = State { now: 0, balance: 0, exported: 0, peaks };
        Self { epoch: Instant::now(), state: Mutex::new(state) }
    }

    pub fn enter(&self, at: Instant) {
        let at = self.since_epoch(at);
        let mut state = self.lock();
        state.now += 1;
        state.balance = state.balance.wrapping_sub(at);
        let level = state.now;
        state.peaks.touch(at / NANOS_PER_SECOND, level);
    }

    pub fn leave(&self, at: Instant) {
        let at = self.since_epoch(at);
        let mut state = self.lock();
        // The level before it, which may have stood since long before this second.
        let level = state.now;
        state.peaks.touch(at / NANOS_PER_SECOND, level);
        state.now = state.now.saturating_sub(1);
        state.balance = state.balance.wrapping_add(at);
    }

    /// Enters at `at`, which may lie in the past, and leaves when the guard is dropped, whatever the way out.
    pub fn guard(self: &Arc<Self>, at: Instant) -> InFlightGuard {
        self.enter(at);
        InFlightGuard { meter: Some(self.clone()) }
    }

    pub fn now(&self) -> u64 {
        self.lock().now
    }

    pub fn read(&self, at: Instant) -> InFlightReading {
        let at = self.since_epoch(at);
        let mut state = self.lock();
        let integral = state.balance.wrapping_add(state.now.wrapping_mul(at));
        // An enter later than `at` makes the difference negative; then the last reading stands.
        if (integral.wrapping_sub(state.exported) as i64) > 0 {
            state.exported = integral;
        }
        InFlightReading {
            now: state.now,
            peak: state.peaks.max(at / NANOS_PER_SECOND, state.now),
            integral: Duration::from_nanos(state.exported),
        }
    }

    /// Offset by a day, so that an instant shortly before the meter was made keeps its place.
    fn since_epoch(&self, at: Instant) -> u64 {
        let forward = at.saturating_duration_since(self.epoch).as_nanos() as u64;
        let backward = self.epoch.saturating_duration_since(at).as_nanos() as u64;
        (EPOCH_OFFSET + forward).saturating_sub(backward)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const EPOCH_OFFSET: u64 = 86_400 * NANOS_PER_SECOND;

/// One that is in flight.
#[derive(Debug)]
#[must_use = "dropping the guard is leaving"]
pub struct InFlightGuard {
    /// `None` once it has left.
    meter: Option<Arc<InFlightMeter>>,
}

impl InFlightGuard {
    /// Leaves at the instant that also ends the measured duration, so that integral and durations agree exactly.
    /// A guard that is merely dropped reads the clock itself.
    pub fn leave(mut self, at: Instant) {
        if let Some(meter) = self.meter.take() {
            meter.leave(at);
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if let Some(meter) = self.meter.take() {
            meter.leave(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_peak_outlives_scrapes_and_leaves_with_its_window() {
        let meter = InFlightMeter::new(seconds(10));
        let start = Instant::now();
        for _ in 0..5 {
            meter.enter(start);
        }
        for _ in 0..4 {
            meter.leave(start + seconds(3));
        }

        assert_eq!(meter.read(start + seconds(4)).peak, 5);
        assert_eq!(meter.read(start + seconds(4)).peak, 5, "a scrape resets nothing");
        assert_eq!(meter.read(start + seconds(13)).peak, 5, "it was still 5 ten seconds ago");
        assert_eq!(meter.read(start + seconds(15)).peak, 1);
    }

    #[test]
    fn a_level_that_stood_for_long_counts_in_the_window_in_which_it_ended() {
        let meter = InFlightMeter::new(seconds(10));
        let start = Instant::now();
        meter.enter(start);
        meter.enter(start);
        meter.leave(start + seconds(100));

        assert_eq!(meter.read(start + seconds(105)), InFlightReading { now: 1, peak: 2, integral: seconds(205) });
    }

    #[test]
    fn the_integral_never_steps_back() {
        let meter = InFlightMeter::new(seconds(10));
        let start = Instant::now();
        meter.enter(start);
        assert_eq!(meter.read(start + seconds(5)).integral, seconds(5));

        meter.leave(start + seconds(4));

        assert_eq!(meter.read(start + seconds(6)).integral, seconds(5));
    }

    #[test]
    fn an_instant_before_the_meter_was_made_keeps_its_place() {
        let start = Instant::now();
        let meter = InFlightMeter { epoch: start + seconds(2), ..InFlightMeter::new(seconds(10)) };
        meter.enter(start);
        meter.leave(start + seconds(3));

        assert_eq!(meter.read(start + seconds(3)).integral, seconds(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_guard_leaves_at_the_time_of_its_drop() {
        let meter = Arc::new(InFlightMeter::new(seconds(10)));
        let guard = meter.guard(Instant::now());
        tokio::time::advance(seconds(2)).await;
        drop(guard);
        tokio::time::advance(seconds(2)).await;

        let reading = meter.read(Instant::now());

        assert_eq!(reading, InFlightReading { now: 0, peak: 1, integral: seconds(2) });
    }

    proptest! {
        /// Little's law as an identity: over a drained run the integral is the sum of the durations, in whatever order
        /// threads report.
        #[test]
        fn integral_of_a_drained_run_is_the_sum_of_durations(
            spans in prop::collection::vec((0u64..100_000_000_000, 0u64..10_000_000_000), 1..100),
        ) {
            let meter = InFlightMeter::new(seconds(60));
            let start = Instant::now();
            let at = |nanos: u64| start + Duration::from_nanos(nanos);

            spans.iter().for_each(|(from, _)| meter.enter(at(*from)));
            spans.iter().rev().for_each(|(from, took)| meter.leave(at(from + took)));

            let reading = meter.read(at(200_000_000_000));
            prop_assert_eq!(reading.now, 0);
            prop_assert_eq!(reading.integral, Duration::from_nanos(spans.iter().map(|(_, took)| took).sum()));
        }

        #[test]
        fn the_peak_is_at_least_the_true_one_of_the_window(
            spans in prop::collection::vec((0u64..30_000, 1u64..20_000), 1..40),
        ) {
            let meter = InFlightMeter::new(seconds(10));
            let start = Instant::now();
            let mut events: Vec<(u64, i64)> = spans.iter().flat_map(|(from, took)| [(*from, 1), (from + took, -1)]).collect();
            events.sort_unstable();
            let (end, mut level, mut peak) = (events.last().unwrap().0, 0i64, 0i64);
            for (millis, change) in &events {
                let at = start + Duration::from_millis(*millis);
                if *millis + 10_000 >= end { peak = peak.max(level); }
                level += change;
                if *millis + 10_000 >= end { peak = peak.max(level); }
                if *change > 0 { meter.enter(at) } else { meter.leave(at) }
            }

            let reading = meter.read(start + Duration::from_millis(end));

            prop_assert!(reading.peak >= peak as u64);
            prop_assert!(reading.peak <= spans.len() as u64);
        }
    }
}
