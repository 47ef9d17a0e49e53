//! From an interval to a verdict, and how much longer to run for one.

use serde::{Deserialize, Serialize};

use super::interval::Interval;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// The whole interval is within the threshold: shown to be alike, which is more than no difference found.
    Same,
    /// The interval allows more than one of the others.
    Undecided,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Same => "same",
            Verdict::Undecided => "undecided",
        }
    }
}

/// A side whose value is only a lower bound: some of its requests were given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AtLeast {
    pub before: bool,
    pub after: bool,
}

/// Judges by an interval. A difference counts if it cannot be nothing (the interval leaves zero out) and if it is
/// worth something (it reaches the threshold).
pub fn judge(interval: Interval, threshold: f64, more_is_better: bool, at_least: AtLeast) -> Verdict {
    let Interval { difference, low, high } = interval;
    let better_or_worse = |better| if better { Verdict::Better } else { Verdict::Worse };
    let within = low >= -threshold && high <= threshold && threshold > 0.0;
    if within {
        // What is only known from below may be any amount larger.
        return if at_least == AtLeast::default() { Verdict::Same } else { Verdict::Undecided };
    }
    if low > 0.0 && difference >= threshold && !at_least.before {
        return better_or_worse(more_is_better);
    }
    if high < 0.0 && difference <= -threshold && !at_least.after {
        return better_or_worse(!more_is_better);
    }
    Verdict::Undecided
}

/// By which factor a run must become longer so that an undecided metric has a good chance (about 80 %) to be decided,
/// if what was seen is the truth. `None`: far too long, or no length would do.
///
/// Intervals shrink with the square root of the length. To show a difference, half of the interval must become clearly
/// smaller than it; to show that there is none, than what is left to the threshold.
pub fn longer(interval: Interval, threshold: f64) -> Option<f64> {
    const CLEARLY: f64 = 0.75;
    const FAR_TOO_LONG: f64 = 1000.0;
    let size = interval.difference.abs();
    // Close below the threshold no length would do; but the difference that was seen is not the truth to that digit.
    let target = if size >= threshold { size } else { (threshold - size).max(threshold / 2.0) };
    let half = (interval.high - interval.low) / 2.0;
    let factor = (half / (CLEARLY * target)).powi(2);
    (factor <= FAR_TOO_LONG).then(|| factor.max(1.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(low: f64, difference: f64, high: f64) -> Interval {
        Interval { difference, low, high }
    }

    #[test]
    fn a_difference_must_be_certain_and_large_enough() {
        let table = [
            ((0.01, 0.05, 0.09), Verdict::Worse),
            ((-0.09, -0.05, -0.01), Verdict::Better),
            ((-0.01, 0.0, 0.01), Verdict::Same),
            ((0.005, 0.01, 0.015), Verdict::Same),
            ((0.005, 0.015, 0.025), Verdict::Undecided),
            ((-0.03, 0.01, 0.05), Verdict::Undecided),
            ((0.0, 0.04, 0.08), Verdict::Undecided),
        ];
        for ((low, difference, high), expected) in table {
            let verdict = judge(interval(low, difference, high), 0.02, false, AtLeast::default());

            assert_eq!(verdict, expected, "{low} {difference} {high}");
        }
    }

    #[test]
    fn more_is_better_for_a_rate() {
        let more = interval(0.03, 0.05, 0.07);

        assert_eq!(judge(more, 0.02, true, AtLeast::default()), Verdict::Better);
    }

    #[test]
    fn without_a_threshold_nothing_is_the_same() {
        let none = interval(0.0, 0.0, 0.0);

        assert_eq!(judge(none, 0.0, false, AtLeast::default()), Verdict::Undecided);
    }

    #[test]
    fn a_lower_bound_decides_only_what_it_can() {
        let (before, after) = (AtLeast { before: true, after: false }, AtLeast { before: false, after: true });
        let (more, less, same) = (interval(0.1, 0.2, 0.3), interval(-0.3, -0.2, -0.1), interval(-0.01, 0.0, 0.01));

        assert_eq!(judge(more, 0.02, false, after), Verdict::Worse);
        assert_eq!(judge(more, 0.02, false, before), Verdict::Undecided);
        assert_eq!(judge(less, 0.02, false, before), Verdict::Better);
        assert_eq!(judge(less, 0.02, false, after), Verdict::Undecided);
        assert_eq!(judge(same, 0.02, false, before), Verdict::Undecided);
    }

    #[test]
    fn twice_as_wide_takes_four_times_as_long() {
        let (narrow, wide) = (interval(-0.03, 0.0, 0.03), interval(-0.06, 0.0, 0.06));

        let (narrow, wide) = (longer(narrow, 0.02).expect("feasible"), longer(wide, 0.02).expect("feasible"));

        assert!((wide / narrow - 4.0).abs() < 1e-9, "{narrow} {wide}");
        assert_eq!(longer(interval(-1.0, 0.0, 1.0), 0.001), None);
        assert_eq!(longer(interval(-1.0, 0.0, 1.0), 0.0), None);
    }
}
