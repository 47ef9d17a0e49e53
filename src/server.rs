//! The running sidecar: sockets, data path, admin listener, reload, hand-over and the way out, put together.
//!
//! Everything that can fail does so in [`start`], before the first request is taken: all sockets are bound, then the
//! data path is built, then both are joined. [`Server::run`] is the loop that follows the operator's wishes. The data
//! path is behind [`DataPath`], so that all of this is tested without one.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, View};
use crate::config::Config;
use crate::exit_code::Exit;
use crate::handover::{self, HandOverError, Inherited, Invocation};
use crate::reload::{
    Change, ConfigVersion, FileWatch, LastReload, Load, Trigger, changed_sections, difference, pending_restart,
};
use crate::shutdown::{self, Farewell, Lifecycle, Outcome, Phase, Signal, Work};
use crate::sockets::{self, BindError, Listening, Next};
use crate::systemd::ServiceManager;
use crate::tasks::Tasks;
use crate::telemetry::{ReloadResult, Telemetry};

/// After the last request: how long the remaining tasks may take to notice that everything is over.
const TASKS_LIMIT: Duration = Duration::from_millis(200);

/// The access log's last lines.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// What takes the requests.
pub trait DataPath: Send + Sync + 'static {
    /// Takes a new configuration, or leaves everything as it was and says why.
    fn reload(&self, config: Arc<Config>) -> Result<(), String>;
    /// Accepts connections for the listener of this name, until `stop`; then closes the socket.
    fn serve(&self, socket: TcpListener, listener: &str, stop: CancellationToken);
    /// Requests that have not ended, detached ones included.
    fn open_requests(&self) -> usize;
    fn open_connections(&self) -> usize;
    fn ready(&self) -> bool;
    /// At the end: writes what is still held, at most for `limit`; false when something is left. Blocks its thread.
    fn flush(&self, limit: Duration) -> bool {
        let _ = limit;
        true
    }
}

/// What a server is made of.
pub struct Parts {
    pub version: ConfigVersion,
    pub load: Load,
    pub telemetry: Arc<Telemetry>,
    pub tasks: Tasks,
    pub lifecycle: Lifecycle,
    pub inherited: Inherited,
    pub service_manager: ServiceManager,
    /// How to start a successor; `None` when there is no way to.
    pub invocation: Option<Invocation>,
    /// Files that this process may open.
    pub file_limit: u64,
}

/// Why the server did not start.
#[derive(Debug)]
pub enum StartError {
    Bind(BindError),
    /// The data path refused the configuration: a certificate that does not fit its key, ...
    DataPath(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::DataPath(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(error) => Some(error),
            Self::DataPath(_) => None,
        }
    }
}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

/// A sidecar that serves.
pub struct Server {
    load: Load,
    telemetry: Arc<Telemetry>,
    tasks: Tasks,
    lifecycle: Lifecycle,
    service_manager: ServiceManager,
    invocation: Option<Invocation>,
    file_limit: u64,
    data_path: Arc<dyn DataPath>,
    view: Arc<ArcSwap<View>>,
    /// What the process was started with: some settings hold until it ends.
    files: FileWatch,
    started: Arc<Config>,
    listeners: Vec<Listening>,
    admin: Option<Listening>,
}

/// Binds every socket, builds the data path with `connect`, and starts serving. Inside a tokio runtime.
pub fn start<F>(parts: Parts, connect: F) -> Result<Server, StartError>
where
    F: FnOnce(Arc<Config>) -> Result<Arc<dyn DataPath>, String>,
{
    let Parts { mut version, load, telemetry, tasks, lifecycle, mut inherited, .. } = parts;
    fit(&mut version, parts.file_limit);
    let config = Arc::clone(&version.config);

    let mut bound = Vec::new();
    for listener in &config.listeners {
        bound.push(open(&listener.name, listener.address, &mut inherited)?);
    }
    let admin = config.admin.address.map(|address| open(handover::ADMIN, address, &mut inherited)).transpose()?;
    for address in inherited.unused() {
        tracing::warn!(%address, "a passed socket is closed: no listener has its address");
    }

    // Before anybody can see that it runs, and so change a file in answer: what is there now was just loaded.
    let files = FileWatch::new(version.watched_files.clone());
    let data_path = connect(Arc::clone(&config)).map_err(StartError::DataPath)?;
    telemetry.apply(&config, SystemTime::now());
    let view = View { version, last_reload: None, pending_restart: Vec::new() };
    let mut server = Server {
        load,
        telemetry,
        tasks,
        lifecycle,
        service_manager: parts.service_manager,
        invocation: parts.invocation,
        file_limit: parts.file_limit,
        data_path,
        view: Arc::new(ArcSwap::from_pointee(view)),
        started: config,
        files,
        listeners: Vec::new(),
        admin: None,
    };
    if let Some((listening, accepting)) = admin {
        server.serve_admin(listening, accepting)?;
    }
    for (listening, accepting) in bound {
        server.serve(listening, accepting);
    }
    server.lifecycle.advance(Phase::Serving);
    server.announce_ready(&mut inherited);
    Ok(server)
}

/// Lowers connection limits that the limit on open files cannot carry.
fn fit(version: &mut ConfigVersion, file_limit: u64) {
    let (config, warning) = sockets::fit_connections(Arc::clone(&version.config), file_limit);
    version.config = config;
    version.warnings.extend(warning);
    for warning in &version.warnings {
        tracing::warn!("{warning}");
    }
}

fn open(name: &str, address: SocketAddr, inherited: &mut Inherited) -> Result<(Listening, TcpListener), BindError> {
    let socket = match inherited.take(name, address) {
        Some(socket) => socket,
        None => sockets::bind(name, address)?,
    };
    Listening::new(name, address, socket)
}

impl Server {
    /// Follows signals and file changes until the process is to end, and ends it in order.
    pub async fn run(mut self, mut signals: mpsc::Receiver<Signal>) -> Exit {
        let farewell = self.follow(&mut signals).await;
        self.service_manager.stopping();
        let settings = self.view.load().version.config.shutdown.clone();
        let closing = self.closing(farewell);
        let interrupt = shutdown::next_stop(&mut signals);
        let outcome = shutdown::shut_down(&self.lifecycle, &settings, farewell, &closing, interrupt).await;
        self.close(outcome).await
    }

    /// The address that a listener really has; for port 0.
    pub fn address_of(&self, listener: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|open| open.name == listener).map(|open| open.address)
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    async fn follow(&mut self, signals: &mut mpsc::Receiver<Signal>) -> Farewell {
        loop {
            let watching = self.view.load().version.config.reload.watch;
            tokio::select! {
                signal = signals.recv() => match signal {
                    Some(Signal::Reload) => {
                        self.files.note();
                        self.reload(Trigger::Signal).await;
                    }
                    Some(Signal::HandOver) => match self.hand_over(signals).await {
                        HandedOver::Yes => return Farewell::HandedOver,
                        HandedOver::No => {}
                        HandedOver::Stopped => return Farewell::Announce,
                    },
                    Some(Signal::Stop) | None => return Farewell::Announce,
                },
                () = self.files.changed(), if watching => self.reload(Trigger::FileChange).await,
            }
            self.files.replace(self.view.load().version.watched_files.clone());
        }
    }

    /// Reads the configuration again. All or nothing: whatever fails leaves everything as it was.
    pub async fn reload(&mut self, trigger: Trigger) {
        self.service_manager.reloading();
        let result = self.try_reload().await;
        self.report(trigger, result);
        self.service_manager.ready();
    }

    async fn try_reload(&mut self) -> Result<Reloaded, String> {
        let load = Arc::clone(&self.load);
        let mut version = blocking(move || load()).await?;
        fit(&mut version, self.file_limit);
        let config = Arc::clone(&version.config);
        let before = self.view.load_full();

        let next = config.listeners.iter().map(|listener| Next::of(listener, &self.listeners));
        let next = next.collect::<Result<Vec<_>, _>>().map_err(|error| error.at_reload())?;
        // Opened again even when its path is the same: the file may have been rotated away.
        let reopened = self.telemetry.reopen_access_log(&config.access_log);
        reopened.map_err(|error| format!("cannot open the access log: {error}"))?;
        let (data_path, taken) = (Arc::clone(&self.data_path), Arc::clone(&config));
        if let Err(error) = blocking(move || data_path.reload(taken)).await {
            // It was open a moment ago; if it cannot be opened again, the new one is better than none.
            let _ = self.telemetry.reopen_access_log(&before.version.config.access_log);
            return Err(error);
        }
        // From here on nothing can fail.
        self.telemetry.apply(&config, SystemTime::now());
        let changed = changed_sections(&before.version.config, &config);
        let difference = difference(&before.version.effective, &version.effective);
        let pending_restart = pending_restart(&self.started, &config);
        let last_reload = before.last_reload.clone();
        self.view.store(Arc::new(View { version, last_reload, pending_restart }));
        self.switch(next);
        Ok(Reloaded { changed, difference })
    }

    /// Starts what is new, then stops what is gone: an address that changes its name is never without an accept loop.
    fn switch(&mut self, next: Vec<Next>) {
        let mut old = std::mem::take(&mut self.listeners);
        for next in next {
            match next {
                Next::Keep(name) => {
                    let index = old.iter().position(|open| open.name == name);
                    self.listeners.extend(index.map(|index| old.swap_remove(index)));
                }
                Next::Start(listening, accepting) => self.serve(listening, accepting),
            }
        }
        for gone in old {
            tracing::info!(listener = gone.name, address = %gone.address, "listener removed: it accepts no more");
            gone.stop.cancel();
        }
    }

    fn report(&self, trigger: Trigger, result: Result<Reloaded, String>) {
        let (result, difference) = match result {
            Ok(reloaded) => (Ok(reloaded.changed), reloaded.difference),
            Err(error) => (Err(error), Vec::new()),
        };
        let mut view = View::clone(&self.view.load());
        match &result {
            Ok(changed) if changed.is_empty() => {
                self.telemetry.reloaded(ReloadResult::Unchanged);
                tracing::info!(
                    trigger = trigger.as_str(),
                    "reloaded: the same settings; files that they name were read again"
                );
            }
            Ok(changed) => {
                self.telemetry.reloaded(ReloadResult::Success);
                let (hash, changed) = (&view.version.config.hash, changed.join(", "));
                tracing::info!(trigger = trigger.as_str(), hash, changed, "reloaded");
            }
            Err(error) => {
                self.telemetry.reloaded(ReloadResult::Failure);
                tracing::error!(trigger = trigger.as_str(), "reload refused, the old configuration stays: {error}");
            }
        }
        if result.is_ok() && !view.pending_restart.is_empty() {
            let settings = view.pending_restart.join(", ");
            tracing::warn!(settings, "these settings changed and wait for a restart");
        }
        view.last_reload = Some(LastReload { at: SystemTime::now(), trigger, result, difference });
        self.view.store(Arc::new(view));
    }

    async fn hand_over(&self, signals: &mut mpsc::Receiver<Signal>) -> HandedOver {
        let (invocation, sockets) = match self.passable() {
            Ok(passable) => passable,
            Err(error) => {
                tracing::error!("no hand-over, this process serves on: {error}");
                return HandedOver::No;
            }
        };
        let stop = shutdown::next_stop(signals);
        match handover::hand_over(&invocation, sockets, handover::READY_LIMIT, stop).await {
            Ok(pid) => {
                tracing::info!(pid, "handed over: the new process serves, this one drains");
                self.service_manager.main_process(pid);
                HandedOver::Yes
            }
            Err(HandOverError::Cancelled) => HandedOver::Stopped,
            Err(error) => {
                tracing::error!("no hand-over, this process serves on: {error}");
                HandedOver::No
            }
        }
    }

    fn passable(&self) -> Result<(Invocation, Vec<(String, TcpListener)>), String> {
        let invocation = self.invocation.clone().ok_or("it is not known how this process was started")?;
        let open = self.listeners.iter().chain(&self.admin);
        let sockets = open.map(|open| Ok((open.name.clone(), open.socket.try_clone()?)));
        let sockets: io::Result<_> = sockets.collect();
        Ok((invocation, sockets.map_err(|error| format!("cannot duplicate a socket: {error}"))?))
    }

    fn serve(&mut self, listening: Listening, accepting: TcpListener) {
        self.data_path.serve(accepting, &listening.name, listening.stop.clone());
        let view = self.view.load();
        let tls = view.version.config.listeners.iter().any(|l| l.name == listening.name && l.tls.is_some());
        let scheme = if tls { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{} ({})", listening.address, listening.name);
        self.listeners.push(listening);
    }

    fn serve_admin(&mut self, listening: Listening, accepting: TcpListener) -> Result<(), BindError> {
        let admin = Admin::new(
            listening.address,
            self.lifecycle.clone(),
            Arc::clone(&self.data_path),
            Arc::clone(&self.telemetry),
            Arc::clone(&self.view),
        );
        admin.serve(accepting, &self.tasks, listening.stop.clone()).map_err(|source| BindError {
            address: listening.configured,
            name: listening.name.clone(),
            source,
        })?;
        tracing::info!("listening on http://{} (admin)", listening.address);
        self.admin = Some(listening);
        Ok(())
    }

    fn announce_ready(&self, inherited: &mut Inherited) {
        self.service_manager.ready();
        inherited.announce_ready();
    }

    /// What stops accepting when draining begins. The admin listener answers until the end, so that metrics and
    /// `/readyz` can be asked while draining; after a hand-over it is the new process's, like the others.
    fn closing(&mut self, farewell: Farewell) -> Closing {
        let mut open = std::mem::take(&mut self.listeners);
        if farewell == Farewell::HandedOver {
            open.extend(self.admin.take());
        }
        Closing { data_path: Arc::clone(&self.data_path), open: Mutex::new(open) }
    }

    /// The end of the process: says how it went and gives the last tasks and log lines a moment.
    async fn close(self, outcome: Outcome) -> Exit {
        let exit = match outcome {
            Outcome::Drained => {
                tracing::info!("stopped: every request has ended");
                Exit::Done
            }
            Outcome::Cut { requests } => {
                tracing::warn!(requests, "stopped at shutdown.drain_timeout: requests were cut");
                Exit::Done
            }
            Outcome::Interrupted { requests } => {
                tracing::warn!(requests, "stopped by a second signal: requests were cut");
                Exit::Interrupted
            }
        };
        if let Some(admin) = &self.admin {
            admin.stop.cancel();
        }
        if outcome == Outcome::Drained {
            self.tasks.wait_idle(TASKS_LIMIT).await;
        }
        let telemetry = Arc::clone(&self.telemetry);
        let flushed = tokio::task::spawn_blocking(move || telemetry.flush_access_log(FLUSH_LIMIT)).await;
        if !flushed.unwrap_or(false) {
            tracing::warn!("the access log's last lines could not be written in time");
        }
        let data_path = Arc::clone(&self.data_path);
        let flushed = tokio::task::spawn_blocking(move || data_path.flush(FLUSH_LIMIT)).await;
        if !flushed.unwrap_or(false) {
            tracing::warn!("the recording's last lines could not be written in time");
        }
        exit
    }
}

/// What a reload that was taken changed.
struct Reloaded {
    changed: Vec<&'static str>,
    difference: Vec<Change>,
}

/// How a hand-over went.
enum HandedOver {
    Yes,
    /// It failed, and has been logged.
    No,
    /// It was given up because this process is to stop.
    Stopped,
}

/// The data path while it is shut down.
struct Closing {
    data_path: Arc<dyn DataPath>,
    open: Mutex<Vec<Listening>>,
}

impl Work for Closing {
    fn stop_accepting(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for listening in open {
            listening.stop.cancel();
        }
    }

    fn open_requests(&self) -> usize {
        self.data_path.open_requests()
    }

    fn open_connections(&self) -> usize {
        self.data_path.open_connections()
    }
}

/// Runs what reads files or computes for long off the event loop.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("this is a bug in Forebay: {error}")))
}

#[cfg(test)]
mod tests;
