//! When a run is void, and when it is not.

use super::*;

const MS: u64 = 1_000_000;

fn good() -> Facts {
    Facts {
        counts: Counts { scheduled: 10_000, sent: 10_000, ok: 10_000, ..Counts::default() },
        response_p50_ns: 20 * MS,
        lateness_p99_ns: MS / 2,
        ran_ns: 10 * SECOND,
        accounts_close: true,
        interrupted: false,
        generator: Generator::default(),
        little: little(200 * 1000 * u128::from(MS), 200 * 1000 * u128::from(MS), 10_000, 10 * SECOND),
    }
}

/// The one rule that is broken, and what it says.
fn broken(facts: &Facts) -> (Rule, String) {
    let reasons = judge(facts);
    let [reason] = &reasons[..] else { panic!("one reason: {reasons:?}") };
    (reason.rule, reason.text.clone())
}

#[test]
fn a_good_run_has_no_reasons() {
    assert_eq!(judge(&good()), []);
}

/// Ctrl-C right after the start: nothing was due yet, or was only due.
#[test]
fn what_follows_from_an_interruption_is_no_reason() {
    let busy = Generator { busiest_worker: 1.0, ..Generator::default() };
    let none = Facts { counts: Counts::default(), ran_ns: 0, interrupted: true, generator: busy, ..good() };
    assert_eq!(judge(&none), []);

    let counts = Counts { scheduled: 3, sent: 1, unsent: 2, unfinished: 1, ..Counts::default() };
    let short = Facts { counts, ran_ns: 20 * MS, ..none };
    assert_eq!(judge(&short), []);

    let shed = Facts { counts: Counts { scheduled: 3, sent: 1, shed: 2, ..counts }, interrupted: true, ..good() };
    assert_eq!(broken(&Facts { counts: Counts { unsent: 0, ..shed.counts }, ..shed }).0, Rule::RateNotReached);
}

#[test]
fn every_rule_says_what_to_do() {
    let stalled = StallRecord { at_s: 3.0, length_s: 0.6 };
    let counts = good().counts;
    let cases = [
        (Facts { counts: Counts::default(), ..good() }, Rule::Empty, "raise the rate"),
        (Facts { accounts_close: false, ..good() }, Rule::Accounting, "report"),
        (Facts { little: little(1_000_000_000, 1_010_000_000, 10, SECOND), ..good() }, Rule::Little, "report"),
        (
            Facts { counts: Counts { sent: 9_700, shed: 100, unsent: 200, ..counts }, ..good() },
            Rule::RateNotReached,
            "could not keep up",
        ),
        (
            Facts { counts: Counts { sent: 9_700, shed: 300, ..counts }, ..good() },
            Rule::RateNotReached,
            "raise the cap",
        ),
        (
            Facts { counts: Counts { sent: 9_700, shed: 300, shed_deadline: 200, ..counts }, ..good() },
            Rule::RateNotReached,
            "raise the deadline",
        ),
        (Facts { lateness_p99_ns: 3 * MS, ..good() }, Rule::Lateness, "--precise"),
        (
            Facts { generator: Generator { stalls: vec![stalled], ..Generator::default() }, ..good() },
            Rule::OwnStall,
            "0.60 s at 3.00 s",
        ),
        (
            Facts { generator: Generator { busiest_worker: 0.97, ..Generator::default() }, ..good() },
            Rule::CpuSaturated,
            "more workers",
        ),
    ];
    for (facts, rule, advice) in cases {
        let (found, text) = broken(&facts);

        assert_eq!(found, rule, "{text}");
        assert!(text.contains(advice), "{text}");
    }
}

#[test]
fn small_blemishes_do_not_make_a_run_void() {
    let short = StallRecord { at_s: 1.0, length_s: 0.06 };
    let blemishes = [
        Facts { lateness_p99_ns: MS, response_p50_ns: MS, ..good() },
        Facts { lateness_p99_ns: 3 * MS, response_p50_ns: 0, ..good() },
        Facts { lateness_p99_ns: 2 * MS, response_p50_ns: 20 * MS, ..good() },
        Facts { counts: Counts { sent: 9_800, unsent: 200, ..good().counts }, ..good() },
        Facts { generator: Generator { stalls: vec![short], ..Generator::default() }, ..good() },
        Facts { generator: Generator { busiest_worker: 1.0, precise: true, ..Generator::default() }, ..good() },
    ];
    for facts in blemishes {
        assert_eq!(judge(&facts), []);
    }
}

#[test]
fn a_gap_between_beats_is_a_stall() {
    assert_eq!(stall(SECOND, SECOND + STALL_NS), None);
    assert_eq!(stall(SECOND, 3 * SECOND), Some(StallRecord { at_s: 1.0, length_s: 2.0 }));
}

#[test]
fn littles_law_holds_with_nothing_in_flight_too() {
    let nothing = little(0, 0, 0, 0);

    assert_eq!(nothing.difference, 0.0);
    assert!(nothing.bound > 0.0);
}

#[test]
fn cpu_times_are_found_behind_any_name() {
    let stat = "1 (a ) b) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 5 1 1 1";

    assert_eq!(parse_cpu(stat), Some((2.5, 0.5)));
    assert_eq!(parse_cpu("1 (x) S"), None);
    assert!(environment().cpus > 0);
}
