//! The same faults over an HTTP/2 upstream (prior knowledge, hyper in this process): the connection is shared, so one
//! bad stream must end alone.

use futures_util::future::join_all;

use super::server::Server;
use super::{about, at_rest, logged, ms};
use crate::support::forebay::Forebay;
use crate::support::{eventually, http};

async fn forebay(server: &Server, settings: &str) -> Forebay {
    Forebay::start(&format!(
        r#"
        [upstream.h2]
        endpoints = ["{}"]
        protocol = "http2"
        timeouts = {{ first_byte = "600ms", between_bytes = "400ms", idle = "1s" }}
        [route.h2]
        path = "/*"
        upstream = "h2"
        deadline = "1500ms"
        max_in_flight = 50
        {settings}
        "#,
        server.address
    ))
    .await
}

async fn clean(forebay: &Forebay) {
    let mut connection = http::Connection::open(forebay.address()).await.unwrap();
    for _ in 0..20 {
        connection.send("GET /clean HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(connection.response().await.unwrap().text(), "ok");
    }
}

#[tokio::test]
async fn faults_of_streams_end_in_time_and_leave_the_connection_to_the_others() {
    let server = Server::start().await;
    let forebay = forebay(&server, "").await;
    clean(&forebay).await;

    // Status, reason and time of each.
    let cases = [
        ("/stall", 504, "first_byte_timeout", 600),
        ("/drip", 200, "deadline_in_body", 1500),
        ("/silent", 200, "between_bytes_timeout", 600),
        ("/reset", 200, "upstream_reset", 200),
    ];
    let answers = join_all(cases.map(|(path, ..)| http::timed_get(forebay.address(), path))).await;

    for ((path, status, reason, at), (response, took)) in cases.into_iter().zip(answers) {
        let response = response.unwrap();
        assert_eq!(
            (response.status, logged(&forebay, path).await["reason"].as_str()),
            (status, Some(reason)),
            "{path}"
        );
        assert_eq!(response.complete, status == 504, "{path}: {response:?}");
        assert!(about(ms(at)).contains(&took), "{path}: {took:?}");
    }
    at_rest(&forebay).await;
    eventually("the streams have been reset", async || (server.running() == 0).then_some(())).await;
    clean(&forebay).await;
    assert_eq!(server.accepted(), 1, "all of it went over one connection");
}

#[tokio::test]
async fn an_upload_that_the_upstream_does_not_read_ends_at_the_deadline() {
    let server = Server::start().await;
    let forebay = forebay(&server, "max_body = \"64MiB\"").await;
    let body = vec![b'x'; 8 << 20];

    let started = tokio::time::Instant::now();
    let mut connection = http::Connection::open(forebay.address()).await.unwrap();
    connection
        .send(format!("POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len()))
        .await
        .unwrap();
    // The server opens its window for nobody, so the rest is not taken.
    let _ = tokio::time::timeout(ms(700), tokio::io::AsyncWriteExt::write_all(&mut connection.stream, &body)).await;
    let response = connection.response().await.unwrap();

    assert_eq!((response.status, response.reason()), (504, Some("deadline_in_request")));
    assert!(about(ms(1500)).contains(&started.elapsed()), "{:?}", started.elapsed());
    at_rest(&forebay).await;
    eventually("the stream has been reset", async || (server.running() == 0).then_some(())).await;
    let read = http::request(forebay.address(), "POST", "/read", &[], &body[..1_000_000]).await.unwrap();
    assert_eq!(read.text(), "1000000", "the connection's window has come back");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_only() {
    let server = Server::start().await;
    let forebay = forebay(&server, "").await;

    for path in ["/stall", "/drip"] {
        let client = http::hold(forebay.address(), path).await;
        eventually("the upstream works", async || (server.running() == 1).then_some(())).await;
        drop(client);
        eventually("its work was cancelled", async || (server.running() == 0).then_some(())).await;
        assert_eq!(logged(&forebay, path).await["reason"], "client_gone");
    }

    clean(&forebay).await;
    at_rest(&forebay).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn the_time_that_is_left_goes_up() {
    let server = Server::start().await;
    let forebay = forebay(&server, "").await;

    http::get(forebay.address(), "/").await.unwrap();
    let left: u64 = server.field("x-forebay-deadline-ms").unwrap().parse().unwrap();
    assert!((500..=1500).contains(&left), "{left}");
    assert_eq!(server.field("grpc-timeout"), None);

    http::request(forebay.address(), "POST", "/", &[("content-type", "application/grpc")], b"x").await.unwrap();
    assert!(server.field("grpc-timeout").is_some());
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_after_its_time() {
    let server = Server::start().await;
    let forebay = forebay(&server, "").await;
    clean(&forebay).await;

    eventually("the idle connection has been closed", async || {
        let scrape = forebay.scrape().await;
        let count = |name| scrape.sum(name, &[("upstream", "h2")]);
        let opened = count("forebay_upstream_connections_opened_total");
        (count("forebay_upstream_connections_closed_total") == opened && opened == 1.0).then_some(())
    })
    .await;

    clean(&forebay).await;
    assert_eq!(server.accepted(), 2);
}

/// Answers the first stream of its first connection and refuses the second as not looked at; on the next connection it
/// answers all.
async fn refusing_once() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        for refuse_from in [1, usize::MAX] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            tokio::spawn(async move {
                let mut n = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if n >= refuse_from {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        let mut body = respond.send_response(::http::Response::new(()), false).unwrap();
                        body.send_data("ok".into(), true).unwrap();
                    }
                    n += 1;
                }
            });
        }
        std::future::pending::<()>().await;
    });
    (address, task)
}

#[tokio::test]
async fn a_stream_that_was_not_looked_at_is_sent_again_where_that_is_safe() {
    for (method, body, status, attempts) in [("GET", "", 200, 2), ("POST", "body", 502, 1)] {
        let (address, upstream) = refusing_once().await;
        let config = format!(
            "[upstream.h2]\nendpoints = [\"{address}\"]\nprotocol = \"http2\"\n\
             [route.h2]\npath = \"/*\"\nupstream = \"h2\"\n"
        );
        let forebay = Forebay::start(&config).await;
        assert_eq!(http::get(forebay.address(), "/first").await.unwrap().text(), "ok");

        let response = http::request(forebay.address(), method, "/second", &[], body.as_bytes()).await.unwrap();

        assert_eq!((response.status, logged(&forebay, "/second").await["attempts"].as_u64()), (status, Some(attempts)));
        at_rest(&forebay).await;
        upstream.abort();
    }
}
