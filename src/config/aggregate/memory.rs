//! The most memory that one request to an aggregate can take: known before there is one, from its limits.

use super::super::model::aggregate::{Aggregate, ForEach, Source};

/// The bound, in bytes, and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// All sources at their own limits together.
    pub sources: u64,
    /// The smaller one of that and `max_bytes`.
    pub request: u64,
}

pub fn of(aggregate: &Aggregate) -> Bound {
    bound(aggregate.sources.iter().map(|source| of_source(source)), aggregate.max_bytes)
}

/// All answers of one source: one for each item.
pub fn of_source(source: &Source) -> u64 {
    answers(source.max_body_bytes, source.for_each.as_ref().map(|ForEach { max_items, .. }| *max_items))
}

/// Answers of this size, one or one for each of the items.
pub fn answers(max_body: u64, max_items: Option<usize>) -> u64 {
    max_body.saturating_mul(max_items.unwrap_or(1) as u64)
}

pub fn bound(sources: impl Iterator<Item = u64>, max_bytes: u64) -> Bound {
    let sources = sources.fold(0, u64::saturating_add);
    Bound { sources, request: sources.min(max_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_bounded_by_its_parts_and_by_itself() {
        assert_eq!(
            bound([answers(10, None), answers(10, Some(5))].into_iter(), 1_000),
            Bound { sources: 60, request: 60 }
        );
        assert_eq!(bound([answers(u64::MAX, Some(2))].into_iter(), 1_000).request, 1_000);
    }
}
