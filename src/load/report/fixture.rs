//! A run for the tests of the reports, the same every time: 200/s, the first of its seconds for warm-up, a target that
//! stalls in the third, times a few requests out, sheds and fails a few, and a generator that stood still once.

use std::collections::BTreeMap;

use crate::load::answers::{Answers, DifferenceRecord, Kind};
use crate::load::gates;
use crate::load::ledger::{Book, Ledger};
use crate::load::result::{
    Environment, Generator, Little, PlanRecord, Reason, Rule, RunResult, SCHEMA, StallRecord, Verdict,
};
use crate::load::waterfall::join::{Half, Join};
use crate::load::waterfall::segments::Asked;
use crate::load::waterfall::{RequestKey, Waterfall};
use crate::load::{End, ErrorKind, SECOND, Sample, Shed, Sink};

const MS: u64 = 1_000_000;

pub(crate) fn result() -> RunResult {
    run(12)
}

/// Of this many seconds.
pub(crate) fn run(seconds: u64) -> RunResult {
    let mut book = Book::new(1);
    book.absorb(ledger(seconds).take((seconds + 4) * SECOND));
    let closed = book.close();
    let mut targets: Vec<_> = closed.targets.into_values().collect();
    targets[0].name = "GET http://127.0.0.1:8080/agg".into();
    let throughput = closed.totals.counts.sent as f64 / seconds as f64;
    let service_s = closed.totals.service.mean_ns / 1e9;
    let mut result = RunResult {
        schema: SCHEMA.into(),
        version: "0.1.0".into(),
        started_unix: 1_800_000_000.25,
        command_line: "forebay load http://127.0.0.1:8080/agg -r 200 --fail p99<250ms"
            .split(' ')
            .map(str::to_owned)
            .chain(["-H".into(), "x-note: it's".into()])
            .collect(),
        plan: PlanRecord {
            model: "open".into(),
            arrivals: "poisson, 200/s".into(),
            seed: 7,
            duration_s: seconds as f64,
            warm_up_s: 1,
            ran_s: seconds as f64,
            took_s: Some((seconds + 1) as f64),
            workers: 2,
            in_flight_cap: 10_000,
            timeout_s: 2.0,
            deadline_s: None,
        },
        environment: Environment {
            host: "box".into(),
            kernel: "Linux 6.1.0".into(),
            cpu: "Some CPU <2 GHz>".into(),
            cpus: 2,
            load_average: 0.42,
        },
        totals: closed.totals,
        warm_up: closed.warm_up,
        targets,
        seconds: closed.seconds,
        generator: Generator {
            user_cpu_s: 0.8,
            system_cpu_s: 0.4,
            busiest_worker: 0.061,
            precise: false,
            stalls: vec![StallRecord { at_s: 7.25, length_s: 0.4 }],
        },
        little: Little {
            in_flight_mean: throughput * service_s,
            throughput_per_s: throughput,
            service_mean_s: service_s,
            difference: 0.0,
            bound: 0.5,
        },
        waterfall: None,
        answers: None,
        verdict: Verdict::new(false, vec![]),
        gates: vec![],
        notes: vec!["route users: 3 answers came after its timeout of 2 s".into()],
    };
    judge(&mut result);
    result
}

fn judge(result: &mut RunResult) {
    let gates = ["p99<250ms", "errors<5%"].map(|gate| gate.parse().expect("a gate"));
    gates::judge(&gates, result).expect("whole histograms");
}

pub(crate) fn void() -> RunResult {
    let late = Reason { rule: Rule::Lateness, text: "requests left 12 ms late (p99): use a machine of its own".into() };
    let mut result = RunResult { verdict: Verdict::new(false, vec![late]), ..result() };
    judge(&mut result);
    result
}

pub(crate) fn interrupted() -> RunResult {
    let mut result = result();
    result.verdict = Verdict::new(true, vec![]);
    result.plan.ran_s = 6.5;
    judge(&mut result);
    result
}

/// Nothing at all was sent.
pub(crate) fn empty() -> RunResult {
    let nothing = Reason { rule: Rule::Empty, text: "no request was due".into() };
    let closed = Book::new(0).close();
    RunResult {
        totals: closed.totals,
        warm_up: None,
        targets: vec![],
        seconds: vec![],
        verdict: Verdict::new(false, vec![nothing]),
        gates: vec![],
        notes: vec![],
        generator: Generator::default(),
        little: Little::default(),
        environment: Environment::default(),
        ..result()
    }
}

/// 200 a second, evenly; what becomes of a request depends on its number only.
fn ledger(seconds: u64) -> Ledger {
    let mut ledger = Ledger::new(1);
    let mut events: BTreeMap<(u64, u8, u64), Event> = BTreeMap::new();
    for number in 0..seconds * 200 {
        let intended = number * 5 * MS;
        ledger.scheduled(intended);
        if number == 5 || number % 400 == 211 {
            ledger.shed(intended, Shed::Cap);
            continue;
        }
        let sample = sample(number, intended);
        events.insert((sample.sent, 0, number), Event::Sent(intended));
        events.insert((sample.ended, 1, number), Event::Ended(sample));
    }
    for ((at, ..), event) in events {
        match event {
            Event::Sent(intended) => ledger.sent(intended, at),
            Event::Ended(sample) => ledger.ended(&sample),
        }
    }
    ledger
}

enum Event {
    Sent(u64),
    Ended(Sample),
}

fn sample(number: u64, intended: u64) -> Sample {
    let scatter = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let sent = intended + 15_000 + (scatter % 40_000);
    let second = intended / SECOND;
    // A tail over a body of 12 to 25 ms; every 12 s, in the third, everything waits for its end.
    let tail = if scatter.is_multiple_of(50) { 150 * MS } else { 0 };
    let stall = if second % 12 == 3 { 4 * SECOND - intended % (12 * SECOND) } else { 0 };
    let took = 12 * MS + scatter % 13_000_000 + tail + stall;
    let (end, took) = match number % 200 {
        17 => (End::HttpError { status: 503 }, 3 * MS),
        91 if second % 12 == 5 => (End::Timeout, 2 * SECOND),
        92 if second % 12 > 7 => (End::ConnectionError(ErrorKind::Refused), MS),
        93 if second % 12 == 9 => (End::ConnectionError(ErrorKind::Reset), 30 * MS),
        _ => (End::Ok { status: 200 }, took),
    };
    let connect = number.is_multiple_of(100).then_some(300_000);
    Sample {
        number,
        target: 0,
        intended,
        sent,
        first_byte: Some(sent + took / 2),
        ended: sent + took,
        end,
        bytes: 512,
        connect,
    }
}

/// Of a thousand requests, the slowest of which waited in a queue.
pub(crate) fn waterfall() -> Waterfall {
    let mut join = Join::default();
    for number in 0..1_000 {
        let id = format!("{number:032x}");
        let queue_us = if number % 100 == 17 { 700_000 + 100 * number } else { number };
        let (sent, total_us) = (SECOND + 20_000, 50_000 + queue_us);
        let key = RequestKey::of(id.as_bytes());
        let ended = sent + 80_000 + total_us * 1_000 + 30_000;
        let connect = if number < 10 { 40_000 } else { 0 };
        join.ended(Half {
            answered: Some(key),
            sent_as: key,
            number,
            asked: Asked { intended: SECOND, sent, ended, connect },
        });
        let ms = |us: u64| us as f64 / 1e3;
        join.logged(
            format!(
                r#"{{"request_id":"{id}","started_us":{},"total_ms":{},"queue_ms":{},"connect_ms":0.2,"upstream_ms":49.9,"response_started_ms":{}}}"#,
                (sent + 80_000) / 1_000,
                ms(total_us),
                ms(queue_us),
                ms(total_us - 10_000)
            )
            .as_bytes(),
        );
    }
    join.lost(3);
    join.finish("access.log".into())
}

/// Some that are as they were, some that are not.
pub(crate) fn answers() -> Answers {
    let one =
        |path: &str, kind, answers, request: &str, place: &str, recorded: &str, replayed: &str| DifferenceRecord {
            path: path.into(),
            kind,
            answers,
            request: request.into(),
            place: place.into(),
            recorded: recorded.into(),
            replayed: replayed.into(),
        };
    Answers {
        compared: 1000,
        equal: 700,
        different: 300,
        bodies: 990,
        incomparable: 3,
        dropped: 0,
        differences: vec![
            one("items.*.price", Kind::Value, 290, "GET /items/7", "items.0.price", "12.5", "13"),
            one("status", Kind::Status, 10, "GET /gone", "", "200", "404"),
        ],
        others: 0,
        ignored: vec!["meta.time".into()],
        learned: vec!["id".into()],
    }
}
