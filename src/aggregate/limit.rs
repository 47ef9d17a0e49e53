//! When a source's work must end, and who says so: its own timeout or the route's deadline.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::call::Failed;
use crate::telemetry::Reason;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    at: Option<Instant>,
    /// The source's own timeout comes before the route's deadline.
    is_own: bool,
}

impl Limit {
    pub(super) fn new(begun: Instant, timeout: Option<Duration>, deadline: Option<Instant>) -> Self {
        // A timeout that the clock cannot hold is none.
        let own = timeout.and_then(|timeout| begun.checked_add(timeout));
        match (own, deadline) {
            (Some(own), Some(deadline)) if own >= deadline => Self { at: Some(deadline), is_own: false },
            (Some(own), _) => Self { at: Some(own), is_own: true },
            (None, deadline) => Self { at: deadline, is_own: false },
        }
    }

    pub(super) fn at(self) -> Option<Instant> {
        self.at
    }

    pub(super) fn has_passed(self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// Nothing was begun: it had passed already.
    pub(super) fn missed(self) -> Failed {
        self.failure(Reason::DeadlineQueue)
    }

    /// Drops the work at the limit. What ends at that very instant counts as in time.
    pub(super) async fn bound<T>(self, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        let Some(at) = self.at else { return work.await };
        match timeout_at(at, work).await {
            Ok(result) => result.map_err(|failed| self.rename(failed)),
            // The call knows best where the time went and says so at the same instant; this one was late.
            Err(_) => Err(self.failure(Reason::DeadlineFirstByte)),
        }
    }

    /// A call only knows its deadline, not who set it.
    fn rename(self, failed: Failed) -> Failed {
        match failed.reason.expired() {
            Some((_, "deadline")) if self.is_own => Failed { reason: Reason::SourceTimeout, ..failed },
            _ => failed,
        }
    }

    fn failure(self, of_the_route: Reason) -> Failed {
        let reason = if self.is_own { Reason::SourceTimeout } else { of_the_route };
        Failed { reason, detail: None, retry_after: None }
    }
}

/// The later of two ends, of which `None` never comes.
pub(super) fn later(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    Some(one?.max(other?))
}
