//! Where connections go, and making one: resolving, TCP or a unix socket, TLS.
//!
//! Names are resolved once, before the run: the addresses that were checked are then those that are loaded, and a slow
//! resolver is not measured in place of the target.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::failure;
use crate::load::ErrorKind;

/// Whom a target talks to. Targets of one origin share connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub tls: bool,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Connect here instead; the host then only goes to `Host` and SNI.
    pub unix: Option<PathBuf>,
}

impl Origin {
    /// `host:port` as it stands in a URL, the port left out where it is the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())?;
        match &self.unix {
            Some(path) => write!(f, " over {}", path.display()),
            None => Ok(()),
        }
    }
}

/// An origin with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub origin: Origin,
    /// Empty for a unix socket.
    pub addresses: Vec<SocketAddr>,
}

/// Finds the addresses of an origin.
///
/// # Errors
///
/// When its name has none.
pub async fn resolve(origin: &Origin) -> io::Result<Resolved> {
    if origin.unix.is_some() {
        return Ok(Resolved { origin: origin.clone(), addresses: Vec::new() });
    }
    let found = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
    let addresses: Vec<SocketAddr> = found
        .map_err(|error| io::Error::new(error.kind(), format!("cannot resolve {}: {error}", origin.host)))?
        .collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", origin.host)));
    }
    Ok(Resolved { origin: origin.clone(), addresses })
}

/// A connection: TCP or unix, with or without TLS.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub type Stream = Box<dyn Io>;

/// Makes connections to one origin.
pub struct Connector {
    addresses: Vec<SocketAddr>,
    unix: Option<PathBuf>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// For TLS: the target must agree to speak HTTP/2.
    must_be_http2: bool,
    timeout: Duration,
    /// The address that worked last: `localhost` has two, and trying the wrong one first for each connection would
    /// be measured.
    preferred: AtomicUsize,
}

impl Connector {
    /// # Errors
    ///
    /// When the host is not a name that TLS can check.
    pub fn new(
        resolved: &Resolved,
        tls: Option<&Arc<rustls::ClientConfig>>,
        must_be_http2: bool,
        timeout: Duration,
    ) -> io::Result<Self> {
        let origin = &resolved.origin;
        let server_name = || {
            ServerName::try_from(origin.host.clone())
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a host name", origin.host)))
        };
        let tls = match tls.filter(|_| origin.tls) {
            Some(config) => Some((TlsConnector::from(Arc::clone(config)), server_name()?)),
            None => None,
        };
        Ok(Self {
            addresses: resolved.addresses.clone(),
            unix: origin.unix.clone(),
            tls,
            must_be_http2,
            timeout,
            preferred: AtomicUsize::new(0),
        })
    }

    /// A new connection, ready for HTTP, within the time for connecting (the TLS handshake included).
    pub async fn connect(&self) -> Result<Stream, ErrorKind> {
        timeout(self.timeout, self.open()).await.unwrap_or(Err(ErrorKind::ConnectTimeout))
    }

    async fn open(&self) -> Result<Stream, ErrorKind> {
        if let Some(path) = &self.unix {
            let stream = UnixStream::connect(path).await.map_err(|error| failure::of_connect(&error))?;
            return self.secure(stream).await;
        }
        self.secure(self.open_tcp().await?).await
    }

    /// Tries the addresses in order, beginning with the one that worked last. The first error is the one that is
    /// told: the others are those of addresses that were only tried for it.
    async fn open_tcp(&self) -> Result<TcpStream, ErrorKind> {
        let (count, first) = (self.addresses.len(), self.preferred.load(Ordering::Relaxed));
        let mut failed = None;
        for step in 0..count {
            let index = (first + step) % count;
            match TcpStream::connect(self.addresses[index]).await {
                Ok(stream) => {
                    if step > 0 {
                        self.preferred.store(index, Ordering::Relaxed);
                    }
                    // Cannot fail on a connected socket in a way that would matter.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failed = failed.or(Some(failure::of_connect(&error))),
            }
        }
        Err(failed.unwrap_or(ErrorKind::Dns))
    }

    async fn secure<T: Io + 'static>(&self, stream: T) -> Result<Stream, ErrorKind> {
        let Some((connector, name)) = &self.tls else { return Ok(Box::new(stream)) };
        let stream = connector.connect(name.clone(), stream).await.map_err(|error| failure::of_handshake(&error))?;
        if self.must_be_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ErrorKind::Protocol);
        }
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(tls: bool, host: &str, port: u16) -> Origin {
        Origin { tls, host: host.to_owned(), port, unix: None }
    }

    #[test]
    fn the_authority_leaves_the_port_of_the_scheme_out() {
        assert_eq!(origin(false, "a.example", 80).authority(), "a.example");
        assert_eq!(origin(true, "a.example", 80).authority(), "a.example:80");
        assert_eq!(origin(true, "::1", 443).authority(), "[::1]");
        assert_eq!(origin(false, "::1", 8080).to_string(), "http://[::1]:8080");
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_an_error_before_the_run() {
        let error = resolve(&origin(false, "no-such-host.invalid", 80)).await.expect_err("no address");

        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }

    #[tokio::test]
    async fn the_address_that_works_is_tried_first_from_then_on() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bad = closed.local_addr().unwrap();
        drop(closed);
        let connector = Connector {
            addresses: vec![bad, good],
            unix: None,
            tls: None,
            must_be_http2: false,
            timeout: Duration::from_secs(5),
            preferred: AtomicUsize::new(0),
        };

        connector.connect().await.map(drop).expect("the second address");

        assert_eq!(connector.preferred.load(Ordering::Relaxed), 1);
    }
}
