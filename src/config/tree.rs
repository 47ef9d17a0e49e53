//! From text to a tree of values, each with its place. Reports every syntax error, not only the first, and fills
//! in `${NAME}` from the environment. What the keys mean is not known here.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Problem;
use super::source::Span;
use super::substitute::{self, Variables};
use super::syntax;

/// A value as written.
#[derive(Debug, Clone)]
pub struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Text(Text),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A date or a number that no setting can take, by its TOML name.
    Other(&'static str),
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
    /// A mistake here has been reported; nothing more is said about it.
    Broken,
}

#[derive(Debug, Clone)]
pub struct Text {
    pub value: String,
    /// The value holds a filled-in `${...}`: it is never shown, as it may be a secret.
    pub substituted: bool,
    /// Where in the value it was filled in: such parts mean only themselves.
    pub filled: Vec<Span>,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Node {
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(&text.value),
            _ => None,
        }
    }

    pub fn as_table(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// What kind of value this is, for "found a string".
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Text(_) => "a string",
            Kind::Integer(_) => "a whole number",
            Kind::Float(value) if value.is_nan() => "`nan`, which is no number",
            Kind::Float(value) if value.is_infinite() => "infinite",
            Kind::Float(_) => "a number",
            Kind::Boolean(_) => "true or false",
            Kind::Other(name) => name,
            Kind::List(_) => "a list",
            Kind::Table(_) => "a table",
            Kind::Broken => "something unreadable",
        }
    }
}

/// The tree of a text and every problem met on the way. With syntax errors the tree holds what could be read.
pub fn parse(text: &str, variables: &Variables<'_>) -> (Node, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems = syntax::problems(text, &errors);
    let node = Builder { text, variables, problems: &mut problems }.table(&table);
    (node, problems)
}

struct Builder<'b, 'v> {
    text: &'b str,
    variables: &'b Variables<'v>,
    problems: &'b mut Vec<Problem>,
}

impl Builder<'_, '_> {
    fn table(&mut self, table: &Spanned<DeTable<'_>>) -> Node {
        Node { span: table.span(), kind: Kind::Table(self.entries(table.get_ref())) }
    }

    fn entries(&mut self, table: &DeTable<'_>) -> Vec<Entry> {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let key_text: &std::borrow::Cow<'_, str> = key.get_ref();
            Entry { key: key_text.clone().into_owned(), key_span: key.span(), value: self.value(value) }
        };
        let mut entries: Vec<Entry> = table.iter().map(entry).collect();
        // The table is sorted by name; people read the file from the top.
        entries.sort_by_key(|entry| entry.key_span.start);
        entries
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) -> Node {
        let span = value.span();
        let kind = match value.get_ref() {
            DeValue::String(text) => self.text(text, &span),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Kind::Integer(integer),
                Err(_) => Kind::Other("a number that is too large"),
            },
            DeValue::Float(float) => float.as_str().parse().map_or(Kind::Broken, Kind::Float),
            DeValue::Boolean(value) => Kind::Boolean(*value),
            DeValue::Datetime(_) => Kind::Other("a date or time"),
            DeValue::Array(values) => Kind::List(values.iter().map(|value| self.value(value)).collect()),
            DeValue::Table(table) => Kind::Table(self.entries(table)),
        };
        Node { span, kind }
    }

    fn text(&mut self, text: &str, span: &Span) -> Kind {
        match substitute::fill_in(text, self.variables) {
            Ok(filled) => {
                let substituted = !filled.filled.is_empty();
                Kind::Text(Text { value: filled.value, substituted, filled: filled.filled })
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    let span = self.inside(text, span, &mistake.at);
                    self.problems.push(mistake.into_problem(span));
                }
                Kind::Broken
            }
        }
    }

    /// The place of a part of a string; the whole string when escapes make the offsets differ.
    fn inside(&self, value: &str, span: &Span, part: &Span) -> Span {
        inside(self.text, value, span, part)
    }
}

/// The place in the file of a part of a string value; the whole string when escapes make the offsets differ.
pub fn inside(text: &str, value: &str, span: &Span, part: &Span) -> Span {
    let written = text.get(span.clone()).unwrap_or("");
    let unquoted = written.trim_matches(|c| c == '"' || c == '\'');
    if unquoted != value || written.len() < 2 {
        return span.clone();
    }
    let start = span.start + (written.len() - written.trim_start_matches(['"', '\'']).len());
    start + part.start..start + part.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_variables(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn every_syntax_error_is_reported() {
        let (_, problems) = parse("a = 3s\nb = \n[c\nd = 1\n", &no_variables);

        assert_eq!(problems.len(), 3, "{problems:#?}");
    }

    #[test]
    fn entries_keep_the_order_of_the_file() {
        let (node, _) = parse("z = 1\na = 2\n", &no_variables);

        let keys: Vec<_> = node.as_table().expect("a table").iter().map(|entry| entry.key.as_str()).collect();

        assert_eq!(keys, ["z", "a"]);
    }

    #[test]
    fn a_missing_variable_is_marked_inside_the_string() {
        let (_, problems) = parse("a = \"x ${NOPE} y\"", &no_variables);

        assert_eq!(problems[0].span, Some(7..14));
    }
}
