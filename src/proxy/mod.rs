//! The data path: the only part that names pingora.
//!
//! What happens to a request, in order: `listener` accepts a connection, `http1` or `http2` reads a head from it,
//! `exchange` finds the route and admits the request, `attempt` gets a connection to an upstream (`connector`), `relay`
//! moves the bodies, `respond` answers what failed. `generation` is the configuration that all of them work with.
//!
//! From pingora-core come the transports: TLS on both sides, HTTP/2 on both sides, connecting. HTTP/1 is our own
//! (`message`, `body`, `sink`): `docs/decisions/0001-data-path.md` says why.

mod aggregate;
mod attempt;
mod body;
mod buffer;
mod client;
mod connector;
mod exchange;
mod experiments;
mod generation;
mod http1;
mod http2;
mod io;
mod jobs;
mod listener;
mod mirror;
mod paced;
mod prepare;
mod probe;
mod race;
mod relay;
mod respond;
mod sink;
mod stream;
mod subrequest;
mod throttle;
mod timer;
mod tls;
mod upgrade;
mod workspace;

use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::limits::Seed;
use crate::server::DataPath;
use crate::shutdown::Lifecycle;
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::RouteMetrics;
use generation::Generation;

/// Why a configuration cannot be put to work although it is valid: a certificate does not fit its key, ...
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// The running data path of one process (or of one test: nothing in it is global).
pub struct Proxy {
    generation: ArcSwap<Generation>,
    /// One reload at a time.
    reloading: Mutex<()>,
    telemetry: Arc<Telemetry>,
    unmatched: Arc<RouteMetrics>,
    tasks: Tasks,
    lifecycle: Lifecycle,
    seed: Seed,
    open_requests: AtomicUsize,
    open_connections: AtomicUsize,
}

impl Proxy {
    /// Compiles the configuration. Must run inside a tokio runtime: upstreams start their tasks.
    pub fn new(
        config: Arc<Config>,
        telemetry: Arc<Telemetry>,
        tasks: Tasks,
        lifecycle: Lifecycle,
    ) -> Result<Arc<Self>, StartError> {
        let seed = Seed(u128::from(rand::random::<u64>()) << 64 | u128::from(rand::random::<u64>()));
        let generation = Generation::build(config, None, &telemetry, &tasks, seed).map_err(StartError)?;
        generation.activate();
        Ok(Arc::new(Self {
            generation: ArcSwap::from_pointee(generation),
            reloading: Mutex::new(()),
            unmatched: telemetry.unmatched_route(),
            telemetry,
            tasks,
            lifecycle,
            seed,
            open_requests: AtomicUsize::new(0),
            open_connections: AtomicUsize::new(0),
        }))
    }

    /// Puts another configuration to work: atomically for each request, and not at all when it cannot be used.
    /// Sockets are the caller's: it serves the listeners that are new and stops those that are gone.
    pub fn reload(&self, config: Arc<Config>) -> Result<(), StartError> {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.generation.load_full();
        let next =
            Generation::build(config, Some(&current), &self.telemetry, &self.tasks, self.seed).map_err(StartError)?;
        next.activate();
        self.generation.store(Arc::new(next));
        Ok(())
    }

    /// Accepts connections for the configuration's listener of this name until `stop` is cancelled. Connections that
    /// are open then go on.
    pub fn serve(self: &Arc<Self>, socket: TcpListener, listener: &str, stop: CancellationToken) {
        let accept = listener::accept_loop(self.clone(), socket, listener.into(), stop);
        self.tasks.spawn("accept", accept);
    }

    /// Requests whose answer is not complete, and upgraded connections.
    pub fn open_requests(&self) -> usize {
        self.open_requests.load(std::sync::atomic::Ordering::Acquire)
    }

    pub fn open_connections(&self) -> usize {
        self.open_connections.load(std::sync::atomic::Ordering::Acquire)
    }

    /// True while new requests are served as they should be.
    pub fn ready(&self) -> bool {
        self.lifecycle.is_serving()
    }

    fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({:?})", self.generation())
    }
}

impl DataPath for Arc<Proxy> {
    fn reload(&self, config: Arc<Config>) -> Result<(), String> {
        Proxy::reload(self, config).map_err(|error| error.to_string())
    }

    fn serve(&self, socket: TcpListener, listener: &str, stop: CancellationToken) {
        Proxy::serve(self, socket, listener, stop);
    }

    fn open_requests(&self) -> usize {
        Proxy::open_requests(self)
    }

    fn open_connections(&self) -> usize {
        Proxy::open_connections(self)
    }

    fn ready(&self) -> bool {
        Proxy::ready(self)
    }

    fn flush(&self, limit: std::time::Duration) -> bool {
        self.generation().recorder.as_ref().is_none_or(|recorder| recorder.flush(limit))
    }
}

/// Counts something while it lives.
struct Counted<'p>(&'p AtomicUsize);

impl<'p> Counted<'p> {
    fn new(count: &'p AtomicUsize) -> Self {
        count.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
    }
}

/// Counts work that may outlive the connection it began on as an open request: shutdown waits for it.
struct OpenRequest(Arc<Proxy>);

impl OpenRequest {
    fn new(proxy: Arc<Proxy>) -> Self {
        proxy.open_requests.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        Self(proxy)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open_requests.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
    }
}
