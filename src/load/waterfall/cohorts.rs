//! Requests added up by how slow they were, in constant memory: there is a sum for each class of response times, 128
//! of them for each doubling, at most some eight thousand.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::record::{Cohort, Slow};
use super::segments::{COUNT, Joined, Segments};

/// Requests that are kept one by one.
const SLOWEST: usize = 10;
/// In thousandths of the requests, the fastest first.
const COHORTS: [(u64, u64); 5] = [(0, 1000), (0, 500), (500, 900), (900, 990), (990, 1000)];

#[derive(Debug, Default)]
pub struct Profile {
    classes: BTreeMap<u32, Class>,
    count: u64,
    slowest: BinaryHeap<Reverse<Kept>>,
}

#[derive(Debug, Default)]
struct Class {
    count: u64,
    fastest: u64,
    parts: [u128; COUNT],
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    response: u64,
    number: u64,
    parts: [u64; COUNT],
    id: Box<str>,
}

impl Profile {
    pub fn add(&mut self, number: u64, id: &str, joined: &Joined) {
        let parts = joined.segments.parts();
        self.count += 1;
        let class = self.classes.entry(class_of(joined.response)).or_default();
        class.fastest = if class.count == 0 { joined.response } else { class.fastest.min(joined.response) };
        class.count += 1;
        class.parts.iter_mut().zip(parts).for_each(|(sum, part)| *sum += u128::from(part));

        let is_slow = self.slowest.peek().is_none_or(|Reverse(fastest)| joined.response > fastest.response);
        if is_slow || self.slowest.len() < SLOWEST {
            self.slowest.push(Reverse(Kept { response: joined.response, number, parts, id: id.into() }));
            if self.slowest.len() > SLOWEST {
                self.slowest.pop();
            }
        }
    }

    pub fn cohorts(&self) -> Vec<Cohort> {
        COHORTS.iter().filter_map(|(from, to)| self.cohort(*from, *to)).collect()
    }

    /// `None` if nobody is in it, as of few requests.
    fn cohort(&self, from: u64, to: u64) -> Option<Cohort> {
        let rank = |thousandths: u64| (u128::from(self.count) * u128::from(thousandths) / 1000) as u64;
        let (first, end) = (rank(from), rank(to));
        let (mut passed, mut sums, mut fastest) = (0, [0_u128; COUNT], None);
        for class in self.classes.values() {
            let within = end.min(passed + class.count).saturating_sub(first.max(passed));
            passed += class.count;
            if within > 0 {
                fastest.get_or_insert(class.fastest);
                let share = |part: u128| part * u128::from(within) / u128::from(class.count);
                sums.iter_mut().zip(class.parts).for_each(|(sum, part)| *sum += share(part));
            }
        }
        let count = end - first;
        let mean = |sum: u128| sum as f64 / count as f64;
        Some(Cohort {
            from: from as f64 / 1000.0,
            to: to as f64 / 1000.0,
            count,
            fastest_ns: fastest?,
            response_ns: mean(sums.iter().sum()),
            segments: Segments::of(sums.map(mean)),
        })
    }

    /// The slowest first.
    pub fn slowest(self) -> Vec<Slow> {
        let slow = |Reverse(kept): Reverse<Kept>| Slow {
            number: kept.number,
            request_id: kept.id.into(),
            response_ns: kept.response,
            segments: Segments::of(kept.parts),
        };
        // Ascending in what is reversed.
        self.slowest.into_sorted_vec().into_iter().map(slow).collect()
    }
}

/// 128 classes for each doubling.
fn class_of(value: u64) -> u32 {
    const BITS: u32 = 7;
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    // Below 2 * 128, since the shift leaves one bit more than the classes have.
    (shift << BITS) + u32::try_from(value >> shift).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(response: u64, queue: u64) -> Joined {
        let segments = Segments { queue_ns: queue, first_byte_ns: response - queue, ..Segments::default() };
        Joined { segments, response, cut: 0 }
    }

    #[test]
    fn classes_ascend_and_are_fine() {
        let values = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) + (1 << bit) / 3]).chain([0, u64::MAX]);
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();

        assert!(values.is_sorted_by_key(|value| class_of(*value)));
        for value in values.into_iter().filter(|value| (1000..u64::MAX / 2).contains(value)) {
            assert!(class_of(value + value / 100) > class_of(value), "{value}");
            assert!(class_of(value + value / 300) <= class_of(value) + 1, "{value}");
        }
    }

    /// 990 fast ones that never wait, and ten slow ones that do nothing else.
    #[test]
    fn the_slowest_hundredth_is_looked_at_apart() {
        let mut profile = Profile::default();
        for number in 0..1000 {
            let slow = number % 100 == 17;
            let response = if slow { 500_000_000 + number } else { 1_000_000 + number };
            profile.add(number, &number.to_string(), &joined(response, if slow { response } else { 0 }));
        }

        let cohorts = profile.cohorts();

        let (all, tail) = (&cohorts[0], &cohorts[4]);
        assert_eq!((all.count, all.fastest_ns), (1000, 1_000_000));
        assert_eq!((tail.count, tail.fastest_ns), (10, 500_000_017));
        assert_eq!((tail.segments.queue_ns, tail.segments.first_byte_ns), (tail.response_ns, 0.0));
        assert_eq!(all.segments.queue_ns + all.segments.first_byte_ns, all.response_ns);
        assert_eq!(cohorts.iter().skip(1).map(|cohort| cohort.count).sum::<u64>(), 1000);
        let numbers: Vec<u64> = profile.slowest().iter().map(|slow| slow.number).collect();
        assert_eq!(numbers, [917, 817, 717, 617, 517, 417, 317, 217, 117, 17]);
    }

    #[test]
    fn of_a_class_at_the_border_so_much_counts_as_is_within() {
        let mut profile = Profile::default();
        (0..100).for_each(|number| profile.add(number, "", &joined(1_000_000, 300_000)));

        let tail = profile.cohort(990, 1000).expect("one request");

        assert_eq!((tail.count, tail.response_ns, tail.segments.queue_ns), (1, 1_000_000.0, 300_000.0));
        assert_eq!(Profile::default().cohort(0, 1000), None);
    }
}
