//! The fuzz corpora as ordinary tests, and a list of requests that are known to be used for smuggling.

use std::path::Path;

use forebay::fuzzing;
use forebay::message::RequestHead;
use forebay::message::head::{HeadLimits, Parsed, parse_request};

/// Runs one fuzz check over its committed seeds.
fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("readable").path();
        check(&std::fs::read(&path).expect("readable"));
        count += 1;
    }
    assert!(count > 3, "{target} has only {count} seeds");
}

#[test]
fn paths_of_the_corpus_hold() {
    run("path", fuzzing::path);
}

#[test]
fn request_heads_of_the_corpus_hold() {
    run("request_head", fuzzing::request_head);
}

#[test]
fn http2_heads_of_the_corpus_hold() {
    run("http2_head", fuzzing::http2_head);
}

#[test]
fn response_heads_of_the_corpus_hold() {
    run("response_head", fuzzing::response_head);
}

#[test]
fn chunked_bodies_of_the_corpus_hold() {
    run("chunked", fuzzing::chunked);
}

#[test]
fn forwarding_fields_of_the_corpus_hold() {
    run("forwarded", fuzzing::forwarded);
}

#[test]
fn configurations_of_the_corpus_hold() {
    run("config", fuzzing::config);
}

#[test]
fn templates_of_the_corpus_hold() {
    run("aggregate_template", fuzzing::aggregate_template);
}

#[test]
fn merges_of_the_corpus_hold() {
    run("aggregate_merge", fuzzing::aggregate_merge);
}

/// Every line of `smuggling.txt`: the status with which it is refused (`None`: it is not) and the head, which has
/// `\r \n \0 \t \\ \xNN` as escapes.
pub fn smuggling() -> impl Iterator<Item = (Option<u16>, Vec<u8>)> {
    let lines = include_str!("smuggling.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (status, head) = line.split_once(' ').expect("a status and a head");
        ((status != "ok").then(|| status.parse().expect("a status")), unescape(head))
    })
}

#[test]
fn every_smuggling_attempt_is_refused() {
    for (status, head) in smuggling() {
        let result = parse_request(&head, &HeadLimits::default(), &mut RequestHead::default());

        let refused = result.map_err(|error| error.status());
        let expected = match status {
            None => Ok(Parsed::Complete { head_len: head.len() }),
            Some(status) => Err(status),
        };
        assert_eq!(refused, expected, "{}", head.escape_ascii());
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let (byte, after) = match (first, tail) {
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'0', after @ ..]) => (0, after),
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("hexadecimal digits");
                (u8::from_str_radix(digits, 16).expect("hexadecimal digits"), after)
            }
            _ => (*first, tail),
        };
        out.push(byte);
        rest = after;
    }
    out
}
