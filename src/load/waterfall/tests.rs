//! Joining, line by line: what adds up, what is cut, what is missed, and that nothing grows.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use proptest::prelude::*;

use super::join::{Half, Join};
use super::line::Line;
use super::record::Waterfall;
use super::segments::{Asked, Seen, Segments, join};
use super::tail::Tail;
use super::{RequestKey, RunId};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

fn asked() -> Asked {
    Asked { intended: 10 * SECOND, sent: 10 * SECOND + MS, ended: 10 * SECOND + 200 * MS, connect: 2 * MS }
}

/// Arrived 5 ms after it was sent, and took 190 ms.
fn seen() -> Seen {
    Seen {
        started: 10 * SECOND + 6 * MS,
        total: 190 * MS,
        rate_delay: 10 * MS,
        queue: 40 * MS,
        fault_delay: 6 * MS,
        connect: 3 * MS,
        upstream: 130 * MS,
        response_started: Some(160 * MS),
    }
}

#[test]
fn each_piece_has_its_place() {
    let joined = join(&asked(), &seen()).expect("one clock");

    let expected = Segments {
        late_ns: MS,
        connecting_ns: 2 * MS,
        accepting_ns: 3 * MS,
        sidecar_ns: 4 * MS,
        rate_delay_ns: 10 * MS,
        queue_ns: 40 * MS,
        fault_delay_ns: 6 * MS,
        upstream_connecting_ns: 3 * MS,
        first_byte_ns: 97 * MS,
        body_ns: 30 * MS,
        delivery_ns: 4 * MS,
    };
    assert_eq!(joined.segments, expected);
    assert_eq!((joined.response, joined.cut), (200 * MS, 0));
}

#[test]
fn what_the_sidecar_did_after_the_client_had_its_answer_is_cut_from_the_end() {
    // 6 ms to the sidecar and 190 in it leave 4 for the way back; it says 10 more.
    let joined = join(&asked(), &Seen { total: 200 * MS, ..seen() }).expect("one clock");

    assert_eq!((joined.cut, joined.segments.delivery_ns), (6 * MS, 0));
    assert_eq!(joined.segments.body_ns, 34 * MS, "40 ms after its first byte, without the 6");
    assert_eq!(joined.segments.first_byte_ns, 87 * MS);
    // A client that gave up while it was in the queue: the sidecar found out later.
    let gone = Seen { fault_delay: 0, connect: 0, upstream: 0, queue: 500 * MS, total: 500 * MS, ..seen() };
    let joined = join(&asked(), &Seen { rate_delay: 0, response_started: None, ..gone }).expect("one clock");
    assert_eq!((joined.segments.queue_ns, joined.cut), (194 * MS, 306 * MS));
}

#[test]
fn a_request_that_the_sidecar_came_round_to_too_late_waited_to_be_accepted() {
    let joined = join(&asked(), &Seen { started: 11 * SECOND, ..seen() }).expect("one clock");

    assert_eq!(joined.segments.accepting_ns, 197 * MS);
    assert_eq!(joined.segments.parts().iter().sum::<u64>(), 200 * MS);
}

#[test]
fn an_arrival_before_the_sending_is_another_clock() {
    let sent = asked().sent;

    // Whole microseconds are cut down, so this is the same instant.
    assert_eq!(join(&asked(), &Seen { started: sent - 999, ..seen() }).expect("one clock").segments.accepting_ns, 0);
    assert_eq!(join(&asked(), &Seen { started: sent - 2 * MS, ..seen() }), None);
}

proptest! {
    /// Also of a line that contradicts itself.
    #[test]
    fn the_pieces_add_up_to_the_response_time(
        (late, service, connect) in (0..SECOND, 0..5 * SECOND, 0..SECOND),
        (started, total, upstream) in (0..6 * SECOND, 0..6 * SECOND, 0..6 * SECOND),
        (rate_delay, queue, fault_delay, connecting) in (0..2 * SECOND, 0..2 * SECOND, 0..2 * SECOND, 0..SECOND),
        response_started in proptest::option::of(0..6 * SECOND),
    ) {
        let (intended, sent) = (SECOND, SECOND + late);
        let asked = Asked { intended, sent, ended: sent + service, connect };
        let started = sent + started;
        let seen =
            Seen { started, total, rate_delay, queue, fault_delay, connect: connecting, upstream, response_started };

        let joined = join(&asked, &seen).expect("it arrived after it was sent");

        prop_assert_eq!(joined.segments.parts().iter().sum::<u64>(), late + service);
        prop_assert_eq!(joined.response, late + service);
    }
}

fn line(id: &str, trace: Option<&str>) -> Vec<u8> {
    let trace = trace.map_or(String::new(), |trace| format!(r#""trace_id":"{trace}","#));
    format!(
        r#"{{"time":"x","request_id":"{id}",{trace}"status":200,"started_us":10006000,"total_ms":190.000,"rate_delay_ms":10.000,"queue_ms":40.000,"fault_delay_ms":6.000,"connect_ms":3.000,"upstream_ms":130.000,"response_started_ms":160.000,"overhead_ms":4.000}}"#
    )
    .into_bytes()
}

fn half(number: u64, answered: Option<&str>, sent_as: &str) -> Half {
    let key = |id: &str| RequestKey::of(id.as_bytes());
    Half { answered: answered.map(key), sent_as: key(sent_as), number, asked: asked() }
}

#[test]
fn a_line_is_read_to_the_microsecond() {
    let line = Line::parse(&line("a", Some("b"))).expect("a line");

    assert_eq!((&*line.request_id, line.seen), ("a", seen()));
    assert_eq!(line.trace, Some(RequestKey::of(b"b")));
    for other in [&b"{}"[..], b"", b"null", b"\xff", br#"{"request_id":"a","total_ms":1.0}"#] {
        assert_eq!(Line::parse(other), None);
    }
}

#[test]
fn both_sides_find_each_other_in_any_order() {
    let mut join = Join::default();
    join.ended(half(0, Some("answered"), "s0"));
    join.logged(&line("answered", None));
    join.logged(&line("before", None));
    join.ended(half(1, Some("before"), "s1"));
    // Without an answer: by the id that a trusted client sent, or by its trace.
    join.ended(half(2, None, "s2"));
    join.logged(&line("s2", None));
    join.ended(half(3, None, "s3"));
    join.logged(&line("made", Some("s3")));
    join.logged(b"something else");
    join.ended(half(4, Some("never"), "s4"));
    join.lost(2);

    assert!(join.is_waiting());
    let found = join.finish("access.log".into());

    assert_eq!((found.requests, found.joined, found.missing, found.dropped), (7, 4, 1, 2));
    assert_eq!((found.identified, found.lines, found.unreadable), (3, 5, 1));
    assert_eq!(found.slowest.len(), 4);
    assert_eq!(found.all().expect("some").response_ns, 200.0 * MS as f64);
    assert!(found.remarks()[1].contains("2 requests were too many"), "{found:?}");
}

#[test]
fn what_waits_is_bounded_and_what_had_to_go_is_counted() {
    let mut join = Join::of_size(10, 10);
    (0..100).for_each(|number| join.ended(half(number, None, &number.to_string())));
    (0..1000).for_each(|number| join.logged(&line(&format!("other {number}"), None)));
    join.logged(&line("99", None));

    let found = join.finish(String::new());

    assert_eq!((found.requests, found.joined), (100, 1));
    assert_eq!(found.dropped + found.missing, 99);
    assert!(found.missing <= 10, "{found:?}");
}

#[test]
fn what_keeps_requests_apart_from_their_lines_is_explained() {
    let good = Waterfall { log: "a.log".into(), requests: 100, joined: 99, lines: 99, ..Waterfall::default() };
    assert!(good.remarks().is_empty());
    assert!(Waterfall::default().remarks()[0].contains("no response time"));
    let bad = Waterfall { joined: 0, identified: 100, missing: 100, ..good };
    for (found, part) in [
        (Waterfall { lines: 0, ..bad.clone() }, "no line came into a.log"),
        (Waterfall { unreadable: 99, ..bad.clone() }, "`started_us`"),
        (Waterfall { disagreeing: 100, ..bad.clone() }, "on this machine"),
        (Waterfall { identified: 0, ..bad.clone() }, "no answer had an `x-request-id`"),
        (bad, "access_log.sample"),
    ] {
        assert!(found.remarks()[1].contains(part), "{:?}", found.remarks());
    }
}

#[test]
fn ids_are_trace_ids_and_no_two_are_the_same() {
    let run = RunId::random();

    assert_eq!(run.request(7).len(), 32);
    assert_ne!(run.request(7), run.request(8));
    let trace = run.traceparent(7);
    assert_eq!((trace.len(), &trace[3..35], &trace[52..]), (55, run.request(7).as_str(), "-00"));
}

fn lines_of(tail: &mut Tail) -> Vec<String> {
    let mut lines = Vec::new();
    while tail.read(|line| lines.push(String::from_utf8_lossy(line).into_owned())).expect("can be read") {}
    lines
}

#[test]
fn a_file_is_followed_through_growth_emptying_and_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "old\nhalf of an o").unwrap();
    let append = |text: &str| {
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let mut tail = Tail::open(&path).unwrap();

    append("ld line\none\ntw");
    assert_eq!(lines_of(&mut tail), ["ld line", "one"]);
    append("o\n");
    assert_eq!(lines_of(&mut tail), ["two"]);
    append(&format!("{}\nafter\n", "x".repeat(1 << 20)));
    assert_eq!(lines_of(&mut tail), ["after"], "a line without end is passed over");

    fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    append("new\n");
    assert_eq!(lines_of(&mut tail), ["new"]);
    File::create(&path).unwrap();
    append("3\n");
    assert_eq!(lines_of(&mut tail), ["3"]);
    fs::remove_file(&path).unwrap();
    assert!(lines_of(&mut tail).is_empty());
    assert!(Tail::open(&path).is_err() && Tail::open(folder.path()).is_err());
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert!(Tail::open(&pipe).is_err(), "and it waits for nobody");
}
