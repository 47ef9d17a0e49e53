//! `forebay demo` and `forebay simulate`, tried as their own texts say.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;

use crate::support::metrics::Scrape;
use crate::support::process::{Process, command};
use crate::support::{eventually, http};

/// The address in front of a path that the banner names.
fn address_before(lines: &[String], path: &str) -> Option<SocketAddr> {
    lines.iter().find_map(|line| {
        let (_, rest) = line.split_once("http://")?;
        let (address, found) = rest.split_once('/')?;
        found.starts_with(path).then(|| address.parse().ok())?
    })
}

async fn statuses(address: SocketAddr, target: &str, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(http::get(address, target).await.expect("an answer").status);
    }
    statuses
}

#[tokio::test]
async fn the_demo_shows_what_its_banner_says() {
    let mut run = command(env!("CARGO_BIN_EXE_forebay"));
    run.arg("demo");
    let mut demo = Process::start("forebay demo", run);
    let (sidecar, admin) = demo
        .output("prints what to try", |lines| Some((address_before(lines, "fast")?, address_before(lines, "metrics")?)))
        .await;

    eventually("the sidecar is ready", async || {
        http::get(admin, "/readyz").await.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;

    assert_eq!(http::get(sidecar, "/fast").await.unwrap().status, 200);
    let (late, took) = http::timed_get(sidecar, "/late").await;
    let late = late.unwrap();
    assert_eq!((late.status, late.reason()), (504, Some("deadline_in_first_byte")));
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&took), "{took:?}");

    let limited = statuses(sidecar, "/limited", 5).await;
    assert_eq!(limited[..3], [200; 3], "{limited:?}");
    assert!(limited[3..].contains(&429), "{limited:?}");
    let flaky = statuses(sidecar, "/flaky", 30).await;
    assert!([200, 500, 502].iter().all(|status| flaky.contains(status)), "{flaky:?}");

    let (slow, (drip, dripped), sync) = tokio::join!(
        http::timed_get(sidecar, "/slow"),
        http::timed_get(sidecar, "/drip"),
        join_all((0..10).map(|_| http::timed_get(sidecar, "/sync"))),
    );
    assert_eq!(slow.0.unwrap().status, 200);
    assert!(!drip.unwrap().complete, "the deadline comes before the end");
    assert!(dripped >= Duration::from_secs(3), "{dripped:?}");
    let shed = sync.iter().filter(|(answer, _)| answer.as_ref().is_ok_and(|answer| answer.status == 503));
    let shed: Vec<Duration> = shed.map(|(_, took)| *took).collect();
    assert!(shed.len() >= 6, "{sync:?}");
    assert!(shed.iter().filter(|took| **took < Duration::from_secs(2)).count() >= 6, "{shed:?}");

    let scrape = Scrape::fetch(admin).await;
    assert!(scrape.sum("forebay_requests_total", &[("route", "sync"), ("reason", "queue_full")]) >= 6.0);

    demo.signal(Signal::INT);
    demo.ended().await;
}

#[tokio::test]
async fn simulate_runs_the_upstreams_of_a_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("upstreams.toml");
    std::fs::write(&file, "[upstream.users]\naddress = \"127.0.0.1:0\"\nlatency = \"50ms\"\nstatus = 201\n").unwrap();
    let mut run = command(env!("CARGO_BIN_EXE_forebay"));
    run.arg("simulate").arg("-c").arg(&file);
    let mut simulate = Process::start("forebay simulate", run);
    let address = simulate
        .output("prints its addresses", |lines| {
            lines.iter().find_map(|line| line.strip_prefix("http://")?.strip_suffix(" (users)")?.parse().ok())
        })
        .await;

    let (answer, took) = http::timed_get(address, "/7").await;

    assert_eq!(answer.unwrap().json(), serde_json::json!({"upstream": "users", "path": "/7", "n": 0}));
    assert!(took >= Duration::from_millis(50), "{took:?}");
    simulate.signal(Signal::INT);
    simulate.ended().await;
}

#[tokio::test]
async fn simulate_shows_the_line_of_a_mistake() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("upstreams.toml");
    std::fs::write(&file, "[upstream.users]\nlatancy = \"50ms\"\n").unwrap();
    let mut run = command(env!("CARGO_BIN_EXE_forebay"));
    run.arg("simulate").arg("-c").arg(&file);
    let mut simulate = Process::start("forebay simulate", run);

    assert_eq!(simulate.ended().await.code(), Some(78));
    let said = simulate.stderr.all().join("\n");
    assert!(said.contains("latancy") && said.contains("line 2"), "{said}");
}
