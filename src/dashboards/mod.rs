//! Grafana dashboards, written from the metric catalogue: a metric that is renamed or gone does not compile here, and a
//! label that a metric does not have fails a test. [`query`] makes PromQL, [`panel`] the JSON of a panel, and each
//! dashboard is a list of panels. Classic JSON and Grafana's own panels only.

mod aggregation;
mod limits;
mod load_run;
mod overview;
mod panel;
mod process;
mod query;
mod upstreams;

use serde_json::{Value, json};

use self::panel::Panel;
use crate::promql::EVERYWHERE;
use crate::telemetry::catalogue;

/// A dashboard by what it answers.
struct Dashboard {
    /// Part of its address in Grafana, and the name of its file.
    name: &'static str,
    title: &'static str,
    description: &'static str,
    /// What tells which jobs and instances there are, by metrics that each of them always has.
    processes: &'static [&'static catalogue::Metric],
    /// Variables beside data source, job and instance.
    variables: &'static [Variable],
    panels: Vec<Panel>,
}

/// What a dashboard can be narrowed down to, by a label of a metric that always exists.
struct Variable {
    label: &'static str,
    metric: &'static catalogue::Metric,
}

/// File name and content of every dashboard.
pub fn files() -> Vec<(String, String)> {
    let file = |dashboard: Dashboard| (format!("{}.json", dashboard.name), format!("{:#}\n", dashboard.json()));
    let dashboards = [
        overview::dashboard(),
        upstreams::dashboard(),
        limits::dashboard(),
        aggregation::dashboard(),
        load_run::dashboard(),
        process::dashboard(),
    ];
    dashboards.map(file).into()
}

/// The sidecar itself.
const SIDECAR: &[&catalogue::Metric] = &[&catalogue::BUILD_INFO];

impl Dashboard {
    fn json(self) -> Value {
        let processes = one_of(self.processes, "");
        let mut variables = vec![
            json!({
                "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "hide": 0,
                "refresh": 1, "regex": "", "includeAll": false, "multi": false, "options": [],
            }),
            choice("job", &format!("label_values({processes}, job)")),
            choice("instance", &format!("label_values({}, instance)", one_of(self.processes, "job=~\"$job\""))),
        ];
        variables.extend(self.variables.iter().map(|variable| {
            let Variable { label, metric } = variable;
            choice(label, &format!("label_values({}{{job=~\"$job\",instance=~\"$instance\"}}, {label})", metric.name))
        }));
        let panels: Vec<Value> = panel::laid_out(self.description, self.panels);
        json!({
            "uid": format!("forebay-{}", self.name),
            "title": self.title,
            "description": self.description,
            "tags": ["forebay"],
            "schemaVersion": 39,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": { "from": "now-1h", "to": "now" },
            "timezone": "",
            "links": [{
                "type": "dashboards", "title": "Forebay", "tags": ["forebay"], "asDropdown": true, "includeVars": true,
                "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
            }],
            "annotations": { "list": [
                annotation("Reloads", "blue", &changes(&catalogue::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP), "{{instance}}"),
                annotation("Restarts", "orange", &changes(&catalogue::PROCESS_START_TIME), "{{instance}}"),
                annotation("New version", "green", &versions(), "{{version}}"),
                annotation("Load tests", "purple", &load_tests(), "{{instance}}"),
                annotation("Faults on purpose", "red", &faults(), "{{job}}"),
            ] },
            "templating": { "list": variables },
            "panels": panels,
        })
    }
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn choice(name: &str, query: &str) -> Value {
    json!({
        "type": "query", "name": name, "label": name, "datasource": datasource(), "query": query,
        "hide": 0, "refresh": 2, "sort": 1, "regex": "", "includeAll": true, "multi": true, "allValue": ".+",
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] }, "options": [],
    })
}

/// The series of these metrics; `extra` are further matchers.
fn one_of(metrics: &[&catalogue::Metric], extra: &str) -> String {
    let names: Vec<&str> = metrics.iter().map(|metric| metric.name).collect();
    match (names.as_slice(), extra) {
        ([name], "") => (*name).to_owned(),
        ([name], extra) => format!("{name}{{{extra}}}"),
        (names, "") => format!("{{__name__=~\"{}\"}}", names.join("|")),
        (names, extra) => format!("{{__name__=~\"{}\",{extra}}}", names.join("|")),
    }
}

/// Each change of an instant that a metric tells.
fn changes(metric: &catalogue::Metric) -> String {
    format!("{} > 0", EVERYWHERE.changes(metric))
}

/// Whoever loads the sidecar is another process: all of them are marked.
fn load_tests() -> String {
    EVERYWHERE.total(&catalogue::LOAD_PHASE, "job, instance", "phase=\"measuring\"") + " > 0"
}

fn faults() -> String {
    EVERYWHERE.total(&catalogue::FAULTS_ARMED, "job", "") + " > 0"
}

/// Versions of which there was none before: the first instance of a roll-out.
fn versions() -> String {
    let now = format!("count by (job, version) ({})", EVERYWHERE.selector(&catalogue::BUILD_INFO, ""));
    let before = now.replace('}', &format!("}} offset {}", EVERYWHERE.window));
    format!("({now} unless {before} or 0 * {now}) > 0")
}

fn annotation(name: &str, colour: &str, expression: &str, text: &str) -> Value {
    json!({
        "name": name, "enable": true, "hide": false, "iconColor": colour, "datasource": datasource(),
        "expr": expression, "titleFormat": name, "textFormat": text, "tagKeys": "", "step": "", "useValueForTime": false,
    })
}

#[cfg(test)]
mod shape_tests;
#[cfg(test)]
mod tests;
