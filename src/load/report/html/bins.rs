//! The seconds of a run, added up until there are few enough to be drawn.

use super::super::super::censored::Censored;
use super::super::super::ledger::{Counts, During};
use super::super::super::result::{Distribution, HistogramError, RunResult, SecondRecord};

/// As many as keep the page small: each has at most some 700 bytes in the map, 200 in its table and 100 in a tip.
const MOST: usize = 200;
/// Lengths that people think in.
const LENGTHS: [u32; 10] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];

/// Some seconds in a row, all of the same number but the last.
pub struct Bin {
    /// Its first second, since the start of the run.
    pub from: u32,
    pub seconds: u32,
    /// Whether it begins in the warm-up.
    pub warm_up: bool,
    pub counts: Counts,
    pub during: During,
    pub response: Censored<'static>,
    pub lateness: Censored<'static>,
    pub censored_from: Option<u64>,
}

impl Bin {
    /// Its middle, in seconds.
    pub fn at(&self) -> f64 {
        f64::from(self.from) + f64::from(self.seconds) / 2.0
    }

    pub fn rate(&self, count: u64) -> f64 {
        count as f64 / f64::from(self.seconds)
    }

    /// Their mean number.
    pub fn in_flight(&self) -> f64 {
        self.during.in_flight_ns as f64 / 1e9 / f64::from(self.seconds)
    }
}

pub fn of(result: &RunResult) -> Result<Vec<Bin>, HistogramError> {
    let (Some(first), Some(last)) = (result.seconds.first(), result.seconds.last()) else { return Ok(Vec::new()) };
    let whole = last.second - first.second + 1;
    let fits = |length: &u32| whole.div_ceil(*length) as usize <= MOST;
    let length = LENGTHS.into_iter().find(fits).unwrap_or_else(|| whole.div_ceil(MOST as u32));
    // By the number of the second: a row may be missing in a file that someone else wrote.
    let same = |a: &SecondRecord, b: &SecondRecord| a.second / length == b.second / length;
    result.seconds.chunk_by(same).map(|rows| bin(rows, length)).collect()
}

/// `rows` is not empty.
fn bin(rows: &[SecondRecord], length: u32) -> Result<Bin, HistogramError> {
    let from = rows[0].second / length * length;
    let last = rows[rows.len() - 1].second;
    let mut counts = Counts::default();
    let mut during = During::default();
    for row in rows {
        counts.add(&row.counts);
        during.sent += row.during.sent;
        during.ended += row.during.ended;
        during.in_flight_ns = during.in_flight_ns.saturating_add(row.during.in_flight_ns);
    }
    let censored_from = rows.iter().filter_map(|row| row.censored_from_ns).min();
    Ok(Bin {
        from,
        // The last may end early.
        seconds: last - from + 1,
        warm_up: rows[0].warm_up,
        counts,
        during,
        response: merged(rows, |row| &row.response, counts.censored(), censored_from)?,
        lateness: merged(rows, |row| &row.lateness, 0, None)?,
        censored_from,
    })
}

fn merged(
    rows: &[SecondRecord],
    of: impl Fn(&SecondRecord) -> &Distribution,
    censored: u64,
    from: Option<u64>,
) -> Result<Censored<'static>, HistogramError> {
    let mut all = super::super::super::ledger::empty_histogram();
    for row in rows {
        all.add(of(row).histogram()?).expect("histograms of one kind, which grow, can be added");
    }
    Ok(Censored::of_histogram(all, censored, from))
}
