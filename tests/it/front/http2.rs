//! HTTP/2 on the client's side, to upstreams of both protocols.

use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, Request};
use rustix::process::Signal;
use tokio::time::Instant;

use super::h2_client::{H2Client, request};
use super::h2_upstream::H2Upstream;
use super::recorder::{Recorder, values};
use super::{listener, proxied};
use crate::support::fault_upstream::{FaultUpstream, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::Connection;
use crate::support::{SLACK, eventually};

fn over_http2(upstream: &H2Upstream) -> String {
    proxied(upstream.address).replace("endpoints", "protocol = \"http2\"\nendpoints")
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("x-mine".parse().unwrap(), HeaderValue::from_static("8"))])
}

#[tokio::test]
async fn http2_to_http1_and_back_with_trailers() {
    let upstream = Recorder::start(
        "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let client = H2Client::open(forebay.address()).await;

    let mut head = request(Method::POST, "/a?b");
    head.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    head.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    let answer = client.request(head, b"hello", Some(trailers())).await.unwrap();

    assert_eq!((answer.status(), &*answer.body, answer.trailer("x-sum")), (200, b"ok".as_slice(), Some("7")));
    assert_eq!((answer.header("x-hop"), answer.header("connection")), (None, None));
    let sent = upstream.request();
    assert!(sent.starts_with("POST /a?b HTTP/1.1\r\n"), "{sent}");
    assert!(sent.ends_with("5\r\nhello\r\n0\r\nx-mine: 8\r\n\r\n"), "{sent}");
    assert_eq!(values(&sent, "cookie"), ["a=1; b=2"]);
    assert_eq!(values(&sent, "x-forwarded-host"), ["a.example"]);
}

#[tokio::test]
async fn http1_to_http2_and_back_with_trailers() {
    let upstream = H2Upstream::start(None).await;
    let forebay = Forebay::start(&over_http2(&upstream)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    let head =
        "POST /a HTTP/1.1\r\nhost: a\r\nconnection: close, x-hop\r\nx-hop: 1\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.send(format!("{head}5\r\nhello\r\n0\r\nx-mine: 8\r\n\r\n")).await.unwrap();

    let answer = String::from_utf8(connection.rest().await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("5\r\nhello\r\n0\r\n"), "{answer}");
    assert!(answer.contains("x-sum: 7\r\n"), "{answer}");
    let seen = upstream.seen().pop().unwrap();
    assert_eq!((&*seen.body, seen.head.uri.path()), (b"hello".as_slice(), "/a"));
    assert!(seen.head.headers.get("x-hop").is_none());
    assert_eq!(seen.trailers, Some(trailers()));
}

#[tokio::test]
async fn many_streams_of_one_connection_share_one_upstream_connection() {
    let upstream = H2Upstream::start(None).await;
    let forebay = Forebay::start(&over_http2(&upstream)).await;
    let client = H2Client::open(forebay.address()).await;
    assert_eq!(client.get("/").await.unwrap().status(), 200);

    // Larger than the stream's window.
    let bodies: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; 100_000]).collect();
    let answers = bodies.iter().map(|body| client.request(request(Method::PUT, "/x"), body, None));
    for (answer, body) in join_all(answers).await.into_iter().zip(&bodies) {
        let answer = answer.unwrap();
        assert!(answer.status() == 200 && answer.body == body[..]);
    }

    assert_eq!(forebay.idle().await.sum("forebay_upstream_connections_opened_total", &[]), 1.0);
}

fn grpc() -> Request<()> {
    let mut head = request(Method::POST, "/pkg.Service/Method");
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    head.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    head.headers_mut().insert("grpc-timeout", HeaderValue::from_static("5S"));
    head
}

/// One uncompressed gRPC message.
const MESSAGE: &[u8] = b"\x00\x00\x00\x00\x05hello";

#[tokio::test]
async fn grpc_passes_with_its_trailers_and_its_deadline() {
    let upstream = H2Upstream::start(None).await;
    let settings = "trusted_proxies = [\"127.0.0.1/32\"]";
    let forebay = Forebay::start(&(listener(settings) + &over_http2(&upstream))).await;
    let client = H2Client::open(forebay.address()).await;

    let answer = client.request(grpc(), MESSAGE, None).await.unwrap();

    assert_eq!((&*answer.body, answer.trailer("grpc-status")), (MESSAGE, Some("0")));
    assert_eq!(answer.header("content-type"), Some("application/grpc+proto"));
    let seen = upstream.seen().pop().unwrap();
    assert_eq!((&*seen.body, seen.head.headers["te"].as_bytes()), (MESSAGE, b"trailers".as_slice()));
    // The client's 5 s are less than the route's 10 s, and some of them have passed.
    let left = seen.head.headers["grpc-timeout"].to_str().unwrap().strip_suffix('m').unwrap().to_owned();
    assert!((1..5000).contains(&left.parse::<u32>().unwrap()), "{left}");
}

#[tokio::test]
async fn errors_for_grpc_clients_come_as_a_grpc_status() {
    let upstream = H2Upstream::start(None).await;
    let config = over_http2(&upstream).replace("path = \"/*\"", "path = \"/wait\"").replace("10s", "300ms");
    let forebay = Forebay::start(&config).await;
    let client = H2Client::open(forebay.address()).await;

    let missing = client.request(grpc(), MESSAGE, None).await.unwrap();
    let mut head = grpc();
    *head.uri_mut() = "http://a.example/wait".parse().unwrap();
    let late = client.request(head, MESSAGE, None).await.unwrap();

    for (answer, status, reason) in [(missing, "12", "no_route"), (late, "4", "deadline_in_first_byte")] {
        assert_eq!((answer.status(), answer.header("grpc-status")), (200, Some(status)), "{answer:?}");
        assert_eq!((answer.header("x-forebay-reason"), answer.body.len()), (Some(reason), 0));
        assert!(answer.header("grpc-message").is_some_and(|message| !message.is_empty()));
    }
    eventually("the upstream's stream is cancelled", async || (upstream.resets() == 1).then_some(())).await;
}

#[tokio::test]
async fn a_reset_of_the_client_cancels_the_upstream() {
    let h2 = H2Upstream::start(None).await;
    let h1 = FaultUpstream::start([scripts::stall_before_head()]).await;
    type Check<'c> = &'c dyn Fn() -> bool;
    let cases: [(String, Check<'_>, Check<'_>); 2] = [
        (over_http2(&h2), &|| h2.waiting() == 1, &|| h2.resets() == 1),
        (proxied(h1.address), &|| h1.heads().len() == 1, &|| h1.open() == 0),
    ];
    for (config, arrived, cancelled) in cases {
        let forebay = Forebay::start(&config).await;
        let client = H2Client::open(forebay.address()).await;
        let mut send = client.send.clone().ready().await.unwrap();
        let (_response, mut stream) = send.send_request(request(Method::GET, "/wait"), true).unwrap();
        eventually("it is at the upstream", async || arrived().then_some(())).await;

        stream.send_reset(h2::Reason::CANCEL);

        eventually("the upstream's work is cancelled", async || cancelled().then_some(())).await;
        let scrape = forebay.idle().await;
        assert_eq!(scrape.sum("forebay_requests_total", &[("reason", "client_gone")]), 1.0);
    }
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_and_closed() {
    let upstream = Recorder::ok().await;
    let settings = "timeouts = { idle = \"500ms\" }";
    let forebay = Forebay::start(&(listener(settings) + &proxied(upstream.address))).await;
    let client = H2Client::open(forebay.address()).await;
    // Before the request: its end, from which the time counts there, may be known here late.
    let idle = Instant::now();
    assert_eq!(client.get("/").await.unwrap().status(), 200);

    let send = client.send.clone();
    H2Client { send, connection: client.connection }.ended().await.expect("GOAWAY without an error");

    assert!(idle.elapsed() >= Duration::from_millis(490) && idle.elapsed() < SLACK);
}

#[tokio::test]
async fn a_drain_lets_open_streams_end_and_then_the_connection() {
    let upstream = H2Upstream::start(None).await;
    let mut forebay = Forebay::start(&over_http2(&upstream)).await;
    let client = H2Client::open(forebay.address()).await;
    let mut send = client.send.clone().ready().await.unwrap();
    let (response, mut stream) = send.send_request(request(Method::POST, "/x"), false).unwrap();
    eventually("it is in flight", async || {
        (forebay.scrape().await.sum("forebay_upstream_in_flight", &[]) == 1.0).then_some(())
    })
    .await;

    forebay.signal(Signal::TERM);
    // GOAWAY: the connection takes no new stream.
    eventually("new streams are refused", async || client.get("/").await.err()).await;
    stream.send_data("done".into(), true).unwrap();
    let mut body = response.await.unwrap().into_body();

    assert_eq!(&*body.data().await.unwrap().unwrap(), b"done");
    drop((send, body, stream));
    client.ended().await.expect("an end in good order");
    assert_eq!(forebay.process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_connection_brings_no_more_requests_than_allowed() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&(listener("max_requests_per_connection = 3") + &proxied(upstream.address))).await;
    let client = H2Client::open(forebay.address()).await;

    for _ in 0..3 {
        assert_eq!(client.get("/").await.unwrap().status(), 200);
    }

    eventually("no further stream is taken", async || client.get("/").await.err()).await;
    assert!(upstream.requests().len() < 6, "{}", upstream.requests().len());
    client.ended().await.expect("an end in good order");
}

#[tokio::test]
async fn limits_hold_over_http2() {
    let upstream = Recorder::ok().await;
    let settings = "max_head = \"4KiB\"\nmax_headers = 10\nhttp2_max_streams = 5";
    let forebay = Forebay::start(&(listener(settings) + &proxied(upstream.address) + "max_body = \"100B\"\n")).await;
    let client = H2Client::open(forebay.address()).await;

    let mut large = request(Method::GET, "/");
    large.headers_mut().insert("x", HeaderValue::from_str(&"x".repeat(5000)).unwrap());
    assert_eq!(client.request(large, b"", None).await.unwrap().status(), 431);
    let mut many = request(Method::GET, "/");
    for n in 0..11u8 {
        many.headers_mut().append("x", HeaderValue::from(u16::from(n)));
    }
    let many = client.request(many, b"", None).await.unwrap();
    assert_eq!((many.status(), many.header("x-forebay-reason")), (431, Some("head_too_large")));

    let body = client.request(request(Method::POST, "/"), &[b'x'; 101], None).await.unwrap();
    assert_eq!((body.status(), body.header("x-forebay-reason")), (413, Some("body_too_large")));
    let mut announced = request(Method::POST, "/");
    announced.headers_mut().insert("content-length", HeaderValue::from_static("101"));
    assert_eq!(client.request(announced, &[b'x'; 101], None).await.unwrap().status(), 413);
    assert!(upstream.requests().is_empty());

    assert_eq!(client.request(request(Method::POST, "/"), &[b'x'; 100], None).await.unwrap().status(), 200);
    assert_eq!(client.send.current_max_send_streams(), 5);
}

/// What would mean something else over HTTP/1 is refused before the protocol changes.
#[tokio::test]
async fn requests_that_http1_would_read_in_another_way_are_refused() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let client = H2Client::open(forebay.address()).await;

    for (name, value) in [("host", "other.example"), ("x_under", "1")] {
        let mut head = request(Method::GET, "/");
        head.headers_mut().insert(name, HeaderValue::from_static(value));
        assert_eq!(client.request(head, b"", None).await.unwrap().status(), 400, "{name}");
    }
    assert_eq!(client.request(request(Method::TRACE, "/"), b"", None).await.unwrap().status(), 405);
    for path in ["/a%2fb", "/../x"] {
        assert_eq!(client.get(path).await.unwrap().status(), 400, "{path}");
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(client.get("/ok").await.unwrap().status(), 200);
}

#[tokio::test]
async fn expect_works_over_http2() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let client = H2Client::open(forebay.address()).await;
    let mut send = client.send.clone().ready().await.unwrap();
    let mut head = request(Method::POST, "/");
    head.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));

    let (mut response, mut stream) = send.send_request(head, false).unwrap();
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!(interim.status(), 100);
    stream.send_data("hello".into(), true).unwrap();

    assert_eq!(response.await.unwrap().status(), 200);
    assert!(upstream.request().contains("hello"));
}
