//! The committed file is what is generated, and every alert can be acted on.

use std::collections::BTreeSet;

use super::*;
use crate::telemetry::catalogue;
use crate::telemetry::test_support::compare_with_file;

fn runbooks() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(RUNBOOKS);
    std::fs::read_to_string(path).expect(RUNBOOKS)
}

/// The sections about alerts: heading and text.
fn sections(document: &str) -> Vec<(&str, &str)> {
    document.split("\n## ").skip(1).map(|section| section.split_once('\n').expect("a heading and a text")).collect()
}

/// Words of an expression that may be names of series.
fn words(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | ':'))
}

#[test]
fn the_committed_file_is_what_is_generated() {
    compare_with_file(&format!("dashboards/rules/{FILE}"), &file(RUNBOOKS));
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let document = runbooks();
    let sections = sections(&document);
    let headings: Vec<&str> = sections.iter().map(|(heading, _)| *heading).collect();

    assert_eq!(headings, alerts().iter().map(|alert| alert.name).collect::<Vec<_>>(), "the same, in the same order");
    for (heading, text) in sections {
        for part in ["**Means:** ", "**Look at:** ", "**Do:** "] {
            let said = text.split_once(part).unwrap_or_else(|| panic!("{heading} lacks {part}")).1;
            assert!(said.split("**").next().unwrap().trim().len() > 40, "{heading} says too little: {part}");
        }
    }
}

#[test]
fn alerts_have_names_of_their_own_and_say_what_is_wrong() {
    let mut names = BTreeSet::new();
    for alert in alerts() {
        assert!(alert.name.starts_with("Forebay") && names.insert(alert.name), "{}", alert.name);
        assert!(!alert.summary.ends_with('.') && alert.summary.contains("$labels"), "{}", alert.name);
        assert!(alert.description.ends_with('.') && alert.description.len() > 40, "{}", alert.name);
        assert!(!alert.measures.is_empty(), "{}", alert.name);
    }
}

#[test]
fn rules_name_only_what_is_in_the_catalogue_or_recorded_before() {
    let recorded: Vec<String> = recordings().into_iter().map(|recording| recording.name).collect();
    let expressions = recordings().into_iter().map(|recording| recording.expression);
    for expression in expressions.chain(alerts().iter().map(Alert::expression)) {
        for word in words(&expression).filter(|word| word.contains("forebay_") || word.starts_with("process_")) {
            let is_metric = ["", "_bucket", "_sum"]
                .iter()
                .any(|end| word.strip_suffix(end).is_some_and(|name| catalogue::find(name).is_some()));
            assert!(is_metric || recorded.iter().any(|name| name == word), "{word} in {expression}");
        }
    }
}

#[test]
fn what_is_recorded_is_used_or_for_people() {
    let used: String = alerts().iter().map(Alert::expression).collect();
    // For dashboards of one's own.
    let for_people = [":rate5m", ":mean5m", "request_duration_seconds:p99_5m"];
    for recording in recordings() {
        let is_for_people = for_people.iter().any(|end| recording.name.ends_with(end));
        assert!(used.contains(&recording.name) != is_for_people, "{}", recording.name);
    }
}
