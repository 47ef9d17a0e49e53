//! Checks of an aggregate: names, the graph, what excludes each other, what cannot fit.

use super::super::decode::Decoder;
use super::super::diagnostic::{Code, Problem};
use super::super::elements::Root;
use super::super::elements::aggregate::Aggregate;
use super::super::elements::route::Route;
use super::super::value::container::NamedItem;
use super::names::{Names, RESERVED};

/// A route with its aggregate.
struct Checked<'a> {
    route: &'a NamedItem<Route>,
    aggregate: &'a Aggregate,
    names: Names<'a>,
}

/// Everything that can be wrong with the aggregate of a route.
pub fn check(cx: &mut Decoder<'_>, _root: &Root, route: &NamedItem<Route>) {
    let Some(aggregate) = route.value.aggregate.get() else { return };
    let names = Names::new(route.value.path.get(), route.value.path.span(), aggregate);
    let checked = Checked { route, aggregate, names };
    checked.names(cx);
}

impl Checked<'_> {
    /// Names that mean one thing, and references to what exists.
    fn names(&self, cx: &mut Decoder<'_>) {
        for parameter in self.names.parameters().iter().filter(|name| **name != "rest" && RESERVED.contains(name)) {
            let message =
                format!("a parameter called `{parameter}` cannot be told from `{{{parameter}}}` of an aggregate");
            let problem = Problem::error(Code::Conflict, self.route.value.path.span(), message);
            cx.report(problem.help("give the parameter another name"));
        }
        for source in self.aggregate.sources() {
            let name = source.name.as_str();
            if RESERVED.contains(&name) {
                let message = format!("a source cannot be called `{name}`: `{{{name}}}` means something else");
                cx.report(Problem::error(Code::Conflict, source.span.clone(), message).help("give it another name"));
            } else if self.names.parameters().contains(&name) {
                let message = format!("`{{{name}}}` is a part of the route's path and the name of a source");
                let problem = Problem::error(Code::Conflict, source.span.clone(), message)
                    .related(self.route.value.path.span(), "the route's path");
                cx.report(problem.help("give one of them another name"));
            }
        }
        for (written, place) in self.aggregate.references() {
            if let Err(problem) = self.names.resolve(written, place) {
                cx.report(problem);
            }
        }
    }
}
