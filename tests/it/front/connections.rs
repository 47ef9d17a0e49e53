//! Connections: how long they may be silent or slow, how many requests they may bring, how many of them there may be.

use std::time::Duration;

use tokio::time::Instant;

use super::recorder::Recorder;
use super::{listener, proxied};
use crate::support::fault_upstream::{FaultUpstream, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::{Connection, get, hold};
use crate::support::{SLACK, eventually};

/// Limits that a test can wait for.
const SHORT: &str = "timeouts = { head = \"400ms\", idle = \"600ms\" }";

/// Sends `bytes` one by one until the peer closes; what it said, and after how long.
async fn drip(forebay: &Forebay, bytes: &[u8]) -> (String, Duration) {
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    let started = Instant::now();
    for byte in bytes.iter().cycle() {
        // Writing fails once the peer has closed: its answer was sent before that.
        if connection.send([*byte]).await.is_err() {
            break;
        }
        let answered = tokio::time::timeout(Duration::from_millis(20), connection.stream.readable()).await;
        if answered.is_ok() {
            break;
        }
    }
    let took = started.elapsed();
    (String::from_utf8_lossy(&connection.rest().await.unwrap_or_default()).into_owned(), took)
}

/// Row 1: the limit is on the whole head, not on each read.
#[tokio::test]
async fn a_head_that_drips_is_answered_408_at_the_head_timeout() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&(listener(SHORT) + &proxied(upstream.address))).await;

    let endless = [b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ".as_slice(), &[b'x'; 20_000]].concat();
    let (answer, took) = drip(&forebay, &endless).await;

    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("x-forebay-reason: head_timeout"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(took >= Duration::from_millis(390) && took < SLACK, "{took:?}");
    assert!(upstream.requests().is_empty());
    let scrape = forebay.idle().await;
    assert_eq!(scrape.sum("forebay_head_errors_total", &[("listener", "main")]), 1.0);
    assert_eq!(scrape.sum("forebay_timeouts_total", &[("phase", "request_head")]), 1.0);
}

/// Row 2: neither a silent client, nor one that sends all but one byte of the HTTP/2 preface, nor one that sends
/// nothing after it, is held.
#[tokio::test]
async fn silence_before_the_first_request_ends_the_connection() {
    let forebay = Forebay::start(&listener(SHORT)).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    let after = async |bytes: &[u8]| {
        let mut connection = Connection::open(forebay.address()).await.unwrap();
        let started = Instant::now();
        connection.send(bytes).await.unwrap();
        let _ = connection.rest().await;
        started.elapsed()
    };
    let (nothing, most, all) = tokio::join!(after(b""), after(&preface[..23]), after(preface));

    for took in [nothing, most] {
        assert!(took >= Duration::from_millis(390) && took < SLACK, "{took:?}");
    }
    // The handshake, then GOAWAY and its second.
    assert!(all < SLACK, "{all:?}");
    eventually("no connection is open", async || {
        (forebay.scrape().await.sum("forebay_connections_open", &[]) == 0.0).then_some(())
    })
    .await;
}

/// Row 2: a request shorter than the preface is a request.
#[tokio::test]
async fn a_request_shorter_than_the_http2_preface_is_answered() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    connection.send("GET / HTTP/1.0\r\n\r\n").await.unwrap();

    let answer = String::from_utf8(connection.rest().await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

/// A method that begins like the preface is no preface.
#[tokio::test]
async fn methods_that_begin_like_the_preface_are_http1() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;

    for method in ["PROPFIND", "PUT", "PRIX"] {
        let mut connection = Connection::open(forebay.address()).await.unwrap();
        connection.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200, "{method}");
    }
}

/// Row 3.
#[tokio::test]
async fn an_idle_connection_is_closed_after_the_idle_time() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&(listener(SHORT) + &proxied(upstream.address))).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
    let idle = Instant::now();

    assert_eq!(connection.rest().await.unwrap(), b"");

    assert!(idle.elapsed() >= Duration::from_millis(590) && idle.elapsed() < SLACK);
}

/// Row 3.
#[tokio::test]
async fn a_connection_brings_no_more_requests_than_allowed() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&(listener("max_requests_per_connection = 2") + &proxied(upstream.address))).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    for expected in [None, Some("close")] {
        connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(connection.response().await.unwrap().header("connection"), expected);
    }

    assert_eq!(connection.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn a_connection_ends_after_the_request_that_runs_at_the_end_of_its_lifetime() {
    let upstream = Recorder::ok().await;
    let settings = "timeouts = { lifetime = \"1s\" }\nmax_requests_per_connection = 1000000";
    let forebay = Forebay::start(&(listener(settings) + &proxied(upstream.address))).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    let opened = Instant::now();
    let mut served = 0;

    // A client that is never idle.
    while connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.is_ok() {
        match connection.response().await {
            Ok(response) if response.header("connection").is_none() => served += 1,
            _ => break,
        }
    }

    assert!(served > 0 && opened.elapsed() >= Duration::from_millis(990), "{served} in {:?}", opened.elapsed());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    let body = "POST /1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let requests = format!("GET /0 HTTP/1.1\r\nhost: a\r\n\r\n{body}\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\nGET /3 ");
    connection.send(requests).await.unwrap();
    for _ in 0..3 {
        assert_eq!(connection.response().await.unwrap().text(), "ok");
    }
    connection.send("HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(connection.response().await.unwrap().text(), "ok");

    let paths: Vec<_> = upstream.requests().iter().map(|r| r.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/0", "/1", "/2", "/3"]);
}

/// Row 14: while nothing moves, the client's leaving ends the upstream's work.
#[tokio::test]
async fn a_client_that_leaves_takes_its_upstream_request_with_it() {
    let upstream = FaultUpstream::start([scripts::stall_before_head()]).await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    eventually("the request is at the upstream", async || (upstream.heads().len() == 1).then_some(())).await;

    drop(connection);

    upstream.abandoned().await;
    let scrape = forebay.idle().await;
    assert_eq!(scrape.sum("forebay_requests_total", &[("route", "app"), ("reason", "client_gone")]), 1.0);
}

/// Row 12, the better half: a limit of our own, far below that of the system.
#[tokio::test]
async fn one_connection_too_many_is_answered_503_and_room_is_used_again() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&(listener("max_connections = 3") + &proxied(upstream.address))).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(Connection::open(forebay.address()).await.unwrap());
    }
    eventually("all are open", async || {
        (forebay.scrape().await.sum("forebay_connections_open", &[]) == 3.0).then_some(())
    })
    .await;

    let mut refused = Connection::open(forebay.address()).await.unwrap();
    let answer = refused.response().await.unwrap();
    assert_eq!((answer.status, answer.reason()), (503, Some("too_many_connections")));
    assert!(answer.header("retry-after").is_some());

    held.pop();
    eventually("a new connection is served", async || {
        get(forebay.address(), "/").await.ok().filter(|answer| answer.status == 200)
    })
    .await;
    assert!(forebay.scrape().await.sum("forebay_connections_rejected_total", &[]) >= 1.0);
}

/// Row 12: no file descriptors are left, although our own limit is far away. The limit of the running process is lowered,
/// so that none becomes free until the test gives some back: whether a thread has a file open for a moment decides nothing.
#[tokio::test]
async fn without_file_descriptors_nothing_spins_and_service_comes_back_at_once() {
    let upstream = FaultUpstream::start([scripts::stall_before_head()]).await;
    let quick = "[route.quick]\npath = \"/quick\"\nrespond = { status = 204 }\n";
    let config = listener("max_connections = 1000") + &proxied(upstream.address) + quick;
    let forebay = Forebay::start(&config.replace("\"10s\"", "\"none\"")).await;
    // One connection to the admin listener beforehand: a new one could not be accepted either.
    let mut admin = Connection::open(forebay.admin()).await.unwrap();
    let mut errors = async || {
        admin.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let text = admin.response().await.unwrap().text();
        crate::support::metrics::Scrape::parse(&text).sum("forebay_accept_errors_total", &[])
    };
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(hold(forebay.address(), "/").await);
    }
    assert_eq!(errors().await, 0.0);
    leave_no_file_descriptor(&forebay);

    // The first to come find gaps, and numbers that were taken for a moment only: so more come all the time.
    eventually("accepting fails", async || {
        held.push(Connection::open(forebay.address()).await.unwrap());
        (errors().await >= 1.0).then_some(())
    })
    .await;
    let (before, started) = (forebay.process.cpu_ticks(), Instant::now());
    eventually("accepting has failed for a while", async || {
        held.push(Connection::open(forebay.address()).await.unwrap());
        (errors().await >= 10.0 && started.elapsed() > Duration::from_secs(1)).then_some(())
    })
    .await;
    let (used, elapsed) = (forebay.process.cpu_ticks() - before, started.elapsed());
    // 100 ticks are a second. The scrapes themselves cost most of it.
    assert!((used as f64) < 100.0 * elapsed.as_secs_f64() * 0.5, "{used} ticks in {elapsed:?}");

    held.clear();
    let freed = Instant::now();
    eventually("a client is served", async || get(forebay.address(), "/quick").await.ok()).await;
    assert!(freed.elapsed() < SLACK, "{:?}", freed.elapsed());
}

/// From now on the process can open nothing more but for gaps in its numbers, until it has closed something. Not the lowest
/// free number: what is closed later could have numbers above it only, and would set nothing free.
fn leave_no_file_descriptor(forebay: &Forebay) {
    let process = rustix::process::Pid::from_raw(forebay.process.id() as i32).expect("a process has a number");
    let used = std::fs::read_dir(format!("/proc/{}/fd", forebay.process.id()))
        .expect("it runs")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let beyond = used.max().map(|highest| highest + 1);
    let limit = rustix::process::Rlimit { current: beyond, maximum: beyond };
    rustix::process::prlimit(Some(process), rustix::process::Resource::Nofile, limit).expect("a limit can be lowered");
}
