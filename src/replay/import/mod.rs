//! What other tools leave behind, as records.
//!
//! Every format has traps of its own, told where it is read. What they have in common is here: which one a text is
//! in, that records come out in the order of time, that secrets stay behind, and that whatever could not be used is
//! counted and said. A log has strange lines, and one of them is no reason to refuse the others; but no record is
//! dropped in silence.

mod access_log;
mod h2load;
mod har;
mod instant;
pub mod vegeta;

use std::collections::BTreeMap;

use clap::ValueEnum;
use http::Uri;

use super::{Record, is_secret, method, path, recording};

/// A format of recorded requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// This program's own.
    Recording,
    /// This program's access log.
    Forebay,
    /// Vegeta's JSON targets with `"at"`, nanoseconds.
    Vegeta,
    /// nginx: `combined`, with `$msec $request_time` at its end if possible; or `$msec $request_time "$request" $status`.
    Nginx,
    /// Envoy's default access log.
    Envoy,
    /// HTTP Archive 1.2.
    Har,
    /// h2load's timing script: milliseconds, a tab, the URI.
    H2load,
}

/// Requests in the order of time, and what the user should know about how they came out of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    pub records: Vec<Record>,
    pub notes: Vec<String>,
}

/// How a file is read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// As told, instead of by looks.
    pub format: Option<Format>,
    pub keep_secrets: bool,
    /// Where times of whole seconds are spread over their second.
    pub seed: u64,
}

/// Reads recorded requests.
///
/// # Errors
///
/// When the format cannot be told, the file breaks it, or nothing in it can be used.
pub fn parse(text: &str, reading: Reading) -> Result<Import, String> {
    let format = match reading.format {
        Some(format) => format,
        None => detect(text).ok_or("the format cannot be told by its first line; name it with --format")?,
    };
    let mut found = Found::default();
    match format {
        Format::Recording => found.take_all(recording::parse(text)?),
        Format::Forebay => access_log::forebay(text, &mut found),
        Format::Vegeta => vegeta::parse(text, &mut found)?,
        Format::Nginx => access_log::nginx(text, reading.seed, &mut found),
        Format::Envoy => access_log::envoy(text, &mut found),
        Format::Har => har::parse(text, &mut found)?,
        Format::H2load => h2load::parse(text, &mut found),
    }
    found.finish(reading.keep_secrets)
}

fn detect(text: &str) -> Option<Format> {
    if recording::is_recording(text) {
        return Some(Format::Recording);
    }
    let first = text.lines().map(str::trim_end).find(|line| !line.trim().is_empty())?;
    if first.trim_start().starts_with('{') {
        return Some(match first {
            own if access_log::is_own(own) => Format::Forebay,
            target if vegeta::is_target(target) => Format::Vegeta,
            _ => Format::Har,
        });
    }
    let is_envoy = first.strip_prefix('[').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if is_envoy {
        return Some(Format::Envoy);
    }
    if first.split_once('\t').is_some_and(|(offset, _)| offset.trim().parse::<f64>().is_ok()) {
        return Some(Format::H2load);
    }
    first.contains('"').then_some(Format::Nginx)
}

/// What was found so far in a file.
#[derive(Debug, Default)]
struct Found {
    /// With the host that a record was sent to, where the format says it.
    records: Vec<(Option<String>, Record)>,
    /// Why something was left out: how often, and the first line.
    left_out: BTreeMap<String, (u64, usize)>,
    notes: Vec<String>,
}

impl Found {
    fn take(&mut self, host: Option<String>, record: Record) {
        self.records.push((host, record));
    }

    fn take_all(&mut self, records: Vec<Record>) {
        self.records.extend(records.into_iter().map(|record| (None, record)));
    }

    /// `why` is one of a few texts, or memory would grow with the file.
    fn leave_out(&mut self, why: &str, line: usize) {
        if let Some((count, _)) = self.left_out.get_mut(why) {
            *count += 1;
        } else {
            self.left_out.insert(why.to_owned(), (1, line));
        }
    }

    fn finish(mut self, keep_secrets: bool) -> Result<Import, String> {
        self.keep_one_host();
        let left_out = self.left_out.iter();
        let reasons: Vec<String> =
            left_out.map(|(why, (count, first))| format!("left out {count}: {why} (first: {first})")).collect();
        if self.records.is_empty() {
            let why = if reasons.is_empty() { "it is empty".to_owned() } else { reasons.join("; ") };
            return Err(format!("holds no request that can be sent: {why}"));
        }
        self.notes.extend(reasons);
        let mut records: Vec<Record> = self.records.into_iter().map(|(_, record)| record).collect();
        if !keep_secrets {
            self.notes.extend(drop_secrets(&mut records));
        }
        records.sort_by_key(|record| record.at);
        Ok(Import { records, notes: self.notes })
    }

    /// A page of a browser asks many hosts, and a replay asks one: the one that was asked most.
    fn keep_one_host(&mut self) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for host in self.records.iter().filter_map(|(host, _)| host.as_deref()) {
            *counts.entry(host).or_default() += 1;
        }
        let Some(most) = counts.iter().max_by_key(|(_, count)| **count).map(|(host, _)| (*host).to_owned()) else {
            return;
        };
        let before = self.records.len();
        self.records.retain(|(host, _)| host.as_ref().is_none_or(|host| *host == most));
        let others = before - self.records.len();
        if others > 0 {
            self.notes.push(format!("left out {others}: requests to other hosts than {most}, the most frequent one"));
        }
    }
}

fn drop_secrets(records: &mut [Record]) -> Option<String> {
    let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
    for record in records {
        let secret: Vec<_> = record.headers.keys().filter(|name| is_secret(name)).cloned().collect();
        for name in secret {
            record.headers.remove(&name);
            *dropped.entry(name.to_string()).or_default() += 1;
        }
        // Of answers nothing is ever sent, so nobody need be told.
        if let Some(answer) = &mut record.answer {
            let secret: Vec<_> = answer.headers.keys().filter(|name| is_secret(name)).cloned().collect();
            secret.iter().for_each(|name| drop(answer.headers.remove(name)));
        }
    }
    let names: Vec<String> = dropped.into_iter().map(|(name, count)| format!("{name} ({count})")).collect();
    let names = (!names.is_empty()).then(|| names.join(", "))?;
    Some(format!("secrets were dropped: {names}; --keep-secrets sends them, -H sets another value"))
}

/// Host and request of a URL, or of a bare path.
fn request_of(verb: &str, url: &str, at: u64) -> Result<(Option<String>, Record), String> {
    let verb = method(verb)?;
    if url.starts_with('/') {
        return Ok((None, Record::new(at, verb, path(url)?)));
    }
    let uri: Uri = url.parse().map_err(|_| format!("`{url}` is not a URL"))?;
    let host = uri.authority().ok_or_else(|| format!("`{url}` names no host"))?.host().to_ascii_lowercase();
    let place = uri.path_and_query().map_or("/", |place| place.as_str());
    let place = if place.starts_with('/') { place.to_owned() } else { format!("/{place}") };
    Ok((Some(host), Record::new(at, verb, path(&place)?)))
}

/// Nanoseconds of a decimal number of units, exactly: `1.5` of 1 000 000 is 1 500 000. Further digits are cut.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let mut nanoseconds = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        nanoseconds = nanoseconds.checked_add(u64::from(digit - b'0') * place)?;
    }
    Some(nanoseconds)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
