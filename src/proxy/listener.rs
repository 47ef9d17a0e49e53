//! Accepting connections: limits, TLS, and which protocol is spoken.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{ALPN, Stream};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::Buf;
use super::generation::ListenerRuntime;
use super::io::Io;
use super::timer::LazyTimer;
use super::{Counted, Proxy, http1, http2};

/// Waiting time after a failed accept (no descriptors left): long enough not to spin, short enough to recover at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// What the kernel may hold of an answer that is not on its way yet. Its own buffer grows to megabytes and reports room
/// only when a third of it is free: a client that reads slowly, but reads, would look as if it stood still and be cut by
/// the write limit. With this, each 64 KiB that it takes are progress.
const MAX_UNSENT: u32 = 128 * 1024;
/// What a client gets that would be one connection too many.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\
x-forebay-reason: too_many_connections\r\ncontent-length: 0\r\n\r\n";
/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What every request of a connection has in common.
pub struct ConnectionInfo {
    pub listener: Arc<ListenerRuntime>,
    pub peer: SocketAddr,
    pub secure: bool,
    /// When the connection has to end by its lifetime.
    pub ends_at: Option<Instant>,
}

impl ConnectionInfo {
    /// How long a new connection may be silent. It has not been used yet, so the idle time between two requests is not
    /// meant for it; a longer head limit does not keep it beyond that either.
    pub fn first_head(&self) -> Duration {
        let timeouts = self.listener.timeouts();
        timeouts.head.min(timeouts.idle)
    }
}

/// Accepts until `stop` is cancelled.
pub async fn accept_loop(proxy: Arc<Proxy>, socket: TcpListener, name: Arc<str>, stop: CancellationToken) {
    let socket = match socket.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(socket)) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = &*name, %error, "the listening socket cannot be used");
            return;
        }
    };
    bound_unsent(&socket);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        // Settings of the listener may have changed with a reload since the last connection.
        let Some(listener) = proxy.generation().listener(&name).cloned() else { return };
        match accepted {
            Ok((tcp, peer)) => {
                listener.metrics.accepted.inc();
                admit(&proxy, listener, tcp, peer);
            }
            Err(error) => {
                listener.metrics.accept_errors.inc();
                if is_about_one_connection(&error) {
                    continue;
                }
                tracing::warn!(listener = &*name, %error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Accepted connections inherit the option. It is a matter of memory and of fairness, not of being able to serve.
fn bound_unsent(socket: &tokio::net::TcpListener) {
    if let Err(error) = socket2::SockRef::from(socket).set_tcp_notsent_lowat(MAX_UNSENT) {
        tracing::debug!(%error, "the kernel does not bound what is unsent on a connection");
    }
}

/// The peer gave up between the handshake and our accept; nothing is wrong here.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn admit(proxy: &Arc<Proxy>, listener: Arc<ListenerRuntime>, tcp: TcpStream, peer: SocketAddr) {
    if listener.metrics.open.get() >= i64::try_from(listener.config.max_connections).unwrap_or(i64::MAX) {
        listener.metrics.rejected.inc();
        if listener.acceptor.is_none() {
            // One write into an empty socket buffer: it either fits or the client learns by the close alone.
            let _ = tcp.try_write(TOO_MANY);
        }
        return;
    }
    listener.metrics.open.inc();
    let open = OpenConnection(listener.clone());
    let proxy = proxy.clone();
    // Ends with the connection, which is bounded by the head, idle and lifetime limits and by the deadlines.
    proxy.tasks.clone().spawn("connection", async move {
        let _open = open;
        let _counted = Counted::new(&proxy.open_connections);
        let _ = tcp.set_nodelay(true);
        let ends_at = listener.timeouts().lifetime.map(|lifetime| Instant::now() + lifetime);
        let secure = listener.acceptor.is_some();
        let info = ConnectionInfo { listener, peer, secure, ends_at };
        serve_connection(&proxy, info, tcp).await;
    });
}

struct OpenConnection(Arc<ListenerRuntime>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.metrics.open.dec();
    }
}

async fn serve_connection(proxy: &Arc<Proxy>, info: ConnectionInfo, tcp: TcpStream) {
    let plain = L4Stream::from(tcp);
    let Some(acceptor) = info.listener.acceptor.clone() else {
        return serve_plain(proxy, info, Box::new(plain)).await;
    };
    let limit = info.listener.timeouts().tls_handshake;
    // Boxed, with the stream made a trait object inside: the handshake's state must not be part of the connection's
    // future, which lives as long as the connection.
    let handshake: BoxFuture<'_, _> = Box::pin(async move {
        let handshake = tokio::time::timeout(limit, acceptor.tls_handshake(plain)).await;
        handshake.map(|done| done.map(|stream| Box::new(stream) as Stream))
    });
    match handshake.await {
        Ok(Ok(stream)) => {
            if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
                Box::pin(http2::serve(proxy, info, stream)).await;
            } else {
                http1::serve(proxy, info, Io::new(stream), Buf::default()).await;
            }
        }
        Ok(Err(error)) => {
            info.listener.metrics.tls_handshake_failures.inc();
            tracing::debug!(peer = %info.peer, %error, "the TLS handshake failed");
        }
        Err(_) => {
            info.listener.metrics.tls_handshake_failures.inc();
            tracing::debug!(peer = %info.peer, "the TLS handshake took too long");
        }
    }
}

/// In the clear, HTTP/2 announces itself by its preface, of which no HTTP/1 request is a beginning.
async fn serve_plain(proxy: &Arc<Proxy>, info: ConnectionInfo, stream: Stream) {
    let io = Io::new(stream);
    let mut buf = Buf::default();
    if !info.listener.config.http2 {
        return http1::serve(proxy, info, io, buf).await;
    }
    let limit = Instant::now() + info.first_head();
    let mut timer = LazyTimer::new(limit);
    loop {
        let read = poll_fn(|cx| {
            if let Poll::Ready(read) = io.poll_first_read(cx, &mut buf) {
                return Poll::Ready(read.ok());
            }
            timer.poll_until(cx, limit).map(|()| None)
        });
        match read.await {
            Some(n) if n > 0 => {}
            _ => return,
        }
        let seen = buf.len().min(PREFACE.len());
        if buf.filled()[..seen] != PREFACE[..seen] {
            return http1::serve(proxy, info, io, buf).await;
        }
        if seen == PREFACE.len() {
            let Some(stream) = unread(io.into_stream(), buf.filled()) else { return };
            // Not only at the end of this function, which is that of the connection.
            drop((buf, timer));
            return Box::pin(http2::serve(proxy, info, stream)).await;
        }
    }
}

/// Gives bytes back to a plain stream, to be read again.
fn unread(stream: Stream, bytes: &[u8]) -> Option<Stream> {
    let mut stream = stream.into_any().downcast::<L4Stream>().ok()?;
    stream.rewind(bytes);
    Some(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that this function gives.
    fn size<'p, A, F>(_: impl FnOnce(&'p Arc<Proxy>, ConnectionInfo, A) -> F) -> usize {
        size_of::<F>()
    }

    /// Each connection owns one of these for all its life, whatever it does.
    #[test]
    fn the_futures_of_connections_are_small() {
        let connection = size(serve_connection);
        let http1 = size(|proxy, info, io| http1::serve(proxy, info, io, Buf::default()));
        let http2 = size(http2::serve);

        println!("a connection {connection}, HTTP/1 {http1}, HTTP/2 {http2} bytes");
        assert!(connection <= 1536, "{connection}");
        assert!(http1 <= 768, "{http1}");
        assert!(http2 <= 4096, "{http2}");
    }
}
