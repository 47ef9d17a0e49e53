//! Handles of background work: what runs, how it ended, and how much is kept of it.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};

use super::catalogue::{self, Metric};
use super::scalars::Scalars;

/// Handles of one route's background work.
#[derive(Debug)]
pub struct JobMetrics {
    /// Counted by [`JobMetrics::begin`].
    pub(super) running: IntGauge,
    pub(super) finished: IntCounter,
    pub(super) failed: IntCounter,
    pub(super) cut: IntCounter,
    /// Never begun: as many as allowed were at work.
    pub refused: IntCounter,
    /// Results that are kept now, and their bytes.
    pub results: IntGauge,
    pub result_bytes: IntGauge,
    /// Results removed before their time to make room, one too large to be kept at all included.
    pub evictions: IntCounter,
}

impl JobMetrics {
    /// All its metrics: their label is the route's, which may stay while its background work goes.
    pub(super) const METRICS: [&'static Metric; 5] = [
        &catalogue::JOBS_RUNNING,
        &catalogue::JOBS,
        &catalogue::JOB_RESULTS,
        &catalogue::JOB_RESULT_BYTES,
        &catalogue::JOB_EVICTIONS,
    ];

    pub(super) fn new(route: &str, scalars: &Scalars) -> Self {
        let outcome = |outcome| scalars.counter(&catalogue::JOBS, &[route, outcome]);
        Self {
            running: scalars.gauge(&catalogue::JOBS_RUNNING, &[route]),
            finished: outcome("finished"),
            failed: outcome("failed"),
            cut: outcome("cut"),
            refused: outcome("refused"),
            results: scalars.gauge(&catalogue::JOB_RESULTS, &[route]),
            result_bytes: scalars.gauge(&catalogue::JOB_RESULT_BYTES, &[route]),
            evictions: scalars.counter(&catalogue::JOB_EVICTIONS, &[route]),
        }
    }

    /// The work of one request begins.
    pub fn begin(self: &Arc<Self>) -> Job {
        self.running.inc();
        Job { metrics: self.clone(), ended: false }
    }
}

/// The work of one request in the background: counted as cut when it is dropped before its end was said, so a panic and
/// a shutdown are counted without anyone's doing.
#[derive(Debug)]
#[must_use = "dropping it says that the work was cut"]
pub struct Job {
    metrics: Arc<JobMetrics>,
    ended: bool,
}

impl Job {
    /// It has an answer worth fetching.
    pub fn finished(self) {
        self.end(|metrics| &metrics.finished);
    }

    /// It ended, and its result says why there is no answer.
    pub fn failed(self) {
        self.end(|metrics| &metrics.failed);
    }

    fn end(mut self, counter: impl FnOnce(&JobMetrics) -> &IntCounter) {
        counter(&self.metrics).inc();
        self.ended = true;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.cut.inc();
        }
        // Last: who sees that nothing runs finds every end counted.
        self.metrics.running.dec();
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Telemetry;

    #[test]
    fn a_job_runs_until_it_is_dropped_and_ends_in_one_way() {
        let metrics = Telemetry::quiet().jobs("reports");
        let (finished, failed, cut) = (metrics.begin(), metrics.begin(), metrics.begin());
        assert_eq!(metrics.running.get(), 3);

        finished.finished();
        failed.failed();
        drop(cut);

        assert_eq!(metrics.running.get(), 0);
        assert_eq!([metrics.finished.get(), metrics.failed.get(), metrics.cut.get()], [1, 1, 1]);
    }
}
