//! What goes wrong, through the real binary: time, hostile upstreams and clients, failover, back-pressure, limits.
//!
//! Each fault ends in time, with a reason of its own in the answer, the access log and the metrics; afterwards nothing
//! is in flight and the next requests are clean. Lower bounds of times are exact (nothing may end early); upper bounds
//! leave room for a busy machine.

mod clients;
mod endpoints;
mod gone;
mod http2_clients;
mod http2_upstreams;
mod injected;
mod limits;
mod mirror;
mod pressure;
mod recording;
mod server;
mod time;
mod upstreams;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::eventually;
use crate::support::forebay::Forebay;
use crate::support::http;
use crate::support::metrics::Scrape;

/// How late an end may be seen on a machine that builds other things at the same time. The reason of each end is tested exactly, so
/// this need not tell one limit from another.
const LATE: Duration = Duration::from_secs(3);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// From `at` (timers are exact to a millisecond) to what a busy machine makes of it.
fn about(at: Duration) -> Range<Duration> {
    at.saturating_sub(ms(2))..at + LATE
}

/// An address that refuses connections: bound, so that nobody else gets the port, but not listening.
struct Refusing {
    address: SocketAddr,
    _socket: Socket,
}

impl Refusing {
    fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        let address = socket.local_addr().expect("it is bound").as_socket().expect("an IP socket");
        Self { address, _socket: socket }
    }
}

/// The line of the request for this path, once it has been written.
async fn logged(forebay: &Forebay, path: &str) -> serde_json::Value {
    eventually(&format!("the access log has a line for {path}"), async || {
        forebay.access_log().into_iter().find(|line| line["path"] == path)
    })
    .await
}

/// Waits until nothing is in flight and no permit is held or waited for.
async fn at_rest(forebay: &Forebay) -> Scrape {
    eventually("all permits are back", async || {
        let scrape = forebay.idle().await;
        let held = scrape.sum("forebay_permits_in_use", &[]) + scrape.sum("forebay_queue_depth", &[]);
        (held == 0.0).then_some(scrape)
    })
    .await
}

/// Twenty requests on one connection, which all get the answer of `scripts::ok`.
async fn clean(forebay: &Forebay, path: &str) {
    let mut connection = http::Connection::open(forebay.address()).await.expect("a connection");
    for n in 0..20 {
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: clean\r\n\r\n")).await.expect("the request is sent");
        let response = connection.response().await.expect("an answer");
        assert_eq!((response.status, response.text().as_str()), (200, "ok"), "request {n} to {path}: {response:?}");
    }
}
