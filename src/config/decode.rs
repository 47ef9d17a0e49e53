//! From the tree to the elements, by their description. Goes on after a mistake, so that all are reported; notes
//! each setting's value and where it came from.

use serde_json::Value as Json;

use super::Inputs;
use super::describe::{Default, Key, Table};
use super::diagnostic::{Code, Problem};
use super::secrets::names_secret;
use super::settings::{Origin, Settings};
use super::source::{Source, Span};
use super::suggest::all_nearest;
use super::tree::{Entry, Kind, Node};
use super::value::Value;

/// A key's value and where it was written.
#[derive(Debug, Clone)]
pub struct Field<T> {
    value: Option<T>,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not written; the default stands.
    Default,
    Written {
        key: Span,
        value: Span,
        is_default: bool,
    },
}

impl<T> Field<T> {
    /// The written value or the default; `None` when there is neither, or when what is written is wrong (and reported).
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The place of the value, when it is written.
    pub fn span(&self) -> Option<Span> {
        match &self.state {
            State::Written { value, .. } => Some(value.clone()),
            State::Default => None,
        }
    }

    pub fn key_span(&self) -> Option<Span> {
        match &self.state {
            State::Written { key, .. } => Some(key.clone()),
            State::Default => None,
        }
    }

    pub fn is_written(&self) -> bool {
        self.state != State::Default
    }

    /// It is written, with another value than the default. Writing a default out is never a mistake.
    pub fn is_set(&self) -> bool {
        matches!(self.state, State::Written { is_default: false, .. })
    }

    /// The value with its place, when it is written and right.
    pub fn written(&self) -> Option<(&T, Span)> {
        Some((self.get()?, self.span()?))
    }
}

impl<T: Copy> Field<T> {
    pub fn copied(&self) -> Option<T> {
        self.value
    }
}

impl<T: Clone> Field<T> {
    pub fn cloned(&self) -> Option<T> {
        self.value.clone()
    }
}

/// A table of the file with fixed keys; made by `element!`.
pub trait Element: Sized {
    fn table() -> Table;
    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Self;
}

/// A table of the file with its place in the text.
#[derive(Debug, Clone)]
pub struct Spot<T> {
    pub value: T,
    pub span: Span,
}

/// What decoding reads from and writes to.
pub struct Decoder<'a> {
    pub source: Source<'a>,
    pub inputs: &'a Inputs<'a>,
    pub problems: Vec<Problem>,
    pub settings: Settings,
    /// Files whose content is part of the configuration.
    pub files: Vec<std::path::PathBuf>,
    /// The one listener is written as `[listener]`, without a name.
    pub shorthand: bool,
    /// Where we are: `upstream`, `users`, `timeouts`.
    path: Vec<String>,
    /// Whether the value at hand is written in the file or is a default.
    origin: Origin,
}

impl<'a> Decoder<'a> {
    pub fn new(source: Source<'a>, inputs: &'a Inputs<'a>, problems: Vec<Problem>) -> Self {
        Self {
            source,
            inputs,
            problems,
            settings: Settings::default(),
            files: Vec::new(),
            shorthand: false,
            path: Vec::new(),
            origin: Origin::Default,
        }
    }

    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// `upstream.users.timeouts`.
    pub fn path(&self) -> String {
        self.path.join(".")
    }

    pub fn within<T>(&mut self, step: impl Into<String>, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step.into());
        let result = work(self);
        self.path.pop();
        result
    }

    /// Reports a value that is not of its shape.
    pub fn wrong_type(&mut self, node: &Node, expected: &str) {
        if matches!(node.kind, Kind::Broken) {
            return;
        }
        let name = self.path.last().cloned().unwrap_or_default();
        let message = format!("`{name}` cannot be {}", node.type_name());
        self.report(Problem::error(Code::WrongType, node.span.clone(), message).expected(expected));
    }

    /// Reports a value of the right shape that lies outside of what is allowed.
    pub fn out_of_range(&mut self, node: &Node, expected: &str) {
        let name = self.path.last().cloned().unwrap_or_default();
        let message = format!("`{name}` is out of range");
        self.report(Problem::error(Code::OutOfRange, node.span.clone(), message).expected(expected));
    }

    /// The place of a part of a string value.
    pub fn inside(&self, value: &str, span: &Span, part: &Span) -> Span {
        super::tree::inside(self.source.text(), value, span, part)
    }

    /// The table that is being decoded, as its header is written.
    pub fn place_name(&self) -> String {
        match self.path.as_slice() {
            [listener, _, rest @ ..] if listener == "listener" && self.shorthand => {
                place_name(&[std::slice::from_ref(listener), rest].concat())
            }
            path => place_name(path),
        }
    }

    /// Notes a setting that does not come straight from a key.
    pub fn note(&mut self, path: String, value: Json, origin: Origin) {
        self.settings.insert(path, value, origin);
    }

    /// Decodes the value of one key, or its default.
    fn field<T: Value>(&mut self, key: &Key, entry: Option<&Entry>) -> Field<T> {
        match entry {
            Some(entry) => self.written_field(key, entry),
            None => Field { value: self.default_of(key), state: State::Default },
        }
    }

    fn written_field<T: Value>(&mut self, key: &Key, entry: &Entry) -> Field<T> {
        let before = std::mem::replace(&mut self.origin, Origin::Line(self.source.line_of(&entry.value.span)));
        let value = self.within(key.name, |cx| {
            let value = T::decode(cx, &entry.value)?;
            cx.check_bounds(key, &value, &entry.value)?;
            cx.note_value(&value);
            Some(value)
        });
        self.origin = before;
        let is_default = value.as_ref().is_some_and(|value| self.is_default(key, value));
        let (key, span) = (entry.key_span.clone(), entry.value.span.clone());
        Field { value, state: State::Written { key, value: span, is_default } }
    }

    /// Compared as they are shown; containers are compared key by key by whoever wants to know.
    fn is_default<T: Value>(&mut self, key: &Key, value: &T) -> bool {
        let (Some(shown), Default::Value(toml)) = (value.show(), key.default) else { return false };
        let default = literal(toml).and_then(|node| T::decode(self, &node));
        default.and_then(|default| default.show()) == Some(shown)
    }

    fn default_of<T: Value>(&mut self, key: &Key) -> Option<T> {
        let Default::Value(toml) = key.default else { return None };
        let node = literal(toml)?;
        let before = std::mem::replace(&mut self.origin, Origin::Default);
        let value = self.within(key.name, |cx| {
            let value = T::decode(cx, &node)?;
            cx.note_value(&value);
            Some(value)
        });
        self.origin = before;
        value
    }

    /// Containers note their own keys; only leaves are noted here.
    fn note_value<T: Value>(&mut self, value: &T) {
        if let Some(shown) = value.show() {
            self.settings.insert(self.path(), shown, self.origin.clone());
            if let Some(secret) = value.secret() {
                self.settings.add_secret(self.path(), secret);
            }
        }
    }

    fn check_bounds<T: Value>(&mut self, key: &Key, value: &T, node: &Node) -> Option<()> {
        let (Some((least, greatest)), Some(magnitude)) = (key.bounds, value.magnitude()) else { return Some(()) };
        if (least..=greatest).contains(&magnitude) {
            return Some(());
        }
        let (least, greatest) = (T::show_magnitude(least), T::show_magnitude(greatest));
        let message = if magnitude == 0 {
            format!("`{}` cannot be zero", key.name)
        } else if key.bounds.is_some_and(|(least, _)| magnitude < least) {
            format!("`{}` is too small", key.name)
        } else {
            format!("`{}` is too large", key.name)
        };
        let mut problem = Problem::error(Code::OutOfRange, node.span.clone(), message)
            .expected(format!("from {least} to {greatest}"));
        if let Some(advice) = key.advice {
            problem = problem.help(advice);
        }
        self.report(problem);
        None
    }

    /// Starts on a table: hands out its keys, then reports what is left.
    pub fn open<'n>(&mut self, table: Table, node: &'n Node) -> Open<'n> {
        let entries = match &node.kind {
            Kind::Table(entries) => entries.as_slice(),
            _ => {
                self.wrong_type(node, &format!("a table: {}", lower_first(first_sentence(&table.doc))));
                &[]
            }
        };
        let complete = matches!(node.kind, Kind::Table(_));
        Open { table, entries, span: node.span.clone(), complete }
    }
}

/// A table that is being decoded.
pub struct Open<'n> {
    table: Table,
    entries: &'n [Entry],
    span: Span,
    /// False when the table was not a table at all: then nothing is said of missing keys.
    complete: bool,
}

impl Open<'_> {
    pub fn field<T: Value>(&mut self, cx: &mut Decoder<'_>, name: &str) -> Field<T> {
        let Some(key) = self.table.key(name) else { return Field { value: None, state: State::Default } };
        let entry = self.entries.iter().find(|entry| entry.key == name);
        if entry.is_none() && key.default == Default::Required && self.complete {
            self.report_missing(cx, key);
        }
        cx.field(key, entry)
    }

    fn report_missing(&self, cx: &mut Decoder<'_>, key: &Key) {
        if self.entries.iter().any(|entry| self.meant_by(&entry.key).contains(&key.name)) {
            return; // It is there, misspelt; that is reported.
        }
        let setting = key.example.map_or(key.name.to_owned(), |toml| format!("{} = {toml}", key.name));
        let problem = Problem::error(
            Code::MissingKey,
            header(&cx.source, &self.span),
            format!("`{}` is missing {}", key.name, cx.place_name()),
        );
        cx.report(problem.help(format!("add `{setting}`: {}", lower_first(first_sentence(&key.doc)))));
    }

    /// Reports every key that the table does not know.
    pub fn close(self, cx: &mut Decoder<'_>) {
        for entry in self.entries {
            if self.table.key(&entry.key).is_none() {
                let problem = self.unknown_key(cx, entry);
                cx.report(problem);
            }
        }
    }

    fn unknown_key(&self, cx: &mut Decoder<'_>, entry: &Entry) -> Problem {
        self.hide_if_secret(cx, entry);
        let place = cx.place_name();
        let known = self.table.keys.iter().find(|key| key.instead_of.contains(&entry.key.as_str()));
        if let Some(key) = known {
            let message = format!("the key `{}` is called `{}`", entry.key, key.name);
            return Problem::error(Code::UnknownKey, entry.key_span.clone(), message).help(format!(
                "write `{}`: {}",
                key.name,
                lower_first(first_sentence(&key.doc))
            ));
        }
        let problem =
            Problem::error(Code::UnknownKey, entry.key_span.clone(), format!("unknown key `{}` {place}", entry.key));
        match self.meant_by(&entry.key).as_slice() {
            _ if cx.shorthand && self.is_listener(entry) => {
                problem.help("with several listeners each has a name: write [listener.main] for the first")
            }
            names @ [_, ..] => problem.help(format!("did you mean {}?", quoted(names).join(" or "))),
            [] => match super::elements::homes_of(&entry.key) {
                homes if homes.is_empty() => problem.expected(format!("one of {}", self.key_list())),
                homes => problem.help(format!("`{}` belongs in {}", entry.key, homes.join(" or "))),
            },
        }
    }

    /// A table in `[listener]` that holds an address: a second listener beside one without a name.
    fn is_listener(&self, entry: &Entry) -> bool {
        entry.value.as_table().is_some_and(|keys| keys.iter().any(|key| key.key == "address"))
    }

    fn meant_by(&self, written: &str) -> Vec<&'static str> {
        all_nearest(written, self.table.keys.iter().map(|key| key.name))
    }

    fn key_list(&self) -> String {
        quoted(&self.table.keys.iter().map(|key| key.name).collect::<Vec<_>>()).join(", ")
    }

    /// A misspelt secret is a secret all the same.
    fn hide_if_secret(&self, cx: &mut Decoder<'_>, entry: &Entry) {
        let may_be_secret = self.table.keys.iter().any(|key| key.name == "token") || names_secret(&entry.key);
        if may_be_secret && !matches!(entry.value.kind, Kind::Table(_)) {
            cx.source.hide(entry.value.span.clone());
        }
    }
}

/// "in [route.slow]", "in [upstream.users] timeouts" or "at the top of the file".
fn place_name(path: &[String]) -> String {
    match path {
        [] => "at the top of the file".to_owned(),
        [route, name, aggregate, rest @ ..] if route == "route" && aggregate == "aggregate" => {
            let header_steps = if rest.first().is_some_and(|step| step == "source") { rest.len().min(2) } else { 0 };
            let (header, rest) = rest.split_at(header_steps);
            let header: String = header.iter().map(|step| format!(".{step}")).collect();
            let rest = if rest.is_empty() { String::new() } else { format!(" {}", rest.join(".")) };
            format!("in [route.{name}.aggregate{header}]{rest}")
        }
        [kind, name, rest @ ..] if matches!(kind.as_str(), "route" | "upstream" | "listener") => {
            let rest = if rest.is_empty() { String::new() } else { format!(" {}", rest.join(".")) };
            format!("in [{kind}.{name}]{rest}")
        }
        [name] => format!("in [{name}]"),
        [name, rest @ ..] => format!("in [{name}] {}", rest.join(".")),
    }
}

fn quoted(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("`{name}`")).collect()
}

/// The first line of a table: its `[header]`, or the brace of an inline one.
fn header(source: &Source<'_>, span: &Span) -> Span {
    let first = source.slice(span).lines().next().map_or(0, str::len);
    span.start..span.start + first.max(1)
}

pub fn first_sentence(doc: &str) -> &str {
    doc.split_once(". ").map_or(doc, |(first, _)| first).trim_end_matches('.')
}

pub fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        // An abbreviation keeps its capitals.
        Some(first) if !chars.clone().next().is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// The node of a default, which is TOML from the source code.
pub fn literal(toml: &str) -> Option<Node> {
    let text = format!("v = {toml}");
    let (node, problems) = super::tree::parse(&text, &|_| None);
    debug_assert!(problems.is_empty(), "default {toml:?}: {problems:?}");
    match node.kind {
        Kind::Table(entries) => entries.into_iter().next().map(|entry| entry.value),
        _ => None,
    }
}

/// Describes a table of the file and makes the type that holds it as written.
///
/// ```text
/// element! {
///     /// What the table is for.
///     pub struct Name {
///         /// What the key does.
///         key: Type = "default", between(1, 10);
///     }
/// }
/// ```
/// The default is TOML, or `none` (absent, off), or `required`. After it come the functions of
/// [`super::describe::Key`].
macro_rules! element {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])* $key:ident : $type:ty = $default:tt $(, $function:ident ( $($argument:expr),* ))* ; )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $key: $crate::config::decode::Field<$type>, )*
        }

        impl $crate::config::decode::Element for $name {
            fn table() -> $crate::config::describe::Table {
                use $crate::config::{describe::Key, value::Value};
                $crate::config::describe::Table::new(concat!($($about, "\n",)*), vec![
                    $( Key::new(
                        stringify!($key),
                        concat!($($doc, "\n",)*),
                        stringify!($default),
                        <$type as Value>::shape(),
                    ) $( .$function($($argument),*) )*, )*
                ])
            }

            fn decode(cx: &mut $crate::config::decode::Decoder<'_>, node: &$crate::config::tree::Node) -> Self {
                let mut open = cx.open(Self::table(), node);
                let element = Self { $( $key: open.field(cx, stringify!($key)), )* };
                open.close(cx);
                element
            }
        }

        impl $crate::config::value::Value for $name {
            fn shape() -> $crate::config::describe::Shape {
                $crate::config::describe::Shape::Table(<Self as $crate::config::decode::Element>::table)
            }

            fn decode(cx: &mut $crate::config::decode::Decoder<'_>, node: &$crate::config::tree::Node) -> Option<Self> {
                Some(<Self as $crate::config::decode::Element>::decode(cx, node))
            }
        }
    };
}
pub(crate) use element;
