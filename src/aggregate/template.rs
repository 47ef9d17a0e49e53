//! Puts values into the path, query, fields and body of a source's call.
//!
//! The text around a value comes from the configuration; the value comes from a client or from another upstream and is
//! never trusted. It can only land in its own place: one path segment, one query value, one field value, one JSON value.
//! So a request cannot choose host, scheme, path, a further parameter or a further field.
//!
//! A path segment with a value in it must be one that Forebay itself would take from a client (see
//! [`normalise`]): a value with a slash, backslash or NUL is refused rather than encoded,
//! since many servers decode `%2F` before they route and then `1%2Fdelete` is another resource; and so is a segment that
//! comes out as `.` or `..`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use super::Call;
use super::json::{Json, write_string, write_string_content};
use crate::config::model::aggregate::{
    Aggregate, BodyShape, HeaderTemplate, Node, Piece, Reference, RequestBody, Source, Step, Template,
};
use crate::message::head::Method;
use crate::message::path::{PathError, normalise};

/// The parameter that holds what a prefix route matched beyond its prefix: the only one that may have slashes.
const REST: &str = "rest";
/// Room for the path and query of most calls.
const USUAL_TARGET: usize = 96;
/// The most bytes of one value out of JSON in a path, query or field. Servers take some 8 KiB of each (RFC 9110 §4.1 asks
/// them for 8000 octets), while a body may bring a megabyte, and a list sends it with every call.
const MAX_IN_HEAD: usize = 8 * 1024;
const DOT_SEGMENT: &str = "it makes a dot segment";

/// What an aggregate looks at of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    pub query: bool,
    /// Lower-case names.
    pub headers: Vec<String>,
    pub body: bool,
}

impl Needs {
    pub fn of(aggregate: &Aggregate) -> Needs {
        let mut needs = Needs::default();
        let mut headers = BTreeSet::new();
        for reference in references(aggregate) {
            match reference {
                Reference::Query(_) => needs.query = true,
                Reference::Header(name) => drop(headers.insert(name.clone())),
                Reference::Body(_) => needs.body = true,
                Reference::Parameter(_) | Reference::Source(..) | Reference::Item(_) | Reference::Winner(_) => {}
            }
        }
        needs.headers = headers.into_iter().collect();
        needs
    }
}

/// Every reference that the configuration of an aggregate makes.
fn references(aggregate: &Aggregate) -> Vec<&Reference> {
    let mut found = Vec::new();
    if let BodyShape::Respond(node) = &aggregate.body {
        references_of_node(node, &mut found);
    }
    aggregate.sources.iter().for_each(|source| references_of_source(source, &mut found));
    found
}

fn references_of_source<'a>(source: &'a Source, found: &mut Vec<&'a Reference>) {
    let headers = source.headers.iter().filter_map(|(_, value)| match value {
        HeaderTemplate::Template(template) => Some(template),
        HeaderTemplate::Fixed(_) => None,
    });
    let query = source.query.iter().map(|(_, template)| template);
    found.extend(query.chain(headers).chain([&source.path]).flat_map(references_of));
    match &source.body {
        Some(RequestBody::Json(node)) => references_of_node(node, found),
        Some(RequestBody::Text(template)) => found.extend(references_of(template)),
        None => {}
    }
    found.extend(source.for_each.iter().map(|for_each| &for_each.list));
}

fn references_of(template: &Template) -> impl Iterator<Item = &Reference> {
    template.pieces.iter().filter_map(|piece| match piece {
        Piece::Value(reference) => Some(reference),
        Piece::Literal(_) => None,
    })
}

fn references_of_node<'a>(node: &'a Node, found: &mut Vec<&'a Reference>) {
    match node {
        Node::Object(members) => members.iter().for_each(|(_, node)| references_of_node(node, found)),
        Node::List(nodes) => nodes.iter().for_each(|node| references_of_node(node, found)),
        Node::Value(reference) => found.push(reference),
        Node::Text(template) => found.extend(references_of(template)),
        Node::Literal(_) => {}
    }
}

/// The parts of a request that an aggregate [`Needs`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    /// Percent-decoded.
    pub parameters: Vec<(String, String)>,
    /// Percent-decoded, in the order of the request; the first of a name counts.
    pub query: Vec<(String, String)>,
    /// Lower-case names; the first of a name counts.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Option<Json>,
}

/// What references can see.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub inputs: &'a Inputs,
    /// What stands for each source, by index; `None` when there is nothing.
    pub values: &'a [Option<Json>],
    /// The element of the list that a call is for.
    pub item: Option<&'a Json>,
    pub winner: Option<&'a Json>,
}

impl<'a> Scope<'a> {
    /// Of a request, with no answer yet.
    pub fn new(inputs: &'a Inputs, values: &'a [Option<Json>]) -> Scope<'a> {
        Scope { inputs, values, item: None, winner: None }
    }

    /// What a reference stands for, as JSON. Text of the request is a string; bytes of a field that are no UTF-8 are
    /// replaced by U+FFFD.
    pub fn value(&self, reference: &Reference) -> Option<Json> {
        match reference {
            Reference::Parameter(name) => first(&self.inputs.parameters, name).map(|text| Json::string(text)),
            Reference::Query(name) => first(&self.inputs.query, name).map(|text| Json::string(text)),
            Reference::Header(name) => {
                first(&self.inputs.headers, name).map(|bytes| Json::string(&String::from_utf8_lossy(bytes)))
            }
            Reference::Body(path) => self.inputs.body.as_ref()?.get(path),
            Reference::Source(index, path) => self.values.get(*index)?.as_ref()?.get(path),
            Reference::Item(path) => self.item?.get(path),
            Reference::Winner(path) => self.winner?.get(path),
        }
    }

    /// What a reference stands for, as bytes for a path, query or field. What the request's own head holds is bounded by
    /// the limit of heads.
    fn head_bytes(&self, reference: &Reference) -> Result<Cow<'a, [u8]>, Problem> {
        match self.bytes(reference)? {
            Cow::Owned(value) if value.len() > MAX_IN_HEAD => Err(Problem::TooLong),
            value => Ok(value),
        }
    }

    /// What a reference stands for, as bytes.
    fn bytes(&self, reference: &Reference) -> Result<Cow<'a, [u8]>, Problem> {
        let borrowed = match reference {
            Reference::Parameter(name) => first(&self.inputs.parameters, name).map(|text| text.as_bytes()),
            Reference::Query(name) => first(&self.inputs.query, name).map(|text| text.as_bytes()),
            Reference::Header(name) => first(&self.inputs.headers, name).map(|bytes| &bytes[..]),
            _ => {
                let json = self.value(reference).filter(|json| !json.is_null()).ok_or(Problem::Missing)?;
                return json.text().map(|text| Cow::Owned(text.into_owned().into_bytes())).ok_or(Problem::NoText);
            }
        };
        borrowed.map(Cow::Borrowed).ok_or(Problem::Missing)
    }
}

/// The only value that can be several segments.
pub(super) fn is_rest(reference: &Reference) -> bool {
    matches!(reference, Reference::Parameter(name) if name == REST)
}

fn first<'a, T>(pairs: &'a [(String, T)], name: &str) -> Option<&'a T> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// A call cannot be made: a value that it needs is not there, or may not stand where it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingValue {
    /// As the configuration writes it, without braces: `query.id`, `user1.name`.
    pub reference: String,
    /// The client should have sent it: the request is refused. Otherwise another upstream should have.
    pub from_client: bool,
    pub problem: Problem,
}

/// What is the matter with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Not there, or `null`.
    Missing,
    /// An object, an array, or a string that is no Unicode text.
    NoText,
    /// Nothing, where a path needs something.
    Empty,
    /// More than [`MAX_IN_HEAD`], where a path, a query or a field has it.
    TooLong,
    /// With it the path would mean another resource; or the field holds a control character.
    Forbidden(&'static str),
}

impl fmt::Display for MissingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of `{}` ", self.reference)?;
        match self.problem {
            Problem::Missing => f.write_str("is missing"),
            Problem::NoText => f.write_str("is no string, number or boolean"),
            Problem::Empty => f.write_str("is empty"),
            Problem::TooLong => write!(f, "is longer than {} KiB", MAX_IN_HEAD >> 10),
            Problem::Forbidden(why) => write!(f, "cannot be used: {why}"),
        }
    }
}

impl std::error::Error for MissingValue {}

/// Whether a source's calls depend on what the client sends.
pub(super) fn asks_the_client(source: &Source) -> bool {
    let mut found = Vec::new();
    references_of_source(source, &mut found);
    found.into_iter().any(|reference| is_from_client(source, reference))
}

/// An item is the client's when its list is.
fn is_from_client(source: &Source, reference: &Reference) -> bool {
    match reference {
        Reference::Parameter(_) | Reference::Query(_) | Reference::Header(_) | Reference::Body(_) => true,
        Reference::Source(..) | Reference::Winner(_) => false,
        Reference::Item(_) => source.for_each.as_ref().is_some_and(|for_each| match &for_each.list {
            Reference::Item(_) => false,
            list => is_from_client(source, list),
        }),
    }
}

/// A reference as it is written in the configuration, without its braces. `names` are those of the sources, by index.
pub fn describe(reference: &Reference, names: &[&str]) -> String {
    let (head, path) = match reference {
        Reference::Parameter(name) => return name.clone(),
        Reference::Query(name) => return format!("query.{name}"),
        Reference::Header(name) => return format!("header.{name}"),
        Reference::Body(path) => ("body", path),
        Reference::Source(index, path) => (names.get(*index).copied().unwrap_or("source"), path),
        Reference::Item(path) => ("item", path),
        Reference::Winner(path) => ("winner", path),
    };
    let steps = path.steps.iter().map(|step| match step {
        Step::Key(key) => key,
        Step::Each => "*",
    });
    [head].into_iter().chain(steps).collect::<Vec<&str>>().join(".")
}

/// The call of `aggregate.sources[index]`, or of one item of its list.
pub fn build_call(aggregate: &Aggregate, index: usize, scope: &Scope<'_>) -> Result<Call, MissingValue> {
    let source = &*aggregate.sources[index];
    let builder = Builder { aggregate, source, scope };
    let mut target = builder.path()?;
    builder.append_query(&mut target)?;
    let mut headers = builder.headers()?;
    let body = builder.body(&mut headers)?;
    Ok(Call {
        source: index,
        method: Method::from_bytes(source.method.as_bytes()).expect("the configuration takes no other"),
        target,
        headers,
        body,
        max_body_bytes: source.max_body_bytes,
    })
}

struct Builder<'a> {
    aggregate: &'a Aggregate,
    source: &'a Source,
    scope: &'a Scope<'a>,
}

/// How a value is read for its place: in a head it has a limit.
type ValueOf<'a> = fn(&Scope<'a>, &Reference) -> Result<Cow<'a, [u8]>, Problem>;

impl<'a> Builder<'a> {
    fn fail(&self, reference: &Reference, problem: Problem) -> MissingValue {
        let names: Vec<&str> = self.aggregate.sources.iter().map(|source| source.name.as_str()).collect();
        let from_client = is_from_client(self.source, reference);
        MissingValue { reference: describe(reference, &names), from_client, problem }
    }

    fn path(&self) -> Result<String, MissingValue> {
        let mut path = String::with_capacity(USUAL_TARGET);
        // Of those in the segment that is being written.
        let mut last_value = None;
        for piece in &self.source.path.pieces {
            match piece {
                Piece::Literal(text) => {
                    for (nth, part) in text.split('/').enumerate() {
                        if nth > 0 {
                            self.check_segment(&path, last_value)?;
                            if let Some(reference) = last_value.take().filter(|_| path.ends_with('/')) {
                                return Err(self.fail(reference, Problem::Empty));
                            }
                            path.push('/');
                        }
                        path.push_str(part);
                    }
                }
                Piece::Value(reference) => {
                    self.append_to_path(&mut path, reference)?;
                    last_value = Some(reference);
                }
            }
        }
        self.check_segment(&path, last_value)?;
        Ok(path)
    }

    fn append_to_path(&self, path: &mut String, reference: &Reference) -> Result<(), MissingValue> {
        let value = self.scope.head_bytes(reference).map_err(|problem| self.fail(reference, problem))?;
        if !is_rest(reference) {
            if value.is_empty() {
                return Err(self.fail(reference, Problem::Empty));
            }
            percent_encode(&value, path);
            return Ok(());
        }
        for (nth, segment) in value.split(|byte| *byte == b'/').enumerate() {
            if nth > 0 {
                if path.ends_with('/') {
                    return Err(self.fail(reference, Problem::Forbidden("it holds an empty segment")));
                }
                self.check_segment(path, Some(reference))?;
                path.push('/');
            }
            percent_encode(segment, path);
        }
        Ok(())
    }

    /// The last segment, when a value is in it, must mean to every reader what it means to us.
    fn check_segment(&self, path: &str, value: Option<&Reference>) -> Result<(), MissingValue> {
        let Some(reference) = value else { return Ok(()) };
        let segment = &path[path.rfind('/').unwrap_or(0)..];
        let mut out = Vec::new();
        let forbidden = match normalise(segment.as_bytes(), &mut out) {
            Err(PathError::AboveRoot) => DOT_SEGMENT,
            Err(error) => error.detail(),
            Ok(normal) if segment.len() > 1 && normal.path(segment.as_bytes(), &out) == b"/" => DOT_SEGMENT,
            Ok(_) => return Ok(()),
        };
        Err(self.fail(reference, Problem::Forbidden(forbidden)))
    }

    fn append_query(&self, target: &mut String) -> Result<(), MissingValue> {
        let mut separator = '?';
        for (name, template) in &self.source.query {
            if self.is_left_out(template) {
                continue;
            }
            target.push(separator);
            percent_encode(name.as_bytes(), target);
            target.push('=');
            self.parts(template, Scope::head_bytes, |part| percent_encode(part, target))?;
            separator = '&';
        }
        Ok(())
    }

    fn headers(&self) -> Result<Vec<(String, Vec<u8>)>, MissingValue> {
        let mut headers = Vec::with_capacity(self.source.headers.len() + usize::from(self.source.body.is_some()));
        for (name, template) in &self.source.headers {
            let value = match template {
                HeaderTemplate::Fixed(secret) => Some(secret.reveal().as_bytes().to_vec()),
                HeaderTemplate::Template(template) if self.is_left_out(template) => None,
                HeaderTemplate::Template(template) => {
                    self.check_field(template)?;
                    Some(self.text(template, Scope::head_bytes)?)
                }
            };
            headers.extend(value.map(|value| (name.clone(), value)));
        }
        Ok(headers)
    }

    /// RFC 9110 §5.5: no control characters but the tab.
    fn check_field(&self, template: &Template) -> Result<(), MissingValue> {
        for reference in references_of(template) {
            let value = self.scope.bytes(reference).unwrap_or_default();
            if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
                return Err(self.fail(reference, Problem::Forbidden("it holds a control character")));
            }
        }
        Ok(())
    }

    fn body(&self, headers: &mut Vec<(String, Vec<u8>)>) -> Result<Option<Bytes>, MissingValue> {
        let (content_type, body) = match &self.source.body {
            None => return Ok(None),
            Some(RequestBody::Json(node)) => {
                let mut out = Vec::new();
                write_node(node, self, &mut out)?;
                ("application/json", out)
            }
            Some(RequestBody::Text(template)) => ("text/plain; charset=utf-8", self.text(template, Scope::bytes)?),
        };
        if !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".to_owned(), content_type.as_bytes().to_vec()));
        }
        Ok(Some(body.into()))
    }

    /// A template that is one reference to something that is not there.
    fn is_left_out(&self, template: &Template) -> bool {
        matches!(&template.pieces[..], [Piece::Value(reference)] if self.scope.bytes(reference) == Err(Problem::Missing))
    }

    fn text(&self, template: &Template, value_of: ValueOf<'a>) -> Result<Vec<u8>, MissingValue> {
        let mut out = Vec::new();
        self.parts(template, value_of, |part| out.extend_from_slice(part))?;
        Ok(out)
    }

    fn parts(
        &self,
        template: &Template,
        value_of: ValueOf<'a>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), MissingValue> {
        for piece in &template.pieces {
            match piece {
                Piece::Literal(text) => take(text.as_bytes()),
                Piece::Value(reference) => {
                    take(&value_of(self.scope, reference).map_err(|problem| self.fail(reference, problem))?);
                }
            }
        }
        Ok(())
    }
}

impl Lookup for Builder<'_> {
    type Missing = MissingValue;

    /// What is missing is an error here, since leaving it out would send another request than the configured one.
    /// A `null` that is there is a value.
    fn value(&self, reference: &Reference) -> Result<Option<Json>, MissingValue> {
        match self.scope.value(reference) {
            Some(json) => Ok(Some(json)),
            None => Err(self.fail(reference, Problem::Missing)),
        }
    }

    fn no_text(&self, reference: &Reference) -> Result<(), MissingValue> {
        Err(self.fail(reference, Problem::NoText))
    }
}

/// What a node's references stand for.
pub(super) trait Lookup {
    type Missing;

    /// `None`: the member or element is left out.
    fn value(&self, reference: &Reference) -> Result<Option<Json>, Self::Missing>;

    /// A value inside a text is no scalar; `Ok` puts nothing in its place.
    fn no_text(&self, reference: &Reference) -> Result<(), Self::Missing>;
}

/// Appends the JSON of a node; false, and nothing appended, when it is left out.
pub(super) fn write_node<L: Lookup>(node: &Node, lookup: &L, out: &mut Vec<u8>) -> Result<bool, L::Missing> {
    match node {
        Node::Literal(json) => out.extend_from_slice(json.as_bytes()),
        Node::Text(template) => write_text(template, lookup, out)?,
        Node::Value(reference) => match lookup.value(reference)? {
            Some(json) => out.extend_from_slice(json.as_bytes()),
            None => return Ok(false),
        },
        Node::Object(members) => {
            out.push(b'{');
            write_children(members.iter().map(|(name, node)| (Some(name.as_str()), node)), lookup, out)?;
            out.push(b'}');
        }
        Node::List(nodes) => {
            out.push(b'[');
            write_children(nodes.iter().map(|node| (None, node)), lookup, out)?;
            out.push(b']');
        }
    }
    Ok(true)
}

fn write_children<'a, L: Lookup>(
    children: impl Iterator<Item = (Option<&'a str>, &'a Node)>,
    lookup: &L,
    out: &mut Vec<u8>,
) -> Result<(), L::Missing> {
    let begin = out.len();
    for (name, node) in children {
        let before = out.len();
        if before > begin {
            out.push(b',');
        }
        if let Some(name) = name {
            write_string(name, out);
            out.push(b':');
        }
        if !write_node(node, lookup, out)? {
            out.truncate(before);
        }
    }
    Ok(())
}

/// The content of a JSON string goes in as it is written, escapes and all: it is as well formed here as it was there.
fn write_text<L: Lookup>(template: &Template, lookup: &L, out: &mut Vec<u8>) -> Result<(), L::Missing> {
    out.push(b'"');
    for piece in &template.pieces {
        match piece {
            Piece::Literal(text) => write_string_content(text, out),
            Piece::Value(reference) => match lookup.value(reference)? {
                Some(json) => match json.as_bytes() {
                    [b'"', content @ .., b'"'] => out.extend_from_slice(content),
                    [b'n' | b'[' | b'{', ..] => lookup.no_text(reference)?,
                    number_or_boolean => out.extend_from_slice(number_or_boolean),
                },
                None => lookup.no_text(reference)?,
            },
        }
    }
    out.push(b'"');
    Ok(())
}

/// RFC 3986 §2.3: everything but the unreserved characters.
fn percent_encode(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests;
