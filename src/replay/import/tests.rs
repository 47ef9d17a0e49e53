//! Every format: what is read from it, what is left out and said, and what is written comes back.

use http::Method;
use proptest::prelude::*;

use super::*;
use crate::load::SECOND;
use crate::load::targets::Url;

fn reading() -> Reading {
    Reading { format: None, keep_secrets: false, seed: 1 }
}

fn read(text: &str) -> Import {
    parse(text, reading()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn nginx_with_msec_and_request_time_has_true_arrivals() {
    let combined = r#"127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a?b=c HTTP/1.1" 404 12 "-" "curl/8 (x)" 971211336.250 1.500
10.0.0.1 - anna [10/Oct/2000:13:55:36 -0700] "POST /b HTTP/1.1" 200 12 "http://x/" "curl" 971211336.010 0.000
"#;
    let Import { records, notes } = read(combined);

    assert_eq!(records[0].at, 971_211_334 * SECOND + 750_000_000);
    assert_eq!((records[0].path.as_str(), records[0].status), ("/a?b=c", Some(404)));
    assert_eq!(records[0].duration, Some(1_500_000_000));
    assert_eq!(records[1].method, Method::POST);
    assert_eq!(notes, ["1 request may have had a body, which the log does not hold"]);

    let short = read("971211336.250 1.500 \"GET /a HTTP/2.0\" 200\n");
    assert_eq!((short.records[0].at, short.records[0].status), (records[0].at, Some(200)));
}

#[test]
fn our_own_access_log_has_true_arrivals_and_queries() {
    let line = |time: &str, path: &str, end: &str| {
        format!(
            r#"{{"time":"2025-11-22T17:28:{time}Z","route":"users","client":"10.1.2.3","method":"GET","host":"a","path":"{path}"{end},"overhead_ms":0.5}}"#
        )
    };
    let text = [
        line("34.007", "/users/7?full=1", r#","status":200,"reason":"ok","total_ms":1250.000"#),
        line("33.000", r"/a\u0022", r#","status":499,"reason":"client_gone","total_ms":10.5"#),
        line("35.000", "/cut", r#","path_bytes":6000,"status":200,"reason":"ok","total_ms":1.0"#),
        line("35.000", "/no-time", r#","status":200,"reason":"ok""#),
    ]
    .join("\n");

    let Import { records, notes } = read(&text);

    let [first, second] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(second.at - first.at, 232_500_000);
    assert_eq!(
        (first.path.as_str(), first.status, first.duration),
        ("/users/7?full=1", Some(200), Some(1_250_000_000))
    );
    assert_eq!((second.status, second.duration), (None, None));
    assert!(notes.contains(&"left out 1: lines without a request that can be sent (first: 3)".to_owned()), "{notes:?}");
    assert!(notes.contains(&"left out 1: lines that are not in the log's format (first: 4)".to_owned()), "{notes:?}");
}

#[test]
fn combined_alone_is_spread_over_its_seconds_by_the_seed() {
    let line = r#"127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.1" 200 12 "-" "curl" "10.0.0.1""#;
    let text = format!("{line}\n").repeat(100);
    let Import { records, notes } = read(&text);

    let second = 971_211_336 * SECOND;
    assert!(records.iter().all(|record| (second..second + SECOND).contains(&record.at) && record.duration.is_none()));
    assert!(records.is_sorted_by(|before, after| before.at < after.at));
    assert!(notes[0].starts_with("100 lines have whole seconds"), "{notes:?}");
    assert_eq!(read(&text).records, records);
    assert_ne!(parse(&text, Reading { seed: 2, ..reading() }).expect("a log").records, records);
}

#[test]
fn strange_lines_of_a_log_are_counted_and_said() {
    let good = r#"127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.1" 200 12 "-" "curl""#;
    let garbage = good.replace("GET /a HTTP/1.1", r"\x16\x03\x01");
    let Import { records, notes } = read(&format!("{good}\nhello\n{garbage}\nworld\n"));

    assert_eq!(records.len(), 1);
    assert!(
        notes.iter().any(|note| note == "left out 2: lines that are not in the log's format (first: 2)"),
        "{notes:?}"
    );
    assert!(notes.iter().any(|note| note.starts_with("left out 1: lines without a request")), "{notes:?}");
    let error = parse(&garbage, reading()).expect_err("nothing is left");
    assert!(error.contains("holds no request that can be sent: left out 1"), "{error}");
}

#[test]
fn envoy_logs_of_old_and_new_versions_are_read() {
    let old = r#"[2016-04-15T20:17:00.310Z] "GET /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28" "nsq2http" "cc21" "locations" "tcp://10.0.2.1:80""#;
    let new = r#"[2016-04-15T20:17:00.300Z] "GET /x HTTP/1.1" 503 UF upstream_reset_before_response_started{connection_failure} - "delayed connect error: 111" 0 91 5 - "-" "curl" "id" "a:1" "10.0.0.1:80""#;
    let Import { records, .. } = read(&format!("{old}\n{new}\n"));

    let second = 1_460_751_420 * SECOND;
    assert_eq!((records[0].at, records[0].duration), (second + 300_000_000, Some(5_000_000)));
    assert_eq!((records[1].at, records[1].duration), (second + 310_000_000, Some(226_000_000)));
    assert_eq!((records[0].status, records[1].status), (Some(503), Some(204)));
}

const HAR: &str = r#"{
  "log": {"version": "1.2", "creator": {"name": "x", "version": "1"}, "entries": [
    {"startedDateTime": "2026-01-01T10:00:01.000+01:00", "time": 12.5,
     "request": {"method": "POST", "url": "https://a.example/orders#top", "httpVersion": "h2",
       "headers": [{"name": ":authority", "value": "a.example"}, {"name": "Content-Length", "value": "2"},
                   {"name": "Content-Type", "value": "application/json"}, {"name": "Cookie", "value": "id=1"},
                   {"name": "X-Auth-Token", "value": "s"}],
       "postData": {"mimeType": "application/json", "text": "{}"}},
     "response": {"status": 201, "headers": [{"name": "Content-Encoding", "value": "gzip"}, {"name": "Set-Cookie", "value": "a"},
       {"name": "ETag", "value": "b"}], "content": {"size": 2, "mimeType": "application/json", "encoding": "base64", "text": "e30="}}},
    {"startedDateTime": "2026-01-01T09:00:00.500Z", "time": -1,
     "request": {"method": "GET", "url": "https://a.example", "headers": []}, "response": {"status": 0}},
    {"startedDateTime": "2026-01-01T09:00:00.600Z", "time": 1,
     "request": {"method": "GET", "url": "https://cdn.example/x.js", "headers": []}},
    {"startedDateTime": "2026-01-01T09:00:00.700Z", "time": 1,
     "request": {"method": "GET", "url": "data:image/png;base64,AA", "headers": []}}
  ]}
}"#;

#[test]
fn har_entries_are_sorted_without_secrets_and_of_one_host() {
    let Import { records, notes } = read(HAR);

    assert_eq!(records.len(), 2);
    assert_eq!((records[0].path.as_str(), records[0].status, records[0].duration), ("/", None, None));
    assert_eq!(records[1].at - records[0].at, SECOND / 2);
    assert_eq!((records[1].path.as_str(), records[1].status), ("/orders", Some(201)));
    assert_eq!((records[1].duration, &records[1].body[..]), (Some(12_500_000), &b"{}"[..]));
    assert_eq!(records[1].headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["content-type"]);
    let answer = records[1].answer.as_ref().expect("its content is there");
    assert_eq!((&answer.body[..], answer.headers.len(), answer.headers["etag"].as_bytes()), (&b"{}"[..], 1, &b"b"[..]));
    for part in ["other hosts than a.example", "not requests over HTTP", "cookie (1), x-auth-token (1)"] {
        assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
    }

    let kept = parse(HAR, Reading { keep_secrets: true, ..reading() }).expect("a HAR file");
    assert_eq!(kept.records[1].headers["cookie"], "id=1");
}

#[test]
fn h2load_scripts_have_milliseconds_and_uris() {
    let Import { records, notes } = read("0.0\thttp://localhost:3000/home\n101.246105\t/b?c\nx\t/d\n");

    assert_eq!((records[1].at, records[1].path.as_str()), (101_246_105, "/b?c"));
    assert!(notes[0].starts_with("left out 1: lines that are not `milliseconds<TAB>URI` (first: 3)"), "{notes:?}");
}

#[test]
fn vegeta_targets_come_back_as_they_were_written() {
    let text = "\
{\"at\":5,\"method\":\"GET\",\"url\":\"http://old.example/b?c\",\"header\":{\"Accept\":[\"*/*\",\"a/b\"]}}
{\"at\":2,\"method\":\"POST\",\"url\":\"http://old.example:81\",\"body\":\"aGk=\"}
{\"method\":\"GET\",\"url\":\"http://old.example/\"}
";
    let Import { records, notes } = read(text);

    assert_eq!((records[0].at, records[0].path.as_str(), &records[0].body[..]), (2, "/", &b"hi"[..]));
    assert!(notes[0].contains("targets without `at`"), "{notes:?}");

    let url: Url = "http://127.0.0.1:8080/".parse().expect("a URL");
    let written = vegeta::render(&records, &url.origin);
    assert!(written.contains("\"url\":\"http://127.0.0.1:8080/b?c\""), "{written}");
    assert_eq!(read(&written), Import { records: records.clone(), notes: Vec::new() });

    // The same file is one of targets for `forebay load`.
    let read_body = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let targets = crate::load::targets::parse_file(&written, std::path::Path::new(""), &read_body).expect("targets");
    assert_eq!(targets[0].template.body, "hi");
    // And every import can be written as a recording.
    assert_eq!(read(&recording::render(&records)).records, records);
}

#[test]
fn what_is_no_recording_is_refused_with_what_to_do() {
    for (text, part) in [
        ("", "--format"),
        ("hello\n", "--format"),
        ("{}", "not a HAR file"),
        ("{\"format\":\"forebay-recording\",\"version\":1}\n", "it is empty"),
        ("{\"method\":\"GET\",\"url\":\"http://a/\"}\n", "forebay load --targets"),
        ("{\"at\":1,\"method\":\"GET\",\"url\":\"http://a/\"}\nx", "line 2: "),
    ] {
        let error = parse(text, reading()).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn decimals_are_exact() {
    for (text, expected) in [
        ("971211336.250", Some(971_211_336_250_000_000)),
        ("0", Some(0)),
        ("1.", Some(SECOND)),
        ("0.0000000019", Some(1)),
        ("", None),
        (".5", None),
        ("-1", None),
        ("1e3", None),
        ("99999999999999999999", None),
        ("18446744073.999", None),
    ] {
        assert_eq!(decimal(text, SECOND), expected, "{text}");
    }
}

proptest! {
    /// Files come from anywhere: whatever is in them, the answer is records in order or a mistake.
    #[test]
    fn nothing_in_a_file_is_a_panic(
        format in proptest::sample::select(Format::value_variants()),
        lines in proptest::collection::vec(
            "[\\[\"0-9. é]{0,6}(\\[[0-9/:TZa-zA-Z+ -]{0,28}\\] )?(\"[A-Z]{1,4} /?[a-z%é?]{0,4}( HTTP/1.1)?\" )?[0-9. \"\t{}:-]{0,24}",
            0..6,
        ),
    ) {
        let text = lines.join("\n");
        if let Ok(import) = parse(&text, Reading { format: Some(format), ..reading() }) {
            prop_assert!(import.records.is_sorted_by_key(|record| record.at));
        }
        let _ = parse(&text, reading());
    }
}
