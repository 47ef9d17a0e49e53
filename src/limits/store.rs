//! Where governor keeps its buckets: one atomic, or a bounded table of keys.
//!
//! governor's own keyed stores are maps that grow with the traffic, so the bound is ours. governor decides (its GCRA is
//! the closure that `measure_and_replace` is given), this module says on which number and whether the answer is kept:
//!
//! * `Op::Take` keeps it; `Op::Peek` only asks. With several limits, all are asked before one is taken from.
//! * `Op::Ahead(wait)` takes the token that comes free in `wait`: GCRA knows time only as differences, so a bucket moved
//!   back by `wait` and decided now is the bucket as it is, decided in `wait`.
//!
//! The one number of a bucket is its theoretical arrival time (TAT) in nanoseconds since the limiter began. A bucket whose
//! TAT is not in the future is full, and a full bucket is the same as no bucket: that alone makes a key forgettable.
//!
//! # The table
//!
//! Open addressing with linear probing over one array that is allocated once (zeroed: pages that no key has touched cost
//! no memory), 16 bytes for each slot and at most 3/4 full. Deletion shifts back (Knuth, TAOCP 6.4, algorithm R), so there
//! are neither tombstones nor rehashing, and no operation has to stop the world.
//!
//! Each new key first sweeps the next `SWEEP` slots and forgets the keys whose bucket is full again. When the table is full
//! after that, the key shares one overflow bucket with all others that found no place: a flood of keys is limited as if it
//! were one client. *Claim (from 12 keys on): a new key finds a place as long
//! as at most two thirds of `max_keys` are live (not full).*
//! One turn of the sweep takes capacity/16 ≤ max_keys/6 insertions (capacity ≤ 8/3 max_keys). If it begins with at least
//! max_keys/6 free places it cannot run out; it forgets every key that was not live at its beginning, so that the next
//! turn begins with at least max_keys - live - max_keys/6 ≥ max_keys/6 free places. The first begins with all of them.
//!
//! One mutex and not shards: the lock is held for one probe sequence (about 50 ns), so at 100,000 requests per second it
//! is held 0.5 % of the time; shards would make the bound inexact (one shard overflows while another is empty).

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;

use crate::telemetry::metrics::LimiterMetrics;

/// How many slots one new key looks at to make room.
const SWEEP: usize = 16;

/// What one decision is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// Say what would be decided; change nothing.
    Peek,
    /// Take a token now.
    Take,
    /// Take the token that is free in this many nanoseconds.
    Ahead(u64),
}

impl Op {
    fn shift(self) -> u64 {
        match self {
            Op::Peek | Op::Take => 0,
            Op::Ahead(nanos) => nanos,
        }
    }
}

/// Which bucket a decision was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bucket {
    Own,
    Overflow,
}

/// What a decision saw: the TAT before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub before: u64,
    pub after: u64,
    pub bucket: Bucket,
}

/// governor's key: what is asked, and room for what was seen, since governor itself hands out no TAT.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Access {
    pub key: u64,
    pub op: Op,
    /// The caller's reading of the limiter's clock, nanoseconds. Not later than governor's own, so a sweep by it errs on
    /// the side of keeping.
    pub now: u64,
    pub seen: Cell<Seen>,
}

impl Access {
    pub fn new(key: u64, op: Op, now: u64) -> Self {
        Self { key, op, now, seen: Cell::new(Seen { before: 0, after: 0, bucket: Bucket::Own }) }
    }

    /// Lets governor decide on a bucket; the TAT to keep, if there is one.
    fn decide<T, E>(
        &self,
        before: u64,
        bucket: Bucket,
        gcra: &impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Result<(T, u64), E> {
        self.seen.set(Seen { before, after: before, bucket });
        let shift = self.op.shift();
        let visible = NonZeroU64::new(before.saturating_sub(shift)).map(|tat| Nanos::from(tat.get()));
        let (outcome, next) = gcra(visible)?;
        let after = next.as_u64().saturating_add(shift);
        self.seen.set(Seen { before, after, bucket });
        Ok((outcome, after))
    }

    fn keeps(&self) -> bool {
        self.op != Op::Peek
    }
}

/// governor's keyed interface asks for it; its own stores hash with it, ours does not.
impl Hash for Access {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// The buckets of one rate limit. A handle: governor owns one and the limit another.
#[derive(Clone)]
pub(super) struct Buckets(Arc<Store>);

enum Store {
    /// One bucket for all: no key, no lock.
    Single(AtomicU64),
    Keyed(Mutex<Table>),
}

impl Buckets {
    pub fn single() -> Self {
        Self(Arc::new(Store::Single(AtomicU64::new(0))))
    }

    pub fn keyed(max_keys: usize, metrics: Arc<LimiterMetrics>) -> Self {
        Self(Arc::new(Store::Keyed(Mutex::new(Table::new(max_keys, metrics)))))
    }

    /// Takes a decision back, if its bucket has not been touched since; says whether it has.
    ///
    /// Only then is it exact. The bucket after a later decision is not "one token less" than without the first one: when
    /// the first began a busy period, the second would have begun it later. A token that cannot be put back exactly is
    /// lost: the limit lets through one request less, never one more.
    pub fn undo(&self, key: u64, seen: Seen) -> bool {
        match &*self.0 {
            Store::Single(tat) => {
                tat.compare_exchange(seen.after, seen.before, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }
            Store::Keyed(table) => lock(table).undo(key, seen),
        }
    }
}

impl StateStore for Buckets {
    type Key = Access;

    fn measure_and_replace<T, F, E>(&self, access: &Access, gcra: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        match &*self.0 {
            Store::Single(tat) => decide_atomic(tat, access, &gcra),
            Store::Keyed(table) => lock(table).decide(access, &gcra),
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Nothing inside can panic half-way through a change; a poisoned table is still a whole one.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decide_atomic<T, E>(
    tat: &AtomicU64,
    access: &Access,
    gcra: &impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
) -> Result<T, E> {
    let mut before = tat.load(Ordering::Acquire);
    loop {
        let (outcome, after) = access.decide(before, Bucket::Own, gcra)?;
        if !access.keeps() {
            return Ok(outcome);
        }
        match tat.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(outcome),
            Err(changed) => before = changed,
        }
    }
}

/// A slot: the key's hash (0: empty) and its bucket's TAT. An array, so that a new table is zero pages.
type Slot = [u64; 2];
const HASH: usize = 0;
const TAT: usize = 1;

/// Buckets by key, at most `max`.
pub(super) struct Table {
    slots: Vec<Slot>,
    mask: usize,
    used: usize,
    max: usize,
    /// Where the next sweep begins.
    hand: usize,
    /// The TAT of the bucket that keys without a place share.
    overflow: u64,
    metrics: Arc<LimiterMetrics>,
}

impl Table {
    fn new(max_keys: usize, metrics: Arc<LimiterMetrics>) -> Self {
        let max = max_keys.max(1);
        let capacity = (max + max.div_ceil(3)).next_power_of_two().max(2 * SWEEP);
        Self { slots: vec![[0; 2]; capacity], mask: capacity - 1, used: 0, max, hand: 0, overflow: 0, metrics }
    }

    fn decide<T, E>(
        &mut self,
        access: &Access,
        gcra: &impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Result<T, E> {
        if let Ok(slot) = self.find(access.key) {
            let (outcome, after) = access.decide(self.slots[slot][TAT], Bucket::Own, gcra)?;
            if access.keeps() {
                self.slots[slot][TAT] = after;
            }
            return Ok(outcome);
        }
        self.sweep(access.now);
        if self.used >= self.max {
            let (outcome, after) = access.decide(self.overflow, Bucket::Overflow, gcra)?;
            if access.keeps() {
                self.overflow = after;
            }
            return Ok(outcome);
        }
        let (outcome, after) = access.decide(0, Bucket::Own, gcra)?;
        if access.keeps() {
            self.insert(access.key, after);
        }
        Ok(outcome)
    }

    fn undo(&mut self, key: u64, seen: Seen) -> bool {
        let tat = match (seen.bucket, self.find(key)) {
            (Bucket::Overflow, _) => &mut self.overflow,
            (Bucket::Own, Ok(slot)) => &mut self.slots[slot][TAT],
            // Forgotten since: it is full.
            (Bucket::Own, Err(_)) => return true,
        };
        let untouched = *tat == seen.after;
        if untouched {
            *tat = seen.before;
        }
        untouched
    }

    /// The slot of a key, or the empty one where it belongs. Ends because at least a quarter of the slots is empty.
    fn find(&self, key: u64) -> Result<usize, usize> {
        let mut slot = key as usize & self.mask;
        loop {
            match self.slots[slot][HASH] {
                0 => return Err(slot),
                found if found == key => return Ok(slot),
                _ => slot = (slot + 1) & self.mask,
            }
        }
    }

    fn insert(&mut self, key: u64, tat: u64) {
        let (Ok(slot) | Err(slot)) = self.find(key);
        self.slots[slot] = [key, tat];
        self.used += 1;
        self.metrics.keys.inc();
    }

    /// Forgets the keys of the next slots whose bucket is full again.
    fn sweep(&mut self, now: u64) {
        let before = self.used;
        for _ in 0..SWEEP {
            // Removing shifts a later key into this slot, so it is looked at again.
            while self.slots[self.hand][HASH] != 0 && self.slots[self.hand][TAT] <= now {
                self.remove(self.hand);
            }
            self.hand = (self.hand + 1) & self.mask;
        }
        let forgotten = before - self.used;
        if forgotten > 0 {
            self.metrics.evictions.inc_by(forgotten as u64);
            self.metrics.keys.sub(forgotten as i64);
        }
    }

    fn remove(&mut self, slot: usize) {
        let mut hole = slot;
        let mut next = slot;
        loop {
            next = (next + 1) & self.mask;
            let key = self.slots[next][HASH];
            if key == 0 {
                break;
            }
            // A key may move back to the hole unless that lies before the slot where its probing begins.
            let probed = next.wrapping_sub(key as usize) & self.mask;
            if probed >= next.wrapping_sub(hole) & self.mask {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
        }
        self.slots[hole] = [0; 2];
        self.used -= 1;
    }
}

/// The gauge is shared with the limit that replaces this one at a reload: each table takes out what it put in.
impl Drop for Table {
    fn drop(&mut self) {
        self.metrics.keys.sub(self.used as i64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::testing::limiter_metrics;
    use super::*;

    /// Keys that collide often: eight homes only.
    fn key(n: u8) -> u64 {
        u64::from(n) << 32 | u64::from(n % 8) | 0x100
    }

    fn check(table: &Table, model: &HashMap<u64, u64>) {
        assert_eq!(table.used, model.len());
        assert_eq!(table.slots.iter().filter(|slot| slot[HASH] != 0).count(), model.len());
        for (key, tat) in model {
            let slot = table.find(*key).expect("a key of the model is found");
            assert_eq!(table.slots[slot][TAT], *tat);
        }
    }

    proptest! {
        #[test]
        fn the_table_is_a_map_that_forgets_only_full_buckets(
            steps in proptest::collection::vec((any::<u8>(), 0_u64..40, 0_u64..8), 1..400),
        ) {
            let mut table = Table::new(24, limiter_metrics());
            let mut model: HashMap<u64, u64> = HashMap::new();
            let mut now = 0;
            for (n, ahead, pass) in steps {
                now += pass;
                let access = Access::new(key(n), Op::Take, now);
                let known = model.contains_key(&key(n));
                let _ = table.decide::<(), ()>(&access, &|_| Ok(((), Nanos::from(now + ahead))));
                if access.seen.get().bucket == Bucket::Own {
                    model.insert(key(n), now + ahead);
                } else {
                    prop_assert!(!known, "a known key never shares the overflow bucket");
                }
                model.retain(|key, tat| *tat > now || table.find(*key).is_ok());
                check(&table, &model);
                prop_assert!(table.used <= 24);
            }
        }
    }

    #[test]
    fn a_new_key_finds_a_place_while_two_thirds_are_live() {
        let mut table = Table::new(3000, limiter_metrics());
        let mut rng = 1_u64;
        // Each step is a new key; it lives for 2000 steps.
        for now in 1..60_000_u64 {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let access = Access::new((rng ^ (rng >> 29)).max(1), Op::Take, now);
            let _ = table.decide::<(), ()>(&access, &|_| Ok(((), Nanos::from(now + 2000))));
            assert_eq!(access.seen.get().bucket, Bucket::Own, "step {now}, used {}", table.used);
        }
    }

    #[test]
    fn a_peek_changes_nothing() {
        let mut table = Table::new(4, limiter_metrics());
        let access = Access::new(9, Op::Peek, 1);

        let _ = table.decide::<(), ()>(&access, &|_| Ok(((), Nanos::from(50))));

        assert_eq!(table.used, 0);
        assert_eq!(access.seen.get().after, 50);
    }
}
