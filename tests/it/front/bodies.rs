//! Bodies and their framing on the client's side: limits, `Expect`, trailers, answers without a body, HTTP/1.0.

use super::recorder::{Recorder, values};
use super::{listener, proxied};
use crate::support::fault_upstream::{FaultUpstream, Step, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::{Connection, request};
use crate::support::{PATIENCE, eventually};

async fn small_bodies(upstream: &Recorder) -> Forebay {
    Forebay::start(&(proxied(upstream.address) + "max_body = \"100B\"\n")).await
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_is_read() {
    let upstream = Recorder::ok().await;
    let forebay = small_bodies(&upstream).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    connection.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 101\r\n\r\n").await.unwrap();

    let answer = connection.response().await.unwrap();
    assert_eq!((answer.status, answer.reason()), (413, Some("body_too_large")));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(upstream.requests().is_empty());
    assert_eq!(request(forebay.address(), "POST", "/", &[], &[b'x'; 100]).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_chunked_body_is_refused_when_it_becomes_too_large() {
    let upstream = Recorder::ok().await;
    let forebay = small_bodies(&upstream).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    let chunk = format!("3c\r\n{}\r\n", "x".repeat(60));
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.send(format!("{head}{chunk}{chunk}")).await.unwrap();

    let answer = connection.response().await.unwrap();
    assert_eq!((answer.status, answer.reason()), (413, Some("body_too_large")));
    // The upstream has seen a broken request at most, never a whole one.
    assert!(upstream.requests().is_empty());
    forebay.idle().await;
}

#[tokio::test]
async fn wrong_chunks_are_refused() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;

    for body in ["x\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "-1\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n"] {
        let mut connection = Connection::open(forebay.address()).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.send(format!("{head}{body}")).await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!((answer.status, answer.reason()), (400, Some("bad_request")), "{body:?}");
    }

    assert!(upstream.requests().is_empty());
}

/// "H1 trailers are dropped" by bare pingora.
#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let upstream = Recorder::start(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    let head =
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntrailer: x-mine\r\ntransfer-encoding: chunked\r\n\r\n";
    // A trailer that would change the message's meaning does not pass.
    let body = "2;ext=1\r\nhi\r\n0\r\nx-mine: 8\r\ncontent-length: 99\r\n\r\n";
    connection.send(format!("{head}{body}")).await.unwrap();
    let answer = String::from_utf8(connection.rest().await.unwrap()).unwrap();

    assert!(answer.ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    assert!(upstream.request().ends_with("\r\n\r\n2\r\nhi\r\n0\r\nx-mine: 8\r\n\r\n"), "{}", upstream.request());
}

#[tokio::test]
async fn continue_is_sent_once_somebody_reads_the_body() {
    let upstream = Recorder::ok().await;
    let forebay = small_bodies(&upstream).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    let expect = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\n";
    connection.send(format!("{expect}content-length: 5\r\n\r\n")).await.unwrap();
    let mut interim = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut connection.stream, &mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection.send("hello").await.unwrap();
    assert_eq!(connection.response().await.unwrap().text(), "ok");
    let sent = upstream.request();
    assert!(sent.ends_with("\r\n\r\nhello") && values(&sent, "expect").is_empty(), "{sent}");

    for (head, status) in [
        (format!("{expect}content-length: 101\r\n\r\n"), 413),
        ("POST / HTTP/1.1\r\nhost: a\r\nexpect: 200-ok\r\ncontent-length: 5\r\n\r\n".to_owned(), 417),
    ] {
        let mut connection = Connection::open(forebay.address()).await.unwrap();
        connection.send(&head).await.unwrap();
        let answer = String::from_utf8(connection.rest().await.unwrap()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "no 100 before a refusal: {answer}");
    }
}

/// Nobody asks for the body of a request that waits for its turn and may be refused.
#[tokio::test]
async fn continue_is_not_sent_while_a_request_queues() {
    let upstream = FaultUpstream::start([scripts::stall_before_head()]).await;
    let config = proxied(upstream.address) + "max_in_flight = 1\nqueue = { capacity = 1, timeout = \"300ms\" }\n";
    let forebay = Forebay::start(&config).await;
    let _first = crate::support::http::hold(forebay.address(), "/").await;
    eventually("the first is at the upstream", async || (!upstream.heads().is_empty()).then_some(())).await;
    let mut second = Connection::open(forebay.address()).await.unwrap();

    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    second.send(head).await.unwrap();

    let answer = String::from_utf8(second.rest().await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("queue_timeout"), "{answer}");
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let head = "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\netag: \"a\"\r\n\r\n";
    let upstream = FaultUpstream::answering(head).await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    for _ in 0..2 {
        connection.send("GET / HTTP/1.1\r\nhost: a\r\nif-none-match: \"a\"\r\n\r\n").await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (304, Some("10")));
    }

    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    let upstream = FaultUpstream::answering(head).await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    for _ in 0..2 {
        connection.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let answer = connection.response_to("HEAD").await.unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("10")));
    }
    assert_eq!(upstream.accepted(), 1);
}

/// Errors of our own to HEAD have no body either.
#[tokio::test]
async fn a_refused_head_request_gets_no_body() {
    let forebay = Forebay::start(&listener("")).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    connection.send("HEAD /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();

    let answer = connection.response_to("HEAD").await.unwrap();
    assert_eq!((answer.status, answer.reason()), (404, Some("no_route")));
    assert_eq!(connection.response().await.unwrap().json()["reason"], "no_route");
}

#[tokio::test]
async fn http10_clients_get_what_they_understand() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let upstream = Recorder::start(chunked).await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    connection.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(connection.rest().await.unwrap()).unwrap();
    assert!(answer.ends_with("\r\n\r\nok") && !answer.contains("chunked"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");

    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    for _ in 0..2 {
        connection.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!((answer.header("connection"), answer.text().as_str()), (Some("keep-alive"), "ok"));
    }
    connection.send("GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(connection.rest().await.unwrap()).unwrap();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

/// An upstream that closes at the end of its answer; the client gets a framing that shows the end.
#[tokio::test]
async fn an_answer_that_ends_with_the_connection_is_framed_anew() {
    let answer = b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec();
    let upstream = FaultUpstream::start([vec![Step::ReadHead, Step::Send(answer), Step::Close]]).await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    for _ in 0..2 {
        connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!((answer.text().as_str(), answer.complete), ("until the end", true));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    }
}

/// A client that stops reading holds its connection no longer than the write limit, whoever makes the answer.
#[tokio::test]
async fn a_client_that_does_not_read_is_let_go_at_the_write_limit() {
    let body = "x".repeat(60_000);
    let config = format!(
        "{}[route.big]\npath = \"/*\"\nrespond = {{ body = \"{body}\" }}\n",
        listener("timeouts = { write = \"300ms\" }\nmax_requests_per_connection = 100000")
    );
    let forebay = Forebay::start(&config).await;
    let connection = Connection::open(forebay.address()).await.unwrap();

    // Pipelined until the connection is closed: the answers fill all buffers in between, and then nothing moves any more.
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
    while tokio::time::timeout(PATIENCE, connection.stream.writable()).await.is_ok() {
        if connection.stream.try_write(request.as_bytes()).is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock) {
            break;
        }
    }

    let scrape = eventually("the connection is gone", async || {
        let scrape = forebay.scrape().await;
        (scrape.sum("forebay_connections_open", &[]) == 0.0).then_some(scrape)
    })
    .await;
    assert_eq!(scrape.sum("forebay_requests_total", &[("reason", "write_timeout")]), 1.0);
}
