//! Results survive being written and read.

use super::*;

fn timings(values: &[u64]) -> Timings {
    let mut timings = Timings::default();
    values.iter().for_each(|value| timings.record(*value));
    timings
}

fn second() -> Second {
    Second {
        counts: Counts { scheduled: 5, sent: 4, shed: 1, ok: 3, timeout: 1, bytes: 17, ..Counts::default() },
        response: timings(&[1_000, 2_000_000, 3_000_000, 30_000_000_000]),
        service: timings(&[900, 1_900_000, 2_900_000, 30_000_000_000]),
        lateness: timings(&[100, 100, 100, 0]),
        censored_from: Some(30_000_000_000),
        during: During { sent: 4, ended: 3, in_flight_ns: u64::MAX },
        ..Second::default()
    }
}

fn result() -> RunResult {
    let second = second();
    RunResult {
        schema: SCHEMA.into(),
        version: "0.1.0".into(),
        started_unix: 1_800_000_000.25,
        command_line: vec!["forebay".into(), "load".into()],
        plan: PlanRecord { model: "open".into(), seed: u64::MAX, deadline_s: Some(0.5), ..PlanRecord::default() },
        environment: Environment::default(),
        totals: Totals::of(&second, BTreeMap::from([(200, 3)]), BTreeMap::from([(ErrorKind::Reset, 1)])),
        warm_up: Some(Totals::of(&second, BTreeMap::new(), BTreeMap::new())),
        targets: vec![TargetRecord {
            name: "GET /".into(),
            counts: second.counts,
            response: Distribution::of(&second.response),
        }],
        seconds: vec![SecondRecord::of(0, true, &second), SecondRecord::of(1, false, &second)],
        generator: Generator { stalls: vec![StallRecord { at_s: 1.5, length_s: 0.25 }], ..Generator::default() },
        little: Little::default(),
        waterfall: None,
        answers: None,
        verdict: Verdict::new(false, vec![Reason { rule: Rule::Lateness, text: "late".into() }]),
        gates: vec![GateRecord { gate: "p99<1s".into(), passed: Some(false), measured: "p99 was 30 s".into() }],
        notes: vec![],
    }
}

#[test]
fn a_result_survives_json_unchanged() {
    let result = result();

    let json = serde_json::to_string(&result).expect("serialises");
    let back: RunResult = serde_json::from_str(&json).expect("parses");

    assert_eq!(back, result);
}

#[test]
fn a_histogram_survives_with_every_count_and_can_be_added_to() {
    let timings = timings(&[0, 63, 64, 1_000, 123_456_789, 3_600_000_000_000]);

    let mut back = Distribution::of(&timings).histogram().expect("decodes");

    let original = timings.histogram().expect("has values");
    let counts = |histogram: &Histogram<u64>| -> Vec<(u64, u64)> {
        histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    };
    assert_eq!(counts(&back), counts(original));
    assert_eq!((back.len(), back.min()), (6, 0));
    back.record(1).expect("still grows");
    back.add(original).expect("is of the same kind");
}

#[test]
fn an_empty_distribution_has_no_histogram_to_carry() {
    let distribution = Distribution::of(&Timings::default());

    assert_eq!(distribution, Distribution::default());
    assert!(distribution.histogram().expect("empty").is_empty());
    assert!(!serde_json::to_string(&distribution).expect("serialises").contains("hdr"));
}

#[test]
fn a_damaged_histogram_is_an_error_and_not_a_panic() {
    for hdr in ["!", "AAAA", "HISTFAAAAAA="] {
        let distribution = Distribution { hdr: hdr.into(), ..Distribution::default() };

        assert!(distribution.histogram().is_err(), "{hdr}");
    }
}

#[test]
fn interruption_goes_before_void() {
    let reason = Reason { rule: Rule::Empty, text: String::new() };

    assert_eq!(Verdict::new(false, vec![]).outcome, Outcome::Complete);
    assert_eq!(Verdict::new(false, vec![reason.clone()]).outcome, Outcome::Void);
    assert_eq!(Verdict::new(true, vec![reason]).outcome, Outcome::Interrupted);
}
