//! The text report of a comparison.

use super::super::comparable::{Kind, Warning};
use super::super::model::{Method, SCHEMA};
use super::*;

fn row(metric: &str, unit: Unit, values: (f64, f64), interval: Option<(f64, f64, f64)>, verdict: Verdict) -> Row {
    let mut row = Row::new(metric.into(), unit, Some(values.0), Some(values.1));
    if let Some((low, difference, high)) = interval {
        row.set_interval(Interval { difference, low, high });
    }
    row.verdict = verdict;
    row
}

/// Of everything that there is one row.
pub fn comparison() -> Comparison {
    let side = |name: &str, requests| SideSummary {
        runs: vec![name.into()],
        commands: vec!["forebay load http://127.0.0.1/?a=1&b=<2>".into()],
        seconds: 60.0,
        requests,
        spectrum: vec![],
    };
    let mut wide = row("p99", Unit::Nanoseconds, (42e6, 45e6), Some((-0.021, 0.07, 0.17)), Verdict::Undecided);
    wide.longer_s = Some(290.0);
    let mut few = row("p99.9", Unit::Nanoseconds, (1.2e9, 30e9), None, Verdict::Undecided);
    (few.why, few.after_at_least) = (Some("needs 10000 requests on each side, there are 6012".into()), true);
    Comparison {
        schema: SCHEMA.into(),
        version: "0.1.0".into(),
        before: side("before.json", 6_012),
        after: side("after.json", 1_234_567),
        method: Method {
            seed: 7,
            resamples: 1000,
            block_s: 5,
            confidence: 0.95,
            threshold: 0.02,
            share_threshold: 0.001,
        },
        warnings: vec![Warning { kind: Kind::Version, text: "other version".into() }],
        verdict: Verdict::Worse,
        metrics: vec![
            row("p50", Unit::Nanoseconds, (20e6, 21e6), Some((0.0312, 0.05, 0.07)), Verdict::Worse),
            wide,
            few,
            row("rate", Unit::PerSecond, (100.0, 100.2), Some((0.0, 0.002, 0.004)), Verdict::Same),
            row("errors", Unit::Share, (0.0131, 0.0), Some((-0.016, -0.0131, -0.01)), Verdict::Better),
        ],
    }
}

const EXPECTED: &str = "\
before  before.json: 6 012 requests in 1 min
after   after.json: 1 234 567 requests in 1 min
warning: other version

         before     after  difference         interval  verdict
p50     20.0 ms   21.0 ms      +5.0 %   +3.1 .. +7.0 %  worse
p99     42.0 ms   45.0 ms      +7.0 %  -2.1 .. +17.0 %  undecided, run ~ 5 min
p99.9    1.20 s  >=30.0 s           -                -  undecided
rate      100/s     100/s     +0.20 %     0 .. +0.40 %  same
errors   1.31 %       0 %     -1.3 pp  -1.6 .. -1.0 pp  better

p99.9: needs 10000 requests on each side, there are 6012.
Undecided: the interval allows more than one verdict. About so much time on each side, in one run or, better, in \
several, should decide it if the difference is what was seen.
The intervals hold all together with 95 % confidence, so two equal sides differ in any of the 5 metrics in about 1 of 20 comparisons.
Better or worse: certainly different, by 2 % or more (shares: 0.1 percentage points); same: certainly within that.
Moving-block bootstrap over the seconds: 1000 resamples, blocks of 5 s, --seed 7.

overall: worse
";

#[test]
fn the_report_reads_like_this() {
    assert_eq!(render(&comparison(), false), EXPECTED);
}

#[test]
fn colours_change_nothing_but_colours() {
    let coloured = render(&comparison(), true);

    let mut plain = coloured.clone();
    for code in ["0", "32", "33", "1;31"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    assert_ne!(coloured, plain);
    assert_eq!(plain, EXPECTED);
}

#[test]
fn small_numbers_are_not_rounded_to_nothing() {
    assert_eq!([0.0, 1e-9, 0.0002, 0.5].map(share), ["0 %", "<0.001 %", "0.020 %", "50.00 %"]);
    assert_eq!([0.0, -1e-7, 0.0005, -0.05, 2.0].map(signed), ["0", "0", "+0.050", "-5.0", "+200"]);
    assert_eq!([41.0, 290.0, 7100.0].map(about), ["50 s", "5 min", "2 h"]);
}
