use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::telemetry::Reason;
use crate::telemetry::test_support::{aggregate, failed, ok};

fn text_of(aggregate: &Aggregate, outcomes: &[Outcome]) -> String {
    let mut out = b"{\"first\":0".to_vec();
    write(&mut out, &SourcesRecord { aggregate, outcomes, usable: 2, asked: 3 });
    out.push(b'}');
    String::from_utf8(out).unwrap()
}

fn parsed(aggregate: &Aggregate, outcomes: &[Outcome]) -> Value {
    serde_json::from_str(&text_of(aggregate, outcomes)).unwrap()
}

#[test]
fn each_source_has_its_outcome_and_its_times() {
    let mut slow = failed(1, 2000, Reason::SourceTimeout);
    slow.begun = Duration::from_micros(1_250);
    slow.detail = Some("127.0.0.1:9001: \"silent\"".into());

    let text = text_of(&aggregate(&["user1", "user2"]), &[ok(0, 1002), slow]);

    let expected = concat!(
        r#"{"first":0,"completeness":"2/3","sources":["#,
        r#"{"name":"user1","outcome":"ok","status":200,"begun_ms":0.000,"ms":1002.000,"attempts":1},"#,
        r#"{"name":"user2","outcome":"failed","reason":"source_timeout","detail":"127.0.0.1:9001: \"silent\"","#,
        r#""begun_ms":1.250,"ms":2000.000,"attempts":1}]}"#,
    );
    assert_eq!(text, expected);
}

#[test]
fn what_is_special_about_a_source_is_said() {
    let items = Items { total: 5, failed: 1, distinct: 4, cut: 2 };
    let outcomes = [
        Outcome { ending: Ending::Partial, reason: Reason::Partial, items: Some(items), status: None, ..ok(0, 1) },
        Outcome { ending: Ending::Fallback(Fallback::Source(3)), ..failed(1, 2, Reason::Upstream5xx) },
        Outcome { coalesced: true, attempts: 0, queue: Duration::from_millis(4), ..ok(2, 5) },
        Outcome { ending: Ending::NotNeeded, reason: Reason::NotNeeded, status: None, attempts: 0, ..ok(3, 0) },
    ];

    let value = parsed(&aggregate(&["list", "first", "twin", "second"]), &outcomes);

    let sources = &value["sources"];
    assert_eq!(sources[0]["items"], json!({"total": 5, "failed": 1, "distinct": 4, "cut": 2}));
    assert_eq!(sources[1]["outcome"], "fallback");
    assert_eq!(sources[1]["reason"], "upstream_5xx");
    assert_eq!(sources[1]["fallback_source"], "second");
    assert_eq!(sources[2]["coalesced"], true);
    assert_eq!(sources[2]["queue_ms"], 4.0);
    assert_eq!(sources[3], json!({"name": "second", "outcome": "not_needed"}), "never called, so it has no times");
}

#[test]
fn of_very_many_sources_the_most_telling_are_named() {
    let names: Vec<String> = (0..500).map(|index| format!("s{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut outcomes: Vec<Outcome> = (0..500).map(|index| ok(index, 500 - index as u64)).collect();
    outcomes[400] = failed(400, 1, Reason::UpstreamReset);

    let value = parsed(&aggregate(&names), &outcomes);

    let sources = value["sources"].as_array().unwrap();
    assert_eq!((sources.len(), &value["sources_omitted"]), (MAX_SOURCES, &json!(500 - MAX_SOURCES)));
    assert_eq!((&sources[0]["name"], &sources[MAX_SOURCES - 1]["name"]), (&json!("s0"), &json!("s400")));
}

proptest! {
    #[test]
    fn any_detail_keeps_the_line_valid_and_bounded(detail in "\\PC*|[\\x00-\\x7f]*", count in 0usize..100) {
        let name = "n".repeat(64);
        let names = vec![name.as_str(); count];
        let outcome = |index| Outcome { detail: Some(detail.clone()), ..failed(index, 86_400_000, Reason::DeadlineFirstByte) };
        let outcomes: Vec<Outcome> = (0..count).map(outcome).collect();

        let text = text_of(&aggregate(&names), &outcomes);

        prop_assert!(!text.contains('\n') && text.len() < 48 * 1024, "{}", text.len());
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value["sources"].as_array().unwrap().len(), count.min(MAX_SOURCES));
    }
}
