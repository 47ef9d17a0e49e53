//! One page with everything, to keep or to send: one file that needs no network and no script.
//!
//! All charts are SVG written here, all numbers are also in tables. A long run is drawn in bins of several seconds, so
//! that the page stays below 300 KB; their histograms are added up, so what is read from a bin is exact.

use std::fmt::Write as _;

use super::super::answers::Answers;
use super::super::censored::{Censored, Reading, Statistic};
use super::super::result::{Distribution, Outcome, RunResult, Totals};
use super::svg::escape;
use super::{
    HistogramError, expected_refusals, explain, format, hidden_misses, of_target, repeat_line, targets, verdict,
    what_ran,
};

mod bins;
mod charts;
mod heat;
mod waterfall;

use bins::Bin;

const STYLE: &str = include_str!("html/style.css");

/// The columns of the tables of times.
const STATISTICS: [Statistic; 7] = [
    Statistic::Mean,
    Statistic::Quantile(0.5),
    Statistic::Quantile(0.9),
    Statistic::Quantile(0.95),
    Statistic::Quantile(0.99),
    Statistic::Quantile(0.999),
    Statistic::Max,
];

/// The whole page.
///
/// # Errors
///
/// When a histogram of the result is damaged.
pub fn render(result: &RunResult) -> Result<String, HistogramError> {
    let bins = bins::of(result)?;
    let mut page = Page(String::with_capacity(128 * 1024));
    let title = escape(&targets(result));
    page.push(&format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta name=color-scheme content=\"light dark\">\
         <title>Load: {title}</title><style>{STYLE}</style></head><body><main>\
         <h1>{title}</h1><p class=lead>{}</p>",
        escape(&what_ran(result))
    ));
    page.outcome(result);
    page.gates(result);
    page.times(&result.totals)?;
    if let Some(found) = &result.waterfall {
        page.waterfall(found);
    }
    page.charts(result, &bins)?;
    page.counts(result);
    if let Some(answers) = &result.answers {
        page.answers(answers);
    }
    page.seconds(&bins);
    page.surroundings(result);
    page.push("</main></body></html>\n");
    Ok(page.0)
}

struct Page(String);

impl Page {
    fn push(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn outcome(&mut self, result: &RunResult) {
        let (heading, reasons) = verdict(result);
        let class = match result.verdict.outcome {
            Outcome::Complete => "good",
            Outcome::Interrupted => "warn",
            Outcome::Void => "bad",
        };
        let words = match result.verdict.outcome {
            Outcome::Void => "VOID: these numbers mean nothing",
            Outcome::Complete => "Complete: the generator was not the limit",
            Outcome::Interrupted => heading,
        };
        self.push(&format!("<section class=\"verdict {class}\"><strong>{words}</strong>"));
        let missed = hidden_misses(result).map(|missed| format!("Gates missed: {missed}"));
        self.list(&reasons.into_iter().chain(missed).collect::<Vec<_>>());
        self.push("</section>");
        if !result.notes.is_empty() {
            self.push("<section class=\"verdict warn\"><strong>Notes</strong>");
            self.list(&result.notes);
            self.push("</section>");
        }
    }

    fn list(&mut self, items: &[String]) {
        if !items.is_empty() {
            let items: String = items.iter().map(|item| format!("<li>{}", escape(item))).collect();
            self.push(&format!("<ul>{items}</ul>"));
        }
    }

    fn gates(&mut self, result: &RunResult) {
        if result.gates.is_empty() {
            return;
        }
        self.push("<h2>Gates</h2>");
        self.table("gates", &["Gate", "", "Measured"], |rows| {
            for gate in &result.gates {
                let (class, word) = match gate.passed {
                    Some(true) => ("good", "pass"),
                    Some(false) => ("bad", "missed"),
                    None => ("", "not evaluated"),
                };
                let (gate, measured) = (escape(&gate.gate), escape(&gate.measured));
                let _ = write!(rows, "<tr><th scope=row><code>{gate}</code><td class=\"text {class}\">{word}");
                let _ = write!(rows, "<td class=text>{measured}");
            }
        });
    }

    fn times(&mut self, totals: &Totals) -> Result<(), HistogramError> {
        let plain = |distribution: &Distribution| Censored::of_distribution(distribution, 0, None);
        let rows_of = [
            ("Response time", "from when a request was due", Censored::response(totals)?),
            ("Service time", "from when it was sent", Censored::service(totals)?),
            ("First byte", "from when it was due", plain(&totals.first_byte)?),
            ("Failed", "from when it was due, not in the others", plain(&totals.failed)?),
            ("Connecting", "part of the service time", plain(&totals.connect)?),
            ("Lateness", "of the generator", plain(&totals.lateness)?),
        ];
        if totals.counts.sent == 0 {
            return Ok(());
        }
        self.push("<h2>Times</h2>");
        let names = STATISTICS.map(|statistic| statistic.to_string());
        let mut head = vec!["", "Count"];
        head.extend(names.iter().map(String::as_str));
        self.table("times", &head, |rows| {
            for (name, meaning, values) in rows_of.iter().filter(|(_, _, values)| !values.is_empty()) {
                let _ = write!(rows, "<tr><th scope=row>{name} <small>{meaning}</small>");
                let _ = write!(rows, "<td>{}", format::count(values.len()));
                for statistic in STATISTICS {
                    let _ = write!(rows, "<td>{}", reading(values.read(statistic)));
                }
            }
        });
        if let Some(text) = expected_refusals(totals) {
            self.push(&format!("<p class=note>{text}."));
        }
        let counts = &totals.counts;
        if counts.censored() > 0 {
            self.push(&format!(
                "<p class=note>&ge; is a lower bound: {} timed out and {} unfinished took at least that long.",
                format::count(counts.timeout),
                format::count(counts.unfinished)
            ));
        }
        Ok(())
    }

    fn charts(&mut self, result: &RunResult, bins: &[Bin]) -> Result<(), HistogramError> {
        if bins.is_empty() {
            return Ok(());
        }
        let figures = [
            heat::map(result, bins),
            charts::spectrum(&result.totals)?,
            charts::rates(result, bins),
            charts::in_flight(result, bins),
            charts::failures(result, bins),
            charts::lateness(result, bins),
        ];
        figures.iter().for_each(|figure| self.push(figure));
        Ok(())
    }

    fn counts(&mut self, result: &RunResult) {
        let totals = &result.totals;
        let counts = &totals.counts;
        let whole = counts.scheduled;
        self.push("<h2>Requests</h2><div class=columns>");
        self.table("", &["scheduled = sent + shed + unsent", "", ""], |rows| {
            row(rows, "scheduled", counts.scheduled, whole, "");
            row(rows, "sent", counts.sent, whole, "");
            row(rows, "shed", counts.shed, whole, "due, but the cap or the deadline was reached");
            row(rows, "unsent", counts.unsent, whole, "due, but the run was over");
        });
        self.table("", &["sent = ok + errors + timeout + unfinished", "", ""], |rows| {
            row(rows, "ok", counts.ok, counts.sent, "answered as expected");
            row(rows, "http error", counts.http_error, counts.sent, "answered with something else");
            row(rows, "connection error", counts.connection_error, counts.sent, "no complete answer");
            row(rows, "timeout", counts.timeout, counts.sent, "no answer in time");
            row(rows, "unfinished", counts.unfinished, counts.sent, "in flight when the run was over");
        });
        if !totals.statuses.is_empty() {
            self.table("", &["Status", "", ""], |rows| {
                totals.statuses.iter().for_each(|(status, n)| row(rows, &status.to_string(), *n, counts.sent, ""));
            });
        }
        if !totals.errors.is_empty() {
            self.table("", &["Connection error", "", ""], |rows| {
                totals.errors.iter().for_each(|(kind, n)| row(rows, kind.as_str(), *n, counts.sent, explain(*kind)));
            });
        }
        self.push("</div>");
        if result.targets.len() > 1 {
            self.targets(result);
        }
    }

    fn targets(&mut self, result: &RunResult) {
        /// More of them would be the longest part of the page; all are in the JSON.
        const SHOWN: usize = 50;
        self.push("<h2>Targets</h2>");
        self.table("", &["Target", "Sent", "Ok", "p50", "p99", "Max"], |rows| {
            for target in result.targets.iter().take(SHOWN) {
                let counts = &target.counts;
                let cells = [format::count(counts.sent), format::percent(counts.ok, counts.sent)];
                let _ = write!(rows, "<tr><th scope=row>{}", escape(&target.name));
                cells
                    .iter()
                    .chain(&of_target(&target.response))
                    .for_each(|cell| rows.push_str(&format!("<td>{}", escape(cell))));
            }
        });
        if result.targets.len() > SHOWN {
            self.push(&format!("<p class=note>The first {SHOWN} of {}; all are in the JSON.", result.targets.len()));
        }
    }

    /// In what answers differ from the recorded ones.
    fn answers(&mut self, answers: &Answers) {
        let n = format::count;
        self.push(&format!(
            "<h2>Compared with the recorded answers</h2><p class=lead>{} compared, {} with their bodies: {} equal, {} different.",
            n(answers.compared),
            n(answers.bodies),
            n(answers.equal),
            n(answers.different)
        ));
        self.table("facts", &["Path", "Kind", "Answers", "For example", ""], |rows| {
            for one in &answers.differences {
                let _ = write!(rows, "<tr><th scope=row><code>{}</code>", escape(&one.path));
                let _ = write!(rows, "<td class=text>{}<td class=text>{}", one.kind, n(one.answers));
                let _ = write!(rows, "<td class=text>{}<td class=text>{}", escape(&one.request), escape(&one.change()));
            }
        });
        let paths = [("Ignored", &answers.ignored), ("Noise, found by asking twice", &answers.learned)];
        for (name, paths) in paths.into_iter().filter(|(_, paths)| !paths.is_empty()) {
            self.push(&format!("<p class=note>{name}: {}.", escape(&paths.join(", "))));
        }
    }

    /// The numbers behind the charts.
    fn seconds(&mut self, bins: &[Bin]) {
        let Some(first) = bins.first() else { return };
        let every =
            if first.seconds == 1 { "Every second".to_owned() } else { format!("Every {} seconds", first.seconds) };
        self.push(&format!("<details><summary>{every}, as a table</summary>"));
        let head = [
            "From",
            "Due",
            "Sent",
            "Shed",
            "Unsent",
            "Ok",
            "HTTP error",
            "Conn. error",
            "Timeout",
            "Unfinished",
            "In flight",
            "p50",
            "p99",
            "Max",
            "Late p99",
        ];
        self.table("seconds", &head, |rows| {
            for bin in bins {
                let counts = &bin.counts;
                let _ = write!(rows, "<tr{}><td>{} s", if bin.warm_up { " class=warm" } else { "" }, bin.from);
                let numbers = [
                    counts.scheduled,
                    counts.sent,
                    counts.shed,
                    counts.unsent,
                    counts.ok,
                    counts.http_error,
                    counts.connection_error,
                    counts.timeout,
                    counts.unfinished,
                ];
                numbers.iter().for_each(|n| rows.push_str(&format!("<td>{}", format::count(*n))));
                let _ = write!(rows, "<td>{}", format::three_digits(bin.in_flight()));
                for statistic in [Statistic::Quantile(0.5), Statistic::Quantile(0.99), Statistic::Max] {
                    let _ = match bin.response.is_empty() {
                        true => write!(rows, "<td>-"),
                        false => write!(rows, "<td>{}", reading(bin.response.read(statistic))),
                    };
                }
                let late = bin.lateness.read(Statistic::Quantile(0.99)).ns;
                let _ = write!(rows, "<td>{}", format::time(late));
            }
        });
        self.push("</details>");
    }

    fn surroundings(&mut self, result: &RunResult) {
        let (plan, environment, generator) = (&result.plan, &result.environment, &result.generator);
        let little = &result.little;
        let stalls: Vec<String> = generator
            .stalls
            .iter()
            .take(10)
            .map(|stall| format!("{} at {} s", format::time(stall.length_s * 1e9), format::three_digits(stall.at_s)))
            .collect();
        let number = format::three_digits;
        let rows_of: [(&str, String); 16] = [
            ("Started", started(result.started_unix)),
            ("Ran", format!("{} of {}", format::length(plan.ran_s), format::length(plan.duration_s))),
            ("Seed", plan.seed.to_string()),
            ("Most in flight", format::count(plan.in_flight_cap)),
            ("Timeout", format!("{} from the sending", format::length(plan.timeout_s))),
            (
                "Deadline",
                plan.deadline_s.map_or("none".to_owned(), |s| format!("{} from when it was due", format::length(s))),
            ),
            ("Worker threads", plan.workers.to_string()),
            (
                "CPU of the generator",
                format!("{} s user, {} s system", number(generator.user_cpu_s), number(generator.system_cpu_s)),
            ),
            (
                "Busiest worker",
                format!(
                    "{:.1} %{}",
                    generator.busiest_worker * 100.0,
                    if generator.precise { ", spinning" } else { "" }
                ),
            ),
            ("Generator stood still", if stalls.is_empty() { "never".to_owned() } else { stalls.join(", ") }),
            (
                "Little\u{2019}s law",
                format!(
                    "N = {} in flight; X R = {} requests/s × {}; they differ by {}, {} is allowed",
                    number(little.in_flight_mean),
                    number(little.throughput_per_s),
                    format::time(little.service_mean_s * 1e9),
                    number(little.difference),
                    number(little.bound)
                ),
            ),
            ("Host", environment.host.clone()),
            ("Kernel", environment.kernel.clone()),
            ("CPU", format!("{} × {}", environment.cpus, environment.cpu)),
            ("Load average before", number(environment.load_average)),
            ("Forebay", result.version.clone()),
        ];
        self.push("<h2>Where and how</h2>");
        self.table("facts", &[], |rows| {
            for (name, value) in &rows_of {
                let _ = write!(rows, "<tr><th scope=row>{name}<td class=text>{}", escape(value));
            }
        });
        self.push(&format!("<h2>The same again</h2><pre><code>{}</code></pre>", escape(&repeat_line(result))));
    }

    fn table(&mut self, class: &str, head: &[&str], rows: impl FnOnce(&mut String)) {
        self.push(&format!("<div class=scroll><table class=\"{class}\">"));
        if !head.is_empty() {
            let cells: String = head.iter().map(|name| format!("<th scope=col>{}", escape(name))).collect();
            self.push(&format!("<thead><tr>{cells}"));
        }
        self.push("<tbody>");
        rows(&mut self.0);
        self.push("</table></div>");
    }
}

/// A row of a table of counts.
fn row(rows: &mut String, name: &str, count: u64, whole: u64, meaning: &str) {
    let (n, share) = (format::count(count), escape(&format::percent(count, whole)));
    let _ = write!(rows, "<tr><th scope=row>{name} <small>{}</small><td>{n}<td>{share}", escape(meaning));
}

fn reading(reading: Reading) -> String {
    format!("{}{}", if reading.at_least { "&ge;" } else { "" }, format::time(reading.ns))
}

/// The wall clock in UTC.
fn started(unix: f64) -> String {
    let instant = std::time::Duration::try_from_secs_f64(unix.max(0.0)).unwrap_or_default();
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + instant.min(std::time::Duration::from_secs(253_402_300_799)))
}

/// A chart with its heading, its explanation and a legend of `(class, name)`.
fn figure(title: &str, text: &str, legend: &[(&str, &str)], svg: &str) -> String {
    let keys: String =
        legend.iter().map(|(class, name)| format!("<li><i class={class}></i>{}", escape(name))).collect();
    format!(
        "<figure><figcaption><h2>{}</h2><p>{}</p><ul class=legend>{keys}</ul></figcaption><div class=scroll>{svg}</div></figure>",
        escape(title),
        escape(text)
    )
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
