//! Upstreams: which addresses there are, which of them are healthy, and which one is next.
//!
//! `endpoints.rs` is what the data path reads; `resolve.rs` and `health.rs` are the tasks that write it, off the data path.
//! `Upstream::start` puts the three together. Connections and their pools belong to the proxy, keyed by
//! `Endpoint::address`: an endpoint that disappears here is not picked any more, its connections end as they go idle.
//!
//! Nothing here knows about pingora. Probes over TLS come in through the `Probe` trait.

mod endpoints;
mod health;
mod resolve;
mod service;

pub use endpoints::{Endpoint, EndpointSet, EndpointStatus};
pub use health::{Health, HttpProbe, Probe, ProbeError};
pub use resolve::{Resolve, SystemResolver};
pub use service::Upstream;
