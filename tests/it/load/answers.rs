//! A replay of recorded answers: what differs is found, what differs each time is not held against anybody.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::support::fault_upstream::{FaultUpstream, Script, Step};
use super::super::support::process::{Process, command};
use super::{Outcome, code, json};

const REQUESTS: usize = 6;

fn answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
}

fn recording(body: &str) -> String {
    let mut text = "{\"format\":\"forebay-recording\",\"version\":2}\n".to_owned();
    for number in 0..REQUESTS {
        let (at, body) = (number * 20_000_000, BASE64.encode(body));
        let answer = format!(r#""status":200,"answer":{{"body_base64":"{body}"}}"#);
        writeln!(text, r#"{{"at_ns":{at},"method":"GET","path":"/users",{answer}}}"#).unwrap();
    }
    text
}

/// What came of it, and the text.
async fn replay(target: &FaultUpstream, options: &[&str]) -> (i32, forebay::load::result::RunResult, String) {
    let recorded = recording(r#"{"id":0,"n":1,"meta":{"time":0},"list":[{"at":0}]}"#);
    replay_of(recorded, target, options).await
}

async fn replay_of(
    recorded: String,
    target: &FaultUpstream,
    options: &[&str],
) -> (i32, forebay::load::result::RunResult, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, report) = (folder.path().join("recording.ndjson"), folder.path().join("report.json"));
    std::fs::write(&file, recorded).expect("written");
    let mut replay = command(env!("CARGO_BIN_EXE_forebay"));
    replay.arg("replay").arg(&file).arg(format!("http://{}", target.address)).args(options);
    let mut process = Process::start("forebay replay", {
        replay.arg("--report-json").arg(&report);
        replay
    });
    let code = code(process.ended().await);
    let result = json::read(&std::fs::read_to_string(report).expect("a report")).expect("a result");
    (code, result, process.stdout.all().join("\n"))
}

#[tokio::test]
async fn what_differs_is_found_and_can_be_a_gate() {
    let script: Script =
        vec![Step::ReadHead, Step::Send(answer(r#"{"id":0,"n":2,"meta":{"time":9},"list":[{"at":0}]}"#)), Step::Repeat];
    let target = FaultUpstream::start([script]).await;

    let (code, result, text) =
        replay(&target, &["--ignore-path", "meta.time", "--fail", "different<1%", "--fail", "errors<1%"]).await;

    let answers = result.answers.expect("there are recorded ones");
    assert_eq!((answers.compared, answers.bodies, answers.different), (6, 6, 6), "{text}");
    assert_eq!((answers.differences.len(), answers.differences[0].path.as_str()), (1, "n"), "{text}");
    assert_eq!(code, if result.verdict.outcome == Outcome::Void { 4 } else { 3 }, "{text}");
    assert!(text.contains("n: value in 6, as GET /users: had 1, has 2"), "{text}");
}

#[tokio::test]
async fn what_differs_each_time_is_noise() {
    let body = |id: u32| answer(&format!(r#"{{"id":{id},"n":1,"meta":{{"time":{id}}},"list":[{{"at":{id}}}]}}"#));
    // Each connection counts on.
    let script: Script = (1..20).flat_map(|id| [Step::ReadHead, Step::Send(body(id))]).collect();
    let target = FaultUpstream::start([script]).await;

    let (code, result, text) = replay(&target, &["--noise-from-repeat", "--fail", "different<1%"]).await;

    let answers = result.answers.expect("there are recorded ones");
    assert_eq!((answers.compared, answers.equal, answers.bodies), (6, 6, 6), "{text}");
    assert_eq!(answers.learned, ["id", "list.*.at", "meta.time"]);
    assert_eq!(code, if result.verdict.outcome == Outcome::Void { 4 } else { 0 }, "{text}");
    assert_eq!(target.heads().len(), REQUESTS + 2, "one request was sent twice before");
    assert_eq!(result.totals.counts.sent, REQUESTS as u64, "which is in no number");
}

#[tokio::test]
async fn an_error_that_was_recorded_is_ok_when_it_comes_again_and_the_report_says_so() {
    let refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec();
    let target = FaultUpstream::start([vec![Step::ReadHead, Step::Send(refusal), Step::Repeat]]).await;
    let recorded = recording("").replace("\"status\":200", "\"status\":503");

    let (_, result, text) = replay_of(recorded, &target, &[]).await;

    assert_eq!((result.totals.counts.ok, result.totals.statuses[&503]), (6, 6), "{text}");
    let line = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let note = "ok means success, or the status that was recorded for the request: 6 of them are errors, as then";
    assert!(line.contains(note), "{text}");
}

#[tokio::test]
async fn a_path_in_another_notation_is_refused_with_what_to_write() {
    let mut replay = command(env!("CARGO_BIN_EXE_forebay"));
    replay.args(["replay", "x", "http://127.0.0.1:1", "--ignore-path", "$.meta.time"]);
    let mut process = Process::start("forebay replay", replay);

    assert_eq!(code(process.ended().await), 64);
    let said = process.stderr.all().join("\n");
    assert!(said.contains("\"meta.time\""), "{said}");
}
