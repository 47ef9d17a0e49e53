//! The admin listener: metrics, probes, the effective configuration. Read-only, loopback unless said otherwise.
//!
//! It runs on the same runtime as the data path, so everything here is bounded: connections, the time for a head,
//! a connection's life, and how many scrapes are encoded at once. `guard` says who may ask, `pages` what is answered.

mod guard;
mod pages;
mod problem;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::reload::{ConfigVersion, LastReload};
use crate::server::DataPath;
use crate::shutdown::Lifecycle;
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::telemetry::logging::RateBound;

type Body = Full<Bytes>;

/// Connections at once; one more is closed at once. A Prometheus or two, a kubelet and some people fit well.
const MAX_CONNECTIONS: usize = 64;
/// Refused connections are reported this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Scrapes encoded at once.
const MAX_RENDERS: usize = 2;

/// For a request's head; also how long a connection may be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection takes no new request after this...
const LIFETIME: Duration = Duration::from_secs(60);

/// ... and is cut when the answer has not been read this long after it.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// After a failed `accept` (no file descriptor left, ...): trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Room for a head. Larger ones are answered 431 by hyper.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// What the pages show; exchanged as a whole by each reload.
#[derive(Debug, Clone)]
pub struct View {
    pub version: ConfigVersion,
    pub last_reload: Option<LastReload>,
    /// Settings whose new value waits for a restart.
    pub pending_restart: Vec<&'static str>,
}

/// Everything that the pages need.
pub struct Admin {
    lifecycle: Lifecycle,
    data_path: Arc<dyn DataPath>,
    telemetry: Arc<Telemetry>,
    view: Arc<ArcSwap<View>>,
    renders: Arc<Semaphore>,
    /// The listener's address is of loopback.
    loopback: bool,
}

impl Admin {
    pub fn new(
        address: SocketAddr,
        lifecycle: Lifecycle,
        data_path: Arc<dyn DataPath>,
        telemetry: Arc<Telemetry>,
        view: Arc<ArcSwap<View>>,
    ) -> Arc<Self> {
        let renders = Arc::new(Semaphore::new(MAX_RENDERS));
        let loopback = address.ip().to_canonical().is_loopback();
        Arc::new(Self { lifecycle, data_path, telemetry, view, renders, loopback })
    }

    /// Serves `socket` until `stop`; connections end by their own limits.
    pub fn serve(self: &Arc<Self>, socket: TcpListener, tasks: &Tasks, stop: CancellationToken) -> io::Result<()> {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let (admin, spawner) = (Arc::clone(self), tasks.clone());
        tasks.spawn("admin", async move {
            let accept = accept_loop(admin, socket, spawner, stop.clone());
            // Dropping the loop closes the socket.
            stop.run_until_cancelled(accept).await;
        });
        Ok(())
    }
}

async fn accept_loop(admin: Arc<Admin>, socket: tokio::net::TcpListener, tasks: Tasks, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let refusals = RateBound::new(LOG_EVERY);
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            if let Some(suppressed) = refusals.allow(std::time::Instant::now()) {
                tracing::warn!(
                    limit = MAX_CONNECTIONS,
                    suppressed,
                    "an admin connection was closed: too many are open"
                );
            }
            continue;
        };
        let (admin, stop) = (Arc::clone(&admin), stop.clone());
        tasks.spawn("admin connection", async move {
            connection(admin, stream, stop).await;
            drop(permit);
        });
    }
}

/// One connection, until its client leaves, it is idle for too long, its life is over or `stop`.
async fn connection(admin: Arc<Admin>, stream: TcpStream, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(pages::answer(&admin, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // The client's mistakes and its leaving are its own business.
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(LIFETIME) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
}

#[cfg(test)]
mod tests;
