//! The report that a person reads in the terminal: some twenty lines, the most important first.

use super::super::censored::{Censored, Reading, Statistic};
use super::super::result::{Outcome, RunResult, Totals};
use super::{
    HistogramError, Look, expected_refusals, explain, format, hidden_misses, measured_seconds, of_target, repeat_line,
    targets, verdict, what_ran,
};

mod answers;
mod waterfall;

/// Where the text of each line begins, after its name.
const INDENT: usize = 11;
/// Of one number in the table.
const COLUMN: usize = 10;
/// The columns of the table, and in which order they are left out when there is no room: the greatest first.
const COLUMNS: [(Statistic, u8); 7] = [
    (Statistic::Quantile(0.5), 0),
    (Statistic::Quantile(0.9), 5),
    (Statistic::Quantile(0.95), 3),
    (Statistic::Quantile(0.99), 1),
    (Statistic::Quantile(0.999), 4),
    (Statistic::Max, 2),
    (Statistic::Mean, 6),
];

/// The whole report, with a newline at its end.
///
/// # Errors
///
/// When a histogram of the result is damaged.
pub fn render(result: &RunResult, look: &Look) -> Result<String, HistogramError> {
    let mut page = Page { look, text: String::new() };
    page.heading(result);
    page.gap();
    page.outcome(result);
    page.counts(result);
    page.gap();
    page.times(&result.totals)?;
    page.gap();
    if let Some(found) = &result.waterfall {
        waterfall::write(&mut page, found);
    }
    page.answers(&result.totals);
    if let Some(answers) = &result.answers {
        answers::write(&mut page, answers);
    }
    page.each_target(result);
    page.generator(result);
    page.gates(result);
    page.notes(result);
    page.gap();
    page.repeat(result);
    Ok(page.text)
}

struct Page<'a> {
    look: &'a Look,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn gap(&mut self) {
        if !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    fn heading(&mut self, result: &RunResult) {
        for line in wrap(&targets(result), self.look.width) {
            let line = self.look.bold(line);
            self.line(&line);
        }
        wrap(&what_ran(result), self.look.width).iter().for_each(|line| self.line(line));
    }

    /// A named line, wrapped to the width.
    fn item(&mut self, name: &str, text: &str) {
        for (index, part) in wrap(text, self.look.width.saturating_sub(INDENT)).into_iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            let name = format!("{name:INDENT$}");
            let name = self.look.dim(name.as_str());
            self.line(&format!("{name}{part}"));
        }
    }

    /// Whether the numbers below mean something: before them.
    fn outcome(&mut self, result: &RunResult) {
        if result.verdict.outcome == Outcome::Complete {
            return;
        }
        let (heading, reasons) = verdict(result);
        let heading = match result.verdict.outcome {
            Outcome::Void => format!("{heading}: these numbers mean nothing"),
            Outcome::Complete | Outcome::Interrupted => heading.to_owned(),
        };
        let heading = self.look.bad(heading.as_str());
        self.line(&heading);
        for reason in reasons {
            self.item("  because", &reason);
        }
        if let Some(missed) = hidden_misses(result) {
            self.item("  missed", &missed);
        }
        self.gap();
    }

    fn counts(&mut self, result: &RunResult) {
        let counts = &result.totals.counts;
        let n = format::count;
        let mut shed = format!("{} shed", n(counts.shed));
        if counts.shed_deadline > 0 {
            shed.push_str(&format!(" ({} past the deadline)", n(counts.shed_deadline)));
        }
        let (scheduled, sent) = (n(counts.scheduled), n(counts.sent));
        self.item("requests", &format!("{scheduled} scheduled = {sent} sent + {shed} + {} unsent", n(counts.unsent)));
        let ends = format!(
            "{sent} sent = {} ok + {} http error + {} connection error + {} timeout + {} unfinished",
            n(counts.ok),
            n(counts.http_error),
            n(counts.connection_error),
            n(counts.timeout),
            n(counts.unfinished)
        );
        self.item("", &ends);
        let seconds = measured_seconds(result);
        if seconds > 0.0 {
            let rate = |count: u64| format::per_second(count as f64 / seconds);
            let rates = format!(
                "{} scheduled, {} sent, {} ok; {} received, {} made",
                rate(counts.scheduled),
                rate(counts.sent),
                rate(counts.ok),
                size(counts.bytes),
                format::many(counts.connections, "connection")
            );
            self.item("rate", &rates);
        }
    }

    fn times(&mut self, totals: &Totals) -> Result<(), HistogramError> {
        let room = self.look.width.saturating_sub(INDENT) / COLUMN;
        let columns: Vec<Statistic> = COLUMNS
            .iter()
            .filter(|(_, rank)| usize::from(*rank) < room.max(1))
            .map(|(statistic, _)| *statistic)
            .collect();
        let names: String = columns.iter().map(|statistic| format!("{:>COLUMN$}", statistic.to_string())).collect();
        let names = self.look.dim(names.as_str());
        self.line(&format!("{:INDENT$}{names}", ""));
        let response = Censored::response(totals)?;
        let rows = [
            ("response", response.clone()),
            ("service", Censored::service(totals)?),
            ("first byte", Censored::of_distribution(&totals.first_byte, 0, None)?),
            ("failed", Censored::of_distribution(&totals.failed, 0, None)?),
            ("lateness", Censored::of_distribution(&totals.lateness, 0, None)?),
        ];
        for (name, values) in rows.iter().filter(|(name, values)| *name == "response" || !values.is_empty()) {
            self.row(name, values, &columns);
        }
        self.item("", "response counts from when a request was due, service from when it was sent");
        if response.censored() > 0 {
            let counts = &totals.counts;
            let why = format!(
                ">= is a lower bound: {} timed out and {} unfinished took at least that long",
                format::count(counts.timeout),
                format::count(counts.unfinished)
            );
            self.item("", &why);
        }
        if let Some(text) = expected_refusals(totals) {
            self.item("", &text);
        }
        if totals.saturated > 0 {
            self.item(
                "",
                &format!("{} took longer than the hour they are counted with", format::count(totals.saturated)),
            );
        }
        Ok(())
    }

    fn row(&mut self, name: &str, values: &Censored<'_>, columns: &[Statistic]) {
        let cells = columns.iter().map(|statistic| match values.is_empty() {
            true => "-".to_owned(),
            false => reading(values.read(*statistic)),
        });
        let cells: String = cells.map(|cell| format!("{cell:>COLUMN$}")).collect();
        let cells = if name == "response" { self.look.bold(cells) } else { cells.into() };
        let name = format!("{name:INDENT$}");
        let name = self.look.dim(name.as_str());
        self.line(&format!("{name}{cells}"));
    }

    fn answers(&mut self, totals: &Totals) {
        let sent = totals.counts.sent;
        let share = |count: u64| format!("{} ({})", format::count(count), format::percent(count, sent));
        let statuses: Vec<String> =
            totals.statuses.iter().map(|(status, count)| format!("{status}: {}", share(*count))).collect();
        if !statuses.is_empty() {
            self.item("statuses", &statuses.join("   "));
        }
        for (index, (kind, count)) in totals.errors.iter().enumerate() {
            let name = if index == 0 { "errors" } else { "" };
            self.item(name, &format!("{kind}: {} - {}", share(*count), explain(*kind)));
        }
    }

    /// The first few, if there are several; all are in the JSON.
    fn each_target(&mut self, result: &RunResult) {
        const SHOWN: usize = 5;
        if result.targets.len() < 2 {
            return;
        }
        for (index, target) in result.targets.iter().take(SHOWN).enumerate() {
            let (counts, response) = (&target.counts, &target.response);
            let [p50, p99, max] = of_target(response);
            let text = format!(
                "{}: {} sent, {} ok, p50 {p50}, p99 {p99}, max {max}",
                target.name,
                format::count(counts.sent),
                format::percent(counts.ok, counts.sent),
            );
            self.item(if index == 0 { "targets" } else { "" }, &text);
        }
        if result.targets.len() > SHOWN {
            self.item("", &format!("and {} more", result.targets.len() - SHOWN));
        }
    }

    fn generator(&mut self, result: &RunResult) {
        let generator = &result.generator;
        let spun = if generator.precise { " (spinning)" } else { "" };
        let text = format!(
            "{} s user + {} s system CPU{spun}, busiest worker {:.0} %, {} in flight on average",
            format::three_digits(generator.user_cpu_s),
            format::three_digits(generator.system_cpu_s),
            generator.busiest_worker * 100.0,
            format::three_digits(result.little.in_flight_mean)
        );
        self.item("generator", &text);
        if let Some(longest) = generator.stalls.iter().max_by(|a, b| a.length_s.total_cmp(&b.length_s)) {
            let text = format!(
                "stood still {} times, longest {} at {} s",
                generator.stalls.len(),
                format::time(longest.length_s * 1e9),
                format::three_digits(longest.at_s)
            );
            let text = self.look.bad(text.replace("1 times, longest", "once,"));
            self.item("", &text);
        }
    }

    fn gates(&mut self, result: &RunResult) {
        for (index, gate) in result.gates.iter().enumerate() {
            let mark = match gate.passed {
                Some(true) => self.look.good("pass"),
                Some(false) => self.look.bad("MISS"),
                None => self.look.dim("skip"),
            };
            let name = if index == 0 { "gates" } else { "" };
            let text = format!("{mark}  {}: {}", gate.gate, gate.measured);
            self.item(name, &text);
        }
    }

    /// In one piece, to be copied.
    fn repeat(&mut self, result: &RunResult) {
        let name = format!("{:INDENT$}", "repeat");
        let name = self.look.dim(name.as_str());
        self.line(&format!("{name}{}", repeat_line(result)));
    }

    fn notes(&mut self, result: &RunResult) {
        for (index, note) in result.notes.iter().enumerate() {
            self.item(if index == 0 { "notes" } else { "" }, note);
        }
    }
}

/// `312 ms`, or `>=312 ms` where the truth may be larger.
fn reading(reading: Reading) -> String {
    let bound = if reading.at_least { ">=" } else { "" };
    format!("{bound}{}", format::time(reading.ns))
}

/// Exact sizes are for files; this is `1.07 MiB`.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{} {unit}", format::three_digits(bytes as f64 / *size as f64)),
        None => format!("{bytes} B"),
    }
}

/// Breaks at spaces. A longer word has a line to itself, since breaking it would spoil it for copying.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = visible(word);
        let line = lines.last_mut().expect("begins with one line");
        if used > 0 && used + 1 + length > width {
            lines.push(word.to_owned());
            used = length;
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
    }
    lines
}

/// Characters without the codes of colours.
fn visible(word: &str) -> usize {
    let mut in_code = false;
    let shown = word.chars().filter(|char| {
        let was_in_code = in_code;
        in_code = if in_code { *char != 'm' } else { *char == '\x1b' };
        !was_in_code && !in_code
    });
    shown.count()
}

#[cfg(test)]
mod tests {
    use super::super::super::result::{Distribution, TargetRecord};
    use super::super::{fixture, golden};
    use super::*;

    #[test]
    fn the_report_is_the_one_that_is_kept() {
        let runs = [
            ("complete", fixture::result()),
            ("void", fixture::void()),
            ("interrupted", fixture::interrupted()),
            ("empty", fixture::empty()),
        ];
        for (name, result) in runs {
            let text = render(&result, &Look::PLAIN).expect("whole histograms");

            golden::compare(&format!("tests/it/load/{name}.txt"), &text);
        }
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_but_what_must_stay_whole() {
        for width in [40, 60, 80] {
            let look = Look { colour: true, width };

            let text = render(&fixture::void(), &look).expect("whole histograms");

            for line in text.lines().filter(|line| visible(line) > width) {
                let words = line.split_whitespace().count();
                assert!(line.contains("http://") || words < 3, "{width}: {line}");
            }
        }
    }

    #[test]
    fn several_targets_have_a_line_each() {
        let mut result = fixture::result();
        result.targets = vec![result.targets[0].clone(); 7];

        let text = render(&result, &Look { width: 120, ..Look::PLAIN }).expect("whole histograms");

        let line = "GET http://127.0.0.1:8080/agg: 2 194 sent, 99.23 % ok, p50 17.7 ms, p99 908 ms, max 2.00 s\n";
        assert_eq!(text.matches(line).count(), 5);
        assert!(text.contains("\n           and 2 more\n"));
    }

    #[test]
    fn a_target_without_an_answer_has_no_times() {
        let mut result = fixture::result();
        result.targets = vec![TargetRecord { response: Distribution::default(), ..result.targets[0].clone() }; 2];

        let text = render(&result, &Look { width: 120, ..Look::PLAIN }).expect("whole histograms");

        assert_eq!(text.matches("99.23 % ok, p50 -, p99 -, max -\n").count(), 2, "{text}");
    }

    #[test]
    fn refusals_that_were_expected_are_named_where_they_are_among_the_failed() {
        let mut result = fixture::result();
        let counts = &mut result.totals.counts;
        (counts.http_error, counts.ok) = (counts.http_error - 1, counts.ok + 1);

        let text = render(&result, &Look::PLAIN).expect("whole histograms");

        assert!(text.contains("1 of the failed is ok: a 429 or 503 that was expected"), "{text}");
    }

    #[test]
    fn colours_do_not_change_the_text() {
        let plain = render(&fixture::result(), &Look::PLAIN).expect("whole histograms");

        let coloured = render(&fixture::result(), &Look { colour: true, ..Look::PLAIN }).expect("whole histograms");

        let mut stripped = String::new();
        for (index, part) in coloured.split("\x1b[").enumerate() {
            stripped.push_str(if index == 0 { part } else { part.split_once('m').expect("a code").1 });
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn text_is_wrapped_at_spaces() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("a much-too-long b", 5), ["a", "much-too-long", "b"]);
        assert_eq!(wrap("\x1b[1;31maa\x1b[0m bb", 5), ["\x1b[1;31maa\x1b[0m bb"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
