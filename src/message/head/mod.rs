//! Message heads: one representation for both directions and both protocols.
//!
//! A head owns one buffer. Parsing copies the received bytes into it once; everything else is ranges into that
//! copy, so a connection reuses one [`RequestHead`] for all its requests without allocating.
//!
//! * [`fields`]: the header fields, classified once
//! * [`parse`]: HTTP/1 bytes to heads ([`rules`] holds what is accepted)
//! * [`http2`]: conversion from and to the `http` crate's types
//! * [`mod@write`]: heads to HTTP/1 bytes

pub mod fields;
pub mod http2;
mod method;
pub mod parse;
pub mod rules;
pub mod write;

#[cfg(test)]
mod tests;

use std::ops::Range;

pub use fields::{Fields, Known};
pub use method::Method;
pub use parse::{HeadLimits, Parsed, parse_request, parse_response};
pub use write::{reason_phrase, write_request_head, write_response_head};

/// A range of bytes in a head's buffer. Heads are far smaller than 4 GiB, and half the size of a `usize` range
/// keeps the fields of a typical request in a few cache lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The version of the message as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    /// The length is not known in advance: `chunked` in HTTP/1.1, DATA frames in HTTP/2.
    Chunked,
}

/// How a response's body is delimited (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBody {
    /// No body whatever the fields say: an answer to `HEAD`, 1xx, 204, 304.
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// The form of the request target as it was received (RFC 9112 §3.2). CONNECT's authority-form is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    Origin,
    Absolute,
    /// `OPTIONS *`.
    Asterisk,
}

/// Why a request head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// More bytes or more fields than the listener allows.
    TooLarge(&'static str),
    BadRequest(&'static str),
    VersionNotSupported,
    /// TRACE and CONNECT are refused on every route.
    MethodRefused,
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
}

impl HeadError {
    pub const fn status(self) -> u16 {
        match self {
            HeadError::TooLarge(_) => 431,
            HeadError::BadRequest(_) => 400,
            HeadError::VersionNotSupported => 505,
            HeadError::MethodRefused => 405,
            HeadError::ExpectationFailed => 417,
        }
    }

    /// For the log and for the client: names what is wrong, never repeats what was sent.
    pub const fn detail(self) -> &'static str {
        match self {
            HeadError::TooLarge(detail) | HeadError::BadRequest(detail) => detail,
            HeadError::VersionNotSupported => "only HTTP/1.0, HTTP/1.1 and HTTP/2 are supported",
            HeadError::MethodRefused => "TRACE and CONNECT are not supported",
            HeadError::ExpectationFailed => "the only supported expectation is 100-continue",
        }
    }
}

impl std::fmt::Display for HeadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for HeadError {}

/// Why a response head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    TooLarge(&'static str),
    Bad(&'static str),
}

impl ResponseError {
    pub const fn detail(self) -> &'static str {
        match self {
            ResponseError::TooLarge(detail) | ResponseError::Bad(detail) => detail,
        }
    }
}

impl std::fmt::Display for ResponseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for ResponseError {}

/// What the `Connection` field asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
}

/// A request head. `Default` gives an empty one to parse into.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub method: Method,
    pub version: Version,
    pub target_form: TargetForm,
    pub fields: Fields,
    /// Path and query as received, without scheme and authority.
    target: Span,
    /// Where the path ends: at the `?` or at the end of the target.
    path_end: u32,
    /// `host[:port]` as received; empty only for HTTP/1.0 without `Host`.
    authority: Span,
    /// Lower-case, without port and without trailing dot.
    host: Span,
    body: Body,
    connection: ConnectionOptions,
    expects_continue: bool,
    scan: parse::Scan,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::Get,
            version: Version::Http11,
            target_form: TargetForm::Origin,
            fields: Fields::default(),
            target: Span::default(),
            path_end: 0,
            authority: Span::default(),
            host: Span::default(),
            body: Body::None,
            connection: ConnectionOptions::default(),
            expects_continue: false,
            scan: parse::Scan::default(),
        }
    }
}

impl RequestHead {
    /// Forgets everything, also a half-scanned head; keeps the buffers.
    pub fn reset(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Makes this the head of a request of our own, still without fields. Its target and host are written beside it.
    pub fn begin_own(&mut self, method: Method, body: Body) {
        self.reset();
        self.method = method;
        self.body = body;
    }

    /// Makes this the head of a request of our own with the fields that are there: its body is at hand.
    pub fn set_own_body(&mut self, body: Body) {
        self.body = body;
        self.expects_continue = false;
    }

    /// Path and query as received: for the log. Route and forward what `path::normalise` makes of it.
    pub fn target(&self) -> &[u8] {
        self.fields.bytes(self.target)
    }

    /// The raw path, beginning with `/` (or `*` alone for `OPTIONS *`).
    pub fn path(&self) -> &[u8] {
        self.fields.bytes(Span { start: self.target.start, end: self.path_end })
    }

    /// What follows the first `?`.
    pub fn query(&self) -> Option<&[u8]> {
        (self.path_end < self.target.end)
            .then(|| self.fields.bytes(Span { start: self.path_end + 1, end: self.target.end }))
    }

    /// `host[:port]` as the client wrote it; empty only for HTTP/1.0 without `Host`.
    pub fn authority(&self) -> &[u8] {
        self.fields.bytes(self.authority)
    }

    /// The host for routing: lower-case, without port and trailing dot. IPv6 addresses keep their brackets.
    pub fn host(&self) -> &str {
        std::str::from_utf8(self.fields.bytes(self.host)).unwrap_or_default()
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Body {
        self.body
    }

    /// True when the client wants the connection kept after this exchange. Always true for HTTP/2.
    pub fn keep_alive(&self) -> bool {
        match self.version {
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
            Version::Http11 => !self.connection.close,
            Version::Http2 => true,
        }
    }

    /// True for `Expect: 100-continue` on a request with a body that may still come.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The protocols asked for in `Upgrade`, only when `Connection: upgrade` is there too.
    pub fn upgrade(&self) -> Option<&[u8]> {
        if !self.connection.upgrade || self.version != Version::Http11 {
            return None;
        }
        self.fields.get(Known::Upgrade)
    }
}

/// A response head. The reason phrase is not kept: Forebay writes its own.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub status: u16,
    pub version: Version,
    pub fields: Fields,
    body: ResponseBody,
    keep_alive: bool,
    upgrade: bool,
    scan: parse::Scan,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self {
            status: 200,
            version: Version::Http11,
            fields: Fields::default(),
            body: ResponseBody::None,
            keep_alive: false,
            upgrade: false,
            scan: parse::Scan::default(),
        }
    }
}

impl ResponseHead {
    /// Forgets everything, also a half-scanned head; keeps the buffers.
    pub fn reset(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// How the body is delimited, given the request's method.
    pub fn framing(&self) -> ResponseBody {
        self.body
    }

    /// True when the upstream's connection may be used again after the body.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The protocol that a 101 switches to; `None` without `Connection: upgrade`.
    pub fn upgrade(&self) -> Option<&[u8]> {
        if !self.upgrade {
            return None;
        }
        self.fields.get(Known::Upgrade)
    }

    /// True for 1xx answers other than 101: the final answer is still to come.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}
