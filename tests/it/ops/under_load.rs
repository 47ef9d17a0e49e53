//! Reload, stop and hand-over while requests come in.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::support::eventually;
use crate::support::fault_upstream::FaultUpstream;
use crate::support::forebay::Forebay;
use crate::support::http::{get, hold};
use crate::support::load::Load;

const RELOADS: u32 = 1000;

/// After so many good files comes a bad one.
const GOOD_FILES: u32 = 20;

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes";

/// A route through every kind of limit. `variant` changes what a reload has to build anew: the upstream with its pool,
/// the listener's settings, the route; `limited` stays what it is, and so must its bucket.
fn config(upstream: &FaultUpstream, variant: u32) -> String {
    format!(
        r#"
        [listener]
        address = "127.0.0.1:0"
        max_connections = {connections}

        [admin]
        address = "127.0.0.1:0"

        [reload]
        watch = false

        [access_log]
        output = "off"

        [upstream.app]
        endpoints = ["{address}"]
        timeouts = {{ first_byte = "{first_byte}ms" }}
        max_in_flight = 50
        queue = {{ capacity = 50, timeout = "5s" }}

        [route.app]
        path = "/app"
        upstream = "app"
        deadline = "{deadline}ms"
        max_in_flight = 60
        queue = {{ capacity = 60, timeout = "5s" }}
        rate_limit = {{ rate = "1000000/s" }}

        [route.limited]
        path = "/limited"
        respond = {{ body = "limited" }}
        rate_limit = {{ rate = "1/h", burst = 2 }}
        "#,
        address = upstream.address,
        connections = 1000 + variant % 2,
        first_byte = 20_000 + variant,
        deadline = 25_000 + variant,
    )
}

/// The requirement's words: 1000 reloads in a row under steady load, no failed request; a bad file in between changes
/// nothing but a metric.
#[tokio::test]
async fn a_thousand_reloads_under_load_fail_no_request_and_a_bad_file_changes_nothing_but_a_metric() {
    let upstream = FaultUpstream::answering(ANSWER).await;
    let forebay = Forebay::start(&config(&upstream, 0)).await;
    let limited = async || get(forebay.address(), "/limited").await.expect("an answer").status;
    assert_eq!([limited().await, limited().await, limited().await], [200, 200, 429]);
    let load = Load::start(forebay.address(), "/app", 4, 4, Duration::from_millis(40));
    let started = Instant::now();

    let mut refused = 0;
    for number in 1..=RELOADS {
        write(&forebay, &config(&upstream, number));
        reload(&forebay, "success", number).await;
        if number % GOOD_FILES == 0 {
            let before = hash(&forebay).await;
            refused += 1;
            write(&forebay, &config(&upstream, number).replace("max_in_flight", "max_in_fligth"));
            reload(&forebay, "failure", refused).await;
            assert_eq!(hash(&forebay).await, before);
        }
    }
    let took = started.elapsed();
    let tally = load.stop().await;

    println!(
        "{RELOADS} reloads and {refused} refused files in {took:?}; {} requests, {} repeated",
        tally.answered, tally.repeated
    );
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(tally.repeated, 0, "a reload closes no connection");
    assert!(u128::from(tally.answered) > took.as_millis() / 40, "the load went on: {}", tally.answered);
    assert_eq!(limited().await, 429, "the bucket of an unchanged limit was kept");
    let scrape = forebay.idle().await;
    assert_eq!(scrape.sum("forebay_requests_total", &[("route", "app"), ("reason", "ok")]), tally.answered as f64);
    assert_eq!(scrape.sum("forebay_config_reloads_total", &[("result", "failure")]), f64::from(refused));
    assert_eq!(scrape.sum("forebay_permits_in_use", &[]), 0.0);
    // Pools of upstreams that were replaced are gone; the last one's connections stay for reuse.
    eventually("the connections of replaced upstreams are closed", async || (upstream.open() <= 8).then_some(())).await;
}

/// As a deployment does it: whole or not at all.
fn write(forebay: &Forebay, text: &str) {
    let new = forebay.config_path().with_extension("new");
    std::fs::write(&new, text).expect("the folder is writable");
    std::fs::rename(new, forebay.config_path()).expect("the folder is writable");
}

async fn reload(forebay: &Forebay, result: &str, count: u32) {
    forebay.signal(Signal::HUP);
    let what = format!("reload number {count} with the result {result}");
    eventually(&what, async || {
        let done = forebay.scrape().await.sum("forebay_config_reloads_total", &[("result", result)]);
        (done == f64::from(count)).then_some(())
    })
    .await;
}

async fn hash(forebay: &Forebay) -> String {
    get(forebay.admin(), "/config").await.expect("an answer").json()["hash"].to_string()
}

/// SIGTERM while requests come in: those that are in flight end, new ones are taken until the grace is over.
#[tokio::test]
async fn sigterm_under_load_loses_no_request() {
    let upstream = FaultUpstream::answering(ANSWER).await;
    let grace = "[shutdown]\naccept_grace = \"1s\"\n";
    let mut forebay = Forebay::start(&(config(&upstream, 0) + grace)).await;
    let load = Load::start(forebay.address(), "/app", 4, 4, Duration::from_millis(20));
    eventually("the load has begun", async || (load.answered() > 100).then_some(())).await;

    forebay.signal(Signal::TERM);
    eventually("not ready", async || {
        get(forebay.admin(), "/readyz").await.is_ok_and(|answer| answer.status == 503).then_some(())
    })
    .await;
    let before = load.answered();
    eventually("requests are still taken", async || (load.answered() > before + 50).then_some(())).await;
    // A balancer that has noticed sends no more.
    let tally = load.stop().await;

    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(forebay.process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_hand_over_under_load_loses_nothing() {
    let upstream = FaultUpstream::answering(ANSWER).await;
    let mut forebay = Forebay::start(&config(&upstream, 0)).await;
    let load = Load::start(forebay.address(), "/app", 4, 4, Duration::from_millis(20));
    eventually("the load has begun", async || (load.answered() > 100).then_some(())).await;

    forebay.signal(Signal::USR2);
    // Its output does not end with it: the new process writes to the same place.
    eventually("the old process is gone", async || forebay.process.has_ended()).await;
    let before = load.answered();
    eventually("the new process serves", async || (load.answered() > before + 100).then_some(())).await;
    let tally = load.stop().await;
    let successor = Successor::of(&forebay);

    println!("{} requests, {} repeated on a new connection", tally.answered, tally.repeated);
    assert_eq!(tally.failures, Vec::<String>::new());
    assert!(tally.repeated <= 4, "at most once for each kept connection: {}", tally.repeated);
    drop(successor);
}

/// The process that took over; ended when dropped.
struct Successor(Pid);

impl Successor {
    fn of(forebay: &Forebay) -> Self {
        let lines = forebay.process.stderr.all();
        let line = lines.iter().find(|line| line.contains("handed over")).expect("it says to whom it handed over");
        let (_, pid) = line.split_once("pid=").expect("with the process id");
        let digits: String = pid.chars().take_while(char::is_ascii_digit).collect();
        Self(Pid::from_raw(digits.parse().expect("a process id")).expect("not zero"))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // Twice: at once.
        for _ in 0..2 {
            let _ = kill_process(self.0, Signal::TERM);
        }
    }
}

/// The limit is part of the configuration, so to reach it is an orderly end, too.
#[tokio::test]
async fn a_request_that_outlasts_the_drain_limit_is_cut_and_counted() {
    let upstream = FaultUpstream::start([crate::support::fault_upstream::scripts::stall_before_head()]).await;
    let limit = "[shutdown]\naccept_grace = \"0s\"\ndrain_timeout = \"300ms\"\n";
    let mut forebay = Forebay::start(&(config(&upstream, 0) + limit)).await;
    let mut held = hold(forebay.address(), "/app").await;
    eventually("it is in flight", async || {
        (forebay.scrape().await.sum("forebay_upstream_in_flight", &[]) == 1.0).then_some(())
    })
    .await;

    forebay.signal(Signal::TERM);
    let exit = forebay.process.ended().await;

    assert_eq!(exit.code(), Some(0));
    assert!(held.response().await.is_err(), "its connection was broken");
    let said = forebay.process.stderr.all().join("\n");
    assert!(said.contains("requests were cut") && said.contains("requests=1"), "{said}");
}
