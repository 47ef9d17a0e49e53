//! Checks of an aggregate: its names, its graph, what excludes each other, what has no effect. What does not fit into
//! times and sizes is in [`super::fit`].

use std::collections::BTreeSet;

use super::super::decode::Decoder;
use super::super::diagnostic::{Code, Problem};
use super::super::elements::Root;
use super::super::elements::aggregate::{Aggregate, MOST_SOURCES, Source};
use super::super::elements::limits::no_effect;
use super::super::elements::route::Route;
use super::super::model::aggregate::{CoalesceKey, Format, Reference};
use super::super::source::Span;
use super::super::suggest::nearest;
use super::super::value::Value as _;
use super::super::value::aggregate::{Merge, StrategyWord, WrittenOnError};
use super::super::value::container::NamedItem;
use super::graph::Graph;
use super::names::{Names, Place, RESERVED};

/// A route with its aggregate.
pub(super) struct Checked<'a> {
    pub route: &'a NamedItem<Route>,
    pub aggregate: &'a Aggregate,
    pub names: Names<'a>,
    pub graph: Graph,
}

/// Everything that can be wrong with the aggregate of a route.
pub fn check(cx: &mut Decoder<'_>, root: &Root, route: &NamedItem<Route>) {
    let Some(aggregate) = route.value.aggregate.get() else { return };
    let names = Names::new(route.value.path.get(), route.value.path.span(), aggregate);
    let graph = graph(aggregate, &names);
    let checked = Checked { route, aggregate, names, graph };
    checked.count(cx);
    checked.names(cx);
    checked.references(cx);
    checked.items(cx);
    checked.strategy(cx);
    checked.shape(cx);
    checked.coalesce(cx);
    for index in 0..aggregate.sources().len() {
        checked.source(cx, index);
    }
    checked.memory(cx, root);
    checked.concurrency(cx, root);
    match checked.graph.cycle() {
        Some(cycle) => checked.report_cycle(cx, &cycle),
        None => {
            checked.times(cx);
            checked.unused(cx);
        }
    }
}

fn graph(aggregate: &Aggregate, names: &Names<'_>) -> Graph {
    let sources = aggregate.sources();
    // A stand-in for itself is reported as such.
    let stand_in = |(index, source): (usize, &NamedItem<Source>)| {
        aggregate.stand_in(&source.value).filter(|other| *other != index)
    };
    Graph {
        after: sources.iter().enumerate().map(|(index, source)| source.value.after(index, names)).collect(),
        stand_in: sources.iter().enumerate().map(stand_in).collect(),
        timeout: sources.iter().map(|source| source.value.timeout.copied()).collect(),
        in_turn: aggregate.strategy.copied() == Some(StrategyWord::Fallback),
    }
}

impl Checked<'_> {
    fn count(&self, cx: &mut Decoder<'_>) {
        let Some((sources, span)) = self.aggregate.source.written() else { return };
        if sources.items.is_empty() {
            let problem = Problem::error(Code::InvalidValue, span.clone(), "an aggregate needs a source");
            let header = format!("[route.{}.aggregate.source.NAME]", self.route.name);
            cx.report(problem.help(format!("add a table {header} with `upstream` and `path`")));
        }
        if sources.items.len() as u64 > MOST_SOURCES {
            let problem = Problem::error(Code::OutOfRange, span, format!("more than {MOST_SOURCES} sources"));
            cx.report(problem.help("use `for_each` to call one source for many values"));
        }
    }

    /// Names that mean one thing.
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
            } else if name == "_meta" && self.aggregate.meta.copied() == Some(true) {
                let message = "a source cannot be called `_meta` beside the `_meta` of the answer";
                let problem = Problem::error(Code::Conflict, source.span.clone(), message)
                    .related(self.aggregate.meta.span(), "asked for here");
                cx.report(problem.help("give the source another name"));
            }
        }
    }

    /// A list whose items are in none of the calls: easily forgotten, and the answer is the same one again and again.
    fn items(&self, cx: &mut Decoder<'_>) {
        let references = self.aggregate.references();
        for (index, source) in self.aggregate.sources().iter().enumerate() {
            let mut own =
                references.iter().filter(|(_, place)| matches!(place, Place::Source { index: of, .. } if *of == index));
            if source.value.for_each.get().is_some() && !own.any(|(written, _)| written.head == "item") {
                let message = format!("every call of `{}` is the same: none has its `{{item}}`", source.name);
                let problem = Problem::warning(Code::NoEffect, source.value.for_each.key_span(), message);
                cx.report(problem.help("put `{item}` into the path, the query, a header or the body"));
            }
        }
    }

    /// References to what exists, and to sources that are always called.
    fn references(&self, cx: &mut Decoder<'_>) {
        for (written, place) in self.aggregate.references() {
            let reference = match self.names.resolve(written, place) {
                Ok(reference) => reference,
                Err(problem) => {
                    cx.report(*problem);
                    continue;
                }
            };
            if let Reference::Source(index, _) = reference
                && place != Place::Respond
                && let Some(first) = self.graph.stand_in.iter().position(|stand_in| *stand_in == Some(index))
            {
                let sources = self.aggregate.sources();
                let (name, first) = (&sources[index].name, &sources[first]);
                let message =
                    format!("`{name}` is only called when `{}` fails, so this may wait for nothing", first.name);
                let problem = Problem::error(Code::Conflict, written.at.clone(), message)
                    .related(first.value.on_error.span(), "it stands in here");
                cx.report(problem.help(format!("use `{{{}}}`: it is the answer of `{name}` in that case", first.name)));
            }
        }
    }

    fn strategy(&self, cx: &mut Decoder<'_>) {
        let (strategy, quorum) = (&self.aggregate.strategy, &self.aggregate.quorum);
        let Some(word) = strategy.copied() else { return };
        if word == StrategyWord::Quorum {
            self.quorum(cx);
        } else if quorum.is_written() {
            let problem = Problem::error(Code::Conflict, quorum.key_span(), "`quorum` without strategy = \"quorum\"")
                .related(strategy.span(), "the strategy");
            cx.report(problem.help("write strategy = \"quorum\", or take `quorum` out"));
        }
        if word == StrategyWord::All {
            return;
        }
        let shown = strategy.get().and_then(|word| word.show()).unwrap_or_default();
        for (index, after) in self.graph.after.iter().enumerate() {
            let Some(other) = after.first() else { continue };
            let sources = self.aggregate.sources();
            let message = format!(
                "with strategy = {shown} no source can wait for another: `{}` uses `{}`",
                sources[index].name, sources[*other].name
            );
            let problem = Problem::error(Code::Conflict, self.edge(index, *other), message)
                .related(strategy.span(), "the strategy");
            cx.report(problem.help("take strategy = \"all\", or build the source from the request alone"));
        }
        let sources = self.aggregate.sources();
        for (index, source) in sources.iter().enumerate() {
            let Some((on_error, span)) = source.value.on_error.written() else { continue };
            let last_resort = word == StrategyWord::Fallback && index + 1 == sources.len();
            let (message, help) = match on_error {
                WrittenOnError::Source(_) if word != StrategyWord::Quorum => {
                    let message = format!("with strategy = {shown} each source already stands in for the others");
                    (message, "take `on_error` out")
                }
                // It would count as usable at once, and the others would be cancelled for it.
                WrittenOnError::Value(_) if !last_resort => {
                    let message = format!(
                        "with strategy = {shown} this value counts as an answer as soon as `{}` fails",
                        source.name
                    );
                    (message, "use strategy = \"fallback\" and give the last source the value")
                }
                _ => continue,
            };
            let problem = Problem::error(Code::Conflict, span, message).related(strategy.span(), "the strategy");
            cx.report(problem.help(help));
        }
    }

    fn quorum(&self, cx: &mut Decoder<'_>) {
        let (strategy, quorum) = (&self.aggregate.strategy, &self.aggregate.quorum);
        let count = (0..self.aggregate.sources().len()).filter(|index| !self.graph.is_standby(*index)).count();
        if !quorum.is_written() {
            let message = "strategy = \"quorum\" does not say how many answers are enough";
            let problem = Problem::error(Code::MissingKey, strategy.span(), message);
            cx.report(problem.help(format!("add `quorum = {}`", (count / 2 + 1).max(1))));
        }
        if let Some((wanted, span)) = quorum.written().filter(|(wanted, _)| **wanted > count) {
            let message = format!("{wanted} answers can never be reached: there are {count} sources");
            let problem = Problem::error(Code::NeverFires, span, message);
            cx.report(problem.help(format!("write {count} at most")));
        }
    }

    /// How the body is made.
    fn shape(&self, cx: &mut Decoder<'_>) {
        let aggregate = self.aggregate;
        if aggregate.respond.is_written() && aggregate.merge.is_written() {
            let message = "`respond` lays the body out, so there is nothing for `merge` to decide";
            let problem = Problem::error(Code::Conflict, aggregate.merge.key_span(), message)
                .related(aggregate.respond.key_span(), "the layout");
            cx.report(problem.help("take one of the two out"));
        } else if aggregate.respond.is_written() || aggregate.merge.copied() != Some(Merge::Flat) {
            no_effect(cx, "collision", &aggregate.collision, "only merge = \"flat\" can have two members of one name");
        }
        let raw = aggregate.sources().iter().find(|source| source.value.format.copied() == Some(Format::Raw));
        let Some(raw) = raw else { return };
        let unfit = [
            (aggregate.sources().len() > 1, Some(raw.span.clone()), "it is not the only source"),
            (aggregate.respond.is_written(), aggregate.respond.key_span(), "`respond` lays out JSON"),
            (aggregate.merge.copied() == Some(Merge::Flat), aggregate.merge.span(), "\"flat\" puts JSON together"),
            (aggregate.meta.copied() == Some(true), aggregate.meta.span(), "`_meta` is a part of JSON"),
        ];
        for (_, span, why) in unfit.into_iter().filter(|(unfit, ..)| *unfit) {
            let message = format!("the answer of `{}` cannot be passed through as it is: {why}", raw.name);
            let problem =
                Problem::error(Code::Conflict, span, message).related(raw.value.format.span(), "passed through here");
            cx.report(problem.help("write format = \"auto\" to make JSON of it"));
        }
    }

    /// Requests that share an answer must not differ in anything that the answer is made from.
    fn coalesce(&self, cx: &mut Decoder<'_>) {
        let Some((keys, span)) = self.aggregate.coalesce.written() else { return };
        for (index, key) in keys.iter().enumerate().filter(|(index, key)| keys[..*index].contains(key)) {
            let shown = key.show().unwrap_or_default();
            let problem = Problem::error(Code::Duplicate, span.clone(), format!("{shown} is written twice"));
            cx.report(problem.help(format!("keep one: number {} can go", index + 1)));
        }
        let mut missing: Vec<(CoalesceKey, Span)> = Vec::new();
        for (written, place) in self.aggregate.references() {
            let needed = match self.names.resolve(written, place) {
                Ok(Reference::Parameter(_)) => CoalesceKey::Path,
                Ok(Reference::Query(_)) => CoalesceKey::Query,
                Ok(Reference::Body(_)) => CoalesceKey::Body,
                Ok(Reference::Header(name)) => CoalesceKey::Header(name),
                _ => continue,
            };
            missing.push((needed, written.at.clone()));
        }
        for source in self.aggregate.sources() {
            for name in source.value.forward_headers.get().into_iter().flatten() {
                missing.push((CoalesceKey::Header(name.value.0.clone()), name.span.clone()));
            }
        }
        missing.retain(|(key, _)| !keys.contains(key) && !always_counts(key));
        let mut seen = Vec::new();
        for (key, at) in missing {
            if seen.contains(&key) {
                continue;
            }
            let shown = key.show().unwrap_or_default();
            let message = format!("requests that differ in {shown} would share one answer, which is made from it");
            let problem = Problem::error(Code::Conflict, span.clone(), message).related(Some(at), "used here");
            cx.report(problem.help(format!("add {shown} to `coalesce`")));
            seen.push(key);
        }
    }

    /// A source that nothing needs.
    fn unused(&self, cx: &mut Decoder<'_>) {
        let Some(respond) = self.aggregate.respond.get() else { return };
        let references = respond.references();
        let used = |place: &Reference, index: usize| match place {
            Reference::Source(source, _) => *source == index,
            Reference::Winner(_) => true,
            _ => false,
        };
        let placed: Vec<Reference> =
            references.iter().filter_map(|written| self.names.resolve(written, Place::Respond).ok()).collect();
        // A reference that is wrong may have meant any of them.
        if placed.len() < references.len() {
            return;
        }
        let needed: BTreeSet<usize> = self.graph.after.iter().flatten().copied().collect();
        for (index, source) in self.aggregate.sources().iter().enumerate() {
            let idle = !needed.contains(&index)
                && !self.graph.is_standby(index)
                && !placed.iter().any(|reference| used(reference, index));
            if idle {
                let message = format!("source `{}` is called, but nothing uses its answer", source.name);
                let problem = Problem::warning(Code::Unused, source.span.clone(), message)
                    .related(self.aggregate.respond.key_span(), "the answer");
                cx.report(problem.help(format!("put `{{{}}}` into `respond`, or take the source out", source.name)));
            }
        }
    }

    fn report_cycle(&self, cx: &mut Decoder<'_>, cycle: &[usize]) {
        let sources = self.aggregate.sources();
        let names: Vec<&str> = cycle.iter().map(|index| sources[*index].name.as_str()).collect();
        let message = format!("these sources wait for each other: {}", names.join(" -> "));
        let mut problem = Problem::error(Code::Conflict, self.edge(cycle[0], cycle[1]), message);
        for pair in cycle[1..].windows(2) {
            let what = format!("`{}` waits for `{}`", sources[pair[0]].name, sources[pair[1]].name);
            problem = problem.related(Some(self.edge(pair[0], pair[1])), what);
        }
        cx.report(problem.help("one of them has to do without the other's answer"));
    }

    /// Where one source says that it waits for another.
    fn edge(&self, from: usize, to: usize) -> Span {
        let source = &self.aggregate.sources()[from];
        let uses = self.aggregate.references().into_iter().find(|(written, place)| {
            let own = matches!(place, Place::Source { index, .. } | Place::List { index } if *index == from);
            own && matches!(self.names.resolve(written, *place), Ok(Reference::Source(index, _)) if index == to)
        });
        let stand_in = source.value.on_error.span();
        uses.map(|(written, _)| written.at.clone()).or(stand_in).unwrap_or(source.span.clone())
    }

    /// A source by itself.
    fn source(&self, cx: &mut Decoder<'_>, index: usize) {
        let item = &self.aggregate.sources()[index];
        self.on_error(cx, index, item);
        check_items(cx, &item.value);
        check_request(cx, item);
        check_answer(cx, item);
    }

    fn on_error(&self, cx: &mut Decoder<'_>, index: usize, item: &NamedItem<Source>) {
        let source = &item.value;
        let Some((on_error, span)) = source.on_error.written() else { return };
        if let WrittenOnError::Source(name) = on_error {
            self.stand_in(cx, index, item, &name.value, &name.span);
        }
        let stands = matches!(on_error, WrittenOnError::Embed | WrittenOnError::Omit | WrittenOnError::Value(_));
        if stands && source.required.copied() == Some(true) {
            let message = format!("`{}` is required, so nothing can stand in its place", item.name);
            let problem =
                Problem::error(Code::Conflict, span, message).related(source.required.key_span(), "required here");
            cx.report(problem.help("take `required` or `on_error` out"));
        }
        if !matches!(on_error, WrittenOnError::Embed) {
            no_effect(cx, "error_message", &source.error_message, "`on_error` is not \"embed\"");
        }
    }

    fn stand_in(&self, cx: &mut Decoder<'_>, index: usize, item: &NamedItem<Source>, name: &str, span: &Span) {
        let problem = |code, message: String| Problem::error(code, span.clone(), message);
        let names = self.aggregate.sources().iter().map(|source| source.name.as_str());
        match self.aggregate.position(name) {
            Some(other) if other == index => cx.report(
                problem(Code::Conflict, format!("`{name}` cannot stand in for itself"))
                    .help("name another source; a connection that fails is tried again by the upstream"),
            ),
            Some(_) => {}
            None => {
                let others: Vec<&str> = names.filter(|other| *other != item.name).collect();
                let unknown = problem(Code::UnknownName, format!("there is no source `{name}` in this aggregate"));
                cx.report(match nearest(name, others.iter().copied()) {
                    Some(near) => unknown.help(format!("did you mean `{near}`?")),
                    None => unknown.help(format!("add [route.{}.aggregate.source.{name}]", self.route.name)),
                });
            }
        }
        if item.value.for_each.is_written() {
            let message = "one source cannot stand in for the items of a list";
            let conflict = Problem::error(Code::Conflict, span.clone(), message)
                .related(item.value.for_each.key_span(), "the list");
            cx.report(conflict.help("write \"embed\", \"omit\" or { value = ... }: it holds for each item"));
        }
    }
}

/// These count for every shared answer, so that one client never gets what was made for another.
fn always_counts(key: &CoalesceKey) -> bool {
    matches!(key, CoalesceKey::Header(name) if name == "authorization" || name == "cookie")
}

/// Keys about items, without any.
fn check_items(cx: &mut Decoder<'_>, source: &Source) {
    if !source.for_each.is_written() {
        let why = "the source has no `for_each`";
        no_effect(cx, "concurrency", &source.concurrency, why);
        no_effect(cx, "max_items", &source.max_items, why);
        no_effect(cx, "too_many", &source.too_many, why);
    }
}

/// What a source sends.
fn check_request(cx: &mut Decoder<'_>, item: &NamedItem<Source>) {
    let source = &item.value;
    if let (Some(method), true) = (source.method.get(), source.body.is_written())
        && matches!(method.0.as_str(), "GET" | "HEAD")
    {
        let message = format!("a {} request with a body: many servers ignore or refuse it", method.0);
        let problem = Problem::warning(Code::NoEffect, source.body.key_span(), message);
        cx.report(problem.help("add method = \"POST\", or send the values with `query`"));
    }
    let forwarded = source.forward_headers.get().map_or(&[][..], Vec::as_slice);
    for (index, name) in forwarded.iter().enumerate() {
        let header = &name.value.0;
        let set = source.headers.get().into_iter().flat_map(|headers| &headers.0).find(|set| set.name == *header);
        let first = forwarded[..index].iter().find(|first| first.value == name.value);
        let other = first.map(|first| first.span.clone()).or(set.map(|set| set.name_span.clone()));
        if let Some(other) = other {
            let message = format!("the header `{header}` is sent twice");
            let problem = Problem::error(Code::Duplicate, name.span.clone(), message).related(Some(other), "also here");
            cx.report(problem.help("keep one"));
        }
    }
}

/// How an answer is read.
fn check_answer(cx: &mut Decoder<'_>, item: &NamedItem<Source>) {
    let source = &item.value;
    if let Some((statuses, span)) = source.success.written()
        && statuses.is_empty()
    {
        let problem = Problem::error(Code::InvalidValue, span, "no status would be an answer");
        cx.report(problem.help("write the statuses: success = [\"200-299\"]"));
    }
    let (why, raw) = match source.format.copied() {
        Some(Format::Raw) => ("is passed through as it is", true),
        Some(Format::Text) => ("is one string", false),
        _ => return,
    };
    let mut needs_json = vec![
        ("select", source.select.key_span().filter(|_| source.select.is_written())),
        ("keep", source.keep.key_span().filter(|_| source.keep.is_set())),
        ("drop", source.drop.key_span().filter(|_| source.drop.is_set())),
        ("rename", source.rename.key_span().filter(|_| source.rename.is_set())),
    ];
    if raw {
        needs_json.push(("for_each", source.for_each.key_span()));
    }
    for (name, span) in needs_json.into_iter().filter_map(|(name, span)| Some((name, span?))) {
        let message = format!("`{name}` needs JSON, but the answer of `{}` {why}", item.name);
        let problem = Problem::error(Code::Conflict, span, message).related(source.format.span(), "its format");
        cx.report(problem.help(format!("take `{name}` or `format` out")));
    }
}

/// Routes that give results, and routes whose results somebody has to give.
pub fn check_results(cx: &mut Decoder<'_>, root: &Root) {
    let givers: Vec<&NamedItem<Route>> =
        root.routes().iter().filter(|route| route.value.results_of.is_written()).collect();
    for (index, giver) in givers.iter().enumerate() {
        check_giver(cx, root, giver);
        let (name, span) = match giver.value.results_of.written() {
            Some(written) => written,
            None => continue,
        };
        if let Some(first) = givers[..index].iter().find(|first| first.value.results_of.get() == Some(name)) {
            let message = format!("two routes give the results of `{name}`");
            let problem =
                Problem::error(Code::Duplicate, span, message).related(first.value.results_of.span(), "the other one");
            cx.report(problem.help("keep one: clients are sent to a single place"));
        }
    }
    for route in root.routes() {
        let Some(aggregate) = route.value.aggregate.get().filter(|aggregate| aggregate.background_on().is_some())
        else {
            continue;
        };
        if root.results_path(&route.name).is_none()
            && !givers.iter().any(|giver| giver.value.results_of.get() == Some(&route.name))
        {
            let message = format!("nobody can fetch the results of route `{}`", route.name);
            let problem = Problem::error(Code::MissingKey, aggregate.background.key_span(), message);
            let help = format!("add a route with path = \"/results/{{id}}\" and results_of = \"{}\"", route.name);
            cx.report(problem.help(help));
        }
    }
}

fn check_giver(cx: &mut Decoder<'_>, root: &Root, giver: &NamedItem<Route>) {
    let path = &giver.value.path;
    if let Some((pattern, span)) = path.written()
        && !matches!(super::super::elements::route::known_parameters(pattern).as_slice(), [only] if *only != "rest")
    {
        let message = "a path for results needs one parameter: the id of the result";
        cx.report(Problem::error(Code::Conflict, span, message).help("write a path such as \"/results/{id}\""));
    }
    if let Some((methods, span)) = giver.value.methods.written()
        && !methods.iter().any(|method| method.0 == "GET")
    {
        let problem =
            Problem::error(Code::Conflict, span, "results are fetched with GET, which this route does not take");
        cx.report(problem.help("add \"GET\" to `methods`, or leave them out"));
    }
    let Some((name, span)) = giver.value.results_of.written() else { return };
    let Some(worker) = root.routes().iter().find(|route| route.name == *name) else {
        let problem = Problem::error(Code::UnknownName, span, format!("there is no route `{name}`"));
        let in_background = |route: &&NamedItem<Route>| {
            route.value.aggregate.get().is_some_and(|aggregate| aggregate.background_on().is_some())
        };
        let names = root.routes().iter().filter(in_background).map(|route| route.name.as_str());
        cx.report(match nearest(name, names) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help("name a route with an aggregate that has `background = true`"),
        });
        return;
    };
    let works = worker.value.aggregate.get().is_some_and(|aggregate| {
        aggregate.background_on().is_some()
            || (aggregate.background.is_written() && aggregate.background.get().is_none())
    });
    if !works {
        let message = format!("route `{name}` does not work in the background, so it leaves no results");
        let problem = Problem::error(Code::Conflict, span, message).related(Some(worker.span.clone()), "the route");
        cx.report(problem.help(format!("add `background = true` to [route.{name}.aggregate]")));
    }
}
