//! The fault matrix, client side: slow, silent, deaf. (Clients that leave are in `gone.rs`.)

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::{about, at_rest, clean, logged, ms};
use crate::support::fault_upstream::{FaultUpstream, Step, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::Connection;

/// Two listeners, one that wants a rate and one that is short of patience, before an upstream that reads bodies.
async fn forebay(upstream: &FaultUpstream) -> Forebay {
    Forebay::start(&format!(
        r#"
        [listener.main]
        address = "127.0.0.1:0"
        timeouts = {{ head = "500ms", body = "800ms", write = "600ms" }}
        [listener.rate]
        address = "127.0.0.1:0"
        min_body_rate = "1KiB/s"
        timeouts = {{ body = "20s" }}
        [upstream.up]
        endpoints = ["{}"]
        max_in_flight = 4
        [route.up]
        path = "/*"
        upstream = "up"
        deadline = "25s"
        max_in_flight = 4
        "#,
        upstream.address
    ))
    .await
}

const POST: &str = "host: x\r\ncontent-length: 100000\r\n\r\nhello";

#[tokio::test]
async fn a_silent_client_is_told_so_and_the_upstream_let_go() {
    let upstream = FaultUpstream::start([scripts::stall_before_head()]).await;
    let forebay = forebay(&upstream).await;
    for (path, request, reason, at) in [
        ("", "GET / HTTP/1.1\r\nhost: x\r\nx-slow".to_owned(), "head_timeout", 500),
        ("/length", format!("POST /length HTTP/1.1\r\n{POST}"), "body_timeout", 800),
        (
            "/chunked",
            "POST /chunked HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel".to_owned(),
            "body_timeout",
            800,
        ),
    ] {
        let mut connection = Connection::open(forebay.address()).await.unwrap();
        let started = Instant::now();
        connection.send(&request).await.unwrap();

        let response = connection.response().await.unwrap();

        assert_eq!((response.status, response.reason()), (408, Some(reason)));
        assert!(about(ms(at)).contains(&started.elapsed()), "{reason}: {:?}", started.elapsed());
        assert_eq!(response.header("connection"), Some("close"));
        assert!(connection.rest().await.is_ok_and(|rest| rest.is_empty()), "the connection ends");
        if !path.is_empty() {
            assert_eq!(logged(&forebay, path).await["reason"], reason);
        }
        upstream.abandoned().await;
    }
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_requests_total", &[("reason", "body_timeout")]), 2.0);
    assert_eq!(scrape.sum("forebay_timeouts_total", &[("phase", "request_body"), ("limit", "timeout")]), 2.0);
    assert_eq!(scrape.sum("forebay_timeouts_total", &[("phase", "request_head"), ("limit", "timeout")]), 1.0);
}

/// The rate counts from the sixth second on: one client below it and one at twice the rate.
#[tokio::test]
async fn a_body_below_the_least_rate_ends_and_one_above_it_lives() {
    const LENGTH: usize = 14 * 1024;
    let read = vec![Step::ReadHead, Step::Read(LENGTH), Step::Send(scripts::OK.to_vec()), Step::Stall];
    let upstream = FaultUpstream::start([read]).await;
    let forebay = forebay(&upstream).await;
    let upload = async |path: &str, piece: usize| {
        let mut connection = Connection::open(forebay.addresses["rate"]).await.unwrap();
        connection.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {LENGTH}\r\n\r\n")).await.unwrap();
        let started = Instant::now();
        let (mut read, mut write) = connection.stream.split();
        let sending = async {
            let mut left = LENGTH;
            while left > 0 {
                let n = piece.min(left);
                if write.write_all(&vec![b'x'; n]).await.is_err() {
                    break;
                }
                left -= n;
                tokio::time::sleep(ms(100)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = vec![0; 4096];
        let n = tokio::select! { n = read.read(&mut answer) => n.unwrap(), () = sending => unreachable!() };
        (String::from_utf8_lossy(&answer[..n]).into_owned(), started.elapsed())
    };

    let ((slow, slow_took), (fast, fast_took)) = tokio::join!(upload("/slow", 10), upload("/fast", 205));

    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("x-forebay-reason: body_too_slow\r\n"), "{slow}");
    assert!((ms(5000)..ms(6500)).contains(&slow_took), "{slow_took:?}");
    assert!(fast.starts_with("HTTP/1.1 200 "), "{fast}");
    assert!(fast_took > ms(6500), "longer than the grace: {fast_took:?}");
    assert_eq!(logged(&forebay, "/slow").await["reason"], "body_too_slow");
    at_rest(&forebay).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_ends_at_the_write_limit() {
    let large = [b"HTTP/1.1 200 OK\r\ncontent-length: 60000000\r\n\r\n".to_vec(), vec![b'x'; 60_000_000]].concat();
    let upstream = FaultUpstream::start([vec![Step::ReadHead, Step::Send(large), Step::Stall], scripts::ok()]).await;
    let forebay = forebay(&upstream).await;
    let mut deaf = Connection::open(forebay.address()).await.unwrap();
    let started = Instant::now();
    deaf.send("GET /deaf HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();

    let line = logged(&forebay, "/deaf").await;

    assert_eq!(line["reason"], "write_timeout", "{line}");
    assert!((ms(598)..ms(3000)).contains(&started.elapsed()), "{:?}", started.elapsed());
    upstream.abandoned().await;
    let got = deaf.response().await;
    assert!(!got.is_ok_and(|response| response.complete), "nobody takes the part for the whole");
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_timeouts_total", &[("phase", "response_write"), ("limit", "timeout")]), 1.0);
    clean(&forebay, "/clean").await;
}

/// A client that reads slowly, but reads, gets all of it: the write limit is about standing still.
#[tokio::test]
async fn a_client_that_reads_slowly_gets_the_whole_answer() {
    const LENGTH: usize = 8_000_000;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n").into_bytes();
    let upstream =
        FaultUpstream::start([vec![Step::ReadHead, Step::Send([head, vec![b'x'; LENGTH]].concat()), Step::Stall]])
            .await;
    let forebay = forebay(&upstream).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut slow = socket.connect(forebay.address()).await.unwrap();
    let started = Instant::now();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();

    let mut received = 0;
    let mut piece = vec![0; 256 * 1024];
    loop {
        let n = slow.read(&mut piece).await.unwrap();
        if n == 0 {
            break;
        }
        received += n;
        if started.elapsed() < ms(1500) {
            tokio::time::sleep(ms(20)).await;
        }
    }

    assert!(received > LENGTH, "{received}");
    assert!(started.elapsed() > Duration::from_secs(1), "longer than the write limit");
    assert_eq!(logged(&forebay, "/slow").await["reason"], "ok");
    at_rest(&forebay).await;
}
