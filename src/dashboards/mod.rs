//! Grafana dashboards, written from the metric catalogue: a metric that is renamed or gone does not compile here, and a
//! label that a metric does not have fails a test. [`query`] makes PromQL, [`panel`] the JSON of a panel, and each
//! dashboard is a list of panels. Classic JSON and Grafana's own panels only.

mod limits;
mod overview;
mod panel;
mod query;
mod upstreams;

use serde_json::{Value, json};

use self::panel::Panel;
use self::query::selector;
use crate::telemetry::catalogue;

/// A dashboard by what it answers.
struct Dashboard {
    /// Part of its address in Grafana, and the name of its file.
    name: &'static str,
    title: &'static str,
    description: &'static str,
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
    [overview::dashboard(), upstreams::dashboard(), limits::dashboard()].map(file).into()
}

impl Dashboard {
    fn json(self) -> Value {
        let mut variables = vec![
            json!({
                "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "hide": 0,
                "refresh": 1, "regex": "", "includeAll": false, "multi": false, "options": [],
            }),
            choice("job", &format!("label_values({}, job)", catalogue::BUILD_INFO.name)),
            choice("instance", &format!("label_values({}{{job=~\"$job\"}}, instance)", catalogue::BUILD_INFO.name)),
        ];
        variables.extend(self.variables.iter().map(|variable| {
            let Variable { label, metric } = variable;
            choice(label, &format!("label_values({}{{job=~\"$job\",instance=~\"$instance\"}}, {label})", metric.name))
        }));
        let panels: Vec<Value> = panel::laid_out(self.panels);
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
                annotation("Reloads", "blue", &catalogue::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP),
                annotation("Restarts", "orange", &catalogue::PROCESS_START_TIME),
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
        "type": "query", "name": name, "label": name, "datasource": datasource(), "query": query, "definition": query,
        "hide": 0, "refresh": 2, "sort": 1, "regex": "", "includeAll": true, "multi": true, "allValue": ".+",
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] }, "options": [],
    })
}

/// Marks each change of an instant that a metric tells.
fn annotation(name: &str, colour: &str, metric: &catalogue::Metric) -> Value {
    json!({
        "name": name, "enable": true, "hide": false, "iconColor": colour, "datasource": datasource(),
        "expr": format!("changes({}[$__rate_interval]) > 0", selector(metric, "")),
        "titleFormat": name, "textFormat": "{{instance}}", "tagKeys": "", "step": "", "useValueForTime": false,
    })
}

#[cfg(test)]
mod tests;
