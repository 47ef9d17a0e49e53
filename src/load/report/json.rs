//! The result as one JSON document, which every other report and a comparison can be made from.

use std::fmt;

use serde::Deserialize;

use super::super::result::{RunResult, SCHEMA};

/// The document, indented, with a newline at its end.
pub fn render(result: &RunResult) -> String {
    let mut text = serde_json::to_string_pretty(result).expect("a result has only text for keys");
    text.push('\n');
    text
}

/// Why a file is not a result.
#[derive(Debug)]
pub enum ReadError {
    /// It is JSON, but of another kind or of a version that this program does not know.
    Schema {
        found: String,
    },
    Json(serde_json::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Schema { found } if found.is_empty() => {
                write!(f, "it has no \"schema\": write it with `forebay load --report-json FILE`")
            }
            ReadError::Schema { found } => write!(f, "its schema is \"{found}\", this program reads \"{SCHEMA}\""),
            ReadError::Json(error) => write!(f, "it is not the JSON of a result: {error}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Schema { .. } => None,
            ReadError::Json(error) => Some(error),
        }
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    schema: String,
}

/// Reads what [`render`] wrote. Fields that this program does not know are ignored.
///
/// # Errors
///
/// When the text is something else. The schema is looked at first, so that another kind of file is called that.
pub fn read(text: &str) -> Result<RunResult, ReadError> {
    let head: Head = serde_json::from_str(text).map_err(ReadError::Json)?;
    if head.schema != SCHEMA {
        return Err(ReadError::Schema { found: head.schema });
    }
    serde_json::from_str(text).map_err(ReadError::Json)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    /// All but the last digits of means, which the parser of numbers may lose.
    #[test]
    fn what_is_written_is_read_back() {
        for result in [fixture::result(), fixture::interrupted(), fixture::empty()] {
            let back = read(&render(&result)).expect("a result");

            assert_eq!((back.totals.counts, &back.totals.statuses), (result.totals.counts, &result.totals.statuses));
            assert_eq!((&back.verdict, &back.gates, &back.plan), (&result.verdict, &result.gates, &result.plan));
            let histograms = |result: &RunResult| -> Vec<_> {
                result.seconds.iter().map(|second| second.response.histogram().expect("whole")).collect()
            };
            assert!(histograms(&back) == histograms(&result), "a second has changed");
        }
    }

    #[test]
    fn other_files_are_called_what_they_are() {
        let told = |text: &str| read(text).expect_err(text).to_string();

        assert_eq!(told("{}"), "it has no \"schema\": write it with `forebay load --report-json FILE`");
        assert_eq!(
            told(r#"{"schema": "forebay-load/9"}"#),
            r#"its schema is "forebay-load/9", this program reads "forebay-load/1""#
        );
        assert!(told("p99: 3").starts_with("it is not the JSON of a result: expected"));
        assert!(told(r#"{"schema": "forebay-load/1"}"#).contains("missing field"));
    }
}
