//! Tests of `runs`.

use super::super::bootstrap::Random;
use super::super::testing::{SERVER, Server};
use super::*;

fn result(seconds: usize) -> RunResult {
    Server { seconds, ..SERVER }.result(&mut Random::new(1))
}

#[test]
fn warm_up_and_drain_are_left_out() {
    let mut result = result(10);
    result.plan.warm_up_s = 3;
    result.plan.ran_s = 8.0;
    for record in &mut result.seconds[8..] {
        record.counts = Counts::default();
    }

    let run = Run::new(&result).expect("reads");

    let expected: u64 = result.seconds[3..8].iter().map(|record| record.counts.sent).sum();
    assert_eq!((run.slices.len(), run.counts().sent, run.length_s()), (5, expected, 5.0));
}

#[test]
fn a_second_in_which_nothing_was_due_counts() {
    let mut result = result(6);
    result.seconds.remove(2);

    let run = Run::new(&result).expect("reads");

    assert_eq!((run.slices.len(), run.slices[2].counts.sent, run.length_s()), (6, 0, 6.0));
}

#[test]
fn the_last_second_is_as_long_as_the_run_was_in_it() {
    for (ran_s, slices) in [(5.75, 6), (5.25, 5)] {
        let mut result = result(6);
        result.plan.ran_s = ran_s;

        let run = Run::new(&result).expect("reads");

        assert_eq!((run.slices.len(), run.length_s()), (slices, ran_s));
        assert_eq!(run.counts().sent, result.totals.counts.sent);
    }
}

#[test]
fn putting_seconds_together_loses_nothing() {
    let mut run = Run::new(&result(7)).expect("reads");
    let (counts, length) = (run.counts(), run.length_s());
    let requests: u64 = run.slices.iter().map(|slice| slice.response.count).sum();

    run.coarsen(3);

    let cells = run.slices.iter().flat_map(|slice| slice.response.times.cells());
    assert_eq!((run.slices.len(), run.counts(), run.length_s()), (3, counts, length));
    assert_eq!(cells.map(|(_, count)| count).sum::<u64>(), requests);
}

#[test]
fn a_file_that_claims_to_have_run_for_ever_needs_no_memory_for_it() {
    let mut result = result(6);
    result.plan.ran_s = 1e18;

    assert_eq!(Run::new(&result).expect("reads").slices.len(), 6);
}

#[test]
fn only_long_runs_are_cut_into_longer_pieces() {
    let run = |seconds| Run {
        slices: vec![Slice::default(); seconds],
        censored_from_ns: None,
        service_censored_from_ns: None,
    };

    assert_eq!([1, 600, 601, 3600].map(|seconds| run(seconds).step()), [1, 1, 2, 6]);
}
