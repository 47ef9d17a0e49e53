//! The pictures: text from a snapshot, nothing else.

use super::super::report::{Look, format};
use super::{Moment, Phase, Quick, Row, SECOND, Snapshot};

const INDENT: usize = 11;
const COLUMN: usize = 10;
const BAR: usize = 30;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The block, line by line.
pub(super) fn block(title: &str, snapshot: &Snapshot, look: &Look) -> Vec<String> {
    // The newest of which something is known: the answers of the last may all be on their way.
    let known = snapshot.rows.iter().rev().find(|row| row.response.count > 0);
    let last = snapshot.rows.last().copied().unwrap_or_default();
    let mut lines = vec![look.bold(title).into_owned(), progress(&snapshot.moment)];
    lines.push(item(
        look,
        "rate",
        &format!(
            "{}/s due, {}/s sent, {}/s ended; {} in flight",
            format::count(last.counts.scheduled),
            format::count(last.sent),
            format::count(last.ended),
            format::count(snapshot.moment.in_flight)
        ),
    ));
    let head: String = ["p50", "p95", "p99", "max", "late p99"].map(|name| format!("{name:>COLUMN$}")).concat();
    lines.push(format!("{:INDENT$}{}", "", look.dim(head)));
    if let Some(row) = known {
        let open = match row.open() {
            0 => String::new(),
            open => format!("   {} still in flight", format::count(open)),
        };
        let name = format!("second {}", row.second);
        lines.push(item(look, &name, &format!("{}{open}", times(&row.response, row.lateness_p99_ns))));
    }
    if snapshot.response.count > 0 {
        lines.push(item(look, "run", &times(&snapshot.response, snapshot.lateness_p99_ns)));
    }
    lines.push(item(look, "errors", &errors(snapshot, look)));
    if let Some(line) = sparkline(&snapshot.rows, look.width.saturating_sub(INDENT + 20)) {
        lines.push(item(look, "p99", &line));
    }
    lines
}

/// A line of its own for each second.
pub(super) fn line(snapshot: &Snapshot, row: &Row) -> String {
    let failed = row.counts.ended() - row.counts.ok;
    let time = |ns: u64| if row.response.count == 0 { "-".to_owned() } else { format::nanos(ns) };
    format!(
        "{:>5} s  due {}  sent {}  ended {}  in flight {}  p50 {}  p99 {}  max {}  errors {}  shed {}  late p99 {}{}",
        row.second + 1,
        row.counts.scheduled,
        row.sent,
        row.ended,
        snapshot.moment.in_flight,
        time(row.response.p50_ns),
        time(row.response.p99_ns),
        time(row.response.max_ns),
        failed,
        row.counts.shed,
        format::nanos(row.lateness_p99_ns),
        match snapshot.moment.phase {
            Phase::WarmUp => "  (warm-up)",
            Phase::Measuring => "",
            Phase::Draining => "  (draining)",
            Phase::Interrupted => "  (interrupted)",
        }
    )
}

fn item(look: &Look, name: &str, text: &str) -> String {
    let name = format!("{name:INDENT$}");
    format!("{}{text}", look.dim(name))
}

/// `########------------  12 s of 30 s, 18 s left`.
fn progress(moment: &Moment) -> String {
    let seconds = |ns: u64| format::length((ns / SECOND) as f64);
    // Rounded up, so that what was and what is left are the whole.
    let left = moment.planned_ns.saturating_sub(moment.elapsed_ns / SECOND * SECOND);
    let share = moment.elapsed_ns.min(moment.planned_ns) as f64 / moment.planned_ns.max(1) as f64;
    let done = (share * BAR as f64) as usize;
    let words = match moment.phase {
        Phase::Draining => format!("all sent, waiting for {}", format::count(moment.in_flight)),
        Phase::Interrupted => {
            format!("interrupted, waiting for {}; Ctrl-C again gives up", format::count(moment.in_flight))
        }
        Phase::WarmUp | Phase::Measuring => {
            let warm_up = if moment.phase == Phase::WarmUp { ", warming up" } else { "" };
            format!("{} of {}, {} left{warm_up}", seconds(moment.elapsed_ns), seconds(moment.planned_ns), seconds(left))
        }
    };
    format!("{}{}  {words}", "#".repeat(done), "-".repeat(BAR - done))
}

fn times(quick: &Quick, lateness_ns: u64) -> String {
    let values = [quick.p50_ns, quick.p95_ns, quick.p99_ns, quick.max_ns, lateness_ns];
    values.map(|ns| format!("{:>COLUMN$}", format::nanos(ns))).concat()
}

fn errors(snapshot: &Snapshot, look: &Look) -> String {
    let counts = &snapshot.counts;
    let kinds = snapshot.errors.iter().map(|(kind, count)| (kind.as_str(), *count));
    let all = [("http", counts.http_error), ("timeout", counts.timeout), ("shed", counts.shed)];
    let parts: Vec<String> = all
        .into_iter()
        .chain(kinds)
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{} {name}", format::count(count)))
        .collect();
    if parts.is_empty() {
        return "none".to_owned();
    }
    let failed = counts.ended() - counts.ok;
    let text = format!("{} of ended; {}", format::percent(failed, counts.ended()), parts.join(", "));
    look.bad(text).into_owned()
}

/// The p99 of the last seconds, from nothing up to the greatest, which is named. `None` before there is one.
fn sparkline(rows: &[Row], width: usize) -> Option<String> {
    let shown = &rows[rows.len().saturating_sub(width.max(1))..];
    let top = shown.iter().map(|row| row.response.p99_ns).max().filter(|top| *top > 0)?;
    let level = |row: &Row| match row.response.count {
        0 => ' ',
        _ => LEVELS[(row.response.p99_ns as f64 / top as f64 * (LEVELS.len() - 1) as f64).round() as usize],
    };
    let line: String = shown.iter().map(level).collect();
    Some(format!("{line}  up to {}", format::nanos(top)))
}
