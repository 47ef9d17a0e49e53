//! Simulated slow upstreams that behave like servers: with workers, a queue and faults, not just a delay.
//!
//! `settings` says what they are, `draw` decides what one request meets by its latency and `schedule`, and `model` when it
//! is done (all pure); `workers` lets requests wait for that, `serve` has the connections, `answer` and `raw` make the
//! right and the wrong answers; `report` and `endpoint` show the numbers. Nothing here knows the proxy: the two meet over
//! loopback only.

mod answer;
mod draw;
pub mod model;
mod raw;
pub mod report;
mod schedule;
mod serve;
pub mod settings;
mod timer;
mod workers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;

pub use draw::{Draw, draw, draw_at};
pub use settings::{Settings, SettingsError, Upstream};
pub use workers::{HoldError, Stats};

use crate::scrape;
use serve::Server;
use settings::Capacity;
use workers::{Counters, Workers};

/// Connections that the kernel holds for a server that accepts as fast as it can.
const BACKLOG: i32 = 4096;

/// Simulated upstreams with their sockets bound, not yet answering.
#[derive(Debug)]
pub struct Simulator {
    bound: Vec<Bound>,
    /// Where the numbers are shown.
    metrics: Option<TcpListener>,
}

#[derive(Debug)]
struct Bound {
    listener: TcpListener,
    server: Arc<Server>,
    handle: Handle,
}

/// The address and the numbers of one upstream; stays valid while it runs and afterwards.
#[derive(Debug, Clone)]
pub struct Handle {
    pub name: String,
    pub address: SocketAddr,
    workers: Arc<Workers>,
}

impl Handle {
    pub fn stats(&self) -> Stats {
        self.workers.stats()
    }

    /// How exactly requests have been held so far.
    pub fn hold_error(&self) -> HoldError {
        self.workers.hold_error()
    }
}

impl Simulator {
    /// Binds every address. From here on clients can connect, and wait in the kernel's backlog.
    pub fn bind(settings: Settings) -> io::Result<Self> {
        let Settings { seed, metrics, upstreams } = settings;
        let metrics = metrics.map(|address| scrape::bind("[metrics]", address)).transpose()?;
        let bound = upstreams.into_iter().map(|upstream| bind_upstream(seed, upstream)).collect::<io::Result<_>>()?;
        Ok(Self { bound, metrics })
    }

    /// Where the numbers are shown, if the settings say so.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The upstreams, in the order of the settings (of their names, when they came from a file).
    pub fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.bound.iter().map(|bound| &bound.handle)
    }

    pub fn handle(&self, name: &str) -> Option<Handle> {
        self.handles().find(|handle| handle.name == name).cloned()
    }

    /// Serves until `cancel` is ready; then every connection is cut, as when a server is killed.
    pub async fn run(self, cancel: impl Future<Output = ()>) -> io::Result<()> {
        let mut servers = JoinSet::new();
        if let Some(listener) = self.metrics {
            let handles: Vec<Handle> = self.bound.iter().map(|bound| bound.handle.clone()).collect();
            let listener = tokio::net::TcpListener::from_std(listener)?;
            servers.spawn(scrape::serve(listener, move || report::exposition(&handles)));
        }
        for Bound { listener, server, .. } in self.bound {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let workers = Arc::clone(&server.workers);
            servers.spawn(async move {
                if let Err(error) = workers.drive().await {
                    tracing::error!(%error, "the timer of a simulated upstream failed");
                }
            });
            match server.upstream.capacity {
                Capacity::Sync { queue } => servers.spawn(serve::serve_one_at_a_time(server, listener, queue)),
                Capacity::Unlimited | Capacity::Workers { .. } => {
                    servers.spawn(serve::serve_concurrently(server, listener))
                }
            };
        }
        cancel.await;
        servers.shutdown().await;
        Ok(())
    }
}

fn bind_upstream(seed: u64, upstream: Upstream) -> io::Result<Bound> {
    let listener = listen(upstream.address, upstream.capacity).map_err(|error| {
        let Upstream { name, address, .. } = &upstream;
        io::Error::new(error.kind(), format!("[upstream.{name}]: cannot listen on {address}: {error}"))
    })?;
    let counters = Arc::new(Counters::default());
    let upstream = Arc::new(upstream);
    let workers = Arc::new(Workers::new(seed, Arc::clone(&upstream), Arc::clone(&counters))?);
    let handle = Handle { name: upstream.name.clone(), address: listener.local_addr()?, workers: Arc::clone(&workers) };
    Ok(Bound { listener, server: Arc::new(Server { upstream, workers, counters }), handle })
}

fn listen(address: SocketAddr, capacity: Capacity) -> io::Result<TcpListener> {
    // A synchronous server that is behind leaves clients in the kernel's backlog, as Python's does, so that one must be
    // as short as its queue. Shorter still, and a burst of connections would meet a full backlog before the accepting
    // task has run once: a dropped SYN is sent again after a second only.
    let backlog = match capacity {
        Capacity::Sync { queue } => i32::try_from(queue).unwrap_or(BACKLOG).min(BACKLOG),
        Capacity::Unlimited | Capacity::Workers { .. } => BACKLOG,
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
