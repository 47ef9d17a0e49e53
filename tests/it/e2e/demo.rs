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

    several_services_in_one_answer(sidecar, admin).await;

    let scrape = Scrape::fetch(admin).await;
    assert!(scrape.sum("forebay_requests_total", &[("route", "sync"), ("reason", "queue_full")]) >= 6.0);

    demo.signal(Signal::INT);
    demo.ended().await;
}

#[tokio::test]
async fn the_demo_listens_where_it_is_told_and_its_log_makes_a_waterfall() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let log = folder.path().join("access.log").display().to_string();
    let demo = |listen: &str, admin: &str| {
        let mut run = command(env!("CARGO_BIN_EXE_forebay"));
        run.args(["demo", "--listen", listen, "--admin", admin, "--access-log", &log]);
        Process::start("forebay demo", run)
    };
    let mut first = demo("127.0.0.2:0", "127.0.0.3:0");
    let (sidecar, admin) = first
        .output("prints what to try", |lines| Some((address_before(lines, "fast")?, address_before(lines, "metrics")?)))
        .await;
    assert_eq!([sidecar.ip(), admin.ip()].map(|ip| ip.to_string()), ["127.0.0.2", "127.0.0.3"]);
    eventually("the sidecar is ready", async || {
        http::get(admin, "/readyz").await.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;

    let mut load = command(env!("CARGO_BIN_EXE_forebay"));
    let (url, report) = (format!("http://{sidecar}/fast"), folder.path().join("report.json"));
    load.args(["load", &url, "-r", "20", "-d", "1s", "--quiet", "--waterfall", &log, "--report-json"]).arg(&report);
    let mut load = Process::start("forebay load", load);
    load.ended().await;
    let report = std::fs::read_to_string(report).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(report["waterfall"]["joined"].as_u64() > Some(0), "{report}");

    for (option, listen, admin) in [
        ("--listen", sidecar.to_string(), "127.0.0.1:0".to_owned()),
        ("--admin", "127.0.0.1:0".to_owned(), admin.to_string()),
    ] {
        let mut second = demo(&listen, &admin);
        assert_eq!(second.ended().await.code(), Some(1));
        let said = second.stderr.all().join("\n");
        assert!(said.contains(&format!("({option})")) && said.contains("the port is taken"), "{said}");
    }
    let mut open = demo("127.0.0.1:0", "0.0.0.0:0");
    assert_eq!(open.ended().await.code(), Some(64));
    first.signal(Signal::INT);
    first.ended().await;
}

/// The second part of the banner: all at once, as nobody types it.
async fn several_services_in_one_answer(sidecar: SocketAddr, admin: SocketAddr) {
    let whole = async |target: &str| {
        let (answer, took) = http::timed_get(sidecar, target).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        (answer.text(), took)
    };
    let events = async {
        let accept = [("accept", "text/event-stream")];
        http::request(sidecar, "GET", "/tasks", &accept, b"").await.expect("an answer").text()
    };
    let report = async {
        let accepted = http::request(sidecar, "POST", "/start-background", &[], b"").await.expect("an answer");
        let job = accepted.header("location").expect("where the result will be").to_owned();
        let first = http::get(sidecar, &job).await.expect("an answer").status;
        let result = eventually("the report is there", async || {
            http::get(sidecar, &job).await.ok().filter(|answer| answer.status != 202)
        });
        (accepted.status, first, result.await.text())
    };
    let client = http::hold(sidecar, "/shielded").await;
    eventually("the work of a client who is about to leave", async || {
        (Scrape::fetch(admin).await.sum("forebay_requests_in_flight", &[("route", "shielded")]) == 1.0).then_some(())
    })
    .await;
    drop(client);

    let ((users, users_took), (safe, safe_took), (team, team_took), (proxy, _), events, report) = tokio::join!(
        whole("/users-async"),
        whole("/users-async-safe"),
        whole("/team/blue"),
        whole("/proxy"),
        events,
        report
    );

    let (first, third) = (r#"{"id":1,"name":"User 1"}"#, r#"{"id":3,"name":"User 3"}"#);
    let second = r#"{"id":2,"name":"User 2"}"#;
    let late = r#"{"error":"Failed to fetch user2: The source took longer than its timeout"}"#;
    assert_eq!(users, format!(r#"{{"users":[{first},{second},{third}]}}"#));
    assert_eq!(safe, format!(r#"{{"users":[{first},{late},{third}]}}"#));
    assert_eq!(team, format!(r#"{{"team":"blue","members":[{third},{first},{second}],"other":"fast"}}"#));
    assert_eq!(proxy, r#"{"proxy":{"team":"blue","members":[3,1,2]}}"#);
    let seconds = |from: u64, to: u64| Duration::from_secs(from)..Duration::from_secs(to);
    assert!(seconds(1, 3).contains(&users_took), "{users_took:?}");
    assert!(seconds(2, 4).contains(&safe_took), "{safe_took:?}");
    assert!(seconds(2, 4).contains(&team_took), "{team_took:?}");
    let order =
        ["\"source\":\"b\"", "\"source\":\"a\"", "\"source\":\"c\"", "event: summary"].map(|part| events.find(part));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} {events}");
    assert_eq!(report, (202, 202, r#"{"report":["User 1","User 2"]}"#.to_owned()));
    eventually("the shielded work is finished", async || {
        let finished = [("result", "finished")];
        (Scrape::fetch(admin).await.sum("forebay_detached_tasks_ended_total", &finished) == 1.0).then_some(())
    })
    .await;
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
