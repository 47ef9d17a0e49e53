//! The committed files are what is generated, and every dashboard keeps the rules of Grafana's dashboard linter.

use std::collections::BTreeSet;

use super::*;
use crate::telemetry::catalogue::Kind;
use crate::telemetry::test_support::compare_with_file;

fn parsed() -> Vec<Value> {
    files().into_iter().map(|(_, text)| serde_json::from_str(&text).expect("JSON")).collect()
}

fn list<'v>(value: &'v Value, path: &str) -> &'v [Value] {
    value.pointer(path).and_then(Value::as_array).unwrap_or_else(|| panic!("{path} of {value}"))
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// All panels but the text.
fn asking(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "/panels").iter().filter(|panel| text(panel, "type") != "text")
}

/// Every expression: of panels and of annotations.
fn expressions(dashboard: &Value) -> Vec<&str> {
    let targets = asking(dashboard).flat_map(|panel| list(panel, "/targets"));
    targets.chain(list(dashboard, "/annotations/list")).map(|target| text(target, "expr")).collect()
}

/// Selectors `name{matchers}` of an expression, with what stands before the name.
fn selectors(expression: &str) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(open) = expression[from..].find('{').map(|open| from + open) {
        let close = open + expression[open..].find('}').expect("a closing brace");
        let name = expression[..open].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |end| end + 1);
        found.push((&expression[..name], &expression[name..open], &expression[open + 1..close]));
        from = close + 1;
    }
    found
}

#[test]
fn the_committed_files_are_what_is_generated() {
    let generated = files();
    for (name, content) in &generated {
        compare_with_file(&format!("dashboards/{name}"), content);
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let files = std::fs::read_dir(&folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
    let there: BTreeSet<String> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(there, generated.into_iter().map(|(name, _)| name).collect(), "files that nothing writes");
}

#[test]
fn every_metric_and_label_exists_and_every_selector_is_narrowed() {
    for dashboard in parsed() {
        for expression in expressions(&dashboard) {
            let selectors = selectors(expression);
            assert!(!selectors.is_empty(), "{expression}");
            for (_, name, matchers) in selectors {
                let metric = ["", "_bucket", "_sum"].iter().find_map(|end| catalogue::find(name.strip_suffix(end)?));
                let metric = metric.unwrap_or_else(|| panic!("{name} is not in the catalogue: {expression}"));
                assert!(
                    matchers.contains("job=~\"$job\"") && matchers.contains("instance=~\"$instance\""),
                    "{matchers}"
                );
                for matcher in matchers.split(',') {
                    let label = matcher.split(['=', '!']).next().unwrap();
                    let is_known = ["job", "instance"].contains(&label) || metric.labels.contains(&label);
                    assert!(is_known, "{name} has no label {label}");
                }
            }
        }
    }
}

/// Metrics that no panel shows, and why none has to.
const UNSHOWN: [(&catalogue::Metric, &str); 2] = [
    (&catalogue::PROCESS_VIRTUAL_MEMORY, "address space and not memory: large, harmless, and misleading on a panel"),
    (&catalogue::RATE_LIMIT_EVICTIONS, "housekeeping: no key is freed early, so any value is well"),
];

#[test]
fn every_metric_is_on_a_panel_or_needs_none() {
    let dashboards = parsed();
    let on_panels = dashboards.iter().flat_map(|dashboard| {
        let targets = asking(dashboard).flat_map(|panel| list(panel, "/targets"));
        targets.flat_map(|target| selectors(text(target, "expr"))).map(|(_, name, _)| name)
    });
    let on_panels: BTreeSet<&str> = on_panels.collect();
    let shows = |metric: &catalogue::Metric| {
        ["", "_bucket", "_sum"].iter().any(|end| on_panels.contains(format!("{}{end}", metric.name).as_str()))
    };

    for metric in catalogue::ALL.iter().chain(catalogue::LOAD) {
        let needs_none = UNSHOWN.iter().any(|(unshown, why)| *unshown == metric && why.len() > 20);
        assert!(shows(metric) != needs_none, "{}: on a panel {}, listed {needs_none}", metric.name, shows(metric));
    }
}

#[test]
fn counters_and_histograms_are_rates_over_the_interval_that_fits_the_scrapes() {
    for dashboard in parsed() {
        for expression in expressions(&dashboard) {
            for (before, name, _) in selectors(expression) {
                let is_gauge = catalogue::find(name).is_some_and(|metric| metric.kind == Kind::Gauge);
                assert!(is_gauge || before.ends_with("rate("), "{name} without rate: {expression}");
            }
            assert!(!expression.contains("irate("), "{expression}");
            let ranges = expression.matches('[').count();
            assert_eq!(expression.matches("[$__rate_interval]").count(), ranges, "{expression}");
            assert_eq!(expression.matches('(').count(), expression.matches(')').count(), "{expression}");
            let is_of_histogram = expression.contains("_bucket{") || expression.contains("_sum{");
            let is_filled_up = expression.contains(" or 0 * ");
            assert_eq!(is_of_histogram || is_filled_up, expression.contains(" or "), "native or classic: {expression}");
            let by_instance = expression.contains("by (instance)") || expression.contains("by (job, instance)");
            assert!(!by_instance || expression.contains("topk(") || expression.contains("load_phase"), "{expression}");
        }
    }
}

/// What names a route or an upstream leads to the dashboards about it: by the label of a series, by the cell of a row.
#[test]
fn series_and_rows_lead_to_what_they_name() {
    let dashboards = parsed();
    let mut linked = 0;
    for panel in dashboards.iter().flat_map(asking) {
        let title = text(panel, "title");
        for label in ["route", "upstream"] {
            let named = format!("{{{{{label}}}}}");
            let (links, value) = match text(panel, "type") {
                "timeseries"
                    if list(panel, "/targets").iter().all(|target| text(target, "legendFormat").contains(&named)) =>
                {
                    (list(panel, "/fieldConfig/defaults/links"), format!("${{__field.labels.{label}}}"))
                }
                "table" if panel["transformations"][0]["options"]["byField"] == label => {
                    let first = &panel["fieldConfig"]["overrides"][0];
                    assert_eq!(
                        (&first["matcher"]["options"], &first["properties"][0]["id"]),
                        (&json!(label), &json!("links"))
                    );
                    (list(first, "/properties/0/value"), format!("${{__data.fields.{label}}}"))
                }
                _ => continue,
            };
            assert!(!links.is_empty(), "{title}");
            for link in links {
                let url = text(link, "url");
                let to = dashboards.iter().find(|to| url.starts_with(&format!("/d/{}?", text(to, "uid"))));
                let variables = list(to.unwrap_or_else(|| panic!("{title}: {url}")), "/templating/list");
                assert!(variables.iter().any(|variable| variable["name"] == label), "{title}: {url}");
                assert!(url.ends_with(&format!("&var-{label}={value}")), "{title}: {url}");
                linked += 1;
            }
        }
    }
    assert!(linked > 20, "{linked}");
}

#[test]
fn panels_have_title_description_unit_targets_and_places_of_their_own() {
    for dashboard in parsed() {
        assert_eq!(dashboard["editable"], false);
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let question = &list(&dashboard, "/panels")[0];
        assert_eq!(question["options"]["content"], dashboard["description"]);
        for panel in asking(&dashboard) {
            let title = text(panel, "title");
            assert!(!title.is_empty() && text(panel, "description").len() > 20, "{panel}");
            assert!(!list(panel, "/targets").is_empty(), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let units = ["reqps", "percentunit", "s", "short", "bytes", "Bps"];
            assert!(units.contains(&panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap()), "{title}");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24, "{title}");
            for place in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
                assert!(taken.insert(place), "{title} stands on another panel");
            }
        }
    }
}

#[test]
fn variables_are_those_that_the_linter_wants_and_all_that_are_used() {
    for dashboard in parsed() {
        let variables = list(&dashboard, "/templating/list");
        assert_eq!((text(&variables[0], "name"), text(&variables[0], "label")), ("datasource", "Data source"));
        let names: Vec<&str> = variables.iter().map(|variable| text(variable, "name")).collect();
        assert!(names.starts_with(&["datasource", "job", "instance"]), "{names:?}");
        for variable in &variables[1..] {
            assert_eq!((&variable["multi"], text(variable, "allValue")), (&json!(true), ".+"));
            assert_eq!((text(variable, "label"), &variable["refresh"]), (text(variable, "name"), &json!(2)));
        }
        for expression in expressions(&dashboard) {
            for used in expression.split("\"$").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(names.contains(&used), "${used} is no variable: {expression}");
            }
        }
    }
}
