//! `[route.NAME.aggregate]`: one request answered from many upstreams.

use std::sync::Arc;
use std::time::Duration;

use crate::config::aggregate::names::{Names, Place};
use crate::config::decode::{Spot, element};
use crate::config::describe::{DAY, GIB, MILLISECOND, SECOND};
use crate::config::model::aggregate::{
    self as model, BodyShape, CoalesceKey, Collision, Format, HeaderTemplate, JsonPath, Node, OnError, Piece,
    Reference, RequestBody, Strategy, Template, TooMany,
};
use crate::config::model::{PathPattern, Secret, StatusRange, Upstream};
use crate::config::value::aggregate::{
    ErrorMessage, ForwardedHeader, ListReference, Merge, QueryTemplates, Renames, SourceHeaderValue, SourceHeaders,
    SourcePath, StrategyWord, WrittenOnError,
};
use crate::config::value::container::{Named, NamedItem, Switch};
use crate::config::value::http::Method;
use crate::config::value::quantity::Size;
use crate::config::value::template::{Layout, TemplateText, WrittenPiece, WrittenReference, json_string};

element! {
    /// One request answered from several upstreams at once. What goes wrong with a source is said in its part.
    pub struct Aggregate {
        /// The body: any TOML, with "{user1}" or "{user1.name}" where a source's answer goes. By default `merge` decides.
        respond: Layout = none, instead_of(&["response", "template", "body"]), example("{ users = [\"{user1}\", \"{user2}\"], page = \"{query.page}\" }");
        /// Without `respond`: "keyed" is an object with a member for each source, "flat" has all their members in one.
        merge: Merge = "keyed";
        /// With "flat", when two sources have a member of the same name: "error" (502), "first" or "last" in this file.
        collision: Collision = "error", instead_of(&["on_collision", "conflict"]);
        /// "all" waits for every source, "first" for the first usable answer, "quorum" for some, "fallback" asks one after the other.
        strategy: StrategyWord = "all", instead_of(&["mode"]);
        /// With strategy = "quorum": usable answers that are enough.
        quorum: usize = none, between(1, MOST_SOURCES), example("2");
        /// Status of an answer in which a source is missing; 206 tells clients that look at nothing else.
        partial_status: u16 = 200, between(200, 299);
        /// Say in the body, as `_meta`, what became of each source.
        meta: bool = false;
        /// Send `Server-Timing`: browsers show it in their developer tools, and so can anybody.
        server_timing: bool = false;
        /// Send each part as it completes to clients that accept `application/x-ndjson` or `text/event-stream`.
        stream: bool = true, instead_of(&["streaming"]);
        /// Bytes of all answers together; a source whose answer goes beyond it fails.
        max_bytes: Size = "16MiB", between(1, 64 * GIB);
        /// Let identical requests share one answer: what makes them identical. `Authorization` and `Cookie` always count.
        coalesce: Vec<CoalesceKey> = none, instead_of(&["collapse", "dedupe"]), example("[\"path\", \"query\", \"header.accept-language\"]");
        /// Answer 202 at once and keep the result, for a route with `results_of`: `true`, or a table.
        background: Switch<Background> = none, instead_of(&["async", "detach"]), example("true");
        /// What is called. Answers are put together in this order, whoever answers first.
        source: Named<Source> = required, instead_of(&["sources", "backend", "backends"]), example("{ user1 = { upstream = \"users\", path = \"/users/1\" } }");
    }
}

element! {
    /// Work that goes on after its request was answered with 202.
    pub struct Background {
        /// How long a result can be fetched, from the end of the work.
        keep: Duration = "10m", between(SECOND, 7 * DAY), instead_of(&["ttl"]);
        /// Work that runs at once. Beyond it requests are refused.
        max_running: usize = 64, between(1, 100_000);
        /// Results that are kept at once. Beyond it the oldest go.
        max_results: usize = 1000, between(1, 1_000_000);
        /// Bytes of the kept results. Beyond it the oldest go.
        max_bytes: Size = "64MiB", between(1, 64 * GIB);
    }
}

element! {
    /// A part of the answer. Its values may hold references: "{id}" of the route's path, "{query.page}", "{header.x-tenant}", "{body.ids}", "{user1.id}".
    pub struct Source {
        /// The upstream that is asked.
        upstream: String = required, instead_of(&["backend", "cluster", "to"]), example("\"users\"");
        /// Method of the request to it.
        method: Method = "GET";
        /// Path of the request to it. A value that is put in stays within its segment.
        path: SourcePath = required, instead_of(&["url", "uri", "url_pattern"]), example("\"/users/{id}\"");
        /// Its query. A parameter that is one reference is left out when there is nothing behind the reference.
        query: QueryTemplates = {}, instead_of(&["params", "querystring"]), example("{ page = \"{query.page}\" }");
        /// Its headers. Secrets as "${NAME}", { env = "NAME" } or { file = "PATH" }.
        headers: SourceHeaders = {}, instead_of(&["header", "set_headers"]), example("{ \"x-tenant\" = \"{header.x-tenant}\", authorization = \"${TOKEN}\" }");
        /// Headers of the client's request that are sent on as they came. No others are.
        forward_headers: Vec<Spot<ForwardedHeader>> = [], instead_of(&["input_headers", "pass_headers"]), example("[\"authorization\", \"accept-language\"]");
        /// Its body: any TOML becomes JSON; text is sent as text.
        body: Layout = none, instead_of(&["json", "data"]), example("{ ids = \"{body.ids}\", limit = 10 }");
        /// The time for this source with all its items, within the deadline. By default what is left of the deadline.
        timeout: Duration = none, between(MILLISECOND, DAY), instead_of(&["deadline"]), example("\"2s\"");
        /// Without it there is no answer: the request fails as soon as this source does.
        required: bool = false;
        /// In the place of a failed source: "embed" (`{"error": "..."}`), "omit", "fail", { value = ... } or { source = "NAME" }.
        on_error: WrittenOnError = "embed", instead_of(&["fallback", "default"]), example("{ value = { stars = 0 } }");
        /// The text for "embed"; "{name}" is the source, "{error}" why it failed.
        error_message: ErrorMessage = "Failed to fetch {name}: {error}";
        /// Statuses that are answers: single ones or ranges. 204 and 205 are null. Redirects are never followed.
        success: Vec<StatusRange> = ["200-299"], instead_of(&["expect", "statuses", "status"]);
        /// Bytes of one answer, decompressed.
        max_body: Size = "1MiB", between(1, 64 * GIB);
        /// Nesting of one answer's JSON.
        max_depth: usize = 64, between(1, 512);
        /// "json", "text" (a string), "auto" (by its `Content-Type`) or "raw" (passed through, for a single source).
        format: Format = "json", instead_of(&["encoding"]);
        /// A list, as one reference: one call for each distinct value in it, which is "{item}" in this source's templates.
        for_each: ListReference = none, instead_of(&["foreach", "items", "over"]), example("\"{body.ids}\"");
        /// With `for_each`: calls at once.
        concurrency: usize = 8, between(1, 10_000), instead_of(&["max_concurrency", "parallel"]);
        /// With `for_each`: the most values.
        max_items: usize = 100, between(1, 100_000);
        /// With more than `max_items`: "cut" calls for the first ones and says so, "refuse" answers 422.
        too_many: TooMany = "cut";
        /// Take only this part of the answer: "data.items", or a JSON Pointer such as "/data/items".
        select: JsonPath = none, instead_of(&["target"]), example("\"data.items\"");
        /// Only these parts stay; `*` is every element.
        keep: Vec<Spot<JsonPath>> = [], instead_of(&["allow", "whitelist", "fields"]), example("[\"id\", \"items.*.name\"]");
        /// These parts go.
        drop: Vec<Spot<JsonPath>> = [], instead_of(&["deny", "blacklist", "remove"]), example("[\"internal\"]");
        /// New names: the last one of each path.
        rename: Renames = {}, instead_of(&["mapping"]), example("{ \"items.*.id\" = \"key\" }");
    }
}

/// Each source is a future, a row in the access log and a series in the metrics.
pub const MOST_SOURCES: u64 = 1_000;

/// What an aggregate is resolved with, besides itself.
pub struct Around<'a> {
    pub path: Option<&'a PathPattern>,
    pub upstreams: &'a [Arc<Upstream>],
    /// The path of the route that gives this one's results.
    pub results: Option<&'a PathPattern>,
}

impl Aggregate {
    pub fn sources(&self) -> &[NamedItem<Source>] {
        self.source.get().map_or(&[], |named| named.items.as_slice())
    }

    /// Every reference with where it stands.
    pub fn references(&self) -> Vec<(&WrittenReference, Place)> {
        let mut all = Vec::new();
        for (index, source) in self.sources().iter().enumerate() {
            all.extend(source.value.references(index));
        }
        if let Some(respond) = self.respond.get() {
            all.extend(respond.references().into_iter().map(|reference| (reference, Place::Respond)));
        }
        all
    }

    /// The index of a source.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.sources().iter().position(|source| source.name == name)
    }

    /// The index of the source that stands in for one that failed.
    pub fn stand_in(&self, source: &Source) -> Option<usize> {
        match source.on_error.get()? {
            WrittenOnError::Source(name) => self.position(&name.value),
            _ => None,
        }
    }

    /// The aggregate as used; `None` when something in it is wrong, which the checks report.
    pub fn resolve(&self, around: &Around<'_>) -> Option<model::Aggregate> {
        let names = Names::new(around.path, None, self);
        let standby: Vec<usize> = self.sources().iter().filter_map(|source| self.stand_in(&source.value)).collect();
        let mut sources = Vec::new();
        for (index, item) in self.sources().iter().enumerate() {
            let mut source = self.resolve_source(index, item, &names, around)?;
            source.standby = standby.contains(&index);
            sources.push(Arc::new(source));
        }
        Some(model::Aggregate {
            sources,
            strategy: self.resolve_strategy()?,
            body: self.resolve_body(&names)?,
            partial_status: self.partial_status.copied()?,
            meta: self.meta.copied()?,
            server_timing: self.server_timing.copied()?,
            stream: self.stream.copied()?,
            max_bytes: self.max_bytes.copied()?.0,
            coalesce: match self.coalesce.is_written() {
                true => Some(model::Coalesce { key: self.coalesce.cloned()? }),
                false => None,
            },
            background: match self.background_on() {
                Some(background) => Some(background.resolve(around.results?)?),
                None => None,
            },
        })
    }

    /// The settings of the background, when it is on.
    pub fn background_on(&self) -> Option<&Background> {
        self.background.get()?.0.as_ref()
    }

    fn resolve_strategy(&self) -> Option<Strategy> {
        Some(match self.strategy.copied()? {
            StrategyWord::All => Strategy::All,
            StrategyWord::First => Strategy::First,
            StrategyWord::Quorum => Strategy::Quorum(self.quorum.copied()?),
            StrategyWord::Fallback => Strategy::Fallback,
        })
    }

    fn resolve_body(&self, names: &Names<'_>) -> Option<BodyShape> {
        if self.respond.is_written() {
            return Some(BodyShape::Respond(resolve_layout(self.respond.get()?, names, Place::Respond)?));
        }
        Some(match self.merge.copied()? {
            Merge::Keyed => BodyShape::Keyed,
            Merge::Flat => BodyShape::Flat(self.collision.copied()?),
        })
    }

    fn resolve_source(
        &self,
        index: usize,
        item: &NamedItem<Source>,
        names: &Names<'_>,
        around: &Around<'_>,
    ) -> Option<model::Source> {
        let source = &item.value;
        let place = source.place(index);
        let upstream = around.upstreams.iter().find(|upstream| Some(&upstream.name) == source.upstream.get())?;
        let templates = |template: &TemplateText| resolve_template(template, names, place);
        let query = source.query.get()?.0.iter().map(|(name, value)| Some((name.clone(), templates(value)?)));
        let paths = |paths: &Vec<Spot<JsonPath>>| paths.iter().map(|path| path.value.clone()).collect();
        Some(model::Source {
            name: item.name.clone(),
            upstream: Arc::clone(upstream),
            method: source.method.get()?.0.clone(),
            path: templates(&source.path.get()?.0)?,
            query: query.collect::<Option<_>>()?,
            headers: source.resolve_headers(names, place)?,
            body: source.resolve_body(names, place)?,
            timeout: if source.timeout.is_written() { Some(source.timeout.copied()?) } else { None },
            required: source.required.copied()?,
            on_error: self.resolve_on_error(source)?,
            error_message: source.error_message.get()?.0.clone(),
            success: source.success.cloned()?,
            max_body_bytes: source.max_body.copied()?.0,
            max_depth: source.max_depth.copied()?,
            format: source.format.copied()?,
            for_each: source.resolve_for_each(index, names)?,
            select: if source.select.is_written() { Some(source.select.cloned()?) } else { None },
            keep: paths(source.keep.get()?),
            drop: paths(source.drop.get()?),
            rename: source.rename.get()?.0.clone(),
            after: source.after(index, names),
            standby: false,
        })
    }

    fn resolve_on_error(&self, source: &Source) -> Option<OnError> {
        Some(match source.on_error.get()? {
            // What a required source fails with is what the request fails with.
            WrittenOnError::Embed if source.required.copied()? => OnError::Fail,
            WrittenOnError::Embed => OnError::Embed,
            WrittenOnError::Omit => OnError::Omit,
            WrittenOnError::Fail => OnError::Fail,
            WrittenOnError::Value(value) => OnError::Value(value.json.clone()),
            WrittenOnError::Source(_) => OnError::Source(self.stand_in(source)?),
        })
    }
}

impl Background {
    fn resolve(&self, results: &PathPattern) -> Option<model::Background> {
        Some(model::Background {
            results: results.clone(),
            keep: self.keep.copied()?,
            max_running: self.max_running.copied()?,
            max_results: self.max_results.copied()?,
            max_bytes: self.max_bytes.copied()?.0,
        })
    }
}

impl Source {
    /// Where the templates of this source stand.
    pub fn place(&self, index: usize) -> Place {
        Place::Source { index, for_each: self.for_each.is_written() }
    }

    /// Every reference in its templates.
    fn references(&self, index: usize) -> Vec<(&WrittenReference, Place)> {
        let mut own: Vec<&WrittenReference> = Vec::new();
        own.extend(self.path.get().into_iter().flat_map(|path| path.0.references()));
        own.extend(self.query.get().into_iter().flat_map(|query| &query.0).flat_map(|(_, value)| value.references()));
        for header in self.headers.get().into_iter().flat_map(|headers| &headers.0) {
            if let SourceHeaderValue::Template(value) = &header.value {
                own.extend(value.references());
            }
        }
        own.extend(self.body.get().into_iter().flat_map(Layout::references));
        let place = self.place(index);
        let mut all: Vec<(&WrittenReference, Place)> = own.into_iter().map(|reference| (reference, place)).collect();
        let list = self.for_each.get().into_iter().flat_map(|list| list.0.references());
        all.extend(list.map(|reference| (reference, Place::List { index })));
        all
    }

    /// The sources whose answers it uses.
    pub fn after(&self, index: usize, names: &Names<'_>) -> Vec<usize> {
        let references = self.references(index);
        let used = references.into_iter().filter_map(|(written, place)| match names.resolve(written, place) {
            Ok(Reference::Source(source, _)) => Some(source),
            _ => None,
        });
        used.collect::<std::collections::BTreeSet<usize>>().into_iter().collect()
    }

    fn resolve_headers(&self, names: &Names<'_>, place: Place) -> Option<Vec<(String, HeaderTemplate)>> {
        let mut headers = Vec::new();
        for name in self.forward_headers.get()?.iter().map(|name| &name.value.0) {
            let template = Template { pieces: vec![Piece::Value(Reference::Header(name.clone()))] };
            headers.push((name.clone(), HeaderTemplate::Template(template)));
        }
        for header in &self.headers.get()?.0 {
            let value = match &header.value {
                SourceHeaderValue::Template(text) => HeaderTemplate::Template(resolve_template(text, names, place)?),
                SourceHeaderValue::Fixed(value) => fixed_header(value),
            };
            headers.push((header.name.clone(), value));
        }
        Some(headers)
    }

    fn resolve_body(&self, names: &Names<'_>, place: Place) -> Option<Option<RequestBody>> {
        if !self.body.is_written() {
            return Some(None);
        }
        Some(Some(match self.body.get()? {
            Layout::Text(text) => RequestBody::Text(resolve_template(text, names, place)?),
            layout => RequestBody::Json(resolve_layout(layout, names, place)?),
        }))
    }

    fn resolve_for_each(&self, index: usize, names: &Names<'_>) -> Option<Option<model::ForEach>> {
        if !self.for_each.is_written() {
            return Some(None);
        }
        let list = names.resolve(self.for_each.get()?.0.only_reference()?, Place::List { index }).ok()?;
        Some(Some(model::ForEach {
            list,
            concurrency: self.concurrency.copied()?,
            max_items: self.max_items.copied()?,
            too_many: self.too_many.copied()?,
        }))
    }
}

/// Text that stands in the file is a template of one piece; what came from elsewhere stays a secret.
fn fixed_header(value: &Secret) -> HeaderTemplate {
    if value.is_secret() {
        return HeaderTemplate::Fixed(value.clone());
    }
    HeaderTemplate::Template(Template { pieces: vec![Piece::Literal(value.reveal().to_owned())] })
}

fn resolve_template(text: &TemplateText, names: &Names<'_>, place: Place) -> Option<Template> {
    let pieces = text.pieces.iter().map(|piece| match piece {
        WrittenPiece::Literal(literal) => Some(Piece::Literal(literal.clone())),
        WrittenPiece::Reference(written) => names.resolve(written, place).ok().map(Piece::Value),
    });
    Some(Template { pieces: pieces.collect::<Option<_>>()? })
}

/// A string that is one reference is the value itself; with text around it, it is text.
fn resolve_layout(layout: &Layout, names: &Names<'_>, place: Place) -> Option<Node> {
    Some(match layout {
        Layout::Object(members) => {
            let member = |(name, value): &(String, Layout)| Some((name.clone(), resolve_layout(value, names, place)?));
            Node::Object(members.iter().map(member).collect::<Option<_>>()?)
        }
        Layout::List(values) => {
            Node::List(values.iter().map(|value| resolve_layout(value, names, place)).collect::<Option<_>>()?)
        }
        Layout::Literal(json) => Node::Literal(json.clone()),
        Layout::Text(text) => match (text.only_reference(), text.literal()) {
            (Some(written), _) => Node::Value(names.resolve(written, place).ok()?),
            (None, Some(literal)) => Node::Literal(json_string(literal)),
            (None, None) => Node::Text(resolve_template(text, names, place)?),
        },
    })
}
