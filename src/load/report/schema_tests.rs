//! The published schema against what is written.

use std::collections::BTreeSet;

use super::super::{fixture, golden, json, ndjson};
use super::*;
use crate::load::result::{Outcome, Reason, Rule, RunResult};

/// Holds a value against the parts of JSON Schema that are used here, and notes which properties it has met. Stricter
/// than the schema in one point: properties that are not described are mistakes.
fn check(root: &Value, schema: &Value, value: &Value, path: &str, met: &mut BTreeSet<String>) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").expect("a definition");
        return check(root, &root["$defs"][name], value, name, met);
    }
    let mut wrong = Vec::new();
    if !types(schema).iter().any(|kind| is_of(value, kind)) {
        wrong.push(format!("{path}: {value} is no {}", schema["type"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        wrong.push(format!("{path}: {value} is none of {words:?}"));
    }
    if schema["minimum"] == 0 && value.as_f64().is_some_and(|number| number < 0.0) {
        wrong.push(format!("{path}: {value} is negative"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(check(root, &schema["items"], item, &format!("{path}[{index}]"), met));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            wrong.push(format!("{path}: {name} is missing"));
        }
    }
    for (name, part) in value.as_object().into_iter().flatten() {
        let own = &schema["properties"][name];
        let property = if own.is_null() { &schema["additionalProperties"] } else { own };
        if property.is_null() {
            wrong.push(format!("{path}: {name} is not described"));
            continue;
        }
        met.insert(format!("{path}.{name}"));
        wrong.extend(check(root, property, part, &format!("{path}.{name}"), met));
    }
    wrong
}

fn types(schema: &Value) -> Vec<String> {
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        kind => vec![kind.as_str().expect("every schema has a type").to_owned()],
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

fn with_everything() -> RunResult {
    let mut result = fixture::void();
    result.plan.deadline_s = Some(1.5);
    result.waterfall = Some(fixture::waterfall());
    result.answers = Some(fixture::answers());
    result
}

#[test]
fn the_published_schema_is_this_one() {
    golden::compare("docs/load-report.schema.json", &format!("{:#}\n", schema()));
}

#[test]
fn what_is_written_is_what_the_schema_says() {
    let schema = schema();
    for result in [with_everything(), fixture::interrupted(), fixture::empty(), fixture::result()] {
        let value = serde_json::from_str(&json::render(&result)).expect("JSON");

        let wrong = check(&schema, &schema, &value, "run", &mut BTreeSet::new());

        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn lines_of_seconds_are_what_the_schema_says() {
    let schema = schema();
    for line in ndjson::render(&fixture::result()).lines() {
        let value = serde_json::from_str(line).expect("JSON");

        let wrong = check(&schema, &schema["$defs"]["second"], &value, "second", &mut BTreeSet::new());

        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn the_schema_describes_nothing_that_is_not_written() {
    let schema = schema();
    let mut met = BTreeSet::new();
    let value = serde_json::from_str(&json::render(&with_everything())).expect("JSON");

    check(&schema, &schema, &value, "run", &mut met);

    let described = OBJECTS.iter().flat_map(|object| {
        let counts = if object.has_counts { COUNTS } else { &[] };
        object.fields.iter().chain(counts).map(|field| format!("{}.{}", object.name, field.0))
    });
    let invented: Vec<String> = described.filter(|name| !met.contains(name)).collect();
    assert!(invented.is_empty(), "{invented:#?}");
}

#[test]
fn the_words_are_those_of_the_program() {
    let words = |definition: &str, field: &str| schema()["$defs"][definition]["properties"][field]["enum"].clone();
    let rules = [
        Rule::Lateness,
        Rule::RateNotReached,
        Rule::Little,
        Rule::CpuSaturated,
        Rule::OwnStall,
        Rule::Empty,
        Rule::Accounting,
    ];

    assert_eq!(words("reason", "rule"), json!(rules));
    assert_eq!(words("verdict", "outcome"), json!([Outcome::Complete, Outcome::Interrupted, Outcome::Void]));
    assert!(serde_json::to_value(Reason { rule: Rule::Empty, text: String::new() }).is_ok());
}
