//! What changes with the time: stalls, brown-outs, ramps, once or again and again.
//!
//! Pure: times are nanoseconds since the schedule began. A stall stops the work itself, so that a request in service is
//! held for longer by as much of the stall as it meets; the other changes hold for requests whose service begins
//! meanwhile.

use std::num::NonZeroUsize;
use std::time::Duration;

use http::StatusCode;

use super::settings::Fault;
use crate::latency::Latency;

/// A time that never comes: the end of work during a stall without an end.
pub const NEVER: u64 = u64::MAX;

/// The changes of an upstream. Where two overlap, the later one in the file wins, key by key.
///
/// At most one stall may come again (`every`): several could cover all time between them, and no work would ever end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schedule {
    pub changes: Vec<Change>,
}

/// One change, and when it holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    pub at: Duration,
    /// `None`: from then on.
    pub lasts: Option<Duration>,
    /// Again after this time, longer than `lasts`.
    pub every: Option<Duration>,
    pub stall: bool,
    pub latency: Option<Latency>,
    pub factor: Option<Factor>,
    pub workers: Option<NonZeroUsize>,
    pub errors: Option<Vec<(StatusCode, f64)>>,
    pub faults: Option<Vec<Fault>>,
}

/// Multiplies the latency: evenly from one value to the other while the change lasts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factor {
    pub from: f64,
    pub to: f64,
}

/// What holds at one moment; `None` is what the upstream itself says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Now<'a> {
    pub latency: Option<&'a Latency>,
    pub factor: Option<f64>,
    pub errors: Option<&'a [(StatusCode, f64)]>,
    pub faults: Option<&'a [Fault]>,
}

impl Schedule {
    /// What holds for a request whose service begins at `time`.
    pub fn at(&self, time: u64) -> Now<'_> {
        let mut now = Now::default();
        for change in &self.changes {
            let Some(since) = change.active_for(time) else { continue };
            now.latency = change.latency.as_ref().or(now.latency);
            now.factor = change.factor.map(|factor| change.ramp(factor, since)).or(now.factor);
            now.errors = change.errors.as_deref().or(now.errors);
            now.faults = change.faults.as_deref().or(now.faults);
        }
        now
    }

    pub fn workers_at(&self, time: u64) -> Option<NonZeroUsize> {
        let active = self.changes.iter().filter(|change| change.active_for(time).is_some());
        active.filter_map(|change| change.workers).next_back()
    }

    /// When the number of workers may be another one, after `time`.
    pub fn next_change_of_workers(&self, time: u64) -> Option<u64> {
        self.next_edge(time, |change| change.workers.is_some())
    }

    /// How much work is done from one time to another by one who never rests.
    pub fn work_between(&self, from: u64, to: u64) -> u64 {
        let (mut work, mut time) = (0, from);
        while time < to {
            let edge = self.next_edge(time, |change| change.stall).unwrap_or(NEVER).min(to);
            if !self.stalls_at(time) {
                work += edge - time;
            }
            time = edge;
        }
        work
    }

    /// When `work` is done that begins at `from`; [`NEVER`] if it is not.
    pub fn end_of_work(&self, from: u64, work: u64) -> u64 {
        let (mut left, mut time) = (work, from);
        loop {
            let edge = self.next_edge(time, |change| change.stall).unwrap_or(NEVER);
            if !self.stalls_at(time) {
                if left <= edge.saturating_sub(time) {
                    return time.saturating_add(left);
                }
                left -= edge - time;
            }
            if edge == NEVER {
                return NEVER;
            }
            time = edge;
        }
    }

    fn stalls_at(&self, time: u64) -> bool {
        self.changes.iter().any(|change| change.stall && change.active_for(time).is_some())
    }

    fn next_edge(&self, after: u64, concerns: impl Fn(&Change) -> bool) -> Option<u64> {
        self.changes.iter().filter(|change| concerns(change)).filter_map(|change| change.next_edge(after)).min()
    }
}

impl Change {
    /// How long it has been holding, if it holds.
    fn active_for(&self, time: u64) -> Option<u64> {
        let since_first = time.checked_sub(nanos(self.at))?;
        let since = self.every.map_or(since_first, |every| since_first % nanos(every));
        self.lasts.is_none_or(|lasts| since < nanos(lasts)).then_some(since)
    }

    /// When it begins or ends next, after `time`.
    fn next_edge(&self, time: u64) -> Option<u64> {
        let begin = nanos(self.at);
        if time < begin {
            return Some(begin);
        }
        let round = self.every.map_or(0, |every| (time - begin) / nanos(every) * nanos(every));
        let end = begin + round + nanos(self.lasts?);
        if time < end {
            return Some(end);
        }
        Some(begin + round + nanos(self.every?))
    }

    fn ramp(&self, factor: Factor, since: u64) -> f64 {
        let part = self.lasts.map_or(0.0, |lasts| since as f64 / nanos(lasts) as f64);
        factor.from + (factor.to - factor.from) * part
    }
}

/// Times of a file fit: they are bounded where they are read.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn stall(at: u32, lasts: Option<u32>, every: Option<u32>) -> Change {
        let ms = |count: u32| count * MS;
        Change { at: ms(at), lasts: lasts.map(ms), every: every.map(ms), stall: true, ..Change::default() }
    }

    fn schedule(changes: impl Into<Vec<Change>>) -> Schedule {
        Schedule { changes: changes.into() }
    }

    fn ms(count: u64) -> u64 {
        count * 1_000_000
    }

    #[test]
    fn work_takes_longer_by_as_much_of_the_stall_as_it_meets() {
        let once = schedule([stall(10, Some(5), None)]);

        assert_eq!(once.end_of_work(ms(0), ms(10)), ms(10), "it is done when the stall begins");
        assert_eq!(once.end_of_work(ms(0), ms(11)), ms(16));
        assert_eq!(once.end_of_work(ms(12), 0), ms(15), "nothing goes out during a stall");
        assert_eq!(once.end_of_work(ms(15), ms(1)), ms(16));
        assert_eq!(once.work_between(ms(8), ms(20)), ms(7));
    }

    #[test]
    fn a_stall_that_comes_again_is_met_again() {
        let again = schedule([stall(10, Some(5), Some(20))]);

        assert_eq!(again.end_of_work(ms(0), ms(40)), ms(50), "stalls at 10, 30 and, not met any more, 50");
        assert_eq!(again.work_between(0, ms(50)), ms(40));
    }

    #[test]
    fn after_a_stall_without_an_end_nothing_ends() {
        let for_ever = schedule([stall(10, None, None)]);

        assert_eq!(for_ever.end_of_work(0, ms(10)), ms(10));
        assert_eq!(for_ever.end_of_work(0, ms(11)), NEVER);
        assert_eq!(for_ever.work_between(0, ms(1000)), ms(10));
    }

    #[test]
    fn a_ramp_goes_evenly_from_one_factor_to_the_other() {
        let factor = Some(Factor { from: 1.0, to: 3.0 });
        let ramp = schedule([Change { at: 10 * MS, lasts: Some(10 * MS), factor, ..Change::default() }]);

        assert_eq!(ramp.at(ms(9)).factor, None);
        assert_eq!(ramp.at(ms(10)).factor, Some(1.0));
        assert_eq!(ramp.at(ms(15)).factor, Some(2.0));
        assert_eq!(ramp.at(ms(20)).factor, None);
    }

    #[test]
    fn of_two_changes_the_later_one_in_the_file_wins_key_by_key() {
        let workers = |count, at: u32| Change { at: at * MS, workers: NonZeroUsize::new(count), ..Change::default() };
        let slow = Change { latency: Some(Latency::Fixed(9 * MS)), ..workers(1, 10) };
        let two = schedule([slow, workers(2, 20)]);

        assert_eq!([5, 15, 25].map(|time| two.workers_at(ms(time)).map_or(0, NonZeroUsize::get)), [0, 1, 2]);
        assert_eq!(two.at(ms(25)).latency, Some(&Latency::Fixed(9 * MS)));
        assert_eq!(two.next_change_of_workers(ms(10)), Some(ms(20)));
        assert_eq!(two.next_change_of_workers(ms(20)), None);
    }

    proptest! {
        #[test]
        fn the_work_until_its_end_is_the_work(
            once in proptest::collection::vec((0_u32..50, 1_u32..10), 0..4),
            (at, lasts, every) in (0_u32..50, 1_u32..10, 11_u32..40),
            from in 0_u64..100_000_000, work in 1_u64..200_000_000,
        ) {
            let mut changes: Vec<Change> = once.into_iter().map(|(at, lasts)| stall(at, Some(lasts), None)).collect();
            changes.push(stall(at, Some(lasts), Some(every)));
            let schedule = schedule(changes);

            let end = schedule.end_of_work(from, work);

            prop_assert_eq!(schedule.work_between(from, end), work);
        }
    }
}
