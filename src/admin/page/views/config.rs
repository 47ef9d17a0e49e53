//! The effective configuration with the origin of each value, and how the last reload went. Secrets are hidden already
//! where the configuration is read.

use serde_json::{Value, json};

use super::super::table::{Cell, Column, Kind, Row, Table};
use super::Part;
use crate::admin::View;
use crate::load::report::svg::escape;
use crate::reload::{LastReload, each_setting};
use crate::telemetry::utc;

pub fn json(view: &View) -> Value {
    json!({
        "hash": view.version.config.hash,
        "last_reload": view.last_reload.as_ref().map(LastReload::to_json),
        "pending_restart": view.pending_restart,
        "warnings": view.version.warnings,
        "effective": view.version.effective,
    })
}

pub fn parts(view: &View) -> Vec<Part> {
    let mut parts = vec![reload(view)];
    if let Some(last) = view.last_reload.as_ref().filter(|last| last.result.is_ok()) {
        parts.push(Part::Table(difference(last)));
    }
    parts.push(Part::Table(settings(&view.version.effective)));
    parts
}

fn reload(view: &View) -> Part {
    let mut lines = Vec::new();
    let mut error = None;
    match &view.last_reload {
        None => lines.push("Not reloaded since the start.".to_owned()),
        Some(last) => {
            let (at, trigger) = (utc(last.at), last.trigger.as_str());
            lines.push(match &last.result {
                Err(_) => format!("The reload of {at} ({trigger}) was refused; the configuration before it runs on:"),
                Ok(changed) if changed.is_empty() => format!("Reloaded {at} ({trigger}): the same settings."),
                Ok(changed) => format!("Reloaded {at} ({trigger}): changed {}.", changed.join(", ")),
            });
            error = last.result.as_ref().err();
        }
    }
    let warnings = view.version.warnings.iter().map(|warning| format!("<pre>{}</pre>", escape_lines(warning)));
    let mut html = format!("<h2>Last reload</h2><p>{}</p>", escape(&lines[0]));
    if let Some(error) = error {
        html.push_str(&format!("<pre class=\"bad\">{}</pre>", escape_lines(error)));
    }
    if !view.version.warnings.is_empty() {
        html.push_str(&format!("<h2>Warnings about the file</h2>{}", warnings.collect::<String>()));
    }
    lines.extend(error.cloned());
    lines.extend(view.version.warnings.iter().cloned());
    Part::Block { id: "reload", html, text: lines.join("\n") + "\n" }
}

/// Reports have lines, which `escape` alone would take for control characters.
fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

fn difference(last: &LastReload) -> Table {
    let columns = vec![
        Column { title: "Setting", help: "Its place in the file.", kind: Kind::Text },
        Column { title: "Before", help: "In the configuration before the reload.", kind: Kind::Text },
        Column { title: "Now", help: "In the running configuration.", kind: Kind::Text },
    ];
    let shown = |value: &Option<Value>| Cell::text(value.as_ref().map_or_else(|| "(none)".to_owned(), show));
    let rows = last.difference.iter().map(|change| Row {
        key: change.setting.clone(),
        cells: vec![Cell::text(&change.setting), shown(&change.before), shown(&change.after)],
    });
    Table {
        id: "difference",
        title: "What it changed".into(),
        empty: "No setting has another value; a secret shows none.",
        columns,
        rows: rows.collect(),
    }
}

fn settings(effective: &Value) -> Table {
    let mut rows = Vec::new();
    each_setting(effective, &mut |name, value, origin| {
        let cells = vec![Cell::text(name), Cell::text(show(value)), Cell::text(origin)];
        rows.push(Row { key: name.to_owned(), cells });
    });
    let columns = vec![
        Column { title: "Setting", help: "Its place in the file.", kind: Kind::Text },
        Column { title: "Value", help: "In effect now; secrets are ***.", kind: Kind::Text },
        Column { title: "Origin", help: "The line of the file, or the default.", kind: Kind::Text },
    ];
    Table { id: "settings", title: "In effect".into(), empty: "Nothing.", columns, rows }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
