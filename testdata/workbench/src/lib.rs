//! For tests only: other people's programs that look at what we made, and words that are seen though a test passes.
//!
//! *What comes in:* a program's name, or what a test leaves out. *What goes out:* the program from the folders in
//! `BAKEHOUSE_TOOLS_PATH`, which `cargo xtask test` sets, else from `PATH`. *What it may not do:* be part of the program.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Where a program is: in a folder of `BAKEHOUSE_TOOLS_PATH`, of `PATH`, or of those that only root has in it.
pub fn find(name: &str) -> Option<PathBuf> {
    let listed = ["BAKEHOUSE_TOOLS_PATH", "PATH"].into_iter().filter_map(std::env::var_os);
    let folders = listed.flat_map(|list| std::env::split_paths(&list).collect::<Vec<_>>());
    folders
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// A program that the test cannot do without, in no language and no time zone of this machine's.
pub fn tool(name: &str) -> Command {
    let found = find(name);
    let missing = || panic!("the program `{name}` is missing: run `cargo xtask test`, which provides it");
    let mut command = Command::new(found.unwrap_or_else(missing));
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command
}

/// Runs a program to its end; its standard output. Panics with all that it said when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A line that is seen: what `println!` and `eprintln!` say is kept back while a test passes.
pub fn say(line: &str) {
    // Nobody is left to be told when that is closed.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Tells that a test, or a part of one, was left out, and why.
pub fn left_out(why: &str) {
    say(&format!("SKIPPED: {why}"));
}
