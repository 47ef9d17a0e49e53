//! Signals, reload and hand-over of a running process.

use rustix::process::Signal;
use std::net::SocketAddr;
use tokio::time::Instant;

use crate::support::forebay::Forebay;
use crate::support::http::{get, hold};
use crate::support::process::{Process, command};
use crate::support::{SLACK, eventually};

/// A route that answers by itself.
fn respond(status: u16) -> String {
    format!("[route.here]\npath = \"/here\"\nrespond = {{ status = {status} }}\n")
}

/// A route to the slow upstream: the simulator's `slow` needs 2 s.
struct Slow {
    _upstreams: Process,
    address: SocketAddr,
}

impl Slow {
    async fn start() -> Self {
        let mut simulate = command(env!("CARGO_BIN_EXE_forebay"));
        simulate.arg("simulate");
        let mut upstreams = Process::start("simulate", simulate);
        let address = upstreams
            .output("names its upstreams", |lines| {
                let line = lines.iter().find(|line| line.ends_with("(slow)"))?;
                line.strip_prefix("http://")?.strip_suffix(" (slow)")?.parse().ok()
            })
            .await;
        Self { _upstreams: upstreams, address }
    }

    fn config(&self) -> String {
        format!(
            "[upstream.slow]\nendpoints = [\"{}\"]\n\n[route.slow]\npath = \"/slow\"\nupstream = \"slow\"\n\n{}",
            self.address,
            respond(204)
        )
    }
}

/// The text of the file with the parts that `Forebay::start` puts before it.
fn rewrite(forebay: &Forebay, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(forebay.config_path()).expect("readable");
    std::fs::write(forebay.config_path(), change(text)).expect("writable");
}

async fn status(address: SocketAddr, target: &str) -> Option<u16> {
    get(address, target).await.ok().map(|response| response.status)
}

async fn last_reload(forebay: &Forebay) -> serde_json::Value {
    get(forebay.admin(), "/config").await.expect("an answer").json()["last_reload"].clone()
}

#[tokio::test]
async fn sighup_takes_the_new_file_and_a_bad_one_changes_nothing() {
    let forebay = Forebay::start(&respond(204)).await;
    assert_eq!(status(forebay.address(), "/here").await, Some(204));

    rewrite(&forebay, |text| text.replace("204", "205") + "[reload]\nwatch = false\n");
    forebay.signal(Signal::HUP);
    eventually("the new status", async || (status(forebay.address(), "/here").await == Some(205)).then_some(())).await;

    rewrite(&forebay, |text| text.replace("respond", "resopnd"));
    forebay.signal(Signal::HUP);
    let refused = eventually("the refusal", async || {
        let reload = last_reload(&forebay).await;
        (reload["ok"] == false).then_some(reload)
    })
    .await;

    assert!(refused["error"].as_str().expect("a report").contains("resopnd"), "{refused}");
    assert_eq!(status(forebay.address(), "/here").await, Some(205));
    let scrape = forebay.scrape().await;
    assert_eq!(scrape.sum("forebay_config_reloads_total", &[("result", "failure")]), 1.0);
    assert_eq!(scrape.sum("forebay_config_last_reload_successful", &[]), 0.0);
}

#[tokio::test]
async fn a_changed_file_is_taken_without_a_signal() {
    let forebay = Forebay::start(&respond(204)).await;

    rewrite(&forebay, |text| text.replace("204", "205"));

    eventually("the new status", async || (status(forebay.address(), "/here").await == Some(205)).then_some(())).await;
    eventually("what took it", async || (last_reload(&forebay).await["trigger"] == "file_change").then_some(())).await;
}

#[tokio::test]
async fn sigterm_loses_no_request_and_ends_after_the_last() {
    let slow = Slow::start().await;
    let mut forebay = Forebay::start(&slow.config()).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(hold(forebay.address(), "/slow").await);
    }
    eventually("all are in flight", async || {
        (forebay.scrape().await.sum("forebay_upstream_in_flight", &[]) == 8.0).then_some(())
    })
    .await;

    forebay.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.response().await.expect("an answer").status, 200);
    }
    let last = Instant::now();

    let exit = forebay.process.ended().await;
    assert!(last.elapsed() < SLACK, "took {:?} after the last answer", last.elapsed());
    assert_eq!(exit.code(), Some(0));
}

/// `timeout -s INT` signals its child and then its group, a Ctrl-C reaches a wrapper as well, which passes it on.
#[tokio::test]
async fn two_signals_at_once_are_one_and_cut_nothing() {
    let slow = Slow::start().await;
    let mut forebay = Forebay::start(&slow.config()).await;
    let mut client = hold(forebay.address(), "/slow").await;
    eventually("it is in flight", async || {
        (forebay.scrape().await.sum("forebay_upstream_in_flight", &[]) == 1.0).then_some(())
    })
    .await;

    // Held meanwhile, so that it sees both at once however busy the machine is.
    for signal in [Signal::STOP, Signal::INT, Signal::TERM, Signal::CONT] {
        forebay.signal(signal);
    }

    assert_eq!(client.response().await.expect("an answer").status, 200);
    assert_eq!(forebay.process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_lame_process_is_not_ready_but_still_accepts() {
    let lame = format!("[shutdown]\naccept_grace = \"1h\"\n\n{}", respond(204));
    let mut forebay = Forebay::start(&lame).await;

    forebay.signal(Signal::TERM);
    eventually("not ready", async || (status(forebay.admin(), "/readyz").await == Some(503)).then_some(())).await;
    assert_eq!(status(forebay.address(), "/here").await, Some(204));
    assert_eq!(status(forebay.admin(), "/livez").await, Some(200));

    let second = async || {
        // Repeated, since right after the first it is taken for the same stroke.
        let ended = forebay.process.has_ended();
        if ended.is_none() {
            forebay.signal(Signal::INT);
        }
        ended
    };
    let ended = eventually("a second signal ends it at once", second).await;
    assert_eq!(ended.code(), Some(130));
}

#[tokio::test]
async fn healthcheck_follows_readiness() {
    let forebay = Forebay::start(&respond(204)).await;
    let mut check = command(env!("CARGO_BIN_EXE_forebay"));
    check.args(["healthcheck", "--url", &format!("http://{}/readyz", forebay.admin())]);

    let exit = Process::start("healthcheck", check).ended().await;

    assert_eq!(exit.code(), Some(0));
}

#[tokio::test]
async fn healthcheck_finds_the_address_in_a_file_that_is_refused() {
    let forebay = Forebay::start(&respond(204)).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("forebay.toml");
    let text = format!("[admin]\naddress = \"{}\"\n\n[route.here]\npath = 3\n", forebay.admin());
    std::fs::write(&file, text).expect("writable");
    let mut check = command(env!("CARGO_BIN_EXE_forebay"));
    check.args(["healthcheck", "-c"]).arg(&file);

    let exit = Process::start("healthcheck", check).ended().await;

    assert_eq!(exit.code(), Some(0));
}

#[tokio::test]
async fn a_hand_over_refuses_no_connection_and_loses_no_request() {
    let slow = Slow::start().await;
    let mut forebay = Forebay::start(&slow.config()).await;
    let old = forebay.process.id();
    let mut held = hold(forebay.address(), "/slow").await;
    eventually("it is in flight", async || {
        (forebay.scrape().await.sum("forebay_upstream_in_flight", &[]) == 1.0).then_some(())
    })
    .await;

    forebay.signal(Signal::USR2);
    let mut asked = 0;
    while forebay.process.has_ended().is_none() {
        // One after the other, each on a connection of its own, without a pause until the old process is gone.
        assert_eq!(status(forebay.address(), "/here").await, Some(204), "request {asked}");
        asked += 1;
        if asked == 1 {
            assert_eq!(held.response().await.expect("an answer").status, 200, "the old process finished its request");
        }
    }
    assert!(asked > 1);
    assert_eq!(status(forebay.address(), "/here").await, Some(204), "the new process serves");
    assert_eq!(status(forebay.admin(), "/readyz").await, Some(200));

    let new = forebay.process.output("names its successor", successor).await;
    assert_ne!(new, old);
    end(new);
    eventually("the new process is gone", async || status(forebay.address(), "/here").await.is_none().then_some(()))
        .await;
}

/// The process id in `handed over: the new process serves, this one drains pid=123`.
fn successor(lines: &[String]) -> Option<u32> {
    let line = lines.iter().find(|line| line.contains("handed over"))?;
    let (_, pid) = line.split_once("pid=")?;
    pid.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

fn end(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().expect("a process id")).expect("not zero");
    rustix::process::kill_process(pid, Signal::TERM).expect("the successor runs");
}

#[tokio::test]
async fn a_successor_that_fails_leaves_the_old_process_serving() {
    let forebay = Forebay::start(&format!("[reload]\nwatch = false\n{}", respond(204))).await;
    rewrite(&forebay, |text| text.replace("respond", "resopnd"));

    forebay.signal(Signal::USR2);

    eventually("it says why", async || {
        let lines = forebay.process.stderr.all();
        lines.iter().any(|line| line.contains("no hand-over, this process serves on")).then_some(())
    })
    .await;
    assert_eq!(status(forebay.address(), "/here").await, Some(204));
    assert_eq!(status(forebay.admin(), "/readyz").await, Some(200));
}
