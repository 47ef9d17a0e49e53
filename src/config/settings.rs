//! Every effective setting with its value as it may be shown and where it came from.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::chance::{FNV_OFFSET, fnv1a};

/// Where a setting's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Written on this line of the file.
    Line(usize),
    /// Not written: the default.
    Default,
    /// Not written: follows from other settings.
    Derived(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Line(line) => write!(f, "line {line}"),
            Origin::Default => f.write_str("default"),
            Origin::Derived(from) => write!(f, "default, {from}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// As it may be shown: a secret is `***`.
    pub value: Json,
    pub origin: Origin,
}

/// By path: `upstream.users.timeouts.connect`. Names of the user's choice cannot contain a dot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    settings: BTreeMap<String, Setting>,
    /// Hashes of the secret values, so that a change of a secret changes the configuration's hash.
    secrets: BTreeMap<String, u64>,
}

impl Settings {
    pub fn insert(&mut self, path: String, value: Json, origin: Origin) {
        self.settings.insert(path, Setting { value, origin });
    }

    pub fn add_secret(&mut self, path: String, secret: &str) {
        self.secrets.insert(path, fnv1a(FNV_OFFSET, secret.as_bytes()));
    }

    pub fn get(&self, path: &str) -> Option<&Setting> {
        self.settings.get(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.settings.iter().map(|(path, setting)| (path.as_str(), setting))
    }

    /// The settings below a path, with what follows it: of `route.slow`, `deadline` and `queue.timeout`.
    pub fn below<'s>(&'s self, path: &str) -> impl Iterator<Item = (&'s str, &'s Setting)> {
        let prefix = format!("{path}.");
        self.settings
            .range(prefix.clone()..)
            .take_while({
                let prefix = prefix.clone();
                move |(path, _)| path.starts_with(&prefix)
            })
            .map(move |(path, setting)| (&path[prefix.len()..], setting))
    }

    /// As nested tables; each leaf is `{"value": ..., "origin": "line 12"}`.
    pub fn to_json(&self) -> Json {
        let mut root = Map::new();
        for (path, setting) in &self.settings {
            let leaf = json!({ "value": setting.value, "origin": setting.origin.to_string() });
            place(&mut root, path, leaf);
        }
        Json::Object(root)
    }

    /// Lower-case hex FNV-1a/64 over paths, values and secrets, but not over where they are written: moving a line
    /// or writing out a default does not change it.
    pub fn hash(&self) -> String {
        let values = self.settings.iter().map(|(path, setting)| format!("{path}={}\n", setting.value));
        let secrets = self.secrets.iter().map(|(path, secret)| format!("{path}:{secret:x}\n"));
        let hash = values.chain(secrets).fold(FNV_OFFSET, |hash, line| fnv1a(hash, line.as_bytes()));
        format!("{hash:016x}")
    }
}

fn place(table: &mut Map<String, Json>, path: &str, leaf: Json) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), leaf);
        }
        Some((head, rest)) => {
            let child = table.entry(head).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(child) = child {
                place(child, rest, leaf);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_nest_by_path() {
        let mut settings = Settings::default();
        settings.insert("route.a.deadline".into(), json!("3s"), Origin::Line(4));

        assert_eq!(settings.to_json(), json!({"route": {"a": {"deadline": {"value": "3s", "origin": "line 4"}}}}));
        assert_eq!(settings.below("route.a").map(|(path, _)| path).collect::<Vec<_>>(), ["deadline"]);
    }
}
