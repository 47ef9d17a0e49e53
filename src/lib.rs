//! Forebay: a reverse proxy and load-testing sidecar for slow HTTP upstreams.
#![forbid(unsafe_code)]

pub mod config;
pub mod demo;
pub mod simulate;
pub mod telemetry;
