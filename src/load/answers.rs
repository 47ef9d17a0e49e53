//! What is written down of answers that were compared with recorded ones.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the answers of a replay compare with the recorded ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Answers to requests whose recorded status is known: equal + different.
    pub compared: u64,
    pub equal: u64,
    pub different: u64,
    /// Those whose bodies were compared, too.
    pub bodies: u64,
    /// Bodies that could not be: recorded in part only, too long, or in a coding that is not understood.
    pub incomparable: u64,
    /// Bodies for which there was no room or no time.
    pub dropped: u64,
    /// The most frequent first.
    pub differences: Vec<DifferenceRecord>,
    /// Differences at further paths.
    pub others: u64,
    /// Paths that were not compared: as told, and as found by asking twice.
    pub ignored: Vec<String>,
    pub learned: Vec<String>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DifferenceRecord {
    /// Into the JSON, `*` for the elements of lists; or `status`, or `(whole body)`.
    pub path: String,
    pub kind: Kind,
    /// In how many answers.
    pub answers: u64,
    /// Of the first of them: method and path, the exact place, and both values, cut.
    pub request: String,
    pub place: String,
    pub recorded: String,
    pub replayed: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Status,
    Missing,
    Added,
    /// A number then, text now, and the like.
    Type,
    Value,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Status => "status",
            Kind::Missing => "missing",
            Kind::Added => "added",
            Kind::Type => "type",
            Kind::Value => "value",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl DifferenceRecord {
    /// `had 1, has 2`.
    pub fn change(&self) -> String {
        match self.kind {
            Kind::Missing => format!("had {}", self.recorded),
            Kind::Added => format!("has {}", self.replayed),
            Kind::Status | Kind::Type | Kind::Value => format!("had {}, has {}", self.recorded, self.replayed),
        }
    }
}
