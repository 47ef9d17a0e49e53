//! Which source waits for which, as a graph: its cycles, its stages and the longest way through it.

use std::time::Duration;

use super::super::model::aggregate::{Aggregate, OnError, Strategy};

/// Indices are those of the sources, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    /// The sources whose answers each one uses.
    pub after: Vec<Vec<usize>>,
    /// The source that is called when this one fails.
    pub stand_in: Vec<Option<usize>>,
    /// `None`: what is left of the deadline.
    pub timeout: Vec<Option<Duration>>,
    /// One after the other, as with strategy = "fallback".
    pub in_turn: bool,
}

/// A way through the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// Sources, each waiting for the one before.
    pub steps: Vec<usize>,
    /// All their timeouts; a source without one counts as nothing.
    pub time: Duration,
}

impl Graph {
    pub fn of(aggregate: &Aggregate) -> Self {
        let sources = &aggregate.sources;
        let stand_in = |on_error: &OnError| match on_error {
            OnError::Source(index) => Some(*index),
            _ => None,
        };
        Self {
            after: sources.iter().map(|source| source.after.clone()).collect(),
            stand_in: sources.iter().map(|source| stand_in(&source.on_error)).collect(),
            timeout: sources.iter().map(|source| source.timeout).collect(),
            in_turn: aggregate.strategy == Strategy::Fallback,
        }
    }

    pub fn is_standby(&self, source: usize) -> bool {
        self.stand_in.contains(&Some(source))
    }

    /// What must have ended before this source has: what it uses, and what stands in for it.
    fn waits_for(&self, source: usize) -> impl Iterator<Item = usize> {
        self.after[source].iter().copied().chain(self.stand_in[source])
    }

    /// Sources that wait for each other in a ring, the first one again at the end. Depth-first search with three
    /// colours (Cormen et al., Introduction to Algorithms, 22.3); a way back to a source in progress is a cycle.
    pub fn cycle(&self) -> Option<Vec<usize>> {
        let mut done = vec![false; self.after.len()];
        for start in 0..self.after.len() {
            let mut way: Vec<(usize, Vec<usize>)> = vec![(start, self.waits_for(start).collect())];
            while let Some((source, rest)) = way.last_mut() {
                let Some(next) = rest.pop() else {
                    done[*source] = true;
                    way.pop();
                    continue;
                };
                if let Some(at) = way.iter().position(|(source, _)| *source == next) {
                    return Some(way[at..].iter().map(|(source, _)| *source).chain([next]).collect());
                }
                if !done[next] {
                    way.push((next, self.waits_for(next).collect()));
                }
            }
        }
        None
    }

    /// Sources that can run at once, stage by stage; those that only stand in for others are in none. Without a cycle.
    pub fn stages(&self) -> Vec<Vec<usize>> {
        let calls: Vec<usize> = (0..self.after.len()).filter(|source| !self.is_standby(*source)).collect();
        if self.in_turn {
            return calls.into_iter().map(|source| vec![source]).collect();
        }
        let mut stage_of = vec![0_usize; self.after.len()];
        // Each round settles at least one stage, so there are at most as many as sources.
        for _ in 0..self.after.len() {
            for source in 0..self.after.len() {
                let after = self.after[source].iter().map(|other| stage_of[*other] + 1);
                stage_of[source] = after.max().unwrap_or(0);
            }
        }
        let count = calls.iter().map(|source| stage_of[*source] + 1).max().unwrap_or(0);
        let mut stages = vec![Vec::new(); count];
        for source in calls {
            stages[stage_of[source]].push(source);
        }
        stages
    }

    /// The way that can take longest, with every source failing late. Without a cycle.
    pub fn longest(&self) -> Way {
        let calls = (0..self.after.len()).filter(|source| !self.is_standby(*source));
        if self.in_turn {
            return calls.fold(Way::default(), |way, source| self.then(way, source));
        }
        let mut known = vec![None; self.after.len()];
        calls.map(|source| self.settled(source, &mut known)).fold(Way::default(), longer)
    }

    /// When each source begins at the latest, if those before it have timeouts. Without a cycle.
    pub fn begins(&self) -> Vec<Duration> {
        let mut known = vec![None; self.after.len()];
        let mut begins: Vec<Duration> =
            (0..self.after.len()).map(|source| self.begun(source, &mut known).time).collect();
        for (source, stand_in) in self.stand_in.iter().enumerate() {
            let Some(stand_in) = *stand_in else { continue };
            let failed = begins[source].saturating_add(self.timeout[source].unwrap_or_default());
            begins[stand_in] = begins[stand_in].max(failed);
        }
        if self.in_turn {
            let mut passed = Duration::ZERO;
            for (begin, timeout) in begins.iter_mut().zip(&self.timeout) {
                *begin = passed;
                passed = passed.saturating_add(timeout.unwrap_or_default());
            }
        }
        begins
    }

    /// The longest way to the end of a source, with its stand-ins.
    fn settled(&self, source: usize, known: &mut Vec<Option<Way>>) -> Way {
        if let Some(way) = &known[source] {
            return way.clone();
        }
        let mut way = self.begun(source, known);
        way = self.then(way, source);
        let mut failed = source;
        while let Some(next) = self.stand_in[failed] {
            way = longer(way, self.begun(next, known));
            way = self.then(way, next);
            failed = next;
        }
        known[source] = Some(way.clone());
        way
    }

    /// The longest way to where a source can begin.
    fn begun(&self, source: usize, known: &mut Vec<Option<Way>>) -> Way {
        self.after[source].iter().map(|other| self.settled(*other, known)).fold(Way::default(), longer)
    }

    fn then(&self, mut way: Way, source: usize) -> Way {
        way.time = way.time.saturating_add(self.timeout[source].unwrap_or_default());
        way.steps.push(source);
        way
    }
}

/// Of equally long ones the one with more steps, then the first.
fn longer(a: Way, b: Way) -> Way {
    if (b.time, b.steps.len()) > (a.time, a.steps.len()) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn graph(after: &[&[usize]], stand_in: &[Option<usize>], seconds: &[u64]) -> Graph {
        Graph {
            after: after.iter().map(|after| after.to_vec()).collect(),
            stand_in: stand_in.to_vec(),
            timeout: seconds.iter().map(|seconds| Some(Duration::from_secs(*seconds))).collect(),
            in_turn: false,
        }
    }

    #[test]
    fn a_cycle_is_named_from_its_first_source() {
        let cyclic = graph(&[&[1], &[2], &[0]], &[None; 3], &[1; 3]);
        let over_stand_in = graph(&[&[], &[0]], &[Some(1), None], &[1; 2]);
        let none = graph(&[&[1, 2], &[2], &[]], &[None; 3], &[1; 3]);

        assert_eq!(cyclic.cycle(), Some(vec![0, 1, 2, 0]));
        assert_eq!(over_stand_in.cycle(), Some(vec![0, 1, 0]));
        assert_eq!(none.cycle(), None);
    }

    #[test]
    fn stages_hold_what_runs_at_once() {
        let graph = graph(&[&[], &[0], &[], &[1, 2], &[]], &[None, Some(4), None, None, None], &[1; 5]);

        assert_eq!(graph.stages(), [vec![0, 2], vec![1], vec![3]]);
    }

    #[test]
    fn the_longest_way_counts_stand_ins_and_what_is_asked_in_turn() {
        let mut graph = graph(&[&[], &[0], &[], &[]], &[Some(3), None, None, None], &[2, 3, 6, 4]);

        assert_eq!(graph.longest(), Way { steps: vec![0, 3, 1], time: Duration::from_secs(9) });
        graph.stand_in = vec![None; 4];
        graph.after = vec![Vec::new(); 4];
        graph.in_turn = true;
        assert_eq!(graph.longest(), Way { steps: vec![0, 1, 2, 3], time: Duration::from_secs(15) });
    }

    proptest! {
        /// Edges to earlier sources only cannot make a cycle; whatever the edges, every function ends.
        #[test]
        fn any_graph_is_understood(edges in proptest::collection::vec((0usize..8, 0usize..8), 0..16), forward in any::<bool>()) {
            let mut graph = graph(&[&[][..]; 8], &[None; 8], &[1; 8]);
            for (from, to) in edges {
                let (from, to) = if forward { (from.max(to), from.min(to)) } else { (from, to) };
                if from != to && !graph.after[from].contains(&to) {
                    graph.after[from].push(to);
                }
            }

            match graph.cycle() {
                Some(cycle) => prop_assert!(!forward && cycle.first() == cycle.last()),
                None => {
                    let stages = graph.stages();
                    let depth = graph.longest().steps.len();
                    prop_assert_eq!(stages.iter().map(Vec::len).sum::<usize>(), 8);
                    prop_assert_eq!(stages.len(), depth);
                }
            }
        }
    }
}
