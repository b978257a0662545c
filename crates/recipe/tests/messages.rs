//! Every mistake's message, compared letter by letter. Each file of `tests/messages` holds a recipe and the files
//! beside it, each after a line `@@ name`, and at its end what is said about them. `UPDATE_MESSAGES=1 cargo test`
//! writes what is said now; the change is then there to be read.

use std::fs;
use std::path::Path;

use recipe::{Diagnostics, LoadOptions, load};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/messages");
const SAID: &str = "@@ messages\n";

/// Lays the files of a case into a folder and gives what is said about `recipe.yaml`.
fn said(case: &str, folder: &Path) -> String {
    let home = folder.join("home");
    fs::create_dir(&home).unwrap();
    fs::write(folder.join("outside.txt"), "out of reach\n").unwrap();
    let mut options = LoadOptions::default();
    for part in case.split("@@ ").skip(1) {
        let (name, text) = part.split_once('\n').unwrap();
        if let Some((name, value)) = name.strip_prefix("--set ").and_then(|set| set.split_once('=')) {
            options.set.push((name.to_owned(), value.to_owned()));
        } else if let Some((link, target)) = name.split_once(" -> ") {
            std::os::unix::fs::symlink(target, home.join(link)).unwrap();
        } else {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    let said = match load(&home.join("recipe.yaml"), &options) {
        Err(problems) => problems.to_string(),
        Ok(source) => Diagnostics(source.warnings().to_vec()).to_string(),
    };
    said.replace(&format!("{}/", home.display()), "")
}

#[test]
fn every_mistake_is_told_as_it_should_be() {
    let update = std::env::var_os("UPDATE_MESSAGES").is_some();
    let mut cases: Vec<_> = fs::read_dir(CASES).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 30, "the cases are gone");
    let mut wrong = Vec::new();
    for path in cases {
        let text = fs::read_to_string(&path).unwrap();
        let (case, expected) = text.split_once(SAID).unwrap_or((&text, ""));
        let folder = tempfile::tempdir().unwrap();
        let now = said(case, folder.path());
        if update {
            fs::write(&path, format!("{case}{SAID}{now}")).unwrap();
        } else if now != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- said\n{now}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
