//! What is known of an aggregate before a request comes, and what of a request can be refused before anything is called.

use std::sync::Arc;

use bytes::Bytes;

use super::call::Failed;
use super::identical::groups;
use super::json::Json;
use super::list::{List, NoList};
use super::off_loop::{LARGE, off_loop};
use super::template::{Inputs, Needs, Scope, asks_the_client, build_call, describe};
use crate::config::model::aggregate::{Aggregate, ForEach, Reference};
use crate::telemetry::Reason;

const NO_JSON: &str = "the body is not JSON, or is nested too deeply";

/// Made once for each generation of the configuration.
#[derive(Debug)]
pub struct Plan {
    aggregate: Arc<Aggregate>,
    needs: Needs,
    /// Sources whose calls depend on what the client sends; without the standby ones.
    asking: Arc<[usize]>,
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

/// The look at the request failed, not the request.
impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        Self { reason: failed.reason, detail: failed.detail.unwrap_or_default() }
    }
}

impl Plan {
    pub fn new(aggregate: Arc<Aggregate>) -> Self {
        let (groups, group_count) = groups(&aggregate.sources);
        let mut dependents = vec![Vec::new(); aggregate.sources.len()];
        for (index, source) in aggregate.sources.iter().enumerate() {
            source.after.iter().for_each(|needed| dependents[*needed].push(index));
        }
        let asking = aggregate.sources.iter().enumerate();
        let asking = asking.filter(|(_, source)| !source.standby && asks_the_client(source));
        let asking = asking.map(|(index, _)| index).collect();
        Self { needs: Needs::of(&aggregate), asking, aggregate, dependents, groups, group_count }
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
        check_all(&self.aggregate, &self.asking, inputs)
    }

    pub(super) fn asking(&self) -> &Arc<[usize]> {
        &self.asking
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

/// A request's JSON body; read off the event loop when it is large.
pub async fn read_request(body: Bytes, max_depth: usize) -> Result<Json, Refusal> {
    let refused = |_| Refusal { reason: Reason::BadRequest, detail: NO_JSON.to_owned() };
    if body.len() <= LARGE {
        return Json::parse(body, max_depth).map_err(refused);
    }
    let read = off_loop(move || Json::parse(body, max_depth)).await;
    read.map_err(Refusal::from)?.map_err(refused)
}

pub(super) fn check_all(aggregate: &Aggregate, asking: &[usize], inputs: &Inputs) -> Result<(), Refusal> {
    for index in asking.iter().copied() {
        match &aggregate.sources[index].for_each {
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
