//! Secrets in the text of a file that is wrong, found by the names before them: `token: hunter2`.
//!
//! The decoder hides the secrets that it knows. But a line that is not TOML is not decoded, and a value may stand where nobody
//! expects one. So whatever follows a name that tells is hidden before any line is quoted, in every notation that people
//! write by mistake: with `=` or `:`, in quotes of any kind, without any, on the lines below. Rather too much than too little;
//! but references (`"${NAME}"`, `{ env = "NAME" }`) stay, which are what should be there.

use super::source::Span;

/// Names of secrets, and of nothing else.
const SECRET: [&str; 12] = [
    "token",
    "secret",
    "passw",
    "pwd",
    "credential",
    "authorization",
    "cookie",
    "api-key",
    "api_key",
    "apikey",
    "private_key",
    "access_key",
];

/// Names of secrets, and of other things as well: the key of a rate limit, `max_keys`.
const OFTEN_SECRET: [&str; 2] = ["auth", "key"];

/// A list that is not closed within so much is taken to end with its line.
const LONGEST_LIST: usize = 4 << 10;

/// Whether a key may hold a secret, by its name.
pub fn names_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    is_secret(&key) || OFTEN_SECRET.iter().any(|word| key.contains(word))
}

fn is_secret(lower_case: &str) -> bool {
    SECRET.iter().any(|word| lower_case.contains(word))
}

/// The values after names that tell. On `doubtful` lines (from 1), which nobody could read, all names count that may tell.
pub fn spans(text: &str, doubtful: &dyn Fn(usize) -> bool) -> Vec<Span> {
    let mut search = Search { text, found: Vec::new(), below: None };
    let mut start = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        search.line(start, line.trim_end(), doubtful(index + 1));
        start += line.len();
    }
    search.found
}

/// Whether a quotation of the line of this byte would show one of those values.
pub fn shows_secret(text: &str, at: usize) -> bool {
    // The end of the text is quoted as its last line.
    let at = (0..=at.min(text.trim_end().len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    spans(text, &|_| true).iter().any(|span| span.start < end && start < span.end)
}

struct Search<'t> {
    text: &'t str,
    /// In order, and apart from each other.
    found: Vec<Span>,
    /// The line before ended with a name: its value may be what stands below.
    below: Option<Below>,
}

#[derive(Clone, Copy, PartialEq)]
enum Below {
    /// One line, or several that are indented.
    First,
    Indented,
}

impl Search<'_> {
    fn line(&mut self, start: usize, line: &str, doubtful: bool) {
        // A value of several lines may reach into this one.
        let mut at = self.found.last().map_or(0, |span| span.end.saturating_sub(start)).min(line.len());
        if self.is_below(line) {
            self.found.push(start + line.len() - line.trim_start().len()..start + line.len());
            return;
        }
        if doubtful && at == 0 && !line.contains(['=', ':']) {
            self.after_a_word(start, line);
        }
        while let Some(offset) = line.get(at..).and_then(|rest| rest.find(['=', ':'])) {
            let separator = at + offset;
            at = separator + 1;
            let name = name_before(&line[..separator]).to_lowercase();
            let tells = if doubtful { names_secret(&name) } else { is_secret(&name) };
            if !tells {
                continue;
            }
            let value = line[at..].trim_start_matches([' ', '\t', '=', ':', '>']);
            let value_start = start + line.len() - value.len();
            if value.is_empty() || matches!(value, "|" | "|-" | "|+") || value.starts_with('#') {
                self.below = Some(Below::First);
                return;
            }
            let end = self.end_of_value(value_start, start + line.len());
            if !is_reference(&self.text[value_start..end]) {
                self.found.push(value_start..end);
            }
            at = end.saturating_sub(start).min(line.len());
        }
    }

    /// `token hunter2`: what follows the first word that tells.
    fn after_a_word(&mut self, start: usize, line: &str) {
        let words = line.match_indices(char::is_whitespace).map(|(at, _)| at);
        if let Some(at) = words.into_iter().find(|at| names_secret(name_before(&line[..*at]))) {
            let value = line[at..].trim_start();
            if !value.is_empty() {
                self.found.push(start + line.len() - value.len()..start + line.len());
            }
        }
    }

    /// This line is the value of a name above, or goes on with it.
    fn is_below(&mut self, line: &str) -> bool {
        let Some(below) = self.below.take() else { return false };
        let content = line.trim_start();
        let is_indented = content.len() < line.len();
        if content.is_empty() {
            self.below = Some(below);
            return false;
        }
        let is_value = match below {
            Below::First => is_indented || !(content.starts_with('[') || content.contains(['=', ':'])),
            Below::Indented => is_indented,
        };
        if is_value && is_indented {
            self.below = Some(Below::Indented);
        }
        is_value
    }

    fn end_of_value(&self, start: usize, end_of_line: usize) -> usize {
        let value = &self.text[start..end_of_line];
        for quotes in ["\"\"\"", "'''"] {
            if let Some(rest) = value.strip_prefix(quotes).map(|_| &self.text[start + 3..]) {
                return rest.find(quotes).map_or(self.text.len(), |at| start + 3 + at + 3);
            }
        }
        match value.as_bytes()[0] {
            quote @ (b'"' | b'\'') => closing_quote(value, quote).map_or(end_of_line, |at| start + at + 1),
            b'{' => closing_brace(value).map_or(end_of_line, |at| start + at + 1),
            b'[' => {
                let rest = &self.text.as_bytes()[start..];
                let rest = &rest[..rest.len().min(LONGEST_LIST)];
                rest.iter().position(|byte| *byte == b']').map_or(end_of_line, |at| start + at + 1)
            }
            _ => end_of_line,
        }
    }
}

fn closing_brace(value: &str) -> Option<usize> {
    let mut depth = 0_usize;
    value.bytes().position(|byte| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })
}

/// The key before a separator, without its quotes and what it is a part of.
fn name_before(text: &str) -> &str {
    let text = text.trim_end();
    let text = text.strip_suffix(['"', '\'']).unwrap_or(text);
    let is_name = |c: char| c.is_alphanumeric() || "_-".contains(c);
    &text[text.trim_end_matches(is_name).len()..]
}

/// Where a text in quotes ends, if what follows shows that it does.
fn closing_quote(value: &str, quote: u8) -> Option<usize> {
    let mut escaped = false;
    let is_end = |(_, byte): &(usize, u8)| {
        let ends = *byte == quote && !escaped;
        escaped = quote == b'"' && *byte == b'\\' && !escaped;
        ends
    };
    let (at, _) = value.bytes().enumerate().skip(1).find(is_end)?;
    let rest = value[at + 1..].trim_start();
    (rest.is_empty() || rest.starts_with([',', '}', ']', '#'])).then_some(at)
}

/// What should stand in a secret's place: a value from elsewhere, with the scheme before it.
fn is_reference(value: &str) -> bool {
    if let Some(table) = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        // What the decoder understands it hides itself.
        let source = table.split_once('=').map(|(key, name)| (key.trim(), name.trim()));
        return source.is_some_and(|(key, name)| ["env", "file"].contains(&key) && is_one_text(name));
    }
    let text = value.trim_matches(['"', '\'']);
    let text = ["Bearer ", "Basic ", "Token "].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    let mut rest = text;
    while let Some((reference, after)) = rest.split_once('}') {
        let Some(name) = reference.strip_prefix("${").or(reference.strip_prefix('{')) else { return false };
        // A default would be the secret.
        if !name.chars().all(|c| c.is_alphanumeric() || "_-.*".contains(c)) {
            return false;
        }
        rest = after;
    }
    rest.is_empty() && !text.is_empty()
}

fn is_one_text(value: &str) -> bool {
    value.len() > 1 && value.starts_with('"') && closing_quote(value, b'"') == Some(value.len() - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text with `***` in the place of what was found.
    fn masked(text: &str) -> String {
        let mut out = text.to_owned();
        spans(text, &|_| true).into_iter().rev().for_each(|span| out.replace_range(span, "***"));
        out
    }

    #[test]
    fn what_follows_a_name_that_tells_is_hidden_however_it_is_written() {
        let cases = [
            ("token: hunter2", "token: ***"),
            ("token = hunter2 and more # why", "token = ***"),
            ("token = \"hun\\\"ter2\" # why", "token = *** # why"),
            ("admin.token='hunter2'", "admin.token=***"),
            ("token = 'it's hunter2'", "token = ***"),
            ("token = \"hunter2", "token = ***"),
            ("\"x-api-key\" : \"hunter2\", \"a\": 1", "\"x-api-key\" : ***, \"a\": 1"),
            ("  - Authorization: Bearer hunter2", "  - Authorization: ***"),
            ("h = [\"Authorization: Bearer hunter2\"]", "h = [\"Authorization: ***"),
            ("set = { authorization = \"Bearer hunter2\", a = 1 }", "set = { authorization = ***, a = 1 }"),
            ("password := hunter2", "password := ***"),
            ("DB_PASSWD => hunter2", "DB_PASSWD => ***"),
            ("token = { value = \"hunter2\" }", "token = ***"),
            ("token = { env = \"TOKEN\", value = \"hunter2\" }", "token = ***"),
            ("token = { env = \"hunter2", "token = ***"),
            ("a = { token = { b = {}, value = \"hunter2\" }, c = 1 }", "a = { token = ***, c = 1 }"),
            ("tokens = [\n  \"hunter2\",\n  \"hunter3\",\n]\na = 1", "tokens = ***\na = 1"),
            ("secret = \"\"\"\nhunter2\nhunter3\n\"\"\"\na = 1", "secret = ***\na = 1"),
            ("secret = '''\nhunter2\nhunter3", "secret = ***"),
            ("token:\n  hunter2\n  hunter3\na: 1", "token:\n  ***\n  ***\na: 1"),
            ("token: |\n  hunter2 = x\na: 1", "token: |\n  ***\na: 1"),
            ("token =\n\nhunter2\na = 1", "token =\n\n***\na = 1"),
            ("token = \"a ${NAME:-hunter2}\"", "token = ***"),
            ("url = \"http://h/?token=hunter2&a=1\"", "url = \"http://h/?token=***"),
            ("key: hunter2", "key: ***"),
            ("export Token hunter2 hunter3", "export Token ***"),
        ];

        for (text, expected) in cases {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_that_show_a_secret_are_told_from_others() {
        let text = "a = 1\ntoken = '''\nhunter2\n'''\nb = 1\n";

        let lines: Vec<bool> = text.match_indices('\n').map(|(end, _)| shows_secret(text, end)).collect();

        assert_eq!(lines, [false, true, true, true, false]);
        let open = "token = '''\nhunter2\n";
        assert!(shows_secret(open, open.len()));
    }

    #[test]
    fn references_and_other_settings_stay() {
        for text in [
            "token = \"${ADMIN_TOKEN}\"",
            "token = { env = \"ADMIN_TOKEN\" } # why",
            "token = { file = \"/run/secrets/token\" }",
            "headers = { authorization = \"Bearer {header.x-token}\" }",
            "remove = [\"authorization\", \"cookie\"]",
            "path = \"/token\"",
            "token =\n[admin]\naddress = \"off\"",
            "address: \"127.0.0.1:8080\"",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn names_that_tell_little_count_on_doubtful_lines_only() {
        let text = "key = \"client_ip\"\nkey = \"key.pem\"\n";

        assert!(spans(text, &|_| false).is_empty());
        assert_eq!(spans(text, &|line| line == 2), std::iter::once(24..33).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn any_text_is_searched_and_spans_are_in_order_and_apart(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "token", "key", "a", "=", ":", " ", "\n", "\"", "'", "\"\"\"", "'''", "{", "}", "[", "]", "#", "é", "\\", "${",
                    "env", ",", "\r",
                ]),
                0..40,
            )
        ) {
            let text = pieces.concat();
            let found = spans(&text, &|_| true);

            prop_assert!(found.iter().all(|span| text.get(span.clone()).is_some_and(|hidden| !hidden.is_empty())), "{found:?}");
            prop_assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start), "{found:?}");
            let _ = masked(&text);
        }
    }
}
