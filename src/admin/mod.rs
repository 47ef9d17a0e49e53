//! The admin listener: metrics, probes, the built-in page. Read-only, loopback unless said otherwise.
//!
//! It runs on the same runtime as the data path, so everything here is bounded: connections, the time for a head,
//! a connection's life, how much is encoded at once (`scrapes`), and what the answers hold that are being read (`held`).
//! Yet a probe always gets its answer: `places` makes room for it. `guard` says who may ask, `pages` what is answered,
//! `page` what is shown to people.

mod body;
mod guard;
mod held;
pub mod page;
mod pages;
mod places;
mod problem;
mod scrapes;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
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

use body::Body;
use held::Held;
use page::Page;
use places::{Place, Places, Watched};
use scrapes::Scrapes;

/// Connections at once; one more takes the place of the one that has stood still for longest. A Prometheus or two, a
/// kubelet and some people fit well.
const MAX_CONNECTIONS: usize = 64;
/// Connections that lost their place are reported this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Scrapes that wait for their answer. Many: they share the work.
const MAX_SCRAPES: usize = 32;

/// Views made at once. With the scrapes the only work that takes more than a moment: fewer than the connections, so that
/// there is always one that may lose its place.
const MAX_VIEWS: usize = 8;
const _: () = assert!(MAX_SCRAPES + MAX_VIEWS < MAX_CONNECTIONS);

/// For a request's head; also how long a connection may be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection takes no new request after this...
const LIFETIME: Duration = Duration::from_secs(60);

/// ... and is cut when the answer has not been read this long after it.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// A client that takes nothing of its answer for so long is cut.
const WRITE_STALL: Duration = Duration::from_secs(5);

/// What the kernel may hold of an answer that is not on its way. By default it reports room only when a third of
/// megabytes is free, and a slow reader would look like one that stands still.
const MAX_UNSENT: u32 = 64 << 10;

/// After a failed `accept` (no file descriptor left, ...): trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers that are being read may hold together. A scrape of 50 routes takes 0.7 MB, one of 1000 routes 13 MB.
pub const MAX_HELD_BYTES: usize = 32 << 20;

/// Room for a head. Larger ones are answered 431 by hyper.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// For a connection without a place.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\
content-type: text/plain; charset=utf-8\r\ncontent-length: 35\r\n\r\ntoo many scrapes at once: try again";

/// What the pages show; exchanged as a whole by each reload.
#[derive(Debug, Clone)]
pub struct View {
    pub version: ConfigVersion,
    pub last_reload: Option<LastReload>,
    /// Settings whose new value waits for a restart.
    pub pending_restart: Vec<&'static str>,
}

/// How an answer ends before its time.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// The connection takes no new request: streams end, which would go on for ever.
    closing: CancellationToken,
    /// Cancelled by whoever needs its bytes: the connection ends at once.
    cut: CancellationToken,
}

/// Everything that the pages need.
pub struct Admin {
    lifecycle: Lifecycle,
    data_path: Arc<dyn DataPath>,
    telemetry: Arc<Telemetry>,
    view: Arc<ArcSwap<View>>,
    scrapes: Scrapes,
    views: Arc<Semaphore>,
    held: Arc<Held>,
    page: Page,
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
        let (scrapes, views) = (Scrapes::new(MAX_SCRAPES), Arc::new(Semaphore::new(MAX_VIEWS)));
        let loopback = address.ip().to_canonical().is_loopback();
        let (held, page) = (Held::new(MAX_HELD_BYTES), Page::default());
        Arc::new(Self { lifecycle, data_path, telemetry, view, scrapes, views, held, page, loopback })
    }

    /// Serves `socket` until `stop`; connections end by their own limits.
    pub fn serve(self: &Arc<Self>, socket: TcpListener, tasks: &Tasks, stop: CancellationToken) -> io::Result<()> {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let (admin, spawner) = (Arc::clone(self), tasks.clone());
        let (reader, until) = (page::sample::run(Arc::clone(self)), stop.clone());
        tasks.spawn("admin page", async move {
            until.run_until_cancelled(reader).await;
        });
        tasks.spawn("admin", async move {
            let accept = accept_loop(admin, socket, spawner, stop.clone());
            // Dropping the loop closes the socket.
            stop.run_until_cancelled(accept).await;
        });
        Ok(())
    }
}

async fn accept_loop(admin: Arc<Admin>, socket: tokio::net::TcpListener, tasks: Tasks, stop: CancellationToken) {
    if let Err(error) = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(MAX_UNSENT) {
        tracing::debug!(%error, "the kernel does not bound what is unsent on a connection");
    }
    let places = Places::new(MAX_CONNECTIONS);
    let reports = RateBound::new(LOG_EVERY);
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let entered = places.enter();
        if entered.as_ref().is_none_or(|entered| entered.evicted)
            && let Some(suppressed) = reports.allow(std::time::Instant::now())
        {
            tracing::warn!(limit = MAX_CONNECTIONS, suppressed, "too many admin connections: an idle one was closed");
        }
        let Some(entered) = entered else {
            refuse(&stream);
            continue;
        };
        let (admin, stop) = (Arc::clone(&admin), stop.clone());
        tasks.spawn("admin connection", connection(admin, stream, entered.place, stop));
    }
}

/// Says why there is no place. One write into an empty socket buffer fits; what the client has sent already is read,
/// because closing over it would throw the answer away (RFC 9112 §9.6).
fn refuse(stream: &TcpStream) {
    let _ = stream.try_write(NO_PLACE);
    let _ = stream.try_read(&mut [0; 4096]);
}

/// One connection, until its client leaves, it is idle for too long, its place is needed, its life is over or `stop`.
async fn connection(admin: Arc<Admin>, stream: TcpStream, place: Arc<Place>, stop: CancellationToken) {
    let stream = Watched::new(stream, Arc::clone(&place), WRITE_STALL);
    let worker = Arc::clone(&place);
    let closing = CancellationToken::new();
    let _closing = closing.clone().drop_guard();
    let ends = Ends { closing: closing.clone(), cut: place.end() };
    let service = service_fn(move |request| {
        let (admin, work, ends) = (Arc::clone(&admin), worker.work(), ends.clone());
        async move {
            let answer = pages::answer(&admin, request, ends).await;
            drop(work);
            Ok::<_, Infallible>(answer)
        }
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
        () = place.lost() => return,
        () = tokio::time::sleep(LIFETIME) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    closing.cancel();
    tokio::select! {
        _ = connection => {}
        () = place.lost() => {}
        () = tokio::time::sleep(LAST_ANSWER) => {}
    }
}

#[cfg(test)]
mod tests;
