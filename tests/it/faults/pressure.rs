//! Back-pressure: what one side does not take, the other side is not asked for. What may lie in between are the
//! kernel's socket buffers, whose size is its own business, and a little memory of Forebay's, which is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use super::{at_rest, ms};
use crate::support::forebay::Forebay;
use crate::support::{PATIENCE, eventually};

const MIB: u64 = 1 << 20;
/// Asked of the kernel for the sockets of the test; it doubles it.
const SMALL: u32 = 32 * 1024;

/// What the kernel may hold for Forebay's two sockets (their buffers grow by themselves up to these) and for the two of
/// the test.
fn socket_buffers() -> u64 {
    let largest = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).expect("Linux says how large");
        text.split_whitespace().nth(2).and_then(|max| max.parse::<u64>().ok()).expect("least, usual and most")
    };
    largest("tcp_rmem") + largest("tcp_wmem") + 4 * u64::from(SMALL)
}

async fn forebay(upstream: SocketAddr) -> Forebay {
    Forebay::start(&format!(
        r#"
        [upstream.up]
        endpoints = ["{upstream}"]
        timeouts = {{ first_byte = "20s", between_bytes = "20s" }}
        [route.up]
        path = "/*"
        upstream = "up"
        deadline = "25s"
        max_body = "100GiB"
        "#
    ))
    .await
}

async fn small_listener() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    // Before listening: accepted sockets inherit it.
    socket.set_recv_buffer_size(SMALL).unwrap();
    socket.set_send_buffer_size(SMALL).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(16).unwrap()
}

async fn small_client(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SMALL).unwrap();
    socket.set_send_buffer_size(SMALL).unwrap();
    socket.connect(address).await.unwrap()
}

/// Writes without end and counts what the socket took.
async fn flood(stream: &mut (impl tokio::io::AsyncWrite + Unpin), taken: &AtomicU64) {
    let piece = vec![b'x'; 64 * 1024];
    while let Ok(n) = stream.write(&piece).await {
        taken.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Waits until the count has stood still for a while; then it is the answer.
async fn settled(count: &AtomicU64) -> u64 {
    let mut last = (0, Instant::now());
    eventually("the flow has come to a halt", async || {
        let now = count.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > ms(500)).then_some(now)
    })
    .await
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

async fn allocated(forebay: &Forebay) -> f64 {
    let scrape = forebay.scrape().await;
    scrape.sum("forebay_allocator_bytes", &[("state", "allocated")])
}

/// The scrapes that measure allocate for a moment, too, the more the busier the machine is: what is kept counts.
async fn stays_small(forebay: &Forebay, before: f64) {
    eventually("memory has not grown by more than a MiB", async || {
        (allocated(forebay).await - before <= MIB as f64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_endless_answer_for_a_client_that_does_not_read_stays_where_it_is() {
    let listener = small_listener().await;
    let forebay = forebay(listener.local_addr().unwrap()).await;
    let before = allocated(&forebay).await;
    let mut deaf = small_client(forebay.address()).await;
    deaf.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_head(&mut upstream).await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n").await.unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    let flooding = tokio::spawn(async move { flood(&mut upstream, &counter).await });

    let pulled = settled(&taken).await;

    assert!(pulled <= socket_buffers() + MIB, "{pulled} of {}", socket_buffers());
    stays_small(&forebay, before).await;

    // As soon as the client reads, it goes on.
    let mut piece = vec![0; 256 * 1024];
    let more = async {
        while taken.load(Ordering::Relaxed) < pulled + 4 * MIB {
            assert!(deaf.read(&mut piece).await.unwrap() > 0);
        }
    };
    tokio::time::timeout(PATIENCE, more).await.expect("the flow goes on");
    drop(deaf);
    tokio::time::timeout(PATIENCE, flooding).await.expect("the upstream is let go").unwrap();
    at_rest(&forebay).await;
}

#[tokio::test]
async fn an_endless_upload_to_an_upstream_that_does_not_read_stays_where_it_is() {
    let listener = small_listener().await;
    let forebay = forebay(listener.local_addr().unwrap()).await;
    let before = allocated(&forebay).await;
    let mut client = small_client(forebay.address()).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000000\r\n\r\n").await.unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    let flooding = tokio::spawn(async move { flood(&mut client, &counter).await });
    let (mut deaf, _) = listener.accept().await.unwrap();
    read_head(&mut deaf).await;

    let pulled = settled(&taken).await;

    assert!(pulled <= socket_buffers() + MIB, "{pulled} of {}", socket_buffers());
    stays_small(&forebay, before).await;

    let mut piece = vec![0; 256 * 1024];
    let more = async {
        while taken.load(Ordering::Relaxed) < pulled + 4 * MIB {
            assert!(deaf.read(&mut piece).await.unwrap() > 0);
        }
    };
    tokio::time::timeout(PATIENCE, more).await.expect("the flow goes on");
    flooding.abort();
    at_rest(&forebay).await;
}
