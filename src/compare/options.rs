//! The flags of `forebay compare`.

use std::path::PathBuf;

use clap::Args;

use super::Settings;
use super::interleave::Interleaving;
use super::metric::Metric;

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Results of `load --report-json`: before and after, or several before, `--`, several after.
    #[arg(value_name = "BEFORE", required = true)]
    before: Vec<PathBuf>,
    /// The results after; with --ab, options of `load`.
    #[arg(value_name = "AFTER", last = true)]
    after: Vec<PathBuf>,
    /// Load two targets in turn and compare them: URLs, or configuration files whose routes `--route` names.
    ///
    /// Whatever changes slowly, such as other work on the machine, then hits both sides alike. Both targets must be
    /// running. Options for `load` follow after `--`.
    #[arg(long)]
    pub(super) ab: bool,
    /// Runs on each side.
    #[arg(long, value_name = "COUNT", default_value_t = 4, requires = "ab", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// Keep the results of --ab in this folder.
    #[arg(long, value_name = "FOLDER", requires = "ab")]
    pub(super) keep: Option<PathBuf>,
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

    /// What to load in turn.
    ///
    /// # Errors
    ///
    /// When there are not two targets.
    pub fn interleaving(&self) -> Result<Interleaving, String> {
        let [before, after] = self.before.as_slice() else {
            return Err("--ab takes two targets: `forebay compare --ab URL URL -- -r 200/s -d 30s`".into());
        };
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        Ok(Interleaving {
            targets: [text(before), text(after)],
            repeats: self.repeats,
            seed: self.seed,
            load: self.after.iter().map(text).collect(),
        })
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
    fn two_targets_in_turn_take_options_of_load() {
        let plan = options("--ab --repeats 2 http://a/ http://b/ -- -r 5/s --quiet").and_then(|options| {
            let error = |error: String| clap::Error::raw(clap::error::ErrorKind::ValueValidation, error);
            options.interleaving().map_err(error)
        });

        let plan = plan.expect("parses");
        assert_eq!(plan.targets, ["http://a/", "http://b/"]);
        assert_eq!((plan.repeats, plan.load), (2, ["-r", "5/s", "--quiet"].map(String::from).to_vec()));
        assert!(options("--ab http://a/").expect("parses").interleaving().is_err());
        assert!(options("--repeats 2 a b").is_err());
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
