//! The reference page of the language, from the same table that files are checked by.

use crate::Code;
use crate::language::{Field, Keys, RECIPE, Shape};

const INTRODUCTION: &str = "\
# The recipe language

Every key with its type, its default, what it means and an example. This page is generated from the table that recipes are checked
by (`cargo xtask generate`); `bakehouse schema` prints the same as a JSON Schema for editors.

A recipe is one YAML file of UTF-8 text, at most 1 MiB. `bakehouse validate RECIPE` looks for mistakes and shows all of them at once.

- **Bases.** `extends` names a recipe to build on. Mappings merge, lists append (an entry with the `name`, `path` or `device` of an inherited one replaces it whole), all else is replaced; `architectures` is replaced,
  too. An empty value (`version:`) takes an inherited one away.
  A base is a file named .yaml or .yml, by a path relative to the file that extends it; it may lie outside of the recipe's folder. Of one
  that lies there and cannot be read as a recipe, nothing is shown.
- **Variables.** `${{ name }}` in any text is replaced by the variable of that name; `$${{` stands for the three characters themselves.
  `name`, `version`, `arch` (`x86_64`) and `debian_arch` (`amd64`) are always there. Keys hold no variables.
- **Sources.** A `source` is a file or folder beside the recipe that names it, never outside of that recipe's folder.
- **Devices.** `/dev/sdf` and `/dev/xvdf` are the same device. The root is `/dev/xvda` or `/dev/sda1`, which means the whole disk.

A recipe that uses every key:

";

/// The reference page of the recipe language, as Markdown.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str(&format!("```yaml\n{}```\n\n", example(&RECIPE)));
    page.push_str("## Keys of a recipe\n\n");
    page.push_str(&table(&RECIPE, |field| format!("[`{0}`](#{0})", field.name), false));
    for field in RECIPE.fields {
        page.push_str(&format!("\n### {}\n\n{}\n", field.name, sentence(field)));
        page.push_str(&format!("\n```yaml\n{}```\n", line(field)));
        if let Some(keys) = keys_of(&field.shape) {
            page.push_str(&mapping(keys));
            for inner in keys.fields {
                if let Some(keys) = keys_of(&inner.shape).filter(|keys| !keys.fields.is_empty()) {
                    page.push_str(&format!("\n#### {}: {}\n", field.name, inner.name));
                    page.push_str(&mapping(keys));
                }
            }
        }
    }
    page.push_str(
        "\n## Codes of messages\n\nEach message of `bakehouse validate --json` has one as `code`.\n\n",
    );
    page.push_str("| code | what it is about |\n| --- | --- |\n");
    for code in Code::ALL {
        page.push_str(&format!("| `{}` | {} |\n", code.as_str(), cell(code.what())));
    }
    page
}

/// The mapping that a value is, or that each entry of a list is.
fn keys_of(shape: &'static Shape) -> Option<&'static Keys> {
    match shape {
        Shape::Keys(keys) => Some(keys),
        Shape::List(shape) => keys_of(shape),
        _ => None,
    }
}

/// What is told of a mapping's keys below its heading; nothing where people choose all of them.
fn mapping(keys: &'static Keys) -> String {
    if keys.fields.is_empty() {
        return String::new();
    }
    let about = match (keys.one_of, keys.others) {
        (true, _) => format!("Keys of {}, exactly one of them:", keys.what),
        (_, Some(_)) => format!("Keys of {}, beside those that you choose:", keys.what),
        _ => format!("Keys of {}:", keys.what),
    };
    format!("\n{about}\n\n{}", table(keys, |field| format!("`{}`", field.name), true))
}

fn table(keys: &'static Keys, name: impl Fn(&Field) -> String, examples: bool) -> String {
    let mut text = String::from("| key | type | default | meaning |");
    text.push_str(if examples {
        " example |\n| --- | --- | --- | --- | --- |\n"
    } else {
        "\n| --- | --- | --- | --- |\n"
    });
    for field in keys.fields {
        let default = if field.required { "**needed**" } else { field.default };
        let meaning = field.doc.replace('<', "&lt;");
        let columns = [name(field), kind(&field.shape), default.to_owned(), meaning];
        text.push_str(&format!("| {}", columns.map(|column| cell(&column)).join(" | ")));
        if examples {
            text.push_str(&format!(" | `{}`", cell(line(field).trim_end())));
        }
        text.push_str(" |\n");
    }
    text
}

/// What a key takes, its default and its meaning, as a paragraph.
fn sentence(field: &Field) -> String {
    let default = match (field.required, field.default) {
        (true, _) => "Needed. ".to_owned(),
        (_, "") => String::new(),
        (_, default) => format!("Default: {default}. "),
    };
    let kind = kind(&field.shape);
    let mut letters = kind.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}. {default}{}", letters.as_str(), field.doc).replace('<', "&lt;")
}

fn kind(shape: &Shape) -> String {
    match shape {
        Shape::Text(_) => "text".to_owned(),
        Shape::Number(least, most) => format!("whole number, {least} to {most}"),
        Shape::Truth => "`true` or `false`".to_owned(),
        Shape::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Shape::List(Shape::Choice(words)) => format!("list of {}", kind(&Shape::Choice(words))),
        Shape::List(Shape::Keys(_)) => "list of mappings".to_owned(),
        Shape::List(_) => "list of texts".to_owned(),
        Shape::Keys(_) => "mapping".to_owned(),
    }
}

/// All keys with their examples.
fn example(keys: &Keys) -> String {
    keys.fields.iter().map(line).collect()
}

/// A key with its example, ending in a line break.
fn line(field: &Field) -> String {
    let space = if field.example.starts_with('\n') { "" } else { " " };
    format!("{}:{space}{}\n", field.name, field.example)
}

/// A text that a table's cell can hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::SourceFile;
    use crate::language::check_structure;
    use crate::yaml;

    fn every_field(keys: &'static Keys, found: &mut Vec<&'static Field>) {
        for field in keys.fields {
            found.push(field);
            if let Some(keys) = keys_of(&field.shape) {
                every_field(keys, found);
            }
        }
    }

    #[test]
    fn each_example_is_what_its_key_takes() {
        let mut fields = Vec::new();
        every_field(&RECIPE, &mut fields);
        assert!(fields.len() > 60);
        for field in fields {
            let (text, mut problems) = (line(field), Vec::new());
            assert!(field.doc.ends_with('.') && !field.default.ends_with('.'), "{text}");
            let file =
                Arc::new(SourceFile { name: "example".into(), folder: None, text, depth: 0, outside: false });
            let node = yaml::parse(&file, &mut problems).unwrap();
            let value = node.get(field.name).unwrap().clone();
            check_structure(value, &field.shape, field.name, &mut problems);
            assert!(problems.is_empty(), "{problems:#?}");
        }
    }

    #[test]
    fn the_opening_example_is_a_good_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.yaml");
        std::fs::write(&path, example(&RECIPE)).unwrap();
        let source = crate::load(&path, &crate::LoadOptions::default()).unwrap();
        assert_eq!(source.warnings(), []);
    }
}
