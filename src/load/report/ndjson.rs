//! The seconds of a run, one JSON object per line, with their histograms: for tools that follow a run or cut it up.
//!
//! A line is complete when its second is settled, that is, when every request due in it has ended; lines can therefore
//! be written while the run goes on. `$defs/second` of the published schema describes them.

use super::super::result::{RunResult, SecondRecord};

/// One line, with its newline.
pub fn line(second: &SecondRecord) -> String {
    let mut line = serde_json::to_string(second).expect("a second has only text for keys");
    line.push('\n');
    line
}

/// All lines of a run.
pub fn render(result: &RunResult) -> String {
    result.seconds.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::load::ledger::{Counts, empty_histogram};

    #[test]
    fn the_lines_add_up_to_the_run() {
        let result = fixture::result();

        let text = render(&result);

        let mut counts = Counts::default();
        let mut response = empty_histogram();
        for line in text.lines() {
            let second: SecondRecord = serde_json::from_str(line).expect("one object per line");
            if !second.warm_up {
                counts.add(&second.counts);
                response.add(second.response.histogram().expect("whole")).expect("of one kind");
            }
        }
        assert_eq!(counts, result.totals.counts);
        assert_eq!(response, result.totals.response.histogram().expect("whole"));
    }
}
