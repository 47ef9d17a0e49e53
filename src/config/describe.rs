//! The description of the file's keys: name, shape, default, bounds, words. There is one, made by the `element!`
//! macro beside each element, and everything follows from it: decoding, suggestions for misspelt keys, the JSON
//! Schema, `config/default.toml` and the check that both are up to date.

/// What a value looks like.
#[derive(Debug, Clone)]
pub enum Shape {
    Boolean,
    Integer,
    Number,
    /// A string; `what` completes "expected ...".
    Text {
        what: &'static str,
        /// A regular expression for editors; the parser decides.
        pattern: Option<&'static str>,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any of these shapes.
    Either(Vec<Shape>),
    List(Box<Shape>),
    Table(fn() -> Table),
    /// A table whose keys are names of the user's choice.
    Map {
        names: &'static str,
        value: Box<Shape>,
    },
    /// Any TOML value; `what` completes "expected ...".
    Any {
        what: &'static str,
    },
}

impl Shape {
    /// Completes "expected ...".
    pub fn what(&self) -> String {
        match self {
            Shape::Boolean => "true or false".to_owned(),
            Shape::Integer => "a whole number".to_owned(),
            Shape::Number => "a number".to_owned(),
            Shape::Text { what, .. } | Shape::Any { what } => (*what).to_owned(),
            Shape::Choice(words) => one_of(words),
            Shape::Either(shapes) => shapes.iter().map(Shape::what).collect::<Vec<_>>().join(", or "),
            Shape::List(of) => format!("a list, each {}", of.what()),
            Shape::Table(table) => format!("a table with {}", one_or_more_keys(&table())),
            // What its few keys hold differs.
            Shape::Map { names, value } if value.what().is_empty() => format!("a table with {names}"),
            Shape::Map { names, value } => format!("a table of {names}, each {}", value.what()),
        }
    }

    /// A value of this shape is written in quotes.
    pub fn is_text(&self) -> bool {
        match self {
            Shape::Text { .. } | Shape::Choice(_) => true,
            Shape::Either(shapes) => shapes.first().is_some_and(Shape::is_text),
            _ => false,
        }
    }

    /// The table that a value of this shape is or can be.
    pub fn table(&self) -> Option<Table> {
        match self {
            Shape::Table(table) => Some(table()),
            Shape::Either(shapes) => shapes.iter().find_map(Shape::table),
            Shape::List(of) => of.table(),
            _ => None,
        }
    }
}

/// `"a", "b" or "c"`.
pub fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn one_or_more_keys(table: &Table) -> String {
    let names: Vec<String> = table.keys.iter().map(|key| format!("`{}`", key.name)).collect();
    match names.len() {
        0..=4 => names.join(", "),
        _ => format!("{}, ...", names[..4].join(", ")),
    }
}

/// What stands for a key that is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// This, in TOML.
    Value(&'static str),
    /// Nothing: the feature is off or has no limit.
    None,
    /// It must be written.
    Required,
}

impl Default {
    /// From the word after `=` in `element!`.
    pub fn from_macro(written: &'static str) -> Self {
        match written {
            "none" => Default::None,
            "required" => Default::Required,
            value => Default::Value(value),
        }
    }
}

/// One key of a table.
#[derive(Debug, Clone)]
pub struct Key {
    pub name: &'static str,
    pub doc: String,
    pub default: Default,
    pub shape: Shape,
    /// Least and greatest value, in the unit of [`super::value::Value::magnitude`].
    pub bounds: Option<(u64, u64)>,
    /// Said when the value is out of bounds.
    pub advice: Option<&'static str>,
    /// Names that this key had, or has in other programs.
    pub instead_of: &'static [&'static str],
    /// A value to show in `config/default.toml` where there is no default.
    pub example: Option<&'static str>,
}

impl Key {
    pub fn new(name: &'static str, doc: &str, default: &'static str, shape: Shape) -> Self {
        let doc = doc.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned();
        let default = Default::from_macro(default);
        Self { name, doc, default, shape, bounds: None, advice: None, instead_of: &[], example: None }
    }

    pub fn between(mut self, least: u64, greatest: u64) -> Self {
        self.bounds = Some((least, greatest));
        self
    }

    pub fn advice(mut self, advice: &'static str) -> Self {
        self.advice = Some(advice);
        self
    }

    pub fn instead_of(mut self, names: &'static [&'static str]) -> Self {
        self.instead_of = names;
        self
    }

    pub fn example(mut self, toml: &'static str) -> Self {
        self.example = Some(toml);
        self
    }
}

/// A table of the file.
#[derive(Debug, Clone)]
pub struct Table {
    pub doc: String,
    pub keys: Vec<Key>,
}

impl Table {
    pub fn new(doc: &str, keys: Vec<Key>) -> Self {
        Self { doc: doc.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned(), keys }
    }

    pub fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// Milliseconds, for the bounds of durations.
pub const MILLISECOND: u64 = 1;
pub const SECOND: u64 = 1_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;
/// Bytes, for the bounds of sizes.
pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
