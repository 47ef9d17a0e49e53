//! Connections to the endpoints of an upstream: made by pingora-core (TCP, TLS, HTTP/2), kept in a pool of our own.
//!
//! Pingora's own pool spawns a task for each connection that is put back and says nothing about what it holds. This
//! one is a stack for each endpoint: the connection used last is used first, so that the surplus of a burst ages out;
//! whether a connection is still good is looked at when it is taken, not by a task while it rests.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pingora::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use pingora::connectors::{ConnectorOptions, L4Connect, TransportConnector};
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{ALPN, Stream};
use pingora::upstreams::peer::HttpPeer;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::io::Io;
use super::timer::StageClock;
use crate::config::model::{Upstream, UpstreamProtocol, UpstreamTls};
use crate::telemetry::Reason;
use crate::telemetry::metrics::UpstreamMetrics;

/// Streams asked for on one HTTP/2 connection to an upstream; its own limit holds if it is lower.
const HTTP2_STREAMS: usize = 100;
/// Windows for what HTTP/2 upstreams send: what may lie in memory for a client that does not read.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Why no connection could be had.
#[derive(Debug)]
pub struct ConnectError {
    pub reason: Reason,
    pub detail: String,
}

/// What a request asks of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Whatever the upstream speaks.
    Any,
    /// One that can be upgraded: `Upgrade` is a mechanism of HTTP/1.1 (RFC 9113 §8.6).
    Upgrade,
}

impl Need {
    /// The protocols to offer. An upstream that is HTTP/2 by its configuration has no routes with upgrades.
    fn alpn(self, configured: UpstreamProtocol) -> ALPN {
        match (configured, self) {
            (UpstreamProtocol::Http1, _) | (UpstreamProtocol::Auto, Need::Upgrade) => ALPN::H1,
            (UpstreamProtocol::Http2, _) => ALPN::H2,
            (UpstreamProtocol::Auto, Need::Any) => ALPN::H2H1,
        }
    }
}

/// An HTTP/1.1 connection to an endpoint, not in use by anyone else.
#[derive(Debug)]
pub struct Http1Connection {
    pub io: Io,
    pub reused: bool,
    pub open: Open,
}

pub enum Connection {
    Http1(Http1Connection),
    Http2(ConnectionRef),
}

/// Counts a connection as opened, and as closed when it is dropped.
#[derive(Debug)]
pub struct Open(Arc<UpstreamMetrics>);

impl Open {
    fn new(metrics: &Arc<UpstreamMetrics>) -> Self {
        metrics.connections_opened.inc();
        Self(metrics.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_closed.inc();
    }
}

/// The resting connections of one endpoint.
struct Resting {
    address: SocketAddr,
    idle: Vec<(Io, Open, Instant)>,
    http2: Vec<Shared>,
}

/// An HTTP/2 connection, which is in use and at hand at once. Dropped, its streams run on and it closes after them.
struct Shared {
    connection: ConnectionRef,
    _open: Open,
    /// When it was last seen with a stream.
    used: Instant,
}

impl Shared {
    fn is_usable(&self) -> bool {
        !self.connection.is_closed() && !self.connection.is_shutting_down()
    }
}

/// Makes and keeps the connections of one upstream.
pub struct Connector {
    upstream: Arc<Upstream>,
    metrics: Arc<UpstreamMetrics>,
    /// Only with TLS: pingora's connector reads the CA certificates when it is made.
    transport: Option<TransportConnector>,
    /// A list, not a map: an upstream has few endpoints, and comparing addresses is cheaper than hashing one.
    resting: Mutex<Vec<Resting>>,
    idle: AtomicUsize,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({}, {} idle)", self.upstream.name, self.idle.load(Ordering::Relaxed))
    }
}

impl Connector {
    /// Fails when the CA certificates cannot be read.
    pub fn new(upstream: Arc<Upstream>, metrics: Arc<UpstreamMetrics>) -> Result<Self, String> {
        let transport = upstream.tls.as_ref().map(transport).transpose()?;
        Ok(Self { upstream, metrics, transport, resting: Mutex::default(), idle: AtomicUsize::new(0) })
    }

    /// A resting connection that can still be used.
    pub fn checkout(&self, address: SocketAddr, need: Need) -> Option<Connection> {
        let mut all = lock(&self.resting);
        let resting = all.iter_mut().find(|resting| resting.address == address)?;
        let mut shared = resting.http2.iter_mut().filter(|_| need == Need::Any);
        if let Some(shared) = shared.find(|shared| shared.connection.can_accept_streams(1)) {
            shared.used = Instant::now();
            self.metrics.connections_reused.inc();
            return Some(Connection::Http2(shared.connection.clone()));
        }
        while let Some((io, open, since)) = resting.idle.pop() {
            self.count_resting(-1);
            if since.elapsed() < self.upstream.timeouts.idle && io.is_quiet() {
                self.metrics.connections_reused.inc();
                return Some(Connection::Http1(Http1Connection { io, open, reused: true }));
            }
        }
        None
    }

    /// Opens a new connection. The clock's limits for connecting and the TLS handshake are set here; the caller ends
    /// the wait when they pass.
    pub async fn connect(
        &self,
        address: SocketAddr,
        host: &str,
        need: Need,
        clock: &StageClock,
    ) -> Result<Connection, ConnectError> {
        let stream = self.dial(address, host, need, clock).await?;
        let open = Open::new(&self.metrics);
        if self.speaks_http2(&stream) {
            clock.limit_answer(self.upstream.timeouts.tls, Reason::ConnectTimeout);
            return self.start_http2(stream, open, address).await;
        }
        if self.upstream.protocol == UpstreamProtocol::Http2 {
            return Err(ConnectError {
                reason: Reason::TlsFailed,
                detail: format!("{address} does not offer HTTP/2 by ALPN"),
            });
        }
        Ok(Connection::Http1(Http1Connection { io: Io::new(stream), open, reused: false }))
    }

    /// A connection of nobody's, not counted: TCP, and TLS where it is configured.
    pub async fn dial(
        &self,
        address: SocketAddr,
        host: &str,
        need: Need,
        clock: &StageClock,
    ) -> Result<Stream, ConnectError> {
        clock.limit_answer(self.upstream.timeouts.connect, Reason::ConnectTimeout);
        let tcp = TcpStream::connect(address).await.map_err(|error| ConnectError {
            reason: Reason::ConnectFailed,
            detail: format!("connect to {address}: {error}"),
        })?;
        // Small messages must not wait for the acknowledgement of earlier ones.
        let _ = tcp.set_nodelay(true);
        let stream: Stream = match (&self.transport, &self.upstream.tls) {
            (Some(transport), Some(tls)) => {
                clock.limit_answer(self.upstream.timeouts.tls, Reason::TlsTimeout);
                let alpn = need.alpn(self.upstream.protocol);
                secure(transport, tls, alpn, tcp, address, host).await?
            }
            _ => Box::new(L4Stream::from(tcp)),
        };
        Ok(stream)
    }

    fn speaks_http2(&self, stream: &Stream) -> bool {
        match (self.upstream.protocol, &self.upstream.tls) {
            (UpstreamProtocol::Http1, _) | (UpstreamProtocol::Auto, None) => false,
            (UpstreamProtocol::Http2, None) => true,
            (_, Some(_)) => matches!(stream.selected_alpn_proto(), Some(ALPN::H2)),
        }
    }

    async fn start_http2(&self, stream: Stream, open: Open, address: SocketAddr) -> Result<Connection, ConnectError> {
        let mut settings = H2HandshakeSettings::new();
        settings.max_streams = HTTP2_STREAMS;
        settings.stream_window_size = Some(HTTP2_STREAM_WINDOW);
        settings.connection_window_size = Some(HTTP2_CONNECTION_WINDOW);
        settings.ping_interval = Some(Duration::from_secs(15));
        let connection = Box::pin(handshake(stream, settings)).await.map_err(|error| ConnectError {
            reason: Reason::ConnectFailed,
            detail: format!("HTTP/2 with {address}: {error}"),
        })?;
        let shared = Shared { connection: connection.clone(), _open: open, used: Instant::now() };
        Self::resting_of(&mut lock(&self.resting), address).http2.push(shared);
        Ok(Connection::Http2(connection))
    }

    fn resting_of(all: &mut Vec<Resting>, address: SocketAddr) -> &mut Resting {
        let index = all.iter().position(|resting| resting.address == address).unwrap_or_else(|| {
            all.push(Resting { address, idle: Vec::new(), http2: Vec::new() });
            all.len() - 1
        });
        &mut all[index]
    }

    /// Puts a connection back whose last answer was read to its end.
    pub fn release(&self, address: SocketAddr, connection: Http1Connection) {
        // Under the lock, so that two at once do not both take the last place.
        let mut all = lock(&self.resting);
        if self.idle.load(Ordering::Relaxed) < self.upstream.max_idle_connections {
            self.count_resting(1);
            Self::resting_of(&mut all, address).idle.push((connection.io, connection.open, Instant::now()));
        }
    }

    /// Closes what has rested for too long or was closed by its peer; to be called now and then.
    pub fn sweep(&self) {
        let mut all = lock(&self.resting);
        for resting in all.iter_mut() {
            let before = resting.idle.len();
            resting.idle.retain(|(io, _, since)| since.elapsed() < self.upstream.timeouts.idle && io.is_quiet());
            self.count_resting(resting.idle.len() as isize - before as isize);
            for shared in resting.http2.iter_mut().filter(|shared| !shared.connection.is_idle()) {
                shared.used = Instant::now();
            }
            resting.http2.retain(|shared| shared.is_usable() && shared.used.elapsed() < self.upstream.timeouts.idle);
        }
        all.retain(|resting| !resting.idle.is_empty() || !resting.http2.is_empty());
    }

    fn count_resting(&self, change: isize) {
        self.idle.fetch_add(change as usize, Ordering::Relaxed);
        self.metrics.connections_idle.add(change as i64);
    }
}

/// The TLS handshake.
async fn secure(
    transport: &TransportConnector,
    tls: &UpstreamTls,
    alpn: ALPN,
    tcp: TcpStream,
    address: SocketAddr,
    host: &str,
) -> Result<Stream, ConnectError> {
    let server_name = tls.server_name.as_deref().unwrap_or(host);
    let mut peer = HttpPeer::new(address, true, server_name.to_owned());
    peer.options.verify_cert = tls.verify;
    peer.options.verify_hostname = tls.verify;
    peer.options.alpn = alpn;
    peer.options.custom_l4 = Some(Arc::new(Connected(Mutex::new(Some(tcp)))));
    // Boxed, as is the handshake of HTTP/2: pingora's state for them is large, rare, and would otherwise be part of
    // every request's future (measured: 20 KB copied for each request).
    Box::pin(transport.new_stream(&peer)).await.map_err(|error| ConnectError {
        reason: Reason::TlsFailed,
        detail: format!("TLS with {address} as {server_name}: {error}"),
    })
}

/// Hands pingora's connector a TCP connection that is already there, so that connecting and the TLS handshake are two
/// steps with a limit each.
#[derive(Debug)]
struct Connected(Mutex<Option<TcpStream>>);

#[async_trait::async_trait]
impl L4Connect for Connected {
    async fn connect(&self, _address: &PingoraAddr) -> pingora::Result<L4Stream> {
        match lock(&self.0).take() {
            Some(tcp) => Ok(L4Stream::from(tcp)),
            None => pingora::Error::e_explain(pingora::ErrorType::ConnectError, "the connection was already taken"),
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // The gauge belongs to the upstream's name and outlives this connector.
        self.metrics.connections_idle.sub(self.idle.load(Ordering::Relaxed) as i64);
    }
}

fn transport(tls: &UpstreamTls) -> Result<TransportConnector, String> {
    let mut options = ConnectorOptions::new(0);
    options.ca_file = tls.ca.as_ref().map(|path| path.to_string_lossy().into_owned());
    // Pingora panics when it cannot read CA certificates; here that is a mistake in the configuration.
    catch_unwind(AssertUnwindSafe(|| TransportConnector::new(Some(options)))).map_err(|_| match &tls.ca {
        Some(path) => format!("the CA certificates in {} cannot be read", path.display()),
        None => "the system has no CA certificates; name a file in tls.ca".to_owned(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
