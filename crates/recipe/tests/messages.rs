//! Every mistake's message, compared letter by letter. Each file of `tests/messages` holds a recipe and the files
//! beside it, each after a line `@@ name` (of a link `@@ name -> target`, of a file of zeros
//! `@@ name with a hole of bytes: 1000`), and at its end what is said about them. `UPDATE_MESSAGES=1 cargo test`
//! writes what is said now; the change is then there to be read.

use std::fs;
use std::path::Path;

use recipe::{Diagnostics, LoadOptions, load};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/messages");
const SAID: &str = "@@ messages\n";

/// Lays the files of a case into a folder and gives what is said about `recipe.yaml`.
fn said(case: &str, folder: &Path) -> String {
    let (problems, home) = problems(case, folder);
    problems.to_string().replace(&format!("{home}/"), "")
}

/// What is said about `recipe.yaml` of a case, and the folder that it is in.
fn problems(case: &str, folder: &Path) -> (Diagnostics, String) {
    let home = folder.join("home");
    fs::create_dir_all(&home).unwrap();
    fs::write(folder.join("outside.txt"), "out of reach\n").unwrap();
    let mut options = LoadOptions::default();
    for part in case.split("@@ ").skip(1) {
        let (name, text) = part.split_once('\n').unwrap();
        if let Some((name, value)) = name.strip_prefix("--set ").and_then(|set| set.split_once('=')) {
            options.set.push((name.to_owned(), value.to_owned()));
        } else if let Some((link, target)) = name.split_once(" -> ") {
            std::os::unix::fs::symlink(target, home.join(link)).unwrap();
        } else if let Some((name, size)) = name.split_once(" with a hole of bytes: ") {
            fs::File::create(home.join(name)).unwrap().set_len(size.parse().unwrap()).unwrap();
        } else {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    let problems = match load(&home.join("recipe.yaml"), &options) {
        Err(problems) => problems,
        Ok(source) => Diagnostics(source.warnings().to_vec()),
    };
    (problems, home.display().to_string())
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

/// The text of a file from one line and column to another, both from 1, the end exclusive.
fn between(text: &str, from: (u64, u64), to: (u64, u64)) -> String {
    let mut covered = String::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        for (column, letter) in (1..).zip(line.chars()) {
            if (number, column) >= from && (number, column) < to {
                covered.push(letter);
            }
        }
    }
    covered
}

#[test]
fn editors_get_every_place_with_its_end() {
    let mut seen = 0;
    for path in fs::read_dir(CASES).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&path).unwrap();
        let (case, _) = text.split_once(SAID).unwrap_or((&text, ""));
        let folder = tempfile::tempdir().unwrap();
        let (problems, _) = problems(case, folder.path());
        for (json, problem) in problems.to_json().as_array().unwrap().iter().zip(&problems.0) {
            let number = |key: &str| json[key].as_u64().unwrap();
            let (from, to) = ((number("line"), number("column")), (number("end_line"), number("end_column")));
            assert!(recipe::Code::ALL.iter().any(|code| json["code"] == code.as_str()), "{json}");
            assert!(["error", "warning"].contains(&json["severity"].as_str().unwrap()), "{json}");
            if from.0 == 0 {
                assert_eq!(to, (0, 0), "{json}");
                continue;
            }
            let Ok(file) = fs::read_to_string(&problem.file) else { continue };
            let covered = &file[problem.span.clone()];
            assert_eq!(between(&file, from, to).trim_end(), covered.trim_end(), "{json}");
            seen += 1;
        }
    }
    assert!(seen > 150, "only {seen} places were looked at");
}

#[test]
fn more_files_than_a_volume_has_inodes_for() {
    let case = "@@ recipe.yaml\nname: web\nvolumes:\n  - {device: /dev/xvda, root: true, size: 4GiB}\n  \
                - {device: /dev/xvdf, size: 8MiB, filesystem: ext4, source: data}\n";
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("home/data");
    fs::create_dir_all(&data).unwrap();
    for at in 0..17_100 {
        std::os::unix::fs::symlink("nowhere", data.join(at.to_string())).unwrap();
    }
    let (problems, _) = problems(case, folder.path());
    let said = problems.to_string();
    assert!(said.contains("the source of `/dev/xvdf` does not fit the volume"), "{said}");
    assert!(said.contains("there are 17101 files and folders"), "{said}");
}

#[test]
fn the_json_of_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let (problems, home) = problems("@@ recipe.yaml\nname: web\nmtod: {}\n", folder.path());
    let expected = serde_json::json!([{
        "file": format!("{home}/recipe.yaml"), "line": 2, "column": 1, "end_line": 2, "end_column": 5, "start": 10,
        "end": 14, "severity": "error", "code": "unknown-key", "message": "unknown key `mtod`",
        "label": "not a key of a recipe", "notes": [], "help": "did you mean `motd`?",
    }]);
    assert_eq!(problems.to_json(), expected);
}
