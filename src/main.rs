//! The `forebay` binary: arguments in, exit code out. Everything else is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use forebay::config::Config;
use forebay::proxy::Proxy;
use forebay::server::DataPath;
use forebay::shutdown::Lifecycle;
use forebay::tasks::Tasks;
use forebay::telemetry::Telemetry;
use forebay::{cli, commands};

/// Gives the memory of closed connections back, which glibc's allocator and mimalloc do not (FACTS: measured), and has
/// the statistics that the metrics show.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(cli) => commands::execute(cli.command, connect).into(),
        Err(exit) => exit.into(),
    }
}

fn connect(
    config: Arc<Config>,
    telemetry: Arc<Telemetry>,
    tasks: Tasks,
    lifecycle: Lifecycle,
) -> Result<Arc<dyn DataPath>, String> {
    let proxy = Proxy::new(config, telemetry, tasks, lifecycle).map_err(|error| error.to_string())?;
    Ok(Arc::new(proxy))
}
