//! The pictures of the built-in page in `docs/`, made from the demo under a real load: `make pictures`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::chromium::Chromium;
use crate::support::process::{Process, command};
use crate::support::{eventually, http, repository};

const WIDTH: u32 = 1320;

/// Requests a second to each route of the demo.
const LOADS: [(&str, &str); 9] = [
    ("fast", "120/s"),
    ("slow", "3/s"),
    ("flaky", "8/s"),
    ("users-async", "4/s"),
    ("users-async-safe", "2/s"),
    ("team/blue", "2/s"),
    ("sync", "30/min"),
    ("limited", "2/s"),
    ("late", "20/min"),
];

#[tokio::test]
#[ignore = "makes the pictures of docs/ and takes two minutes: make pictures"]
async fn pictures_of_the_page_under_load() {
    let mut run = command(env!("CARGO_BIN_EXE_forebay"));
    run.arg("demo");
    let mut demo = Process::start("forebay demo", run);
    let address = |lines: &[String], name: &str| -> Option<SocketAddr> {
        let line = lines.iter().find(|line| line.contains("listening on") && line.ends_with(name))?;
        line.split_once("http://")?.1.split_once(' ')?.0.parse().ok()
    };
    let (sidecar, admin) = demo
        .output("says where it listens", |lines| Some((address(lines, "(main)")?, address(lines, "(admin)")?)))
        .await;
    eventually("the demo is ready", async || http::get(admin, "/readyz").await.ok().filter(|a| a.status == 200)).await;
    let loads = LOADS.map(|(path, rate)| {
        let mut load = command(env!("CARGO_BIN_EXE_forebay"));
        load.args(["load", &format!("http://{sidecar}/{path}"), "-r", rate, "-d", "150s", "--arrivals", "poisson"]);
        Process::start("forebay load", load)
    });
    let mut browser = Chromium::start(WIDTH, 900).await;
    tokio::time::sleep(Duration::from_secs(125)).await;

    for (view, dark, height, name) in [
        ("overview", false, 680, "page-overview"),
        ("overview", true, 680, "page-overview-dark"),
        ("latency?route=fast", true, 540, "page-latency-dark"),
        ("requests", false, 800, "page-requests"),
    ] {
        browser.dark(dark).await;
        browser.visit(&format!("http://{admin}/{view}")).await;
        eventually("the page is live", async || {
            (browser.text("document.getElementById('status').textContent").await == "live").then_some(())
        })
        .await;
        let picture = browser.picture(WIDTH, height).await;
        assert!(picture.len() < 300 << 10, "{name}: {} bytes", picture.len());
        std::fs::write(repository(&format!("docs/{name}.png")), picture).expect("written");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    drop(loads);
}
