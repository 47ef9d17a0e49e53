//! The JSON Schema (2020-12) of the file, made from the description of its keys: for completion and hints in editors.
//! It is as strict as a schema can be; `forebay check` decides.

use serde_json::{Map, Value as Json, json};

use super::decode::Element;
use super::describe::{Default, Key, Shape, Table};
use super::elements::Root;

/// The whole schema. Editors find it by `#:schema ./schema.json` in the first line of a file.
pub fn schema() -> Json {
    let Json::Object(body) = table_schema(&Root::table()) else { return Json::Null };
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), "Forebay configuration".into());
    schema.extend(body);
    Json::Object(schema)
}

fn table_schema(table: &Table) -> Json {
    let properties: Map<String, Json> = table.keys.iter().map(|key| (key.name.to_owned(), key_schema(key))).collect();
    let required: Vec<&str> =
        table.keys.iter().filter(|key| key.default == Default::Required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": table.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn key_schema(key: &Key) -> Json {
    let mut schema = shape_schema(&key.shape);
    schema["description"] = key.doc.as_str().into();
    if let Default::Value(toml) = key.default
        && toml != "{}"
        && let Some(default) = to_json(toml)
    {
        schema["default"] = default;
    }
    if let Some(example) = key.example.and_then(to_json) {
        schema["examples"] = json!([example]);
    }
    if let (Shape::Integer, Some((least, greatest))) = (&key.shape, key.bounds) {
        // A number may also come from the environment, so the bounds hold for numbers only.
        schema["minimum"] = least.into();
        schema["maximum"] = greatest.into();
    }
    schema
}

fn shape_schema(shape: &Shape) -> Json {
    match shape {
        Shape::Boolean => json!({ "anyOf": [{ "type": "boolean" }, variable()] }),
        Shape::Integer => json!({ "anyOf": [{ "type": "integer" }, variable()] }),
        Shape::Number => json!({ "anyOf": [{ "type": "number" }, variable()] }),
        Shape::Text { pattern: Some(pattern), .. } => json!({ "type": "string", "pattern": pattern }),
        Shape::Text { pattern: None, .. } => json!({ "type": "string" }),
        Shape::Choice(words) => json!({ "anyOf": [{ "enum": words }, variable()] }),
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(shape_schema).collect::<Vec<_>>() }),
        Shape::List(of) => json!({ "type": "array", "items": shape_schema(of) }),
        Shape::Table(table) => table_schema(&table()),
        Shape::Any { .. } => json!({}),
        Shape::Map { value, .. } => json!({ "type": "object", "additionalProperties": shape_schema(value) }),
    }
}

/// `"${NAME}"` in the place of any plain value.
fn variable() -> Json {
    json!({ "type": "string", "pattern": r"\$\{.+\}" })
}

/// A TOML value as JSON.
fn to_json(toml: &str) -> Option<Json> {
    let table: toml::Table = format!("v = {toml}").parse().ok()?;
    serde_json::to_value(table.get("v")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_every_table_and_key() {
        let schema = schema();

        let timeout = &schema["properties"]["upstream"]["additionalProperties"]["properties"]["timeouts"]["properties"];
        assert_eq!(timeout["connect"]["default"], "500ms");
        assert!(timeout["connect"]["description"].as_str().is_some_and(|text| !text.is_empty()));
    }

    #[test]
    fn every_key_and_table_is_described() {
        super::super::elements::visit_tables(&mut |place, table| {
            assert!(table.doc.ends_with('.'), "{place}: {:?}", table.doc);
            for key in &table.keys {
                assert!(key.doc.ends_with('.'), "{place} {}: {:?}", key.name, key.doc);
                let shows_itself = key.default != Default::None && key.default != Default::Required;
                assert!(shows_itself || key.example.is_some(), "{place} {} has no example", key.name);
            }
        });
    }
}
