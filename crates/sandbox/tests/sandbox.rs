//! Runs real programs in real namespaces. The namespace must be entered before any thread is started, which the usual
//! test harness does not allow; so this one has its own.
#![allow(clippy::print_stdout, reason = "a test runner tells its results there")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

use sandbox::{Exit, Input, Sandbox, SandboxError};

/// What a test ends with when the machine lacks something that it needs.
struct Skipped(String);

type Outcome = Result<(), Skipped>;

/// A root folder that borrows the host's programs.
struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["usr", "etc", "root", "var", "proc", "sys", "dev", "tmp", "run"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for (name, target) in
            [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
        {
            symlink(target, folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn sandbox(&self) -> Sandbox {
        Sandbox::new(self.path()).bind(Path::new("/usr"), "/usr", true)
    }
}

fn run(sandbox: &Sandbox, argv: &[&str]) -> (Result<Exit, SandboxError>, String) {
    let mut output = Vec::new();
    let exit = sandbox.run(argv, Input::Null, &mut |bytes| output.extend_from_slice(bytes));
    (exit, String::from_utf8_lossy(&output).into_owned())
}

/// Runs a shell script that must succeed.
fn shell(sandbox: &Sandbox, script: &str) -> String {
    let (exit, output) = run(sandbox, &["sh", "-ec", script]);
    let exit = exit.unwrap();
    assert!(exit.success(), "{exit}: {output}");
    assert_eq!(exit.notes, Vec::<String>::new());
    output
}

fn programs_run_as_root() -> Outcome {
    let root = Root::new();
    assert_eq!(shell(&root.sandbox(), "id -u; id -g; id -G; umask; pwd"), "0\n0\n0\n0022\n/\n");
    Ok(())
}

fn main() -> ExitCode {
    if let Err(error) = sandbox::enter() {
        println!("cannot enter a user namespace: {error}");
        println!("0 passed, 1 failed");
        return ExitCode::FAILURE;
    }
    let tests: [(&str, fn() -> Outcome); 1] = [("programs_run_as_root", programs_run_as_root)];
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        match std::panic::catch_unwind(test) {
            Ok(Ok(())) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Err(Skipped(reason))) => {
                skipped += 1;
                println!("test {name} ... SKIPPED: {reason}");
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    if skipped > 0 {
        println!("{skipped} skipped");
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
