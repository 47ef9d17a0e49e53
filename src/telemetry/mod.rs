//! What Forebay says about itself: reasons, the record of a request, metrics and logs.
//!
//! `hub` holds [`Telemetry`], which owns everything. `catalogue` is the one list of metrics; `metrics` has the handles
//! that the rest of the program touches, `sources` and `jobs` those of aggregates; `snapshot` and `exposition` turn them
//! into a scrape, `reading` into what the admin page shows; `notable` keeps the requests that somebody will ask
//! about. `access_log` writes one line per request, `server_timing` the header of an aggregate; `logging` sets up Forebay's
//! own log.

mod access_line;
mod access_log;
mod access_sources;
mod allocator;
pub mod catalogue;
mod configured;
pub mod exposition;
mod faults;
pub mod histogram;
mod hub;
mod in_flight;
mod jobs;
mod latencies;
pub mod logging;
pub mod metrics;
mod mirror;
mod notable;
mod objective;
mod protobuf;
pub mod reading;
mod reason;
mod record;
mod recording;
pub mod runtime;
mod scalars;
mod server_timing;
pub mod snapshot;
mod sources;

pub use access_line::utc;
pub use configured::ReloadResult;
pub use faults::FaultMetrics;
pub use hub::{DEFAULT_BUCKETS, Telemetry, UNMATCHED};
pub use in_flight::{InFlightGuard, InFlightMeter, InFlightReading};
pub use jobs::{Job, JobMetrics};
pub use latencies::Latencies;
pub use metrics::{
    ClientLimitMetrics, DetachedMetrics, LimiterMetrics, ListenerMetrics, QueueMetrics, RouteMetrics, UpstreamMetrics,
};
pub use mirror::{Compared, MirrorMetrics, MirrorResult};
pub use notable::{KEPT, MAX_PATH, Notable, Sought, SourceSpan};
pub use reading::Reading;
pub use reason::{Reason, ReasonClass, markdown_table};
pub use record::{Protocol, RequestRecord, SourcesRecord, Timings};
pub use recording::{RecordMetrics, RecordResult};
pub use server_timing::server_timing;
pub use sources::{AggregateMetrics, Completeness};

#[cfg(test)]
pub(crate) mod test_support;
