//! `init`: the beginnings of a recipe's repository.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::DONE;
use crate::arguments::InitArguments;
use crate::terminal::say;

/// The recipe that is written; its name is put in for this one.
const RECIPE: &str = include_str!("init.yaml");
const WORKFLOW: &str = include_str!("../../../docs/ci/bake.yml");
const NAME: &str = "my-image";
/// Beside the recipe, where its first line leads editors; a copy of one's own works without a network, for everybody
/// who has the repository.
const SCHEMA: &str = "recipe.schema.json";
const WORKFLOW_FILE: &str = ".github/workflows/bake.yml";

/// Something is in the way.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(crate) struct Refused {
    pub(crate) path: PathBuf,
    pub(crate) reason: &'static str,
}

/// A file that is to be written.
struct Planned {
    path: PathBuf,
    text: String,
    what: &'static str,
}

/// `bakehouse init`: everything is looked at before anything is written, and nothing is overwritten.
pub(crate) fn init(arguments: &InitArguments) -> Result<u8> {
    let place = arguments.place.clone().unwrap_or_else(|| PathBuf::from("."));
    let (folder, recipe, name) = names(&place)?;
    let mut plan = Vec::new();
    if recipe.symlink_metadata().is_err() {
        let text = RECIPE.replace(NAME, &name);
        plan.push(Planned { path: recipe.clone(), text, what: "the recipe, with examples" });
        let text = serde_json::to_string_pretty(&recipe::schema())? + "\n";
        let path = folder.join(SCHEMA);
        plan.push(Planned { path, text, what: "teaches your editor the language" });
        let text = "# What bakes leave. The lock stays in the repository.\n/out/\n".to_owned();
        plan.push(Planned {
            path: folder.join(".gitignore"),
            text,
            what: "keeps outputs out of the repository",
        });
        // These may be there for another recipe, or for reasons of their own.
        plan.retain(|file| file.path == recipe || file.path.symlink_metadata().is_err());
    } else if !arguments.ci {
        let reason = "is there already and stays as it is: name another file or folder";
        return Err(Refused { path: recipe, reason }.into());
    }
    if arguments.ci {
        let top = repository(&folder)?;
        let path = shown(top.join(WORKFLOW_FILE));
        if path.symlink_metadata().is_ok() {
            let reason =
                "is there already and stays as it is: add the steps of its job for this recipe by hand";
            return Err(Refused { path, reason }.into());
        }
        let inside = plain(&std::path::absolute(&recipe)?);
        let inside = inside.strip_prefix(&top).unwrap_or(&recipe).with_extension("");
        let shown = inside.to_string_lossy().into_owned();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if !shown.chars().all(is_plain) || shown.starts_with('-') {
            let reason = "has characters in its path that a workflow's shell or expressions would take for their own: use letters, \
                          digits, `-`, `_` and `.`";
            return Err(Refused { path: recipe, reason }.into());
        }
        let text =
            WORKFLOW.replace(&format!("name: {NAME}-"), &format!("name: {name}-")).replace(NAME, &shown);
        plan.push(Planned { path, text, what: "bakes and checks on every push" });
    }
    for file in &plan {
        write(file)?;
        say(format!("wrote {}: {}", file.path.display(), file.what));
    }
    let recipe = block::shell_word(&recipe.to_string_lossy());
    // Else it would be taken for an option.
    let recipe = if recipe.starts_with('-') { format!("./{recipe}") } else { recipe };
    say(format!("\nNext:\n  bakehouse validate {recipe}\n  bakehouse bake {recipe}"));
    if arguments.ci {
        say("and commit the lock that the first bake writes beside the recipe: the workflow insists on it");
    }
    Ok(DONE)
}

/// The folder, the recipe's file in it, and the name that follows from where it is.
fn names(place: &Path) -> Result<(PathBuf, PathBuf, String)> {
    let ending = place.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    if let Some("txt" | "json" | "toml") = ending.as_deref()
        && !place.is_dir()
    {
        return Err(
            Refused { path: place.to_owned(), reason: "is no recipe's name: recipes end in .yaml" }.into()
        );
    }
    let is_file = matches!(ending.as_deref(), Some("yaml" | "yml"));
    if is_file && !place.is_dir() {
        let folder = place.parent().unwrap_or(Path::new(""));
        let name = recipe_name(&place.file_stem().unwrap_or_default().to_string_lossy());
        return Ok((folder.to_owned(), place.to_owned(), name));
    }
    if place.is_file() {
        let reason = "is a file, and no recipe's name: recipes end in .yaml";
        return Err(Refused { path: place.to_owned(), reason }.into());
    }
    let whole = std::path::absolute(place).with_context(|| format!("cannot find {}", place.display()))?;
    let whole = whole.canonicalize().unwrap_or_else(|_| plain(&whole));
    let name = recipe_name(&whole.file_name().unwrap_or_default().to_string_lossy());
    // `./` before a name says nothing.
    let folder = if place == Path::new(".") { PathBuf::new() } else { place.to_owned() };
    let recipe = folder.join(format!("{name}.yaml"));
    Ok((folder, recipe, name))
}

/// A path without `.` and `..`, by name alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// A path as people here would write it.
fn shown(path: PathBuf) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).map(Path::to_owned).unwrap_or(path)
}

/// A name that the recipe language takes.
fn recipe_name(text: &str) -> String {
    let letter = |c| if matches!(c, 'a'..='z' | '0'..='9' | '.' | '-') { c } else { '-' };
    let name: String = text.to_lowercase().chars().map(letter).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { NAME.to_owned() } else { name.to_owned() }
}

/// The top of the git repository that a folder is in; else the folder itself.
fn repository(folder: &Path) -> Result<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = std::path::absolute(folder).with_context(|| format!("cannot find {}", folder.display()))?;
    let folder = folder.components().collect::<PathBuf>();
    Ok(folder.ancestors().find(|above| above.join(".git").exists()).unwrap_or(&folder).to_owned())
}

fn write(file: &Planned) -> Result<()> {
    let cannot = || format!("cannot write {}", file.path.display());
    if let Some(folder) = file.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(cannot)?;
    }
    match File::create_new(&file.path).and_then(|mut to| to.write_all(file.text.as_bytes())) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Refused { path: file.path.clone(), reason: "came to be meanwhile, and stays as it is" }
                .into())
        }
        result => result.with_context(cannot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a recipe's text and reads it as the program does.
    fn mistakes(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("files")).unwrap();
        let path = folder.path().join("my-image.yaml");
        fs::write(&path, text).unwrap();
        match recipe::load(&path, &recipe::LoadOptions::default()) {
            Ok(source) => recipe::Diagnostics(source.warnings().to_vec()).to_string(),
            Err(diagnostics) => diagnostics.to_string(),
        }
    }

    #[test]
    fn the_recipe_has_no_mistakes_and_neither_have_its_examples() {
        assert_eq!(mistakes(RECIPE), "");
        // Prose has one blank after its #, an example has none, or its own indentation.
        let is_example = |line: &str| {
            line.starts_with('#') && (line.starts_with("#  ") || !line.starts_with("# ")) && line.len() > 1
        };
        assert!(RECIPE.lines().filter(|line| is_example(line)).count() > 15);
        let all: Vec<_> =
            RECIPE.lines().map(|line| if is_example(line) { &line[1..] } else { line }).collect();
        assert_eq!(mistakes(&all.join("\n")), "");
    }

    #[test]
    fn names_follow_from_places() {
        assert_eq!(recipe_name("My Web_Server"), "my-web-server");
        assert_eq!(recipe_name("…"), "my-image");
        let (folder, recipe, name) = names(Path::new("images/shop.yaml")).unwrap();
        assert_eq!((folder, recipe), (PathBuf::from("images"), PathBuf::from("images/shop.yaml")));
        assert_eq!(name, "shop");
        let (_, recipe, name) = names(Path::new("images/Shop")).unwrap();
        assert_eq!((recipe, name.as_str()), (PathBuf::from("images/Shop/shop.yaml"), "shop"));
        let (_, recipe, name) = names(Path::new("gone/below/..")).unwrap();
        assert_eq!((recipe, name.as_str()), (PathBuf::from("gone/below/../gone.yaml"), "gone"));
        let (_, recipe, _) = names(Path::new("Shop.YAML")).unwrap();
        assert_eq!(recipe, PathBuf::from("Shop.YAML"));
        assert!(names(Path::new("shop.txt")).is_err());
    }
}
