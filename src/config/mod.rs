//! The configuration: text -> elements (as written, with places) -> `model` (as used). Knows nothing of tokio,
//! pingora or prometheus.
//!
//! [`load`] reads the file, [`parse`] is its pure part. On the way: [`tree`] (TOML and `${ENV}`), [`decode`] with the
//! tables in [`elements`] (every key is described there once), [`check`] (tables against each other), [`model`].

pub mod aggregate;
pub mod check;
pub mod decode;
pub mod describe;
pub mod diagnostic;
pub mod elements;
mod elsewhere;
pub mod explain;
pub mod files;
pub mod model;
pub mod reference;
pub mod schema;
pub mod secrets;
pub mod settings;
pub mod source;
pub mod substitute;
pub mod suggest;
pub mod syntax;
pub mod tree;
pub mod value;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use decode::{Decoder, Element};
use diagnostic::Problem;
pub use diagnostic::{Code, Diagnostic, Report, Severity};
use elements::Root;
use elements::limits::{resolve_in_flight, resolve_rate_limits};
pub use explain::{ExplainRequest, explain};
pub use model::Config;
pub use schema::schema;
pub use settings::{Origin, Settings};
use source::Source;
use substitute::Variables;
pub use value::network::address_option;

use value::network::AddressOrOff;

use crate::latency::written::ReadFile;

/// A larger file is no configuration.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Mistakes that are reported at once.
const MAX_REPORTED: usize = 500;

/// A configuration that can be used, and what is worth knowing about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Every effective setting with where it came from.
    pub settings: Settings,
    pub warnings: Vec<Diagnostic>,
    /// Files whose change is a change of the configuration: itself, certificates, secrets.
    pub watched_files: Vec<PathBuf>,
}

/// What reading a configuration depends on.
pub struct Inputs<'a> {
    /// The environment.
    pub variable: &'a Variables<'a>,
    /// Reads a file that the configuration names; `None` to touch none.
    pub read: Option<ReadFile<'a>>,
    /// The folder that relative file names start from.
    pub base: &'a Path,
}

/// Reads a configuration from a file, with its secrets, and checks that the files it names can be used.
pub fn load(path: &Path, variable: &Variables<'_>) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    let text = files::read_configuration(path, MAX_FILE_BYTES).map_err(|diagnostic| Report::new(vec![*diagnostic]))?;
    let base = path.parent().unwrap_or(Path::new(""));
    let inputs = Inputs { variable, read: Some(&|path| std::fs::read_to_string(path)), base };
    let mut loaded = parse_with(&name, &text, &inputs, true)?;
    loaded.watched_files.insert(0, path.to_owned());
    Ok(loaded)
}

/// Where the admin listener is, also from a file that is refused for something else: the process that runs on with an
/// older content of it can be asked all the same. `None` when that cannot be told.
pub fn admin_address(path: &Path, variable: &Variables<'_>) -> Option<AddressOrOff> {
    let text = files::read_configuration(path, MAX_FILE_BYTES).ok()?;
    let (tree, problems) = tree::parse(&text, variable);
    let damaged = !syntax::Damage::of(&text, &problems).is_empty();
    let inputs = Inputs { variable, read: None, base: Path::new("") };
    let mut cx = Decoder::new(Source::new("", &text), &inputs, problems);
    let root = Root::decode(&mut cx, &tree);
    let address = &root.admin.get()?.address;
    // What could not be read may have been the address: then the default says nothing.
    if damaged && !address.is_written() && text.contains("admin") { None } else { address.copied() }
}

/// Reads a configuration from text. Touches no file: for a secret from a file stands the word `unread`.
pub fn parse(file_name: &str, text: &str, variable: &Variables<'_>) -> Result<Loaded, Report> {
    let inputs = Inputs { variable, read: None, base: Path::new("") };
    parse_with(file_name, text, &inputs, false)
}

/// Every effective setting as nested tables, each with its value and its origin (`line 12`, `default`); secrets are
/// `***`. For the admin listener.
pub fn effective(loaded: &Loaded) -> serde_json::Value {
    loaded.settings.to_json()
}

/// The configuration without any file: every default.
pub fn defaults() -> Loaded {
    parse("defaults", "", &|_| None).expect("the defaults are a valid configuration, as a test shows")
}

fn parse_with(name: &str, text: &str, inputs: &Inputs<'_>, with_files: bool) -> Result<Loaded, Report> {
    let (tree, problems) = tree::parse(text, inputs.variable);
    let syntax = syntax::Damage::of(text, &problems);
    let source = Source::new(name, text);
    if let Some(problem) = elsewhere::simulation(&tree, &source) {
        return Err(Report::new(vec![Diagnostic::new(&source, problem)]));
    }
    let mut cx = Decoder::new(source, inputs, problems);
    let root = Root::decode(&mut cx, &tree);
    if !syntax.is_empty() {
        // What could not be read must not be reported as missing or wrong.
        let source = &cx.source;
        cx.problems.retain(|problem| problem.code == Code::Syntax || syntax.leaves(problem, source));
        return Err(report(cx));
    }
    check::check(&mut cx, &root);
    let config = resolve(&mut cx, &root);
    if with_files {
        files::check(&mut cx, &root);
    }
    let failed = cx.problems.iter().any(|problem| problem.severity == Severity::Error);
    if failed {
        // What could not be read may be what uses it.
        cx.problems.retain(|problem| problem.code != Code::Unused);
    }
    match config {
        Some(mut config) if !failed => {
            config.hash = cx.settings.hash();
            Ok(loaded(cx, config))
        }
        _ => Err(report(cx)),
    }
}

fn report(mut cx: Decoder<'_>) -> Report {
    hide_secrets(&mut cx);
    let mut problems = cx.problems;
    if problems.is_empty() {
        // Every wrong value is reported where it is found, so this is not reached; silence would be worse.
        problems.push(Problem::error(Code::InvalidValue, None, "the configuration could not be understood"));
    }
    // Nobody reads more at once, and a hostile file must not cost the square of its size.
    problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
    problems.truncate(MAX_REPORTED);
    Report::new(problems.into_iter().map(|problem| Diagnostic::new(&cx.source, problem)).collect())
}

/// Before any line is quoted.
fn hide_secrets(cx: &mut Decoder<'_>) {
    if cx.problems.is_empty() {
        return;
    }
    let syntax = cx.problems.iter().filter(|problem| problem.code == Code::Syntax);
    let doubtful: HashSet<usize> =
        syntax.filter_map(|problem| problem.span.as_ref().map(|span| cx.source.line_of(span))).collect();
    cx.source.hide_all(secrets::spans(cx.source.text(), &|line| doubtful.contains(&line)));
}

fn loaded(mut cx: Decoder<'_>, config: Config) -> Loaded {
    hide_secrets(&mut cx);
    let mut warnings: Vec<Diagnostic> =
        cx.problems.into_iter().map(|problem| Diagnostic::new(&cx.source, problem)).collect();
    diagnostic::sort(&mut warnings);
    let mut watched_files = cx.files;
    watched_files.extend(files::named_in(&config));
    Loaded { config, settings: cx.settings, warnings, watched_files }
}

/// From what is written to what is used. `None` when a value is wrong; that has been reported.
fn resolve(cx: &mut Decoder<'_>, root: &Root) -> Option<Config> {
    let limits = root.limits.get()?;
    let listeners = root.listener.get()?.items.iter().map(|item| item.value.resolve(&item.name).map(Arc::new));
    let listeners = listeners.collect::<Option<Vec<_>>>()?;
    let upstreams = root.upstream.get()?.items.iter().map(|item| item.value.resolve(&item.name).map(Arc::new));
    let upstreams = upstreams.collect::<Option<Vec<_>>>()?;
    let mut routes = Vec::new();
    for item in &root.route.get()?.items {
        let results = root.results_path(&item.name);
        routes.push(item.value.resolve(cx, &item.name, &upstreams, results).map(Arc::new));
    }
    let rate_limits = resolve_rate_limits(cx, "limits", "global", &limits.rate_limit)?;
    Some(Config {
        runtime: root.runtime.get()?.resolve()?,
        listeners,
        admin: root.admin.get()?.resolve()?,
        shutdown: root.shutdown.get()?.resolve()?,
        reload: root.reload.get()?.resolve()?,
        access_log: root.access_log.get()?.resolve()?,
        log: root.log.get()?.resolve()?,
        metrics: root.metrics.get()?.resolve()?,
        rate_limits: rate_limits.into_iter().map(Arc::new).collect(),
        in_flight: resolve_in_flight(&limits.max_in_flight, &limits.queue)?,
        faults: root.faults.get()?.resolve()?,
        record: root.record.get()?.resolve()?.map(Arc::new),
        upstreams,
        routes: routes.into_iter().collect::<Option<_>>()?,
        hash: String::new(),
    })
}

#[cfg(test)]
mod tests;
