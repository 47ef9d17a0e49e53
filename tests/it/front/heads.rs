//! Heads: what is refused over the wire, with its status, and never reaches the upstream.

use futures_util::stream::{self, StreamExt};

use super::recorder::Recorder;
use super::{listener, proxied};
use crate::corpus::smuggling;
use crate::support::forebay::Forebay;
use crate::support::http::{Connection, get};

/// The head in one piece; the answer's status and reason.
async fn refusal(forebay: &Forebay, head: &[u8]) -> (u16, String) {
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    connection.send(head).await.unwrap();
    let answer = connection.response().await.unwrap_or_else(|error| panic!("{error}: {}", head.escape_ascii()));
    assert_eq!(answer.header("connection"), Some("close"), "{}", head.escape_ascii());
    (answer.status, answer.reason().unwrap_or_default().to_owned())
}

/// Rows 9, 10, 11 and "more of the same": bare LF, missing Host, lists of lengths and codings, TRACE, CONNECT, and all
/// the other forms of the corpus.
#[tokio::test]
async fn every_smuggling_attempt_is_refused_over_the_wire_and_none_reaches_the_upstream() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let attempts: Vec<_> = smuggling().filter_map(|(status, head)| Some((status?, head))).collect();
    assert!(attempts.len() > 150, "{}", attempts.len());

    // Several at once, since each lingers for its client's close.
    let count = attempts.len();
    stream::iter(attempts)
        .for_each_concurrent(16, async |(status, head)| {
            let (got, reason) = refusal(&forebay, &head).await;
            assert_eq!(got, status, "{}", head.escape_ascii());
            assert!(!reason.is_empty(), "{}", head.escape_ascii());
        })
        .await;

    let scrape = forebay.idle().await;
    assert_eq!(scrape.sum("forebay_head_errors_total", &[]), count as f64);
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
}

/// What follows a refused head is not looked at, even when it came in the same packet.
#[tokio::test]
async fn nothing_behind_a_refused_head_is_served() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let bad = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    connection.send(format!("{bad}{smuggled}")).await.unwrap();

    let all = String::from_utf8(connection.rest().await.unwrap()).unwrap();
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn heads_beyond_the_limits_are_answered_431() {
    let upstream = Recorder::ok().await;
    let settings = "max_head = \"4KiB\"\nmax_headers = 10";
    let forebay = Forebay::start(&(listener(settings) + &proxied(upstream.address))).await;

    let fields: String = (0..10).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(4096));
    let long_target = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(4096));
    let endless = "x".repeat(5000);
    for head in [many, large, long_target, endless] {
        assert_eq!(refusal(&forebay, head.as_bytes()).await, (431, "head_too_large".to_owned()), "{head}");
    }

    assert_eq!(get(forebay.address(), "/fits").await.unwrap().status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

/// A TLS hello on the plain port is answered and not waited for.
#[tokio::test]
async fn bytes_that_cannot_become_a_request_are_refused_at_once() {
    let forebay = Forebay::start(&listener("")).await;

    assert_eq!(refusal(&forebay, b"\x16\x03\x01\x02\x00\x01\x00\x01").await, (400, "bad_request".to_owned()));
}

#[tokio::test]
async fn options_asterisk_is_answered_by_forebay_itself() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    for _ in 0..2 {
        connection.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
    }

    assert!(upstream.requests().is_empty());
    assert_eq!(refusal(&forebay, b"GET * HTTP/1.1\r\nhost: a\r\n\r\n").await.0, 400);
}

/// What lies in a refused head must not show in logs as it came, and never in the answer.
#[tokio::test]
async fn a_refusal_repeats_nothing_of_what_was_sent() {
    let forebay = Forebay::start(&listener("")).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    connection.send("GET /canary HTTP/1.1\r\nhost: a\r\ncanary\x01: canary\r\n\r\n").await.unwrap();

    let answer = String::from_utf8(connection.rest().await.unwrap()).unwrap();

    assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("canary"), "{answer}");
    let log = forebay.access_log_of(1).await;
    assert_eq!(log[0]["reason"], "bad_request", "{log:?}");
}
