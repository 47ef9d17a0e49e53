//! Chromium, driven by its DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>) over two pipes: no
//! port, no driver program. A new profile each time; nothing is asked of the network.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine;
use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually;
use super::process::{Process, command};

/// What Chromium says without being asked is switched off; the sandbox needs more than a test's user may have.
const ARGUMENTS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// A browser with one page; killed when dropped.
#[derive(Debug)]
pub struct Chromium {
    _process: Process,
    _profile: TempDir,
    commands: File,
    messages: Messages,
    sent: u64,
    session: String,
}

/// All that the browser has said: answers and events.
type Messages = Arc<Mutex<Vec<Value>>>;

impl Chromium {
    /// Starts the browser and opens an empty page of this size.
    pub async fn start(width: u32, height: u32) -> Self {
        let (from_us, commands) = std::io::pipe().expect("a pipe");
        let (answers, to_us) = std::io::pipe().expect("a pipe");
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut run = command(program());
        run.args(ARGUMENTS).arg(format!("--user-data-dir={}", profile.path().display()));
        run.arg(format!("--window-size={width},{height}")).arg("about:blank");
        let mappings = vec![
            FdMapping { parent_fd: from_us.into(), child_fd: 3 },
            FdMapping { parent_fd: to_us.into(), child_fd: 4 },
        ];
        run.fd_mappings(mappings).expect("two different descriptors");
        let process = Process::start("chromium", run);

        let messages = Messages::default();
        let told = Arc::clone(&messages);
        std::thread::spawn(move || {
            for message in
                BufReader::new(File::from(std::os::fd::OwnedFd::from(answers))).split(0).map_while(Result::ok)
            {
                let message = serde_json::from_slice(&message).expect("the protocol is JSON");
                told.lock().expect("no holder panics").push(message);
            }
        });
        let commands = File::from(std::os::fd::OwnedFd::from(commands));
        let mut browser =
            Self { _process: process, _profile: profile, commands, messages, sent: 0, session: String::new() };
        browser.attach().await;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.call("Emulation.setDeviceMetricsOverride", metrics).await;
        browser
    }

    async fn attach(&mut self) {
        let created = self.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let target = json!({ "targetId": created["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", target).await;
        self.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({})).await;
        }
    }

    /// One command; its result.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let id = self.sent;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("the browser runs");
        let answer = eventually(&format!("Chromium answers {method}"), async || {
            let messages = self.messages.lock().expect("no holder panics");
            messages.iter().rev().find(|message| message["id"] == id).cloned()
        })
        .await;
        assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    /// The parameters of all events of this kind so far.
    pub fn events(&self, method: &str) -> Vec<Value> {
        let messages = self.messages.lock().expect("no holder panics");
        let events = messages.iter().filter(|message| message["method"] == method);
        events.map(|message| message["params"].clone()).collect()
    }

    /// Goes to this page and waits until it and its files are there.
    pub async fn visit(&mut self, url: &str) {
        let before = self.events("Page.loadEventFired").len();
        let answer = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        eventually(&format!("{url} is loaded"), async || {
            (self.events("Page.loadEventFired").len() > before).then_some(())
        })
        .await;
    }

    /// The value of an expression within the page; a promise is waited for.
    pub async fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", parameters).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    pub async fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression).await;
        value.as_str().unwrap_or_else(|| panic!("{expression} is {value}")).to_owned()
    }

    /// A key, pressed and let go.
    pub async fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if key == " " {
                event["text"] = json!(" ");
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    pub async fn dark(&mut self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// What went wrong within the page: exceptions, errors and warnings of the console, refused and failed loads.
    pub fn complaints(&self) -> Vec<String> {
        let bad = |level: &Value| matches!(level.as_str(), Some("error" | "warning" | "assert"));
        let console = self.events("Runtime.consoleAPICalled").into_iter().filter(|event| bad(&event["type"]));
        let log = self.events("Log.entryAdded").into_iter().filter(|event| bad(&event["entry"]["level"]));
        let thrown = self.events("Runtime.exceptionThrown");
        console.chain(log).chain(thrown).map(|event| event.to_string()).collect()
    }

    /// Every address that was asked for.
    pub fn requests(&self) -> Vec<String> {
        let sent = self.events("Network.requestWillBeSent");
        sent.iter().filter_map(|event| event["request"]["url"].as_str().map(str::to_owned)).collect()
    }

    /// A PNG of the page's upper part, beyond what the window shows if need be.
    pub async fn picture(&mut self, width: u32, height: impl Into<f64>) -> Vec<u8> {
        let height: f64 = height.into();
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let answer = self
            .call("Page.captureScreenshot", json!({ "format": "png", "clip": clip, "captureBeyondViewport": true }))
            .await;
        let data = answer["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD.decode(data).expect("base64")
    }
}

/// The program itself and not Debian's script around it, which reads settings of the user.
fn program() -> PathBuf {
    let program = PathBuf::from("/usr/lib/chromium/chromium");
    assert!(program.exists(), "{} is missing: run scripts/setup.sh", program.display());
    program
}
