//! `forebay load` as a process: its exit codes, its files, and that the books close whatever the target does.
//!
//! Nothing here asserts a latency, and a run on a busy machine may be void: then its exit code must say so.

mod answers;
mod compare;
mod seen;
mod waterfall;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use forebay::load::ErrorKind;
use forebay::load::report::json;
use forebay::load::result::{Outcome, RunResult};
use rustix::process::Signal;
use tempfile::TempDir;

use super::support::eventually;
use super::support::fault_upstream::{FaultUpstream, Script, Step, scripts};
use super::support::forebay::Forebay;
use super::support::http::get;
use super::support::metrics::Scrape;
use super::support::process::{Process, command};

/// A load test that goes on.
struct Load {
    process: Process,
    folder: TempDir,
}

/// A load test that has ended.
struct Ended {
    code: i32,
    result: RunResult,
    text: String,
    folder: TempDir,
}

impl Load {
    fn start(arguments: &[&str]) -> Self {
        Self::start_by(command(env!("CARGO_BIN_EXE_forebay")), arguments)
    }

    fn start_by(mut load: Command, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        load.arg("load").args(arguments).arg("--report-json").arg(folder.path().join("result.json"));
        load.env("NO_COLOR", "1").current_dir(folder.path());
        Self { process: Process::start("forebay load", load), folder }
    }

    async fn ended(mut self) -> Ended {
        let code = code(self.process.ended().await);
        let written = std::fs::read_to_string(self.folder.path().join("result.json")).expect("a result");
        let result = json::read(&written).expect("a result of this schema");
        assert_books_close(&result);
        Ended { code, result, text: self.process.stdout.all().join("\n"), folder: self.folder }
    }
}

impl Ended {
    /// The exit code is this one, or that of a void run.
    fn expect_code(&self, code: i32) {
        let expected = if self.result.verdict.outcome == Outcome::Void { 4 } else { code };
        assert_eq!(self.code, expected, "{}", self.text);
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().expect("it ends by itself")
}

#[track_caller]
fn assert_books_close(result: &RunResult) {
    assert!(result.totals.counts.is_closed(), "{:?}", result.totals.counts);
    for second in &result.seconds {
        assert!(second.counts.is_closed(), "second {}: {:?}", second.second, second.counts);
    }
    let seconds: u64 = result.seconds.iter().filter(|second| !second.warm_up).map(|second| second.counts.sent).sum();
    assert_eq!(seconds, result.totals.counts.sent);
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

/// Answers each request after this time.
fn slow(pause: Duration) -> Script {
    vec![Step::ReadHead, Step::Pause(pause), Step::Send(scripts::OK.to_vec()), Step::Repeat]
}

#[tokio::test]
async fn even_arrivals_are_counted_exactly_and_every_file_is_written() {
    let target = FaultUpstream::start([scripts::ok()]).await;
    let files = ["--report-html", "r.html", "--report-ndjson", "r.ndjson", "--report-hgrm", "r.hgrm"];
    let address = url(target.address);
    let options = [address.as_str(), "-r", "100/s", "-d", "1s", "--arrivals", "even", "--fail", "errors<1%"];

    let ended = Load::start(&[&options[..], &files[..]].concat()).ended().await;

    ended.expect_code(0);
    assert_eq!(ended.result.totals.counts.scheduled, 100);
    assert_eq!(ended.result.totals.counts.ok, ended.result.totals.counts.sent);
    assert_eq!(ended.result.plan.model, "open");
    for file in ["r.html", "r.ndjson", "r.hgrm"] {
        let written = std::fs::metadata(ended.folder.path().join(file)).expect(file);
        assert!(written.len() > 100, "{file}");
    }
    assert!(ended.text.contains("100 scheduled"), "{}", ended.text);
}

#[tokio::test]
async fn a_missed_gate_is_exit_code_3() {
    let target = FaultUpstream::start([slow(Duration::from_millis(300))]).await;

    let gates = ["--fail", "p50<100ms", "--fail", "errors<1%"];
    let ended =
        Load::start(&[&[url(target.address).as_str(), "-r", "30/s", "-d", "1s"], &gates[..]].concat()).ended().await;

    ended.expect_code(3);
    assert_eq!(ended.result.gates.iter().map(|gate| gate.passed).collect::<Vec<_>>(), [Some(false), Some(true)]);
}

#[tokio::test]
async fn a_gate_that_cannot_be_met_any_more_ends_the_run() {
    let target = FaultUpstream::start([scripts::reset_before_head()]).await;

    let gates = ["--fail", "errors<1%", "--abort-on-fail"];
    let ended =
        Load::start(&[&[url(target.address).as_str(), "-r", "300/s", "-d", "30s"], &gates[..]].concat()).ended().await;

    assert_eq!(ended.code, 3, "{}", ended.text);
    assert!(ended.result.plan.ran_s < 30.0);
    assert!(ended.text.contains("ended early"), "{}", ended.text);
}

#[tokio::test]
async fn the_books_close_whatever_the_target_does() {
    let kinds: [(Script, &[ErrorKind]); 5] = [
        (scripts::reset_before_head(), &[ErrorKind::Reset]),
        (scripts::reset_mid_body(), &[ErrorKind::Reset]),
        (scripts::close_before_head(), &[ErrorKind::Closed, ErrorKind::Reset]),
        (scripts::close_mid_body(), &[ErrorKind::Closed, ErrorKind::Reset]),
        (scripts::garbage(), &[ErrorKind::Protocol]),
    ];
    for (script, kinds) in kinds {
        let target = FaultUpstream::start([script]).await;

        let ended = Load::start(&[&url(target.address), "-r", "50/s", "-d", "500ms"]).ended().await;

        let totals = &ended.result.totals;
        assert_eq!(totals.counts.connection_error, totals.counts.sent, "{}", ended.text);
        assert!(totals.errors.keys().all(|kind| kinds.contains(kind)), "{:?}", totals.errors);
    }
}

#[tokio::test]
async fn a_target_that_dies_during_the_run_loses_no_request() {
    let target = FaultUpstream::start([slow(Duration::from_millis(20))]).await;
    let load = Load::start(&[&url(target.address), "-r", "100/s", "-d", "2s", "--arrivals", "even"]);
    eventually("the run is under way", async || (target.heads().len() > 20).then_some(())).await;

    drop(target);
    let ended = load.ended().await;

    let totals = &ended.result.totals;
    assert_eq!(totals.counts.scheduled, 200);
    assert!(totals.counts.ok > 0 && totals.errors.contains_key(&ErrorKind::Refused), "{:?}", totals.errors);
}

#[tokio::test]
async fn no_answer_in_time_is_a_timeout_and_censored() {
    let target = FaultUpstream::start([scripts::stall_mid_body()]).await;

    let ended = Load::start(&[&url(target.address), "-r", "20/s", "-d", "500ms", "--timeout", "200ms"]).ended().await;

    let totals = &ended.result.totals;
    assert_eq!(totals.counts.timeout, totals.counts.sent);
    assert_eq!(totals.response.count, totals.counts.sent);
    assert!(totals.censored_from_ns.is_some_and(|from| from >= 200_000_000), "{:?}", totals.censored_from_ns);
}

#[tokio::test]
async fn a_process_without_files_says_so() {
    let target = FaultUpstream::start([scripts::stall_before_head()]).await;
    let mut limited = command("prlimit");
    limited.arg("--nofile=60:60").arg(env!("CARGO_BIN_EXE_forebay"));
    let options = ["-r", "300/s", "-d", "500ms", "--timeout", "1s", "--max-in-flight", "1000"];

    let ended = Load::start_by(limited, &[&[url(target.address).as_str()], &options[..]].concat()).ended().await;

    assert!(ended.result.totals.errors.contains_key(&ErrorKind::TooManyFiles), "{:?}", ended.result.totals.errors);
}

#[tokio::test]
async fn what_is_beyond_the_cap_is_shed_and_counted() {
    let target = FaultUpstream::start([scripts::stall_before_head()]).await;
    let options = ["-r", "100/s", "-d", "500ms", "--timeout", "1s", "--max-in-flight", "5", "--arrivals", "even"];

    let ended = Load::start(&[&[url(target.address).as_str()], &options[..]].concat()).ended().await;

    let counts = &ended.result.totals.counts;
    assert_eq!((counts.scheduled, counts.sent + counts.shed), (50, 50));
    assert!(counts.shed >= 40, "{counts:?}");
}

#[tokio::test]
async fn the_first_interruption_waits_for_answers_and_reports() {
    let target = FaultUpstream::start([slow(Duration::from_millis(300))]).await;
    let load = Load::start(&[&url(target.address), "-r", "50/s", "-d", "60s", "--fail", "p99<1ms"]);
    eventually("the run is under way", async || (target.heads().len() > 5).then_some(())).await;

    load.process.signal(Signal::INT);
    let ended = load.ended().await;

    assert_eq!(ended.code, 130, "{}", ended.text);
    assert_eq!(ended.result.verdict.outcome, Outcome::Interrupted);
    assert_eq!(ended.result.totals.counts.unfinished, 0);
    assert_eq!(ended.result.gates[0].passed, None);
}

#[tokio::test]
async fn a_running_test_shows_its_numbers_to_prometheus() {
    let target = FaultUpstream::start([slow(Duration::from_millis(50))]).await;
    let mut load = Load::start(&[&url(target.address), "-r", "50/s", "-d", "60s", "--metrics", "127.0.0.1:0"]);
    let find = |lines: &[String]| {
        let address = lines.iter().find_map(|line| line.strip_prefix("metrics at http://")?.split_once('/'));
        address.map(|(address, _)| address.parse::<SocketAddr>().expect("an address"))
    };
    let metrics = load.process.output("says where", find).await;

    let scrape = eventually("answers are counted", async || {
        let answer = get(metrics, "/metrics").await.ok()?;
        let scrape = Scrape::parse(&answer.text());
        (scrape.sum("load_outcomes_total", &[("outcome", "ok")]) >= 20.0).then_some(scrape)
    })
    .await;
    let sum = |name: &str| scrape.sum(name, &[]);
    assert!(sum("load_requests_scheduled_total") >= sum("load_outcomes_total"));
    assert!(scrape.sum("load_response_seconds", &[("quantile", "0.5")]) >= 0.05);
    assert_eq!(scrape.sum("load_phase", &[("phase", "measuring")]), 1.0);
    assert_eq!(get(metrics, "/").await.unwrap().status, 404);

    load.process.signal(Signal::INT);
    assert_eq!(load.ended().await.code, 130);
    assert!(get(metrics, "/metrics").await.is_err(), "it ends with the test");
}

/// What came in yesterday is sent again from the log that is there anyway.
#[tokio::test]
async fn the_access_log_of_the_sidecar_is_replayed() {
    let config = "[route.a]\npath = \"/a/*\"\nrespond = { body = \"a\" }\n";
    let mut forebay = Forebay::start(config).await;
    let paths = ["/a/1?x=%20y", "/nowhere", "/a/2"];
    for path in paths {
        get(forebay.address(), path).await.unwrap();
    }
    let requests = |lines: &[String]| -> Vec<String> {
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter_map(|line| Some(line["path"].as_str()?.to_owned())).collect()
    };
    let find = |count| move |lines: &[String]| (requests(lines).len() == count).then(|| lines.to_vec());
    let log = forebay.process.output("has logged them", find(3)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    std::fs::write(
        &file,
        log.iter().filter(|line| line.starts_with('{')).map(|line| format!("{line}\n")).collect::<String>(),
    )
    .unwrap();

    let mut replay = command(env!("CARGO_BIN_EXE_forebay"));
    replay.arg("replay").arg(&file).arg(format!("http://{}", forebay.address()));
    let mut replay = Process::start("forebay replay", replay);
    let code = code(replay.ended().await);

    assert!([0, 4].contains(&code), "{:?}", replay.stderr.all());
    let log = forebay.process.output("has logged them again", find(6)).await;
    // Those of the same millisecond are under way together, and may end in any order.
    let (mut found, mut expected) = (requests(&log), [paths, paths].concat());
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let report = replay.stdout.all().join("\n");
    assert!(report.contains("404: 1"), "{report}");
}

#[tokio::test]
async fn a_taken_address_for_metrics_is_said_and_nothing_is_sent() {
    let target = FaultUpstream::start([slow(Duration::ZERO)]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut load = Load::start(&[&url(target.address), "-d", "1s", "--metrics", &address]);

    assert_eq!(code(load.process.ended().await), 1);

    let message = load.process.stderr.all().join("\n");
    assert!(message.contains(&format!("--metrics: cannot listen on {address}")), "{message}");
    assert_eq!(target.accepted(), 0);
}

#[tokio::test]
async fn the_second_interruption_waits_for_nobody() {
    let target = FaultUpstream::start([scripts::stall_before_head()]).await;
    let mut load = Load::start(&[&url(target.address), "-r", "50/s", "-d", "60s", "--timeout", "60s"]);
    eventually("the run is under way", async || (target.accepted() > 5).then_some(())).await;

    load.process.signal(Signal::INT);
    load.process
        .output("has seen the first", |lines| lines.iter().any(|line| line.contains("no more requests")).then_some(()))
        .await;
    // Repeated, since right after the first it is taken for the same stroke.
    eventually("the second one ends it", async || {
        let has_ended = load.process.has_ended().is_some();
        if !has_ended {
            load.process.signal(Signal::INT);
        }
        has_ended.then_some(())
    })
    .await;
    let ended = load.ended().await;

    assert_eq!(ended.code, 130, "{}", ended.text);
    assert!(ended.result.totals.counts.unfinished > 5, "{:?}", ended.result.totals.counts);
}

#[tokio::test]
async fn a_deadline_of_the_configuration_that_is_not_kept_is_a_broken_promise() {
    let target = FaultUpstream::start([slow(Duration::from_millis(400))]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("forebay.toml");
    let config = format!(
        "[listener]\naddress = \"{}\"\n\n[upstream.users]\nendpoints = [\"127.0.0.1:9001\"]\ntimeouts = {{ connect = \"40ms\", first_byte = \"90ms\" }}\n\n\
         [route.users]\npath = \"/users/{{id}}\"\nupstream = \"users\"\ndeadline = \"100ms\"\n",
        target.address
    );
    std::fs::write(&file, config).expect("written");
    let name = file.to_str().expect("UTF-8");

    let ended = Load::start(&["-c", name, "--route", "users", "-r", "20/s", "-d", "500ms"]).ended().await;

    ended.expect_code(0);
    assert!(ended.text.contains("BROKEN PROMISE"), "{}", ended.text);
    assert!(target.heads().iter().all(|head| head.starts_with("GET /users/1 HTTP/1.1")));
    assert_eq!(ended.result.targets[0].name, format!("users (GET http://{}/users/1)", target.address));
}

#[tokio::test]
async fn targets_of_a_file_have_their_shares() {
    let target = FaultUpstream::start([scripts::ok()]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file: PathBuf = folder.path().join("targets.txt");
    let base = url(target.address);
    std::fs::write(&file, format!("GET {base}often weight=9\nX-Kind: often\n\nGET {base}rare\n")).expect("written");

    let ended = Load::start(&["--targets", file.to_str().expect("UTF-8"), "-r", "200/s", "-d", "1s"]).ended().await;

    let sent: BTreeMap<&str, u64> =
        ended.result.targets.iter().map(|target| (target.name.as_str(), target.counts.sent)).collect();
    let (often, rare) = (sent[format!("GET {base}often").as_str()], sent[format!("GET {base}rare").as_str()]);
    assert!(often > 3 * rare, "{sent:?}");
    assert!(target.heads().iter().any(|head| head.contains("x-kind: often")));
}

#[tokio::test]
async fn users_who_wait_are_never_more_than_they_are() {
    let target = FaultUpstream::start([slow(Duration::from_millis(50))]).await;

    let ended = Load::start(&[&url(target.address), "--users", "3", "-d", "1s"]).ended().await;

    assert_eq!(ended.result.plan.model, "closed");
    assert!(target.accepted() <= 3, "{}", target.accepted());
    assert!(ended.result.totals.counts.ok > 3);
}

#[tokio::test]
async fn wrong_usage_is_64_and_sends_nothing() {
    let target = FaultUpstream::start([scripts::ok()]).await;
    let base = url(target.address);
    let table: [(&[&str], i32, &str); 7] = [
        (&[&base, "-r", "200/x"], 64, "100/s"),
        (&[&base, "--fail", "p99"], 64, "p99"),
        (&[&base, "--think", "1s"], 64, "--users"),
        (&["http://192.0.2.1/"], 64, "--allow-target 192.0.2.1"),
        (
            &[&base, "--report-html", "no/such/folder.html"],
            1,
            "folder.html: No such file or directory (os error 2); make the folder first",
        ),
        (&[&base, "--waterfall", "no/such.log"], 64, "`[access_log] output`"),
        (&["-c", "missing.toml", "--route", "a"], 78, "missing.toml"),
    ];
    for (arguments, expected, part) in table {
        let mut load = command(env!("CARGO_BIN_EXE_forebay"));
        load.arg("load").args(arguments).env("NO_COLOR", "1");
        let mut process = Process::start("forebay load", load);

        assert_eq!(code(process.ended().await), expected, "{arguments:?}");
        let said = process.stderr.all().join("\n");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    assert_eq!(target.accepted(), 0);
}
