//! One panel: what it shows and in which unit, as JSON. Where it stands follows from the order.

use serde_json::{Value, json};

use super::datasource;

/// Grafana's grid.
const COLUMNS: u32 = 24;

#[derive(Clone, Copy)]
pub(super) enum Look {
    /// A number with the colour that it deserves: green below the first bound, then orange, red from the second.
    Stat {
        bounds: Option<(f64, f64)>,
    },
    Lines,
    Stacked,
    /// How many of each duration, over time.
    Heat,
    /// What is the case when: 0 and 1 by these words, 0 in the first colour.
    States {
        words: [&'static str; 2],
        colours: [&'static str; 2],
    },
    /// One bar for each series, with bounds as for a number; where much is good, they are given as (alarm, warning).
    Bars {
        bounds: (f64, f64),
    },
    /// One line for each value of this label, the first of this column first; one column for each target, named by its legend.
    Table {
        by: &'static str,
        columns: &'static [Column],
        worst: &'static str,
    },
}

/// A unit, and bounds as for a number.
pub(super) type Column = (&'static str, Option<(f64, f64)>);

/// Legends that begin so are of settings, which are drawn dashed, or of samples, which are drawn as points: what lies between
/// two samples is not known.
const SETTINGS: [&str; 6] = ["limit", "least limit", "capacity", "allowed", "promised", "deadline"];
const SAMPLES: &str = "now ";

pub(super) struct Panel {
    pub(super) title: &'static str,
    /// What is normal and what to do when it is not.
    pub(super) description: &'static str,
    /// Grafana's name of it.
    pub(super) unit: &'static str,
    pub(super) look: Look,
    /// Expression and legend.
    pub(super) targets: Vec<(String, &'static str)>,
}

/// What a dashboard answers stands above; then numbers six to a row, others two, tables alone.
pub(super) fn laid_out(question: &str, panels: Vec<Panel>) -> Vec<Value> {
    const TEXT_HEIGHT: u32 = 2;
    let (mut x, mut y, mut row) = (0, TEXT_HEIGHT, 0);
    let place = |(panel, id): (Panel, u32)| {
        let (width, height) = match panel.look {
            Look::Stat { .. } => (4, 4),
            Look::Table { .. } => (24, 8),
            _ => (12, 8),
        };
        if x + width > COLUMNS || (row != 0 && row != height) {
            (x, y) = (0, y + row);
        }
        row = height;
        let place = json!({ "x": x, "y": y, "w": width, "h": height });
        x += width;
        panel.json(id, &place)
    };
    let text = json!({
        "id": 1, "type": "text", "title": "", "description": question, "transparent": true,
        "gridPos": { "x": 0, "y": 0, "w": COLUMNS, "h": TEXT_HEIGHT },
        "options": { "mode": "markdown", "content": question },
    });
    std::iter::once(text).chain(panels.into_iter().zip(2..).map(place)).collect()
}

impl Panel {
    pub(super) fn lines(
        title: &'static str,
        description: &'static str,
        unit: &'static str,
        targets: Vec<(String, &'static str)>,
    ) -> Self {
        Self { title, description, unit, look: Look::Lines, targets }
    }

    pub(super) fn stacked(
        title: &'static str,
        description: &'static str,
        unit: &'static str,
        target: (String, &'static str),
    ) -> Self {
        Self { title, description, unit, look: Look::Stacked, targets: vec![target] }
    }

    pub(super) fn stat(
        title: &'static str,
        description: &'static str,
        unit: &'static str,
        bounds: Option<(f64, f64)>,
        expression: String,
    ) -> Self {
        Self { title, description, unit, look: Look::Stat { bounds }, targets: vec![(expression, "")] }
    }

    fn json(self, id: u32, place: &Value) -> Value {
        let mut panel = json!({
            "id": id, "type": self.kind(), "title": self.title, "description": self.description,
            "datasource": datasource(), "gridPos": place, "targets": self.targets(),
            "fieldConfig": { "defaults": self.field(), "overrides": self.overrides() },
            "options": self.options(),
        });
        if let Look::Table { by, .. } = self.look {
            panel["transformations"] = self.as_one_table(by);
        }
        panel
    }

    fn kind(&self) -> &'static str {
        match self.look {
            Look::Stat { .. } => "stat",
            Look::Lines | Look::Stacked => "timeseries",
            Look::Heat => "heatmap",
            Look::States { .. } => "state-timeline",
            Look::Bars { .. } => "bargauge",
            Look::Table { .. } => "table",
        }
    }

    fn targets(&self) -> Vec<Value> {
        let format = match self.look {
            Look::Heat => "heatmap",
            Look::Table { .. } => "table",
            _ => "time_series",
        };
        let is_now = matches!(self.look, Look::Table { .. } | Look::Bars { .. });
        let target = |((expression, legend), name): (&(String, &'static str), char)| {
            json!({
                "refId": name.to_string(), "datasource": datasource(), "expr": expression, "legendFormat": legend,
                "format": format, "editorMode": "code", "range": !is_now, "instant": is_now, "exemplar": false,
            })
        };
        self.targets.iter().zip('A'..).map(target).collect()
    }

    /// The columns side by side, under their legends instead of `Value #A`.
    fn as_one_table(&self, by: &str) -> Value {
        let names = self.targets.iter().zip('A'..).map(|((_, legend), name)| (format!("Value #{name}"), *legend));
        let names: serde_json::Map<String, Value> = names.map(|(value, legend)| (value, legend.into())).collect();
        json!([
            { "id": "joinByField", "options": { "byField": by, "mode": "outer" } },
            { "id": "organize", "options": {
                "excludeByName": excluded_times(self.targets.len()), "indexByName": {}, "renameByName": names,
            } },
        ])
    }

    fn field(&self) -> Value {
        let palette = json!({ "unit": self.unit, "min": 0, "color": { "mode": "palette-classic" } });
        let with = |mut field: Value, key: &str, value: Value| {
            field[key] = value;
            field
        };
        match self.look {
            Look::Stat { bounds } => json!({
                "unit": self.unit, "min": 0, "color": { "mode": "thresholds" }, "thresholds": thresholds(bounds),
            }),
            Look::Lines | Look::Stacked => {
                let field = with(palette, "custom", line(matches!(self.look, Look::Stacked)));
                let label = LINKED.into_iter().find(|label| self.names(label));
                label.map_or(field.clone(), |label| {
                    with(field, "links", links(label, &format!("${{__field.labels.{label}}}")))
                })
            }
            Look::Heat => json!({ "unit": self.unit, "custom": { "scaleDistribution": { "type": "linear" } } }),
            Look::States { words, colours } => json!({
                "unit": self.unit, "color": { "mode": "thresholds" },
                "mappings": [{ "type": "value", "options": {
                    "0": { "text": words[0], "color": colours[0], "index": 0 },
                    "1": { "text": words[1], "color": colours[1], "index": 1 },
                } }],
                "thresholds": { "mode": "absolute", "steps": [
                    { "color": colours[0], "value": null }, { "color": colours[1], "value": 1 },
                ] },
                "custom": { "fillOpacity": 70, "lineWidth": 0 },
            }),
            Look::Bars { bounds: (first, second) } => {
                // Growing bounds warn from below, falling ones from above.
                let colours = if first <= second { ["green", "orange", "red"] } else { ["red", "orange", "green"] };
                let (low, high) = (first.min(second), first.max(second));
                json!({
                    "unit": self.unit, "min": 0, "color": { "mode": "thresholds" },
                    "thresholds": { "mode": "absolute", "steps": [
                        { "color": colours[0], "value": null }, { "color": colours[1], "value": low },
                        { "color": colours[2], "value": high },
                    ] },
                })
            }
            Look::Table { .. } => with(
                palette,
                "custom",
                json!({
                    "align": "auto", "filterable": true, "inspect": false, "cellOptions": { "type": "auto" },
                }),
            ),
        }
    }

    /// Whether each series has this label.
    fn names(&self, label: &str) -> bool {
        self.targets.iter().all(|(_, legend)| legend.contains(&format!("{{{{{label}}}}}")))
    }

    /// What single targets and columns have of their own.
    fn overrides(&self) -> Value {
        let one = |id: &str, options: &str, properties: &[(&str, Value)]| {
            let properties: Vec<_> = properties.iter().map(|(id, value)| json!({ "id": id, "value": value })).collect();
            json!({ "matcher": { "id": id, "options": options }, "properties": properties })
        };
        if let Look::Table { by, columns, .. } = self.look {
            let route = one("byName", by, &[("links", links(by, &format!("${{__data.fields.{by}}}")))]);
            let column = |((_, name), (unit, bounds)): (&(String, &str), &Column)| {
                let mut properties = vec![("unit", json!(unit))];
                if bounds.is_some() {
                    properties.push(("color", json!({ "mode": "thresholds" })));
                    properties.push(("thresholds", thresholds(*bounds)));
                    properties.push(("custom.cellOptions", json!({ "type": "color-text" })));
                }
                one("byName", name, &properties)
            };
            return std::iter::once(route).chain(self.targets.iter().zip(columns).map(column)).collect();
        }
        let of_target = |((_, legend), name): (&(String, &'static str), char)| {
            let name = name.to_string();
            if SETTINGS.iter().any(|word| legend.starts_with(word)) {
                let dashes = json!({ "fill": "dash", "dash": [10, 6] });
                return Some(one("byFrameRefID", &name, &[("custom.lineStyle", dashes)]));
            }
            let points = [("custom.drawStyle", json!("points")), ("custom.pointSize", json!(3))];
            legend.starts_with(SAMPLES).then(|| one("byFrameRefID", &name, &points))
        };
        self.targets.iter().zip('A'..).filter_map(of_target).collect()
    }

    fn options(&self) -> Value {
        let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match self.look {
            Look::Stat { .. } => json!({
                "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
                "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard", "reduceOptions": last,
            }),
            Look::Lines | Look::Stacked => json!({
                "legend": sorted(legend("table", true, &["mean", "max"])),
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Look::Heat => json!({
                "calculate": false, "cellGap": 1, "filterValues": { "le": 1e-9 },
                "color": { "mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange", "reverse": false },
                "yAxis": { "unit": self.unit, "axisPlacement": "left", "reverse": false },
                "rowsFrame": { "layout": "auto" }, "showValue": "never", "legend": { "show": true },
                "tooltip": { "mode": "single", "yHistogram": false }, "exemplars": { "color": "rgba(255,0,255,0.7)" },
            }),
            Look::States { .. } => json!({
                "mergeValues": true, "showValue": "never", "alignValue": "left", "rowHeight": 0.9,
                "legend": legend("list", true, &[]),
                "tooltip": { "mode": "single", "sort": "none" },
            }),
            Look::Bars { .. } => json!({
                "displayMode": "basic", "orientation": "horizontal", "valueMode": "color", "showUnfilled": true,
                "minVizHeight": 16, "minVizWidth": 8, "namePlacement": "auto", "sizing": "auto", "maxVizHeight": 300,
                "reduceOptions": last, "legend": legend("list", false, &[]),
            }),
            Look::Table { worst, .. } => json!({
                "showHeader": true, "cellHeight": "sm", "frameIndex": 0, "sortBy": [{ "displayName": worst, "desc": true }],
            }),
        }
    }
}

fn legend(display: &str, is_shown: bool, numbers: &[&str]) -> Value {
    json!({ "displayMode": display, "placement": "bottom", "showLegend": is_shown, "calcs": numbers })
}

/// On the right there is room for a dozen names; what is largest is seen without scrolling.
fn sorted(mut legend: Value) -> Value {
    legend["placement"] = json!("right");
    legend["sortBy"] = json!("Max");
    legend["sortDesc"] = json!(true);
    legend
}

/// Green below the first bound, then orange, red from the second.
fn thresholds(bounds: Option<(f64, f64)>) -> Value {
    let mut steps = vec![json!({ "color": "green", "value": null })];
    if let Some((warning, alarm)) = bounds {
        steps.push(json!({ "color": "orange", "value": warning }));
        steps.push(json!({ "color": "red", "value": alarm }));
    }
    json!({ "mode": "absolute", "steps": steps })
}

/// What a series or a row can lead to, by the label that names it.
const LINKED: [&str; 2] = ["route", "upstream"];
const ABOUT: [(&str, &str, &str); 3] = [
    ("route", "overview", "Overview"),
    ("route", "limits", "Limits and queues"),
    ("upstream", "upstreams", "Attempts and timeouts"),
];

/// To the dashboards about this label, narrowed to its value: `value` is Grafana's expression for it.
fn links(label: &str, value: &str) -> Value {
    let about = ABOUT.iter().filter(|(about, ..)| *about == label);
    let link = |(_, name, title): &(&str, &str, &str)| {
        let kept = ["datasource", "job", "instance"].map(|name| format!("${{{name}:queryparam}}")).join("&");
        json!({
            "title": format!("{title} of {value}"), "targetBlank": false,
            "url": format!("/d/forebay-{name}?${{__url_time_range}}&{kept}&var-{label}={value}"),
        })
    };
    about.map(link).collect()
}

fn line(is_stacked: bool) -> Value {
    json!({
        "drawStyle": "line", "lineWidth": 1, "fillOpacity": if is_stacked { 25 } else { 0 },
        "showPoints": "never", "spanNulls": false,
        "stacking": { "mode": if is_stacked { "normal" } else { "none" }, "group": "A" },
    })
}

/// Every joined column brings its own time, which is now.
fn excluded_times(columns: usize) -> Value {
    let names = (1..=columns).map(|number| format!("Time {number}")).chain(["Time".to_owned()]);
    names.map(|name| (name, Value::from(true))).collect::<serde_json::Map<_, _>>().into()
}
