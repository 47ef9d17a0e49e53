//! What `forebay simulate -c upstreams.toml` reads: the simulated upstreams as they are used.
//!
//! `written` has them as they stand in the file. Strict: an unknown key, a wrong unit or an impossible combination is an
//! error that shows the line and says what to write.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde::Deserialize;

pub use super::schedule::{Change, Factor, Schedule};
pub use crate::latency::Latency;
use crate::latency::written::duration;
pub(super) use crate::latency::written::parse_duration;
pub(super) use written::final_status;
use written::probability;

mod written;

/// All simulated upstreams of one process.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Every draw (latency, error, fault) is a function of this, the upstream's name and the request's number.
    pub seed: u64,
    /// Where the simulator shows its own numbers as Prometheus text; nowhere by default.
    pub metrics: Option<SocketAddr>,
    pub upstreams: Vec<Upstream>,
}

/// One simulated upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub name: String,
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    pub latency: Latency,
    pub capacity: Capacity,
    pub discipline: Discipline,
    pub status: StatusCode,
    /// The part of the requests that is answered with another status.
    pub errors: Vec<(StatusCode, f64)>,
    pub faults: Vec<Fault>,
    pub schedule: Schedule,
    pub schedule_from: ScheduleFrom,
    /// A template: `{path}`, `{last}` (the last segment of the path), `{n}` (the number of the request, from 0) and
    /// `{upstream}` are replaced.
    pub body: String,
    /// Bodies are filled up with spaces to this size, which leaves JSON as it is; a longer one stays.
    pub body_size: usize,
    pub content_type: HeaderValue,
    /// Obey `?delay=250ms&status=503` and the headers `x-forebay-delay` and `x-forebay-status` of a request.
    pub allow_control: bool,
}

impl Upstream {
    /// An upstream that answers at once with its name, on a free loopback port.
    pub fn new(name: impl Into<String>) -> Self {
        written::default_upstream(name.into())
    }
}

/// How many requests are worked on at once, and what happens to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    Unlimited,
    /// `workers` requests at once, `queue` more wait, the next one is answered 503.
    Workers {
        workers: NonZeroUsize,
        queue: usize,
    },
    /// One connection at a time, as a synchronous server does it: the others are not even read. `queue` connections
    /// wait in the process, where they can be counted, about as many again in the kernel's backlog; the clients beyond
    /// them do not get through connecting.
    Sync {
        queue: usize,
    },
}

/// Which of the waiting requests a free worker takes. Means something with [`Capacity::Workers`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discipline {
    /// The one that has waited for longest.
    #[default]
    Fifo,
    /// The one that came last, as thread pools with a stack of jobs do it.
    Lifo,
    /// Processor sharing: nobody waits, all of them share the workers, each going on at the same speed (at most that of
    /// one worker). As many threads on a few cores.
    Ps,
}

/// When the time of the schedule begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleFrom {
    #[default]
    Start,
    /// When the first request arrives, so that a load test meets the changes at the same moments each time.
    FirstRequest,
}

/// A way to answer wrongly, and how often it is taken.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub kind: FaultKind,
    #[serde(deserialize_with = "probability")]
    pub probability: f64,
}

/// The ways to answer wrongly.
///
/// Over HTTP/2 the kinds that break a connection or write broken bytes reset the stream instead: the other streams of
/// the connection belong to other requests. A slow head comes late there, but in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// RST in place of an answer.
    ResetBeforeHead,
    /// The head, half of the body, RST.
    ResetMidBody,
    /// The head, half of the body, and an orderly close: `Content-Length` says more than what follows.
    Truncate,
    /// No answer at all; the connection stays open.
    StallBeforeHead,
    /// The head, half of the body, then nothing more.
    StallMidBody,
    /// The body arrives `bytes` at a time, one piece per `interval`.
    Drip {
        bytes: NonZeroUsize,
        #[serde(deserialize_with = "duration")]
        interval: Duration,
    },
    /// The head arrives `bytes` at a time, one piece per `interval`; then the body, at once.
    SlowHead {
        bytes: NonZeroUsize,
        #[serde(deserialize_with = "duration")]
        interval: Duration,
    },
    /// Bytes that are no HTTP.
    Garbage,
    /// `Content-Length` says half of what follows, so that the rest looks like another answer.
    LengthTooShort,
    /// Half of the body as if it were the whole: right as HTTP, wrong as JSON.
    BadJson,
}

impl FaultKind {
    /// The answer takes time of its own after the latency, and keeps its worker meanwhile.
    pub fn takes_time(self) -> bool {
        match self {
            Self::StallBeforeHead | Self::StallMidBody | Self::Drip { .. } | Self::SlowHead { .. } => true,
            Self::ResetBeforeHead
            | Self::ResetMidBody
            | Self::Truncate
            | Self::Garbage
            | Self::LengthTooShort
            | Self::BadJson => false,
        }
    }
}

impl Settings {
    /// Reads a file, and the files that it names, which stand relative to it.
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(file).map_err(SettingsError::Unreadable)?;
        Self::parse_in(&text, file.parent().unwrap_or(Path::new("")))
    }

    /// Reads a file's text; the files that it names stand relative to the working directory.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        Self::parse_in(text, Path::new(""))
    }

    fn parse_in(text: &str, folder: &Path) -> Result<Self, SettingsError> {
        written::parse(text, &|file: &Path| std::fs::read_to_string(folder.join(file)))
    }

    /// What is possible, but probably not meant.
    pub fn warnings(&self) -> Vec<String> {
        let limited = self.upstreams.iter().filter(|upstream| upstream.capacity != Capacity::Unlimited);
        let doubled = limited.filter(|upstream| upstream.latency.is_recorded());
        doubled
            .map(|upstream| {
                format!(
                    "[upstream.{}]: a recorded response time contains the waiting of the recorded server; with workers \
                     here, requests wait twice. Leave out `workers`, or record times of service",
                    upstream.name
                )
            })
            .collect()
    }
}

/// Why a file of simulated upstreams cannot be used.
#[derive(Debug)]
pub enum SettingsError {
    Unreadable(std::io::Error),
    /// Not TOML, an unknown key or a value of the wrong kind; shows the line.
    Syntax(toml::de::Error),
    /// The same on a line that may hold a secret, such as one of another program's file.
    NotQuoted {
        line: usize,
        problem: String,
    },
    /// A file for the sidecar, by what it has.
    ForSidecar {
        telling: String,
    },
    /// Not a single `[upstream.NAME]`.
    Empty,
    /// Values that do not go together, in the upstream of this name.
    Conflict {
        upstream: String,
        line: usize,
        problem: String,
    },
    /// A file that the settings name cannot be used.
    Measured {
        upstream: String,
        line: usize,
        file: PathBuf,
        problem: String,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "{error}"),
            Self::Syntax(error) => write!(f, "{error}"),
            Self::NotQuoted { line, problem } => write!(f, "line {line}, which may hold a secret: {problem}"),
            Self::ForSidecar { telling } => write!(
                f,
                "this looks like a file for the sidecar: it {telling}; `forebay check -c FILE` checks it, \
                 `forebay run -c FILE` starts it. A file for `forebay simulate` has tables [upstream.NAME] with `latency`, \
                 `workers` and the like"
            ),
            Self::Empty => f.write_str("no upstream; write at least one [upstream.NAME] table"),
            Self::Conflict { upstream, line, problem } => write!(f, "line {line}: [upstream.{upstream}]: {problem}"),
            Self::Measured { upstream, line, file, problem } => {
                write!(f, "line {line}: [upstream.{upstream}]: {}: {problem}", file.display())
            }
        }
    }
}

impl std::error::Error for SettingsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(error) => Some(error),
            Self::Syntax(error) => Some(error),
            Self::NotQuoted { .. }
            | Self::ForSidecar { .. }
            | Self::Empty
            | Self::Conflict { .. }
            | Self::Measured { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
