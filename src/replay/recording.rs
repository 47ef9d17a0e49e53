//! The recording format: a line that names it, then one JSON object per request.
//!
//! ```text
//! {"format":"forebay-recording","version":2}
//! {"at_ns":0,"method":"GET","path":"/users?page=2","headers":{"accept":["*/*"]},"status":200,"duration_ns":1500000,
//!  "answer":{"headers":{"content-type":["application/json"]},"body_base64":"W10="}}
//! {"at_ns":20000000,"method":"POST","path":"/orders","body_base64":"e30="}
//! ```
//!
//! (each request on one line). `answer` came with version 2, of which all else is version 1; `"body_cut":true` in it says
//! that only the beginning of the body was kept. Whoever records as requests end writes [`head`] once and [`line()`] for
//! each.
//!
//! `at_ns` counts from anywhere, since only differences matter. A reader is strict: a field that it does not know may
//! change what the request means, so it is a mistake and not ignored; new fields come with a new version.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::{Answer, Record, add_field, method, path, status};

pub const FORMAT: &str = "forebay-recording";
pub const VERSION: u32 = 2;
/// Versions that are read.
const FIRST_VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at_ns: u64,
    method: String,
    path: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    body_base64: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration_ns: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerLine>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerLine {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    body_base64: String,
    #[serde(default, skip_serializing_if = "is_false")]
    body_cut: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Whether a text claims to be a recording, of whatever version.
pub fn is_recording(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(first).is_ok_and(|head| head["format"] == FORMAT)
}

/// Reads a recording, in its own order.
///
/// # Errors
///
/// What is wrong, with its line.
pub fn parse(text: &str) -> Result<Vec<Record>, String> {
    let mut lines = text.lines().zip(1_usize..);
    let (first, _) = lines.next().unwrap_or_default();
    let head: Head = serde_json::from_str(first)
        .map_err(|error| format!("line 1: expected {{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}: {error}"))?;
    if head.format != FORMAT || !(FIRST_VERSION..=VERSION).contains(&head.version) {
        return Err(format!(
            "line 1: {} of version {}; this program reads {FORMAT} of version {FIRST_VERSION} to {VERSION}",
            head.format, head.version
        ));
    }
    let records = lines.filter(|(line, _)| !line.trim().is_empty());
    let read = |(line, number)| record(line, head.version).map_err(|problem| format!("line {number}: {problem}"));
    records.map(read).collect()
}

fn record(line: &str, version: u32) -> Result<Record, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let mut record = Record::new(line.at_ns, method(&line.method)?, path(&line.path)?);
    for (name, values) in &line.headers {
        values.iter().try_for_each(|value| add_field(&mut record.headers, name, value))?;
    }
    record.body = decode(&line.body_base64)?;
    if let Some(number) = line.status {
        record.status = Some(status(number).ok_or_else(|| format!("{number} is not a status"))?);
    }
    record.duration = line.duration_ns;
    record.answer = match line.answer {
        Some(_) if version < 2 => return Err("`answer` belongs to version 2".to_owned()),
        answer => answer.map(read_answer).transpose()?,
    };
    Ok(record)
}

fn read_answer(line: AnswerLine) -> Result<Answer, String> {
    let mut answer = Answer { body: decode(&line.body_base64)?, is_cut: line.body_cut, ..Answer::default() };
    for (name, values) in &line.headers {
        values.iter().try_for_each(|value| add_field(&mut answer.headers, name, value))?;
    }
    Ok(answer)
}

/// Writes a recording.
pub fn render(records: &[Record]) -> String {
    std::iter::once(head()).chain(records.iter().map(line)).collect()
}

/// The first line of a recording, with its line feed.
pub fn head() -> String {
    json(&Head { format: FORMAT.to_owned(), version: VERSION })
}

/// The line of a request, with its line feed. Everything that is in the record is written.
pub fn line(record: &Record) -> String {
    let answer = |answer: &Answer| AnswerLine {
        headers: fields(&answer.headers),
        body_base64: BASE64.encode(&answer.body),
        body_cut: answer.is_cut,
    };
    json(&Line {
        at_ns: record.at,
        method: record.method.to_string(),
        path: record.path.clone(),
        headers: fields(&record.headers),
        body_base64: BASE64.encode(&record.body),
        status: record.status,
        duration_ns: record.duration,
        answer: record.answer.as_ref().map(answer),
    })
}

/// A line of JSON.
pub(super) fn json(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).expect("maps with text keys, numbers and text are JSON");
    line.push('\n');
    line
}

/// Fields by name. All values come from texts, so nothing is lost.
pub(super) fn fields(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        fields.entry(name.to_string()).or_default().push(value);
    }
    fields
}

pub(super) fn decode(base64: &str) -> Result<Bytes, String> {
    BASE64.decode(base64).map(Bytes::from).map_err(|error| format!("the body is not base64: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "{\"format\":\"forebay-recording\",\"version\":1}\n";

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let headers = proptest::collection::vec(("x-[a-z]{1,3}", "[!-~é]([ -~é]{0,6}[!-~])?"), 0..4);
        let body = || proptest::collection::vec(any::<u8>(), 0..9);
        let said = proptest::option::of((body(), any::<bool>()));
        let answer = (proptest::option::of(100..=999_u16), proptest::option::of(any::<u64>()), said);
        let record = (any::<u64>(), "GET|POST|PURGE", "/[a-z0-9/]{0,9}(\\?[a-z]=[0-9])?", headers, body(), answer);
        let record = record.prop_map(|(at, verb, place, fields, body, (status, duration, said))| {
            let mut record = Record::new(at, method(&verb).unwrap(), place);
            for (name, value) in fields {
                add_field(&mut record.headers, &name, &value).unwrap();
            }
            let answer = said.map(|(body, is_cut)| Answer::new(&record.headers, body.into(), is_cut));
            Record { body: body.into(), status, duration, answer, ..record }
        });
        proptest::collection::vec(record, 0..5)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in records()) {
            prop_assert_eq!(parse(&render(&records)).unwrap(), records);
        }
    }

    #[test]
    fn the_documented_form_is_read() {
        let text = format!(
            "{HEAD}{}\n\n{}\n",
            r#"{"at_ns":0,"method":"GET","path":"/users?page=2","headers":{"accept":["*/*"],"host":["old"]},"status":200,"duration_ns":1500000}"#,
            r#"{"at_ns":20000000,"method":"POST","path":"/orders","body_base64":"e30="}"#
        );
        let records = parse(&text).expect("a recording");

        assert!(is_recording(&text));
        assert_eq!((records[0].status, records[0].duration), (Some(200), Some(1_500_000)));
        assert_eq!(records[0].headers.len(), 1, "the host is that of the target");
        assert_eq!((records[1].at, &records[1].body[..]), (20_000_000, &b"{}"[..]));
    }

    #[test]
    fn an_answer_is_kept_without_what_belongs_to_its_connection() {
        let text = concat!(
            r#"{"format":"forebay-recording","version":2}"#,
            "\n",
            r#"{"at_ns":0,"method":"GET","path":"/","status":200,"answer":{"headers":{"etag":["a"],"content-length":["2"]},"#,
            r#""body_base64":"W10=","body_cut":true}}"#,
            "\n"
        );

        let records = parse(text).expect("a recording");

        let answer = records[0].answer.as_ref().expect("an answer");
        assert_eq!((answer.headers.len(), &answer.body[..], answer.is_cut), (1, &b"[]"[..], true));
        assert_eq!(Answer::new(&answer.headers, answer.body.clone(), true), *answer);
    }

    #[test]
    fn mistakes_have_their_line() {
        let good = r#"{"at_ns":0,"method":"GET","path":"/"}"#;
        let line = |line: &str| format!("{HEAD}{good}\n{line}\n");
        for (text, part) in [
            (String::new(), "line 1: expected"),
            (good.to_owned(), "line 1: expected"),
            (HEAD.replace("1}", "3}"), "version 3; this program reads forebay-recording of version 1 to 2"),
            (line(r#"{"at_ns":0,"method":"GET","path":"/","answer":{}}"#), "line 3: `answer` belongs to version 2"),
            (line("{"), "line 3: "),
            (line(r#"{"method":"GET","path":"/"}"#), "line 3: missing field `at_ns`"),
            (line(r#"{"at_ns":-1,"method":"GET","path":"/"}"#), "line 3: "),
            (line(r#"{"at_ns":0,"method":"GET","path":"/","proxy":"x"}"#), "line 3: unknown field `proxy`"),
            (line(r#"{"at_ns":0,"method":"G T","path":"/"}"#), "line 3: `G T` is not a method"),
            (line(r#"{"at_ns":0,"method":"CONNECT","path":"/"}"#), "line 3: `CONNECT` is not a method"),
            (line(r#"{"at_ns":0,"method":"GET","path":"users"}"#), "line 3: `users` is not a path"),
            (line(r#"{"at_ns":0,"method":"GET","path":"/","status":7}"#), "line 3: 7 is not a status"),
            (line(r#"{"at_ns":0,"method":"GET","path":"/","body_base64":"?"}"#), "line 3: the body is not base64"),
            (line(r#"{"at_ns":0,"method":"GET","path":"/","headers":{"a b":["c"]}}"#), "line 3: `a b` is not"),
        ] {
            let error = parse(&text).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
