//! The shape that Grafana publishes of dashboards and of each kind of panel (the JSON schemas of its foundation SDK, which
//! allow no key that they do not name, and the types of @grafana/schema 11 to 13), written down again: keys that must be
//! there, keys that may, and the words of enumerations.
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
const FIELD: Shape =
    Shape { required: &[], optional: &["unit", "min", "color", "thresholds", "mappings", "links", "custom"] };
const OVERRIDE: Shape = Shape { required: &["matcher", "properties"], optional: &[] };
const MATCHER: Shape = Shape { required: &["id", "options"], optional: &[] };
const PROPERTY: Shape = Shape { required: &["id", "value"], optional: &[] };
const DATA_LINK: Shape = Shape { required: &["title", "url"], optional: &["targetBlank"] };
const REDUCE: Shape = Shape { required: &["calcs"], optional: &["values", "fields"] };
const LEGEND: Shape =
    Shape { required: &["displayMode", "placement", "showLegend", "calcs"], optional: &["sortBy", "sortDesc"] };
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
                    "legend",
                ],
                optional: &["text"],
            },
            none,
        ),
        "table" => (
            Shape { required: &["frameIndex", "showHeader"], optional: &["cellHeight", "sortBy"] },
            Shape { required: &["align", "cellOptions", "inspect"], optional: &["filterable"] },
        ),
        other => panic!("{other} is no panel of Grafana's own that is used here"),
    }
}

/// Where a panel has a word of an enumeration, and which there are.
const WORDS: [(&str, &[&str]); 25] = [
    ("/fieldConfig/defaults/color/mode", &["palette-classic", "thresholds", "fixed"]),
    ("/fieldConfig/defaults/thresholds/mode", &["absolute", "percentage"]),
    ("/fieldConfig/defaults/custom/drawStyle", &["line", "bars", "points"]),
    ("/fieldConfig/defaults/custom/showPoints", &["auto", "never", "always"]),
    ("/fieldConfig/defaults/custom/stacking/mode", &["none", "normal", "percent"]),
    ("/fieldConfig/defaults/custom/scaleDistribution/type", &["linear", "log", "ordinal", "symlog"]),
    ("/fieldConfig/defaults/custom/align", &["auto", "left", "right", "center"]),
    ("/fieldConfig/defaults/custom/cellOptions/type", &["auto", "color-text", "color-background"]),
    ("/options/legend/displayMode", &["list", "table", "hidden"]),
    ("/options/legend/placement", &["bottom", "right"]),
    ("/options/tooltip/mode", &["single", "multi", "none"]),
    ("/options/tooltip/sort", &["asc", "desc", "none"]),
    ("/options/orientation", &["auto", "horizontal", "vertical"]),
    ("/options/colorMode", &["none", "value", "background", "background_solid"]),
    ("/options/graphMode", &["none", "line", "area"]),
    ("/options/justifyMode", &["auto", "center"]),
    ("/options/textMode", &["auto", "value", "value_and_name", "name", "none"]),
    ("/options/percentChangeColorMode", &["standard", "inverted", "same_as_value"]),
    ("/options/displayMode", &["basic", "lcd", "gradient"]),
    ("/options/valueMode", &["color", "text", "hidden"]),
    ("/options/namePlacement", &["auto", "top", "left", "hidden"]),
    ("/options/sizing", &["auto", "manual"]),
    ("/options/showValue", &["auto", "never", "always"]),
    ("/options/cellHeight", &["sm", "md", "lg"]),
    ("/options/rowsFrame/layout", &["auto", "ge", "le", "unknown"]),
];

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
    for (path, words) in WORDS {
        let word =
            panel.pointer(path).map(|word| word.as_str().unwrap_or_else(|| panic!("{path} is no word: {panel}")));
        assert!(word.is_none_or(|word| words.contains(&word)), "{path} has no {word:?}");
    }
    each(panel, "/fieldConfig/defaults/links").for_each(|link| has_shape(link, &DATA_LINK));
    for change in each(panel, "/fieldConfig/overrides") {
        has_shape(change, &OVERRIDE);
        has_shape(&change["matcher"], &MATCHER);
        each(change, "/properties").for_each(|property| has_shape(property, &PROPERTY));
    }
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
