//! Limits: who may be let through, when, and how many at once.
//!
//! Read `admission.rs` first: it says in which order a request meets the limits and what it holds while it waits.
//! `rate.rs` decides one rate limit (governor's GCRA over the buckets of `store.rs`), `rates.rs` several at once,
//! `fields.rs` writes the response fields, `in_flight.rs` is the semaphore with its bounded queue, `client.rs` the limit
//! per client key, and `registry.rs` builds all of it for one configuration and takes over what did not change.
//!
//! Nothing here knows about sockets, HTTP types or pingora: a request is seen through `RequestKeys` only.

mod admission;
mod client;
mod fields;
mod in_flight;
mod key;
mod rate;
mod rates;
mod registry;
mod store;
#[cfg(test)]
mod testing;

pub use admission::{Admission, Pending, Permits, Rejection, TryAdmit};
pub use client::{ClientLimiter, ClientPermit};
pub use fields::{RateFields, Standing, rate_fields, retry_after_seconds};
pub use in_flight::{InFlightLimiter, Permit, Refused, Unavailable};
pub use key::{KeyLookup, RequestKeys, Seed};
pub use rate::RateLimiter;
pub use rates::{Delay, RateDecision, RateLimiters, RateRejection};
pub use registry::{LimitMetrics, Limits, QueueScope};
