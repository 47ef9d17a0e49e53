//! The recorder with a file of its own: what is written, what is left out, and how it ends.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::message::head::{HeadLimits, Parsed, parse_request};
use crate::telemetry::Telemetry;

const LIMITS: HeadLimits = HeadLimits { max_bytes: 65_536, max_headers: 100 };

struct Fixture {
    _folder: tempfile::TempDir,
    file: PathBuf,
    recorder: Arc<Recorder>,
    metrics: Arc<RecordMetrics>,
}

fn fixture(change: impl FnOnce(&mut Settings)) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traffic.ndjson");
    let mut settings = Settings {
        file: file.clone(),
        sample: 1.0,
        routes: Vec::new(),
        max_body_bytes: 1000,
        answers: true,
        redact: Vec::new(),
        keep: Vec::new(),
        opaque_bodies: false,
        max_file_bytes: 1 << 20,
        end_after: Duration::from_secs(60),
    };
    change(&mut settings);
    let metrics = Telemetry::quiet().recording();
    let recorder = Recorder::new(Arc::new(settings), metrics.clone());
    Fixture { _folder: folder, file, recorder, metrics }
}

impl Fixture {
    fn request(&self, head: &str, body: &[u8]) -> bool {
        self.request_of("api", "id", head, body)
    }

    fn request_of(&self, route: &str, id: &str, text: &str, body: &[u8]) -> bool {
        let mut head = RequestHead::default();
        let text = text.replace('\n', "\r\n") + "host: a\r\ncontent-length: " + &body.len().to_string() + "\r\n\r\n";
        let parsed = parse_request(text.as_bytes(), &LIMITS, &mut head).unwrap();
        assert!(matches!(parsed, Parsed::Complete { .. }));
        let Some(mut recorded) = self.recorder.record(route, id, &head, Instant::now()) else { return false };
        recorded.body().copy(body);
        recorded.body().complete();
        let mut answer = ResponseHead::default();
        answer.fields.push(b"content-type", b"application/json");
        answer.fields.push(b"set-cookie", b"session=1");
        let tap = recorded.answer().unwrap().clone();
        tap.copy(b"{\"token\":\"x\"}");
        tap.complete();
        recorded.ended(200, Duration::from_millis(5), Some(&answer));
        self.recorder.finish(recorded);
        true
    }

    fn records(&self) -> Vec<Record> {
        assert!(self.recorder.flush(Duration::from_secs(20)));
        recording::parse(&std::fs::read_to_string(&self.file).unwrap()).unwrap()
    }

    fn ended(&self) {
        self.ended_but_for(0);
    }

    fn ended_but_for(&self, others: i64) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while self.metrics.active.get() != others {
            assert!(std::time::Instant::now() < deadline, "the writer does not end");
            std::thread::yield_now();
        }
    }

    fn count(&self, result: RecordResult) -> u64 {
        self.metrics.counted(result)
    }
}

#[test]
fn what_is_written_is_a_recording_without_secrets() {
    let fixture = fixture(|_| {});
    fixture.recorder.begin();

    fixture.request("GET /users?page=2&token=x HTTP/1.1\nauthorization: Bearer x\nx-kept: a\n", b"");
    fixture.request("POST /users HTTP/1.1\ncontent-type: application/json\n", b"{\"password\":\"x\",\"n\":1}");

    let records = fixture.records();
    let mode = std::fs::metadata(&fixture.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads it");
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].method.as_str(), records[0].path.as_str()), ("GET", "/users?page=2&token=redacted"));
    assert_eq!(
        (&records[0].headers["authorization"], &records[0].headers["x-kept"]),
        (&"redacted".parse().unwrap(), &"a".parse().unwrap())
    );
    assert!(!records[0].headers.contains_key("content-length"));
    assert_eq!((records[0].status, records[0].duration), (Some(200), Some(5_000_000)));
    assert_eq!(records[1].body, "{\"password\":\"redacted\",\"n\":1}");
    assert!(records[0].at <= records[1].at);
    let answer = records[0].answer.as_ref().unwrap();
    assert_eq!(
        (&answer.headers["set-cookie"], &answer.body[..]),
        (&"redacted".parse().unwrap(), &b"{\"token\":\"redacted\"}"[..])
    );
    assert_eq!(fixture.count(RecordResult::Written), 2);
}

#[test]
fn what_could_not_be_sent_again_is_left_out_and_counted() {
    let fixture = fixture(|settings| settings.max_body_bytes = 20);
    fixture.recorder.begin();

    fixture.request("POST /large HTTP/1.1\ncontent-type: application/json\n", &[b'1'; 21]);
    fixture.request("POST /opaque HTTP/1.1\ncontent-type: image/png\n", b"\x89PNG");
    fixture.request("POST /coded HTTP/1.1\ncontent-type: application/json\ncontent-encoding: gzip\n", b"\x1f\x8b");
    fixture.request("POST /fits HTTP/1.1\ncontent-type: application/json\n", b"{}");

    assert_eq!(fixture.records().iter().map(|record| record.path.as_str()).collect::<Vec<_>>(), ["/fits"]);
    assert_eq!(fixture.count(RecordResult::LeftOut), 3);
}

#[test]
fn opaque_bodies_are_recorded_when_they_are_asked_for() {
    let fixture = fixture(|settings| settings.opaque_bodies = true);
    fixture.recorder.begin();

    fixture.request("POST /opaque HTTP/1.1\ncontent-type: image/png\n", b"\x89PNG");
    fixture.request("POST /json HTTP/1.1\ncontent-type: application/json\n", b"{\"password\":\"x\"}");

    let records = fixture.records();
    assert_eq!(&records[0].body[..], b"\x89PNG");
    assert_eq!(records[1].body, "{\"password\":\"redacted\"}", "what can be looked into is");
}

#[test]
fn routes_and_the_hash_of_the_id_choose() {
    let fixture = fixture(|settings| (settings.sample, settings.routes) = (0.5, vec!["api".into()]));
    fixture.recorder.begin();
    let take = |route: &str, id: &str| fixture.request_of(route, id, "GET / HTTP/1.1\n", b"");

    let chosen: Vec<bool> = (0..200).map(|n| take("api", &format!("id-{n}"))).collect();

    assert!((60..140).contains(&chosen.iter().filter(|chosen| **chosen).count()), "{chosen:?}");
    assert!((0..200).all(|n| take("api", &format!("id-{n}")) == chosen[n]), "the same ids again");
    assert!((0..200).all(|n| !take("other", &format!("id-{n}"))));
}

#[test]
fn a_file_that_is_there_is_never_written_to() {
    let fixture = fixture(|_| {});
    std::fs::write(&fixture.file, "precious").unwrap();

    fixture.recorder.begin();

    assert!(!fixture.request("GET / HTTP/1.1\n", b""));
    assert_eq!(std::fs::read_to_string(&fixture.file).unwrap(), "precious");
    assert_eq!(fixture.metrics.active.get(), 0);
}

#[test]
fn the_file_does_not_outgrow_its_size_and_holds_whole_lines() {
    let fixture = fixture(|settings| settings.max_file_bytes = 2000);
    fixture.recorder.begin();

    for _ in 0..100 {
        fixture.request("GET /users HTTP/1.1\n", b"");
    }

    assert!(fixture.records().len() < 50);
    assert!(std::fs::metadata(&fixture.file).unwrap().len() <= 2000);
}

#[tokio::test(start_paused = true)]
async fn a_recording_ends_by_itself() {
    let fixture = fixture(|_| {});
    fixture.recorder.begin();
    assert!(fixture.request("GET /before HTTP/1.1\n", b""));

    tokio::time::advance(Duration::from_secs(60)).await;

    assert!(!fixture.request("GET /after HTTP/1.1\n", b""));
    assert!(!fixture.request("GET /after HTTP/1.1\n", b""));
    fixture.ended();
    let text = std::fs::read_to_string(&fixture.file).unwrap();
    assert_eq!(recording::parse(&text).unwrap().len(), 1);
}

#[test]
fn a_recording_ends_at_its_time_though_nobody_asks_for_anything() {
    let fixture = fixture(|settings| settings.end_after = Duration::from_millis(50));
    fixture.recorder.begin();

    fixture.ended();
    fixture.recorder.begin();

    assert!(fixture.recorder.is(&fixture.recorder.settings), "a reload does not begin it anew");
    assert_eq!(fixture.metrics.active.get(), 0);
}

#[test]
fn what_ends_after_the_recording_is_counted_as_dropped() {
    let fixture = fixture(|_| {});
    fixture.recorder.begin();
    let late = fixture.recorder.record("api", "id", &RequestHead::default(), Instant::now()).unwrap();

    fixture.recorder.end();
    fixture.recorder.finish(late);

    assert_eq!(fixture.count(RecordResult::Dropped), 1);
}

#[test]
fn every_request_is_counted_once_whatever_ends_the_recording() {
    let fixture = fixture(|settings| settings.max_file_bytes = 2000);
    fixture.recorder.begin();

    let chosen = (0..500).filter(|_| fixture.request("GET /users HTTP/1.1\n", b"")).count();

    fixture.ended();
    assert!(fixture.count(RecordResult::Written) > 0);
    assert_eq!(fixture.count(RecordResult::Written) + fixture.count(RecordResult::Dropped), chosen as u64);
}

#[test]
fn the_end_of_one_recording_does_not_hide_the_next() {
    let first = fixture(|_| {});
    first.recorder.begin();
    let second = Recorder::new(
        Arc::new(Settings { file: first.file.with_extension("next"), ..(*first.recorder.settings).clone() }),
        first.metrics.clone(),
    );

    second.begin();
    first.recorder.end();

    first.ended_but_for(1);
    assert!(second.record("api", "id", &RequestHead::default(), Instant::now()).is_some());
}

#[test]
fn one_that_could_not_begin_is_not_taken_for_one_that_did() {
    let fixture = fixture(|_| {});
    std::fs::write(&fixture.file, "precious").unwrap();
    fixture.recorder.begin();
    assert!(!fixture.recorder.is(&fixture.recorder.settings));

    std::fs::remove_file(&fixture.file).unwrap();
    fixture.recorder.begin();

    assert!(fixture.request("GET / HTTP/1.1\n", b""));
    assert_eq!(fixture.records().len(), 1);
}

#[test]
fn large_heads_are_held_within_the_budget_as_well() {
    let fixture = fixture(|_| {});
    fixture.recorder.begin();
    let mut head = RequestHead::default();
    head.fields.push(b"x-large", &[b'a'; 1 << 20]);
    let record = || fixture.recorder.record("api", "id", &head, Instant::now());

    let held: Vec<_> = (0..100).filter_map(|_| record()).collect();

    assert!((16..=32).contains(&held.len()), "{} of 1 MiB within 32 MiB", held.len());
    assert_eq!(fixture.count(RecordResult::Dropped), 100 - held.len() as u64);
    drop(held);
    assert!(record().is_some());
}
