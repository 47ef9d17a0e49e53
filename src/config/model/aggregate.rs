//! `[route.NAME.aggregate]`: one request answered from many upstreams, as the program uses it.
//!
//! Names are resolved: a source that a template mentions is an index into [`Aggregate::sources`], which are in the order
//! of the file. The graph has no cycle; templates only mention what exists.

use std::sync::Arc;
use std::time::Duration;

use super::{PathPattern, Secret, StatusRange, Upstream};

/// What is called for one request, and how the answers become one.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// In the order of the file.
    pub sources: Vec<Arc<Source>>,
    pub strategy: Strategy,
    pub body: BodyShape,
    /// Status of an answer in which a source is missing, 200 to 299.
    pub partial_status: u16,
    /// Put `_meta` into the body: what became of each source.
    pub meta: bool,
    /// Send `Server-Timing`.
    pub server_timing: bool,
    /// Send parts as they complete to clients that ask for `application/x-ndjson` or `text/event-stream`.
    pub stream: bool,
    /// Bytes of all answers together; the source whose answer goes beyond it fails.
    pub max_bytes: u64,
    pub coalesce: Option<Coalesce>,
    pub background: Option<Background>,
}

/// When an aggregate has what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Every source is waited for.
    All,
    /// The first usable answer wins; the others are cancelled.
    First,
    /// So many usable answers are enough; the others are cancelled.
    Quorum(usize),
    /// One after the other, in the order of the file, until an answer is usable.
    Fallback,
}

/// What the body of the answer looks like.
#[derive(Debug, Clone, PartialEq)]
pub enum BodyShape {
    /// An object with a member for each source. With `Strategy::First` and `Fallback`, the winner's value itself.
    Keyed,
    /// The members of all sources' objects in one object.
    Flat(Collision),
    /// As the configuration lays it out.
    Respond(Node),
}

/// Which member stays when two sources have one of the same name. Order is that of the file, never of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collision {
    /// The answer fails with a 502: the configuration promises that there are none.
    Error,
    First,
    Last,
}

/// A part of the response template.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Object(Vec<(String, Node)>),
    List(Vec<Node>),
    /// A value put in unchanged: `"{user1}"`, `"{user1.name}"`.
    Value(Reference),
    /// A string with values inside it: `"Hello {user1.name}"`.
    Text(Template),
    /// JSON text written as it is: numbers, booleans, strings without a reference.
    Literal(String),
}

/// Text with values in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    pub pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Literal(String),
    Value(Reference),
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A parameter of the route's path, or `rest`.
    Parameter(String),
    /// `{query.NAME}`: the first value, percent-decoded.
    Query(String),
    /// `{header.NAME}`, lower-case.
    Header(String),
    /// `{body.a.b}`: a part of the request's JSON body.
    Body(JsonPath),
    /// `{user1.a.b}`: a part of a source's answer, after its `select`, `keep`, `drop` and `rename`. An index.
    Source(usize, JsonPath),
    /// `{item.a}`: in a source with `for_each`, the element that this call is for.
    Item(JsonPath),
    /// `{winner.a}`: in `respond` with the strategies `first` and `fallback`.
    Winner(JsonPath),
}

/// A way into a JSON value: written `a.b.*.c` or as a JSON Pointer (RFC 6901), `/a/b/0`. Empty: the whole value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonPath {
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A member of an object; for an array, a decimal index.
    Key(String),
    /// `*`: every element of an array, or every member's value of an object.
    Each,
}

/// One part of the answer: a call, or one for each item of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub name: String,
    pub upstream: Arc<Upstream>,
    /// Upper-case.
    pub method: String,
    /// Begins with a slash. A value is percent-encoded into its segment.
    pub path: Template,
    /// In the order of the file. A parameter that is one reference to something that is not there is left out.
    pub query: Vec<(String, Template)>,
    /// Lower-case names. A field that is one reference to something that is not there is left out.
    pub headers: Vec<(String, HeaderTemplate)>,
    /// With its content type.
    pub body: Option<RequestBody>,
    /// For this source, all its attempts and its items; at most what is left of the route's deadline.
    pub timeout: Option<Duration>,
    /// Without it there is no answer: the request fails with this source's reason.
    pub required: bool,
    pub on_error: OnError,
    /// `{name}` and `{error}` are replaced: the text of the `error` member that stands in a failed source's place.
    pub error_message: String,
    /// Statuses that are answers; others are failures.
    pub success: Vec<StatusRange>,
    /// Bytes of one answer, after decompression.
    pub max_body_bytes: u64,
    /// Nesting of one answer's JSON.
    pub max_depth: usize,
    pub format: Format,
    pub for_each: Option<ForEach>,
    /// Take only this part of the answer, before everything else.
    pub select: Option<JsonPath>,
    /// Only these parts stay; empty: all.
    pub keep: Vec<JsonPath>,
    /// These parts go.
    pub drop: Vec<JsonPath>,
    /// The last name of each path becomes another, in place.
    pub rename: Vec<(JsonPath, String)>,
    /// Sources whose answers its templates use; indices, ascending.
    pub after: Vec<usize>,
    /// Some other source's `on_error` names it: it is called only then.
    pub standby: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderTemplate {
    Template(Template),
    /// From the environment or a file: never looked at for references.
    Fixed(Secret),
}

#[derive(Debug, Clone, PartialEq)]
pub enum RequestBody {
    /// Values are put in as JSON. Sent as `application/json`.
    Json(Node),
    /// Sent as `text/plain; charset=utf-8` unless a header says otherwise.
    Text(Template),
}

/// What stands in the place of a source that failed.
#[derive(Debug, Clone, PartialEq)]
pub enum OnError {
    /// `{"error": "..."}`.
    Embed,
    /// Nothing: the member or the element is left out.
    Omit,
    /// No answer at all.
    Fail,
    /// This JSON text.
    Value(String),
    /// The answer of another source; an index. What became of that one counts.
    Source(usize),
}

/// How an answer's body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    /// As one string.
    Text,
    /// By its `Content-Type`.
    Auto,
    /// Passed through with its content type: for an aggregate with one source.
    Raw,
}

/// One call for each distinct value of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ForEach {
    /// An array, or text with values between commas.
    pub list: Reference,
    /// Calls at once.
    pub concurrency: usize,
    pub max_items: usize,
    pub too_many: TooMany,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooMany {
    /// The first `max_items` are called for; the answer says how many were cut.
    Cut,
    /// The request is answered with 422.
    Refuse,
}

/// Identical requests that are in flight at the same time share one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Coalesce {
    /// What makes requests identical, besides the route, the method and `Authorization` and `Cookie`, which always
    /// count.
    pub key: Vec<CoalesceKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoalesceKey {
    Path,
    Query,
    /// The request's body.
    Body,
    /// Lower-case.
    Header(String),
}

/// Answer 202 at once; the result is fetched later.
#[derive(Debug, Clone, PartialEq)]
pub struct Background {
    /// The path of the route with `results_of = "<this route>"`: one parameter, the id.
    pub results: PathPattern,
    /// From the end of the work.
    pub keep: Duration,
    pub max_running: usize,
    pub max_results: usize,
    /// Bytes of the kept results.
    pub max_bytes: u64,
}
