//! The latency recorder: one array of atomic cells from which both kinds of Prometheus histogram are derived.
//!
//! A cell is an interval between two neighbouring bounds, where the bounds are those of the native histogram
//! (schema 3: eight per power of two, <https://prometheus.io/docs/specs/native_histograms/>) and the configured
//! classic ones together. So one `fetch_add` counts a value for both, the classic buckets are exact (not
//! interpolated from the native ones), and count, classic and native buckets of a snapshot agree by construction:
//! they are sums over one pass through the cells. Only the sum may be ahead of or behind the count by what was
//! observed during that pass.
//!
//! There are no shards per thread: a sidecar runs on one or two cores, where a relaxed add to a shared line costs
//! less than summing shards saves.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Native histogram schema: 2^3 buckets per power of two, so a bucket is 9.05 % wide.
pub const SCHEMA: i32 = 3;
const BUCKETS_PER_OCTAVE: i32 = 1 << SCHEMA;
/// Dense range 2^-24 s (60 ns) to 2^17 s (36 hours). Below lies the zero bucket; above counts as the highest bucket.
const MIN_EXPONENT: i32 = -24;
const MAX_EXPONENT: i32 = 17;
const NATIVE_BUCKETS: usize = ((MAX_EXPONENT - MIN_EXPONENT) * BUCKETS_PER_OCTAVE) as usize;
/// Upper end of the zero bucket.
pub const ZERO_THRESHOLD: f64 = 1.0 / (1u64 << -MIN_EXPONENT) as f64;

/// Upper bounds of the eight buckets of [1, 2) as the mantissa bits of 2^(i/8), i = 0..8.
const MANTISSAS: [u64; 8] = [
    0x0_0000_0000_0000,
    0x1_72B8_3C7D_517B,
    0x3_06FE_0A31_B715,
    0x4_BFDA_D536_2A27,
    0x6_A09E_667F_3BCD,
    0x8_ACE5_422A_A0DB,
    0xA_E89F_995A_D3AD,
    0xD_5818_DCFB_A487,
];

/// The dense index of the native bucket that contains `value`: 0 is the zero bucket.
///
/// A bucket is (lower, upper], so a mantissa equal to a bound belongs to the bucket below it.
fn native_index(value: f64) -> usize {
    if value <= ZERO_THRESHOLD || value.is_nan() {
        return 0;
    }
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = bits & ((1 << 52) - 1);
    let step = MANTISSAS.iter().filter(|bound| mantissa > **bound).count() as i32;
    let dense = (exponent - MIN_EXPONENT) * BUCKETS_PER_OCTAVE + step;
    (dense as usize).clamp(1, NATIVE_BUCKETS)
}

/// The index Prometheus gives this dense index: bucket i is (2^((i-1)/8), 2^(i/8)].
fn prometheus_index(dense: usize) -> i32 {
    dense as i32 + MIN_EXPONENT * BUCKETS_PER_OCTAVE
}

/// Upper bound of a dense native bucket, in seconds.
pub(super) fn native_upper(dense: usize) -> f64 {
    if dense == 0 {
        return ZERO_THRESHOLD;
    }
    let index = prometheus_index(dense);
    let mantissa = f64::from_bits((1023 << 52) | MANTISSAS[index.rem_euclid(BUCKETS_PER_OCTAVE) as usize]);
    mantissa * 2f64.powi(index.div_euclid(BUCKETS_PER_OCTAVE))
}

/// The cells' bounds; shared by all histograms of one `Telemetry`.
#[derive(Debug)]
pub struct Layout {
    /// Classic upper bounds, ascending, without +Inf.
    bounds: Box<[f64]>,
    /// First cell of each native bucket.
    first: Box<[u16]>,
    cells: Box<[Cell]>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    upper: f64,
    native: u16,
    classic: u16,
}

impl Layout {
    /// `bounds` are sorted and cleared of what is not a finite number.
    pub fn new(bounds: &[f64]) -> Arc<Self> {
        let mut bounds: Vec<f64> = bounds.iter().copied().filter(|bound| bound.is_finite()).collect();
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();

        let mut first = Vec::with_capacity(NATIVE_BUCKETS + 1);
        let mut cells = Vec::with_capacity(NATIVE_BUCKETS + 1 + bounds.len());
        let mut classic = 0;
        for native in 0..=NATIVE_BUCKETS {
            let end = if native == NATIVE_BUCKETS { f64::INFINITY } else { native_upper(native) };
            first.push(cells.len() as u16);
            while classic < bounds.len() && bounds[classic] < end {
                cells.push(Cell { upper: bounds[classic], native: native as u16, classic: classic as u16 });
                classic += 1;
            }
            cells.push(Cell { upper: end, native: native as u16, classic: classic as u16 });
            if bounds.get(classic) == Some(&end) {
                classic += 1;
            }
        }
        Arc::new(Self { bounds: bounds.into(), first: first.into(), cells: cells.into() })
    }

    fn cell(&self, value: f64) -> usize {
        let mut cell = usize::from(self.first[native_index(value)]);
        // At most as many steps as classic bounds lie in one native bucket: none or one for any sensible list.
        while value > self.cells[cell].upper {
            cell += 1;
        }
        cell
    }
}

/// A value with the trace it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub trace_id: [u8; 32],
    pub value: f64,
    pub at: SystemTime,
}

/// One histogram series.
#[derive(Debug)]
pub struct Histogram {
    layout: Arc<Layout>,
    counts: Box<[AtomicU64]>,
    /// Nanoseconds. It wraps after 584 years of summed time, which `rate()` takes for a restart.
    sum: AtomicU64,
    /// Nanoseconds of the longest since [`Histogram::take_longest`].
    longest: AtomicU64,
    /// The latest exemplar of each classic bucket; empty for a histogram without exemplars.
    exemplars: Box<[Mutex<Option<Exemplar>>]>,
}

impl Histogram {
    pub fn new(layout: Arc<Layout>) -> Self {
        let counts = layout.cells.iter().map(|_| AtomicU64::new(0)).collect();
        Self { layout, counts, sum: AtomicU64::new(0), longest: AtomicU64::new(0), exemplars: Box::default() }
    }

    pub fn with_exemplars(layout: Arc<Layout>) -> Self {
        let exemplars = (0..=layout.bounds.len()).map(|_| Mutex::new(None)).collect();
        Self { exemplars, ..Self::new(layout) }
    }

    pub fn observe(&self, value: Duration) {
        self.record(value);
    }

    /// Observes `value` and keeps its trace as the exemplar of its classic bucket. Skipped, not waited for, when
    /// another thread holds that exemplar. A trace id that is not 32 characters long is not kept.
    pub fn observe_with_trace(&self, value: Duration, trace_id: &str, at: SystemTime) {
        let cell = self.record(value);
        let Some(slot) = self.exemplars.get(usize::from(self.layout.cells[cell].classic)) else { return };
        let Ok(trace_id) = <[u8; 32]>::try_from(trace_id.as_bytes()) else { return };
        if let Ok(mut slot) = slot.try_lock() {
            *slot = Some(Exemplar { trace_id, value: value.as_secs_f64(), at });
        }
    }

    fn record(&self, value: Duration) -> usize {
        let (cell, value) = (self.layout.cell(value.as_secs_f64()), nanos(value));
        // Before it is counted: who reads the counts first finds no count without it. It is rarely longer, so rarely written.
        if value > self.longest.load(Ordering::Relaxed) {
            self.longest.fetch_max(value, Ordering::Relaxed);
        }
        self.counts[cell].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        cell
    }

    /// The longest that was observed since the last call; for one reader.
    pub(super) fn take_longest(&self) -> Duration {
        Duration::from_nanos(self.longest.swap(0, Ordering::Relaxed))
    }

    /// What was observed so far, by dense native bucket; for [`Latencies`](super::Latencies).
    pub(super) fn native_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; NATIVE_BUCKETS + 1];
        for (cell, count) in self.layout.cells.iter().zip(&self.counts) {
            counts[usize::from(cell.native)] += count.load(Ordering::Relaxed);
        }
        counts
    }

    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut classic = vec![0; self.layout.bounds.len() + 1];
        let mut native = vec![0; NATIVE_BUCKETS + 1];
        for (cell, count) in self.layout.cells.iter().zip(&self.counts) {
            let count = count.load(Ordering::Relaxed);
            classic[usize::from(cell.classic)] += count;
            native[usize::from(cell.native)] += count;
        }
        HistogramSnapshot {
            layout: self.layout.clone(),
            count: native.iter().sum(),
            sum: Duration::from_nanos(self.sum.load(Ordering::Relaxed)),
            classic,
            native,
            exemplars: self.exemplars.iter().map(|slot| lock(slot).clone()).collect(),
        }
    }
}

fn nanos(value: Duration) -> u64 {
    u64::try_from(value.as_nanos()).unwrap_or(u64::MAX)
}

/// A poisoned lock only says that some other holder panicked; every value here is valid after each statement.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A histogram at one moment. `count` is the sum of the buckets of either kind.
#[derive(Debug, Clone)]
pub struct HistogramSnapshot {
    layout: Arc<Layout>,
    pub count: u64,
    pub sum: Duration,
    classic: Vec<u64>,
    native: Vec<u64>,
    exemplars: Vec<Option<Exemplar>>,
}

/// One classic bucket, cumulative as Prometheus wants it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassicBucket<'a> {
    pub upper: f64,
    pub cumulative: u64,
    pub exemplar: Option<&'a Exemplar>,
}

impl HistogramSnapshot {
    /// Ascending, +Inf last.
    pub fn classic_buckets(&self) -> impl Iterator<Item = ClassicBucket<'_>> {
        let uppers = self.layout.bounds.iter().copied().chain([f64::INFINITY]);
        let mut cumulative = 0;
        uppers.zip(&self.classic).enumerate().map(move |(index, (upper, count))| {
            cumulative += count;
            ClassicBucket { upper, cumulative, exemplar: self.exemplars.get(index).and_then(Option::as_ref) }
        })
    }

    pub fn zero_count(&self) -> u64 {
        self.native[0]
    }

    /// The native buckets that hold something: (index as Prometheus counts them, count), ascending.
    pub fn native_buckets(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        let buckets = self.native.iter().enumerate().skip(1);
        buckets.filter(|(_, count)| **count > 0).map(|(dense, count)| (prometheus_index(dense), *count))
    }

    /// Of all buckets, the oldest first: Prometheus drops an exemplar that is older than the one before it.
    pub fn exemplars(&self) -> Vec<&Exemplar> {
        let mut exemplars: Vec<&Exemplar> = self.exemplars.iter().flatten().collect();
        exemplars.sort_by_key(|exemplar| exemplar.at);
        exemplars
    }

    /// The value below which the part `q` of the observations lies, from the native buckets: the upper bound of the
    /// bucket that holds it, so at most 9.05 % above the true one. `None` when nothing was observed.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let dense = self.native.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(native_upper(dense))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 60.0];

    fn histogram() -> Histogram {
        Histogram::with_exemplars(Layout::new(BOUNDS))
    }

    fn classic(snapshot: &HistogramSnapshot) -> Vec<u64> {
        snapshot.classic_buckets().map(|bucket| bucket.cumulative).collect()
    }

    #[test]
    fn mantissa_table_is_the_powers_of_the_eighth_root_of_two() {
        for (step, mantissa) in MANTISSAS.iter().enumerate() {
            let exact = 2f64.powf(step as f64 / 8.0);
            let table = f64::from_bits((1023 << 52) | mantissa);
            assert!((exact - table).abs() <= f64::EPSILON, "{step}: {exact} {table}");
        }
    }

    #[test]
    fn a_value_equal_to_a_bound_belongs_to_the_bucket_below_it() {
        let histogram = histogram();
        histogram.observe(Duration::from_secs(1));
        histogram.observe(Duration::from_millis(1500));

        let snapshot = histogram.snapshot();

        assert_eq!(classic(&snapshot), [0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2]);
        assert_eq!(snapshot.native_buckets().collect::<Vec<_>>(), [(0, 1), (5, 1)]);
    }

    #[test]
    fn extremes_are_counted_not_lost() {
        let histogram = histogram();
        for value in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1 << 20), Duration::MAX] {
            histogram.observe(value);
        }

        let snapshot = histogram.snapshot();

        assert_eq!((snapshot.count, snapshot.zero_count()), (4, 2));
        assert_eq!(snapshot.native_buckets().collect::<Vec<_>>(), [(17 * 8, 2)]);
        assert_eq!(classic(&snapshot).last(), Some(&4));
    }

    #[test]
    fn bounds_outside_the_dense_range_work() {
        let layout = Layout::new(&[f64::NAN, 1e-9, 2e-9, 1.0, 1e6, f64::INFINITY]);
        let histogram = Histogram::new(layout);
        histogram.observe(Duration::from_nanos(2));
        histogram.observe(Duration::from_secs(500_000));
        histogram.observe(Duration::from_secs(2_000_000));

        assert_eq!(classic(&histogram.snapshot()), [0, 1, 1, 2, 3]);
    }

    #[test]
    fn the_latest_trace_is_the_exemplar_of_its_bucket() {
        let histogram = histogram();
        let at = SystemTime::UNIX_EPOCH;
        histogram.observe_with_trace(Duration::from_millis(1200), &"a".repeat(32), at);
        histogram.observe_with_trace(Duration::from_millis(1300), &"b".repeat(32), at);
        histogram.observe_with_trace(Duration::from_millis(1300), "too short", at);

        let snapshot = histogram.snapshot();

        let bucket = snapshot.classic_buckets().find(|bucket| bucket.upper == 1.5).unwrap();
        let exemplar = bucket.exemplar.unwrap();
        assert_eq!((&exemplar.trace_id, exemplar.value), (&[b'b'; 32], 1.3));
        assert_eq!((snapshot.count, snapshot.exemplars().len()), (3, 1));
    }

    proptest! {
        #[test]
        fn native_bucket_bounds_contain_the_value(nanos in 61u64..4_000_000_000_000) {
            let value = Duration::from_nanos(nanos).as_secs_f64();
            let dense = native_index(value);
            prop_assert!(value <= native_upper(dense), "{value} above its bucket");
            prop_assert!(value > native_upper(dense - 1), "{value} below its bucket");
        }

        #[test]
        fn classic_buckets_equal_a_naive_count(nanos in prop::collection::vec(0u64..100_000_000_000, 0..200)) {
            let histogram = histogram();
            nanos.iter().for_each(|n| histogram.observe(Duration::from_nanos(*n)));

            let snapshot = histogram.snapshot();

            for bucket in snapshot.classic_buckets() {
                let naive = nanos.iter().filter(|n| Duration::from_nanos(**n).as_secs_f64() <= bucket.upper).count();
                prop_assert_eq!(bucket.cumulative, naive as u64);
            }
            let native = snapshot.native_buckets().map(|(_, count)| count).sum::<u64>() + snapshot.zero_count();
            prop_assert_eq!(snapshot.count, native);
            prop_assert_eq!(snapshot.sum, Duration::from_nanos(nanos.iter().sum()));
        }

        #[test]
        fn quantile_is_off_by_at_most_one_bucket(
            mut nanos in prop::collection::vec(100u64..60_000_000_000, 1..200),
            q in 0.01f64..1.0,
        ) {
            let histogram = histogram();
            nanos.iter().for_each(|n| histogram.observe(Duration::from_nanos(*n)));
            nanos.sort_unstable();
            let rank = ((q * nanos.len() as f64).ceil() as usize).max(1);
            let exact = Duration::from_nanos(nanos[rank - 1]).as_secs_f64();

            let estimate = histogram.snapshot().quantile(q).unwrap();

            prop_assert!(estimate >= exact && estimate <= exact * 1.0906, "{estimate} for {exact}");
        }
    }
}
