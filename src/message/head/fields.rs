//! Header fields: an ordered list over one buffer, each name classified once.

use super::Span;
use super::rules::{is_name, is_value_byte};

macro_rules! known {
    ($( $variant:ident = $name:literal; )*) => {
        /// The names that Forebay itself acts on. Everything else is [`Known::Other`] and only carried along.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known { Other, $( $variant, )* }

        impl Known {
            pub const ALL: &'static [Known] = &[ $( Known::$variant, )* ];

            /// The lower-case name; empty for `Other`.
            pub const fn name(self) -> &'static str {
                match self { Known::Other => "", $( Known::$variant => $name, )* }
            }
        }
    };
}

known! {
    Host = "host";
    ContentLength = "content-length";
    TransferEncoding = "transfer-encoding";
    Connection = "connection";
    KeepAlive = "keep-alive";
    ProxyConnection = "proxy-connection";
    ProxyAuthenticate = "proxy-authenticate";
    ProxyAuthenticationInfo = "proxy-authentication-info";
    ProxyAuthorization = "proxy-authorization";
    Te = "te";
    Trailer = "trailer";
    Upgrade = "upgrade";
    Http2Settings = "http2-settings";
    Expect = "expect";
    Forwarded = "forwarded";
    XForwardedFor = "x-forwarded-for";
    XForwardedProto = "x-forwarded-proto";
    XForwardedHost = "x-forwarded-host";
    XForwardedPort = "x-forwarded-port";
    XRealIp = "x-real-ip";
    XRequestId = "x-request-id";
    Traceparent = "traceparent";
    Tracestate = "tracestate";
    ForebayDeadline = "x-forebay-deadline-ms";
    ForebayReason = "x-forebay-reason";
    GrpcTimeout = "grpc-timeout";
    GrpcStatus = "grpc-status";
    GrpcMessage = "grpc-message";
    ContentType = "content-type";
    ContentEncoding = "content-encoding";
    Authorization = "authorization";
    Cookie = "cookie";
    SetCookie = "set-cookie";
    Date = "date";
    Server = "server";
    Via = "via";
    UserAgent = "user-agent";
    RetryAfter = "retry-after";
    CacheControl = "cache-control";
}

impl Known {
    /// Finds the name by its length first: at most a handful of comparisons for any name.
    pub fn classify(name: &[u8]) -> Known {
        let candidates: &[Known] = match name.len() {
            2 => &[Known::Te],
            3 => &[Known::Via],
            4 => &[Known::Host, Known::Date],
            6 => &[Known::Cookie, Known::Expect, Known::Server],
            7 => &[Known::Upgrade, Known::Trailer],
            9 => &[Known::Forwarded, Known::XRealIp],
            10 => &[Known::Connection, Known::UserAgent, Known::KeepAlive, Known::SetCookie, Known::Tracestate],
            11 => &[Known::Traceparent, Known::GrpcStatus, Known::RetryAfter],
            12 => &[Known::ContentType, Known::XRequestId, Known::GrpcTimeout, Known::GrpcMessage],
            13 => &[Known::Authorization, Known::CacheControl],
            14 => &[Known::ContentLength, Known::Http2Settings],
            15 => &[Known::XForwardedFor],
            16 => &[
                Known::XForwardedHost,
                Known::XForwardedPort,
                Known::ContentEncoding,
                Known::ProxyConnection,
                Known::ForebayReason,
            ],
            17 => &[Known::TransferEncoding, Known::XForwardedProto],
            18 => &[Known::ProxyAuthenticate],
            19 => &[Known::ProxyAuthorization],
            21 => &[Known::ForebayDeadline],
            25 => &[Known::ProxyAuthenticationInfo],
            _ => &[],
        };
        candidates
            .iter()
            .copied()
            .find(|known| known.name().as_bytes().eq_ignore_ascii_case(name))
            .unwrap_or(Known::Other)
    }
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: Span,
    value: Span,
    known: Known,
}

/// Header (or trailer) fields in their order, with the bytes of their names as received. Look-ups ignore case.
///
/// No field in here can hold CR, LF or NUL: parsing refuses them and [`Fields::push`] replaces them. So whatever is
/// written from a `Fields` stays one field on one line.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    buf: Vec<u8>,
    items: Vec<Field>,
}

impl Fields {
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the list and keeps its memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.items.clear();
    }

    /// Memory that is kept for the next head.
    pub fn capacity_bytes(&self) -> usize {
        self.buf.capacity() + self.items.capacity() * size_of::<Field>()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Appends a field. Control bytes in the value become spaces, which RFC 9110 §5.5 allows in place of refusing the
    /// message; a name that is not a token is left out (names come from parsed messages and checked configuration).
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(is_name(name), "field name {:?}", name.escape_ascii().to_string());
        if is_name(name) {
            self.append(name, value, Known::classify(name));
        }
    }

    /// Appends a field under its canonical lower-case name. `Known::Other` has none and is left out.
    pub fn push_known(&mut self, known: Known, value: &[u8]) {
        if known != Known::Other {
            self.append(known.name().as_bytes(), value, known);
        }
    }

    /// Appends a field whose value `write` appends to the buffer, so that it needs no memory of its own.
    pub fn push_with(&mut self, known: Known, write: impl FnOnce(&mut Vec<u8>)) {
        let name = self.store(known.name().as_bytes());
        let start = self.buf.len();
        write(&mut self.buf);
        let value = self.clean_from(start);
        self.items.push(Field { name, value, known });
    }

    /// Makes one field out of all fields of a list, with what `write` appends as last element.
    pub fn extend_list(&mut self, known: Known, write: impl FnOnce(&mut Vec<u8>)) {
        let name = self.store(known.name().as_bytes());
        let start = self.buf.len();
        for at in 0..self.items.len() {
            let Field { value, known: other, .. } = self.items[at];
            if other == known && value.start < value.end {
                self.buf.extend_from_within(value.range());
                self.buf.extend_from_slice(b", ");
            }
        }
        write(&mut self.buf);
        let value = self.clean_from(start);
        self.remove(known);
        self.items.push(Field { name, value, known });
    }

    /// Replaces all fields of this name by one.
    pub fn set_known(&mut self, known: Known, value: &[u8]) {
        self.remove(known);
        self.push_known(known, value);
    }

    /// Replaces all fields of this name by one.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove_name(name);
        self.push(name.as_bytes(), value);
    }

    /// The first value under this name.
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.values(known).next()
    }

    /// All values under this name, in order.
    pub fn values(&self, known: Known) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.items.iter().filter(move |field| field.known == known).map(|field| self.bytes(field.value))
    }

    /// The first value under this name, known or not.
    pub fn get_name(&self, name: &str) -> Option<&[u8]> {
        self.values_of(name).next()
    }

    /// All values under this name, known or not.
    pub fn values_of<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a, 'n> {
        let matching = move |field: &&Field| self.bytes(field.name).eq_ignore_ascii_case(name.as_bytes());
        self.items.iter().filter(matching).map(|field| self.bytes(field.value))
    }

    pub fn count(&self, known: Known) -> usize {
        self.items.iter().filter(|field| field.known == known).count()
    }

    pub fn contains(&self, known: Known) -> bool {
        self.items.iter().any(|field| field.known == known)
    }

    /// `(name as received, value, known)` in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], Known)> + Clone {
        self.items.iter().map(|field| (self.bytes(field.name), self.bytes(field.value), field.known))
    }

    pub fn remove(&mut self, known: Known) {
        self.items.retain(|field| field.known != known);
    }

    pub fn remove_name(&mut self, name: &str) {
        self.retain(|field, _, _| !field.eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Keeps the fields for which `keep(name, value, known)` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8], Known) -> bool) {
        let Self { buf, items } = self;
        items.retain(|field| keep(&buf[field.name.range()], &buf[field.value.range()], field.known));
    }

    fn append(&mut self, name: &[u8], value: &[u8], known: Known) {
        let name = self.store(name);
        let value = self.store_value(value);
        self.items.push(Field { name, value, known });
    }

    fn store_value(&mut self, value: &[u8]) -> Span {
        let start = self.buf.len();
        self.buf.extend_from_slice(value.trim_ascii());
        self.clean_from(start)
    }

    /// Makes everything from `start` on fit to stand in a field value.
    fn clean_from(&mut self, start: usize) -> Span {
        for byte in &mut self.buf[start..] {
            if !is_value_byte(*byte) {
                *byte = b' ';
            }
        }
        Span { start: offset(start), end: offset(self.buf.len()) }
    }

    /// Puts bytes that are not fields (a host, a target) into the buffer.
    pub(super) fn store(&mut self, bytes: &[u8]) -> Span {
        let start = offset(self.buf.len());
        self.buf.extend_from_slice(bytes);
        Span { start, end: offset(self.buf.len()) }
    }

    /// The lower-case form of bytes of the buffer: the same bytes when they are lower-case already.
    pub(super) fn lowered(&mut self, span: Span) -> Span {
        if !self.bytes(span).iter().any(u8::is_ascii_uppercase) {
            return span;
        }
        let start = self.buf.len();
        self.buf.extend_from_within(span.range());
        self.buf[start..].make_ascii_lowercase();
        Span { start: offset(start), end: offset(self.buf.len()) }
    }

    /// Registers a field whose bytes are already in the buffer and already checked.
    pub(super) fn register(&mut self, name: Span, value: Span) -> Known {
        let known = Known::classify(self.bytes(name));
        self.items.push(Field { name, value, known });
        known
    }

    /// Empty for bytes that are no longer there: a cleared list also forgets the target and the host of its head.
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        self.buf.get(span.range()).unwrap_or_default()
    }
}

/// Two lists are equal when they hold the same fields in the same order, names compared without case.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(a, b)| a.0.eq_ignore_ascii_case(b.0) && a.1 == b.1)
    }
}

impl Eq for Fields {}

/// Buffers hold one head, whose limit is far below 4 GiB.
fn offset(len: usize) -> u32 {
    u32::try_from(len).expect("a head is smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for known in Known::ALL {
            assert_eq!(Known::classify(known.name().as_bytes()), *known);
            assert_eq!(Known::classify(known.name().to_ascii_uppercase().as_bytes()), *known, "{}", known.name());
        }
        assert_eq!(Known::classify(b"x-other"), Known::Other);
        assert_eq!(Known::classify(b""), Known::Other);
    }

    #[test]
    fn fields_keep_their_order_and_are_found_without_case() {
        let mut fields = Fields::new();
        fields.push(b"Accept", b"a");
        fields.push(b"HOST", b"example.com");
        fields.push(b"accept", b"b");

        assert_eq!(fields.get(Known::Host), Some(&b"example.com"[..]));
        assert_eq!(fields.get_name("ACCEPT"), Some(&b"a"[..]));
        assert_eq!(fields.values_of("accept").count(), 2);

        fields.remove_name("accept");

        assert_eq!(fields.len(), 1);
    }

    #[test]
    fn a_value_cannot_carry_a_line_end() {
        let mut fields = Fields::new();
        fields.push(b"x", b"a\r\nEvil: 1\0");

        assert_eq!(fields.get_name("x"), Some(&b"a  Evil: 1 "[..]));
    }

    #[test]
    fn setting_replaces_every_occurrence() {
        let mut fields = Fields::new();
        fields.push(b"Via", b"1");
        fields.push(b"via", b"2");
        fields.set_known(Known::Via, b"3");

        assert_eq!(fields.count(Known::Via), 1);
        assert_eq!(fields.get(Known::Via), Some(&b"3"[..]));
    }
}
