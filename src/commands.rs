//! What each command does: from parsed arguments to an exit code.
//!
//! Results go to stdout, everything else to stderr. A mistake in the configuration is exit code 78 and the same
//! report wherever it is found.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use http::Uri;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, Command};
use crate::compare;
use crate::config::{self, Config, ExplainRequest, Loaded, Report};
use crate::dashboards;
use crate::demo;
use crate::exit_code::Exit;
use crate::handover::{self, Inherited, Invocation};
use crate::healthcheck;
use crate::load::options::{self, LoadOptions};
use crate::load::report::allows_colour;
use crate::load::run;
use crate::output;
use crate::reload::{ConfigVersion, Load};
use crate::replay;
use crate::replay::options::ReplayOptions;
use crate::rules;
use crate::server::{self, DataPath, Parts};
use crate::shutdown::{self, Lifecycle};
use crate::simulate::{self, Simulator};
use crate::sockets;
use crate::systemd::ServiceManager;
use crate::tasks::Tasks;
use crate::telemetry::{Telemetry, catalogue, logging, runtime};
use crate::top;

/// Builds the data path: the one thing that the binary adds to the library's parts.
pub type Connect = fn(Arc<Config>, Arc<Telemetry>, Tasks, Lifecycle) -> Result<Arc<dyn DataPath>, String>;

pub fn execute(command: Command, connect: Connect) -> Exit {
    match command {
        Command::Run(file) => serve_file(&file.config, connect),
        Command::Check { file, effective } => check(&file.config, effective),
        Command::Explain { file, headers, method, path } => explain(&file.config, method, path, headers),
        Command::Demo(options) => demo(&options, connect),
        Command::Simulate { config: Some(file), check: true } => check_simulation(&file),
        Command::Simulate { config, check: _ } => simulate(config.as_deref()),
        Command::Load(options) => load_test(*options),
        Command::Replay(options) => replay_requests(*options),
        Command::Compare(options) => compare_results(&options),
        Command::Healthcheck { config, url, timeout } => healthcheck(&config, url.as_deref(), timeout),
        Command::Top(options) => watch(&options),
        // The table is the only form so far, with and without `--markdown`: it reads well in a terminal, too.
        Command::Metrics { markdown: _ } => print(&catalogue::markdown()),
        Command::Dashboards { out } => write_files(&out, dashboards::files()),
        Command::Rules { out: None, runbooks } => print(&rules::file(&runbooks)),
        Command::Rules { out: Some(out), runbooks } => {
            write_files(&out, vec![(rules::FILE.to_owned(), rules::file(&runbooks))])
        }
        Command::Schema => print(&format!("{:#}\n", config::schema::schema())),
        Command::Completions { shell } => completions(shell),
        Command::Man { out } => manual(out.as_deref()),
        Command::Version => print(&format!("forebay {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

fn check(file: &Path, effective: bool) -> Exit {
    let loaded = match load(file) {
        Ok(loaded) => loaded,
        Err(report) => return refuse(&report),
    };
    say(&config::diagnostic::render_all(&loaded.warnings, colour()));
    if effective {
        return print(&format!("{:#}\n", config::effective(&loaded)));
    }
    let (routes, upstreams) = (loaded.config.routes.len(), loaded.config.upstreams.len());
    print(&format!("{}: no mistakes; routes: {routes}, upstreams: {upstreams}\n", file.display()))
}

/// File names with their content.
fn write_files(folder: &Path, files: Vec<(String, String)>) -> Exit {
    for (name, content) in files {
        let path = folder.join(name);
        if let Err(error) = output::write_file(&path, content.as_bytes()) {
            let hint = if folder.is_dir() { "" } else { "; make the folder first" };
            return fail(Exit::Failed, &format!("writing {}: {error}{hint}", path.display()));
        }
        say(&format!("{}\n", path.display()));
    }
    Exit::Done
}

fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "forebay", &mut script);
    print(&String::from_utf8_lossy(&script))
}

fn manual(folder: Option<&Path>) -> Exit {
    let Some(folder) = folder else {
        return print(&page(Cli::command()));
    };
    let mut command = Cli::command();
    // Gives the commands the names that their pages have.
    command.build();
    let mut pages = Vec::new();
    collect_pages(command, &mut pages);
    write_files(folder, pages)
}

/// The pages of all commands below this one, and its own.
fn collect_pages(command: clap::Command, pages: &mut Vec<(String, String)>) {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()).cloned() {
        collect_pages(below, pages);
    }
    pages.push((clap_mangen::Man::new(command.clone()).get_filename(), page(command)));
}

fn page(command: clap::Command) -> String {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).expect("a vector takes all");
    String::from_utf8_lossy(&page).into_owned()
}

fn simulate(file: Option<&Path>) -> Exit {
    let settings = match file.map(read_simulation).transpose() {
        Ok(settings) => settings.unwrap_or_else(demo::upstreams),
        Err((exit, message)) => return fail(exit, &message),
    };
    with_runtime(0, async {
        let (simulator, mut signals) = (Simulator::bind(settings)?, shutdown::signals(&Tasks::default())?);
        let handles: Vec<_> = simulator.handles().cloned().collect();
        for handle in &handles {
            output::print(&format!("http://{} ({})\n", handle.address, handle.name))?;
        }
        if let Some(address) = simulator.metrics_address() {
            output::print(&format!("http://{address}/metrics\n"))?;
        }
        simulator.run(shutdown::next_stop(&mut signals)).await?;
        Ok(print(&simulate::report::summary(&handles)))
    })
}

fn check_simulation(file: &Path) -> Exit {
    match read_simulation(file) {
        Ok(settings) => print(&format!("{}: no mistakes; upstreams: {}\n", file.display(), settings.upstreams.len())),
        Err((exit, message)) => fail(exit, &message),
    }
}

fn compare_results(options: &compare::options::Options) -> Exit {
    let colour = io::stdout().is_terminal() && allows_colour();
    with_runtime(1, async {
        Ok(match compare::files::run(options, colour).await {
            // A verdict that nobody can read is none.
            Ok((shown, exit)) => output::print(&shown).map_or_else(|error| fail(Exit::Failed, &error), |_| exit),
            Err((exit, message)) => fail(exit, &message),
        })
    })
}

fn read_simulation(file: &Path) -> Result<simulate::Settings, (Exit, String)> {
    let name = file.display();
    let settings = simulate::Settings::load(file).map_err(|error| (Exit::BadConfig, format!("{name}: {error}")))?;
    for warning in settings.warnings() {
        say(&format!("forebay: {name}: {warning}\n"));
    }
    Ok(settings)
}

fn load_test(options: LoadOptions) -> Exit {
    compare::interleave::stay_with_starter();
    let config = match options.request.config.as_deref().map(load).transpose() {
        Ok(loaded) => loaded.map(|loaded| loaded.config),
        Err(report) => return refuse(&report),
    };
    let command_line = command_line();
    // One thread for signals and the view; the requests have threads of their own.
    with_runtime(1, async move {
        let ended = run::execute(options, config.as_ref(), command_line).await;
        Ok(ended.unwrap_or_else(|failure| fail(failure.exit, &failure.message)))
    })
}

fn replay_requests(options: ReplayOptions) -> Exit {
    if let Some(format) = options.replay.convert {
        return match replay::run::convert(&options, format) {
            Ok((text, notes)) => {
                notes.iter().for_each(|note| say(&format!("forebay: {note}\n")));
                print(&text)
            }
            Err(failure) => fail(failure.exit, &failure.message),
        };
    }
    let command_line = command_line();
    with_runtime(1, async move {
        let ended = replay::run::execute(options, command_line).await;
        Ok(ended.unwrap_or_else(|failure| fail(failure.exit, &failure.message)))
    })
}

/// What was typed, for reports.
fn command_line() -> Vec<String> {
    let typed = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once("forebay".to_owned()).chain(options::masked(typed)).collect()
}

fn healthcheck(file: &Path, url: Option<&str>, timeout: Duration) -> Exit {
    let target = match url {
        Some(url) => url.parse().map_err(|error| format!("{url}: {error}")),
        None => admin_of(file),
    };
    let target = match target {
        Ok(target) => target,
        Err(message) => return fail(Exit::Failed, &message),
    };
    with_runtime(1, async move {
        Ok(match healthcheck::ask(&target, timeout).await {
            Ok(()) => {
                // The exit code is the answer: a full disk does not make a process sick that serves.
                let _ = output::print("ready\n");
                Exit::Done
            }
            Err(error) => fail(Exit::Failed, &format!("{target}: {error}")),
        })
    })
}

fn watch(options: &top::Options) -> Exit {
    with_runtime(1, async { Ok(top::run(options).await.unwrap_or_else(|error| fail(Exit::Failed, &error))) })
}

/// Where the process with this file is to be asked. A file with mistakes is no reason to call a process sick that
/// serves on with what the file held before.
fn admin_of(file: &Path) -> Result<Uri, String> {
    let address = match load(file) {
        Ok(loaded) => loaded.config.admin.address,
        Err(report) => {
            let first = report.diagnostics().first().map(config::Diagnostic::brief).unwrap_or_default();
            let Some(address) = config::admin_address(file, &variable) else {
                return Err(format!(
                    "{first}; so the admin address cannot be told: name it, as in `--url http://127.0.0.1:9901/readyz`"
                ));
            };
            say(&format!("forebay: {first}; the file is refused, but its admin address can be asked\n"));
            address.0
        }
    };
    healthcheck::of_admin(address).map_err(|error| error.to_string())
}

fn explain(file: &Path, method: String, path: String, headers: Vec<(String, String)>) -> Exit {
    let loaded = match load(file) {
        Ok(loaded) => loaded,
        Err(report) => return refuse(&report),
    };
    let host = headers.iter().find(|(name, _)| name == "host").map_or("", |(_, value)| without_port(value));
    let request = ExplainRequest { method, host: host.to_owned(), path, headers };
    match config::explain(&loaded, &request) {
        Ok(text) => print(&text),
        Err(reason) => fail(Exit::Failed, &reason),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Not a colon within an IPv6 address, which ends with a bracket.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The sidecar with a configuration file.
fn serve_file(file: &Path, connect: Connect) -> Exit {
    // Before there are threads: it changes the environment.
    let inherited = Inherited::from_env();
    let path = file.to_owned();
    let load: Load = Arc::new(move || load_version(&path).map_err(|report| report.render(false)));
    match load_version(file) {
        Ok(version) => serve(version, load, inherited, connect),
        Err(report) => refuse(&report),
    }
}

fn serve(version: ConfigVersion, load: Load, inherited: Inherited, connect: Connect) -> Exit {
    // Held to the end of the process: dropping it writes the last lines.
    let _log = match logging::init(&version.config.log) {
        Ok(log) => log,
        Err(error) => return fail(Exit::Failed, &error),
    };
    log_panics();
    let threads = version.config.runtime.threads;
    with_runtime(threads, serve_here(version, load, inherited, connect))
}

/// Inside the runtime.
async fn serve_here(version: ConfigVersion, load: Load, inherited: Inherited, connect: Connect) -> io::Result<Exit> {
    let config = &version.config;
    let telemetry = Telemetry::new(&config.metrics, &config.access_log)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot open the access log: {error}")))?;
    let (tasks, lifecycle) = (Tasks::new(telemetry.panics.clone()), Lifecycle::new());
    // First of all: a process that is PID 1 has no other handlers.
    let signals = shutdown::signals(&tasks)?;
    // Ends with the runtime; not one of the tasks that shutdown waits for.
    tokio::spawn(runtime::watch(Arc::clone(&telemetry), "main"));
    let parts = Parts {
        version,
        load,
        telemetry: Arc::clone(&telemetry),
        tasks: tasks.clone(),
        lifecycle: lifecycle.clone(),
        inherited,
        service_manager: ServiceManager::from_env(std::env::var_os("NOTIFY_SOCKET")),
        invocation: Invocation::of_this_process().ok(),
        file_limit: sockets::raise_file_limit(),
    };
    let server = server::start(parts, |config| connect(config, telemetry, tasks, lifecycle));
    Ok(server.map_err(io::Error::other)?.run(signals).await)
}

/// Simulated upstreams and the sidecar in front of them, in one process.
fn demo(options: &demo::Options, connect: Connect) -> Exit {
    if let Some(file) = &options.access_log
        && let Err(problem) = config::files::can_be_appended_to(Path::new(file))
    {
        return fail(Exit::Failed, &format!("--access-log: {problem}; {}", config::files::FOLDER_FIRST));
    }
    let simulator = match Simulator::bind(demo::upstreams()) {
        Ok(simulator) => simulator,
        Err(error) => return fail(Exit::Failed, &error),
    };
    let (addresses, sockets) = match demo_sockets(options) {
        Ok(bound) => bound,
        Err(error) => return fail(Exit::Failed, &error),
    };
    let access_log = options.access_log.as_deref();
    let text = demo::config_text(addresses, &demo::addresses_of(&simulator), access_log);
    let load: Load = Arc::new(move || {
        let loaded = config::parse("demo", &text, &|_| None);
        loaded.map(version_of).map_err(|report| report.render(false))
    });
    let version = match load() {
        Ok(version) => version,
        Err(report) => return fail(Exit::BadConfig, &report),
    };
    if let Err(error) = output::print(&demo::banner(addresses, access_log)) {
        return fail(Exit::Failed, &error);
    }
    // In a runtime of its own, like the separate servers that the upstreams stand for.
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    let upstreams = std::thread::spawn(move || {
        with_runtime(1, async {
            simulator.run(cancel.cancelled()).await?;
            Ok(Exit::Done)
        })
    });
    let exit = serve(version, load, sockets, connect);
    stop.cancel();
    match upstreams.join() {
        Ok(Exit::Done) => exit,
        _ => fail(Exit::Failed, &"the simulated upstreams failed"),
    }
}

/// The demo's sockets and where they are. Bound before the configuration is written, so that nobody takes a port
/// between looking whether it is free and listening on it.
fn demo_sockets(options: &demo::Options) -> io::Result<(demo::Addresses, Inherited)> {
    let (listener, admin) =
        (demo_socket("--listen", options.listen, 8080)?, demo_socket("--admin", options.admin, 9901)?);
    let addresses = demo::Addresses { listener: listener.local_addr()?, admin: admin.local_addr()? };
    let mut sockets = Inherited::default();
    sockets.add("main", listener)?;
    sockets.add(handover::ADMIN, admin)?;
    Ok((addresses, sockets))
}

/// Where somebody wants it; else the port that the README names, or any when it is taken: a demo should not fail for that.
fn demo_socket(option: &str, wanted: Option<SocketAddr>, usual: u16) -> io::Result<TcpListener> {
    let here = |port| sockets::bind(option, SocketAddr::from(([127, 0, 0, 1], port)));
    let bound = match wanted {
        Some(address) => sockets::bind(option, address),
        None => here(usual).or_else(|_| here(0)),
    };
    bound.map_err(|error| io::Error::new(error.source.kind(), error.to_string()))
}

fn load(file: &Path) -> Result<Loaded, Report> {
    let loaded = config::load(file, &variable)?;
    match logging::check_filter(&loaded.config.log.level) {
        Ok(()) => Ok(loaded),
        Err(error) => {
            let help = "a level such as \"info\", or levels by module such as \"forebay=debug,warn\"";
            let mistake = config::Diagnostic::of_file(&file.display().to_string(), error.to_string(), help);
            Err(Report::new(vec![mistake]))
        }
    }
}

/// A variable of the environment.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn load_version(file: &Path) -> Result<ConfigVersion, Report> {
    load(file).map(version_of)
}

fn version_of(loaded: Loaded) -> ConfigVersion {
    let effective = config::effective(&loaded);
    let Loaded { config, warnings, watched_files, .. } = loaded;
    let warnings = warnings.iter().map(config::Diagnostic::brief).collect();
    ConfigVersion { config: Arc::new(config), effective, warnings, watched_files }
}

/// Runs on so many worker threads; 0 means one for each core that the process may use.
fn with_runtime(threads: usize, work: impl Future<Output = io::Result<Exit>>) -> Exit {
    let result = build_runtime(threads).and_then(|runtime| {
        let result = runtime.block_on(work);
        // What still runs was told to end, or was cut on purpose: nobody waits for it.
        runtime.shutdown_background();
        result
    });
    result.unwrap_or_else(|error| fail(Exit::Failed, &error))
}

fn build_runtime(threads: usize) -> io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    builder.thread_name("forebay").enable_all().build()
}

/// Panics go where the log goes, in its format; `tasks` adds the name of the task.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panic: {panic}");
    }));
}

/// Prints a result, and nothing more is to be done.
fn print(text: &str) -> Exit {
    output::print(text).map_or_else(|error| fail(Exit::Failed, &error), |_| Exit::Done)
}

fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn fail(exit: Exit, message: &impl Display) -> Exit {
    say(&format!("forebay: {message}\n"));
    exit
}

fn refuse(report: &Report) -> Exit {
    say(&report.render(colour()));
    Exit::BadConfig
}

/// Colours for a terminal, unless the user wants none.
fn colour() -> bool {
    io::stderr().is_terminal() && allows_colour()
}
