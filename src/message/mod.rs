//! HTTP messages as plain data: heads, framing, paths, hop-by-hop rules, forwarding fields, ids.
//!
//! Everything here is a pure function over bytes: no sockets, no clock, no runtime, and randomness only as an
//! argument. What a client or an upstream sends is judged here, once and strictly, so that the forwarding loop only ever
//! sees messages with one meaning. Start with [`head`].

pub mod chunked;
pub mod forwarded;
pub mod grpc;
pub mod head;
pub mod hop;
pub mod ids;
pub mod path;

pub use head::{Fields, Known, Method, RequestHead, ResponseHead};
