//! Images of another architecture: programs of theirs run as this machine's own, or emulated, and what comes of both is
//! the same in every file.
//!
//! The namespace must be entered before any thread is started, which the usual test harness does not allow; so this one
//! has its own. It ends with a line `N passed, N failed`. Arguments choose tests by a part of their names;
//! BAKEHOUSE_TEST_LOCK names a lock to keep from one run to the next.
#![allow(clippy::print_stdout, reason = "a test runner tells its results there")]

#[path = "dispatch/bakes.rs"]
mod bakes;
#[path = "dispatch/programs.rs"]
mod programs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = programs::TESTS.len() + bakes::TESTS.len();
    if let Err(error) = sandbox::enter() {
        println!("cannot enter a user namespace: {error}\n0 passed, {tests} failed");
        return ExitCode::FAILURE;
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let (mut passed, mut failed) = (0, 0);
    let mut run = |name: &str, test: &dyn Fn()| {
        if wants(name) {
            let ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
            println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
            if ok { passed += 1 } else { failed += 1 }
        }
    };
    if programs::TESTS.iter().any(|(name, _)| wants(name)) {
        match catch_unwind(programs::Target::make) {
            Ok(target) => programs::TESTS.iter().for_each(|(name, test)| run(name, &|| test(&target))),
            Err(_) => programs::TESTS.iter().for_each(|(name, _)| run(name, &|| panic!("there is no root"))),
        }
    }
    for (name, test) in bakes::TESTS {
        run(name, &test);
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
