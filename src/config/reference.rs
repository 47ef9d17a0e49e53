//! `config/default.toml`: every key with its default and what it does, made from the description of the keys. A test
//! holds the committed file equal to it.

use super::decode::Element;
use super::describe::{Default, Key, Shape, Table};
use super::elements::Root;
use super::elements::listener::Listener;

const HEAD: &str = "\
#:schema ./schema.json
#
# Every setting of Forebay with its default. Using this file as it is changes nothing; a key that is left out has the
# value shown here. Lines that begin with `#` and a key are examples of keys that are off unless they are written.
#
# Quantities carry their unit: \"250ms\", \"1m30s\", \"64KiB\", \"100/s\". Any value may hold \"${NAME}\" or
# \"${NAME:-default}\" from the environment; `$${` is a literal `${`.
#
# `forebay check -c FILE` shows every mistake, `forebay explain -c FILE GET /path` what holds for a request.
";

/// The text of `config/default.toml`.
pub fn default_toml() -> String {
    let mut writer = Writer { text: HEAD.to_owned() };
    for key in &Root::table().keys {
        match &key.shape {
            Shape::Map { value, .. } => {
                if let Some(table) = value.table() {
                    writer.example_table(key.name, &table);
                }
            }
            // One listener is the usual case; the shape also allows several with names.
            _ if key.name == "listener" => writer.table(&key.doc, "listener", &Listener::table(), false),
            shape => {
                if let Some(table) = shape.table() {
                    writer.table(&table.doc, key.name, &table, false);
                }
            }
        }
    }
    writer.text
}

struct Writer {
    text: String,
}

impl Writer {
    /// A table with a name of the user's choice: there is none by default, so all of it is an example.
    fn example_table(&mut self, kind: &str, table: &Table) {
        self.table(&table.doc, &format!("{kind}.NAME"), table, true);
    }

    /// The keys of a table, then its tables.
    fn table(&mut self, doc: &str, path: &str, table: &Table, example: bool) {
        self.line("");
        self.comment(doc);
        self.setting(&format!("[{path}]"), example);
        for key in table.keys.iter().filter(|key| !is_table(key)) {
            self.key(key, example);
        }
        for key in table.keys.iter().filter(|key| is_table(key)) {
            let Some((child, named)) = child(key) else { continue };
            let name = if named { format!("{}.NAME", key.name) } else { key.name.to_owned() };
            // A table that is off by default is an example also inside one that is not.
            let example = example || named || key.default == Default::None;
            let doc = if named { &child.doc } else { &key.doc };
            self.table(doc, &format!("{path}.{name}"), &child, example);
        }
    }

    fn key(&mut self, key: &Key, example: bool) {
        self.line("");
        self.comment(&key.doc);
        match (key.default, key.example) {
            (Default::Value(toml), shown) => {
                self.setting(&format!("{} = {}", key.name, one_line(toml)), example);
                if let Some(shown) = shown {
                    self.setting(&format!("{} = {shown}", key.name), true);
                }
            }
            (Default::None | Default::Required, Some(shown)) => self.setting(&format!("{} = {shown}", key.name), true),
            (Default::None | Default::Required, None) => {}
        }
    }

    fn setting(&mut self, text: &str, example: bool) {
        let mark = if example { "# " } else { "" };
        self.line(&format!("{mark}{text}"));
    }

    /// Wrapped, so that nobody has to scroll sideways.
    fn comment(&mut self, doc: &str) {
        const WIDTH: usize = 110;
        let mut line = String::from("#");
        for word in doc.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH {
                self.line(&line);
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(&line);
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }
}

fn is_table(key: &Key) -> bool {
    child(key).is_some()
}

/// The table that a key is, and whether there is one for each name of the user's choice.
fn child(key: &Key) -> Option<(Table, bool)> {
    match &key.shape {
        Shape::Map { value, .. } => value.table().filter(|_| !is_secret(value)).map(|table| (table, true)),
        shape => shape.table().filter(|_| !is_secret(shape)).map(|table| (table, false)),
    }
}

/// The table of a secret only says where it comes from.
fn is_secret(shape: &Shape) -> bool {
    shape.table().is_some_and(|table| table.key("env").is_some() && table.key("file").is_some())
}

/// Defaults come from the source code, where a long list may be broken.
fn one_line(toml: &str) -> String {
    toml.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, defaults, parse};

    #[test]
    fn the_reference_file_has_the_defaults_of_the_code() {
        let loaded = parse("default.toml", &default_toml(), &|_| None).unwrap_or_else(|report| panic!("{report}"));

        let defaults = defaults();
        assert_eq!(loaded.config, defaults.config);
        for (path, setting) in defaults.settings.iter() {
            let written = loaded.settings.get(path).unwrap_or_else(|| panic!("{path} is missing"));
            assert_eq!(written.value, setting.value, "{path}");
        }
    }

    #[test]
    fn the_reference_file_writes_every_default_out() {
        let loaded = parse("default.toml", &default_toml(), &|_| None).unwrap_or_else(|report| panic!("{report}"));

        let left_out: Vec<_> = loaded
            .settings
            .iter()
            .filter(|(_, setting)| setting.origin == Origin::Default)
            .map(|(path, _)| path)
            .collect();
        assert_eq!(left_out, ["listener.main.timeouts.lifetime"; 0]);
    }

    #[test]
    fn every_key_is_in_the_reference_file() {
        let text = default_toml();

        crate::config::elements::visit_tables(&mut |place, table| {
            for key in table.keys.iter().filter(|key| place.starts_with('[') && !["file", "env"].contains(&key.name)) {
                let named = [format!("{} = ", key.name), format!(".{}]", key.name), format!(".{}.NAME]", key.name)];
                let named = named.iter().any(|written| text.contains(written));
                assert!(named, "{place} {}", key.name);
            }
        });
    }
}
