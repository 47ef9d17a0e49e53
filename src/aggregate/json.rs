//! JSON as the bytes that arrived: checked once, cut into parts, never read into numbers.

use bytes::Bytes;

/// One JSON value (RFC 8259), valid UTF-8, without surrounding white space. Clones and parts share memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Json(Bytes);

/// Why bytes are no JSON value that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// Not JSON, or not UTF-8; the offset of the first byte that is wrong.
    Invalid(usize),
    TooDeep,
}
