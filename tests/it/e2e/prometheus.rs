//! A real Prometheus scrapes Forebay under a known load, and its answers are what was sent.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::support::fault_upstream::{FaultUpstream, scripts};
use crate::support::forebay::Forebay;
use crate::support::prometheus::Prometheus;
use crate::support::services::Service;
use crate::support::{eventually, http};

const CONFIG: &str = r#"
    [upstream.app]
    endpoints = ["APP"]

    [upstream.hanging]
    endpoints = ["HANGING"]
    timeouts = { first_byte = "55s" }

    [route.held]
    path = "/held"
    upstream = "hanging"
    deadline = "60s"

    [route.root]
    path = "/"
    upstream = "app"

    [route.one_second]
    path = "/one-second"
    upstream = "app"
    deadline = "30s"
"#;

#[tokio::test]
async fn prometheus_answers_with_the_numbers_of_the_load() {
    let app = Service::app(&[]).await;
    let hanging = FaultUpstream::start([scripts::stall_before_head()]).await;
    let config = CONFIG.replace("APP", &app.address.to_string()).replace("HANGING", &hanging.address.to_string());
    let forebay = Forebay::start(&config).await;
    let prometheus = Prometheus::scraping(forebay.admin()).await;

    // In flight: as many as are held, for as long as they are.
    let held = join_all((0..20).map(|_| http::hold(forebay.address(), "/held"))).await;
    let in_flight = r#"sum(forebay_requests_in_flight{route="held"})"#;
    sees(&prometheus, in_flight, 20.0).await;
    drop(held);
    sees(&prometheus, in_flight, 0.0).await;

    // Rate: a steady 20/s for 6 s. The rate over the middle of it is the rate that was sent.
    steady(&forebay, 20, Duration::from_secs(6)).await;
    let rate = prometheus.number(r#"sum(rate(forebay_requests_total{route="root",reason="ok"}[4s]))"#).await;
    assert!((rate - 20.0).abs() < 4.0, "20/s were sent, {rate}/s are seen");

    // Totals are exact once the last scrape is in.
    sees(&prometheus, r#"sum(forebay_requests_total{route="root",reason="ok"})"#, 120.0).await;
    sees(&prometheus, r#"sum(forebay_requests_total{route="held",reason="client_gone"})"#, 20.0).await;

    // Quantiles: the slow route lies in the bucket above one second, the fast one far below.
    let answers = join_all((0..20).map(|_| http::get(forebay.address(), "/one-second"))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status == 200)), "{answers:?}");
    sees(&prometheus, r#"sum(forebay_request_duration_seconds_count{route="one_second"})"#, 20.0).await;
    let quantile = |route: &str, q: f64| {
        format!("histogram_quantile({q}, sum by (le) (forebay_request_duration_seconds_bucket{{route=\"{route}\"}}))")
    };
    let slow = prometheus.number(&quantile("one_second", 0.5)).await;
    assert!((1.0..=1.5).contains(&slow), "requests of 1 s have a median of {slow} s");
    let fast = prometheus.number(&quantile("root", 0.5)).await;
    assert!(fast < 0.5, "fast requests have a median of {fast} s");
}

/// Waits until a query's answer is exactly this number; the next scrape has to come first.
async fn sees(prometheus: &Prometheus, promql: &str, number: f64) {
    eventually(&format!("prometheus answers {promql} with {number}"), async || {
        (prometheus.number(promql).await == number).then_some(())
    })
    .await;
}

/// Requests at a fixed rate, by schedule: a late one does not delay those after it.
async fn steady(forebay: &Forebay, per_second: u32, time: Duration) {
    let started = Instant::now();
    let interval = Duration::from_secs(1) / per_second;
    let count = (time.as_millis() / interval.as_millis()) as u32;
    let requests = (0..count).map(|n| async move {
        tokio::time::sleep_until(started + interval * n).await;
        http::get(forebay.address(), "/").await
    });
    let answers = join_all(requests).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status == 200)), "{answers:?}");
}
