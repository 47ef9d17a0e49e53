//! Clients that ask the admin listener for large answers and hardly read them.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use crate::support::eventually;
use crate::support::forebay::Forebay;
use crate::support::http::get;
use crate::support::metrics::Scrape;

const ROUTES: usize = 300;
const READERS: usize = 24;

const MAX_HELD: f64 = forebay::admin::MAX_HELD_BYTES as f64;

/// Reads a little now and then, so that nothing of it looks hung, and comes back when it is cut.
async fn read_slowly(admin: SocketAddr) {
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 << 10).expect("a small buffer");
        let Ok(mut stream) = socket.connect(admin).await else { continue };
        let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut some = [0; 4 << 10];
        while asked.is_ok() && matches!(stream.read(&mut some).await, Ok(1..)) {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A scrape, once it came whole, and its size.
async fn scrape(admin: SocketAddr) -> (Scrape, usize) {
    eventually("a scrape comes whole", async || {
        let response =
            get(admin, "/metrics").await.ok().filter(|response| response.status == 200 && response.complete)?;
        Some((Scrape::parse(&response.text()), response.body.len()))
    })
    .await
}

fn allocated(scrape: &Scrape) -> f64 {
    scrape.get("forebay_allocator_bytes", &[("state", "allocated")]).expect("the allocator is counted")
}

/// Without a bound, these readers hold 77 MB.
#[tokio::test]
async fn slow_readers_of_large_scrapes_hold_bounded_memory_and_keep_nobody_else_from_scraping() {
    let routes: String = (0..ROUTES)
        .map(|number| format!("[route.r{number}]\npath = \"/r{number}\"\nrespond = {{ body = \"yes\" }}\n\n"))
        .collect();
    let forebay = Forebay::start(&format!("[access_log]\noutput = \"off\"\n\n{routes}")).await;
    let (alone, size) = scrape(forebay.admin()).await;
    assert!((READERS * size) as f64 > 2.0 * MAX_HELD, "an answer takes {size} bytes: they would fit");

    let mut readers = JoinSet::new();
    let mut most = 0.0_f64;
    for _ in 0..READERS {
        readers.spawn(read_slowly(forebay.admin()));
        // One after the other, or all would share one answer.
        most = most.max(allocated(&scrape(forebay.admin()).await.0));
    }

    // What is encoded next to what is held, and this scrape's own.
    let bound = allocated(&alone) + MAX_HELD + 6.0 * size as f64;
    assert!(most < bound, "{most} bytes allocated, {bound} at most");
}
