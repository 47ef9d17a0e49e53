//! What Forebay says about itself: reasons, the record of a request, metrics and logs.

pub mod metrics;
mod reason;
mod record;

pub use reason::{Reason, ReasonClass};
pub use record::{Protocol, RequestRecord, Timings};
