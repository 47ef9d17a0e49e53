//! What is laid out, and that a run in virtual time sends exactly that.

use http::Method;

use super::*;
use crate::load::arrivals::Arrivals;
use crate::load::core::Model;
use crate::load::sim::{self, Independent};
use crate::load::{Sample, Shed, Sink};

fn wish() -> Wish {
    Wish { speed: 1.0, multiply: 1, window: Window::ALL, unsafe_methods: false, seed: 7 }
}

fn get(at: u64) -> Record {
    Record::new(at, Method::GET, "/".to_owned())
}

fn seconds(all: &[u64]) -> Vec<Record> {
    all.iter().map(|second| get(1_700_000_000 * SECOND + second * SECOND)).collect()
}

/// What was sent: number, intended instant, instant of sending.
#[derive(Default)]
struct Sent(Vec<(u64, u64, u64)>);

impl Sink for Sent {
    fn scheduled(&mut self, _intended: u64) {}
    fn shed(&mut self, _intended: u64, why: Shed) {
        panic!("shed: {why:?}");
    }
    fn unsent(&mut self, _intended: u64) {
        panic!("unsent");
    }
    fn sent(&mut self, _intended: u64, _sent: u64) {}
    fn ended(&mut self, sample: &Sample) {
        self.0.push((sample.number, sample.intended, sample.sent));
    }
}

#[test]
fn a_month_is_replayed_without_drift_and_each_record_once() {
    // Irregular distances of 1 ns to about 30 s: 200 000 records in 35 days.
    let mut at = 1_700_000_000 * SECOND;
    let records: Vec<Record> = (0..200_000_u64)
        .map(|number| {
            at += 1 + number.wrapping_mul(2_654_435_761) % (30 * SECOND);
            get(at)
        })
        .collect();
    let first = records[0].at;
    for speed in [1.0, 4.0] {
        let schedule = lay_out(&records, &Wish { speed, ..wish() }).expect("a schedule");
        let arrivals = Arrivals::Recorded(Arc::clone(&schedule.instants));
        let plan = sim::plan(Model::Open(arrivals), schedule.duration().as_secs());
        let mut sent = Sent::default();
        // Slow answers in between must not move what comes after them.
        sim::simulate(&plan, &mut Independent { every: 10, slow: 600 * SECOND, fast: 1000 }, &mut sent);

        sent.0.sort_unstable();
        assert_eq!(sent.0.len(), records.len());
        for (index, (record, (number, intended, at))) in records.iter().zip(&sent.0).enumerate() {
            let exact = ((record.at - first) as f64 / speed).round() as u64;
            assert_eq!((*number, *intended, *at), (index as u64, exact, exact), "record {index} at {speed}");
        }
        assert!(schedule.records.iter().copied().eq(0..200_000));
    }
}

#[test]
fn a_window_begins_at_its_beginning() {
    let window = "10s..20s".parse().expect("a window");
    let schedule = lay_out(&seconds(&[0, 9, 12, 19, 20]), &Wish { window, ..wish() }).expect("a schedule");

    assert_eq!(&schedule.instants[..], [2 * SECOND, 9 * SECOND]);
    assert_eq!(schedule.records, [2, 3]);
    assert_eq!(schedule.duration(), Duration::from_secs(10));
    assert_eq!(part(&seconds(&[0, 9, 12, 19, 20]), window), 2..4);
    assert!(lay_out(&seconds(&[0, 9]), &Wish { window, ..wish() }).expect_err("empty").contains("window"));
}

#[test]
fn copies_fall_between_their_record_and_the_next() {
    let records: Vec<Record> = (0..100).map(|number| get(number * SECOND / 10)).collect();
    let schedule = lay_out(&records, &Wish { multiply: 3, ..wish() }).expect("a schedule");

    assert_eq!(schedule.instants.len(), 300);
    assert!(schedule.instants.is_sorted());
    for (at, record) in schedule.instants.iter().zip(&schedule.records) {
        let due = records[*record as usize].at;
        assert!((due..due + SECOND / 10).contains(at), "record {record} at {at}");
    }
    let mut counts = [0; 100];
    schedule.records.iter().for_each(|record| counts[*record as usize] += 1);
    assert_eq!(counts, [3; 100]);
    assert_eq!(schedule, lay_out(&records, &Wish { multiply: 3, ..wish() }).expect("the same by the same seed"));
}

#[test]
fn what_may_change_something_is_sent_only_when_asked() {
    let records = [get(0), Record::new(1, Method::DELETE, "/".to_owned())];

    let careful = lay_out(&records, &wish()).expect("a schedule");
    assert_eq!(careful.records, [0]);
    assert!(careful.notes[0].starts_with("not sent: 1 request of methods"), "{:?}", careful.notes);
    let all = lay_out(&records, &Wish { unsafe_methods: true, ..wish() }).expect("a schedule");
    assert_eq!(all.records, [0, 1]);
    assert!(lay_out(&records[1..], &wish()).expect_err("nothing is left").contains("--unsafe-methods"));
}

#[test]
fn the_peak_is_that_of_any_second() {
    let at = [0, 600, 900, 1100, 1500, 1599, 3000];
    let records: Vec<Record> = at.iter().map(|ms| get(ms * 1_000_000)).collect();

    assert_eq!(lay_out(&records, &wish()).expect("a schedule").peak_rate(), 5.0);
}

#[test]
fn the_same_requests_are_prepared_once_and_rare_ones_share_a_line() {
    let mut records = vec![get(0), get(1)];
    records.extend((0..30).map(|number| Record::new(2, Method::GET, format!("/{number}?page={number}"))));
    records.push(Record { body: "x".into(), ..get(3) });

    let requests = requests(&records);

    assert_eq!((requests.different.len(), &requests.of_record[..3]), (32, &[0, 0, 1][..]));
    assert_eq!(requests.groups.len(), MOST_GROUPS + 1);
    assert_eq!((requests.groups[0].as_str(), requests.group_of_record[32]), ("GET /", 0));
    assert_eq!(requests.groups[MOST_GROUPS], "other requests");
    assert!(requests.group_of_record.iter().all(|group| (*group as usize) < requests.groups.len()));
}

#[test]
fn windows_are_parts_of_time() {
    let window = |text: &str| text.parse::<Window>();

    assert_eq!(window(".."), Ok(Window::ALL));
    assert_eq!(window("..2m"), Ok(Window { from: Duration::ZERO, until: Some(Duration::from_secs(120)) }));
    for text in ["", "10s", "2m..1m", "1..2", "0s..0s"] {
        assert!(window(text).is_err(), "{text}");
    }
}
