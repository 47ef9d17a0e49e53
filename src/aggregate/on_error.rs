//! What stands in the place of a source, or of one item of a list, that failed.

use super::json::Json;
use super::merge::embedded_error;
use super::outcome::{Ending, Fallback, Value};
use crate::config::model::aggregate::{OnError, Source};
use crate::telemetry::Reason;

/// `already`: what a list made of its failed items, one by one, with [`item`].
pub(super) fn place(source: &Source, reason: Reason, already: Option<Value>) -> (Ending, Value) {
    match &source.on_error {
        OnError::Embed => (Ending::Failed, already.unwrap_or_else(|| Value::Json(embedded_error(source, reason)))),
        OnError::Value(text) => {
            let value = already.unwrap_or_else(|| Value::Json(Json::raw_literal(text)));
            (Ending::Fallback(Fallback::Value), value)
        }
        OnError::Omit | OnError::Fail | OnError::Source(_) => (Ending::Failed, Value::Absent),
    }
}

/// `None`: nothing, the list is one element shorter.
pub(super) fn item(source: &Source, reason: Reason) -> Option<Json> {
    match &source.on_error {
        OnError::Embed => Some(embedded_error(source, reason)),
        OnError::Value(text) => Some(Json::raw_literal(text)),
        OnError::Omit | OnError::Fail | OnError::Source(_) => None,
    }
}
