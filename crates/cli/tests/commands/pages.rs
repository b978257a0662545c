//! Completions and manual pages.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::{bakehouse, run, text, workspace};

#[test]
fn completions_are_scripts_that_their_shells_read() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(folder.path(), &["completions", shell]);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("bake"));
        let mut command = Command::new(shell);
        match command.arg("-n").stdin(Stdio::piped()).spawn() {
            Ok(mut reader) => {
                reader.stdin.take().unwrap().write_all(&output.stdout).unwrap();
                assert!(reader.wait().unwrap().success(), "{shell}");
            }
            Err(error) => workbench::left_out(&format!("{shell} did not read its completions: {error}")),
        }
    }
    // What bash would offer.
    let script = "source <(\"$0\" completions bash); COMP_WORDS=(bakehouse ba); COMP_CWORD=1; \
                  _bakehouse bakehouse ba bakehouse; echo \"${COMPREPLY[@]}\"";
    let offered =
        Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_bakehouse")]).output().unwrap();
    assert_eq!((text(&offered.stdout), text(&offered.stderr)), ("bake\n".into(), String::new()));
}

#[test]
fn manual_pages_are_those_of_the_repository_and_format_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    let output = bakehouse(folder.path(), &["man".as_ref(), pages.as_os_str()]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (mut count, mut lacking) = (0, None);
    for entry in fs::read_dir(&pages).unwrap() {
        let path = entry.unwrap().path();
        count += 1;
        let there = workspace("docs/man").join(path.file_name().unwrap());
        assert!(fs::read(&there).ok() == fs::read(&path).ok(), "{there:?}: run `cargo xtask generate`");
        match Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&path).output() {
            Ok(output) => assert_eq!(text(&output.stderr), "", "{path:?}"),
            Err(error) => lacking = Some(error),
        }
    }
    if let Some(error) = lacking {
        workbench::left_out(&format!("groff did not format the manual pages: {error}"));
    }
    assert_eq!(count, fs::read_dir(workspace("docs/man")).unwrap().count());
    assert!(count > 10);
}
