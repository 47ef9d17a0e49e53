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
}

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

/// Numbers stand six to a row, lines two.
pub(super) fn laid_out(panels: Vec<Panel>) -> Vec<Value> {
    let (mut x, mut y, mut row) = (0, 0, 0);
    let place = |(panel, id): (Panel, u32)| {
        let (width, height) = match panel.look {
            Look::Stat { .. } => (4, 4),
            Look::Lines | Look::Stacked => (12, 8),
        };
        if x + width > COLUMNS || (row != 0 && row != height) {
            (x, y) = (0, y + row);
        }
        row = height;
        let place = json!({ "x": x, "y": y, "w": width, "h": height });
        x += width;
        panel.json(id, &place)
    };
    panels.into_iter().zip(1..).map(place).collect()
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

    fn json(self, id: u32, place: &Value) -> Value {
        let is_stat = matches!(self.look, Look::Stat { .. });
        let targets: Vec<Value> = self
            .targets
            .iter()
            .zip('A'..)
            .map(|((expression, legend), name)| {
                json!({
                    "refId": name.to_string(), "datasource": datasource(), "expr": expression, "legendFormat": legend,
                    "editorMode": "code", "range": true, "instant": false,
                })
            })
            .collect();
        json!({
            "id": id, "type": if is_stat { "stat" } else { "timeseries" }, "title": self.title,
            "description": self.description, "datasource": datasource(), "gridPos": place, "targets": targets,
            "fieldConfig": { "defaults": self.field(), "overrides": [] },
            "options": if is_stat { stat() } else { lines() },
        })
    }

    fn field(&self) -> Value {
        match self.look {
            Look::Stat { bounds } => {
                let mut steps = vec![json!({ "color": "green", "value": null })];
                if let Some((warning, alarm)) = bounds {
                    steps.push(json!({ "color": "orange", "value": warning }));
                    steps.push(json!({ "color": "red", "value": alarm }));
                }
                json!({
                    "unit": self.unit, "min": 0, "color": { "mode": "thresholds" },
                    "thresholds": { "mode": "absolute", "steps": steps },
                })
            }
            Look::Lines | Look::Stacked => {
                let is_stacked = matches!(self.look, Look::Stacked);
                json!({
                    "unit": self.unit, "min": 0, "color": { "mode": "palette-classic" },
                    "custom": {
                        "drawStyle": "line", "lineWidth": 1, "fillOpacity": if is_stacked { 25 } else { 0 },
                        "showPoints": "never", "spanNulls": false,
                        "stacking": { "mode": if is_stacked { "normal" } else { "none" }, "group": "A" },
                    },
                })
            }
        }
    }
}

fn stat() -> Value {
    json!({
        "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
        "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
    })
}

fn lines() -> Value {
    json!({
        "legend": { "displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["mean", "max"] },
        "tooltip": { "mode": "multi", "sort": "desc" },
    })
}
