//! Aggregates from request to body, under a paused clock: times are exact.

mod combinations;
mod graph;
mod lists;
mod sharing;
mod strategies;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::merge::Merged;
use super::script::Script;
use super::template::Inputs;
use super::{Outcome, Plan, Refusal, execute, merge_off_loop};
use crate::config::model::aggregate::{Aggregate, Node, Source};
use crate::telemetry::Reason;

/// How an aggregate went.
struct Ran {
    outcomes: Vec<Outcome>,
    merged: Merged,
    took: Duration,
    /// Sources in the order in which their ends were told.
    told: Vec<usize>,
}

impl Ran {
    fn body(&self) -> &str {
        self.merged.body.as_deref().map_or("", |body| std::str::from_utf8(body).expect("JSON is UTF-8"))
    }

    fn endings(&self) -> Vec<&'static str> {
        self.outcomes.iter().map(|outcome| outcome.ending.code()).collect()
    }

    fn reasons(&self) -> Vec<Reason> {
        self.outcomes.iter().map(|outcome| outcome.reason).collect()
    }
}

async fn try_run(
    aggregate: Aggregate,
    inputs: &Inputs,
    script: &Script,
    deadline: Option<Duration>,
) -> Result<Ran, Refusal> {
    let plan = Plan::new(Arc::new(aggregate));
    let begun = Instant::now();
    let mut told = Vec::new();
    let deadline = deadline.map(|deadline| begun + deadline);
    let outcomes = execute(&plan, inputs, script, deadline, |outcome| told.push(outcome.source)).await?;
    let took = begun.elapsed();
    let (outcomes, merged) = merge_off_loop(&plan, inputs, outcomes).await;
    assert_eq!(script.log().in_flight, 0, "nothing is left behind");
    Ok(Ran { outcomes, merged, took, told })
}

async fn run(aggregate: Aggregate, script: &Script) -> Ran {
    run_within(aggregate, script, None).await
}

async fn run_within(aggregate: Aggregate, script: &Script, deadline: Option<Duration>) -> Ran {
    try_run(aggregate, &Inputs::default(), script, deadline).await.expect("nothing is asked of the request")
}

fn with(mut source: Source, change: impl FnOnce(&mut Source)) -> Source {
    change(&mut source);
    source
}

fn query(pairs: &[(&str, &str)]) -> Inputs {
    let query = pairs.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect();
    Inputs { query, ..Inputs::default() }
}

/// `{"users": [each source]}`.
fn users_list(count: usize) -> Node {
    let users = (0..count).map(|index| Node::Value(super::testing::reference(&format!("#{index}"))));
    Node::Object(vec![("users".into(), Node::List(users.collect()))])
}

#[test]
fn the_future_can_move_between_threads() {
    fn is_send<T: Send>(_: T) {}
    let plan = Plan::new(Arc::new(super::testing::aggregate(Vec::new())));
    let (inputs, script) = (Inputs::default(), Script::default());
    is_send(execute(&plan, &inputs, &script, None, |_| {}));
    is_send(merge_off_loop(&plan, &inputs, Vec::new()));
}
