//! Forebay: a reverse proxy and load-testing sidecar for slow HTTP upstreams.
#![forbid(unsafe_code)]

pub mod admin;
pub mod aggregate;
pub mod chance;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod config;
pub mod dashboards;
pub mod deadline;
pub mod demo;
pub mod exit_code;
pub mod faults;
#[doc(hidden)]
pub mod fuzzing;
pub mod handover;
pub mod healthcheck;
pub mod latency;
pub mod limits;
pub mod load;
pub mod message;
pub mod monotonic;
pub mod output;
pub mod promql;
pub mod proxy;
pub mod recorder;
pub mod reload;
pub mod replay;
pub mod routing;
pub mod rules;
pub mod scrape;
pub mod server;
pub mod shutdown;
pub mod simulate;
pub mod sockets;
pub mod systemd;
pub mod tap;
pub mod tasks;
pub mod telemetry;
pub mod top;
pub mod units;
pub mod upstream;
