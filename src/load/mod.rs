//! Load generation: requests leave at instants that were fixed beforehand, and latency counts from those instants.
//!
//! One loop for every kind of run. `arrivals` says when requests are due, `core` decides what happens when (pure, no
//! clock), `driver` performs it in real time with the releases of `pace`, and `sim` performs it in virtual time. Both
//! tell a [`Sink`] what happened; `ledger` is the one that keeps it, per second, and `result` is what is written down
//! at the end. `watch` observes the generator itself and says when its numbers mean nothing. Modes are values of
//! these, protocols are implementations of [`Protocol`]; neither is a reason for a second loop.
//!
//! Times are nanoseconds since the start of the run, as `u64`, everywhere in this folder: the same code runs in real
//! and in virtual time, and an instant cannot be mixed up with one of another run. Nothing here knows the proxy.

pub mod answers;
pub mod arrivals;
pub mod censored;
pub mod checks;
pub mod client;
pub mod core;
pub mod driver;
pub mod gates;
pub mod ledger;
pub mod live;
pub mod options;
pub mod pace;
pub mod report;
pub mod result;
pub mod run;
pub mod safety;
pub mod sim;
pub mod targets;
pub mod watch;
pub mod waterfall;

use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::waterfall::RequestKey;

/// Nanoseconds in a second: the length of one row of the ledger.
pub const SECOND: u64 = 1_000_000_000;

/// How requests reach the target. One value serves many requests at once.
pub trait Protocol: Send + Sync + 'static {
    /// Makes the request that is `number` in the run (from 0, also the seed of whatever it draws) to `target`.
    ///
    /// A connection that is made for it is noted in `connected` at once, so that it is known also of a request that is
    /// given up. The caller has taken the instant of sending just before it polls the future for the first time, and takes that
    /// of the end when it is ready. It limits the time by dropping the future, so dropping must abandon the request.
    fn call(&self, target: usize, number: u64, connected: &Connected) -> impl Future<Output = CallEnd> + Send;
}

/// How long it took to make a connection for a request, if one was made. Part of the service time.
#[derive(Debug, Default)]
pub struct Connected(OnceLock<Duration>);

impl Connected {
    /// Only the first connection that a request needed counts.
    pub fn note(&self, took: Duration) {
        let _ = self.0.set(took);
    }

    pub fn took(&self) -> Option<Duration> {
        self.0.get().copied()
    }
}

/// What a [`Protocol`] says of a request that it brought to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallEnd {
    /// Never [`End::Unfinished`]: that is for requests which the generator gave up.
    pub end: End,
    /// Bytes of the answer's body.
    pub bytes: u64,
    pub first_byte: Option<Instant>,
    /// The id that the answer gave the request, if somebody wants to know.
    pub answered: Option<RequestKey>,
}

impl CallEnd {
    /// Of a request of which nothing came back.
    pub const fn without_answer(end: End) -> Self {
        Self { end, bytes: 0, first_byte: None, answered: None }
    }
}

/// How a request that was sent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// An answer that passed all checks.
    Ok {
        status: u16,
    },
    /// An answer, but with an unexpected status, or one that failed a check.
    HttpError {
        status: u16,
    },
    ConnectionError(ErrorKind),
    /// No complete answer within the time limit: the true latency is at least the age at which it was given up.
    Timeout,
    /// Still in flight when the run was over. Censored like a timeout.
    Unfinished,
}

impl End {
    /// Whether it is among the response times: answered well, or given up and so at least as long. A failure is not,
    /// nor is a refusal for lack of room. That may be what was expected, as a 429 above a rate limit is, and so no
    /// error; but it says nothing about how long the work takes, and it is fast.
    pub const fn is_timed(self) -> bool {
        match self {
            End::Ok { status } => !matches!(status, 429 | 503),
            End::Timeout | End::Unfinished => true,
            End::HttpError { .. } | End::ConnectionError(_) => false,
        }
    }
}

/// Why a request got no complete answer. A closed list, since it labels counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    Dns,
    /// The target refused the connection.
    Refused,
    ConnectTimeout,
    /// No route, network down, and the like.
    Unreachable,
    Tls,
    /// The connection was reset while the request was under way.
    Reset,
    /// The connection ended before the answer was complete.
    Closed,
    /// The target broke the protocol: a malformed answer, an HTTP/2 error.
    Protocol,
    /// This process has no file descriptors left.
    TooManyFiles,
    /// This host has no local ports left towards the target.
    PortsExhausted,
    Other,
}

impl ErrorKind {
    pub const ALL: [ErrorKind; 11] = [
        ErrorKind::Dns,
        ErrorKind::Refused,
        ErrorKind::ConnectTimeout,
        ErrorKind::Unreachable,
        ErrorKind::Tls,
        ErrorKind::Reset,
        ErrorKind::Closed,
        ErrorKind::Protocol,
        ErrorKind::TooManyFiles,
        ErrorKind::PortsExhausted,
        ErrorKind::Other,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Dns => "dns",
            ErrorKind::Refused => "refused",
            ErrorKind::ConnectTimeout => "connect_timeout",
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::Tls => "tls",
            ErrorKind::Reset => "reset",
            ErrorKind::Closed => "closed",
            ErrorKind::Protocol => "protocol",
            ErrorKind::TooManyFiles => "too_many_files",
            ErrorKind::PortsExhausted => "ports_exhausted",
            ErrorKind::Other => "other",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that was sent and has ended, in nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its place in the run, from 0.
    pub number: u64,
    pub target: u32,
    /// When it was due. Everything about it is booked in the second of this instant, whatever happened when.
    pub intended: u64,
    /// When it was really sent.
    pub sent: u64,
    pub first_byte: Option<u64>,
    pub ended: u64,
    pub end: End,
    pub bytes: u64,
    /// Nanoseconds spent on making a connection for it.
    pub connect: Option<u64>,
}

impl Sample {
    /// What a user waits who wanted the answer at the intended instant.
    pub fn response(&self) -> u64 {
        self.ended.saturating_sub(self.intended)
    }

    /// What the server, and the connection to it, took.
    pub fn service(&self) -> u64 {
        self.ended.saturating_sub(self.sent)
    }

    /// What the generator itself added.
    pub fn lateness(&self) -> u64 {
        self.sent.saturating_sub(self.intended)
    }
}

/// Why a request that was due was not sent although the run went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shed {
    /// As many requests as allowed were in flight.
    Cap,
    /// It was so late already that nobody would have waited for it (the deadline counts from the intended instant).
    Deadline,
}

/// Who is told what happens. `intended` names the second in which it is booked.
///
/// Every request is `scheduled` once, then either `shed`, or `unsent`, or `sent` and later `ended`.
pub trait Sink {
    fn scheduled(&mut self, intended: u64);
    fn shed(&mut self, intended: u64, why: Shed);
    /// The run was over before it could be released.
    fn unsent(&mut self, intended: u64);
    fn sent(&mut self, intended: u64, sent: u64);
    fn ended(&mut self, sample: &Sample);
}
