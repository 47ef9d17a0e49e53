//! Handles of the recording.

use prometheus::{IntCounter, IntGauge};

use super::catalogue;
use super::scalars::Scalars;

/// What became of a request that was to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordResult {
    Written,
    /// Too many waited for the writer, or the recording had ended before they did.
    Dropped,
    /// Its body was larger than allowed, broke off, or could not be looked into for secrets.
    LeftOut,
    /// The file could not be written.
    Failed,
}

impl RecordResult {
    const ALL: [Self; 4] = [Self::Written, Self::Dropped, Self::LeftOut, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Dropped => "dropped",
            Self::LeftOut => "left_out",
            Self::Failed => "failed",
        }
    }
}

/// Handles of the recording of a process.
#[derive(Debug)]
pub struct RecordMetrics {
    /// Recordings that are written: one, but while the next has begun and the last ends.
    pub active: IntGauge,
    results: [IntCounter; RecordResult::ALL.len()],
}

impl RecordMetrics {
    pub(super) fn new(scalars: &Scalars) -> Self {
        Self {
            active: scalars.gauge(&catalogue::RECORDING, &[]),
            results: RecordResult::ALL.map(|result| scalars.counter(&catalogue::RECORDED, &[result.as_str()])),
        }
    }

    pub fn count(&self, result: RecordResult) {
        self.results[result as usize].inc();
    }

    pub fn counted(&self, result: RecordResult) -> u64 {
        self.results[result as usize].get()
    }
}
