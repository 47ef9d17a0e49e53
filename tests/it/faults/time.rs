//! The absolute deadline and the phase limits over HTTP/1 upstreams, and how the time that is left goes up.

use std::time::Duration;

use futures_util::future::join_all;

use super::{about, at_rest, clean, logged, ms};
use crate::support::fault_upstream::{FaultUpstream, Step, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::{self, quantile};
use crate::support::{PATIENCE, eventually};

const SECOND: Duration = Duration::from_secs(1);

/// An upstream that sends one byte per second, with 2 s between bytes and a deadline of 3 s, ends at 3.0 s ± 50 ms. The
/// machine may be busy: no request may end early, the usual one ends within the 50 ms.
#[tokio::test]
async fn a_dripping_upstream_ends_at_the_deadline_exactly() {
    let length = FaultUpstream::start([scripts::drip_body(SECOND)]).await;
    let mut chunks =
        vec![Step::ReadHead, Step::Send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())];
    for _ in 0..20 {
        chunks.extend([Step::Send(b"1\r\nx\r\n".to_vec()), Step::Pause(SECOND)]);
    }
    let chunked = FaultUpstream::start([chunks]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.length]
        endpoints = ["{}"]
        timeouts = {{ between_bytes = "2s" }}
        [route.length]
        path = "/length"
        upstream = "length"
        deadline = "3s"
        [upstream.chunked]
        endpoints = ["{}"]
        timeouts = {{ between_bytes = "2s" }}
        [route.chunked]
        path = "/chunked"
        upstream = "chunked"
        deadline = "3s"
        "#,
        length.address, chunked.address
    ))
    .await;

    let targets = ["/length", "/chunked"].repeat(5);
    let answers = join_all(targets.iter().map(|target| http::timed_get(forebay.address(), target))).await;

    let times: Vec<Duration> = answers.iter().map(|(_, took)| *took).collect();
    let usual = quantile(&times, 0.5);
    assert!(ms(2950) < usual && usual < ms(3050), "{times:?}");
    assert!(times.iter().all(|took| about(3 * SECOND).contains(took)), "{times:?}");
    for (response, _) in &answers {
        let response = response.as_ref().expect("the head had come");
        assert!(!response.complete && response.status == 200, "{response:?}");
        assert!((3..=4).contains(&response.body.len()), "what came was passed on at once: {response:?}");
    }
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_requests_total", &[("reason", "deadline_in_body")]), 10.0);
    assert_eq!(scrape.sum("forebay_timeouts_total", &[("phase", "response_body"), ("limit", "deadline")]), 10.0);
    length.abandoned().await;
    chunked.abandoned().await;
}

#[tokio::test]
async fn the_deadline_ends_each_stage_with_a_reason_of_its_own() {
    let stalling = FaultUpstream::start([scripts::stall_before_head()]).await;
    let deaf = FaultUpstream::start([vec![Step::ReadHead, Step::Pause(PATIENCE)]]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.stalling]
        endpoints = ["{}"]
        max_in_flight = 1
        queue = {{ capacity = 5, timeout = "500ms" }}
        timeouts = {{ first_byte = "690ms" }}
        [upstream.deaf]
        endpoints = ["{}"]
        [upstream.patient]
        endpoints = ["{}"]

        [route.long]
        path = "/long"
        upstream = "stalling"
        [route.upload]
        path = "/upload"
        upstream = "deaf"
        deadline = "800ms"
        max_body = "1GiB"
        [route.wait]
        path = "/wait"
        upstream = "patient"
        deadline = "700ms"
        "#,
        stalling.address, deaf.address, stalling.address
    ))
    .await;
    let at = forebay.address();

    let queued = async {
        let first = tokio::spawn(async move { http::timed_get(at, "/long").await });
        eventually("the permit is taken", async || (!stalling.heads().is_empty()).then_some(())).await;
        let waiting = [("x-forebay-deadline-ms", "1")];
        let second = http::request(at, "GET", "/long", &waiting, b"").await.unwrap();
        assert_eq!((second.status, second.reason()), (503, Some("queue_timeout")), "an untrusted deadline is ignored");
        let (first, took) = first.await.unwrap();
        assert_eq!(first.unwrap().reason(), Some("first_byte_timeout"));
        assert!(about(ms(690)).contains(&took), "{took:?}");
    };
    let waiting = async {
        let (response, took) = http::timed_get(at, "/wait").await;
        let response = response.unwrap();
        assert_eq!((response.status, response.reason()), (504, Some("deadline_in_first_byte")));
        assert!(about(ms(700)).contains(&took), "{took:?}");
    };
    let uploading = async {
        let started = tokio::time::Instant::now();
        let mut connection = http::Connection::open(at).await.unwrap();
        connection.send("POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 500000000\r\n\r\n").await.unwrap();
        let (mut read, mut write) = connection.stream.split();
        let chunk = vec![b'x'; 64 * 1024];
        let sending = async {
            while tokio::io::AsyncWriteExt::write_all(&mut write, &chunk).await.is_ok() {}
            // Cut off while it still sends: the answer is there all the same.
            std::future::pending::<()>().await;
        };
        let reading = async {
            let mut first = vec![0; 64 * 1024];
            let n = tokio::io::AsyncReadExt::read(&mut read, &mut first).await.unwrap();
            String::from_utf8_lossy(&first[..n]).into_owned()
        };
        let answer = tokio::select! { answer = reading => answer, () = sending => unreachable!() };
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert!(answer.contains("x-forebay-reason: deadline_in_request\r\n"), "{answer}");
        assert!(about(ms(800)).contains(&started.elapsed()), "{:?}", started.elapsed());
    };
    tokio::join!(queued, waiting, uploading);

    at_rest(&forebay).await;
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_queue_says_so() {
    let upstream = FaultUpstream::start([scripts::stall_before_head()]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [listener]
        address = "127.0.0.1:0"
        trusted_proxies = ["127.0.0.0/8"]
        [upstream.one]
        endpoints = ["{}"]
        max_in_flight = 1
        queue = {{ capacity = 5, timeout = "2s" }}
        [route.one]
        path = "/*"
        upstream = "one"
        deadline = "4s"
        "#,
        upstream.address
    ))
    .await;
    let holding = http::hold(forebay.address(), "/holding").await;
    eventually("the permit is taken", async || (!upstream.heads().is_empty()).then_some(())).await;

    let started = tokio::time::Instant::now();
    let asked = [("x-forebay-deadline-ms", "500")];
    let response = http::request(forebay.address(), "GET", "/waiting", &asked, b"").await.unwrap();

    assert_eq!((response.status, response.reason()), (504, Some("deadline_in_queue")));
    assert!(about(ms(500)).contains(&started.elapsed()), "{:?}", started.elapsed());
    drop(holding);
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_queue_results_total", &[("name", "one"), ("result", "abandoned")]), 1.0);
}

/// The value of a field in a request's head.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn the_time_that_is_left_goes_up_and_only_trusted_clients_can_shorten_it() {
    let upstream = FaultUpstream::start([scripts::ok()]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [listener.open]
        address = "127.0.0.1:0"
        [listener.trusted]
        address = "127.0.0.1:0"
        trusted_proxies = ["127.0.0.0/8"]
        [upstream.ok]
        endpoints = ["{}"]
        [route.ok]
        path = "/*"
        upstream = "ok"
        deadline = "5s"
        "#,
        upstream.address
    ))
    .await;
    let ask = async |listener: &str, headers: &[(&str, &str)]| {
        let response = http::request(forebay.addresses[listener], "GET", "/", headers, b"").await.unwrap();
        assert_eq!(response.status, 200);
        let head = upstream.heads().pop().unwrap();
        let left = field(&head, "x-forebay-deadline-ms").expect("the time left").parse::<u64>().unwrap();
        (left, field(&head, "grpc-timeout").map(str::to_owned))
    };
    let own = 4000..=5000;

    let (left, grpc) = ask("open", &[]).await;
    assert!(own.contains(&left) && grpc.is_none(), "{left}, {grpc:?}");
    let (left, _) = ask("open", &[("x-forebay-deadline-ms", "1000")]).await;
    assert!(own.contains(&left), "an untrusted client's wish is ignored: {left}");
    let (left, _) = ask("trusted", &[("x-forebay-deadline-ms", "1000")]).await;
    assert!((100..=1000).contains(&left), "{left}");
    let (left, _) = ask("trusted", &[("x-forebay-deadline-ms", "60000")]).await;
    assert!(own.contains(&left), "nobody gets more than the route gives: {left}");
    let (left, _) = ask("trusted", &[("x-forebay-deadline-ms", "soon")]).await;
    assert!(own.contains(&left), "nonsense is no wish: {left}");

    let grpc_fields = [("content-type", "application/grpc"), ("grpc-timeout", "800m")];
    let (left, grpc) = ask("trusted", &grpc_fields).await;
    assert!((100..=800).contains(&left), "{left}");
    assert!(grpc.is_some_and(|timeout| timeout.ends_with(['m', 'u', 'n'])), "passed on in the field of gRPC");
    let (left, grpc) = ask("open", &grpc_fields).await;
    assert!(own.contains(&left) && grpc.is_some(), "{left}, {grpc:?}");
}

#[tokio::test]
async fn a_trusted_clients_smaller_deadline_ends_the_request() {
    let upstream = FaultUpstream::start([scripts::stall_before_head()]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [listener]
        address = "127.0.0.1:0"
        trusted_proxies = ["127.0.0.0/8"]
        [upstream.stall]
        endpoints = ["{}"]
        [route.stall]
        path = "/*"
        upstream = "stall"
        "#,
        upstream.address
    ))
    .await;

    for (millis, reason) in [(400, "deadline_in_first_byte"), (0, "deadline_in_queue")] {
        let started = tokio::time::Instant::now();
        let asked = [("x-forebay-deadline-ms", &*millis.to_string())];
        let response = http::request(forebay.address(), "GET", "/", &asked, b"").await.unwrap();

        assert_eq!((response.status, response.reason()), (504, Some(reason)));
        assert!(about(ms(millis)).contains(&started.elapsed()), "{:?}", started.elapsed());
    }
    at_rest(&forebay).await;
    assert_eq!(upstream.accepted(), 1, "a request without time is not sent");
}

/// Without a deadline a stream lives as long as it moves, and a silence still ends it.
#[tokio::test]
async fn a_stream_without_a_deadline_outlives_it_while_it_moves() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let mut script = vec![Step::ReadHead, Step::Send(head)];
    for _ in 0..12 {
        script.extend([Step::Send(b"1\r\nx\r\n".to_vec()), Step::Pause(ms(200))]);
    }
    let ending = [script.clone(), vec![Step::Send(b"0\r\n\r\n".to_vec()), Step::Stall]].concat();
    let silent = [script, vec![Step::Stall]].concat();
    let (ending, silent) = (FaultUpstream::start([ending]).await, FaultUpstream::start([silent]).await);
    let upstream = |name: &str, address| {
        format!(
            "[upstream.{name}]\nendpoints = [\"{address}\"]\n\
             timeouts = {{ between_bytes = \"1200ms\", first_byte = \"1200ms\" }}\n\
             [route.{name}]\npath = \"/{name}\"\nupstream = \"{name}\"\ndeadline = \"none\"\n"
        )
    };
    let forebay = Forebay::start(&(upstream("ending", ending.address) + &upstream("silent", silent.address))).await;

    let (ended, fell_silent) =
        tokio::join!(http::timed_get(forebay.address(), "/ending"), http::timed_get(forebay.address(), "/silent"));

    let (response, took) = ended;
    let response = response.unwrap();
    assert!(response.complete && response.body.len() == 12, "{response:?}");
    assert!(took >= ms(2400), "{took:?}");
    assert!(!ending.heads()[0].contains("x-forebay-deadline-ms"), "there is nothing to say");
    let (response, took) = fell_silent;
    assert!(!response.unwrap().complete);
    assert!(took >= ms(3400), "{took:?}");
    assert_eq!(logged(&forebay, "/silent").await["reason"], "between_bytes_timeout");
    at_rest(&forebay).await;
}

/// The pace of a slow but living upstream is not touched by limits that it keeps.
#[tokio::test]
async fn slow_answers_within_their_limits_are_whole() {
    let drip = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec();
    let slow = vec![Step::ReadHead, Step::Pause(ms(300)), Step::Drip(drip, ms(5)), Step::Repeat];
    let upstream = FaultUpstream::start([slow, scripts::ok()]).await;
    let forebay = Forebay::start(&format!(
        "[upstream.slow]\nendpoints = [\"{}\"]\n[route.slow]\npath = \"/*\"\nupstream = \"slow\"\n",
        upstream.address
    ))
    .await;

    clean(&forebay, "/slow").await;

    assert_eq!(upstream.accepted(), 1);
}

/// Without a deadline, too, an upstream that takes nothing of a request is not waited for without end.
#[tokio::test]
async fn an_upstream_that_stops_reading_is_given_up_without_a_deadline() {
    let deaf = FaultUpstream::start([vec![Step::ReadHead, Step::Pause(PATIENCE)]]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.deaf]
        endpoints = ["{}"]
        timeouts = {{ first_byte = "700ms" }}
        [route.deaf]
        path = "/*"
        upstream = "deaf"
        deadline = "none"
        max_body = "1GiB"
        "#,
        deaf.address
    ))
    .await;
    let mut connection = http::Connection::open(forebay.address()).await.unwrap();
    connection.send("POST /deaf HTTP/1.1\r\nhost: x\r\ncontent-length: 500000000\r\n\r\n").await.unwrap();
    let piece = vec![b'x'; 64 * 1024];
    let sending = tokio::spawn(async move { while connection.send(&piece).await.is_ok() {} });

    let line = logged(&forebay, "/deaf").await;

    assert_eq!((&line["reason"], &line["status"]), (&"first_byte_timeout".into(), &504.into()), "{line}");
    assert!(line["total_ms"].as_f64().unwrap() >= 698.0, "{line}");
    sending.abort();
    at_rest(&forebay).await;
}
