//! HTTP/1.1: one request at a time on a connection, and the idle ones of an origin.
//!
//! A connection has no task of its own: whoever uses it drives it, in the same task. That saves a wake-up for each
//! step of an exchange, which at tens of thousands of requests per second is a good part of the generator's CPU time
//! and of what it would add to the latency. Dropping an exchange drops the connection, which abandons the request.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::origin::Stream;
use super::{RequestBody, failure};
use crate::load::ErrorKind;

type Driver = Pin<Box<http1::Connection<TokioIo<Stream>, RequestBody>>>;

/// A connection that nobody else uses now.
pub struct Connection {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once it has ended.
    driver: Option<Driver>,
    pub requests: u32,
}

impl Connection {
    pub async fn new(stream: Stream) -> Result<Self, ErrorKind> {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| failure::of_exchange(&error))?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), requests: 0 })
    }

    /// Sends a request and waits for the head of the answer. The error holds the request if nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Box<TrySendError<Request<RequestBody>>>> {
        self.requests += 1;
        let answer = self.sender.try_send_request(request);
        drive(&mut self.driver, answer).await.map_err(Box::new)
    }

    /// Does `work`, which waits for what arrives on this connection.
    pub async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        drive(&mut self.driver, work).await
    }

    /// Whether it can take a request now, as far as this side knows. Never waits: a connection that is still busy
    /// with its last request after the answer has been read is not worth waiting for.
    pub async fn is_usable(&mut self) -> bool {
        let Self { sender, driver, .. } = self;
        poll_fn(|context| {
            if let Some(running) = driver
                && running.as_mut().poll(context).is_ready()
            {
                *driver = None;
            }
            let ready = matches!(sender.poll_ready(context), Poll::Ready(Ok(())));
            Poll::Ready(ready && driver.is_some())
        })
        .await
    }
}

/// Both, until the work is done. The connection may end before: what was read until then is still there, and if it is
/// not enough the work fails by itself.
async fn drive<D: Future + Unpin, F: Future>(driver: &mut Option<D>, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Some(running) = driver
            && Pin::new(running).poll(context).is_ready()
        {
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}

/// The idle connections of an origin. The one used last comes first, so that a burst does not keep a crowd of
/// connections warm that the rate does not need; those age until the target closes them.
#[derive(Default)]
pub struct Idle(Mutex<Vec<Connection>>);

impl Idle {
    /// One that the target has not closed.
    pub async fn take(&self) -> Option<Connection> {
        loop {
            // A statement of its own: the lock must not be held over the await below.
            let connection = self.lock().pop();
            let mut connection = connection?;
            if connection.is_usable().await {
                return Some(connection);
            }
        }
    }

    pub async fn put(&self, mut connection: Connection) {
        if connection.is_usable().await {
            self.lock().push(connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A list of connections is as good after a panic as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
