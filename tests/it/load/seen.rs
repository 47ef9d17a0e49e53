//! A load test as the sidecar sees it: it says whose requests these are, and the page says so.

use rustix::process::Signal;

use super::super::support::eventually;
use super::super::support::fault_upstream::{FaultUpstream, scripts};
use super::super::support::forebay::Forebay;
use super::super::support::http;
use super::{Load, url};

#[tokio::test]
async fn the_page_of_the_sidecar_names_a_load_test_while_it_runs() {
    let upstream = FaultUpstream::start([scripts::ok()]).await;
    let config = format!(
        "[upstream.api]\nendpoints = [\"{}\"]\n[route.api]\npath = \"/*\"\nupstream = \"api\"\n",
        upstream.address
    );
    let forebay = Forebay::start(&config).await;
    let target = url(forebay.address());
    let load = Load::start(&[&target, "-r", "50/s", "-d", "60s"]);

    eventually("the page names the load test", async || {
        let page = http::get(forebay.admin(), "/overview?format=text").await.ok()?.text();
        page.contains("A load test runs: forebay load sends").then_some(())
    })
    .await;
    assert!(upstream.heads()[0].contains("user-agent: forebay-load/"), "{:?}", upstream.heads()[0]);
    assert!(forebay.scrape().await.sum("forebay_load_test_requests_total", &[("route", "api")]) >= 1.0);
    load.process.signal(Signal::INT);
    load.ended().await;

    http::get(forebay.address(), "/").await.expect("an answer");
    eventually("the notice is gone", async || {
        let page = http::get(forebay.admin(), "/overview?format=text").await.ok()?.text();
        (!page.contains("A load test runs")).then_some(())
    })
    .await;
}
