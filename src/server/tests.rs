//! The server with a data path that only counts, on loopback sockets.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config;

/// Remembers what it was told.
#[derive(Default)]
struct FakePath {
    serving: Arc<Mutex<BTreeSet<String>>>,
    requests: AtomicUsize,
    refuses: Mutex<Option<String>>,
    deadline_of_first_route: Mutex<Option<Duration>>,
}

impl FakePath {
    fn serving(&self) -> Vec<String> {
        self.serving.lock().unwrap().iter().cloned().collect()
    }
}

impl DataPath for FakePath {
    fn reload(&self, config: Arc<Config>) -> Result<(), String> {
        if let Some(reason) = self.refuses.lock().unwrap().clone() {
            return Err(reason);
        }
        *self.deadline_of_first_route.lock().unwrap() = config.routes.first().and_then(|route| route.deadline.after());
        Ok(())
    }

    fn serve(&self, socket: TcpListener, listener: &str, stop: CancellationToken) {
        let (name, serving) = (listener.to_owned(), Arc::clone(&self.serving));
        serving.lock().unwrap().insert(name.clone());
        tokio::spawn(async move {
            stop.cancelled().await;
            drop(socket);
            serving.lock().unwrap().remove(&name);
        });
    }

    fn open_requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn open_connections(&self) -> usize {
        0
    }

    fn ready(&self) -> bool {
        true
    }
}

/// A configuration text that a test changes, and the server that was started with it.
struct Bench {
    text: Arc<Mutex<String>>,
    path: Arc<FakePath>,
    lifecycle: Lifecycle,
}

fn version(text: &str) -> Result<ConfigVersion, String> {
    let loaded = config::parse("test.toml", text, &|_| None).map_err(|report| report.to_string())?;
    Ok(ConfigVersion {
        config: Arc::new(loaded.config),
        effective: serde_json::json!({}),
        warnings: Vec::new(),
        watched_files: Vec::new(),
    })
}

const ROUTE: &str = "[route.all]\npath = \"/*\"\ndeadline = \"2s\"\nrespond = { status = 204 }\n";

fn text(listeners: &[&str]) -> String {
    let tables: String =
        listeners.iter().map(|name| format!("[listener.{name}]\naddress = \"127.0.0.1:0\"\n")).collect();
    format!(
        "{tables}[admin]\naddress = \"127.0.0.1:0\"\n[shutdown]\naccept_grace = \"0s\"\ndrain_timeout = \"1s\"\n{ROUTE}"
    )
}

fn start_with(first: &str) -> (Bench, Result<Server, StartError>) {
    let text = Arc::new(Mutex::new(first.to_owned()));
    let path = Arc::new(FakePath::default());
    let lifecycle = Lifecycle::new();
    let source = Arc::clone(&text);
    let parts = Parts {
        version: version(first).unwrap(),
        load: Arc::new(move || version(&source.lock().unwrap())),
        telemetry: Telemetry::quiet(),
        tasks: Tasks::default(),
        lifecycle: lifecycle.clone(),
        inherited: Inherited::default(),
        service_manager: ServiceManager::default(),
        invocation: None,
        file_limit: u64::MAX,
    };
    let data_path = Arc::clone(&path);
    let server = start(parts, |_| Ok(data_path));
    (Bench { text, path, lifecycle }, server)
}

fn started(first: &str) -> (Bench, Server) {
    let (bench, server) = start_with(first);
    (bench, server.unwrap())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("waited for: {what}"));
}

#[tokio::test]
async fn a_started_server_serves_every_listener() {
    let (bench, server) = started(&text(&["one", "two"]));

    assert_eq!(bench.path.serving(), ["one", "two"]);
    assert!(bench.lifecycle.is_serving());
    assert_ne!(server.address_of("one"), server.address_of("two"));
    assert!(server.admin_address().is_some());
}

#[tokio::test]
async fn a_port_in_use_ends_the_start_before_anything_serves() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let taken = format!("{}[listener.taken]\naddress = \"{address}\"\n", text(&["free"]));

    let (bench, server) = start_with(&taken);

    let error = server.err().expect("refused").to_string();
    assert!(error.starts_with(&format!("cannot listen on {address} (taken): ")), "{error}");
    assert!(bench.path.serving().is_empty());
    assert!(!bench.lifecycle.is_serving());
}

#[tokio::test]
async fn a_reload_starts_new_listeners_keeps_old_ones_and_stops_removed_ones() {
    let (bench, mut server) = started(&text(&["kept", "gone"]));
    let kept = server.address_of("kept");

    *bench.text.lock().unwrap() = text(&["kept", "new"]).replace("2s", "3s");
    server.reload(Trigger::Signal).await;

    until("the removed listener has stopped", || bench.path.serving() == ["kept", "new"]).await;
    assert_eq!(server.address_of("kept"), kept);
    assert_eq!(*bench.path.deadline_of_first_route.lock().unwrap(), Some(Duration::from_secs(3)));
    let view = server.view.load_full();
    let changed = view.last_reload.as_ref().unwrap().result.as_ref().unwrap();
    assert_eq!(*changed, ["listener", "route"]);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_so() {
    let (bench, mut server) = started(&text(&["one"]));
    let before = server.view.load_full().version.config.hash.clone();

    *bench.text.lock().unwrap() = text(&["two"]).replace("deadline", "deadlin");
    server.reload(Trigger::FileChange).await;

    let view = server.view.load_full();
    let error = view.last_reload.as_ref().unwrap().result.as_ref().unwrap_err();
    assert!(error.contains("deadlin"), "{error}");
    assert_eq!(view.version.config.hash, before);
    assert_eq!(bench.path.serving(), ["one"]);
}

#[tokio::test]
async fn a_data_path_that_refuses_keeps_the_old_listeners() {
    let (bench, mut server) = started(&text(&["one"]));
    *bench.path.refuses.lock().unwrap() = Some("the key does not fit the certificate".into());

    *bench.text.lock().unwrap() = text(&["two"]);
    server.reload(Trigger::Signal).await;

    assert_eq!(bench.path.serving(), ["one"]);
    let view = server.view.load_full();
    let error = view.last_reload.as_ref().unwrap().result.as_ref().unwrap_err();
    assert_eq!(error, "the key does not fit the certificate");
}

#[tokio::test]
async fn a_port_in_use_refuses_the_whole_reload() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let (bench, mut server) = started(&text(&["one"]));

    let address = holder.local_addr().unwrap();
    *bench.text.lock().unwrap() = format!("{}[listener.taken]\naddress = \"{address}\"\n", text(&["new"]));
    server.reload(Trigger::Signal).await;

    assert_eq!(bench.path.serving(), ["one"]);
    let view = server.view.load_full();
    let error = view.last_reload.as_ref().unwrap().result.as_ref().unwrap_err();
    assert!(error.contains("a reload cannot move a listener"), "{error}");
}

#[tokio::test]
async fn settings_that_wait_for_a_restart_are_named_until_they_are_taken_back() {
    let (bench, mut server) = started(&text(&["one"]));

    *bench.text.lock().unwrap() = format!("{}[runtime]\nthreads = 7\n", text(&["one"]));
    server.reload(Trigger::Signal).await;
    assert_eq!(server.view.load().pending_restart, ["runtime.threads"]);

    *bench.text.lock().unwrap() = text(&["one"]);
    server.reload(Trigger::Signal).await;
    assert!(server.view.load().pending_restart.is_empty());
}

#[tokio::test]
async fn signals_reload_and_stop() {
    let (bench, server) = started(&text(&["one"]));
    let (signals, received) = mpsc::channel(4);
    *bench.text.lock().unwrap() = text(&["two"]);
    let running = tokio::spawn(server.run(received));

    signals.send(Signal::Reload).await.unwrap();
    until("the reload is done", || bench.path.serving() == ["two"]).await;
    signals.send(Signal::Stop).await.unwrap();

    assert_eq!(running.await.unwrap(), Exit::Done);
    until("the listeners are closed", || bench.path.serving().is_empty()).await;
    assert_eq!(bench.lifecycle.phase(), Phase::Stopped);
}

#[tokio::test]
async fn a_second_signal_ends_it_with_130() {
    let (bench, server) = started(&text(&["one"]).replace("drain_timeout = \"1s\"", "drain_timeout = \"1h\""));
    bench.path.requests.store(1, Ordering::Relaxed);
    let (signals, received) = mpsc::channel(4);
    let running = tokio::spawn(server.run(received));

    signals.send(Signal::Stop).await.unwrap();
    bench.lifecycle.reached(Phase::Draining).await;
    signals.send(Signal::Stop).await.unwrap();

    let exit = tokio::time::timeout(Duration::from_secs(10), running).await.expect("at once").unwrap();
    assert_eq!(exit, Exit::Interrupted);
}

#[tokio::test]
async fn a_failed_hand_over_changes_nothing() {
    let (bench, mut server) = started(&text(&["one"]));
    server.invocation = Some(Invocation { program: "/bin/false".into(), arguments: Vec::new() });
    let (signals, mut received) = mpsc::channel(4);

    assert!(matches!(server.hand_over(&mut received).await, HandedOver::No));

    assert_eq!(bench.path.serving(), ["one"]);
    assert!(bench.lifecycle.is_serving());
    drop(signals);
}
