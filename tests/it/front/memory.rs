//! What an idle connection costs: it owns no buffer, and what it did own is given back.

use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use super::certificates::Authority;
use super::h2_client::H2Client;
use super::listener;
use crate::support::eventually;
use crate::support::forebay::Forebay;
use crate::support::http::Connection;
use crate::support::metrics::Scrape;

const CONNECTIONS: usize = 1000;
const RESPOND: &str = "[route.here]\npath = \"/*\"\nrespond = { status = 204 }\n\n[access_log]\noutput = \"off\"\n";

/// Room for the sockets of the test itself, as far as the system allows.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
}

async fn served_connection(forebay: &Forebay) -> Connection {
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 204);
    connection
}

async fn with_open(forebay: &Forebay, open: usize) -> Scrape {
    eventually(&format!("{open} connections are open"), async || {
        let scrape = forebay.scrape().await;
        (scrape.sum("forebay_connections_open", &[]) == open as f64).then_some(scrape)
    })
    .await
}

fn allocated(scrape: &Scrape) -> f64 {
    scrape.get("forebay_allocator_bytes", &[("state", "allocated")]).expect("the allocator is observed")
}

/// So many connections that have served a request and wait for the next one have at most `limit` bytes allocated each,
/// and give them back. Waited for: what a handshake or a scrape holds for a moment is not the connection's.
async fn costs_at_most<C>(limit: f64, forebay: &Forebay, count: usize, open: impl AsyncFn() -> C) {
    // What the first requests allocate for good (lists of free buffers, labels) is not the connections'.
    drop(join_all((0..50).map(|_| open())).await);
    let before = allocated(&with_open(forebay, 0).await);

    let mut held = Vec::new();
    for _ in 0..count / 50 {
        held.extend(join_all((0..50).map(|_| open())).await);
    }
    eventually(&format!("{count} idle connections have {limit} bytes each, at most"), async || {
        let each = (allocated(&with_open(forebay, count).await) - before) / count as f64;
        println!("an idle connection has {each} bytes allocated");
        (each <= limit).then_some(())
    })
    .await;
    drop(held);

    // The worker threads keep some buffers, whatever the number of connections was: at most 1 MiB of the usual ones each.
    eventually("the memory of closed connections is given back", async || {
        let left = allocated(&with_open(forebay, 0).await) - before;
        println!("{left} bytes more than before, after the close");
        (left < 2.5 * 1024.0 * 1024.0).then_some(())
    })
    .await;
}

/// Row 4: bare pingora has 22 to 89 KB.
#[tokio::test]
async fn an_idle_http1_connection_costs_at_most_4_kib() {
    raise_file_limit();
    for http2 in [false, true] {
        let settings = format!("http2 = {http2}\nmax_connections = 2000");
        let forebay = Forebay::start_with_files(&(listener(&settings) + RESPOND), 4096).await;

        costs_at_most(4096.0, &forebay, CONNECTIONS, async || served_connection(&forebay).await).await;
    }
}

/// Buffers and tables of the h2 crate: 16 KiB for writing, 8 for reading, 4 for field values, and the HPACK tables. They
/// are there for as long as the connection; the figure is here to be noticed when it grows.
#[tokio::test]
async fn an_idle_http2_connection_costs_at_most_48_kib() {
    raise_file_limit();
    let forebay = Forebay::start_with_files(&(listener("max_connections = 2000") + RESPOND), 4096).await;
    let tasks = std::sync::Mutex::new(JoinSet::new());

    costs_at_most(49152.0, &forebay, 400, async || {
        let client = H2Client::open(forebay.address()).await;
        assert_eq!(client.get("/").await.unwrap().status(), 204);
        tasks.lock().unwrap().spawn(client.connection);
        client.send
    })
    .await;
}

#[tokio::test]
async fn an_idle_tls_connection_costs_at_most_24_kib() {
    raise_file_limit();
    let authority = Authority::new();
    let files = authority.install(&authority.issue("proxy.example"));
    // The client's side of so many handshakes takes its time, too: a connection whose turn comes late must still be there.
    let limits = "max_connections = 2000\ntimeouts = { tls_handshake = \"2m\", head = \"2m\", idle = \"10m\" }";
    let settings = format!("{limits}\n[listener.tls]\n{files}");
    let forebay = Forebay::start_with_files(&(listener(&settings) + RESPOND), 4096).await;
    let client = authority.client(&[], None);

    costs_at_most(24576.0, &forebay, 400, async || {
        let mut stream = super::tls::connect(&forebay, &client).await.unwrap();
        super::tls::ask_until(&mut stream, "204 No Content").await.unwrap();
        stream
    })
    .await;
}
