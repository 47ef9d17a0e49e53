//! Concurrent aggregation: one request answered from many upstreams at once.
//!
//! Three steps, of which the middle one alone waits:
//!
//! 1. `plan` decides what a request needs and refuses one that does not carry it (pure).
//! 2. `execute` calls the sources over one small trait, [`Fetch`]: what depends on nothing at once, the rest as soon as what
//!    it needs is there. It keeps one deadline over all of it and turns every end into an [`Outcome`].
//! 3. `merge` makes the answer from the outcomes (pure). The bytes depend on the outcomes and on the order of the file, never
//!    on the order of arrival.
//!
//! Within `execute`, `board` decides what may begin and when it is enough, `work` does what one source does (`list` when it
//! is many calls), `calls` sends identical calls once, and `interpret` makes a value of an answer.
//!
//! `json` keeps JSON as the bytes that arrived, so that no number changes; `template` puts values into paths, queries, fields
//! and bodies. `results` keeps the answers of background work, `flights` joins identical requests of several clients.
//!
//! Nothing here knows about sockets or pingora.

mod board;
mod call;
mod calls;
pub mod decode;
mod execute;
pub mod flights;
mod identical;
mod interpret;
pub mod json;
mod limit;
mod list;
pub mod merge;
mod off_loop;
mod on_error;
mod outcome;
mod plan;
pub mod results;
#[cfg(test)]
mod script;
pub mod shape;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod work;

pub use call::{Answer, Call, Called, Failed, Fetch};
pub use execute::{check, execute, merge_off_loop, part_off_loop};
pub use merge::{Merged, summary};
pub use outcome::{Ending, Fallback, Items, Outcome, Value};
pub use plan::{Plan, Refusal, read_request};
pub use template::{Inputs, Needs};
