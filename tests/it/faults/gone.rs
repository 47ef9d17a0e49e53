//! The client leaves: its upstream request is cancelled, or runs to its end where the route says so.

use std::time::Duration;

use tokio::time::Instant;

use super::{at_rest, clean, ms};
use crate::support::eventually;
use crate::support::fault_upstream::{FaultUpstream, Script, Step, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::{self, quantile};

async fn forebay(upstream: &FaultUpstream, settings: &str) -> Forebay {
    Forebay::start(&format!(
        r#"
        [upstream.work]
        endpoints = ["{}"]
        max_in_flight = 4
        [route.work]
        path = "/*"
        upstream = "work"
        deadline = "20s"
        max_in_flight = 4
        max_body = "1GiB"
        {settings}
        "#,
        upstream.address
    ))
    .await
}

/// Lets the client leave twenty times; the upstream's connection has to end soon after each.
async fn leave(name: &str, script: Script, request: &str, started: impl Fn(&FaultUpstream, usize) -> bool) {
    let mut all = vec![script; 20];
    all.push(scripts::ok());
    let upstream = FaultUpstream::start(all).await;
    let forebay = forebay(&upstream, "").await;
    let mut times: Vec<Duration> = Vec::new();
    for n in 1..=20 {
        let mut client = http::Connection::open(forebay.address()).await.unwrap();
        client.send(request).await.unwrap();
        eventually("the upstream has the request", async || started(&upstream, n).then_some(())).await;
        let left = Instant::now();
        drop(client);
        upstream.abandoned().await;
        times.push(left.elapsed());
    }
    // 20 of 20 on a quiet machine; a busy one may hold up a few.
    assert!(quantile(&times, 0.75) < ms(200), "{name}: {times:?}");

    let log = forebay.access_log_of(20).await;
    assert!(log.iter().all(|line| line["reason"] == "client_gone"), "{name}: {log:?}");
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_requests_total", &[("reason", "client_gone")]), 20.0, "{name}");
    assert_eq!(scrape.sum("forebay_upstream_attempts_total", &[("reason", "client_gone")]), 20.0, "{name}");
    clean(&forebay, "/after").await;
    assert_eq!(upstream.accepted(), 21, "{name}: connections of cancelled requests are not used again");
}

const GET: &str = "GET /gone HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_cancels_the_upstreams_work() {
    leave("wait", scripts::stall_before_head(), GET, |upstream, n| upstream.heads().len() == n).await;
}

#[tokio::test]
async fn a_client_that_leaves_inside_the_answer_cancels_it() {
    leave("answer", scripts::stall_mid_body(), GET, |upstream, n| upstream.heads().len() == n).await;
}

#[tokio::test]
async fn a_client_that_leaves_inside_its_upload_cancels_it() {
    let request = "POST /gone HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhello";
    leave("upload", scripts::stall_before_head(), request, |upstream, n| upstream.heads().len() == n).await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_gives_up_its_place() {
    let upstream = FaultUpstream::start([scripts::stall_before_head()]).await;
    let forebay = forebay(&upstream, "queue = { capacity = 10, timeout = \"10s\" }").await;
    let mut holding = Vec::new();
    for n in 0..8 {
        holding.push(http::hold(forebay.address(), &format!("/{n}")).await);
        if n < 4 {
            eventually("it has a permit", async || (upstream.heads().len() == n + 1).then_some(())).await;
        }
    }
    let waiting = async |count: f64| {
        eventually("so many wait", async || {
            let depth = forebay.scrape().await.sum("forebay_queue_depth", &[("scope", "route")]);
            (depth == count).then_some(())
        })
        .await;
    };
    waiting(4.0).await;

    drop(holding.drain(4..));

    waiting(0.0).await;
    drop(holding);
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_queue_results_total", &[("scope", "route"), ("result", "abandoned")]), 4.0);
}

/// Work that is to be finished: a small answer, one larger than any socket buffer, and one that began before the client
/// left.
#[tokio::test]
async fn work_that_is_to_be_finished_runs_to_its_end_without_its_client() {
    let large = [b"HTTP/1.1 200 OK\r\ncontent-length: 30000000\r\n\r\n".to_vec(), vec![b'x'; 30_000_000]].concat();
    for (name, script) in [
        ("small", vec![Step::ReadHead, Step::Pause(ms(300)), Step::Send(scripts::OK.to_vec()), Step::Repeat]),
        ("large", vec![Step::ReadHead, Step::Pause(ms(300)), Step::Send(large), Step::Repeat]),
        (
            "begun",
            vec![
                Step::ReadHead,
                Step::Send(scripts::HALF.to_vec()),
                Step::Pause(ms(300)),
                Step::Send(b"world".to_vec()),
                Step::Repeat,
            ],
        ),
    ] {
        let upstream = FaultUpstream::start([script]).await;
        let forebay = forebay(&upstream, "on_client_gone = \"finish\"").await;

        let client = http::hold(forebay.address(), "/work").await;
        eventually("the upstream has the request", async || (upstream.heads().len() == 1).then_some(())).await;
        drop(client);
        eventually("the work goes on alone", async || {
            let scrape = forebay.scrape().await;
            let alone = scrape.sum("forebay_detached_tasks", &[]) == 1.0;
            (alone && scrape.sum("forebay_requests_in_flight", &[("route", "work")]) == 1.0).then_some(())
        })
        .await;

        let line = forebay.access_log_of(1).await.remove(0);
        assert_eq!((&line["reason"], &line["status"]), (&"client_gone".into(), &200.into()), "{name}: {line}");
        assert_eq!(line["bytes_out"], if name == "begun" { 5 } else { 0 }, "{name}: what nobody got is not counted");
        let scrape = at_rest(&forebay).await;
        assert_eq!(scrape.sum("forebay_detached_tasks", &[]), 0.0, "{name}");
        assert_eq!(scrape.sum("forebay_detached_tasks_ended_total", &[("result", "finished")]), 1.0, "{name}");
        assert_eq!(scrape.sum("forebay_detached_tasks_ended_total", &[("result", "cut")]), 0.0, "{name}");
        assert_eq!(http::get(forebay.address(), "/again").await.unwrap().status, 200);
        assert_eq!(upstream.accepted(), 1, "{name}: the answer was read to its end, so the connection is good");
    }
}

#[tokio::test]
async fn work_without_a_client_is_still_bounded_and_counted_as_cut() {
    let upstream = FaultUpstream::start([scripts::stall_before_head()]).await;
    let forebay =
        forebay(&upstream, "on_client_gone = \"finish\"\n[upstream.work.timeouts]\nfirst_byte = \"600ms\"").await;

    let held = http::hold(forebay.address(), "/work").await;
    eventually("the upstream has the request", async || (!upstream.heads().is_empty()).then_some(())).await;
    drop(held);

    let line = forebay.access_log_of(1).await.remove(0);
    assert_eq!(line["reason"], "first_byte_timeout", "{line}");
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_detached_tasks", &[]), 0.0);
    assert_eq!(scrape.sum("forebay_detached_tasks_ended_total", &[("result", "cut")]), 1.0);
    upstream.abandoned().await;
}
