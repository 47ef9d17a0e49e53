//! Where the time of a request went, seen from both sides: what the generator knows of it, joined with the line that a
//! sidecar on the same machine wrote into its access log. Both read one clock, the machine's monotonic one, so nothing has
//! to be synchronised and every piece of a response time has a place.
//!
//! `segments` cuts one request into pieces that add up to its response time, `cohorts` adds requests up (all, the slowest
//! 1 %), `line` reads a line of the log, and `join` finds the line of each request: all pure. `tail` follows the file and
//! `follow` is the thread that does all this while the run goes on, so that nothing is kept of a request but its part in
//! the sums. This module knows the access log's fields, and nothing of the proxy.
//!
//! **Which line is whose.** The sidecar's answer names the id that its log has, whoever made it: so no trust is needed.
//! A request without an answer (a timeout) is found by what it sent: its `x-request-id`, which the sidecar takes over
//! from trusted clients, or its `traceparent`, which it takes over from all, but only once the request is forwarded.
//!
//! **Bounds.** [`join::MOST_REQUESTS`] requests may wait for their line and [`join::MOST_LINES`] lines for their request;
//! [`follow::MOST_AT_ONCE`] requests may end between two looks. What is beyond is counted as dropped.

mod cohorts;
pub mod follow;
pub mod join;
pub mod line;
pub mod record;
pub mod segments;
mod tail;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};

pub use follow::Follower;
pub use record::Waterfall;

/// A request id as it is compared: 64 bits of its hash. Among a million that wait at once, two are the same by chance
/// once in ten million times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestKey(u64);

impl RequestKey {
    pub fn of(id: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What the ids of a run's requests begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId(u64);

impl RunId {
    pub fn random() -> Self {
        // A trace id must not be all zeros.
        Self(rand::random::<u64>() | 1)
    }

    /// 32 hex digits: they are a trace id as well.
    pub fn request(self, number: u64) -> String {
        format!("{:016x}{number:016x}", self.0)
    }

    /// The request as a trace of its own, which nobody need record.
    pub fn traceparent(self, number: u64) -> String {
        format!("00-{}-{:016x}-00", self.request(number), number.wrapping_add(1).max(1))
    }
}
