//! HTTP/2: many requests on a connection, and the connections of an origin.
//!
//! As many requests share a connection as the target allows, then another one is made: requests that queued inside
//! the generator for a free stream would be measured as latency of the target.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use futures_util::task::AtomicWaker;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::origin::{Connector, Stream};
use super::{RequestBody, failure};
use crate::load::ErrorKind;

/// Before the target has said how many streams it allows, and at most: what it allows beyond that is better spread.
const MOST_STREAMS: usize = 100;

/// How often a request is repeated that the target refused with the promise not to have looked at it (RFC 9113 §8.7).
/// It happens when requests leave before the target has said how many it allows.
pub const MOST_REFUSALS: u32 = 3;

/// Windows large enough that a loopback or data-centre target is never slowed down by this side.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

type Connecting = Shared<BoxFuture<'static, Result<(), ErrorKind>>>;

/// The connections of one origin.
pub struct Connections {
    connector: Arc<Connector>,
    requests_per_connection: u32,
    state: Arc<Mutex<State>>,
    streams: Arc<Streams>,
}

/// How many requests the target allows on a connection at once, as far as it has said. One number for all
/// connections: a new one need not learn it again.
struct Streams {
    most: AtomicUsize,
    /// Whether a request has ended. The target's settings came before that, but nothing else says so.
    settled: AtomicBool,
    driver: AtomicWaker,
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
    streams: Arc<Streams>,
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
        if !self.0.streams.settled.swap(true, Ordering::Relaxed) {
            self.0.streams.driver.wake();
        }
    }
}

impl Connections {
    pub fn new(connector: Arc<Connector>, requests_per_connection: u32) -> Self {
        let (settled, driver) = (AtomicBool::new(false), AtomicWaker::new());
        let streams = Arc::new(Streams { most: AtomicUsize::new(MOST_STREAMS), settled, driver });
        Self { connector, requests_per_connection, state: Arc::default(), streams }
    }

    /// A place, and how long it took to make a connection if it was made for this request. Others that wait for the
    /// same one have made none.
    pub async fn place(&self) -> Result<(Place, Option<Duration>), ErrorKind> {
        let mut began = None;
        loop {
            let connecting = {
                let mut state = lock(&self.state);
                if let Some(place) = state.place(self.requests_per_connection) {
                    return Ok((place, began.map(|began: Instant| began.elapsed())));
                }
                state
                    .connecting
                    .get_or_insert_with(|| {
                        began.get_or_insert_with(Instant::now);
                        self.connect()
                    })
                    .clone()
            };
            connecting.await?;
        }
    }

    /// Makes a connection and adds it. Shared by all who wait; goes on as long as one of them does.
    fn connect(&self) -> Connecting {
        let (connector, state, streams) =
            (Arc::clone(&self.connector), Arc::clone(&self.state), Arc::clone(&self.streams));
        let work = async move {
            let connection = open(&connector, streams).await;
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
            connection.in_flight.load(Ordering::Relaxed) < connection.streams.most.load(Ordering::Relaxed)
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

async fn open(connector: &Connector, streams: Arc<Streams>) -> Result<Connection, ErrorKind> {
    let stream: Stream = connector.connect().await?;
    let handshake = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(streams.most.load(Ordering::Relaxed))
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, driver) = handshake.map_err(|error| failure::of_exchange(&error))?;
    // Ends when the connection does, which it does by itself once nobody can send any more.
    tokio::spawn(drive(driver, Arc::clone(&streams)));
    Ok(Connection { sender, in_flight: AtomicUsize::new(0), requests: AtomicU32::new(0), streams })
}

type Driver = http2::Connection<TokioIo<Stream>, RequestBody, TokioExecutor>;

/// Lets the connection work, and keeps up with how many streams the target allows: this runs for every request that
/// is sent, and once when the first has ended.
async fn drive(driver: Driver, streams: Arc<Streams>) {
    let mut driver = pin!(driver);
    poll_fn(|context| {
        streams.driver.register(context.waker());
        let ended = driver.as_mut().poll(context).map(drop);
        streams.most.store(driver.current_max_send_streams().clamp(1, MOST_STREAMS), Ordering::Relaxed);
        ended
    })
    .await;
}
