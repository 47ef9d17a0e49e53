//! Places for connections: a bounded number, and always one for whoever comes next.
//!
//! A limit alone would let anyone on this machine keep the probes away by opening connections and saying nothing. So
//! when all places are taken, the connection that has stood still for longest gives its own up. One whose request is
//! being worked on is left alone; the callers keep those fewer than the places. [`Watched`] notes what moves, and ends
//! a connection whose client does not take its answer.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// All places of a listener.
#[derive(Debug)]
pub struct Places {
    limit: usize,
    /// Counts what moves: an order in time, for which no clock is needed.
    moves: AtomicU64,
    taken: Mutex<Vec<Arc<Holder>>>,
}

#[derive(Debug)]
struct Holder {
    /// The number of its last move.
    moved: AtomicU64,
    working: AtomicBool,
    evicted: CancellationToken,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    holder: Arc<Holder>,
}

/// What `enter` did.
#[derive(Debug)]
pub struct Entered {
    pub place: Arc<Place>,
    /// Another connection lost its place for this one.
    pub evicted: bool,
}

impl Places {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, moves: AtomicU64::new(0), taken: Mutex::default() })
    }

    /// A place, if need be that of the connection that has stood still for longest. `None` when every connection's
    /// request is being worked on.
    pub fn enter(self: &Arc<Self>) -> Option<Entered> {
        let mut taken = self.lock();
        let evicted = taken.len() >= self.limit;
        if evicted {
            let still = taken.iter().enumerate().filter(|(_, holder)| !holder.working.load(Ordering::Relaxed));
            let (longest, _) = still.min_by_key(|(_, holder)| holder.moved.load(Ordering::Relaxed))?;
            taken.swap_remove(longest).evicted.cancel();
        }
        let holder = Arc::new(Holder {
            moved: AtomicU64::new(self.next_move()),
            working: AtomicBool::new(false),
            evicted: CancellationToken::new(),
        });
        taken.push(Arc::clone(&holder));
        Some(Entered { place: Arc::new(Place { places: Arc::clone(self), holder }), evicted })
    }

    fn next_move(&self) -> u64 {
        self.moves.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Holder>>> {
        // Every change of the list is one step, so a panic elsewhere left it whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Ends when the place has been given to another connection, or somebody used `end`.
    pub async fn lost(&self) {
        self.holder.evicted.cancelled().await;
    }

    /// Ends the connection when it is cancelled, like the loss of its place.
    pub fn end(&self) -> CancellationToken {
        self.holder.evicted.clone()
    }

    /// Keeps the place while a request is worked on.
    pub fn work(self: &Arc<Self>) -> Work {
        self.holder.working.store(true, Ordering::Relaxed);
        Work(Arc::clone(self))
    }

    fn note_move(&self) {
        self.holder.moved.store(self.places.next_move(), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().retain(|holder| !Arc::ptr_eq(holder, &self.holder));
    }
}

/// A request that is being worked on.
#[derive(Debug)]
pub struct Work(Arc<Place>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.note_move();
        self.0.holder.working.store(false, Ordering::Relaxed);
    }
}

/// A stream that notes its moves and fails when writing stands still for too long.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    place: Arc<Place>,
    longest_stall: Duration,
    /// Runs while the client does not take what is written.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub fn new(stream: S, place: Arc<Place>, longest_stall: Duration) -> Self {
        Self { stream, place, longest_stall, stall: None }
    }

    /// Turns a write that has to wait into a failure once it has waited for too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            self.place.note_move();
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.longest_stall)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        this.place.note_move();
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, data);
        this.bounded(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, data);
        this.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn is_lost(place: &Place) -> bool {
        place.holder.evicted.is_cancelled()
    }

    fn enter(places: &Arc<Places>) -> Arc<Place> {
        places.enter().expect("a place").place
    }

    #[test]
    fn the_one_that_stood_still_for_longest_gives_its_place_up() {
        let places = Places::new(3);
        let [first, second, third] = [enter(&places), enter(&places), enter(&places)];
        first.note_move();

        let entered = places.enter().expect("a place");

        assert!(entered.evicted);
        assert_eq!([&first, &second, &third].map(|place| is_lost(place)), [false, true, false]);
        assert_eq!(places.lock().len(), 3);
    }

    #[test]
    fn work_is_left_alone_and_only_work() {
        let places = Places::new(2);
        let [first, second] = [enter(&places), enter(&places)];
        let (work, other) = (first.work(), second.work());
        assert!(places.enter().is_none(), "nobody stands still");

        drop(other);

        let third = enter(&places);
        assert_eq!([&first, &second].map(|place| is_lost(place)), [false, true]);
        drop((work, third));
    }

    #[test]
    fn a_place_that_was_left_is_free() {
        let places = Places::new(1);
        for _ in 0..3 {
            assert!(!places.enter().expect("a place").evicted);
        }
        // One that lost its place takes none away when it ends.
        let evicted = enter(&places);
        let second = enter(&places);
        drop(evicted);
        assert_eq!(places.lock().len(), 1);
        assert!(!is_lost(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_and_a_slow_one_is_not() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = Watched::new(near, enter(&Places::new(1)), Duration::from_secs(5));
        let slow = tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                far.read_exact(&mut [0; 16]).await.unwrap();
            }
            far
        });
        near.write_all(&[0; 64]).await.unwrap();
        let _far = slow.await.unwrap();
        let started = tokio::time::Instant::now();

        let error = near.write_all(&[0; 64]).await.unwrap_err();

        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));
    }
}
