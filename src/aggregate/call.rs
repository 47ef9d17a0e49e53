//! One call of a source: what goes out, what comes back, and the trait between.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::message::head::Method;
use crate::telemetry::Reason;

/// A request to a source's upstream, complete but for what its connection adds (host, forwarding fields, remaining time).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// Index of the source in the aggregate; it knows the upstream.
    pub source: usize,
    pub method: Method,
    /// Path and query, percent-encoded.
    pub target: String,
    /// Lower-case names. Values hold no CR, LF or NUL.
    pub headers: Vec<(String, Vec<u8>)>,
    /// `None`: no body. With `content-type` among the headers otherwise.
    pub body: Option<Bytes>,
    /// Bytes of the answer's body as it is sent (before decompression): more is a failure.
    pub max_body_bytes: u64,
}

/// An upstream's answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// As sent.
    pub content_type: Option<String>,
    /// As sent; `None` for none and `identity`.
    pub content_encoding: Option<String>,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub reason: Reason,
    /// For the log; may name addresses.
    pub detail: Option<String>,
    /// When the upstream's limits refused the call: when it may come again.
    pub retry_after: Option<Duration>,
}

/// How a call went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    pub result: Result<Answer, Failed>,
    /// Attempts at the upstream, retries after failed connects included; 0 when none was begun.
    pub attempts: u32,
    /// Waiting for the upstream's in-flight limit.
    pub queue: Duration,
}

/// Sends calls. The real one is in `proxy`; tests have scripts.
pub trait Fetch: Send + Sync {
    /// Calls and reads the whole answer. Ends with a reason of time at `deadline` at the latest. Dropping the future
    /// cancels the call.
    fn fetch(&self, call: Call, deadline: Option<Instant>) -> impl Future<Output = Called> + Send;
}
