//! What is known of an aggregate before a request comes, and what of a request can be refused before anything is called.

use std::collections::HashMap;
use std::sync::Arc;

use super::list::{List, NoList};
use super::template::{Inputs, Needs, Scope, build_call, describe};
use crate::config::model::aggregate::{Aggregate, ForEach, Reference, Source};
use crate::telemetry::Reason;

/// Made once for each generation of the configuration.
#[derive(Debug)]
pub struct Plan {
    aggregate: Arc<Aggregate>,
    needs: Needs,
    /// For each source: those that take values from it.
    dependents: Vec<Vec<usize>>,
    /// For each source: the number of the group within which calls may be identical; `None` when it would be alone.
    groups: Vec<Option<usize>>,
    group_count: usize,
}

/// The request cannot be answered, and the client is told why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `BadRequest` or `TooManyItems`; `Internal` when the check itself failed.
    pub reason: Reason,
    /// Names what is wrong in the words of the configuration.
    pub detail: String,
}

impl Plan {
    pub fn new(aggregate: Arc<Aggregate>) -> Self {
        let (groups, group_count) = groups(&aggregate.sources);
        let mut dependents = vec![Vec::new(); aggregate.sources.len()];
        for (index, source) in aggregate.sources.iter().enumerate() {
            source.after.iter().for_each(|needed| dependents[*needed].push(index));
        }
        Self { needs: Needs::of(&aggregate), aggregate, dependents, groups, group_count }
    }

    pub fn aggregate(&self) -> &Arc<Aggregate> {
        &self.aggregate
    }

    /// What of a request it looks at.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Refuses a request that does not carry what the calls need. What only turns out on the way (in a standby source, in
    /// one item of a list) is the failure of that source or item.
    pub fn check(&self, inputs: &Inputs) -> Result<(), Refusal> {
        check_all(&self.aggregate, inputs)
    }

    pub(super) fn dependents(&self, source: usize) -> &[usize] {
        &self.dependents[source]
    }

    pub(super) fn groups(&self) -> &[Option<usize>] {
        &self.groups
    }

    pub(super) fn group_count(&self) -> usize {
        self.group_count
    }
}

pub(super) fn check_all(aggregate: &Aggregate, inputs: &Inputs) -> Result<(), Refusal> {
    let sources = aggregate.sources.iter().enumerate();
    for (index, source) in sources.filter(|(_, source)| !source.standby) {
        match &source.for_each {
            Some(for_each) if is_of_client(&for_each.list) => check_list(for_each, inputs)?,
            Some(_) => {}
            None => check_call(aggregate, index, inputs)?,
        }
    }
    Ok(())
}

fn check_call(aggregate: &Aggregate, index: usize, inputs: &Inputs) -> Result<(), Refusal> {
    match build_call(aggregate, index, &Scope::new(inputs, &[])) {
        Err(missing) if missing.from_client => Err(Refusal { reason: Reason::BadRequest, detail: missing.to_string() }),
        // Values of other sources are not there yet.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn check_list(for_each: &ForEach, inputs: &Inputs) -> Result<(), Refusal> {
    let Err(no_list) = List::find(for_each, inputs, &[]) else { return Ok(()) };
    let name = describe(&for_each.list, &[]);
    let (reason, detail) = match no_list {
        NoList::Missing => (Reason::BadRequest, format!("the list `{name}` is missing")),
        NoList::NoArray => (Reason::BadRequest, format!("`{name}` is no list")),
        NoList::TooMany(items) => {
            let allowed = for_each.max_items;
            (Reason::TooManyItems, format!("the list `{name}` has {items} items, and {allowed} are allowed"))
        }
    };
    Err(Refusal { reason, detail })
}

fn is_of_client(list: &Reference) -> bool {
    match list {
        Reference::Parameter(_) | Reference::Query(_) | Reference::Header(_) | Reference::Body(_) => true,
        Reference::Source(..) | Reference::Item(_) | Reference::Winner(_) => false,
    }
}

/// Calls to different upstreams are never identical.
fn groups(sources: &[Arc<Source>]) -> (Vec<Option<usize>>, usize) {
    let mut members: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, source) in sources.iter().enumerate() {
        members.entry(&source.upstream.name).or_default().push(index);
    }
    let mut groups = vec![None; sources.len()];
    let has_company = |members: &Vec<usize>| members.len() > 1 || sources[members[0]].for_each.is_some();
    let mut count = 0;
    for members in members.into_values().filter(has_company) {
        members.into_iter().for_each(|member| groups[member] = Some(count));
        count += 1;
    }
    (groups, count)
}
