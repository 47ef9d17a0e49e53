//! A file that is meant for another command is said to be one, once, instead of each of its keys to be unknown.

use super::diagnostic::{Code, Problem};
use super::source::Source;
use super::tree::Node;

/// Keys of a simulated upstream that one of the sidecar has not, nor anything like them.
const SIMULATED: [&str; 9] =
    ["latency", "workers", "sync", "discipline", "errors", "faults", "schedule", "schedule_from", "allow_control"];

/// The file describes upstreams for `forebay simulate`, and nothing for the sidecar.
pub fn simulation(tree: &Node, source: &Source<'_>) -> Option<Problem> {
    let tables = tree.as_table()?;
    if tables.iter().any(|table| ["route", "listener"].contains(&table.key.as_str())) {
        return None;
    }
    let upstreams = tables.iter().find(|table| table.key == "upstream")?.value.as_table()?;
    let mut keys = upstreams.iter().filter_map(|upstream| upstream.value.as_table()).flatten();
    if keys.clone().any(|entry| entry.key == "endpoints") {
        return None;
    }
    let telling = keys.find(|entry| SIMULATED.contains(&entry.key.as_str()))?;
    let message = format!("this looks like a file for `forebay simulate`: an upstream has `{}`", telling.key);
    let problem = Problem::error(Code::File, telling.key_span.clone(), message);
    Some(problem.help(format!(
        "`forebay simulate --check -c {}` checks it; a file for the sidecar has tables [route.NAME], and upstreams \
         with `endpoints`",
        source.name()
    )))
}
