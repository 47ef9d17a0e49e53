//! A latency: a duration, or a distribution as `forebay simulate` reads it, also one that was measured.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use super::Value;
use super::template::FixedJson;
use crate::config::decode::Decoder;
use crate::config::describe::Shape;
use crate::config::diagnostic::{Code, Problem};
use crate::config::tree::{Kind, Node};
use crate::latency::Latency;
use crate::latency::written::WrittenLatency;

/// A latency with the way it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenDelay {
    pub latency: Latency,
    shown: Json,
}

impl Value for WrittenDelay {
    fn shape() -> Shape {
        let distribution =
            Shape::Any { what: "a distribution such as { lognormal = { median = \"100ms\", p99 = \"2s\" } }" };
        Shape::Either(vec![std::time::Duration::shape(), distribution])
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        if !matches!(node.kind, Kind::Text(_) | Kind::Table(_)) {
            cx.wrong_type(node, &Self::shape().what());
            return None;
        }
        let FixedJson { json, shown } = FixedJson::decode(cx, node)?;
        let problem = match read(cx, &json) {
            Ok(latency) => return Some(Self { latency, shown }),
            Err(problem) => problem,
        };
        cx.report(Problem::error(Code::InvalidValue, node.span.clone(), problem).expected(Self::shape().what()));
        None
    }

    fn show(&self) -> Option<Json> {
        Some(self.shown.clone())
    }
}

fn read(cx: &mut Decoder<'_>, json: &str) -> Result<Latency, String> {
    let value: Json = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let written = WrittenLatency::deserialize(value).map_err(|error| error.to_string())?;
    let Some(read) = cx.inputs.read else {
        // No file is touched: one that was measured is taken for none.
        return Ok(written.resolve(&|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_or_default());
    };
    let base = cx.inputs.base;
    let files = std::cell::RefCell::new(Vec::new());
    let resolved = written.resolve(&|file: &Path| {
        let path = base.join(file);
        files.borrow_mut().push(path.clone());
        read(&path)
    });
    cx.files.extend(files.into_inner());
    resolved.map_err(|mistake| format!("{}: {}", mistake.file.display(), mistake.problem))
}
