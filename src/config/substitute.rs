//! `${NAME}` and `${NAME:-default}` in values. `$${` stands for a literal `${`; a `$` alone is itself.

use super::diagnostic::{Code, Problem};
use super::source::Span;

/// Looks up an environment variable. Passed in, so that reading a configuration depends on nothing hidden.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

#[derive(Debug, PartialEq, Eq)]
pub struct Filled {
    pub value: String,
    /// Where in the value the contents of variables are; there is one for each reference, so the value is not what the
    /// file shows.
    pub filled: Vec<Span>,
}

/// A reference that cannot be filled in, with its place in the string.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    pub at: Span,
    pub kind: MistakeKind,
}

#[derive(Debug, PartialEq, Eq)]
pub enum MistakeKind {
    Unset(String),
    BadName(String),
    Unclosed,
}

impl Mistake {
    pub fn into_problem(self, span: Span) -> Problem {
        match self.kind {
            MistakeKind::Unset(name) => {
                Problem::error(Code::Environment, span, format!("the environment variable {name} is not set"))
                    .help(format!("set it, or give a default: ${{{name}:-value}}"))
            }
            MistakeKind::BadName(name) => {
                Problem::error(Code::Environment, span, format!("`{name}` cannot be the name of a variable"))
                    .expected("letters, digits and `_`, not beginning with a digit")
                    .help("for a literal `${` write `$${`")
            }
            MistakeKind::Unclosed => Problem::error(Code::Environment, span, "`${` without its `}`")
                .help("close it, or write `$${` for a literal `${`"),
        }
    }
}

/// The text with every reference replaced, or everything that is wrong with its references.
pub fn fill_in(text: &str, variables: &Variables<'_>) -> Result<Filled, Vec<Mistake>> {
    let mut filled = Filled { value: String::with_capacity(text.len()), filled: Vec::new() };
    let mut mistakes = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('$') {
        let dollar = at + found;
        filled.value.push_str(&text[at..dollar]);
        let rest = &text[dollar..];
        if rest.starts_with("$${") {
            filled.value.push_str("${");
            at = dollar + 3;
        } else if rest.starts_with("${") {
            let end = rest.find('}').map_or(text.len(), |close| dollar + close + 1);
            match reference(&text[dollar..end], variables) {
                Ok(value) => {
                    let start = filled.value.len();
                    filled.value.push_str(&value);
                    filled.filled.push(start..filled.value.len());
                }
                Err(kind) => mistakes.push(Mistake { at: dollar..end, kind }),
            }
            at = end;
        } else {
            filled.value.push('$');
            at = dollar + 1;
        }
    }
    filled.value.push_str(&text[at..]);
    if mistakes.is_empty() { Ok(filled) } else { Err(mistakes) }
}

/// The value of one `${...}`. As in the shell, `:-` also replaces an empty value.
fn reference(written: &str, variables: &Variables<'_>) -> Result<String, MistakeKind> {
    let inner = written.strip_prefix("${").and_then(|inner| inner.strip_suffix('}')).ok_or(MistakeKind::Unclosed)?;
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if !is_name(name) {
        return Err(MistakeKind::BadName(name.to_owned()));
    }
    match (variables(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(MistakeKind::Unset(name.to_owned())),
    }
}

/// A name that a shell could set.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, Vec<Mistake>> {
        let variables = |name: &str| match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        fill_in(text, &variables).map(|filled| filled.value)
    }

    #[test]
    fn references_defaults_and_literals() {
        let cases = [
            ("127.0.0.1:${PORT}", "127.0.0.1:8080"),
            ("${HOST:-localhost}:${PORT}", "localhost:8080"),
            ("${EMPTY:-full}", "full"),
            ("[${EMPTY}]", "[]"),
            ("$${PORT} costs $5", "${PORT} costs $5"),
            ("${NOPE:-}", ""),
            ("é$", "é$"),
        ];

        for (text, value) in cases {
            assert_eq!(filled(text), Ok(value.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_places_of_what_was_filled_in_are_known() {
        let filled = fill_in("a${X}b${X}$${X}", &|_| Some("{1}".to_owned())).expect("valid");

        assert_eq!((filled.value.as_str(), filled.filled), ("a{1}b{1}${X}", vec![1..4, 5..8]));
    }

    #[test]
    fn every_bad_reference_is_reported_with_its_place() {
        let mistakes = filled("${NOPE} ${1X} ${PORT").expect_err("three mistakes");

        let kinds: Vec<_> = mistakes.into_iter().map(|mistake| (mistake.at, mistake.kind)).collect();
        let expected = [
            (0..7, MistakeKind::Unset("NOPE".into())),
            (8..13, MistakeKind::BadName("1X".into())),
            (14..20, MistakeKind::Unclosed),
        ];
        assert_eq!(kinds, expected);
    }
}
