//! Gates against runs whose truth is known.

use proptest::prelude::*;

use super::*;
use crate::load::{End, Sample, Sink, ledger::Book, ledger::Ledger};

const MS: u64 = 1_000_000;

fn gate(text: &str) -> Gate {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// A run in which requests took these many ms and ended so, with 2 shed and 1 unsent besides.
fn run(requests: &[(u64, u64, End)]) -> (Second, BTreeMap<u16, u64>) {
    let mut ledger = Ledger::new(0);
    let mut statuses = BTreeMap::new();
    for _ in 0..3 {
        ledger.scheduled(0);
    }
    ledger.shed(0, crate::load::Shed::Cap);
    ledger.shed(0, crate::load::Shed::Cap);
    ledger.unsent(0);
    for (times, ms, end) in requests {
        for number in 0..*times {
            ledger.scheduled(0);
            ledger.sent(0, 0);
            let ended = ms * MS;
            let sample = Sample {
                number,
                target: 0,
                intended: 0,
                sent: 0,
                first_byte: None,
                ended,
                end: *end,
                bytes: 0,
                connect: None,
            };
            ledger.ended(&sample);
        }
        if let End::Ok { status } | End::HttpError { status } = end {
            *statuses.entry(*status).or_default() += times;
        }
    }
    let mut book = Book::new(0);
    book.absorb(ledger.take(3600 * 1000 * MS));
    (book.close().total, statuses)
}

const OK: End = End::Ok { status: 200 };

/// 970 at 10 ms, 10 at 200 ms, 15 answers 503, 5 refused... : each gate with what must come of it.
#[test]
fn gates_are_met_or_missed() {
    let refused = End::ConnectionError(crate::load::ErrorKind::Refused);
    let (total, statuses) =
        run(&[(970, 10, OK), (10, 200, OK), (15, 1, End::HttpError { status: 503 }), (5, 1, refused)]);
    let evidence = Evidence::of_second(&total, &statuses);
    let cases = [
        ("p50<11ms", true, "p50 of response time was 10.0 ms"),
        ("p50 < 10ms", false, "p50 of response time was 10.0 ms"),
        ("p99>100ms", true, "p99 of response time was 200 ms"),
        ("p98.9<11ms", true, "p98.9 of response time was 10.0 ms"),
        ("service:p99.9<=201ms", true, "p99.9 of service time was 200 ms"),
        ("response:max<200ms", false, "max of response time was 200 ms"),
        ("mean<12ms", true, "mean of response time was 11.9 ms"),
        ("mean<11.9ms", false, "mean of response time was 11.9 ms"),
        ("lateness:p99<1ms", true, "p99 of lateness was 63.0 ns"),
        ("errors<2%", false, "errors: 20 of 1 000 sent (2 %)"),
        ("errors<=2%", true, "errors: 20 of 1 000 sent (2 %)"),
        ("errors<21", true, "errors: 20 of 1 000 sent (2 %)"),
        ("http_errors=15", true, "http errors: 15 of 1 000 sent (1.5 %)"),
        ("connection_errors<0.5%", false, "connection errors: 5 of 1 000 sent (0.5 %)"),
        ("timeouts=0", true, "timeouts: 0 of 1 000 sent (0 %)"),
        ("status_5xx<0.1%", false, "status 5xx: 15 of 1 000 sent (1.5 %)"),
        ("status_200>=98%", true, "status 200: 980 of 1 000 sent (98 %)"),
        ("shed<3", true, "shed: 2 of 1 003 scheduled (0.199 %)"),
        ("unsent=0", false, "unsent: 1 of 1 003 scheduled (0.1 %)"),
        ("achieved>99%", true, "achieved 1 000 of 1 003 scheduled (99.7 %)"),
        ("achieved>99.8%", false, "achieved 1 000 of 1 003 scheduled (99.7 %)"),
    ];
    for (text, passed, measured) in cases {
        let record = gate(text).evaluate(&evidence);

        assert_eq!((record.gate.as_str(), record.passed, record.measured.as_str()), (text, Some(passed), measured));
    }
}

/// 98 % answered in 10 ms; the rest was given up, at ages before and after the limits that are asked about.
#[test]
fn censored_requests_count_against_a_gate() {
    let (total, statuses) = run(&[(980, 10, OK), (5, 50, End::Unfinished), (5, 300, OK), (10, 1000, End::Timeout)]);
    let evidence = Evidence::of_second(&total, &statuses);
    let cases = [
        // Below the first that was given up nothing is uncertain.
        ("p98<11ms", true, "p98 of response time was 10.0 ms"),
        // As read it would be met, but the five at 50 ms may really have taken any time.
        ("p98.5<60ms", false, "p98.5 of response time was at least 50.0 ms (15 timed out or unfinished)"),
        // Not met even as read.
        ("p99.5<250ms", false, "p99.5 of response time was at least 1.00 s (15 timed out or unfinished)"),
        // Where more is only better, a lower bound proves it.
        ("p99.5>900ms", true, "p99.5 of response time was at least 1.00 s (15 timed out or unfinished)"),
        ("max<1h", false, "max of response time was at least 1.00 s (15 timed out or unfinished)"),
        ("mean<1h", false, "mean of response time was at least 21.6 ms (15 timed out or unfinished)"),
        ("service:p98<11ms", true, "p98 of service time was 10.0 ms"),
        ("service:p98.5<60ms", false, "p98.5 of service time was at least 50.0 ms (15 timed out or unfinished)"),
        ("timeouts<1%", false, "timeouts: 10 of 1 000 sent (1 %)"),
        ("unfinished<1%", true, "unfinished: 5 of 1 000 sent (0.5 %)"),
        ("errors=15", true, "errors: 15 of 1 000 sent (1.5 %)"),
    ];
    for (text, passed, measured) in cases {
        let record = gate(text).evaluate(&evidence);

        assert_eq!((record.passed, record.measured.as_str()), (Some(passed), measured), "{text}");
    }
}

/// The quantile is a lower bound, but the limit is so far away that it holds in any case.
#[test]
fn a_gate_that_holds_in_any_case_is_met() {
    let (total, statuses) = run(&[(500, 10, OK), (5, 20, End::Unfinished), (500, 30, OK)]);
    let evidence = Evidence::of_second(&total, &statuses);

    let record = gate("p50<40ms").evaluate(&evidence);

    assert_eq!(record.measured, "p50 of response time was at least 20.0 ms (5 timed out or unfinished)");
    assert_eq!(record.passed, Some(true), "505 of 1 005 took at most 30 ms whatever the five took");
}

#[test]
fn p99_9_of_a_thousand_is_the_last_but_one() {
    let (total, statuses) = run(&[(999, 10, OK), (1, 500, OK)]);

    assert_eq!(gate("p99.9<11ms").evaluate(&Evidence::of_second(&total, &statuses)).passed, Some(true));
}

#[test]
fn nothing_measured_meets_no_gate() {
    let (total, statuses) = (Second::default(), BTreeMap::new());
    let evidence = Evidence::of_second(&total, &statuses);

    for text in ["p99<1s", "errors<1%", "timeouts=0", "achieved>1%", "p50>0s"] {
        assert_eq!(gate(text).evaluate(&evidence).passed, Some(false), "{text}");
    }
}

#[test]
fn a_mistake_is_shown_with_a_caret_and_what_to_write() {
    let cases = [
        (
            "p99<250",
            "gate `p99<250`: has a limit that has no unit\n  p99<250\n      ^^^ write \"250s\" for seconds or \"250ms\" for milliseconds",
        ),
        ("p99", "gate `p99`: has no comparison\n  p99\n  ^^^ write it as `p99<250ms` or `errors<1%`"),
        (
            "p999<1s",
            "gate `p999<1s`: has no percentile `p999`\n  p999<1s\n   ^^^ write a number below 100, or `max`; p999 is written p99.9",
        ),
        ("eror < 1%", "gate `eror < 1%`: has the unknown name `eror`\n  eror < 1%\n  ^^^^ write `errors`"),
        (
            "srv:p99<1s",
            "gate `srv:p99<1s`: has the unknown time `srv`\n  srv:p99<1s\n  ^^^ write response, service or lateness",
        ),
        (
            "achieved>99",
            "gate `achieved>99`: has no share\n  achieved>99\n           ^^ write `99%`: achieved is a share of what was scheduled",
        ),
        (
            "errors<101%",
            "gate `errors<101%`: has no share\n  errors<101%\n         ^^^^ write a number from 0 to 100 before the `%`",
        ),
        (
            "status_9xx=0",
            "gate `status_9xx=0`: has no status `9xx`\n  status_9xx=0\n         ^^^ write status_503 or status_5xx",
        ),
        ("p99=1s", "gate `p99=1s`: compares a time with `=`\n  p99=1s\n     ^ write `<` or `<=`"),
        (
            "µ<1%",
            "gate `µ<1%`: has the unknown name `µ`\n  µ<1%\n  ^ write p50, p90, p95, p99, p99.9, max or mean, or errors, http_errors, connection_errors, timeouts, unfinished, shed, unsent, achieved, different, status_5xx, status_503",
        ),
        ("p99<1%", "gate `p99<1%`: compares a time with a share\n  p99<1%\n      ^^ write a time, as in `250ms`"),
        (
            "timeouts=",
            "gate `timeouts=`: has no limit to compare with\n  timeouts=\n           ^ write a share, as in `1%`, or a number, as in `0`",
        ),
    ];
    for (text, shown) in cases {
        let error = text.parse::<Gate>().expect_err(text);

        assert_eq!(error.to_string(), shown);
    }
}

#[test]
fn a_run_under_way_ends_only_for_what_is_certain() {
    let few = run(&[(50, 500, OK)]);
    let many = run(&[(1000, 500, OK)]);
    let timeout = run(&[(50, 1, OK), (1, 500, End::Timeout)]);
    let ends = |text: &str, (total, statuses): &(Second, BTreeMap<u16, u64>)| {
        abort(&[gate(text)], &Evidence::of_second(total, statuses)).is_some()
    };

    assert!(!ends("p99<100ms", &few), "fifty requests say nothing of a p99");
    assert!(ends("p99<100ms", &many));
    assert!(!ends("p99.9<100ms", &many), "ten beyond the limit need ten thousand");
    assert!(!ends("p99<1s", &many));
    assert!(ends("timeouts=0", &timeout), "cannot be made good");
    assert!(ends("max<100ms", &few), "cannot be made good");
    assert!(!ends("errors<1%", &timeout));
    assert!(!ends("status_200>60", &few), "may still come");
}

#[test]
fn an_interrupted_run_is_not_judged() {
    let mut result = crate::load::report::fixture::result();
    result.verdict = crate::load::result::Verdict::new(true, vec![]);

    judge(&[gate("timeouts=0")], &mut result).expect("whole histograms");

    assert_eq!(result.gates[0].passed, None);
    assert!(!missed(&result));
}

#[test]
fn a_void_run_says_what_it_missed() {
    let mut result = crate::load::report::fixture::void();

    judge(&[gate("timeouts=0"), gate("errors<50%"), gate("max<1s")], &mut result).expect("whole histograms");

    assert_eq!(result.verdict.outcome, Outcome::Void);
    assert_eq!(result.verdict.gates_missed, ["timeouts=0", "max<1s"]);
}

proptest! {
    #[test]
    fn reading_a_gate_never_panics(text in "\\PC*") {
        if let Err(error) = text.parse::<Gate>() {
            let _ = error.to_string();
        }
    }

    /// As above, but of the pieces that gates are made of, so that it comes further.
    #[test]
    fn nor_does_one_that_is_nearly_right(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "p", "99", ".", "9", "max", "mean", ":", "service", "<", "=", ">", "ms", "s", "%", "errors", "status_",
                "5xx", "0", " ", "µ", "-", "e", "\n", "\u{301}",
            ]),
            0..8,
        )
    ) {
        let text = pieces.concat();
        match text.parse::<Gate>() {
            Ok(gate) => prop_assert_eq!(gate.to_string(), text.trim()),
            Err(error) => prop_assert!(error.to_string().lines().count() >= 3),
        }
    }

    /// The truth is known here: whatever the censored requests really took, a gate that is met is met by the truth.
    #[test]
    fn a_gate_that_is_met_is_met_by_the_truth(
        requests in prop::collection::vec((1..400_u64, prop::option::of(1..400_u64)), 1..60),
        q in prop::sample::select(vec!["50", "90", "99"]),
        limit in 1..800_u64,
    ) {
        let seen: Vec<(u64, u64, End)> =
            requests.iter().map(|(ms, more)| (1, *ms, if more.is_some() { End::Timeout } else { OK })).collect();
        let mut truth: Vec<u64> = requests.iter().map(|(ms, more)| ms + more.unwrap_or(0)).collect();
        truth.sort_unstable();
        let (total, statuses) = run(&seen);

        let record = gate(&format!("p{q}<{limit}ms")).evaluate(&Evidence::of_second(&total, &statuses));

        let share: f64 = format!("0.{q}").parse().expect("a number");
        let rank = ((share * truth.len() as f64).ceil() as usize).max(1);
        if record.passed == Some(true) {
            prop_assert!(truth[rank - 1] < limit, "{} but {}", record.measured, truth[rank - 1]);
        }
    }
}

#[test]
fn answers_that_differ_are_a_share_of_those_compared() {
    let mut result = crate::load::report::fixture::result();
    let judged = |result: &RunResult, text: &str| gate(text).evaluate(&Evidence::of_result(result).expect("whole"));

    assert_eq!(judged(&result, "different<1%").measured, "no request was compared");
    result.answers = Some(crate::load::report::fixture::answers());

    for (text, passed) in
        [("different<31%", true), ("different<=30%", true), ("different<1%", false), ("different=0", false)]
    {
        let record = judged(&result, text);
        assert_eq!(record.measured, "different: 300 of 1 000 compared (30 %)");
        assert_eq!(record.passed, Some(passed), "{text}");
    }
    let (total, statuses) = run(&[(10_000, 10, OK)]);
    assert_eq!(abort(&[gate("different<1%")], &Evidence::of_second(&total, &statuses)), None, "not before the end");
}
