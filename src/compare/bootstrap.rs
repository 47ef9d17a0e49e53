//! How far a statistic of a run would move if the run were repeated: the moving-block bootstrap over its seconds.
//!
//! Latencies of neighbouring seconds resemble each other (a garbage collection, a full queue, a noisy neighbour), so
//! requests must not be resampled one by one: intervals would come out far too narrow. Whole blocks of consecutive
//! seconds are drawn instead, which keeps what lies within a block together:
//!
//! * H. R. Künsch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 17
//!   (1989): the method, and a length of blocks that grows with the cube root of the length of the series.
//! * D. N. Politis and J. P. Romano, A circular block-resampling procedure for stationary data (1992): the last second
//!   is followed by the first, so that those at the ends are drawn as often as all others.
//! * D. N. Politis and H. White, Automatic block-length selection for the dependent bootstrap, Econometric Reviews 23
//!   (2004): the order n^(1/3) is right for the variance of a mean, and how its factor depends on the correlation.
//!
//! Merging a thousand times sixty histograms is never done. The counts up to each latency are added up over every
//! block once; a quantile of a resample is then a search in which each step adds one number per block. A search begins
//! where the one before ended, a few buckets away.
//!
//! Knows nothing of load tests: numbers per second in, numbers per resample out.

/// How many of the times fell on which value; sorted by value, which occurs once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sparse(Vec<(u64, u64)>);

impl Sparse {
    pub fn new(mut cells: Vec<(u64, u64)>) -> Self {
        cells.sort_unstable_by_key(|(value, _)| *value);
        cells.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        Self(cells)
    }

    pub fn cells(&self) -> &[(u64, u64)] {
        &self.0
    }

    pub fn add(&mut self, other: &Sparse) {
        let cells = std::mem::take(&mut self.0).into_iter().chain(other.0.iter().copied()).collect();
        *self = Self::new(cells);
    }
}

/// A ratio of two sums over the seconds: mean = time / requests, rate = requests / time, share = failed / all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Part {
    pub numerator: f64,
    pub denominator: f64,
}

/// Random numbers that stay the same in every version of this program and of its dependencies, so that a seed in a
/// report means something for ever: `SplitMix64` (G. Steele, D. Lea, C. Flood, OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..bound`. The bias of the multiplication is below bound / 2^64.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }
}

/// A statistic of the runs of one side, and of their resamples.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub resamples: Vec<f64>,
}

/// Which blocks make up each resample of the runs of one side. Drawn once and used for every statistic, so that the
/// resamples of different statistics belong together: that is what makes joint intervals possible.
#[derive(Debug, Clone)]
pub struct Blocks {
    count: usize,
    block: usize,
    runs: Vec<Drawn>,
}

/// The blocks of one run: `per_resample` starts for each resample.
#[derive(Debug, Clone)]
struct Drawn {
    seconds: usize,
    per_resample: usize,
    starts: Vec<usize>,
}

impl Blocks {
    /// Of runs that are so many seconds long. Each run keeps its weight: its blocks are drawn within it.
    pub fn draw(lengths: &[usize], block: usize, count: usize, random: &mut Random) -> Self {
        let runs = lengths
            .iter()
            .map(|&seconds| {
                let per_resample = seconds.div_ceil(block);
                let starts = (0..count * per_resample).map(|_| random.below(seconds)).collect();
                Drawn { seconds, per_resample, starts }
            })
            .collect();
        Self { count, block, runs }
    }

    /// How many independent pieces of evidence there are beyond those that the means of the runs use up.
    pub fn degrees_of_freedom(&self) -> f64 {
        self.blocks() - self.runs.len() as f64
    }

    /// What the variance of the resamples must be multiplied by. Blocks vary around the mean of the very run that they
    /// are from, which hides one degree of freedom for each run (as n - 1 in the variance of a sample), and a run
    /// whose length is no multiple of the block is resampled a little longer than it was.
    pub fn variance_factor(&self) -> f64 {
        let drawn: usize = self.runs.iter().map(|run| run.per_resample).sum();
        drawn as f64 / self.degrees_of_freedom()
    }

    /// The same resamples of a single run.
    pub fn only(&self, run: usize) -> Blocks {
        Blocks { count: self.count, block: self.block, runs: vec![self.runs[run].clone()] }
    }

    fn blocks(&self) -> f64 {
        let seconds: usize = self.runs.iter().map(|run| run.seconds).sum();
        seconds as f64 / self.block as f64
    }

    /// The ratio over all runs, which are given as their seconds.
    pub fn ratio(&self, runs: &[Vec<Part>]) -> Estimate {
        let value = ratio(runs.iter().flatten().copied()).unwrap_or(f64::NAN);
        let sums: Vec<Vec<Part>> = runs.iter().map(|seconds| circular_sums(seconds, self.block)).collect();
        let resample = |index| {
            let parts = self.runs.iter().zip(&sums).flat_map(|(run, sums)| run.of(index).iter().map(|at| sums[*at]));
            // A resample without any request says nothing, as if nothing had moved.
            ratio(parts).unwrap_or(value)
        };
        Estimate { value, resamples: (0..self.count).map(resample).collect() }
    }

    /// Quantiles of all times of all runs, which are given as their seconds. In the order of `quantiles`; `None` if
    /// there are no times.
    pub fn quantiles(&self, runs: &[Vec<Sparse>], quantiles: &[f64]) -> Option<Vec<Estimate>> {
        let values = distinct_values(runs);
        let last = values.len().checked_sub(1)?;
        let tables: Vec<Table> = runs.iter().map(|seconds| Table::new(seconds, &values, self.block)).collect();
        let mut found = point_quantiles(runs, &values, quantiles);
        let mut estimates: Vec<Estimate> = found
            .iter()
            .map(|&at| Estimate { value: values[at] as f64, resamples: Vec::with_capacity(self.count) })
            .collect();
        for index in 0..self.count {
            let count_to =
                |at| self.runs.iter().zip(&tables).map(|(run, table)| table.count_to(at, run.of(index))).sum();
            let total: u64 = count_to(last);
            for ((&quantile, at), estimate) in quantiles.iter().zip(&mut found).zip(&mut estimates) {
                *at = first_reaching(rank(quantile, total), *at, last, count_to);
                estimate.resamples.push(values[*at] as f64);
            }
        }
        Some(estimates)
    }
}

impl Drawn {
    fn of(&self, resample: usize) -> &[usize] {
        &self.starts[resample * self.per_resample..][..self.per_resample]
    }
}

fn ratio(parts: impl Iterator<Item = Part>) -> Option<f64> {
    let (mut numerator, mut denominator) = (0.0, 0.0);
    for part in parts {
        numerator += part.numerator;
        denominator += part.denominator;
    }
    (denominator > 0.0).then(|| numerator / denominator)
}

/// For each second the sum of the block that begins there.
fn circular_sums(seconds: &[Part], block: usize) -> Vec<Part> {
    let of = |start: usize| {
        (start..start + block).map(|at| seconds[at % seconds.len()]).fold(Part::default(), |sum, part| Part {
            numerator: sum.numerator + part.numerator,
            denominator: sum.denominator + part.denominator,
        })
    };
    (0..seconds.len()).map(of).collect()
}

/// How many values make up the share `quantile`; at least one, so that resamples without any find the lowest.
fn rank(quantile: f64, total: u64) -> u64 {
    ((quantile * total as f64).ceil() as u64).clamp(1, total.max(1))
}

fn distinct_values(runs: &[Vec<Sparse>]) -> Vec<u64> {
    let mut values: Vec<u64> =
        runs.iter().flatten().flat_map(|second| second.cells().iter().map(|(value, _)| *value)).collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn point_quantiles(runs: &[Vec<Sparse>], values: &[u64], quantiles: &[f64]) -> Vec<usize> {
    let mut counts = vec![0; values.len()];
    for (at, count) in runs.iter().flatten().flat_map(|second| indexed(second, values)) {
        counts[at] += count;
    }
    for at in 1..counts.len() {
        counts[at] += counts[at - 1];
    }
    let total = counts.last().copied().unwrap_or(0);
    quantiles.iter().map(|&quantile| counts.partition_point(|&count| count < rank(quantile, total))).collect()
}

fn indexed(second: &Sparse, values: &[u64]) -> impl Iterator<Item = (usize, u64)> {
    let at = |value| values.binary_search(value).expect("`values` are those of all seconds");
    second.cells().iter().map(move |(value, count)| (at(value), *count))
}

/// How many times up to each value each block has. A row for each value, a column for each second that a block may
/// begin with.
struct Table {
    columns: usize,
    cells: Vec<u64>,
}

impl Table {
    fn new(seconds: &[Sparse], values: &[u64], block: usize) -> Self {
        let columns = seconds.len();
        let mut cells = vec![0; columns * values.len()];
        for (column, second) in seconds.iter().enumerate() {
            for (at, count) in indexed(second, values) {
                cells[at * columns + column] = count;
            }
        }
        let mut above = vec![0; columns];
        for row in cells.chunks_exact_mut(columns) {
            add_blocks(row, block, &mut above);
        }
        Self { columns, cells }
    }

    fn count_to(&self, at: usize, starts: &[usize]) -> u64 {
        let row = &self.cells[at * self.columns..][..self.columns];
        starts.iter().map(|start| row[*start]).sum()
    }
}

/// Turns the counts of seconds into those of blocks, added to the row above, which becomes this one.
fn add_blocks(row: &mut [u64], block: usize, above: &mut [u64]) {
    let columns = row.len();
    let mut sum: u64 = (0..block).map(|at| row[at % columns]).sum();
    for start in 0..columns {
        above[start] += sum;
        sum = sum + row[(start + block) % columns] - row[start];
    }
    row.copy_from_slice(above);
}

/// The first place at which `count_to`, which never falls, reaches the rank: looked for around `guess`, in steps that
/// double until it is between two of them.
fn first_reaching(rank: u64, guess: usize, last: usize, count_to: impl Fn(usize) -> u64) -> usize {
    let (mut low, mut high) = (0, last);
    let mut step = 1;
    if count_to(guess) >= rank {
        high = guess;
        while high > 0 {
            let probe = guess.saturating_sub(step);
            if count_to(probe) < rank {
                low = probe + 1;
                break;
            }
            high = probe;
            step *= 2;
        }
    } else {
        low = (guess + 1).min(last);
        while low < last {
            let probe = (guess + step).min(last);
            if count_to(probe) >= rank {
                high = probe;
                break;
            }
            low = (probe + 1).min(last);
            step *= 2;
        }
    }
    while low < high {
        let middle = low.midpoint(high);
        if count_to(middle) >= rank {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
