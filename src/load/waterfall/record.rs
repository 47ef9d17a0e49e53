//! What is written down of a run's waterfall.

use serde::{Deserialize, Serialize};

use super::segments::Segments;

/// Where the time of a run's requests went. They are those of the response times: answered well, or given up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Waterfall {
    /// The access log, as it was named.
    pub log: String,
    /// Requests that were to be joined: joined + missing + dropped + disagreeing.
    pub requests: u64,
    pub joined: u64,
    /// Whose line was not there in time.
    pub missing: u64,
    /// For which there was no room any more.
    pub dropped: u64,
    /// Which arrived before they were sent, as the log has it: its clock is another one.
    pub disagreeing: u64,
    /// Those whose answer named its id.
    pub identified: u64,
    /// Lines that came during the run, and those among them that were not understood.
    pub lines: u64,
    pub unreadable: u64,
    /// The longest time by which the sidecar's end came after the client's, and was cut off.
    pub cut_max_ns: u64,
    /// All first, then parts by response time.
    pub cohorts: Vec<Cohort>,
    /// The slowest, one by one.
    pub slowest: Vec<Slow>,
}

/// Requests from one share of the fastest to another: 0.99 to 1 are the slowest 1 %. The part is by classes of 0.8 % in
/// response time; of the class at a border, so much of the sum counts as there are requests within.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cohort {
    pub from: f64,
    pub to: f64,
    pub count: u64,
    /// The response time of the fastest among them, 0.8 % exact.
    pub fastest_ns: u64,
    /// Mean of the response time, and of each of its parts.
    pub response_ns: f64,
    pub segments: Segments<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    /// Its place in the run.
    pub number: u64,
    /// As the access log has it.
    pub request_id: String,
    pub response_ns: u64,
    pub segments: Segments<u64>,
}

impl Waterfall {
    pub fn all(&self) -> Option<&Cohort> {
        self.cohorts.first()
    }

    /// The slowest 1 %.
    pub fn tail(&self) -> Option<&Cohort> {
        self.cohorts.last()
    }

    /// What stands in the way of joining, and what to do about it.
    pub fn remarks(&self) -> Vec<String> {
        let log = &self.log;
        if self.requests == 0 {
            return vec![
                "waterfall: no request was answered well or given up, so there is no response time to explain".into(),
            ];
        }
        if self.joined * 100 >= self.requests * 99 {
            return Vec::new();
        }
        let mut remarks = vec![format!("waterfall: {} of {} requests were joined", self.joined, self.requests)];
        if self.lines == 0 {
            remarks.push(format!(
                "no line came into {log} during the run: name the file of `[access_log] output` of the sidecar that is loaded"
            ));
        } else if self.unreadable == self.lines {
            remarks.push(format!("no line of {log} is one of Forebay's access log with `request_id` and `started_us`"));
        } else if self.disagreeing > 0 {
            remarks.push(format!(
                "{} requests arrived before they were sent, says {log}: it must be written on this machine",
                self.disagreeing
            ));
        } else if self.identified == 0 {
            remarks.push(
                "no answer had an `x-request-id`: the target is no Forebay, or gave no answer; a request without an answer \
                 is found only if the sidecar has this client among its `trusted_proxies`, or had forwarded it"
                    .to_owned(),
            );
        } else if self.dropped > 0 {
            remarks.push(format!("{} requests were too many to be kept until their line came", self.dropped));
        } else {
            remarks.push(format!(
                "{} had no line in {log}: `access_log.sample` below 1 leaves lines out, and a request without an answer is \
                 found only if the sidecar has this client among its `trusted_proxies`, or had forwarded it",
                self.missing
            ));
        }
        remarks
    }
}
