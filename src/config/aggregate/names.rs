//! The names that templates can use, and what is wrong with one that does not exist.

use super::super::diagnostic::{Code, Problem};
use super::super::elements::aggregate::Aggregate;
use super::super::elements::route::known_parameters;
use super::super::model::PathPattern;
use super::super::model::aggregate::{JsonPath, Reference};
use super::super::source::Span;
use super::super::suggest::nearest;
use super::super::value::aggregate::StrategyWord;
use super::super::value::http::parse_header_name;
use super::super::value::json_path::parse_json_path;
use super::super::value::template::WrittenReference;

/// Names that mean something of their own in every template.
pub const RESERVED: [&str; 6] = ["query", "header", "body", "item", "winner", "rest"];

/// Where a template stands: what it can use depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A template of the source with this index.
    Source {
        index: usize,
        for_each: bool,
    },
    /// The list of a source with `for_each`.
    List {
        index: usize,
    },
    Respond,
}

/// What a route's templates can refer to.
pub struct Names<'a> {
    parameters: Vec<&'a str>,
    sources: Vec<&'a str>,
    strategy: StrategyWord,
    path_span: Option<Span>,
}

impl<'a> Names<'a> {
    pub fn new(path: Option<&'a PathPattern>, path_span: Option<Span>, aggregate: &'a Aggregate) -> Self {
        Self {
            parameters: path.map(known_parameters).unwrap_or_default(),
            sources: aggregate.sources().iter().map(|source| source.name.as_str()).collect(),
            strategy: aggregate.strategy.copied().unwrap_or(StrategyWord::All),
            path_span,
        }
    }

    pub fn parameters(&self) -> &[&'a str] {
        &self.parameters
    }

    /// What a reference stands for, or why it stands for nothing.
    pub fn resolve(&self, written: &WrittenReference, place: Place) -> Lookup<Reference> {
        match written.head.as_str() {
            "query" => self.named(written, "page").map(|name| Reference::Query(name.to_owned())),
            "header" => {
                let name = self.named(written, "accept-language")?;
                let name = parse_header_name(name).map_err(|_| {
                    let problem = error(written, Code::InvalidValue, format!("{name:?} is not a header name"));
                    Box::new(problem.help("letters, digits and `-`, as in \"{header.x-tenant}\""))
                })?;
                Ok(Reference::Header(name))
            }
            "body" => path(written).map(Reference::Body),
            "item" => self.item(written, place),
            "winner" => self.winner(written, place),
            name if self.parameters.contains(&name) => parameter(written),
            "rest" => refuse(
                error(written, Code::UnknownName, "the route's path has no `{rest}`")
                    .related(self.path_span.clone(), "the route's path")
                    .help("`{rest}` is what a `/*` at the end of the path matches"),
            ),
            name => match self.sources.iter().position(|source| *source == name) {
                Some(index) => self.source(written, place, index),
                None => refuse(self.unknown(written, place)),
            },
        }
    }

    /// The name after the dot of `{query.page}`.
    fn named<'w>(&self, written: &'w WrittenReference, example: &str) -> Lookup<&'w str> {
        match written.tail.strip_prefix('.') {
            Some(name) if !name.is_empty() => Ok(name),
            _ => refuse(
                error(written, Code::InvalidValue, format!("`{}` does not say which", written.text()))
                    .help(format!("write its name, as in \"{{{}.{example}}}\"", written.head)),
            ),
        }
    }

    fn item(&self, written: &WrittenReference, place: Place) -> Lookup<Reference> {
        match place {
            Place::Source { for_each: true, .. } => path(written).map(Reference::Item),
            _ => refuse(
                error(written, Code::UnknownName, "there is an `{item}` only in a source with `for_each`")
                    .help("add `for_each = \"{body.ids}\"` to the source, or take the reference out"),
            ),
        }
    }

    fn winner(&self, written: &WrittenReference, place: Place) -> Lookup<Reference> {
        if place != Place::Respond {
            return refuse(
                error(written, Code::UnknownName, "there is a `{winner}` only in `respond`")
                    .help("name a source to use its answer"),
            );
        }
        match self.strategy {
            StrategyWord::First | StrategyWord::Fallback => path(written).map(Reference::Winner),
            StrategyWord::All | StrategyWord::Quorum => refuse(
                error(written, Code::Conflict, "there is a `{winner}` only with one answer out of several")
                    .help("add strategy = \"first\" or \"fallback\", or name the sources"),
            ),
        }
    }

    fn source(&self, written: &WrittenReference, place: Place, index: usize) -> Lookup<Reference> {
        let own = matches!(place, Place::Source { index: at, .. } | Place::List { index: at } if at == index);
        if own {
            let message = format!("source `{}` would wait for its own answer", written.head);
            return refuse(error(written, Code::Conflict, message).help("use the request or another source"));
        }
        path(written).map(|path| Reference::Source(index, path))
    }

    fn unknown(&self, written: &WrittenReference, place: Place) -> Problem {
        let problem = error(written, Code::UnknownName, format!("nothing is called `{{{}}}` here", written.head));
        let own = match place {
            Place::Source { index, .. } | Place::List { index } => self.sources.get(index).copied(),
            Place::Respond => None,
        };
        let mut known = self.parameters.clone();
        known.extend(self.sources.iter().filter(|source| Some(**source) != own));
        let mut words = known.clone();
        words.extend(["query", "header", "body"]);
        match place {
            Place::Source { for_each: true, .. } => words.push("item"),
            Place::Respond if matches!(self.strategy, StrategyWord::First | StrategyWord::Fallback) => {
                words.push("winner");
            }
            _ => {}
        }
        let shown: Vec<String> = words.iter().map(|word| show_name(word)).collect();
        let problem = problem.expected(format!("one of {}", shown.join(", ")));
        match nearest(&written.head, words) {
            Some(name) => problem.help(format!("did you mean `{}`?", show_name(name))),
            None => problem.help("braces are references; for literal ones write `{{` and `}}`"),
        }
    }
}

/// What a name stands for; a problem is large, and rare.
type Lookup<T> = Result<T, Box<Problem>>;

fn refuse<T>(problem: Problem) -> Lookup<T> {
    Err(Box::new(problem))
}

fn show_name(name: &str) -> String {
    match name {
        "query" | "header" => format!("{{{name}.NAME}}"),
        _ => format!("{{{name}}}"),
    }
}

fn error(written: &WrittenReference, code: Code, message: impl Into<String>) -> Problem {
    Problem::error(code, written.at.clone(), message)
}

/// A parameter is text: there is nothing inside it.
fn parameter(written: &WrittenReference) -> Lookup<Reference> {
    if written.tail.is_empty() {
        return Ok(Reference::Parameter(written.head.clone()));
    }
    let message = format!("`{{{}}}` is a part of the path and has no parts itself", written.head);
    refuse(error(written, Code::InvalidValue, message).help(format!("write \"{{{}}}\"", written.head)))
}

/// The way into a JSON value that follows a name; none is the whole value.
fn path(written: &WrittenReference) -> Lookup<JsonPath> {
    let text = written.tail.strip_prefix('.').unwrap_or(&written.tail);
    if written.tail.is_empty() {
        return Ok(JsonPath::default());
    }
    parse_json_path(text).map_err(|mistake| {
        let message = format!("{text:?} {}", mistake.problem);
        let help = mistake.help.unwrap_or_else(|| "write names between dots, as in \"{body.items.*.id}\"".to_owned());
        Box::new(error(written, Code::InvalidValue, message).help(help))
    })
}
