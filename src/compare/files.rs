//! Reading results and writing reports: the only part of a comparison that touches files.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::exit_code::Exit;
use crate::load::report::folder_hint;
use crate::load::result::{RunResult, SCHEMA};
use crate::output;

use super::comparable::Kind;
use super::model::Comparison;
use super::options::Options;
use super::verdict::Verdict;
use super::{Input, compare, html, interleave, text};

/// Reads the results, or makes them, compares, and writes the reports that were asked for. Returns what is for stdout.
///
/// # Errors
///
/// What to tell the user, and the code to end with.
pub async fn run(options: &Options, colour: bool) -> Result<(String, Exit), (Exit, String)> {
    if !options.ab {
        let (before, after) = options.sides().map_err(|error| (Exit::Usage, error))?;
        return compare_files(options, &before, &after, colour);
    }
    let plan = options.interleaving().map_err(|error| (Exit::Usage, error))?;
    let folder = Folder::new(options.keep.as_deref()).map_err(|error| (Exit::Failed, error))?;
    let (before, after) = interleave::measure(&plan, &folder.path).await?;
    compare_files(options, &before, &after, colour)
}

/// Where the results of `--ab` are: removed afterwards, unless they are to be kept.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn new(keep: Option<&Path>) -> Result<Self, String> {
        let temporary = || std::env::temp_dir().join(format!("forebay-ab-{}", std::process::id()));
        let path = keep.map_or_else(temporary, Path::to_owned);
        std::fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self { path, temporary: keep.is_none() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed from there is removed by the system some day.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn compare_files(
    options: &Options,
    before: &[PathBuf],
    after: &[PathBuf],
    colour: bool,
) -> Result<(String, Exit), (Exit, String)> {
    let failed = |error: String| (Exit::Failed, error);
    // Those of `--ab` were just written; others were named on the command line, and nothing is done yet.
    let unread = |error: String| (if options.ab { Exit::Failed } else { Exit::Usage }, error);
    let (before, after) = (read_all(before).map_err(unread)?, read_all(after).map_err(unread)?);
    let mut comparison = compare(&before, &after, &options.settings()).map_err(|error| failed(error.to_string()))?;
    if options.ab {
        // That is what was asked for.
        comparison.warnings.retain(|warning| warning.kind != Kind::Targets);
    }
    if let Some(path) = &options.report_json {
        write(path, &json(&comparison)).map_err(failed)?;
    }
    if let Some(path) = &options.report_html {
        write(path, &html::render(&comparison)).map_err(failed)?;
    }
    let shown = if options.json { json(&comparison) } else { text::render(&comparison, colour) };
    Ok((shown, exit(&comparison, options)))
}

/// Void runs go first: with them, no verdict means anything.
fn exit(comparison: &Comparison, options: &Options) -> Exit {
    let void = comparison.warnings.iter().any(|warning| warning.kind == Kind::Void);
    if void && !options.allow_void {
        return Exit::Void;
    }
    let any = |verdict| comparison.metrics.iter().any(|row| row.verdict == verdict);
    let worse = options.fail_on_worse && any(Verdict::Worse);
    let undecided = options.fail_on_undecided && any(Verdict::Undecided);
    if worse || undecided { Exit::GateMissed } else { Exit::Done }
}

/// One line for each metric: a report is read by people, too.
fn json(comparison: &Comparison) -> String {
    let text = serde_json::to_string_pretty(comparison).expect("plain data has a JSON form");
    format!("{text}\n")
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    output::write_file(path, text.as_bytes())
        .map_err(|error| format!("cannot write {}: {error}{}", path.display(), folder_hint(path)))
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Input>, String> {
    paths.iter().map(|path| read(path)).collect()
}

/// Only the name of the format, to say what is wrong with a file of another one.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    schema: Option<String>,
}

fn read(path: &Path) -> Result<Input, String> {
    let name = path.display().to_string();
    let result: RunResult = parse(path).map_err(|error| explain(path, &error))?;
    if result.schema != SCHEMA {
        return Err(format!("{name} is of the format {}, this program reads {SCHEMA}", result.schema));
    }
    Ok(Input { name, result })
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path) -> io::Result<T> {
    let file = File::open(path)?;
    serde_json::from_reader(BufReader::new(file)).map_err(io::Error::from)
}

fn explain(path: &Path, error: &io::Error) -> String {
    let name = path.display();
    match parse::<Named>(path) {
        Ok(Named { schema: Some(schema) }) if schema != SCHEMA => {
            format!("{name} is of the format {schema}, this program reads {SCHEMA}")
        }
        // Of this format, but damaged.
        Ok(Named { schema: Some(_) }) => format!("cannot read {name}: {error}"),
        _ if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            format!("{name} is no report of a load test: write one with `forebay load --report-json {name}`")
        }
        _ => format!("cannot read {name}: {error}"),
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
