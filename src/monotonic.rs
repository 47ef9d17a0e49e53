//! The machine's monotonic clock as a number: instants of several processes on one machine, to be subtracted.
//!
//! `std::time::Instant` is that clock on Linux, but does not say what it reads. Both are read once, together, and every
//! other instant follows from there without asking the kernel again.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The readings are taken so often; the pair that was taken in the shortest time is the best.
const READINGS: usize = 8;

/// One moment on both clocks, within the time that reading one of them takes: some 50 ns.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic {
    instant: Instant,
    nanoseconds: u64,
}

impl Monotonic {
    pub fn now() -> Self {
        let read = || {
            let instant = Instant::now();
            let read = clock_gettime(ClockId::Monotonic);
            let took = instant.elapsed();
            let part = |value: i64| u64::try_from(value).unwrap_or_default();
            let nanoseconds = part(read.tv_sec) * 1_000_000_000 + part(read.tv_nsec);
            // Half-way between the two instants, as near as can be told.
            (took, Self { instant: instant + took / 2, nanoseconds })
        };
        let best = (0..READINGS).map(|_| read()).min_by_key(|(took, _)| *took);
        best.unwrap_or_else(read).1
    }

    /// Nanoseconds of an instant since the clock began, which is about when the machine was started.
    pub fn of(&self, instant: Instant) -> u64 {
        let distance = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match instant.checked_duration_since(self.instant) {
            Some(after) => self.nanoseconds.saturating_add(distance(after)),
            None => self.nanoseconds.saturating_sub(distance(self.instant - instant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_were_read_apart_agree() {
        let (one, other) = (Monotonic::now(), Monotonic::now());
        let instant = Instant::now();

        assert!(one.of(instant).abs_diff(other.of(instant)) < 100_000, "{one:?} {other:?}");
        assert_eq!(one.of(instant + Duration::from_secs(3)) - one.of(instant), 3_000_000_000);
        assert!(one.of(instant - Duration::from_millis(1)) < one.of(instant));
    }
}
