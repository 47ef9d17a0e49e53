//! Faults that the configuration asks for: each does what it says and no more, ends by itself, and is counted.

use std::time::Duration;

use tokio::time::Instant;

use super::server::Server;
use super::{about, at_rest, logged, ms};
use crate::support::forebay::Forebay;
use crate::support::http;
use crate::support::{SLACK, eventually};

async fn forebay(server: &Server, fault: &str) -> Forebay {
    forebay_with(server, "[faults]\nenabled = true", fault).await
}

async fn forebay_with(server: &Server, faults: &str, route: &str) -> Forebay {
    Forebay::start(&config(server, faults, route)).await
}

fn config(server: &Server, faults: &str, route: &str) -> String {
    format!(
        "{faults}\n[upstream.api]\nendpoints = [\"{}\"]\ntimeouts = {{ first_byte = \"600ms\" }}\n\
         [route.api]\npath = \"/*\"\nupstream = \"api\"\ndeadline = \"3s\"\n{route}\n\
         [route.fixed]\npath = \"/fixed\"\nrespond = {{ body = \"{}\" }}\nfault = {{ bandwidth = \"1KiB/s\" }}\n",
        server.address,
        "x".repeat(512)
    )
}

fn injected(scrape: &crate::support::metrics::Scrape, kind: &str) -> f64 {
    scrape.sum("forebay_faults_injected_total", &[("route", "api"), ("kind", kind)])
}

#[tokio::test]
async fn a_delay_holds_the_request_and_is_told_apart_from_the_upstream_and_from_forebay() {
    let server = Server::start().await;
    let forebay = forebay(&server, "fault = { delay = \"300ms\", headers = { x-fault = true } }").await;

    let started = Instant::now();
    let delayed = http::request(forebay.address(), "GET", "/delayed", &[("x-fault", "yes")], b"").await.unwrap();
    assert!(about(ms(300)).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(delayed.status, 200);
    assert_eq!(http::get(forebay.address(), "/plain").await.unwrap().status, 200);

    let line = logged(&forebay, "/delayed").await;
    assert_eq!((&line["reason"], &line["fault"]), (&"ok".into(), &"delay".into()), "{line}");
    assert!(
        line["fault_delay_ms"].as_f64().unwrap() >= 300.0 && line["upstream_ms"].as_f64().unwrap() < 290.0,
        "{line}"
    );
    assert!(line["overhead_ms"].as_f64().unwrap() < 290.0, "{line}");
    assert!(logged(&forebay, "/plain").await.get("fault").is_none());
    let scrape = at_rest(&forebay).await;
    assert_eq!(injected(&scrape, "delay"), 1.0);
    assert_eq!(scrape.get("forebay_faults_armed", &[("route", "api")]), Some(1.0));
    assert_eq!(scrape.get("forebay_faults_active", &[("route", "api")]), Some(0.0));
}

#[tokio::test]
async fn a_delay_is_cut_by_what_cuts_a_slow_upstream_and_by_a_client_that_leaves() {
    let server = Server::start().await;
    let forebay = forebay(&server, "max_in_flight = 1\nfault = { delay = \"60s\" }").await;

    let (answer, took) = http::timed_get(forebay.address(), "/slow").await;
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.reason()), (504, Some("first_byte_timeout")), "{answer:?}");
    assert!(about(ms(600)).contains(&took), "{took:?}");
    assert_eq!(server.requests(), 0, "the upstream was not asked");

    let held = http::hold(forebay.address(), "/left").await;
    eventually("the fault is active", async || {
        (forebay.scrape().await.sum("forebay_faults_active", &[]) == 1.0).then_some(())
    })
    .await;
    drop(held);
    assert_eq!(logged(&forebay, "/left").await["reason"], "client_gone");
    at_rest(&forebay).await;
}

#[tokio::test]
async fn aborted_and_reset_requests_never_reach_the_upstream() {
    let server = Server::start().await;
    let faults = "fault = [{ abort = 429, headers = { x-fault = \"abort\" } }, { reset = true, headers = { x-fault = \"reset\" } }]";
    let forebay = forebay(&server, faults).await;
    let ask = async |what: &str| {
        http::request(forebay.address(), "GET", &format!("/{what}"), &[("x-fault", what)], b"").await
    };

    let aborted = ask("abort").await.unwrap();
    assert_eq!((aborted.status, aborted.reason()), (429, Some("fault_abort")), "{aborted:?}");
    assert_eq!(aborted.json()["reason"], "fault_abort");
    assert!(ask("reset").await.is_err(), "there is no answer");
    assert_eq!(server.requests(), 0);
    assert_eq!(ask("nothing").await.unwrap().status, 200);

    let line = logged(&forebay, "/reset").await;
    assert_eq!((&line["reason"], &line["status"]), (&"fault_reset".into(), &0.into()), "{line}");
    let scrape = at_rest(&forebay).await;
    assert_eq!((injected(&scrape, "abort"), injected(&scrape, "reset")), (1.0, 1.0));
    let reasons = |reason| scrape.sum("forebay_requests_total", &[("route", "api"), ("reason", reason)]);
    assert_eq!((reasons("fault_abort"), reasons("fault_reset"), reasons("ok")), (1.0, 1.0, 1.0));
}

#[tokio::test]
async fn an_abort_whose_status_has_no_content_has_none() {
    let server = Server::start().await;
    for status in [204, 205, 304] {
        let forebay = forebay(&server, &format!("fault = {{ abort = {status} }}")).await;
        let aborted = http::get(forebay.address(), "/").await.unwrap();
        assert_eq!((aborted.status, aborted.body.len()), (status, 0), "{aborted:?}");
        let length = aborted.header("content-length").map(str::to_owned);
        assert_eq!(length.as_deref(), (status == 205).then_some("0"));
    }
}

#[tokio::test]
async fn a_delay_of_ages_is_a_delay_like_any_other() {
    let server = Server::start().await;
    let forebay = forebay(&server, "fault = { delay = \"18446744073709551615s\" }").await;

    let answer = http::get(forebay.address(), "/").await.unwrap();

    assert_eq!((answer.status, answer.reason()), (504, Some("first_byte_timeout")), "{answer:?}");
    assert_eq!(at_rest(&forebay).await.sum("forebay_panics_total", &[]), 0.0);
}

#[tokio::test]
async fn bandwidth_holds_back_answers_of_an_upstream_and_of_our_own() {
    let server = Server::start().await;
    let forebay = forebay(&server, "fault = { bandwidth = \"40KiB/s\" }").await;

    for (path, size, least) in [("/large", 20_480, ms(450)), ("/fixed", 512, ms(450))] {
        let (answer, took) = http::timed_get(forebay.address(), path).await;
        assert_eq!(answer.unwrap().body.len(), size, "{path}");
        assert!(took >= least && took < least + SLACK, "{path}: {took:?}");
    }
    assert_eq!(injected(&at_rest(&forebay).await, "bandwidth"), 1.0);
}

#[tokio::test]
async fn a_fraction_meets_the_same_requests_after_a_restart_and_faults_that_are_off_meet_none() {
    let server = Server::start().await;
    let fault = "fault = { abort = 500, fraction = 0.5 }";
    let met = async |faults: &str| {
        let forebay = forebay_with(&server, faults, fault).await;
        let mut met = Vec::new();
        for _ in 0..40 {
            met.push(http::get(forebay.address(), "/").await.unwrap().status == 500);
        }
        met
    };

    let first = met("[faults]\nenabled = true\nseed = 5").await;
    assert!((8..=32).contains(&first.iter().filter(|met| **met).count()), "{first:?}");
    assert_eq!(met("[faults]\nenabled = true\nseed = 5").await, first);
    assert_ne!(met("[faults]\nenabled = true\nseed = 6").await, first);
    assert_eq!(met("").await, [false; 40]);
}

#[tokio::test]
async fn a_fault_ends_by_itself_and_a_reload_neither_lengthens_it_nor_leaves_its_series() {
    let server = Server::start().await;
    let begun = Instant::now();
    let forebay = forebay(&server, "fault = { abort = 503, end_after = \"8s\" }").await;
    let armed = async || forebay.scrape().await.get("forebay_faults_armed", &[("route", "api")]);
    let reload = async |route: &str| {
        let before = forebay.scrape().await.sum("forebay_config_reloads_total", &[("result", "success")]);
        let head = "[listener]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[shutdown]\naccept_grace = \"0s\"\n";
        let text = head.to_owned() + &config(&server, "[faults]\nenabled = true", route);
        std::fs::write(forebay.config_path(), text).unwrap();
        eventually("the reload is taken", async || {
            let now = forebay.scrape().await.sum("forebay_config_reloads_total", &[("result", "success")]);
            (now > before).then_some(())
        })
        .await;
    };

    assert_eq!(armed().await, Some(1.0));
    assert_eq!(http::get(forebay.address(), "/").await.unwrap().status, 503);
    // Time is what is tested: the reload comes late, so that a fault that began anew would end much later.
    tokio::time::sleep_until(begun + Duration::from_secs(6)).await;
    reload("fault = { abort = 503, end_after = \"8s\" }\nmax_in_flight = 7").await;
    let reloaded = Instant::now();
    eventually("the fault has ended", async || {
        (http::get(forebay.address(), "/").await.unwrap().status == 200).then_some(())
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(reloaded.elapsed() < Duration::from_secs(7), "{:?}", reloaded.elapsed());
    assert_eq!(armed().await, Some(0.0));

    reload("").await;
    assert_eq!(armed().await, None);
    assert_eq!(forebay.scrape().await.get("forebay_faults_active", &[("route", "api")]), None);
}
