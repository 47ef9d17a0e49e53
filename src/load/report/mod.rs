//! What is shown and written of a run when it is over. All of it is read from the [`RunResult`], which is also what is
//! written as JSON: any report can be made again from that file.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use super::ErrorKind;
use super::result::{Distribution, Outcome, RunResult, Totals, Verdict};
use super::waterfall::record::Cohort;
use super::waterfall::segments;

#[cfg(test)]
pub(crate) mod fixture;
pub mod format;
pub mod hgrm;
pub mod html;
pub mod json;
pub mod ndjson;
pub mod schema;
pub mod svg;
pub mod text;

pub use super::result::HistogramError;

/// What text can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub colour: bool,
    pub width: usize,
}

impl Look {
    /// For a file, a pipe or a test.
    pub const PLAIN: Look = Look { colour: false, width: 100 };

    /// For this output: colours only on a terminal, and as [`allows_colour`] says.
    pub fn of(output: impl AsFd) -> Self {
        let output = output.as_fd();
        if !rustix::termios::isatty(output) {
            return Self::PLAIN;
        }
        let width = rustix::termios::tcgetwinsize(output).map_or(0, |size| usize::from(size.ws_col));
        Self { colour: allows_colour(), width: if width == 0 { 80 } else { width } }
    }

    pub fn bold<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        self.paint("1", text.into())
    }

    pub fn dim<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        self.paint("2", text.into())
    }

    pub fn good<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        self.paint("32", text.into())
    }

    pub fn bad<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        self.paint("1;31", text.into())
    }

    fn paint<'a>(&self, code: &str, text: Cow<'a, str>) -> Cow<'a, str> {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m").into() } else { text }
    }
}

/// One line on what was run.
fn what_ran(result: &RunResult) -> String {
    let plan = &result.plan;
    let mut line = format!("{}, {} for {}", plan.model, plan.arrivals, format::length(plan.duration_s));
    if plan.warm_up_s > 0 {
        line.push_str(&format!(" (the first {} for warm-up, not counted)", format::length(plan.warm_up_s.into())));
    }
    line.push_str(&format!(", seed {}", plan.seed));
    line
}

/// The names of the targets, the first few of them.
fn targets(result: &RunResult) -> String {
    const SHOWN: usize = 3;
    let names: Vec<&str> = result.targets.iter().map(|target| target.name.as_str()).collect();
    match names.len() {
        0 => "no target was reached".to_owned(),
        few if few <= SHOWN => names.join(", "),
        many => format!("{} and {} more", names[..SHOWN].join(", "), many - SHOWN),
    }
}

/// For how long the measured part of the run went on.
fn measured_seconds(result: &RunResult) -> f64 {
    (result.plan.ran_s - f64::from(result.plan.warm_up_s)).max(0.0)
}

/// A part of a time as `71 %`; what is not nothing never reads as 0 %.
fn share(part: f64, whole: f64) -> String {
    let percent = 100.0 * part / whole.max(1.0);
    match percent {
        _ if part <= 0.0 => "0 %".to_owned(),
        tiny if tiny < 0.05 => "<0.1 %".to_owned(),
        small if small < 9.95 => format!("{small:.1} %"),
        large => format!("{large:.0} %"),
    }
}

/// The pieces of the way that took any time in one of these.
fn telling(cohorts: &[&Cohort]) -> Vec<usize> {
    (0..segments::COUNT).filter(|index| cohorts.iter().any(|cohort| cohort.segments.parts()[*index] > 0.0)).collect()
}

/// The median, p99 and maximum of a target, where there are any.
fn of_target(response: &Distribution) -> [String; 3] {
    let times = [response.p50_ns, response.p99_ns, response.max_ns];
    times.map(|time| if response.count == 0 { "-".to_owned() } else { format::nanos(time) })
}

/// Why there are more failed times than failures.
fn expected_refusals(totals: &Totals) -> Option<String> {
    let refusals = totals.failed.count.saturating_sub(totals.counts.http_error + totals.counts.connection_error);
    let why = "and says nothing of how long the work takes";
    match refusals {
        0 => None,
        1 => Some(format!("1 of the failed is ok: a 429 or 503 that was expected, {why}")),
        many => {
            Some(format!("{} of the failed are ok: each a 429 or 503 that was expected, {why}", format::count(many)))
        }
    }
}

/// For a message about a file that cannot be written: what to do about it, if that is known.
pub fn folder_hint(file: &Path) -> &'static str {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_none_or(Path::is_dir) { "" } else { "; make the folder first" }
}

/// Whether the terminal understands no codes, as those within editors.
pub fn is_dumb_terminal() -> bool {
    is_dumb(std::env::var_os("TERM").as_deref())
}

/// Whether the user allows colours on a terminal (<https://no-color.org>), and it has them.
pub fn allows_colour() -> bool {
    has_colour(std::env::var_os("NO_COLOR").as_deref(), std::env::var_os("TERM").as_deref())
}

fn is_dumb(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| term == "dumb")
}

fn has_colour(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && !is_dumb(term)
}

/// The verdict in words: a heading and the reasons.
fn verdict(result: &RunResult) -> (&'static str, Vec<String>) {
    let mut reasons: Vec<String> = result.verdict.reasons.iter().map(|reason| reason.text.clone()).collect();
    let heading = match result.verdict.outcome {
        Outcome::Complete => "complete",
        Outcome::Interrupted => {
            let (ran, planned) = (format::length(result.plan.ran_s), format::length(result.plan.duration_s));
            reasons.insert(0, format!("ended after {ran} of {planned}; gates are not evaluated"));
            "INTERRUPTED"
        }
        Outcome::Void => "VOID",
    };
    (heading, reasons)
}

/// What a void run hides behind its exit code.
fn hidden_misses(result: &RunResult) -> Option<String> {
    let Verdict { outcome, gates_missed: missed, .. } = &result.verdict;
    let hidden = *outcome == Outcome::Void && !missed.is_empty();
    hidden.then(|| format!("{}: the exit code is 4 all the same, not 3", missed.join(", ")))
}

/// The command that does the same again: what was typed, with the seed if that was drawn.
fn repeat_line(result: &RunResult) -> String {
    let mut line: Vec<Cow<'_, str>> = result.command_line.iter().map(|word| shell_word(word)).collect();
    let has_seed = result.command_line.iter().any(|word| word == "--seed" || word.starts_with("--seed="));
    if !has_seed {
        line.push(format!("--seed {}", result.plan.seed).into());
    }
    line.join(" ")
}

/// Quoted, if a shell would read something else.
fn shell_word(word: &str) -> Cow<'_, str> {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:=,@%+".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''")).into()
}

/// What an error means, for whoever has not seen it before.
fn explain(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Dns => "the name of the target was not found",
        ErrorKind::Refused => "nothing accepts connections at the target, or its backlog is full",
        ErrorKind::ConnectTimeout => "no connection in time: packets are dropped, or the backlog is full",
        ErrorKind::Unreachable => "there is no way to the target",
        ErrorKind::Tls => {
            "the TLS handshake failed: look at the certificate and the name, or the target speaks plain HTTP"
        }
        ErrorKind::Reset => "the target reset the connection during the request",
        ErrorKind::Closed => "the target closed the connection before the answer was complete",
        ErrorKind::Protocol => "the target broke the protocol",
        ErrorKind::TooManyFiles => "this process has no file descriptors left: raise `ulimit -n`",
        ErrorKind::PortsExhausted => "this host has no ports left towards the target: reuse connections",
        ErrorKind::Other => "none of the known errors",
    }
}

#[cfg(test)]
pub(crate) mod golden {
    //! Reports that are kept in files, to be read by whoever reviews a change.

    /// Compares with `tests/it/load/NAME`; `FOREBAY_BLESS=1` writes it anew.
    pub fn compare(name: &str, made: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("FOREBAY_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("can be made");
            std::fs::write(&path, made).expect("can be written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == made, "{name} differs; run the tests with FOREBAY_BLESS=1 and look at the difference:\n{made}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_repeat_can_be_pasted_into_a_shell() {
        let result = fixture::result();

        let line = repeat_line(&result);

        let asked = r"forebay load http://127.0.0.1:8080/agg -r 200 --fail 'p99<250ms' -H 'x-note: it'\''s' --seed 7";
        assert_eq!(line, asked);
    }

    #[test]
    fn the_seed_is_not_given_twice() {
        let mut result = fixture::result();
        result.command_line = vec!["forebay".into(), "--seed=7".into(), String::new()];

        assert_eq!(repeat_line(&result), "forebay --seed=7 ''");
    }

    #[test]
    fn many_targets_are_not_all_named() {
        let mut result = fixture::result();
        let target = result.targets[0].clone();
        result.targets =
            (0..5).map(|n| crate::load::result::TargetRecord { name: n.to_string(), ..target.clone() }).collect();

        assert_eq!(targets(&result), "0, 1, 2 and 2 more");
    }

    #[test]
    fn colours_need_a_terminal_that_has_them_and_a_user_who_wants_them() {
        let table = [
            (None, Some("xterm"), true),
            (Some(""), None, true),
            (Some("1"), Some("xterm"), false),
            (None, Some("dumb"), false),
        ];
        for (no_color, term, expected) in table {
            assert_eq!(has_colour(no_color.map(OsStr::new), term.map(OsStr::new)), expected, "{no_color:?} {term:?}");
        }
    }

    #[test]
    fn without_colour_nothing_is_painted() {
        assert_eq!(Look::PLAIN.bad("x"), "x");
        assert_eq!(Look { colour: true, width: 80 }.bad("x"), "\x1b[1;31mx\x1b[0m");
    }
}
