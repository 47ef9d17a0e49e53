//! The shape that Grafana publishes of dashboards and of each kind of panel (the JSON schemas of its foundation SDK, which
//! allow no key that they do not name), written down again as keys: those that must be there, and those that may.
//!
//! Two things are stricter there than Grafana itself: the query of an annotation stands beside it, as the Prometheus data
//! source reads it, and the first step of thresholds has no value.

use serde_json::Value;

struct Shape {
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const DASHBOARD: Shape = Shape {
    required: &["schemaVersion", "templating", "annotations", "uid", "title", "panels"],
    optional: &["description", "tags", "timezone", "editable", "graphTooltip", "time", "refresh", "version", "links"],
};
const VARIABLE: Shape = Shape {
    required: &["type", "name"],
    optional: &[
        "label",
        "hide",
        "query",
        "datasource",
        "current",
        "multi",
        "options",
        "refresh",
        "sort",
        "includeAll",
        "allValue",
        "regex",
    ],
};
const ANNOTATION: Shape = Shape {
    required: &["name", "datasource", "enable", "iconColor", "expr"],
    optional: &["hide", "titleFormat", "textFormat", "tagKeys", "step", "useValueForTime"],
};
const LINK: Shape = Shape {
    required: &["title", "type", "icon", "tooltip", "tags", "asDropdown", "targetBlank", "includeVars", "keepTime"],
    optional: &["url"],
};
const PANEL: Shape = Shape {
    required: &["type", "id", "title", "description", "gridPos", "options"],
    optional: &["targets", "datasource", "transparent", "transformations", "fieldConfig"],
};
const TARGET: Shape = Shape {
    required: &["expr", "refId", "datasource"],
    optional: &["instant", "range", "exemplar", "editorMode", "format", "legendFormat"],
};
const DATASOURCE: Shape = Shape { required: &["type", "uid"], optional: &[] };
const FIELD: Shape = Shape { required: &[], optional: &["unit", "min", "color", "thresholds", "mappings", "custom"] };
const REDUCE: Shape = Shape { required: &["calcs"], optional: &["values", "fields"] };
const LEGEND: Shape = Shape { required: &["displayMode", "placement", "showLegend", "calcs"], optional: &[] };
const TOOLTIP: Shape = Shape { required: &["mode", "sort"], optional: &[] };
const TRANSFORMATION: Shape = Shape { required: &["id", "options"], optional: &[] };

/// Options and custom fields of a kind of panel.
fn of_panel(kind: &str) -> (Shape, Shape) {
    let none = Shape { required: &[], optional: &[] };
    match kind {
        "text" => (Shape { required: &["mode", "content"], optional: &["code"] }, none),
        "stat" => (
            Shape {
                required: &[
                    "graphMode",
                    "colorMode",
                    "justifyMode",
                    "textMode",
                    "wideLayout",
                    "showPercentChange",
                    "reduceOptions",
                    "percentChangeColorMode",
                    "orientation",
                ],
                optional: &["text"],
            },
            none,
        ),
        "timeseries" => (
            Shape { required: &["legend", "tooltip"], optional: &[] },
            Shape {
                required: &[],
                optional: &["drawStyle", "lineWidth", "fillOpacity", "showPoints", "spanNulls", "stacking"],
            },
        ),
        "heatmap" => (
            Shape {
                required: &["color", "showValue", "yAxis", "legend", "tooltip", "exemplars"],
                optional: &["calculate", "filterValues", "rowsFrame", "cellGap"],
            },
            Shape { required: &[], optional: &["scaleDistribution", "hideFrom"] },
        ),
        "state-timeline" => (
            Shape {
                required: &["showValue", "rowHeight", "legend", "tooltip"],
                optional: &["mergeValues", "alignValue", "perPage"],
            },
            Shape { required: &[], optional: &["lineWidth", "fillOpacity", "hideFrom"] },
        ),
        "bargauge" => (
            Shape {
                required: &[
                    "displayMode",
                    "valueMode",
                    "namePlacement",
                    "showUnfilled",
                    "sizing",
                    "minVizWidth",
                    "minVizHeight",
                    "reduceOptions",
                    "maxVizHeight",
                    "orientation",
                ],
                optional: &["text"],
            },
            none,
        ),
        "table" => (
            Shape { required: &["frameIndex", "showHeader"], optional: &["cellHeight", "footer", "sortBy"] },
            Shape { required: &["align"], optional: &["filterable"] },
        ),
        other => panic!("{other} is no panel of Grafana's own that is used here"),
    }
}

#[track_caller]
fn has_shape(value: &Value, shape: &Shape) {
    let keys = value.as_object().unwrap_or_else(|| panic!("not a table: {value}"));
    for key in keys.keys().map(String::as_str) {
        assert!(shape.required.contains(&key) || shape.optional.contains(&key), "`{key}` does not exist: {value}");
    }
    for key in shape.required {
        assert!(keys.contains_key(*key), "`{key}` is missing: {value}");
    }
}

fn each<'v>(value: &'v Value, path: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

#[test]
fn dashboards_have_the_shape_that_grafana_publishes() {
    for (name, text) in super::files() {
        let dashboard: Value = serde_json::from_str(&text).expect(&name);
        has_shape(&dashboard, &DASHBOARD);
        assert!((8..=40).contains(&dashboard["uid"].as_str().unwrap().len()), "{name}");
        each(&dashboard, "/templating/list").for_each(|variable| has_shape(variable, &VARIABLE));
        each(&dashboard, "/annotations/list").for_each(|annotation| has_shape(annotation, &ANNOTATION));
        each(&dashboard, "/links").for_each(|link| has_shape(link, &LINK));
        each(&dashboard, "/panels").for_each(panel_has_shape);
    }
}

fn panel_has_shape(panel: &Value) {
    let kind = panel["type"].as_str().unwrap();
    let (options, custom) = of_panel(kind);
    has_shape(panel, &PANEL);
    has_shape(&panel["options"], &options);
    each(panel, "/transformations").for_each(|step| has_shape(step, &TRANSFORMATION));
    if kind == "text" {
        return;
    }
    has_shape(&panel["datasource"], &DATASOURCE);
    each(panel, "/targets").for_each(|target| has_shape(target, &TARGET));
    has_shape(&panel["fieldConfig"]["defaults"], &FIELD);
    if let Some(fields) = panel.pointer("/fieldConfig/defaults/custom") {
        has_shape(fields, &custom);
    }
    if let Some(reduce) = panel.pointer("/options/reduceOptions") {
        has_shape(reduce, &REDUCE);
    }
    if kind != "heatmap" {
        panel.pointer("/options/legend").into_iter().for_each(|legend| has_shape(legend, &LEGEND));
        panel.pointer("/options/tooltip").into_iter().for_each(|tooltip| has_shape(tooltip, &TOOLTIP));
    }
}
