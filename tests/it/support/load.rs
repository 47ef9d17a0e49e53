//! A steady load that watches for lost requests: some clients keep their connection, others make one for each request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::http::Connection;

/// What came of a load.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: u64,
    /// Requests sent again on a new connection, because the one in use had been closed before it answered a byte. The
    /// server may do that to an idle connection, and a client must be ready for it (RFC 9112 §9.3.1).
    pub repeated: u64,
    pub failures: Vec<String>,
}

/// Clients at work, until `stop`.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<Tally>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
struct Client {
    address: SocketAddr,
    target: &'static str,
    keep_alive: bool,
    /// From the start of a request to the start of the next.
    interval: Duration,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Load {
    /// `kept` clients that keep their connections, `fresh` clients that do not.
    pub fn start(address: SocketAddr, target: &'static str, kept: usize, fresh: usize, interval: Duration) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut clients = JoinSet::new();
        for number in 0..kept + fresh {
            let client = Client {
                address,
                target,
                keep_alive: number < kept,
                interval,
                stop: stop.clone(),
                answered: answered.clone(),
            };
            clients.spawn(client.run());
        }
        Self { clients, stop, answered }
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets every request end, and tells how they went.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        while let Some(tally) = self.clients.join_next().await {
            let tally = tally.expect("a client does not panic");
            total.answered += tally.answered;
            total.repeated += tally.repeated;
            total.failures.extend(tally.failures);
        }
        total
    }
}

impl Client {
    async fn run(self) -> Tally {
        let mut tally = Tally::default();
        let mut connection = None;
        let mut next = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep_until(next).await;
            next = Instant::now().max(next + self.interval);
            match self.ask(&mut connection, &mut tally).await {
                Ok(()) => {
                    tally.answered += 1;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) => tally.failures.push(failure),
            }
        }
        tally
    }

    async fn ask(&self, kept: &mut Option<Connection>, tally: &mut Tally) -> Result<(), String> {
        if let Some(mut connection) = kept.take() {
            match self.exchange(&mut connection).await {
                Ok(keep) => {
                    *kept = keep.then_some(connection);
                    return Ok(());
                }
                Err(failure) if !failure.untouched => return Err(failure.what),
                Err(_) => tally.repeated += 1,
            }
        }
        let mut connection = Connection::open(self.address).await.map_err(|error| format!("connect: {error}"))?;
        let keep = self.exchange(&mut connection).await.map_err(|failure| failure.what)?;
        *kept = keep.then_some(connection);
        Ok(())
    }

    /// One request; true when the connection can be used again.
    async fn exchange(&self, connection: &mut Connection) -> Result<bool, Failure> {
        let close = if self.keep_alive { "" } else { "connection: close\r\n" };
        let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n{close}\r\n", self.target, self.address);
        let lost = |error: std::io::Error| Failure { untouched: closed(&error), what: error.to_string() };
        connection.send(request).await.map_err(lost)?;
        let response = connection.response().await.map_err(lost)?;
        if response.status != 200 || !response.complete {
            let what = format!("{} {:?}, complete: {}", response.status, response.reason(), response.complete);
            return Err(Failure { untouched: false, what });
        }
        let stays = response.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
        Ok(self.keep_alive && stays)
    }
}

#[derive(Debug)]
struct Failure {
    /// The connection ended, and no head of an answer had come.
    untouched: bool,
    what: String,
}

fn closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}
