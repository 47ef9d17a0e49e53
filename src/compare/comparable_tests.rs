//! Which runs can be compared.

use super::super::bootstrap::Random;
use super::super::testing::{SERVER, Server};
use super::*;
use crate::load::result::{Reason, Rule, StallRecord, Verdict};

fn inputs() -> [Input; 2] {
    let mut random = Random::new(1);
    let server = Server { seconds: 10, ..SERVER };
    [server.input("a.json", &mut random), server.input("b.json", &mut random)]
}

fn kinds([a, b]: &[Input; 2]) -> Vec<Kind> {
    let found = warnings(std::slice::from_ref(a), std::slice::from_ref(b));
    found.iter().map(|warning| warning.kind).filter(|kind| *kind != Kind::SingleRuns).collect()
}

#[test]
fn runs_of_the_same_plan_can_be_compared() {
    assert_eq!(kinds(&inputs()), []);
}

#[test]
fn whatever_differs_is_named() {
    type Change = fn(&mut RunResult);
    let table: [(Kind, Change); 11] = [
        (Kind::Arrivals, |result| result.plan.arrivals = "even, 100/s".into()),
        (Kind::Arrivals, |result| result.plan.model = "closed".into()),
        (Kind::Length, |result| result.plan.duration_s = 5.0),
        (Kind::Targets, |result| result.targets[0].name = "GET /other".into()),
        (Kind::Limits, |result| result.plan.timeout_s = 1.0),
        (Kind::Limits, |result| result.plan.deadline_s = Some(1.0)),
        (Kind::Environment, |result| result.environment.kernel = "7.0".into()),
        (Kind::Environment, |result| result.environment.load_average = 3.0),
        (Kind::Version, |result| result.version = "9.9.9".into()),
        (Kind::Interrupted, |result| result.verdict = Verdict::new(true, vec![])),
        (Kind::GeneratorStalls, |result| {
            result.generator.stalls = vec![StallRecord { at_s: 1.0, length_s: 0.5 }];
        }),
    ];
    for (kind, change) in table {
        let mut inputs = inputs();
        change(&mut inputs[1].result);

        assert_eq!(kinds(&inputs), [kind]);
    }
}

#[test]
fn a_void_run_is_named_with_its_reasons() {
    let [mut a, b] = inputs();
    let reason = Reason { rule: Rule::Lateness, text: "requests left 40 ms late".into() };
    a.result.verdict = Verdict::new(false, vec![reason]);

    let found = warnings(&[a], &[b]);

    assert_eq!(found[0].kind, Kind::Void);
    assert_eq!(found[0].text, "a.json is void: requests left 40 ms late");
}

#[test]
fn the_same_run_twice_and_runs_at_the_same_time_are_noticed() {
    let [a, mut b] = inputs();
    b.result.started_unix = a.result.started_unix + 5.0;

    assert_eq!(kinds(&[a.clone(), a.clone()]), [Kind::SameRun]);
    assert_eq!(kinds(&[a, b]), [Kind::Overlap]);
}

/// The last of a few Poisson arrivals is answered before the planned end, and the next run starts.
#[test]
fn runs_in_turn_are_not_at_the_same_time_though_their_plans_are() {
    let [mut a, mut b] = inputs();
    b.result.started_unix = a.result.started_unix + a.result.plan.ran_s - 0.3;
    a.result.plan.took_s = Some(a.result.plan.ran_s - 0.4);
    assert_eq!(kinds(&[a.clone(), b.clone()]), []);

    a.result.plan.took_s = Some(a.result.plan.ran_s - 0.2);
    assert_eq!(kinds(&[a, b]), [Kind::Overlap]);
}

#[test]
fn a_rate_that_rises_within_a_run_is_noticed() {
    let mut inputs = inputs();
    for record in &mut inputs[1].result.seconds[5..] {
        record.counts.scheduled *= 3;
    }

    assert_eq!(kinds(&inputs), [Kind::Unsteady]);
}

#[test]
fn single_runs_are_a_warning_and_several_are_not() {
    let [a, b] = inputs();

    assert_eq!(warnings(std::slice::from_ref(&a), std::slice::from_ref(&b))[0].kind, Kind::SingleRuns);
    assert!(warnings(&[a.clone(), b.clone()], &[b]).iter().all(|warning| warning.kind != Kind::SingleRuns));
}
