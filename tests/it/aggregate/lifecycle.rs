//! Reload and shutdown while aggregates are at work.

use std::net::SocketAddr;

use rustix::process::Signal;

use super::upstream::{Gate, Reply, Upstream};
use super::{at_rest, get, ms, post};
use crate::support::forebay::Forebay;
use crate::support::load::Load;
use crate::support::{eventually, http};

/// `variant` changes what a reload has to build anew, the routes of the report excepted.
fn config(app: SocketAddr, drain_timeout: &str, variant: u32) -> String {
    format!(
        r#"
        [shutdown]
        accept_grace = "0s"
        drain_timeout = "{drain_timeout}"

        [reload]
        watch = false

        [upstream.app]
        endpoints = ["{app}"]

        [route.three]
        path = "/three"
        deadline = "{deadline}ms"
        on_client_gone = "finish"
        [route.three.aggregate.source]
        a = {{ upstream = "app", path = "/a" }}
        b = {{ upstream = "app", path = "/b" }}
        c = {{ upstream = "app", path = "/c" }}

        [route.report]
        path = "/report"
        methods = ["POST"]
        deadline = "20s"
        [route.report.aggregate]
        background = true
        [route.report.aggregate.source]
        report = {{ upstream = "app", path = "/report" }}

        [route.job]
        path = "/jobs/{{id}}"
        results_of = "report"
        "#,
        deadline = 20_000 + variant,
    )
}

async fn reload(forebay: &Forebay, app: SocketAddr, number: u32) {
    // Addresses stay: a reload with port 0 keeps the listener.
    let text = std::fs::read_to_string(forebay.config_path()).expect("the file");
    let at = text.find("[shutdown]").expect("the part that the test wrote");
    let new = forebay.config_path().with_extension("new");
    std::fs::write(&new, format!("{}{}", &text[..at], config(app, "10s", number).trim_start())).expect("a file");
    std::fs::rename(new, forebay.config_path()).expect("the folder is writable");
    forebay.signal(Signal::HUP);
    eventually(&format!("reload {number} is done"), async || {
        let done = forebay.scrape().await.sum("forebay_config_reloads_total", &[("result", "success")]);
        (done == f64::from(number)).then_some(())
    })
    .await;
}

async fn start_report(forebay: &Forebay) -> String {
    let accepted = post(forebay, "/report", &serde_json::Value::Null).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    accepted.header("location").expect("where the result will be").to_owned()
}

#[tokio::test]
async fn reloads_under_load_lose_no_aggregate() {
    const RELOADS: u32 = 60;
    let app = Upstream::start(|_| Reply::json("1").after(ms(20))).await;
    let forebay = Forebay::start(&config(app.address, "10s", 0)).await;
    let load = Load::start(forebay.address(), "/three", 4, 2, ms(30));

    for number in 1..=RELOADS {
        reload(&forebay, app.address, number).await;
    }
    eventually("the load went on", async || (load.answered() > 100).then_some(())).await;
    let tally = load.stop().await;

    assert_eq!((tally.failures, tally.repeated), (Vec::new(), 0));
    let scrape = at_rest(&forebay).await;
    let complete = [("route", "three"), ("completeness", "complete")];
    assert_eq!(scrape.sum("forebay_aggregate_answers_total", &complete), tally.answered as f64);
    assert_eq!(app.seen().answered as u64, 3 * tally.answered);
}

#[tokio::test]
async fn background_work_and_its_results_survive_a_reload() {
    let gate = Gate::new();
    let opened = gate.clone();
    let app = Upstream::start(move |request| match request.starts_with("GET /report") {
        true => Reply::json(r#"{"rows":3}"#).when(&opened),
        false => Reply::json("1"),
    })
    .await;
    let forebay = Forebay::start(&config(app.address, "10s", 0)).await;

    let job = start_report(&forebay).await;
    app.working_on(1).await;
    reload(&forebay, app.address, 1).await;
    let running = get(&forebay, &job).await;
    gate.open();
    let result = eventually("the result is there", async || {
        Some(get(&forebay, &job).await).filter(|response| response.status != 202)
    })
    .await;
    reload(&forebay, app.address, 2).await;
    let again = get(&forebay, &job).await;

    assert_eq!(running.status, 202, "{running:?}");
    assert_eq!((result.status, result.text().as_str()), (200, r#"{"report":{"rows":3}}"#));
    assert_eq!((again.status, again.body), (200, result.body));
}

/// One client waits, one has left its work behind, one report is written: SIGTERM waits for all of them.
#[tokio::test]
async fn sigterm_waits_for_finishing_and_background_work() {
    let gate = Gate::new();
    let opened = gate.clone();
    let app = Upstream::start(move |_| Reply::json("1").when(&opened)).await;
    let mut forebay = Forebay::start(&config(app.address, "20s", 0)).await;

    let mut waits = http::hold(forebay.address(), "/three").await;
    app.working_on(3).await;
    drop(http::hold(forebay.address(), "/three").await);
    app.working_on(6).await;
    start_report(&forebay).await;
    app.working_on(7).await;
    forebay.signal(Signal::TERM);
    eventually("new connections are refused", async || {
        http::Connection::open(forebay.address()).await.is_err().then_some(())
    })
    .await;
    assert!(forebay.process.has_ended().is_none(), "it waits");
    assert_eq!(app.seen().working, 7);
    gate.open();
    let answer = waits.response().await.expect("an answer");
    let exit = forebay.process.ended().await;

    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"a":1,"b":1,"c":1}"#));
    assert_eq!(exit.code(), Some(0));
    let seen = app.seen();
    assert_eq!((seen.answered, seen.abandoned), (7, 0));
}

#[tokio::test]
async fn work_that_outlasts_the_drain_limit_is_cut_and_said() {
    let app = Upstream::start(|_| Reply::never()).await;
    let mut forebay = Forebay::start(&config(app.address, "300ms", 0)).await;

    drop(http::hold(forebay.address(), "/three").await);
    start_report(&forebay).await;
    app.working_on(4).await;
    forebay.signal(Signal::TERM);
    let exit = forebay.process.ended().await;

    assert_eq!(exit.code(), Some(0));
    app.until("every call is cancelled", |seen| seen.abandoned == 4).await;
    let said = forebay.process.stderr.all().join("\n");
    assert!(said.contains("cut"), "{said}");
}
