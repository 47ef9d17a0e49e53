//! Syntax errors in words for people who do not know TOML's grammar, one for each line: the parser's own follow-up
//! errors on the same line say nothing new.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::diagnostic::{Code, Problem};
use super::secrets::names_secret;
use super::source::{Source, Span};

/// The parser's errors as problems, at most one for each line, in the order of the file.
pub fn problems(text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let source = Source::new("", text);
    let repeats = errors.iter().any(|error| error.message().contains(DUPLICATE)).then(|| Repeats::of(text));
    let mut found: Vec<(usize, usize, Problem)> = Vec::new();
    for error in errors {
        let span = place(text, error.span());
        let line = source.line_of(&span);
        let (rank, problem) = problem(text, span, error.message(), repeats.as_ref());
        found.push((line, rank, problem));
    }
    found.sort_by_key(|(line, rank, problem)| (*line, *rank, problem.span.as_ref().map(|span| span.start)));
    found.dedup_by_key(|(line, ..)| *line);
    // What follows from the line before is not repeated: a table that is there twice, a list that is not closed.
    found.dedup_by(|next, first| {
        next.2.message == first.2.message && is_follow_up(&next.2.message) && {
            let adjacent = next.0 == first.0 + 1;
            first.0 = next.0;
            adjacent || next.2.message == NOT_CLOSED
        }
    });
    found.into_iter().map(|(_, _, problem)| problem).collect()
}

/// The parser's word for it.
const DUPLICATE: &str = "duplicate key";
const TWICE: &str = "this key or table is written twice";
const NOT_CLOSED: &str = "a list or table above this line is not closed";
const NO_BRACKET: &str = "this header has no `]`";

fn is_follow_up(message: &str) -> bool {
    [TWICE, NOT_CLOSED].contains(&message)
}

/// On character boundaries; the end of the text when the parser names no place.
fn place(text: &str, span: Option<Span>) -> Span {
    let span = span.unwrap_or(text.len()..text.len());
    let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// What syntax errors make of the rest: nothing on their lines, nothing in a table whose header does not end, and
/// nothing below a list that does not end can be taken for what was meant.
pub struct Damage {
    lines: Vec<usize>,
    /// From a header to the next; in the order of the file.
    tables: Vec<Range<usize>>,
    from: Option<usize>,
}

impl Damage {
    pub fn of(text: &str, problems: &[Problem]) -> Self {
        let source = Source::new("", text);
        let line = |problem: &Problem| problem.span.as_ref().map(|span| source.line_of(span));
        let syntax = || problems.iter().filter(|problem| problem.code == Code::Syntax);
        let open = syntax().find(|problem| problem.message == NOT_CLOSED);
        let headers = syntax().filter(|problem| problem.message == NO_BRACKET).filter_map(line);
        let tables = damaged_tables(text, headers.collect());
        Self { lines: syntax().filter_map(line).collect(), tables, from: open.and_then(line) }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// True for a problem that stands whatever the damaged lines were meant to be.
    pub fn leaves(&self, problem: &Problem, source: &Source<'_>) -> bool {
        let Some(line) = problem.span.as_ref().map(|span| source.line_of(span)) else { return false };
        problem.code != Code::MissingKey
            && !self.lines.contains(&line)
            && !self.is_in_damaged_table(line)
            && self.from.is_none_or(|from| line < from)
    }

    fn is_in_damaged_table(&self, line: usize) -> bool {
        let before = self.tables.partition_point(|table| table.start <= line);
        before > 0 && self.tables[before - 1].contains(&line)
    }
}

/// The lines, from 1, from each of these headers to the next of any kind.
fn damaged_tables(text: &str, damaged: HashSet<usize>) -> Vec<Range<usize>> {
    let headers = text.lines().enumerate().filter(|(_, line)| is_header(line)).map(|(index, _)| index + 1);
    let headers: Vec<usize> = headers.chain([usize::MAX]).collect();
    let tables = headers.windows(2).map(|pair| pair[0]..pair[1]);
    tables.filter(|table| damaged.contains(&table.start)).collect()
}

/// A line that begins a table.
fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// The problem and its rank among those of its line: the lower says more.
fn problem(text: &str, span: Span, message: &str, repeats: Option<&Repeats>) -> (usize, Problem) {
    let line = Line::around(text, span.start);
    let error = |span: Span, message: &str| Problem::error(Code::Syntax, span, message);
    if message.contains(DUPLICATE) {
        let list = "write both as a list in one key: rate_limit = [{ ... }, { ... }]";
        let help = if line.text(text).contains("rate_limit") { list } else { "keep one of the two" };
        let first = repeats.and_then(|repeats| repeats.first(&line));
        return (0, error(span, TWICE).related(first, "first here").help(help));
    }
    let header_list = message.starts_with("unclosed array") && is_header(line.text(text));
    if message.starts_with("unclosed table") || header_list {
        return (0, error(line.trimmed(), NO_BRACKET).help("close it, as in [route.users]"));
    }
    if message.starts_with("key with no value") {
        return (0, error(line.trimmed(), "this is not a setting").help("write `key = value`, or `[table]`"));
    }
    let about_value = message.starts_with("string values must be quoted") || message.starts_with("invalid");
    if about_value && let Some((key, value)) = line.setting(text) {
        if value.is_empty() {
            return (0, error(line.trimmed(), "this key has no value").help(format!("write one after `{key} =`")));
        }
        if is_bare(value) {
            let at = line.end_of_key(text)..line.end_of_value(text, value);
            let shown = if names_secret(key) { "..." } else { value };
            let help = format!("put text, durations and sizes in quotes: {key} = \"{shown}\"");
            return (0, error(at, "this value needs quotes").help(help));
        }
    }
    if message.contains("string, expected `\"`") || message.contains("string, expected `'`") {
        return (1, error(line.trimmed(), "this text has no closing quote").help("close it on the same line"));
    }
    if message.starts_with("missing comma") || message.starts_with("extra assignment") {
        let content = line.text(text).trim_start();
        if content.starts_with('[') || (content.contains(" = ") && !content.starts_with('{')) {
            return (1, error(line.trimmed(), NOT_CLOSED).help("end it with `]` or `}`"));
        }
        return (1, error(span, "a comma is missing here").help("separate values with commas"));
    }
    if message.starts_with("unclosed array") {
        return (2, error(span, "a list is not closed").help("end it with `]`"));
    }
    if message.starts_with("unclosed inline table") {
        return (2, error(span, "a table is not closed").help("end it with `}`"));
    }
    if message.starts_with("unexpected leading zero") {
        return (1, error(span, "a number cannot begin with 0").help("take the zero out, or put the value in quotes"));
    }
    (3, error(span, message).help("see https://toml.io for how values, keys and tables are written"))
}

/// Where keys and tables that are written again stand for the first time: the same header above, or the same key above
/// in its table. What was first written in another form, with dots or in a table on one line, is not found. In one pass
/// over the text, because a hostile file may repeat itself a hundred thousand times.
struct Repeats(HashMap<usize, Span>);

impl Repeats {
    fn of(text: &str) -> Self {
        let (mut seen, mut repeats) = (HashMap::new(), HashMap::new());
        let (mut table, mut start) = (0, 0);
        for line in text.split_inclusive('\n') {
            let name = if is_header(line) {
                table = start;
                Some((None, header(line)))
            } else {
                line.split_once('=').map(|(key, _)| (Some(table), key.trim()))
            };
            if let Some((place, name)) = name.filter(|(_, name)| !name.is_empty()) {
                let at = start + line.find(name).unwrap_or(0);
                match seen.entry((place, name)) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(at..at + name.len());
                    }
                    Entry::Occupied(first) => {
                        repeats.insert(start, first.get().clone());
                    }
                }
            }
            start += line.len();
        }
        Self(repeats)
    }

    fn first(&self, line: &Line) -> Option<Span> {
        self.0.get(&line.start).cloned()
    }
}

/// The name in a header.
fn header(line: &str) -> &str {
    let name = line.trim_start().trim_start_matches('[');
    name.split([']', '#', '\n']).next().unwrap_or("").trim()
}

/// Letters, digits and what stands in addresses and quantities: clearly meant as one value.
fn is_bare(value: &str) -> bool {
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "./:%_-*".contains(c));
    plain && value.parse::<f64>().is_err() && !matches!(value, "true" | "false")
}

/// A line of the text by its offsets.
struct Line {
    start: usize,
    end: usize,
    trimmed: Span,
}

impl Line {
    fn around(text: &str, at: usize) -> Self {
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
        let content = text[start..end].trim_end();
        let indent = content.len() - content.trim_start().len();
        Self { start, end, trimmed: start + indent..start + content.len().max(indent) }
    }

    fn trimmed(&self) -> Span {
        self.trimmed.clone()
    }

    fn text<'t>(&self, text: &'t str) -> &'t str {
        &text[self.start..self.end]
    }

    /// Key and value of a plain `key = value`, the comment cut off.
    fn setting<'t>(&self, text: &'t str) -> Option<(&'t str, &'t str)> {
        let (key, value) = text[self.start..self.end].split_once('=')?;
        Some((key.trim(), value.split('#').next().unwrap_or("").trim()))
    }

    /// Where the value begins.
    fn end_of_key(&self, text: &str) -> usize {
        let line = &text[self.start..self.end];
        let after = line.find('=').map_or(0, |at| at + 1);
        let blank = line[after..].len() - line[after..].trim_start().len();
        self.start + after + blank
    }

    fn end_of_value(&self, text: &str, value: &str) -> usize {
        self.end_of_key(text) + value.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> (String, Option<String>, String) {
        let (_, errors) = toml::de::DeTable::parse_recoverable(text);
        let problem = problems(text, &errors).remove(0);
        let span = problem.span.expect("a place");
        (problem.message, problem.help, text[span].to_owned())
    }

    #[test]
    fn common_slips_are_said_in_plain_words() {
        let cases = [
            ("a = 3s\n", "this value needs quotes", "3s"),
            ("a = 127.0.0.1:80 # x\n", "this value needs quotes", "127.0.0.1:80"),
            ("a = \n", "this key has no value", "a ="),
            ("[c\nd = 1\n", "this header has no `]`", "[c"),
            ("[[c\nd = 1\n", "this header has no `]`", "[[c"),
            ("a = \"x\n", "this text has no closing quote", "a = \"x"),
            ("a: 3\n", "this is not a setting", "a: 3"),
            ("[a]\n[a]\n", "this key or table is written twice", "a"),
        ];

        for (text, message, marked) in cases {
            let (found, _, at) = first(text);
            assert_eq!((found.as_str(), at.as_str()), (message, marked), "{text}");
        }
    }

    #[test]
    fn a_secret_without_quotes_is_not_repeated() {
        let (_, help, _) = first("token = hunter2\n");
        assert_eq!(help.as_deref(), Some("put text, durations and sizes in quotes: token = \"...\""));

        let (_, help, _) = first("deadline = 3s\n");
        assert_eq!(help.as_deref(), Some("put text, durations and sizes in quotes: deadline = \"3s\""));
    }

    #[test]
    fn what_is_written_twice_shows_the_first() {
        let cases = [
            ("[a.b]\nx = 1\n\n[ a.b ] # again\nx = 2\n", Some(1..4)),
            ("[a]\nx = 1\n[b]\n x = 2\ny = 3\n x = 4\n", Some(15..16)),
            ("a = { x = 1 }\n[a]\nx = 2\n", None),
            ("a = { x = 1, x = 2 }\n", None),
        ];
        for (text, expected) in cases {
            let (_, errors) = toml::de::DeTable::parse_recoverable(text);
            let problem = problems(text, &errors).remove(0);

            assert_eq!(problem.message, TWICE, "{text}");
            assert_eq!(problem.related.first().map(|(span, _)| span.clone()), expected, "{text}");
        }
    }

    #[test]
    fn a_line_has_one_error() {
        let text = "a = { b = 1 c = 2 }\nx = 3s\n";
        let (_, errors) = toml::de::DeTable::parse_recoverable(text);

        let lines: Vec<_> =
            problems(text, &errors).iter().filter_map(|p| p.span.clone()).map(|s| s.start > 20).collect();

        assert_eq!(lines, [false, true]);
    }
}
