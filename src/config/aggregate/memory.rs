//! The most memory that one request to an aggregate can take: known before there is one, from its limits.

use super::super::model::aggregate::{Aggregate, ForEach, Source};

/// The bound, in bytes, and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// All sources at their own limits together.
    pub sources: u64,
    /// The smaller one of that and `max_bytes`: what is kept.
    pub request: u64,
    /// What is kept and what arrives beside it: an answer counts towards `max_bytes` when it is whole.
    pub peak: u64,
}

pub fn of(aggregate: &Aggregate) -> Bound {
    let sources = aggregate.sources.iter().map(|source| (of_source(source), at_once(source)));
    bound(sources, aggregate.max_bytes)
}

/// Answers of one source that arrive at the same time.
fn at_once(source: &Source) -> u64 {
    let calls = |for_each: &ForEach| for_each.concurrency.min(for_each.max_items);
    answers(source.max_body_bytes, source.for_each.as_ref().map(calls))
}

/// All answers of one source: one for each item.
pub fn of_source(source: &Source) -> u64 {
    answers(source.max_body_bytes, source.for_each.as_ref().map(|ForEach { max_items, .. }| *max_items))
}

/// Answers of this size, one or one for each of the items.
pub fn answers(max_body: u64, max_items: Option<usize>) -> u64 {
    max_body.saturating_mul(max_items.unwrap_or(1) as u64)
}

/// `parts`: of each source, all its answers, and those that arrive at once.
pub fn bound(parts: impl Iterator<Item = (u64, u64)>, max_bytes: u64) -> Bound {
    let add = |(all, now): (u64, u64), (part, at_once)| (all.saturating_add(part), now.saturating_add(at_once));
    let (sources, at_once) = parts.fold((0, 0), add);
    Bound { sources, request: sources.min(max_bytes), peak: sources.min(max_bytes.saturating_add(at_once)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_bounded_by_its_parts_and_by_itself() {
        let of = |parts: &[(u64, u64)]| bound(parts.iter().copied(), 1_000);

        assert_eq!(of(&[(10, 10), (answers(10, Some(5)), 20)]), Bound { sources: 60, request: 60, peak: 60 });
        assert_eq!(of(&[(answers(u64::MAX, Some(2)), 1)]), Bound { sources: u64::MAX, request: 1_000, peak: 1_001 });
        assert_eq!(of(&[(600, 600), (600, 600)]), Bound { sources: 1_200, request: 1_000, peak: 1_200 });
    }
}
