//! Changing the configuration of a running process: when to read it again, what changed, what a reload cannot change.
//!
//! The content of the files is looked at once a second, rather than waiting for file-system events: that sees a
//! write in place, an editor's rename and the symlink swap of a Kubernetes ConfigMap alike, needs no descriptor per
//! folder, and works on network file systems. `server` performs the reload, because it owns the sockets.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior};

use crate::config::Config;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);

/// Of a longer file, only this much is looked at. Configurations and certificates are far smaller.
const MAX_READ: u64 = 16 << 20;

/// A configuration as it was read: what is used, and what is shown of it.
#[derive(Debug, Clone)]
pub struct ConfigVersion {
    pub config: Arc<Config>,
    /// Every effective setting with its origin, secrets hidden.
    pub effective: Value,
    pub warnings: Vec<String>,
    /// The configuration file and every file that it names.
    pub watched_files: Vec<PathBuf>,
}

/// Reads and checks the configuration. An error is the whole report, the same as `forebay check` prints.
pub type Load = Arc<dyn Fn() -> Result<ConfigVersion, String> + Send + Sync>;

/// What started a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    Signal,
    FileChange,
}

impl Trigger {
    pub const fn as_str(self) -> &'static str {
        match self {
            Trigger::Signal => "signal",
            Trigger::FileChange => "file_change",
        }
    }
}

/// How the last reload went, for the admin listener.
#[derive(Debug, Clone)]
pub struct LastReload {
    pub at: SystemTime,
    pub trigger: Trigger,
    /// The sections that changed, or why everything stayed as it was.
    pub result: Result<Vec<&'static str>, String>,
    /// The settings that changed.
    pub difference: Vec<Change>,
}

/// A setting that a reload changed, as it may be shown; `None` where there was or is none. A secret is `***` before and
/// after, so that only its section in [`LastReload::result`] tells of its change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// `route.slow.deadline`.
    pub setting: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// Changes that are shown of one reload; a file that is quite another one is read rather than compared.
const MAX_CHANGES: usize = 200;

/// The settings whose values differ, by name, at most [`MAX_CHANGES`]. Where they are written does not count.
pub fn difference(before: &Value, after: &Value) -> Vec<Change> {
    let (before, after) = (settings(before), settings(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let change = |name: &String| Change {
        setting: name.clone(),
        before: before.get(name).map(|value| (*value).clone()),
        after: after.get(name).map(|value| (*value).clone()),
    };
    changed.take(MAX_CHANGES).map(change).collect()
}

/// The values of an effective configuration by their dotted names.
fn settings(effective: &Value) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    each_setting(effective, &mut |name, value, _| {
        found.insert(name.to_owned(), value);
    });
    found
}

/// Visits every setting of an effective configuration: its dotted name, its value, its origin.
pub fn each_setting<'v>(effective: &'v Value, visit: &mut impl FnMut(&str, &'v Value, &'v str)) {
    fn walk<'v>(name: &str, table: &'v Value, visit: &mut impl FnMut(&str, &'v Value, &'v str)) {
        let Value::Object(entries) = table else { return };
        if let (Some(value), Some(Value::String(origin))) = (entries.get("value"), entries.get("origin")) {
            return visit(name, value, origin);
        }
        for (key, child) in entries {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            walk(&name, child, visit);
        }
    }
    walk("", effective, visit);
}

impl LastReload {
    pub fn to_json(&self) -> Value {
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut shown = json!({ "at_unix_seconds": at, "trigger": self.trigger.as_str(), "ok": self.result.is_ok() });
        match &self.result {
            Ok(changed) => {
                let change = |change: &Change| json!({ "setting": change.setting, "before": change.before, "after": change.after });
                shown["changed"] = json!(changed);
                shown["difference"] = self.difference.iter().map(change).collect();
            }
            Err(message) => shown["error"] = json!(message),
        }
        shown
    }
}

/// The sections in which two configurations differ, in the order of the file.
pub fn changed_sections(old: &Config, new: &Config) -> Vec<&'static str> {
    let sections = [
        ("runtime", old.runtime != new.runtime),
        ("listener", old.listeners != new.listeners),
        ("admin", old.admin != new.admin),
        ("shutdown", old.shutdown != new.shutdown),
        ("reload", old.reload != new.reload),
        ("access_log", old.access_log != new.access_log),
        ("log", old.log != new.log),
        ("metrics", old.metrics != new.metrics),
        ("rate_limit", old.rate_limits != new.rate_limits),
        ("in_flight", old.in_flight != new.in_flight),
        ("faults", old.faults != new.faults),
        ("record", old.record != new.record),
        ("upstream", old.upstreams != new.upstreams),
        ("route", old.routes != new.routes),
    ];
    sections.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

/// Settings that are read once, at the start: those that differ from what the process was started with wait for a
/// restart (or a hand-over), while the rest of the reload takes effect.
pub fn pending_restart(started: &Config, new: &Config) -> Vec<&'static str> {
    let settings = [
        // The threads exist.
        ("runtime.threads", started.runtime != new.runtime),
        // Whoever watches this process must not lose it because of a typing error in its address.
        ("admin.address", started.admin.address != new.admin.address),
        ("log", started.log != new.log),
        // Buckets that change in the middle of a series mislead every quantile.
        ("metrics", started.metrics != new.metrics),
    ];
    settings.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

/// Watches files for new content.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<PathBuf>,
    seen: Settling,
    ticks: Interval,
}

impl FileWatch {
    /// What the files hold now counts as known.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let seen = Settling::new(fingerprint(&files));
        Self { files, seen, ticks }
    }

    /// Ends when the content of a file has changed and stayed the same for one poll. May be dropped and called again.
    pub async fn changed(&mut self) {
        loop {
            self.ticks.tick().await;
            let files = self.files.clone();
            // A file may lie on a network file system that hangs.
            let Ok(now) = tokio::task::spawn_blocking(move || fingerprint(&files)).await else { continue };
            if self.seen.observe(now) {
                return;
            }
        }
    }

    /// What the files hold now is about to be loaded; what they hold later is a change again.
    pub fn note(&mut self) {
        self.seen = Settling::new(fingerprint(&self.files));
    }

    /// From now on watches these files. Their content counts as known: it has just been loaded.
    pub fn replace(&mut self, files: Vec<PathBuf>) {
        if files != self.files {
            self.seen = Settling::new(fingerprint(&files));
            self.files = files;
        }
    }
}

/// Decides when changed content is worth a reload: once it is the same twice in a row, because many programs write a
/// file in several steps, and half of one would be reported as a mistake.
#[derive(Debug)]
struct Settling {
    known: u64,
    last: u64,
}

impl Settling {
    fn new(known: u64) -> Self {
        Self { known, last: known }
    }

    fn observe(&mut self, now: u64) -> bool {
        let settled = now == self.last && now != self.known;
        self.last = now;
        if settled {
            self.known = now;
        }
        settled
    }
}

/// A number that changes with the content of any of the files, or with one appearing or vanishing. Not with their
/// times: a file that is touched, or replaced by an equal one, is the same configuration.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        content(file).hash(&mut hasher);
    }
    hasher.finish()
}

/// `None` when the file cannot be read. A pipe or a device is not opened: reading it could block or take its content.
fn content(file: &Path) -> Option<Vec<u8>> {
    let metadata = fs::metadata(file).ok()?;
    if !metadata.is_file() {
        return Some(metadata.ino().to_le_bytes().to_vec());
    }
    let mut content = Vec::new();
    fs::File::open(file).ok()?.take(MAX_READ).read_to_end(&mut content).ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_reloaded_once_it_has_settled() {
        let mut seen = Settling::new(1);

        let decisions: Vec<bool> = [1, 2, 3, 3, 3, 1, 1, 4, 1].into_iter().map(|now| seen.observe(now)).collect();

        assert_eq!(decisions, [false, false, false, true, false, false, true, false, false]);
    }

    #[test]
    fn only_content_makes_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let files = vec![folder.path().join("a"), folder.path().join("b")];
        fs::write(&files[0], "one").unwrap();
        let before = fingerprint(&files);

        fs::write(folder.path().join("new"), "one").unwrap();
        fs::rename(folder.path().join("new"), &files[0]).unwrap();
        assert_eq!(fingerprint(&files), before, "replaced by an equal file");

        fs::write(&files[1], "").unwrap();
        assert_ne!(fingerprint(&files), before, "a file appeared");
    }

    #[test]
    fn the_symlink_swap_of_a_config_map_is_seen() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("forebay.toml"), text).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/forebay.toml", at("forebay.toml")).unwrap();
        let files = [at("forebay.toml")];
        let before = fingerprint(&files);

        symlink("v2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();

        assert_ne!(fingerprint(&files), before);
    }

    #[test]
    fn a_device_is_not_read() {
        assert!(content(Path::new("/dev/zero")).is_some_and(|content| content.len() == 8));
        assert_eq!(content(Path::new("/nowhere")), None);
    }

    #[tokio::test]
    async fn a_change_on_disk_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("forebay.toml");
        fs::write(&file, "one").unwrap();
        let mut watch = FileWatch::new(vec![file.clone()]);

        fs::write(&file, "two").unwrap();

        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.expect("noticed");
    }

    #[test]
    fn changes_are_named_by_section_and_some_wait_for_a_restart() {
        let old = crate::config::defaults().config;
        let mut new = old.clone();
        assert_eq!(changed_sections(&old, &new), Vec::<&str>::new());

        new.runtime.threads += 1;
        new.shutdown.drain_timeout += Duration::from_secs(1);
        new.admin.token = Some(crate::config::model::Secret::plain("new"));
        new.faults.enabled = true;

        assert_eq!(changed_sections(&old, &new), ["runtime", "admin", "shutdown", "faults"]);
        assert_eq!(pending_restart(&old, &new), ["runtime.threads"]);
    }

    #[test]
    fn the_difference_has_what_came_went_and_changed_but_not_what_moved() {
        let leaf = |value: &str, origin: &str| json!({ "value": value, "origin": origin });
        let before = json!({ "route": { "a": { "path": leaf("/a", "line 1"), "deadline": leaf("1s", "line 2") } } });
        let after = json!({ "route": { "a": { "path": leaf("/a", "line 9"), "deadline": leaf("2s", "default") },
            "value": { "path": leaf("/b", "line 3") } } });

        let changes = difference(&before, &after);

        let change = |setting: &str, before: Option<&str>, after: Option<&str>| Change {
            setting: setting.into(),
            before: before.map(Value::from),
            after: after.map(Value::from),
        };
        let expected =
            [change("route.a.deadline", Some("1s"), Some("2s")), change("route.value.path", None, Some("/b"))];
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_failed_reload_shows_its_error_and_a_good_one_its_changes() {
        let mut reload = LastReload {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(7),
            trigger: Trigger::Signal,
            result: Ok(vec!["route"]),
            difference: vec![Change { setting: "route.a.deadline".into(), before: None, after: Some(json!("1s")) }],
        };
        let difference = json!([{ "setting": "route.a.deadline", "before": null, "after": "1s" }]);
        let good = json!({
            "at_unix_seconds": 7, "trigger": "signal", "ok": true, "changed": ["route"], "difference": difference,
        });
        assert_eq!(reload.to_json(), good);

        reload.result = Err("no".into());

        let bad = json!({ "at_unix_seconds": 7, "trigger": "signal", "ok": false, "error": "no" });
        assert_eq!(reload.to_json(), bad);
    }
}
