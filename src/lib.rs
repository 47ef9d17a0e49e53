//! Forebay: a reverse proxy and load-testing sidecar for slow HTTP upstreams.
#![forbid(unsafe_code)]

pub mod config;
pub mod deadline;
#[doc(hidden)]
pub mod fuzzing;
pub mod message;
pub mod routing;
pub mod telemetry;
pub mod units;
