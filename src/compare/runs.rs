//! A result made ready for resampling: its measured seconds in order, with nothing between them left out.

use crate::load::ledger::Counts;
use crate::load::result::{Distribution, HistogramError, RunResult, SecondRecord};

use super::bootstrap::Sparse;

/// Longer runs are cut into this many pieces of several seconds each: the memory of resampling grows with the pieces,
/// and blocks of such runs are longer than that anyway.
const MOST_SLICES: usize = 600;

/// The measured part of one run.
#[derive(Debug, Clone)]
pub struct Run {
    pub slices: Vec<Slice>,
    /// Response times from here on are lower bounds.
    pub censored_from_ns: Option<u64>,
    /// The same of service times.
    pub service_censored_from_ns: Option<u64>,
}

/// The requests that were due in one second, or in several of a long run.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    pub length_s: f64,
    pub counts: Counts,
    pub response: Spread,
    pub service: Spread,
}

/// A distribution of times.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    pub times: Sparse,
    pub count: u64,
    /// Not from the histogram, so exact.
    pub sum_ns: f64,
}

impl Run {
    /// # Errors
    ///
    /// When a histogram of the result cannot be read.
    pub fn new(result: &RunResult) -> Result<Self, HistogramError> {
        let warm_up = result.plan.warm_up_s as usize;
        let mut slices = vec![Slice::default(); measured_seconds(result)];
        for record in &result.seconds {
            let index = (record.second as usize).checked_sub(warm_up);
            if let Some(slice) = index.and_then(|index| slices.get_mut(index)) {
                *slice = Slice::of(record)?;
            }
        }
        set_lengths(&mut slices, result.plan.ran_s - warm_up as f64);
        let censored_from_ns = result.totals.censored_from_ns;
        // A request that left late had been under way for less when it was given up.
        let service_censored_from_ns = censored_from_ns.map(|ns| ns.saturating_sub(result.totals.lateness.max_ns));
        Ok(Self { slices, censored_from_ns, service_censored_from_ns })
    }

    pub fn length_s(&self) -> f64 {
        self.slices.iter().map(|slice| slice.length_s).sum()
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.slices.iter().for_each(|slice| counts.add(&slice.counts));
        counts
    }

    /// How many seconds have to be put together so that no run has too many slices.
    pub fn step(&self) -> usize {
        self.slices.len().div_ceil(MOST_SLICES).max(1)
    }

    /// Puts `step` slices together at a time.
    pub fn coarsen(&mut self, step: usize) {
        if step > 1 {
            self.slices = self.slices.chunks(step).map(Slice::sum).collect();
        }
    }
}

impl Slice {
    fn of(record: &SecondRecord) -> Result<Self, HistogramError> {
        Ok(Self {
            length_s: 1.0,
            counts: record.counts,
            response: Spread::of(&record.response)?,
            service: Spread::of(&record.service)?,
        })
    }

    fn sum(slices: &[Slice]) -> Slice {
        let mut sum = Slice::default();
        for slice in slices {
            sum.length_s += slice.length_s;
            sum.counts.add(&slice.counts);
            sum.response.add(&slice.response);
            sum.service.add(&slice.service);
        }
        sum
    }
}

impl Spread {
    fn of(distribution: &Distribution) -> Result<Self, HistogramError> {
        let histogram = distribution.histogram()?;
        let cells = histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        let count = histogram.len();
        Ok(Self { times: Sparse::new(cells), count, sum_ns: distribution.mean_ns * count as f64 })
    }

    fn add(&mut self, other: &Spread) {
        self.times.add(&other.times);
        self.count += other.count;
        self.sum_ns += other.sum_ns;
    }
}

/// The seconds after the warm-up in which requests were due: to the end of the run, not of the drain. A second without
/// any is one of them, since a target that stops a closed loop for a second must not gain by it.
fn measured_seconds(result: &RunResult) -> usize {
    let last_due = result.seconds.iter().filter(|record| record.counts.scheduled > 0).map(|record| record.second + 1);
    let ran = result.plan.ran_s.ceil().max(0.0) as usize;
    let end = ran.max(last_due.max().unwrap_or(0) as usize);
    // A damaged file must not ask for memory without end: no second is measured long after the last that is recorded.
    let recorded = result.seconds.last().map_or(0, |record| record.second as usize + 1);
    end.min(recorded).saturating_sub(result.plan.warm_up_s as usize)
}

/// The last second is as long as the run went on in it. Less than half a second is too little to stand beside whole
/// ones, and joins the one before.
fn set_lengths(slices: &mut Vec<Slice>, measured_s: f64) {
    slices.iter_mut().for_each(|slice| slice.length_s = 1.0);
    let Some(last) = slices.len().checked_sub(1) else { return };
    let rest = measured_s - last as f64;
    if rest > 0.0 && rest < 1.0 {
        slices[last].length_s = rest;
    }
    if last > 0 && slices[last].length_s < 0.5 {
        let tail = slices.split_off(last - 1);
        slices.push(Slice::sum(&tail));
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
