//! The pictures in `docs/`, made from real runs: of the built-in page and of panels of the dashboards. `make pictures`.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::chromium::Chromium;
use crate::support::forebay::Forebay;
use crate::support::process::{Process, command};
use crate::support::prometheus::{Format, Prometheus, Setup, Span, Version};
use crate::support::simulator::Simulator;
use crate::support::{eventually, http, panels, repository};

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
#[ignore = "makes pictures for docs/ and takes two minutes: make pictures"]
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

/// `users` is slow and fails now and then for half a minute.
const SERVICES: &str = r#"
[upstream.users]
latency = { lognormal = { median = "15ms", p99 = "120ms" } }
[[upstream.users.schedule]]
at = "70s"
for = "30s"
factor = 6.0
errors = { 503 = 0.05 }

[upstream.users-next]
latency = { lognormal = { median = "10ms", p99 = "60ms" } }

[upstream.reports]
latency = { exponential = { mean = "250ms" } }

[upstream.news]
latency = { exponential = { mean = "60ms" } }
"#;

const SHOP: &str = r#"
    [access_log]
    output = "off"

    [faults]
    enabled = true

    [upstream.users]
    endpoints = ["USERS"]
    max_in_flight = 64
    timeouts = { first_byte = "600ms" }

    [upstream.users-next]
    endpoints = ["NEXT"]

    [upstream.reports]
    endpoints = ["REPORTS"]

    [upstream.news]
    endpoints = ["NEWS"]

    [route.users]
    path = "/users/*"
    upstream = "users"
    deadline = "800ms"
    objective = { availability = "99.9%", latency = "200ms" }
    mirror = { upstream = "users-next", copies = 0.2 }

    [route.reports]
    path = "/reports"
    upstream = "reports"
    deadline = "1500ms"
    max_in_flight = 5
    queue = { capacity = 10, timeout = "300ms" }
    on_client_gone = "finish"
    client_in_flight = { max = 12, key = "header:user-agent" }

    [route.search]
    path = "/search"
    upstream = "news"
    deadline = "1s"
    rate_limit = { rate = "25/s", burst = 10 }

    [route.home]
    path = "/home"
    deadline = "1s"
    objective = { availability = "99.5%", latency = "400ms" }
    [route.home.aggregate.source]
    account = { upstream = "users", path = "/users/1", timeout = "500ms" }
    orders = { upstream = "users", path = "/users/1/orders", timeout = "500ms", on_error = { value = [] } }
    news = { upstream = "news", path = "/latest", timeout = "200ms", on_error = "omit" }
"#;

/// What of which dashboard is shown in docs/, in pixels from its top.
const PHOTOGRAPHED: [(&str, u32); 2] = [("overview", 1027), ("limits", 703)];

/// What a reload adds after a while.
const FAULT: &str = r#"
    [route.search.fault]
    delay = { lognormal = { median = "100ms", p99 = "400ms" } }
    fraction = 0.5
    end_after = "25s"
"#;

#[tokio::test]
#[ignore = "makes pictures for docs/ and takes three minutes: make pictures"]
async fn pictures_of_panels_under_load() {
    let services = Simulator::start(SERVICES).await;
    let words = [("USERS", "users"), ("NEXT", "users-next"), ("REPORTS", "reports"), ("NEWS", "news")];
    let config = words.iter().fold(SHOP.to_owned(), |text, (word, name)| {
        text.replace(&format!("\"{word}\""), &format!("\"{}\"", services.address(name)))
    });
    let forebay = Forebay::start(&config).await;
    // Those of a client that is none of ours, and one load test.
    let clients = [
        ("users/7", "60/s", &["-X", "GET"][..]),
        ("users", "6/s", &["-X", "POST", "--body", "{\"name\":\"Ada Lovelace\"}"]),
        ("reports", "14/s", &["--timeout", "900ms"]),
        ("search?q=lamp", "24/s", &[]),
        ("home", "8/s", &[]),
    ];
    let start = |path: &str, rate: &str, duration: &str, more: &[&str]| {
        let mut load = command(env!("CARGO_BIN_EXE_forebay"));
        load.args(["load", &format!("http://{}/{path}", forebay.address()), "-r", rate, "-d", duration]).args(more);
        Process::start("forebay load", load)
    };
    let shop =
        clients.map(|(path, rate, more)| start(path, rate, "200s", &[more, &["-H", "user-agent: shop/7.1"]].concat()));
    let mut test = start("users/8", "40/s", "50s", &["--metrics", "127.0.0.1:0"]);
    let test_at: SocketAddr = test
        .output("says where its numbers are", |lines| {
            let line = lines.iter().find_map(|line| line.strip_prefix("metrics at http://")?.split_once('/'));
            line.map(|(address, _)| address.parse().expect("an address"))
        })
        .await;
    let jobs: &[(&str, &[SocketAddr])] = &[("forebay", &[forebay.admin()]), ("load", &[test_at])];
    let setup = Setup { version: Version::Newest, format: Format::Classic, jobs, rules: None };
    let prometheus = Prometheus::start(&setup).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let path = forebay.config_path();
    std::fs::write(&path, std::fs::read_to_string(&path).expect("its file") + FAULT).expect("written");
    forebay.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_secs(45)).await;

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64().floor();
    let span = Span { from: now - 150.0, to: now, step: 2.0 };
    let mut browser = Chromium::start(WIDTH, 900).await;
    // All of each dashboard for whoever works on it, and the beginning of it for README.
    let folder = repository("target/pictures");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (file, text) in forebay::dashboards::files() {
        let name = file.trim_end_matches(".json");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let (page, height) = panels::page(&file, &dashboard, &prometheus, span, "10s").await;
        let path = folder.join(format!("{name}.html"));
        std::fs::write(&path, page).expect("written");
        browser.visit(&format!("file://{}", path.display())).await;
        let whole = browser.picture(WIDTH, height).await;
        std::fs::write(folder.join(format!("{name}.png")), &whole).expect("written");
        if let Some((_, height)) = PHOTOGRAPHED.iter().find(|(photographed, _)| *photographed == name) {
            let picture = browser.picture(WIDTH, *height).await;
            assert!(picture.len() < 280 << 10, "{name}: {} bytes", picture.len());
            std::fs::write(repository(&format!("docs/dashboard-{name}.png")), &picture).expect("written");
        }
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    drop((shop, test));
}
