//! Vegeta's JSON targets with an instant: `{"at": 1500000, "method": "GET", "url": "http://...", ...}`.
//!
//! Vegeta itself has no time in its targets and ignores the key, so a file with it serves both programs.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::{Found, request_of};
use crate::load::client::origin::Origin;
use crate::replay::recording::{decode, fields, json};
use crate::replay::{Record, add_field};

#[derive(Debug, Serialize, Deserialize)]
struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    method: String,
    url: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    header: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    body: String,
}

/// Whether a line is a target.
pub fn is_target(line: &str) -> bool {
    serde_json::from_str::<Target>(line).is_ok()
}

pub(super) fn parse(text: &str, found: &mut Found) -> Result<(), String> {
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let told = |problem: String| format!("line {number}: {problem}");
        let target: Target = serde_json::from_str(line).map_err(|error| told(error.to_string()))?;
        match target.at {
            Some(at) => {
                let (host, record) = record(&target, at).map_err(told)?;
                found.take(host, record);
            }
            None => found.leave_out("targets without `at`; `forebay load --targets` sends such a file", number),
        }
    }
    Ok(())
}

fn record(target: &Target, at: u64) -> Result<(Option<String>, Record), String> {
    let (host, mut record) = request_of(&target.method, &target.url, at)?;
    for (name, values) in &target.header {
        values.iter().try_for_each(|value| add_field(&mut record.headers, name, value))?;
    }
    record.body = decode(&target.body)?;
    Ok((host, record))
}

/// Writes records as targets at `origin`. Their answers have no place in it.
pub fn render(records: &[Record], origin: &Origin) -> String {
    let line = |record: &Record| {
        json(&Target {
            at: Some(record.at),
            method: record.method.to_string(),
            url: format!("{}://{}{}", origin.scheme(), origin.authority(), record.path),
            header: fields(&record.headers),
            body: BASE64.encode(&record.body),
        })
    };
    records.iter().map(line).collect()
}
