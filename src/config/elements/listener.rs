//! `[listener]` or `[listener.NAME]`: a socket that takes requests, and what it asks of clients.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::limits::no_effect;
use crate::config::decode::{Decoder, Element, element};
use crate::config::describe::{DAY, GIB, HOUR, KIB, MIB, MILLISECOND, SECOND, Shape};
use crate::config::diagnostic::{Code, Problem};
use crate::config::model;
use crate::config::tree::{Entry, Kind, Node};
use crate::config::value::Value;
use crate::config::value::container::{Named, NamedItem};
use crate::config::value::quantity::{ByteRate, OptionalDuration, Size};

element! {
    /// A socket that takes requests.
    pub struct Listener {
        /// IP address and port. 127.0.0.1 is reached from this machine only, 0.0.0.0 from everywhere.
        address: SocketAddr = "127.0.0.1:8080", instead_of(&["listen", "bind", "addr", "port"]);
        /// Speak TLS. Certificates are read again on reload.
        tls: ListenerTls = none, example("{ certificate = \"tls/cert.pem\", key = \"tls/key.pem\" }");
        /// Accept HTTP/2 beside HTTP/1.1: by ALPN with TLS, by prior knowledge without.
        http2: bool = true, instead_of(&["h2", "h2c"]);
        /// HTTP/2: requests at once on a connection.
        http2_max_streams: u32 = 100, between(1, 10_000);
        /// HTTP/2: bytes that a client may send ahead on a stream.
        http2_stream_window: Size = "64KiB", between(16 * KIB, 16 * MIB);
        /// HTTP/2: bytes that a client may send ahead on a connection.
        http2_connection_window: Size = "1MiB", between(64 * KIB, 256 * MIB);
        /// Connections at once; beyond it new ones are answered 503 and closed, over TLS closed only.
        max_connections: usize = 10_000, between(1, 1_000_000);
        /// Requests on a connection before it is closed. Balancers spread clients again then.
        max_requests_per_connection: u64 = 1_000, between(1, 1_000_000_000), instead_of(&["keepalive_requests"]);
        /// Bytes of a request's head: request line and headers. Beyond it 431.
        max_head: Size = "32KiB", between(KIB, MIB), instead_of(&["max_header_size"]);
        /// Headers of a request. Beyond it 431.
        max_headers: usize = 100, between(1, 1_000);
        /// How long a client may take.
        timeouts: ListenerTimeouts = {};
        /// The least rate at which a body must come in after its first 5 s, or "off".
        min_body_rate: ByteRate = "off", example("\"1KiB/s\"");
        /// Address blocks of proxies whose `X-Forwarded-*`, request id and deadline are believed.
        trusted_proxies: Vec<model::Cidr> = [], example("[\"10.0.0.0/8\"]");
    }
}

element! {
    /// How long a client may take.
    pub struct ListenerTimeouts {
        /// The TLS handshake.
        tls_handshake: Duration = "10s", between(MILLISECOND, HOUR);
        /// The whole request head, from its first byte.
        head: Duration = "10s", between(MILLISECOND, HOUR), instead_of(&["header", "headers"]);
        /// The whole request body.
        body: Duration = "60s", between(MILLISECOND, DAY);
        /// Between two requests of a connection.
        idle: Duration = "60s", between(MILLISECOND, DAY), instead_of(&["keepalive", "keep_alive"]);
        /// The longest time in which a client takes nothing of its answer.
        write: Duration = "30s", between(MILLISECOND, DAY), instead_of(&["send"]);
        /// A connection's whole life, or "none". It ends after the request that is running then.
        lifetime: OptionalDuration = "none", between(SECOND, 365 * DAY), example("\"1h\"");
    }
}

element! {
    /// TLS towards clients.
    pub struct ListenerTls {
        /// PEM file: the certificate, then its chain.
        certificate: PathBuf = required, instead_of(&["cert", "cert_file", "certificate_file"]), example("\"tls/cert.pem\"");
        /// PEM file: the private key.
        key: PathBuf = required, instead_of(&["key_file", "private_key"]), example("\"tls/key.pem\"");
        /// PEM file: clients must show a certificate that is signed by one of these.
        client_ca: PathBuf = none, example("\"tls/clients.pem\"");
    }
}

/// One `[listener]` or several `[listener.NAME]`.
#[derive(Debug, Clone)]
pub struct Listeners {
    pub items: Vec<NamedItem<Listener>>,
}

impl Value for Listeners {
    fn shape() -> Shape {
        let named = Shape::Map { names: "names", value: Box::new(Listener::shape()) };
        Shape::Either(vec![Listener::shape(), named])
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let named = node.as_table().is_some_and(are_all_named);
        if named {
            return Named::decode(cx, node).map(|named| Self { items: named.items });
        }
        cx.shorthand = true;
        let value = cx.within("main", |cx| <Listener as Element>::decode(cx, node));
        cx.shorthand = false;
        Some(Self { items: vec![NamedItem { name: "main".to_owned(), span: node.span.clone(), value }] })
    }
}

/// Only tables whose names are no keys of a listener: then they are listeners.
fn are_all_named(entries: &[Entry]) -> bool {
    let table = Listener::table();
    let is_listener = |entry: &Entry| matches!(entry.value.kind, Kind::Table(_)) && table.key(&entry.key).is_none();
    !entries.is_empty() && entries.iter().all(is_listener)
}

impl Listener {
    pub fn resolve(&self, name: &str) -> Option<model::Listener> {
        let tls = if self.tls.is_written() { Some(self.tls.get()?.resolve()?) } else { None };
        Some(model::Listener {
            name: name.to_owned(),
            address: self.address.copied()?,
            tls,
            http2: self.http2.copied()?,
            http2_max_streams: self.http2_max_streams.copied()?,
            http2_stream_window: u32::try_from(self.http2_stream_window.copied()?.0).ok()?,
            http2_connection_window: u32::try_from(self.http2_connection_window.copied()?.0).ok()?,
            max_connections: self.max_connections.copied()?,
            max_requests_per_connection: self.max_requests_per_connection.copied()?,
            max_head_bytes: usize::try_from(self.max_head.copied()?.0).ok()?,
            max_headers: self.max_headers.copied()?,
            timeouts: self.timeouts.get()?.resolve()?,
            min_body_rate: self.min_body_rate.copied()?.0,
            trusted_proxies: self.trusted_proxies.cloned()?,
        })
    }

    pub fn check(&self, cx: &mut Decoder<'_>) {
        self.check_http2(cx);
        self.check_trust(cx);
        if self.min_body_rate.get().is_some_and(|rate| rate.0 > GIB) {
            let problem = Problem::error(Code::OutOfRange, self.min_body_rate.span(), "no client is that fast");
            cx.report(problem.expected("at most 1GiB/s"));
        }
        if let Some(timeouts) = self.timeouts.get() {
            timeouts.check(cx, self.tls.is_written());
        }
    }

    fn check_http2(&self, cx: &mut Decoder<'_>) {
        if self.http2.copied() == Some(false) {
            no_effect(cx, "http2_max_streams", &self.http2_max_streams, "`http2` is false");
            no_effect(cx, "http2_stream_window", &self.http2_stream_window, "`http2` is false");
            no_effect(cx, "http2_connection_window", &self.http2_connection_window, "`http2` is false");
            return;
        }
        let (stream, connection) = (self.http2_stream_window.copied(), self.http2_connection_window.copied());
        if let (Some(stream), Some(connection)) = (stream, connection)
            && stream.0 > connection.0
        {
            let span = self.http2_stream_window.span().or(self.http2_connection_window.span());
            let problem = Problem::error(Code::Conflict, span, "a stream's window is larger than its connection's");
            cx.report(problem.help("raise `http2_connection_window` to at least `http2_stream_window`"));
        }
    }

    /// To trust everybody is to let any client choose its address, and with it pass every limit by address.
    fn check_trust(&self, cx: &mut Decoder<'_>) {
        let Some((blocks, span)) = self.trusted_proxies.written() else { return };
        if blocks.iter().any(|block| block.prefix == 0) {
            let message = "every client is trusted to say which address it has";
            let problem = Problem::warning(Code::Exposed, span, message);
            cx.report(problem.help("name the addresses of the proxies in front of this one"));
        }
    }
}

impl ListenerTimeouts {
    fn resolve(&self) -> Option<model::ListenerTimeouts> {
        Some(model::ListenerTimeouts {
            tls_handshake: self.tls_handshake.copied()?,
            head: self.head.copied()?,
            body: self.body.copied()?,
            idle: self.idle.copied()?,
            write: self.write.copied()?,
            lifetime: self.lifetime.copied()?.0,
        })
    }

    fn check(&self, cx: &mut Decoder<'_>, tls: bool) {
        if !tls && self.tls_handshake.is_set() {
            let message = "`tls_handshake` can never fire: the listener has no `tls`";
            let problem = Problem::error(Code::NeverFires, self.tls_handshake.key_span(), message);
            cx.report(problem.help("add `tls`, or take it out"));
        }
        let lifetime = self.lifetime.copied().and_then(|lifetime| lifetime.0);
        if let (Some(lifetime), Some((idle, span))) = (lifetime, self.idle.written())
            && *idle >= lifetime
        {
            let message = "`idle` can never fire: the connection's `lifetime` ends first";
            let problem = Problem::error(Code::NeverFires, span, message);
            cx.report(problem.related(self.lifetime.span(), "the lifetime").help("make `idle` shorter"));
        }
    }
}

impl ListenerTls {
    fn resolve(&self) -> Option<model::ListenerTls> {
        let client_ca = if self.client_ca.is_written() { Some(self.client_ca.cloned()?) } else { None };
        Some(model::ListenerTls { certificate: self.certificate.cloned()?, key: self.key.cloned()?, client_ca })
    }
}
