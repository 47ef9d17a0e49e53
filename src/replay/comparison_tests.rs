//! Answers against answers: what counts as what, and that nothing grows.

use std::io::Write;

use http::Method;

use super::*;
use crate::config::value::json_path::parse_json_path;

fn record(path: &str, answer: Option<Answer>) -> Record {
    Record { status: Some(200), answer, ..Record::new(0, Method::GET, path.to_owned()) }
}

fn answer(body: &str) -> Option<Answer> {
    Some(Answer { body: Bytes::copy_from_slice(body.as_bytes()), ..Answer::default() })
}

fn received(body: &[u8]) -> Option<Received> {
    Some(Received { headers: HeaderMap::new(), body: Some(body.to_vec()) })
}

fn start(records: Vec<Record>, told: &[&str]) -> Comparison {
    let told = told.iter().map(|path| parse_json_path(path).expect(path)).collect();
    Comparison::start(records.into(), told).expect("a thread")
}

#[test]
fn each_answer_is_equal_or_different_and_paths_are_counted() {
    let comparison = start(
        vec![
            record("/a", answer(r#"{"n":1,"at":1,"list":[{"x":1},{"x":1}]}"#)),
            record("/b", None),
            record("/cut", Some(Answer { is_cut: true, ..Answer::default() })),
            Record { status: None, ..record("/unknown", None) },
        ],
        &["at"],
    );
    let now = |body: &str| received(body.as_bytes());

    comparison.answered(0, 0, 200, now(r#"{"n":1,"at":2,"list":[{"x":1},{"x":1}]}"#));
    comparison.answered(0, 0, 200, now(r#"{"n":2,"at":3,"list":[{"x":2},{"x":3}]}"#));
    comparison.answered(0, 0, 200, now("<html>"));
    comparison.answered(0, 0, 503, now("{}"));
    comparison.answered(1, 1, 200, None);
    comparison.answered(1, 1, 404, None);
    comparison.answered(2, 2, 200, now("x"));
    comparison.answered(0, 0, 200, Some(Received { headers: HeaderMap::new(), body: None }));
    comparison.answered(3, 3, 200, None);
    let found = comparison.finish();

    assert_eq!((found.compared, found.equal, found.different, found.bodies), (8, 4, 4, 3));
    assert_eq!((found.incomparable, found.dropped, found.others), (2, 0, 0));
    assert_eq!(found.ignored, ["at"]);
    let counted: Vec<_> = found.differences.iter().map(|one| (one.path.as_str(), one.kind, one.answers)).collect();
    let expected = [
        ("status", Kind::Status, 2),
        ("(whole body)", Kind::Type, 1),
        ("list.*.x", Kind::Value, 1),
        ("n", Kind::Value, 1),
    ];
    assert_eq!(counted, expected);
    let example = &found.differences[2];
    assert_eq!((example.request.as_str(), example.place.as_str()), ("GET /a", "list.0.x"));
    assert_eq!((example.recorded.as_str(), example.replayed.as_str()), ("1", "2"));
}

#[test]
fn what_was_learned_is_not_compared() {
    let comparison = start(vec![record("/a", answer(r#"{"id":1,"n":1}"#)), record("/page", answer("<p>1"))], &[]);
    let one = noise(received(br#"{"id":2}"#).unwrap(), received(br#"{"id":3}"#).unwrap(), &comparison.told());
    let learned: Vec<JsonPath> = one.expect("both came").into_iter().map(|one| one.pattern).collect();
    let mask = comparison.told().with(learned.iter().cloned());
    comparison.learn(Noise { mask, learned, restless: BTreeSet::from([1]) });

    comparison.answered(0, 0, 200, received(br#"{"id":9,"n":1}"#));
    comparison.answered(0, 0, 200, received(br#"{"id":9,"n":2}"#));
    comparison.answered(1, 1, 200, received(b"<p>2"));
    let found = comparison.finish();

    assert_eq!((found.equal, found.different, found.incomparable), (2, 1, 1));
    assert_eq!(found.learned, ["id"]);
    assert_eq!(found.differences[0].path, "n");
}

#[test]
fn a_content_coding_is_undone_on_both_sides() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(br#"{"a":1}"#).unwrap();
    let (zipped, headers) =
        (gzip.finish().unwrap(), HeaderMap::from_iter([(CONTENT_ENCODING, "gzip".parse().unwrap())]));
    let recorded = Some(Answer { headers: headers.clone(), body: zipped.clone().into(), is_cut: false });
    let comparison = start(vec![record("/a", recorded)], &[]);

    comparison.answered(0, 0, 200, received(br#"{ "a": 1 }"#));
    comparison.answered(0, 0, 200, Some(Received { headers: headers.clone(), body: Some(zipped) }));
    comparison.answered(0, 0, 200, Some(Received { headers, body: Some(b"broken".to_vec()) }));
    let found = comparison.finish();

    assert_eq!((found.equal, found.bodies, found.incomparable), (3, 2, 1));
}

#[test]
fn paths_are_bounded_and_what_is_beyond_is_counted() {
    let comparison = start(vec![record("/a", answer("{}"))], &[]);

    for number in 0..MOST_PATHS + 5 {
        comparison.answered(0, 0, 200, received(format!(r#"{{"{number}":1}}"#).as_bytes()));
    }
    let found = comparison.finish();

    assert_eq!(found.different + found.dropped, (MOST_PATHS + 5) as u64);
    assert!(found.differences.len() <= MOST_PATHS && found.others + found.dropped >= 5, "{found:?}");
}

#[test]
fn a_body_for_which_there_is_no_room_is_counted() {
    let comparison = start(vec![record("/a", answer("{}"))], &[]);

    comparison.answered(0, 0, 200, received(&vec![b' '; MOST_WAITING_BYTES + 1]));
    let found = comparison.finish();

    assert_eq!((found.dropped, found.compared, found.bodies), (1, 1, 0));
}
