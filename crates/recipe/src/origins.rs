//! Where each value of a recipe comes from.

use std::path::PathBuf;

use serde::Serialize;

use crate::diagnostic::Span;
use crate::language;
use crate::model::Recipe;
use crate::yaml::{Node, Value};

/// One value of a recipe, bases merged and variables put in, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValueOrigin {
    /// Its place in the recipe: `web.root`, `packages[2]`, `volumes[0].size`.
    pub key: String,
    /// Its text.
    pub value: String,
    /// The file that says so, by the name that messages use: a path, `builtin:…` or `--set`; `None`: nobody does, it is
    /// the language's default.
    pub file: Option<PathBuf>,
    /// The line there, counted from 1; 0 for a default.
    pub line: usize,
    /// The column there in characters, counted from 1; 0 for a default.
    pub column: usize,
}

impl ValueOrigin {
    fn at(key: String, value: String, span: &Span) -> Self {
        let (line, column) = span.position();
        Self { key, value, file: Some(span.file().to_owned()), line, column }
    }

    fn default(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), file: None, line: 0, column: 0 }
    }
}

/// The values of a merged recipe, whose keys are in several trees, variables put in, in the order of the language's keys.
/// Entries that have no effect, because a later one drops them or takes their place, are left out. The language's
/// defaults stand at the end.
pub(crate) fn origins(trees: &[Node], recipe: &Recipe) -> Vec<ValueOrigin> {
    let mut values = Vec::new();
    for field in language::RECIPE.fields {
        let Some(node) = trees.iter().find_map(|tree| tree.get(field.name)) else { continue };
        match (&node.value, spans(recipe, field.name)) {
            (Value::List(items), Some(used)) => {
                let effective = items.iter().filter(|item| used.iter().any(|span| within(span, &item.span)));
                for (index, item) in effective.enumerate() {
                    walk(&format!("{}[{index}]", field.name), item, &mut values);
                }
            }
            _ => walk(field.name, node, &mut values),
        }
    }
    defaults(trees, recipe, &mut values);
    values
}

/// The places of a list's entries that count; `None` for keys whose entries all do.
fn spans<'r>(recipe: &'r Recipe, key: &str) -> Option<Vec<&'r Span>> {
    Some(match key {
        "packages" => recipe.packages.iter().map(|package| &package.span).collect(),
        "files" => recipe.files.iter().map(|file| &file.span).collect(),
        "users" => recipe.users.iter().map(|user| &user.span).collect(),
        "volumes" => recipe.volumes.iter().map(|volume| &volume.span).collect(),
        _ => return None,
    })
}

fn within(inner: &Span, outer: &Span) -> bool {
    let (inner_range, outer_range) = (inner.range(), outer.range());
    inner.source() == outer.source()
        && outer_range.start <= inner_range.start
        && inner_range.end <= outer_range.end
}

fn walk(key: &str, node: &Node, values: &mut Vec<ValueOrigin>) {
    match &node.value {
        Value::Scalar(scalar) if !node.is_null() => {
            values.push(ValueOrigin::at(key.to_owned(), scalar.text.clone(), &node.span));
        }
        Value::Scalar(_) | Value::Wrong => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{key}[{index}]"), item, values);
            }
        }
        Value::Map(entries) => {
            for (name, node) in entries {
                walk(&format!("{key}.{}", name.text), node, values);
            }
        }
    }
}

fn defaults(trees: &[Node], recipe: &Recipe, values: &mut Vec<ValueOrigin>) {
    let on = |truth: bool| if truth { "true" } else { "false" }.to_owned();
    let mut found = Vec::new();
    let mut add = |key: &str, value: String| {
        let said = trees.iter().any(|tree| {
            let mut node = Some(tree);
            for part in key.split('.') {
                node = node.and_then(|node| node.get(part));
            }
            node.is_some()
        });
        if !said {
            found.push(ValueOrigin::default(key, value));
        }
    };
    let distribution = &recipe.distribution;
    add("architectures", "[x86_64, aarch64]".into());
    add("distribution.family", distribution.family.as_str().into());
    add("distribution.suite", distribution.suite.clone());
    add("distribution.components", format!("[{}]", distribution.components.join(", ")));
    add("distribution.updates", on(distribution.updates));
    add("distribution.security", on(distribution.security));
    add("kernel", "cloud".into());
    add("recommends", on(recipe.recommends));
    if let Some(web) = &recipe.web {
        add("web.root", web.root.clone());
    }
    add("image.boot_mode", recipe.image.boot_mode.as_str().into());
    add("image.imds", recipe.image.imds.clone().unwrap_or_else(|| "optional".into()));
    add("image.ena", on(recipe.image.ena));
    if !trees.iter().any(|tree| tree.get("volumes").is_some_and(|node| !node.items().is_empty())) {
        for volume in &recipe.volumes {
            let size = format!("{}GiB", volume.size_gib());
            found.push(ValueOrigin::default("volumes[0].device", volume.device.as_str()));
            found.push(ValueOrigin::default("volumes[0].root", on(volume.root)));
            found.push(ValueOrigin::default("volumes[0].size", size));
        }
    }
    values.append(&mut found);
}
