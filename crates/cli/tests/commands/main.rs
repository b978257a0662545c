//! The commands that bake nothing, as a user meets them.
#![allow(clippy::print_stdout, reason = "a test says what it left out")]

mod diff;
mod image;
mod init;
mod looks;
mod pages;
mod shapes;
mod store;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The program, in a folder, with an environment that says nothing about colours.
fn bakehouse(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
    command.args(arguments).current_dir(folder).env("BAKEHOUSE_CACHE", folder.join("cache"));
    command.env("BAKEHOUSE_STORE", folder.join("store"));
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "CI"] {
        command.env_remove(name);
    }
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    bakehouse(folder, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}

/// The workspace's own files.
fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A folder with the example and its base, and no lock.
fn example() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("base")).unwrap();
    for name in ["hello-web.yaml", "base/debian-13.yaml"] {
        std::fs::copy(workspace("recipes").join(name), folder.path().join(name)).unwrap();
    }
    folder
}
