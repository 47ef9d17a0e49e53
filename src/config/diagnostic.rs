//! What is wrong with a configuration, said so that it can be mended without the manual: where, what, what was
//! expected, what to write. The same mistake gives the same words from `check`, at start and at reload.

use std::fmt::{self, Write as _};

use super::source::{Excerpt, Source, Span};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, but does something that is rarely meant.
    Warning,
}

/// The kinds of mistakes: a closed list, so that scripts can rely on the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    File,
    Syntax,
    UnknownKey,
    MissingKey,
    WrongType,
    InvalidValue,
    OutOfRange,
    Environment,
    Secret,
    UnknownName,
    Duplicate,
    Conflict,
    NeverFires,
    NoEffect,
    Shadowed,
    Unused,
    Exposed,
}

impl Code {
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::File => "file",
            Code::Syntax => "syntax",
            Code::UnknownKey => "unknown-key",
            Code::MissingKey => "missing-key",
            Code::WrongType => "wrong-type",
            Code::InvalidValue => "invalid-value",
            Code::OutOfRange => "out-of-range",
            Code::Environment => "environment",
            Code::Secret => "secret",
            Code::UnknownName => "unknown-name",
            Code::Duplicate => "duplicate",
            Code::Conflict => "conflict",
            Code::NeverFires => "never-fires",
            Code::NoEffect => "no-effect",
            Code::Shadowed => "shadowed",
            Code::Unused => "unused",
            Code::Exposed => "exposed",
        }
    }
}

/// A mistake at a place in the text, before it is bound to a file. Built up with the `with_*` functions.
#[derive(Debug, Clone)]
pub struct Problem {
    pub severity: Severity,
    pub code: Code,
    pub span: Option<Span>,
    pub message: String,
    pub expected: Option<String>,
    pub help: Option<String>,
    /// Other places that belong to it, each with what they are.
    pub related: Vec<(Span, String)>,
}

impl Problem {
    pub fn error(code: Code, span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, span.into(), message.into())
    }

    pub fn warning(code: Code, span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, span.into(), message.into())
    }

    fn new(severity: Severity, code: Code, span: Option<Span>, message: String) -> Self {
        Self { severity, code, span, message, expected: None, help: None, related: Vec::new() }
    }

    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn related(mut self, span: Option<Span>, what: impl Into<String>) -> Self {
        if let Some(span) = span {
            self.related.push((span, what.into()));
        }
        self
    }
}

/// A mistake with everything needed to show it; secrets are already masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    pub file: String,
    pub place: Option<Place>,
    pub message: String,
    pub expected: Option<String>,
    pub help: Option<String>,
    pub related: Vec<(Place, String)>,
}

/// A marked part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    pub excerpt: Excerpt,
}

impl Place {
    fn new(source: &Source<'_>, span: &Span) -> Self {
        let (line, column) = source.position(span.start);
        Self { line, column, excerpt: source.excerpt(span) }
    }
}

impl Diagnostic {
    pub fn new(source: &Source<'_>, problem: Problem) -> Self {
        let related = problem.related.iter().map(|(span, what)| (Place::new(source, span), what.clone())).collect();
        // A message may quote a part of what it is about.
        let hidden = problem.span.as_ref().and_then(|span| source.hidden_at(span));
        let shown = |text: String| hidden.map_or(text.clone(), |hidden| without(&text, hidden));
        Self {
            severity: problem.severity,
            code: problem.code,
            file: source.name().to_owned(),
            place: problem.span.as_ref().map(|span| Place::new(source, span)),
            message: shown(problem.message),
            expected: problem.expected.map(shown),
            help: problem.help.map(shown),
            related,
        }
    }

    /// A mistake of the file as a whole, such as one that cannot be read.
    pub fn of_file(file: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        let problem = Problem::error(Code::File, None, message).help(help);
        Self::new(&Source::new(file, ""), problem)
    }

    /// `forebay.toml:12:3: message`: one line, for a log.
    pub fn brief(&self) -> String {
        match &self.place {
            Some(place) => format!("{}:{}:{}: {}", self.file, place.line, place.column, self.message),
            None => format!("{}: {}", self.file, self.message),
        }
    }

    /// The whole message, as a compiler would show it.
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { on: colour };
        let mut out = String::new();
        let (word, tint) = match self.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        let head = paint.with(tint, &format!("{word}[{}]", self.code.as_str()));
        line(&mut out, format_args!("{head}: {}", paint.with(BOLD, &self.message)));
        let gutter = self.gutter();
        match &self.place {
            Some(place) => {
                line(&mut out, format_args!("{:gutter$}--> {}:{}:{}", "", self.file, place.line, place.column));
                render_place(&mut out, &paint, place, gutter, '^', tint, "");
            }
            None => line(&mut out, format_args!("{:gutter$}--> {}", "", self.file)),
        }
        for (place, what) in &self.related {
            render_place(&mut out, &paint, place, gutter, '-', BLUE, what);
        }
        for (title, text) in [("expected", &self.expected), ("help", &self.help)] {
            let Some(text) = text else { continue };
            let mut lines = text.lines();
            let first = lines.next().unwrap_or_default();
            line(&mut out, format_args!("{:gutter$} = {}: {first}", "", paint.with(BOLD, title)));
            for more in lines {
                line(
                    &mut out,
                    format_args!("{:indent$}{more}", "", indent = if more.is_empty() { 0 } else { gutter + 3 }),
                );
            }
        }
        out
    }

    /// Width of the column of line numbers.
    fn gutter(&self) -> usize {
        let lines = self.place.iter().chain(self.related.iter().map(|(place, _)| place)).map(|place| place.line);
        lines.max().unwrap_or(0).to_string().len().max(2)
    }
}

/// A message without what it quotes of a hidden value.
fn without(message: &str, hidden: &str) -> String {
    let mut out = String::new();
    for (index, piece) in message.split_inclusive(['`', '"']).enumerate() {
        let content = piece.trim_end_matches(['`', '"']);
        let is_quoted = index % 2 == 1 && content.len() < piece.len();
        // `${` alone gives nothing away.
        if is_quoted && content.contains(char::is_alphanumeric) && hidden.contains(content) {
            out.push_str("***");
            out.push_str(&piece[content.len()..]);
        } else {
            out.push_str(piece);
        }
    }
    out
}

fn render_place(out: &mut String, paint: &Paint, place: &Place, gutter: usize, mark: char, tint: &str, label: &str) {
    let marks = mark.to_string().repeat(place.excerpt.width);
    line(out, format_args!("{:gutter$} |", ""));
    line(out, format_args!("{:gutter$} | {}", place.line, place.excerpt.text));
    let text = format!("{marks} {label}");
    line(
        out,
        format_args!(
            "{:gutter$} | {:start$}{}",
            "",
            "",
            paint.with(tint, text.trim_end()),
            start = place.excerpt.start
        ),
    );
}

fn line(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const BOLD: &str = "\x1b[1m";

struct Paint {
    on: bool,
}

impl Paint {
    fn with(&self, tint: &str, text: &str) -> String {
        if self.on { format!("{tint}{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Every mistake of a refused file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub fn new(mut diagnostics: Vec<Diagnostic>) -> Self {
        sort(&mut diagnostics);
        Self { diagnostics }
    }

    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }

    pub fn render(&self, colour: bool) -> String {
        render_all(&self.diagnostics, colour)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// In the order of the file; what has no place comes first.
pub fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by_key(|d| (d.place.as_ref().map(|place| (place.line, place.column)), d.severity, d.code));
    diagnostics.dedup();
}

/// Each message, then the count: `3 errors, 1 warning`.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&diagnostic.render(colour));
        out.push('\n');
    }
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    let counts = [counted(errors, "error"), counted(warnings, "warning")];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    if !counts.is_empty() {
        line(&mut out, format_args!("{}", counts.join(", ")));
    }
    out
}

fn counted(count: usize, word: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_shows_the_line_a_caret_and_what_to_write() {
        let source = Source::new("forebay.toml", "[route.slow]\ndedline = \"3s\"\n");
        let problem = Problem::error(Code::UnknownKey, 13..20, "unknown key `dedline`").help("write `deadline`");

        let shown = Diagnostic::new(&source, problem).render(false);

        let expected = "error[unknown-key]: unknown key `dedline`\n  --> forebay.toml:2:1\n   |\n \
                        2 | dedline = \"3s\"\n   | ^^^^^^^\n   = help: write `deadline`\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_report_is_in_the_order_of_the_file_and_counts() {
        let source = Source::new("f", "a = 1\nb = 2\n");
        let second = Diagnostic::new(&source, Problem::error(Code::UnknownKey, 6..7, "second"));
        let first = Diagnostic::new(&source, Problem::warning(Code::Unused, 0..1, "first"));

        let report = Report::new(vec![second.clone(), first, second]);

        assert_eq!(report.diagnostics().iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        assert!(report.to_string().ends_with("1 error, 1 warning\n"), "{report}");
    }
}
