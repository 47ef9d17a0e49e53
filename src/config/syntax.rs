//! Syntax errors in words for people who do not know TOML's grammar, one for each line: the parser's own follow-up
//! errors on the same line say nothing new.

use super::diagnostic::{Code, Problem};
use super::source::Span;

/// The parser's errors as problems, at most one for each line, in the order of the file.
pub fn problems(text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut found: Vec<(usize, usize, Problem)> = Vec::new();
    for error in errors {
        let span = place(text, error.span());
        let line = text.as_bytes()[..span.start].iter().filter(|byte| **byte == b'\n').count();
        let (rank, problem) = problem(text, span, error.message());
        found.push((line, rank, problem));
    }
    found.sort_by_key(|(line, rank, problem)| (*line, *rank, problem.span.as_ref().map(|span| span.start)));
    found.dedup_by_key(|(line, ..)| *line);
    found.into_iter().map(|(_, _, problem)| problem).collect()
}

/// On character boundaries; the end of the text when the parser names no place.
fn place(text: &str, span: Option<Span>) -> Span {
    let span = span.unwrap_or(text.len()..text.len());
    let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// The problem and its rank among those of its line: the lower says more.
fn problem(text: &str, span: Span, message: &str) -> (usize, Problem) {
    let line = Line::around(text, span.start);
    let error = |span: Span, message: &str| Problem::error(Code::Syntax, span, message);
    if message.contains("duplicate key") {
        let help = "keep one of the two; several limits of a route are written as a list in one key";
        return (0, error(span, "this key or table is written twice").help(help));
    }
    if message.starts_with("unclosed table") {
        return (0, error(line.trimmed(), "this header has no `]`").help("close it, as in [route.users]"));
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
            let help = format!("put text, durations and sizes in quotes: {key} = \"{value}\"");
            return (0, error(at, "this value needs quotes").help(help));
        }
    }
    if message.contains("string, expected `\"`") || message.contains("string, expected `'`") {
        return (1, error(line.trimmed(), "this text has no closing quote").help("close it on the same line"));
    }
    if message.starts_with("missing comma") || message.starts_with("extra assignment") {
        return (1, error(span, "a comma is missing here"));
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
    (3, error(span, message))
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
    fn a_line_has_one_error() {
        let text = "a = { b = 1 c = 2 }\nx = 3s\n";
        let (_, errors) = toml::de::DeTable::parse_recoverable(text);

        let lines: Vec<_> =
            problems(text, &errors).iter().filter_map(|p| p.span.clone()).map(|s| s.start > 20).collect();

        assert_eq!(lines, [false, true]);
    }
}
