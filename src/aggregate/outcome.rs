//! What became of a source.

use std::time::Duration;

use bytes::Bytes;

use super::json::Json;
use crate::telemetry::Reason;

/// One source's end, in the words that `_meta`, the access log and the metrics use.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Index of the source in the aggregate.
    pub source: usize,
    pub ending: Ending,
    /// `Ok`, `Partial`, or why the call failed (also when a fallback took its place).
    pub reason: Reason,
    /// More about a failure, for the log; may name addresses.
    pub detail: Option<String>,
    /// The upstream's status, when it answered. Of a list: `None`.
    pub status: Option<u16>,
    /// 1 for a call that was cut short, since it cannot say; 0 for one that shared another's.
    pub attempts: u32,
    /// From the beginning of the aggregate to that of this source: what it waited for others.
    pub begun: Duration,
    /// From its beginning to the end of its own calls: what stands in for it has its own time. Of a source that was never
    /// called: zero.
    pub took: Duration,
    /// Waiting for the upstream's in-flight limit (the longest of a list's).
    pub queue: Duration,
    /// Another source of the same aggregate made the same call, and this one shared its answer.
    pub coalesced: bool,
    pub items: Option<Items>,
    pub retry_after: Option<Duration>,
    /// What stands for the source in the body.
    pub value: Value,
}

impl Outcome {
    /// Its upstream was asked, or another source on its behalf; else its times say nothing.
    pub fn was_called(&self) -> bool {
        self.attempts > 0 || self.coalesced || !self.took.is_zero()
    }
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It answered.
    Ok,
    /// Some items of its list did, others did not.
    Partial,
    /// It failed and something else took its place, which counts as usable.
    Fallback(Fallback),
    Failed,
    /// Cancelled, or never begun, because others were enough. Neither a success nor a failure.
    NotNeeded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The value in the configuration.
    Value,
    /// The answer of this source.
    Source(usize),
}

impl Ending {
    /// The word for labels, log and `_meta`.
    pub const fn code(self) -> &'static str {
        match self {
            Ending::Ok => "ok",
            Ending::Partial => "partial",
            Ending::Fallback(_) => "fallback",
            Ending::Failed => "failed",
            Ending::NotNeeded => "not_needed",
        }
    }

    /// Its value is worth sending: an answer, a part of one, or a fallback.
    pub const fn is_usable(self) -> bool {
        matches!(self, Ending::Ok | Ending::Partial | Ending::Fallback(_))
    }
}

/// What became of a list's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Items {
    /// Items of the list but those that were cut.
    pub total: usize,
    pub failed: usize,
    /// Distinct values: calls that were planned.
    pub distinct: usize,
    /// Items beyond `max_items`, which were not called for.
    pub cut: usize,
}

/// What stands for a source in the body.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Json(Json),
    /// Left out.
    Absent,
    /// Of `format = "raw"`.
    Raw {
        content_type: Option<String>,
        body: Bytes,
    },
}
