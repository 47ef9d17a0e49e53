use std::io::Read;
use std::path::Path;
use std::sync::mpsc;

use prometheus::Registry;

use super::*;
use crate::telemetry::test_support::record;
use crate::telemetry::{RequestRecord, Telemetry};

const LONG: Duration = Duration::from_secs(10);

fn config(output: LogOutput) -> model::AccessLog {
    model::AccessLog { output, sample: 1.0, buffer: 1000 }
}

fn log_to(config: &model::AccessLog) -> AccessLog {
    AccessLog::new(&Scalars::new(Registry::new()), config).unwrap()
}

fn log_into(output: impl Write + Send + 'static, buffer: usize) -> AccessLog {
    let log = log_to(&config(LogOutput::Off));
    log.set_output(Box::new(output), &model::AccessLog { buffer, ..config(LogOutput::Off) }).unwrap();
    log
}

fn request(id: &str) -> RequestRecord<'_> {
    RequestRecord { request_id: id, ..record(&Telemetry::quiet(), "users") }
}

fn write(log: &AccessLog, ids: impl IntoIterator<Item = usize>) {
    let record = request("");
    for id in ids {
        log.log(&RequestRecord { request_id: &id.to_string(), ..record.clone() }, SystemTime::now());
    }
}

fn ids(text: &str) -> Vec<usize> {
    let id = |line| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"].as_str().unwrap().parse().unwrap()
    };
    text.lines().map(id).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Counts: written, sampled out, dropped, failed.
fn counts(log: &AccessLog) -> [u64; 4] {
    let Counters { written, sampled_out, dropped, failed } = &log.shared.counters;
    [written.get(), sampled_out.get(), dropped.get(), failed.get()]
}

#[test]
fn every_line_arrives_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = log_to(&config(LogOutput::File(path.clone())));

    write(&log, 0..500);

    assert!(log.flush(LONG));
    assert_eq!(ids(&read(&path)), (0..500).collect::<Vec<_>>());
    assert_eq!((counts(&log), log.buffered_lines()), ([500, 0, 0, 0], 0));
}

#[test]
fn lines_of_many_threads_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = log_to(&model::AccessLog { buffer: 10_000, ..config(LogOutput::File(path.clone())) });

    thread::scope(|scope| {
        for part in 0..4 {
            let log = &log;
            scope.spawn(move || write(log, part * 500..(part + 1) * 500));
        }
    });

    assert!(log.flush(LONG));
    let mut ids = ids(&read(&path));
    ids.sort_unstable();
    assert_eq!(ids, (0..2000).collect::<Vec<_>>());
}

/// An output that blocks until it is let go.
struct Blocked(mpsc::Sender<()>, mpsc::Receiver<()>);

impl Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(()).ok();
        self.1.recv().ok();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_output_costs_lines_and_never_a_request() {
    let (entered, inside) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let log = log_into(Blocked(entered, released), 10);
    write(&log, 0..1);
    inside.recv_timeout(LONG).unwrap();

    write(&log, 1..101);

    assert_eq!((counts(&log), log.buffered_lines()), ([0, 0, 90, 0], 10));
    assert!(!log.flush(Duration::from_millis(1)), "the flush gives up in time");
    drop(release);
    assert!(log.flush(LONG));
    assert_eq!(counts(&log), [11, 0, 90, 0]);
}

#[test]
fn a_full_disk_is_counted() {
    let log = log_to(&config(LogOutput::File("/dev/full".into())));

    write(&log, 0..3);

    assert!(log.flush(LONG));
    assert_eq!(counts(&log), [0, 0, 0, 3]);
}

#[test]
fn a_closed_pipe_is_counted_and_a_new_output_resumes() {
    let (reader, writer) = io::pipe().unwrap();
    let log = log_into(writer, 100);
    drop(reader);
    write(&log, 0..2);
    assert!(log.flush(LONG));
    assert_eq!(counts(&log), [0, 0, 0, 2]);

    let (mut reader, writer) = io::pipe().unwrap();
    log.set_output(Box::new(writer), &config(LogOutput::Off)).unwrap();
    write(&log, 2..4);
    assert!(log.flush(LONG));
    drop(log);

    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(ids(&text), [2, 3]);
}

/// Takes `room` bytes, then fails once, then takes everything.
struct Narrow {
    room: usize,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            self.room = usize::MAX;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = bytes.len().min(self.room);
        self.room -= count;
        self.taken.lock().unwrap().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_cut_by_a_full_disk_spoils_no_other() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let mut sink = Sink { output: Some(Box::new(Narrow { room: 7, taken: taken.clone() })), torn: false };

    let lost = sink.write(b"one\ntwo two\nthree\n").unwrap_err();
    sink.write(b"four\n").unwrap();

    assert_eq!(lost.lines, 2);
    assert_eq!(taken.lock().unwrap().as_slice(), b"one\ntwo\nfour\n");
}

#[test]
fn reopening_lets_a_rotated_file_go() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let config = config(LogOutput::File(path.clone()));
    let log = log_to(&config);
    write(&log, 0..1);
    assert!(log.flush(LONG));
    std::fs::rename(&path, &rotated).unwrap();

    log.reconfigure(&config).unwrap();
    write(&log, 1..2);

    assert!(log.flush(LONG));
    assert_eq!((ids(&read(&rotated)), ids(&read(&path))), (vec![0], vec![1]));
}

#[test]
fn a_reload_with_an_unusable_file_keeps_the_old_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = log_to(&config(LogOutput::File(path.clone())));

    log.reconfigure(&config(LogOutput::File(folder.path().join("missing/access.log")))).unwrap_err();
    write(&log, 0..1);

    assert!(log.flush(LONG));
    assert_eq!(ids(&read(&path)), [0]);
}

#[test]
fn the_end_writes_what_is_buffered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = log_to(&config(LogOutput::File(path.clone())));
    let shared = Arc::downgrade(&log.shared);

    write(&log, 0..5);
    drop(log);

    let deadline = Instant::now() + LONG;
    while shared.strong_count() > 0 && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!(ids(&read(&path)).len(), 5);
}

#[test]
fn sampling_is_close_to_its_rate_and_spares_failures() {
    let log = log_to(&config(LogOutput::Off));
    let settings = model::AccessLog { sample: 0.1, buffer: 100_000, ..config(LogOutput::Off) };
    log.set_output(Box::new(io::sink()), &settings).unwrap();

    write(&log, 0..10_000);
    let mut failure = request("some id");
    failure.reason = Reason::QueueFull;
    (0..100).for_each(|_| log.log(&failure, SystemTime::now()));

    assert!(log.flush(LONG));
    let [written, sampled_out, ..] = counts(&log);
    assert_eq!(written + sampled_out, 10_100);
    assert!((900..1100).contains(&(written - 100)), "{written}");
}

#[test]
fn sample_bounds_mean_all_and_none() {
    assert_eq!(sample_threshold(1.0), u64::MAX);
    assert_eq!(sample_threshold(2.0), u64::MAX);
    assert_eq!(sample_threshold(0.0), 0);
    assert_eq!(sample_threshold(-1.0), 0);
}
