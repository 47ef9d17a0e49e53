//! HTTP/2: many requests on a connection, and the connections of an origin.
//!
//! As many requests share a connection as the target allows, then another one is made: requests that queued inside
//! the generator for a free stream would be measured as latency of the target.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::origin::{Connector, Stream};
use super::{RequestBody, failure};
use crate::load::ErrorKind;

/// Before the target has said how many streams it allows, and at most: what it allows beyond that is better spread.
const MOST_STREAMS: usize = 100;

/// Windows large enough that a loopback or data-centre target is never slowed down by this side.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

type Connecting = Shared<BoxFuture<'static, Result<(), ErrorKind>>>;

/// The connections of one origin.
pub struct Connections {
    connector: Arc<Connector>,
    requests_per_connection: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    open: Vec<Arc<Connection>>,
    /// Only one at a time is made, however many requests wait for it.
    connecting: Option<Connecting>,
}

struct Connection {
    sender: http2::SendRequest<RequestBody>,
    in_flight: AtomicUsize,
    requests: AtomicU32,
    most_streams: Arc<AtomicUsize>,
}

/// A place on a connection for one request.
pub struct Place(Arc<Connection>);

impl Place {
    pub fn sender(&self) -> http2::SendRequest<RequestBody> {
        self.0.sender.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub fn new(connector: Arc<Connector>, requests_per_connection: u32) -> Self {
        Self { connector, requests_per_connection, state: Arc::default() }
    }

    /// A place, and how long a connection was waited for if there was none.
    pub async fn place(&self) -> Result<(Place, Option<Duration>), ErrorKind> {
        let mut began = None;
        loop {
            let connecting = {
                let mut state = lock(&self.state);
                if let Some(place) = state.place(self.requests_per_connection) {
                    return Ok((place, began.map(|began: Instant| began.elapsed())));
                }
                state.connecting.get_or_insert_with(|| self.connect()).clone()
            };
            began.get_or_insert_with(Instant::now);
            connecting.await?;
        }
    }

    /// Makes a connection and adds it. Shared by all who wait; goes on as long as one of them does.
    fn connect(&self) -> Connecting {
        let (connector, state) = (Arc::clone(&self.connector), Arc::clone(&self.state));
        let work = async move {
            let connection = open(&connector).await;
            let mut state = lock(&state);
            state.connecting = None;
            state.open.push(Arc::new(connection?));
            Ok(())
        };
        work.boxed().shared()
    }
}

impl State {
    fn place(&mut self, requests_per_connection: u32) -> Option<Place> {
        self.open.retain(|connection| {
            !connection.sender.is_closed() && connection.requests.load(Ordering::Relaxed) < requests_per_connection
        });
        let free = self.open.iter().find(|connection| {
            connection.in_flight.load(Ordering::Relaxed) < connection.most_streams.load(Ordering::Relaxed)
        })?;
        // Under the lock of the state, so what was just compared still holds (others only ever give back).
        free.in_flight.fetch_add(1, Ordering::Relaxed);
        free.requests.fetch_add(1, Ordering::Relaxed);
        Some(Place(Arc::clone(free)))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A list of connections is as good after a panic as before.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn open(connector: &Connector) -> Result<Connection, ErrorKind> {
    let stream: Stream = connector.connect().await?;
    let handshake = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, driver) = handshake.map_err(|error| failure::of_exchange(&error))?;
    let most_streams = Arc::new(AtomicUsize::new(MOST_STREAMS));
    // Ends when the connection does, which it does by itself once nobody can send any more.
    tokio::spawn(drive(driver, Arc::clone(&most_streams)));
    Ok(Connection { sender, in_flight: AtomicUsize::new(0), requests: AtomicU32::new(0), most_streams })
}

type Driver = http2::Connection<TokioIo<Stream>, RequestBody, TokioExecutor>;

/// Lets the connection work, and keeps up with how many streams the target allows.
async fn drive(driver: Driver, most_streams: Arc<AtomicUsize>) {
    let mut driver = pin!(driver);
    poll_fn(|context| {
        let ended = driver.as_mut().poll(context).map(drop);
        most_streams.store(driver.current_max_send_streams().clamp(1, MOST_STREAMS), Ordering::Relaxed);
        ended
    })
    .await;
}
