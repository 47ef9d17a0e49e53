//! The flags of `forebay compare`.

use std::path::PathBuf;

use clap::Args;

use super::Settings;
use super::metric::Metric;

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Results of `load --report-json`: before and after, or several before, `--`, several after.
    #[arg(value_name = "BEFORE", required = true)]
    before: Vec<PathBuf>,
    /// The results after.
    #[arg(value_name = "AFTER", last = true)]
    after: Vec<PathBuf>,
    /// Compare only these, for example `p99,errors`: fewer metrics are decided sooner. Choose before looking.
    #[arg(long, value_name = "METRICS", value_delimiter = ',')]
    metrics: Option<Vec<Metric>>,
    /// Changes of times and rates below this do not matter.
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = percent)]
    threshold: f64,
    /// Changes of error shares below this do not matter, in percentage points.
    #[arg(long, value_name = "PERCENT", default_value = "0.1%", value_parser = percent)]
    error_threshold: f64,
    /// With which all intervals hold together.
    #[arg(long, value_name = "PERCENT", default_value = "95%", value_parser = confidence)]
    confidence: f64,
    /// Seconds that are kept together when resampling; without it 5, or more where seconds depend on each other.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    block: Option<u32>,
    /// How often to resample.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(200..=100_000))]
    resamples: u32,
    /// Of the resampling. The same seed gives the same result.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End with code 3 if anything got worse.
    #[arg(long)]
    pub(super) fail_on_worse: bool,
    /// End with code 3 if anything is undecided.
    #[arg(long)]
    pub(super) fail_on_undecided: bool,
    /// Do not end with code 4 because a run is void.
    #[arg(long)]
    pub(super) allow_void: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    /// Also write the comparison as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) report_json: Option<PathBuf>,
    /// Also write one self-contained HTML page.
    #[arg(long, value_name = "FILE")]
    pub(super) report_html: Option<PathBuf>,
}

impl Options {
    /// The files of both sides.
    ///
    /// # Errors
    ///
    /// When it is not clear which file is on which side.
    pub fn sides(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), String> {
        match (self.before.as_slice(), self.after.as_slice()) {
            ([before, after], []) => Ok((vec![before.clone()], vec![after.clone()])),
            ([_], []) => Err("one run has nothing to be compared with: give another result".into()),
            (_, []) => Err("which of these were before? write `--` between the runs before and after".into()),
            (before, after) => Ok((before.to_vec(), after.to_vec())),
        }
    }

    pub fn settings(&self) -> Settings {
        Settings {
            metrics: self.metrics.clone(),
            threshold: self.threshold,
            share_threshold: self.error_threshold,
            confidence: self.confidence,
            resamples: self.resamples as usize,
            seed: self.seed,
            block_s: self.block.map(|seconds| seconds as usize),
        }
    }
}

/// `2%` or `0.1 %`, as a fraction.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').ok_or("expected a percentage such as `2%`")?;
    let value: f64 = number.trim().parse().map_err(|_| "expected a number before `%`")?;
    if (0.0..=100.0).contains(&value) { Ok(value / 100.0) } else { Err("expected 0% to 100%".into()) }
}

fn confidence(text: &str) -> Result<f64, String> {
    let value = percent(text)?;
    // A thousand resamples have nothing to say about rarer events.
    if (0.5..=0.99).contains(&value) { Ok(value) } else { Err("expected 50% to 99%".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Result<Options, clap::Error> {
        Line::try_parse_from(std::iter::once("compare").chain(line.split_whitespace())).map(|line| line.options)
    }

    fn sides(line: &str) -> Result<(usize, usize), String> {
        let options = options(line).map_err(|error| error.to_string())?;
        options.sides().map(|(before, after)| (before.len(), after.len()))
    }

    #[test]
    fn two_files_need_no_separator_and_more_do() {
        assert_eq!(sides("a b"), Ok((1, 1)));
        assert_eq!(sides("a b -- c d e"), Ok((2, 3)));
        assert_eq!(sides("a -- b"), Ok((1, 1)));
        assert!(sides("a b c").expect_err("unclear").contains("`--`"));
        assert!(sides("a").is_err());
        assert!(sides("").is_err());
    }

    #[test]
    fn without_flags_the_settings_are_the_default() {
        assert_eq!(options("a b").expect("parses").settings(), Settings::default());
    }

    #[test]
    fn numbers_without_meaning_are_refused() {
        for wrong in
            ["--threshold 2", "--threshold -1%", "--confidence 100%", "--block 0", "--resamples 10", "--metrics p98"]
        {
            assert!(options(&format!("a b {wrong}")).is_err(), "{wrong}");
        }
        let settings = options("a b --metrics p99,errors --threshold 5% --block 7").expect("parses").settings();
        assert_eq!(settings.metrics.map(|metrics| metrics.len()), Some(2));
        assert_eq!((settings.threshold, settings.block_s), (0.05, Some(7)));
    }
}
