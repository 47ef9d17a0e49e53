//! Pictures for a fixed snapshot, and what the view writes of them.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::load::ledger::Ledger;
use crate::load::{End, Sample, Sink};

const MS: u64 = 1_000_000;

fn row(second: u32, p99_ms: u64) -> Row {
    Row {
        second,
        counts: Counts { scheduled: 200, sent: 199, shed: 1, ok: 190, http_error: 4, ..Counts::default() },
        sent: 198,
        ended: 197,
        response: Quick { count: 190, p50_ns: 12 * MS, p95_ns: 40 * MS, p99_ns: p99_ms * MS, max_ns: 2 * p99_ms * MS },
        lateness_p99_ns: 55_000,
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        moment: Moment {
            phase: Phase::Measuring,
            elapsed_ns: 12 * SECOND + 400 * MS,
            planned_ns: 30 * SECOND,
            in_flight: 1234,
        },
        counts: Counts {
            scheduled: 2400,
            sent: 2388,
            shed: 12,
            ok: 2280,
            http_error: 48,
            timeout: 2,
            ..Counts::default()
        },
        errors: BTreeMap::from([(ErrorKind::Refused, 3)]),
        response: Quick { count: 2282, p50_ns: 12 * MS, p95_ns: 41 * MS, p99_ns: 90 * MS, max_ns: 250 * MS },
        service: Quick::default(),
        lateness_p99_ns: 60_000,
        rows: [20, 40, 125, 60, 0, 30].iter().zip(6..).map(|(p99, second)| row(second, *p99)).collect(),
    }
}

#[test]
fn the_block_shows_what_matters_now() {
    let block = draw::block("GET http://127.0.0.1:8080/  open", &snapshot(), &Look { colour: false, width: 60 });

    assert_eq!(
        block.join("\n"),
        "\
GET http://127.0.0.1:8080/  open
############------------------  12 s of 30 s, 18 s left
rate       200/s due, 198/s sent, 197/s ended; 1 234 in flight
                  p50       p95       p99       max  late p99
second 11     12.0 ms   40.0 ms   30.0 ms   60.0 ms   55.0 us   5 still in flight
run           12.0 ms   41.0 ms   90.0 ms    250 ms   60.0 us
errors     2.15 % of ended; 48 http, 2 timeout, 12 shed, 3 refused
p99        ▂▃█▄▁▃  up to 125 ms"
    );
}

#[test]
fn before_the_first_answer_nothing_is_made_up() {
    let moment = Moment { planned_ns: 30 * SECOND, ..Moment::default() };
    let snapshot = Snapshot { moment, ..Snapshot::default() };

    let block = draw::block("t", &snapshot, &Look::PLAIN);

    assert_eq!(block[1], "------------------------------  0 s of 30 s, 30 s left, warming up");
    assert_eq!(block.last().expect("lines"), "errors     none");
}

#[test]
fn the_end_says_what_is_waited_for() {
    let words = |phase| {
        let mut snapshot = snapshot();
        snapshot.moment.phase = phase;
        draw::block("t", &snapshot, &Look::PLAIN)[1].clone()
    };

    assert!(words(Phase::Draining).ends_with("  all sent, waiting for 1 234"));
    assert!(words(Phase::Interrupted).ends_with("  interrupted, waiting for 1 234; Ctrl-C again gives up"));
}

/// An output that the test can look at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text")
    }
}

fn shown(mode: Mode, snapshot: Snapshot) -> String {
    let output = Shared::default();
    let (_sender, receiver) = watch::channel(snapshot);
    let view = View::start(mode, "title".into(), || Look::PLAIN, output.clone(), receiver).expect("a thread");
    view.stop();
    output.text()
}

#[test]
fn each_second_has_one_line_however_often_it_is_looked_at() {
    let mut screen = Screen { mode: Mode::Lines, title: String::new(), output: Vec::new(), drawn: 0, next_second: 0 };
    let mut snapshot = snapshot();

    screen.show(&snapshot, &Look::PLAIN).expect("memory");
    screen.show(&snapshot, &Look::PLAIN).expect("memory");
    snapshot.rows.push(row(12, 33));
    screen.end(&snapshot, &Look::PLAIN).expect("memory");

    let text = String::from_utf8(screen.output).expect("text");
    assert_eq!(text.lines().count(), 7);
    assert_eq!(
        text.lines().last().expect("lines"),
        "   13 s  due 200  sent 198  ended 197  in flight 1234  p50 12.0 ms  p99 33.0 ms  max 66.0 ms  errors 4  shed 1  late p99 55.0 us"
    );
}

#[test]
fn a_run_shorter_than_a_frame_is_shown_too() {
    assert_eq!(shown(Mode::Lines, snapshot()).lines().count(), 6);
}

#[test]
fn quiet_is_quiet() {
    assert_eq!(shown(Mode::Quiet, snapshot()), "");
    assert_eq!(Mode::of(true, true), Mode::Quiet);
    assert_eq!((Mode::of(false, true), Mode::of(false, false)), (Mode::Block, Mode::Lines));
}

#[test]
fn the_block_is_drawn_over_itself_and_removed_at_the_end() {
    let mut screen = Screen { mode: Mode::Block, title: "t".into(), output: Vec::new(), drawn: 0, next_second: 0 };

    screen.show(&snapshot(), &Look::PLAIN).expect("memory");
    let first = screen.output.len();
    screen.end(&snapshot(), &Look::PLAIN).expect("memory");

    let text = String::from_utf8(screen.output).expect("text");
    assert!(!text[..first].contains("A\x1b"), "nothing to go up over yet");
    assert!(text[first..].starts_with("\x1b[?7l\x1b[8A"), "goes up over its eight lines");
    assert!(text.ends_with("\x1b[8A\x1b[J"));
}

#[test]
fn a_closed_pipe_ends_the_view_and_nothing_else() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (sender, receiver) = watch::channel(snapshot());

    let view = View::start(Mode::Lines, String::new(), || Look::PLAIN, Closed, receiver).expect("a thread");
    sender.send_replace(snapshot());

    view.stop();
}

#[test]
fn a_snapshot_adds_up_what_is_settled_and_what_is_not() {
    let mut ledger = Ledger::new(1);
    let mut book = Book::new(1);
    let mut tracker = Tracker::new(1, 4 * SECOND);
    for second in 0..4_u64 {
        let intended = second * SECOND;
        ledger.scheduled(intended);
        ledger.sent(intended, intended);
        // The one of the last second is in flight.
        if second < 3 {
            let ended = intended + (second + 1) * 100 * MS;
            let end = if second == 2 { End::ConnectionError(ErrorKind::Reset) } else { End::Ok { status: 200 } };
            ledger.ended(&Sample {
                number: second,
                target: 0,
                intended,
                sent: intended,
                first_byte: None,
                ended,
                end,
                bytes: 0,
                connect: None,
            });
        }
    }
    book.absorb(ledger.take(4 * SECOND));
    let settled = book.settle(2 * SECOND);
    let progress = Progress { now: 4 * SECOND, in_flight: 1, book: &book, settled: &settled, draining: true };

    let snapshot = tracker.observe(&progress, false);

    assert_eq!(snapshot.moment.phase, Phase::Draining);
    assert_eq!(tracker.observe(&progress, true).moment.phase, Phase::Interrupted);

    assert_eq!(snapshot.rows.iter().map(|row| row.second).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((snapshot.counts.sent, snapshot.counts.ok), (3, 1), "without the warm-up");
    assert_eq!(snapshot.response.count, 1);
    assert_eq!(snapshot.errors, BTreeMap::from([(ErrorKind::Reset, 1)]));
    assert_eq!(snapshot.rows[3].open(), 1);
}
