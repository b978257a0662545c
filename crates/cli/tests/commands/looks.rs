//! What people and other programs see: text, colours, JSON, closed pipes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json as value;

use crate::shapes::assert_documented;
use crate::{bakehouse, example, json, run, text};

const ESCAPE: char = '\u{1b}';

#[test]
fn explain_tells_where_each_value_stands() {
    let folder = example();
    let arguments = ["explain", "hello-web.yaml", "--arch", "x86_64", "--set", "greeting=Hi", "--json"];
    let output = run(folder.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = json(&output);
    assert_documented("bakehouse explain", &told);
    let place = |key: &str| {
        let values = told["values"].as_array().unwrap();
        let found = values.iter().find(|value| value["key"] == key).unwrap_or_else(|| panic!("{key}"));
        (found["value"].clone(), found["file"].clone(), found["line"].clone())
    };
    let at = |path: &str, start: &str| {
        let text = fs::read_to_string(folder.path().join(path)).unwrap();
        text.lines().position(|line| line.trim_start().starts_with(start)).unwrap() + 1
    };
    let recipe = "hello-web.yaml";
    assert_eq!(place("vars.greeting"), (value!("Hi"), value!("--set"), value!(1)));
    assert_eq!(
        place("web.index.html"),
        (value!("<h1>Hi</h1>"), value!(recipe), value!(at(recipe, "index.html")))
    );
    let base = "base/debian-13.yaml";
    assert_eq!(place("packages[0]"), (value!("apt"), value!(base), value!(at(base, "- apt "))));
    assert_eq!(place("kernel"), (value!("cloud"), value!(null), value!(0)));
    assert_eq!(told["lock"]["reason"], "there is no lock yet");

    let shown = text(&run(folder.path(), &arguments[..6]).stdout);
    let line = shown.lines().find(|line| line.contains("vars.greeting")).unwrap();
    assert!(line.ends_with("--set"), "{line}");
    assert!(!shown.contains(ESCAPE));
}

#[test]
fn what_a_later_file_drops_or_replaces_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("base.yaml", "name: base\npackages: [curl, vim]\nfiles: [{path: /etc/a, content: old}]\n");
    write(
        "child.yaml",
        "name: child\nextends: base.yaml\npackages: [-vim]\nfiles: [{path: /etc/a, content: new}]\n",
    );
    let told = json(&run(folder.path(), &["explain", "child.yaml", "--arch", "x86_64", "--json"]));
    let values = told["values"].as_array().unwrap();
    let of = |start: &str| -> Vec<_> {
        let named = values.iter().filter(|value| value["key"].as_str().unwrap().starts_with(start));
        named
            .map(|value| format!("{}={}", value["key"].as_str().unwrap(), value["value"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(of("packages"), ["packages[0]=curl"]);
    assert_eq!(of("files"), ["files[0].path=/etc/a", "files[0].content=new"]);
}

#[test]
fn json_has_one_shape_whether_it_went_well_or_not() {
    let folder = example();
    let good = run(folder.path(), &["validate", "hello-web.yaml", "--json"]);
    assert!(good.status.success());
    assert_eq!(json(&good), value!({"recipe": "hello-web.yaml", "ok": true, "problems": []}));
    fs::write(folder.path().join("bad.yaml"), "name: bad\npackges: [curl]\n").unwrap();
    let bad = run(folder.path(), &["validate", "bad.yaml", "--json"]);
    assert_eq!(bad.status.code(), Some(2));
    assert_documented("bakehouse validate", &json(&bad));
    let failed = run(folder.path(), &["explain", "bad.yaml", "--json"]);
    assert_eq!(failed.status.code(), Some(2));
    assert_documented("When it fails", &json(&failed));
    let none = run(folder.path(), &["check", "nowhere", "--json"]);
    let told = json(&none);
    assert_eq!(none.status.code(), Some(2), "{told}");
    assert_eq!(told["error"]["kind"], "mistake");
}

#[test]
fn colours_obey_the_environment() {
    let folder = example();
    fs::write(folder.path().join("bad.yaml"), "name: bad\npackges: [curl]\n").unwrap();
    let coloured = |variables: &[(&str, &str)], terminal: bool| {
        let mut command = bakehouse(folder.path(), &["validate", "bad.yaml"]);
        if terminal {
            let program = env!("CARGO_BIN_EXE_bakehouse");
            let mut script = Command::new("script");
            script.args(["-q", "-e", "-c", &format!("{program} validate bad.yaml"), "/dev/null"]);
            script.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("TERM", "xterm");
            script.current_dir(folder.path()).stdin(Stdio::null());
            command = script;
        }
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert!(shown.contains("packges"), "{shown}");
        shown.contains(ESCAPE)
    };
    assert!(!coloured(&[], false));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")], false));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false));
    assert!(!coloured(&[("CLICOLOR_FORCE", "0")], false));
    if Command::new("script").arg("--version").output().is_err() {
        workbench::left_out("no `script` to make a terminal with: colours were looked at in a pipe only");
        return;
    }
    assert!(coloured(&[], true));
    assert!(!coloured(&[("NO_COLOR", "1")], true));
    assert!(!coloured(&[("CLICOLOR", "0")], true));
    assert!(!coloured(&[("TERM", "dumb")], true));
}

/// Runs a command whose standard output, or error, nobody reads.
fn with_closed(folder: &Path, arguments: &[&str], errors: bool) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bakehouse(folder, arguments);
    if errors {
        command.stderr(writer).stdout(Stdio::piped());
    } else {
        command.stdout(writer).stderr(Stdio::piped());
    }
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_reader_who_has_gone_is_no_failure() {
    let folder = example();
    for arguments in [
        &["schema"][..],
        &["explain", "hello-web.yaml", "--arch", "x86_64"],
        &["completions", "bash"],
        &["--help"],
        &["validate", "hello-web.yaml", "--json"],
    ] {
        let (code, said) = with_closed(folder.path(), arguments, false);
        assert_eq!(code, Some(0), "{arguments:?}");
        assert!(!said.contains("error") && !said.contains("panicked"), "{said}");
    }
    assert_eq!(with_closed(folder.path(), &["validate", "hello-web.yaml"], true), (Some(0), String::new()));
    assert_eq!(with_closed(folder.path(), &["validate", "none.yaml"], true), (Some(2), String::new()));
}
