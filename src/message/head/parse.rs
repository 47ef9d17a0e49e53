//! HTTP/1 bytes to heads.
//!
//! `httparse` splits the head into tokens; [`rules`] then decides what they may be. The end of the head
//! is looked for first and by ourselves, line by line and resumable: a head that arrives in many small reads costs one
//! look at each byte, and a line that does not end in CRLF is refused before anything else reads it.

use std::mem::MaybeUninit;

use super::rules;
use super::{
    Body, ConnectionOptions, Fields, HeadError, Known, Method, RequestHead, ResponseBody, ResponseError, ResponseHead,
    Span, TargetForm, Version,
};

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// From the first byte to the end of the empty line.
    pub max_bytes: usize,
    pub max_headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_bytes: 32 * 1024, max_headers: 100 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Call again with the same bytes and more behind them.
    Incomplete,
    /// The head took this many bytes; the body begins there.
    Complete { head_len: usize },
}

/// What is wrong with a head, before it is known whose head it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    TooLarge(&'static str),
    Bad(&'static str),
    Version,
}

const TOO_MANY_BYTES: Fault = Fault::TooLarge("the head has more bytes than allowed");
const TOO_MANY_FIELDS: Fault = Fault::TooLarge("the head has more fields than allowed");

impl From<&'static str> for Fault {
    fn from(detail: &'static str) -> Self {
        Fault::Bad(detail)
    }
}

impl From<Fault> for HeadError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLarge(detail) => HeadError::TooLarge(detail),
            Fault::Bad(detail) => HeadError::BadRequest(detail),
            Fault::Version => HeadError::VersionNotSupported,
        }
    }
}

impl From<Fault> for ResponseError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLarge(detail) => ResponseError::TooLarge(detail),
            Fault::Bad(detail) => ResponseError::Bad(detail),
            Fault::Version => ResponseError::Bad("the version is not HTTP/1.0 or HTTP/1.1"),
        }
    }
}

/// How far the search for the end of the head has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scan {
    /// Everything before is looked at.
    at: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the head begins: after an empty first line, if there was one.
    start: usize,
}

impl Scan {
    /// Looks for the empty line that ends the head and gives the range of the head in `buf`.
    ///
    /// One empty line before a request is skipped (RFC 9112 §2.2), for clients that send one after a body.
    fn find(&mut self, buf: &[u8], skip_empty_line: bool) -> Result<Option<(usize, usize)>, Fault> {
        while let Some(found) = memchr::memchr(b'\n', &buf[self.at.min(buf.len())..]) {
            let newline = self.at + found;
            if newline == self.line || buf[newline - 1] != b'\r' {
                return Err(Fault::Bad("a line of the head does not end in CRLF"));
            }
            let empty = newline - self.line == 1;
            let first = self.line == self.start;
            self.at = newline + 1;
            self.line = self.at;
            match (empty, first) {
                (true, true) if skip_empty_line && self.start == 0 => self.start = self.at,
                (true, true) => return Err(Fault::Bad("the head begins with an empty line")),
                (true, false) => return Ok(Some((self.start, self.at))),
                (false, _) => {}
            }
        }
        self.at = buf.len();
        Ok(None)
    }
}

/// Reads a request head from the front of `buf` into `out`.
///
/// After `Incomplete`, call again with a buffer that begins with the same bytes; call [`RequestHead::reset`] before
/// turning to other bytes instead.
pub fn parse_request(buf: &[u8], limits: &HeadLimits, out: &mut RequestHead) -> Result<Parsed, HeadError> {
    // Something that cannot become a request (a TLS hello on a plain port) need not wait for the head timeout.
    if buf.first().is_some_and(|b| *b != b'\r' && !rules::is_token(&[*b])) {
        return Err(HeadError::BadRequest("the request does not begin with a method"));
    }
    let Some((start, end)) = find_end(buf, limits, &mut out.scan, true)? else { return Ok(Parsed::Incomplete) };
    read_request(&buf[start..end], limits, out)?;
    Ok(Parsed::Complete { head_len: end })
}

/// Reads a response head from the front of `buf` into `out`; `method` is that of the request it answers.
///
/// After `Incomplete`, call again with a buffer that begins with the same bytes.
pub fn parse_response(
    buf: &[u8],
    limits: &HeadLimits,
    method: Method,
    out: &mut ResponseHead,
) -> Result<Parsed, ResponseError> {
    let prefix = &buf[..buf.len().min(5)];
    if *prefix != b"HTTP/"[..prefix.len()] {
        return Err(ResponseError::Bad("the answer does not begin with HTTP/"));
    }
    let Some((start, end)) = find_end(buf, limits, &mut out.scan, false)? else { return Ok(Parsed::Incomplete) };
    read_response(&buf[start..end], limits, method, out)?;
    Ok(Parsed::Complete { head_len: end })
}

fn find_end(
    buf: &[u8],
    limits: &HeadLimits,
    scan: &mut Scan,
    skip_empty_line: bool,
) -> Result<Option<(usize, usize)>, Fault> {
    let found = scan.find(buf, skip_empty_line);
    if found == Ok(None) && buf.len() < limits.max_bytes {
        return Ok(None);
    }
    // Found or failed: the next call is about another head.
    *scan = Scan::default();
    match found? {
        Some((_, end)) if end > limits.max_bytes => Err(TOO_MANY_BYTES),
        None => Err(TOO_MANY_BYTES),
        found => Ok(found),
    }
}

/// Heads with at most this many fields are tokenised on the stack.
const FIELDS_ON_STACK: usize = 128;

fn read_request(head: &[u8], limits: &HeadLimits, out: &mut RequestHead) -> Result<(), HeadError> {
    let mut few = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
    let mut many = Vec::new();
    let mut request = httparse::Request::new(&mut []);
    request
        .parse_with_uninit_headers(head, header_slots(limits.max_headers, &mut few, &mut many))
        .map_err(|error| request_fault(error, head))?;

    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::BadRequest("the request line is not complete"));
    };
    out.method = accepted_method(method.as_bytes())?;
    out.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let lines = FieldLines::read(head, request.headers, &mut out.fields, Direction::Request)?;
    let absolute = out.adopt_target(span_in(head, target.as_bytes())).map_err(HeadError::BadRequest)?;
    adopt_host(out, lines.host, absolute).map_err(HeadError::BadRequest)?;
    out.connection = lines.connection;
    out.body = request_body(&lines, out.version).map_err(HeadError::BadRequest)?;
    out.expects_continue = expectation(&out.fields, out.version, out.body)?;
    if out.connection.upgrade && out.fields.count(Known::Upgrade) > 1 {
        return Err(HeadError::BadRequest("there is more than one upgrade field"));
    }
    Ok(())
}

fn read_response(
    head: &[u8],
    limits: &HeadLimits,
    method: Method,
    out: &mut ResponseHead,
) -> Result<(), ResponseError> {
    let mut few = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
    let mut many = Vec::new();
    let mut response = httparse::Response::new(&mut []);
    httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, head, header_slots(limits.max_headers, &mut few, &mut many))
        .map_err(|error| token_fault(error, "the status line is not valid"))?;

    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(ResponseError::Bad("the status line is not complete"));
    };
    if !(100..600).contains(&status) {
        return Err(ResponseError::Bad("the status is not between 100 and 599"));
    }
    out.status = status;
    out.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let lines = FieldLines::read(head, response.headers, &mut out.fields, Direction::Response)?;
    out.upgrade = lines.connection.upgrade;
    out.body = response_body(&lines, out.version, status, method).map_err(ResponseError::Bad)?;
    out.keep_alive = response_keeps_alive(&lines, out);
    Ok(())
}

fn header_slots<'a, 'b>(
    max: usize,
    few: &'a mut [MaybeUninit<httparse::Header<'b>>],
    many: &'a mut Vec<MaybeUninit<httparse::Header<'b>>>,
) -> &'a mut [MaybeUninit<httparse::Header<'b>>] {
    if max <= few.len() {
        return &mut few[..max];
    }
    many.resize_with(max, MaybeUninit::uninit);
    many
}

/// `httparse` reports every unknown version alike; only a request line of three words of which the last looks like a
/// version is answered 505.
fn request_fault(error: httparse::Error, head: &[u8]) -> Fault {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ').skip(2);
    let (version, end) = (words.next().unwrap_or_default(), words.next());
    let is_version = matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit());
    match error {
        httparse::Error::Version if is_version && end.is_none() => Fault::Version,
        error => token_fault(error, "the request line is not valid"),
    }
}

fn token_fault(error: httparse::Error, first_line: &'static str) -> Fault {
    match error {
        httparse::Error::TooManyHeaders => TOO_MANY_FIELDS,
        httparse::Error::HeaderName => Fault::Bad("a field name is not valid"),
        httparse::Error::HeaderValue => Fault::Bad("a field value holds a control character"),
        _ => Fault::Bad(first_line),
    }
}

pub(super) fn accepted_method(name: &[u8]) -> Result<Method, HeadError> {
    match Method::from_bytes(name) {
        None => Err(HeadError::BadRequest("the method is not valid")),
        Some(Method::Trace | Method::Connect) => Err(HeadError::MethodRefused),
        Some(method) => Ok(method),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

/// What the fields say about the message itself.
#[derive(Debug, Default)]
struct FieldLines {
    host: Option<Span>,
    content_length: Option<u64>,
    chunked: bool,
    connection: ConnectionOptions,
}

impl FieldLines {
    /// Copies the head into `fields`, registers every field, and reads the ones that decide about framing.
    fn read(
        head: &[u8],
        headers: &[httparse::Header<'_>],
        fields: &mut Fields,
        direction: Direction,
    ) -> Result<Self, Fault> {
        fields.clear();
        fields.store(head);
        let mut lines = Self::default();
        for header in headers {
            let (name, value) = (span_in(head, header.name.as_bytes()), span_in(head, header.value));
            // `content_length` and `content-length` are one name to CGI, WSGI and their relatives.
            if direction == Direction::Request && header.name.contains('_') {
                return Err(Fault::Bad("a field name holds an underscore"));
            }
            let known = fields.register(name, value);
            lines.take(known, header.value, value, direction)?;
        }
        if lines.chunked && lines.content_length.is_some() {
            return Err(Fault::Bad("content-length and transfer-encoding are both there"));
        }
        Ok(lines)
    }

    fn take(&mut self, known: Known, value: &[u8], span: Span, direction: Direction) -> Result<(), Fault> {
        match known {
            Known::Host if self.host.is_some() => Err(Fault::Bad("there is more than one host field")),
            Known::Host => {
                self.host = Some(span);
                Ok(())
            }
            Known::ContentLength if self.content_length.is_some() => {
                Err(Fault::Bad("there is more than one content-length field"))
            }
            Known::ContentLength => {
                self.content_length = Some(rules::content_length(value)?);
                Ok(())
            }
            Known::TransferEncoding if self.chunked || !value.eq_ignore_ascii_case(b"chunked") => {
                Err(Fault::Bad("transfer-encoding is not exactly chunked"))
            }
            Known::TransferEncoding => {
                self.chunked = true;
                Ok(())
            }
            Known::Connection => {
                let protected = match direction {
                    Direction::Request => rules::protected_in_request,
                    Direction::Response => rules::protected_in_response,
                };
                Ok(rules::connection(value, &mut self.connection, protected)?)
            }
            _ => Ok(()),
        }
    }
}

/// Where `part` lies inside `head`. Both come from the same parse, so the addresses subtract.
fn span_in(head: &[u8], part: &[u8]) -> Span {
    if part.is_empty() {
        return Span::default();
    }
    let start = part.as_ptr().addr() - head.as_ptr().addr();
    // A head is bounded by its limit, far below 4 GiB.
    Span { start: start as u32, end: (start + part.len()) as u32 }
}

impl RequestHead {
    /// Takes the target from the buffer; gives scheme and authority of an absolute-form target.
    pub(super) fn adopt_target(&mut self, span: Span) -> Result<Option<Absolute>, &'static str> {
        let target = self.fields.bytes(span);
        if !rules::is_target(target) {
            return Err("the request target holds a space, a fragment, a control or a non-ASCII character");
        }
        let mut absolute = None;
        (self.target_form, self.target) = match target {
            [b'/', ..] => (TargetForm::Origin, span),
            b"*" if self.method == Method::Options => (TargetForm::Asterisk, span),
            _ => {
                let parts = split_absolute(target, span)?;
                let rest = self.absolute_rest(parts.rest);
                absolute = Some(parts.authority);
                (if self.fields.bytes(rest) == b"*" { TargetForm::Asterisk } else { TargetForm::Absolute }, rest)
            }
        };
        let query = memchr::memchr(b'?', self.fields.bytes(self.target));
        self.path_end = query.map_or(self.target.end, |at| self.target.start + at as u32);
        Ok(absolute)
    }

    /// Path and query of an absolute-form target. An empty path means `/`, or `*` for OPTIONS (RFC 9112 §3.2.4).
    fn absolute_rest(&mut self, rest: Span) -> Span {
        let empty = rest.start == rest.end;
        if !empty && self.fields.bytes(rest)[0] == b'/' {
            return rest;
        }
        let root: &[u8] = if empty && self.method == Method::Options { b"*" } else { b"/" };
        let start = self.fields.store(root).start;
        let query = self.fields.bytes(rest).to_vec();
        Span { start, end: self.fields.store(&query).end }
    }

    /// Takes `host[:port]` from the buffer.
    pub(super) fn adopt_authority(&mut self, span: Span) -> Result<(), &'static str> {
        // The host is always the front of the authority.
        let host = rules::authority(self.fields.bytes(span))?.host.len() as u32;
        self.authority = span;
        self.host = self.fields.lowered(Span { start: span.start, end: span.start + host });
        Ok(())
    }

    pub(super) fn set_body(&mut self, body: Body) {
        self.body = body;
    }

    pub(super) fn clear_authority(&mut self) {
        (self.authority, self.host) = (Span::default(), Span::default());
    }
}

/// The authority of an absolute-form target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absolute {
    authority: Span,
    default_port: u16,
}

struct AbsoluteParts {
    authority: Absolute,
    rest: Span,
}

fn split_absolute(target: &[u8], span: Span) -> Result<AbsoluteParts, &'static str> {
    const BAD: &str = "the request target is neither a path nor an http or https address";
    let colon = memchr::memchr(b':', target).ok_or(BAD)?;
    let default_port = match &target[..colon] {
        scheme if scheme.eq_ignore_ascii_case(b"http") => 80,
        scheme if scheme.eq_ignore_ascii_case(b"https") => 443,
        _ => return Err(BAD),
    };
    let after = target[colon + 1..].strip_prefix(b"//").ok_or(BAD)?;
    let authority_len = after.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(after.len());
    let start = span.start + (target.len() - after.len()) as u32;
    let middle = start + authority_len as u32;
    Ok(AbsoluteParts {
        authority: Absolute { authority: Span { start, end: middle }, default_port },
        rest: Span { start: middle, end: span.end },
    })
}

/// Settles the host. RFC 9112 §3.2.2 lets an absolute-form target override `Host`; we want both to say the same, because
/// an upstream may look at either.
fn adopt_host(out: &mut RequestHead, host: Option<Span>, absolute: Option<Absolute>) -> Result<(), &'static str> {
    out.clear_authority();
    match (host, absolute) {
        (Some(host), None) => out.adopt_authority(host),
        (Some(host), Some(absolute)) => {
            let named = rules::authority(out.fields.bytes(host))?;
            let target = rules::authority(out.fields.bytes(absolute.authority))?;
            let port = |port: Option<u16>| port.unwrap_or(absolute.default_port);
            if !named.host.eq_ignore_ascii_case(target.host) || port(named.port) != port(target.port) {
                return Err("the host field and the request target name different hosts");
            }
            out.adopt_authority(host)
        }
        (None, Some(absolute)) if out.version == Version::Http10 => out.adopt_authority(absolute.authority),
        (None, None) if out.version == Version::Http10 => Ok(()),
        (None, _) => Err("the host field is missing"),
    }
}

fn request_body(lines: &FieldLines, version: Version) -> Result<Body, &'static str> {
    match (lines.chunked, lines.content_length) {
        (true, _) if version == Version::Http10 => Err("transfer-encoding in an HTTP/1.0 message"),
        (true, _) => Ok(Body::Chunked),
        (false, Some(length)) => Ok(Body::Length(length)),
        (false, None) => Ok(Body::None),
    }
}

/// RFC 9110 §10.1.1: ignored in HTTP/1.0, and pointless without a body.
pub(super) fn expectation(fields: &Fields, version: Version, body: Body) -> Result<bool, HeadError> {
    if version == Version::Http10 {
        return Ok(false);
    }
    let mut values = fields.values(Known::Expect);
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.eq_ignore_ascii_case(b"100-continue") => {
            Ok(!matches!(body, Body::None | Body::Length(0)))
        }
        _ => Err(HeadError::ExpectationFailed),
    }
}

/// RFC 9112 §6.3.
fn response_body(
    lines: &FieldLines,
    version: Version,
    status: u16,
    method: Method,
) -> Result<ResponseBody, &'static str> {
    if lines.chunked && version == Version::Http10 {
        return Err("transfer-encoding in an HTTP/1.0 message");
    }
    if method == Method::Head || status_has_no_body(status) {
        return Ok(ResponseBody::None);
    }
    Ok(match (lines.chunked, lines.content_length) {
        (true, _) => ResponseBody::Chunked,
        (false, Some(length)) => ResponseBody::Length(length),
        (false, None) => ResponseBody::UntilClose,
    })
}

pub(super) fn status_has_no_body(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}

fn response_keeps_alive(lines: &FieldLines, head: &ResponseHead) -> bool {
    // 1xx and 204 have no body; a server that announces one is likely to send it, into the next answer.
    let announces_impossible_body = (head.status < 200 || head.status == 204)
        && (lines.chunked || lines.content_length.is_some_and(|length| length > 0));
    let asked = match head.version {
        Version::Http10 => lines.connection.keep_alive && !lines.connection.close,
        _ => !lines.connection.close,
    };
    asked && !announces_impossible_body && head.body != ResponseBody::UntilClose
}
