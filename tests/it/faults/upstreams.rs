//! The fault matrix, upstream side: one table, one running Forebay, one hostile upstream for each line.

use std::ops::Range;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{about, at_rest, clean, logged, ms};
use crate::support::fault_upstream::{FaultUpstream, FullBacklog, Script, Step, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::{self, Response};

const FIRST_BYTE: Duration = Duration::from_millis(600);
const BETWEEN_BYTES: Duration = Duration::from_millis(400);
const CONNECT: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_millis(1500);

/// What the client gets.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// A whole answer of the upstream's.
    Whole(u16),
    /// Forebay's own answer: status and reason.
    Refused(u16, &'static str),
    /// The beginning of an answer, broken so that nobody takes it for the whole; the reason is in the log.
    Broken(&'static str),
}

struct Fault {
    name: &'static str,
    script: Script,
    seen: Seen,
    within: Range<Duration>,
}

fn fault(name: &'static str, script: Script, seen: Seen, within: Range<Duration>) -> Fault {
    Fault { name, script, seen, within }
}

/// Reads a request, sends this, and leaves the connection open.
fn answer(bytes: impl AsRef<[u8]>) -> Script {
    vec![Step::ReadHead, Step::Send(bytes.as_ref().to_vec()), Step::Stall]
}

fn answer_and_close(bytes: impl AsRef<[u8]>) -> Script {
    vec![Step::ReadHead, Step::Send(bytes.as_ref().to_vec()), Step::Close]
}

fn drip_chunks() -> Script {
    let mut script = vec![Step::ReadHead, Step::Send(CHUNKED.to_vec())];
    for _ in 0..100 {
        script.extend([Step::Pause(ms(100)), Step::Send(b"1\r\nx\r\n".to_vec())]);
    }
    script
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

fn faults() -> Vec<Fault> {
    use Seen::{Broken, Refused, Whole};
    let soon = || about(Duration::ZERO);
    let bad = Refused(502, "upstream_bad_response");
    let many_fields = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x-a: b\r\n".repeat(20_000));
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
    let with = |prefix: &[u8], rest: &[u8]| [prefix, rest].concat();
    vec![
        // Falls silent.
        fault("stall-at-accept", vec![Step::Stall], Refused(504, "first_byte_timeout"), about(FIRST_BYTE)),
        fault("stall-before-head", scripts::stall_before_head(), Refused(504, "first_byte_timeout"), about(FIRST_BYTE)),
        fault(
            "stall-inside-head",
            scripts::stall_inside_head(),
            Refused(504, "between_bytes_timeout"),
            about(BETWEEN_BYTES),
        ),
        fault("stall-mid-body", scripts::stall_mid_body(), Broken("between_bytes_timeout"), about(BETWEEN_BYTES)),
        fault(
            "stall-in-chunk",
            answer(with(CHUNKED, b"5\r\nhel")),
            Broken("between_bytes_timeout"),
            about(BETWEEN_BYTES),
        ),
        fault(
            "stall-after-chunk",
            answer(with(CHUNKED, b"5\r\nhello\r\n")),
            Broken("between_bytes_timeout"),
            about(BETWEEN_BYTES),
        ),
        // Drips: no silence is long enough, the whole is too long.
        fault("drip-head", scripts::drip_head(ms(50)), Refused(504, "between_bytes_timeout"), about(BETWEEN_BYTES)),
        fault("drip-body", scripts::drip_body(ms(100)), Broken("deadline_in_body"), about(DEADLINE)),
        fault("drip-chunks", drip_chunks(), Broken("deadline_in_body"), about(DEADLINE)),
        // Breaks the connection.
        fault("reset-at-accept", vec![Step::Pause(ms(50)), Step::Reset], Refused(502, "upstream_reset"), about(ms(50))),
        fault("reset-before-head", scripts::reset_before_head(), Refused(502, "upstream_reset"), soon()),
        fault("reset-mid-body", scripts::reset_mid_body(), Broken("upstream_reset"), about(ms(100))),
        // Ends too early.
        fault("close-before-head", scripts::close_before_head(), Refused(502, "upstream_closed"), soon()),
        fault(
            "close-inside-head",
            answer_and_close("HTTP/1.1 200 OK\r\ncontent-le"),
            Refused(502, "upstream_closed"),
            soon(),
        ),
        fault("close-mid-body", scripts::close_mid_body(), Broken("upstream_closed"), soon()),
        fault(
            "close-without-last-chunk",
            answer_and_close(with(CHUNKED, b"5\r\nhello\r\n")),
            Broken("upstream_closed"),
            soon(),
        ),
        // Is not HTTP, or not one message.
        fault("garbage", scripts::garbage(), bad, soon()),
        fault("http-09", answer_and_close("<html>hello</html>\n"), bad, soon()),
        fault("bad-version", answer("HTTP/3.0 200 OK\r\ncontent-length: 0\r\n\r\n"), bad, soon()),
        fault("status-of-four-digits", answer("HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n"), bad, soon()),
        fault("status-of-letters", answer("HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n"), bad, soon()),
        fault("status-zero", answer("HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n"), bad, soon()),
        fault(
            "two-lengths",
            answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"),
            bad,
            soon(),
        ),
        fault(
            "length-and-chunked",
            answer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            bad,
            soon(),
        ),
        fault("negative-length", answer("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"), bad, soon()),
        fault("nul-in-field", answer(b"HTTP/1.1 200 OK\r\nx-a: b\0c\r\ncontent-length: 0\r\n\r\n"), bad, soon()),
        fault("bare-cr-in-field", answer("HTTP/1.1 200 OK\r\nx-a: b\rc\r\ncontent-length: 0\r\n\r\n"), bad, soon()),
        fault("space-before-colon", answer("HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n"), bad, soon()),
        fault("bad-chunk-size", answer(with(CHUNKED, b"zz\r\nhello\r\n")), Broken("upstream_bad_response"), soon()),
        fault("chunk-too-long", answer(with(CHUNKED, b"2\r\nhello\r\n")), Broken("upstream_bad_response"), soon()),
        // Too much.
        fault("huge-head", scripts::huge_head(), Refused(502, "upstream_too_large"), soon()),
        fault("many-fields", answer(many_fields), Refused(502, "upstream_too_large"), soon()),
        fault(
            "large-body",
            answer("HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n"),
            Refused(502, "upstream_too_large"),
            soon(),
        ),
        fault(
            "large-chunks",
            answer(with(&with(CHUNKED, b"186a1\r\n"), &[b'x'; 100_001])),
            Broken("upstream_too_large"),
            soon(),
        ),
        fault("endless-interim", answer(hints.repeat(20_000)), bad, soon()),
        // Unasked.
        fault("unasked-101", scripts::unasked_upgrade(), Refused(502, "unexpected_upgrade"), soon()),
        fault(
            "some-interim",
            answer_and_close(hints.repeat(8) + "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            Whole(200),
            soon(),
        ),
        fault("extra-bytes", scripts::extra_bytes(), Whole(200), soon()),
        fault(
            "body-after-204",
            answer("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"),
            Whole(204),
            soon(),
        ),
        fault(
            "body-after-304",
            answer("HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\npoison"),
            Whole(304),
            soon(),
        ),
    ]
}

fn config(upstreams: &[(Fault, FaultUpstream)]) -> String {
    let of = |(fault, upstream): &(Fault, FaultUpstream)| {
        format!(
            r#"
            [upstream."{name}"]
            endpoints = ["{address}"]
            timeouts = {{ connect = "{CONNECT:?}", first_byte = "{FIRST_BYTE:?}", between_bytes = "{BETWEEN_BYTES:?}" }}
            max_response_body = "100000B"
            connect_retries = 0
            max_in_flight = 4

            [route."{name}"]
            path = "/{name}"
            upstream = "{name}"
            deadline = "1500ms"
            max_in_flight = 4
            "#,
            name = fault.name,
            address = upstream.address,
        )
    };
    upstreams.iter().map(of).collect()
}

/// A function and not an async closure: rustc 1.95 ends with an internal error when it compiles that a second time
/// (incrementally, "unstable fingerprints").
async fn start(fault: Fault) -> (Fault, FaultUpstream) {
    let upstream = FaultUpstream::start([fault.script.clone(), scripts::ok()]).await;
    (fault, upstream)
}

#[tokio::test]
async fn every_fault_of_an_upstream_ends_in_time_with_its_reason_and_leaves_nothing_behind() {
    let upstreams = join_all(faults().into_iter().map(start)).await;
    let forebay = Forebay::start(&config(&upstreams)).await;

    let cases = join_all(upstreams.iter().map(|(fault, _)| show(&forebay, fault))).await;
    let failed: Vec<String> = cases.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), upstreams.len(), failed.join("\n"));

    let scrape = at_rest(&forebay).await;
    for (fault, _) in &upstreams {
        let reason = match fault.seen {
            Seen::Whole(_) => "ok",
            Seen::Refused(_, reason) | Seen::Broken(reason) => reason,
        };
        let counted = |name, label| scrape.sum(name, &[(label, fault.name), ("reason", reason)]);
        assert_eq!(counted("forebay_requests_total", "route"), 1.0, "{}", fault.name);
        assert_eq!(counted("forebay_upstream_attempts_total", "upstream"), 1.0, "{}", fault.name);
    }
    for (fault, upstream) in &upstreams {
        clean(&forebay, &format!("/{}", fault.name)).await;
        assert_eq!(upstream.accepted(), 2, "{}: the connection of the fault is not used again", fault.name);
    }
    at_rest(&forebay).await;
}

/// Runs one line of the table; says what is not as it should be.
async fn show(forebay: &Forebay, fault: &Fault) -> Result<(), String> {
    let path = format!("/{}", fault.name);
    let started = Instant::now();
    let response = http::get(forebay.address(), &path).await;
    let took = started.elapsed();
    let line = logged(forebay, &path).await;
    let report = || format!("{}: {:?} after {took:?}: {response:?}, {line}", fault.name, fault.seen);
    let right = match (&response, fault.seen) {
        (Ok(response), Seen::Whole(status)) => response.status == status && response.complete && line["reason"] == "ok",
        (Ok(response), Seen::Refused(status, reason)) => {
            response.status == status && says(response, reason) && line["reason"] == reason && line["status"] == status
        }
        // Broken before any of it was on its way, or after the beginning.
        (Ok(response), Seen::Broken(reason)) => {
            !response.complete && response.status == 200 && line["reason"] == reason
        }
        (Err(_), Seen::Broken(reason)) => line["reason"] == reason,
        (Err(_), _) => false,
    };
    if right && fault.within.contains(&took) { Ok(()) } else { Err(report()) }
}

/// The reason in the header and in the problem document.
fn says(response: &Response, reason: &str) -> bool {
    let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
    response.complete
        && response.reason() == Some(reason)
        && response.header("content-type") == Some("application/problem+json")
        && problem["reason"] == reason
        && problem["status"] == response.status
}

#[tokio::test]
async fn an_endpoint_that_accepts_nothing_ends_at_the_connect_timeout() {
    let full = FullBacklog::start().await;
    let forebay = Forebay::start(&format!(
        r#"
        [listener]
        address = "127.0.0.1:0"
        trusted_proxies = ["127.0.0.0/8"]
        [upstream.full]
        endpoints = ["{}"]
        timeouts = {{ connect = "600ms" }}
        connect_retries = 0
        [route.full]
        path = "/*"
        upstream = "full"
        deadline = "2s"
        "#,
        full.address
    ))
    .await;

    for (path, at, left, reason) in
        [("/timeout", 600, "2000", "connect_timeout"), ("/deadline", 300, "300", "deadline_in_connect")]
    {
        let started = Instant::now();
        let asked = [("x-forebay-deadline-ms", left)];
        let response = http::request(forebay.address(), "GET", path, &asked, b"").await.unwrap();
        let took = started.elapsed();

        assert_eq!((response.status, response.reason()), (504, Some(reason)));
        assert!(about(ms(at)).contains(&took), "{path}: {took:?}");
        assert_eq!(logged(&forebay, path).await["reason"], reason);
    }
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_timeouts_total", &[("phase", "connect"), ("limit", "timeout")]), 1.0);
    assert_eq!(scrape.sum("forebay_timeouts_total", &[("phase", "connect"), ("limit", "deadline")]), 1.0);
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_or_fails_has_reasons_of_its_own() {
    let silent = FaultUpstream::start([vec![Step::Stall]]).await;
    let plain =
        FaultUpstream::start([vec![Step::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), Step::Stall]]).await;
    let leaving = FaultUpstream::start([vec![Step::Close]]).await;
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, certificate).unwrap();
    let of = |name: &str, upstream: &FaultUpstream| {
        format!(
            "[upstream.{name}]\nendpoints = [\"{}\"]\ntls = {{ ca = {ca:?} }}\nconnect_retries = 0\n\
             timeouts = {{ tls = \"500ms\" }}\n[route.{name}]\npath = \"/{name}\"\nupstream = \"{name}\"\n",
            upstream.address
        )
    };
    let config = of("silent", &silent) + &of("plain", &plain) + &of("leaving", &leaving);
    let forebay = Forebay::start(&config).await;

    for (path, status, reason, at) in [
        ("/silent", 504, "tls_timeout", ms(500)),
        ("/plain", 502, "tls_failed", Duration::ZERO),
        ("/leaving", 502, "tls_failed", Duration::ZERO),
    ] {
        let (response, took) = http::timed_get(forebay.address(), path).await;
        let response = response.unwrap();
        assert!(response.status == status && says(&response, reason), "{path}: {response:?}");
        assert!(about(at).contains(&took), "{path}: {took:?}");
    }
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_timeouts_total", &[("phase", "tls"), ("limit", "timeout")]), 1.0);
    for upstream in [&silent, &plain, &leaving] {
        upstream.abandoned().await;
    }
}
