//! Forebay: a reverse proxy and load-testing sidecar for slow HTTP upstreams.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod demo;
pub mod exit_code;
pub mod handover;
pub mod shutdown;
pub mod simulate;
pub mod sockets;
pub mod systemd;
pub mod tasks;
pub mod telemetry;
pub mod units;
