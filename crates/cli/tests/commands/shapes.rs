//! What `--json` prints, held against the examples of docs/json.md.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// Says where a printed object has another shape than the example of its command in docs/json.md: other keys, or
/// values of another type. What is null in one of them may be anything in the other.
pub(crate) fn assert_documented(command: &str, printed: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md");
    let text = std::fs::read_to_string(path).unwrap();
    let heading = format!("\n## `{command}`\n");
    let (_, section) = text.split_once(&heading).unwrap_or_else(|| panic!("no section{heading}"));
    let (_, example) = section.split_once("\n```json\n").expect("an example");
    let (example, _) = example.split_once("\n```").expect("the example's end");
    let example: Value = serde_json::from_str(example).unwrap();
    let (documented, found) = (shape(&example), shape(printed));
    for (key, kind) in &found {
        let known = documented.get(key).unwrap_or_else(|| panic!("{command}: docs/json.md has no {key}"));
        assert!(
            kind == known || [*kind, *known].contains(&"null"),
            "{command}: {key} is {kind}, documented as {known}"
        );
    }
    for key in documented.keys() {
        // What is in a list or below a null says nothing when there is no such thing.
        let absent = |above: &str| match found.get(above) {
            Some(kind) => *kind == "null" || (above.ends_with("[]") && !found.contains_key(above)),
            None => true,
        };
        let above = key.rfind(['.', '[']).map_or("", |at| &key[..at]);
        assert!(found.contains_key(key) || key.ends_with("[]") || absent(above), "{command}: has no {key}");
    }
}

/// Every key with the type of its value: `volumes[].size` → `number`.
fn shape(value: &Value) -> BTreeMap<String, &'static str> {
    let mut keys = BTreeMap::new();
    walk("", value, &mut keys);
    keys
}

fn walk(key: &str, value: &Value, keys: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "truth",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    // In a list of several, one that says something says what it is.
    if keys.get(key).is_none_or(|known| *known == "null") {
        keys.insert(key.to_owned(), kind);
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(&format!("{key}[]"), item, keys)),
        Value::Object(entries) => {
            for (name, value) in entries {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                walk(&key, value, keys);
            }
        }
        _ => {}
    }
}
